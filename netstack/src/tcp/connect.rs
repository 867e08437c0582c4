//! How a flow begins that the container opens: its SYN waits until the host has
//! connected, and is answered with what has become of that.

use std::hash::{DefaultHasher, Hash, Hasher};

use smoltcp::time::{Duration, Instant};
use smoltcp::wire::TcpPacket;

use super::endpoint::Endpoint;
use super::segment::{Segment, SynOptions, refuse, without_payload};
use super::seq::Seq;
use super::{Phase, TcpFlow};
use crate::dns::Gate;
use crate::flow::{Flow, FlowId, FlowKey};
use crate::host::{Close, Host, HostError};
use crate::icmp::{Problem, Unreachable};
use crate::ip;
use crate::policy::Verdict;
use crate::stack::Stack;

/// How long the first repetition of a SYN may take to come (RFC 6298: 1 s).
pub(super) const CONNECT_PATIENCE: Duration = Duration::from_secs(3);
/// How long any may take: twice the longest interval of Linux (`TCP_RTO_MAX`).
pub(super) const MOST_PATIENCE: Duration = Duration::from_secs(240);
/// How long a resolver may take to accept before the next one is tried.
pub(super) const RESOLVER_PATIENCE: Duration = Duration::from_secs(1);

impl Stack {
    /// A SYN: judge it and ask the host to connect.
    pub(super) fn tcp_open<H: Host>(
        &mut self,
        now: Instant,
        key: FlowKey,
        packet: &ip::Packet<'_>,
        segment: &Segment<'_>,
        host: &mut H,
    ) {
        if packet.hop_limit <= 1 && !self.is_ours(packet.destination) {
            return self.problem(packet.whole, Problem::HopLimit, None, host);
        }
        let (target, resolver) = match self.judge(now, &key, host) {
            Verdict::Host(target) => (target, None),
            Verdict::Dns => {
                self.look_for_resolvers(host);
                match self.forwarder.servers().first() {
                    Some(resolver) => (*resolver, Some(1)),
                    None => return refuse(&mut self.link, host, &key, segment),
                }
            }
            Verdict::Closed => return refuse(&mut self.link, host, &key, segment),
            Verdict::Denied(_) => {
                return self.unreachable(packet.whole, Unreachable::Prohibited, host);
            }
        };
        if !self.half_open_room(now, host) {
            return refuse(&mut self.link, host, &key, segment);
        }
        let Some(syn) = without_payload(packet) else {
            self.stats.dropped += 1;
            return;
        };
        let mut flow = TcpFlow::new(syn, resolver, now);
        if resolver.is_some() && self.egress.judges_names() {
            let Some(gate) = self.gate(&key) else {
                self.stats.over_limit += 1;
                return refuse(&mut self.link, host, &key, segment);
            };
            flow.relay.gate = Some(Box::new(gate));
        }
        self.make_room(now, host);
        let Some(id) = self.flows.insert(key, Flow::Tcp(Box::new(flow))) else {
            self.stats.over_limit += 1;
            return refuse(&mut self.link, host, &key, segment);
        };
        self.half_open_begins(now, id);
        let patience = if resolver.is_some() {
            RESOLVER_PATIENCE
        } else {
            CONNECT_PATIENCE
        };
        self.timers.arm(&mut self.flows, id, now + patience);
        let mut connecting = host.tcp_connect(id, target);
        if connecting == Err(HostError::NoResources) && self.give_up_one(now, host) {
            connecting = host.tcp_connect(id, target);
        }
        if let Err(error) = connecting {
            self.tcp_connect_failed(id, error, host);
        }
    }

    /// What looks at the messages of a connection to the DNS forwarder.
    fn gate(&self, key: &FlowKey) -> Option<Gate> {
        Gate::new(&self.forwarder.gates, key.container, key.remote?)
    }

