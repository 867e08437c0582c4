//! Connections: how they come about, and how not.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use hostile::Call;
use smoltcp::socket::tcp::State;
use smoltcp::time::Duration;

use super::frames::{self, ACK, DNS, FIN, GATEWAY, RST, SYN, Seen, Segment};
use super::guest::{Read, remote};
use super::host::{Event, Outcome};
use super::world::{World, config, links, pattern, resolver};
use crate::{Close, HostError};

/// The container's view of a host error that comes up while connecting.
fn refusal(error: HostError) -> Vec<Seen> {
    let mut w = World::plain();
    let to = remote(1, 80);
    w.host
        .outcomes
        .insert(to.into(), Outcome::Fail(Duration::from_millis(3), error));
    let syn = Segment::syn(1234, to);
    w.send(&syn.frame());
    assert_eq!(w.take(), [], "nothing is said before the host has answered");
    w.run(Duration::from_millis(5));
    assert_eq!(w.stack.flow_count(), 0);
    let seen = w.take();
    w.assert_works();
    seen
}

#[test]
fn accepted_on_every_link() {
    for link in links() {
        let mut w = World::new(link);
        let pair = w.connect(remote(1, 80));
        assert_eq!(w.host.connects, [SocketAddr::V4(remote(1, 80))]);
        assert_eq!(w.guest.state(pair.guest), State::Established);
        w.assert_works();
    }
}

#[test]
fn the_answer_waits_for_the_host() {
    let mut w = World::plain();
    let to = remote(1, 80);
    w.host
        .outcomes
        .insert(to.into(), Outcome::Accept(Duration::from_secs(8)));
    let guest = w.guest.connect(to, 4096);
    w.run(Duration::from_millis(7_900));
    assert_eq!(w.guest.state(guest), State::SynSent);
    assert_eq!(w.host.connects.len(), 1, "repeated SYNs open nothing new");
    w.run(Duration::from_secs(1));
    assert_eq!(w.guest.state(guest), State::Established);
}

#[test]
fn syn_ack_offers_what_the_syn_allows() {
    let mut w = World::plain();
    let mut syn = Segment::syn(1234, remote(1, 80));
    // MSS 1460, SACK permitted, window scale 7
    syn.options = vec![2, 4, 5, 0xb4, 4, 2, 3, 3, 7, 0, 0, 0];
    w.send(&syn.frame());
    w.run(Duration::from_millis(2));
    let answer = w.take_tcp();
    assert_eq!(answer[0].flags, SYN | ACK);
    assert_eq!(answer[0].from, remote(1, 80));
    assert!(answer[0].options.starts_with(&[2, 4, 5, 0xb4]), "MSS 1460");
    assert!(
        answer[0].options.windows(2).any(|o| o == [3, 3]),
        "window scale"
    );
}

#[test]
fn refused_is_a_reset() {
    for error in [
        HostError::Refused,
        HostError::Reset,
        HostError::NoResources,
        HostError::Other,
    ] {
        let seen = refusal(error);
        let [Seen::Tcp(tcp)] = &seen[..] else {
            panic!("{error}: {seen:?}")
        };
        assert_eq!(tcp.flags, RST | ACK);
        assert_eq!(tcp.ack, 1001);
    }
}

#[test]
fn unreachable_is_an_icmp_error() {
    for (error, expected) in [
        (HostError::NetUnreachable, 0),
        (HostError::HostUnreachable, 1),
        // A host that does not answer (RFC 1812, 5.2.7.1); silence would have the container
        // begin again, and wait as long once more.
        (HostError::TimedOut, 1),
        (HostError::Forbidden, 13),
    ] {
        let seen = refusal(error);
        let [Seen::Unreachable { code, quote }] = &seen[..] else {
            panic!("{error}: {seen:?}")
        };
        assert_eq!(*code, expected);
        let frame = Segment::syn(1234, remote(1, 80)).frame();
        assert_eq!(quote, &frame[frames::ETHERNET..], "the SYN is quoted");
    }
}

