//! `crun-lite bench`: words to what is measured, progress, and where results go.

use std::env;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};

use super::{output, soak};
use crate::bench::backend::{Backend, Choice, KINDS};
use crate::bench::cases::{self, Case};
use crate::bench::load::{self, Task, Work};
use crate::bench::machine::Machine;
use crate::bench::report::Report;
use crate::bench::stats::short;
use crate::bench::{self, Observer, Sample, Spec, chart, table};
use crate::error::Error;

/// Longest sample.
const MOST_SECONDS: f64 = 3600.0;
/// Most samples of each.
const MOST_ROUNDS: u32 = 1000;
/// Range of the MTU, bytes: that of `run --mtu`.
const MTUS: std::ops::RangeInclusive<u16> = 576..=65520;
/// Where results go.
const DEFAULT_OUTPUT: &str = "crun-lite-bench";
/// Congestion control of both ends: it does not pace, so that what is measured is
/// the network, and no kernel restricts it.
const DEFAULT_CC: &str = "reno";

/// What no single option says.
const NET_NOTES: &str = "\
Cases (up is from the container to the host; the host end is at 127.0.0.1):
  tcp_up_N tcp_down_N    streams, N at once: payload that arrives, Gbit/s
  tcp_rr udp_rr          one byte there and back, one after the other, per second
  tcp_crr_N              connect, one byte there and back, close; N at a time
  udp_up_SIZE udp_down_SIZE
                         datagrams of SIZE bytes as fast as they can be sent, 32 per
                         sendmmsg(2): those that arrive per second, and the loss
  flows_N                memory of the helper per idle connection, of N, and tcp_rr
                         beside them
  startup                launch to exit of `true`, ms: median of as many as fit

Backends:
  native                 the host's loopback, without a container
  crun-lite              crun-lite run --net=builtin:allow_host_loopback=true
  slirp4netns pasta      as installed; LABEL:KIND=PATH measures another build, such
                         as new:pasta=/opt/passt/pasta or old:crun-lite=./crun-lite

Each sample has a fresh container and server. Helper CPU is the time of all
processes of the helper, without the container's. The helper's own sockets have the
system's congestion control; --cc sets that of both ends.

Files: DIR/net.json has every sample, DIR/net.md the table, DIR/net-mtuN.svg a chart
for each MTU.

Exit status: 0, also where a backend fails in a case, which the table says; 125 when
nothing could be measured; 128+N after signal N, with what there was until then.";

/// `crun-lite bench`, as typed.
#[derive(Debug, Args)]
#[command(arg_required_else_help = false, disable_help_subcommand = true)]
pub(super) struct BenchArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Compare rootless networks: the same work over loopback, crun-lite,
    /// slirp4netns and pasta
    Net(NetArgs),
    /// Everything at once for a long time: whether it lasts, and leaks nothing
    Soak(soak::SoakArgs),
    /// As many connections at once as the limit on open files allows
    Flows(soak::FlowsArgs),
    /// Connections opened, used and closed in every order
    Churn(soak::ChurnArgs),
    /// Many bytes each way, of which every one is checked
    Integrity(soak::IntegrityArgs),
    /// The load generator of the other benchmarks
    #[command(hide = true)]
    Load {
        #[command(subcommand)]
        end: End,
    },
}