    /// A resolver is slow to accept: the next one is tried in its place. The flow goes
    /// by another id then, since that of a closed socket is not used again.
    pub(super) fn tcp_next_resolver<H: Host>(
        &mut self,
        now: Instant,
        key: FlowKey,
        id: FlowId,
        host: &mut H,
    ) {
        let Some(mut flow) = self.flows.remove(id) else {
            return;
        };
        host.close(id, Close::Reset);
        let mut target = None;
        if let Flow::Tcp(tcp) = &mut flow
            && let Some(next) = tcp.relay.resolver
        {
            target = self.forwarder.servers().get(usize::from(next)).copied();
            tcp.relay.resolver = next.checked_add(1);
        }
        let (Some(target), Some(id)) = (target, self.flows.insert(key, flow)) else {
            self.half_open -= 1;
            return;
        };
        self.half_open_moves(now, id);
        self.timers
            .arm(&mut self.flows, id, now + RESOLVER_PATIENCE);
        if let Err(error) = host.tcp_connect(id, target) {
            self.tcp_connect_failed(id, error, host);
        }
    }

    /// The host connection stands: answer the SYN.
    pub(crate) fn tcp_connected<H: Host>(&mut self, now: Instant, id: FlowId, host: &mut H) {
        let seed = self.config.seed;
        let Some((key, TcpFlow { phase, relay })) = self.flows.tcp_mut(id) else {
            return;
        };
        let Phase::Connecting { syn } = phase else {
            return;
        };
        let iss = initial_sequence_number(seed, &key, now);
        let endpoint = with_held(syn, |view| {
            let (segment, options) = (Segment::new(view), SynOptions::new(view));
            let container = key.container.ip();
            Endpoint::new(
                now,
                &segment,
                &options,
                iss,
                container,
                &self.link,
                &self.rings,
            )
        });
        match endpoint {
            Some(endpoint) => *phase = Phase::Open(endpoint),
            None => return self.tcp_drop(id, Close::Reset, host),
        }
        relay.host_writable = true;
        relay.waiting_since = Some(now);
        self.tcp_pump(now, id, host);
    }

    /// The host could not connect: tell the container why.
    pub(crate) fn tcp_connect_failed<H: Host>(
        &mut self,
        id: FlowId,
        error: HostError,
        host: &mut H,
    ) {
        let Some((key, TcpFlow { phase, relay })) = self.flows.tcp_mut(id) else {
            return;
        };
        if !matches!(phase, Phase::Connecting { .. }) {
            return;
        }
        if let Some(next) = relay.resolver
            && let Some(resolver) = self.forwarder.servers().get(usize::from(next))
        {
            relay.resolver = next.checked_add(1);
            match host.tcp_connect(id, *resolver) {
                Ok(()) => return,
                Err(error) => return self.tcp_connect_failed(id, error, host),
            }
        }
        let Some(Flow::Tcp(flow)) = self.flows.remove(id) else {
            return;
        };
        let Phase::Connecting { syn } = flow.phase else {
            return;
        };
        self.half_open -= 1;
        let code = match error {
            HostError::NetUnreachable => Unreachable::Network,
            HostError::HostUnreachable | HostError::TimedOut => Unreachable::Host,
            HostError::Forbidden => Unreachable::Prohibited,
            HostError::Refused
            | HostError::Reset
            | HostError::NoResources
            | HostError::TooLong { .. }
            | HostError::TimeExceeded
            | HostError::Other => {
                let link = &mut self.link;
                with_held(&syn, |view| refuse(link, host, &key, &Segment::new(view)));
                return;
            }
        };
        self.unreachable(&syn, code, host);
    }
}

/// Reads a SYN that was held.
pub(super) fn with_held<R>(syn: &[u8], read: impl FnOnce(&TcpPacket<&[u8]>) -> R) -> Option<R> {
    let packet = ip::parse(syn).ok()?;
    let view = TcpPacket::new_checked(packet.payload).ok()?;
    Some(read(&view))
}

/// A clock and a keyed hash of the connection (RFC 6528).
pub(super) fn initial_sequence_number(seed: u64, key: &FlowKey, now: Instant) -> Seq {
    let mut hasher = DefaultHasher::new();
    (seed, key).hash(&mut hasher);
    let [a, b, c, d, ..] = hasher.finish().to_ne_bytes();
    let clock = usize::try_from(now.total_micros() / 4).unwrap_or_default();
    Seq::new(u32::from_ne_bytes([a, b, c, d])) + clock
}