#[test]
fn immediate_errors() {
    for (error, reset) in [
        (HostError::Refused, true),
        (HostError::NoResources, true),
        (HostError::NetUnreachable, false),
    ] {
        let mut w = World::plain();
        w.host.default_outcome = Outcome::Immediate(error);
        w.send(&Segment::syn(1234, remote(1, 80)).frame());
        let seen = w.take();
        assert_eq!(seen.len(), 1);
        assert_eq!(matches!(seen[0], Seen::Tcp(_)), reset);
        assert_eq!(w.stack.flow_count(), 0);
        w.host.default_outcome = Outcome::Accept(Duration::from_millis(1));
        w.assert_works();
    }
}

#[test]
fn container_resets_while_connecting() {
    let mut w = World::plain();
    let to = remote(1, 80);
    w.host.default_outcome = Outcome::Accept(Duration::from_secs(1));
    w.send(&Segment::syn(1234, to).frame());
    let flow = w.host.flow_to(to.into()).unwrap();
    w.send(&Segment::new(1234, to, RST, 1001, 0).frame());
    assert_eq!(w.closed(flow), Some(Close::Reset));
    assert_eq!(w.take(), [], "no reset answers a reset");
    // The host's answer comes late, for a flow that is no more.
    w.run(Duration::from_secs(2));
    assert_eq!(w.take(), []);
    w.host.default_outcome = Outcome::Accept(Duration::from_millis(1));
    w.assert_works();
}

/// A SYN that is a reset or an end as well is no second connection, whose number would be
/// answered: the first has been given up.
#[test]
fn a_broken_syn_while_connecting_is_not_answered() {
    for flag in [RST, FIN] {
        let mut w = World::plain();
        let to = remote(1, 80);
        w.host.default_outcome = Outcome::Accept(Duration::from_secs(1));
        w.send(&Segment::syn(1234, to).frame());
        let flow = w.host.flow_to(to.into()).unwrap();
        w.send(&Segment::new(1234, to, SYN | flag, 777_000, 0).frame());
        assert_eq!(w.closed(flow), Some(Close::Reset));
        w.run(Duration::from_secs(2));
        let answers = w.take_tcp();
        assert!(answers.iter().all(|answer| answer.flags & SYN == 0));
        w.host.default_outcome = Outcome::Accept(Duration::from_millis(1));
        w.assert_works();
    }
}

/// Closing a socket in SYN-SENT sends nothing; a second connection from the same
/// port begins with another sequence number and must get its own answer.
#[test]
fn port_is_reused_while_connecting() {
    let mut w = World::plain();
    let to = remote(1, 80);
    w.host.default_outcome = Outcome::Accept(Duration::from_secs(1));
    w.send(&Segment::syn(1234, to).frame());
    w.run(Duration::from_millis(500));
    let mut second = Segment::syn(1234, to);
    second.seq = 777_000;
    w.send(&second.frame());
    w.run(Duration::from_millis(600));
    let answer = w.take_tcp();
    assert_eq!(answer.len(), 1);
    assert_eq!((answer[0].flags, answer[0].ack), (SYN | ACK, 777_001));
}

/// The container is gone when the host answers: its kernel resets.
#[test]
fn container_is_gone_when_the_host_answers() {
    let mut w = World::plain();
    let to = remote(1, 80);
    w.host.default_outcome = Outcome::Accept(Duration::from_millis(300));
    let guest = w.guest.connect(to, 4096);
    w.run(Duration::from_millis(100));
    w.guest.forget(guest);
    let flow = w.host.flow_to(to.into()).unwrap();
    w.run(Duration::from_millis(300));
    assert_eq!(w.closed(flow), Some(Close::Reset));
    w.assert_works();
}

