//! ICMP (RFC 792): echo, and the errors that we have to tell the container.
//!
//! # Theory of operation
//!
//! The gateway and the DNS forwarder answer echo requests themselves. Requests
//! to others go through a ping socket of the host (`IPPROTO_ICMP` datagram
//! socket, icmp(7)), one per container identifier and destination; the kernel
//! chooses the identifier on the wire, and the answer is found by its socket
//! and carries the container's identifier again.
//!
//! Errors quote the packet that they are about as far as RFC 1812, 4.3.2.3
//! wants (at most 576 bytes in all), and are never sent about ICMP errors nor
//! about packets for many.

use std::net::{IpAddr, Ipv4Addr};

use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{EthernetProtocol, Icmpv4Message, Icmpv4Packet, IpProtocol};

use crate::checksum::Sum;
use crate::flow::{Flow, FlowId, FlowKey, Protocol, portless};
use crate::host::{Close, Host, HostError};
use crate::ipv4;
use crate::link::TxOffload;
use crate::policy::Verdict;
use crate::stack::Stack;

/// Bytes of an ICMP header.
const HEADER_LEN: usize = 8;
/// Longest error, bytes (RFC 1812, 4.3.2.3).
const MAX_ERROR: usize = 576;
/// Idle time of an echo flow.
const ECHO_IDLE: Duration = Duration::from_secs(30);

/// Codes of Destination Unreachable (RFC 792; RFC 1812, 5.2.7.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unreachable {
    Network = 0,
    Host = 1,
    Protocol = 2,
    Port = 3,
    Prohibited = 13,
}

/// One container identifier and destination.
#[derive(Debug)]
pub(crate) struct EchoFlow {
    last_used: Instant,
}

impl EchoFlow {
    pub(crate) fn new(now: Instant) -> Self {
        Self { last_used: now }
    }
}

impl Stack {
    /// An ICMP packet from the container.
    pub(crate) fn icmp_input<H: Host>(
        &mut self,
        now: Instant,
        packet: &ipv4::Packet<'_>,
        host: &mut H,
    ) {
        let Ok(view) = Icmpv4Packet::new_checked(packet.payload) else {
            self.stats.dropped += 1;
            return;
        };
        if packet.payload.len() < HEADER_LEN
            || view.msg_type() != Icmpv4Message::EchoRequest
            || view.msg_code() != 0
            || !view.verify_checksum()
        {
            self.stats.dropped += 1;
            return;
        }
        let (ident, seq) = (view.echo_ident(), view.echo_seq_no());
        let Some(payload) = packet.payload.get(HEADER_LEN..) else {
            return;
        };
        match self.judge(Protocol::Echo, portless(packet.destination.into()), host) {
            Verdict::Closed | Verdict::Dns => {
                self.echo_emit(packet.destination, packet.source, ident, seq, payload, host);
            }
            Verdict::Denied(_) => self.unreachable(packet.whole, Unreachable::Prohibited, host),
            Verdict::Host(to) => self.echo_forward(now, packet, ident, seq, to.ip(), host),
        }
    }

    fn echo_forward<H: Host>(
        &mut self,
        now: Instant,
        packet: &ipv4::Packet<'_>,
        ident: u16,
        seq: u16,
        to: IpAddr,
        host: &mut H,
    ) {
        let key = FlowKey::new(
            Protocol::Echo,
            (packet.source, ident).into(),
            portless(packet.destination.into()),
        );
        let id = match self.flows.find(&key) {
            Some(id) => id,
            None => {
                let Some(id) = self.flows.insert(key, Flow::Echo(EchoFlow::new(now))) else {
                    self.stats.over_limit += 1;
                    return self.unreachable(packet.whole, Unreachable::Prohibited, host);
                };
                if host.echo_open(id, to).is_err() {
                    self.flows.remove(id);
                    return self.unreachable(packet.whole, Unreachable::Prohibited, host);
                }
                self.timers.arm(&mut self.flows, id, now + ECHO_IDLE);
                id
            }
        };
        if let Some((_, flow)) = self.flows.echo_mut(id) {
            flow.last_used = now;
        }
        let payload = packet.payload.get(HEADER_LEN..).unwrap_or_default();
        match host.echo_send(id, to, seq, payload) {
            Err(HostError::NetUnreachable) => {
                self.unreachable(packet.whole, Unreachable::Network, host)
            }
            Err(HostError::HostUnreachable) => {
                self.unreachable(packet.whole, Unreachable::Host, host)
            }
            Err(HostError::Forbidden) => {
                self.unreachable(packet.whole, Unreachable::Prohibited, host)
            }
            Ok(()) | Err(_) => {}
        }
    }

