//! UDP (RFC 768) with endpoint-independent mapping (RFC 4787).
//!
//! # Theory of operation
//!
//! Each container address and port has one host socket (a [`UdpMapping`]),
//! whatever it sends to: STUN, QUIC migration and games depend on it (RFC 4787,
//! REQ-1). Each remote that the container sends to is a [`UdpFlow`] of its own,
//! and only those may answer (address- and port-dependent filtering, REQ-8).
//! A flow lives 30 s after its last datagram, 120 s once it has been two-way
//! (as Linux's conntrack); the socket goes with its last flow.
//!
//! Queries to the DNS forwarder use a mapping apart, because their remote is
//! shown as the forwarder's address; it ends as soon as every query has been
//! answered. A client that repeats an unanswered query is sent to the next resolver.

use std::net::{IpAddr, SocketAddr};

use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{EthernetProtocol, IpProtocol, UdpPacket};

use crate::config::Config;
use crate::flow::{Flow, FlowId, FlowKey, Protocol};
use crate::host::{Close, Host, HostError};
use crate::icmp::Unreachable;
use crate::ipv4;
use crate::link::{RxChecksum, TxOffload};
use crate::policy::Verdict;
use crate::stack::Stack;

/// Bytes of a UDP header.
const HEADER_LEN: usize = 8;
/// Datagrams in one super-segment (`UDP_MAX_SEGMENTS`, `linux/udp.h`): what is
/// beyond was not made by a kernel, and would cost a system call a byte.
const MAX_SEGMENTS: usize = 128;
/// Idle time of a flow that has not been answered (RFC 4787, REQ-5 asks for
/// 2 minutes only of flows in use).
const ONE_WAY_IDLE: Duration = Duration::from_secs(30);
/// Idle time of a flow that has been answered.
const TWO_WAY_IDLE: Duration = Duration::from_secs(120);
/// A query that follows an unanswered one after this long is a repetition;
/// before, it is another question (A and AAAA are asked for at once).
const DNS_PATIENCE: Duration = Duration::from_secs(1);
/// How long a DNS query may stay unanswered.
const DNS_IDLE: Duration = Duration::from_secs(15);

/// The host socket of one container address and port.
#[derive(Debug)]
pub(crate) struct UdpMapping {
    flows: u32,
    /// The mapping serves the DNS forwarder.
    dns: bool,
}

/// One remote of a mapping.
#[derive(Debug)]
pub(crate) struct UdpFlow {
    mapping: FlowId,
    /// Where its datagrams go.
    target: SocketAddr,
    last_used: Instant,
    two_way: bool,
    dns: Option<DnsExchange>,
}

#[derive(Debug, Default)]
struct DnsExchange {
    unanswered: usize,
    resolver: usize,
}

impl UdpFlow {
    fn expires(&self) -> Instant {
        let idle = match (&self.dns, self.two_way) {
            (Some(_), _) => DNS_IDLE,
            (None, false) => ONE_WAY_IDLE,
            (None, true) => TWO_WAY_IDLE,
        };
        self.last_used + idle
    }
}

