//! UDP (RFC 768) with endpoint-independent mapping (RFC 4787).
//!
//! # Theory of operation
//!
//! Each container address and port has one host socket (a [`UdpMapping`]),
//! whatever it sends to: STUN, QUIC migration and games depend on it (RFC 4787,
//! REQ-1). Each remote that the container sends to is a [`UdpFlow`] of its own,
//! and only those may answer (address- and port-dependent filtering, REQ-8).
//! A flow lives 30 s after its last datagram, 120 s once it has been two-way
//! (as Linux's conntrack); the socket goes with its last flow. One that nobody has
//! answered of late gives way to a new flow where there are too many.
//!
//! Queries to the DNS forwarder ([`crate::dns`]) use mappings apart, because their
//! remote is shown as the forwarder's address.
//!
//! A published port is a mapping whose socket the owner has bound; it has no key,
//! since several may lead to one port of the container, and stays without flows.
//! Whoever sends to it makes a flow of its own, with its own address; the
//! container's answers find the socket by the flow, like all others.

use std::net::SocketAddr;

use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{IpProtocol, UdpPacket};

use crate::checksum::Sum;
use crate::flow::{FlowId, FlowInfo, FlowKey, Protocol};
use crate::host::{Failure, Host};
use crate::icmp::{Problem, Unreachable, udp_header};
use crate::ip::fragmentation::Datagram;
use crate::ip::{self, len16};
use crate::link::{RxChecksum, TxOffload};
use crate::policy::Verdict;
use crate::stack::Stack;

mod mapping;

/// Bytes of a UDP header.
const HEADER_LEN: usize = 8;
/// The port of a resolver.
const DNS_PORT: u16 = 53;
/// Datagrams in one super-segment (`UDP_MAX_SEGMENTS`, `linux/udp.h`): what is
/// beyond was not made by a kernel, and would cost a system call a byte.
const MAX_SEGMENTS: usize = 128;
/// Idle time of a flow that has not been answered (RFC 4787, REQ-5 asks for
/// 2 minutes only of flows in use).
const ONE_WAY_IDLE: Duration = Duration::from_secs(30);
/// Idle time of a flow that has been answered.
const TWO_WAY_IDLE: Duration = Duration::from_secs(120);

/// The host socket of one container address and port.
#[derive(Debug)]
pub(crate) struct UdpMapping {
    flows: u32,
    /// The mapping serves the DNS forwarder.
    dns: bool,
    /// The mapping is a published port.
    published: bool,
}

/// One remote of a mapping.
#[derive(Debug)]
pub(crate) struct UdpFlow {
    mapping: FlowId,
    /// Where its datagrams go.
    target: SocketAddr,
    opened: Instant,
    last_used: Instant,
    two_way: bool,
    /// The remote has sent first, to a published port.
    inbound: bool,
    bytes_up: u64,
    bytes_down: u64,
}

impl UdpFlow {
    /// What there is to tell about it.
    pub(crate) fn info(&self, key: &FlowKey, now: Instant) -> Option<FlowInfo> {
        Some(FlowInfo {
            protocol: key.protocol,
            container: key.container,
            remote: key.remote?,
            state: if self.two_way {
                "ANSWERED"
            } else {
                "UNANSWERED"
            },
            age: now - self.opened,
            bytes_up: self.bytes_up,
            bytes_down: self.bytes_down,
        })
    }

    pub(crate) fn begun_inside(&self) -> bool {
        !self.inbound
    }

