//! One sample: a fresh server, a fresh container, one case.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::backend::{Backend, Container, look_up};
use super::cases::{self, Case, UDP_OVERHEAD};
use super::load::{Outcome, Said};
use super::process::{Interrupts, Process, ProcessError};
use super::stats::Summary;
use super::usage::{self, Usage};

/// How long something may take that ought to take no time.
const PATIENCE: Duration = Duration::from_secs(10);
/// How much longer than asked for a case may take.
const OVERTIME: Duration = Duration::from_secs(60);
/// Fewest launches of a start-up sample.
const FEWEST_LAUNCHES: usize = 3;
/// The argument that has a launch wait for its network: one line out, one in.
const WAITING_TRUE: &str = "echo; read -r line; exec true";

/// The figures of a sample, by their keys.
pub(super) type Figures = BTreeMap<&'static str, f64>;

/// Why there is no figure.
#[derive(Debug, thiserror::Error)]
pub(super) enum SampleError {
    /// A process did not do what it should.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// The client says why it could not go on.
    #[error("{0}")]
    Load(String),
    /// A line that makes no sense.
    #[error("{name} said {line:?}")]
    Nonsense {
        /// Whose.
        name: &'static str,
        /// The line.
        line: String,
    },
    /// The datagrams do not fit.
    #[error("datagrams of {size} bytes do not fit into the MTU, {mtu}")]
    TooLarge {
        /// Payload, bytes.
        size: u16,
        /// Bytes.
        mtu: u16,
    },
    /// It was not tried.
    #[error("not tried again after: {0}")]
    GivenUp(String),
    /// A program of every system is missing.
    #[error("there is no {0} here")]
    NoProgram(&'static str),
}

/// What all samples have in common.
#[derive(Debug)]
pub(super) struct Sampler<'a> {
    /// This program.
    pub own: &'a Path,
    /// How long each case is measured.
    pub duration: Duration,
    /// `TCP_CONGESTION` on both ends; `None` leaves the system's default.
    pub congestion_control: Option<&'a str>,
    /// The signals that end the benchmark.
    pub interrupts: &'a Interrupts,
}

impl Sampler<'_> {
    /// Measures one case over one backend.
    ///
    /// # Errors
    /// A step failed; whatever it was is over, and nothing is left of it.
    pub(super) fn take(
        &self,
        backend: &Backend,
        case: Case,
        mtu: u16,
    ) -> Result<Figures, SampleError> {
        match case {
            Case::Startup => return self.startup(backend, mtu),
            Case::UdpUp(size) | Case::UdpDown(size)
                if backend.has_mtu() && mtu < size.saturating_add(UDP_OVERHEAD) =>
            {
                return Err(SampleError::TooLarge { size, mtu });
            }
            _ => {}
        }
        let (_server, tcp, udp) = self.serve()?;
        let host = backend.host_loopback();
        let args = self.client_args(case, (host, tcp).into(), (host, udp).into());
        let mut container = backend.start(self.own, &args, mtu)?;
        match self.hear(&mut container.client, PATIENCE)? {
            Said::Started => {}
            other => return Err(unexpected(&other)),
        }
        container.connect(backend, mtu, self.interrupts)?;
        container.client.tell("connect")?;
        match self.hear(&mut container.client, PATIENCE)? {
            Said::Ready => {}
            other => return Err(unexpected(&other)),
        }
        let before = use_of(&container);
        container.client.tell("go")?;
        let outcome = match self.hear(&mut container.client, self.duration + OVERTIME)? {
            Said::Done(outcome) => outcome,
            other => return Err(unexpected(&other)),
        };
        // The connections are still open, and the helper is still there.
        let after = use_of(&container);
        Ok(figures(case, &outcome, before.zip(after)))
    }

    fn serve(&self) -> Result<(Process, u16, u16), SampleError> {
        let mut command = Command::new(self.own);
        command.args(["bench", "load", "serve"]);
        if let Some(name) = self.congestion_control {
            command.args(["--cc", name]);
        }
        let mut server = Process::start("the server", &mut command)?;
        match self.hear(&mut server, PATIENCE)? {
            Said::Listening { tcp, udp } => Ok((server, tcp, udp)),
            other => Err(unexpected(&other)),
        }
    }

    fn client_args(&self, case: Case, tcp: SocketAddr, udp: SocketAddr) -> Vec<OsString> {
        let mut args: Vec<OsString> = ["bench", "load", "run"].map(OsString::from).into();
        args.extend([
            case.to_string().into(),
            format!("--tcp={tcp}").into(),
            format!("--udp={udp}").into(),
            format!("--seconds={}", self.duration.as_secs_f64()).into(),
        ]);
        args.extend(
            self.congestion_control
                .map(|name| format!("--cc={name}").into()),
        );
        args
    }

    /// The next thing that a load process says.
    fn hear(&self, process: &mut Process, limit: Duration) -> Result<Said, SampleError> {
        let line = process.line(limit, self.interrupts)?;
        match serde_json::from_str(&line) {
            Ok(Said::Failed(reason)) => Err(SampleError::Load(reason)),
            Ok(said) => Ok(said),
            Err(_) => Err(SampleError::Nonsense {
                name: "the load generator",
                line,
            }),
        }
    }

    /// The median time of as many launches as the time allows.
    fn startup(&self, backend: &Backend, mtu: u16) -> Result<Figures, SampleError> {
        let program = |name| look_up(name).ok_or(SampleError::NoProgram(name));
        let (waits, argv): (bool, (PathBuf, Vec<OsString>)) = if backend.is_connected_later() {
            (
                true,
                (program("sh")?, vec!["-c".into(), WAITING_TRUE.into()]),
            )
        } else {
            (false, (program("true")?, Vec::new()))
        };
        let began = Instant::now();
        let mut times = Vec::new();
        while times.len() < FEWEST_LAUNCHES || began.elapsed() < self.duration {
            let launched = Instant::now();
            let mut container = backend.start(&argv.0, &argv.1, mtu)?;
            if waits {
                container.client.line(PATIENCE, self.interrupts)?;
                container.connect(backend, mtu, self.interrupts)?;
                container.client.tell("go")?;
            }
            container.client.finish(PATIENCE, self.interrupts)?;
            container.disconnect();
            times.push(launched.elapsed().as_secs_f64() * 1e3);
        }
        let summary = Summary::of(times);
        Ok(summary
            .map(|times| (cases::START.key, times.median))
            .into_iter()
            .collect())
    }
}

