//! A stack, its host, its link and its container, and the time that passes.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::State;
use smoltcp::time::{Duration, Instant};

use super::frames::{self, ACK, Ip, Seen, Segment, TcpSeen};
use super::guest::{FIRST_PORT, Guest};
use super::host::{Closed, Event, FakeHost, Socket};
use super::shim::{self, Rng, Weather};
use crate::{
    Close, Config, Failure, FlowId, HostError, Ipv6Config, Limits, LinkConfig, Policy, Rules, Stack,
};

mod health;

/// Where the DNS forwarder's queries go, in order.
pub(super) const RESOLVERS: [&str; 2] = ["192.0.2.53:53", "192.0.2.54:53"];

/// The four kinds of link.
pub(super) fn links() -> [LinkConfig; 4] {
    let plain = |mtu| LinkConfig {
        mtu,
        vnet_header: false,
        tso: false,
        uso: false,
    };
    let offload = |mtu| LinkConfig {
        mtu,
        vnet_header: true,
        tso: true,
        uso: true,
    };
    [plain(1500), plain(65_520), offload(1500), offload(65_520)]
}

pub(super) fn config(link: LinkConfig) -> Config {
    Config {
        container: frames::GUEST,
        gateway: frames::GATEWAY,
        dns: frames::DNS,
        prefix_len: 24,
        ipv6: Some(Ipv6Config {
            container: frames::GUEST6,
            gateway: frames::GATEWAY6,
            dns: frames::DNS6,
        }),
        mac: frames::STACK_MAC,
        link,
        policy: Policy::default(),
        resolvers: RESOLVERS.map(|at| at.parse().unwrap()).to_vec(),
        limits: Limits::default(),
        names: Vec::new(),
        seed: 0x5eed,
    }
}

pub(super) fn resolver(n: usize) -> SocketAddr {
    RESOLVERS[n].parse().unwrap()
}

/// Bytes that tell every position of every stream apart.
pub(super) fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut rng = Rng(seed);
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        bytes.extend_from_slice(&rng.next().to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// Both ends of a connection through the stack.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pair {
    pub(super) guest: SocketHandle,
    pub(super) flow: FlowId,
}

pub(super) struct World {
    pub(super) now: Instant,
    pub(super) stack: Stack,
    pub(super) host: FakeHost,
    pub(super) guest: Guest,
    pub(super) weather: Weather,
    link: LinkConfig,
    rng: Rng,
    /// Frames on their way to the stack and to the container.
    up: BTreeSet<(Instant, u64, Vec<u8>)>,
    down: BTreeSet<(Instant, u64, Vec<u8>)>,
    sequence: u64,
    mender: frames::Mender,
    /// What came for the frames made by hand.
    seen: VecDeque<Seen>,
    /// Frames of IPv6, which the container's kernel does not speak.
    seen6: Vec<Vec<u8>>,
    /// When the stack sent a segment to each port of the container's kernel.
    pub(super) spoke: HashMap<u16, Vec<Instant>>,
    /// The container's kernel is there.
    pub(super) guest_alive: bool,
    calls: u64,
    fresh_port: u16,
}

impl World {
    pub(super) fn new(link: LinkConfig) -> Self {
        Self::with(config(link))
    }

    /// On a plain link of MTU 1500.
    pub(super) fn plain() -> Self {
        Self::new(links()[0])
    }

    pub(super) fn with(config: Config) -> Self {
        let now = Instant::from_secs(1_000);
        Self {
            now,
            link: config.link,
            stack: Stack::new(config.clone()),
            host: FakeHost::new(now),
            guest: Guest::new(config.link, now),
            weather: Weather::default(),
            rng: Rng(1),
            up: BTreeSet::new(),
            down: BTreeSet::new(),
            sequence: 0,
            mender: frames::Mender::default(),
            seen: VecDeque::new(),
            seen6: Vec::new(),
            spoke: HashMap::new(),
            guest_alive: true,
            calls: 0,
            fresh_port: 20_000,
        }
    }

