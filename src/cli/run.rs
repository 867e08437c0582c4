//! `crun-lite run`: where container and network meet.
//!
//! With a network of our own this process is the sandboxed one: once the packet loop is
//! ready, and before init may start the command, it locks itself in
//! ([`crate::security::sandbox`]), and what needs more is asked of the
//! [keeper](crate::keeper).

mod answers;
mod duties;
mod idmapped;

use std::fs;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crun_lite_rootfs::{Entry, HostProbe};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Registry, Token};
use rustix::io::Errno;

use super::args::{LogFormat, RunArgs};
use super::options::{self, Host};
use super::output;
use super::report::Report;
use super::{binfmt, seal};
use crate::cgroup;
use crate::config::{
    BuiltinNetwork, Groups, Network, Propagation, RootFs, RunSpec, search_domains,
};
use crate::container::{
    self, Inherited, NetLink, NetworkSetup, Prepared, Sockets, SpawnIo, Supervisor,
};
use crate::control::Server;
use crate::errno;
use crate::error::Error;
use crate::keeper::Keeper;
use crate::net::{self, Capture, Driver, Listener, NetLog};
use crate::ns::idmap::{self, Maps};
use crate::ns::modes::{self, Choice};
use crate::plan::{self, EtcFiles, FileKind, MountFlags, Plan, RootSource, Step};
use crate::security::sandbox::{Features, Sandbox};
use crate::sys;
use crate::sys::signal::{self, SignalSet};

/// Events taken from the kernel at a time.
const EVENTS: usize = 256;
/// The end of the keeper.
const KEEPER: Token = Token(Supervisor::TOKENS + Server::TOKENS);
/// The first token of the network's.
const NETWORK: usize = KEEPER.0 + 1;
/// How long what the container has sent may take to leave after its end.
const LINGER: Duration = Duration::from_secs(5);
/// How long the end of the container may take to show after that of its link.
const GRACE: Duration = Duration::from_millis(50);

