//! Properties: whatever comes, and in whatever order.

use proptest::collection::vec;
use proptest::prelude::*;
use smoltcp::socket::tcp::State;
use smoltcp::time::Duration;

use super::dns;
use super::frames::{self, ACK, DNS, GATEWAY, GUEST, Ip, Segment, TCP, UDP};
use super::guest::{Read, remote};
use super::host::Socket;
use super::shim::Weather;
use super::world::{Pair, World, config, links, pattern};
use crate::HostError;
use std::net::SocketAddrV4;

/// As many cases as `PROPTEST_CASES` says, or `default`.
pub(crate) fn cases(default: u32) -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES")
        .ok()
        .and_then(|cases| cases.parse().ok())
        .unwrap_or(default);
    ProptestConfig {
        cases,
        max_shrink_iters: 20_000,
        ..ProptestConfig::default()
    }
}

/// No socket was aimed at the host itself.
fn assert_policy(w: &World) {
    for to in &w.host.connects {
        assert!(!to.ip().is_loopback() && to.ip() != std::net::IpAddr::V4(GATEWAY));
    }
}

/// A frame of the container that says something, with its fields off by a bit.
#[derive(Debug, Clone)]
struct Mutant {
    kind: usize,
    port: u16,
    flags: u8,
    seq: u32,
    ack: u32,
    payload: usize,
    /// Bytes to overwrite.
    changes: Vec<(usize, u8)>,
    /// Make the checksums right again, so that the change is looked at.
    mend: bool,
    cut: Option<usize>,
    wait: u64,
}

fn mutant() -> impl Strategy<Value = Mutant> {
    (
        (0..7_usize, 1..4_u16, any::<u8>(), 0..4000_u32, any::<u32>()),
        (
            prop_oneof![Just(0), Just(1), 0..3000_usize],
            vec((0..90_usize, any::<u8>()), 0..4),
            prop::bool::weighted(0.8),
            prop::option::weighted(0.1, 0..80_usize),
            prop_oneof![3 => Just(0), 2 => 0..3000_u64, 1 => 0..40_000_000_u64],
        ),
    )
        .prop_map(
            |((kind, port, flags, seq, ack), (payload, changes, mend, cut, wait))| Mutant {
                kind,
                port,
                flags,
                seq,
                ack,
                payload,
                changes,
                mend,
                cut,
                wait,
            },
        )
}

impl Mutant {
    fn frame(&self, isn: u32) -> Vec<u8> {
        let payload = pattern(1, self.payload);
        let to = remote(1, 80);
        let mut frame = match self.kind {
            0 => Segment::syn(self.port, to).frame(),
            1 => Segment::new(self.port, to, self.flags, self.seq, self.ack)
                .with(&payload)
                .frame(),
            // Close to what the stack expects.
            2 => Segment::new(
                self.port,
                to,
                self.flags | ACK,
                1001_u32.wrapping_add(self.seq % 8),
                isn.wrapping_add(self.ack % 4),
            )
            .with(&payload)
            .frame(),
            3 => frames::udp(self.port, remote(1, 7), &payload),
            4 => {
                let mut query = dns::query(self.flags.into(), "a.example", dns::A);
                query.extend(payload);
                frames::udp(self.port, SocketAddrV4::new(DNS, 53), &query)
            }
            5 => frames::echo(GATEWAY, self.port, 1, &payload),
            _ => frames::arp(1, frames::GUEST_MAC, GUEST, GATEWAY),
        };
        for (at, value) in &self.changes {
            if let Some(byte) = frame.get_mut(*at) {
                *byte = *value;
            }
        }
        if self.mend {
            mend(&mut frame);
        }
        if let Some(cut) = self.cut {
            frame.truncate(cut);
        }
        frame
    }
}

