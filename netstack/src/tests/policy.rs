//! Rules: what they open, for how long, and what a change of them ends.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use smoltcp::time::Duration;

use super::dns::{self, A, AAAA, answer, ask, query};
use super::frames::{self, ACK, GATEWAY, GUEST, RST, SYN, Seen, Segment, TcpSeen};
use super::guest::remote;
use super::host::Refused;
use super::world::{World, config, links};
use crate::policy::pins;
use crate::{Action, Attempt, Close, Name, Protocol, Reason, Rule, Rules};

pub(super) const CNAME: u16 = 5;

pub(super) fn rules(default: Action, allow: &[&str], deny: &[&str]) -> Rules {
    let rules =
        |texts: &[&str]| -> Vec<Rule> { texts.iter().map(|text| text.parse().unwrap()).collect() };
    Rules::new(default, rules(allow), rules(deny))
}

/// A world where only this is allowed.
pub(super) fn only(allow: &[&str]) -> World {
    let mut c = config(links()[0]);
    c.policy.rules = rules(Action::Deny, allow, &[]);
    World::with(c)
}

pub(super) fn wire(name: &str) -> Vec<u8> {
    Name::new(name).unwrap().wire().to_vec()
}

/// A record.
pub(super) fn record(owner: &str, kind: u16, ttl: u32, data: &[u8]) -> Vec<u8> {
    let mut record = wire(owner);
    record.extend(kind.to_be_bytes());
    record.extend([0, 1]);
    record.extend(ttl.to_be_bytes());
    record.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
    record.extend(data);
    record
}

pub(super) fn address(owner: &str, ttl: u32, address: impl Into<IpAddr>) -> Vec<u8> {
    match address.into() {
        IpAddr::V4(v4) => record(owner, A, ttl, &v4.octets()),
        IpAddr::V6(v6) => record(owner, AAAA, ttl, &v6.octets()),
    }
}

/// An answer with these records.
pub(super) fn answer_of(query: &[u8], records: &[Vec<u8>]) -> Vec<u8> {
    let mut message = answer(query, 0, &records.concat());
    message[6..8].copy_from_slice(&u16::try_from(records.len()).unwrap().to_be_bytes());
    message
}

/// The container asks for a name and is told these records; what comes to it.
pub(super) fn resolve(w: &mut World, name: &str, records: &[Vec<u8>]) -> Vec<u8> {
    let port = w.port();
    let q = query(7, name, A);
    let (flow, at) = ask(w, port, &q);
    w.datagram(flow, at, &answer_of(&q, records), 0);
    dns::answered(w)
}

fn ip(last: u8) -> Ipv4Addr {
    *remote(last, 0).ip()
}

/// A SYN to there is let through; the connection is given up again.
fn reaches(w: &mut World, last: u8, port: u16) -> bool {
    let to = remote(last, port);
    let source = w.port();
    let before = w.host.connects.len();
    w.send(&Segment::syn(source, to).frame());
    let connects = w.host.connects.len() > before;
    match &w.take()[..] {
        [Seen::Unreachable { code: 13, .. }] => assert!(!connects),
        [] => {
            assert!(connects);
            w.run(Duration::from_millis(2));
            let isn = match &w.take_tcp()[..] {
                [TcpSeen { flags, seq, .. }] if *flags == SYN | ACK => *seq,
                other => panic!("{other:?}"),
            };
            w.send(&Segment::new(source, to, RST | ACK, 1001, isn.wrapping_add(1)).frame());
            w.run(Duration::from_millis(2));
        }
        other => panic!("{other:?}"),
    }
    connects
}

fn sends(w: &mut World, last: u8, port: u16) -> bool {
    let source = w.port();
    let before = w.host.datagrams.len();
    w.send(&frames::udp(source, remote(last, port), b"x"));
    let sent = w.host.datagrams.len() > before;
    match &w.take()[..] {
        [Seen::Unreachable { code: 13, .. }] => assert!(!sent),
        [] => assert!(sent),
        other => panic!("{other:?}"),
    }
    sent
}

fn pings(w: &mut World, last: u8) -> bool {
    let before = w.host.echoes.len();
    let ident = w.port();
    w.send(&frames::echo(ip(last), ident, 1, b"x"));
    w.take();
    w.host.echoes.len() > before
}

