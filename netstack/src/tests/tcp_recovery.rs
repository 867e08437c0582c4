//! What TCP does about frames that the link loses.

use smoltcp::time::Duration;

use super::fates::Fate;
use super::line::{Far, Line};
use super::peer::{Habits, Peer, Phase};
use super::world::links;

/// A round trip of these tests is 40 µs; nothing is worth waiting for longer
/// where the loss of a frame shows by those behind it.
const NO_TIMEOUT: Duration = Duration::from_millis(100);
/// One retransmission timeout: RFC 6298 has 1 s before the first measurement.
const ONE_TIMEOUT: Duration = Duration::from_millis(1200);

fn lose_one(at: usize) -> Vec<Fate> {
    let mut script = vec![Fate::Arrive; at];
    script.push(Fate::Lose);
    script
}

/// The container does not repeat its SYN: the answer is repeated by itself.
#[test]
fn a_lost_syn_ack_is_sent_again() {
    let mut line = Line::new(links()[0]);
    line.down_fates.script(vec![Fate::Lose; 2]);
    let n = line.add(Habits::kernel(line.link), Far::sends(100));
    // Its own timer would run out after a second.
    line.run(Duration::from_millis(500));
    assert_eq!(line.peers[n].phase, Phase::Connecting);
    line.up_fates.script(vec![Fate::Lose; 4]);
    let begin = line.now;
    assert!(line.run_until(Duration::from_secs(8), |line| {
        line.peers[n].phase == Phase::Open
    }));
    assert!(line.now - begin < Duration::from_secs(7));
    line.up_fates.script(Vec::new());
    line.finish(Duration::from_secs(5));
}

/// Any one frame of a short exchange is lost, and any two: each way, SYN, data,
/// acknowledgements and ends, whoever ends first.
#[test]
fn any_one_or_two_lost_frames_of_a_short_exchange() {
    for link in [links()[0], links()[3]] {
        for first in ["container", "host", "both"] {
            for (up, down) in (0..9).flat_map(|up| (0..9).map(move |down| (up, down))) {
                let mut line = Line::new(link);
                // The ninth is lost in neither: there are fewer.
                if up < 8 {
                    line.up_fates.script(lose_one(up));
                }
                if down < 8 {
                    line.down_fates.script(lose_one(down));
                }
                let n = line.add(
                    Habits {
                        goal: 100,
                        ends: first != "host",
                        ..Habits::kernel(link)
                    },
                    Far {
                        ends: first != "container",
                        ..Far::sends(3000)
                    },
                );
                if first == "container" {
                    assert!(line.run_until(Duration::from_secs(30), |line| {
                        line.peers[n].phase == Phase::Open && line.conn(line.flow(n)).shut
                    }));
                    let flow = line.flow(n);
                    line.far(flow, |far| far.ends = true);
                } else if first == "host" {
                    assert!(
                        line.run_until(Duration::from_secs(30), |line| { line.peers[n].finished })
                    );
                    line.peers[n].habits.ends = true;
                }
                line.finish(Duration::from_secs(60));
            }
        }
    }
}

fn download(line: &mut Line, habits: Habits, bytes: u64) -> Duration {
    line.add(habits, Far::sends(bytes));
    line.finish(Duration::from_secs(600))
}

/// One segment of many is lost: those behind it tell, and no timer is waited for.
#[test]
fn one_lost_segment_costs_no_timeout() {
    for sack in [true, false] {
        // The first frame is the SYN-ACK; of the last three nothing tells.
        for at in 1..30 {
            let mut line = Line::new(links()[0]);
            line.down_fates.script(lose_one(at));
            let habits = Habits {
                sack,
                ..Habits::kernel(line.link)
            };
            let took = download(&mut line, habits, 40 * 1460);
            assert!(took < NO_TIMEOUT, "the {at}th: {took}");
        }
    }
}

#[test]
fn the_last_segment_lost_costs_one_timeout() {
    for bytes in [1, 1460, 14_600] {
        let mut line = Line::new(links()[0]);
        let far = Far {
            ends: false,
            ..Far::sends(0)
        };
        let (n, flow) = line.open(Habits::kernel(line.link), far);
        line.run(Duration::from_millis(1));
        let segments = usize::try_from(bytes).unwrap().div_ceil(1460);
        line.down_fates.script(lose_one(segments - 1));
        line.far(flow, |far| far.goal = bytes);
        let begin = line.now;
        assert!(line.run_until(Duration::from_secs(60), |line| {
            line.peers[n].got == bytes
        }));
        let took = line.now - begin;
        assert!(took <= ONE_TIMEOUT, "{bytes} bytes: {took}");
        assert!(
            took >= Duration::from_millis(190),
            "RFC 6298 in spirit: {took}"
        );
        line.far(flow, |far| far.ends = true);
        line.finish(Duration::from_secs(5));
    }
}

/// Many frames in a row are lost: not a timeout for each.
#[test]
fn a_lost_burst_is_made_up_for_at_once() {
    for (sack, lost) in [(true, 5), (true, 30), (false, 5), (false, 30)] {
        let mut line = Line::new(links()[0]);
        let mut script = vec![Fate::Arrive; 12];
        script.resize(12 + lost, Fate::Lose);
        line.down_fates.script(script);
        let habits = Habits {
            sack,
            ..Habits::kernel(line.link)
        };
        let took = download(&mut line, habits, 300_000);
        assert!(took < ONE_TIMEOUT * 2, "{lost} lost, SACK {sack}: {took}");
    }
}

