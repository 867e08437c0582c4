//! UDP: mapping, filtering, time-outs, segments.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use hostile::Call;
use smoltcp::time::Duration;

use super::frames::{self, GATEWAY, GUEST, Ip, Seen};
use super::guest::remote;
use super::world::{World, config, links, pattern};
use crate::{FlowId, HostError};

fn sent(w: &mut World, port: u16, to: SocketAddrV4, payload: &[u8]) -> FlowId {
    let before = w.host.datagrams.len();
    w.send(&frames::udp(port, to, payload));
    assert_eq!(w.host.datagrams.len(), before + 1, "{:?}", w.take());
    let (flow, at, data) = w.host.datagrams[before].clone();
    assert_eq!((at, data.as_slice()), (to.into(), payload));
    flow
}

fn seen(from: SocketAddrV4, port: u16, payload: &[u8]) -> Seen {
    Seen::Udp {
        from,
        to: SocketAddrV4::new(GUEST, port),
        payload: payload.to_vec(),
    }
}

#[test]
fn datagrams_of_every_size_on_every_link() {
    for link in links() {
        let mut w = World::new(link);
        let to = remote(1, 7);
        let largest = usize::from(link.mtu) - 28;
        for len in [0, 1, 2, 511, 1471, 1472, largest, largest + 1, 65_507] {
            let data = pattern(1, len);
            let flow = sent(&mut w, 1234, to, &data);
            w.datagram(flow, to.into(), &data, 0);
            assert_eq!(w.take(), [seen(to, 1234, &data)]);
        }
        let flow = sent(&mut w, 1234, to, b"x");
        // From a host that speaks IPv6, which has longer ones.
        w.datagram(flow, to.into(), &pattern(1, 65_508), 0);
        assert_eq!(w.take(), []);
        assert_eq!(w.stack.stats().udp_too_long, 1);
        // A super-segment whose datagrams are longer than the link's packets.
        let data = pattern(2, 60_000);
        w.datagram(flow, to.into(), &data, 25_000);
        let each: Vec<_> = data.chunks(25_000).map(|one| seen(to, 1234, one)).collect();
        assert_eq!(w.take(), each);
        w.assert_works();
    }
}

/// RFC 4787, REQ-1: one host socket for a container port, whatever the remote.
#[test]
fn mapping_is_endpoint_independent() {
    let mut w = World::plain();
    let a = sent(&mut w, 1234, remote(1, 7), b"a");
    let b = sent(&mut w, 1234, remote(2, 9), b"b");
    let other = sent(&mut w, 1235, remote(1, 7), b"c");
    assert_eq!(a, b);
    assert_ne!(a, other);
    assert_eq!(w.host.open.len(), 2);
    for to in [remote(1, 7), remote(2, 9)] {
        w.datagram(a, to.into(), b"back", 0);
        assert_eq!(w.take(), [seen(to, 1234, b"back")]);
    }
}

/// RFC 4787, REQ-8: only those that the container has sent to may answer.
#[test]
fn strangers_are_filtered() {
    let mut w = World::plain();
    let flow = sent(&mut w, 1234, remote(1, 7), b"a");
    for from in [remote(1, 8), remote(2, 7), remote(9, 9)] {
        w.datagram(flow, from.into(), b"psst", 0);
    }
    w.datagram(flow, "127.0.0.1:7".parse().unwrap(), b"psst", 0);
    w.datagram(flow, "[::1]:7".parse().unwrap(), b"psst", 0);
    w.datagram(flow, SocketAddrV4::new(GATEWAY, 7).into(), b"psst", 0);
    assert_eq!(w.take(), []);
    assert_eq!(w.stack.stats().udp_filtered, 6);
    w.datagram(flow, remote(1, 7).into(), b"ok", 0);
    assert_eq!(w.take(), [seen(remote(1, 7), 1234, b"ok")]);
}

#[test]
fn unanswered_flows_live_for_30_seconds() {
    let mut w = World::plain();
    let flow = sent(&mut w, 1234, remote(1, 7), b"a");
    w.run(Duration::from_secs(29));
    sent(&mut w, 1234, remote(1, 7), b"a");
    w.run(Duration::from_secs(29));
    assert_eq!(w.stack.flow_count(), 2);
    w.run(Duration::from_secs(2));
    assert_eq!(w.stack.flow_count(), 0);
    assert!(w.closed(flow).is_some());
    // An answer that is too late reaches nobody.
    w.datagram(flow, remote(1, 7).into(), b"late", 0);
    assert_eq!(w.take(), []);
}

