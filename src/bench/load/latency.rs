//! The times of single transactions.

use std::time::Duration;

/// Every time, in nanoseconds; a time of more than 4 s counts as 4 s.
#[derive(Debug, Default)]
pub(super) struct Latencies(Vec<u32>);

impl Latencies {
    pub(super) fn add(&mut self, time: Duration) {
        self.0
            .push(u32::try_from(time.as_nanos()).unwrap_or(u32::MAX));
    }

    pub(super) fn len(&self) -> u64 {
        self.0.len() as u64
    }

    /// The median and the 99th percentile, microseconds, by nearest rank.
    pub(super) fn percentiles(mut self) -> Option<(f64, f64)> {
        self.0.sort_unstable();
        let at = |percent: usize| {
            let rank = (self.0.len() * percent).div_ceil(100).max(1);
            self.0.get(rank - 1).map(|&time| f64::from(time) / 1e3)
        };
        at(50).zip(at(99))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let mut times = Latencies::default();
        for microseconds in (1..=200).rev() {
            times.add(Duration::from_micros(microseconds));
        }
        assert_eq!(times.len(), 200);
        assert_eq!(times.percentiles(), Some((100.0, 198.0)));
    }

    #[test]
    fn few_or_none() {
        assert_eq!(Latencies::default().percentiles(), None);
        let mut one = Latencies::default();
        one.add(Duration::from_secs(9));
        assert_eq!(one.percentiles(), Some((4_294_967.295, 4_294_967.295)));
    }
}
