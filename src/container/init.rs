//! PID 1 of the container: carries the plan out, starts the command, reaps.
//!
//! # Theory of operation
//! Init is a copy-on-write child of the parent, made by clone3(2) inside the new
//! namespaces; there is no second program. It must not outlive the parent by
//! more than an instant, however that ends:
//!
//! - `PR_SET_PDEATHSIG` kills it when the parent dies, which also reaches it in
//!   a system call that hangs. The kernel forgets that request whenever ids or
//!   capabilities change, so it is repeated after each change.
//! - The *lifeline* is a pipe whose only writer is the parent, which closes the
//!   window before the request: init looks at it right after each, and later
//!   waits on it together with everything else that it waits for.
//!
//! The end of PID 1 is the end of its PID namespace: the kernel kills what is
//! left in it and does not report init as gone before all of it is. With the
//! host's PID namespace init is a child subreaper instead and kills its
//! descendants itself; the parent does the same should init be killed.
//!
//! With `--init=false` there is nobody to do that: the command takes init's place, and
//! the parent sends it signals and takes its exit code. Its own tie to the parent's life
//! is `PR_SET_PDEATHSIG` alone, which execve(2) keeps unless the program is set-user-ID
//! or has file capabilities, and which the command can clear ([`Init::replace`]); so
//! there always is a keeper.
//!
//! Every signal is blocked and read from a signalfd. For PID 1 the kernel drops
//! signals without a handler, but a blocked signal is kept. Init belongs to a
//! session of its own, so that a key pressed at the parent's terminal is not
//! delivered twice. It is not dumpable from the moment that its ids are set:
//! nobody in the container can open its `/proc/1/exe`, memory or descriptors.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Gid, Pid, Signal, Uid, WaitOptions, WaitStatus};

use socket2::{Domain, Socket, Type};

use super::exec::Command;
use super::ipc::{Channel, FromInit, Received, ToInit};
use super::procfs::Procfs;
use super::{Inherited, NetworkSetup, SpawnIo};
use crate::error::{EXIT_RUNTIME, StepFailure};
use crate::fs;
use crate::ns::idmap;
use crate::plan::{ExecStep, Plan, Step};
use crate::sys;
use crate::sys::process::{CloneFlags, ExitOnUnwind, Forked};
use crate::sys::signal::{SignalFd, SignalSet};

/// What init shows as its command line; the parent's holds the user's options.
const TITLE: &str = "crun-lite init";
/// Exit code when the parent is gone and nobody is there to see it.
const EXIT_ORPHANED: u8 = 137;

/// What init has of the parent's.
#[derive(Debug)]
pub(super) struct Ends {
    /// Its end of the socketpair.
    pub(super) channel: Channel,
    /// The read end of the lifeline.
    pub(super) lifeline: OwnedFd,
    pub(super) inherited: Inherited,
}

/// The life of init; never returns into what it was forked from.
pub(super) fn run(
    plan: &Plan,
    io: SpawnIo,
    setgroups: bool,
    network: NetworkSetup<'_>,
    ends: Ends,
) -> ! {
    let _guard = ExitOnUnwind(EXIT_RUNTIME);
    let mut init = Init {
        ends,
        setgroups,
        shares_pids: !plan.namespaces.pid,
    };
    let code = match init.live(plan, io, network) {
        Ok(code) => code,
        Err(failure) => {
            // Where the parent is gone there is nobody left to tell.
            let _ = init.ends.channel.send(&FromInit::Failed(failure));
            EXIT_RUNTIME
        }
    };
    sys::process::exit(code)
}

struct Init {
    ends: Ends,
    /// setgroups(2) works and is to be used.
    setgroups: bool,
    /// There is no PID namespace whose end would kill everything.
    shares_pids: bool,
}

/// What is kept from one step to the next.
struct Work<'a> {
    executor: fs::Executor,
    network: Option<NetworkSetup<'a>>,
    slave: Option<OwnedFd>,
    /// The command, ready to be started.
    command: Option<Command>,
}