/// Makes the checksums right, as far as there is something to sum up.
fn mend(frame: &mut [u8]) {
    if frame.len() < 34 || frame[12..14] != [8, 0] {
        return;
    }
    let header = usize::from(frame[14] & 15) * 4;
    if header < 20 || frame.len() < 14 + header {
        return;
    }
    frames::fill_header_checksum(&mut frame[14..14 + header]);
    let address = |at: usize| -> std::net::Ipv4Addr {
        let octets: [u8; 4] = frame[at..at + 4].try_into().unwrap();
        octets.into()
    };
    let (source, destination) = (address(26), address(30));
    let protocol = frame[23];
    let segment = &mut frame[14 + header..];
    match protocol {
        TCP if segment.len() >= 20 => frames::fill_checksum(segment, source, destination, TCP),
        UDP if segment.len() >= 8 => frames::fill_checksum(segment, source, destination, UDP),
        1 if segment.len() >= 4 => {
            segment[2..4].fill(0);
            let sum = frames::checksum(&[segment]);
            segment[2..4].copy_from_slice(&sum.to_be_bytes());
        }
        _ => {}
    }
}

proptest! {
    #![proptest_config(cases(256))]

    /// Noise on the link.
    #[test]
    fn noise(link in 0..4_usize, noise in vec(vec(any::<u8>(), 0..120), 1..20)) {
        let mut w = World::new(links()[link]);
        for frame in noise {
            w.send_raw(&frame);
        }
        w.check();
        prop_assert!(w.take().is_empty());
    }

    /// Noise inside of an IPv4 packet that is otherwise right.
    #[test]
    fn noise_in_packets(
        link in 0..4_usize,
        noise in vec((prop::sample::select(vec![1_u8, 6, 17, 2, 132]), vec(any::<u8>(), 0..80), any::<bool>()), 1..20),
    ) {
        let mut w = World::new(links()[link]);
        for (protocol, payload, right) in noise {
            let mut frame = Ip::new(*remote(1, 0).ip(), protocol, payload).frame();
            if right {
                mend(&mut frame);
            }
            w.send(&frame);
        }
        w.run(Duration::from_millis(10));
        w.take();
        w.assert_works();
    }

    /// Frames that are nearly right, in any order, with time in between.
    #[test]
    fn nearly_right(link in 0..4_usize, mutants in vec(mutant(), 1..40)) {
        let mut w = World::new(links()[link]);
        let mut isn = 0;
        for mutant in mutants {
            w.send(&mutant.frame(isn));
            w.run(Duration::from_micros(mutant.wait));
            for seen in w.take() {
                if let frames::Seen::Tcp(tcp) = seen
                    && tcp.flags & frames::SYN != 0
                {
                    isn = tcp.seq;
                }
            }
            if let Some(flow) = w.host.flow_to(remote(1, 80).into()) {
                w.host.far_write(flow, &[9; 700]);
            }
        }
        assert_policy(&w);
        w.assert_works();
        let flows: Vec<_> = w.host.open.keys().copied().collect();
        for flow in flows {
            w.host.far_reset(flow, HostError::Reset);
        }
        w.assert_empties(Duration::from_secs(8000));
    }
}

/// What the two ends of a connection do.
#[derive(Debug, Clone)]
enum Action {
    GuestWrite(usize),
    FarWrite(usize),
    GuestReads(bool),
    FarReads(bool),
    GuestCloses,
    FarCloses,
    GuestAborts,
    FarResets(HostError),
    Wait(u64),
}

fn orderly() -> impl Strategy<Value = Action> {
    let size = || prop_oneof![Just(0_usize), Just(1), 1..2000_usize, 1..200_000_usize];
    prop_oneof![
        6 => size().prop_map(Action::GuestWrite),
        6 => size().prop_map(Action::FarWrite),
        2 => any::<bool>().prop_map(Action::GuestReads),
        2 => any::<bool>().prop_map(Action::FarReads),
        1 => Just(Action::GuestCloses),
        1 => Just(Action::FarCloses),
        6 => prop_oneof![0..100_u64, 0..20_000_u64, 0..3_000_000_u64, 0..100_000_000_u64]
            .prop_map(Action::Wait),
    ]
}

fn any_action() -> impl Strategy<Value = Action> {
    prop_oneof![
        20 => orderly(),
        1 => Just(Action::GuestAborts),
        1 => prop::sample::select(vec![
            HostError::Reset,
            HostError::TimedOut,
            HostError::HostUnreachable,
        ])
        .prop_map(Action::FarResets),
    ]
}

