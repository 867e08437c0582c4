//! TCP: a connection with the container on one side, a host socket on the other.
//!
//! # Theory of operation
//!
//! **Opening.** A SYN to an allowed destination makes a flow in
//! [`Phase::Connecting`] that holds nothing but the SYN itself; the host is asked
//! to connect. Only when the host connection stands does the flow get an
//! endpoint, which is shown the SYN and answers it. A refused connection becomes
//! a RST, an unreachable one the ICMP error that the container's own kernel
//! would have got, a timed-out one that of a host that does not answer.
//!
//! A connection that begins on the host's side goes the other way round
//! ([`invite`]).
//!
//! **Moving data.** Segments of the container that are in order are gathered for
//! the length of one call ([`Bursts`]) and go to the host's socket out of their
//! frames, in one call for each flow. What the socket does not take, and what
//! comes ahead of a missing segment, waits in the flow's stash. After that, and
//! after each other segment and each readiness event of the host socket, the flow
//! is *pumped*: stash → host socket until the socket is full, host socket → ring
//! until the ring is full, then everything that the endpoint has to say goes out.
//! Readiness is edge-triggered and remembered per flow, so no system call is made
//! that is known to fail. Backpressure needs no rule of its own: the stash's free
//! space is the window, and a full ring leaves data in the host's socket buffer.
//!
//! **Closing.** The two directions end one after the other, each when its data
//! is through: a FIN of the container becomes `SHUT_WR` once the stash is empty,
//! end of stream from the host becomes a FIN behind the last byte. A reset on one
//! side becomes a reset on the other, except that of a container which has ended its
//! direction and forgotten the connection since ([`Close::Forgotten`]). A flow whose
//! directions have both ended is dropped (no TIME-WAIT: the kernel on either side
//! keeps one) as soon as the host has taken what is left in the stash.
//!
//! **Liveness.** A half-closed flow is probed on both sides after
//! [`HALF_CLOSED_IDLE`]; an established one after [`ESTABLISHED_IDLE`] (RFC 9293,
//! 3.8.4). A container that answers no probe for [`SILENCE`], or no retransmission
//! for [`UNACKNOWLEDGED`], loses the flow.
//!
//! The parts: [`segment`] reads and writes headers, [`endpoint`] is our end of the
//! connection, made of a [`sender`] (with its [`recovery`] and [`rtt`]) and a
//! [`receiver`]; [`relay`] is what is known beyond TCP; [`rings`] is the memory.

mod burst;
mod connect;
mod endpoint;
mod half_open;
mod invite;
mod receiver;
mod recovery;
mod relay;
mod rings;
mod rtt;
mod segment;
mod sender;
mod seq;

use std::io::IoSlice;

use smoltcp::time::{Duration, Instant};
use smoltcp::wire::TcpPacket;

pub(crate) use burst::{Burst, Bursts};
use connect::{CONNECT_PATIENCE, MOST_PATIENCE};
use endpoint::{Arrival, Endpoint};
use invite::Invitation;
use relay::Relay;
pub(crate) use rings::Rings;
use segment::{Segment, refuse, without_payload};

use crate::flow::{Flow, FlowId, FlowInfo, FlowKey, Protocol};
use crate::host::{Close, Host, Io, Readiness};
use crate::ip;
use crate::link::RxChecksum;
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
/// back off to one a minute: one of them may be lost.
const UNACKNOWLEDGED: Duration = Duration::from_secs(130);
/// The same when that is an acknowledgement of our FIN, and of nothing else.
const FIN_UNACKNOWLEDGED: Duration = Duration::from_secs(100);
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
#[expect(
    clippy::large_enum_variant,
    reason = "the flow is boxed, and connects for a moment only"
)]
enum Phase {
    /// The host is connecting; the SYN waits.
    Connecting { syn: Box<[u8]> },
    /// The host's side stands; the container has not answered.
    Inviting(Invitation),
    /// Both sides stand.
    Open(Endpoint),
}

impl TcpFlow {
    fn new(syn: Box<[u8]>, resolver: Option<u8>, now: Instant) -> Self {
        Self {
            phase: Phase::Connecting { syn },
            relay: Relay::new(resolver, now),
        }
    }

    fn invited(invitation: Invitation, now: Instant) -> Self {
        let mut relay = Relay::new(None, now);
        relay.inbound = true;
        Self {
            phase: Phase::Inviting(invitation),
            relay,
        }
    }

    /// The host's side or the handshake with the container is not complete.
    pub(crate) fn is_half_open(&self) -> bool {
        self.relay.half_open
    }

