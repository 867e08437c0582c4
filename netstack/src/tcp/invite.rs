//! Connections that begin on the host's side: a client has connected to a
//! published port, and the container is asked whether it takes the connection.
//!
//! # Theory of operation
//!
//! The client's connection stands already, with the host's kernel. The container
//! is sent a SYN with the client's own address; its SYN-ACK makes an endpoint
//! (RFC 9293, 3.10.7.3), a reset or a minute of silence closes the client's
//! connection with a reset. What the client sends meanwhile waits in its socket.

use std::net::{IpAddr, SocketAddr};

use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{TcpControl, TcpPacket};

use super::connect::{initial_sequence_number, with_held};
use super::endpoint::Endpoint;
use super::receiver::SCALE;
use super::segment::{self, Segment, SynOptions, refuse};
use super::seq::Seq;
use super::{Phase, SILENCE, TcpFlow, rtt};
use crate::fault::{Fault, is_planted};
use crate::flow::{Flow, FlowId, FlowKey, Protocol};
use crate::host::{Close, Host};
use crate::ip;
use crate::stack::Stack;

/// Other ports that are tried for a client that is shown by another address than its own.
const OTHER_PORTS: u16 = 16;

/// The client's port, and then others, none of a server's.
fn other_port(port: u16, n: u16) -> u16 {
    const STEP: u16 = 7919;
    if n == 0 {
        port
    } else {
        port.wrapping_add(n.wrapping_mul(STEP)) | 1 << 15
    }
}

/// A SYN of ours that the container has not answered.
#[derive(Debug)]
pub(super) struct Invitation {
    iss: Seq,
    /// Until the next repetition; doubles each time (RFC 6298, 5.5).
    timeout: Duration,
    due: Instant,
}

impl Stack {
    /// A client has connected to a published port that leads to `to`. The flow
    /// is the one of its socket from now on; `None` when there are too many, or
    /// one from the same address and port.
    pub fn accept<H: Host>(
        &mut self,
        now: Instant,
        client: SocketAddr,
        to: SocketAddr,
        host: &mut H,
    ) -> Option<FlowId> {
        let shown = self.shown(client.ip().to_canonical(), to.ip())?;
        let key = |port| FlowKey::new(Protocol::Tcp, to, (shown, port).into());
        // Clients with different addresses may be shown as one.
        let others = if shown == client.ip().to_canonical() {
            0
        } else {
            OTHER_PORTS
        };
        let mut keys = (0..=others).map(|n| key(other_port(client.port(), n)));
        let Some(key) = keys.find(|key| self.flows.find(key).is_none()) else {
            self.stats.over_limit += 1;
            return None;
        };
        if !self.half_open_room(now, host) {
            return None;
        }
        self.make_room(now, host);
        let invitation = Invitation {
            iss: initial_sequence_number(self.config.seed, &key, now),
            timeout: rtt::LEAST,
            due: now + rtt::LEAST,
        };
        let due = invitation.due;
        let flow = TcpFlow::invited(invitation, now);
        let Some(id) = self.flows.insert(key, Flow::Tcp(Box::new(flow))) else {
            self.stats.over_limit += 1;
            return None;
        };
        self.half_open_begins(now, id);
        self.timers.arm(&mut self.flows, id, due);
        self.tcp_invite(id, host);
        Some(id)
    }

    /// The owner cannot serve the flow: the container is told, and it is forgotten.
    pub fn abort<H: Host>(&mut self, id: FlowId, host: &mut H) {
        let Some((key, TcpFlow { phase, .. })) = self.flows.tcp_mut(id) else {
            return;
        };
        match phase {
            Phase::Open(endpoint) => endpoint.abort(&key, &mut self.link, host),
            Phase::Inviting(invitation) => {
                let mut reset = segment::header(&key, invitation.iss + 1, None, 0);
                reset.control = TcpControl::Rst;
                segment::transmit(&mut self.link, host, &key, &reset, [&[], &[]], 0);
            }
            Phase::Connecting { syn } => {
                let link = &mut self.link;
                with_held(syn, |view| refuse(link, host, &key, &Segment::new(view)));
            }
        }
        self.tcp_drop(id, Close::Reset, host);
    }

