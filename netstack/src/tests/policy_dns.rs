//! Which names may be asked for, over UDP and over TCP.

use std::net::SocketAddrV4;

use smoltcp::time::Duration;

use super::dns::{A, FORWARDER, answered, ask, asked, assert_over, query};
use super::frames::{self, DNS, Seen, Segment};
use super::guest::{Read, remote};
use super::policy::{CNAME, address, answer_of, only, record, resolve, rules, wire};
use super::world::{Pair, World, config, links, resolver};
use crate::{Action, Attempt, Close, Reason};

/// An OPT record with these options.
fn opt(options: &[u8]) -> Vec<u8> {
    let mut opt = vec![0, 0, 41, 16, 0, 0, 0, 0, 0];
    opt.extend(u16::try_from(options.len()).unwrap().to_be_bytes());
    opt.extend(options);
    opt
}

fn with_opt(mut query: Vec<u8>, options: &[u8]) -> Vec<u8> {
    query[11] += 1;
    query.extend(opt(options));
    query
}

#[test]
fn other_names_do_not_exist() {
    let mut w = only(&["a.example:443", "*.b.example"]);
    for name in ["c.example", "x.a.example", "b.example", "secret.c.example"] {
        let q = query(7, name, A);
        w.send(&frames::udp(1234, FORWARDER, &q));
        let a = answered(&mut w);
        let mut expected = q.clone();
        expected[2..4].copy_from_slice(&[0x81, 0x83]);
        assert_eq!(a, expected, "NXDOMAIN");
        // With the reason, where there is room for one.
        let q = with_opt(q, b"");
        w.send(&frames::udp(1234, FORWARDER, &q));
        let a = answered(&mut w);
        assert_eq!(a[3], 0x83);
        let end = q.len() - 11;
        assert_eq!(a[12..end], q[12..end]);
        assert_eq!(a[end..end + 3], [0, 0, 41]);
        let length = usize::from(u16::from_be_bytes([a[end + 9], a[end + 10]]));
        let option = &a[end + 11..];
        assert_eq!(option.len(), length);
        assert_eq!(option[..2], [0, 15], "RFC 8914");
        assert_eq!(usize::from(option[3]), option.len() - 4);
        assert_eq!(option[4..6], [0, 15], "Blocked");
    }
    assert_eq!(asked(&mut w), []);
    assert_over(&w);
    let first = &w.host.refused[0];
    assert_eq!(
        (first.attempt, first.name.as_deref()),
        (Attempt::Query, Some("c.example"))
    );
    assert_eq!((w.host.refused.len(), w.stack.stats().denied), (8, 8));
    ask(&mut w, 1234, &query(7, "a.example", A));
    ask(&mut w, 1235, &query(7, "x.b.EXAMPLE", A));
}

/// What is not a plain query could carry anything.
#[test]
fn odd_queries_are_refused() {
    let mut w = only(&["dns:*"]);
    let plain = query(7, "a.example", A);
    let mut update = plain.clone();
    update[2] |= 5 << 3;
    let mut two = [&plain[..], &plain[12..]].concat();
    two[5] = 2;
    let mut chaos = plain.clone();
    *chaos.last_mut().unwrap() = 3;
    let trailing = [&plain[..], b"data"].concat();
    let mut record = [&plain[..], &address("a.example", 1, [192, 0, 2, 1])].concat();
    record[11] = 1;
    let mut authority = record.clone();
    authority.swap(9, 11);
    let behind = [&with_opt(plain.clone(), b"")[..], b"data"].concat();
    let two_opts = with_opt(with_opt(plain.clone(), b""), b"");
    for q in [
        update, two, chaos, trailing, record, authority, behind, two_opts,
    ] {
        w.send(&frames::udp(1234, FORWARDER, &q));
        assert_eq!(answered(&mut w)[3] & 15, 5, "REFUSED");
        assert_eq!(w.host.refused.pop().unwrap().reason, Reason::OddQuery);
    }
    assert_eq!(asked(&mut w), []);
    ask(&mut w, 1234, &plain);
    // Where no name is denied, all passes as ever.
    let mut c = config(links()[0]);
    c.policy.rules = rules(Action::Allow, &[], &["192.0.2.0/24", "tcp:*:25"]);
    let mut w = World::with(c);
    ask(&mut w, 1234, &[&plain[..], b"data"].concat());
}

