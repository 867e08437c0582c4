//! What a flow knows of its two sides, apart from the container's TCP itself.

use smoltcp::time::Instant;
use smoltcp::wire::TcpSeqNumber;

use super::engine::Endpoint;
use super::{ESTABLISHED_IDLE, HALF_CLOSED_IDLE, SILENCE, UNACKNOWLEDGED};
use crate::host::Close;

/// What is known of both sides.
#[derive(Debug)]
pub(super) struct Relay {
    /// The next resolver to try, for a connection to the DNS forwarder.
    pub(super) resolver: Option<usize>,
    pub(super) host_readable: bool,
    pub(super) host_writable: bool,
    /// The host's end of stream is in the socket's queue.
    pub(super) host_read_closed: bool,
    /// The host's end of stream was read.
    pub(super) host_finished: bool,
    /// The container's end of stream was received.
    pub(super) container_finished: bool,
    /// Both directions have ended on the container's side; what is left in the
    /// ring is for the host.
    pub(super) draining: bool,
    /// Our direction to the host has been shut down.
    pub(super) host_shut: bool,
    /// The flow waits for another turn.
    pub(super) queued: bool,
    /// When the container began to connect.
    pub(super) opened: Instant,
    /// When the container was last heard.
    pub(super) last_heard: Instant,
    /// The window last shown to an endpoint that has no more use for one.
    pub(super) odd_window: u16,
    /// The container's latest acknowledgement since it shut its window, until
    /// one with a window has taken effect; see the pump.
    pub(super) shut_window: Option<(TcpSeqNumber, Box<[u8]>)>,
    /// Since when the container owes an answer.
    pub(super) waiting_since: Option<Instant>,
    /// Since when an idle flow is probed.
    pub(super) probing_since: Option<Instant>,
}

impl Relay {
    pub(super) fn new(resolver: Option<usize>, now: Instant) -> Self {
        Self {
            resolver,
            host_readable: false,
            host_writable: false,
            host_read_closed: false,
            host_finished: false,
            container_finished: false,
            draining: false,
            host_shut: false,
            queued: false,
            opened: now,
            last_heard: now,
            odd_window: 0,
            shut_window: None,
            waiting_since: None,
            probing_since: None,
        }
    }

    /// How the connection with the container has ended, if it has.
    pub(super) fn ended(&self, endpoint: &Endpoint) -> Option<Close> {
        let last_ack = endpoint.is_gone()
            && self.container_finished
            && self.host_finished
            && endpoint.to_container() == 0;
        if last_ack || endpoint.is_finished() {
            Some(Close::Orderly)
        } else if endpoint.is_gone() {
            Some(Close::Reset)
        } else {
            None
        }
    }

    /// When the flow's liveness has to be looked at.
    pub(super) fn liveness_deadline(&self, established: bool) -> Instant {
        if let Some(since) = self.waiting_since {
            let patience = if established { UNACKNOWLEDGED } else { SILENCE };
            since.max(self.last_heard) + patience
        } else if let Some(since) = self.probing_since {
            since.max(self.last_heard) + SILENCE
        } else if self.host_shut || self.host_finished {
            self.last_heard + HALF_CLOSED_IDLE
        } else {
            self.last_heard + ESTABLISHED_IDLE
        }
    }
}
