//! Connections as two applications see them: whatever they do, in whatever order, each
//! reads what the other has written, and sees it end as it has ended.

use hostile::script::{Act, Ending, Model, Script, Side, bytes, some};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use smoltcp::socket::tcp::State;
use smoltcp::time::Duration;

use super::frames::GUEST;
use super::guest::{Read, remote};
use super::host::Socket;
use super::random::cases;
use super::shim::Weather;
use super::world::{Pair, World, config, links};
use crate::{Close, HostError};

/// What stands between the two.
#[derive(Debug, Clone)]
struct Way {
    link: usize,
    weather: Weather,
    seed: u64,
    buffers: (usize, usize),
    small_rings: bool,
}

impl Way {
    /// How long things may take to settle. A minute between two tries is the longest, and
    /// several may be lost in a row.
    fn patience(&self) -> Duration {
        if self.weather.is_bad() {
            Duration::from_secs(1000)
        } else if self.buffers.1 < 1000 {
            // Some milliseconds for each buffer full.
            Duration::from_secs(200)
        } else {
            Duration::from_secs(10)
        }
    }
}

/// Both applications.
struct Talk {
    pair: Pair,
    /// What each has still to say, and has said.
    todo: [usize; 2],
    said: [usize; 2],
    shuts: [bool; 2],
    shut: [bool; 2],
    reads: [bool; 2],
    got: [usize; 2],
    ending: [Ending; 2],
    model: Model,
}

impl Talk {
    fn open(w: &mut World, script: &Script, buffer: usize) -> Self {
        let pair = if script.inbound {
            let port = 50_080;
            let guest = w.guest.listen(port, buffer);
            let flow = w.accept(remote(7, 4321).into(), port).unwrap();
            let open = w.run_until(Duration::from_secs(20), |w| {
                w.guest.state(guest) == State::Established
            });
            assert!(open, "nobody comes to {GUEST}");
            Pair { guest, flow }
        } else {
            w.connect_with(remote(1, 80), buffer)
        };
        Self {
            pair,
            todo: [0; 2],
            said: [0; 2],
            shuts: [false; 2],
            shut: [false; 2],
            reads: [true; 2],
            got: [0; 2],
            ending: [Ending::None; 2],
            model: Model::default(),
        }
    }

    fn act(&mut self, w: &mut World, act: &Act) {
        // Who stops reading has seen what came until then.
        if let Act::Reads(side, false) = *act {
            let n = side.place();
            self.model.settled(side, self.got[n], self.ending[n]);
        }
        if !self.model.does(act) {
            return;
        }
        match *act {
            Act::Write(side, bytes) => self.todo[side.place()] += bytes,
            Act::Shut(side) => self.shuts[side.place()] = true,
            Act::Reads(side, reads) => {
                self.reads[side.place()] = reads;
                if side == Side::Far
                    && let Some(Socket::Tcp(tcp)) = w.host.open.get_mut(&self.pair.flow)
                {
                    tcp.reads = reads;
                }
            }
            Act::Reset(side) => {
                self.todo = [0; 2];
                self.shuts = self.shut;
                match side {
                    Side::Container => w.guest.tcp(self.pair.guest).abort(),
                    Side::Far => w.host.far_reset(self.pair.flow, HostError::Reset),
                }
            }
            Act::Wait(_) | Act::Settle => {}
        }
    }

    /// Says and reads what can be.
    fn drive(&mut self, w: &mut World) {
        let Pair { guest, flow } = self.pair;
        for side in Side::BOTH {
            let n = side.place();
            let some = bytes(side, self.said[n], self.todo[n].min(50_000));
            let taken = match side {
                _ if some.is_empty() => 0,
                Side::Container => w.guest.write(guest, &some),
                Side::Far => w.host.far_write(flow, &some),
            };
            self.said[n] += taken;
            self.todo[n] -= taken;
            if self.shuts[n] && !self.shut[n] && self.todo[n] == 0 {
                self.shut[n] = true;
                match side {
                    Side::Container => w.guest.tcp(guest).close(),
                    Side::Far => w.host.far_close(flow),
                }
            }
        }
        // smoltcp forgets what was not read with the end of TIME-WAIT.
        let last_chance = w.guest.state(guest) == State::TimeWait;
        if (self.reads[0] || last_chance) && self.ending[0] == Ending::None {
            match w.guest.read(guest) {
                Read::Data(data) => self.reads_bytes(Side::Container, &data),
                Read::Nothing => {}
                Read::End => self.ending[0] = Ending::InOrder,
                Read::Gone => self.ending[0] = Ending::Reset,
            }
        }
        if self.reads[1] {
            w.host.far_read(flow);
        }
        let (got, far) = (self.got[1], w.far_received(flow));
        let new = far[got..].to_vec();
        self.reads_bytes(Side::Far, &new);
        let over = match w.closed(flow) {
            Some(Close::Reset) => Ending::Reset,
            Some(Close::Orderly | Close::Forgotten) => Ending::InOrder,
            None if self.reads[1] && w.far_sees_end(flow) => Ending::InOrder,
            None => Ending::None,
        };
        if self.ending[1] != Ending::Reset && over != Ending::None {
            self.ending[1] = over;
        }
        // Who does not read has still seen the end when both are through with it.
        for side in Side::BOTH {
            let n = side.place();
            if !self.reads[n] && self.ending[n] == Ending::InOrder {
                self.model.settled(side, self.got[n], self.ending[n]);
            }
        }
    }

    /// Nothing altered, lost in between, or out of order, ever.
    fn reads_bytes(&mut self, side: Side, data: &[u8]) {
        let got = &mut self.got[side.place()];
        assert!(
            bytes(side.other(), *got, data.len()) == data,
            "wrong bytes at {got}"
        );
        *got += data.len();
    }

