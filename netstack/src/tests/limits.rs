//! Bounds on what a container can make us hold.

use hostile::Call;
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
    // One more is refused, and the host is not asked.
    w.send(&Segment::syn(2000, remote(9, 200)).frame());
    assert_eq!(w.host.connects.len(), 8);
    assert_eq!(w.stack.stats().over_half_open, 1);
    let refused = |seen: &[Seen], port: u16| {
        matches!(seen, [Seen::Tcp(tcp)]
            if tcp.flags & frames::RST != 0 && tcp.to.port() == port && tcp.ack == 1001)
    };
    assert!(refused(&w.take(), 2000));
    // One that gives up makes room...
    w.send(&Segment::new(1000, remote(9, 100), frames::RST, 1001, 0).frame());
    w.assert_works();
    w.host
        .outcomes
        .insert(remote(9, 300).into(), Outcome::Never);
    w.send(&Segment::syn(2001, remote(9, 300)).frame());
    assert_eq!(w.take(), []);
    // ...and half a second later the oldest gives way.
    w.run(Duration::from_millis(500));
    w.send(&Segment::syn(2002, remote(9, 300)).frame());
    assert!(refused(&w.take(), 1001));
    assert_eq!(w.stack.half_open, 8);
    w.assert_works();
}

/// Those that the host has accepted and the container does not answer for count, too.
#[test]
fn handshakes_that_the_container_leaves_are_half_open() {
    let mut c = config(links()[0]);
    c.limits.max_half_open = 8;
    let mut w = World::with(c);
    w.host.default_outcome = Outcome::Accept(Duration::ZERO);
    for i in 0..9 {
        w.send(&Segment::syn(1000 + i, remote(9, 80)).frame());
        w.settle();
    }
    assert_eq!((w.stack.half_open, w.host.open.len()), (8, 8));
    let last = w.take_tcp().pop().unwrap();
    assert_eq!(
        (last.to.port(), last.flags & frames::RST),
        (1008, frames::RST)
    );
    w.run(Duration::from_millis(500));
    w.take();
    w.assert_works();
    assert_eq!(w.stack.half_open, 7, "the oldest has given way");
    w.assert_empties(Duration::from_secs(130));
}

/// However many connections come and go behind one that does not, the order in which
/// they began takes little memory.
#[test]
fn connections_behind_one_that_hangs() {
    let mut w = World::plain();
    let hangs = remote(9, 80);
    w.host.outcomes.insert(hangs.into(), Outcome::Never);
    w.send(&Segment::syn(999, hangs).frame());
    for i in 0..1000 {
        let (_, isn) = w.open_by_hand(&Segment::syn(1000 + i, remote(1, 80)));
        w.send(&Segment::new(1000 + i, remote(1, 80), frames::RST, 1001, isn + 1).frame());
        assert!(w.stack.half_open_queue.len() <= 70);
        if i % 100 == 0 {
            w.send(&Segment::syn(999, hangs).frame());
        }
    }
    assert_eq!(w.stack.half_open, 1);
    w.take();
    w.assert_works();
}

/// A flow that can have no memory is reset; others go on, and there is memory again.
#[test]
fn bytes_that_wait_are_bounded() {
    let mut c = config(links()[0]);
    // Eight rings of the smallest size.
    c.limits.max_buffered = 128 << 10;
    let mut w = World::with(c);
    w.host.reads = false;
    w.host.buffers = (1000, 1000);
    let open: Vec<_> = (0..10)
        .map(|i| w.open_by_hand(&Segment::syn(1000 + i, remote(1, 100 + i))))
        .collect();
    for (i, (_, isn)) in (0..).zip(&open) {
        let to = remote(1, 100 + i);
        let data = Segment::new(1000 + i, to, frames::ACK, 1001, isn + 1).with(&[7; 1400]);
        w.send(&data.frame());
        assert!(w.stack.usage().buffered <= 128 << 10);
    }
    assert_eq!(w.stack.usage().buffered, 128 << 10);
    assert_eq!(w.stack.stats().over_buffered, 2);
    assert_eq!(w.stack.flow_count(), 8);
    let reset: Vec<u16> = w
        .take_tcp()
        .iter()
        .filter(|tcp| tcp.flags & frames::RST != 0)
        .map(|tcp| tcp.to.port())
        .collect();
    assert_eq!(reset, [1008, 1009]);
    // The same from the other side.
    let (flow, _) = w.open_by_hand(&Segment::syn(2000, remote(2, 80)));
    w.host.far_write(flow, b"no room for this");
    w.settle();
    assert_eq!(w.closed(flow), Some(crate::Close::Reset));
    assert!(w.take_tcp().iter().any(|tcp| tcp.flags & frames::RST != 0));
    for i in 0..4 {
        let to = remote(1, 100 + i);
        w.send(&Segment::new(1000 + i, to, frames::RST, 2401, 0).frame());
    }
    w.take();
    w.assert_works();
}

