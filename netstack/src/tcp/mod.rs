//! TCP: a connection with the container on one side, a host socket on the other.
//!
//! # Theory of operation
//!
//! **Opening.** A SYN to an allowed destination makes a flow in
//! [`Phase::Connecting`] that holds nothing but the SYN itself; the host is asked
//! to connect. Only when the host connection stands does the flow get an
//! endpoint, which is shown the SYN and answers it. A refused connection becomes
//! a RST, an unreachable one the ICMP error that the container's own kernel
//! would have got, a timed-out one nothing: the container's SYN timer runs out
//! like ours did.
//!
//! **Moving data.** After each packet of the container and each readiness event
//! of the host socket the flow is *pumped*: ring → host socket until the socket
//! is full, host socket → ring until the ring is full, then everything that the
//! endpoint has to say goes out. Readiness is edge-triggered and remembered per
//! flow, so no system call is made that is known to fail. Backpressure needs no
//! rule of its own: a full ring closes the window to the container, a full ring
//! leaves data in the host's socket buffer.
//!
//! **Closing.** The two directions end one after the other, each when its data
//! is through: a FIN of the container becomes `SHUT_WR` once the ring is empty,
//! end of stream from the host becomes a FIN behind the last byte. A reset on one
//! side becomes a reset on the other. A flow whose directions have both ended is
//! dropped (no TIME-WAIT: the kernel on either side keeps one) as soon as the host
//! has taken what is left in the ring.
//!
//! **Liveness.** A half-closed flow is probed on both sides after
//! [`HALF_CLOSED_IDLE`]; an established one after [`ESTABLISHED_IDLE`] (RFC 9293,
//! 3.8.4). A container that answers no probe for [`SILENCE`], or no retransmission
//! for [`UNACKNOWLEDGED`], loses the flow.

mod engine;
mod relay;
mod segment;

use smoltcp::time::{Duration, Instant};
use smoltcp::wire::TcpPacket;

use engine::Endpoint;
pub(crate) use engine::Engine;
use relay::Relay;
use segment::{bare_ack, split_fin, syn_to_hold, with_odd_window};

use crate::flow::{Flow, FlowId, FlowKey, Protocol};
use crate::host::{Close, Host, HostError, Io, Readiness};
use crate::icmp::Unreachable;
use crate::ipv4;
use crate::link::RxChecksum;
use crate::policy::Verdict;
use crate::stack::Stack;

/// Idle time after which an established flow is probed (RFC 9293: no less than
/// two hours by default).
const ESTABLISHED_IDLE: Duration = Duration::from_secs(7200);
/// Idle time after which a half-closed flow is probed.
const HALF_CLOSED_IDLE: Duration = Duration::from_secs(30);
/// Time between probes.
const PROBE_INTERVAL: Duration = Duration::from_secs(15);
/// How long the container may stay silent when it is probed, or owes the last
/// segment of the handshake.
const SILENCE: Duration = Duration::from_secs(60);
/// How long it may stay silent when it owes an acknowledgement (RFC 9293,
/// 3.8.3: R2 of at least 100 s). Retransmissions and probes of a shut window
/// back off to one a minute: two of them may be lost.
const UNACKNOWLEDGED: Duration = Duration::from_secs(130);
/// How long the first repetition of a SYN may take to come (RFC 6298: 1 s).
const CONNECT_PATIENCE: Duration = Duration::from_secs(3);
/// Bytes moved from one host socket per pump, so that one flow cannot starve
/// the others.
const PUMP_BUDGET: usize = 1 << 20;

/// One TCP flow.
#[derive(Debug)]
pub(crate) struct TcpFlow {
    phase: Phase,
    relay: Relay,
}

#[derive(Debug)]
enum Phase {
    /// The host is connecting; the SYN waits.
    Connecting { syn: Box<[u8]> },
    /// Both sides stand.
    Open(Box<Endpoint>),
}

