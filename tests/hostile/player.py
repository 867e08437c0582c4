"""Sends frames on the container's link. `play` plays cases of bad input: records come on
standard input, and after each case everything has to work.

A record: what it is (one byte), its length (four bytes, big-endian), its content.
What cannot be sent (the link refuses frames that are too short or too long) is counted.
"""
import os, select, socket, struct, sys, time

FAR, GATEWAY, DNS, GUEST = '198.18.1.1', '10.0.2.2', '10.0.2.3', '10.0.2.100'
ECHO = 7
GUEST_MAC, STACK_MAC = bytes.fromhex('020000000064'), bytes.fromhex('020000000002')
# How long anything may take that ought to take no time at all, seconds.
SOON = 15
# Frames on their way at a time: the link's queue holds more.
AT_ONCE = 200
SOL_PACKET, PACKET_VNET_HDR, SO_ATTACH_FILTER = 263, 15, 26

device = next(line.split()[0] for line in open('/proc/net/route') if line.split()[1] == '00000000')


def packet_socket(protocol=0, accept=None, vnet=False):
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    if vnet:
        s.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    if accept:
        import ctypes
        code = b''.join(struct.pack('HBBI', *instruction) for instruction in accept)
        buffer = ctypes.create_string_buffer(code)
        program = struct.pack('HxxxxxxP', len(accept), ctypes.addressof(buffer))
        s.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)
    s.bind((device, protocol))
    s.setblocking(False)
    return s


def frames_of(protocol, at, mask):
    """A filter (bpf(4)): IPv4 without options, this protocol, a byte with these bits."""
    return [(0x28, 0, 0, 12), (0x15, 0, 5, 0x800), (0x30, 0, 0, 23), (0x15, 0, 3, protocol),
            (0x30, 0, 0, at), mask, (6, 0, 0, 0xffff), (6, 0, 0, 0)]


ETH_P_IP = 0x800
raw = packet_socket()
try:
    with_header = packet_socket(vnet=True)
except OSError:
    with_header = None
syns = packet_socket(ETH_P_IP, frames_of(6, 47, (0x45, 0, 1, 2)))
echoes = packet_socket(ETH_P_IP, frames_of(1, 34, (0x15, 0, 1, 0)))


