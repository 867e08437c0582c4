//! Sequence numbers that pass 2^32, and 2^31, where signs change.

use smoltcp::time::Duration;

use super::fates::{Chances, Fates};
use super::line::{Far, Line};
use super::peer::Habits;
use super::world::links;

const MIB: u64 = 1 << 20;

/// A little of everything.
const CHANCES: Chances = Chances {
    lose: 10,
    repeat: 5,
    delay: 20,
    alter: 5,
};

fn isns() -> impl Iterator<Item = u32> {
    [0, 1 << 31].into_iter().flat_map(|edge: u32| {
        [0, 1, 2, 3, 1459, 1460, 1461, 65_535, 300_000]
            .into_iter()
            .map(move |before| edge.wrapping_sub(before))
    })
}

/// The container's numbers pass the edge while it sends.
#[test]
fn the_containers_numbers_pass_the_edge() {
    for link in [links()[0], links()[3]] {
        for isn in isns() {
            for chances in [Chances::default(), CHANCES] {
                let mut line = Line::new(link);
                line.up_fates = Fates::by_chance(chances, u64::from(isn));
                line.down_fates = Fates::by_chance(chances, u64::from(isn) + 1);
                let habits = Habits {
                    isn,
                    goal: MIB,
                    ..Habits::kernel(link)
                };
                line.add(habits, Far::sends(1000));
                line.finish(Duration::from_secs(120));
            }
        }
    }
}

/// Our own numbers do. They are not to be chosen, so connections are made until
/// one begins right before the edge.
#[test]
fn our_numbers_pass_the_edge() {
    for link in [links()[0], links()[3]] {
        for edge in [0_u32, 1 << 31] {
            let mut line = Line::new(link);
            let (mut tries, mut flow, mut n);
            tries = 0;
            loop {
                (n, flow) = line.open(Habits::kernel(link), Far::waits());
                if edge.wrapping_sub(line.peers[n].irs) < 1 << 21 {
                    break;
                }
                line.reset(n);
                // The clock of RFC 6528 goes on by 1.25 million.
                line.run(Duration::from_secs(5));
                tries += 1;
                assert!(tries < 5000, "none begins before {edge:#x}");
            }
            line.up_fates = Fates::by_chance(CHANCES, tries);
            line.down_fates = Fates::by_chance(CHANCES, tries + 1);
            line.far(flow, |far| (far.goal, far.ends) = (4 * MIB, true));
            line.finish(Duration::from_secs(240));
        }
    }
}

/// More than there are sequence numbers, both ways at once: every byte has its
/// place all the same.
#[test]
fn more_bytes_than_sequence_numbers() {
    let bytes = (4 << 30) + 64 * MIB;
    let mut line = Line::new(links()[3]);
    line.thorough = false;
    let habits = Habits {
        goal: bytes,
        ..Habits::kernel(line.link)
    };
    let far = Far {
        buffers: (MIB, MIB),
        ..Far::sends(bytes)
    };
    line.add(habits, far);
    line.finish(Duration::from_secs(3600));
    let stats = line.stack.stats();
    assert_eq!((stats.tcp_bytes_up, stats.tcp_bytes_down), (bytes, bytes));
}
