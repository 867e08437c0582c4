//! What a flow knows of its two sides, apart from the container's TCP itself.

use smoltcp::time::Instant;

use super::connect::RESOLVER_PATIENCE;
use super::endpoint::Endpoint;
use super::{
    ESTABLISHED_IDLE, FIN_UNACKNOWLEDGED, HALF_CLOSED_IDLE, PROBE_INTERVAL, SILENCE, UNACKNOWLEDGED,
};
use crate::dns::Gate;

/// What is known of both sides.
#[derive(Debug)]
pub(super) struct Relay {
    /// The connection counts as half-open.
    pub(super) half_open: bool,
    /// The next resolver to try, for a connection to the DNS forwarder.
    pub(super) resolver: Option<u8>,
    /// It began on the host's side.
    pub(super) inbound: bool,
    /// What looks at the messages of a connection to the DNS forwarder.
    pub(super) gate: Option<Box<Gate>>,
    pub(super) host_readable: bool,
    pub(super) host_writable: bool,
    /// The host's end of stream is in the socket's queue, or short reads mean
    /// nothing for another reason.
    pub(super) host_read_closed: bool,
    /// The host's end of stream was read.
    pub(super) host_finished: bool,
    /// The host's socket has failed.
    pub(super) host_failed: bool,
    /// It is said to have; a call would be told only where the far end has not ended
    /// its direction before.
    pub(super) host_broken: bool,
    /// Both directions have ended on the container's side; what is left in the
    /// stash is for the host.
    pub(super) draining: bool,
    /// Our direction to the host has been shut down.
    pub(super) host_shut: bool,
    /// The flow waits for another turn.
    pub(super) queued: bool,
    /// Payload that has gone to the host, and come from it, bytes.
    pub(super) bytes_up: u64,
    pub(super) bytes_down: u64,
    /// When the container began to connect.
    pub(super) opened: Instant,
    /// When the container was last heard.
    pub(super) last_heard: Instant,
    /// Since when the container owes an answer.
    pub(super) waiting_since: Option<Instant>,
    /// Since when an idle flow is probed, and when it was last.
    pub(super) probing: Option<(Instant, Instant)>,
}

impl Relay {
    pub(super) fn new(resolver: Option<u8>, now: Instant) -> Self {
        Self {
            half_open: true,
            resolver,
            inbound: false,
            gate: None,
            host_readable: false,
            host_writable: false,
            host_read_closed: false,
            host_finished: false,
            host_failed: false,
            host_broken: false,
            draining: false,
            host_shut: false,
            queued: false,
            bytes_up: 0,
            bytes_down: 0,
            opened: now,
            last_heard: now,
            waiting_since: None,
            probing: None,
        }
    }

    /// When the next of so many resolvers is tried, if there is one: each of those
    /// before may take its time, or leave it to the others.
    pub(super) fn next_resolver_at(&self, resolvers: usize) -> Option<Instant> {
        let next = self
            .resolver
            .filter(|next| usize::from(*next) < resolvers)?;
        Some(self.opened + RESOLVER_PATIENCE * u32::from(next))
    }

    /// When a container that owes an answer is taken for lost.
    pub(super) fn lost_at(&self, endpoint: &Endpoint) -> Option<Instant> {
        if let Some(since) = self.waiting_since {
            let patience = if !endpoint.is_established() {
                SILENCE
            } else if endpoint.owed_only_fin() {
                FIN_UNACKNOWLEDGED
            } else {
                UNACKNOWLEDGED
            };
            Some(since.max(self.last_heard) + patience)
        } else {
            self.probing
                .map(|(since, _)| since.max(self.last_heard) + SILENCE)
        }
    }

    /// When a container that owes nothing is probed.
    pub(super) fn probe_at(&self) -> Option<Instant> {
        if self.waiting_since.is_some() {
            None
        } else if let Some((_, last)) = self.probing {
            Some(last + PROBE_INTERVAL)
        } else if self.host_shut || self.host_finished {
            Some(self.last_heard + HALF_CLOSED_IDLE)
        } else {
            Some(self.last_heard + ESTABLISHED_IDLE)
        }
    }

    /// When the flow has to be looked at next.
    pub(super) fn deadline(&self, endpoint: &Endpoint) -> Option<Instant> {
        [self.lost_at(endpoint), self.probe_at(), endpoint.deadline()]
            .into_iter()
            .flatten()
            .min()
    }
}