fn weather() -> impl Strategy<Value = Weather> {
    prop_oneof![
        1 => Just(Weather::default()),
        2 => (0..8_u8, 0..8_u8, 0..20_u8, 0..4_u8).prop_map(
            |(lose, duplicate, reorder, corrupt)| Weather {
                lose,
                duplicate,
                reorder,
                corrupt,
            }
        ),
    ]
}

/// One connection and what should be true of it.
struct Talk {
    pair: Pair,
    port: u16,
    /// Streams are patterns: what was accepted for sending is told by a length.
    up: Vec<u8>,
    down: Vec<u8>,
    up_sent: usize,
    down_sent: usize,
    got: Vec<u8>,
    guest_reads: bool,
    far_reads: bool,
    guest_closed: bool,
    far_closed: bool,
    aborted: bool,
    /// The container has seen the end: in order (true) or a reset.
    end: Option<bool>,
}

impl Talk {
    fn new(pair: Pair, port: u16, n: usize) -> Self {
        let seed = u64::try_from(n).unwrap() * 2;
        Self {
            pair,
            port,
            up: pattern(seed, 4 << 20),
            down: pattern(seed + 1, 4 << 20),
            up_sent: 0,
            down_sent: 0,
            got: Vec::new(),
            guest_reads: true,
            far_reads: true,
            guest_closed: false,
            far_closed: false,
            aborted: false,
            end: None,
        }
    }

    fn act(&mut self, w: &mut World, action: &Action) {
        match action {
            Action::GuestWrite(n) => {
                let upto = (self.up_sent + n).min(self.up.len());
                self.up_sent += w.guest.write(self.pair.guest, &self.up[self.up_sent..upto]);
            }
            Action::FarWrite(n) => {
                let upto = (self.down_sent + n).min(self.down.len());
                let data = &self.down[self.down_sent..upto];
                self.down_sent += w.host.far_write(self.pair.flow, data);
            }
            Action::GuestReads(reads) => self.guest_reads = *reads,
            Action::FarReads(reads) => {
                self.far_reads = *reads;
                if let Some(Socket::Tcp(tcp)) = w.host.open.get_mut(&self.pair.flow) {
                    tcp.reads = *reads;
                }
            }
            Action::GuestCloses => {
                self.guest_closed = true;
                w.guest.tcp(self.pair.guest).close();
            }
            Action::FarCloses => {
                self.far_closed = true;
                w.host.far_close(self.pair.flow);
            }
            Action::GuestAborts => {
                self.aborted = true;
                w.guest.tcp(self.pair.guest).abort();
            }
            Action::FarResets(error) => {
                self.aborted = true;
                w.host.far_reset(self.pair.flow, *error);
            }
            Action::Wait(_) => {}
        }
    }

    fn drive(&mut self, w: &mut World) {
        // smoltcp forgets what was not read with the end of TIME-WAIT.
        let last_chance = w.guest.state(self.pair.guest) == State::TimeWait;
        if (self.guest_reads || last_chance) && self.end.is_none() {
            match w.guest.read(self.pair.guest) {
                Read::Data(data) => self.got.extend(data),
                Read::Nothing => {}
                Read::End => self.end = Some(true),
                Read::Gone => self.end = Some(false),
            }
        }
        if self.far_reads {
            w.host.far_read(self.pair.flow);
        }
        // At all times: nothing altered, lost in between, or out of order.
        let far = w.far_received(self.pair.flow);
        assert!(far.len() <= self.up_sent && far == &self.up[..far.len()]);
        assert!(self.got.len() <= self.down_sent && self.got == self.down[..self.got.len()]);
    }
}

/// Whether the stack took the container for dead, as it may in bad weather once
/// it has said something several times to no avail.
fn gave_up(w: &World, talk: &Talk, weather: Weather) -> bool {
    let closed = &w.host.closed[&talk.pair.flow];
    let patience = Duration::from_secs(131);
    let tries = w
        .spoke
        .get(&talk.port)
        .into_iter()
        .flatten()
        .filter(|at| **at < closed.at && **at + patience > closed.at)
        .count();
    closed.how == crate::Close::Reset && weather.is_bad() && tries >= 2
}

