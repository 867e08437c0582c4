//! The end of connections: every order of FINs, resets in every phase, errors
//! of every host call.

use hostile::Call;
use smoltcp::socket::tcp::State;
use smoltcp::time::Duration;

use super::frames::{ACK, FIN, RST, SYN, Segment};
use super::guest::{Read, remote};
use super::host::{Outcome, Socket};
use super::world::{Pair, World, config, links, pattern};
use crate::{Close, FlowId, HostError};

fn read_to_end(w: &mut World, pair: Pair) -> Vec<u8> {
    let mut got = Vec::new();
    let ended = w.run_until(Duration::from_secs(30), |w| {
        match w.guest.read(pair.guest) {
            Read::Data(data) => {
                got.extend(data);
                false
            }
            Read::Nothing => false,
            Read::End => true,
            Read::Gone => panic!("reset after {} bytes", got.len()),
        }
    });
    assert!(ended, "no end of stream after {} bytes", got.len());
    got
}

fn assert_orderly(w: &mut World, pair: Pair) {
    let closed = w.run_until(Duration::from_secs(2), |w| w.closed(pair.flow).is_some());
    assert!(closed, "the flow is still there");
    assert_eq!(w.closed(pair.flow), Some(Close::Orderly));
    w.run(Duration::from_secs(1));
    assert!(matches!(
        w.guest.state(pair.guest),
        State::Closed | State::TimeWait
    ));
    assert_eq!(w.stack.flow_count(), 0);
    w.assert_works();
}

#[test]
fn container_ends_first() {
    for link in links() {
        let mut w = World::new(link);
        let pair = w.connect(remote(1, 80));
        w.guest.write(pair.guest, b"request");
        w.guest.tcp(pair.guest).close();
        w.run(Duration::from_millis(5));
        assert!(w.far_sees_end(pair.flow));
        assert_eq!(w.far_received(pair.flow), b"request");
        // The other direction lives on, as long as it likes.
        let data = pattern(2, 300_000);
        let mut offered = 0;
        let mut got = Vec::new();
        assert!(w.run_until(Duration::from_secs(30), |w| {
            offered += w.host.far_write(pair.flow, &data[offered..]);
            if let Read::Data(more) = w.guest.read(pair.guest) {
                got.extend(more);
            }
            got.len() == data.len()
        }));
        assert!(got == data);
        w.host.far_close(pair.flow);
        assert_eq!(read_to_end(&mut w, pair), []);
        assert_orderly(&mut w, pair);
    }
}

#[test]
fn host_ends_first() {
    for link in links() {
        let mut w = World::new(link);
        let pair = w.connect_with(remote(1, 80), 512 << 10);
        w.host.far_write(pair.flow, b"greeting");
        w.host.far_close(pair.flow);
        assert_eq!(read_to_end(&mut w, pair), b"greeting");
        assert!(!w.far_sees_end(pair.flow));
        let data = pattern(1, 300_000);
        assert_eq!(w.guest.write(pair.guest, &data), data.len());
        w.guest.tcp(pair.guest).close();
        assert!(w.run_until(Duration::from_secs(5), |w| w.closed(pair.flow).is_some()));
        assert!(w.far_received(pair.flow) == data);
        assert_orderly(&mut w, pair);
    }
}

#[test]
fn both_end_at_once() {
    let mut w = World::plain();
    let pair = w.connect(remote(1, 80));
    w.guest.write(pair.guest, b"up");
    w.host.far_write(pair.flow, b"down");
    w.guest.tcp(pair.guest).close();
    w.host.far_close(pair.flow);
    assert_eq!(read_to_end(&mut w, pair), b"down");
    assert_orderly(&mut w, pair);
    assert_eq!(w.far_received(pair.flow), b"up");
}

/// Both FINs cross on the wire (RFC 9293, 3.6, simultaneous close).
#[test]
fn fins_cross() {
    let mut w = World::plain();
    let to = remote(1, 80);
    let (flow, isn) = w.open_by_hand(&Segment::syn(1234, to));
    w.host.far_close(flow);
    w.settle();
    assert_eq!(w.take_tcp()[0].flags, FIN | ACK);
    w.send(&Segment::new(1234, to, FIN | ACK, 1001, isn + 1).frame());
    assert_eq!(w.take_tcp().last().unwrap().ack, 1002);
    w.send(&Segment::new(1234, to, ACK, 1002, isn + 2).frame());
    assert_eq!(w.closed(flow), Some(Close::Orderly));
    assert_eq!(w.stack.flow_count(), 0);
    w.assert_works();
}