    /// An echo reply arrived on the flow's ping socket.
    pub(crate) fn echo_reply_input<H: Host>(
        &mut self,
        now: Instant,
        id: FlowId,
        seq: u16,
        payload: &[u8],
        host: &mut H,
    ) {
        let Some((key, flow)) = self.flows.echo_mut(id) else {
            return;
        };
        flow.last_used = now;
        let Some(IpAddr::V4(remote)) = key.remote.map(|remote| remote.ip()) else {
            return;
        };
        let IpAddr::V4(container) = key.container.ip() else {
            return;
        };
        self.echo_emit(remote, container, key.container.port(), seq, payload, host);
    }

    /// A deadline of the flow has passed.
    pub(crate) fn echo_due<H: Host>(&mut self, now: Instant, id: FlowId, host: &mut H) {
        let Some((_, flow)) = self.flows.echo_mut(id) else {
            return;
        };
        let expires = flow.last_used + ECHO_IDLE;
        if now >= expires {
            self.flows.remove(id);
            host.close(id, Close::Orderly);
        } else {
            self.timers.arm(&mut self.flows, id, expires);
        }
    }

    fn echo_emit<H: Host>(
        &mut self,
        source: Ipv4Addr,
        destination: Ipv4Addr,
        ident: u16,
        seq: u16,
        payload: &[u8],
        host: &mut H,
    ) {
        let len = ipv4::HEADER_LEN + HEADER_LEN + payload.len();
        if len > usize::from(self.link.config.mtu) {
            return;
        }
        let mut head = [0; ipv4::HEADER_LEN + HEADER_LEN];
        ipv4::emit(&mut head, len, source, destination, IpProtocol::Icmp);
        let mut view = Icmpv4Packet::new_unchecked(&mut head[ipv4::HEADER_LEN..]);
        view.set_msg_type(Icmpv4Message::EchoReply);
        view.set_msg_code(0);
        view.set_echo_ident(ident);
        view.set_echo_seq_no(seq);
        self.icmp_transmit(head, payload, host);
    }

    /// Whether `address` is a multicast or a broadcast address of the container's network.
    fn is_group(&self, address: Ipv4Addr) -> bool {
        let host = u32::MAX
            .checked_shr(self.config.prefix_len.into())
            .unwrap_or(0);
        let network_broadcast = Ipv4Addr::from(u32::from(self.config.container) | host);
        address.is_multicast()
            || address.is_broadcast()
            || (host > 1 && address == network_broadcast)
    }

    /// Tells the container that `original`, a packet of its own, goes nowhere.
    pub(crate) fn unreachable<H: Host>(
        &mut self,
        original: &[u8],
        code: Unreachable,
        host: &mut H,
    ) {
        let Ok(packet) = ipv4::parse(original) else {
            return;
        };
        // RFC 1122, 3.2.2: no errors about packets for many.
        if self.is_group(packet.destination) {
            return;
        }
        let quote = original.get(
            ..original
                .len()
                .min(MAX_ERROR - ipv4::HEADER_LEN - HEADER_LEN),
        );
        let Some(quote) = quote else { return };
        let mut head = [0; ipv4::HEADER_LEN + HEADER_LEN];
        let total = head.len() + quote.len();
        ipv4::emit(
            &mut head,
            total,
            self.config.gateway,
            packet.source,
            IpProtocol::Icmp,
        );
        let mut view = Icmpv4Packet::new_unchecked(&mut head[ipv4::HEADER_LEN..]);
        view.set_msg_type(Icmpv4Message::DstUnreachable);
        view.set_msg_code(code as u8);
        self.icmp_transmit(head, quote, host);
    }

    /// Sends a message whose checksum is still to be made.
    fn icmp_transmit<H: Host>(
        &mut self,
        mut head: [u8; ipv4::HEADER_LEN + HEADER_LEN],
        payload: &[u8],
        host: &mut H,
    ) {
        let mut sum = Sum::default();
        sum.add(&head[ipv4::HEADER_LEN..]);
        sum.add(payload);
        head[ipv4::HEADER_LEN + 2..ipv4::HEADER_LEN + 4]
            .copy_from_slice(&sum.finish().to_be_bytes());
        self.link.transmit(
            host,
            EthernetProtocol::Ipv4,
            TxOffload::Complete,
            &head,
            [payload, &[]],
        );
    }
}
