//! Bytes in both directions: all of them, in order, once.

use std::net::SocketAddrV4;

use smoltcp::time::Duration;

use super::frames::{self, ACK, FIN, PSH, Segment};
use super::guest::{Read, remote};
use super::host::Socket;
use super::world::{Pair, World, config, links, pattern};
use crate::{HostError, LinkConfig};

/// Sends `up` and `down` at once, as fast as either end takes them.
pub(super) fn exchange(w: &mut World, pair: Pair, up: &[u8], down: &[u8], limit: Duration) {
    let far_before = w.far_received(pair.flow).len();
    let (mut sent, mut offered) = (0, 0);
    let mut got = Vec::with_capacity(down.len());
    let done = w.run_until(limit, |w| {
        sent += w.guest.write(pair.guest, &up[sent..]);
        offered += w.host.far_write(pair.flow, &down[offered..]);
        if let Read::Data(data) = w.guest.read(pair.guest) {
            got.extend(data);
        }
        w.host.far_read(pair.flow);
        got.len() >= down.len() && w.far_received(pair.flow).len() - far_before >= up.len()
    });
    let far = &w.far_received(pair.flow)[far_before..];
    assert!(
        done,
        "stuck: up {} of {}, down {} of {}",
        far.len(),
        up.len(),
        got.len(),
        down.len()
    );
    assert!(far == up, "bytes for the host are altered");
    assert!(got == down, "bytes for the container are altered");
}

#[test]
fn small_and_odd_sizes_on_every_link() {
    for link in links() {
        let mut w = World::new(link);
        let pair = w.connect(remote(1, 80));
        for len in [1, 2, 3, 1459, 1460, 1461, 2920, 2921, 65_480, 65_481] {
            let (up, down) = (pattern(1, len), pattern(2, len));
            exchange(&mut w, pair, &up, &down, Duration::from_secs(10));
        }
        let stats = w.stack.stats();
        assert_eq!(stats.tcp_bytes_up, stats.tcp_bytes_down);
        w.assert_works();
    }
}

#[test]
fn megabytes_on_every_link() {
    for link in links() {
        let mut w = World::new(link);
        let pair = w.connect_with(remote(1, 80), 1 << 20);
        let (up, down) = (pattern(1, 3 << 20), pattern(2, (3 << 20) + 7));
        exchange(&mut w, pair, &up, &down, Duration::from_secs(30));
        w.assert_works();
    }
}

#[test]
fn rings_of_every_size() {
    for budget in [1 << 20, 4 << 20, 64 << 20, 512 << 20] {
        let mut c = config(links()[2]);
        c.limits.max_buffered = budget;
        let mut w = World::with(c);
        let pair = w.connect_with(remote(1, 80), 256 << 10);
        let (up, down) = (pattern(1, 1 << 20), pattern(2, 1 << 20));
        exchange(&mut w, pair, &up, &down, Duration::from_secs(30));
        w.assert_works();
    }
}

#[test]
fn tiny_buffers_at_both_ends() {
    let mut w = World::plain();
    w.host.buffers = (100, 100);
    w.host.reads = false;
    let pair = w.connect_with(remote(1, 80), 128);
    let (up, down) = (pattern(1, 20_000), pattern(2, 20_000));
    exchange(&mut w, pair, &up, &down, Duration::from_secs(60));
}

#[test]
fn partial_reads_and_writes() {
    for chop in [1, 7, 1000] {
        let mut w = World::new(links()[3]);
        w.host.chop = chop;
        let pair = w.connect(remote(1, 80));
        let (up, down) = (pattern(1, 5000), pattern(2, 5000));
        exchange(&mut w, pair, &up, &down, Duration::from_secs(10));
    }
}

#[test]
fn super_segments_are_used_where_the_link_has_them() {
    let down = pattern(2, 1 << 20);
    let frames_for = |link: LinkConfig| {
        let mut w = World::new(link);
        w.host.buffers = (2 << 20, 2 << 20);
        let pair = w.connect_with(remote(1, 80), 1 << 20);
        let before = w.stack.stats().frames_out;
        exchange(&mut w, pair, &[], &down, Duration::from_secs(10));
        w.stack.stats().frames_out - before
    };
    let [plain, _, offload, _] = links();
    let (single, large) = (frames_for(plain), frames_for(offload));
    assert!(single >= 719, "{single}");
    assert!(large <= 40, "{large} frames for a mebibyte");
}