    pub(super) fn seed(&mut self, seed: u64) {
        self.rng = Rng(seed);
    }

    // ---- Frames made by hand ----

    /// Gives the stack a frame as it is on an Ethernet, at once; what the stack
    /// answers at once can be taken from [`World::take`].
    pub(super) fn send(&mut self, frame: &[u8]) {
        let frame = shim::to_stack(self.link, frame, None);
        self.send_raw(&frame);
    }

    /// Gives the stack bytes as they come out of the link's file descriptor.
    pub(super) fn send_raw(&mut self, bytes: &[u8]) {
        self.stack.input(self.now, bytes, &mut self.host);
        self.after_call();
        self.carry_down(true);
    }

    /// A super-segment from the container.
    pub(super) fn send_super(&mut self, frame: &[u8], gso_size: u16) {
        let frame = shim::to_stack(self.link, frame, Some(gso_size));
        self.send_raw(&frame);
    }

    /// What has come for the frames made by hand since the last call.
    pub(super) fn take(&mut self) -> Vec<Seen> {
        self.seen.drain(..).collect()
    }

    /// Frames of IPv6 that have come since the last call.
    pub(super) fn take6(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.seen6)
    }

    /// As [`World::take`], TCP only.
    pub(super) fn take_tcp(&mut self) -> Vec<TcpSeen> {
        self.take()
            .into_iter()
            .map(|seen| match seen {
                Seen::Tcp(tcp) => tcp,
                other => panic!("unexpected {other:?}"),
            })
            .collect()
    }

    /// Opens a connection with frames made by hand; the stack's ISN.
    pub(super) fn open_by_hand(&mut self, syn: &Segment) -> (FlowId, u32) {
        self.send(&syn.frame());
        self.settle();
        self.run(Duration::from_millis(2));
        let answer = self.take_tcp();
        assert_eq!(answer.len(), 1, "{answer:?}");
        assert_eq!(answer[0].flags, frames::SYN | ACK);
        assert_eq!(answer[0].ack, syn.seq.wrapping_add(1));
        let isn = answer[0].seq;
        let mut ack = syn.clone();
        ack.flags = ACK;
        ack.options.clear();
        ack.seq = syn.seq.wrapping_add(1);
        ack.ack = isn.wrapping_add(1);
        self.send(&ack.frame());
        let flow = self.host.flow_to(SocketAddr::V4(syn.to)).unwrap();
        (flow, isn)
    }

    /// A datagram arrives on a socket of the host.
    pub(super) fn datagram(
        &mut self,
        flow: FlowId,
        from: SocketAddr,
        payload: &[u8],
        segment: u16,
    ) {
        self.stack
            .datagram(self.now, flow, from, payload, segment, &mut self.host);
        self.after_call();
        self.carry_down(true);
    }

    /// An ICMP error arrives for a datagram that a socket of the host has sent.
    pub(super) fn datagram_failed(&mut self, flow: FlowId, to: SocketAddr, error: HostError) {
        let failure = Failure { error, from: None };
        self.stack
            .datagram_failed(self.now, flow, to, failure, &mut self.host);
        self.after_call();
        self.carry_down(true);
    }

    pub(super) fn echo_reply(&mut self, flow: FlowId, seq: u16, payload: &[u8]) {
        self.stack
            .echo_reply(self.now, flow, seq, payload, &mut self.host);
        self.after_call();
        self.carry_down(true);
    }

    pub(super) fn set_rules(&mut self, rules: Rules) {
        self.stack.set_rules(rules, &mut self.host);
        self.after_call();
        self.carry_down(true);
    }

    fn after_call(&mut self) {
        self.calls += 1;
        // Quadratic otherwise.
        if self.stack.flow_count() < 64 || self.calls.is_multiple_of(1024) {
            self.check();
        }
    }

    fn carry_up(&mut self, frame: Vec<u8>, gso: Option<u16>) {
        // The weather is that of the link, so a super-segment shares one fate.
        let frame = shim::to_stack(self.link, &frame, gso);
        let weather = if self.link.vnet_header {
            Weather {
                corrupt: 0,
                ..self.weather
            }
        } else {
            self.weather
        };
        for (after, frame) in weather.pass(&mut self.rng, frame) {
            self.sequence += 1;
            let at = self.now + Duration::from_micros(u64::try_from(after).unwrap());
            self.up.insert((at, self.sequence, frame));
        }
    }

    /// Puts what the stack has sent on the link; `by_hand` shows answers to
    /// frames made by hand at once.
    fn carry_down(&mut self, by_hand: bool) {
        let frames: Vec<_> = self.host.frames.drain(..).collect();
        for frame in frames {
            for frame in shim::to_guest(self.link, &frame) {
                assert!(frame.len() <= frames::ETHERNET + usize::from(self.link.mtu));
                if frame[12..14] == [0x86, 0xdd] {
                    frames::check6(&frame);
                    self.seen6.push(frame);
                    continue;
                }
                let Some(frame) = self.mender.add(frame) else {
                    continue;
                };
                let seen = frames::read(&frame);
                let for_guest = match &seen {
                    Seen::Tcp(tcp) => tcp.to.port() >= FIRST_PORT,
                    Seen::ArpReply { .. } => true,
                    Seen::Udp { .. }
                    | Seen::EchoReply { .. }
                    | Seen::Unreachable { .. }
                    | Seen::TimeExceeded { .. } => false,
                };
                if let Seen::Tcp(tcp) = &seen
                    && for_guest
                {
                    self.spoke.entry(tcp.to.port()).or_default().push(self.now);
                }
                if !for_guest || (by_hand && matches!(seen, Seen::ArpReply { .. })) {
                    self.seen.push_back(seen);
                }
                if for_guest {
                    let weather = Weather {
                        corrupt: if self.link.vnet_header {
                            0
                        } else {
                            self.weather.corrupt
                        },
                        ..self.weather
                    };
                    for (after, frame) in weather.pass(&mut self.rng, frame) {
                        self.sequence += 1;
                        let at = self.now + Duration::from_micros(u64::try_from(after).unwrap());
                        self.down.insert((at, self.sequence, frame));
                    }
                }
            }
        }
    }

    fn deliver(&mut self, event: Event) {
        let now = self.now;
        match event {
            Event::Connected(flow) => {
                if let Some(Socket::Tcp(tcp)) = self.host.open.get_mut(&flow) {
                    tcp.connecting = false;
                }
                self.stack.connected(now, flow, &mut self.host);
            }
            Event::Failed(flow, error) => {
                if matches!(self.host.open.get(&flow), Some(Socket::Tcp(tcp)) if tcp.connecting) {
                    self.host.open.remove(&flow);
                }
                self.stack.connect_failed(flow, error, &mut self.host);
            }
            // Also for sockets that have been closed since: the stack has to cope.
            Event::Ready(flow, readiness) => {
                self.stack.ready(now, flow, readiness, &mut self.host);
            }
        }
        self.after_call();
        self.carry_down(false);
    }

    /// Does all that is due now; whether there was anything.
    fn step(&mut self) -> bool {
        let mut busy = false;
        self.host.now = self.now;
        if self.guest_alive {
            for (frame, gso) in self.guest.poll(self.now) {
                busy = true;
                self.carry_up(frame, gso);
            }
        }
        while let Some((at, ..)) = self.up.first()
            && *at <= self.now
            && let Some((_, _, frame)) = self.up.pop_first()
        {
            busy = true;
            self.stack.input(self.now, &frame, &mut self.host);
            self.after_call();
            self.carry_down(false);
        }
        while let Some(entry) = self.host.events.first_entry()
            && entry.key().0 <= self.now
        {
            busy = true;
            let event = entry.remove();
            self.deliver(event);
        }
        if self.stack.next_deadline().is_some_and(|at| at <= self.now) {
            busy = true;
            self.stack.tick(self.now, &mut self.host);
            self.after_call();
            self.carry_down(false);
        }
        while let Some((at, ..)) = self.down.first()
            && *at <= self.now
            && let Some((_, _, frame)) = self.down.pop_first()
        {
            busy = true;
            self.guest.receive(frame);
        }
        busy
    }

    /// Runs until there is nothing left to do at this time.
    pub(super) fn settle(&mut self) {
        let mut steps = 0;
        while self.step() {
            steps += 1;
            assert!(steps < 100_000, "no rest at {}", self.now);
        }
    }

    fn next_event(&mut self) -> Option<Instant> {
        let guest = self
            .guest_alive
            .then(|| self.guest.poll_at(self.now))
            .flatten();
        [
            guest,
            self.up.first().map(|(at, ..)| *at),
            self.down.first().map(|(at, ..)| *at),
            self.host.events.keys().next().map(|(at, _)| *at),
            self.stack.next_deadline(),
        ]
        .into_iter()
        .flatten()
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
            self.settle();
            if done(self) {
                return true;
            }
            // `done` may have given either end something to do.
            if self.step() {
                continue;
            }
            let Some(next) = self.next_event().filter(|next| *next <= end) else {
                self.now = end;
                self.host.now = end;
                self.settle();
                return done(self);
            };
            self.now = next.max(self.now);
            self.host.now = self.now;
        }
    }

    pub(super) fn run(&mut self, time: Duration) {
        self.run_until(time, |_| false);
    }

    /// A client connects to a published port that leads to this one.
    pub(super) fn accept(&mut self, client: SocketAddr, port: u16) -> Option<FlowId> {
        let to = SocketAddrV4::new(frames::GUEST, port).into();
        let flow = self.stack.accept(self.now, client, to, &mut self.host)?;
        self.host.accepted(flow, client);
        self.after_call();
        self.carry_down(false);
        Some(flow)
    }

    // ---- Connections of the container's kernel ----

    /// Connects and waits until both ends stand.
    pub(super) fn connect(&mut self, to: SocketAddrV4) -> Pair {
        self.connect_with(to, 64 << 10)
    }

    pub(super) fn connect_with(&mut self, to: SocketAddrV4, buffer: usize) -> Pair {
        let guest = self.guest.connect(to, buffer);
        let up = self.run_until(Duration::from_secs(20), |w| {
            w.guest.state(guest) == State::Established
        });
        assert!(up, "connected to {to}");
        // The container's ACK is on its way.
        self.run(Duration::from_millis(1));
        let flow = self.host.flow_to(SocketAddr::V4(to)).unwrap();
        Pair { guest, flow }
    }

    /// What the far end of a connection has received, open or closed.
    pub(super) fn far_received(&self, flow: FlowId) -> &[u8] {
        let socket = self
            .host
            .open
            .get(&flow)
            .or_else(|| self.host.closed.get(&flow).map(|closed| &closed.socket));
        match socket {
            Some(Socket::Tcp(tcp)) => &tcp.received,
            other => panic!("{flow:?} is {other:?}"),
        }
    }

    /// How the stack closed the flow's socket, if it did.
    pub(super) fn closed(&self, flow: FlowId) -> Option<Close> {
        self.host.closed.get(&flow).map(|Closed { how, .. }| *how)
    }

    /// The far end has seen the end of the container's direction.
    pub(super) fn far_sees_end(&self, flow: FlowId) -> bool {
        match self.host.open.get(&flow) {
            Some(Socket::Tcp(tcp)) => tcp.shut,
            _ => true,
        }
    }

    /// A fresh local port for a frame made by hand.
    pub(super) fn port(&mut self) -> u16 {
        self.fresh_port += 1;
        assert!(self.fresh_port < FIRST_PORT);
        self.fresh_port
    }
}

/// A SYN of the container from another address.
pub(super) fn syn_from(source: Ipv4Addr, to: SocketAddrV4) -> Vec<u8> {
    Segment {
        source,
        ..Segment::syn(1234, to)
    }
    .frame()
}

/// A packet of a protocol that nobody speaks.
pub(super) fn odd_protocol(to: Ipv4Addr, protocol: u8) -> Vec<u8> {
    Ip::new(to, protocol, vec![0; 24]).frame()
}
