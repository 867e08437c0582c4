//! `crun-lite bench soak`, `flows`, `churn` and `integrity`: whether it lasts.
//!
//! # Theory of operation
//! One container, in a world of the benchmark's own ([`world`]), is put under load
//! by the load generator ([`super::load`]), for a time or for an amount of work.
//! Every few seconds the process of crun-lite is looked at from outside ([`watch`])
//! and the clients are asked what they have done. Then the load ends, and what it
//! has taken has to be given back: descriptors and flows, as soon as their time-outs
//! allow, and the CPU. What came of it is held to bars ([`verdict`]).

pub mod record;
pub mod report;
mod stand;
pub mod timeline;

pub mod verdict;
pub mod watch;
mod world;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::load::histogram::Histogram;
use super::load::{Job, Kind, Progress};
use super::process::Interrupts;
use super::{Error, raise_open_files};
use stand::Stand;
use watch::State;
use world::World;

/// The part in which there is load, as a [`Watcher`] is told.
pub const LOAD: &str = "load";
/// Between looks while what was taken is given back.
const LOOK: Duration = Duration::from_secs(1);

/// What kind of load.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// Everything at once.
    Soak {
        /// Gbit/s of all streams together.
        gbit: f64,
    },
    /// Connections that are open at once.
    Flows {
        /// How many.
        count: usize,
    },
    /// Connections one after the other.
    Churn {
        /// How many in all.
        cycles: u64,
        /// How many at a time.
        workers: u32,
    },
    /// Bytes each way at once.
    Integrity {
        /// How many, each way.
        bytes: u64,
        /// Over so many connections.
        flows: u32,
    },
}

impl What {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Soak { .. } => "soak",
            Self::Flows { .. } => "flows",
            Self::Churn { .. } => "churn",
            Self::Integrity { .. } => "integrity",
        }
    }

    /// Whether it ends by itself.
    pub fn ends(self) -> bool {
        matches!(self, Self::Churn { .. } | Self::Integrity { .. })
    }

    /// How much there is to do; `None`: as much as there is time for.
    pub fn total(self) -> Option<u64> {
        match self {
            Self::Soak { .. } | Self::Flows { .. } => None,
            Self::Churn { cycles, .. } => Some(cycles),
            Self::Integrity { bytes, .. } => Some(bytes),
        }
    }

    /// How many more descriptors there may be in the end than before: published
    /// ports keep up to 64 sockets of the container ready, and 16 pipes. No leak of
    /// a connection's stays below that for long.
    pub fn spare_fds(self) -> u64 {
        match self {
            Self::Soak { .. } => 64 + 2 * 16,
            _ => 0,
        }
    }

    /// What the container's client is to do, where that is not a mix.
    fn job(self) -> Job {
        match self {
            Self::Soak { .. } => Job::Hold { flows: 0 },
            Self::Flows { count } => Job::Hold { flows: count },
            Self::Churn { cycles, workers } => Job::Churn { cycles, workers },
            Self::Integrity { bytes, flows } => Job::Integrity { bytes, flows },
        }
    }
}

/// What to do.
#[derive(Debug, Clone)]
pub struct Spec {
    /// This program, by its absolute path.
    pub own: PathBuf,
    /// The load.
    pub what: What,
    /// How long it lasts, or may last where it ends by itself.
    pub duration: Duration,
    /// Between samples.
    pub interval: Duration,
    /// How long after the load its flows may take to time out.
    pub settle: Duration,
    /// How long the idle container is watched after that.
    pub idle: Duration,
    /// As for `run --net`.
    pub net: String,
}

/// What was seen at one moment.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Sample {
    /// Since the load began, seconds.
    pub at: f64,
    /// Of the process of crun-lite.
    #[serde(flatten)]
    pub state: State,
    /// Of one CPU, since the sample before, percent.
    pub cpu_percent: f64,
    /// Checked payload to the servers, Gbit/s.
    pub gbit_up: f64,
    /// Checked payload from the servers, Gbit/s.
    pub gbit_down: f64,
    /// Completed, per second.
    pub per_second: BTreeMap<Kind, f64>,
    /// Median of the time it took, microseconds.
    pub p50_us: BTreeMap<Kind, f64>,
    /// 99th percentile of it.
    pub p99_us: BTreeMap<Kind, f64>,
    /// Connections that are held open.
    pub open: u64,
    /// Completed so far, and moved each way.
    pub done: u64,
    /// Errors so far.
    pub errors: u64,
}

