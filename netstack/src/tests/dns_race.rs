//! The DNS forwarder asks one server after the other, and who answers first has won.

use hostile::Call;
use smoltcp::time::Duration;

use super::dns::{
    A, AAAA, FORWARDER, NOTIMP, REFUSED, SERVFAIL, answer, ask, asked, assert_over, query,
    response, servers, with_resolvers,
};
use super::frames::{self, DNS, GUEST, Seen};
use super::guest::remote;
use super::world::{World, links, resolver};
use crate::HostError;

#[test]
fn the_next_server_is_asked_after_a_second() {
    let mut w = World::plain();
    let q = query(1, "a.example", A);
    let (flow, _) = ask(&mut w, 1234, &q);
    w.run(Duration::from_millis(999));
    assert_eq!(asked(&mut w), []);
    w.run(Duration::from_millis(2));
    assert_eq!(asked(&mut w), [(flow, resolver(1), q.clone())]);
    // Whoever of them answers is heard.
    let a = answer(&q, 0, b"a");
    w.datagram(flow, resolver(0), &a, 0);
    assert_eq!(w.take(), [response(1234, &a)]);
    assert_over(&w);
}

#[test]
fn a_dead_server_is_left_at_once() {
    let mut w = World::plain();
    let [q1, q2] = [query(1, "a.example", A), query(2, "a.example", AAAA)];
    let (flow, at) = ask(&mut w, 1234, &q1);
    ask(&mut w, 1234, &q2);
    w.datagram_failed(flow, at, HostError::Refused);
    assert_eq!(servers(&mut w), [resolver(1); 2]);
    // The error of the other query says nothing new.
    w.datagram_failed(flow, at, HostError::Refused);
    assert_eq!(asked(&mut w), []);
    assert_eq!(w.take(), []);
    for q in [&q1, &q2] {
        let a = answer(q, 0, b"a");
        w.datagram(flow, resolver(1), &a, 0);
        assert_eq!(w.take(), [response(1234, &a)]);
    }
    assert_over(&w);
}

#[test]
fn a_server_without_a_route_is_passed_over() {
    let mut w = World::plain();
    w.host
        .faults
        .insert(Call::UdpSend, (0, HostError::NetUnreachable));
    let q = query(1, "a.example", A);
    let (_, at) = ask(&mut w, 1234, &q);
    assert_eq!(at, resolver(1));
}

#[test]
fn a_failing_server_is_left_at_once() {
    for code in [SERVFAIL, NOTIMP, REFUSED] {
        let mut w = World::plain();
        let q = query(1, "a.example", A);
        let (flow, at) = ask(&mut w, 1234, &q);
        w.datagram(flow, at, &answer(&q, code, b""), 0);
        assert_eq!(w.take(), []);
        assert_eq!(servers(&mut w), [resolver(1)]);
        let a = answer(&q, 0, b"good");
        w.datagram(flow, resolver(1), &a, 0);
        assert_eq!(w.take(), [response(1234, &a)]);
        assert_over(&w);
    }
}

/// That a name does not exist is an answer, and a truncated one is, too.
#[test]
fn other_codes_are_answers() {
    let mut w = World::plain();
    for code in [0, 1, 3, 6, 15] {
        let q = query(1, "a.example", A);
        let (flow, at) = ask(&mut w, 1234, &q);
        let mut a = answer(&q, code, b"");
        a[2] |= 2;
        w.datagram(flow, at, &a, 0);
        assert_eq!(w.take(), [response(1234, &a)]);
        assert_over(&w);
    }
}

