//! Connections from the host's side to a port of the container.

use std::net::{SocketAddr, SocketAddrV4};

use smoltcp::socket::tcp::State;
use smoltcp::time::Duration;

use super::frames::{self, ACK, RST, SYN, Segment};
use super::guest::{Read, remote};
use super::world::{Pair, World, config, links, pattern};
use crate::Close;

/// A port of the container's kernel.
const PORT: u16 = 50_080;

fn client() -> SocketAddr {
    remote(7, 4321).into()
}

#[test]
fn both_directions_and_the_end() {
    for link in links() {
        let mut w = World::new(link);
        let guest = w.guest.listen(PORT, 64 << 10);
        let flow = w.accept(client(), PORT).unwrap();
        // The client speaks before the container has answered.
        let (up, down) = (pattern(1, 300_000), pattern(2, 300_000));
        let mut offered = w.host.far_write(flow, &down);
        let mut written = 0;
        let mut got = Vec::new();
        let done = w.run_until(Duration::from_secs(30), |w| {
            offered += w.host.far_write(flow, &down[offered..]);
            if w.guest.state(guest) == State::Established {
                written += w.guest.write(guest, &up[written..]);
            }
            if let Read::Data(data) = w.guest.read(guest) {
                got.extend(data);
            }
            got.len() == down.len() && w.far_received(flow).len() == up.len()
        });
        assert!(done, "{} and {}", got.len(), w.far_received(flow).len());
        assert!(got == down && w.far_received(flow) == up);
        let seen = w.guest.tcp(guest).remote_endpoint().unwrap();
        assert_eq!(
            (seen.addr.to_string(), seen.port),
            (client().ip().to_string(), 4321)
        );
        w.host.far_close(flow);
        w.guest.tcp(guest).close();
        assert!(w.run_until(Duration::from_secs(2), |w| w.closed(flow).is_some()));
        assert_eq!(w.closed(flow), Some(Close::Orderly));
        assert_eq!(w.stack.flow_count(), 0);
        w.assert_works();
    }
}

#[test]
fn nobody_listens() {
    let mut w = World::plain();
    let flow = w.accept(client(), PORT).unwrap();
    // smoltcp drops its first answer: it looks for the gateway's MAC.
    w.run(Duration::from_millis(210));
    assert_eq!(w.closed(flow), Some(Close::Reset));
    w.assert_empties(Duration::ZERO);
    w.assert_works();
}

/// The SYN is repeated after 0.2, 0.4, 0.8 ... s, and a minute is enough.
#[test]
fn a_silent_container() {
    let mut w = World::plain();
    w.guest_alive = false;
    let begin = w.now;
    let flow = w.accept(client(), PORT).unwrap();
    assert!(w.run_until(Duration::from_secs(61), |w| w.closed(flow).is_some()));
    assert_eq!(w.closed(flow), Some(Close::Reset));
    assert_eq!(w.now - begin, Duration::from_secs(60));
    let sent: Vec<u64> = w.spoke[&PORT]
        .iter()
        .map(|at| (*at - begin).total_millis())
        .collect();
    assert_eq!(
        sent,
        [0, 200, 600, 1400, 3000, 6200, 12_600, 25_400, 51_000]
    );
    w.assert_empties(Duration::ZERO);
}

#[test]
fn clients_are_shown_as_they_are_unless_that_means_something_else_inside() {
    for (client, shown) in [
        ("198.51.100.7:1000", "198.51.100.7:1000"),
        ("[::ffff:198.51.100.7]:1000", "198.51.100.7:1000"),
        ("127.0.0.1:1000", "10.0.2.2:1000"),
        ("10.0.2.100:1000", "10.0.2.2:1000"),
        ("10.0.2.77:1000", "10.0.2.2:1000"),
        ("[2001:db8::1]:1000", "10.0.2.2:1000"),
    ] {
        let mut w = World::plain();
        w.accept(client.parse().unwrap(), 80).unwrap();
        let syn = &w.take_tcp()[0];
        assert_eq!(
            (syn.flags, syn.from.to_string()),
            (SYN, shown.to_owned()),
            "{client}"
        );
        assert_eq!(syn.options, [2, 4, 0x05, 0xb4, 3, 3, 7, 4, 2, 0, 0, 0]);
    }
}

