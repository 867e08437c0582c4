//! A stack between [`Peer`]s and a host that only counts and compares, on a link
//! whose every frame has its fate.

use std::collections::BTreeMap;
use std::net::{SocketAddr, SocketAddrV4};

use smoltcp::time::{Duration, Instant};

use super::fates::{Fate, Fates};
use super::frames::{self, ETHERNET, TcpSeen};
use super::guest::remote;
use super::peer::{Habits, Peer, Phase};
use super::shim::{self, LATENCY};
use super::world::config;
use crate::{Close, Config, FlowId, LinkConfig, Readiness, Stack, VNET_HEADER_LEN};

mod host;

pub(super) use host::Far;
use host::{Conn, CountingHost, Event};

/// When it begins, seconds.
const BEGIN: i64 = 1_000;
/// First port of the peers.
const FIRST_PORT: u16 = 2000;
/// Time from a host socket to its far end, and back.
const HOST_DELAY: Duration = Duration::from_micros(50);

pub(super) struct Line {
    pub(super) now: Instant,
    pub(super) stack: Stack,
    pub(super) host: CountingHost,
    pub(super) peers: Vec<Peer>,
    pub(super) link: LinkConfig,
    /// Of the frames to the stack, and of those from it.
    pub(super) up_fates: Fates,
    pub(super) down_fates: Fates,
    /// Looks at the frames of the stack as a kernel does: cuts super-segments,
    /// completes and verifies checksums. Gigabytes are faster without.
    pub(super) thorough: bool,
    up: BTreeMap<(Instant, u64), Vec<u8>>,
    down: BTreeMap<(Instant, u64), Vec<TcpSeen>>,
    sequence: u64,
}

impl Line {
    pub(super) fn new(link: LinkConfig) -> Self {
        Self::with(config(link))
    }

    pub(super) fn with(config: Config) -> Self {
        let now = Instant::from_secs(BEGIN);
        Self {
            now,
            link: config.link,
            stack: Stack::new(config),
            host: CountingHost::new(now),
            peers: Vec::new(),
            up_fates: Fates::default(),
            down_fates: Fates::default(),
            thorough: true,
            up: BTreeMap::new(),
            down: BTreeMap::new(),
            sequence: 0,
        }
    }

    /// A peer that connects, and the far end that it finds; its number.
    pub(super) fn add(&mut self, habits: Habits, far: Far) -> usize {
        let number = self.peers.len();
        let place = u16::try_from(number).unwrap();
        let to = remote(u8::try_from(number % 200 + 1).unwrap(), 80);
        self.host.plans.insert(to.into(), far);
        self.peers
            .push(Peer::new(FIRST_PORT + place, to, self.link, habits));
        number
    }

    /// A peer and its host socket once they are connected.
    pub(super) fn open(&mut self, habits: Habits, far: Far) -> (usize, FlowId) {
        let number = self.add(habits, far);
        let open = self.run_until(Duration::from_secs(10), |line| {
            line.peers[number].phase == Phase::Open
        });
        assert!(open, "no answer to the SYN");
        (number, self.flow(number))
    }

    /// The flow of a peer, open or closed.
    pub(super) fn flow(&self, number: usize) -> FlowId {
        let to: SocketAddr = self.remote(number).into();
        // An old SYN that comes late may have opened another since.
        let found = self.host.conns.iter().find(|(_, conn)| conn.to == to);
        *found.unwrap().0
    }

    fn remote(&self, number: usize) -> SocketAddrV4 {
        remote(u8::try_from(number % 200 + 1).unwrap(), 80)
    }

    /// A peer gives up, and is forgotten.
    pub(super) fn reset(&mut self, number: usize) {
        assert_eq!(number + 1, self.peers.len(), "only the last");
        // A reset that overtakes data is answered with a challenge (RFC 5961, 3).
        self.run(Duration::from_millis(1));
        let flow = self.flow(number);
        let frame = self.peers[number].reset();
        let frame = shim::to_stack(self.link, &frame, None);
        self.stack.input(self.now, &frame, &mut self.host);
        self.collect();
        assert_eq!(self.conn(flow).closed, Some(Close::Reset));
        self.host.conns.remove(&flow);
        self.run(Duration::from_millis(1));
        self.peers.pop();
    }

