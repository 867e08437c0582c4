//! A stack between [`Peer`]s and a host that only counts and compares, on a link
//! whose every frame has its fate.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::IoSlice;
use std::net::{IpAddr, SocketAddr, SocketAddrV4};

use smoltcp::time::{Duration, Instant};

use super::fates::{Fate, Fates};
use super::frames::{self, ETHERNET, TcpSeen};
use super::guest::remote;
use super::host::joined;
use super::peer::{Habits, Peer, Phase};
use super::shim::{self, LATENCY};
use super::stream::{LONGEST, Stream, down, up, wide};
use super::world::config;
use crate::{
    Close, Config, FlowId, Host, HostError, Io, IpFields, LinkConfig, Readiness, Stack,
    VNET_HEADER_LEN,
};

/// When it begins, seconds.
const BEGIN: i64 = 1_000;
/// First port of the peers.
const FIRST_PORT: u16 = 2000;
/// Time from a host socket to its far end, and back.
const HOST_DELAY: Duration = Duration::from_micros(50);

/// What the far end of a connection does.
#[derive(Debug, Clone, Copy)]
pub(super) struct Far {
    /// Bytes that it sends, and whether it ends its direction after them.
    pub(super) goal: u64,
    pub(super) ends: bool,
    pub(super) reads: bool,
    /// The host socket's buffers, out and in.
    pub(super) buffers: (u64, u64),
}

impl Far {
    /// Sends when it is told to.
    pub(super) fn waits() -> Self {
        Self {
            ends: false,
            ..Self::sends(0)
        }
    }

    pub(super) fn sends(goal: u64) -> Self {
        Self {
            goal,
            ends: true,
            reads: true,
            buffers: (256 << 10, 256 << 10),
        }
    }
}

/// A host socket and its far end.
#[derive(Debug)]
pub(super) struct Conn {
    pub(super) to: SocketAddr,
    pub(super) far: Far,
    connecting: bool,
    up: Stream,
    /// Bytes that the stack has written, and how many of them are in the buffer.
    pub(super) taken: u64,
    queued: u64,
    wants_room: bool,
    down: Stream,
    /// Bytes that have come from the far end, and those that the stack has read.
    arrived: u64,
    pub(super) read: u64,
    end_arrived: bool,
    pub(super) shut: bool,
    pub(super) closed: Option<Close>,
}

#[derive(Debug, Clone, Copy)]
enum Event {
    Connected,
    /// The far end has read what was in the buffer.
    Drained,
    /// More has come from the far end, or its end.
    Arrived,
}

#[derive(Debug)]
pub(super) struct CountingHost {
    now: Instant,
    pub(super) conns: BTreeMap<FlowId, Conn>,
    plans: HashMap<SocketAddr, Far>,
    events: BTreeSet<(Instant, u64, FlowId, u8)>,
    sequence: u64,
    frames: Vec<Vec<u8>>,
    /// Frames that fit in the TAP's queue; what is sent beyond it is lost.
    pub(super) queue: usize,
    pub(super) overrun: usize,
}

impl CountingHost {
    fn new(now: Instant) -> Self {
        Self {
            now,
            conns: BTreeMap::new(),
            plans: HashMap::new(),
            events: BTreeSet::new(),
            sequence: 0,
            frames: Vec::new(),
            queue: usize::MAX,
            overrun: 0,
        }
    }

    fn schedule(&mut self, after: Duration, flow: FlowId, event: Event) {
        let kind = match event {
            Event::Connected => 0,
            Event::Drained => 1,
            Event::Arrived => 2,
        };
        self.sequence += 1;
        self.events
            .insert((self.now + after, self.sequence, flow, kind));
    }

    fn conn(&mut self, flow: FlowId) -> &mut Conn {
        let conn = self.conns.get_mut(&flow).unwrap();
        assert_eq!(conn.closed, None, "{flow:?} is closed");
        assert!(!conn.connecting);
        conn
    }
}

