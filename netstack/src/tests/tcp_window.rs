//! Windows: shut and opened, scaled and not, and the size of segments.

use smoltcp::time::Duration;

use super::fates::Fate;
use super::frames::{ACK, Segment};
use super::guest::remote;
use super::line::{Far, Line};
use super::peer::{Habits, Peer};
use super::world::{World, config, links, pattern};

/// The host takes no more, for a while: the container is stopped, its probes are
/// answered, and nothing is lost.
#[test]
fn the_host_is_full_for_a_while() {
    for link in links() {
        for pause in [1, 20, 600] {
            let mut line = Line::new(link);
            let habits = Habits {
                goal: 4 << 20,
                ..Habits::kernel(link)
            };
            let far = Far {
                reads: false,
                buffers: (64 << 10, 64 << 10),
                ..Far::sends(1000)
            };
            let (n, flow) = line.open(habits, far);
            line.run(Duration::from_secs(pause));
            assert_eq!(line.conn(flow).taken, 64 << 10);
            let held = line.peers[n].una - (64 << 10);
            assert!(held <= 1 << 20, "{held} bytes are held");
            let left = line.peers[n].edge - line.peers[n].una;
            assert!(left < 1460, "the window is open for {left} bytes");
            line.far(flow, |far| far.reads = true);
            let took = line.finish(Duration::from_secs(60));
            // The update arrives; nobody has to wait for a probe.
            assert!(took < Duration::from_millis(190), "{took}");
        }
    }
}

/// The same, and what tells of the open window is lost: the next probe of the
/// container, 2 s later at most, is answered with it.
#[test]
fn our_window_update_is_lost() {
    for link in links() {
        let mut line = Line::new(link);
        let habits = Habits {
            goal: 4 << 20,
            ..Habits::kernel(link)
        };
        let far = Far {
            reads: false,
            ..Far::sends(1000)
        };
        let (_, flow) = line.open(habits, far);
        line.run(Duration::from_secs(20));
        line.down_fates.script(vec![Fate::Lose; 2]);
        line.far(flow, |far| far.reads = true);
        let took = line.finish(Duration::from_secs(60));
        assert!(took < Duration::from_secs(7), "{took}");
    }
}

/// A host that takes little at a time, again and again.
#[test]
fn the_host_takes_little_at_a_time() {
    for link in links() {
        for buffer in [1, 100, 1459, 5000] {
            let mut line = Line::new(link);
            let habits = Habits {
                goal: 30 * buffer,
                ..Habits::kernel(link)
            };
            let far = Far {
                buffers: (buffer, buffer),
                ..Far::sends(30 * buffer)
            };
            line.add(habits, far);
            line.finish(Duration::from_secs(60));
        }
    }
}

/// The container's window is shut for a while, and opened with a segment that
/// arrives: nothing has to be waited for.
#[test]
fn the_container_is_full_for_a_while() {
    for link in links() {
        for pause in [1, 20, 600, 7200] {
            let mut line = Line::new(link);
            let habits = Habits {
                buffer: 20_000,
                ..Habits::kernel(link)
            };
            let (n, flow) = line.open(habits, Far::waits());
            line.peers[n].reads = false;
            line.far(flow, |far| far.goal = 1 << 20);
            line.run(Duration::from_secs(pause));
            // Less where it would be a small segment (RFC 9293, 3.8.6.2.1).
            assert!(line.peers[n].got > 0 && line.peers[n].got <= 20_000);
            assert_eq!(line.conn(flow).closed, None, "it answers, so it lives");
            line.far(flow, |far| far.ends = true);
            line.peers[n].set_reads(true);
            let took = line.finish(Duration::from_secs(300));
            assert!(took < Duration::from_secs(3), "after {pause} s: {took}");
        }
    }
}

/// The segment that opens the window is lost: a probe finds out, and probes never
/// are more than a minute apart (RFC 9293, 3.8.6.1; RFC 6298, 2.5).
#[test]
fn the_containers_window_update_is_lost() {
    for link in links() {
        for (pause, most) in [(1, 5), (20, 65), (600, 65), (7200, 65)] {
            let mut line = Line::new(link);
            let habits = Habits {
                buffer: 20_000,
                ..Habits::kernel(link)
            };
            let (n, flow) = line.open(habits, Far::waits());
            line.peers[n].reads = false;
            line.far(flow, |far| far.goal = 1 << 20);
            line.run(Duration::from_secs(pause));
            line.up_fates.script(vec![Fate::Lose]);
            line.far(flow, |far| far.ends = true);
            line.peers[n].set_reads(true);
            let took = line.finish(Duration::from_secs(300));
            assert!(took < Duration::from_secs(most), "after {pause} s: {took}");
        }
    }
}