fn play(mut w: World, weather: Weather, script: &[(usize, Action)], buffers: (usize, usize)) {
    let (guest_buffer, host_buffer) = buffers;
    w.host.buffers = (host_buffer, host_buffer);
    let mut talks: Vec<Talk> = (0..2_u8)
        .map(|n| {
            let pair = w.connect_with(remote(n, 80), guest_buffer);
            Talk::new(pair, w.guest.port(pair.guest), n.into())
        })
        .collect();
    w.weather = weather;
    for (who, action) in script {
        let talk = &mut talks[*who];
        talk.act(&mut w, action);
        let wait = if let Action::Wait(micros) = action {
            *micros
        } else {
            0
        };
        w.run_until(Duration::from_micros(wait), |w| {
            talks.iter_mut().for_each(|talk| talk.drive(w));
            false
        });
    }
    for talk in &mut talks {
        talk.act(&mut w, &Action::GuestReads(true));
        talk.act(&mut w, &Action::FarReads(true));
        talk.act(&mut w, &Action::GuestCloses);
        talk.act(&mut w, &Action::FarCloses);
    }
    let lossy = weather.lose + weather.corrupt > 0;
    let ended = |w: &mut World, talks: &mut Vec<Talk>| {
        talks.iter_mut().for_each(|talk| talk.drive(w));
        // A reset may be lost, and smoltcp waits in FIN-WAIT-2 for ever.
        let knows = |talk: &Talk| talk.end.is_some() || (talk.aborted && lossy);
        w.stack.flow_count() == 0 && talks.iter().all(knows)
    };
    // With the weather as it is: tens of losses in a row back a sender off for
    // a minute each. Then, for flows whose reset was lost on the way, until the
    // idle are probed.
    let in_time = w.run_until(Duration::from_secs(4000), |w| ended(w, &mut talks));
    if !in_time {
        // The container's smoltcp can stop sending for good in bad weather; what
        // it has said to the stack until then was right.
        let stuck = |talk: &Talk| w.guest.owes(talk.pair.guest);
        if weather.is_bad() && talks.iter().any(stuck) {
            return;
        }
        assert!(talks.iter().any(|talk| talk.aborted), "not ended in time");
        w.weather = Weather::default();
        assert!(w.run_until(Duration::from_secs(8000), |w| ended(w, &mut talks)));
    }
    w.check();
    for talk in &talks {
        assert!(w.closed(talk.pair.flow).is_some());
        if !talk.aborted && !gave_up(&w, talk, weather) {
            assert_eq!(talk.end, Some(true), "the container saw the end of stream");
            assert_eq!(talk.got.len(), talk.down_sent, "all of it, downward");
            let far = w.far_received(talk.pair.flow);
            assert_eq!(far.len(), talk.up_sent, "all of it, upward");
            assert_eq!(w.closed(talk.pair.flow), Some(crate::Close::Orderly));
        }
    }
    w.weather = Weather::default();
    // smoltcp asks once a second at most for an address; the last may be lost.
    w.run(Duration::from_secs(2));
    w.assert_works();
}

fn buffers() -> impl Strategy<Value = (usize, usize)> {
    (
        prop_oneof![Just(200_usize), Just(8192), Just(64 << 10), Just(512 << 10)],
        prop_oneof![Just(50_usize), Just(4096), Just(64 << 10), Just(256 << 10)],
    )
}

proptest! {
    #![proptest_config(cases(48))]

    /// Both ends end in order: every byte arrives, whatever the link does.
    #[test]
    fn scripts_in_order(
        link in 0..4_usize,
        weather in weather(),
        seed: u64,
        buffers in buffers(),
        small_rings: bool,
        script in vec((0..2_usize, orderly()), 0..25),
    ) {
        let mut c = config(links()[link]);
        if small_rings {
            c.limits.max_buffered = 1 << 20;
        }
        let mut w = World::with(c);
        w.seed(seed);
        play(w, weather, &script, buffers);
    }

    /// Ends may give up at any time: what arrives is a beginning of what was sent.
    #[test]
    fn scripts_with_aborts(
        link in 0..4_usize,
        weather in weather(),
        seed: u64,
        buffers in buffers(),
        script in vec((0..2_usize, any_action()), 0..25),
    ) {
        let mut w = World::new(links()[link]);
        w.seed(seed);
        play(w, weather, &script, buffers);
    }
}
