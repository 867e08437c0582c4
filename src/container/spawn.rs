//! The parent's part of making a container.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, WaitIdStatus};
use tracing::{debug, warn};

use super::init::{self, Ends};
use super::ipc::{Channel, FromInit, Received, ToInit};
use super::procfs::Procfs;
use super::remains::{self, EndChildren, Remains, Rest, SendBy, SendSignal};
use super::{Inherited, NetLink, NetworkSetup, SpawnIo};
use crate::cgroup::Cgroup;
use crate::config::Groups;
use crate::error::Error;
use crate::ns::{self, Lease, idmap};
use crate::plan::{Plan, Step};
use crate::sys::process::{Child, CloneFlags, Forked};
use crate::sys::signal::{self, SignalFd, SignalSet};

/// The signals that the parent takes from its signalfd, to act on or to pass to
/// the command. Not among them are those that report an error of the program
/// itself, `SIGCHLD`, `SIGPIPE`, timers, and `SIGTTIN`/`SIGTTOU`, whose default,
/// to stop, is how a background job waits for the terminal; nor those that the
/// caller had ignored (nohup(1)), which must not reach the command either.
fn watched_signals() -> io::Result<SignalSet> {
    let named = [
        libc::SIGHUP,
        libc::SIGINT,
        libc::SIGQUIT,
        libc::SIGTERM,
        libc::SIGUSR1,
        libc::SIGUSR2,
        libc::SIGCONT,
        libc::SIGTSTP,
        libc::SIGWINCH,
    ];
    let mut watched = SignalSet::EMPTY;
    for signal in named.into_iter().chain(32..=signal::MAX_SIGNAL) {
        if !signal::is_ignored(signal)? {
            watched = watched.with(signal);
        }
    }
    Ok(watched)
}

/// Whether `signal` asks a program to end.
pub(super) fn ends(signal: i32) -> bool {
    matches!(
        signal,
        libc::SIGHUP | libc::SIGINT | libc::SIGQUIT | libc::SIGTERM
    )
}

/// Init, as the parent holds it. Dropping it kills the container.
#[derive(Debug)]
pub(super) struct Init {
    child: Child,
    /// The only writer of the lifeline; `None`: init has been told that this is the end.
    lifeline: Option<OwnedFd>,
    /// With the host's PID namespace: how to end what init leaves behind.
    rest: Rest,
    /// How signals reach what has taken init's place.
    send: SendBy,
    /// The container's ids are others' again when it is gone.
    _lease: Option<Lease>,
    /// Children of the parent that are none of the container's.
    pub(super) others: Vec<Pid>,
    reaped: bool,
}

impl Init {
    /// Takes the exit status, waiting for it, and ends whatever has outlived
    /// init. Once only.
    pub(super) fn wait(&mut self) -> io::Result<WaitIdStatus> {
        let waited = rustix::io::retry_on_intr(|| {
            rustix::process::waitid(
                WaitId::PidFd(self.child.pidfd.as_fd()),
                WaitIdOptions::EXITED,
            )
        });
        self.reaped = true;
        self.rest.end(&self.others)?;
        waited?.ok_or_else(|| io::Error::from_raw_os_error(libc::ECHILD))
    }

    /// Sends a signal to what has taken init's place, or to its process group. To be
    /// called before it is waited for: its number is its own until then.
    pub(super) fn send(&self, signal: i32, group: bool) -> io::Result<()> {
        match &self.send {
            SendBy::Here => signal::kill(self.child.pid, signal, group),
            SendBy::Asked(ask) => ask(signal, group),
        }
    }

    pub(super) fn pidfd(&self) -> &OwnedFd {
        &self.child.pidfd
    }
}

impl Drop for Init {
    fn drop(&mut self) {
        if self.reaped {
            return;
        }
        if self.rest.needs_init() {
            self.lifeline = None;
            if let Err(error) = remains::wait_for(&self.child.pidfd, remains::GRACE) {
                debug!("wait for the container's init: {error}");
            }
        }
        let killed = rustix::process::pidfd_send_signal(&self.child.pidfd, Signal::KILL)
            .map_err(io::Error::from);
        if let Err(error) = killed.and_then(|()| self.wait()) {
            warn!("end the container: {error}");
        }
    }
}