#[test]
fn networks_and_ports() {
    let mut w = only(&[
        "tcp:198.51.100.0/28:80",
        "198.51.100.20",
        "icmp:198.51.100.1",
    ]);
    assert!(reaches(&mut w, 1, 80));
    assert!(!reaches(&mut w, 1, 81));
    assert!(!reaches(&mut w, 16, 80));
    assert!(!sends(&mut w, 1, 80));
    assert!(reaches(&mut w, 20, 9) && sends(&mut w, 20, 9) && pings(&mut w, 20));
    assert!(pings(&mut w, 1) && !pings(&mut w, 2));
    let told: Vec<_> = w
        .host
        .refused
        .iter()
        .map(|r| (r.attempt, r.remote))
        .collect();
    assert_eq!(
        told,
        [
            (Attempt::Flow(Protocol::Tcp), SocketAddr::V4(remote(1, 81))),
            (Attempt::Flow(Protocol::Tcp), SocketAddr::V4(remote(16, 80))),
            (Attempt::Flow(Protocol::Udp), SocketAddr::V4(remote(1, 80))),
            (Attempt::Flow(Protocol::Echo), SocketAddr::V4(remote(2, 0))),
        ]
    );
    assert_eq!(w.stack.stats().denied, 4);
}

#[test]
fn a_name_opens_its_addresses_for_its_port() {
    let mut w = only(&["a.example:80"]);
    assert!(!reaches(&mut w, 1, 80));
    assert_eq!(w.host.refused[0].name, None);
    let records = [
        address("a.example", 600, ip(1)),
        address("A.Example", 600, ip(2)),
    ];
    resolve(&mut w, "a.EXAMPLE", &records);
    for last in [1, 2] {
        assert!(reaches(&mut w, last, 80) && sends(&mut w, last, 80));
        assert!(!reaches(&mut w, last, 81) && !pings(&mut w, last));
    }
    assert!(!reaches(&mut w, 3, 80));
    let first = Refused {
        attempt: Attempt::Flow(Protocol::Tcp),
        remote: remote(1, 81).into(),
        name: Some("a.example".to_owned()),
        reason: Reason::NoRule,
        ended: false,
    };
    assert_eq!(w.host.refused[1], first);
}

#[test]
fn aliases_are_followed_from_the_name_that_was_asked_for() {
    let mut w = only(&["a.example"]);
    let alias = |owner: &str, to: &str, ttl| record(owner, CNAME, ttl, &wire(to));
    // In any order; what nothing leads to opens nothing.
    let records = [
        address("c.example", 9000, ip(1)),
        alias("b.example", "c.example", 600),
        address("d.example", 9000, ip(2)),
        alias("a.example", "b.example", 9000),
        alias("c.example", "a.example", 9000),
    ];
    resolve(&mut w, "a.example", &records);
    assert!(reaches(&mut w, 1, 80) && !reaches(&mut w, 2, 80));
    // As long as the least of the chain.
    w.run(Duration::from_secs(595));
    assert!(reaches(&mut w, 1, 80));
    w.run(Duration::from_secs(6));
    assert!(!reaches(&mut w, 1, 80));
}

/// Only an answer that passes to the container counts.
#[test]
fn forged_answers_open_nothing() {
    let mut w = only(&["a.example", "b.example"]);
    let port = w.port();
    let q = query(7, "a.example", A);
    let (flow, at) = ask(&mut w, port, &q);
    let good = answer_of(&q, &[address("a.example", 600, ip(1))]);
    let mut other_id = good.clone();
    other_id[0] ^= 1;
    let other_question = answer_of(
        &query(7, "b.example", A),
        &[address("b.example", 600, ip(1))],
    );
    for (from, message) in [
        (SocketAddr::V4(remote(9, 53)), &good),
        (at, &other_id),
        (at, &other_question),
        (at, &q),
    ] {
        w.datagram(flow, from, message, 0);
        assert_eq!(w.take(), []);
    }
    assert!(!reaches(&mut w, 1, 80));
    // No such name, whatever the records say.
    let mut none = good.clone();
    none[3] |= 3;
    w.datagram(flow, at, &none, 0);
    assert_eq!(dns::answered(&mut w), none);
    w.datagram(flow, at, &good, 0);
    assert!(!reaches(&mut w, 1, 80));
    assert_eq!(w.stack.egress.pins.len(), 0);
}

#[test]
fn an_answer_counts_for_its_time() {
    let mut w = only(&["a.example"]);
    for (last, ttl) in [
        (1, 0),
        (2, 1000),
        (3, 1 << 31),
        (4, i32::MAX.cast_unsigned()),
    ] {
        resolve(&mut w, "a.example", &[address("a.example", ttl, ip(last))]);
    }
    w.run(Duration::from_secs(299));
    assert!((1..=4).all(|last| reaches(&mut w, last, 80)));
    w.run(Duration::from_secs(2));
    assert_eq!(
        [1, 2, 3, 4].map(|last| reaches(&mut w, last, 80)),
        [false, true, false, true]
    );
    // Asked again it counts anew, and no answer shortens one before.
    resolve(&mut w, "a.example", &[address("a.example", 10, ip(2))]);
    resolve(&mut w, "a.example", &[address("a.example", 10, ip(1))]);
    w.run(Duration::from_secs(690));
    assert_eq!([1, 2].map(|last| reaches(&mut w, last, 80)), [false, true]);
    w.run(Duration::from_secs(86_400 - 992));
    assert!(reaches(&mut w, 4, 80));
    w.run(Duration::from_secs(3));
    assert!(!reaches(&mut w, 4, 80));
}