#[test]
fn host_ends_with_data_pending() {
    for link in links() {
        let mut w = World::new(link);
        w.host.buffers = (64 << 10, 3 << 20);
        let pair = w.connect_with(remote(1, 80), 16 << 10);
        let data = pattern(2, 3 << 20);
        assert_eq!(w.host.far_write(pair.flow, &data), data.len());
        w.host.far_close(pair.flow);
        w.run(Duration::from_secs(5));
        assert!(read_to_end(&mut w, pair) == data);
        w.guest.tcp(pair.guest).close();
        assert_orderly(&mut w, pair);
    }
}

#[test]
fn container_ends_with_data_pending() {
    let mut w = World::plain();
    w.host.reads = false;
    w.host.buffers = (4096, 4096);
    let pair = w.connect_with(remote(1, 80), 256 << 10);
    let data = pattern(1, 200_000);
    assert_eq!(w.guest.write(pair.guest, &data), data.len());
    w.guest.tcp(pair.guest).close();
    w.run(Duration::from_secs(5));
    assert!(!w.far_sees_end(pair.flow), "the end comes after the data");
    assert!(w.run_until(Duration::from_secs(30), |w| {
        w.host.far_read(pair.flow);
        w.far_sees_end(pair.flow)
    }));
    w.host.far_read(pair.flow);
    assert!(w.far_received(pair.flow) == data);
    w.host.far_close(pair.flow);
    assert_orderly(&mut w, pair);
}

/// Both directions have ended while the host still has to take data; it does so
/// long after the container's kernel has forgotten the connection.
#[test]
fn both_end_with_data_pending() {
    for host_first in [true, false] {
        let mut w = World::plain();
        w.host.reads = false;
        w.host.buffers = (4096, 4096);
        let pair = w.connect_with(remote(1, 80), 256 << 10);
        let data = pattern(1, 200_000);
        if host_first {
            w.host.far_close(pair.flow);
            w.run(Duration::from_millis(2));
        }
        assert_eq!(w.guest.write(pair.guest, &data), data.len());
        w.guest.tcp(pair.guest).close();
        w.run(Duration::from_secs(1));
        w.host.far_close(pair.flow);
        w.run(Duration::from_secs(1000));
        assert_eq!(w.closed(pair.flow), None);
        assert!(!w.far_sees_end(pair.flow));
        assert!(w.run_until(Duration::from_secs(30), |w| {
            w.host.far_read(pair.flow);
            w.closed(pair.flow).is_some()
        }));
        assert_eq!(w.closed(pair.flow), Some(Close::Orderly));
        assert!(w.far_received(pair.flow) == data);
        w.assert_works();
    }
}

/// A connection whose directions have both ended, of which the host has not taken all; and
/// the container's last segment.
fn over_for_the_container() -> (World, FlowId, Segment) {
    let mut w = World::plain();
    w.host.reads = false;
    w.host.buffers = (1000, 1000);
    let to = remote(1, 80);
    let (flow, isn) = w.open_by_hand(&Segment::syn(1234, to));
    w.host.far_close(flow);
    w.settle();
    let data = pattern(1, 1400);
    let last = Segment::new(1234, to, FIN | ACK, 1001, isn + 2).with(&data);
    w.send(&last.frame());
    (w, flow, last)
}

/// The last acknowledgement of the container's FIN crosses the FIN's repetition,
/// is sent again and finds no connection: the reset takes nothing from the host.
#[test]
fn a_reset_after_both_have_ended_takes_nothing() {
    let (mut w, flow, last) = over_for_the_container();
    let (to, data) = (last.to, &last.payload[..]);
    w.send(&last.frame());
    assert_eq!(w.take_tcp().last().unwrap().ack, 2402);
    w.send(&Segment::new(1234, to, RST, 2402, 0).frame());
    assert_eq!(w.closed(flow), None);
    w.host.tcp(flow).reads = true;
    w.host.far_read(flow);
    w.settle();
    assert_eq!(w.closed(flow), Some(Close::Orderly));
    assert!(w.far_received(flow) == data);
}

