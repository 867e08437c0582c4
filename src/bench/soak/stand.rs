//! The processes of a run: servers, the container, and who makes the load.
//!
//! ```text
//!   here                                      outside
//!   resolver  127.0.0.53                      server   198.18.0.2 ... :7000
//!   crun-lite ── container: server and client
//!   client to 127.0.0.1:8000 (spliced)        client to 198.18.0.1:8000 (the link)
//! ```
//! All of them are this program; the container is started by its command line.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use super::watch::{self, State};
use super::world::{self, World};
use super::{Spec, What};
use crate::bench::Error;
use crate::bench::load::{Job, Mix, Progress, Said, Target, Work};
use crate::bench::process::{Interrupts, Process, ProcessError};
use crate::sys::child::cpu_time;

/// TCP and UDP of the servers outside and in the container.
const SERVER_PORT: u16 = 7000;
/// Where the container's server is published.
const PUBLISHED_PORT: u16 = 8000;
const DNS_PORT: u16 = 53;
/// The forwarder as the container knows it.
const FORWARDER: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 3);
/// How long something may take that ought to take no time, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long the threads of a client may take to come to their end.
const ENDING: Duration = Duration::from_secs(180);
/// Streams at once that the rate is shared among: two each way to the outside, and
/// one each way to a published port from either side.
const STREAMS: f64 = 8.0;

/// Who makes load, by the name that results have.
#[derive(Debug)]
struct Client {
    name: &'static str,
    process: Process,
    /// What it has told last.
    progress: Progress,
}

/// Everything that runs.
#[derive(Debug)]
pub(super) struct Stand<'a> {
    /// The first is in the container; its process is that of crun-lite.
    clients: Vec<Client>,
    own: &'a Path,
    interrupts: &'a Interrupts,
    _servers: Vec<Process>,
}

impl<'a> Stand<'a> {
    /// Starts everything; nothing makes load yet.
    ///
    /// # Errors
    /// A process does not start.
    pub(super) fn start(
        spec: &'a Spec,
        world: &World,
        interrupts: &'a Interrupts,
    ) -> Result<Self, Error> {
        let own = spec.own.as_path();
        let mut stand = Self {
            clients: Vec::new(),
            own,
            interrupts,
            _servers: Vec::new(),
        };
        let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, SERVER_PORT));
        let server = load(own, &["serve", &format!("--at={any}")]);
        world.outside(|| stand.serve("the server", server))??;
        let names = world.no_names.is_none();
        if names {
            let at = SocketAddr::from((world::RESOLVER, DNS_PORT));
            let resolver = load(own, &["resolve", &format!("--at={at}")]);
            stand.serve("the resolver", resolver)?;
        }
        let target = Target {
            tcp: world::outside_addresses()
                .map(|address| (address, SERVER_PORT).into())
                .collect(),
            udp: Some(
                (
                    world::outside_addresses().next().unwrap_or(world::HOST),
                    SERVER_PORT,
                )
                    .into(),
            ),
            names: names.then(|| (FORWARDER, DNS_PORT).into()),
        };
        let mix = |streams, refused| {
            let What::Soak { gbit } = spec.what else {
                return None;
            };
            Some(Job::Mix(Mix {
                streams,
                rate: bytes_per_second(gbit / STREAMS),
                refused,
            }))
        };
        let work = Work {
            target,
            job: mix(2, true).unwrap_or_else(|| spec.what.job()),
            serve: Some(any),
        };
        let command = container(spec, &work);
        stand.client("container", command)?;
        let published = |address| {
            let at = SocketAddr::from((address, PUBLISHED_PORT));
            let target = Target {
                tcp: vec![at],
                udp: Some(at),
                names: None,
            };
            let job = mix(1, false)?;
            Some(client(
                own,
                &Work {
                    target,
                    job,
                    serve: None,
                },
            ))
        };
        if let Some(command) = published(Ipv4Addr::LOCALHOST) {
            stand.client("host", command)?;
        }
        if let Some(command) = published(world::HOST) {
            world.outside(|| stand.client("outside", command))??;
        }
        Ok(stand)
    }

    fn serve(&mut self, name: &str, mut command: Command) -> Result<(), Error> {
        let mut process = Process::start(name, &mut command)?;
        let line = process.line(PATIENCE, self.interrupts)?;
        match said(name, &line)? {
            Said::Listening { .. } => self._servers.push(process),
            other => return Err(unexpected(name, &other)),
        }
        Ok(())
    }

    fn client(&mut self, name: &'static str, mut command: Command) -> Result<(), Error> {
        let mut process = Process::start(name, &mut command)?;
        let line = process.line(PATIENCE, self.interrupts)?;
        match said(name, &line)? {
            Said::Started => self.clients.push(Client {
                name,
                process,
                progress: Progress::default(),
            }),
            other => return Err(unexpected(name, &other)),
        }
        Ok(())
    }

    /// Begins to make load.
    pub(super) fn go(&mut self) -> Result<(), Error> {
        for client in &mut self.clients {
            client.process.tell("go")?;
        }
        Ok(())
    }

    /// What every client has done so far.
    pub(super) fn progress(&mut self) -> Result<BTreeMap<&'static str, Progress>, Error> {
        self.ask("report", PATIENCE)
    }

    /// Ends the load; what every client has done in all.
    pub(super) fn stop(&mut self) -> Result<BTreeMap<&'static str, Progress>, Error> {
        self.ask("stop", ENDING)
    }

    fn ask(
        &mut self,
        order: &str,
        limit: Duration,
    ) -> Result<BTreeMap<&'static str, Progress>, Error> {
        for client in &mut self.clients {
            client.process.tell(order)?;
        }
        let mut all = BTreeMap::new();
        for client in &mut self.clients {
            let line = client.process.line(limit, self.interrupts)?;
            match said(client.name, &line)? {
                Said::Progress(progress) => client.progress = progress,
                other => return Err(unexpected(client.name, &other)),
            }
            all.insert(client.name, client.progress.clone());
        }
        Ok(all)
    }

    /// What the process of crun-lite uses, and what it says of its flows.
    pub(super) fn state(&mut self) -> Result<State, Error> {
        let pid = self.parent()?;
        let counters = self.query("stats")?;
        let counters =
            watch::counters(&counters).ok_or_else(|| nonsense("net stats", &counters))?;
        watch::state(pid, &counters).map_err(|source| Error::Watch { source })
    }

    /// How many flows of TCP it has, and how many of datagrams.
    pub(super) fn flows(&mut self) -> Result<(u64, u64), Error> {
        let flows = self.query("flows")?;
        watch::flows(&flows).ok_or_else(|| nonsense("net flows", &flows))
    }

    /// The share of one CPU, percent, that it uses in so long; nobody asks it
    /// anything meanwhile.
    pub(super) fn idle_cpu(&mut self, time: Duration) -> Result<f64, Error> {
        let pid = self.parent()?;
        let used = || cpu_time(pid).map_err(|source| Error::Watch { source });
        let (before, began) = (used()?, Instant::now());
        self.interrupts.pause(began + time)?;
        let used = used()?.saturating_sub(before).as_secs_f64();
        Ok(used / began.elapsed().as_secs_f64() * 100.0)
    }

    fn parent(&self) -> Result<rustix::process::Pid, Error> {
        let first = self.clients.first();
        first
            .map(|client| client.process.pid())
            .ok_or_else(|| nonsense("the benchmark", "no container"))
    }

    /// `crun-lite net WHAT CONTAINER --json`.
    fn query(&mut self, what: &str) -> Result<String, Error> {
        let name = self.parent()?.to_string();
        let mut command = Command::new(self.own);
        command.args(["net", what, "--json", &name]);
        let mut process = Process::start("crun-lite net", &mut command)?;
        Ok(process.line(PATIENCE, self.interrupts)?)
    }
}