/// A host that does not read: the container is stopped by its window, and no
/// more is held than the ring and the socket buffer.
#[test]
fn host_does_not_read() {
    for link in links() {
        let mut w = World::new(link);
        w.host.reads = false;
        w.host.buffers = (64 << 10, 64 << 10);
        let pair = w.connect_with(remote(1, 80), 4 << 20);
        let data = pattern(1, 4 << 20);
        let mut sent = 0;
        w.run_until(Duration::from_secs(20), |w| {
            sent += w.guest.write(pair.guest, &data[sent..]);
            false
        });
        let taken = data.len() - w.guest.tcp(pair.guest).send_queue();
        assert_eq!(sent, data.len());
        assert!(
            (64 << 10..=(64 << 10) + (1 << 20)).contains(&taken),
            "{taken} bytes taken"
        );
        assert_eq!(w.stack.flow_count(), 1, "a slow reader is not a dead one");
        // Long after, it reads after all.
        w.run(Duration::from_secs(600));
        let done = w.run_until(Duration::from_secs(60), |w| {
            w.host.far_read(pair.flow);
            w.far_received(pair.flow).len() == data.len()
        });
        assert!(done && w.far_received(pair.flow) == data);
        w.assert_works();
    }
}

/// A container that does not read: the host's data stays in the host's buffer.
#[test]
fn container_does_not_read() {
    for link in links() {
        let mut w = World::new(link);
        w.host.buffers = (64 << 10, 64 << 10);
        let pair = w.connect_with(remote(1, 80), 32 << 10);
        let data = pattern(2, 4 << 20);
        let mut offered = 0;
        w.run_until(Duration::from_secs(20), |w| {
            offered += w.host.far_write(pair.flow, &data[offered..]);
            false
        });
        assert!(
            offered <= (64 << 10) + (32 << 10) + (1 << 20),
            "{offered} bytes taken"
        );
        w.run(Duration::from_secs(600));
        assert_eq!(w.stack.flow_count(), 1, "a slow reader is not a dead one");
        let mut got = Vec::new();
        let done = w.run_until(Duration::from_secs(120), |w| {
            offered += w.host.far_write(pair.flow, &data[offered..]);
            if let Read::Data(more) = w.guest.read(pair.guest) {
                got.extend(more);
            }
            got.len() == data.len()
        });
        assert!(done && got == data, "{} of {}", got.len(), data.len());
    }
}

/// The container reads one byte at a time from a small window.
#[test]
fn window_of_one() {
    let mut w = World::plain();
    let to = remote(1, 80);
    let mut syn = Segment::syn(1234, to);
    syn.window = 1;
    let (flow, isn) = w.open_by_hand(&syn);
    let data = pattern(2, 50);
    assert_eq!(w.host.far_write(flow, &data), 50);
    let mut got = Vec::new();
    for _ in 0..200 {
        w.settle();
        for seen in w.take_tcp() {
            let offset = usize::try_from(seen.seq.wrapping_sub(isn + 1)).unwrap();
            assert!(seen.payload.len() <= 1, "no more than the window");
            if offset == got.len() {
                got.extend(seen.payload);
            }
        }
        if got.len() == data.len() {
            break;
        }
        let acked = isn + 1 + u32::try_from(got.len()).unwrap();
        let mut ack = Segment::new(1234, to, ACK, 1001, acked);
        ack.window = 1;
        w.send(&ack.frame());
    }
    assert_eq!(got, data);
    w.assert_works();
}

/// Takes what the stack sends, acknowledging it, until all of `data` is there.
fn receive_all(w: &mut World, to: SocketAddrV4, isn: u32, data: &[u8], mut got: Vec<u8>) {
    let done = w.run_until(Duration::from_secs(30), |w| {
        let before = got.len();
        for seen in w.take_tcp() {
            let offset = usize::try_from(seen.seq.wrapping_sub(isn + 1)).unwrap();
            if offset <= got.len() && offset + seen.payload.len() > got.len() {
                got.extend(&seen.payload[got.len() - offset..]);
            }
        }
        if got.len() > before {
            let acked = isn + 1 + u32::try_from(got.len()).unwrap();
            w.send(&Segment::new(1234, to, ACK, 1001, acked).frame());
        }
        got.len() == data.len()
    });
    assert!(done && got == data, "{} of {} bytes", got.len(), data.len());
}

/// A container short of memory drops what is on its way, shuts its window, and
/// opens it again with a single segment.
#[test]
fn window_shut_over_data_in_flight_and_opened() {
    for acked in [0, 1460] {
        for shut_for in [0, 5, 400] {
            let mut w = World::plain();
            let to = remote(1, 80);
            let (flow, isn) = w.open_by_hand(&Segment::syn(1234, to));
            let data = pattern(2, 20_000);
            w.host.far_write(flow, &data);
            w.settle();
            assert!(w.take().len() > 10);
            let mut ack = Segment::new(1234, to, ACK, 1001, isn + 1 + acked);
            ack.window = 0;
            w.send(&ack.frame());
            // While it is shut it is probed, and the probes are answered.
            for _ in 0..shut_for {
                w.run(Duration::from_secs(1));
                if !w.take().is_empty() {
                    w.send(&ack.frame());
                }
            }
            assert_eq!(w.closed(flow), None);
            ack.window = 65_535;
            w.send(&ack.frame());
            let got = data[..usize::try_from(acked).unwrap()].to_vec();
            receive_all(&mut w, to, isn, &data, got);
            w.assert_works();
        }
    }
}