/// Every second frame of a flight is lost: selective acknowledgements name the
/// holes, and all are filled in a few round trips.
#[test]
fn scattered_losses_are_made_up_for_with_sack() {
    let mut line = Line::new(links()[0]);
    let mut script = vec![Fate::Arrive; 10];
    script.extend([Fate::Lose, Fate::Arrive].repeat(20));
    line.down_fates.script(script);
    let habits = Habits::kernel(line.link);
    let took = download(&mut line, habits, 300_000);
    assert!(took < NO_TIMEOUT, "{took}");
}

/// The TAP's queue takes only so many frames of a burst; the rest is lost.
#[test]
fn bursts_longer_than_the_queue() {
    for link in links() {
        for queue in [16, 64] {
            let mut line = Line::new(link);
            line.host.queue = queue;
            let took = download(&mut line, Habits::kernel(link), 4 << 20);
            if link.mtu == 1500 && !link.tso {
                assert!(line.host.overrun > 0, "bursts are longer than {queue}");
            }
            // With a timeout for each of the frames lost it would be minutes.
            assert!(
                took < Duration::from_secs(20),
                "{queue} of {} lost: {took}",
                line.host.overrun
            );
        }
    }
}

/// The queue is full for a while, for all flows.
#[test]
fn nothing_arrives_for_a_while() {
    for link in links() {
        let mut line = Line::new(link);
        for _ in 0..8 {
            let habits = Habits {
                goal: 2 << 20,
                ..Habits::kernel(link)
            };
            line.add(habits, Far::sends(2 << 20));
        }
        line.run(Duration::from_millis(2));
        line.host.queue = 0;
        line.run(Duration::from_millis(300));
        line.host.queue = usize::MAX;
        let took = line.finish(Duration::from_secs(60));
        assert!(took < Duration::from_secs(5), "{took}");
    }
}

/// Acknowledgements of ours are lost: what comes again is not taken again.
#[test]
fn lost_acknowledgements() {
    for link in links() {
        for lost in 1..12 {
            let mut line = Line::new(link);
            let habits = Habits {
                goal: 400_000,
                ..Habits::kernel(link)
            };
            let (_, flow) = line.open(habits, Far::sends(0));
            line.down_fates.script(vec![Fate::Lose; lost]);
            let took = line.finish(Duration::from_secs(60));
            assert_eq!(line.conn(flow).taken, 400_000);
            // The container's own timer: 0.2 s, doubled each time up to 2 s.
            assert!(took < Duration::from_secs(20), "{lost}: {took}");
        }
    }
}

/// Nobody answers: repetitions grow rarer, and the connection is given up at last.
#[test]
fn retransmissions_back_off() {
    let mut line = Line::new(links()[0]);
    let (n, flow) = line.open(Habits::kernel(line.link), Far::waits());
    line.run(Duration::from_millis(1));
    line.peers[n].silent = true;
    line.far(flow, |far| far.goal = 1000);
    let mut times = Vec::new();
    let mut seen = line.down_fates.frames;
    line.run_until(Duration::from_secs(300), |line| {
        if line.down_fates.frames > seen {
            seen = line.down_fates.frames;
            times.push(line.now);
        }
        line.conn(flow).closed.is_some()
    });
    // The last one is the reset.
    let gaps: Vec<u64> = times[..times.len() - 1]
        .windows(2)
        .map(|pair| (pair[1] - pair[0]).total_millis())
        .collect();
    assert!((190..=1200).contains(&gaps[0]), "{gaps:?}");
    assert!(
        gaps.windows(2)
            .all(|pair| pair[1] + 10 >= pair[0] && pair[1] <= pair[0] * 2 + 100),
        "{gaps:?}"
    );
    assert!((4..=15).contains(&gaps.len()), "{gaps:?}");
    // RFC 9293, 3.8.3: R2 is at least 100 s.
    let patience = *times.last().unwrap() - times[0];
    assert!(patience >= Duration::from_secs(100), "{patience}");
}

/// After repetitions the next timeout is short again (RFC 6298, 5.7 and Karn).
#[test]
fn the_timeout_recovers_after_losses() {
    let mut line = Line::new(links()[0]);
    let (n, flow) = line.open(Habits::kernel(line.link), Far::waits());
    line.run(Duration::from_millis(1));
    line.down_fates.script(vec![Fate::Lose; 4]);
    line.far(flow, |far| far.goal = 1000);
    assert!(line.run_until(Duration::from_secs(60), |line| line.peers[n].got == 1000));
    for round in 0_u64..20 {
        let goal = 1000 + 100_000 * (round + 1);
        line.far(flow, |far| far.goal = goal);
        let got = |line: &mut Line| line.peers[n].got == goal;
        assert!(line.run_until(Duration::from_secs(60), got));
    }
    line.down_fates.script(vec![Fate::Lose]);
    let begin = line.now;
    let goal = line.conn(flow).far.goal + 1;
    line.far(flow, |far| far.goal = goal);
    assert!(line.run_until(Duration::from_secs(60), |line| line.peers[n].got == goal));
    let took = line.now - begin;
    assert!(took <= ONE_TIMEOUT, "{took}");
}

/// Frames that only swap places or come twice cost no timeout. A window of small
/// segments has some 45 holes at a time.
#[test]
fn reordered_and_repeated_frames_cost_no_timeout() {
    for fate in [Fate::Delay(30), Fate::Delay(300), Fate::Repeat] {
        for link in links() {
            let mut line = Line::new(link);
            let mut some = [Fate::Arrive; 16];
            some[0] = fate;
            let script = some.repeat(100);
            line.up_fates.script(script.clone());
            line.down_fates.script(script);
            let habits = Habits {
                goal: 1 << 20,
                ..Habits::kernel(link)
            };
            line.add(habits, Far::sends(1 << 20));
            let took = line.finish(Duration::from_secs(60));
            assert!(took < Duration::from_millis(190), "{fate:?}: {took}");
            assert!(line.peers.iter().all(Peer::is_done));
        }
    }
}