impl TcpFlow {
    fn new(syn: Box<[u8]>, resolver: Option<usize>, now: Instant) -> Self {
        Self {
            phase: Phase::Connecting { syn },
            relay: Relay::new(resolver, now),
        }
    }

    /// The flow gets the turn that it waited for.
    pub(crate) fn dequeued(&mut self) {
        self.relay.queued = false;
    }

    /// Both sides stand, and the host has not been told the container's end of stream.
    pub(crate) fn is_sending(&self) -> bool {
        matches!(self.phase, Phase::Open(_)) && !self.relay.host_shut
    }
}

impl Stack {
    /// A TCP segment from the container.
    pub(crate) fn tcp_input<H: Host>(
        &mut self,
        now: Instant,
        packet: &ipv4::Packet<'_>,
        checksum: RxChecksum,
        host: &mut H,
    ) {
        let Ok(segment) = TcpPacket::new_checked(packet.payload) else {
            self.stats.dropped += 1;
            return;
        };
        if checksum == RxChecksum::Present
            && !segment.verify_checksum(&packet.source.into(), &packet.destination.into())
        {
            self.stats.dropped += 1;
            return;
        }
        let key = FlowKey::new(
            Protocol::Tcp,
            (packet.source, segment.src_port()).into(),
            (packet.destination, segment.dst_port()).into(),
        );
        if let Some(id) = self.flows.find(&key) {
            self.tcp_segment(now, id, packet, &segment, host);
        } else if segment.syn() && !segment.ack() && !segment.rst() && !segment.fin() {
            self.tcp_open(now, key, packet, host);
        } else {
            self.engine.refuse(now, packet.whole, &self.link, host);
        }
    }

    fn tcp_segment<H: Host>(
        &mut self,
        now: Instant,
        id: FlowId,
        packet: &ipv4::Packet<'_>,
        segment: &TcpPacket<&[u8]>,
        host: &mut H,
    ) {
        let syn = segment.syn() && !segment.ack();
        let Some((_, TcpFlow { phase, relay })) = self.flows.tcp_mut(id) else {
            return;
        };
        match phase {
            // At most a FIN that is repeated.
            Phase::Open(endpoint) if relay.draining => {
                self.engine
                    .segment(endpoint, now, packet.whole, &self.link, host);
            }
            // The container may have forgotten the connection: a probe brings a
            // reset then, and its next SYN is a new flow's (RFC 9293, 3.10.7.4;
            // smoltcp ignores a SYN in a synchronized state).
            Phase::Open(endpoint) if syn && endpoint.is_established() => {
                relay.probing_since.get_or_insert(now);
                endpoint.set_keep_alive(Some(PROBE_INTERVAL));
                self.tcp_pump(now, id, host);
            }
            Phase::Open(endpoint) => {
                relay.last_heard = now;
                let outstanding = endpoint.to_container();
                if let Some((data, fin)) = split_fin(packet) {
                    self.engine.segment(endpoint, now, &data, &self.link, host);
                    self.engine.segment(endpoint, now, &fin, &self.link, host);
                } else if segment.segment_len() == 0
                    && endpoint.owes_only_fin()
                    && let Some(ack) = with_odd_window(packet, &mut relay.odd_window)
                {
                    self.engine.segment(endpoint, now, &ack, &self.link, host);
                } else {
                    self.engine
                        .segment(endpoint, now, packet.whole, &self.link, host);
                }
                let progress = endpoint.to_container() < outstanding;
                if progress && segment.window_len() > 0 {
                    relay.shut_window = None;
                } else if match &relay.shut_window {
                    // Not one that was overtaken on its way.
                    Some((latest, _)) => segment.ack_number() >= *latest,
                    None => segment.window_len() == 0,
                } {
                    relay.shut_window = bare_ack(packet).map(|ack| (segment.ack_number(), ack));
                }
                self.tcp_pump(now, id, host);
            }
            // Closing a socket in SYN-SENT says nothing: a SYN that is not the
            // same again is a new connection from the same port.
            Phase::Connecting { syn: held } if syn => {
                if let Some(latest) = syn_to_hold(packet) {
                    *held = latest;
                }
                relay.last_heard = now;
            }
            Phase::Connecting { .. } => {
                // The container has given up on the connection.
                self.tcp_drop(id, Close::Reset, host);
                self.engine.refuse(now, packet.whole, &self.link, host);
            }
        }
    }