#[test]
fn answered_flows_live_for_120_seconds() {
    let mut w = World::plain();
    let flow = sent(&mut w, 1234, remote(1, 7), b"a");
    w.datagram(flow, remote(1, 7).into(), b"b", 0);
    w.run(Duration::from_secs(119));
    // Either direction keeps it.
    w.datagram(flow, remote(1, 7).into(), b"b", 0);
    w.run(Duration::from_secs(119));
    assert_eq!(w.take().len(), 2);
    assert_eq!(w.stack.flow_count(), 2);
    w.run(Duration::from_secs(2));
    assert_eq!(w.stack.flow_count(), 0);
    assert_eq!(w.stack.next_deadline(), None);
}

/// The socket lives as long as the last of its flows.
#[test]
fn mapping_lives_as_long_as_its_last_flow() {
    let mut w = World::plain();
    let flow = sent(&mut w, 1234, remote(1, 7), b"a");
    w.run(Duration::from_secs(20));
    sent(&mut w, 1234, remote(2, 7), b"b");
    w.run(Duration::from_secs(15));
    assert_eq!(w.stack.flow_count(), 2);
    w.datagram(flow, remote(1, 7).into(), b"late", 0);
    assert_eq!(w.take(), [], "its own flow is gone");
    w.datagram(flow, remote(2, 7).into(), b"ok", 0);
    assert_eq!(w.take().len(), 1);
}

/// A super-segment from the container is as many datagrams (`UDP_SEGMENT`).
#[test]
fn segments_up() {
    let mut w = World::new(links()[2]);
    let to = remote(1, 7);
    for (len, size) in [(4000, 1200), (3600, 1200), (128, 1), (1201, 1200)] {
        let data = pattern(1, len);
        let before = w.host.datagrams.len();
        w.send_super(&frames::udp(1234, to, &data), size);
        let sent: Vec<_> = w.host.datagrams[before..]
            .iter()
            .map(|(_, _, data)| data.clone())
            .collect();
        let expected: Vec<_> = data.chunks(usize::from(size)).map(<[u8]>::to_vec).collect();
        assert_eq!(sent, expected);
    }
    w.assert_works();
}

/// Datagrams that the host has coalesced (`UDP_GRO`) arrive one by one, cut by
/// the container's kernel where it can.
#[test]
fn segments_down() {
    for link in links() {
        let mut w = World::new(link);
        let to = remote(1, 7);
        let flow = sent(&mut w, 1234, to, b"x");
        for (len, size) in [
            (4000, 1200),
            (3600, 1200),
            (700, 1200),
            (1201, 1200),
            (64_000, 1400),
        ] {
            let data = pattern(1, len);
            let frames_before = w.stack.stats().frames_out;
            w.datagram(flow, to.into(), &data, size);
            let expected: Vec<_> = data
                .chunks(usize::from(size))
                .map(|one| seen(to, 1234, one))
                .collect();
            assert_eq!(w.take(), expected);
            let frames = w.stack.stats().frames_out - frames_before;
            if link.uso {
                assert_eq!(frames, 1);
            }
        }
        assert_eq!(w.stack.stats().udp_down, 4 + 3 + 1 + 2 + 46);
        w.assert_works();
    }
}

/// What a client has sent in one packet of IPv6 is too much for one of IPv4.
#[test]
fn segments_down_to_the_other_version() {
    for link in links() {
        let mut w = World::new(link);
        let to = SocketAddr::new(GUEST.into(), 7000);
        let port = w.stack.publish_udp(to).unwrap();
        w.host.bound(port);
        let client: SocketAddr = "[2001:db8::9]:4000".parse().unwrap();
        let data = pattern(1, 65_527);
        w.datagram(port, client, &data, 1400);
        let shown = SocketAddrV4::new(GATEWAY, 4000);
        let expected: Vec<_> = data
            .chunks(1400)
            .map(|one| seen(shown, 7000, one))
            .collect();
        assert_eq!(w.take(), expected);
        w.stack.unpublish_udp(port, &mut w.host);
        w.assert_works();
    }
}

#[test]
fn host_errors_are_icmp_errors() {
    let mut w = World::plain();
    for (error, expected) in [
        (HostError::NetUnreachable, Some(0)),
        (HostError::HostUnreachable, Some(1)),
        (HostError::Refused, Some(3)),
        (HostError::Forbidden, Some(13)),
        (HostError::NoResources, None),
        (HostError::TooLong { mtu: 0 }, None),
        (HostError::Other, None),
    ] {
        w.host.faults.insert(Call::UdpSend, (0, error));
        let frame = frames::udp(1234, remote(1, 7), &[9; 900]);
        w.send(&frame);
        let answer = w.take();
        match (expected, &answer[..]) {
            (None, []) => {}
            (Some(expected), [Seen::Unreachable { code, quote }]) => {
                assert_eq!(*code, expected);
                assert_eq!(quote[..], frame[frames::ETHERNET..][..548]);
            }
            other => panic!("{error}: {other:?}"),
        }
        w.assert_works();
    }
}

