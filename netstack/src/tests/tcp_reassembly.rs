//! Segments of the container in any order, with any overlap.

use smoltcp::time::Duration;

use super::frames::{ACK, FIN, PSH, RST, Segment, TcpSeen};
use super::guest::remote;
use super::peer::Options;
use super::shim::Rng;
use super::world::{World, pattern};
use crate::FlowId;

/// A connection made by hand, whose first byte has sequence number 1001.
struct Hand {
    port: u16,
    flow: FlowId,
    isn: u32,
    data: Vec<u8>,
}

impl Hand {
    fn open(w: &mut World, length: usize) -> Self {
        Self::open_with(w, length, &[2, 4, 0x05, 0xb4, 1, 1, 4, 2])
    }

    fn open_with(w: &mut World, length: usize, options: &[u8]) -> Self {
        let port = w.port();
        let mut syn = Segment::syn(port, remote(1, port));
        syn.options = options.to_vec();
        let (flow, isn) = w.open_by_hand(&syn);
        Self {
            port,
            flow,
            isn,
            data: pattern(port.into(), length),
        }
    }

    fn segment(&self, from: usize, upto: usize, flags: u8) -> Segment {
        let seq = 1001 + u32::try_from(from).unwrap();
        Segment::new(
            self.port,
            remote(1, self.port),
            ACK | flags,
            seq,
            self.isn + 1,
        )
        .with(&self.data[from..upto])
    }

    /// Sends a piece; what comes at once.
    fn send(&self, w: &mut World, from: usize, upto: usize, flags: u8) -> Vec<TcpSeen> {
        w.send(&self.segment(from, upto, flags).frame());
        w.take_tcp()
    }

    /// How many bytes the last segment acknowledges.
    fn acked(seen: &[TcpSeen]) -> usize {
        usize::try_from(seen.last().unwrap().ack.wrapping_sub(1001)).unwrap()
    }

    fn reset(&self, w: &mut World, at: usize) {
        let mut segment = self.segment(0, 0, RST);
        segment.seq = 1001 + u32::try_from(at).unwrap();
        w.send(&segment.frame());
        assert!(w.closed(self.flow).is_some());
        w.take();
    }
}

/// All orders of some things.
fn orders(count: usize) -> Vec<Vec<usize>> {
    let mut all = vec![Vec::new()];
    for n in 0..count {
        all = all
            .into_iter()
            .flat_map(|order: Vec<usize>| {
                (0..=order.len()).map(move |at| {
                    let mut order = order.clone();
                    order.insert(at, n);
                    order
                })
            })
            .collect();
    }
    all
}

/// Sends pieces in every order; nothing has to be sent twice.
fn in_every_order(pieces: &[(usize, usize)]) {
    let length = pieces.iter().map(|piece| piece.1).max().unwrap();
    let mut w = World::plain();
    for order in orders(pieces.len()) {
        let hand = Hand::open(&mut w, length);
        let mut last = 0;
        for n in &order {
            let (from, upto) = pieces[*n];
            let seen = hand.send(&mut w, from, upto, PSH);
            let far = w.far_received(hand.flow);
            assert!(hand.data.starts_with(far), "{order:?}");
            if let Some(ack) = seen.last() {
                last = usize::try_from(ack.ack - 1001).unwrap();
            }
        }
        assert_eq!(w.far_received(hand.flow).len(), length, "{order:?}");
        w.settle();
        if let Some(ack) = w.take_tcp().last() {
            last = usize::try_from(ack.ack - 1001).unwrap();
        }
        assert_eq!(last, length, "{order:?}");
        hand.reset(&mut w, length);
    }
    w.assert_works();
}

#[test]
fn segments_in_every_order() {
    in_every_order(&[
        (0, 1000),
        (1000, 1001),
        (1001, 2000),
        (2000, 3000),
        (3000, 3007),
    ]);
}

#[test]
fn overlapping_segments_in_every_order() {
    // Overlaps at the front, at the back, within, around, and twice the same.
    in_every_order(&[
        (0, 700),
        (500, 1500),
        (1000, 2000),
        (1400, 1600),
        (1800, 2600),
    ]);
    in_every_order(&[(0, 1400), (300, 600), (300, 600), (599, 1401), (0, 1)]);
}

/// Pieces cut at random, with random overlaps, in random order, some twice.
#[test]
fn pieces_at_random() {
    let mut w = World::plain();
    let mut rng = Rng(3);
    for round in 0..200 {
        let length = 1 + rng.below(20_000);
        let hand = Hand::open(&mut w, length);
        let mut pieces = Vec::new();
        let mut at = 0;
        while at < length {
            let upto = (at + 1 + rng.below(1400)).min(length);
            let from = at - rng.below(60).min(at);
            let more = (upto + rng.below(60)).min(length);
            pieces.push((from, more.min(from + 1460)));
            at = upto.min(more).min(from + 1460);
        }
        for n in (1..pieces.len()).rev() {
            pieces.swap(n, rng.below(n + 1));
        }
        // What was not kept the first time comes again, as from a sender.
        let mut rounds = 0;
        while w.far_received(hand.flow).len() < length {
            rounds += 1;
            assert!(rounds < 60, "{round}: no progress");
            for (from, upto) in &pieces {
                hand.send(&mut w, *from, *upto, PSH);
                assert!(hand.data.starts_with(w.far_received(hand.flow)));
            }
        }
        hand.reset(&mut w, length);
    }
    w.assert_works();
}