#[test]
fn what_stands_goes_on_when_the_answer_has_expired() {
    let mut w = only(&["a.example"]);
    resolve(&mut w, "a.example", &[address("a.example", 0, ip(1))]);
    let pair = w.connect(remote(1, 80));
    w.send(&frames::udp(1234, remote(1, 7), b"one"));
    w.send(&frames::echo(ip(1), 77, 1, b"x"));
    let (flow, at, _) = w.host.datagrams.last().cloned().unwrap();
    for _ in 0..20 {
        w.run(Duration::from_secs(20));
        w.send(&frames::udp(1234, remote(1, 7), b"more"));
        w.send(&frames::echo(ip(1), 77, 1, b"x"));
        w.datagram(flow, at, b"answer", 0);
    }
    assert_eq!((w.host.datagrams.len(), w.host.echoes.len()), (21, 21));
    w.take();
    assert!(!reaches(&mut w, 1, 80));
    assert_eq!(w.guest.write(pair.guest, b"still"), 5);
    assert!(
        w.run_until(Duration::from_secs(1), |w| w.far_received(pair.flow)
            == b"still")
    );
}

/// Memory is bounded; what was answered the longest time ago goes.
#[test]
fn there_are_only_so_many_pins() {
    let mut w = only(&["*.example"]);
    let name = |n: usize| format!("n{n}.example");
    let at = |n: usize| Ipv4Addr::from(0xc800_0000 + u32::try_from(n).unwrap());
    for n in 0..pins::MOST {
        resolve(&mut w, &name(n), &[address(&name(n), 600, at(n))]);
    }
    resolve(&mut w, &name(0), &[address(&name(0), 600, at(0))]);
    for n in pins::MOST..pins::MOST + 10 {
        resolve(&mut w, &name(n), &[address(&name(n), 600, at(n))]);
    }
    let pins = &w.stack.egress.pins;
    assert_eq!(pins.len(), pins::MOST);
    let known = |n: usize| pins.names(at(n).into(), None).count() == 1;
    assert!(known(0) && (1..11).all(|n| !known(n)) && known(11) && known(pins::MOST + 9));
    // And only so many of one address.
    for n in 0..pins::NAMES + 3 {
        resolve(&mut w, &name(n), &[address(&name(n), 600, ip(1))]);
    }
    let pins = &w.stack.egress.pins;
    let names: Vec<_> = pins
        .names(ip(1).into(), None)
        .map(ToString::to_string)
        .collect();
    assert_eq!(names.len(), pins::NAMES);
    assert!(!names.contains(&name(2)) && names.contains(&name(3)));
    assert!(pins.len() <= pins::MOST);
    // An answer with more addresses than there is room for.
    let many: Vec<_> = (0..500)
        .map(|n| address("many.example", 600, at(100_000 + n)))
        .collect();
    for _ in 0..20 {
        resolve(&mut w, "many.example", &many);
    }
    assert!(w.stack.egress.pins.len() <= pins::MOST);
}

#[test]
fn an_answer_opens_nothing_that_the_host_protects() {
    let mut w = only(&["*"]);
    w.host.local.insert(ip(1).into());
    let bad = [
        ip(1),
        GATEWAY,
        GUEST,
        [127, 0, 0, 1].into(),
        [169, 254, 169, 254].into(),
        [0; 4].into(),
        [10, 0, 2, 77].into(),
        [224, 0, 0, 1].into(),
    ];
    let records: Vec<_> = bad
        .iter()
        .map(|at| address("a.example", 600, *at))
        .collect();
    resolve(&mut w, "a.example", &records);
    for at in bad {
        let to = std::net::SocketAddrV4::new(at, 80);
        let port = w.port();
        w.send(&Segment::syn(port, to).frame());
        w.send(&frames::udp(port, to, b"x"));
    }
    assert_eq!(
        (&w.host.connects[..], &w.host.datagrams[..]),
        (&[][..], &[][..])
    );
    assert!(
        w.host
            .refused
            .iter()
            .all(|r| !matches!(r.reason, Reason::Rule(_) | Reason::NoRule))
    );
    assert_eq!(w.host.refused.len(), 2 * bad.len());
}

