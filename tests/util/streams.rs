//! Many streams at once, each with a sum of its own.

/// A program in Python that opens flows to a server that sends everything back, sends a
/// stream of its own on each at once, and compares the sums of what went and of
/// what came. `at_end` is what it does with the flows after that.
pub(crate) fn client(server: &str, port: u16, flows: u64, bytes_each: u64, at_end: &str) -> String {
    format!(
        "import hashlib, random, resource, selectors, socket, sys
N, EACH = {flows}, {bytes_each}
PERIOD = 262139  # a prime, so that what comes from elsewhere in a stream is wrong
CHUNK = 65536
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
assert hard > N + 50, 'too few descriptors: %d' % hard
noise = random.Random(1).randbytes(PERIOD)
twice = memoryview(noise + noise[:CHUNK])

class Flow:
    def __init__(self, number):
        self.shift = number * 4099
        self.sent = self.received = 0
        self.up, self.down = hashlib.sha256(b'%d' % number), hashlib.sha256(b'%d' % number)
        self.socket = socket.create_connection(('{server}', {port}), 60)
        self.socket.setblocking(False)

    def send(self):
        start = (self.sent + self.shift) % PERIOD
        piece = twice[start:start + min(CHUNK, EACH - self.sent)]
        count = self.socket.send(piece)
        self.up.update(piece[:count])
        self.sent += count
        return self.sent < EACH

    def receive(self):
        count = self.socket.recv_into(buffer)
        assert count > 0, 'an end after %d bytes' % self.received
        self.down.update(buffer[:count])
        self.received += count
        return self.received < EACH

buffer = memoryview(bytearray(1 << 18))
print('ready', flush=True)
assert sys.stdin.readline() == 'go\\n'
flows = [Flow(i) for i in range(N)]
both = selectors.EVENT_READ | selectors.EVENT_WRITE
wait = selectors.DefaultSelector()
for flow in flows:
    wait.register(flow.socket, both, flow)
left = N
while left > 0:
    ready = wait.select(60)
    assert ready, 'nothing moves; %d flows are left' % left
    for key, events in ready:
        flow = key.data
        if events & selectors.EVENT_WRITE and not flow.send():
            wait.modify(flow.socket, selectors.EVENT_READ, flow)
        if events & selectors.EVENT_READ and not flow.receive():
            wait.unregister(flow.socket)
            left -= 1
assert all(flow.up.digest() == flow.down.digest() for flow in flows), 'sums differ'
assert len({{flow.up.digest() for flow in flows}}) == N
print('whole', flush=True)
{at_end}"
    )
}