#[test]
fn container_never_completes_the_handshake() {
    let mut w = World::plain();
    let to = remote(1, 80);
    w.send(&Segment::syn(1234, to).frame());
    w.run(Duration::from_millis(5));
    let flow = w.host.flow_to(to.into()).unwrap();
    assert_eq!(w.take_tcp()[0].flags, SYN | ACK);
    w.assert_empties(Duration::from_secs(70));
    assert_eq!(w.closed(flow), Some(Close::Reset));
}

#[test]
fn repeated_syn_gets_the_same_answer() {
    let mut w = World::plain();
    let syn = Segment::syn(1234, remote(1, 80));
    w.send(&syn.frame());
    w.run(Duration::from_millis(2));
    let first = w.take_tcp();
    w.run(Duration::from_secs(3));
    w.send(&syn.frame());
    let again = w.take_tcp();
    assert!(!again.is_empty(), "the SYN-ACK is repeated");
    assert!(
        again
            .iter()
            .all(|a| a.seq == first[0].seq || a.flags == ACK)
    );
    assert_eq!(w.host.connects.len(), 1);
}

/// RFC 7413: data in the SYN is not taken, but the connection comes about.
#[test]
fn syn_with_data() {
    for len in [1, 200, 1400] {
        let mut w = World::plain();
        let to = remote(1, 80);
        let data = pattern(3, len);
        let syn = Segment::syn(1234, to).with(&data);
        w.send(&syn.frame());
        w.run(Duration::from_millis(2));
        let answer = w.take_tcp();
        assert_eq!(answer.len(), 1);
        assert_eq!((answer[0].flags, answer[0].ack), (SYN | ACK, 1001));
        let isn = answer[0].seq;
        w.send(
            &Segment::new(1234, to, ACK, 1001, isn + 1)
                .with(&data)
                .frame(),
        );
        let flow = w.host.flow_to(to.into()).unwrap();
        assert_eq!(w.far_received(flow), data);

        // Errors are told as for any other SYN.
        w.take();
        for (error, reset) in [
            (HostError::Refused, true),
            (HostError::HostUnreachable, false),
        ] {
            w.host.default_outcome = Outcome::Immediate(error);
            w.send(&Segment::syn(1235, to).with(&data).frame());
            match &w.take()[..] {
                [Seen::Tcp(tcp)] => assert!(reset && tcp.flags & RST != 0),
                [Seen::Unreachable { code: 1, .. }] => assert!(!reset),
                other => panic!("{error}: {other:?}"),
            }
        }
    }
}

#[test]
fn data_with_the_last_ack_of_the_handshake() {
    let mut w = World::plain();
    let to = remote(1, 80);
    w.send(&Segment::syn(1234, to).frame());
    w.run(Duration::from_millis(2));
    let isn = w.take_tcp()[0].seq;
    w.send(
        &Segment::new(1234, to, ACK, 1001, isn + 1)
            .with(b"early")
            .frame(),
    );
    let flow = w.host.flow_to(to.into()).unwrap();
    assert_eq!(w.far_received(flow), b"early");
}

/// The far end speaks first, before the container's ACK has come.
#[test]
fn host_data_before_the_handshake_is_complete() {
    let mut w = World::plain();
    let to = remote(1, 22);
    w.send(&Segment::syn(1234, to).frame());
    w.run(Duration::from_millis(2));
    let isn = w.take_tcp()[0].seq;
    let flow = w.host.flow_to(to.into()).unwrap();
    w.host.far_write(flow, b"banner");
    w.host.far_close(flow);
    w.settle();
    assert_eq!(w.take(), []);
    w.send(&Segment::new(1234, to, ACK, 1001, isn + 1).frame());
    let seen = w.take_tcp();
    let payload: Vec<u8> = seen.iter().flat_map(|s| s.payload.clone()).collect();
    assert_eq!(payload, b"banner");
    assert!(seen.iter().any(|s| s.flags & FIN != 0));
}