/// A container whose init sets it up, and then waits to be told to start the
/// command.
#[derive(Debug)]
pub struct Prepared {
    pub(super) init: Init,
    pub(super) channel: Channel,
    pub(super) signals: SignalFd,
    /// Taken from `signals` already; for the command.
    pub(super) early: Vec<signal::Received>,
    link: Option<NetLink>,
    /// The master of the command's pty.
    pub(super) master: Option<OwnedFd>,
    pub(super) io: SpawnIo,
    /// Init stays to look after the command.
    pub(super) has_init: bool,
    /// Init has carried out all steps but the last.
    set_up: bool,
    /// This process.
    pub(super) own: Pid,
    /// Init has been told to start the command as soon as it can.
    pub(super) released: bool,
}

/// Blocks the signals that are passed on to the command, as [`spawn`] does: for who makes
/// something before that does not end with this process. They are not lost.
///
/// # Errors
/// Those of sigaction(2) and sigprocmask(2).
pub fn block_signals() -> Result<(), Error> {
    let watched = watched_signals().map_err(|e| Error::host("look at the signals", e))?;
    signal::set_mask(watched)
        .map(drop)
        .map_err(|e| Error::host("block signals", e))
}

/// Clones the container's init, which carries out `plan` up to its last step
/// while the caller goes on. `cgroup` is what the plan's has become; it is to outlive
/// the container. A lease in `inherited` is kept until that is gone.
///
/// From here on the signals that are passed on to the command are blocked in
/// this process; they stay so, for they are meant for the container.
///
/// # Errors
/// What the kernel or an id-map tool refuses. Nothing is left behind then.
pub fn spawn(
    plan: &Plan,
    io: SpawnIo,
    network: NetworkSetup<'_>,
    cgroup: Option<&Cgroup>,
    inherited: Inherited,
) -> Result<Prepared, Error> {
    ns::check(&plan.namespaces)?;
    // Where the caller ignores SIGCHLD, the kernel would reap init unseen.
    signal::reset_disposition(libc::SIGCHLD)
        .map_err(|e| Error::host("reset the disposition of SIGCHLD", e))?;
    let procfs = if plan.namespaces.pid {
        None
    } else {
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
            .map_err(|e| Error::host("become a child subreaper", e))?;
        let mut procfs = Procfs::open().map_err(|e| Error::host("open /proc", e))?;
        procfs
            .spare_children()
            .map_err(|e| Error::host("look for children in /proc", e))?;
        Some(procfs)
    };
    let exec = plan.steps.iter().find_map(|step| match step {
        Step::Exec(exec) => Some(exec),
        _ => None,
    });
    let keep_groups = exec.is_some_and(|exec| exec.groups == Groups::Kept);
    let setgroups =
        !keep_groups && (!plan.namespaces.user || idmap::setgroups_allowed(&plan.gid_map));
    let (channel, init_channel) =
        Channel::pair().map_err(|e| Error::host("make a socketpair for init", e))?;
    let (lifeline, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(|e| Error::host("make a pipe for init", e))?;
    let watched = watched_signals().map_err(|e| Error::host("look at the signals", e))?;
    let signals = SignalFd::new(watched).map_err(|e| Error::host("make a signalfd", e))?;
    // All of them across the clone: one that is delivered in the child before it
    // has its own signalfd would be lost.
    signal::set_mask(SignalSet::ALL).map_err(|e| Error::host("block signals", e))?;
    let mut flags = ns::clone_flags(&plan.namespaces);
    if cgroup.is_some() {
        // Its root would be our own cgroup: init makes it in the container's.
        flags = flags.without(CloneFlags::NEWCGROUP);
    }
    let forked = crate::sys::process::fork(flags, cgroup.and_then(Cgroup::clone_into));
    let child = match forked {
        Ok(Forked::Child) => init::run(
            plan,
            io,
            setgroups,
            network,
            Ends {
                channel: init_channel,
                lifeline,
                inherited,
            },
        ),
        Ok(Forked::Parent(child)) => Ok(child),
        Err(error) => Err(Error::host("create the container's namespaces", error)),
    };
    signal::set_mask(watched).map_err(|e| Error::host("unblock signals", e))?;
    drop((init_channel, lifeline));
    let child = child?;
    debug!(
        pid = child.pid.as_raw_nonzero().get(),
        "cloned the container's init"
    );
    let init = Init {
        child,
        lifeline: Some(writer),
        rest: procfs.map_or(Rest::None, Rest::Here),
        send: SendBy::Here,
        _lease: inherited.lease,
        others: Vec::new(),
        reaped: false,
    };
    let mut prepared = Prepared {
        init,
        channel,
        signals,
        early: Vec::new(),
        link: None,
        master: None,
        io,
        has_init: exec.is_none_or(|exec| exec.init),
        set_up: false,
        own: rustix::process::getpid(),
        released: false,
    };
    if let Some(cgroup) = cgroup {
        cgroup.admit(prepared.init.child.pid)?;
        prepared.tell(&ToInit::Placed)?;
    }
    if let Some(score) = plan.oom_score_adj {
        set_oom_score_adj(prepared.init.child.pid, score)?;
    }
    if plan.namespaces.user {
        let maps = idmap::Maps {
            uid: plan.uid_map.clone(),
            gid: plan.gid_map.clone(),
        };
        if let Err(error) = idmap::write(prepared.init.child.pid, &maps) {
            // Where init has failed meanwhile, there was nothing to write to.
            prepared.take_messages()?;
            return Err(error);
        }
        prepared.tell(&ToInit::MapsWritten)?;
    }
    Ok(prepared)
}

/// Sets init's `oom_score_adj`, which the command inherits. Only the host's root can go
/// below its own; for others that is the least, as with podman.
fn set_oom_score_adj(pid: Pid, score: i16) -> Result<(), Error> {
    let file = |pid: &str| format!("/proc/{pid}/oom_score_adj");
    let path = file(&pid.as_raw_nonzero().to_string());
    let own = || {
        let own: i16 = fs::read_to_string(file("self")).ok()?.trim().parse().ok()?;
        (score < own).then_some(own)
    };
    match fs::write(path, score.to_string()) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => match own() {
            Some(own) => {
                warn!(
                    "--oom-score-adj: {score} is lower than our own, {own}, and only the host's \
                     root can go below that (CAP_SYS_RESOURCE): it stays at {own}"
                );
                Ok(())
            }
            None => Err(Error::host("set the oom_score_adj of the container", error)),
        },
        written => {
            written.map_err(|error| Error::host("set the oom_score_adj of the container", error))
        }
    }
}