/// Validates, plans, and unless it is a dry run carries the plan out. Nothing has
/// been changed when an error comes before the last of these.
pub(super) fn run(args: RunArgs, format: LogFormat) -> Result<ExitCode, Error> {
    let dry_run = args.dry_run;
    let mut spec = options::validate(args, &Host::current())?;
    if spec.landlock && matches!(spec.rootfs, RootFs::Dir(_)) && binfmt::has_fixed_interpreter() {
        tracing::info!("no Landlock: binfmt_misc runs programs of the host's in the container");
        spec.landlock = false;
    }
    if let Network::Builtin(network) = &mut spec.network {
        net::choose_ipv6(network)?;
        net::check_outbound(network)?;
        if dry_run {
            network.no_tap = net::probe_tap().err().map(|why| why.to_string());
        }
    }
    let resolv_conf = read_text("/etc/resolv.conf");
    let (plan, inherited) = prepare(&spec, &resolv_conf)?;
    if dry_run {
        output::plan(&plan, format)?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Err(error) = seal::ensure(&spec, &plan) {
        tracing::warn!("the container may be able to change this program: no sealed copy: {error}");
    }
    // Before anything else is opened to stay.
    let listen_fds = sys::listen_fds::take()
        .map_err(|error| Error::host("take over the sockets of LISTEN_FDS", error))?;
    container::raise_limits(&spec.limits.ulimits)?;
    let listeners = net::bind_published(&spec.publish, listen_fds)?;
    let Network::Builtin(network) = &spec.network else {
        return alone(&spec, &plan, inherited).map(ExitCode::from);
    };
    let ended = carry_out(&spec, &plan, inherited, network, &resolv_conf, listeners);
    // What the runtime does after `main` is not for the sandbox.
    sys::process::exit(ended.unwrap_or_else(|report| {
        report.print(format);
        report.exit_code()
    }))
}

/// Everything that can be found out and decided without changing anything: the
/// root filesystem, the id maps, the private files, and from them the steps.
fn prepare(spec: &RunSpec, resolv_conf: &str) -> Result<(Plan, Inherited), Error> {
    let root = match &spec.rootfs {
        RootFs::Dir(dir) => RootSource::Bind(dir.clone()),
        RootFs::Default => {
            let recipe = crun_lite_rootfs::choose(&HostProbe::new())?;
            tracing::info!("root filesystem: {}", recipe.summary);
            RootSource::Recipe(recipe.entries.into_iter().map(step).collect())
        }
    };
    let given = Maps {
        uid: spec.uid_map.clone(),
        gid: spec.gid_map.clone(),
    };
    let Choice { maps, lease } = modes::choose(spec.userns, given, options::highest_id(spec))?;
    options::check_ids(spec, &maps.uid, &maps.gid)?;
    if matches!(&spec.groups, Groups::Added(groups) if !groups.is_empty())
        && spec.namespaces.user
        && !idmap::setgroups_allowed(&maps.gid)
    {
        return Err(Error::Usage(
            "--group-add: without subordinate ids the container has no group but yours \
             ('crun-lite doctor' says what is missing)"
                .to_owned(),
        ));
    }
    let files = EtcFiles::new(spec, resolv_conf, &read_text("/etc/hosts"));
    let cgroup = cgroup::design(&spec.limits)?;
    let maps = (maps.uid, maps.gid);
    let plan = plan::compile(spec, &root, maps, &files, cgroup);
    let inherited = Inherited {
        lease,
        mounts: Vec::new(),
    };
    Ok((plan, inherited))
}

/// An entry of the default root filesystem as a step.
fn step(entry: Entry) -> Step {
    let create = |target: PathBuf, kind| Step::Create { target, kind };
    match entry {
        Entry::Directory { path, mode } => create(path, FileKind::Directory { mode }),
        Entry::File {
            path,
            mode,
            content,
        } => create(path, FileKind::Regular { mode, content }),
        Entry::CopyOf { path, mode, source } => create(path, FileKind::CopyOf { mode, source }),
        Entry::Symlink { path, to } => create(path, FileKind::Symlink { to }),
        Entry::BindReadOnly { path, source } => Step::Bind {
            source,
            target: path,
            propagation: Propagation::Private,
            idmap: false,
            flags: MountFlags {
                read_only: true,
                nosuid: true,
                nodev: true,
                noexec: false,
                noatime: false,
            },
        },
    }
}

/// The text of a file of the host's, empty when there is none to read.
fn read_text(path: &str) -> String {
    match fs::read(path) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) => {
            tracing::info!("{path}: {error}");
            String::new()
        }
    }
}

/// Starts the container and its network and waits for the end of both.
fn carry_out(
    spec: &RunSpec,
    plan: &Plan,
    mut inherited: Inherited,
    network: &BuiltinNetwork,
    resolv_conf: &str,
    listeners: Vec<Listener>,
) -> Result<u8, Report> {
    let is_root = rustix::process::geteuid().is_root();
    let control = take_name(spec.name.as_deref())?;
    let logs = duties::Logs {
        capture: spec.pcap.as_ref().map(Capture::create).transpose()?,
        refusals: spec.net_log.as_ref().map(NetLog::create).transpose()?,
    };
    // Before the container, so that they are dropped after it.
    let (heir, cgroup) = duties::make_cgroup(plan)?;
    let network_of = set_up(Some(network));
    inherited.mounts = idmapped::mounts(plan)?;
    let mut prepared = container::spawn(plan, io_of(spec), network_of, cgroup.as_ref(), inherited)?;
    if let Some(heir) = &heir {
        prepared.spare(heir.pid());
    }
    // While init is at work, which would be waited for anyway.
    let started = duties::start(&mut prepared, logs, cgroup)?;
    let keeper = Rc::clone(&started.keeper);
    let parts = Parts {
        prepared,
        control,
        listeners,
        started,
        sandbox: plan.sandbox,
    };
    let ended = drive(spec, network, resolv_conf, parts);
    // Where this process may not look for causes itself any more.
    ended.map_err(|error| {
        let hint = error.hint_by(is_root, |name| keeper.setting(name));
        Report::new(&error, hint)
    })
}

