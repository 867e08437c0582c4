//! What a run is held to.

use serde::Serialize;

use super::{Course, Sample, What};
use crate::bench::load::Kind;

/// The slope of memory says nothing about a shorter time: what is touched for the
/// first time is no leak.
const LEAST_HOURS: f64 = 0.25;

/// A datagram flow that was answered is given back after two minutes (RFC 4787,
/// REQ-5); seconds, with some to spare.
const DATAGRAM_TIMEOUT: f64 = 150.0;

/// The limits.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Limits {
    /// CPU of the idle container after the load, percent of one CPU.
    pub idle_percent: f64,
    /// How fast memory may grow after the first quarter, MiB per hour.
    pub rss_slope: f64,
    /// How much more memory may be resident at the end, MiB: buffers that all flows
    /// share, tables that have grown, what the allocator keeps.
    pub rss_growth: f64,
    /// How long its flows might take to time out, seconds.
    pub settle_s: f64,
}

/// A figure beside its limit.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Bar {
    /// What it is about.
    pub name: &'static str,
    /// What was found; `null` where there is no figure.
    pub value: Option<f64>,
    /// Most, or with `at_least` least, that it may be.
    pub limit: f64,
    /// The limit is the least.
    pub at_least: bool,
    /// Of both.
    pub unit: &'static str,
    /// Whether it holds; `null` where this run is not judged by it.
    pub met: Option<bool>,
    /// Why it is not.
    pub not_judged: Option<&'static str>,
}

impl Bar {
    fn most(name: &'static str, value: Option<f64>, limit: f64, unit: &'static str) -> Self {
        Self {
            name,
            value,
            limit,
            at_least: false,
            unit,
            // No figure where there should be one is no success.
            met: Some(value.is_some_and(|value| value <= limit)),
            not_judged: None,
        }
    }

    fn least(name: &'static str, value: f64, limit: f64, unit: &'static str) -> Self {
        Self {
            name,
            value: Some(value),
            limit,
            at_least: true,
            unit,
            met: Some(value >= limit),
            not_judged: None,
        }
    }

    /// Leaves it open where this says why.
    fn unless(mut self, reason: Option<&'static str>) -> Self {
        if reason.is_some() {
            (self.met, self.not_judged) = (None, reason);
        }
        self
    }
}

