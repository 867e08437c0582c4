//! Frames at full speed: valid conversations, so that deep states are reached, and in
//! between everything that is none.
//!
//! A run is made of rounds, each a scene of its own with the next seed, so that a find is
//! played again from the seed of its round alone.

use std::time::{Duration, Instant};

use netstack::Duration as Virtual;

use crate::scene::Scene;
use crate::source::{Rng, Source};

/// Frames of a round.
pub const ROUND: u64 = 200_000;
/// Connections of a round, and ports that datagrams come from.
const CONNECTIONS: usize = 192;
const PORTS: usize = 300;
/// Frames of each of the hostile cases that are among those to begin with.
const OF_A_CASE: usize = 64;

/// What became of a round.
#[derive(Debug, Clone, Copy)]
pub struct Round {
    pub frames_in: u64,
    pub frames_out: u64,
    pub acts: u64,
    /// Connections that stood, bytes that went through them, up and down, and flows that
    /// were refused for want of room: whether it was worth it.
    pub connects: u64,
    pub bytes: (u64, u64),
    /// The longest time of an act, and its number.
    pub slowest: (Duration, u64),
}

/// The frames of the hostile cases, some of each, to be mixed with others.
pub fn hostile_frames() -> Vec<Vec<u8>> {
    let mut frames = hostile::valid();
    for (_, make) in hostile::ALL {
        let steps = make().steps.into_iter();
        let of_case = steps.filter_map(|step| match step {
            hostile::Step::Frame(frame) | hostile::Step::Virtio(_, frame) => Some(frame),
            hostile::Step::Open(segment) | hostile::Step::On(segment) => Some(segment.frame()),
            hostile::Step::Pause(_) => None,
        });
        let short = of_case.filter(|frame| frame.len() <= 2000);
        frames.extend(short.take(OF_A_CASE));
    }
    frames
}

/// Plays a round; it panics on a find. `told` is called now and then with the number of
/// frames so far.
pub fn round(seed: u64, frames: u64, seen: &[Vec<u8>], mut told: impl FnMut(u64)) -> Round {
    let mut rng = Rng::new(seed);
    let mut scene = Scene::new(&mut rng, CONNECTIONS, PORTS);
    scene.captured = seen.to_vec();
    let mut slowest = (Duration::ZERO, 0);
    let mut acts = 0;
    let mut before = Instant::now();
    loop {
        act(&mut scene, &mut rng);
        acts += 1;
        let now = Instant::now();
        let took = now - before;
        before = now;
        if took > slowest.0 {
            slowest = (took, acts);
        }
        if acts % 256 == 0 {
            let so_far = scene.world.stack.stats().frames_in;
            told(so_far);
            if so_far >= frames {
                break;
            }
        }
    }
    let stats = scene.world.stack.stats();
    let round = Round {
        frames_in: stats.frames_in,
        frames_out: stats.frames_out,
        acts,
        connects: scene.world.host.connects,
        bytes: (stats.tcp_bytes_up, stats.tcp_bytes_down),
        slowest,
    };
    scene.world.end();
    round
}

fn act(scene: &mut Scene, rng: &mut Rng) {
    match rng.byte() {
        0..=169 => scene.tcp(rng),
        170..=187 => scene.udp(rng),
        188..=193 => scene.udp_answer(rng),
        194..=203 => scene.icmp(rng),
        204..=211 => scene.dns(rng),
        212..=215 => scene.dns_connection(rng),
        216 => scene.dhcp(rng),
        217 => scene.arp(rng),
        218 | 219 => scene.virtio(rng),
        220..=227 => scene.seen(rng),
        228..=231 => scene.noise(rng),
        232 => scene.fragments(rng),
        233 if rng.one_in(16) => scene.settings(rng),
        234 if rng.one_in(64) => scene.time(rng),
        _ => {
            let micros = rng.pick(&[1_u64, 5, 5, 20, 20, 100, 1000, 10_000]);
            scene.world.advance(Virtual::from_micros(micros));
        }
    }
}