/// Options of EDNS do not leave where all is denied by default.
#[test]
fn options_stay_here() {
    let q = with_opt(
        query(7, "a.example", A),
        &[0, 10, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8],
    );
    let mut w = only(&["a.example"]);
    w.send(&frames::udp(1234, FORWARDER, &q));
    let sent = asked(&mut w);
    assert_eq!(sent[0].2, with_opt(query(7, "a.example", A), b""));
    // The answer is told all the same.
    let a = answer_of(
        &query(7, "a.example", A),
        &[address("a.example", 60, *remote(1, 0).ip())],
    );
    w.datagram(sent[0].0, sent[0].1, &a, 0);
    assert_eq!(answered(&mut w), a);
    let mut c = config(links()[0]);
    c.policy.rules = rules(Action::Allow, &[], &["b.example"]);
    let mut w = World::with(c);
    w.send(&frames::udp(1234, FORWARDER, &q));
    assert_eq!(asked(&mut w)[0].2, q);
}

/// A name that is denied is not reached by another name for it.
#[test]
fn an_alias_of_what_is_denied() {
    let mut c = config(links()[0]);
    c.policy.rules = rules(Action::Allow, &[], &["*.ads.example"]);
    let mut w = World::with(c);
    let records = [
        record("a.example", CNAME, 60, &wire("x.ads.example")),
        address("x.ads.example", 60, *remote(1, 0).ip()),
    ];
    let a = resolve(&mut w, "a.example", &records);
    let mut expected = query(7, "a.example", A);
    expected[2..4].copy_from_slice(&[0x81, 0x83]);
    assert_eq!(a, expected);
    assert_eq!(w.host.refused[0].name.as_deref(), Some("x.ads.example"));
    let records = [address("a.example", 60, *remote(1, 0).ip())];
    let a = resolve(&mut w, "a.example", &records);
    assert_eq!(a, answer_of(&query(7, "a.example", A), &records));
}

/// A query is on its way when the rules change.
#[test]
fn an_answer_that_is_no_longer_wanted() {
    let mut w = only(&["a.example"]);
    let q = query(7, "a.example", A);
    let (flow, at) = ask(&mut w, 1234, &q);
    w.set_rules(rules(Action::Deny, &[], &[]));
    w.datagram(
        flow,
        at,
        &answer_of(&q, &[address("a.example", 60, *remote(1, 0).ip())]),
        0,
    );
    assert_eq!(answered(&mut w)[3], 0x83);
    assert_eq!(w.stack.egress.pins.len(), 0);
}

// ---- Over TCP ----

fn framed(message: &[u8]) -> Vec<u8> {
    [
        &u16::try_from(message.len()).unwrap().to_be_bytes()[..],
        message,
    ]
    .concat()
}

/// A connection to the forwarder.
fn connect(w: &mut World) -> Pair {
    let guest = w.guest.connect(SocketAddrV4::new(DNS, 53), 64 << 10);
    w.run(Duration::from_millis(50));
    let flow = w.host.flow_to(resolver(0)).unwrap();
    Pair { guest, flow }
}

/// What has come for the container.
fn read(w: &mut World, pair: Pair) -> Vec<u8> {
    let mut got = Vec::new();
    w.run_until(Duration::from_millis(500), |w| {
        if let Read::Data(data) = w.guest.read(pair.guest) {
            got.extend(data);
        }
        false
    });
    got
}

fn blocked(q: &[u8]) -> Vec<u8> {
    let mut a = q.to_vec();
    a[2..4].copy_from_slice(&[0x81, 0x83]);
    a
}

#[test]
fn queries_over_tcp_are_judged_and_answers_looked_at() {
    for (chop, bytes) in [(usize::MAX, usize::MAX), (1, 1), (3, 7)] {
        let mut w = only(&["a.example:80"]);
        w.host.chop = chop;
        let pair = connect(&mut w);
        let (good, bad) = (query(1, "a.example", A), query(2, "c.example", A));
        let all = [&good, &bad, &good, &bad, &bad].map(|q| framed(q)).concat();
        for piece in all.chunks(bytes.min(all.len())) {
            assert_eq!(w.guest.write(pair.guest, piece), piece.len());
            w.run(Duration::from_millis(2));
        }
        let only_good = [framed(&good), framed(&good)].concat();
        assert!(
            w.run_until(Duration::from_secs(2), |w| w.far_received(pair.flow)
                == only_good)
        );
        let refusals = framed(&blocked(&bad)).repeat(3);
        assert_eq!(read(&mut w, pair), refusals);
        // Half an answer is not passed, and nothing comes into its middle.
        let a = framed(&answer_of(
            &good,
            &[address("a.example", 60, *remote(1, 0).ip())],
        ));
        let (front, back) = a.split_at(a.len() - 1);
        w.host.far_write(pair.flow, front);
        assert_eq!(w.guest.write(pair.guest, &framed(&bad)), framed(&bad).len());
        assert_eq!(read(&mut w, pair), framed(&blocked(&bad)));
        assert_eq!(w.stack.egress.pins.len(), 0);
        w.host.far_write(pair.flow, &[back, &a].concat());
        assert_eq!(read(&mut w, pair), a.repeat(2));
        assert_eq!(w.stack.egress.pins.len(), 1);
        // Both ends in order.
        w.guest.tcp(pair.guest).close();
        assert!(w.run_until(Duration::from_secs(1), |w| w.far_sees_end(pair.flow)));
        w.host.far_close(pair.flow);
        assert!(w.run_until(Duration::from_secs(1), |w| w.closed(pair.flow).is_some()));
        assert_eq!(w.closed(pair.flow), Some(Close::Orderly));
        w.assert_empties(Duration::from_secs(300));
    }
}

