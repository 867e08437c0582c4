//! How long something took, over and over: told, never asserted.

use std::time::Duration;

use super::report;

#[derive(Debug, Default)]
pub(crate) struct Times(Vec<Duration>);

impl Times {
    pub(crate) fn add(&mut self, time: Duration) {
        self.0.push(time);
    }

    /// How many there were, median, 99th percentile and maximum; there must be some.
    pub(crate) fn told(mut self) -> String {
        self.0.sort();
        let at = |percent: usize| self.0[(self.0.len() - 1) * percent / 100];
        format!(
            "{} times, after p50 {:?}, p99 {:?}, max {:?}",
            self.0.len(),
            at(50),
            at(99),
            at(100)
        )
    }

    /// Prints that behind `what`, if there were any.
    pub(crate) fn report(self, what: &str) {
        if !self.0.is_empty() {
            report(&format!("{what}: {}", self.told()));
        }
    }
}