    fn has_settled(&self) -> bool {
        Side::BOTH.iter().all(|side| {
            let n = side.place();
            self.model
                .sees(*side)
                .is_none_or(|sees| sees.is(self.got[n], self.ending[n]))
        })
    }

    fn note(&mut self) {
        for side in Side::BOTH {
            let n = side.place();
            self.model.settled(side, self.got[n], self.ending[n]);
        }
    }

    fn told(&self) -> String {
        format!(
            "container got {} and {:?}, far {} and {:?}; must: {:?}, {:?}",
            self.got[0],
            self.ending[0],
            self.got[1],
            self.ending[1],
            self.model.sees(Side::Container),
            self.model.sees(Side::Far)
        )
    }
}

/// Whether what has not settled in bad weather is to be expected: a reset was lost, the
/// stack took the container for dead, or the container's smoltcp has stopped for good.
fn excused(w: &World, talk: &Talk, way: &Way) -> bool {
    let lossy = way.weather.lose > 0;
    let gave_up = w.closed(talk.pair.flow) == Some(Close::Reset);
    way.weather.is_bad()
        && (lossy && talk.model.is_reset() || gave_up || w.guest.owes(talk.pair.guest))
}

fn play(script: &Script, way: &Way) {
    let mut config = config(links()[way.link]);
    if way.small_rings {
        config.limits.max_buffered = 1 << 20;
    }
    let mut w = World::with(config);
    w.seed(way.seed);
    w.host.buffers = (way.buffers.1, way.buffers.1);
    let mut talk = Talk::open(&mut w, script, way.buffers.0);
    w.weather = way.weather;
    let ends = [
        Act::Reads(Side::Container, true),
        Act::Reads(Side::Far, true),
        Act::Shut(Side::Container),
        Act::Shut(Side::Far),
        Act::Settle,
    ];
    for act in script.acts.iter().chain(&ends) {
        talk.act(&mut w, act);
        match act {
            Act::Settle => {
                let settled = w.run_until(way.patience(), |w| {
                    talk.drive(w);
                    talk.has_settled()
                });
                if !settled {
                    assert!(excused(&w, &talk, way), "not settled: {}", talk.told());
                    return;
                }
                talk.note();
            }
            Act::Wait(millis) => {
                w.run_until(Duration::from_millis(u64::from(*millis)), |w| {
                    talk.drive(w);
                    false
                });
            }
            _ => talk.drive(&mut w),
        }
    }
    // Nothing is left, and the host's kernel was told how it ended.
    let gone = w.run_until(way.patience(), |w| w.stack.flow_count() == 0);
    if !gone {
        assert!(excused(&w, &talk, way), "the flow is left: {}", talk.told());
        return;
    }
    // A far end that has ended its direction and then resets the connection is noticed by
    // the next write only.
    let unnoticed = talk.ending[0] == Ending::InOrder;
    let open = way.weather.is_bad() || talk.model.is_reset() && unnoticed;
    if !open {
        let how = if talk.model.is_reset() {
            Close::Reset
        } else {
            Close::Orderly
        };
        assert_eq!(w.closed(talk.pair.flow), Some(how));
    }
    w.check();
}

fn act() -> impl Strategy<Value = Act> {
    let side = || prop::sample::select(Side::BOTH.to_vec());
    let size = prop_oneof![Just(1_usize), 1..2000_usize, 1..300_000_usize];
    prop_oneof![
        8 => (side(), size).prop_map(|(side, size)| Act::Write(side, size)),
        3 => (side(), any::<bool>()).prop_map(|(side, reads)| Act::Reads(side, reads)),
        1 => side().prop_map(Act::Shut),
        1 => side().prop_map(Act::Reset),
        3 => (0..2000_u16).prop_map(Act::Wait),
        3 => Just(Act::Settle),
    ]
}

fn weather() -> impl Strategy<Value = Weather> {
    prop_oneof![
        Just(Weather::default()),
        (0..6_u8, 0..8_u8, 0..20_u8).prop_map(|(lose, duplicate, reorder)| Weather {
            lose,
            duplicate,
            reorder,
            corrupt: 0,
        }),
    ]
}

fn way() -> impl Strategy<Value = Way> {
    let guest = prop::sample::select(vec![600_usize, 8192, 64 << 10, 512 << 10]);
    let host = prop::sample::select(vec![50_usize, 4096, 64 << 10, 256 << 10]);
    (
        0..4_usize,
        weather(),
        any::<u64>(),
        (guest, host),
        any::<bool>(),
    )
        .prop_map(|(link, weather, seed, buffers, small_rings)| Way {
            link,
            weather,
            seed,
            buffers,
            small_rings,
        })
}

/// The same scripts each time, unless `PROPTEST_RNG_SEED` says which others.
fn same_each_time(config: ProptestConfig) -> ProptestConfig {
    let rng_seed = match config.rng_seed {
        RngSeed::Random => RngSeed::Fixed(1),
        asked => asked,
    };
    ProptestConfig { rng_seed, ..config }
}

proptest! {
    #![proptest_config(same_each_time(cases(150)))]

    #[test]
    fn scripts_of_two_applications(
        inbound: bool,
        acts in vec(act(), 0..20),
        way in way(),
    ) {
        play(&Script { inbound, acts }, &way);
    }
}

/// Those that real kernels play, too.
#[test]
fn the_scripts_of_the_real_link() {
    for (n, script) in some(60, 1).iter().enumerate() {
        for link in 0..4 {
            let way = Way {
                link,
                weather: Weather::default(),
                seed: n as u64,
                buffers: (64 << 10, 64 << 10),
                small_rings: false,
            };
            play(script, &way);
        }
    }
}