fn load(own: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(own);
    command.args(["bench", "load"]).args(args);
    command
}

fn client(own: &Path, work: &Work) -> Command {
    let mut command = Command::new(own);
    command.args(work_args(work));
    command
}

fn work_args(work: &Work) -> Vec<OsString> {
    // Plain data: it is always JSON.
    let json = serde_json::to_string(work).unwrap_or_default();
    ["bench", "load", "work"]
        .map(OsString::from)
        .into_iter()
        .chain([json.into()])
        .collect()
}

fn container(spec: &Spec, work: &Work) -> Command {
    let mut command = Command::new(&spec.own);
    command.args(["run", "-i", "--rootfs=/"]);
    command.arg(format!("--net={}", spec.net));
    for transport in ["tcp", "udp"] {
        command.arg(format!("-p={PUBLISHED_PORT}:{SERVER_PORT}/{transport}"));
    }
    let (user, group) = (rustix::process::geteuid(), rustix::process::getegid());
    if !user.is_root() {
        // In the world of ours there are no subordinate ids.
        command.arg(format!("--uidmap=0:{}:1", user.as_raw()));
        command.arg(format!("--gidmap=0:{}:1", group.as_raw()));
    }
    command.arg("--").arg(&spec.own).args(work_args(work));
    command
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a positive rate far below 2^53"
)]
fn bytes_per_second(gbit: f64) -> u64 {
    (gbit * 1e9 / 8.0).max(1.0) as u64
}

fn said(name: &str, line: &str) -> Result<Said, Error> {
    match serde_json::from_str(line) {
        Ok(Said::Failed(reason)) => Err(nonsense(name, &reason)),
        Ok(said) => Ok(said),
        Err(_) => Err(nonsense(name, line)),
    }
}

fn unexpected(name: &str, said: &Said) -> Error {
    nonsense(name, &format!("{said:?}"))
}

fn nonsense(name: &str, line: &str) -> Error {
    Error::Said {
        name: name.to_owned(),
        line: line.to_owned(),
    }
}

/// Whether the benchmark is to end, and by which signal.
pub(super) fn interrupted(error: &Error) -> Option<u8> {
    match error {
        Error::Process(ProcessError::Interrupted(signal)) => Some(*signal),
        _ => None,
    }
}