/// Whether `step` can be carried out by a process whose ids are not mapped yet:
/// it has all capabilities in its user namespace, but can create no file.
fn needs_no_ids(step: &Step) -> bool {
    matches!(
        step,
        Step::Hold { .. } | Step::PrivateMounts | Step::Network { .. } | Step::Hostname { .. }
    )
}

/// Puts a step's name and object to an error.
fn failed<E: Into<io::Error>>(
    step: &'static str,
    object: &'static str,
) -> impl FnOnce(E) -> StepFailure {
    move |error| StepFailure::new(step, object, &error.into())
}

impl Init {
    fn live(
        &mut self,
        plan: &Plan,
        io: SpawnIo,
        network: NetworkSetup<'_>,
    ) -> Result<u8, StepFailure> {
        self.detach()?;
        if plan.cgroup.is_some() {
            self.enter_cgroup(plan)?;
        }
        self.rename()?;
        let mut work = Work {
            executor: fs::Executor::new(std::mem::take(&mut self.ends.inherited.mounts)),
            network: Some(network),
            slave: None,
            command: None,
        };
        let ids_from = plan.steps.iter().position(|step| !needs_no_ids(step));
        let (first, rest) = plan.steps.split_at(ids_from.unwrap_or(plan.steps.len()));
        if plan.namespaces.user {
            // While the parent writes the maps, or has set-user-ID programs do it.
            self.carry_out(first, &mut work)?;
            self.expect(ToInit::MapsWritten)?;
            self.become_root(plan)?;
        }
        self.hide()?;
        // The host's: once the steps have begun, /dev may be anything.
        let null = rustix::fs::open(
            "/dev/null",
            OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOCTTY,
            Mode::empty(),
        )
        .map_err(failed("open", "/dev/null"))?;
        if io.tty || !io.interactive {
            rustix::stdio::dup2_stdin(&null).map_err(failed("replace", "standard input"))?;
        }
        let procfs = self
            .shares_pids
            .then(Procfs::open)
            .transpose()
            .map_err(failed("open a procfs", "/proc"))?;
        if !plan.namespaces.user {
            self.carry_out(first, &mut work)?;
        }
        self.carry_out(rest, &mut work)?;
        let command = work
            .command
            .ok_or(Errno::INVAL)
            .map_err(failed("carry out the plan", "no command in it"))?;
        self.ends
            .channel
            .send(&FromInit::SetUp)
            .map_err(failed("report", "the end of set-up"))?;
        self.expect(ToInit::Go)?;
        if command.is_below_init() {
            self.supervise(command, &null, procfs.as_ref())
        } else {
            self.replace(command)
        }
    }

    /// Lets go of what was the parent's and ties this process to its life.
    fn detach(&self) -> Result<(), StepFailure> {
        let mut kept = vec![self.ends.channel.as_fd(), self.ends.lifeline.as_fd()];
        let Inherited { lease, mounts } = &self.ends.inherited;
        kept.extend(lease.as_ref().map(AsFd::as_fd));
        kept.extend(mounts.iter().map(|(_, mount)| mount.as_fd()));
        sys::fd::close_all_but(&kept).map_err(failed("close", "the parent's descriptors"))?;
        self.tie_to_parent()?;
        rustix::process::setsid().map_err(failed("make a session", "init"))?;
        sys::signal::reset_dispositions();
        sys::signal::set_mask(SignalSet::ALL).map_err(failed("block", "the signals of init"))?;
        rustix::process::umask(Mode::empty());
        if self.shares_pids {
            rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
                .map_err(failed("make a child subreaper of", "init"))?;
        }
        Ok(())
    }

    /// Waits until this process is in the container's cgroup, which then becomes the
    /// root of a cgroup namespace.
    fn enter_cgroup(&self, plan: &Plan) -> Result<(), StepFailure> {
        self.expect(ToInit::Placed)?;
        if plan.namespaces.cgroup {
            sys::process::unshare_cgroup_namespace()
                .map_err(failed("make", "a cgroup namespace"))?;
        }
        Ok(())
    }

