//! Deadlines of flows.
//!
//! # Theory of operation
//!
//! A binary heap with lazy deletion. A flow has at most one entry that counts;
//! its time is kept with the flow (`armed`). Most deadlines only ever move
//! later (every packet pushes an idle time-out on), so a later deadline leaves
//! the entry where it is: when it comes up, the flow is asked for its real
//! deadline and queued again. Only a deadline that moves *earlier* costs an
//! insertion, and no packet in the middle of a bulk transfer causes one.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use smoltcp::time::Instant;

use super::{FlowId, FlowTable};

#[derive(Debug, Default)]
pub(crate) struct TimerQueue {
    heap: BinaryHeap<Reverse<(Instant, FlowId)>>,
}

impl TimerQueue {
    /// When the earliest entry is due.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    /// Makes sure that `id` comes up no later than `at`.
    pub(crate) fn arm(&mut self, flows: &mut FlowTable, id: FlowId, at: Instant) {
        let Some(armed) = flows.armed(id) else { return };
        if armed.is_none_or(|due| at < due) {
            *armed = Some(at);
            self.heap.push(Reverse((at, id)));
        }
    }

    /// Takes one flow that is due; it has to be armed again.
    pub(crate) fn pop_due(&mut self, flows: &mut FlowTable, now: Instant) -> Option<FlowId> {
        while let Some(&Reverse((at, id))) = self.heap.peek() {
            if at > now {
                return None;
            }
            self.heap.pop();
            // Superseded entries and those of flows that are gone are skipped.
            if let Some(armed) = flows.armed(id)
                && *armed == Some(at)
            {
                *armed = None;
                return Some(id);
            }
        }
        None
    }
}
