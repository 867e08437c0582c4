//! The DNS forwarder over UDP (over TCP: `tcp_open`).

use std::net::{SocketAddr, SocketAddrV4};

use hostile::Call;
use smoltcp::time::Duration;

use super::frames::{self, DNS, GUEST, Seen};
use super::guest::remote;
use super::world::{World, config, links, pattern, resolver};
use crate::{FlowId, HostError};

pub(super) const FORWARDER: SocketAddrV4 = SocketAddrV4::new(DNS, 53);

pub(super) const A: u16 = 1;
pub(super) const TXT: u16 = 16;
pub(super) const AAAA: u16 = 28;

pub(super) const SERVFAIL: u8 = 2;
pub(super) const NOTIMP: u8 = 4;
pub(super) const REFUSED: u8 = 5;

/// A query as a client makes it.
pub(crate) fn query(id: u16, name: &str, kind: u16) -> Vec<u8> {
    let mut message = id.to_be_bytes().to_vec();
    message.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        message.push(u8::try_from(label.len()).unwrap());
        message.extend(label.bytes());
    }
    message.push(0);
    message.extend(kind.to_be_bytes());
    message.extend([0, 1]);
    message
}

/// An answer to a query without additional records, of which `rest` is all there is.
pub(crate) fn answer(query: &[u8], code: u8, rest: &[u8]) -> Vec<u8> {
    let mut message = query.to_vec();
    message[2] |= 0x80;
    message[3] = 0x80 | code;
    message.extend(rest);
    message
}

/// Sends a query that goes to one server at once.
pub(super) fn ask(w: &mut World, port: u16, message: &[u8]) -> (FlowId, SocketAddr) {
    w.send(&frames::udp(port, FORWARDER, message));
    let mut sent = asked(w);
    assert_eq!(sent.len(), 1);
    let (flow, at, data) = sent.remove(0);
    assert_eq!(data, message);
    (flow, at)
}

/// What has been sent to servers since the last call.
pub(super) fn asked(w: &mut World) -> Vec<(FlowId, SocketAddr, Vec<u8>)> {
    std::mem::take(&mut w.host.datagrams)
}

/// The same, by the servers alone.
pub(super) fn servers(w: &mut World) -> Vec<SocketAddr> {
    asked(w).into_iter().map(|(_, at, _)| at).collect()
}

pub(super) fn response(port: u16, payload: &[u8]) -> Seen {
    Seen::Udp {
        from: FORWARDER,
        to: SocketAddrV4::new(GUEST, port),
        payload: payload.to_vec(),
    }
}

/// The one answer that came for the client.
pub(super) fn answered(w: &mut World) -> Vec<u8> {
    match &w.take()[..] {
        [Seen::Udp { from, payload, .. }] if *from == FORWARDER => payload.clone(),
        other => panic!("unexpected {other:?}"),
    }
}

pub(super) fn assert_over(w: &World) {
    assert_eq!(w.stack.flow_count(), 0);
    assert!(w.host.open.is_empty());
}

pub(super) fn with_resolvers(resolvers: &[&str]) -> World {
    let mut c = config(links()[0]);
    c.resolvers = resolvers.iter().map(|at| at.parse().unwrap()).collect();
    World::with(c)
}

#[test]
fn the_flow_ends_with_its_answer() {
    let mut w = World::plain();
    let q = query(1, "a.example", A);
    let (flow, at) = ask(&mut w, 1234, &q);
    assert_eq!(at, resolver(0));
    let a = answer(&q, 0, b"a");
    w.datagram(flow, at, &a, 0);
    assert_eq!(w.take(), [response(1234, &a)]);
    assert_over(&w);
    assert!(w.closed(flow).is_some());
    w.datagram(flow, at, &a, 0);
    assert_eq!(w.take(), []);
    w.run(Duration::from_secs(20));
    assert_eq!(asked(&mut w), []);
}