/// The end is taken when all before it has come, whatever the order.
#[test]
fn an_early_end_waits_for_what_is_before_it() {
    let mut w = World::plain();
    for with_data in [true, false] {
        let mut pieces = vec![(0, 1000, 0), (1000, 1001, 0), (1001, 2000, 0)];
        if with_data {
            pieces.push((2000, 3000, FIN));
        } else {
            pieces.extend([(2000, 3000, 0), (3000, 3000, FIN)]);
        }
        for order in orders(pieces.len()) {
            let hand = Hand::open(&mut w, 3000);
            for (done, n) in order.iter().enumerate() {
                let (from, upto, flags) = pieces[*n];
                assert!(!w.far_sees_end(hand.flow), "{order:?} after {done}");
                let seen = hand.send(&mut w, from, upto, flags);
                if done + 1 < pieces.len()
                    && let Some(ack) = seen.last()
                {
                    assert!(ack.ack - 1001 <= 3000, "the end is not acknowledged yet");
                }
            }
            if !w.far_sees_end(hand.flow) {
                // An early end need not be kept: it comes again.
                hand.send(&mut w, 3000, 3000, FIN);
            }
            assert!(w.far_sees_end(hand.flow), "{order:?}");
            assert!(w.far_received(hand.flow) == hand.data, "{order:?}");
            let seen = hand.send(&mut w, 3000, 3000, FIN);
            assert_eq!(Hand::acked(&seen), 3001);
            hand.reset(&mut w, 3001);
        }
    }
    w.assert_works();
}

/// What comes behind the end is not taken.
#[test]
fn nothing_follows_the_end() {
    let mut w = World::plain();
    let hand = Hand::open(&mut w, 3000);
    hand.send(&mut w, 0, 1000, FIN);
    assert!(w.far_sees_end(hand.flow));
    let mut more = hand.segment(1000, 2000, PSH);
    for seq in [2001, 2002] {
        more.seq = seq;
        w.send(&more.frame());
        w.take();
    }
    w.run(Duration::from_secs(1));
    assert!(w.far_received(hand.flow) == &hand.data[..1000]);
    w.take();
    w.assert_works();
}

/// Data beyond the window is not taken, in part or whole; later it is, once.
#[test]
fn data_beyond_the_window() {
    for behind_a_hole in [false, true] {
        let mut w = World::plain();
        w.host.reads = false;
        w.host.buffers = (10_000, 10_000);
        let hand = Hand::open(&mut w, 4 << 20);
        // Fills host and stack until the window is shut.
        let mut acked = 0;
        let edge = loop {
            let seen = hand.send(&mut w, acked, acked + 1400, PSH);
            w.settle();
            let later = w.take_tcp();
            let last = later.last().or(seen.last()).unwrap().clone();
            let before = acked;
            acked = usize::try_from(last.ack - 1001).unwrap();
            // No scale was offered.
            let edge = acked + usize::from(last.window);
            if edge < acked + 1400 || acked == before {
                break edge;
            }
            assert!(acked < 3 << 20, "the window is never shut");
        };
        let from = if behind_a_hole { acked + 1 } else { acked };
        let seen = hand.send(&mut w, from, edge + 1000, PSH);
        if let Some(ack) = seen.last() {
            assert!(usize::try_from(ack.ack - 1001).unwrap() <= edge);
        }
        let seen = hand.send(&mut w, edge + 1000, edge + 2000, PSH);
        let now = Hand::acked(&seen);
        assert!(now <= edge, "{now} is beyond {edge}");
        let far = w.far_received(hand.flow).len();
        assert_eq!(far, 0, "nobody reads");
        // The host reads, and the rest is sent again from where it was cut.
        let length = edge + 2000;
        let mut at = now;
        let mut turns = 0;
        while w.far_received(hand.flow).len() < length && turns < 5000 {
            turns += 1;
            w.host.far_read(hand.flow);
            w.settle();
            let mut seen = w.take_tcp();
            if at < length {
                seen.extend(hand.send(&mut w, at, (at + 1000).min(length), PSH));
            }
            if !seen.is_empty() {
                at = Hand::acked(&seen);
            }
        }
        assert!(
            w.far_received(hand.flow) == &hand.data[..length],
            "hole {behind_a_hole}: {at} acknowledged, {} arrived, of {length}, edge {edge}",
            w.far_received(hand.flow).len()
        );
        w.take();
        w.assert_works();
    }
}

