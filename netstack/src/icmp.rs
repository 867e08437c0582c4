//! ICMP (RFC 792, RFC 4443): echo, and errors both ways.
//!
//! # Theory of operation
//!
//! The gateway and the DNS forwarder answer echo requests themselves. Requests
//! to others go through a ping socket of the host (`IPPROTO_ICMP` datagram
//! socket, icmp(7)), one per container identifier and destination; the kernel
//! chooses the identifier on the wire, and the answer is found by its socket
//! and carries the container's identifier again.
//!
//! An error about a packet of the container is a [`Problem`], in terms of both
//! versions. It comes from us, or from a router or a far end that has told the
//! host's kernel; then it carries that one's address, which is what traceroute
//! lives on. Errors quote the packet that they are about as far as RFC 1812,
//! 4.3.2.3 and RFC 4443, 2.4 want, and are never sent about ICMP errors nor about
//! packets for many.
//!
//! An error of the container about a packet of ours can only be passed on by what
//! the host's kernel then does: when a UDP port is unreachable its flow ends, and
//! with the last flow its host socket, so that the kernel answers likewise.

use std::net::IpAddr;

use smoltcp::time::{Duration, Instant};
use smoltcp::wire::IpProtocol;

use crate::checksum::Sum;
use crate::flow::{Flow, FlowId, FlowKey, Protocol, portless};
use crate::host::{Close, Failure, Host, HostError};
use crate::ip;
use crate::ip::fragmentation::Datagram;
use crate::ndp;
use crate::policy::Verdict;
use crate::stack::Stack;

/// Bytes of an ICMP header.
const HEADER_LEN: usize = 8;
/// Longest error, bytes (RFC 1812, 4.3.2.3; RFC 4443, 2.4).
const MAX_ERROR_V4: usize = 576;
const MAX_ERROR_V6: usize = ip::v6::MIN_MTU as usize;
/// Idle time of an echo flow.
const ECHO_IDLE: Duration = Duration::from_secs(30);

// Types of the two versions.
const ECHO_REPLY: u8 = 0;
const UNREACHABLE: u8 = 3;
const ECHO_REQUEST: u8 = 8;
const TIME_EXCEEDED: u8 = 11;
const V6_UNREACHABLE: u8 = 1;
const V6_TOO_BIG: u8 = 2;
const V6_TIME_EXCEEDED: u8 = 3;
const V6_PARAMETER_PROBLEM: u8 = 4;
const V6_ECHO_REQUEST: u8 = 128;
const V6_ECHO_REPLY: u8 = 129;

/// Why a destination cannot be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unreachable {
    Network,
    Host,
    Protocol,
    Port,
    Prohibited,
}

/// What is wrong with a packet of the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Problem {
    Unreachable(Unreachable),
    /// Its hop limit has run out.
    HopLimit,
    /// It is a fragment, and the others have not come.
    Incomplete,
    /// It is longer than this.
    TooLong {
        mtu: u16,
    },
}

impl Problem {
    /// How a failure on the host's side looks to the container, if it is to see it.
    pub(crate) fn of(error: HostError) -> Option<Self> {
        Some(match error {
            HostError::Refused => Self::Unreachable(Unreachable::Port),
            HostError::HostUnreachable | HostError::TimedOut => {
                Self::Unreachable(Unreachable::Host)
            }
            HostError::NetUnreachable => Self::Unreachable(Unreachable::Network),
            HostError::Forbidden => Self::Unreachable(Unreachable::Prohibited),
            HostError::TimeExceeded => Self::HopLimit,
            HostError::TooLong { mtu } if mtu > 0 => Self::TooLong { mtu },
            HostError::TooLong { .. }
            | HostError::Reset
            | HostError::NoResources
            | HostError::Other => return None,
        })
    }

    /// Type, code and the rest of the header (RFC 792; RFC 1812, 5.2.7.1; RFC 1191).
    fn v4(self) -> (u8, u8, u32) {
        let code = match self {
            Self::Unreachable(Unreachable::Network) => 0,
            Self::Unreachable(Unreachable::Host) => 1,
            Self::Unreachable(Unreachable::Protocol) => 2,
            Self::Unreachable(Unreachable::Port) => 3,
            Self::Unreachable(Unreachable::Prohibited) => 13,
            Self::HopLimit => return (TIME_EXCEEDED, 0, 0),
            Self::Incomplete => return (TIME_EXCEEDED, 1, 0),
            Self::TooLong { mtu } => return (UNREACHABLE, 4, mtu.into()),
        };
        (UNREACHABLE, code, 0)
    }