/// What came of it.
#[derive(Debug, Clone, Default)]
pub struct Course {
    /// Before the load.
    pub before: State,
    /// When the load was over, and what it had taken was given back.
    pub after: State,
    /// TCP flows that there were then.
    pub tcp_flows: u64,
    /// Datagram flows that had not timed out by then.
    pub datagram_flows: u64,
    /// How long that took.
    pub settled: Duration,
    /// How long the load lasted.
    pub took: Duration,
    /// CPU time of the process of crun-lite during the load.
    pub cpu: Duration,
    /// Of one CPU, at rest, percent.
    pub idle_percent: Option<f64>,
    /// What every client has done.
    pub clients: BTreeMap<&'static str, Progress>,
    /// The times that it took.
    pub times: BTreeMap<(&'static str, Kind), Histogram>,
    /// During the load.
    pub samples: Vec<Sample>,
    /// Why something was left out.
    pub notes: Vec<String>,
    /// Why it ended before it should have.
    pub failure: Option<String>,
    /// The signal that ended it early.
    pub interrupted: Option<u8>,
}

/// Is told how it goes on.
pub trait Watcher {
    /// A part begins, which takes so long at most.
    fn begins(&mut self, part: &'static str, limit: Duration);
    /// There is a sample.
    fn sampled(&mut self, sample: &Sample);
}

/// Carries it out. Once there is load, whatever goes wrong is in what is returned.
///
/// # Errors
/// There was no load.
pub fn run(spec: &Spec, watcher: &mut dyn Watcher) -> Result<Course, Error> {
    raise_open_files();
    let world = World::make()?;
    let interrupts = Interrupts::watch().map_err(Error::Signals)?;
    let mut stand = Stand::start(spec, &world, &interrupts)?;
    let mut course = Course {
        before: stand.state()?,
        ..Course::default()
    };
    if let (What::Soak { .. }, Some(reason)) = (spec.what, &world.no_names) {
        course.notes.push(format!(
            "no names were asked for: /etc/resolv.conf: {reason}"
        ));
    }
    let result = course
        .load(spec, &mut stand, &interrupts, watcher)
        .and_then(|()| course.rest(spec, &mut stand, &interrupts, watcher));
    if let Err(error) = result {
        course.interrupted = stand::interrupted(&error);
        course.failure = Some(crate::error::chain(&error));
    }
    Ok(course)
}

impl Course {
    fn load(
        &mut self,
        spec: &Spec,
        stand: &mut Stand<'_>,
        interrupts: &Interrupts,
        watcher: &mut dyn Watcher,
    ) -> Result<(), Error> {
        watcher.begins(LOAD, spec.duration);
        stand.go()?;
        let began = Instant::now();
        let mut last = (began, self.before);
        let mut due = began;
        loop {
            let end = began + spec.duration;
            due = (due + spec.interval).max(Instant::now()).min(end);
            interrupts.pause(due)?;
            let clients = stand.progress()?;
            let state = stand.state()?;
            let now = Instant::now();
            let at_work: usize = clients.values().map(|client| client.at_work).sum();
            self.note(
                clients,
                state,
                now.duration_since(began),
                now - last.0,
                last.1,
            );
            if let Some(sample) = self.samples.last() {
                watcher.sampled(sample);
            }
            last = (now, state);
            if now >= end || at_work == 0 {
                break;
            }
        }
        self.took = began.elapsed();
        self.cpu = last.1.cpu.saturating_sub(self.before.cpu);
        watcher.begins("end of the load", Duration::ZERO);
        let clients = stand.stop()?;
        self.add_times(&clients);
        self.clients = clients;
        Ok(())
    }

    /// Waits until what the load has taken is given back.
    fn rest(
        &mut self,
        spec: &Spec,
        stand: &mut Stand<'_>,
        interrupts: &Interrupts,
        watcher: &mut dyn Watcher,
    ) -> Result<(), Error> {
        watcher.begins("time-outs", spec.settle);
        let began = Instant::now();
        loop {
            self.after = stand.state()?;
            self.settled = began.elapsed();
            if self.is_settled(spec.what) || self.settled >= spec.settle {
                break;
            }
            interrupts.pause(Instant::now() + LOOK)?;
        }
        (self.tcp_flows, self.datagram_flows) = stand.flows()?;
        watcher.begins("rest", spec.idle);
        self.idle_percent = Some(stand.idle_cpu(spec.idle)?);
        Ok(())
    }

    fn is_settled(&self, what: What) -> bool {
        self.after.flows <= self.before.flows
            && self.after.fds <= self.before.fds + what.spare_fds()
    }

    fn add_times(&mut self, clients: &BTreeMap<&'static str, Progress>) {
        for (&name, client) in clients {
            for (&kind, times) in &client.times {
                self.times.entry((name, kind)).or_default().merge(times);
            }
        }
    }

    /// Makes a sample of what the clients tell.
    #[allow(
        clippy::cast_precision_loss,
        reason = "counts of one run are far below 2^52"
    )]
    fn note(
        &mut self,
        clients: BTreeMap<&'static str, Progress>,
        state: State,
        at: Duration,
        since: Duration,
        before: State,
    ) {
        let seconds = since.as_secs_f64();
        let mut times: BTreeMap<Kind, Histogram> = BTreeMap::new();
        for client in clients.values() {
            for (&kind, more) in &client.times {
                times.entry(kind).or_default().merge(more);
            }
        }
        let sum = |of: &dyn Fn(&Progress) -> u64| -> (u64, f64) {
            let now: u64 = clients.values().map(of).sum();
            let then: u64 = self.clients.values().map(of).sum();
            (now, now.saturating_sub(then) as f64 / seconds)
        };
        let (bytes_up, up) = sum(&|client| client.bytes_up);
        let (bytes_down, down) = sum(&|client| client.bytes_down);
        let connections = sum(&|client| client.done.values().sum()).0;
        let quantiles = |share| {
            let quantile = |(&kind, times): (&Kind, &Histogram)| {
                times.quantile(share).map(|value| (kind, value))
            };
            times.iter().filter_map(quantile).collect()
        };
        let sample = Sample {
            at: at.as_secs_f64(),
            state,
            cpu_percent: state.cpu.saturating_sub(before.cpu).as_secs_f64() / seconds * 100.0,
            gbit_up: up * 8e-9,
            gbit_down: down * 8e-9,
            per_second: times
                .iter()
                .map(|(&kind, times)| (kind, times.len() as f64 / seconds))
                .collect(),
            p50_us: quantiles(0.5),
            p99_us: quantiles(0.99),
            open: sum(&|client| client.open).0,
            done: if bytes_up + bytes_down > 0 {
                bytes_up.min(bytes_down)
            } else {
                connections
            },
            errors: sum(&|client| client.errors.values().sum()).0,
        };
        self.add_times(&clients);
        self.clients = clients;
        self.samples.push(sample);
    }
}