    /// Asks to be killed with the parent, and makes sure that it is still there.
    fn tie_to_parent(&self) -> Result<(), StepFailure> {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
            .map_err(failed("set the parent-death signal of", "init"))?;
        let mut lifeline = [PollFd::new(&self.ends.lifeline, PollFlags::empty())];
        let now = rustix::time::Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        match rustix::event::poll(&mut lifeline, Some(&now)) {
            Ok(0) | Err(Errno::INTR) => Ok(()),
            Ok(_) => sys::process::exit(EXIT_ORPHANED),
            Err(error) => Err(failed("poll", "the lifeline")(error)),
        }
    }

    /// Becomes the container's user 0 where there is one, else its first user.
    fn become_root(&self, plan: &Plan) -> Result<(), StepFailure> {
        let first = |map: &[crate::config::IdMapEntry]| match map.first() {
            Some(entry) if !idmap::covers(map, 0) => entry.container,
            _ => 0,
        };
        if self.setgroups {
            rustix::thread::set_thread_groups(&[])
                .map_err(failed("drop", "the caller's supplementary groups"))?;
        }
        let gid = Gid::from_raw(first(&plan.gid_map));
        rustix::thread::set_thread_res_gid(gid, gid, gid)
            .map_err(failed("set the group id of", "init"))?;
        let uid = Uid::from_raw(first(&plan.uid_map));
        rustix::thread::set_thread_res_uid(uid, uid, uid)
            .map_err(failed("set the user id of", "init"))
    }

    /// Shuts what the parent's memory holds off from the container.
    fn hide(&self) -> Result<(), StepFailure> {
        rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
            .map_err(failed("make not dumpable", "init"))?;
        self.tie_to_parent()
    }

    /// Shows a command line of its own: the parent's has the user's options.
    fn rename(&self) -> Result<(), StepFailure> {
        let renamed = sys::args::replace(TITLE)
            .and_then(|()| rustix::thread::set_name(c"crun-lite-init").map_err(io::Error::from));
        match renamed {
            Ok(()) => Ok(()),
            Err(error) => self.warn(format!(
                "init shows the command line that it was started with: {error}"
            )),
        }
    }

    fn warn(&self, text: String) -> Result<(), StepFailure> {
        self.ends
            .channel
            .send(&FromInit::Warning(text))
            .map_err(failed("report", "a warning"))
    }

    /// Carries steps out, in their order.
    fn carry_out(&self, steps: &[Step], work: &mut Work<'_>) -> Result<(), StepFailure> {
        for step in steps {
            match step {
                Step::Hostname { name } => {
                    rustix::system::sethostname(name.as_bytes()).map_err(|error| {
                        StepFailure::new("set the host name", name, &error.into())
                    })?;
                }
                Step::Network { link } => {
                    let set_up = work
                        .network
                        .take()
                        .ok_or(Errno::ALREADY)
                        .map_err(failed("set up", "the network"))?;
                    if let Some(link) = set_up(link.is_some())? {
                        let link = FromInit::Link(link);
                        self.ends
                            .channel
                            .send(&link)
                            .map_err(failed("hand over", "the network link"))?;
                    }
                }
                Step::Exec(step) => work.command = Some(self.prepare(step, work.slave.take())?),
                step => work.executor.step(step)?,
            }
            for warning in work.executor.take_warnings() {
                self.warn(warning)?;
            }
            if let Some(pty) = work.executor.take_pty() {
                let master = FromInit::Terminal(pty.master);
                self.ends
                    .channel
                    .send(&master)
                    .map_err(failed("hand over", "the pty"))?;
                work.slave = Some(pty.slave);
            }
        }
        Ok(())
    }