impl Stack {
    /// A UDP packet from the container; `segment` is not 0 when it holds several
    /// datagrams of that many bytes (the last may be shorter).
    pub(crate) fn udp_input<H: Host>(
        &mut self,
        now: Instant,
        packet: &ipv4::Packet<'_>,
        checksum: RxChecksum,
        segment: u16,
        host: &mut H,
    ) {
        let Some(datagram) = parse(packet, checksum) else {
            self.stats.dropped += 1;
            return;
        };
        let key = FlowKey::new(
            Protocol::Udp,
            (packet.source, datagram.source_port).into(),
            (packet.destination, datagram.destination_port).into(),
        );
        let id = match self.flows.find(&key) {
            Some(id) => id,
            None => match self.udp_open(now, key, packet.whole, host) {
                Some(id) => id,
                None => return,
            },
        };
        let Some((_, flow)) = self.flows.udp_mut(id) else {
            return;
        };
        if let Some(dns) = &mut flow.dns {
            if dns.unanswered > 0 && now >= flow.last_used + DNS_PATIENCE {
                // The next resolver may know; the last one is given up.
                dns.unanswered = 0;
                dns.resolver = (dns.resolver + 1) % self.config.resolvers.len().max(1);
                if let Some(next) = self.config.resolvers.get(dns.resolver) {
                    flow.target = *next;
                }
            }
            dns.unanswered = dns
                .unanswered
                .saturating_add(datagrams(datagram.payload.len(), segment));
        }
        flow.last_used = now;
        let (mapping, target) = (flow.mapping, flow.target);
        let size = if segment == 0 {
            datagram.payload.len().max(1)
        } else {
            usize::from(segment)
        };
        let mut rest = datagram.payload;
        for _ in 0..MAX_SEGMENTS {
            let (one, more) = rest.split_at(size.min(rest.len()));
            match host.udp_send(mapping, target, one) {
                Ok(()) => self.stats.udp_up += 1,
                Err(HostError::NetUnreachable) => {
                    return self.unreachable(packet.whole, Unreachable::Network, host);
                }
                Err(HostError::HostUnreachable) => {
                    return self.unreachable(packet.whole, Unreachable::Host, host);
                }
                Err(HostError::Refused) => {
                    return self.unreachable(packet.whole, Unreachable::Port, host);
                }
                Err(HostError::Forbidden) => {
                    return self.unreachable(packet.whole, Unreachable::Prohibited, host);
                }
                // Lost, as datagrams may be.
                Err(_) => {}
            }
            rest = more;
            if rest.is_empty() {
                break;
            }
        }
    }

    fn udp_open<H: Host>(
        &mut self,
        now: Instant,
        key: FlowKey,
        whole: &[u8],
        host: &mut H,
    ) -> Option<FlowId> {
        let remote = key.remote?;
        let (target, dns) = match self.judge(Protocol::Udp, remote, host) {
            Verdict::Host(target) => (target, None),
            Verdict::Dns => match self.config.resolvers.first() {
                Some(resolver) => (*resolver, Some(DnsExchange::default())),
                None => {
                    self.unreachable(whole, Unreachable::Port, host);
                    return None;
                }
            },
            Verdict::Closed => {
                self.unreachable(whole, Unreachable::Port, host);
                return None;
            }
            Verdict::Denied(_) => {
                self.unreachable(whole, Unreachable::Prohibited, host);
                return None;
            }
        };
        let Some(mapping) = self.udp_mapping(key.container, target.ip(), dns.is_some(), host)
        else {
            self.stats.over_limit += 1;
            self.unreachable(whole, Unreachable::Prohibited, host);
            return None;
        };
        let flow = UdpFlow {
            mapping,
            target,
            last_used: now,
            two_way: false,
            dns,
        };
        let expires = flow.expires();
        let id = self.flows.insert(key, Flow::Udp(flow));
        match id {
            Some(id) => {
                if let Some((_, mapping)) = self.flows.mapping_mut(mapping) {
                    mapping.flows += 1;
                }
                self.timers.arm(&mut self.flows, id, expires);
            }
            None => {
                self.stats.over_limit += 1;
                self.udp_release(mapping, false, host);
                self.unreachable(whole, Unreachable::Prohibited, host);
            }
        }
        id
    }

    /// The host socket that serves `container`, opened when there is none.
    fn udp_mapping<H: Host>(
        &mut self,
        container: SocketAddr,
        family_of: IpAddr,
        dns: bool,
        host: &mut H,
    ) -> Option<FlowId> {
        let key = if dns {
            self.dns_mapping_key(container)
        } else {
            FlowKey::mapping(container)
        };
        if let Some(id) = self.flows.find(&key) {
            return Some(id);
        }
        let id = self
            .flows
            .insert(key, Flow::UdpMapping(UdpMapping { flows: 0, dns }))?;
        if host.udp_open(id, family_of).is_err() {
            self.flows.remove(id);
            return None;
        }
        Some(id)
    }