#[test]
fn stray_segments_are_reset() {
    let mut w = World::plain();
    for flags in [ACK, FIN | ACK, frames::PSH | ACK, SYN | ACK] {
        w.send(&Segment::new(1234, remote(1, 80), flags, 5, 99).frame());
        let seen = w.take_tcp();
        assert_eq!(seen.len(), 1);
        assert_eq!((seen[0].flags & RST, seen[0].seq), (RST, 99));
    }
    w.send(&Segment::new(1234, remote(1, 80), RST, 5, 0).frame());
    assert_eq!(w.take(), []);
    assert_eq!(w.host.connects, []);
    assert_eq!(w.stack.flow_count(), 0);
    w.assert_works();
}

/// RFC 1122, 3.2.1.3 and 4.2.3.10: no packet comes from a group, from an address of the
/// loopback, or to the container from itself.
#[test]
fn stray_segments_to_nobody_are_dropped() {
    let mut w = World::plain();
    let nobody = [
        Ipv4Addr::new(224, 0, 0, 251),
        Ipv4Addr::new(240, 0, 0, 1),
        Ipv4Addr::new(10, 0, 2, 255),
        Ipv4Addr::new(0, 1, 2, 3),
        Ipv4Addr::LOCALHOST,
        Ipv4Addr::UNSPECIFIED,
        Ipv4Addr::BROADCAST,
        frames::GUEST,
    ];
    for to in nobody {
        for flags in [ACK, SYN | ACK, 0, FIN] {
            w.send(&Segment::new(1234, SocketAddrV4::new(to, 80), flags, 1, 1).frame());
            assert_eq!(w.take(), [], "{to}");
        }
    }
    assert_eq!(w.stack.stats().dropped, 4 * 8);
    w.assert_works();
}

#[test]
fn port_is_used_again_after_the_end() {
    let mut w = World::plain();
    let to = remote(1, 80);
    for round in 0..3 {
        let guest = w.guest.connect_from(50_000, to, 4096);
        assert!(w.run_until(Duration::from_secs(5), |w| {
            w.guest.state(guest) == State::Established
        }));
        w.run(Duration::from_millis(1));
        let flow = w.host.flow_to(to.into()).unwrap();
        w.guest.write(guest, &[round; 100]);
        w.host.far_close(flow);
        w.run(Duration::from_millis(5));
        w.guest.tcp(guest).close();
        assert!(w.run_until(Duration::from_secs(1), |w| w.closed(flow).is_some()));
        assert_eq!(w.closed(flow), Some(Close::Orderly));
        assert_eq!(w.far_received(flow), [round; 100]);
        w.guest.forget(guest);
    }
    w.assert_works();
}

/// The container's kernel has forgotten an open connection (it was killed) and
/// uses the port again: the challenge of RFC 5961, 4 clears the old one.
#[test]
fn port_is_used_again_without_an_end() {
    let mut w = World::plain();
    let to = remote(1, 80);
    let guest = w.guest.connect_from(50_000, to, 4096);
    w.run(Duration::from_millis(50));
    let old = w.host.flow_to(to.into()).unwrap();
    w.guest.forget(guest);
    let guest = w.guest.connect_from(50_000, to, 4096);
    let up = w.run_until(Duration::from_secs(10), |w| {
        w.guest.state(guest) == State::Established
    });
    assert!(up);
    assert_eq!(w.closed(old), Some(Close::Reset));
    w.assert_works();
}

#[test]
fn dns_over_tcp_tries_the_next_resolver() {
    let mut w = World::plain();
    for (n, error) in [(0, HostError::Refused), (1, HostError::TimedOut)] {
        w.host
            .outcomes
            .insert(resolver(n), Outcome::Fail(Duration::from_millis(1), error));
    }
    let to = SocketAddrV4::new(DNS, 53);
    w.send(&Segment::syn(1234, to).frame());
    w.run(Duration::from_millis(10));
    assert_eq!(w.host.connects, [resolver(0), resolver(1)]);
    assert_eq!(w.stack.flow_count(), 0);

    w.host.outcomes.remove(&resolver(1));
    w.host.connects.clear();
    let guest = w.guest.connect(to, 4096);
    w.run(Duration::from_millis(100));
    assert_eq!(w.guest.state(guest), State::Established);
    assert_eq!(w.host.connects, [resolver(0), resolver(1)]);
    let flow = w.host.flow_to(resolver(1)).unwrap();
    w.host.far_write(flow, b"answer");
    w.run(Duration::from_millis(1));
    assert_eq!(w.guest.read(guest), Read::Data(b"answer".to_vec()));
}

