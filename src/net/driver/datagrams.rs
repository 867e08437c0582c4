//! What comes by datagram sockets: datagrams, echo replies, and errors of both.

use std::io;
use std::os::fd::AsFd;

use netstack::FlowId;

use super::Driver;
use crate::errno::{Remedy, remedy_of};
use crate::net::errors::failure;
use crate::net::sockets::{FlowSocket, read_echo};
use crate::sys::udp::{self, RECEIVE_BATCH};

/// Batches of datagrams read from one socket in one turn, and errors.
const TURN_BATCHES: usize = 4;

impl Driver {
    pub(super) fn udp_ready(&mut self, now: netstack::Instant, flow: FlowId) {
        let mut failed = false;
        // The stack may close the socket on the way (DNS), so it is looked up each time.
        for _ in 0..TURN_BATCHES {
            let Some(FlowSocket::Udp(socket)) = self.host.get(flow) else {
                return;
            };
            let count = match self.inbox.receive(socket.as_fd()) {
                Ok(count) => count,
                Err(error) => match remedy_of(&error) {
                    Remedy::Now => continue,
                    Remedy::Event => return,
                    // A queued ICMP error as a rule; the next call gets what is behind it.
                    Remedy::Later | Remedy::None => {
                        tracing::trace!("datagram socket: {error}");
                        failed = true;
                        continue;
                    }
                },
            };
            failed = false;
            for message in self.inbox.messages() {
                let (from, payload) = (message.from, message.payload);
                if let Some(address) = message.to {
                    self.host.note_source(flow, from, address);
                }
                self.stack
                    .datagram(now, flow, from, payload, message.segment, &mut self.host);
            }
            if count < RECEIVE_BATCH {
                return;
            }
        }
        // There may be more, which no event will announce.
        if failed {
            self.host.stall(flow);
        } else {
            self.again.push(flow);
        }
    }

    pub(super) fn udp_errors(&mut self, flow: FlowId) {
        while let Some(FlowSocket::Udp(socket)) = self.host.get(flow) {
            match udp::receive_error(socket.as_fd(), &mut []) {
                Ok(Some(error)) if error.icmp.is_some() => {
                    let (to, failure) = (error.to, failure(&error));
                    self.stack
                        .datagram_failed(self.now, flow, to, failure, &mut self.host);
                }
                // One of this host is known since the datagram was not sent.
                Ok(_) => {}
                Err(error) if self.may_read_on(flow, &error) => {}
                Err(_) => return,
            }
        }
    }

    /// Whether queued errors are to be read on at once after this one of the call itself;
    /// they may be later.
    fn may_read_on(&mut self, flow: FlowId, error: &io::Error) -> bool {
        match remedy_of(error) {
            Remedy::Now => true,
            Remedy::Event => false,
            Remedy::Later | Remedy::None => {
                tracing::debug!("errors of datagrams: {error}");
                self.host.stall(flow);
                false
            }
        }
    }

    pub(super) fn echo_errors(&mut self, flow: FlowId) {
        // Identifier and sequence number are in the first 8 bytes of what was sent.
        let mut sent = [0; 8];
        while let Some(FlowSocket::Echo(socket)) = self.host.get(flow) {
            match udp::receive_error(socket.as_fd(), &mut sent) {
                Ok(Some(error)) if error.icmp.is_some() && error.quoted >= sent.len() => {
                    let seq = u16::from_be_bytes([sent[6], sent[7]]);
                    self.stack
                        .echo_failed(flow, seq, failure(&error), &mut self.host);
                }
                Ok(_) => {}
                Err(error) if self.may_read_on(flow, &error) => {}
                Err(_) => return,
            }
        }
    }

    pub(super) fn echo_ready(&mut self, now: netstack::Instant, flow: FlowId) {
        let mut failures = 0;
        while let Some(FlowSocket::Echo(socket)) = self.host.get(flow) {
            match read_echo(socket, &mut self.echo) {
                Ok(Some((seq, payload))) => {
                    self.stack
                        .echo_reply(now, flow, seq, payload, &mut self.host);
                }
                Ok(None) => {}
                Err(error) => match remedy_of(&error) {
                    Remedy::Now => {}
                    Remedy::Event => return,
                    // As with datagrams: replies are behind it.
                    Remedy::Later | Remedy::None => {
                        tracing::trace!("ping socket: {error}");
                        failures += 1;
                        if failures == TURN_BATCHES {
                            return self.host.stall(flow);
                        }
                    }
                },
            }
        }
    }
}