    /// A SYN: judge it and ask the host to connect.
    fn tcp_open<H: Host>(
        &mut self,
        now: Instant,
        key: FlowKey,
        packet: &ipv4::Packet<'_>,
        host: &mut H,
    ) {
        let Some(remote) = key.remote else { return };
        let (target, resolver) = match self.judge(Protocol::Tcp, remote, host) {
            Verdict::Host(target) => (target, None),
            Verdict::Dns => match self.config.resolvers.first() {
                Some(resolver) => (*resolver, Some(1)),
                None => return self.engine.refuse(now, packet.whole, &self.link, host),
            },
            Verdict::Closed => return self.engine.refuse(now, packet.whole, &self.link, host),
            Verdict::Denied(_) => {
                return self.unreachable(packet.whole, Unreachable::Prohibited, host);
            }
        };
        if self.half_open >= self.config.limits.max_half_open {
            // Not refused: the SYN comes again, and there may be room then.
            self.stats.over_limit += 1;
            return;
        }
        let Some(syn) = syn_to_hold(packet) else {
            self.stats.dropped += 1;
            return;
        };
        let Some(id) = self
            .flows
            .insert(key, Flow::Tcp(Box::new(TcpFlow::new(syn, resolver, now))))
        else {
            self.stats.over_limit += 1;
            return self.engine.refuse(now, packet.whole, &self.link, host);
        };
        self.half_open += 1;
        self.timers.arm(&mut self.flows, id, now + CONNECT_PATIENCE);
        if let Err(error) = host.tcp_connect(id, target) {
            self.tcp_connect_failed(now, id, error, host);
        }
    }

    /// The host connection stands: answer the SYN.
    pub(crate) fn tcp_connected<H: Host>(&mut self, now: Instant, id: FlowId, host: &mut H) {
        let Some((key, TcpFlow { phase, relay })) = self.flows.tcp_mut(id) else {
            return;
        };
        let Phase::Connecting { syn } = phase else {
            return;
        };
        let syn = syn.clone();
        self.half_open -= 1;
        let port = key.remote.map_or(0, |remote| remote.port());
        let Some(mut endpoint) = self.engine.listen(port) else {
            self.flows.remove(id);
            host.close(id, Close::Reset);
            return self.engine.refuse(now, &syn, &self.link, host);
        };
        self.engine
            .segment(&mut endpoint, now, &syn, &self.link, host);
        *phase = Phase::Open(Box::new(endpoint));
        relay.host_writable = true;
        relay.waiting_since = Some(now);
        self.tcp_pump(now, id, host);
    }

