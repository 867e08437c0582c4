//! A server that tells each client its address, over TCP and over UDP.

use std::net::IpAddr;

use super::host::{Host, Side};
use super::service::{Port, Service};

/// Answers each connection and each datagram with the address and port that it
/// came from, as `198.18.0.1 40000`. Its arguments are an address and a port.
pub(crate) const SCRIPT: &str = "
import selectors, socket, sys
address, port = sys.argv[1], int(sys.argv[2])
family = socket.AF_INET6 if ':' in address else socket.AF_INET
tcp = socket.create_server((address, port), family=family)
udp = socket.socket(family, socket.SOCK_DGRAM)
if family == socket.AF_INET6:
    udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
udp.bind((address, port))
wait = selectors.DefaultSelector()
wait.register(tcp, selectors.EVENT_READ)
wait.register(udp, selectors.EVENT_READ)
print('ready', flush=True)
while True:
    for key, _ in wait.select():
        if key.fileobj is tcp:
            with tcp.accept()[0] as s:
                s.send(b'%s %d' % (s.getpeername()[0].encode(), s.getpeername()[1]))
        else:
            peer = udp.recvfrom(100)[1]
            udp.sendto(b'%s %d' % (peer[0].encode(), peer[1]), peer)
";

/// Asks such servers over TCP and over UDP, prints a line for each answer. Its
/// arguments are addresses and ports in turn.
pub(crate) const CLIENT: &str = "
import socket, sys
for address, port in zip(sys.argv[1::2], map(int, sys.argv[2::2])):
    family = socket.AF_INET6 if ':' in address else socket.AF_INET
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        s = socket.socket(family, kind)
        s.settimeout(5)
        s.connect((address, port))
        for attempt in range(3):
            try:
                if kind == socket.SOCK_DGRAM:
                    s.send(b'who am I?')
                print('TCP' if kind == socket.SOCK_STREAM else 'UDP', s.recv(100).decode())
                break
            except TimeoutError:
                assert kind == socket.SOCK_DGRAM
";

/// A server on one side.
pub(crate) fn start(host: &Host, side: Side, address: impl Into<IpAddr>, port: u16) -> Service {
    let (address, text) = (address.into().to_string(), port.to_string());
    let words = ["/usr/bin/python3", "-c", SCRIPT, &address, &text];
    Service::start(host, side, &words, &[Port::Tcp(port), Port::Udp(port)])
}