    fn prepare(&self, step: &ExecStep, slave: Option<OwnedFd>) -> Result<Command, StepFailure> {
        if step.tty != slave.is_some() {
            return Err(failed("attach a terminal", "the plan and the pty disagree")(Errno::INVAL));
        }
        Command::prepare(step, slave, self.setgroups)
    }

    /// Waits for the parent to say `wanted`.
    fn expect(&self, wanted: ToInit) -> Result<(), StepFailure> {
        let fail = failed("wait for", "the parent");
        loop {
            self.wait(None).map_err(failed("poll", "the parent"))?;
            match self.ends.channel.try_receive::<ToInit>() {
                Ok(Received::Message(message)) if message == wanted => return Ok(()),
                Ok(Received::Message(_)) => return Err(fail(Errno::PROTO)),
                Ok(Received::Nothing) => {}
                Ok(Received::End) => sys::process::exit(EXIT_ORPHANED),
                Err(error) => return Err(failed("receive from", "the parent")(error)),
            }
        }
    }

    /// Waits until the parent has said something or `signals` has one. Where the
    /// parent is gone it kills what there is and does not return.
    fn wait(&self, signals: Option<(&SignalFd, Option<&Procfs>)>) -> io::Result<()> {
        let mut fds = vec![
            PollFd::new(&self.ends.lifeline, PollFlags::empty()),
            PollFd::new(&self.ends.channel, PollFlags::IN),
        ];
        if let Some((signals, _)) = signals {
            fds.push(PollFd::new(signals, PollFlags::IN));
        }
        match rustix::event::poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        if fds
            .first()
            .is_some_and(|lifeline| !lifeline.revents().is_empty())
        {
            self.end_all(signals.and_then(|(_, procfs)| procfs))?;
            sys::process::exit(EXIT_ORPHANED);
        }
        Ok(())
    }

    /// Kills what this process's own end does not.
    fn end_all(&self, procfs: Option<&Procfs>) -> io::Result<()> {
        match procfs {
            Some(procfs) if self.shares_pids => procfs.kill_descendants(&[]),
            _ => Ok(()),
        }
    }

    /// Becomes the command, as PID 1 of the container.
    ///
    /// The end of the parent is still the command's, and with it the namespace's: the
    /// request for that is made after the last change of credentials, which would undo
    /// it, and the lifeline looked at after that, right before execve(2), so that there is
    /// no moment at which the parent can go unseen. From there on the command itself
    /// could clear the request: the keeper, which holds its pidfd since before
    /// [`ToInit::Go`], kills it all the same.
    fn replace(&self, command: Command) -> ! {
        command.exec(&self.ends.channel, || self.tie_to_parent())
    }

    /// Starts the command and looks after it until it ends.
    fn supervise(
        &self,
        command: Command,
        null: &OwnedFd,
        procfs: Option<&Procfs>,
    ) -> Result<u8, StepFailure> {
        let signals = SignalFd::new(SignalSet::ALL).map_err(failed("make", "a signalfd"))?;
        if self.shares_pids {
            // From here on a sudden death would leave the command behind, and
            // the lifeline is always watched.
            rustix::process::set_parent_process_death_signal(None)
                .map_err(failed("clear the parent-death signal of", "init"))?;
        }
        let forked =
            sys::process::fork(CloneFlags::NONE, None).map_err(failed("fork", "the command"))?;
        let pid = match forked {
            Forked::Child => command.exec(&self.ends.channel, || Ok(())),
            Forked::Parent(child) => child.pid,
        };
        // Only the command's own descriptors keep its terminal and pipes open.
        drop(command);
        let let_go = || {
            rustix::stdio::dup2_stdin(null)?;
            rustix::stdio::dup2_stdout(null)?;
            rustix::stdio::dup2_stderr(null)
        };
        let_go().map_err(failed("replace", "the standard streams of init"))?;
        let code = self
            .reap(pid, &signals, procfs)
            .map_err(failed("look after", "the command"))?;
        self.end_all(procfs)
            .map_err(failed("end", "the rest of the container"))?;
        self.ends
            .channel
            .send(&FromInit::Exited(code))
            .map_err(failed("report", "the command's end"))?;
        Ok(code)
    }