    pub(super) fn conn(&self, flow: FlowId) -> &Conn {
        &self.host.conns[&flow]
    }

    /// Changes what the far end of a connection does from now on.
    pub(super) fn far(&mut self, flow: FlowId, change: impl FnOnce(&mut Far)) {
        let conn = self.host.conns.get_mut(&flow).unwrap();
        change(&mut conn.far);
        self.host.now = self.now;
        self.host.schedule(HOST_DELAY, flow, Event::Arrived);
        self.host.schedule(HOST_DELAY, flow, Event::Drained);
    }

    // ---- Time ----

    /// Since its beginning.
    pub(super) fn age(&self) -> Duration {
        self.now - Instant::from_secs(BEGIN)
    }

    fn put_up(&mut self, frame: Vec<u8>) {
        let fate = self.up_fates.next();
        let copies = match fate {
            Fate::Lose => 0,
            Fate::Repeat => 2,
            _ => 1,
        };
        for _ in 0..copies {
            let mut frame = frame.clone();
            let mut late = 0;
            match fate {
                Fate::Delay(micros) => late = i64::from(micros),
                Fate::Alter(at, bit) if !self.link.vnet_header => {
                    let at = ETHERNET + usize::from(at) % (frame.len() - ETHERNET);
                    frame[at] ^= 1 << bit;
                }
                _ => {}
            }
            self.sequence += 1;
            let at = self.now + Duration::from_micros(u64::try_from(LATENCY + late).unwrap());
            self.up.insert((at, self.sequence), frame);
        }
    }

    fn collect(&mut self) {
        for frame in std::mem::take(&mut self.host.frames) {
            let seen = if self.thorough {
                shim::to_guest(self.link, &frame)
                    .iter()
                    .map(|frame| match frames::read(frame) {
                        frames::Seen::Tcp(tcp) => tcp,
                        other => panic!("unexpected {other:?}"),
                    })
                    .collect()
            } else {
                vec![frames::tcp_unverified(&frame[VNET_HEADER_LEN..])]
            };
            let fate = self.down_fates.next();
            let copies = match fate {
                Fate::Lose => 0,
                // A kernel drops what was altered.
                Fate::Alter(..) if !self.link.vnet_header => 0,
                Fate::Repeat => 2,
                _ => 1,
            };
            let late = if let Fate::Delay(micros) = fate {
                i64::from(micros)
            } else {
                0
            };
            for _ in 0..copies {
                self.sequence += 1;
                let at = self.now + Duration::from_micros(u64::try_from(LATENCY + late).unwrap());
                self.down.insert((at, self.sequence), seen.clone());
            }
        }
    }

    fn deliver(&mut self, flow: FlowId, kind: u8) {
        let Some(conn) = self.host.conns.get_mut(&flow) else {
            return;
        };
        if conn.closed.is_some() {
            return;
        }
        let mut ready = Readiness::default();
        match kind {
            0 => {
                conn.connecting = false;
                return self.stack.connected(self.now, flow, &mut self.host);
            }
            1 => {
                if conn.far.reads {
                    conn.queued = 0;
                    ready.writable = std::mem::take(&mut conn.wants_room);
                }
            }
            _ => {
                let upto = conn.far.goal.min(conn.read + conn.far.buffers.1);
                ready.readable = upto > conn.arrived;
                conn.arrived = conn.arrived.max(upto);
                if conn.far.ends && conn.arrived == conn.far.goal && !conn.end_arrived {
                    conn.end_arrived = true;
                    (ready.readable, ready.read_closed) = (true, true);
                }
            }
        }
        if ready != Readiness::default() {
            self.stack.ready(self.now, flow, ready, &mut self.host);
        }
    }

