//! `crun-lite bench net`: the same work over several networks, side by side.
//!
//! # Theory of operation
//! A sample is one case over one backend: a fresh server on the host's loopback,
//! a fresh container whose program is the client, one measurement, and the end of
//! all of it. Samples are interleaved: each round takes every backend through a
//! case before the next case, in turn from the first to the last and from the
//! last to the first, so that what changes on the machine meanwhile changes for
//! all. What is reported is the median of the rounds and their spread.
//!
//! Server and client are this program ([`load`]); a backend is another program,
//! or this one, started by its command line as a user would. Everything runs in
//! the network namespace that the benchmark is started in, as the user who starts
//! it. What a helper costs is read from `/proc` right before and right after the
//! measurement ([`usage`]).
//!
//! This module prints nothing and knows neither the container nor the network of
//! crun-lite.

pub mod backend;
pub mod cases;
pub mod chart;
pub mod load;
pub mod machine;
pub mod process;
pub mod report;
mod sample;
pub mod soak;
pub mod stats;
pub mod table;
#[cfg(test)]
mod testing;
mod usage;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_setaffinity};

use backend::Backend;
use cases::Case;
use process::{Interrupts, ProcessError};
use sample::{Figures, SampleError, Sampler};

/// A backend of which the first samples, this many, fail is not tried again.
const FAILURES: usize = 3;

/// What to measure.
#[derive(Debug, Clone)]
pub struct Spec {
    /// This program, by its absolute path.
    pub own: PathBuf,
    /// In this order.
    pub cases: Vec<Case>,
    /// In this order; one that is missing is left out.
    pub backends: Vec<Backend>,
    /// MTUs of the links.
    pub mtus: Vec<u16>,
    /// Time per sample.
    pub duration: Duration,
    /// Samples of each case, backend and MTU.
    pub rounds: u32,
    /// `TCP_CONGESTION` on both ends; `None` leaves the system's default.
    pub congestion_control: Option<String>,
    /// CPUs that everything is confined to; empty for all.
    pub cpus: Vec<usize>,
}

/// What came of one measurement.
#[derive(Debug, Clone)]
pub struct Sample {
    /// What was measured.
    pub case: Case,
    /// On a link of this MTU.
    pub mtu: u16,
    /// The backend's label.
    pub backend: String,
    /// From 1 on.
    pub round: u32,
    /// The figures, or why there are none.
    pub result: Result<Figures, String>,
}

/// All samples, and whether these are all that were asked for.
#[derive(Debug, Clone, Default)]
pub struct Samples {
    /// In the order in which they were taken.
    pub taken: Vec<Sample>,
    /// The signal that ended it early.
    pub interrupted: Option<u8>,
}

impl Samples {
    /// Why a backend need not be tried again: the first of its samples have all
    /// failed, and each may have taken its time.
    fn gives_up(&self, backend: &str) -> Option<String> {
        let own = self.taken.iter().filter(|sample| sample.backend == backend);
        let first: Vec<_> = own.take(FAILURES).map(|sample| &sample.result).collect();
        match first.as_slice() {
            [Err(reason), rest @ ..]
                if rest.len() + 1 == FAILURES && rest.iter().all(|result| result.is_err()) =>
            {
                Some(reason.clone())
            }
            _ => None,
        }
    }
}

/// Why nothing could be measured at all.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The CPUs are not there, or not ours.
    #[error("confine the benchmark to the CPUs {cpus:?}")]
    Cpus {
        /// Those asked for.
        cpus: Vec<usize>,
        /// As sched_setaffinity(2).
        #[source]
        source: io::Error,
    },
    /// As signalfd(2).
    #[error("watch for signals")]
    Signals(#[source] io::Error),
    /// There is no network of the benchmark's own.
    #[error("make a network for the benchmark: {step}")]
    World {
        /// What was being made.
        step: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A process did not do what it should.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// A process said something that makes no sense, or why it could not go on.
    #[error("{name} said {line:?}")]
    Said {
        /// Whose line.
        name: String,
        /// The line.
        line: String,
    },
    /// The process of crun-lite cannot be looked at.
    #[error("look at the process of crun-lite")]
    Watch {
        /// As proc(5).
        #[source]
        source: io::Error,
    },
}

/// Is told how the measurement goes on.
pub trait Observer {
    /// A measurement begins.
    fn begins(&mut self, case: Case, mtu: u16, backend: &str, round: u32);
    /// It is over.
    fn ended(&mut self, sample: &Sample);
}

impl Spec {
    /// How many samples there will be.
    pub fn total(&self) -> usize {
        let backends = self.present().count();
        let rounds = usize::try_from(self.rounds).unwrap_or(usize::MAX);
        backends * self.cases.len() * self.mtus.len() * rounds
    }

    fn present(&self) -> impl DoubleEndedIterator<Item = &Backend> {
        self.backends.iter().filter(|backend| !backend.missing)
    }
}

/// Measures everything. A sample that fails is recorded as such; only a signal
/// ends the whole early.
///
/// # Errors
/// Nothing has been measured.
pub fn run(spec: &Spec, observer: &mut dyn Observer) -> Result<Samples, Error> {
    confine(&spec.cpus)?;
    raise_open_files();
    let interrupts = Interrupts::watch().map_err(Error::Signals)?;
    let sampler = Sampler {
        own: &spec.own,
        duration: spec.duration,
        congestion_control: spec.congestion_control.as_deref(),
        interrupts: &interrupts,
    };
    let mut samples = Samples::default();
    for round in 1..=spec.rounds {
        for &mtu in &spec.mtus {
            for &case in &spec.cases {
                let mut backends: Vec<_> = spec.present().collect();
                if round % 2 == 0 {
                    backends.reverse();
                }
                for backend in backends {
                    observer.begins(case, mtu, &backend.label, round);
                    let result = match samples.gives_up(&backend.label) {
                        Some(reason) => Err(SampleError::GivenUp(reason)),
                        None => sampler.take(backend, case, mtu),
                    };
                    if let Err(SampleError::Process(ProcessError::Interrupted(signal))) = result {
                        samples.interrupted = Some(signal);
                        return Ok(samples);
                    }
                    let sample = Sample {
                        case,
                        mtu,
                        backend: backend.label.clone(),
                        round,
                        result: result.map_err(|error| crate::error::chain(&error)),
                    };
                    observer.ended(&sample);
                    samples.taken.push(sample);
                }
            }
        }
    }
    Ok(samples)
}

/// This process and all that it starts run on these CPUs from now on.
fn confine(cpus: &[usize]) -> Result<(), Error> {
    if cpus.is_empty() {
        return Ok(());
    }
    let failed = |source: io::Error| Error::Cpus {
        cpus: cpus.to_vec(),
        source,
    };
    let mut set = CpuSet::new();
    for &cpu in cpus {
        if cpu >= CpuSet::MAX_CPU {
            return Err(failed(io::ErrorKind::InvalidInput.into()));
        }
        set.set(cpu);
    }
    sched_setaffinity(None, &set).map_err(|error| failed(error.into()))
}

/// Idle flows take a descriptor each, on every side. Where the limit cannot be
/// raised, the case says what it lacks.
fn raise_open_files() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::info!("raise the limit on open files: {error}");
    }
}
