# More of everything than the budgets allow: 4 half-open connections, 500 frames a second,
# a megabyte that waits.
patiently(tcp)
held = []
for _ in range(20):
    s = socket.socket()
    s.setblocking(False)
    s.connect_ex(('198.18.1.77', 80))
    held.append(s)
waiting, refused, patience = set(held), 0, time.monotonic() + 5
while refused < 16 and time.monotonic() < patience:
    ended = select.select([], list(waiting), [], 1)[1]
    refused += [s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) for s in ended].count(111)
    waiting -= set(ended)
# What has been asked last has its answer, and none has one too many.
refused += [s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) for s in waiting].count(111)
print(refused, 'refused', flush=True)
for s in held:
    s.close()
burst = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for _ in range(2000):
    burst.sendto(b'x', (FAR, ECHO))
works()


def connect():
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    s.settimeout(5)
    s.connect((FAR, ECHO))
    s.setblocking(False)
    return s


# They do not read what comes back.
held = [patiently(connect) for _ in range(150)]
for _ in range(20):
    for s in held:
        try:
            s.send(bytes(4096))
        except OSError:
            pass
    time.sleep(0.05)
for s in held:
    s.close()
works()
print('over', flush=True)
sys.stdin.read()
