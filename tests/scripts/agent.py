# An application in a container: does what it is told on its standard input, one command
# a line, and answers each with its number.
import os, select, socket, struct, sys, time

TABLE = bytes((p * 31 + p // 251 * 7) & 255 for p in range(64256))
TABLE *= 4


def said(side, start, length):
    at = (start + 1000 * side) % 64256
    return TABLE[at:at + min(length, 100000)]


class Connection:
    def __init__(self, sock):
        self.sock = sock
        sock.setblocking(False)
        self.todo = self.sent = self.got = 0
        self.shuts = self.shut = self.broken = False
        self.reads = True
        self.ending = 'none'

    def drive(self):
        while self.todo and not self.broken:
            try:
                n = self.sock.send(said(0, self.sent, self.todo))
            except BlockingIOError:
                break
            except OSError:
                self.broken = True
                break
            self.sent += n
            self.todo -= n
        if self.shuts and not self.shut and not self.todo and not self.broken:
            self.shut = True
            try:
                self.sock.shutdown(socket.SHUT_WR)
            except OSError:
                self.broken = True
        while self.reads and self.ending == 'none':
            try:
                data = self.sock.recv(100000)
            except BlockingIOError:
                break
            except OSError:
                self.ending = 'reset'
                break
            if not data:
                # An error that a write has told is told once.
                self.ending = 'reset' if self.broken else 'inorder'
                break
            if data != said(1, self.got, len(data)):
                print('wrong bytes at', self.got, flush=True)
                sys.exit(1)
            self.got += len(data)


listener = socket.create_server(('', 7000))
connection = None
buffer = b''
count = 0
until = None
print('ready', flush=True)
while True:
    if until is not None or b'\n' not in buffer:
        timeout = 0.002 if connection else None
        ready = select.select([0] if until is None else [], [], [], timeout)[0]
        if ready:
            more = os.read(0, 65536)
            if not more:
                sys.exit(0)
            buffer += more
    if connection:
        connection.drive()
    if until is not None:
        least, most, endings, limit = until
        right = least <= connection.got <= most and connection.ending in endings
        if right or time.monotonic() > limit:
            count += 1
            print('#%d %s %d %s;' % (count, 'ok' if right else 'no', connection.got, connection.ending), flush=True)
            until = None
        continue
    if b'\n' not in buffer:
        continue
    line, buffer = buffer.split(b'\n', 1)
    verb, *words = line.decode().split()
    if verb == 'open':
        connection = Connection(socket.create_connection((words[0], int(words[1])), 20))
    elif verb == 'accept':
        connection = Connection(listener.accept()[0])
    elif verb == 'write':
        connection.todo += int(words[0])
    elif verb == 'reads':
        connection.reads = words[0] == 'true'
    elif verb == 'shut':
        connection.shuts = True
    elif verb in ('reset', 'close'):
        if verb == 'reset':
            connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
        connection.sock.close()
        connection = None
    elif verb == 'until':
        until = int(words[0]), int(words[1]), words[2].split(','), time.monotonic() + float(words[3])
        continue
    count += 1
    print('#%d ok;' % count, flush=True)