    fn expires(&self) -> Instant {
        let idle = if self.two_way {
            TWO_WAY_IDLE
        } else {
            ONE_WAY_IDLE
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
        packet: &ip::Packet<'_>,
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
        let size = if segment == 0 {
            datagram.payload.len().max(1)
        } else {
            usize::from(segment)
        };
        let id = match self.flows.find(&key) {
            Some(id) => id,
            None => match self.udp_open(now, key, packet, host) {
                Some(Opened::Flow(id)) => id,
                Some(Opened::Dns) => return self.dns_inputs(now, key, &datagram, size, host),
                None => return,
            },
        };
        let Some((_, flow)) = self.flows.udp_mut(id) else {
            // Not the mapping of one, whose key can be written into a packet.
            if self.flows.dns_mut(id).is_some() {
                self.dns_inputs(now, key, &datagram, size, host);
            }
            return;
        };
        flow.last_used = now;
        flow.bytes_up += datagram.payload.len() as u64;
        let (mapping, target) = (flow.mapping, flow.target);
        self.flows.used(id, now, false);
        if packet.hop_limit <= 1 && !self.is_ours(packet.destination) {
            return self.problem(packet.whole, Problem::HopLimit, None, host);
        }
        let fields = packet.fields(size);
        let mut rest = datagram.payload;
        for _ in 0..MAX_SEGMENTS {
            let (one, more) = rest.split_at(size.min(rest.len()));
            match host.udp_send(mapping, target, one, fields) {
                Ok(()) => self.stats.udp_up += 1,
                Err(error) => {
                    if let Some(problem) = Problem::of(error) {
                        return self.problem(packet.whole, problem, None, host);
                    }
                    // Lost, as datagrams may be.
                }
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
        packet: &ip::Packet<'_>,
        host: &mut H,
    ) -> Option<Opened> {
        let whole = packet.whole;
        let target = match self.judge(now, &key, host) {
            Verdict::Host(target) => target,
            Verdict::Dns => return Some(Opened::Dns),
            Verdict::Closed => {
                self.unreachable(whole, Unreachable::Port, host);
                return None;
            }
            Verdict::Denied(_) => {
                self.unreachable(whole, Unreachable::Prohibited, host);
                return None;
            }
        };
        self.make_room(now, host);
        let mut mapping = self.udp_mapping(key.container, target.ip(), false, host);
        // Descriptors have run out before the flows: others of this process need some.
        if mapping.is_none() && !self.flows.is_full() && self.give_up_one(now, host) {
            mapping = self.udp_mapping(key.container, target.ip(), false, host);
        }
        let Some(mapping) = mapping else {
            self.stats.over_limit += 1;
            self.unreachable(whole, Unreachable::Prohibited, host);
            return None;
        };
        let id = self.udp_insert(now, key, mapping, target, false);
        if id.is_none() {
            self.udp_release(mapping, false, host);
            self.unreachable(whole, Unreachable::Prohibited, host);
        }
        id.map(Opened::Flow)
    }

    /// Queries of the container, each of `size` bytes but the last.
    fn dns_inputs<H: Host>(
        &mut self,
        now: Instant,
        key: FlowKey,
        datagram: &Received<'_>,
        size: usize,
        host: &mut H,
    ) {
        if datagram.payload.is_empty() {
            self.stats.dropped += 1;
        }
        for message in datagram.payload.chunks(size).take(MAX_SEGMENTS) {
            self.dns_input(now, key, message, host);
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
        let (dns, published) = (state.dns, state.published);
        let Some(remote) = self.shown_as(dns, key.container, from) else {
            return;
        };
        let flow_key = FlowKey::new(Protocol::Udp, key.container, remote);
        let id = match self.flows.find(&flow_key) {
            Some(id) => id,
            None if published => {
                self.make_room(now, host);
                match self.udp_insert(now, flow_key, mapping, from, true) {
                    Some(id) => id,
                    None => return,
                }
            }
            None => {
                self.stats.udp_filtered += 1;
                return;
            }
        };
        let single = if segment == 0 {
            payload.len()
        } else {
            usize::from(segment).min(payload.len())
        };
        if dns {
            if payload.is_empty() {
                self.stats.dns_unmatched += 1;
            }
            for message in payload.chunks(single.max(1)) {
                self.dns_datagram(now, id, from, message, host);
            }
            return;
        }
        let Some((_, flow)) = self.flows.udp_mut(id) else {
            return;
        };
        if published && flow.mapping != mapping {
            // The same client by another published port, or one that the container
            // has sent to before: it is answered where it has asked last.
            let before = std::mem::replace(&mut flow.mapping, mapping);
            flow.target = from;
            self.udp_join(mapping);
            self.udp_release(before, true, host);
        }
        let Some((_, flow)) = self.flows.udp_mut(id) else {
            return;
        };
        if flow.target != from {
            self.stats.udp_filtered += 1;
            return;
        }
        flow.last_used = now;
        flow.bytes_down += payload.len() as u64;
        flow.two_way = true;
        self.flows.used(id, now, true);
        self.udp_deliver(remote, key.container, payload, segment, host);
    }

    /// Sends the container what `remote` has sent, in datagrams of `segment` bytes
    /// unless that is 0.
    pub(crate) fn udp_deliver<H: Host>(
        &mut self,
        remote: SocketAddr,
        container: SocketAddr,
        payload: &[u8],
        segment: u16,
        host: &mut H,
    ) {
        let single = if segment == 0 {
            payload.len()
        } else {
            usize::from(segment).min(payload.len())
        };
        let headers = ip::header_len(remote.ip()) + HEADER_LEN;
        if single + headers > usize::from(self.link.config.mtu) {
            for one in payload.chunks(single) {
                if self.udp_emit_complete(remote, container, one, host) {
                    self.stats.udp_down += 1;
                } else {
                    self.stats.udp_too_long += 1;
                }
            }
        } else if segment == 0 || payload.len() <= single {
            self.stats.udp_down += 1;
            self.udp_emit(remote, container, payload, 0, host);
        } else if self.link.config.uso {
            self.stats.udp_down += payload.len().div_ceil(single) as u64;
            // They may have come in a longer packet, of the other version.
            let most = (usize::from(u16::MAX) - headers) / single * single;
            for some in payload.chunks(most) {
                let segment = if some.len() > single { segment } else { 0 };
                self.udp_emit(remote, container, some, segment, host);
            }
        } else {
            for one in payload.chunks(single) {
                self.stats.udp_down += 1;
                self.udp_emit(remote, container, one, 0, host);
            }
        }
    }

    fn udp_emit<H: Host>(
        &mut self,
        from: SocketAddr,
        to: SocketAddr,
        payload: &[u8],
        segment: u16,
        host: &mut H,
    ) {
        let start = ip::header_len(to.ip());
        let mut head = [0; ip::MAX_HEADER_LEN + HEADER_LEN];
        let Some(head) = head.get_mut(..start + HEADER_LEN) else {
            return;
        };
        let total = head.len() + payload.len();
        ip::emit(head, total, from.ip(), to.ip(), IpProtocol::Udp);
        let mut view = UdpPacket::new_unchecked(&mut head[start..]);
        view.set_src_port(from.port());
        view.set_dst_port(to.port());
        view.set_len(len16(HEADER_LEN + payload.len()));
        self.link
            .transmit(host, TxOffload::Udp { segment }, head, [payload, &[]]);
    }

    /// As [`Stack::udp_emit`], with the checksum made: in fragments if it must be, and
    /// for clients that read the link itself. `false` when no IP packet can be that long.
    pub(crate) fn udp_emit_complete<H: Host>(
        &mut self,
        from: SocketAddr,
        to: SocketAddr,
        payload: &[u8],
        host: &mut H,
    ) -> bool {
        let Ok(length) = u16::try_from(HEADER_LEN + payload.len()) else {
            return false;
        };
        let mut transport = udp_header(from.port(), to.port());
        transport[4..6].copy_from_slice(&length.to_be_bytes());
        let protocol = IpProtocol::Udp;
        let (source, destination) = (from.ip(), to.ip());
        let mut sum = Sum::pseudo_header(source, destination, protocol.into(), usize::from(length));
        sum.add(&transport);
        sum.add(payload);
        let checksum = match sum.finish() {
            // None (RFC 768).
            0 => 0xffff,
            checksum => checksum,
        };
        transport[6..].copy_from_slice(&checksum.to_be_bytes());
        let datagram = Datagram {
            source,
            destination,
            protocol,
            transport,
            payload,
        };
        self.transmit_complete(datagram, host)
    }

    /// A datagram to `to` came to nothing: the container gets the ICMP error
    /// that its own kernel would have got.
    pub(crate) fn udp_failed<H: Host>(
        &mut self,
        now: Instant,
        mapping: FlowId,
        to: SocketAddr,
        failure: Failure,
        host: &mut H,
    ) {
        let problem = Problem::of(failure.error);
        let Some((key, state)) = self.flows.mapping_mut(mapping) else {
            return;
        };
        let dns = state.dns;
        let Some(remote) = self.shown_as(dns, key.container, to) else {
            return;
        };
        let flow = FlowKey::new(Protocol::Udp, key.container, remote);
        let Some(id) = self.flows.find(&flow) else {
            return;
        };
        if dns {
            return self.dns_failed(now, id, to, problem, host);
        }
        let Some(problem) = problem else { return };
        // A far end goes by what it is known as.
        let from = if failure.from == Some(to.ip()) {
            Some(remote.ip())
        } else {
            failure.from
        };
        let header = udp_header(key.container.port(), remote.port());
        let ends = (key.container.ip(), remote.ip());
        self.quoted_problem(ends, IpProtocol::Udp, header, problem, from, host);
    }

    /// The container has no taker for what a remote sends.
    pub(crate) fn udp_unwanted<H: Host>(&mut self, key: &FlowKey, host: &mut H) {
        let Some(id) = self.flows.find(key) else {
            return;
        };
        if self.flows.udp_mut(id).is_some() {
            self.udp_remove(id, host);
        } else {
            self.dns_remove(id, host);
        }
    }

    /// What the container knows the far end of a mapping's datagrams as.
    fn shown_as(
        &self,
        dns: bool,
        container: SocketAddr,
        address: SocketAddr,
    ) -> Option<SocketAddr> {
        if dns {
            let forwarder = self.own.dns_for(container.ip())?;
            return Some((forwarder, DNS_PORT).into());
        }
        let shown = self.shown(address.ip().to_canonical(), container.ip())?;
        Some((shown, address.port()).into())
    }
}

/// Who takes what a new flow sends.
enum Opened {
    Flow(FlowId),
    Dns,
}

pub(crate) struct Received<'a> {
    pub(crate) source_port: u16,
    pub(crate) destination_port: u16,
    pub(crate) payload: &'a [u8],
}

pub(crate) fn parse<'a>(packet: &ip::Packet<'a>, checksum: RxChecksum) -> Option<Received<'a>> {
    let view = UdpPacket::new_checked(packet.payload).ok()?;
    if view.src_port() == 0 || usize::from(view.len()) < HEADER_LEN {
        return None;
    }
    // None was made, which IPv6 does not allow (RFC 8200, 8.1).
    let unmade = view.checksum() == 0 && packet.source.is_ipv4();
    if checksum == RxChecksum::Present && !unmade {
        let length = usize::from(view.len());
        let mut sum = packet.pseudo_header(length);
        sum.add(packet.payload.get(..length)?);
        if !sum.is_valid() {
            return None;
        }
    }
    Some(Received {
        source_port: view.src_port(),
        destination_port: view.dst_port(),
        payload: packet.payload.get(HEADER_LEN..usize::from(view.len()))?,
    })
}