/// The server's socket is full for a while.
#[test]
fn queries_over_tcp_wait_for_the_server() {
    let mut w = only(&["a.example"]);
    w.host.buffers = (40, 256 << 10);
    w.host.reads = false;
    let pair = connect(&mut w);
    let all = framed(&query(1, "a.example", A)).repeat(200);
    assert_eq!(w.guest.write(pair.guest, &all), all.len());
    w.guest.tcp(pair.guest).close();
    let done = w.run_until(Duration::from_secs(60), |w| {
        w.host.far_read(pair.flow);
        w.far_received(pair.flow).len() == all.len() && w.far_sees_end(pair.flow)
    });
    assert!(done, "{} of {}", w.far_received(pair.flow).len(), all.len());
}

#[test]
fn what_is_no_query_ends_the_connection() {
    let long = [&4097_u16.to_be_bytes()[..], &[0; 100]].concat();
    let empty = vec![0, 0];
    let not_one = framed(b"GET / HTTP/1.1\r\n\r\n");
    let response = framed(&blocked(&query(1, "a.example", A)));
    for bad in [long, empty, not_one, response] {
        let mut w = only(&["a.example"]);
        let pair = connect(&mut w);
        let data = [framed(&query(1, "a.example", A)), bad].concat();
        assert_eq!(w.guest.write(pair.guest, &data), data.len());
        assert!(w.run_until(Duration::from_secs(1), |w| w.closed(pair.flow).is_some()));
        assert_eq!(w.closed(pair.flow), Some(Close::Reset));
        w.assert_empties(Duration::from_secs(1));
    }
    // Nobody takes our own answers.
    let mut w = only(&["a.example"]);
    let pair = connect(&mut w);
    w.guest_alive = true;
    let flood = framed(&query(1, "c.example", A)).repeat(20_000);
    let mut rest = &flood[..];
    let over = w.run_until(Duration::from_secs(30), |w| {
        let taken = w.guest.write(pair.guest, rest);
        rest = &rest[taken..];
        w.closed(pair.flow).is_some() || rest.is_empty()
    });
    assert!(over);
}

#[test]
fn connections_to_the_forwarder_are_counted() {
    let mut w = only(&["a.example"]);
    for _ in 0..crate::dns::MAX_GATES {
        connect(&mut w);
    }
    w.send(&Segment::syn(77, SocketAddrV4::new(DNS, 53)).frame());
    assert!(matches!(&w.take()[..], [Seen::Tcp(tcp)] if tcp.flags & frames::RST != 0));
    // One that began before there were rules ends when there are some.
    let mut w = World::plain();
    let before = connect(&mut w);
    w.set_rules(rules(Action::Deny, &["a.example"], &[]));
    assert_eq!(w.closed(before.flow), Some(Close::Reset));
    assert_eq!(w.host.refused, []);
    let after = connect(&mut w);
    w.set_rules(rules(Action::Deny, &["b.example"], &[]));
    assert_eq!(w.closed(after.flow), None);
}

mod any {
    use proptest::prelude::*;

    use crate::dns::told;

    proptest! {
        #[test]
        fn bytes_are_an_answer_or_none(bytes in prop::collection::vec(any::<u8>(), 0..200), counts: [u8; 2]) {
            let mut message = b"\0\x07\x81\x80\0\x01\0\0\0\0\0\0\x01a\0\0\x01\0\x01".to_vec();
            message[6..8].copy_from_slice(&counts);
            message.extend(bytes);
            let _ = told(&message);
        }

        #[test]
        fn bytes_are_a_message_or_none(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = (told(&bytes), crate::dns::emptied(&bytes));
            if let Some(query) = crate::dns::Query::parse(&bytes) {
                let _ = (query.plain_name(), query.without_options(), query.no_such_name(), query.refusal());
            }
        }
    }
}