#[test]
fn when_all_fail_the_client_is_told() {
    let q = query(1, "a.example", A);
    let [refused, servfail] = [REFUSED, SERVFAIL].map(|code| answer(&q, code, b""));
    // By answers alone: the last.
    let mut w = World::plain();
    let (flow, at) = ask(&mut w, 1234, &q);
    w.datagram(flow, at, &refused, 0);
    assert_eq!(w.take(), []);
    w.datagram(flow, resolver(1), &servfail, 0);
    assert_eq!(w.take(), [response(1234, &servfail)]);
    assert_over(&w);
    // An answer says more than an ICMP error.
    let mut w = World::plain();
    let (flow, at) = ask(&mut w, 1234, &q);
    w.datagram(flow, at, &refused, 0);
    w.datagram_failed(flow, resolver(1), HostError::Refused);
    assert_eq!(w.take(), [response(1234, &refused)]);
    assert_over(&w);
    // By ICMP alone.
    let mut w = World::plain();
    let (flow, at) = ask(&mut w, 1234, &q);
    w.datagram_failed(flow, at, HostError::Refused);
    assert_eq!(w.take(), []);
    w.datagram_failed(flow, resolver(1), HostError::Refused);
    match &w.take()[..] {
        [Seen::Unreachable { code: 3, quote }] => {
            assert_eq!(quote[12..16], GUEST.octets());
            assert_eq!(quote[16..20], DNS.octets());
            assert_eq!(quote[20..24], [0x04, 0xd2, 0, 53]);
        }
        other => panic!("unexpected {other:?}"),
    }
    assert_over(&w);
    w.assert_works();
}

/// What the client is told is what has become of the last server; nothing, if that
/// does not concern it.
#[test]
fn failures_on_the_way_are_icmp_errors() {
    let mut w = with_resolvers(&["192.0.2.53:53"]);
    let q = query(1, "a.example", A);
    for (error, expected) in [
        (HostError::NetUnreachable, Some(0)),
        (HostError::HostUnreachable, Some(1)),
        (HostError::Refused, Some(3)),
        (HostError::Forbidden, Some(13)),
        (HostError::NoResources, None),
    ] {
        let (flow, at) = ask(&mut w, 1234, &q);
        w.datagram_failed(flow, remote(9, 53).into(), HostError::Refused);
        assert_eq!(w.stack.flow_count(), 2, "about another");
        w.datagram_failed(flow, at, error);
        match (&w.take()[..], expected) {
            ([Seen::Unreachable { code, quote }], Some(expected)) => {
                assert_eq!((*code, &quote[16..20]), (expected, &DNS.octets()[..]));
            }
            ([], None) => {}
            other => panic!("{error}: {other:?}"),
        }
        assert_over(&w);
        w.datagram_failed(flow, at, error);
        assert_eq!(w.take(), []);
    }
}

/// A failure is better than silence, once silence has lasted.
#[test]
fn a_failure_does_not_wait_for_the_silent() {
    let mut w = World::plain();
    let q = query(1, "a.example", A);
    let (flow, at) = ask(&mut w, 1234, &q);
    let failure = answer(&q, SERVFAIL, b"");
    w.datagram(flow, at, &failure, 0);
    w.run(Duration::from_millis(1990));
    assert_eq!(w.take(), []);
    w.run(Duration::from_millis(20));
    assert_eq!(w.take(), [response(1234, &failure)]);
    assert_over(&w);
}

/// A server that cannot read a query returns a bare header: another may read it.
#[test]
fn a_bare_header_is_a_failure() {
    let mut w = World::plain();
    let q = query(1, "a.example", A);
    let (flow, at) = ask(&mut w, 1234, &q);
    let mut bare = answer(&q, 1, b"");
    bare.truncate(12);
    bare[5] = 0;
    w.datagram(flow, at, &bare, 0);
    assert_eq!(w.take(), []);
    assert_eq!(servers(&mut w), [resolver(1)]);
    w.datagram(flow, resolver(1), &bare, 0);
    assert_eq!(w.take(), [response(1234, &bare)]);
}