/// A resolver library asks for A and AAAA from one port at once, and the answers come
/// in any order.
#[test]
fn two_questions_at_once() {
    let mut w = World::plain();
    let [q1, q2] = [query(1, "a.example", A), query(2, "a.example", AAAA)];
    let (flow, first) = ask(&mut w, 1234, &q1);
    w.run(Duration::from_millis(1));
    let (same, second) = ask(&mut w, 1234, &q2);
    assert_eq!((first, second), (resolver(0), resolver(0)));
    assert_eq!(flow, same);
    let [a1, a2] = [answer(&q1, 0, b"a1"), answer(&q2, 0, b"a2")];
    w.datagram(flow, first, &a2, 0);
    assert_eq!(w.stack.flow_count(), 2);
    w.datagram(flow, first, &a2, 0);
    assert_eq!(w.stack.stats().dns_unmatched, 1);
    w.datagram(flow, first, &a1, 0);
    assert_eq!(w.take(), [response(1234, &a2), response(1234, &a1)]);
    assert_over(&w);
}

/// Queries and answers may come coalesced.
#[test]
fn two_of_each_at_once() {
    let mut w = World::new(links()[2]);
    let [q1, q2] = [query(1, "a.example", A), query(2, "a.example", AAAA)];
    let both = [&q1[..], &q2].concat();
    let size = u16::try_from(q1.len()).unwrap();
    w.send_super(&frames::udp(1234, FORWARDER, &both), size);
    let sent = asked(&mut w);
    assert_eq!(sent.iter().map(|(.., q)| q).collect::<Vec<_>>(), [&q1, &q2]);
    let (flow, at, _) = sent[0];
    let [a1, a2] = [answer(&q1, 0, b"a1"), answer(&q2, 0, b"a2")];
    let size = u16::try_from(a1.len()).unwrap();
    w.datagram(flow, at, &[&a1[..], &a2].concat(), size);
    assert_eq!(w.take(), [response(1234, &a1), response(1234, &a2)]);
    assert_over(&w);
}

#[test]
fn only_answers_to_open_queries_are_heard() {
    let mut w = World::plain();
    let q = query(0x1234, "wWw.a.eXample", A);
    let (flow, at) = ask(&mut w, 1234, &q);
    let good = answer(&q, 0, b"a");
    // Not of a server that was asked.
    for from in [
        SocketAddr::new(at.ip(), 54),
        resolver(1),
        remote(1, 53).into(),
        SocketAddr::V4(FORWARDER),
        "127.0.0.1:53".parse().unwrap(),
        "[2001:db8::53]:53".parse().unwrap(),
    ] {
        w.datagram(flow, from, &good, 0);
    }
    // Not to this query.
    let mut bare = answer(&query(0x1235, "a", A), SERVFAIL, b"")[..12].to_vec();
    bare[5] = 0;
    let mut two = good.clone();
    two[5] = 2;
    let mut status = good.clone();
    status[2] |= 0x10;
    for forged in [
        answer(&query(0x1235, "wWw.a.eXample", A), 0, b"a"),
        answer(&query(0x1234, "wWw.b.eXample", A), 0, b"a"),
        answer(&query(0x1234, "wWw.a.eXample", AAAA), 0, b"a"),
        q.clone(),
        good[..q.len() - 1].to_vec(),
        good[..12].to_vec(),
        good[..11].to_vec(),
        bare,
        two,
        status,
        Vec::new(),
    ] {
        w.datagram(flow, at, &forged, 0);
    }
    assert_eq!(w.take(), []);
    assert_eq!(w.stack.stats().dns_unmatched, 17);
    assert_eq!(asked(&mut w), []);
    w.datagram(flow, at, &good, 0);
    assert_eq!(w.take(), [response(1234, &good)]);
    assert_over(&w);
}

#[test]
fn unanswered_queries_pass() {
    let mut w = World::plain();
    ask(&mut w, 1234, &query(1, "a.example", A));
    w.run(Duration::from_secs(14));
    assert_eq!(w.stack.flow_count(), 2);
    w.run(Duration::from_secs(2));
    assert_over(&w);
    assert_eq!(w.take(), []);
}

/// The same port may speak to others, too: through a socket of its own.
#[test]
fn forwarder_and_others_from_one_port() {
    let mut w = World::plain();
    let q = query(1, "a.example", A);
    let (flow, at) = ask(&mut w, 1234, &q);
    w.send(&frames::udp(1234, remote(1, 7), b"x"));
    let other = w.host.datagrams[0].0;
    assert_ne!(flow, other);
    let a = answer(&q, 0, b"a");
    w.datagram(other, at, &a, 0);
    assert_eq!(w.take(), []);
    w.datagram(flow, at, &a, 0);
    w.datagram(other, remote(1, 7).into(), b"y", 0);
    assert_eq!(w.take().len(), 2);
}