/// What a run with a network has once its container is being set up.
struct Parts {
    prepared: Prepared,
    control: Server,
    listeners: Vec<Listener>,
    started: duties::Started,
    sandbox: Option<Features>,
}

/// Gets the packet loop ready, locks this process in, and drives container and network
/// to the end of both.
fn drive(
    spec: &RunSpec,
    network: &BuiltinNetwork,
    resolv_conf: &str,
    parts: Parts,
) -> Result<u8, Error> {
    let Parts {
        mut prepared,
        mut control,
        listeners,
        started,
        sandbox,
    } = parts;
    let duties::Started {
        keeper,
        capture,
        refusals,
    } = started;
    let mut poll = new_poll()?;
    let Some(link) = prepared.take_link()? else {
        return Err(Error::InitDied("it has made no link".to_owned()));
    };
    let mut driver = Driver::new(
        net::Link::from_parts(&link.about, link.fds)?,
        network,
        net::resolvers_of(resolv_conf),
        poll.registry(),
        NETWORK,
    )?;
    driver.set_names(plan::own_names(spec));
    let search = spec.dns_search.clone();
    driver.set_search(search.unwrap_or_else(|| search_domains(resolv_conf)));
    driver.know_names(plan::given_names(spec));
    duties::follow_resolvers(&mut driver, &keeper);
    if let Some(log) = refusals {
        driver.log_refusals_to(log);
    }
    if let Some(capture) = capture {
        driver.capture(capture);
    }
    if !spec.init {
        driver.admit_all_by_link();
    }
    driver.publish(listeners)?;
    control.register(poll.registry(), Supervisor::TOKENS)?;
    watch(&keeper, poll.registry())?;
    let registry = share(&poll)?;
    let sandbox = sandbox.map(Sandbox::prepare).transpose()?;
    // The link has somebody to listen to it: nothing else has to be waited for. With a
    // terminal the command is not started before that is relayed, for which files are
    // opened.
    let mut supervisor = if spec.tty {
        let supervisor = prepared.supervise(registry)?;
        sandbox.map_or(Ok(()), Sandbox::enter)?;
        supervisor
    } else {
        sandbox.map_or(Ok(()), Sandbox::enter)?;
        prepared.release()?;
        prepared.supervise(registry)?
    };
    supervisor.start()?;
    let mut events = Events::with_capacity(EVENTS);
    pass_sockets(&mut supervisor, &mut driver);
    loop {
        let timeouts = [driver.timeout(), control.timeout(), supervisor.timeout()];
        let timeout = timeouts.into_iter().flatten().min();
        let network = Some((&mut driver, &mut control, &*keeper));
        if let Some(code) = turn(&mut poll, &mut events, timeout, &mut supervisor, network)? {
            // The terminal is given back at once, and signals end this process again.
            drop(supervisor);
            signal::set_mask(SignalSet::EMPTY)
                .map_err(|error| Error::host("unblock signals", error))?;
            linger(&mut poll, &mut events, &mut driver)?;
            driver.finish();
            // It ends while the rest is taken apart.
            keeper.finish();
            return Ok(code);
        }
        let Err(gone) = driver.turn() else {
            control.resume(poll.registry());
            supervisor.resume()?;
            // After the turn: clients that came in it may need more than there are.
            pass_sockets(&mut supervisor, &mut driver);
            continue;
        };
        drop(driver);
        // With the container its link ends, too, and either may be seen first.
        let code = if supervisor.may_be_ending()? {
            end_within(GRACE, &mut poll, &mut supervisor)?
        } else {
            None
        };
        return code.ok_or(gone);
    }
}