/// While the window is shut it is probed, first soon and then more rarely.
#[test]
fn probes_of_a_shut_window() {
    let mut line = Line::new(links()[0]);
    let habits = Habits {
        buffer: 14_600,
        ..Habits::kernel(line.link)
    };
    let (n, flow) = line.open(habits, Far::waits());
    line.peers[n].reads = false;
    line.far(flow, |far| far.goal = 1 << 20);
    line.run(Duration::from_millis(100));
    let before = line.peers[n].heard.len();
    line.run(Duration::from_secs(600));
    let probes = &line.peers[n].heard[before..];
    assert!((10..=60).contains(&probes.len()), "{} probes", probes.len());
    assert!(probes.iter().all(|probe| probe.1 <= 1460));
    let gaps: Vec<u64> = probes
        .windows(2)
        .map(|pair| (pair[1].0 - pair[0].0).total_millis())
        .collect();
    assert!(gaps[0] < 3000, "{gaps:?}");
    assert!(gaps.iter().all(|gap| *gap <= 61_000), "{gaps:?}");
}

/// Windows of all sizes, down to a byte; the peer panics at a byte beyond them.
#[test]
fn small_windows_of_the_container() {
    for link in [links()[0], links()[3]] {
        for buffer in [1, 2, 100, 535, 536, 537, 1459, 1460, 1461, 2921, 65_535] {
            let mut line = Line::new(link);
            let habits = Habits {
                buffer,
                scale: None,
                goal: 1000,
                ..Habits::kernel(link)
            };
            line.add(habits, Far::sends(20 * buffer + 1));
            line.finish(Duration::from_secs(600));
        }
    }
}

/// Every scale (RFC 7323, 2.3), none, and the window that each makes possible.
#[test]
fn window_scales() {
    for link in [links()[0], links()[3]] {
        for scale in (0..=14).map(Some).chain([None]) {
            let mut line = Line::new(link);
            let habits = Habits {
                scale,
                buffer: 65_535 << scale.unwrap_or(0),
                goal: 3 << 20,
                ..Habits::kernel(link)
            };
            line.add(habits, Far::sends(3 << 20));
            let took = line.finish(Duration::from_secs(60));
            assert!(took < Duration::from_secs(1), "{scale:?}: {took}");
        }
    }
}

/// A scale makes more than 64 KiB fly at once, in either direction, and without
/// one no more do.
#[test]
fn scales_are_used() {
    for (scale, more) in [(Some(7), true), (None, false)] {
        let mut line = Line::new(links()[0]);
        let habits = Habits {
            scale,
            goal: 4 << 20,
            ..Habits::kernel(line.link)
        };
        let (n, flow) = line.open(habits, Far::sends(4 << 20));
        let (mut up, mut down) = (0, 0);
        line.run_until(Duration::from_secs(20), |line| {
            let peer = &line.peers[n];
            up = up.max(peer.edge - peer.una);
            down = down.max(line.conn(flow).read - peer.got);
            peer.is_done()
        });
        assert_eq!(up > 65_535, more, "{up} upward");
        if more {
            assert!(down > 65_535, "{down} downward");
        }
    }
}

/// No segment is longer than the container's MSS, nor than the link's MTU.
#[test]
fn segments_fit() {
    for link in links() {
        for mss in [
            None,
            Some(536),
            Some(600),
            Some(1000),
            Some(1460),
            Some(9000),
        ] {
            for options in [true, false] {
                let mut line = Line::new(link);
                let habits = Habits {
                    mss,
                    sack: options,
                    scale: options.then_some(3),
                    buffer: 60_000,
                    burst: 1,
                    goal: 200_000,
                    ..Habits::kernel(link)
                };
                line.add(habits, Far::sends(200_000));
                line.finish(Duration::from_secs(60));
                let fits = usize::from(link.mtu - 40).min(usize::from(mss.unwrap_or(536)));
                let longest = line.peers[0].longest;
                assert!(longest <= fits, "{longest} with {mss:?} on {link:?}");
                assert!(
                    longest > fits - 40,
                    "{longest} is less than can be with {mss:?} on {link:?}"
                );
            }
        }
    }
}

