//! The retransmission time-out (RFC 6298).

use smoltcp::time::Duration;

/// Lower bound, and what holds before the first measurement. As Linux has the bound
/// (`TCP_RTO_MIN`): longer than a delayed acknowledgement, and far longer than the way
/// to the container. RFC 6298 (2.1, 2.4) would have 1 s for both, for a path of which
/// nothing is known; this one is a link within the machine, and a handshake that has
/// lost a segment there need not wait longer than data does.
pub(super) const LEAST: Duration = Duration::from_millis(200);
/// Upper bound, of the back-off too (RFC 6298, 2.4).
const MOST: Duration = Duration::from_secs(60);

/// Smoothed round-trip time and its variation, microseconds.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Rtt {
    measured: Option<(u32, u32)>,
    /// Time-outs since the last acknowledgement of new data.
    backoff: u8,
}

impl Rtt {
    /// A segment that was sent once took this long to be acknowledged.
    pub(super) fn sample(&mut self, took: Duration) {
        let took = u32::try_from(took.total_micros()).unwrap_or(u32::MAX / 16);
        self.measured = Some(match self.measured {
            None => (took, took / 2),
            Some((smoothed, variation)) => {
                let error = smoothed.abs_diff(took);
                (
                    smoothed - smoothed / 8 + took / 8,
                    variation - variation / 4 + error / 4,
                )
            }
        });
    }

    /// How long an acknowledgement may take now.
    pub(super) fn timeout(&self) -> Duration {
        let base = match self.measured {
            None => LEAST,
            Some((smoothed, variation)) => {
                Duration::from_micros(u64::from(smoothed) + u64::from(variation) * 4).max(LEAST)
            }
        };
        (base * (1_u32 << self.backoff.min(9))).min(MOST)
    }

    pub(super) fn back_off(&mut self) {
        self.backoff = self.backoff.saturating_add(1);
    }

    /// New data was acknowledged, or the window has opened.
    pub(super) fn progress(&mut self) {
        self.backoff = 0;
    }

    /// Time-outs in a row.
    pub(super) fn timeouts(&self) -> u8 {
        self.backoff
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_rfc_6298() {
        let mut rtt = Rtt::default();
        assert_eq!(rtt.timeout(), LEAST);
        rtt.sample(Duration::from_millis(400));
        // SRTT 400, RTTVAR 200
        assert_eq!(rtt.timeout(), Duration::from_millis(1200));
        rtt.sample(Duration::from_millis(800));
        // SRTT 450, RTTVAR 250
        assert_eq!(rtt.timeout(), Duration::from_millis(1450));
        rtt.back_off();
        assert_eq!(rtt.timeout(), Duration::from_millis(2900));
        for _ in 0..300 {
            rtt.back_off();
        }
        assert_eq!(rtt.timeout(), MOST);
        rtt.progress();
        for _ in 0..100 {
            rtt.sample(Duration::from_micros(50));
        }
        assert_eq!(rtt.timeout(), LEAST);
        rtt.sample(Duration::from_secs(100_000));
        assert_eq!(rtt.timeout(), MOST);
    }
}