/// The resolver on the host's loopback serves port 53 of the forwarder, nothing else.
#[test]
fn n13_resolver_on_loopback() {
    let mut w = with_resolvers(&["127.0.0.53:53"]);
    let q = query(1, "a.example", A);
    let (flow, at) = ask(&mut w, 1234, &q);
    assert_eq!(at, "127.0.0.53:53".parse().unwrap());
    let a = answer(&q, 0, b"a");
    w.datagram(flow, at, &a, 0);
    assert_eq!(w.take(), [response(1234, &a)]);
    for port in (1..=u16::MAX).filter(|port| *port != 53) {
        w.send(&frames::udp(1234, SocketAddrV4::new(DNS, port), &q));
        assert!(
            matches!(w.take()[..], [Seen::Unreachable { code: 3, .. }]),
            "{port}"
        );
    }
    assert_eq!(w.host.datagrams, []);
    assert_eq!(w.host.open.len(), 0);
}

/// Whatever follows the question passes, and however long it is.
#[test]
fn n13_queries_are_opaque() {
    let mut w = World::new(links()[3]);
    for len in [0, 1, 2, 3, 11, 12, 512, 513, 4096, 60_000] {
        let rest = pattern(4, len);
        let mut q = query(1, "a.example", A);
        q.extend(&rest);
        let (flow, at) = ask(&mut w, 1234, &q);
        let a = answer(&query(1, "a.example", A), 0, &rest);
        w.datagram(flow, at, &a, 0);
        assert_eq!(w.take(), [response(1234, &a)]);
    }
    w.assert_works();
}

/// What is not a query goes nowhere.
#[test]
fn n13_only_queries_are_forwarded() {
    let q = query(1, "a.example", A);
    let mut none = q.clone();
    none[5] = 0;
    let mut two = q.clone();
    two[5] = 2;
    let mut reserved = q.clone();
    reserved[12] = 0x80;
    let mut w = World::plain();
    let bad = [
        Vec::new(),
        b"q".to_vec(),
        q[..11].to_vec(),
        q[..12].to_vec(),
        q[..q.len() - 1].to_vec(),
        answer(&q, 0, b""),
        none,
        two,
        reserved,
    ];
    for message in &bad {
        w.send(&frames::udp(1234, FORWARDER, message));
    }
    assert_eq!(w.host.datagrams, []);
    assert_eq!(w.take(), []);
    assert_eq!(w.stack.stats().dropped, bad.len() as u64);
    assert_over(&w);
    w.assert_works();
}

#[test]
fn long_answers_pass_a_long_link() {
    let mut w = World::new(links()[3]);
    let q = query(1, "a.example", TXT);
    let (flow, at) = ask(&mut w, 1234, &q);
    let a = answer(&q, 0, &pattern(1, 60_000));
    w.datagram(flow, at, &a, 0);
    assert_eq!(w.take(), [response(1234, &a)]);
    assert_over(&w);
}

#[test]
fn open_queries_of_a_port_are_bounded() {
    let mut w = World::plain();
    let queries: Vec<_> = (0..64).map(|id| query(id, "a.example", A)).collect();
    let mut flow = None;
    for q in &queries {
        flow = Some(ask(&mut w, 1234, q).0);
    }
    w.send(&frames::udp(1234, FORWARDER, &query(64, "a.example", A)));
    assert_eq!(asked(&mut w), []);
    assert_eq!(w.stack.stats().over_limit, 1);
    // A repetition is not one more.
    w.send(&frames::udp(1234, FORWARDER, &queries[0]));
    assert_eq!(servers(&mut w), [resolver(0)]);
    w.datagram(flow.unwrap(), resolver(0), &answer(&queries[9], 0, b""), 0);
    ask(&mut w, 1234, &query(64, "a.example", A));
    w.run(Duration::from_secs(20));
    assert_over(&w);
    w.take();
    w.assert_works();
}

