//! What can happen to a stack, act by act.

mod datagrams;
mod dns;
mod link;
mod tcp;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU32;

use hostile::frames::{DNS, DNS6, GATEWAY, GATEWAY6, GUEST, GUEST6, STACK_MAC, TCP};
use netstack::{Config, Duration, HostError, Ipv6Config, Limits, LinkConfig, Policy, Rule, Rules};

use crate::conn::{Conn, Said};
use crate::frame::{Frame, IP, VNET, View, fold, pseudo, sum};
use crate::source::Source;
use crate::watch::FIRST_PORT;
use crate::world::World;

/// Where the DNS forwarder's queries go, in order.
pub const RESOLVERS: [&str; 4] = [
    "192.0.2.53:53",
    "192.0.2.54:53",
    "[2001:db8:53::53]:53",
    "192.0.2.55:53",
];
/// Names that are known of themselves.
pub const NAMES: [&str; 3] = ["container", "host.test", "peer.test"];

pub const ERRORS: [HostError; 10] = [
    HostError::Refused,
    HostError::Reset,
    HostError::NetUnreachable,
    HostError::HostUnreachable,
    HostError::Forbidden,
    HostError::TimedOut,
    HostError::NoResources,
    HostError::TooLong { mtu: 1400 },
    HostError::TimeExceeded,
    HostError::Other,
];

const RULES: [&str; 12] = [
    "198.51.100.0/24",
    "tcp:198.51.100.0/28:80",
    "192.0.2.0/24",
    "udp:192.0.2.7",
    "2001:db8::/32",
    "icmp:192.0.2.0/24",
    "a.example",
    "*.b.example",
    "dns:c.example",
    "tcp:a.example:80",
    "0.0.0.0/0:1000-2000",
    "::/0",
];

/// A stack and all that is around it.
#[derive(Debug)]
pub struct Scene {
    pub world: World,
    pub frame: Frame,
    /// Frames that were made elsewhere, Ethernet header first, to begin with.
    pub captured: Vec<Vec<u8>>,
    /// Ports that datagrams come from, of each kind.
    pub ports: usize,
    pub published: Vec<netstack::FlowId>,
    bytes: Vec<u8>,
}

/// The four kinds of link.
pub fn links() -> [LinkConfig; 4] {
    let link = |mtu, offload| LinkConfig {
        mtu,
        vnet_header: offload,
        tso: offload,
        uso: offload,
    };
    [
        link(1500, false),
        link(65_520, false),
        link(1500, true),
        link(65_520, true),
    ]
}

/// A rule set out of some that matter to what the acts do.
fn rules(source: &mut impl Source) -> Rules {
    let mut list = |denied: bool| {
        let count = source.below(4);
        let texts = (0..count).map(|_| source.pick(&RULES));
        let rules = texts.filter_map(|text| text.parse::<Rule>().ok());
        rules
            .filter(|rule| !denied || rule.check_denial().is_ok())
            .collect()
    };
    let (allow, deny) = (list(false), list(true));
    let default = if source.one_in(2) {
        netstack::Action::Deny
    } else {
        netstack::Action::Allow
    };
    Rules::new(default, allow, deny)
}

fn config(source: &mut impl Source) -> Config {
    let choices = source.byte();
    let link = links()[usize::from(choices & 3)];
    let mut limits = Limits {
        max_flows: 512,
        max_half_open: 64,
        max_buffered: 64 << 20,
        max_pps: None,
    };
    match choices >> 2 & 7 {
        // Tight, in one way or another.
        1 => limits.max_buffered = 16 << 10,
        2 => limits.max_buffered = 200 << 10,
        3 => limits.max_flows = 4,
        4 => limits.max_half_open = 2,
        5 => limits.max_pps = NonZeroU32::new(2000),
        _ => {}
    }
    let mut policy = Policy::default();
    if choices & 0x20 != 0 {
        policy.rules = rules(source);
    }
    policy.allow_host_loopback = choices & 0x40 != 0;
    let resolvers = RESOLVERS.map(|at| at.parse().unwrap()).to_vec();
    Config {
        container: GUEST,
        gateway: GATEWAY,
        dns: DNS,
        prefix_len: 24,
        ipv6: Some(Ipv6Config {
            container: GUEST6,
            gateway: GATEWAY6,
            dns: DNS6,
        }),
        mac: STACK_MAC,
        link,
        policy,
        resolvers,
        names: NAMES
            .iter()
            .map(|name| {
                let addresses = vec![IpAddr::V4(GUEST), IpAddr::V6(GUEST6)];
                ((*name).to_owned(), addresses)
            })
            .collect(),
        limits,
        seed: 0x5eed,
    }
}