    /// Opens sockets that belong to the container's network, for the parent.
    fn open_sockets(&self, asked: u8) -> io::Result<()> {
        let mut sockets = Vec::new();
        let mut errno = 0;
        for _ in 0..asked {
            match open_socket() {
                Ok(socket) => sockets.push(socket),
                Err(error) => {
                    errno = error.raw_os_error().unwrap_or(libc::EIO);
                    break;
                }
            }
        }
        let reply = FromInit::Sockets {
            asked,
            errno,
            sockets,
        };
        let Err(error) = self.ends.channel.send(&reply) else {
            return Ok(());
        };
        // Too many may be on their way (unix(7)); that the parent is gone is seen elsewhere.
        self.ends.channel.send(&FromInit::Sockets {
            asked,
            errno: error.raw_os_error().unwrap_or(libc::EIO),
            sockets: Vec::new(),
        })
    }

    /// Passes signals on and reaps orphans until the command `pid` has ended.
    fn reap(&self, pid: Pid, signals: &SignalFd, procfs: Option<&Procfs>) -> io::Result<u8> {
        loop {
            self.wait(Some((signals, procfs)))?;
            loop {
                match self.ends.channel.try_receive()? {
                    Received::Message(ToInit::Signal { signal, group }) => {
                        pass_on(pid, signal, group)
                    }
                    Received::Message(ToInit::OpenSockets(count)) => self.open_sockets(count)?,
                    Received::Message(ToInit::Placed | ToInit::MapsWritten | ToInit::Go) => {}
                    Received::Nothing => break,
                    Received::End => {
                        self.end_all(procfs)?;
                        sys::process::exit(EXIT_ORPHANED);
                    }
                }
            }
            while let Some(received) = signals.next()? {
                if received.signal != libc::SIGCHLD {
                    pass_on(pid, received.signal, received.from_terminal);
                }
            }
            while let Some((ended, status)) = next_zombie()? {
                if ended == pid {
                    return Ok(exit_code(status));
                }
            }
        }
    }
}

/// A TCP socket that takes IPv4 addresses, too; of IPv4 alone where the kernel has
/// nothing else.
fn open_socket() -> io::Result<OwnedFd> {
    let make = |domain| Socket::new(domain, Type::STREAM.nonblocking(), None);
    let socket = match make(Domain::IPV6) {
        Ok(socket) => {
            socket.set_only_v6(false)?;
            socket
        }
        Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => make(Domain::IPV4)?,
        Err(error) => return Err(error),
    };
    // The far end's own TCP has done what Nagle's algorithm is for.
    socket.set_tcp_nodelay(true)?;
    // Urgent data is ordinary data (RFC 6093, 4), which would be lost otherwise.
    socket.set_out_of_band_inline(true)?;
    // A wish: the way is the container's `lo`, where there is nothing to pace for, as
    // bbr would; every kernel has this one.
    let _ = socket.set_tcp_congestion(b"reno");
    Ok(socket.into())
}

/// Sends `signal` to the command. It may just have ended, and that is no error.
fn pass_on(pid: Pid, signal: i32, group: bool) {
    let _ = sys::signal::kill(pid, signal, group);
}

/// Reaps a child that has ended, if there is one.
fn next_zombie() -> io::Result<Option<(Pid, WaitStatus)>> {
    match rustix::process::wait(WaitOptions::NOHANG) {
        Ok(zombie) => Ok(zombie),
        Err(Errno::CHILD) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The exit code that stands for `status`, as in a shell.
pub(super) fn exit_code(status: WaitStatus) -> u8 {
    let code = status
        .exit_status()
        .or_else(|| status.terminating_signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok())
        .unwrap_or(EXIT_RUNTIME)
}