/// Names that the owner has given addresses need not be asked for.
#[test]
fn names_of_the_owner() {
    let mut w = only(&["given.example:80", "own.example:80", "other.example"]);
    w.stack
        .set_names(vec![("own.example".into(), vec![ip(1).into()])]);
    w.stack
        .know_names(&[("given.example".into(), vec![ip(2).into()])]);
    assert!(reaches(&mut w, 1, 80) && reaches(&mut w, 2, 80));
    assert!(!reaches(&mut w, 1, 81) && !reaches(&mut w, 3, 80));
    // One set later is answered, too.
    let port = w.port();
    w.send(&frames::udp(
        port,
        dns::FORWARDER,
        &query(7, "own.example", A),
    ));
    let seen = dns::answered(&mut w);
    assert!(seen.ends_with(&ip(1).octets()), "{seen:?}");
}

#[test]
fn a_change_ends_what_is_no_longer_allowed() {
    let mut w = only(&["a.example", "198.51.100.2:80", "198.51.100.3", "*:5000"]);
    resolve(&mut w, "a.example", &[address("a.example", 0, ip(1))]);
    let [named, listed, port] =
        [remote(1, 80), remote(2, 80), remote(9, 5000)].map(|to| w.connect(to));
    w.send(&frames::udp(1234, remote(3, 7), b"x"));
    w.send(&frames::echo(ip(3), 77, 1, b"x"));
    w.run(Duration::from_secs(301));
    let client = SocketAddr::V4(remote(8, 999));
    let inbound = w.accept(client, 80).unwrap();
    w.take();
    w.host.refused.clear();
    // The name has expired, and is still what the flow was opened for.
    let set = |w: &mut World, allow: &[&str], deny: &[&str]| {
        w.set_rules(rules(Action::Deny, allow, deny));
        w.check();
        w.run(Duration::from_millis(5));
        std::mem::take(&mut w.host.refused)
    };
    assert_eq!(
        set(
            &mut w,
            &["a.example", "198.51.100.0/24:1-100", "*:5000"],
            &[]
        )
        .len(),
        0
    );
    assert_eq!(w.closed(named.flow), None);
    let told = set(
        &mut w,
        &["198.51.100.0/24:1-100", "*:5000"],
        &["198.51.100.2/31"],
    );
    assert_eq!(w.closed(listed.flow), Some(Close::Reset));
    assert_eq!(
        w.closed(named.flow),
        None,
        "it is in a network that is allowed"
    );
    assert_eq!(w.closed(port.flow), None);
    assert!(
        told.iter().all(|r| r.ended && r.reason == Reason::Rule(0)),
        "{told:?}"
    );
    let told = set(&mut w, &["*:5000"], &[]);
    assert_eq!(w.closed(named.flow), Some(Close::Reset));
    assert_eq!(told.len(), 1);
    assert_eq!(
        (told[0].name.as_deref(), told[0].reason),
        (Some("a.example"), Reason::NoRule)
    );
    let told = set(&mut w, &[], &[]);
    assert_eq!((told.len(), w.closed(port.flow)), (1, Some(Close::Reset)));
    // Whoever came in by a published port stays.
    assert!(w.host.open.contains_key(&inbound));
    assert_eq!(w.stack.flow_count(), 1);
    for pair in [named, listed, port] {
        assert_eq!(
            w.guest.state(pair.guest),
            smoltcp::socket::tcp::State::Closed
        );
    }
}

/// UDP, echo and half-open flows.
#[test]
fn a_change_ends_flows_of_every_kind() {
    let mut w = only(&["198.51.100.3"]);
    w.host.default_outcome = super::host::Outcome::Never;
    w.send(&Segment::syn(1, remote(3, 81)).frame());
    w.send(&frames::udp(1234, remote(3, 7), b"x"));
    w.send(&frames::echo(ip(3), 77, 1, b"x"));
    let published = w
        .stack
        .publish_udp(SocketAddr::new(GUEST.into(), 53))
        .unwrap();
    w.host.bound(published);
    w.datagram(published, remote(4, 9).into(), b"question", 0);
    assert_eq!(w.stack.flow_count(), 6);
    w.take();
    w.set_rules(rules(Action::Deny, &[], &[]));
    w.check();
    // The published port, and who has come in by it.
    assert_eq!((w.stack.flow_count(), w.host.refused.len()), (2, 3));
    w.send(&frames::udp(53, remote(4, 9), b"answer"));
    assert_eq!(w.host.datagrams.last().unwrap().2, b"answer");
    // Nobody else hears of it.
    w.send(&frames::udp(53, remote(5, 9), b"unasked"));
    assert_eq!(w.host.datagrams.last().unwrap().2, b"answer");
    // Without rules all is as ever.
    w.set_rules(Rules::default());
    w.take();
    w.assert_works();
}