    /// The same (RFC 4443, 3).
    fn v6(self) -> (u8, u8, u32) {
        let code = match self {
            Self::Unreachable(Unreachable::Network) => 0,
            Self::Unreachable(Unreachable::Prohibited) => 1,
            Self::Unreachable(Unreachable::Host) => 3,
            Self::Unreachable(Unreachable::Port) => 4,
            // The pointer is to the next header field of a header without extensions.
            Self::Unreachable(Unreachable::Protocol) => return (V6_PARAMETER_PROBLEM, 1, 6),
            Self::HopLimit => return (V6_TIME_EXCEEDED, 0, 0),
            Self::Incomplete => return (V6_TIME_EXCEEDED, 1, 0),
            Self::TooLong { mtu } => {
                return (V6_TOO_BIG, 0, mtu.max(ip::v6::MIN_MTU).into());
            }
        };
        (V6_UNREACHABLE, code, 0)
    }
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

/// An echo request or reply.
#[derive(Debug, Clone, Copy)]
struct Echo<'a> {
    ident: u16,
    seq: u16,
    payload: &'a [u8],
}

impl Stack {
    /// An ICMP packet from the container.
    pub(crate) fn icmp_input<H: Host>(
        &mut self,
        now: Instant,
        packet: &ip::Packet<'_>,
        host: &mut H,
    ) {
        let v4 = packet.source.is_ipv4();
        let mut sum = if v4 {
            Sum::default()
        } else {
            packet.pseudo_header(packet.payload.len())
        };
        sum.add(packet.payload);
        let &[kind, code, _, _, a, b, c, d, ref payload @ ..] = packet.payload else {
            self.stats.dropped += 1;
            return;
        };
        if !sum.is_valid() {
            self.stats.dropped += 1;
            return;
        }
        match (v4, kind, code) {
            (true, ECHO_REQUEST, 0) | (false, V6_ECHO_REQUEST, 0) => {
                let echo = Echo {
                    ident: u16::from_be_bytes([a, b]),
                    seq: u16::from_be_bytes([c, d]),
                    payload,
                };
                self.echo_request(now, packet, echo, host);
            }
            (true, UNREACHABLE, 0..=3 | 5..) => {
                self.refused(matches!(code, 2 | 3), payload, host);
            }
            (false, V6_UNREACHABLE, _) => self.refused(code == 4, payload, host),
            (false, kind, _) if ndp::is_ours(kind) => {
                ndp::input(&self.own, &mut self.link, packet, host);
            }
            _ => self.stats.dropped += 1,
        }
    }

    /// The container does not take a packet of ours; `port`: it has no socket for it.
    fn refused<H: Host>(&mut self, port: bool, quote: &[u8], host: &mut H) {
        let Some((remote, container, start)) = ip::ends(quote) else {
            return;
        };
        let protocol = if container.is_ipv4() { 9 } else { 6 };
        let header = quote.get(start..).and_then(<[u8]>::first_chunk::<8>);
        let (Some(&protocol), Some(&[a, b, c, d, sequence @ ..])) = (quote.get(protocol), header)
        else {
            return;
        };
        let remote = (remote, u16::from_be_bytes([a, b])).into();
        let container = (container, u16::from_be_bytes([c, d])).into();
        match IpProtocol::from(protocol) {
            IpProtocol::Udp if port => {
                self.udp_unwanted(&FlowKey::new(Protocol::Udp, container, remote), host);
            }
            IpProtocol::Tcp => {
                let key = FlowKey::new(Protocol::Tcp, container, remote);
                self.tcp_unwanted(&key, u32::from_be_bytes(sequence), host);
            }
            _ => {}
        }
    }

    fn echo_request<H: Host>(
        &mut self,
        now: Instant,
        packet: &ip::Packet<'_>,
        echo: Echo<'_>,
        host: &mut H,
    ) {
        let destination = packet.destination;
        // Nobody is to be answered (RFC 4291, 2.5.2).
        if packet.source.is_unspecified() {
            self.stats.dropped += 1;
            return;
        }
        if self.is_ours(destination) {
            return self.echo_emit(destination, packet.source, echo, host);
        }
        if !self.is_container(packet.source) {
            self.stats.dropped += 1;
            return;
        }
        let key = FlowKey::new(
            Protocol::Echo,
            (packet.source, echo.ident).into(),
            portless(destination),
        );
        // A flow that stands has been judged.
        let verdict = match self.flows.find(&key) {
            Some(_) => Verdict::Host(portless(destination)),
            None => self.judge(now, &key, host),
        };
        match verdict {
            Verdict::Closed | Verdict::Dns => {
                self.echo_emit(destination, packet.source, echo, host);
            }
            Verdict::Denied(_) => self.unreachable(packet.whole, Unreachable::Prohibited, host),
            Verdict::Host(_) if packet.hop_limit <= 1 => {
                self.problem(packet.whole, Problem::HopLimit, None, host);
            }
            Verdict::Host(to) => self.echo_forward(now, key, packet, echo, to.ip(), host),
        }
    }

