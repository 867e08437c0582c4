//! Statistics of a few samples, and numbers as people read them.

use serde::Serialize;

/// The middle and the spread of some samples.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Summary {
    /// The middle one, or the mean of the two in the middle.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
    /// How many there are.
    pub n: usize,
}

impl Summary {
    /// `None` when there are no samples.
    pub fn of(mut samples: Vec<f64>) -> Option<Self> {
        samples.sort_by(f64::total_cmp);
        let n = samples.len();
        let upper = *samples.get(n / 2)?;
        let lower = *samples.get(n.saturating_sub(1) / 2)?;
        Some(Self {
            median: f64::midpoint(lower, upper),
            min: *samples.first()?,
            max: *samples.last()?,
            n,
        })
    }
}

/// Three digits that count, with `k` or `M` for large numbers: 0.04, 9.85, 38.2,
/// 517, 9851, 15.0k, 354k, 1.31M.
pub fn short(value: f64) -> String {
    let size = value.abs();
    let digits = |value: f64| match value.abs() {
        size if size < 9.995 => format!("{value:.2}"),
        size if size < 99.95 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    };
    if size < 9999.5 {
        digits(value)
    } else if size < 999_500.0 {
        digits(value / 1e3) + "k"
    } else {
        digits(value / 1e6) + "M"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_of_odd_even_and_no_samples() {
        assert_eq!(Summary::of(Vec::new()), None);
        let of = |samples: &[f64]| Summary::of(samples.to_vec()).unwrap();
        let summary = |median, min, max, n| Summary {
            median,
            min,
            max,
            n,
        };
        assert_eq!(of(&[7.0]), summary(7.0, 7.0, 7.0, 1));
        assert_eq!(of(&[9.0, -1.0, 4.0]), summary(4.0, -1.0, 9.0, 3));
        assert_eq!(of(&[4.0, 1.0, 2.0, 100.0]), summary(3.0, 1.0, 100.0, 4));
    }

    #[test]
    fn numbers_are_short() {
        for (value, text) in [
            (0.0, "0.00"),
            (0.044, "0.04"),
            (9.994, "9.99"),
            (9.996, "10.0"),
            (38.24, "38.2"),
            (99.96, "100"),
            (9851.2, "9851"),
            (15_020.0, "15.0k"),
            (354_600.0, "355k"),
            (999_600.0, "1.00M"),
            (1_314_020.0, "1.31M"),
            (-12.34, "-12.3"),
        ] {
            assert_eq!(short(value), text);
        }
    }
}
