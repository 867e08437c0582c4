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
//! Superseded entries are swept out when they outnumber the flows by far.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use smoltcp::time::Instant;

use super::{FlowId, FlowTable};

/// Superseded entries that are left alone, whatever the number of flows.
const SPARE: usize = 64;

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
            if self.heap.len() > SPARE + 4 * flows.len() {
                self.heap.retain(|Reverse((at, id))| {
                    flows.armed(*id).is_some_and(|due| *due == Some(*at))
                });
            }
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

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use smoltcp::time::Duration;

    use super::super::{Flow, FlowKey, Protocol};
    use super::*;
    use crate::icmp::EchoFlow;

    #[test]
    fn superseded_entries_do_not_pile_up() {
        let mut flows = FlowTable::new(10);
        let mut timers = TimerQueue::default();
        let at = SocketAddr::from(([10, 0, 2, 100], 1));
        let key = FlowKey::new(Protocol::Echo, at, at);
        let id = flows
            .insert(key, Flow::Echo(EchoFlow::new(Instant::ZERO)))
            .unwrap();
        let mut now = Instant::ZERO;
        for _ in 0..10_000 {
            timers.arm(&mut flows, id, now + Duration::from_secs(7200));
            timers.arm(&mut flows, id, now + Duration::from_millis(200));
            now += Duration::from_millis(200);
            assert_eq!(timers.pop_due(&mut flows, now), Some(id));
        }
        assert!(timers.heap.len() <= SPARE + 4, "{}", timers.heap.len());
        timers.arm(&mut flows, id, now);
        assert_eq!(timers.pop_due(&mut flows, now), Some(id));
    }
}
