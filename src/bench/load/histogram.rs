//! Times of transactions, of any number of them, in little room.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Parts of each power of two: a value is known to 6 %.
const PARTS: u32 = 16;

/// Counts of times, in classes of nearly the same length.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Histogram(BTreeMap<u32, u64>);

impl Histogram {
    /// Adds one time.
    pub fn add(&mut self, time: Duration) {
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        *self.0.entry(class(nanoseconds)).or_default() += 1;
    }

    /// Adds what another has counted.
    pub fn merge(&mut self, other: &Self) {
        for (&class, &count) in &other.0 {
            *self.0.entry(class).or_default() += count;
        }
    }

    /// How many there are.
    pub fn len(&self) -> u64 {
        self.0.values().sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The time that `share` (0 to 1) of all do not exceed, microseconds.
    #[allow(
        clippy::cast_precision_loss,
        reason = "counts of one run are far below 2^52"
    )]
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let wanted = self.len() as f64 * share;
        let mut counted = 0;
        let class = self.0.iter().find(|(_, count)| {
            counted += **count;
            counted as f64 >= wanted
        });
        class.map(|(&class, _)| upper_end(class) / 1e3)
    }
}

/// The class of a time in nanoseconds.
fn class(nanoseconds: u64) -> u32 {
    let least = u64::from(PARTS);
    let value = nanoseconds.max(least);
    let power = value.ilog2() - least.ilog2();
    // From PARTS up to below twice as many, after the shift.
    let part = u32::try_from((value >> power) - least).unwrap_or_default();
    power * PARTS + part
}

/// Where a class ends, nanoseconds.
fn upper_end(class: u32) -> f64 {
    f64::from(class % PARTS + PARTS + 1) * f64::from(class / PARTS).exp2()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_right_to_6_percent() {
        let mut times = Histogram::default();
        for microseconds in 1..=1000 {
            times.add(Duration::from_micros(microseconds));
        }
        for (share, expected) in [(0.5, 500.0), (0.99, 990.0), (1.0, 1000.0)] {
            let found = times.quantile(share).unwrap();
            assert!(
                (expected..expected * 1.07).contains(&found),
                "{share}: {found}"
            );
        }
        assert_eq!(times.len(), 1000);
    }

    #[test]
    fn extremes_and_nothing() {
        assert_eq!(Histogram::default().quantile(0.5), None);
        let mut times = Histogram::default();
        times.add(Duration::ZERO);
        times.add(Duration::from_secs(u64::MAX));
        assert!(times.quantile(0.1).unwrap() < 0.1);
        assert!(times.quantile(1.0).unwrap() > 1e15);
    }

    #[test]
    fn merged_counts_add_up() {
        let mut one = Histogram::default();
        one.add(Duration::from_micros(5));
        let mut two = one.clone();
        two.add(Duration::from_millis(5));
        one.merge(&two);
        assert_eq!(one.len(), 3);
    }
}