/// What is no answer to our SYN (RFC 9293, 3.10.7.3).
#[test]
fn odd_answers() {
    let mut w = World::plain();
    let flow = w.accept(client(), 80).unwrap();
    let isn = w.take_tcp()[0].seq;
    let answer = |flags, seq, ack| Segment::new(80, remote(7, 4321), flags, seq, ack);
    // An old acknowledgement is reset, an old reset means nothing.
    w.send(&answer(SYN | ACK, 1, isn).frame());
    let reset = w.take_tcp();
    assert_eq!((reset[0].flags, reset[0].seq), (RST, isn));
    for segment in [
        answer(RST | ACK, 1, isn),
        answer(RST, 1, 0),
        answer(ACK, 1, isn.wrapping_add(1)),
        answer(SYN, 1, 0),
    ] {
        w.send(&segment.frame());
        assert_eq!(w.take(), [], "{segment:?}");
        assert_eq!(w.closed(flow), None);
    }
    let mut good = answer(SYN | ACK, 77, isn.wrapping_add(1));
    // A window with a SYN is not scaled (RFC 7323, 2.2).
    (good.window, good.options) = (3, vec![2, 4, 0x05, 0xb4, 3, 3, 9, 0]);
    w.host.far_write(flow, b"12345");
    w.send(&good.frame());
    w.settle();
    let sent = w.take_tcp();
    let data: Vec<u8> = sent.iter().flat_map(|s| s.payload.clone()).collect();
    assert_eq!(data, b"123");
    assert!(sent.iter().all(|s| s.ack == 78 && s.flags & ACK != 0));
    w.send(&answer(RST, 78, 0).frame());
    assert_eq!(w.closed(flow), Some(Close::Reset));
    w.assert_works();
}

#[test]
fn limits() {
    let mut limited = config(links()[0]);
    limited.limits.max_half_open = 3;
    let mut w = World::with(limited);
    for port in 1..=3 {
        assert!(w.accept(remote(7, port).into(), 80).is_some());
    }
    assert!(w.accept(remote(7, 4).into(), 80).is_none());
    // A second connection from one address and port.
    let mut w = World::plain();
    let flow = w.accept(client(), 80).unwrap();
    assert!(w.accept(client(), 80).is_none());
    assert!(w.accept(client(), 81).is_some());
    // The owner cannot serve it after all.
    w.take();
    w.stack.abort(flow, &mut w.host);
    assert_eq!(w.closed(flow), Some(Close::Reset));
    assert_eq!(w.stack.half_open, 1);
    w.check();
}

/// The owner's id for a published UDP port, with its socket.
#[test]
fn published_datagrams() {
    let mut w = World::plain();
    let to: SocketAddr = (frames::GUEST, 53).into();
    let port = w.stack.publish_udp(to).unwrap();
    w.host.bound(port);
    for (client, shown) in [
        (remote(7, 1000), remote(7, 1000)),
        (remote(8, 1000), remote(8, 1000)),
    ] {
        w.datagram(port, client.into(), b"hello", 0);
        match &w.take()[..] {
            [frames::Seen::Udp { from, to, payload }] => {
                assert_eq!((*from, to.port(), &payload[..]), (shown, 53, &b"hello"[..]));
            }
            other => panic!("{other:?}"),
        }
        w.send(&frames::udp(53, shown, b"answer"));
        let (flow, to, payload) = w.host.datagrams.pop().unwrap();
        assert_eq!(
            (flow, to, &payload[..]),
            (port, client.into(), &b"answer"[..])
        );
    }
    // The container speaks first, to somebody else: not from the published socket.
    w.send(&frames::udp(53, remote(9, 9), b"own"));
    assert_ne!(w.host.datagrams.pop().unwrap().0, port);
    // Another published port that leads to the same.
    let second = w.stack.publish_udp(to).unwrap();
    w.host.bound(second);
    w.datagram(second, remote(7, 1000).into(), b"again", 0);
    w.take();
    w.send(&frames::udp(53, remote(7, 1000), b"answer"));
    assert_eq!(w.host.datagrams.pop().unwrap().0, second);
    // Two published ports, the mapping of its own, and three remotes.
    assert_eq!(w.stack.flow_count(), 6);
    // The port stays without flows, and goes when it is published no longer.
    w.run(Duration::from_secs(200));
    assert_eq!(w.stack.flow_count(), 2);
    w.stack.unpublish_udp(port, &mut w.host);
    w.stack.unpublish_udp(second, &mut w.host);
    w.assert_empties(Duration::ZERO);
    w.assert_works();
}

