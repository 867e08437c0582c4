//! Bounds on what a container can make us hold.

use smoltcp::socket::tcp::State;
use smoltcp::time::Duration;

use super::frames::{self, Seen, Segment};
use super::guest::remote;
use super::host::Outcome;
use super::world::{World, config, links};

#[test]
fn half_open_connections_are_bounded() {
    let mut c = config(links()[0]);
    c.limits.max_half_open = 8;
    let mut w = World::with(c);
    for i in 0..8 {
        w.host
            .outcomes
            .insert(remote(9, 100 + i).into(), Outcome::Never);
        w.send(&Segment::syn(1000 + i, remote(9, 100 + i)).frame());
    }
    assert_eq!(w.take(), []);
    assert_eq!(w.stack.half_open, 8);
    // One more is not opened...
    w.send(&Segment::syn(2000, remote(9, 200)).frame());
    assert_eq!(w.host.connects.len(), 8);
    assert_eq!(w.stack.stats().over_limit, 1);
    // ...and not refused either: its SYN comes again.
    assert_eq!(w.take(), []);
    // ...until there is room again.
    w.send(&Segment::new(1000, remote(9, 100), frames::RST, 1001, 0).frame());
    w.assert_works();
}

/// A container that closes a socket in SYN-SENT says nothing; what it asked for
/// must not hold a place until the host gives up, too.
#[test]
fn a_connection_that_nobody_waits_for_gives_way() {
    let mut w = World::plain();
    w.host.outcomes.insert(remote(9, 80).into(), Outcome::Never);
    let syn = Segment::syn(1000, remote(9, 80)).frame();
    w.send(&syn);
    // Repeated as Linux does: after 1, 3 and 7 s.
    for pause in [1, 2, 4] {
        assert!(!w.run_until(Duration::from_secs(pause), |w| w.stack.half_open == 0));
        w.send(&syn);
    }
    assert_eq!((w.stack.half_open, w.host.connects.len()), (1, 1));
    assert!(w.run_until(Duration::from_secs(30), |w| w.stack.half_open == 0));
    assert_eq!(w.stack.flow_count(), 0);
    w.assert_works();
}

#[test]
fn flows_are_bounded() {
    let mut c = config(links()[0]);
    c.limits.max_flows = 10;
    let mut w = World::with(c);
    let pairs: Vec<_> = (0..10).map(|i| w.connect(remote(1, 100 + i))).collect();
    assert_eq!(w.stack.flow_count(), 10);
    w.send(&Segment::syn(1234, remote(2, 80)).frame());
    assert!(matches!(&w.take()[..], [Seen::Tcp(tcp)] if tcp.flags & frames::RST != 0));
    w.send(&frames::udp(1234, remote(2, 80), b"x"));
    assert!(matches!(w.take()[..], [Seen::Unreachable { .. }]));
    w.send(&frames::echo(*remote(2, 0).ip(), 1, 1, b"x"));
    assert!(matches!(w.take()[..], [Seen::Unreachable { .. }]));
    assert_eq!(w.stack.stats().over_limit, 3);
    assert_eq!(w.host.datagrams, []);
    for pair in &pairs {
        assert_eq!(w.guest.state(pair.guest), State::Established);
    }
    for pair in pairs.iter().take(5) {
        w.guest.tcp(pair.guest).abort();
    }
    w.run(Duration::from_millis(1));
    w.assert_works();
}

/// A UDP flow and its mapping have one socket and need one place: at the limit
/// neither is left behind alone.
#[test]
fn udp_at_the_limit_leaves_nothing_behind() {
    for free in 0..2 {
        let mut c = config(links()[0]);
        c.limits.max_flows = 4 + free;
        let mut w = World::with(c);
        for i in 0..4 {
            w.connect(remote(1, 100 + i));
        }
        w.send(&frames::udp(1234, remote(2, 80), b"x"));
        w.check();
        let fits = free >= 1;
        assert_eq!(w.stack.flow_count(), 4 + if fits { 2 } else { 0 });
        assert_eq!(w.host.datagrams.len(), usize::from(fits));
        // The forwarder's mapping likewise.
        w.send(&frames::udp(
            1235,
            std::net::SocketAddrV4::new(frames::DNS, 53),
            &super::dns::query(1, "a.example", super::dns::A),
        ));
        w.check();
        assert_eq!(w.stack.flow_count(), 4 + if fits { 2 } else { 0 });
    }
}

/// Many flows share the ring memory, and each still works.
#[test]
fn many_flows_within_a_small_budget() {
    let mut c = config(links()[2]);
    c.limits.ring_budget = 8 << 20;
    let mut w = World::with(c);
    let pairs: Vec<_> = (0..40).map(|i| w.connect(remote(1, 100 + i))).collect();
    for pair in &pairs {
        super::tcp_data::exchange(
            &mut w,
            *pair,
            &super::world::pattern(1, 50_000),
            &super::world::pattern(2, 50_000),
            Duration::from_secs(10),
        );
    }
}

/// Flows that come and go leave nothing in the timer queue for ever.
#[test]
fn timers_of_dead_flows_pass() {
    let mut w = World::plain();
    for i in 0..200 {
        let pair = w.connect(remote(1, 100 + i));
        w.guest.tcp(pair.guest).abort();
        w.run(Duration::from_millis(1));
        w.guest.forget(pair.guest);
    }
    assert_eq!(w.stack.flow_count(), 0);
    w.run(Duration::from_secs(8000));
    assert_eq!(w.stack.next_deadline(), None);
}