/// What came early is told by selective acknowledgements, the latest first
/// (RFC 2018, 4), and only to those who have asked for them.
#[test]
fn holes_are_told() {
    let mut w = World::plain();
    let hand = Hand::open(&mut w, 6000);
    let ranges = |seen: &[TcpSeen]| -> Vec<(u32, u32)> {
        let options = Options::of(&seen.last().unwrap().options);
        let place = |number: u32| number.wrapping_sub(1001);
        options
            .sacked
            .into_iter()
            .map(|(from, upto)| (place(from), place(upto)))
            .collect()
    };
    let seen = hand.send(&mut w, 1000, 2000, PSH);
    assert_eq!(Hand::acked(&seen), 0);
    assert_eq!(ranges(&seen), [(1000, 2000)]);
    let seen = hand.send(&mut w, 3000, 4000, PSH);
    assert_eq!(ranges(&seen).first(), Some(&(3000, 4000)));
    assert!(ranges(&seen).contains(&(1000, 2000)));
    let seen = hand.send(&mut w, 0, 1000, PSH);
    assert_eq!(Hand::acked(&seen), 2000);
    assert_eq!(ranges(&seen), [(3000, 4000)]);
    let seen = hand.send(&mut w, 2000, 3000, PSH);
    assert_eq!(Hand::acked(&seen), 4000);
    assert_eq!(ranges(&seen), []);
    let hand = Hand::open_with(&mut w, 6000, &[2, 4, 0x05, 0xb4]);
    let seen = hand.send(&mut w, 1000, 2000, PSH);
    assert_eq!(seen.last().unwrap().options, []);
    w.assert_works();
}

/// A container that lies with its selective acknowledgements, or cannot write
/// them, gets all of its data all the same.
#[test]
fn selective_acknowledgements_are_only_advice() {
    let block = |from: u32, upto: u32| [from.to_be_bytes(), upto.to_be_bytes()].concat();
    // What is claimed, as offsets of the data; `None` is written as it stands.
    let claims: [&[(u32, u32)]; 8] = [
        &[(1460, 20_000)],
        &[(0, 20_000)],
        &[(20_000, 1460)],
        &[(1460, 1460)],
        &[(50_000, 60_000)],
        &[(0x8000_0000, 0x9000_0000)],
        &[(u32::MAX - 3000, u32::MAX)],
        &[(1460, 2920), (1461, 2919), (1, 19_999), (1460, 2920)],
    ];
    let mut garbage: Vec<Vec<u8>> = vec![
        vec![5, 2, 1, 1],
        vec![5, 3, 9, 1],
        vec![5, 9, 1, 2, 3, 4, 5, 6, 7, 1, 1, 1],
        vec![5, 10, 0, 0],
        vec![5, 255, 0, 0],
        vec![5, 0, 0, 0],
        vec![5, 1, 5, 1],
        vec![4, 2, 4, 2],
    ];
    let mut w = World::plain();
    for n in 0..claims.len() + garbage.len() {
        let hand = Hand::open(&mut w, 0);
        let options = match claims.get(n) {
            Some(claims) => {
                let length = u8::try_from(2 + 8 * claims.len()).unwrap();
                let mut options = vec![1, 1, 5, length];
                for (from, upto) in *claims {
                    let first = hand.isn.wrapping_add(1);
                    options.extend(block(first.wrapping_add(*from), first.wrapping_add(*upto)));
                }
                options
            }
            None => garbage.remove(0),
        };
        let data = pattern(9, 20_000);
        w.host.far_write(hand.flow, &data);
        w.settle();
        assert!(w.take().len() > 10);
        // It has got nothing of all this, and says otherwise six times.
        let mut lie = hand.segment(0, 0, 0);
        lie.options = options;
        for _ in 0..6 {
            w.send(&lie.frame());
            w.settle();
            w.take();
        }
        let mut got: Vec<u8> = Vec::new();
        let done = w.run_until(Duration::from_secs(60), |w| {
            let before = got.len();
            for seen in w.take_tcp() {
                let offset = seen.seq.wrapping_sub(hand.isn.wrapping_add(1));
                let offset = usize::try_from(offset).unwrap();
                if offset <= got.len() && offset + seen.payload.len() > got.len() {
                    got.extend(&seen.payload[got.len() - offset..]);
                }
            }
            if got.len() > before {
                let mut ack = hand.segment(0, 0, 0);
                ack.ack = ack.ack.wrapping_add(u32::try_from(got.len()).unwrap());
                w.send(&ack.frame());
            }
            got.len() == data.len()
        });
        assert!(done && got == data, "case {n}: {} bytes", got.len());
        hand.reset(&mut w, 0);
    }
    w.assert_works();
}
