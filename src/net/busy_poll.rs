//! How long to look for events before sleeping.
//!
//! # Theory of operation
//!
//! Somebody who has just got an answer often asks again at once. To sleep in
//! between costs both a wake-up of a processor, which takes longer than the
//! whole exchange (tens of microseconds, more in a virtual machine). So after a
//! turn that moved little, the loop looks for events for a while before it
//! sleeps, as a socket does with `SO_BUSY_POLL` and KVM with `halt_poll_ns`.
//!
//! It has to pay: the time grows while events come within it, and shrinks to
//! nothing when they do not, so an idle container costs nothing. It is never
//! done after a turn that moved much (bulk transfers wait for work, not for each
//! other), nor on a single processor, which whoever is to send the event needs.

use std::time::Duration;

use netstack::Stats;

/// Where growth begins.
const FIRST: Duration = Duration::from_micros(8);
/// A turn that moved more bytes, or more packets, is one of a bulk transfer.
const FEW_BYTES: u64 = 16 << 10;
const FEW_PACKETS: u64 = 32;

/// The state of one loop.
#[derive(Debug)]
pub(crate) struct BusyPoll {
    most: Duration,
    window: Duration,
    bytes: u64,
    packets: u64,
}

impl BusyPoll {
    /// Looks for at most `most` at a time; zero: never.
    pub(crate) fn new(most: Duration) -> Self {
        // An error means more processors than the mask of the call has bits.
        let single = rustix::thread::sched_getaffinity(None).is_ok_and(|set| set.count() == 1);
        Self::with(if single { Duration::ZERO } else { most })
    }

    fn with(most: Duration) -> Self {
        Self {
            most,
            window: Duration::ZERO,
            bytes: 0,
            packets: 0,
        }
    }

    /// How long to look before the sleep that is to come; `None` when it is never done.
    pub(crate) fn window(&mut self, stats: &Stats) -> Option<Duration> {
        if self.most.is_zero() {
            return None;
        }
        let bytes = stats.tcp_bytes_up + stats.tcp_bytes_down;
        let packets = stats.frames_in + stats.frames_out;
        let few = bytes - self.bytes <= FEW_BYTES && packets - self.packets <= FEW_PACKETS;
        (self.bytes, self.packets) = (bytes, packets);
        Some(if few { self.window } else { Duration::ZERO })
    }

    /// An event came after `took`, having been looked for or slept for.
    pub(crate) fn waited(&mut self, took: Duration) {
        // What was slept for came late by the wake-up itself.
        self.window = if took <= self.most * 2 {
            (self.window * 2).clamp(FIRST.min(self.most), self.most)
        } else if self.window > FIRST {
            self.window / 2
        } else {
            Duration::ZERO
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: Duration = Duration::from_micros(64);

    fn after(waits: &[u64]) -> Duration {
        let mut poll = BusyPoll::with(MOST);
        for micros in waits {
            poll.waited(Duration::from_micros(*micros));
        }
        poll.window(&Stats::default()).unwrap()
    }

    #[test]
    fn grows_while_it_pays_and_shrinks_to_nothing() {
        assert_eq!(after(&[]), Duration::ZERO);
        assert_eq!(after(&[1000]), Duration::ZERO);
        assert_eq!(after(&[60]), FIRST);
        assert_eq!(after(&[10; 10]), MOST);
        assert_eq!(after(&[10, 10, 10, 10, 10, 1000]), MOST / 2);
        assert_eq!(after(&[10, 10, 10, 1000, 1000, 1000]), Duration::ZERO);
    }

    #[test]
    fn not_for_bulk_and_not_when_switched_off() {
        let mut poll = BusyPoll::with(MOST);
        poll.waited(Duration::from_micros(1));
        let mut stats = Stats {
            tcp_bytes_up: FEW_BYTES + 1,
            ..Stats::default()
        };
        assert_eq!(poll.window(&stats), Some(Duration::ZERO));
        assert_eq!(poll.window(&stats), Some(FIRST));
        stats.frames_in += FEW_PACKETS + 1;
        assert_eq!(poll.window(&stats), Some(Duration::ZERO));
        let mut off = BusyPoll::with(Duration::ZERO);
        assert_eq!(off.window(&Stats::default()), None);
    }
}