/// The container's kernel has no taker: the flow ends, and what comes of it.
#[test]
fn port_unreachable_of_the_container() {
    let mut w = World::plain();
    w.send(&frames::udp(1234, remote(1, 7), b"x"));
    let flow = w.host.datagrams[0].0;
    w.datagram(flow, remote(1, 7).into(), b"late", 0);
    w.take();
    let quote = frames::Ip {
        source: *remote(1, 7).ip(),
        ..frames::Ip::new(
            frames::GUEST,
            frames::UDP,
            frames::udp_segment(
                *remote(1, 7).ip(),
                7,
                SocketAddrV4::new(frames::GUEST, 1234),
                b"late",
            ),
        )
    };
    let message = frames::icmp_message(3, 3, [0; 4], &quote.packet()[..28]);
    w.send(&frames::Ip::new(*remote(1, 7).ip(), frames::ICMP, message).frame());
    assert_eq!(w.take(), []);
    assert_eq!(w.closed(flow), Some(Close::Orderly));
    w.assert_empties(Duration::ZERO);
    w.assert_works();
}

/// A connection that was accepted is like any other to the host.
#[test]
fn both_ends_are_one_pair() {
    let mut w = World::plain();
    let guest = w.guest.listen(PORT, 4096);
    let flow = w.accept(client(), PORT).unwrap();
    let pair = Pair { guest, flow };
    w.run(Duration::from_millis(5));
    assert_eq!(w.guest.state(pair.guest), State::Established);
    w.host.far_reset(pair.flow, crate::HostError::Reset);
    w.run(Duration::from_millis(5));
    assert_eq!(w.guest.state(pair.guest), State::Closed);
    assert_eq!(w.closed(pair.flow), Some(Close::Reset));
}

/// The container's firewall rejects a SYN: its client need not wait for a minute.
#[test]
fn a_rejected_invitation() {
    for (code, off, ended) in [(3, 0, true), (10, 0, true), (4, 0, false), (3, 1, false)] {
        let mut w = World::plain();
        w.guest_alive = false;
        let flow = w.accept(client(), 80).unwrap();
        let syn = w.take_tcp().remove(0);
        let mut header = vec![0; 20];
        header[..2].copy_from_slice(&syn.from.port().to_be_bytes());
        header[2..4].copy_from_slice(&syn.to.port().to_be_bytes());
        header[4..8].copy_from_slice(&(syn.seq + off).to_be_bytes());
        let quote = frames::Ip {
            source: *syn.from.ip(),
            ..frames::Ip::new(frames::GUEST, frames::TCP, header)
        };
        let message = frames::icmp_message(3, code, [0; 4], &quote.packet()[..28]);
        w.send(&frames::Ip::new(*syn.from.ip(), frames::ICMP, message).frame());
        assert_eq!(w.closed(flow).is_some(), ended, "{code} {off}");
    }
}

/// Clients that are shown by one address are still told apart.
#[test]
fn clients_with_one_port_behind_the_gateway() {
    let mut w = World::plain();
    for n in 1..=5 {
        let client = format!("127.0.0.{n}:4321").parse().unwrap();
        assert!(w.accept(client, 80).is_some(), "{n}");
    }
    let shown: std::collections::BTreeSet<_> =
        w.take_tcp().into_iter().map(|syn| syn.from).collect();
    assert_eq!(shown.len(), 5);
    assert!(shown.iter().all(|from| *from.ip() == frames::GATEWAY));
    assert!(shown.iter().any(|from| from.port() == 4321));
}
