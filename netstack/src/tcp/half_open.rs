//! The budget of half-open connections: those whose host side is being opened, and
//! those whose handshake with the container is not complete.
//!
//! # Theory of operation
//!
//! Each of them costs a socket of the host and a place in the flow table, and none has
//! cost the container more than one frame, so their number is bounded. Beyond it a SYN
//! is refused with a reset; the host is not asked to connect, so a flood of SYNs
//! becomes no flood of the host's own. A connection that has been half-open for longer
//! than [`PATIENCE`] gives way to a new one and is reset in its place: what a flood
//! has left behind is in nobody's way soon after, long before its time is over.
//!
//! They are queued in the order in which they were opened. Those that have come to
//! something stay in the queue until they are at its head or outnumber the others.

use smoltcp::time::{Duration, Instant};

use crate::flow::FlowId;
use crate::host::Host;
use crate::stack::Stack;

/// How long a half-open connection is kept whatever else the container wants.
const PATIENCE: Duration = Duration::from_millis(500);
/// Places in the queue of those that are half-open no longer, whatever the number of
/// the others.
const SPARE: usize = 64;

impl Stack {
    /// Whether one more connection may be half-open; room is made where it can be.
    pub(super) fn half_open_room<H: Host>(&mut self, now: Instant, host: &mut H) -> bool {
        if self.half_open < self.config.limits.max_half_open {
            return true;
        }
        self.stats.over_half_open += 1;
        while let Some(&(since, id)) = self.half_open_queue.front() {
            let waits = self.is_half_open(id);
            if waits && now < since + PATIENCE {
                return false;
            }
            self.half_open_queue.pop_front();
            if waits {
                self.abort(id, host);
                return self.half_open < self.config.limits.max_half_open;
            }
        }
        false
    }

    /// A flow is half-open from now on.
    pub(super) fn half_open_begins(&mut self, now: Instant, id: FlowId) {
        self.half_open += 1;
        self.half_open_moves(now, id);
    }

    /// A half-open flow goes by this id from now on.
    pub(super) fn half_open_moves(&mut self, now: Instant, id: FlowId) {
        if self.half_open_queue.len() >= SPARE + 2 * self.half_open {
            let mut queue = std::mem::take(&mut self.half_open_queue);
            queue.retain(|(_, id)| self.is_half_open(*id));
            self.half_open_queue = queue;
        }
        self.half_open_queue.push_back((now, id));
    }

    fn is_half_open(&mut self, id: FlowId) -> bool {
        self.flows
            .tcp_mut(id)
            .is_some_and(|(_, flow)| flow.is_half_open())
    }
}
