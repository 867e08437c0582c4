# Connects, one after the other, until its standard input ends; how long each takes. Not
# to the server that is flooded.
import select, socket, sys, time

print('ready', flush=True)
took = []
while not select.select([sys.stdin], [], [], 0.001)[0]:
    begin = time.monotonic()
    with socket.create_connection(('198.18.1.1', 113), 20) as s:
        s.sendall(b'x')
        assert s.recv(1) == b'x'
    took.append('%.3f' % ((time.monotonic() - begin) * 1000))
print(' '.join(took))
