//! Effects of N1, N9, N13 over TCP, N16, N19, N26, N27 and N34.

use std::net::SocketAddrV4;

use smoltcp::time::Duration;

use super::super::frames::{self, ACK, DNS, FIN, GUEST, Ip, PSH, RST, SYN, Segment, TCP, URG};
use super::super::guest::{Read, remote};
use super::super::host::Outcome;
use super::super::shim::Rng;
use super::super::world::{World, config, links, pattern, resolver};
use super::no_service;

#[test]
fn n01_urgent_data_is_ordinary_data() {
    for urgent in [0, 1, 7, 8, 0xffff] {
        for flags in [URG | ACK, URG | ACK | PSH] {
            let mut w = World::plain();
            let to = remote(1, 80);
            let (flow, isn) = w.open_by_hand(&Segment::syn(1234, to));
            let data = pattern(1, 28);
            // Out of order, and segments without payload in between.
            for range in [7..14, 0..0, 0..7, 21..28, 14..14, 14..21] {
                let seq = 1001 + u32::try_from(range.start).unwrap();
                let mut segment = Segment::new(1234, to, flags, seq, isn + 1).with(&data[range]);
                segment.urgent = urgent;
                w.send(&segment.frame());
            }
            assert_eq!(w.far_received(flow), data);
            w.assert_works();
        }
    }
}

#[test]
fn n09_no_application_is_emulated() {
    for port in [21, 113, 514, 6667, 7070] {
        let mut w = World::plain();
        let pair = w.connect(remote(1, port));
        let up = b"PORT 10,0,2,100,7,138\r\n\x01DCC SEND f 167772772 1930\x01\r\n40000, 21\r\n";
        let down = b"227 Entering Passive Mode (10,0,2,100,7,138)\r\n";
        w.guest.write(pair.guest, up);
        w.host.far_write(pair.flow, down);
        w.run(Duration::from_millis(5));
        assert_eq!(w.far_received(pair.flow), up);
        assert_eq!(w.guest.read(pair.guest), Read::Data(down.to_vec()));
        assert_eq!(w.host.connects.len(), 1);
        w.assert_works();
    }
}

#[test]
fn n16_tcp_options() {
    let mut w = World::plain();
    let to = remote(1, 80);
    let (flow, isn) = w.open_by_hand(&Segment::syn(1, to));
    let mut port = 1000;
    for kind in 0..=u8::MAX {
        for len in [0, 1, 2, 3, 40, 255] {
            port += 1;
            let mut syn = Segment::syn(port, to);
            syn.options = vec![kind, len, 0xff, 0xff, 0xff, 0xff, kind, len];
            w.send(&syn.frame());
            let mut ack = Segment::new(1, to, ACK, 1001, isn + 1);
            ack.options = syn.options;
            w.send(&ack.frame());
            w.run(Duration::from_micros(1100));
            w.send(&Segment::new(port, to, RST, 1001, 0).frame());
        }
    }
    w.take();
    // SACK blocks whose edges wrap, cross, or lie nowhere.
    for (left, right) in [(u32::MAX, 1), (1, u32::MAX), (isn, isn), (isn + 9, isn + 2)] {
        let mut ack = Segment::new(1, to, ACK, 1001, isn + 1);
        ack.options = vec![1, 1, 5, 10];
        ack.options.extend_from_slice(&left.to_be_bytes());
        ack.options.extend_from_slice(&right.to_be_bytes());
        w.send(&ack.frame());
    }
    assert_eq!(w.closed(flow), None);
    w.send(
        &Segment::new(1, to, ACK, 1001, isn + 1)
            .with(b"alive")
            .frame(),
    );
    assert_eq!(w.far_received(flow), b"alive");
    w.take();
    w.assert_works();
}

