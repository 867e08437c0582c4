//! Whatever befalls the frames, in both directions: what goes in comes out, once,
//! in order, and then the end.

use proptest::collection::vec;
use proptest::prelude::*;
use smoltcp::time::Duration;

use super::fates::{Chances, Fate, Fates};
use super::line::{Far, Line};
use super::peer::{Habits, Phase};
use super::random::cases;
use super::world::links;
use crate::{Close, FlowId};

/// The least that the stack waits for a container that owes it something.
const PATIENCE: Duration = Duration::from_secs(60);

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        12 => Just(Fate::Arrive),
        3 => Just(Fate::Lose),
        2 => Just(Fate::Repeat),
        2 => (0..3000_u16).prop_map(Fate::Delay),
        1 => (any::<u16>(), 0..8_u8).prop_map(|(at, bit)| Fate::Alter(at, bit)),
    ]
}

/// Who ends its direction, and when.
#[derive(Debug, Clone, Copy)]
enum Ending {
    /// Each with its last byte.
    Both,
    /// The other when it has seen the end.
    ContainerFirst,
    HostFirst,
    /// Long after everything has arrived, both at once.
    Late,
}

#[derive(Debug, Clone)]
struct Case {
    link: usize,
    isn: u32,
    mss: Option<u16>,
    scale: Option<u8>,
    sack: bool,
    buffer: u64,
    host_buffers: (u64, u64),
    up: u64,
    down: u64,
    ending: Ending,
    up_fates: Vec<Fate>,
    down_fates: Vec<Fate>,
}

fn case() -> impl Strategy<Value = Case> {
    let bytes = || prop_oneof![Just(0), Just(1), 1..5000_u64, 1..400_000_u64];
    let buffer = || prop_oneof![Just(1 << 20), Just(65_535), 600..70_000_u64];
    let connection = (
        0..4_usize,
        prop_oneof![Just(u32::MAX), any::<u32>()],
        prop_oneof![Just(None), Just(Some(1460)), (536..3000_u16).prop_map(Some)],
        prop_oneof![Just(None), (0..=14_u8).prop_map(Some)],
        any::<bool>(),
        buffer(),
        (buffer(), buffer()),
    );
    let ending = prop_oneof![
        Just(Ending::Both),
        Just(Ending::ContainerFirst),
        Just(Ending::HostFirst),
        Just(Ending::Late),
    ];
    let fates = || vec(fate(), 0..150);
    (connection, bytes(), bytes(), ending, fates(), fates()).prop_map(
        |(connection, up, down, ending, up_fates, down_fates)| {
            let (link, isn, mss, scale, sack, buffer, host_buffers) = connection;
            // A window that its scale rounds down to nothing is none.
            let scale =
                scale.map(|scale: u8| (0..=scale).rfind(|n| buffer >> n >= 64).unwrap_or(0));
            Case {
                link,
                isn,
                mss,
                scale,
                sack,
                buffer,
                host_buffers,
                up,
                down,
                ending,
                up_fates,
                down_fates,
            }
        },
    )
}

/// Whether the stack took the container for dead, as it may after a minute in
/// which one try after the other was lost.
fn gave_up(line: &Line, flow: FlowId, case: &Case) -> bool {
    let fates = case.up_fates.iter().chain(&case.down_fates);
    let lost = fates.filter(|fate| matches!(fate, Fate::Lose | Fate::Alter(..)));
    line.conn(flow).closed == Some(Close::Reset) && line.age() > PATIENCE && lost.count() >= 6
}

fn play(case: &Case) {
    let link = links()[case.link];
    let mut line = Line::new(link);
    line.up_fates.script(case.up_fates.clone());
    line.down_fates.script(case.down_fates.clone());
    let habits = Habits {
        isn: case.isn,
        mss: case.mss,
        scale: case.scale,
        sack: case.sack,
        buffer: case.buffer,
        burst: usize::from(case.mss.unwrap_or(536)),
        goal: case.up,
        ends: matches!(case.ending, Ending::Both | Ending::ContainerFirst),
    };
    let far = Far {
        goal: case.down,
        ends: matches!(case.ending, Ending::Both | Ending::HostFirst),
        reads: true,
        buffers: case.host_buffers,
    };
    let n = line.add(habits, far);
    // Scripts are finite, and timeouts grow with what is lost in a row.
    let limit = Duration::from_secs(900);
    let open = line.run_until(limit, |line| line.peers[n].phase == Phase::Open);
    assert!(open, "never connected");
    let flow = line.flow(n);
    let seen = line.run_until(limit, |line| {
        if gave_up(line, flow, case) {
            return true;
        }
        let (peer, conn) = (&line.peers[n], line.conn(flow));
        match case.ending {
            Ending::Both => true,
            Ending::ContainerFirst => conn.shut,
            Ending::HostFirst => peer.finished,
            Ending::Late => peer.is_acknowledged() && peer.got == case.down,
        }
    });
    assert!(seen, "the first part has not ended");
    if let Ending::Late = case.ending {
        line.run(Duration::from_secs(10));
    }
    line.peers[n].habits.ends = true;
    line.far(flow, |far| far.ends = true);
    line.run_until(limit, |line| line.conn(flow).closed.is_some());
    if !gave_up(&line, flow, case) {
        line.finish(limit);
    }
}

proptest! {
    #![proptest_config(cases(500))]

    #[test]
    fn scripts_of_fates(case in case()) {
        play(&case);
    }
}

/// The weather of the tests with a kernel's TCP: 2 % lost, 1 % twice, 5 % late,
/// 0.5 % altered, for several connections at once on every link.
#[test]
fn megabytes_in_bad_weather() {
    let chances = Chances {
        lose: 20,
        repeat: 10,
        delay: 50,
        alter: 5,
    };
    for link in links() {
        for seed in 0..3 {
            let mut line = Line::new(link);
            line.up_fates = Fates::by_chance(chances, 2 * seed);
            line.down_fates = Fates::by_chance(chances, 2 * seed + 1);
            for n in 1..5 {
                let habits = Habits {
                    goal: n << 20,
                    sack: n % 2 == 0,
                    ..Habits::kernel(link)
                };
                line.add(habits, Far::sends((5 - n) << 20));
            }
            line.finish(Duration::from_secs(3600));
        }
    }
}