    fn echo_forward<H: Host>(
        &mut self,
        now: Instant,
        key: FlowKey,
        packet: &ip::Packet<'_>,
        echo: Echo<'_>,
        to: IpAddr,
        host: &mut H,
    ) {
        let id = match self.flows.find(&key) {
            Some(id) => id,
            None => {
                self.make_room(now, host);
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
        self.flows.used(id, now, false);
        let fields = packet.fields(echo.payload.len());
        if let Err(error) = host.echo_send(id, to, echo.seq, echo.payload, fields)
            && let Some(problem) = Problem::of(error)
        {
            self.problem(packet.whole, problem, None, host);
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
        self.flows.used(id, now, true);
        let Some(remote) = key.remote else { return };
        let echo = Echo {
            ident: key.container.port(),
            seq,
            payload,
        };
        self.echo_emit(remote.ip(), key.container.ip(), echo, host);
    }

    /// An echo request came to nothing.
    pub(crate) fn echo_request_failed<H: Host>(
        &mut self,
        id: FlowId,
        seq: u16,
        failure: Failure,
        host: &mut H,
    ) {
        let Some((key, _)) = self.flows.echo_mut(id) else {
            return;
        };
        let (Some(remote), Some(problem)) = (key.remote, Problem::of(failure.error)) else {
            return;
        };
        let v4 = key.container.is_ipv4();
        let kind = if v4 { ECHO_REQUEST } else { V6_ECHO_REQUEST };
        let header = echo_header(kind, key.container.port(), seq);
        let protocol = if v4 {
            IpProtocol::Icmp
        } else {
            IpProtocol::Icmpv6
        };
        let (container, remote) = (key.container.ip(), remote.ip());
        self.quoted_problem(
            (container, remote),
            protocol,
            header,
            problem,
            failure.from,
            host,
        );
    }

    /// A deadline of the flow has passed.
    pub(crate) fn echo_due<H: Host>(&mut self, now: Instant, id: FlowId, host: &mut H) {
        let Some((_, flow)) = self.flows.echo_mut(id) else {
            return;
        };
        let expires = flow.last_used + ECHO_IDLE;
        if now >= expires {
            self.echo_remove(id, host);
        } else {
            self.timers.arm(&mut self.flows, id, expires);
        }
    }

    /// Forgets the flow and closes its socket.
    pub(crate) fn echo_remove<H: Host>(&mut self, id: FlowId, host: &mut H) {
        if self.flows.echo_mut(id).is_some() {
            self.flows.remove(id);
            host.close(id, Close::Orderly);
        }
    }

    fn echo_emit<H: Host>(
        &mut self,
        source: IpAddr,
        destination: IpAddr,
        echo: Echo<'_>,
        host: &mut H,
    ) {
        let kind = if source.is_ipv4() {
            ECHO_REPLY
        } else {
            V6_ECHO_REPLY
        };
        let header = echo_header(kind, echo.ident, echo.seq);
        self.icmp_emit(source, destination, header, echo.payload, host);
    }

    /// Tells the container that `original`, a packet of its own, goes nowhere.
    pub(crate) fn unreachable<H: Host>(&mut self, original: &[u8], why: Unreachable, host: &mut H) {
        self.problem(original, Problem::Unreachable(why), None, host);
    }

    /// Tells the container what is wrong with a datagram of its own of which only
    /// these are known: its ends, and the first bytes behind its IP header. They
    /// are all that is needed to find the socket (RFC 1122, 3.2.2).
    pub(crate) fn quoted_problem<H: Host>(
        &mut self,
        (container, remote): (IpAddr, IpAddr),
        protocol: IpProtocol,
        transport: [u8; 8],
        problem: Problem,
        from: Option<IpAddr>,
        host: &mut H,
    ) {
        let start = ip::header_len(container);
        let mut quote = [0; ip::MAX_HEADER_LEN + 8];
        let total = start + transport.len();
        let Some(quote) = quote.get_mut(..total) else {
            return;
        };
        ip::emit(quote, total, container, remote, protocol);
        quote[start..].copy_from_slice(&transport);
        self.problem(quote, problem, from, host);
    }

    /// Tells the container what is wrong with `original`, a packet of its own, in
    /// the name of `from`, or of the gateway.
    pub(crate) fn problem<H: Host>(
        &mut self,
        original: &[u8],
        problem: Problem,
        from: Option<IpAddr>,
        host: &mut H,
    ) {
        let Some((container, destination, start)) = ip::ends(original) else {
            return;
        };
        // RFC 1122, 3.2.2: no errors about packets for many, nor from nobody, nor about errors.
        if self.is_group(destination) || container.is_unspecified() || is_error(original) {
            return;
        }
        let shown = from.and_then(|from| self.shown(from, container));
        let Some(source) = shown.or(self.own.gateway_for(container)) else {
            return;
        };
        let ((kind, code, rest), most) = match container {
            IpAddr::V4(_) => (problem.v4(), MAX_ERROR_V4),
            IpAddr::V6(_) => (problem.v6(), MAX_ERROR_V6),
        };
        let most = most.min(usize::from(self.link.config.mtu));
        let quote = original.len().min(most - start.max(20) - HEADER_LEN);
        let [a, b, c, d] = rest.to_be_bytes();
        let header = [kind, code, 0, 0, a, b, c, d];
        self.icmp_emit(
            source,
            container,
            header,
            original.get(..quote).unwrap_or_default(),
            host,
        );
    }

    /// Whether `address` is a multicast or a broadcast address of the container's network.
    pub(crate) fn is_group(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => {
                let host = !self.own.mask;
                let network_broadcast = u32::from(address) == self.own.network | host;
                address.is_multicast() || address.is_broadcast() || (host > 1 && network_broadcast)
            }
            IpAddr::V6(address) => address.is_multicast(),
        }
    }

    /// Sends a message whose checksum is still to be made.
    fn icmp_emit<H: Host>(
        &mut self,
        source: IpAddr,
        destination: IpAddr,
        mut header: [u8; HEADER_LEN],
        payload: &[u8],
        host: &mut H,
    ) {
        let length = HEADER_LEN + payload.len();
        let (protocol, mut sum) = if destination.is_ipv4() {
            (IpProtocol::Icmp, Sum::default())
        } else {
            let protocol = IpProtocol::Icmpv6;
            let sum = Sum::pseudo_header(source, destination, protocol.into(), length);
            (protocol, sum)
        };
        sum.add(&header);
        sum.add(payload);
        header[2..4].copy_from_slice(&sum.finish().to_be_bytes());
        let datagram = Datagram {
            source,
            destination,
            protocol,
            transport: header,
            payload,
        };
        self.transmit_complete(datagram, host);
    }
}

/// Whether a packet, or the first fragment of one, is an ICMP error.
fn is_error(packet: &[u8]) -> bool {
    const V6_FRAGMENT: u8 = 44;
    let byte = |at: usize| packet.get(at).copied();
    let header = ip::v6::HEADER_LEN;
    match byte(0).map(|first| (first >> 4, first & 15)) {
        Some((4, words)) if byte(9) == Some(IpProtocol::Icmp.into()) => {
            // Destination unreachable, source quench, redirect, time exceeded, parameter
            // problem (RFC 1122, 3.2.2).
            matches!(byte(usize::from(words) * 4), Some(3 | 4 | 5 | 11 | 12))
        }
        Some((6, _)) => {
            let (protocol, at) = match byte(6) {
                Some(V6_FRAGMENT) => (byte(header), header + 8),
                protocol => (protocol, header),
            };
            // RFC 4443, 2.1.
            protocol == Some(IpProtocol::Icmpv6.into()) && byte(at).is_some_and(|kind| kind < 128)
        }
        _ => false,
    }
}

/// The header of an echo message, its checksum not made.
fn echo_header(kind: u8, ident: u16, seq: u16) -> [u8; HEADER_LEN] {
    let ([a, b], [c, d]) = (ident.to_be_bytes(), seq.to_be_bytes());
    [kind, 0, 0, 0, a, b, c, d]
}

/// The transport header of a UDP datagram without payload, for a quote.
pub(crate) fn udp_header(source: u16, destination: u16) -> [u8; 8] {
    let mut header = [0; 8];
    header[..2].copy_from_slice(&source.to_be_bytes());
    header[2..4].copy_from_slice(&destination.to_be_bytes());
    header[4..6].copy_from_slice(&8_u16.to_be_bytes());
    header
}