#[test]
fn dns_over_tcp_with_immediate_errors() {
    let mut w = World::plain();
    w.host
        .faults
        .insert(Call::Connect, (0, HostError::NetUnreachable));
    w.send(&Segment::syn(1234, SocketAddrV4::new(DNS, 53)).frame());
    w.run(Duration::from_millis(10));
    assert_eq!(w.host.connects, [resolver(0), resolver(1)]);
    assert_eq!(w.take_tcp()[0].flags, SYN | ACK);
}

#[test]
fn dns_without_resolvers() {
    let mut c = config(links()[0]);
    c.resolvers.clear();
    let mut w = World::with(c);
    w.send(&Segment::syn(1234, SocketAddrV4::new(DNS, 53)).frame());
    assert_eq!(w.take_tcp()[0].flags, RST | ACK);
    assert_eq!(w.stack.flow_count(), 0);
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
        w.send(&Segment::syn(1234, SocketAddrV4::new(to, 80)).frame());
        let seen = w.take();
        assert!(
            matches!(seen[..], [Seen::Unreachable { code: 13, .. }]),
            "{to}: {seen:?}"
        );
    }
    assert_eq!(w.stack.stats().denied, 5);
    assert_eq!(w.host.connects, []);
    // Closed is not forbidden: the forwarder's other ports refuse.
    w.send(&Segment::syn(1234, SocketAddrV4::new(DNS, 80)).frame());
    assert_eq!(w.take_tcp()[0].flags, RST | ACK);
    w.assert_works();
}

#[test]
fn allowed_loopback_is_reached_through_the_gateway() {
    let mut c = config(links()[0]);
    c.policy.allow_host_loopback = true;
    let mut w = World::with(c);
    let guest = w.guest.connect(SocketAddrV4::new(GATEWAY, 8080), 4096);
    w.run(Duration::from_millis(50));
    assert_eq!(w.guest.state(guest), State::Established);
    let target: SocketAddr = "127.0.0.1:8080".parse().unwrap();
    assert_eq!(w.host.connects, [target]);
}

/// News of sockets that are gone, in every order, change nothing.
#[test]
fn stale_events() {
    let mut w = World::plain();
    let pair = w.connect(remote(1, 80));
    let other = w.connect(remote(2, 80));
    w.guest.tcp(pair.guest).abort();
    w.run(Duration::from_millis(5));
    assert_eq!(w.closed(pair.flow), Some(Close::Reset));
    // The next flow takes the index of the one that is gone.
    let next = w.connect(remote(3, 80));
    assert_eq!(next.flow.index, pair.flow.index);
    for event in [
        Event::Connected(pair.flow),
        Event::Failed(pair.flow, HostError::Refused),
        Event::Connected(next.flow),
        Event::Failed(next.flow, HostError::Refused),
        Event::Failed(other.flow, HostError::TimedOut),
    ] {
        w.host.event(Duration::ZERO, event);
        w.settle();
    }
    assert_eq!(w.guest.state(next.guest), State::Established);
    assert_eq!(w.guest.state(other.guest), State::Established);
    assert_eq!(w.stack.flow_count(), 2);
    w.assert_works();
}