    fn dns_mapping_key(&self, container: SocketAddr) -> FlowKey {
        // Never the key of a flow: port 0 of the forwarder can not be opened.
        FlowKey::new(Protocol::Udp, container, (self.config.dns, 0).into())
    }

    /// Gives up one flow's share of a mapping, or only looks whether it has any.
    fn udp_release<H: Host>(&mut self, id: FlowId, one_flow: bool, host: &mut H) {
        let Some((_, mapping)) = self.flows.mapping_mut(id) else {
            return;
        };
        mapping.flows = mapping.flows.saturating_sub(u32::from(one_flow));
        if mapping.flows == 0 {
            self.flows.remove(id);
            host.close(id, Close::Orderly);
        }
    }

    /// A datagram for the container arrived on a mapping's socket. With
    /// `segment` not 0 the payload holds several of that size (`UDP_GRO`).
    pub(crate) fn udp_datagram<H: Host>(
        &mut self,
        now: Instant,
        mapping: FlowId,
        from: SocketAddr,
        payload: &[u8],
        segment: u16,
        host: &mut H,
    ) {
        let Some((key, state)) = self.flows.mapping_mut(mapping) else {
            return;
        };
        let remote = shown_as(&self.config, state, from);
        let flow_key = FlowKey::new(Protocol::Udp, key.container, remote);
        let Some(id) = self.flows.find(&flow_key) else {
            self.stats.udp_filtered += 1;
            return;
        };
        let Some((_, flow)) = self.flows.udp_mut(id) else {
            return;
        };
        if flow.dns.is_some() {
            if !self.config.resolvers.contains(&from) {
                self.stats.udp_filtered += 1;
                return;
            }
        } else if flow.target != from {
            self.stats.udp_filtered += 1;
            return;
        }
        flow.last_used = now;
        flow.two_way = true;
        let done = flow.dns.as_mut().is_some_and(|dns| {
            dns.unanswered = dns
                .unanswered
                .saturating_sub(datagrams(payload.len(), segment));
            dns.unanswered == 0
        });
        let (IpAddr::V4(source), IpAddr::V4(destination)) = (remote.ip(), key.container.ip())
        else {
            return;
        };
        let ports = (remote.port(), key.container.port());
        let single = if segment == 0 {
            payload.len()
        } else {
            usize::from(segment).min(payload.len())
        };
        if single + HEADER_LEN + ipv4::HEADER_LEN > usize::from(self.link.config.mtu) {
            self.stats.udp_too_long += 1;
        } else if segment == 0 || payload.len() <= single {
            self.stats.udp_down += 1;
            self.udp_emit((source, destination), ports, payload, 0, host);
        } else if self.link.config.uso {
            self.stats.udp_down += payload.len().div_ceil(single) as u64;
            self.udp_emit((source, destination), ports, payload, segment, host);
        } else {
            for one in payload.chunks(single) {
                self.stats.udp_down += 1;
                self.udp_emit((source, destination), ports, one, 0, host);
            }
        }
        if done {
            self.udp_remove(id, host);
        }
    }

    fn udp_emit<H: Host>(
        &mut self,
        (source, destination): (std::net::Ipv4Addr, std::net::Ipv4Addr),
        (source_port, destination_port): (u16, u16),
        payload: &[u8],
        segment: u16,
        host: &mut H,
    ) {
        let mut head = [0; ipv4::HEADER_LEN + HEADER_LEN];
        let total = head.len() + payload.len();
        ipv4::emit(&mut head, total, source, destination, IpProtocol::Udp);
        let mut view = UdpPacket::new_unchecked(&mut head[ipv4::HEADER_LEN..]);
        view.set_src_port(source_port);
        view.set_dst_port(destination_port);
        view.set_len(ipv4::len16(HEADER_LEN + payload.len()));
        self.link.transmit(
            host,
            EthernetProtocol::Ipv4,
            TxOffload::Udp { segment },
            &head,
            [payload, &[]],
        );
    }

