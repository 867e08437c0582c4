//! `crun-lite bench soak`, `flows`, `churn` and `integrity`: words to a load, how it
//! goes on, and where results go.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::output;
use crate::bench::machine::Machine;
use crate::bench::soak::report::Report;
use crate::bench::soak::verdict::Limits;
use crate::bench::soak::{self, Sample, Spec, Watcher, What, record, timeline};
use crate::bench::stats::short;
use crate::error::Error;

/// Descriptors of the network's process that are not a flow's.
const OTHER_FDS: u64 = 100;
/// Most flows that a container's network has.
const MOST_FLOWS: u64 = 131_072 - OTHER_FDS;
/// A bar is missed.
const MISSED: u8 = 1;

/// What no single option says.
pub(super) const NOTES: &str = "\
The container, its servers and its clients are in namespaces of the benchmark's own, for
root and for ordinary users: no other traffic is met or disturbed, and nothing is left
behind. Every byte is compared with what belongs in its place, at both ends.

The table has the bars first: errors (none), and what has to be given back after the
load: flows and descriptors, as soon as their time-outs allow (--settle), and the CPU.

--json FILE writes everything, with all samples; --svg FILE draws it over time. --record
FILE adds a line to FILE, of which the runs of a kind add up: a long run can be done in
pieces.

Exit status: 0; 1 when a bar is missed; 125 when there was no load; 128+N after signal N,
with what there was until then.";

/// What all of them have.
#[derive(Debug, Clone, Args)]
pub(super) struct Common {
    /// The container's network, as for `run --net`
    #[arg(long, value_name = "builtin[:KEY=VALUE,...]", default_value = "builtin", value_parser = builtin)]
    net: String,
    /// Time between samples
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = time)]
    interval: Duration,
    /// How long flows may take to time out after the load; where it is too short, those
    /// of datagrams are counted and left out
    #[arg(long, value_name = "TIME", default_value = "3m", value_parser = humantime::parse_duration)]
    settle: Duration,
    /// How long the idle container is watched after that
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = time)]
    idle: Duration,
    /// Most CPU time of the idle container, percent of one CPU
    #[arg(long, value_name = "PERCENT", default_value_t = 0.1)]
    max_idle: f64,
    /// Fastest growth of memory after the first quarter, MiB an hour; only judged where
    /// that lasts 15 minutes
    #[arg(long, value_name = "MIB", default_value_t = 1.0)]
    max_slope: f64,
    /// Most memory that stays resident after `churn`, MiB
    #[arg(long, value_name = "MIB", default_value_t = 8.0)]
    max_growth: f64,
    /// Write everything as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw it over time
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Add a line of JSON
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
}

/// `crun-lite bench soak`, as typed.
#[derive(Debug, Args)]
#[command(after_long_help = NOTES, args_override_self = true)]
pub(super) struct SoakArgs {
    /// How long the load lasts
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = time)]
    duration: Duration,
    /// Streams of all clients together, both ways, Gbit/s
    #[arg(long, value_name = "GBIT", default_value_t = 1.0, value_parser = rate)]
    rate: f64,
    #[command(flatten)]
    common: Common,
}

/// `crun-lite bench flows`, as typed.
#[derive(Debug, Args)]
#[command(after_long_help = NOTES, args_override_self = true)]
pub(super) struct FlowsArgs {
    /// Connections at once [default: the hard limit on open files, less 100]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=MOST_FLOWS))]
    count: Option<u64>,
    /// How long they are opened and held
    #[arg(long, value_name = "TIME", default_value = "1m", value_parser = time)]
    duration: Duration,
    #[command(flatten)]
    common: Common,
}

/// `crun-lite bench churn`, as typed.
#[derive(Debug, Args)]
#[command(after_long_help = NOTES, args_override_self = true)]
pub(super) struct ChurnArgs {
    /// Connections in all
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    cycles: u64,
    /// Connections at a time
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=1024))]
    workers: u32,
    /// How long it may take
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = time)]
    duration: Duration,
    #[command(flatten)]
    common: Common,
}

