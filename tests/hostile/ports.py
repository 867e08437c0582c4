# A datagram to every port, then one from thousands.
learn_gateway()


def push(s, to):
    while True:
        try:
            return s.sendto(b'x', to)
        except OSError:
            pass  # an ICMP error about one before, or no room for now


one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for port in range(1, 65536):
    push(one, (FAR, port))
    if port % AT_ONCE == 0:
        barrier()
for n in range(5000):
    if n % AT_ONCE == 0:
        barrier()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        push(s, ('198.18.1.77', 9))
print('%.0f ms until it works' % works(), flush=True)
print('over', flush=True)
sys.stdin.read()