/// `crun-lite bench net`, as typed.
#[derive(Debug, Args)]
#[command(after_long_help = NET_NOTES, args_override_self = true)]
struct NetArgs {
    /// What to measure [default: all, with flows_1000]
    #[arg(long, value_name = "CASE,...", value_delimiter = ',')]
    cases: Vec<String>,
    /// What to compare [default: native,crun-lite,slirp4netns,pasta]
    #[arg(long, value_name = "LABEL[:KIND][=PATH],...", value_delimiter = ',')]
    backends: Vec<String>,
    /// Time per sample
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0, value_parser = seconds)]
    seconds: f64,
    /// Samples of each case and backend
    #[arg(long, value_name = "N", default_value_t = 3,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST_ROUNDS)))]
    rounds: u32,
    /// Largest IP packet on the link, bytes; several are measured one after the other
    #[arg(long, value_name = "BYTES,...", value_delimiter = ',', default_value = "65520",
          value_parser = clap::value_parser!(u16).range(i64::from(*MTUS.start())..=i64::from(*MTUS.end())))]
    mtu: Vec<u16>,
    /// TCP congestion control of both ends; empty for the system's default
    #[arg(long, value_name = "NAME", default_value = DEFAULT_CC)]
    cc: String,
    /// Confine everything to these CPUs, such as 0 or 0-3,8; on one CPU tcp_rr shows
    /// the length of the path instead of the cost of waking another CPU
    #[arg(long, value_name = "LIST", value_parser = cpu_list)]
    cpus: Option<CpuList>,
    /// Print JSON in place of the table
    #[arg(long)]
    json: bool,
    /// Where the files go; made when missing
    #[arg(long, short, value_name = "DIR", default_value = DEFAULT_OUTPUT)]
    output: PathBuf,
}

/// One end of the load.
#[derive(Debug, Subcommand)]
enum End {
    /// Serve until standard input ends
    Serve {
        #[arg(long, default_value = "127.0.0.1:0")]
        at: SocketAddr,
        #[arg(long)]
        cc: Option<String>,
    },
    /// Resolve names until standard input ends
    Resolve {
        #[arg(long)]
        at: SocketAddr,
    },
    /// Work as JSON says, and as told
    Work { work: Work },
    /// Carry out one case
    Run {
        case: Case,
        #[arg(long)]
        tcp: SocketAddr,
        #[arg(long)]
        udp: SocketAddr,
        #[arg(long, value_parser = seconds)]
        seconds: f64,
        #[arg(long)]
        cc: Option<String>,
    },
}

/// A list of CPUs, in order, each once.
type CpuList = std::sync::Arc<[usize]>;