/// Small segments are lost before a FIN: however they are acknowledged, the end
/// stays where it is.
#[test]
fn the_end_does_not_move_in_recovery() {
    let mut w = World::plain();
    let to = remote(1, 80);
    let (flow, isn) = w.open_by_hand(&Segment::syn(1234, to));
    for _ in 0..5 {
        w.host.far_write(flow, &[1; 10]);
        w.settle();
    }
    w.host.far_close(flow);
    w.settle();
    for ack in [1, 1, 1, 11, 21] {
        w.send(&Segment::new(1234, to, ACK, 1001, isn + ack).frame());
    }
    let sent = w.take_tcp();
    assert!(sent.iter().filter(|seen| seen.flags & FIN != 0).count() > 1);
    for seen in sent {
        let end = seen.seq - isn - 1 + u32::try_from(seen.payload.len()).unwrap();
        assert!(
            end <= 50 && (end == 50 || seen.flags & FIN == 0),
            "{seen:?}"
        );
    }
}

#[test]
fn host_breaks_with_data_pending() {
    let mut w = World::plain();
    w.host.reads = false;
    w.host.buffers = (4096, 4096);
    let pair = w.connect_with(remote(1, 80), 256 << 10);
    w.host.far_close(pair.flow);
    w.guest.write(pair.guest, &[1; 100_000]);
    w.guest.tcp(pair.guest).close();
    w.run(Duration::from_secs(100));
    w.host.far_reset(pair.flow, HostError::TimedOut);
    w.settle();
    assert_eq!(w.closed(pair.flow), Some(Close::Reset));
    assert_eq!(w.stack.flow_count(), 0);
    w.assert_works();
}

/// The container ends first, the host answers and ends, and the container reads
/// slowly: each time that its window opens it is filled at once.
#[test]
fn window_opens_after_both_have_ended() {
    let mut w = World::plain();
    let pair = w.connect_with(remote(1, 80), 8192);
    w.guest.tcp(pair.guest).close();
    w.run(Duration::from_millis(5));
    let data = pattern(2, 200_000);
    assert_eq!(w.host.far_write(pair.flow, &data), data.len());
    w.host.far_close(pair.flow);
    let mut got = Vec::new();
    for _ in 0..60 {
        w.run(Duration::from_millis(100));
        match w.guest.read(pair.guest) {
            Read::Data(more) => got.extend(more),
            Read::End => break,
            other => panic!("{other:?} after {} bytes", got.len()),
        }
    }
    assert!(got == data, "{} bytes in 6 s", got.len());
    assert_orderly(&mut w, pair);
}

/// A FIN behind data that goes beyond our window is no end of what was cut off.
#[test]
fn fin_beyond_the_window() {
    let mut c = config(links()[0]);
    c.limits.max_buffered = 1 << 20;
    let mut w = World::with(c);
    w.host.reads = false;
    w.host.buffers = (1, 1);
    let to = remote(1, 80);
    let (flow, isn) = w.open_by_hand(&Segment::syn(1234, to));
    let data = pattern(1, 20_000);
    // The smallest ring.
    let window = 16 << 10;
    let send = |w: &mut World, from: usize, upto: usize, flags: u8| {
        let seq = 1001 + u32::try_from(from).unwrap();
        w.send(
            &Segment::new(1234, to, flags | ACK, seq, isn + 1)
                .with(&data[from..upto])
                .frame(),
        );
    };
    send(&mut w, 0, 10_000, 0);
    // Beyond the edge of what was offered by a few bytes.
    let end = window + 10;
    send(&mut w, 10_000, end, FIN);
    let acked = w.take_tcp().last().unwrap().ack.wrapping_sub(1001);
    assert!(
        usize::try_from(acked).unwrap() < end,
        "the FIN is not acknowledged"
    );
    w.host.tcp(flow).reads = true;
    w.host.far_read(flow);
    w.settle();
    send(&mut w, 10_000, end, FIN);
    w.settle();
    assert_eq!(w.far_received(flow), &data[..end]);
    assert!(w.far_sees_end(flow));
    assert_eq!(
        w.take_tcp().last().unwrap().ack,
        1002 + u32::try_from(end).unwrap()
    );
    w.assert_works();
}