#[test]
fn a_repetition_goes_to_all_that_were_asked() {
    let mut w = World::plain();
    let q = query(1, "a.example", A);
    ask(&mut w, 1234, &q);
    w.run(Duration::from_millis(500));
    w.send(&frames::udp(1234, FORWARDER, &q));
    assert_eq!(servers(&mut w), [resolver(0)]);
    w.run(Duration::from_millis(600));
    assert_eq!(servers(&mut w), [resolver(1)]);
    w.send(&frames::udp(1234, FORWARDER, &q));
    let sent = asked(&mut w);
    assert_eq!(sent.len(), 2);
    assert!(sent.iter().all(|(.., sent)| *sent == q));
    // One answer is all there is to come.
    let a = answer(&q, 0, b"a");
    w.datagram(sent[0].0, resolver(1), &a, 0);
    assert_eq!(w.take(), [response(1234, &a)]);
    assert_over(&w);
}

/// Who has failed before may not fail again.
#[test]
fn a_repetition_forgives() {
    let mut w = World::plain();
    let q = query(1, "a.example", A);
    let (flow, at) = ask(&mut w, 1234, &q);
    w.datagram(flow, at, &answer(&q, SERVFAIL, b""), 0);
    asked(&mut w);
    w.send(&frames::udp(1234, FORWARDER, &q));
    assert_eq!(servers(&mut w), [resolver(0), resolver(1)]);
    w.datagram_failed(flow, resolver(1), HostError::Refused);
    assert_eq!(w.take(), []);
    let a = answer(&q, 0, b"a");
    w.datagram(flow, resolver(0), &a, 0);
    assert_eq!(w.take(), [response(1234, &a)]);
    assert_over(&w);
}

/// However many servers there are.
#[test]
fn the_race_ends_with_its_query() {
    let all: Vec<String> = (0..40).map(|n| format!("192.0.2.{n}:53")).collect();
    let mut w = with_resolvers(&all.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(w.stack.forwarder.servers().len(), 32);
    ask(&mut w, 1234, &query(1, "a.example", A));
    w.run(Duration::from_millis(14_999));
    assert_eq!(servers(&mut w), w.stack.forwarder.servers()[1..15]);
    w.run(Duration::from_millis(2));
    assert_eq!(asked(&mut w), []);
    assert_over(&w);
}

/// A long query is not kept, and so asked elsewhere only when the client repeats it.
#[test]
fn a_long_query_is_not_raced() {
    let mut w = World::new(links()[3]);
    let mut q = query(1, "a.example", A);
    q.resize(4097, 0);
    let (flow, at) = ask(&mut w, 1234, &q);
    assert_eq!(at, resolver(0));
    w.run(Duration::from_secs(5));
    assert_eq!(asked(&mut w), []);
    w.send(&frames::udp(1234, FORWARDER, &q));
    assert_eq!(servers(&mut w), [resolver(0), resolver(1)]);
    let a = answer(&query(1, "a.example", A), 0, b"a");
    w.datagram(flow, resolver(1), &a, 0);
    assert_eq!(w.take(), [response(1234, &a)]);
    assert_over(&w);
    // One server has failed, and there is no other to go to.
    let (flow, at) = ask(&mut w, 1234, &q);
    let failure = answer(&query(1, "a.example", A), SERVFAIL, b"");
    w.datagram(flow, at, &failure, 0);
    assert_eq!(w.take(), [response(1234, &failure)]);
    assert_over(&w);
}

/// An update may not be made twice; its answer need not repeat what it was for.
#[test]
fn other_operations_are_not_raced() {
    let mut w = World::plain();
    let mut q = query(1, "a.example", 6);
    q[2] |= 5 << 3;
    let (flow, at) = ask(&mut w, 1234, &q);
    w.run(Duration::from_secs(5));
    assert_eq!(asked(&mut w), []);
    let mut a = answer(&q, 0, b"")[..12].to_vec();
    a[5] = 0;
    w.datagram(flow, at, &a, 0);
    assert_eq!(w.take(), [response(1234, &a)]);
    assert_over(&w);
}