/// The bars of this kind of run.
#[allow(
    clippy::cast_precision_loss,
    reason = "counts of one run are far below 2^52"
)]
pub fn bars(what: What, limits: &Limits, course: &Course) -> Vec<Bar> {
    let (before, after) = (course.before, course.after);
    let errors: u64 = course
        .clients
        .values()
        .flat_map(|client| client.errors.values())
        .sum();
    // Where nobody has looked after the end, there is nothing to compare.
    let given_back = |value: u64| course.idle_percent.map(|_| value as f64);
    // Datagram flows that had no time to time out, each of which has a socket.
    let pending = if limits.settle_s < DATAGRAM_TIMEOUT {
        course.datagram_flows
    } else {
        0
    };
    let mut bars = vec![
        Bar::most("errors", Some(errors as f64), 0.0, ""),
        Bar::most(
            "TCP flows in the end",
            given_back(course.tcp_flows),
            0.0,
            "",
        ),
        Bar::most(
            "flows in the end",
            given_back(after.flows),
            before.flows as f64,
            "",
        )
        .unless((pending > 0).then_some("--settle is short")),
        Bar::most(
            "descriptors in the end",
            given_back(after.fds),
            (before.fds + what.spare_fds() + pending) as f64,
            "",
        ),
        Bar::most(
            "idle CPU in the end",
            course.idle_percent,
            limits.idle_percent,
            "%",
        ),
    ];
    let done = |kind: Kind| -> f64 {
        let counts = course.clients.values().filter_map(|c| c.done.get(&kind));
        counts.sum::<u64>() as f64
    };
    let growth = given_back(after.rss_kib.saturating_sub(before.rss_kib)).map(|kib| kib / 1024.0);
    let growth = Bar::most("memory in the end, more", growth, limits.rss_growth, "MiB");
    match what {
        What::Soak { .. } => {
            let (slope, hours) = rss_slope(&course.samples);
            let bar = Bar::most(
                "memory after the first quarter",
                slope,
                limits.rss_slope,
                "MiB/h",
            );
            bars.push(bar.unless((hours < LEAST_HOURS).then_some("too short a time")));
        }
        What::Flows { count } => {
            let fewest = course.samples.last().map_or(0, |sample| sample.open);
            bars.push(Bar::least(
                "flows that are open",
                fewest as f64,
                count as f64,
                "",
            ));
            bars.push(Bar::least(
                "answers",
                done(Kind::Flows),
                // Opening is the first round.
                2.0 * count as f64,
                "",
            ));
        }
        What::Churn { cycles, .. } => {
            bars.push(Bar::least(
                "connections",
                done(Kind::Connections),
                cycles as f64,
                "",
            ));
            bars.push(growth);
        }
        What::Integrity { bytes, flows } => {
            let whole = course.clients.values();
            let moved = whole.map(|c| c.bytes_up.min(c.bytes_down)).sum::<u64>();
            bars.push(Bar::least(
                "GiB whole, each way",
                moved as f64 / GIB,
                bytes as f64 / GIB,
                "",
            ));
            bars.push(Bar::least(
                "streams whole",
                done(Kind::Streams),
                f64::from(flows),
                "",
            ));
        }
    }
    bars
}

/// Bytes in a GiB.
pub(super) const GIB: f64 = (1_u64 << 30) as f64;