/// `crun-lite bench integrity`, as typed.
#[derive(Debug, Args)]
#[command(after_long_help = NOTES, args_override_self = true)]
pub(super) struct IntegrityArgs {
    /// GiB each way, both at once
    #[arg(long, value_name = "GIB", default_value_t = 1.0, value_parser = rate)]
    gib: f64,
    /// Connections at once
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1024))]
    flows: u32,
    /// How long it may take
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = time)]
    duration: Duration,
    #[command(flatten)]
    common: Common,
}

pub(super) fn soak(args: SoakArgs) -> Result<ExitCode, Error> {
    let what = What::Soak { gbit: args.rate };
    carry_out(what, args.duration, args.common)
}

pub(super) fn flows(args: FlowsArgs) -> Result<ExitCode, Error> {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    let most = limit.unwrap_or(u64::MAX).saturating_sub(OTHER_FDS);
    let count = args.count.unwrap_or(most.min(MOST_FLOWS));
    if count > most || count == 0 {
        return Err(Error::Usage(format!(
            "--count: {most} connections are the most that the limit on open files allows here"
        )));
    }
    let what = What::Flows {
        count: usize::try_from(count).unwrap_or(usize::MAX),
    };
    carry_out(what, args.duration, args.common)
}

pub(super) fn churn(args: ChurnArgs) -> Result<ExitCode, Error> {
    let what = What::Churn {
        cycles: args.cycles,
        workers: args.workers,
    };
    carry_out(what, args.duration, args.common)
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a positive number far below 2^63"
)]
pub(super) fn integrity(args: IntegrityArgs) -> Result<ExitCode, Error> {
    // The same length on all connections.
    let each = (args.gib * f64::from(1 << 30) / f64::from(args.flows)).ceil() as u64;
    let what = What::Integrity {
        bytes: each * u64::from(args.flows),
        flows: args.flows,
    };
    carry_out(what, args.duration, args.common)
}

fn carry_out(what: What, duration: Duration, common: Common) -> Result<ExitCode, Error> {
    let own = env::current_exe().map_err(|error| Error::host("find this program", error))?;
    // An hour of work is not to be lost for want of a folder.
    let files = [
        ("--json", &common.json),
        ("--svg", &common.svg),
        ("--record", &common.record),
    ];
    for (option, path) in files {
        if let Some(folder) = path.as_deref().and_then(Path::parent) {
            fs::create_dir_all(folder).map_err(|source| failed(option, folder, source))?;
        }
    }
    for (option, path) in [("--json", &common.json), ("--svg", &common.svg)] {
        if let Some(path) = path {
            write(option, path, "")?;
        }
    }
    if let Some(path) = &common.record {
        record::read(path).map_err(|source| failed("--record", path, source))?;
        fs::File::options()
            .append(true)
            .create(true)
            .open(path)
            .map_err(|source| failed("--record", path, source))?;
    }
    let spec = Spec {
        own,
        what,
        duration,
        interval: common.interval,
        settle: common.settle,
        idle: common.idle,
        net: common.net,
    };
    let limits = Limits {
        idle_percent: common.max_idle,
        rss_slope: common.max_slope,
        rss_growth: common.max_growth,
        settle_s: common.settle.as_secs_f64(),
    };
    let machine = Machine::current();
    let mut progress = Progress::new(what);
    let course = soak::run(&spec, &mut progress)?;
    progress.bar.finish_and_clear();
    let interrupted = course.interrupted;
    let report = Report::new(&spec, &limits, command_line(), machine, course);
    let mut text = report.markdown();
    if let Some(path) = &common.json {
        let json = serde_json::to_string_pretty(&report)
            .map_err(|error| Error::host("write the results as JSON", error))?;
        write("--json", path, &format!("{json}\n"))?;
    }
    if let Some(path) = &common.svg {
        write("--svg", path, &timeline::svg(&report))?;
    }
    if let Some(path) = &common.record {
        let all = record::add(path, &record::Line::of(&report))
            .map_err(|source| failed("--record", path, source))?;
        text += &format!("\n{}\n", record::sums(&all, report.verb));
    }
    output::print(&text)?;
    Ok(match interrupted {
        Some(signal) => ExitCode::from(128 | signal),
        None if report.is_good() => ExitCode::SUCCESS,
        None => ExitCode::from(MISSED),
    })
}

