//! ICMP echo.

use std::net::Ipv4Addr;

use hostile::Call;
use smoltcp::time::Duration;

use super::frames::{self, DNS, GATEWAY, ICMP, Ip, Seen};
use super::guest::remote;
use super::world::{World, links, pattern};
use crate::HostError;

fn reply(from: Ipv4Addr, ident: u16, seq: u16, payload: &[u8]) -> Seen {
    Seen::EchoReply {
        from,
        ident,
        seq,
        payload: payload.to_vec(),
    }
}

#[test]
fn own_addresses_answer() {
    for link in links() {
        let mut w = World::new(link);
        for to in [GATEWAY, DNS] {
            for len in [0, 1, 56, usize::from(link.mtu) - 28] {
                let data = pattern(1, len);
                w.send(&frames::echo(to, 77, 3, &data));
                assert_eq!(w.take(), [reply(to, 77, 3, &data)]);
            }
        }
        assert_eq!(w.host.echoes, []);
        assert_eq!(w.stack.flow_count(), 0);
        w.assert_works();
    }
}

#[test]
fn others_are_asked_through_the_host() {
    let mut w = World::plain();
    let to = *remote(1, 0).ip();
    w.send(&frames::echo(to, 77, 3, b"ping"));
    let (flow, at, seq, payload) = w.host.echoes[0].clone();
    assert_eq!((at, seq, payload.as_slice()), (to.into(), 3, &b"ping"[..]));
    w.echo_reply(flow, 3, b"ping");
    assert_eq!(w.take(), [reply(to, 77, 3, b"ping")]);
    // The same identifier and destination share a socket, others do not.
    w.send(&frames::echo(to, 77, 4, b"ping"));
    w.send(&frames::echo(to, 78, 1, b"ping"));
    w.send(&frames::echo(*remote(2, 0).ip(), 77, 1, b"ping"));
    let flows: Vec<_> = w.host.echoes.iter().map(|(flow, ..)| *flow).collect();
    assert_eq!(flows[0], flows[1]);
    assert_eq!(w.host.open.len(), 3);
    w.echo_reply(flows[2], 1, b"pong");
    assert_eq!(w.take(), [reply(to, 78, 1, b"pong")]);
    w.run(Duration::from_secs(31));
    assert_eq!(w.stack.flow_count(), 0);
    w.echo_reply(flow, 3, b"late");
    assert_eq!(w.take(), []);
    w.assert_works();
}

#[test]
fn use_keeps_the_socket() {
    let mut w = World::plain();
    let to = *remote(1, 0).ip();
    for seq in 0..5 {
        w.send(&frames::echo(to, 77, seq, b"ping"));
        w.run(Duration::from_secs(20));
        assert_eq!(w.stack.flow_count(), 1);
    }
    w.run(Duration::from_secs(11));
    assert_eq!(w.stack.flow_count(), 0);
}

#[test]
fn forbidden_destinations() {
    let mut w = World::plain();
    for to in [
        Ipv4Addr::LOCALHOST,
        Ipv4Addr::new(169, 254, 169, 254),
        Ipv4Addr::new(10, 0, 2, 77),
    ] {
        w.send(&frames::echo(to, 1, 1, b"x"));
        assert!(matches!(w.take()[..], [Seen::Unreachable { code: 13, .. }]));
    }
    assert_eq!(w.host.echoes, []);
    w.assert_works();
}

#[test]
fn host_errors() {
    let mut w = World::plain();
    let to = *remote(1, 0).ip();
    for (error, expected) in [
        (HostError::NetUnreachable, Some(0)),
        (HostError::HostUnreachable, Some(1)),
        (HostError::Forbidden, Some(13)),
        (HostError::NoResources, None),
    ] {
        w.host.faults.insert(Call::EchoSend, (0, error));
        w.send(&frames::echo(to, 1, 1, b"x"));
        match (expected, &w.take()[..]) {
            (None, []) => {}
            (Some(expected), [Seen::Unreachable { code, .. }]) => assert_eq!(*code, expected),
            other => panic!("{error}: {other:?}"),
        }
    }
    // `ping_group_range` excludes us.
    w.host
        .faults
        .insert(Call::EchoOpen, (0, HostError::Forbidden));
    w.send(&frames::echo(to, 2, 1, b"x"));
    assert!(matches!(w.take()[..], [Seen::Unreachable { code: 13, .. }]));
    w.check();
    w.assert_works();
}

#[test]
fn replies_longer_than_the_link_are_cut() {
    let mut w = World::plain();
    w.send(&frames::echo(*remote(1, 0).ip(), 1, 1, b"x"));
    let flow = w.host.echoes[0].0;
    for len in [1472, 1473, 65_507] {
        let payload = vec![7; len];
        w.echo_reply(flow, 1, &payload);
        let seen = Seen::EchoReply {
            from: *remote(1, 0).ip(),
            ident: 1,
            seq: 1,
            payload,
        };
        assert_eq!(w.take(), [seen]);
    }
    assert_eq!(w.stack.stats().fragments_out, 2 + 45);
}

#[test]
fn only_echo_requests_are_served() {
    let mut w = World::plain();
    let to = *remote(1, 0).ip();
    for kind in (0..=u8::MAX).filter(|kind| *kind != 8) {
        for code in [0, 1, 255] {
            let message = frames::icmp_message(kind, code, [0; 4], b"payload");
            w.send(&Ip::new(to, ICMP, message.clone()).frame());
            w.send(&Ip::new(GATEWAY, ICMP, message).frame());
        }
    }
    let message = frames::icmp_message(8, 1, [0; 4], b"payload");
    w.send(&Ip::new(to, ICMP, message).frame());
    assert_eq!(w.take(), []);
    assert_eq!(w.stack.flow_count(), 0);
    w.assert_works();
}

#[test]
fn bad_checksum() {
    let mut w = World::plain();
    let mut message = frames::icmp_message(8, 0, [0; 4], b"payload");
    message[2] ^= 1;
    w.send(&Ip::new(GATEWAY, ICMP, message).frame());
    assert_eq!(w.take(), []);
    assert_eq!(w.stack.stats().dropped, 1);
}