impl Prepared {
    /// Spares a child of this process that is none of the container's when what the
    /// container has left behind is ended.
    pub fn spare(&mut self, child: Pid) {
        self.init.others.push(child);
    }

    /// What a process needs that is to end the container in the parent's place.
    ///
    /// # Errors
    /// Those of dup(2).
    pub fn remains(&self) -> io::Result<Remains> {
        let procfs = match &self.init.rest {
            Rest::Here(procfs) => Some(procfs.try_clone()?),
            Rest::None | Rest::Asked(_) => None,
        };
        Ok(Remains {
            init: self.init.child.pidfd.try_clone()?,
            init_pid: self.init.child.pid,
            procfs,
        })
    }

    /// From now on this process may not look for what the container leaves behind,
    /// and has to ask for its end.
    pub fn ask_for_the_end(&mut self, ask: EndChildren) {
        if let Rest::Here(_) = &self.init.rest {
            self.init.rest = Rest::Asked(ask);
        }
    }

    /// From now on this process may send no signals, and has to ask for that.
    pub fn send_signals_by(&mut self, ask: SendSignal) {
        self.init.send = SendBy::Asked(ask);
    }

    /// The link that the network closure has made, once; waits for it.
    ///
    /// # Errors
    /// A step of the plan that failed, or [`Error::Interrupted`].
    pub fn take_link(&mut self) -> Result<Option<NetLink>, Error> {
        self.wait_until(|prepared| prepared.set_up || prepared.link.is_some())?;
        Ok(self.link.take())
    }

