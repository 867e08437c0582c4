//! Names that the DNS forwarder answers itself.

use std::net::{IpAddr, SocketAddrV4};

use super::dns::{A, AAAA, FORWARDER, TXT, answered, ask, asked, assert_over, query};
use super::frames::{self, GATEWAY};
use super::world::{World, config, links};

const PTR: u16 = 12;

fn with_names() -> World {
    let mut c = config(links()[0]);
    let both: Vec<IpAddr> = vec![
        GATEWAY.into(),
        frames::GATEWAY6.into(),
        "10.9.9.9".parse().unwrap(),
    ];
    c.names = vec![
        ("host.internal".into(), both),
        ("six.internal".into(), vec!["fd00::77".parse().unwrap()]),
        ("x".repeat(64), vec![GATEWAY.into()]),
    ];
    World::with(c)
}

/// The records of one of our answers, by type and data; checks all that is around them.
fn records(query: &[u8], answer: &[u8]) -> Vec<(u16, Vec<u8>)> {
    let u16_at = |at: usize| u16::from_be_bytes([answer[at], answer[at + 1]]);
    assert_eq!(answer[..2], query[..2]);
    assert_eq!(answer[2], 0x84 | query[2] & 1, "QR, AA and RD");
    assert_eq!(answer[3], 0x80, "RA and no error");
    assert_eq!((u16_at(4), u16_at(8)), (1, 0));
    let end = query.len() - if query[11] == 1 { 11 } else { 0 };
    assert_eq!(answer[12..end], query[12..end], "the question as it was");
    let mut at = end;
    let mut records = Vec::new();
    for _ in 0..u16_at(6) {
        assert_eq!(answer[at..at + 2], [0xc0, 12]);
        assert_eq!(answer[at + 4..at + 10], [0, 1, 0, 0, 0, 60]);
        let length = usize::from(u16_at(at + 10));
        records.push((u16_at(at + 2), answer[at + 12..at + 12 + length].to_vec()));
        at += 12 + length;
    }
    assert_eq!(u16_at(10), u16::from(query[11]));
    assert_eq!(answer.len() - at, 11 * usize::from(query[11]));
    records
}

#[test]
fn names_of_our_own() {
    let mut w = with_names();
    let v4 = |address: [u8; 4]| (A, address.to_vec());
    let v6 = |address: &str| match address.parse().unwrap() {
        IpAddr::V6(address) => (AAAA, address.octets().to_vec()),
        IpAddr::V4(_) => panic!("not IPv6"),
    };
    let host = (PTR, b"\x04host\x08internal\0".to_vec());
    let gateway6 = v6(&frames::GATEWAY6.to_string());
    let nibbles = "7.7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f";
    for (name, kind, expected) in [
        (
            "host.internal",
            A,
            vec![v4(GATEWAY.octets()), v4([10, 9, 9, 9])],
        ),
        ("HOST.inTernal", AAAA, vec![gateway6]),
        ("host.internal", TXT, vec![]),
        ("six.internal", A, vec![]),
        ("six.internal", AAAA, vec![v6("fd00::77")]),
        ("2.2.0.10.in-addr.arpa", PTR, vec![host]),
        ("2.2.0.10.in-addr.arpa", A, vec![]),
        (
            &format!("{nibbles}.ip6.arpa"),
            PTR,
            vec![(PTR, b"\x03six\x08internal\0".to_vec())],
        ),
    ] {
        for edns in [false, true] {
            let mut q = query(7, name, kind);
            if edns {
                q[11] = 1;
                q.extend([0, 0, 41, 16, 0, 0, 0, 0, 0, 0, 0]);
            }
            w.send(&frames::udp(1234, FORWARDER, &q));
            assert_eq!(records(&q, &answered(&mut w)), expected, "{name} {kind}");
        }
    }
    assert_eq!(w.host.datagrams, []);
    assert_over(&w);
    // All else is for the servers.
    let mut chaos = query(7, "host.internal", A);
    let end = chaos.len() - 1;
    chaos[end] = 3;
    for q in [
        chaos,
        query(8, "internal", A),
        query(9, "a.host.internal", A),
        query(10, "3.2.0.10.in-addr.arpa", PTR),
    ] {
        ask(&mut w, 1234, &q);
    }
}

/// More addresses than a plain answer holds.
#[test]
fn a_name_with_many_addresses() {
    let mut c = config(links()[0]);
    let many = (0..100).map(|n| IpAddr::from([10, 9, 9, n])).collect();
    c.names = vec![("many.internal".into(), many)];
    let mut w = World::with(c);
    let q = query(7, "many.internal", A);
    w.send(&frames::udp(1234, FORWARDER, &q));
    let a = answered(&mut w);
    assert!(a.len() <= 512);
    assert_eq!(records(&q, &a).len(), (512 - q.len()) / 16);
}

/// A version of EDNS that we do not know (RFC 6891, 6.1.3).
#[test]
fn edns_of_another_version() {
    let mut w = with_names();
    let mut q = query(7, "host.internal", A);
    q[11] = 1;
    q.extend([0, 0, 41, 16, 0, 0, 1, 0, 0, 0, 0]);
    w.send(&frames::udp(1234, FORWARDER, &q));
    let a = answered(&mut w);
    assert_eq!(a[6..12], [0, 0, 0, 0, 0, 1]);
    assert_eq!(a[a.len() - 11..], [0, 0, 41, 4, 208, 1, 0, 0, 0, 0, 0]);
}

/// What a mapping is found by is no destination, even while it is there.
#[test]
fn the_key_of_a_mapping_is_no_destination() {
    let mut w = with_names();
    ask(&mut w, 1234, &query(1, "a.example", A));
    let nowhere = SocketAddrV4::new([0; 4].into(), 0);
    for name in ["a.example", "host.internal"] {
        w.send(&frames::udp(1234, nowhere, &query(2, name, A)));
    }
    assert_eq!(asked(&mut w), []);
    assert_eq!(w.take(), []);
}