    /// The host could not connect: tell the container why.
    pub(crate) fn tcp_connect_failed<H: Host>(
        &mut self,
        now: Instant,
        id: FlowId,
        error: HostError,
        host: &mut H,
    ) {
        let Some((_, TcpFlow { phase, relay })) = self.flows.tcp_mut(id) else {
            return;
        };
        if !matches!(phase, Phase::Connecting { .. }) {
            return;
        }
        if let Some(next) = relay.resolver
            && let Some(resolver) = self.config.resolvers.get(next)
        {
            relay.resolver = Some(next + 1);
            match host.tcp_connect(id, *resolver) {
                Ok(()) => return,
                Err(error) => return self.tcp_connect_failed(now, id, error, host),
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
            HostError::TimedOut => return,
            HostError::NetUnreachable => Unreachable::Network,
            HostError::HostUnreachable => Unreachable::Host,
            HostError::Forbidden => Unreachable::Prohibited,
            HostError::Refused
            | HostError::Reset
            | HostError::NoResources
            | HostError::TooLong
            | HostError::Other => return self.engine.refuse(now, &syn, &self.link, host),
        };
        self.unreachable(&syn, code, host);
    }

    /// The host socket has become ready.
    pub(crate) fn tcp_ready<H: Host>(
        &mut self,
        now: Instant,
        id: FlowId,
        ready: Readiness,
        host: &mut H,
    ) {
        let Some((_, TcpFlow { relay, .. })) = self.flows.tcp_mut(id) else {
            return;
        };
        relay.host_readable |= ready.readable | ready.read_closed;
        relay.host_writable |= ready.writable;
        relay.host_read_closed |= ready.read_closed;
        self.tcp_pump(now, id, host);
    }

    /// Moves what can be moved, both ways, and sends what is to be sent.
    fn tcp_pump<H: Host>(&mut self, now: Instant, id: FlowId, host: &mut H) {
        let Some((_, TcpFlow { phase, relay })) = self.flows.tcp_mut(id) else {
            return;
        };
        let Phase::Open(endpoint) = phase else {
            return;
        };
        relay.container_finished |= endpoint.container_finished();
        if relay.ended(endpoint) == Some(Close::Reset) {
            return self.tcp_drop(id, Close::Reset, host);
        }

        let mut failed = false;
        let mut budget_left = PUMP_BUDGET;

        while relay.host_writable && endpoint.to_host() > 0 {
            let io = endpoint.drain(|data| {
                let io = host.tcp_send(id, data);
                let taken = if let Io::Done(n) = io {
                    n.min(data.len())
                } else {
                    0
                };
                if taken < data.len() {
                    relay.host_writable = false;
                }
                (taken, io)
            });
            match io {
                Some(Io::Done(n)) => self.stats.tcp_bytes_up += n as u64,
                Some(Io::WouldBlock) => {}
                Some(Io::Closed | Io::Failed(_)) => failed = true,
                None => break,
            }
        }
        if !failed && !relay.host_shut && relay.container_finished && endpoint.to_host() == 0 {
            host.tcp_shutdown(id);
            relay.host_shut = true;
        }
        if relay.draining {
            if failed {
                self.tcp_drop(id, Close::Reset, host);
            } else if relay.host_shut {
                self.tcp_drop(id, Close::Orderly, host);
            }
            return;
        }

        // What came before a reset is still to be read, and worth reading.
        relay.host_readable |= failed;
        while relay.host_readable && !relay.host_finished && budget_left > 0 && endpoint.can_fill()
        {
            let read_closed = relay.host_read_closed;
            let io = endpoint.fill(|space| {
                let limit = space.len().min(budget_left);
                let io = host.tcp_receive(id, &mut space[..limit]);
                let put = if let Io::Done(n) = io {
                    n.min(limit)
                } else {
                    0
                };
                // A short read empties the socket, unless its end of stream is still to be read.
                if put < limit && !read_closed {
                    relay.host_readable = false;
                }
                (put, io)
            });
            match io {
                Some(Io::Done(n)) => {
                    self.stats.tcp_bytes_down += n as u64;
                    budget_left = budget_left.saturating_sub(n.max(1));
                }
                Some(Io::WouldBlock) => relay.host_readable = false,
                Some(Io::Closed) => relay.host_finished = true,
                Some(Io::Failed(_)) => {
                    failed = true;
                    break;
                }
                None => break,
            }
        }
        // In LAST-ACK smoltcp 0.14 is deaf to window updates: no data may be left then.
        if relay.host_finished && (endpoint.to_container() == 0 || !relay.container_finished) {
            endpoint.close();
        }
        self.engine.egress(endpoint, now, &self.link, host);
        if failed {
            endpoint.abort();
            self.engine.egress(endpoint, now, &self.link, host);
            return self.tcp_drop(id, Close::Reset, host);
        }
        match relay.ended(endpoint) {
            None => {}
            Some(Close::Orderly) if !relay.host_shut => {
                relay.draining = true;
                host.tcp_keepalive(id, HALF_CLOSED_IDLE, PROBE_INTERVAL);
                return;
            }
            Some(how) => return self.tcp_drop(id, how, host),
        }

        // More to read from the host, and room for it: come back after the others.
        let more = relay.host_readable && !relay.host_finished && endpoint.can_fill();
        if more && !std::mem::replace(&mut relay.queued, true) {
            self.again.push(id);
        }
        let owes = endpoint.to_container() > 0 || !endpoint.is_established();
        match (owes, relay.waiting_since) {
            (true, None) => {
                relay.waiting_since = Some(now);
                // smoltcp's probes would say nothing true while data is outstanding.
                relay.probing_since = None;
                endpoint.set_keep_alive(None);
            }
            (false, Some(_)) => relay.waiting_since = None,
            _ => {}
        }
        let mut engine_deadline = self.engine.deadline(endpoint, now);
        if engine_deadline.is_none()
            && endpoint.to_container() > 0
            && let Some((_, ack)) = &relay.shut_window
        {
            // A shut window can leave smoltcp 0.14 with unacknowledged data and no
            // timer: when it opens, and when a retransmission meets it shut. The
            // same acknowledgement once more starts its probe timer; three
            // repetitions, its fast retransmission. They are counted anew after
            // one with another window.
            let odd = ipv4::parse(ack)
                .ok()
                .and_then(|packet| with_odd_window(&packet, &mut relay.odd_window));
            if let Some(odd) = odd {
                self.engine.segment(endpoint, now, &odd, &self.link, host);
            }
            for _ in 0..4 {
                self.engine.segment(endpoint, now, ack, &self.link, host);
                if self.engine.deadline(endpoint, now).is_some() {
                    break;
                }
            }
            self.engine.egress(endpoint, now, &self.link, host);
            engine_deadline = self.engine.deadline(endpoint, now);
        }
        let mut deadline = relay.liveness_deadline(endpoint.is_established());
        if let Some(at) = engine_deadline {
            deadline = deadline.min(at);
        }
        self.timers.arm(&mut self.flows, id, deadline);
    }

    /// A deadline of the flow has passed.
    pub(crate) fn tcp_due<H: Host>(&mut self, now: Instant, id: FlowId, host: &mut H) {
        let Some((_, TcpFlow { phase, relay })) = self.flows.tcp_mut(id) else {
            return;
        };
        let Phase::Open(endpoint) = phase else {
            // Closing a socket in SYN-SENT says nothing, but ends the repetitions
            // of its SYN, which come at doubling intervals.
            let age = relay.last_heard - relay.opened;
            let patience = relay.last_heard + CONNECT_PATIENCE + age * 3;
            if now >= patience {
                self.tcp_drop(id, Close::Reset, host);
            } else {
                self.timers.arm(&mut self.flows, id, patience);
            }
            return;
        };
        if relay.draining {
            return;
        }
        if relay
            .probing_since
            .is_some_and(|since| relay.last_heard > since)
        {
            relay.probing_since = None;
            if !(relay.host_shut || relay.host_finished) {
                endpoint.set_keep_alive(None);
            }
        }
        if now >= relay.liveness_deadline(endpoint.is_established()) {
            if relay.waiting_since.or(relay.probing_since).is_some() {
                endpoint.abort();
                self.engine.egress(endpoint, now, &self.link, host);
                return self.tcp_drop(id, Close::Reset, host);
            }
            relay.probing_since = Some(now);
            endpoint.set_keep_alive(Some(PROBE_INTERVAL));
            host.tcp_keepalive(id, HALF_CLOSED_IDLE, PROBE_INTERVAL);
        }
        self.tcp_pump(now, id, host);
    }

    /// Forgets the flow and closes its host socket.
    fn tcp_drop<H: Host>(&mut self, id: FlowId, how: Close, host: &mut H) {
        let Some(Flow::Tcp(flow)) = self.flows.remove(id) else {
            return;
        };
        match flow.phase {
            Phase::Connecting { .. } => self.half_open -= 1,
            Phase::Open(endpoint) => self.engine.release(*endpoint),
        }
        host.close(id, how);
    }
}