/// Without any server the client is told, and does not wait.
#[test]
fn no_resolvers() {
    let mut w = with_resolvers(&[]);
    let mut q = query(0xbeef, "A.example", A);
    q[11] = 1;
    q.extend([0, 0, 41, 4, 208, 0, 0, 0x80, 0, 0, 0]);
    w.send(&frames::udp(1234, FORWARDER, &q));
    let a = answered(&mut w);
    assert_eq!(a[..4], [0xbe, 0xef, 0x81, 0x82]);
    assert_eq!(a[4..12], [0, 1, 0, 0, 0, 0, 0, 1]);
    assert_eq!(a[12..q.len() - 11], q[12..q.len() - 11]);
    assert_eq!(a[q.len() - 11..], [0, 0, 41, 4, 208, 0, 0, 0x80, 0, 0, 0]);
    assert_over(&w);
    w.host.resolvers = Some(vec![resolver(0)]);
    w.assert_works();
}

/// Open queries go on with the servers that they began with; repetitions with the new.
#[test]
fn resolvers_change_under_way() {
    let new: SocketAddr = "192.0.2.99:53".parse().unwrap();
    let mut w = World::plain();
    let q = query(1, "a.example", A);
    let a = answer(&q, 0, b"a");
    let (flow, _) = ask(&mut w, 1234, &q);
    w.host.resolvers = Some(vec![new]);
    w.run(Duration::from_millis(1100));
    assert_eq!(servers(&mut w), [resolver(1)]);
    w.datagram(flow, resolver(0), &a, 0);
    assert_eq!(w.take(), [response(1234, &a)]);
    assert_over(&w);

    w.host.resolvers = Some(vec![resolver(0), resolver(1)]);
    let (flow, _) = ask(&mut w, 1234, &q);
    w.host.resolvers = Some(vec![new]);
    let (same, at) = ask(&mut w, 1234, &q);
    assert_eq!((same, at), (flow, new));
    w.datagram(flow, resolver(0), &a, 0);
    assert_eq!(w.take(), [], "no longer a server of this query");
    w.datagram(flow, new, &a, 0);
    assert_eq!(w.take(), [response(1234, &a)]);
    assert_over(&w);

    // None is left.
    ask(&mut w, 1234, &q);
    w.host.resolvers = Some(Vec::new());
    w.send(&frames::udp(1234, FORWARDER, &q));
    assert_eq!(answered(&mut w)[3] & 15, SERVFAIL);
    w.run(Duration::from_secs(16));
    assert_over(&w);
}

/// Each IP version has a socket of its own.
#[test]
fn servers_of_both_versions() {
    let mut w = with_resolvers(&["[2001:db8::53]:53", "192.0.2.53:53"]);
    let at: Vec<SocketAddr> = w.stack.forwarder.servers().to_vec();
    let q = query(1, "a.example", A);
    let (first, to) = ask(&mut w, 1234, &q);
    assert_eq!(to, at[0]);
    w.run(Duration::from_millis(1001));
    let (second, to, _) = asked(&mut w)[0];
    assert_eq!(to, at[1]);
    assert_ne!(first, second);
    assert_eq!(w.stack.flow_count(), 3);
    let a = answer(&q, 0, b"a");
    w.datagram(second, at[1], &a, 0);
    assert_eq!(w.take(), [response(1234, &a)]);
    assert_over(&w);
    // No socket of one version is to be had.
    w.host
        .faults
        .insert(Call::UdpOpen, (0, HostError::NoResources));
    let (flow, to) = ask(&mut w, 1234, &q);
    assert_eq!(to, at[1]);
    w.datagram(flow, at[1], &a, 0);
    assert_eq!(w.take(), [response(1234, &a)]);
    assert_over(&w);
}

/// The client has gone: nothing is kept for it.
#[test]
fn a_client_that_is_gone_ends_its_flow() {
    let mut w = World::plain();
    let q = query(1, "a.example", A);
    let (flow, at) = ask(&mut w, 1234, &q);
    ask(&mut w, 1234, &query(2, "a.example", A));
    let a = answer(&q, 0, b"a");
    w.datagram(flow, at, &a, 0);
    let packet = frames::Ip {
        source: DNS,
        ..frames::Ip::new(
            GUEST,
            frames::UDP,
            frames::udp_segment(DNS, 53, SocketAddrV4::new(GUEST, 1234), &a),
        )
    };
    let message = frames::icmp_message(3, 3, [0; 4], &packet.packet()[..28]);
    w.send(&frames::Ip::new(DNS, frames::ICMP, message).frame());
    assert_over(&w);
}