fn unexpected(said: &Said) -> SampleError {
    SampleError::Nonsense {
        name: "the load generator",
        line: format!("{said:?}"),
    }
}

fn use_of(container: &Container) -> Option<Usage> {
    container.helper().map(usage::of)
}

/// The figures that follow from what the client has seen and what the helper,
/// if there is one, has used meanwhile.
#[allow(
    clippy::cast_precision_loss,
    reason = "counts of one sample are far below 2^52"
)]
fn figures(case: Case, outcome: &Outcome, usage: Option<(Usage, Usage)>) -> Figures {
    let mut figures = Figures::new();
    let seconds = outcome.seconds;
    let bytes = outcome.bytes.map(|bytes| bytes as f64);
    let operations = outcome.operations.map(|count| count as f64);
    let sent = outcome.sent.map(|count| count as f64);
    let mut add = |metric: cases::Metric, value: Option<f64>| {
        figures.extend(
            value
                .filter(|value| value.is_finite())
                .map(|value| (metric.key, value)),
        );
    };
    match case {
        Case::TcpUp(_) | Case::TcpDown(_) => {
            add(cases::THROUGHPUT, bytes.map(|bytes| bytes * 8e-9 / seconds));
        }
        Case::UdpUp(_) | Case::UdpDown(_) => {
            add(cases::PACKETS, operations.map(|count| count / seconds));
        }
        Case::TcpRr | Case::TcpCrr(_) | Case::UdpRr | Case::Flows(_) => {
            add(cases::TRANSACTIONS, operations.map(|count| count / seconds));
        }
        Case::Startup => {}
    }
    add(cases::P50, outcome.p50_us);
    add(cases::P99, outcome.p99_us);
    let loss = operations
        .zip(sent)
        .map(|(came, sent)| (1.0 - came / sent).max(0.0) * 100.0);
    add(cases::LOSS, loss);
    let opened = outcome.flows.zip(outcome.opening_seconds);
    add(
        cases::OPENED,
        opened.map(|(count, seconds)| count as f64 / seconds),
    );
    if let Some((before, after)) = usage {
        let cpu = after.cpu.saturating_sub(before.cpu).as_secs_f64();
        add(cases::HELPER_PER_GB, bytes.map(|bytes| cpu * 1e9 / bytes));
        if outcome.flows.is_none() {
            add(
                cases::HELPER_PER_OPERATION,
                operations.map(|count| cpu * 1e6 / count),
            );
        }
        add(cases::HELPER_MEMORY, Some(after.rss_kib as f64));
        let growth = after.rss_kib.saturating_sub(before.rss_kib) as f64 * 1024.0;
        add(
            cases::FLOW_BYTES,
            outcome.flows.map(|count| growth / count as f64),
        );
    }
    figures
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(milliseconds: u64, rss_kib: u64) -> Usage {
        Usage {
            cpu: Duration::from_millis(milliseconds),
            rss_kib,
        }
    }

    #[test]
    fn throughput_and_its_price() {
        let outcome = Outcome {
            seconds: 2.0,
            bytes: Some(5_000_000_000),
            ..Outcome::default()
        };
        let figures = figures(
            Case::TcpUp(1),
            &outcome,
            Some((usage(100, 9), usage(2100, 10))),
        );
        assert_eq!(figures["gbit_per_s"], 20.0);
        assert_eq!(figures["helper_cpu_s_per_gb"], 0.4);
        assert_eq!(figures["helper_rss_kib"], 10.0);
        assert_eq!(figures.len(), 3, "{figures:?}");
    }

    #[test]
    fn datagrams_that_are_lost() {
        let outcome = Outcome {
            seconds: 0.5,
            operations: Some(750),
            sent: Some(1000),
            ..Outcome::default()
        };
        let figures = figures(Case::UdpUp(64), &outcome, None);
        let expected = [("loss_percent", 25.0), ("packets_per_s", 1500.0)];
        assert_eq!(figures, Figures::from(expected));
    }

    #[test]
    fn memory_of_flows() {
        let outcome = Outcome {
            seconds: 1.0,
            operations: Some(4000),
            flows: Some(100),
            opening_seconds: Some(0.5),
            ..Outcome::default()
        };
        let figures = figures(
            Case::Flows(100),
            &outcome,
            Some((usage(0, 1000), usage(9, 1200))),
        );
        assert_eq!(figures["bytes_per_flow"], 2048.0);
        assert_eq!(figures["opened_per_s"], 200.0);
        assert_eq!(figures["transactions_per_s"], 4000.0);
        assert!(!figures.contains_key("helper_cpu_us_per_op"), "{figures:?}");
    }
}