/// What the command's standard streams are.
fn io_of(spec: &RunSpec) -> SpawnIo {
    SpawnIo {
        tty: spec.tty,
        interactive: spec.interactive,
    }
}

/// What init does about the network.
fn set_up(network: Option<&BuiltinNetwork>) -> NetworkSetup<'_> {
    Box::new(move |link: bool| {
        let made = net::set_up_namespace(network.filter(|_| link))?;
        Ok(made
            .map(net::Link::into_parts)
            .map(|(about, fds)| NetLink { about, fds }))
    })
}

fn new_poll() -> Result<Poll, Error> {
    Poll::new().map_err(|error| Error::host("make the event loop", error))
}

/// Has the loop notice the keeper's end.
fn watch(keeper: &Keeper, registry: &Registry) -> Result<(), Error> {
    let watched = registry.register(
        &mut SourceFd(&keeper.pidfd().as_raw_fd()),
        KEEPER,
        Interest::READABLE,
    );
    watched.map_err(|error| Error::host("watch the keeper", error))
}

fn share(poll: &Poll) -> Result<Registry, Error> {
    let registry = poll.registry().try_clone();
    registry.map_err(|error| Error::host("share the event loop", error))
}

/// A run without a network of its own: this process does nothing but wait.
fn alone(spec: &RunSpec, plan: &Plan, mut inherited: Inherited) -> Result<u8, Error> {
    // Before the container, so that they are dropped after it.
    let (heir, cgroup) = duties::make_cgroup(plan)?;
    inherited.mounts = idmapped::mounts(plan)?;
    let mut prepared =
        container::spawn(plan, io_of(spec), set_up(None), cgroup.as_ref(), inherited)?;
    if let Some(heir) = &heir {
        prepared.spare(heir.pid());
    }
    let mut poll = new_poll()?;
    // Dropped when there is no container any more.
    let mut keeper = None;
    if !spec.init {
        watch(
            keeper.insert(duties::start_alone(&prepared)?),
            poll.registry(),
        )?;
    }
    prepared.release()?;
    let mut supervisor = prepared.supervise(share(&poll)?)?;
    supervisor.start()?;
    let mut events = Events::with_capacity(EVENTS);
    loop {
        if let Some(code) = turn(&mut poll, &mut events, None, &mut supervisor, None)? {
            drop(supervisor);
            drop(keeper);
            drop(cgroup);
            drop(heir);
            signal::set_mask(SignalSet::EMPTY)
                .map_err(|error| Error::host("unblock signals", error))?;
            return Ok(code);
        }
    }
}

/// The exit code, if the container ends within `limit`.
fn end_within(
    limit: Duration,
    poll: &mut Poll,
    supervisor: &mut Supervisor,
) -> Result<Option<u8>, Error> {
    let mut events = Events::with_capacity(EVENTS);
    let end = Instant::now() + limit;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if let Some(code) = turn(poll, &mut events, Some(left), supervisor, None)? {
            return Ok(Some(code));
        }
        if left.is_zero() {
            return Ok(None);
        }
    }
}

/// Takes the container's name: the one given, or our process id. That may be another's,
/// too, in a PID namespace beside ours, so where it is taken a number follows it.
fn take_name(given: Option<&str>) -> Result<Server, Error> {
    if let Some(name) = given {
        return Server::bind(name);
    }
    let id = std::process::id();
    let mut name = id.to_string();
    let mut number = 1_u32;
    loop {
        match Server::bind(&name) {
            Err(Error::NameInUse(_)) if number < u32::MAX => {
                number += 1;
                name = format!("{id}-{number}");
            }
            bound => {
                tracing::info!("the container's name is {name}");
                return bound;
            }
        }
    }
}

