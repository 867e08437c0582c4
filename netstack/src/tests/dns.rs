//! The DNS forwarder over UDP (over TCP: `tcp_open`).

use std::net::{SocketAddr, SocketAddrV4};

use smoltcp::time::Duration;

use super::frames::{self, DNS, GUEST, Seen};
use super::guest::remote;
use super::world::{World, config, links, pattern, resolver};
use crate::FlowId;

const FORWARDER: SocketAddrV4 = SocketAddrV4::new(DNS, 53);

fn query(w: &mut World, port: u16, payload: &[u8]) -> (FlowId, SocketAddr) {
    let before = w.host.datagrams.len();
    w.send(&frames::udp(port, FORWARDER, payload));
    assert_eq!(w.host.datagrams.len(), before + 1);
    let (flow, at, data) = w.host.datagrams[before].clone();
    assert_eq!(data, payload);
    (flow, at)
}

fn response(port: u16, payload: &[u8]) -> Seen {
    Seen::Udp {
        from: FORWARDER,
        to: SocketAddrV4::new(GUEST, port),
        payload: payload.to_vec(),
    }
}

#[test]
fn the_flow_ends_with_its_answer() {
    let mut w = World::plain();
    let (flow, at) = query(&mut w, 1234, b"q");
    assert_eq!(at, resolver(0));
    w.datagram(flow, at, b"a", 0);
    assert_eq!(w.take(), [response(1234, b"a")]);
    assert_eq!(w.stack.flow_count(), 0);
    assert!(w.closed(flow).is_some());
    w.datagram(flow, at, b"again", 0);
    assert_eq!(w.take(), []);
}

/// A resolver library asks for A and AAAA from one port at once; both questions
/// go to the same resolver, and both answers come back.
#[test]
fn two_questions_at_once() {
    let mut w = World::plain();
    let (flow, first) = query(&mut w, 1234, b"q1");
    w.run(Duration::from_millis(1));
    let (same, second) = query(&mut w, 1234, b"q2");
    assert_eq!((first, second), (resolver(0), resolver(0)));
    assert_eq!(flow, same);
    w.datagram(flow, first, b"a1", 0);
    assert_eq!(w.stack.flow_count(), 2);
    w.datagram(flow, first, b"a2", 0);
    assert_eq!(w.take(), [response(1234, b"a1"), response(1234, b"a2")]);
    assert_eq!(w.stack.flow_count(), 0);
}

/// Both answers may come coalesced.
#[test]
fn two_answers_at_once() {
    let mut w = World::plain();
    let (flow, at) = query(&mut w, 1234, b"q1");
    query(&mut w, 1234, b"q2");
    w.datagram(flow, at, b"a1a2", 2);
    assert_eq!(w.take(), [response(1234, b"a1"), response(1234, b"a2")]);
    assert_eq!(w.stack.flow_count(), 0);
}

#[test]
fn a_repeated_query_goes_to_the_next_resolver() {
    let mut w = World::plain();
    let (flow, _) = query(&mut w, 1234, b"q");
    for expected in [1, 0, 1] {
        w.run(Duration::from_secs(5));
        let (same, at) = query(&mut w, 1234, b"q");
        assert_eq!(at, resolver(expected));
        assert_eq!(flow, same);
    }
    // Whoever of them answers is heard.
    w.datagram(flow, resolver(0), b"a", 0);
    assert_eq!(w.take(), [response(1234, b"a")]);
}

#[test]
fn only_resolvers_are_heard() {
    let mut w = World::plain();
    let (flow, _) = query(&mut w, 1234, b"q");
    for from in [
        SocketAddr::new(resolver(0).ip(), 54),
        remote(1, 53).into(),
        SocketAddr::V4(FORWARDER),
        "127.0.0.1:53".parse().unwrap(),
    ] {
        w.datagram(flow, from, b"forged", 0);
    }
    assert_eq!(w.take(), []);
    assert_eq!(w.stack.stats().udp_filtered, 4);
    assert_eq!(w.stack.flow_count(), 2);
}

#[test]
fn unanswered_queries_pass() {
    let mut w = World::plain();
    query(&mut w, 1234, b"q");
    w.run(Duration::from_secs(14));
    assert_eq!(w.stack.flow_count(), 2);
    w.run(Duration::from_secs(2));
    assert_eq!(w.stack.flow_count(), 0);
    assert!(w.host.open.is_empty());
}

/// The same port may speak to others, too: through a socket of its own.
#[test]
fn forwarder_and_others_from_one_port() {
    let mut w = World::plain();
    let (flow, at) = query(&mut w, 1234, b"q");
    w.send(&frames::udp(1234, remote(1, 7), b"x"));
    let other = w.host.datagrams[1].0;
    assert_ne!(flow, other);
    w.datagram(other, at, b"not asked here", 0);
    assert_eq!(w.take(), []);
    w.datagram(flow, at, b"a", 0);
    w.datagram(other, remote(1, 7).into(), b"y", 0);
    assert_eq!(w.take().len(), 2);
}

/// The resolver on the host's loopback serves port 53 of the forwarder, nothing else.
#[test]
fn n13_resolver_on_loopback() {
    let mut c = config(links()[0]);
    c.resolvers = vec!["127.0.0.53:53".parse().unwrap()];
    let mut w = World::with(c);
    let (flow, at) = query(&mut w, 1234, b"q");
    assert_eq!(at, "127.0.0.53:53".parse().unwrap());
    w.datagram(flow, at, b"a", 0);
    assert_eq!(w.take(), [response(1234, b"a")]);
    let before = w.host.datagrams.len();
    for port in (1..=u16::MAX).filter(|port| *port != 53) {
        w.send(&frames::udp(1234, SocketAddrV4::new(DNS, port), b"x"));
        assert!(
            matches!(w.take()[..], [Seen::Unreachable { code: 3, .. }]),
            "{port}"
        );
    }
    assert_eq!(w.host.datagrams.len(), before);
    assert_eq!(w.host.open.len(), 0);
}

/// Queries are opaque: whatever is in them, and however long, they pass.
#[test]
fn n13_queries_are_opaque() {
    let mut w = World::new(links()[3]);
    for len in [0, 1, 2, 3, 11, 12, 512, 513, 4096, 60_000] {
        let data = pattern(4, len);
        let (flow, at) = query(&mut w, 1234, &data);
        w.datagram(flow, at, &data, 0);
        assert_eq!(w.take(), [response(1234, &data)]);
    }
    w.assert_works();
}

#[test]
fn no_resolvers() {
    let mut c = config(links()[0]);
    c.resolvers.clear();
    let mut w = World::with(c);
    w.send(&frames::udp(1234, FORWARDER, b"q"));
    assert!(matches!(w.take()[..], [Seen::Unreachable { code: 3, .. }]));
    assert_eq!(w.stack.flow_count(), 0);
    w.stack.set_resolvers(vec![resolver(0)]);
    w.assert_works();
}

#[test]
fn resolvers_change_under_way() {
    let mut w = World::plain();
    let (flow, _) = query(&mut w, 1234, b"q");
    w.stack
        .set_resolvers(vec!["192.0.2.99:53".parse().unwrap()]);
    w.datagram(flow, resolver(0), b"a", 0);
    assert_eq!(w.take(), [], "no longer a resolver");
    w.run(Duration::from_secs(5));
    let (_, at) = query(&mut w, 1234, b"q");
    assert_eq!(at, "192.0.2.99:53".parse().unwrap());
}