/// The segment that opens the window is lost: probes go on.
#[test]
fn window_shut_over_data_in_flight_and_update_lost() {
    for acked in [0, 1460] {
        let mut w = World::plain();
        let to = remote(1, 80);
        let (flow, isn) = w.open_by_hand(&Segment::syn(1234, to));
        let data = pattern(2, 20_000);
        w.host.far_write(flow, &data);
        w.settle();
        w.take();
        let mut ack = Segment::new(1234, to, ACK, 1001, isn + 1 + acked);
        ack.window = 0;
        w.send(&ack.frame());
        w.take();
        w.run(Duration::from_secs(40));
        assert!(w.take().len() >= 3, "the window is probed");
        ack.window = 65_535;
        w.send(&ack.frame());
        let got = data[..usize::try_from(acked).unwrap()].to_vec();
        receive_all(&mut w, to, isn, &data, got);
    }
}

#[test]
fn segments_out_of_order_and_overlapping() {
    let mut w = World::plain();
    let to = remote(1, 80);
    let (flow, isn) = w.open_by_hand(&Segment::syn(1234, to));
    let data = pattern(1, 4000);
    let send = |w: &mut World, from: usize, upto: usize| {
        let seq = 1001 + u32::try_from(from).unwrap();
        let segment = Segment::new(1234, to, ACK | PSH, seq, isn + 1).with(&data[from..upto]);
        w.send(&segment.frame());
    };
    send(&mut w, 3000, 4000);
    send(&mut w, 1000, 2000);
    send(&mut w, 500, 1500);
    send(&mut w, 0, 700);
    send(&mut w, 0, 4000 - 1000);
    assert_eq!(w.far_received(flow), data);
    send(&mut w, 0, 1000);
    assert_eq!(w.far_received(flow), data, "old data is not taken twice");
    w.assert_works();
}

#[test]
fn lost_segments_are_sent_again() {
    let mut w = World::plain();
    let to = remote(1, 80);
    let (flow, isn) = w.open_by_hand(&Segment::syn(1234, to));
    w.host.far_write(flow, b"hello");
    w.settle();
    let first = w.take_tcp();
    assert_eq!(first[0].payload, b"hello");
    w.run(Duration::from_secs(4));
    let again = w.take_tcp();
    assert!(!again.is_empty());
    for seen in again {
        assert_eq!(
            (seen.seq, seen.payload.as_slice()),
            (isn + 1, &b"hello"[..])
        );
    }
}

#[test]
fn data_with_fin_and_fin_repeated() {
    let mut w = World::plain();
    let to = remote(1, 80);
    let (flow, isn) = w.open_by_hand(&Segment::syn(1234, to));
    let last = Segment::new(1234, to, FIN | ACK, 1001, isn + 1).with(b"bye");
    w.send(&last.frame());
    assert_eq!(w.far_received(flow), b"bye");
    assert!(w.far_sees_end(flow));
    assert_eq!(w.take_tcp().last().unwrap().ack, 1005);
    w.send(&last.frame());
    assert_eq!(w.take_tcp().last().unwrap().ack, 1005);
    assert_eq!(w.far_received(flow), b"bye");
    assert!(matches!(w.host.open.get(&flow), Some(Socket::Tcp(tcp)) if tcp.shut));
}

/// The far end answers and resets at once, as a server does that has not read
/// all of its request: the container still gets the answer.
#[test]
fn answer_before_a_reset_arrives() {
    for link in links() {
        let mut w = World::new(link);
        let pair = w.connect(remote(1, 80));
        w.host.far_write(pair.flow, b"413 too large");
        w.host.far_reset(pair.flow, HostError::Reset);
        // Both have become known by the time that the stack looks.
        w.run(Duration::from_millis(5));
        assert_eq!(
            w.guest.read(pair.guest),
            Read::Data(b"413 too large".to_vec())
        );
        assert_eq!(w.guest.read(pair.guest), Read::Gone);
        w.assert_works();
    }
}

/// The same while the container is still sending.
#[test]
fn answer_before_a_reset_arrives_at_a_writer() {
    let mut w = World::plain();
    let to = remote(1, 80);
    let (flow, isn) = w.open_by_hand(&Segment::syn(1234, to));
    w.host.far_write(flow, b"413 too large");
    w.host.far_reset(flow, HostError::Reset);
    // The write fails first.
    w.send(
        &Segment::new(1234, to, ACK, 1001, isn + 1)
            .with(b"more")
            .frame(),
    );
    w.settle();
    let seen = w.take_tcp();
    let got: Vec<u8> = seen.iter().flat_map(|s| s.payload.clone()).collect();
    assert_eq!(got, b"413 too large");
    assert!(seen.iter().any(|s| s.flags & frames::RST != 0));
}