/// Carries the benchmark out.
pub(super) fn run(args: BenchArgs) -> Result<ExitCode, Error> {
    match args.what {
        What::Net(args) => net(args),
        What::Soak(args) => soak::soak(args),
        What::Flows(args) => soak::flows(args),
        What::Churn(args) => soak::churn(args),
        What::Integrity(args) => soak::integrity(args),
        What::Load { end } => {
            let mut stdout = io::stdout();
            let result = match end {
                End::Serve { at, cc } => load::serve(at, cc.as_deref(), &mut stdout),
                End::Resolve { at } => load::resolve(at, &mut stdout),
                End::Work { work } => load::work(&work, &mut stdout),
                End::Run {
                    case,
                    tcp,
                    udp,
                    seconds,
                    cc,
                } => {
                    let task = Task {
                        case,
                        tcp,
                        udp,
                        duration: Duration::from_secs_f64(seconds),
                        congestion_control: cc,
                    };
                    load::run(&task, &mut stdout)
                }
            };
            result.map_err(Error::Load)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn net(args: NetArgs) -> Result<ExitCode, Error> {
    let own = env::current_exe().map_err(|error| Error::host("find this program", error))?;
    let spec = validate(&args, own)?;
    make_folder(&args.output)?;
    let machine = Machine::current();
    let mut progress = Progress::new(spec.total());
    let samples = bench::run(&spec, &mut progress)?;
    progress.bar.finish_and_clear();
    let report = Report::new(&spec, machine, &samples);
    let table = table::markdown(&report);
    let json = serde_json::to_string_pretty(&report)
        .map_err(|error| Error::host("write the results as JSON", error))?;
    let mut files = vec![
        ("net.json".to_owned(), format!("{json}\n")),
        ("net.md".to_owned(), table.clone()),
    ];
    let chart = |&mtu| (format!("net-mtu{mtu}.svg"), chart::svg(&report, mtu));
    files.extend(spec.mtus.iter().map(chart));
    let written = write(&args.output, files)?;
    if args.json {
        output::print(&format!("{json}\n"))?;
    } else {
        output::print(&format!("{table}\n{written}"))?;
    }
    Ok(samples
        .interrupted
        .map_or(ExitCode::SUCCESS, |signal| ExitCode::from(128 | signal)))
}

/// Writes the files; a line for each.
fn write(folder: &Path, files: Vec<(String, String)>) -> Result<String, Error> {
    let mut written = String::new();
    for (name, content) in files {
        let path = folder.join(name);
        written += &format!("{}\n", path.display());
        fs::write(&path, content).map_err(|source| Error::Path {
            option: "--output",
            path,
            source,
        })?;
    }
    Ok(written)
}

/// Everything that can be wrong with the options is found here.
fn validate(args: &NetArgs, own: PathBuf) -> Result<Spec, Error> {
    let usage = |error: &dyn std::fmt::Display| Error::Usage(error.to_string());
    let cases = if args.cases.is_empty() {
        cases::DEFAULT.to_vec()
    } else {
        let parsed = args.cases.iter().map(|name| name.parse());
        parsed
            .collect::<Result<Vec<Case>, _>>()
            .map_err(|error| usage(&format_args!("--cases: {error}")))?
    };
    let choices = if args.backends.is_empty() {
        KINDS.map(Choice::usual).to_vec()
    } else {
        let parsed = args.backends.iter().map(|word| word.parse());
        parsed
            .collect::<Result<Vec<Choice>, _>>()
            .map_err(|error| usage(&format_args!("--backends: {error}")))?
    };
    if let Some(twice) = repeated(cases.iter().map(ToString::to_string)) {
        return Err(usage(&format_args!("--cases: {twice} is there twice")));
    }
    if let Some(twice) = repeated(choices.iter().map(|choice| choice.label().to_owned())) {
        return Err(usage(&format_args!("--backends: {twice} is there twice")));
    }
    let backends = choices
        .into_iter()
        .map(|choice| choice.find(&own))
        .collect::<Result<Vec<Backend>, _>>()
        .map_err(|error| usage(&format_args!("--backends: {error}")))?;
    if backends.iter().all(|backend| backend.missing) {
        return Err(usage(&"--backends: none of these is installed"));
    }
    Ok(Spec {
        own,
        cases,
        backends,
        mtus: args.mtu.clone(),
        duration: Duration::from_secs_f64(args.seconds),
        rounds: args.rounds,
        congestion_control: Some(args.cc.clone()).filter(|name| !name.is_empty()),
        cpus: args.cpus.as_deref().unwrap_or_default().to_vec(),
    })
}

/// The first word that is there a second time.
fn repeated(words: impl Iterator<Item = String>) -> Option<String> {
    let mut seen = std::collections::HashSet::new();
    words.into_iter().find(|word| !seen.insert(word.clone()))
}

fn make_folder(path: &Path) -> Result<(), Error> {
    fs::create_dir_all(path).map_err(|source| Error::Path {
        option: "--output",
        path: path.to_owned(),
        source,
    })
}

fn seconds(text: &str) -> Result<f64, String> {
    let number = text.parse().ok();
    number
        .filter(|seconds| (0.05..=MOST_SECONDS).contains(seconds))
        .ok_or_else(|| format!("a number of seconds from 0.05 to {MOST_SECONDS} is needed"))
}

fn cpu_list(text: &str) -> Result<CpuList, String> {
    let wrong = || "a list such as 0 or 0-3,8 is needed".to_owned();
    let mut cpus = Vec::new();
    for range in text.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let number = |digits: &str| digits.parse::<u16>().map(usize::from).map_err(|_| wrong());
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return Err(wrong());
        }
        cpus.extend(first..=last);
    }
    cpus.sort_unstable();
    cpus.dedup();
    Ok(cpus.into())
}

/// A bar on standard error where that is a terminal, else messages.
struct Progress {
    bar: ProgressBar,
}

impl Progress {
    fn new(total: usize) -> Self {
        // Drawn between samples only: a thread that draws would be measured, too.
        let bar = ProgressBar::new(total as u64);
        let style = ProgressStyle::with_template("{bar:16} {pos}/{len}, {eta} left  {wide_msg}");
        if let Ok(style) = style {
            bar.set_style(style);
        }
        Self { bar }
    }
}

impl Observer for Progress {
    fn begins(&mut self, case: Case, mtu: u16, backend: &str, round: u32) {
        self.bar
            .set_message(format!("{backend} {case}, MTU {mtu}, round {round}"));
        self.bar.tick();
    }

    fn ended(&mut self, sample: &Sample) {
        self.bar.inc(1);
        let Sample {
            case,
            mtu,
            backend,
            round,
            result,
        } = sample;
        match result {
            Ok(figures) => {
                let metric = case.metric();
                let figure = figures.get(metric.key).map(|&value| short(value));
                let figure = figure.unwrap_or_else(|| "-".to_owned());
                tracing::info!(
                    "{backend} {case}, MTU {mtu}, round {round}: {figure} {}",
                    metric.unit
                );
            }
            Err(reason) => self.bar.suspend(|| {
                tracing::warn!("{backend} {case}, MTU {mtu}, round {round}: {reason}");
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args;
    use clap::FromArgMatches;

    fn parse(options: &[&str]) -> Result<NetArgs, String> {
        let words = ["crun-lite", "bench", "net"].iter().chain(options);
        let matches = args::command()
            .try_get_matches_from(words)
            .map_err(|error| error.to_string())?;
        let cli = args::Cli::from_arg_matches(&matches).unwrap();
        let args::Verb::Bench(args) = cli.verb else {
            panic!("{:?}", cli.verb);
        };
        match args.what {
            What::Net(net) => Ok(net),
            other => panic!("{other:?}"),
        }
    }

    fn spec(options: &[&str]) -> Result<Spec, String> {
        validate(&parse(options)?, "/own".into()).map_err(|error| error.to_string())
    }

    #[test]
    fn without_options_everything_is_measured() {
        let spec = spec(&[]).unwrap();
        assert_eq!(spec.cases, cases::DEFAULT);
        let labels: Vec<&str> = spec.backends.iter().map(|b| b.label.as_str()).collect();
        assert_eq!(labels, ["native", "crun-lite", "slirp4netns", "pasta"]);
        assert_eq!((spec.mtus.as_slice(), spec.rounds), (&[65520][..], 3));
        assert_eq!(spec.duration, Duration::from_secs(2));
        assert_eq!(spec.congestion_control.as_deref(), Some("reno"));
        assert!(spec.cpus.is_empty());
    }

    #[test]
    fn lists_and_numbers_are_read() {
        let options = [
            "--cases=tcp_rr,flows_10",
            "--backends=native,twin:crun-lite",
            "--mtu=1500,65520",
            "--seconds=0.25",
            "--rounds=1",
            "--cc=",
            "--cpus=4,0-2,1",
        ];
        let spec = spec(&options).unwrap();
        assert_eq!(spec.cases, [Case::TcpRr, Case::Flows(10)]);
        assert_eq!(spec.backends[1].label, "twin");
        assert_eq!(spec.mtus, [1500, 65520]);
        assert_eq!(spec.duration, Duration::from_millis(250));
        assert_eq!(spec.congestion_control, None);
        assert_eq!(spec.cpus, [0, 1, 2, 4]);
        assert_eq!(spec.total(), 2 * 2 * 2);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (option, word) in [
            (
                "--cases=tcp_up_1,tcp_sideways",
                "unknown case \"tcp_sideways\"",
            ),
            ("--cases=tcp_up_0", "tcp_up_0"),
            ("--cases=tcp_rr,tcp_rr", "tcp_rr is there twice"),
            ("--backends=native,vpnkit", "unknown backend \"vpnkit\""),
            ("--backends=native,native", "native is there twice"),
            ("--backends=pasta=/no/such/pasta", "/no/such/pasta"),
            ("--seconds=0", "a number of seconds"),
            ("--seconds=NaN", "a number of seconds"),
            ("--rounds=0", "--rounds"),
            ("--mtu=1500,100", "100"),
            ("--cpus=3-1", "a list such as"),
            ("--cpus=", "a list such as"),
        ] {
            let error = spec(&[option]).unwrap_err();
            assert!(error.contains(word), "{option}: {error}");
        }
    }
}
