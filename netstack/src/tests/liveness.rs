//! Flows whose ends have fallen silent.

use smoltcp::socket::tcp::State;
use smoltcp::time::Duration;

use super::frames::{ACK, FIN, RST, Segment};
use super::guest::{Read, remote};
use super::world::{World, pattern};
use crate::Close;

/// An established connection may idle for days when both ends are there.
#[test]
fn idle_connections_are_kept() {
    let mut w = World::plain();
    let pair = w.connect(remote(1, 80));
    w.run(Duration::from_secs(3 * 24 * 3600));
    assert_eq!(w.guest.state(pair.guest), State::Established);
    w.guest.write(pair.guest, b"still here");
    w.host.far_write(pair.flow, b"so am I");
    w.run(Duration::from_millis(5));
    assert_eq!(w.far_received(pair.flow), b"still here");
    assert_eq!(w.guest.read(pair.guest), Read::Data(b"so am I".to_vec()));
    w.assert_works();
}

/// An idle connection costs few wake-ups: none but its probes.
#[test]
fn idle_connections_cost_no_wakeups() {
    let mut w = World::plain();
    let pair = w.connect(remote(1, 80));
    w.guest.write(pair.guest, b"x");
    w.run(Duration::from_secs(60));
    let frames = w.stack.stats().frames_out;
    w.run(Duration::from_secs(3600));
    assert_eq!(w.stack.stats().frames_out, frames);
    let next = w.stack.next_deadline().unwrap();
    assert!(next > w.now + Duration::from_secs(60), "{next}");
}

#[test]
fn idle_connections_are_probed_on_both_sides() {
    let mut w = World::plain();
    let pair = w.connect(remote(1, 80));
    let frames = w.stack.stats().frames_out;
    w.run(Duration::from_secs(7300));
    assert!(w.stack.stats().frames_out > frames);
    assert!(w.host.tcp(pair.flow).keepalive.is_some());
    w.assert_works();
}

#[test]
fn silent_container_loses_its_idle_connection() {
    let mut w = World::plain();
    let pair = w.connect(remote(1, 80));
    w.guest_alive = false;
    w.run(Duration::from_secs(7000));
    assert_eq!(w.closed(pair.flow), None);
    w.assert_empties(Duration::from_secs(400));
    assert_eq!(w.closed(pair.flow), Some(Close::Reset));
}

#[test]
fn silent_container_that_owes_an_ack() {
    let mut w = World::plain();
    let pair = w.connect(remote(1, 80));
    w.guest_alive = false;
    w.host.far_write(pair.flow, b"anyone?");
    // RFC 9293, 3.8.3: R2 is at least 100 s.
    w.run(Duration::from_secs(100));
    assert_eq!(w.closed(pair.flow), None);
    w.assert_empties(Duration::from_secs(40));
    assert_eq!(w.closed(pair.flow), Some(Close::Reset));
}

/// N12: half-closed flows of a silent container are reclaimed.
#[test]
fn n12_half_closed_and_silent() {
    let mut w = World::plain();
    let flows: Vec<_> = (0..500_u16)
        .map(|i| {
            let (flow, isn) = w.open_by_hand(&Segment::syn(1000 + i, remote(1, 3000 + i)));
            (flow, isn, i)
        })
        .collect();
    for (flow, isn, i) in &flows {
        let (port, to) = (1000 + i, remote(1, 3000 + i));
        if i % 2 == 0 {
            // The host ends; the container acknowledges and never ends.
            w.host.far_close(*flow);
            w.settle();
            w.send(&Segment::new(port, to, ACK, 1001, isn + 2).frame());
        } else {
            // The container ends; the host never does.
            w.send(&Segment::new(port, to, FIN | ACK, 1001, isn + 1).frame());
        }
    }
    w.take();
    assert_eq!(w.stack.flow_count(), 500);
    w.assert_empties(Duration::from_secs(120));
    w.assert_works();
}

/// N12, a FIN that is never acknowledged.
#[test]
fn n12_fin_is_never_acknowledged() {
    let mut w = World::plain();
    let (flow, _) = w.open_by_hand(&Segment::syn(1234, remote(1, 80)));
    w.host.far_close(flow);
    w.assert_empties(Duration::from_secs(120));
    assert_eq!(w.closed(flow), Some(Close::Reset));
    assert!(w.take_tcp().iter().any(|s| s.flags & RST != 0));
    w.assert_works();
}

/// A container that has closed a connection for good forgets it a minute later, and
/// answers our probe with a reset. What it has sent is for the far end all the same.
#[test]
fn what_was_closed_has_been_forgotten() {
    let mut w = World::plain();
    w.guest_alive = false;
    let to = remote(1, 80);
    let (flow, isn) = w.open_by_hand(&Segment::syn(1234, to));
    let last = Segment::new(1234, to, FIN | ACK, 1001, isn + 1).with(b"all of it");
    w.send(&last.frame());
    w.run(Duration::from_millis(5));
    w.take();
    w.run(Duration::from_secs(31));
    assert_eq!(w.take_tcp().len(), 1, "a probe");
    w.send(&Segment::new(1234, to, RST, 1011, 0).frame());
    assert_eq!(w.closed(flow), Some(Close::Forgotten));
    assert_eq!(w.far_received(flow), b"all of it");
    w.assert_empties(Duration::ZERO);
}

/// A half-closed flow between two living ends is kept.
#[test]
fn half_closed_and_alive() {
    let mut w = World::plain();
    let pair = w.connect(remote(1, 80));
    w.host.far_close(pair.flow);
    w.run(Duration::from_secs(24 * 3600));
    assert_eq!(w.guest.state(pair.guest), State::CloseWait);
    let data = pattern(1, 5000);
    w.guest.write(pair.guest, &data);
    w.guest.tcp(pair.guest).close();
    w.run(Duration::from_secs(1));
    assert_eq!(w.far_received(pair.flow), data);
    assert_eq!(w.closed(pair.flow), Some(Close::Orderly));

    let pair = w.connect(remote(2, 80));
    w.guest.tcp(pair.guest).close();
    w.run(Duration::from_secs(24 * 3600));
    assert!(w.host.tcp(pair.flow).keepalive.is_some());
    w.host.far_write(pair.flow, &data);
    w.host.far_close(pair.flow);
    w.run(Duration::from_secs(1));
    assert_eq!(w.guest.read(pair.guest), Read::Data(data));
    assert_eq!(w.closed(pair.flow), Some(Close::Orderly));
    w.assert_works();
}

/// A container that keeps its window shut but answers probes is alive.
#[test]
fn n28_window_shut_for_hours() {
    let mut w = World::plain();
    let pair = w.connect_with(remote(1, 80), 1000);
    let data = pattern(2, 5000);
    assert_eq!(w.host.far_write(pair.flow, &data), 5000);
    w.run(Duration::from_secs(3 * 3600));
    let mut got = Vec::new();
    assert!(w.run_until(Duration::from_secs(300), |w| {
        if let Read::Data(more) = w.guest.read(pair.guest) {
            got.extend(more);
        }
        got.len() == data.len()
    }));
    assert_eq!(got, data);
    w.assert_works();
}