    /// Sends the SYN of an invitation.
    fn tcp_invite<H: Host>(&mut self, id: FlowId, host: &mut H) {
        let Some((key, TcpFlow { phase, .. })) = self.flows.tcp_mut(id) else {
            return;
        };
        let Phase::Inviting(invitation) = phase else {
            return;
        };
        let window = ip::len16(self.rings.size());
        let mut syn = segment::header(&key, invitation.iss, None, window);
        syn.control = TcpControl::Syn;
        syn.max_seg_size = Some(segment::room(self.link.config, key.container.ip()));
        syn.window_scale = Some(SCALE);
        syn.sack_permitted = true;
        segment::transmit(&mut self.link, host, &key, &syn, [&[], &[]], 0);
    }

    /// The time of the last SYN is over.
    pub(super) fn tcp_invitation_due<H: Host>(&mut self, now: Instant, id: FlowId, host: &mut H) {
        let Some((_, TcpFlow { phase, relay })) = self.flows.tcp_mut(id) else {
            return;
        };
        let Phase::Inviting(invitation) = phase else {
            return;
        };
        if now >= relay.opened + SILENCE {
            return self.tcp_drop(id, Close::Reset, host);
        }
        let again = now >= invitation.due;
        if again {
            invitation.timeout *= 2;
            invitation.due = now + invitation.timeout;
        }
        let due = invitation.due.min(relay.opened + SILENCE);
        self.timers.arm(&mut self.flows, id, due);
        if again {
            self.tcp_invite(id, host);
        }
    }

    /// The container's ICMP says that it takes no segment like the one with this sequence
    /// number. Where that is a SYN, the connection is given up, as Linux does (RFC 5461).
    pub(crate) fn tcp_unwanted<H: Host>(&mut self, key: &FlowKey, sequence: u32, host: &mut H) {
        let Some(id) = self.flows.find(key) else {
            return;
        };
        if let Some((_, flow)) = self.flows.tcp_mut(id)
            && let Phase::Inviting(invitation) = &flow.phase
            && invitation.iss == Seq::new(sequence)
        {
            self.tcp_drop(id, Close::Reset, host);
        }
    }

    /// The container answers an invitation.
    pub(super) fn tcp_invited<H: Host>(
        &mut self,
        now: Instant,
        id: FlowId,
        packet: &ip::Packet<'_>,
        segment: &Segment<'_>,
        host: &mut H,
    ) {
        let Some((key, TcpFlow { phase, relay })) = self.flows.tcp_mut(id) else {
            return;
        };
        let Phase::Inviting(invitation) = phase else {
            return;
        };
        let iss = invitation.iss;
        match segment.ack {
            Some(ack) if ack != iss + 1 => refuse(&mut self.link, host, &key, segment),
            Some(_) if segment.rst && is_planted(Fault::Leak) => {
                self.flows.remove(id);
                self.half_open -= 1;
            }
            Some(_) if segment.rst => self.tcp_drop(id, Close::Reset, host),
            Some(_) if segment.syn => {
                let Ok(view) = TcpPacket::new_checked(packet.payload) else {
                    return;
                };
                let options = SynOptions::new(&view);
                let container: IpAddr = key.container.ip();
                let (link, rings) = (&self.link, &self.rings);
                *phase = Phase::Open(Endpoint::invited(
                    now, segment, &options, iss, container, link, rings,
                ));
                relay.last_heard = now;
                relay.host_writable = true;
                self.tcp_pump(now, id, host);
            }
            // A SYN of its own: nobody opens both ends at once on purpose.
            Some(_) | None => {}
        }
    }
}