    fn step(&mut self) -> bool {
        let mut busy = false;
        self.host.now = self.now;
        for n in 0..self.peers.len() {
            for (frame, cut) in self.peers[n].poll(self.now) {
                busy = true;
                let frame = shim::to_stack(self.link, &frame, cut);
                self.put_up(frame);
            }
        }
        while let Some(entry) = self.up.first_entry()
            && entry.key().0 <= self.now
        {
            busy = true;
            let frame = entry.remove();
            self.stack.input(self.now, &frame, &mut self.host);
            self.collect();
        }
        while let Some((at, _, flow, kind)) = self.host.events.first().copied()
            && at <= self.now
        {
            busy = true;
            self.host.events.pop_first();
            self.deliver(flow, kind);
            self.collect();
        }
        if self.stack.next_deadline().is_some_and(|at| at <= self.now) {
            busy = true;
            self.stack.tick(self.now, &mut self.host);
            self.collect();
        }
        while let Some(entry) = self.down.first_entry()
            && entry.key().0 <= self.now
        {
            busy = true;
            for seen in entry.remove() {
                let number = usize::from(seen.to.port() - FIRST_PORT);
                self.peers[number].receive(self.now, &seen);
            }
        }
        busy
    }

    fn next_event(&self) -> Option<Instant> {
        let peers = self.peers.iter().filter_map(Peer::poll_at);
        [
            self.up.keys().next().map(|(at, _)| *at),
            self.down.keys().next().map(|(at, _)| *at),
            self.host.events.first().map(|(at, ..)| *at),
            self.stack.next_deadline(),
        ]
        .into_iter()
        .flatten()
        .chain(peers)
        .min()
    }

    /// Runs until `done` says so; false when `limit` passes first.
    pub(super) fn run_until(
        &mut self,
        limit: Duration,
        mut done: impl FnMut(&mut Self) -> bool,
    ) -> bool {
        let end = self.now + limit;
        loop {
            let mut steps = 0;
            while self.step() {
                steps += 1;
                assert!(steps < 100_000, "no rest at {}", self.now);
            }
            if done(self) {
                return true;
            }
            if self.step() {
                continue;
            }
            let Some(next) = self.next_event().filter(|next| *next <= end) else {
                self.now = end;
                while self.step() {}
                return done(self);
            };
            self.now = next.max(self.now);
        }
    }

    pub(super) fn run(&mut self, time: Duration) {
        self.run_until(time, |_| false);
    }

    /// Runs until every connection has ended, and holds both ends to what they
    /// were to get; how long it took.
    #[track_caller]
    pub(super) fn finish(&mut self, limit: Duration) -> Duration {
        let begin = self.now;
        let all: Vec<usize> = (0..self.peers.len()).collect();
        let mut finished = None;
        let done = self.run_until(limit, |line| {
            let through = all.iter().all(|n| {
                let peer = &line.peers[*n];
                // The last acknowledgement may be lost: then a reset is the answer
                // to the end that is sent again.
                let heard = peer.is_done() || peer.phase == Phase::Reset;
                heard && line.conn(line.flow(*n)).closed.is_some()
            }) && line.stack.flow_count() == 0;
            if through {
                finished = Some(line.now);
            }
            through
        });
        for n in all {
            let flow = self.flow(n);
            let (peer, conn) = (&self.peers[n], self.conn(flow));
            let state = format!(
                "{n} after {}: up {} of {}, down {} of {}, {:?}, {:?}",
                self.now - begin,
                conn.taken,
                peer.habits.goal,
                peer.got,
                conn.far.goal,
                peer.phase,
                conn.closed
            );
            assert!(done, "stuck: {state}");
            assert_eq!(conn.taken, peer.habits.goal, "upward: {state}");
            assert_eq!(peer.got, conn.far.goal, "downward: {state}");
            assert_eq!(conn.closed, Some(Close::Orderly), "{state}");
            assert!(peer.finished && conn.shut, "ends: {state}");
        }
        finished.unwrap_or(self.now) - begin
    }
}
