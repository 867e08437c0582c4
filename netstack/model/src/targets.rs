//! What a fuzzer drives: each target plays its acts until its bytes are used up.

use crate::scene::Scene;
use crate::source::{Bytes, Source};

/// A target: what it does with the bytes of a fuzzer. It panics on a find.
pub type Target = fn(&[u8]);

/// All targets by name; each has a corpus of that name.
pub const ALL: [(&str, Target); 9] = [
    ("frames", frames),
    ("tcp", tcp),
    ("udp", udp),
    ("fragments", fragments),
    ("dhcp", dhcp),
    ("dns", dns),
    ("icmp", icmp),
    ("virtio", virtio),
    ("rules", rules),
];

/// Connections of a scene that a fuzzer plays in: few, so that it meets them again.
const CONNECTIONS: usize = 8;
/// Ports that datagrams come from, likewise.
const PORTS: usize = 4;
/// Acts after which a scene ends: what goes on for longer is for the blaster.
const ACTS: usize = 600;

fn play(bytes: &[u8], mut act: impl FnMut(&mut Scene, &mut Bytes<'_>)) {
    let mut source = Bytes(bytes);
    let mut scene = Scene::new(&mut source, CONNECTIONS, PORTS);
    for _ in 0..ACTS {
        if source.is_empty() {
            break;
        }
        act(&mut scene, &mut source);
    }
    scene.world.end();
}

/// Frames as they are: a length, then so many bytes; and news of the host in between.
pub fn frames(bytes: &[u8]) {
    play(bytes, |scene, source| {
        let length = match source.byte() {
            255 => return scene.time(source),
            254 => return scene.udp_answer(source),
            253 => return scene.settings(source),
            252 => return scene.tcp(source),
            251 => usize::from(source.u16()),
            length => usize::from(length),
        };
        let (frame, rest) = source.0.split_at(length.min(source.0.len()));
        source.0 = rest;
        scene.raw(frame, source);
    });
}

/// Connections, from both sides, with all that may befall their segments.
pub fn tcp(bytes: &[u8]) {
    play(bytes, |scene, source| match source.byte() {
        0..=7 => scene.settings(source),
        8..=31 => scene.time(source),
        _ => scene.tcp(source),
    });
}

pub fn udp(bytes: &[u8]) {
    play(bytes, |scene, source| match source.byte() {
        0..=7 => scene.settings(source),
        8..=23 => scene.time(source),
        24..=119 => scene.udp_answer(source),
        120..=139 => scene.icmp(source),
        _ => scene.udp(source),
    });
}

pub fn fragments(bytes: &[u8]) {
    play(bytes, |scene, source| match source.byte() {
        0..=23 => scene.time(source),
        24..=47 => scene.udp_answer(source),
        _ => scene.fragments(source),
    });
}

pub fn dhcp(bytes: &[u8]) {
    play(bytes, |scene, source| match source.byte() {
        0..=15 => scene.settings(source),
        _ => scene.dhcp(source),
    });
}

/// Queries and answers, by datagram and by connection.
pub fn dns(bytes: &[u8]) {
    play(bytes, |scene, source| match source.byte() {
        0..=15 => scene.settings(source),
        16..=31 => scene.time(source),
        32..=159 => scene.dns(source),
        _ => scene.dns_connection(source),
    });
}

pub fn icmp(bytes: &[u8]) {
    play(bytes, |scene, source| match source.byte() {
        0..=7 => scene.settings(source),
        8..=23 => scene.time(source),
        24..=63 => scene.udp(source),
        64..=79 => scene.udp_answer(source),
        _ => scene.icmp(source),
    });
}

pub fn virtio(bytes: &[u8]) {
    play(bytes, |scene, source| match source.byte() {
        0..=15 => scene.time(source),
        16..=63 => scene.seen_valid(source),
        _ => scene.virtio(source),
    });
}

/// Rules about what is reached: what is read is written, and read again, the same.
pub fn rules(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    for line in text.lines() {
        let Ok(rule) = line.parse::<netstack::Rule>() else {
            continue;
        };
        let _ = rule.check_denial();
        let written = rule.to_string();
        let again = written.parse::<netstack::Rule>();
        assert_eq!(again.as_ref(), Ok(&rule), "{line} was written as {written}");
    }
}