/// How fast resident memory grows after the first quarter of the time, MiB per
/// hour, by least squares; and over how many hours that was seen.
#[allow(clippy::cast_precision_loss, reason = "memory is far below 2^52 KiB")]
pub(super) fn rss_slope(samples: &[Sample]) -> (Option<f64>, f64) {
    let end = samples.last().map_or(0.0, |sample| sample.at);
    let points: Vec<(f64, f64)> = samples
        .iter()
        .filter(|sample| sample.at >= end / 4.0)
        .map(|sample| (sample.at / 3600.0, sample.state.rss_kib as f64 / 1024.0))
        .collect();
    let hours = match (points.first(), points.last()) {
        (Some(first), Some(last)) => last.0 - first.0,
        _ => 0.0,
    };
    let n = points.len() as f64;
    let mean_x = points.iter().map(|point| point.0).sum::<f64>() / n;
    let mean_y = points.iter().map(|point| point.1).sum::<f64>() / n;
    let spread: f64 = points.iter().map(|(x, _)| (x - mean_x).powi(2)).sum();
    let together: f64 = points
        .iter()
        .map(|(x, y)| (x - mean_x) * (y - mean_y))
        .sum();
    let slope = Some(together / spread).filter(|slope| slope.is_finite());
    (slope, hours)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::load::Progress;
    use crate::bench::soak::watch::State;

    const LIMITS: Limits = Limits {
        idle_percent: 0.1,
        rss_slope: 1.0,
        rss_growth: 8.0,
        settle_s: 180.0,
    };

    fn sample(at: f64, rss_kib: u64) -> Sample {
        Sample {
            at,
            state: State {
                rss_kib,
                ..State::default()
            },
            ..Sample::default()
        }
    }

    fn course() -> Course {
        let state = State {
            fds: 20,
            flows: 1,
            rss_kib: 5000,
            ..State::default()
        };
        Course {
            before: state,
            after: state,
            idle_percent: Some(0.02),
            clients: [("container", Progress::default())].into(),
            ..Course::default()
        }
    }

    fn missed(what: What, course: &Course) -> Vec<&'static str> {
        let bars = bars(what, &LIMITS, course);
        bars.iter()
            .filter(|bar| bar.met == Some(false))
            .map(|bar| bar.name)
            .collect()
    }

    #[test]
    fn the_slope_is_that_of_the_time_after_the_first_quarter() {
        // It grows by 36 MiB at once, and by 1 MiB in an hour from then on.
        let mut samples = vec![sample(0.0, 0)];
        samples.extend(
            (1..=8).map(|n| sample(f64::from(n) * 900.0, 36_864 + u64::from(n as u32) * 256)),
        );
        let (slope, hours) = rss_slope(&samples);
        assert!((slope.unwrap() - 1.0).abs() < 1e-9, "{slope:?}");
        assert!((hours - 1.5).abs() < 1e-9, "{hours}");
        assert_eq!(rss_slope(&[]), (None, 0.0));
        assert_eq!(rss_slope(&samples[..1]).0, None);
    }

    #[test]
    fn what_stays_behind_is_found() {
        let soak = What::Soak { gbit: 1.0 };
        let mut course = course();
        course.samples = vec![sample(0.0, 5000), sample(7200.0, 5000)];
        assert_eq!(missed(soak, &course), [""; 0]);
        course.after.fds += soak.spare_fds() + 1;
        course.after.flows += 1;
        course.idle_percent = Some(0.2);
        let progress = course.clients.get_mut("container").unwrap();
        progress.errors.insert("tcp_rr: reset".to_owned(), 1);
        assert_eq!(
            missed(soak, &course),
            [
                "errors",
                "flows in the end",
                "descriptors in the end",
                "idle CPU in the end"
            ]
        );
        course.datagram_flows = 1;
        assert!(missed(soak, &course).contains(&"flows in the end"));
        course.tcp_flows = 1;
        assert!(missed(soak, &course).contains(&"TCP flows in the end"));
    }

    #[test]
    fn datagram_flows_that_had_no_time_are_left_out() {
        let soak = What::Soak { gbit: 1.0 };
        let mut course = course();
        (course.after.fds, course.after.flows) = (22 + soak.spare_fds(), 5);
        course.datagram_flows = 2;
        let short = Limits {
            settle_s: 5.0,
            ..LIMITS
        };
        let missed = |limits: &Limits, course: &Course| {
            let bars = bars(soak, limits, course);
            bars.iter().filter(|bar| bar.met == Some(false)).count()
        };
        assert_eq!(missed(&short, &course), 0);
        assert_eq!(missed(&LIMITS, &course), 2);
        course.after.fds += 1;
        assert_eq!(missed(&short, &course), 1, "more than their sockets");
    }

    #[test]
    fn memory_that_grows_is_found_once_there_is_enough_of_it() {
        let soak = What::Soak { gbit: 1.0 };
        let mut course = course();
        let growing =
            |step: f64| (0..=8).map(move |n| sample(f64::from(n) * step, 5000 + 1000 * n as u64));
        course.samples = growing(900.0).collect();
        assert_eq!(missed(soak, &course), ["memory after the first quarter"]);
        course.samples = growing(5.0).collect();
        assert_eq!(missed(soak, &course), [""; 0], "too short to judge");
    }

    #[test]
    fn a_run_that_ends_early_has_not_done_its_work() {
        let mut course = course();
        course.idle_percent = None;
        let churn = What::Churn {
            cycles: 10,
            workers: 1,
        };
        assert_eq!(
            missed(churn, &course),
            [
                "TCP flows in the end",
                "flows in the end",
                "descriptors in the end",
                "idle CPU in the end",
                "connections",
                "memory in the end, more"
            ]
        );
        let integrity = What::Integrity {
            bytes: 1 << 30,
            flows: 2,
        };
        assert!(missed(integrity, &course).contains(&"GiB whole, each way"));
        let flows = What::Flows { count: 5 };
        assert!(missed(flows, &course).contains(&"flows that are open"));
    }
}
