# SYNs to nobody, then to somebody who accepts, as fast as they can be made. `learn_gateway`
# and so on are the player's.
count = int(os.environ['COUNT'])
learn_gateway()


def syn(to, port, at):
    segment = struct.pack('!HHIIBBHHH', port, at, 1000, 0, 0x50, 2, 65535, 0, 0)
    ends = socket.inet_aton(GUEST) + socket.inet_aton(to)
    right = checksum(ends + struct.pack('!HH', 6, 20) + segment)
    segment = segment[:16] + struct.pack('!H', right) + segment[18:]
    head = struct.pack('!BBHHHBBH', 0x45, 0, 40, 0, 0, 64, 6, 0) + ends
    head = head[:10] + struct.pack('!H', checksum(head)) + head[12:]
    return gateway_mac + GUEST_MAC + b'\x08\x00' + head + segment


raw.setblocking(True)
for to, at in (('198.18.1.77', 80), (FAR, ECHO)):
    frames = [syn(to, port, at) for port in range(1000, 20000)]
    print('flood', to, flush=True)
    begin = time.monotonic()
    for n in range(count // 2):
        raw.send(frames[n % len(frames)])
        # The link's queue holds a thousand.
        if n % 500 == 499:
            barrier()
    print('%.1f s to %s' % (time.monotonic() - begin, to), flush=True)
print('%.0f ms until it works' % works(), flush=True)
print('over', flush=True)
sys.stdin.read()