/// Frames beyond so many a second are lost, and what repeats them gets through.
#[test]
fn frames_a_second_are_bounded() {
    let mut c = config(links()[0]);
    c.limits.max_pps = std::num::NonZeroU32::new(100);
    let mut w = World::with(c);
    for _ in 0..1000 {
        w.send(&frames::udp(1234, remote(1, 7), b"x"));
    }
    assert_eq!(w.host.datagrams.len(), 100);
    assert_eq!(w.stack.stats().over_pps, 900);
    assert_eq!(w.take(), [], "an answer would cost as much");
    w.run(Duration::from_secs(1));
    let pair = w.connect(remote(1, 80));
    let up = super::world::pattern(1, 300_000);
    super::tcp_data::exchange(&mut w, pair, &up, &[], Duration::from_secs(30));
    w.run(Duration::from_secs(1));
    w.assert_works();
}

/// A flood of datagrams takes its own places: what is answered stays, and so does what
/// is in use while others are not; new flows of every kind find room.
#[test]
fn datagram_flows_that_nobody_answers_give_way() {
    let mut c = config(links()[0]);
    c.limits.max_flows = 20;
    let mut w = World::with(c);
    let pair = w.connect(remote(1, 80));
    w.send(&frames::udp(500, remote(3, 7), b"question"));
    let answered = w.host.datagrams[0].0;
    w.datagram(answered, remote(3, 7).into(), b"answer", 0);
    for i in 0..1000 {
        // Nobody answers this one either, but it is used again and again.
        w.send(&frames::udp(600, remote(4, 514), b"log"));
        w.send(&frames::udp(1000 + i, remote(9, 9), b"x"));
        w.run(Duration::from_millis(10));
        assert!(w.stack.usage().flows <= 20 && w.host.open.len() <= 20);
    }
    let log = w.host.datagrams[1].0;
    let sent: Vec<_> = w.host.datagrams.iter().map(|sent| sent.0).collect();
    assert_eq!(sent.iter().filter(|flow| **flow == log).count(), 1000);
    assert_eq!(w.stack.stats().given_up, 1000 + 3 - 20);
    assert_eq!(w.stack.stats().over_limit, 0);
    w.take();
    w.datagram(answered, remote(3, 7).into(), b"more", 0);
    assert_eq!(w.take().len(), 1);
    w.send(&frames::echo(*remote(2, 0).ip(), 1, 1, b"x"));
    assert_eq!(w.host.echoes.len(), 1);
    w.assert_works();
    assert_eq!(w.guest.state(pair.guest), State::Established);
    // All that are left were answered a moment ago: nothing gives way to a new one.
    for port in 2000..2040 {
        let sent = w.host.datagrams.len();
        w.send(&frames::udp(port, remote(9, 9), b"x"));
        if let Some((flow, to, _)) = w.host.datagrams.get(sent).cloned() {
            w.datagram(flow, to, b"y", 0);
        }
    }
    assert!(
        w.take()
            .iter()
            .any(|seen| matches!(seen, Seen::Unreachable { code: 13, .. }))
    );
    assert!(w.stack.stats().over_limit > 0);
    // Half a minute later it does.
    w.run(Duration::from_secs(30));
    w.assert_works();
}

/// Others of the process have taken the descriptors: the same.
#[test]
fn datagram_flows_give_way_when_descriptors_run_out() {
    let mut w = World::plain();
    w.send(&frames::udp(1000, remote(9, 9), b"x"));
    for (port, call) in [(2000, Call::UdpOpen), (2001, Call::Connect)] {
        let before = w.host.datagrams.len();
        w.host
            .faults
            .insert(call, (0, crate::HostError::NoResources));
        w.send(&frames::udp(port, remote(9, 9), b"x"));
        w.send(&Segment::syn(port, remote(1, 80)).frame());
        w.run(Duration::from_millis(5));
        assert_eq!(w.host.datagrams.len(), before + 1);
        assert!(
            matches!(&w.take()[..], [Seen::Tcp(tcp)] if tcp.flags == frames::SYN | frames::ACK)
        );
        w.assert_works();
    }
    assert_eq!(w.stack.stats().given_up, 2);
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
    c.limits.max_buffered = 8 << 20;
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