/// The answer to the SYN says all that has to be said: more of a window than its
/// field holds is told with the first acknowledgement (1 MiB in units of 128 bytes).
#[test]
fn the_handshake_costs_one_frame() {
    for link in links() {
        let mut w = World::new(link);
        let to = remote(1, 80);
        let mut syn = Segment::syn(1234, to);
        syn.options.extend([1, 3, 3, 7]);
        let (_, isn) = w.open_by_hand(&syn);
        assert_eq!(w.take(), []);
        w.send(
            &Segment::new(1234, to, ACK, 1001, isn + 1)
                .with(b"data")
                .frame(),
        );
        assert_eq!(w.take_tcp().last().unwrap().window, 8192);
    }
}

/// A resolver that does not accept is given up for the next after a second; the last
/// one has as long as the container is willing to wait.
#[test]
fn dns_over_tcp_does_not_wait_for_a_silent_resolver() {
    let mut w = World::plain();
    let to = SocketAddrV4::new(DNS, 53);
    w.host.outcomes.insert(resolver(0), Outcome::Never);
    let guest = w.guest.connect(to, 4096);
    w.run(Duration::from_millis(990));
    assert_eq!(w.host.connects, [resolver(0)]);
    w.run(Duration::from_millis(100));
    assert_eq!(w.host.connects, [resolver(0), resolver(1)]);
    assert_eq!(w.guest.state(guest), State::Established);
    assert_eq!(w.host.open.len(), 1);
    assert_eq!(w.host.flow_to(resolver(0)), None);
    w.guest.tcp(guest).abort();
    w.run(Duration::from_millis(10));
    assert_eq!(w.stack.flow_count(), 0);

    // Nobody accepts: as many attempts as there are resolvers.
    w.host.connects.clear();
    w.host.outcomes.insert(resolver(1), Outcome::Never);
    w.send(&Segment::syn(1234, to).frame());
    w.run(Duration::from_millis(2900));
    assert_eq!(w.host.connects, [resolver(0), resolver(1)]);
    assert_eq!(w.stack.flow_count(), 1);
    w.run(Duration::from_secs(1));
    assert_eq!(w.stack.flow_count(), 0);
    assert_eq!(w.stack.half_open, 0);
    w.take();

    // The next one fails at once.
    w.host.connects.clear();
    let refused = Outcome::Immediate(HostError::Refused);
    w.host.outcomes.insert(resolver(1), refused);
    w.send(&Segment::syn(1235, to).frame());
    w.run(Duration::from_millis(1010));
    assert_eq!(w.host.connects, [resolver(0), resolver(1)]);
    assert_eq!(w.take_tcp()[0].flags, RST | ACK);
    assert_eq!(w.stack.flow_count(), 0);
}

/// Who it is for takes a packet whose hops are used up.
#[test]
fn the_last_hop_is_ours() {
    let mut w = World::plain();
    let syn = |to: Ipv4Addr| frames::Ip {
        ttl: 1,
        ..frames::Ip::new(
            to,
            frames::TCP,
            Segment::syn(1234, SocketAddrV4::new(to, 53)).segment(),
        )
    };
    w.send(&syn(DNS).frame());
    w.run(Duration::from_millis(5));
    assert_eq!(w.take_tcp()[0].flags, SYN | ACK);
    w.send(&syn(*remote(1, 0).ip()).frame());
    assert!(matches!(w.take()[..], [Seen::TimeExceeded { .. }]));
}

/// However long it has repeated its SYN, a container that stops doing so is not waited for
/// much longer.
#[test]
fn the_syn_is_repeated_for_long() {
    let mut w = World::plain();
    let to = remote(1, 80);
    w.host.default_outcome = Outcome::Accept(Duration::from_secs(100_000));
    for pause in [2, 5, 20, 60, 200, 239, 239, 239, 239, 239, 239, 239] {
        w.send(&Segment::syn(1234, to).frame());
        w.run(Duration::from_secs(pause));
        assert_eq!(w.stack.flow_count(), 1, "{pause}");
    }
    w.send(&Segment::syn(1234, to).frame());
    w.assert_empties(Duration::from_secs(241));
}