    /// A datagram to `to` came to nothing: the container gets the ICMP error
    /// that its own kernel would have got. Only the headers of the datagram that
    /// it quotes are known, and all that is needed to find the socket (RFC 1122,
    /// 3.2.2).
    pub(crate) fn udp_failed<H: Host>(
        &mut self,
        mapping: FlowId,
        to: SocketAddr,
        error: HostError,
        host: &mut H,
    ) {
        let code = match error {
            HostError::Refused => Unreachable::Port,
            HostError::HostUnreachable => Unreachable::Host,
            HostError::NetUnreachable => Unreachable::Network,
            HostError::Forbidden => Unreachable::Prohibited,
            _ => return,
        };
        let Some((key, state)) = self.flows.mapping_mut(mapping) else {
            return;
        };
        let remote = shown_as(&self.config, state, to);
        let flow = FlowKey::new(Protocol::Udp, key.container, remote);
        let (IpAddr::V4(source), IpAddr::V4(destination)) = (key.container.ip(), remote.ip())
        else {
            return;
        };
        if self.flows.find(&flow).is_none() {
            return;
        }
        let mut quote = [0; ipv4::HEADER_LEN + HEADER_LEN];
        let total = quote.len();
        ipv4::emit(&mut quote, total, source, destination, IpProtocol::Udp);
        let mut view = UdpPacket::new_unchecked(&mut quote[ipv4::HEADER_LEN..]);
        view.set_src_port(key.container.port());
        view.set_dst_port(remote.port());
        view.set_len(ipv4::len16(HEADER_LEN));
        self.unreachable(&quote, code, host);
    }

    fn udp_remove<H: Host>(&mut self, id: FlowId, host: &mut H) {
        if let Some(Flow::Udp(flow)) = self.flows.remove(id) {
            self.udp_release(flow.mapping, true, host);
        }
    }

    /// A deadline of the flow has passed.
    pub(crate) fn udp_due<H: Host>(&mut self, now: Instant, id: FlowId, host: &mut H) {
        let Some((_, flow)) = self.flows.udp_mut(id) else {
            return;
        };
        let expires = flow.expires();
        if now >= expires {
            self.udp_remove(id, host);
        } else {
            self.timers.arm(&mut self.flows, id, expires);
        }
    }
}

/// How many datagrams of `segment` bytes (0: one of any length) are in `len`.
fn datagrams(len: usize, segment: u16) -> usize {
    if segment == 0 {
        1
    } else {
        len.div_ceil(usize::from(segment)).max(1)
    }
}

/// What the container knows a host-side address as.
fn shown_as(config: &Config, mapping: &UdpMapping, address: SocketAddr) -> SocketAddr {
    if mapping.dns {
        (config.dns, 53).into()
    } else if address.ip().is_loopback() {
        (config.gateway, address.port()).into()
    } else {
        address
    }
}

struct Datagram<'a> {
    source_port: u16,
    destination_port: u16,
    payload: &'a [u8],
}

fn parse<'a>(packet: &ipv4::Packet<'a>, checksum: RxChecksum) -> Option<Datagram<'a>> {
    let view = UdpPacket::new_checked(packet.payload).ok()?;
    if view.src_port() == 0 || usize::from(view.len()) < HEADER_LEN {
        return None;
    }
    if checksum == RxChecksum::Present
        && view.checksum() != 0
        && !view.verify_checksum(&packet.source.into(), &packet.destination.into())
    {
        return None;
    }
    Some(Datagram {
        source_port: view.src_port(),
        destination_port: view.dst_port(),
        payload: packet.payload.get(HEADER_LEN..usize::from(view.len()))?,
    })
}
