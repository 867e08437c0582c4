# What the container does: it serves ports 7000 and 7010, and for each line "NUMBER ACTION" of its
# input it does something with the network and says "<NUMBER ok>", "<NUMBER error WHY>"
# or "<NUMBER hang>".
import array, errno, os, socket, struct, sys, threading, time

FAR, FAR6 = sys.argv[1:3]
ECHO, SINK, LATE = map(int, sys.argv[3:])
CLOSED, DNS = 9, "10.0.2.3"
# A container is to see within a second what is wrong.
PATIENCE = 1


class Other(Exception):
    pass


def data(count):
    return bytes(range(256)) * (count // 256)


def serve_tcp(connection):
    try:
        with connection:
            while some := connection.recv(1 << 16):
                connection.sendall(some)
    except OSError:
        pass


def serve():
    def accept(listener):
        while True:
            connection = listener.accept()[0]
            # Urgent data is ordinary data here.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
            threading.Thread(target=serve_tcp, args=(connection,), daemon=True).start()

    def answer(udp):
        while True:
            try:
                some, client = udp.recvfrom(1 << 16)
                udp.sendto(some, client)
            except OSError:
                pass

    def read_late(connection):
        try:
            time.sleep(0.1)
            count = 0
            while some := connection.recv(1 << 20):
                count += len(some)
            connection.sendall(b"%010d" % count)
            connection.close()
        except OSError:
            pass

    def accept_late(listener):
        while True:
            threading.Thread(target=read_late, args=listener.accept()[:1], daemon=True).start()

    late = socket.create_server(("0.0.0.0", 7010), backlog=100)
    threading.Thread(target=accept_late, args=(late,), daemon=True).start()
    listener = socket.create_server(("0.0.0.0", 7000), backlog=100)
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind(("0.0.0.0", 7000))
    threading.Thread(target=accept, args=(listener,), daemon=True).start()
    threading.Thread(target=answer, args=(udp,), daemon=True).start()


class Stream:
    def __init__(self, port=ECHO, count=1 << 17):
        self.end = time.monotonic() + PATIENCE
        self.data = data(count)
        self.socket = socket.create_connection((FAR, port), timeout=PATIENCE)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def limit(self):
        self.socket.settimeout(max(self.end - time.monotonic(), 0.001))

    def receive(self, count):
        got = b""
        while len(got) < count:
            self.limit()
            some = self.socket.recv(1 << 16)
            if not some:
                raise Other("early end")
            got += some
        return got

    def exchange(self):
        # Twice: not all events are of the start.
        for part in (self.data[: len(self.data) // 2], self.data[len(self.data) // 2 :]):
            self.limit()
            self.socket.sendall(part)
            if self.receive(len(part)) != part:
                raise Other("other data")

    def finish(self):
        self.socket.shutdown(socket.SHUT_WR)
        self.limit()
        if self.socket.recv(1):
            raise Other("more data")


def tcp():
    with Stream() as stream:
        stream.exchange()
        stream.finish()


def small():
    with Stream(count=512) as stream:
        stream.exchange()
        stream.finish()


def sink():
    with Stream(SINK) as stream:
        stream.socket.sendall(b"x")
        # Long enough for it to be acknowledged without an answer.
        time.sleep(0.06)
        stream.finish()


def slow():
    # Both ends have ended while the other still takes what there was.
    with Stream(LATE, 1 << 19) as stream:
        stream.socket.sendall(stream.data)
        if stream.socket.recv(1):
            raise Other("more data")
    time.sleep(0.06)


def bulk():
    # More than fits: some waits for room on either side.
    with Stream(count=4 << 20) as stream:
        def send():
            try:
                stream.socket.sendall(stream.data)
                stream.socket.shutdown(socket.SHUT_WR)
            except OSError:
                pass
        sender = threading.Thread(target=send)
        sender.start()
        try:
            if stream.receive(len(stream.data)) != stream.data:
                raise Other("other data")
        finally:
            sender.join()


def refused():
    try:
        Stream(port=CLOSED)
    except ConnectionRefusedError:
        return
    raise Other("not refused")


def reset():
    with Stream() as stream:
        stream.exchange()
        stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    # It is on its way now, and nobody answers.
    time.sleep(0.03)


def datagrams(family, to, payloads, port=ECHO, answers=None, segment=0):
    with socket.socket(family, socket.SOCK_DGRAM) as udp:
        if segment:
            udp.setsockopt(17, 103, segment)  # UDP_SEGMENT
        udp.connect((to, port))
        udp.settimeout(0.1)
        # Datagrams may be lost: whoever sends them tries again.
        for _ in range(10):
            for payload in payloads:
                udp.send(payload)
            try:
                if udp.recv(1 << 16) in (answers or payloads):
                    return
            except TimeoutError as error:
                if error.errno:
                    raise
        raise TimeoutError


def udp():
    datagrams(socket.AF_INET, FAR, [b"x"])


def udp6():
    datagrams(socket.AF_INET6, FAR6, [b"x"])


def segments():
    # One frame where the link can carry it: all of its datagrams come in one turn.
    datagrams(socket.AF_INET, FAR, [b"x" * 1000], answers=[b"x" * 200], segment=200)


def burst():
    datagrams(socket.AF_INET, FAR, [b"x" * size for size in (1, 100, 50, 700, 3)] * 20)


def train():
    datagrams(socket.AF_INET, FAR, [b"%03d" % number * 200 for number in range(8)])


def closed():
    try:
        datagrams(socket.AF_INET, FAR, [b"x"], CLOSED)
    except ConnectionRefusedError:
        return
    raise Other("not refused")


def toolong():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.setsockopt(socket.SOL_IP, 10, 3)  # IP_MTU_DISCOVER: whatever is known of the path
        udp.connect((FAR, ECHO))
        udp.settimeout(0.1)
        for _ in range(10):
            try:
                udp.send(b"x" * 3000)
                udp.recv(1 << 16)
                raise Other("not too long")
            except TimeoutError as error:
                if error.errno:
                    raise
            except OSError as error:
                if error.errno == errno.EMSGSIZE:
                    return
                raise
        raise TimeoutError


def checksum(message):
    total = sum(struct.unpack(f"!{len(message) // 2}H", message))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def echo(wanted, ttl=64, to=FAR):
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as raw:
        raw.setsockopt(socket.SOL_IP, socket.IP_TTL, ttl)
        ident = struct.unpack("H", os.urandom(2))[0]
        for sequence in range(10):
            message = struct.pack("!BBHHH", 8, 0, 0, ident, sequence) + b"x" * 20
            message = message[:2] + struct.pack("!H", checksum(message)) + message[4:]
            raw.sendto(message, (to, 0))
            end = time.monotonic() + 0.1
            while (left := end - time.monotonic()) > 0:
                raw.settimeout(left)
                try:
                    packet = raw.recv(2000)[20:]
                except TimeoutError:
                    break
                quoted = packet[8 + 20 :] if packet[0] in (3, 11) else packet
                if packet[0] == 8 or quoted[4:6] != struct.pack("!H", ident):
                    continue
                if packet[0] == wanted:
                    return
                raise Other(f"ICMP {packet[0]}/{packet[1]}")
        raise TimeoutError


def ping():
    echo(0)


def hops():
    echo(11, 2)


def dns():
    # So long an answer of the keeper's holds.
    time.sleep(0.004)
    query = os.urandom(2) + b"\1\0\0\1\0\0\0\0\0\0\4host\4test\0\0\1\0\1"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.connect((DNS, 53))
        udp.settimeout(0.1)
        for _ in range(10):
            udp.send(query)
            try:
                answer = udp.recv(1 << 16)
            except TimeoutError as error:
                if error.errno:
                    raise
                continue
            if answer[3] & 15:
                raise Other(f"code {answer[3] & 15}")
            return
        raise TimeoutError


SLOW = []


def pattern(size):
    places = array.array("I", range(size // 4))
    places.byteswap()
    return places.tobytes()


def slowly(work):
    def guarded():
        try:
            work()
        except Exception as error:
            outcome.append(error)
    outcome = []
    thread = threading.Thread(target=guarded)
    thread.start()
    SLOW.append((thread, outcome))


def slow_outside(port, count, size, _):
    data = pattern(int(size))
    def work():
        with socket.create_connection((FAR, int(port))) as stream:
            stream.sendall(data)
            stream.shutdown(socket.SHUT_WR)
            answer = stream.recv(100)
            if answer != b"intact":
                raise Other(answer)
    for _ in range(int(count)):
        slowly(work)


def slow_inside(port, count, size, stall):
    data = pattern(int(size))
    def work():
        with socket.create_connection((FAR, int(port))) as stream:
            time.sleep(int(stall) / 1000)
            got = b""
            while some := stream.recv(1 << 20):
                got += some
            if got != data:
                raise Other(f"{len(got)} bytes, not the same")
    for _ in range(int(count)):
        slowly(work)


def slow_end():
    while SLOW:
        thread, outcome = SLOW.pop()
        thread.join()
        for error in outcome:
            raise error


def denied():
    try:
        socket.create_connection(("192.0.2.1", 80), timeout=PATIENCE)
    except TimeoutError:
        raise
    except OSError:
        return
    raise Other("not denied")


serve()
print("ready", flush=True)
for line in sys.stdin:
    number, words = line.split()
    action, *arguments = words.split(":")
    try:
        globals()[action](*arguments)
        outcome = "ok"
    except TimeoutError as error:
        outcome = "error ETIMEDOUT" if error.errno else "hang"
    except (OSError, Other) as error:
        outcome = f"error {error}"
    print(f"<{number} {outcome}>", flush=True)