/// Acknowledgements that repeat themselves make nobody forget our FIN.
#[test]
fn fin_is_sent_again_after_repeated_acks() {
    for data in [&b""[..], b"last words"] {
        let mut w = World::plain();
        let to = remote(1, 80);
        let (flow, isn) = w.open_by_hand(&Segment::syn(1234, to));
        w.host.far_write(flow, data);
        w.host.far_close(flow);
        w.settle();
        let acked = isn + 1 + u32::try_from(data.len()).unwrap();
        for _ in 0..5 {
            w.send(&Segment::new(1234, to, ACK, 1001, acked).frame());
        }
        w.take();
        w.run(Duration::from_secs(5));
        let again = w.take_tcp();
        assert!(!again.is_empty());
        assert!(
            again
                .iter()
                .all(|s| s.flags & FIN != 0 && s.payload.is_empty() && s.seq == acked)
        );
        w.send(&Segment::new(1234, to, FIN | ACK, 1001, acked + 1).frame());
        assert_eq!(w.closed(flow), Some(Close::Orderly));
        w.assert_works();
    }
}

#[test]
fn container_resets_when_open() {
    let mut w = World::plain();
    let pair = w.connect(remote(1, 80));
    w.guest.write(pair.guest, b"x");
    w.run(Duration::from_millis(2));
    w.guest.tcp(pair.guest).abort();
    w.run(Duration::from_millis(2));
    assert_eq!(w.closed(pair.flow), Some(Close::Reset));
    w.assert_works();
}

#[test]
fn container_resets_after_its_fin() {
    let mut w = World::plain();
    let pair = w.connect(remote(1, 80));
    w.guest.tcp(pair.guest).close();
    w.run(Duration::from_millis(2));
    assert!(w.far_sees_end(pair.flow));
    w.guest.tcp(pair.guest).abort();
    w.run(Duration::from_millis(2));
    assert_eq!(w.closed(pair.flow), Some(Close::Reset));
    w.assert_works();
}

#[test]
fn container_resets_after_the_hosts_fin() {
    let mut w = World::plain();
    let pair = w.connect(remote(1, 80));
    w.host.far_close(pair.flow);
    w.run(Duration::from_millis(2));
    w.guest.tcp(pair.guest).abort();
    w.run(Duration::from_millis(2));
    assert_eq!(w.closed(pair.flow), Some(Close::Reset));
    w.assert_works();
}

#[test]
fn container_resets_during_the_handshake() {
    let mut w = World::plain();
    let to = remote(1, 80);
    w.send(&Segment::syn(1234, to).frame());
    w.run(Duration::from_millis(2));
    let flow = w.host.flow_to(to.into()).unwrap();
    assert_eq!(w.take_tcp()[0].flags, SYN | ACK);
    w.send(&Segment::new(1234, to, RST, 1001, 0).frame());
    assert_eq!(w.closed(flow), Some(Close::Reset));
    assert_eq!(w.take(), []);
    w.assert_works();
}

#[test]
fn host_resets_in_every_phase() {
    for error in [HostError::Reset, HostError::TimedOut, HostError::Other] {
        for phase in 0..5 {
            let mut w = World::plain();
            let pair = w.connect(remote(1, 80));
            match phase {
                0 => {}
                1 => {
                    w.guest.write(pair.guest, &[1; 5000]);
                }
                2 => {
                    w.host.far_write(pair.flow, &[1; 5000]);
                }
                3 => w.guest.tcp(pair.guest).close(),
                _ => w.host.far_close(pair.flow),
            }
            w.run(Duration::from_millis(2));
            w.host.far_reset(pair.flow, error);
            w.run(Duration::from_millis(5));
            if phase == 4 {
                // After its end of stream a socket has nothing more to read; the
                // next write tells.
                w.guest.write(pair.guest, b"x");
                w.run(Duration::from_millis(5));
            }
            assert_eq!(
                w.closed(pair.flow),
                Some(Close::Reset),
                "{error} in phase {phase}"
            );
            assert_eq!(w.guest.state(pair.guest), State::Closed);
            assert_eq!(w.stack.flow_count(), 0);
            w.assert_works();
        }
    }
}

