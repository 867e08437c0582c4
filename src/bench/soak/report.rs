//! What came of a run: the JSON, and the table.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use super::verdict::{self, Bar, GIB, Limits};
use super::{Course, Sample, Spec, What};
use crate::bench::load::{Kind, Progress};
use crate::bench::machine::Machine;
use crate::bench::stats::short;
use crate::bench::table::render;

/// The version of the JSON's shape.
const SCHEMA: u32 = 1;

/// Everything about one run; serialized, it is the JSON output.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Version of this shape.
    pub schema: u32,
    /// `soak`, `flows`, `churn` or `integrity`.
    pub verb: &'static str,
    /// The command line.
    pub command: String,
    /// Where and when.
    pub machine: Machine,
    /// How.
    pub settings: Settings,
    /// Whether it came to its end.
    pub complete: bool,
    /// Why it did not.
    pub failure: Option<String>,
    /// What it was held to.
    pub bars: Vec<Bar>,
    /// Single figures, by their keys.
    pub figures: BTreeMap<&'static str, f64>,
    /// Times of transactions.
    pub times: Vec<Times>,
    /// What every client has done.
    pub clients: BTreeMap<&'static str, Progress>,
    /// Why something was left out.
    pub notes: Vec<String>,
    /// During the load.
    pub samples: Vec<Sample>,
}

/// The options.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Settings {
    /// The load.
    pub load: What,
    /// As for `run --net`.
    pub net: String,
    /// How long it was to last, or might, seconds.
    pub duration_s: f64,
    /// Between samples, seconds.
    pub interval_s: f64,
    /// How long the idle container was watched, seconds.
    pub idle_s: f64,
    /// The limit on open files.
    pub nofile: Option<u64>,
    /// What the bars are.
    pub limits: Limits,
}

/// How long one client's transactions of a kind took.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Times {
    /// Where it was.
    pub client: &'static str,
    /// What it did.
    pub kind: Kind,
    /// How many.
    pub count: u64,
    /// Microseconds; each is right to 6 %.
    pub p50_us: f64,
    /// 99 % took no longer.
    pub p99_us: f64,
    /// None took longer.
    pub max_us: f64,
}

impl Report {
    /// Sums a run up.
    pub fn new(
        spec: &Spec,
        limits: &Limits,
        command: String,
        machine: Machine,
        course: Course,
    ) -> Self {
        let nofile = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let bars = verdict::bars(spec.what, limits, &course);
        let figures = figures(spec.what, &course);
        let times = course.times.iter().filter_map(|(&(client, kind), times)| {
            Some(Times {
                client,
                kind,
                count: times.len(),
                p50_us: times.quantile(0.5)?,
                p99_us: times.quantile(0.99)?,
                max_us: times.quantile(1.0)?,
            })
        });
        Self {
            schema: SCHEMA,
            verb: spec.what.name(),
            command,
            machine,
            settings: Settings {
                load: spec.what,
                net: spec.net.clone(),
                duration_s: spec.duration.as_secs_f64(),
                interval_s: spec.interval.as_secs_f64(),
                idle_s: spec.idle.as_secs_f64(),
                nofile,
                limits: *limits,
            },
            complete: course.failure.is_none(),
            failure: course.failure.clone(),
            bars,
            figures,
            times: times.collect(),
            clients: course.clients,
            notes: course.notes,
            samples: course.samples,
        }
    }

    /// Whether every bar is met, and the run came to its end.
    pub fn is_good(&self) -> bool {
        self.complete && self.bars.iter().all(|bar| bar.met != Some(false))
    }

    /// Machine, kernel, user and date in a line.
    pub fn circumstances(&self) -> String {
        let machine = &self.machine;
        format!(
            "{}, {} CPUs, Linux {}, {}, {}",
            machine.cpu,
            machine.cpus,
            machine.kernel,
            if machine.root {
                "as root"
            } else {
                "as an ordinary user"
            },
            machine.date
        )
    }