/// An MSS that no host may have: the connection works, in whatever segments.
/// Nor longer than half of the largest window: a receiver may open its window only when a
/// segment like the last fits in, which in a window of one segment none ever would.
#[test]
fn segments_are_at_most_half_of_the_window() {
    for link in links().into_iter().filter(|link| link.mtu > 60_000) {
        let room = usize::from(link.mtu - 40);
        for (buffer, scale, most) in [
            (65_535, None, 32_767),
            (20_000, Some(0), 10_000),
            (100_000, Some(3), 50_000),
            (1 << 20, Some(7), room),
        ] {
            let mut line = Line::new(link);
            let habits = Habits {
                mss: Some(link.mtu - 40),
                buffer,
                scale,
                goal: 200_000,
                ..Habits::kernel(link)
            };
            line.add(habits, Far::sends(2 << 20));
            line.finish(Duration::from_secs(60));
            let longest = line.peers[0].longest;
            assert!(longest <= most, "{longest} in a window of {buffer}");
            assert!(longest > most - 100, "{longest} in a window of {buffer}");
        }
    }
}

#[test]
fn tiny_segment_sizes() {
    for link in links() {
        for mss in [0, 1, 7, 100, 535] {
            let mut line = Line::new(link);
            let habits = Habits {
                mss: Some(mss),
                goal: 20_000,
                ..Habits::kernel(link)
            };
            line.add(habits, Far::sends(20_000));
            line.finish(Duration::from_secs(60));
            assert!(line.peers.iter().all(Peer::is_done));
        }
    }
}

/// Sends `data` from `seq` on, in segments, where the host takes none of it.
fn send_all(w: &mut World, blank: &Segment, seq: u32, data: &[u8]) {
    for (n, piece) in data.chunks(1460).enumerate() {
        let offset = u32::try_from(n * 1460).unwrap();
        let segment = Segment {
            seq: seq.wrapping_add(offset),
            ..blank.clone()
        };
        w.send(&segment.with(piece).frame());
    }
}

/// A container without window scaling fills the window that it was given.
#[test]
fn the_whole_of_an_unscaled_window_is_kept() {
    let mut w = World::plain();
    w.host.reads = false;
    w.host.buffers = (1000, 1000);
    let to = remote(1, 80);
    let (flow, isn) = w.open_by_hand(&Segment::syn(1234, to));
    let blank = Segment::new(1234, to, ACK, 0, isn + 1);
    w.take();
    let data = pattern(1, 1000 + 65_536);
    send_all(&mut w, &blank, 1001, &data[..1460]);
    let told = w.take_tcp().last().unwrap().clone();
    assert_eq!((told.ack, told.window), (2461, 65_076));
    send_all(&mut w, &blank, 2461, &data[1460..]);
    let told = w.take_tcp().last().unwrap().clone();
    assert_eq!((told.ack, told.window), (1001 + 66_536, 0));
    w.host.tcp(flow).reads = true;
    w.host.far_read(flow);
    w.settle();
    assert!(w.take_tcp().last().unwrap().window > 65_535 / 2);
    assert!(w.far_received(flow) == data);
}

/// Memory became scarce after the container was promised more than it was given:
/// when the host has taken what there was, the container is told at once.
#[test]
fn a_window_that_had_to_shrink_opens_again() {
    let mut config = config(links()[0]);
    // One ring of 256 KiB; the next is smaller.
    config.limits.max_buffered = 128 * (256 << 10);
    let mut w = World::with(config);
    w.host.reads = false;
    w.host.buffers = (1000, 1000);
    let open = |w: &mut World, to| {
        let mut syn = Segment::syn(1234, to);
        syn.options.extend([1, 3, 3, 7]);
        let (flow, isn) = w.open_by_hand(&syn);
        w.take();
        (flow, Segment::new(1234, to, ACK, 0, isn + 1))
    };
    let (_, other) = open(&mut w, remote(1, 80));
    let (flow, blank) = open(&mut w, remote(2, 80));
    send_all(&mut w, &other, 2000, b"behind a gap");
    assert_eq!(w.stack.rings.lent(), 256 << 10);
    let data = pattern(1, 1000 + (64 << 10));
    send_all(&mut w, &blank, 1001, &data);
    let told = w.take_tcp().last().unwrap().clone();
    assert_eq!((told.ack, told.window), (1001 + 66_536, 0));
    w.host.tcp(flow).reads = true;
    w.host.far_read(flow);
    w.settle();
    assert!(w.far_received(flow) == data);
    let told = w.take_tcp();
    assert!(
        told.last().is_some_and(|told| told.window > 0),
        "the container has to probe: {told:?}"
    );
}