/// The command line, with the program by its name.
fn command_line() -> String {
    let words = env::args_os().skip(1);
    let words = words.map(|word| word.to_string_lossy().into_owned());
    std::iter::once("crun-lite".to_owned())
        .chain(words)
        .collect::<Vec<_>>()
        .join(" ")
}

fn write(option: &'static str, path: &Path, text: &str) -> Result<(), Error> {
    fs::write(path, text).map_err(|source| failed(option, path, source))
}

fn failed(option: &'static str, path: &Path, source: std::io::Error) -> Error {
    Error::Path {
        option,
        path: path.to_owned(),
        source,
    }
}

fn time(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if time < Duration::from_millis(100) {
        return Err("at least 100ms is needed".to_owned());
    }
    Ok(time)
}

fn rate(text: &str) -> Result<f64, String> {
    let number = text.parse().ok();
    number
        .filter(|number| (0.001..=10_000.0).contains(number))
        .ok_or_else(|| "a number from 0.001 to 10000 is needed".to_owned())
}

fn builtin(text: &str) -> Result<String, String> {
    if text == "builtin" || text.starts_with("builtin:") {
        return Ok(text.to_owned());
    }
    Err("only the network of our own can be put under this load".to_owned())
}

/// A bar on standard error where that is a terminal, else messages.
struct Progress {
    bar: ProgressBar,
    what: What,
}

impl Progress {
    fn new(what: What) -> Self {
        let bar = ProgressBar::new(0);
        let style = ProgressStyle::with_template("{prefix} {bar:16} {elapsed}  {wide_msg}");
        if let Ok(style) = style {
            bar.set_style(style);
        }
        Self { bar, what }
    }
}

impl Watcher for Progress {
    fn begins(&mut self, part: &'static str, limit: Duration) {
        tracing::info!("{part}, {limit:?} at most");
        self.bar.set_prefix(part);
        self.bar.set_message("");
        let whole = match self.what.total() {
            Some(total) if part == soak::LOAD => total,
            _ => limit.as_millis().try_into().unwrap_or(u64::MAX),
        };
        self.bar.set_length(whole);
        self.bar.set_position(0);
        self.bar.tick();
    }

    fn sampled(&mut self, sample: &Sample) {
        let done = match self.what.total() {
            Some(_) => sample.done,
            None => Duration::from_secs_f64(sample.at)
                .as_millis()
                .try_into()
                .unwrap_or(u64::MAX),
        };
        let mut message = format!(
            "{} errors, {} flows, {} fds, {} MiB, CPU {:.0} %",
            sample.errors,
            sample.state.flows,
            sample.state.fds,
            sample.state.rss_kib / 1024,
            sample.cpu_percent
        );
        if sample.gbit_up + sample.gbit_down > 0.0 {
            message += &format!(
                ", up {} down {} Gbit/s",
                short(sample.gbit_up),
                short(sample.gbit_down)
            );
        }
        for (kind, rate) in &sample.per_second {
            message += &format!(", {} {}/s", kind.name(), short(*rate));
        }
        tracing::info!("{:.0} s: {message}", sample.at);
        self.bar.set_position(done);
        self.bar.set_message(message);
        self.bar.tick();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_refused() {
        assert!(time("1ms").is_err() && time("soon").is_err());
        assert_eq!(time("90s"), Ok(Duration::from_secs(90)));
        for text in ["0", "-1", "NaN", "x", "100000"] {
            assert!(rate(text).is_err(), "{text}");
        }
        assert_eq!(rate("0.5"), Ok(0.5));
        assert!(builtin("none").is_err() && builtin("builtins").is_err());
        assert!(builtin("builtin:link=veth").is_ok());
    }
}