    /// All of it for people, in Markdown.
    pub fn markdown(&self) -> String {
        let mut text = format!("### {}\n\n`{}`\n\n", self.circumstances(), self.command);
        let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        let mut rows = vec![row(["bar", "found", "limit"])];
        for bar in &self.bars {
            let unit = if bar.unit.is_empty() {
                String::new()
            } else {
                format!(" {}", bar.unit)
            };
            let found = bar.value.map_or_else(|| "-".to_owned(), exact);
            let judged = match (bar.met, bar.not_judged) {
                (Some(true), _) => "met".to_owned(),
                (Some(false), _) => "MISSED".to_owned(),
                (None, reason) => format!("not judged, {}", reason.unwrap_or("as it is")),
            };
            let sense = if bar.at_least { "at least" } else { "at most" };
            rows.push(vec![
                bar.name.to_owned(),
                format!("{found}{unit}"),
                format!("{sense} {}{unit}: {judged}", exact(bar.limit)),
            ]);
        }
        text += &render(&rows);
        text.push('\n');
        let mut rows = vec![vec!["figure".to_owned(), "value".to_owned()]];
        rows.extend(
            self.figures
                .iter()
                .map(|(&key, &value)| vec![key.to_owned(), exact(value)]),
        );
        text += &render(&rows);
        text.push('\n');
        if !self.times.is_empty() {
            let head = ["client, kind", "count", "p50 us", "p99 us", "max us"];
            let mut rows = vec![head.map(str::to_owned).to_vec()];
            rows.extend(self.times.iter().map(|times| {
                vec![
                    format!("{} {}", times.client, times.kind.name()),
                    times.count.to_string(),
                    short(times.p50_us),
                    short(times.p99_us),
                    short(times.max_us),
                ]
            }));
            text += &render(&rows);
        }
        // Writing to a String cannot fail.
        for (name, client) in &self.clients {
            for (error, count) in &client.errors {
                let _ = writeln!(text, "\nerror, {name}, {count} times: {error}");
            }
        }
        for note in &self.notes {
            let _ = writeln!(text, "\nnote: {note}");
        }
        if let Some(failure) = &self.failure {
            let _ = writeln!(text, "\nended early: {failure}");
        }
        text
    }
}

/// Counts as they are, other figures with the digits that count.
fn exact(value: f64) -> String {
    if value.fract() == 0.0 && value.abs() < 1e15 {
        format!("{value:.0}")
    } else if value.abs() < 0.1 {
        format!("{value:.3}")
    } else {
        format!("{value:.2}")
    }
}

#[allow(
    clippy::cast_precision_loss,
    reason = "counts of one run are far below 2^52"
)]
fn figures(what: What, course: &Course) -> BTreeMap<&'static str, f64> {
    let mut figures = BTreeMap::new();
    let clients = || course.clients.values();
    let up: u64 = clients().map(|client| client.bytes_up).sum();
    let down: u64 = clients().map(|client| client.bytes_down).sum();
    let again: u64 = clients().map(|client| client.sent_again).sum();
    let seconds = clients().map(|client| client.seconds).fold(0.0, f64::max);
    let (before, after) = (course.before, course.after);
    let most = |of: fn(&Sample) -> u64| course.samples.iter().map(of).max().unwrap_or_default();
    let rss = most(|sample| sample.state.rss_kib);
    figures.extend([
        ("seconds", seconds),
        ("cpu_seconds", course.cpu.as_secs_f64()),
        ("rss_kib_before", before.rss_kib as f64),
        ("rss_kib_most", rss as f64),
        ("fds_before", before.fds as f64),
        ("fds_most", most(|sample| sample.state.fds) as f64),
        ("flows_before", before.flows as f64),
        ("flows_most", most(|sample| sample.state.flows) as f64),
    ]);
    if course.idle_percent.is_some() {
        figures.extend([
            ("rss_kib_after", after.rss_kib as f64),
            ("fds_after", after.fds as f64),
            ("flows_after", after.flows as f64),
            ("settled_seconds", course.settled.as_secs_f64()),
        ]);
    }
    if up + down > 0 {
        figures.extend([
            ("gib_up", up as f64 / GIB),
            ("gib_down", down as f64 / GIB),
            ("gbit_per_s", (up + down) as f64 * 8e-9 / seconds),
        ]);
    }
    for client in clients() {
        for (&kind, &count) in &client.done {
            *figures.entry(kind.name()).or_default() += count as f64;
        }
    }
    match what {
        What::Soak { .. } => {
            figures.insert("datagrams_sent_again", again as f64);
            let slope = verdict::rss_slope(&course.samples).0;
            figures.extend(slope.map(|slope| ("rss_mib_per_hour", slope)));
        }
        What::Flows { .. } => {
            let open = most(|sample| sample.open);
            if open > 0 {
                let growth = rss.saturating_sub(before.rss_kib) as f64 * 1024.0;
                figures.insert("rss_bytes_per_flow", growth / open as f64);
            }
        }
        What::Churn { .. } => {
            let done = figures.get(Kind::Connections.name()).copied();
            figures.extend(done.map(|done| ("connections_per_s", done / seconds)));
        }
        What::Integrity { .. } => {}
    }
    figures.retain(|_, value: &mut f64| value.is_finite());
    figures
}