#[test]
fn n16_tcp_header_lengths() {
    let mut w = World::plain();
    let to = remote(1, 80);
    for words in (0..5).chain([15]) {
        for flags in [SYN, ACK, RST] {
            let mut segment = Segment::new(1234, to, flags, 1, 1)
                .with(b"payload")
                .segment();
            segment[12] = words << 4;
            frames::fill_checksum(&mut segment, GUEST, *to.ip(), TCP);
            w.send(&Ip::new(*to.ip(), TCP, segment).frame());
        }
    }
    assert_eq!(w.take(), []);
    no_service(&mut w);
}

#[test]
fn n16_window_scales() {
    for scale in [0, 1, 7, 14, 15, 31, 32, 63, 64, 255] {
        let mut w = World::plain();
        let to = remote(1, 80);
        let mut syn = Segment::syn(1234, to);
        syn.options = vec![2, 4, 5, 0xb4, 3, 3, scale, 0];
        let (flow, _) = w.open_by_hand(&syn);
        w.host.far_write(flow, &[1; 200_000]);
        w.run(Duration::from_millis(5));
        w.take();
        w.assert_works();
    }
}

/// A tiny MSS does not turn a ring full of data into a flood of tiny frames.
#[test]
fn n16_segment_sizes() {
    for link in [links()[0], links()[2]] {
        for mss in [0, 1, 2, 87, 535, 536, 65_535_u16] {
            let mut w = World::new(link);
            let to = remote(1, 80);
            let mut syn = Segment::syn(1234, to);
            let [a, b] = mss.to_be_bytes();
            syn.options = vec![2, 4, a, b];
            let (flow, _) = w.open_by_hand(&syn);
            w.host.far_write(flow, &[1; 50_000]);
            w.run(Duration::from_millis(5));
            let sizes: Vec<usize> = w.take_tcp().iter().map(|s| s.payload.len()).collect();
            assert!(!sizes.is_empty());
            assert!(
                sizes.len() <= 50_000 / 536 + 2,
                "mss {mss}: {} frames for 50,000 bytes",
                sizes.len()
            );
            w.assert_works();
        }
    }
}

#[test]
fn n19_sequence_numbers_are_not_guessed() {
    let isns = |seed| {
        let mut c = config(links()[0]);
        c.seed = seed;
        let mut w = World::with(c);
        w.host.default_outcome = Outcome::Accept(Duration::ZERO);
        (0..10_000_u32)
            .map(|i| {
                let to = remote(1, 1000 + u16::try_from(i % 50_000).unwrap());
                w.send(&Segment::syn(1234, to).frame());
                w.settle();
                let isn = w.take_tcp()[0].seq;
                w.send(&Segment::new(1234, to, RST, 1001, 0).frame());
                isn
            })
            .collect::<Vec<u32>>()
    };
    let (a, b) = (isns(1), isns(2));
    let unique = |numbers: &[u32]| {
        numbers
            .iter()
            .collect::<std::collections::BTreeSet<_>>()
            .len()
    };
    // A random sequence of 10,000 has 0.01 repeats on average.
    assert!(unique(&a) >= 9_998);
    let steps: Vec<u32> = a.windows(2).map(|w| w[1].wrapping_sub(w[0])).collect();
    assert!(unique(&steps) >= 9_997, "steps repeat");
    assert_ne!(a, b, "the seed decides");
}

/// N26: SYNs from every port; half-open connections stay bounded, and once the
/// host has answered them there is room again.
#[test]
fn n26_syn_flood() {
    let mut w = World::plain();
    let to = remote(9, 80);
    let cap = w.stack.config.limits.max_half_open;
    w.host.outcomes.insert(
        to.into(),
        Outcome::Fail(Duration::from_millis(100), crate::HostError::Refused),
    );
    for round in 0..5_u32 {
        for port in 1..=4000_u16 {
            let mut syn = Segment::syn(port, to);
            syn.seq = round;
            w.send(&syn.frame());
            assert!(w.stack.half_open <= cap);
        }
        assert_eq!(w.stack.half_open, cap);
        w.run(Duration::from_millis(150));
        w.take();
        w.assert_works();
    }
    assert_eq!(w.stack.flow_count(), 10, "the exchanges' own");
}