/// The connections that are watched: of both versions, from both sides, and two to the
/// DNS forwarder.
fn conns(count: usize) -> Vec<Conn> {
    (0..count)
        .map(|n| {
            let port = FIRST_PORT + n as u16;
            let last = (n % 200 + 1) as u16;
            let (container, far, dns): (IpAddr, IpAddr, IpAddr) = if n % 2 == 0 {
                let far = Ipv4Addr::new(198, 51, 100, last as u8);
                (GUEST.into(), far.into(), DNS.into())
            } else {
                let far = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last);
                (GUEST6.into(), far.into(), DNS6.into())
            };
            let opaque = n + 2 >= count;
            let inbound = !opaque && n % 4 >= 2;
            let remote = match (opaque, inbound) {
                (true, _) => SocketAddr::new(dns, 53),
                (_, true) => SocketAddr::new(far, 40_000 + n as u16),
                _ => SocketAddr::new(far, 80),
            };
            let mut conn = Conn::new(n as u32, SocketAddr::new(container, port), remote);
            (conn.opaque, conn.listens) = (opaque, inbound);
            conn
        })
        .collect()
}

impl Scene {
    /// A scene with so many connections, and so many ports that datagrams come from.
    pub fn new(source: &mut impl Source, connections: usize, ports: usize) -> Self {
        let mut config = config(source);
        if connections > 64 && config.limits.max_flows > 4 {
            // A crowd.
            config.limits.max_flows = connections * 4;
            config.limits.max_half_open = connections;
        }
        Self {
            world: World::new(config, conns(connections)),
            frame: Frame::default(),
            captured: Vec::new(),
            ports,
            published: Vec::new(),
            bytes: Vec::new(),
        }
    }

    /// Whether the transport checksum of the next frame is left to the stack.
    fn partial(&self, source: &mut impl Source) -> bool {
        self.world.vnet && !source.one_in(4)
    }

    /// Gives the stack the frame as it is.
    fn send(&mut self, said: Option<(usize, Said)>) {
        self.world.input(self.frame.on(self.world.vnet), said);
    }

    /// Gives the stack the frame with some of it changed.
    fn send_mutated(&mut self, source: &mut impl Source) {
        let bytes = self.frame.packet();
        let span = (bytes.len() - VNET).clamp(1, 100);
        for _ in 0..=source.below(4) {
            let at = VNET + source.below(span);
            let value = source.byte();
            if let Some(byte) = bytes.get_mut(at) {
                match source.below(4) {
                    0 => *byte ^= 1 << (value & 7),
                    1 => *byte = byte.wrapping_add(value % 3).wrapping_sub(1),
                    _ => *byte = value,
                }
            }
        }
        if self.world.vnet && source.one_in(4) {
            let at = source.below(VNET);
            bytes[at] = source.byte();
        }
        match source.below(8) {
            0 => {
                let length = VNET + source.below(bytes.len().min(400));
                bytes.truncate(length);
            }
            1 => {
                let more = source.below(64);
                bytes.resize(bytes.len() + more, 0xa5);
            }
            _ => {}
        }
        self.send_unknown(source);
    }

    /// Gives the stack a frame of which only its bytes are known. If it is a segment of a
    /// connection that is watched, its payload becomes that of the stream again.
    fn send_unknown(&mut self, source: &mut impl Source) {
        let mend = !source.one_in(4);
        let mut said = None;
        if let Some(view) = View::of(&self.frame.packet()[VNET..])
            && view.protocol == TCP
        {
            if view.fragment {
                // Pieces of two streams must not become one.
                let bytes = self.frame.packet();
                bytes[IP + 6..IP + 8].fill(0);
            }
            said = self.recognize(&view);
        }
        if mend {
            self.frame.mend();
        }
        if said.is_some() && !self.is_valid() {
            said = None;
        }
        self.send(said);
    }