    /// Has init start the command when it is ready, without another word: to be
    /// called when the caller is. With a terminal it is not before the container
    /// is set up, so then this does nothing, and [`Supervisor::start`] does it.
    ///
    /// [`Supervisor::start`]: super::Supervisor::start
    ///
    /// # Errors
    /// Init is gone.
    pub fn release(&mut self) -> Result<(), Error> {
        if self.io.tty {
            return Ok(());
        }
        self.tell(&ToInit::Go)?;
        self.released = true;
        Ok(())
    }

    /// Sends `message`. Where init cannot take it any more, it has said why.
    fn tell(&mut self, message: &ToInit) -> Result<(), Error> {
        let Err(error) = self.channel.send(message) else {
            return Ok(());
        };
        self.wait_until(|prepared| prepared.set_up)?;
        Err(Error::host("talk to the container's init", error))
    }

    /// Waits until init has set everything up.
    pub(super) fn wait_for_set_up(&mut self) -> Result<(), Error> {
        self.wait_until(|prepared| prepared.set_up)
    }

    /// Takes init's messages until `done`.
    fn wait_until(&mut self, done: impl Fn(&Self) -> bool) -> Result<(), Error> {
        while !done(self) {
            let mut fds = [
                PollFd::new(&self.channel, PollFlags::IN),
                PollFd::new(&self.signals, PollFlags::IN),
                PollFd::new(self.init.pidfd(), PollFlags::IN),
            ];
            match rustix::event::poll(&mut fds, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(Error::host("wait for the container's init", error)),
            }
            // Looked at before its messages: what it said last is not missed.
            let gone = fds.last().is_some_and(|pidfd| !pidfd.revents().is_empty());
            self.take_messages()?;
            // Once the command may have been started a signal is for it.
            if self.set_up {
                break;
            }
            while let Some(received) = self
                .signals
                .next()
                .map_err(|e| Error::host("read the pending signals", e))?
            {
                if ends(received.signal) {
                    return Err(Error::Interrupted(
                        u8::try_from(received.signal).unwrap_or_default(),
                    ));
                }
                self.early.push(received);
            }
            if gone && !done(self) {
                let status = self
                    .init
                    .wait()
                    .map_err(|e| Error::host("wait for the container's init", e))?;
                return Err(Error::InitDied(describe(&status)));
            }
        }
        Ok(())
    }

    /// Takes what init has said so far, up to that all is set up: what follows is
    /// about the command.
    fn take_messages(&mut self) -> Result<(), Error> {
        while !self.set_up {
            let received = self
                .channel
                .try_receive()
                .map_err(|e| Error::host("receive from the container's init", e))?;
            match received {
                Received::Message(FromInit::SetUp) => self.set_up = true,
                Received::Message(FromInit::Link(link)) => self.link = Some(link),
                Received::Message(FromInit::Terminal(fd)) => self.master = Some(fd),
                Received::Message(FromInit::Warning(text)) => warn!("{text}"),
                Received::Message(FromInit::Failed(failure)) => return Err(failure.into()),
                Received::Message(
                    message @ (FromInit::ExecFailed { .. }
                    | FromInit::Exited(_)
                    | FromInit::Sockets { .. }),
                ) => {
                    return Err(Error::InitDied(format!("out of turn: {message:?}")));
                }
                Received::Nothing => return Ok(()),
                // It is about to end; its pidfd says when.
                Received::End => {
                    let status = self
                        .init
                        .wait()
                        .map_err(|e| Error::host("wait for the container's init", e))?;
                    return Err(Error::InitDied(describe(&status)));
                }
            }
        }
        Ok(())
    }
}

/// How a process ended, for a message.
fn describe(status: &WaitIdStatus) -> String {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "unknown status".to_owned(),
    }
}