/// Gets the driver the sockets of the container's network that it needs.
fn pass_sockets(supervisor: &mut Supervisor, driver: &mut Driver) {
    for Sockets { asked, opened } in supervisor.take_sockets() {
        driver.supply_sockets(asked, opened);
    }
    loop {
        let count = driver.sockets_wanted();
        if count == 0 {
            return;
        }
        if let Err(error) = supervisor.open_sockets(count) {
            tracing::debug!("ask the container's init for sockets: {error}");
            driver.sockets_refused(count);
        }
    }
}

/// Lets out what the container has sent. Its processes are gone, but its network
/// namespace is not while we hold the link: the kernel in it still sends what a
/// command had written when it ended, as it would on any host.
fn linger(poll: &mut Poll, events: &mut Events, driver: &mut Driver) -> Result<(), Error> {
    let end = Instant::now() + LINGER;
    driver.drain();
    driver.turn()?;
    while driver.is_sending() {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            tracing::warn!("data that the command had sent was not taken within {LINGER:?}");
            break;
        }
        let timeout = driver.timeout().map_or(left, |due| due.min(left));
        wait(poll, events, Some(timeout))?;
        driver.begin_turn();
        for event in events.iter() {
            if event.token().0 >= NETWORK {
                driver.ready(event);
            }
        }
        driver.turn()?;
    }
    Ok(())
}

/// Waits for events.
fn wait(poll: &mut Poll, events: &mut Events, timeout: Option<Duration>) -> Result<(), Error> {
    match poll.poll(events, timeout) {
        Err(error) if Errno::from_io_error(&error).is_none_or(errno::is_broken) => {
            Err(Error::host("wait for events", error))
        }
        Err(error) if errno::remedy_of(&error) != errno::Remedy::Now => {
            tracing::warn!("wait for events: {error}");
            // The rest goes on, but not in a hurry.
            errno::pause();
            Ok(())
        }
        _ => Ok(()),
    }
}

/// As [`wait`]; looks for events before it sleeps for as long as the driver says.
fn look(
    poll: &mut Poll,
    events: &mut Events,
    timeout: Option<Duration>,
    driver: &mut Driver,
) -> Result<(), Error> {
    let busy_poll = match timeout {
        Some(Duration::ZERO) => None,
        _ => driver.busy_poll(),
    };
    let Some(window) = busy_poll else {
        return wait(poll, events, timeout);
    };
    let begin = Instant::now();
    let until = window.min(timeout.unwrap_or(Duration::MAX));
    while begin.elapsed() < until {
        wait(poll, events, Some(Duration::ZERO))?;
        if !events.is_empty() {
            driver.waited(begin.elapsed());
            return Ok(());
        }
    }
    wait(poll, events, timeout)?;
    driver.waited(begin.elapsed());
    Ok(())
}

/// Waits for events and hands them out; the exit code when the container has ended.
fn turn(
    poll: &mut Poll,
    events: &mut Events,
    timeout: Option<Duration>,
    supervisor: &mut Supervisor,
    mut network: Option<(&mut Driver, &mut Server, &Keeper)>,
) -> Result<Option<u8>, Error> {
    match &mut network {
        Some((driver, ..)) => {
            look(poll, events, timeout, driver)?;
            driver.begin_turn();
        }
        None => wait(poll, events, timeout)?,
    }
    let mut ended = None;
    // All of them: what is ready is told once, and what the container has sent goes out
    // when it has ended, too.
    for event in events.iter() {
        let token = event.token();
        if token == KEEPER {
            // It may go when the container has ended.
            if ended.is_none() {
                return Err(Error::KeeperDied);
            }
        } else if token.0 >= Supervisor::TOKENS {
            if let Some((driver, control, keeper)) = &mut network {
                if token.0 >= NETWORK {
                    driver.ready(event);
                } else {
                    let answer = |request| answers::answer(driver, keeper, request);
                    control.ready(event, poll.registry(), answer);
                }
            }
        } else if ended.is_none() {
            ended = supervisor.ready(event)?;
        }
    }
    Ok(ended)
}