    /// What a frame says as a segment of a watched connection; its payload is made that
    /// of the stream.
    fn recognize(&mut self, view: &View) -> Option<(usize, Said)> {
        let bytes = self.frame.packet();
        let segment = &mut bytes[VNET + view.transport.start..VNET + view.transport.end];
        let header = usize::from(segment.get(12)? >> 4) * 4;
        if header < 20 || header > segment.len() {
            return None;
        }
        let (head, payload) = segment.split_at_mut(header);
        let at16 = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
        let at32 = |at: usize| u32::from(at16(at)) << 16 | u32::from(at16(at + 2));
        let container = SocketAddr::new(view.source, at16(0));
        let remote = SocketAddr::new(view.destination, at16(2));
        let place = self.world.host.watch.place(container, remote)?;
        let mut said = Said {
            seq: at32(4),
            ack: at32(8),
            flags: head[13],
            window: at16(14),
            length: payload.len(),
            mss: None,
            scale: None,
        };
        let mut options = &head[20..];
        while let [kind, rest @ ..] = options {
            match (kind, rest) {
                (0, _) => break,
                (1, _) => options = rest,
                (3, [3, scale, rest @ ..]) => {
                    said.scale = Some(*scale);
                    options = rest;
                }
                (_, [length, ..]) if *length >= 2 => match options.get(usize::from(*length)..) {
                    Some(rest) => options = rest,
                    None => break,
                },
                _ => break,
            }
        }
        let conn = &self.world.host.watch.conns[place];
        if !conn.opaque {
            conn.up.put_from(said.seq, payload);
        }
        Some((place, said))
    }

    /// Whether the transport checksum is right, or nobody looks at it.
    fn is_valid(&mut self) -> bool {
        let vnet = self.world.vnet;
        let bytes = self.frame.packet();
        if vnet && bytes[0] & 3 != 0 {
            return true;
        }
        let Some(view) = View::of(&bytes[VNET..]) else {
            return false;
        };
        let addresses = if view.v4 {
            IP + 12..IP + 20
        } else {
            IP + 8..IP + 40
        };
        let segment = VNET + view.transport.start..VNET + view.transport.end;
        let pseudo = pseudo(&bytes[addresses], view.protocol, segment.len());
        fold(pseudo + sum(&bytes[segment])) == 0xffff
    }

    /// Some time passes.
    pub fn time(&mut self, source: &mut impl Source) {
        let micros = source.pick(&[
            0_u64,
            1,
            50,
            50,
            1_000,
            5_000,
            11_000,
            41_000,
            200_000,
            501_000,
            1_000_000,
            3_000_000,
            31_000_000,
            61_000_000,
            131_000_000,
            7_300_000_000,
        ]);
        self.world.advance(Duration::from_micros(micros));
    }

    /// The owner changes something.
    pub fn settings(&mut self, source: &mut impl Source) {
        match source.below(8) {
            0 | 1 => {
                let rules = rules(source);
                self.world
                    .call(|stack, _, host| stack.set_rules(rules, host));
            }
            2 => {
                let name = source.pick(&["container", "x.example", "a.example"]);
                let names = vec![(name.to_owned(), vec![IpAddr::V4(GUEST)])];
                self.world.stack.set_names(names);
            }
            3 => {
                let address = Ipv4Addr::new(198, 51, 100, source.byte());
                let names = [("a.example".to_owned(), vec![address.into()])];
                self.world.stack.know_names(&names);
            }
            4 => {
                let search = ["a.example", "", "b..c", "d.example."];
                let search = (0..source.below(4)).map(|_| source.pick(&search).to_owned());
                let search = search.collect();
                self.world.stack.set_search(search);
            }
            5 => {
                let count = source.below(RESOLVERS.len() + 1);
                let resolvers = RESOLVERS.iter().rev().take(count);
                let resolvers = resolvers.map(|at| at.parse().unwrap()).collect();
                self.world.host.resolvers = Some(resolvers);
            }
            6 => {
                let address = Ipv4Addr::new(198, 51, 100, source.byte());
                self.world.host.local = source.one_in(2).then_some(address.into());
            }
            _ => {
                let call = source.below(self.world.host.faults.len());
                self.world.host.faults[call] = Some(source.pick(&ERRORS));
            }
        }
        let from = source.u16().into();
        let now = self.world.now;
        let (infos, _) = self.world.stack.flows(now, from, 16);
        assert!(infos.len() <= 16);
    }
}