    /// The flow gets the turn that it waited for.
    pub(crate) fn dequeued(&mut self) {
        self.relay.queued = false;
    }

    /// What there is to tell about it.
    pub(crate) fn info(&self, key: &FlowKey, now: Instant) -> Option<FlowInfo> {
        let state = match &self.phase {
            Phase::Connecting { .. } => "CONNECTING",
            Phase::Inviting(_) => "SYN-SENT",
            Phase::Open(endpoint) => endpoint.state(),
        };
        Some(FlowInfo {
            protocol: key.protocol,
            container: key.container,
            remote: key.remote?,
            state,
            age: now - self.relay.opened,
            bytes_up: self.relay.bytes_up,
            bytes_down: self.relay.bytes_down,
        })
    }

    pub(crate) fn begun_inside(&self) -> bool {
        !self.relay.inbound
    }

    /// Both sides stand, and the host has not been told the container's end of stream.
    pub(crate) fn is_sending(&self) -> bool {
        matches!(self.phase, Phase::Open(_)) && !self.relay.host_shut
    }
}

impl Stack {
    /// A TCP segment from the container. Payload may be left in `bursts`, which
    /// go to the host with [`Stack::tcp_burst`].
    pub(crate) fn tcp_input<'f, H: Host>(
        &mut self,
        now: Instant,
        packet: &ip::Packet<'f>,
        checksum: RxChecksum,
        bursts: &mut Bursts<'f>,
        host: &mut H,
    ) {
        let Ok(view) = TcpPacket::new_checked(packet.payload) else {
            self.stats.dropped += 1;
            return;
        };
        if checksum == RxChecksum::Present && !packet.is_intact() {
            self.stats.dropped += 1;
            return;
        }
        let key = FlowKey::new(
            Protocol::Tcp,
            (packet.source, view.src_port()).into(),
            (packet.destination, view.dst_port()).into(),
        );
        let segment = Segment::new(&view);
        let known = self.flows.find(&key);
        if let Some(id) = known.filter(|id| !segment.opens() || !self.tcp_makes_way(*id)) {
            self.tcp_segment(now, id, packet, &segment, bursts, host);
        } else if segment.opens() {
            self.tcp_open(now, key, packet, &segment, host);
        } else if self.is_somebody(packet.destination) {
            refuse(&mut self.link, host, &key, &segment);
        } else {
            self.stats.dropped += 1;
        }
    }

    /// Whether the connection is over for the container, which may begin another between
    /// the same ends; this one only gives the host the rest then.
    fn tcp_makes_way(&mut self, id: FlowId) -> bool {
        let over = self
            .flows
            .tcp_mut(id)
            .is_some_and(|(_, flow)| flow.relay.draining);
        if over {
            self.flows.unname(id);
        }
        over
    }

    fn tcp_segment<'f, H: Host>(
        &mut self,
        now: Instant,
        id: FlowId,
        packet: &ip::Packet<'f>,
        segment: &Segment<'f>,
        bursts: &mut Bursts<'f>,
        host: &mut H,
    ) {
        let Some((_, TcpFlow { phase, relay })) = self.flows.tcp_mut(id) else {
            return;
        };
        if let Phase::Open(endpoint) = phase
            && relay.host_writable
            && !relay.draining
            && relay.gate.is_none()
            && endpoint.is_next(now, segment, bursts.len(id))
        {
            relay.last_heard = now;
            if let Some(burst) = bursts.push(id, segment.payload) {
                self.tcp_burst(now, &burst, host);
            }
            return;
        }
        if let Some(burst) = bursts.take(id) {
            self.tcp_burst(now, &burst, host);
        }
        let Some((key, TcpFlow { phase, relay })) = self.flows.tcp_mut(id) else {
            return;
        };
        match phase {
            Phase::Open(endpoint) => {
                relay.last_heard = now;
                match endpoint.segment(now, segment, &mut self.rings) {
                    Arrival::Looked => self.tcp_pump(now, id, host),
                    // To the container the connection is over, and all of its data
                    // acknowledged: a reset answers a late repetition of ours.
                    Arrival::Reset if relay.draining => {}
                    // It has closed its socket and forgotten it since (`tcp_fin_timeout`),
                    // and learns by our probe that we have not. All that it has sent is on
                    // its way, and stays so.
                    Arrival::Reset if relay.host_shut && relay.probing.is_some() => {
                        self.tcp_drop(id, Close::Forgotten, host);
                    }
                    Arrival::Reset => self.tcp_drop(id, Close::Reset, host),
                    Arrival::Refused => refuse(&mut self.link, host, &key, segment),
                }
            }
            Phase::Inviting(_) => self.tcp_invited(now, id, packet, segment, host),
            // Closing a socket in SYN-SENT says nothing: a SYN that is not the
            // same again is a new connection from the same port.
            Phase::Connecting { syn } if segment.opens() => {
                if let Some(latest) = without_payload(packet) {
                    *syn = latest;
                }
                relay.last_heard = now;
            }
            Phase::Connecting { .. } => {
                // The container has given up on the connection.
                self.tcp_drop(id, Close::Reset, host);
                refuse(&mut self.link, host, &key, segment);
            }
        }
    }

    /// Gives the host what was gathered for it.
    pub(crate) fn tcp_burst<H: Host>(&mut self, now: Instant, burst: &Burst<'_>, host: &mut H) {
        let id = burst.flow();
        let Some((_, TcpFlow { phase, relay })) = self.flows.tcp_mut(id) else {
            return;
        };
        let Phase::Open(endpoint) = phase else { return };
        let io = if relay.host_writable && !relay.host_failed {
            host.tcp_send(id, burst.parts())
        } else {
            Io::WouldBlock
        };
        let taken = match io {
            Io::Done(n) => n.min(burst.len()),
            Io::WouldBlock => 0,
            Io::Closed | Io::Failed(_) => {
                relay.host_failed = true;
                0
            }
        };
        relay.host_writable &= taken == burst.len();
        relay.bytes_up += taken as u64;
        self.stats.tcp_bytes_up += taken as u64;
        endpoint.passed(now, taken, burst.parts(), &mut self.rings);
        self.tcp_pump(now, id, host);
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
        relay.host_broken |= ready.failed;
        self.tcp_pump(now, id, host);
    }

    /// Moves what can be moved, both ways, and sends what is to be sent.
    fn tcp_pump<H: Host>(&mut self, now: Instant, id: FlowId, host: &mut H) {
        let Some((key, TcpFlow { phase, relay })) = self.flows.tcp_mut(id) else {
            return;
        };
        let Phase::Open(endpoint) = phase else {
            return;
        };
        if relay.half_open && endpoint.is_established() {
            relay.half_open = false;
            self.half_open -= 1;
        }
        let mut gate = relay.gate.take();
        if let Some(gate) = gate.as_mut().filter(|gate| !gate.is_flushed()) {
            match gate.flush(id, host) {
                Io::Done(_) => {}
                Io::WouldBlock => relay.host_writable = false,
                Io::Closed | Io::Failed(_) => relay.host_failed = true,
            }
        }
        while relay.host_writable && !relay.host_failed && endpoint.to_host() > 0 {
            let io = endpoint.drain(|data| {
                let io = match &mut gate {
                    Some(gate) => gate.send(data, id, &mut self.egress, host),
                    None => host.tcp_send(id, &[IoSlice::new(data)]),
                };
                let taken = match io {
                    Io::Done(n) => n.min(data.len()),
                    _ => 0,
                };
                relay.host_writable &= match gate {
                    Some(_) => io != Io::WouldBlock,
                    None => taken == data.len(),
                };
                (taken, io)
            });
            match io {
                Some(Io::Done(n)) => {
                    relay.bytes_up += n as u64;
                    self.stats.tcp_bytes_up += n as u64;
                }
                Some(Io::WouldBlock) | None => {}
                Some(Io::Closed | Io::Failed(_)) => relay.host_failed = true,
            }
        }
        if !relay.host_failed
            && !relay.host_shut
            && endpoint.container_finished()
            && endpoint.to_host() == 0
            && gate.as_ref().is_none_or(|gate| gate.is_flushed())
        {
            host.tcp_shutdown(id);
            relay.host_shut = true;
        }

        // What came before a reset is still to be read, and worth reading.
        relay.host_readable |= relay.host_failed;
        relay.host_readable |= gate.as_ref().is_some_and(|gate| gate.has_answer());
        let mut budget = PUMP_BUDGET;
        let mut end = relay.host_failed;
        while relay.host_readable && !relay.host_finished && budget > 0 && endpoint.can_fill() {
            let io = endpoint.fill(&mut self.rings, |space| {
                let limit = space.len().min(budget);
                let io = match &mut gate {
                    Some(gate) => {
                        gate.receive(&mut space[..limit], now, id, &mut self.egress, host)
                    }
                    None => host.tcp_receive(id, &mut space[..limit]),
                };
                let put = match io {
                    Io::Done(n) => n.min(limit),
                    _ => 0,
                };
                // A short read empties the socket, unless its end of stream is still to be read.
                if put < limit && !relay.host_read_closed && gate.is_none() {
                    relay.host_readable = false;
                }
                (put, io)
            });
            let Some(io) = io else { break };
            match io {
                Io::Done(n) => {
                    relay.bytes_down += n as u64;
                    self.stats.tcp_bytes_down += n as u64;
                    budget = budget.saturating_sub(n.max(1));
                }
                Io::WouldBlock => relay.host_readable = false,
                // A kernel tells an error once: when a write was told, a read finds
                // an end that is none.
                Io::Closed if relay.host_failed => break,
                Io::Closed => relay.host_finished = true,
                Io::Failed(_) => {
                    end = true;
                    break;
                }
            }
        }
        relay.gate = gate;
        if relay.host_finished {
            endpoint.close();
        }
        endpoint.output(now, &key, &mut self.link, host);
        endpoint.tidy(&mut self.rings);
        // What came before is the container's first.
        end |= relay.host_broken && relay.host_finished && !endpoint.owed();
        if self.rings.has_refused() {
            self.stats.over_buffered += 1;
            end = true;
        }
        if end {
            endpoint.abort(&key, &mut self.link, host);
            return self.tcp_drop(id, Close::Reset, host);
        }
        if endpoint.is_finished() {
            if relay.host_shut {
                return self.tcp_drop(id, Close::Orderly, host);
            }
            if !std::mem::replace(&mut relay.draining, true) {
                host.tcp_keepalive(id, HALF_CLOSED_IDLE, PROBE_INTERVAL);
            }
            return;
        }

        // More to read from the host, and room for it: come back after the others.
        let more = relay.host_readable && !relay.host_finished && budget == 0;
        if more && !std::mem::replace(&mut relay.queued, true) {
            self.again.push(id);
        }
        if !endpoint.owed() {
            relay.waiting_since = None;
        } else if relay.waiting_since.is_none() {
            relay.waiting_since = Some(now);
            relay.probing = None;
        }
        if let Some(deadline) = relay.deadline(endpoint) {
            self.timers.arm(&mut self.flows, id, deadline);
        }
    }

    /// A deadline of the flow has passed.
    pub(crate) fn tcp_due<H: Host>(&mut self, now: Instant, id: FlowId, host: &mut H) {
        let Some((key, TcpFlow { phase, relay })) = self.flows.tcp_mut(id) else {
            return;
        };
        if let Phase::Inviting(_) = phase {
            return self.tcp_invitation_due(now, id, host);
        }
        let Phase::Open(endpoint) = phase else {
            // Closing a socket in SYN-SENT says nothing, but ends the repetitions
            // of its SYN, which come at doubling intervals.
            let age = relay.last_heard - relay.opened;
            let patience = relay.last_heard + (CONNECT_PATIENCE + age * 3).min(MOST_PATIENCE);
            let servers = self.forwarder.servers().len();
            let next = relay.next_resolver_at(servers);
            if now >= patience {
                self.tcp_drop(id, Close::Reset, host);
            } else if next.is_some_and(|at| now >= at) {
                self.tcp_next_resolver(now, key, id, host);
            } else {
                let due = next.map_or(patience, |at| at.min(patience));
                self.timers.arm(&mut self.flows, id, due);
            }
            return;
        };
        if relay.draining {
            return;
        }
        let answered = |(since, _): &mut (Instant, Instant)| relay.last_heard > *since;
        relay.probing.take_if(answered);
        if relay.lost_at(endpoint).is_some_and(|at| now >= at) {
            endpoint.abort(&key, &mut self.link, host);
            return self.tcp_drop(id, Close::Reset, host);
        }
        if relay.probe_at().is_some_and(|at| now >= at) {
            if relay.probing.is_none() {
                host.tcp_keepalive(id, HALF_CLOSED_IDLE, PROBE_INTERVAL);
            }
            let since = relay.probing.map_or(now, |(since, _)| since);
            relay.probing = Some((since, now));
            endpoint.probe();
        }
        endpoint.timer_due(now);
        self.tcp_pump(now, id, host);
    }

    /// Forgets the flow and closes its host socket.
    fn tcp_drop<H: Host>(&mut self, id: FlowId, how: Close, host: &mut H) {
        let Some(Flow::Tcp(flow)) = self.flows.remove(id) else {
            return;
        };
        if flow.relay.half_open {
            self.half_open -= 1;
        }
        if let Phase::Open(mut endpoint) = flow.phase {
            endpoint.release(&mut self.rings);
        }
        host.close(id, how);
    }
}