/// A kernel tells an error once. When a write has been told, a read finds an end of stream:
/// the container must not take it for one.
#[test]
fn a_reset_that_a_write_has_told_is_no_end() {
    for link in links() {
        let mut w = World::new(link);
        let to = remote(1, 80);
        let (flow, isn) = w.open_by_hand(&Segment::syn(1234, to));
        w.host.far_write(flow, b"half of an ans");
        w.host.far_reset_silently(flow, HostError::Reset);
        let question = Segment::new(1234, to, ACK, 1001, isn + 1).with(b"question");
        w.send(&question.frame());
        w.run(Duration::from_millis(5));
        let seen = w.take_tcp();
        let data: Vec<u8> = seen.iter().flat_map(|tcp| tcp.payload.clone()).collect();
        assert_eq!(data, b"half of an ans");
        assert!(seen.iter().all(|tcp| tcp.flags & FIN == 0), "{seen:?}");
        assert_ne!(seen.last().unwrap().flags & RST, 0);
        assert_eq!(w.closed(flow), Some(Close::Reset));
        w.assert_works();
    }
}

/// A reset that does not lie in the window is ignored (RFC 5961, 3).
#[test]
fn blind_resets() {
    let mut w = World::plain();
    let to = remote(1, 80);
    let (flow, isn) = w.open_by_hand(&Segment::syn(1234, to));
    for seq in [0, 1000, 1001 + (2 << 20), u32::MAX] {
        w.send(&Segment::new(1234, to, RST, seq, 0).frame());
        w.send(&Segment::new(1234, to, RST | ACK, seq, isn + 1).frame());
    }
    assert_eq!(w.closed(flow), None);
    w.send(&Segment::new(1234, to, RST, 1001, 0).frame());
    assert_eq!(w.closed(flow), Some(Close::Reset));
}

/// N17: every call of the host fails once, at each of its first steps.
#[test]
fn n17_every_host_call_fails_in_turn() {
    for call in [Call::Connect, Call::Send, Call::Receive] {
        for error in [
            HostError::Refused,
            HostError::Reset,
            HostError::Forbidden,
            HostError::NoResources,
            HostError::TimedOut,
            HostError::Other,
        ] {
            for step in 0..4 {
                let mut w = World::plain();
                w.host.faults.insert(call, (step, error));
                let to = remote(1, 80);
                let guest = w.guest.connect(to, 8192);
                w.run(Duration::from_millis(10));
                if let Some(flow) = w.host.flow_to(to.into()) {
                    for _ in 0..6 {
                        w.guest.write(guest, &[1; 3000]);
                        w.host.far_write(flow, &[2; 3000]);
                        w.run(Duration::from_millis(2));
                        w.guest.read(guest);
                    }
                    w.guest.tcp(guest).close();
                    w.host.far_close(flow);
                    w.run(Duration::from_millis(10));
                    if w.host.faults.is_empty() && call != Call::Connect {
                        assert_eq!(w.closed(flow), Some(Close::Reset));
                    }
                }
                w.guest.forget(guest);
                w.assert_empties(Duration::from_secs(200));
                w.assert_works();
            }
        }
    }
}

/// The descriptor of a socket that failed is free for the next flow at once.
#[test]
fn index_is_reused_right_after_a_failure() {
    let mut w = World::plain();
    w.host.outcomes.insert(
        remote(1, 80).into(),
        Outcome::Fail(Duration::from_millis(1), HostError::Refused),
    );
    let bad = w.guest.connect(remote(1, 80), 4096);
    w.run(Duration::from_millis(5));
    assert_eq!(w.guest.state(bad), State::Closed);
    let good = w.connect(remote(2, 80));
    assert!(matches!(w.host.open.get(&good.flow), Some(Socket::Tcp(_))));
    w.assert_works();
}

/// The container is done with a connection of which the host has not taken all yet: its
/// port is free for the next one.
#[test]
fn the_port_is_used_again_while_the_host_takes_the_rest() {
    let (mut w, flow, last) = over_for_the_container();
    let (to, data) = (last.to, &last.payload[..]);
    w.settle();
    w.take();
    assert_eq!(w.closed(flow), None);
    let mut syn = Segment::syn(1234, to);
    syn.seq = 9_000_000;
    w.send(&syn.frame());
    w.run(Duration::from_millis(5));
    let answer = w.take_tcp();
    assert_eq!((answer[0].flags, answer[0].ack), (SYN | ACK, 9_000_001));
    assert_eq!(w.stack.flow_count(), 2);
    assert!(w.run_until(Duration::from_secs(1), |w| {
        w.host.far_read(flow);
        w.closed(flow).is_some()
    }));
    assert_eq!(w.closed(flow), Some(Close::Orderly));
    assert_eq!(w.far_received(flow), data);
    w.assert_works();
}