impl Host for CountingHost {
    fn transmit(&mut self, frame: &[IoSlice<'_>]) {
        assert!(self.frames.len() < 100_000, "the stack sends without end");
        if self.frames.len() < self.queue {
            self.frames.push(joined(frame));
        } else {
            self.overrun += 1;
        }
    }

    fn is_local(&mut self, _: IpAddr) -> bool {
        false
    }

    fn tcp_connect(&mut self, flow: FlowId, to: SocketAddr) -> Result<(), HostError> {
        let far = self.plans[&to];
        let SocketAddr::V4(v4) = to else {
            panic!("{to}")
        };
        let conn = Conn {
            to,
            far,
            connecting: true,
            up: up(v4),
            taken: 0,
            queued: 0,
            wants_room: false,
            down: down(v4),
            arrived: 0,
            read: 0,
            end_arrived: false,
            shut: false,
            closed: None,
        };
        assert!(self.conns.insert(flow, conn).is_none(), "an id used again");
        self.schedule(HOST_DELAY, flow, Event::Connected);
        self.schedule(HOST_DELAY * 2, flow, Event::Arrived);
        Ok(())
    }

    fn tcp_send(&mut self, flow: FlowId, data: &[IoSlice<'_>]) -> Io {
        let data = joined(data);
        assert!(!data.is_empty(), "an empty write is a wasted call");
        let conn = self.conn(flow);
        assert!(!conn.shut);
        let room = usize::try_from(conn.far.buffers.0 - conn.queued).unwrap();
        let n = data.len().min(room);
        for (start, piece) in (conn.taken..)
            .step_by(LONGEST)
            .zip(data[..n].chunks(LONGEST))
        {
            assert!(
                conn.up.at(start, piece.len()) == piece,
                "wrong bytes for the host among {n} at {}",
                conn.taken
            );
        }
        let idle = conn.queued == 0;
        conn.taken += wide(n);
        conn.queued += wide(n);
        conn.wants_room |= n < data.len();
        if idle && conn.far.reads {
            self.schedule(HOST_DELAY, flow, Event::Drained);
        }
        if n == 0 { Io::WouldBlock } else { Io::Done(n) }
    }

    fn tcp_receive(&mut self, flow: FlowId, buffer: &mut [u8]) -> Io {
        assert!(!buffer.is_empty(), "an empty read is taken for the end");
        let conn = self.conn(flow);
        let n = usize::try_from(conn.arrived - conn.read)
            .unwrap()
            .min(buffer.len());
        if n == 0 {
            return if conn.end_arrived {
                Io::Closed
            } else {
                Io::WouldBlock
            };
        }
        for (start, piece) in (conn.read..)
            .step_by(LONGEST)
            .zip(buffer[..n].chunks_mut(LONGEST))
        {
            piece.copy_from_slice(conn.down.at(start, piece.len()));
        }
        let full = conn.arrived - conn.read == conn.far.buffers.1;
        conn.read += wide(n);
        if full && !conn.end_arrived {
            self.schedule(HOST_DELAY, flow, Event::Arrived);
        }
        Io::Done(n)
    }

    fn tcp_shutdown(&mut self, flow: FlowId) {
        let conn = self.conn(flow);
        assert!(!conn.shut);
        conn.shut = true;
    }

    fn tcp_keepalive(&mut self, flow: FlowId, _: Duration, _: Duration) {
        self.conn(flow);
    }

    fn close(&mut self, flow: FlowId, how: Close) {
        let conn = self.conns.get_mut(&flow).unwrap();
        assert_eq!(conn.closed.replace(how), None, "closed twice");
        if how == Close::Orderly {
            let ended = conn.end_arrived && conn.read == conn.arrived;
            assert!(ended && conn.shut, "in order is when both have ended");
        }
    }

    fn udp_open(&mut self, _: FlowId, _: IpAddr) -> Result<(), HostError> {
        Err(HostError::Forbidden)
    }

    fn udp_send(
        &mut self,
        _: FlowId,
        _: SocketAddr,
        _: &[u8],
        _: IpFields,
    ) -> Result<(), HostError> {
        Err(HostError::Forbidden)
    }

    fn echo_open(&mut self, _: FlowId, _: IpAddr) -> Result<(), HostError> {
        Err(HostError::Forbidden)
    }

    fn echo_send(
        &mut self,
        _: FlowId,
        _: IpAddr,
        _: u16,
        _: &[u8],
        _: IpFields,
    ) -> Result<(), HostError> {
        Err(HostError::Forbidden)
    }
}

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