/// N26, to a host that accepts: flows that never complete the handshake.
#[test]
fn n26_syn_flood_at_an_open_port() {
    let mut c = config(links()[0]);
    c.limits.max_flows = 3000;
    let mut w = World::with(c);
    w.host.default_outcome = Outcome::Accept(Duration::ZERO);
    for port in 1..=4000_u16 {
        w.send(&Segment::syn(port, remote(9, 80)).frame());
        w.settle();
        w.take();
    }
    assert!(w.stack.flow_count() <= 3000);
    w.run(Duration::from_secs(70));
    w.take();
    assert_eq!(w.stack.flow_count(), 0);
    w.assert_works();
}

#[test]
fn n27_blind_segments() {
    let mut w = World::plain();
    let to = remote(1, 80);
    let pair = w.connect(to);
    let port = w.guest.port(pair.guest);
    let mut rng = Rng(27);
    for _ in 0..2000 {
        let word = |rng: &mut Rng| u32::try_from(rng.next() >> 32).unwrap();
        // Two windows away from the truth in a space of 2^32.
        let (seq, ack) = (word(&mut rng), word(&mut rng));
        for flags in [SYN, SYN | ACK, ACK, FIN, RST, 0, SYN | FIN, SYN | RST, 0xff] {
            // Data is left out: a lucky guess would be data of the container.
            w.send(&Segment::new(port, to, flags, seq, ack).frame());
        }
        w.run(Duration::from_micros(100));
    }
    if w.closed(pair.flow).is_none() {
        let (up, down) = (pattern(1, 20_000), pattern(2, 20_000));
        super::super::tcp_data::exchange(&mut w, pair, &up, &down, Duration::from_secs(5));
    } else {
        panic!("a blind segment ended the connection");
    }
    w.assert_works();
}

/// N34: a SYN of the container meets ours in no state: we never send a bare SYN.
#[test]
fn n34_resets_and_fins_in_every_state() {
    let to = remote(1, 80);
    for flags in [
        RST,
        RST | ACK,
        FIN | ACK,
        SYN | ACK,
        FIN | SYN | ACK,
        FIN | RST,
        0,
        URG,
    ] {
        // Connecting, handshake, open, our FIN sent, their FIN seen.
        for state in 0..5 {
            let mut w = World::plain();
            w.send(&Segment::syn(1234, to).frame());
            let flow = w.host.flow_to(to.into()).unwrap();
            let mut isn = 0;
            let mut seq = 1001;
            if state >= 1 {
                w.run(Duration::from_millis(2));
                isn = w.take_tcp()[0].seq;
            }
            if state >= 2 {
                w.send(&Segment::new(1234, to, ACK, 1001, isn + 1).frame());
            }
            if state == 3 {
                w.host.far_close(flow);
                w.settle();
            }
            if state == 4 {
                w.send(&Segment::new(1234, to, FIN | ACK, 1001, isn + 1).frame());
                seq = 1002;
            }
            w.take();
            w.send(&Segment::new(1234, to, flags, seq, isn + 1).frame());
            w.send(&Segment::new(1234, to, flags, seq, isn + 1).frame());
            w.run(Duration::from_millis(5));
            if flags & RST != 0 && flags & FIN == 0 {
                assert!(w.closed(flow).is_some(), "{flags:#x} in {state}");
            }
            w.take();
            w.assert_empties(Duration::from_secs(7500));
            w.assert_works();
        }
    }
}

/// What the forwarder is asked over TCP is relayed like any stream.
#[test]
fn n13_dns_over_tcp_is_opaque() {
    let mut w = World::plain();
    let guest = w.guest.connect(SocketAddrV4::new(DNS, 53), 128 << 10);
    w.run(Duration::from_millis(50));
    let flow = w.host.flow_to(resolver(0)).unwrap();
    let answer = pattern(13, 70_000);
    w.guest.write(guest, &[0xff; 3]);
    w.host.far_write(flow, &answer);
    w.run(Duration::from_secs(1));
    assert_eq!(w.far_received(flow), [0xff; 3]);
    assert_eq!(w.guest.read(guest), Read::Data(answer));
    w.assert_works();
}