def checksum(data):
    if len(data) % 2:
        data += b'\0'
    total = sum(struct.unpack('!%dH' % (len(data) // 2), data))
    while total > 0xffff:
        total = (total & 0xffff) + (total >> 16)
    return 0xffff ^ total


def received(s, wanted, limit):
    """What `wanted` makes of the first frame that it takes, or None."""
    deadline = time.monotonic() + limit
    while True:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([s], [], [], left)[0]:
            return None
        try:
            frame = s.recv(65536)
        except BlockingIOError:
            continue
        found = wanted(frame)
        if found is not None:
            return found


sequence = 0
gateway_mac = b'\xff' * 6


def barrier():
    """Waits until the stack has looked at everything that was sent: it answers this."""
    global sequence, gateway_mac
    deadline = time.monotonic() + SOON
    while time.monotonic() < deadline:
        sequence = (sequence + 1) % 65536
        message = struct.pack('!BBHHH', 8, 0, 0, 0xba55, sequence)
        message = message[:2] + struct.pack('!H', checksum(message)) + message[4:]
        head = struct.pack('!BBHHHBBH4s4s', 0x45, 0, 28, 0, 0, 64, 1, 0,
                           socket.inet_aton(GUEST), socket.inet_aton(GATEWAY))
        head = head[:10] + struct.pack('!H', checksum(head)) + head[12:]
        send(raw, gateway_mac + GUEST_MAC + b'\x08\x00' + head + message)
        mine = message[4:8]
        if received(echoes, lambda frame: frame if frame[38:42] == mine else None, 0.5):
            return
    raise SystemExit('the stack does not answer')


def send(s, frame):
    """Whether the frame could be sent."""
    while True:
        try:
            s.send(frame)
            return True
        except (BlockingIOError, InterruptedError):
            select.select([], [s], [], 1)
        except OSError as error:
            # Full for now, or not a frame for this link.
            if error.errno != 105:
                return False
            time.sleep(0.001)


def for_gateway(frame):
    return gateway_mac + frame[6:] if frame[:6] == STACK_MAC else frame


def with_ack(frame, ack):
    """An IPv4 frame without options whose TCP acknowledgement is moved on."""
    segment = bytearray(frame[34:])
    value = (struct.unpack_from('!I', segment, 8)[0] + ack) % (1 << 32)
    struct.pack_into('!I', segment, 8, value)
    struct.pack_into('!H', segment, 16, 0)
    pseudo = frame[26:34] + struct.pack('!HH', 6, len(segment))
    struct.pack_into('!H', segment, 16, checksum(pseudo + bytes(segment)))
    return frame[:34] + bytes(segment)


def open_by_hand(frame):
    """The stack's sequence number, once it has answered the SYN and got its ACK."""
    port, seq = struct.unpack_from('!HxxI', frame, 34)

    def answer(other):
        if other[36:38] == frame[34:36] and other[34:36] == frame[36:38] and other[47] & 18 == 18:
            return struct.unpack_from('!I', other, 38)[0]
        return None

    for _ in range(3):
        send(raw, for_gateway(frame))
        isn = received(syns, answer, 1)
        if isn is not None:
            ack = bytearray(frame[:34 + 20])
            struct.pack_into('!HxxH', ack, 16, 40, 0)
            struct.pack_into('!H', ack, 24, 0)
            struct.pack_into('!H', ack, 24, checksum(bytes(ack[14:34])))
            struct.pack_into('!IIBB', ack, 38, (seq + 1) % (1 << 32), 0, 0x50, 16)
            send(raw, for_gateway(with_ack(bytes(ack), (isn + 1) % (1 << 32))))
            return port, isn
    return port, None


def patiently(what):
    """Tries until it works."""
    deadline = time.monotonic() + SOON
    while True:
        try:
            return what()
        except OSError as error:
            if time.monotonic() > deadline:
                raise SystemExit('%s: %r' % (what.__name__, error))
            time.sleep(0.01)


def tcp():
    data = os.urandom(3000)
    with socket.create_connection((FAR, ECHO), 5) as s:
        s.sendall(data)
        got = b''
        while len(got) < len(data):
            piece = s.recv(4096)
            if not piece:
                raise ConnectionError('it ended')
            got += piece
        assert got == data


def ask(to, message):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(0.5)
        s.connect(to)
        s.send(message)
        return s.recv(4096)


def udp():
    data = os.urandom(1000)
    assert ask((FAR, ECHO), data) == data


def dns():
    name = b'\4host\4test\0\0\1\0\1'
    answer = ask((DNS, 53), os.urandom(2) + b'\1\0\0\1\0\0\0\0\0\0' + name)
    assert answer.endswith(socket.inet_aton('192.0.2.53')), answer


def works():
    """How long it takes until all three have, milliseconds."""
    begin = time.monotonic()
    for what in (tcp, udp, dns):
        patiently(what)
    return (time.monotonic() - begin) * 1000


def records():
    source = sys.stdin.buffer
    while True:
        head = source.read(5)
        if len(head) < 5:
            return
        kind, length = struct.unpack('!BI', head)
        yield kind, source.read(length)


def learn_gateway():
    global gateway_mac
    patiently(tcp)
    entries = (line.split() for line in open('/proc/net/arp'))
    gateway_mac = next(bytes.fromhex(entry[3].replace(':', '')) for entry in entries
                       if entry[0] == GATEWAY)
    barrier()


def play():
    learn_gateway()
    connections = {}
    name, sent, unsent, unopened = '', 0, 0, 0
    for kind, content in records():
        done = True
        if kind == 0:
            done = send(raw, for_gateway(content))
        elif kind == 1:
            header, frame = content[:10], for_gateway(content[10:])
            done = with_header is not None and send(with_header, header + frame)
        elif kind == 2:
            barrier()
            port, isn = open_by_hand(content)
            connections[port] = isn
            unopened += isn is None
        elif kind == 3:
            isn = connections[struct.unpack_from('!H', content, 34)[0]]
            if isn is None:
                continue
            done = send(raw, for_gateway(with_ack(content, (isn + 1) % (1 << 32))))
        elif kind == 4:
            time.sleep(struct.unpack('!H', content)[0] / 1000)
        elif kind == 5:
            name, sent, unsent, unopened = content.decode(), 0, 0, 0
            continue
        elif kind == 6:
            barrier()
            print('%s|%d|%d|%d|%.1f' % (name, sent, unsent, unopened, works()), flush=True)
            continue
        sent, unsent = sent + done, unsent + (not done)
        if sent % AT_ONCE == 0:
            barrier()
    print('done', flush=True)