#[test]
fn no_socket_to_be_had() {
    let mut w = World::plain();
    w.host
        .faults
        .insert(Call::UdpOpen, (0, HostError::NoResources));
    w.send(&frames::udp(1234, remote(1, 7), b"x"));
    assert!(matches!(w.take()[..], [Seen::Unreachable { .. }]));
    assert_eq!(w.stack.flow_count(), 0);
    w.assert_works();
}

#[test]
fn forbidden_destinations() {
    let mut w = World::plain();
    let local = Ipv4Addr::new(203, 0, 113, 9);
    w.host.local.insert(local.into());
    for to in [
        GATEWAY,
        Ipv4Addr::LOCALHOST,
        Ipv4Addr::new(169, 254, 169, 254),
        Ipv4Addr::new(10, 0, 2, 77),
        local,
    ] {
        w.send(&frames::udp(1234, SocketAddrV4::new(to, 80), b"x"));
        let seen = w.take();
        assert!(
            matches!(seen[..], [Seen::Unreachable { code: 13, .. }]),
            "{to}: {seen:?}"
        );
    }
    assert_eq!(w.host.open.len(), 0);
    w.assert_works();
}

#[test]
fn allowed_loopback_answers_as_the_gateway() {
    let mut c = config(links()[0]);
    c.policy.allow_host_loopback = true;
    let mut w = World::with(c);
    let to = SocketAddrV4::new(GATEWAY, 7);
    w.send(&frames::udp(1234, to, b"x"));
    let (flow, at, _) = w.host.datagrams[0].clone();
    assert_eq!(at, "127.0.0.1:7".parse::<SocketAddr>().unwrap());
    w.datagram(flow, at, b"y", 0);
    assert_eq!(w.take(), [seen(to, 1234, b"y")]);
    w.datagram(flow, "127.0.0.2:7".parse().unwrap(), b"y", 0);
    assert_eq!(w.take(), [], "not the one that was asked");
}

#[test]
fn checksums() {
    let mut w = World::plain();
    let to = remote(1, 7);
    let mut segment = frames::udp_segment(GUEST, 1234, to, b"data");
    segment[6] ^= 0x10;
    w.send(&Ip::new(*to.ip(), frames::UDP, segment.clone()).frame());
    assert_eq!(w.host.datagrams, []);
    assert_eq!(w.stack.stats().dropped, 1);
    // RFC 768: zero says that there is none.
    segment[6..8].fill(0);
    w.send(&Ip::new(*to.ip(), frames::UDP, segment).frame());
    assert_eq!(w.host.datagrams.len(), 1);
    w.assert_works();
}

/// An ICMP error that comes for a datagram becomes the same for the container,
/// about the addresses that it knows.
#[test]
fn failures_on_the_way_are_icmp_errors() {
    let mut w = World::plain();
    let flow = sent(&mut w, 1234, remote(1, 7), b"x");
    for (flow, port, to, shown) in [(flow, 1234, remote(1, 7).into(), remote(1, 7))] {
        for (error, expected) in [
            (HostError::NetUnreachable, 0),
            (HostError::HostUnreachable, 1),
            (HostError::Refused, 3),
            (HostError::Forbidden, 13),
        ] {
            w.datagram_failed(flow, to, error);
            let mut seen = w.take();
            let Some(Seen::Unreachable { code, quote }) = seen.pop() else {
                panic!("{error}: {seen:?}")
            };
            assert_eq!(code, expected);
            let sent = Ip::new(*shown.ip(), frames::UDP, Vec::new()).packet();
            // Addresses and ports are what a kernel finds the socket by.
            assert_eq!(quote[12..20], sent[12..20]);
            assert_eq!(quote[20..22], u16::to_be_bytes(port));
            assert_eq!(quote[22..24], shown.port().to_be_bytes());
        }
    }
    // Not about what was never sent, nor for a socket that is gone.
    w.datagram_failed(flow, remote(9, 9).into(), HostError::Refused);
    w.run(Duration::from_secs(31));
    w.datagram_failed(flow, remote(1, 7).into(), HostError::Refused);
    w.settle();
    assert_eq!(w.take(), []);
    w.assert_works();
}
