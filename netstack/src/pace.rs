//! The budget of frames in a second.
//!
//! # Theory of operation
//!
//! A token bucket: it holds as many tokens as frames are allowed in a second, is full
//! at first, and fills up evenly. A frame takes one; without one it is lost, unanswered,
//! as on a link of that speed. A reset or an ICMP error would cost as much as what it
//! refuses, and would end what a moment's delay does not: every protocol repeats what
//! is lost, and TCP slows down to what gets through.
//!
//! All frames count, not those of new flows alone: how many of those there are the
//! other budgets bound.

use std::num::NonZeroU32;

use smoltcp::time::Instant;

/// Parts of a token. The bucket fills by the rate in each microsecond.
const PARTS: u64 = 1_000_000;

#[derive(Debug)]
pub(crate) struct Pace {
    rate: u64,
    parts: u64,
    filled: Instant,
}

impl Pace {
    pub(crate) fn new(rate: NonZeroU32) -> Self {
        let rate = u64::from(rate.get());
        Self {
            rate,
            parts: rate * PARTS,
            filled: Instant::ZERO,
        }
    }

    /// Whether one more frame is within the budget.
    pub(crate) fn admits(&mut self, now: Instant) -> bool {
        let most = self.rate * PARTS;
        if now > self.filled {
            let passed = (now - self.filled).total_micros();
            self.parts = passed
                .saturating_mul(self.rate)
                .saturating_add(self.parts)
                .min(most);
            self.filled = now;
        }
        match self.parts.checked_sub(PARTS) {
            Some(left) => self.parts = left,
            None => return false,
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use smoltcp::time::Duration;

    use super::*;

    fn admitted(pace: &mut Pace, now: Instant, tries: u32) -> u32 {
        (0..tries).map(|_| u32::from(pace.admits(now))).sum()
    }

    #[test]
    fn a_second_s_worth_at_once_then_the_rate() {
        for rate in [1, 7, 1000, u32::MAX] {
            let mut pace = Pace::new(NonZeroU32::new(rate).unwrap());
            let mut now = Instant::from_secs(5);
            assert_eq!(admitted(&mut pace, now, 2000), rate.min(2000));
            // However short the pauses, nothing of them is lost.
            let mut count = 0;
            for _ in 0..30_000 {
                now += Duration::from_micros(333);
                count += admitted(&mut pace, now, 1);
            }
            let most = u64::from(rate) * 9_990_000 / PARTS;
            let most = u32::try_from(most.min(30_000)).unwrap();
            assert!(
                count == most || count == most + 1 || most == 30_000,
                "{count} at {rate}"
            );
            // Nor is anything gained by a long one, or by a clock that goes back.
            now += Duration::from_secs(1000);
            assert_eq!(admitted(&mut pace, now, 2000), rate.min(2000));
            if rate < 2000 {
                let earlier = Instant::from_secs(1);
                assert_eq!(admitted(&mut pace, earlier, 2000), 0);
            }
        }
    }
}
