//! The keeper: a process that does what the sandboxed parent may not.
//!
//! # Theory of operation
//! The parent runs the packet loop, which takes what a container and the whole
//! Internet send, so it locks itself in before the first packet can come
//! (`security::sandbox`): no capability, no file system, few system calls. What
//! needs more is rare, and asked of the keeper: a copy-on-write child that is forked
//! before, keeps the privileges that the parent had, and sleeps. It does no parsing
//! of packets, and nothing that it can be asked for makes a process or opens a path
//! that the parent names:
//!
//! | asked for | why the parent cannot |
//! |---|---|
//! | the host's resolvers, if they have changed | reads /etc/resolv.conf |
//! | binding a published port (`crun-lite port add`) | may need CAP_NET_BIND_SERVICE |
//! | the next file of `--pcap` or `--net-log` | makes, renames and removes files |
//! | ending what init has left behind (`--pid=host`) | reads /proc |
//! | passing a signal on to the command (`--init=false`) | may need CAP_KILL, and sends no other than SIGKILL |
//! | a setting that explains an error | reads /proc/sys |
//! | removing the container's cgroup, at the end ([`Cleanup`]) | writes below /sys/fs/cgroup |
//!
//! It is none of the container's business: what it holds is one end of a socketpair
//! ([`messages`]), standard error, and the descriptors that its [`Duties`] name. It
//! closes everything else first of all, the lifeline's writer above all, or init would
//! not notice the parent's death. It has a session of its own and blocks all signals,
//! so that a key pressed at the terminal does not end it.
//!
//! *If the keeper dies*, its pidfd says so on the parent's loop, and the parent ends
//! the container and fails.
//!
//! *If the parent dies*, the socketpair ends. The keeper then makes sure that the
//! container ends, cleans up, and says on standard error why there is no more parent,
//! where that did not end by itself. When it does, it says [`ToKeeper::Finish`]
//! first, and waits for the keeper: no process is left behind a run.
//!
//! Each question is waited for, for [`PATIENCE`] at most. The resolvers are asked for
//! before queries are forwarded, but not again within [`FRESH`], so that thousands of
//! queries a second cost little.

mod messages;
mod process;

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};
use tracing::{debug, warn};

use crate::config::{Publish, Transport};
use crate::error::hint::SETTINGS;
use crate::ipc::{Channel, Received};
use crate::sys;
use crate::sys::helper::fork_helper;
use crate::sys::process::{Child, Forked};
use messages::{FromKeeper, Numbered, ToKeeper};

/// How long the keeper may take to answer. What it does takes milliseconds at most,
/// unless a file system hangs.
const PATIENCE: Duration = Duration::from_secs(2);
/// How many times that it may take more to clean up: a cgroup is removed when the
/// kernel has taken apart what was in it.
const CLEANING: u32 = 4;
/// How long the answer about the resolvers holds.
const FRESH: Duration = Duration::from_millis(2);

/// A log whose files are kept to a size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Log {
    /// `--pcap`
    Capture = 1,
    /// `--net-log`
    Refusals = 2,
}

impl Log {
    fn of(number: u8) -> Option<Self> {
        [Self::Capture, Self::Refusals]
            .into_iter()
            .find(|log| *log as u8 == number)
    }
}

/// A socket of a published port.
#[derive(Debug)]
pub struct Bound {
    /// What it speaks.
    pub transport: Transport,
    /// Where it is bound.
    pub host: SocketAddr,
    /// The port of the container that it leads to.
    pub container_port: u16,
    /// It.
    pub socket: OwnedFd,
}

/// What a keeper does; all of it runs in its process.
pub trait Duties {
    /// Descriptors that it is to keep.
    fn descriptors(&self) -> Vec<BorrowedFd<'_>>;

    /// The host's resolvers, unless they are as at the last call.
    fn resolvers(&mut self) -> Option<Vec<SocketAddr>>;

    /// Binds all that `publish` asks for.
    ///
    /// # Errors
    /// Why one could not be bound: nothing stays bound then.
    fn bind(&mut self, publish: &Publish) -> Result<Vec<Bound>, String>;

    /// Makes the next file of a log; `None` where there is to be no other.
    ///
    /// # Errors
    /// The kernel's.
    fn next_file(&mut self, log: Log) -> io::Result<Option<OwnedFd>>;

    /// Kills the children of `parent` but these, and all below them; returns the
    /// children.
    ///
    /// # Errors
    /// They cannot be found out.
    fn end_children(&mut self, parent: Pid, but: &[Pid]) -> io::Result<Vec<Pid>>;

    /// Sends a signal to what has taken init's place, or to its process group. The
    /// parent waits for the answer, and so has not reaped it.
    ///
    /// # Errors
    /// The kernel's.
    fn signal(&mut self, signal: i32, group: bool) -> io::Result<()>;

    /// The parent is gone: makes sure that the container ends.
    ///
    /// # Errors
    /// The kernel's.
    fn end_container(&mut self) -> io::Result<()>;
}

/// Something to put in order when the container is over, however that came. It is
/// forked with the keeper, which does it.
pub trait Cleanup {
    /// Descriptors that it needs.
    fn descriptors(&self) -> Vec<BorrowedFd<'_>>;

    /// Does it, and says what is in the way.
    fn run(self: Box<Self>);

    /// The parent's copy: gives up what it holds, and leaves all as it is.
    fn let_go(self: Box<Self>);
}

/// The keeper as the parent holds it. Dropping it has it finish, and waits for its
/// end.
#[derive(Debug)]
pub struct Keeper {
    child: Child,
    channel: Channel,
    /// The number of the last question.
    asked: Cell<u32>,
    finishing: Cell<bool>,
    resolvers: RefCell<Freshness>,
}

/// Whether what is known of the resolvers still holds.
#[derive(Debug, Default)]
struct Freshness {
    /// Until when.
    until: Option<Instant>,
    /// The question has not been answered in time.
    overdue: bool,
    /// What was answered and has not been passed on.
    changed: Option<Vec<SocketAddr>>,
}

impl Freshness {
    /// There is an answer.
    fn note(&mut self, servers: Option<Vec<SocketAddr>>) {
        self.overdue = false;
        if servers.is_some() {
            self.changed = servers;
        }
    }
}

impl Keeper {
    /// Forks the keeper. When the container is over it does all of `cleanups`, in
    /// their order.
    ///
    /// # Errors
    /// Those of fork(2), socketpair(2) and pidfd_open(2).
    pub fn start(duties: Box<dyn Duties>, cleanups: Vec<Box<dyn Cleanup>>) -> io::Result<Self> {
        let (channel, theirs) = Channel::pair()?;
        channel.set_patience(PATIENCE)?;
        let parent = sys::pidfd::of_self()?;
        let parent_pid = rustix::process::getpid();
        let child = match fork_helper()? {
            Forked::Child => {
                let ends = process::Ends {
                    channel: theirs,
                    parent,
                    parent_pid,
                };
                process::run(ends, duties, cleanups)
            }
            Forked::Parent(child) => child,
        };
        debug!(pid = child.pid.as_raw_nonzero().get(), "forked the keeper");
        for cleanup in cleanups {
            cleanup.let_go();
        }
        Ok(Self {
            child,
            channel,
            asked: Cell::new(0),
            finishing: Cell::new(false),
            resolvers: RefCell::default(),
        })
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        self.child.pid
    }

    /// Readable when it has ended.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.child.pidfd.as_fd()
    }

    /// The host's resolvers, if they are others than at the last call.
    pub fn resolvers(&self) -> Option<Vec<SocketAddr>> {
        let fresh = |until| Instant::now() < until;
        if self.resolvers.borrow().until.is_some_and(fresh) {
            return None;
        }
        let overdue = self.resolvers.borrow().overdue;
        let answer = if overdue {
            // It was waited for once; from then on it is only looked at.
            self.take(None, Channel::try_receive)
        } else {
            self.ask(&ToKeeper::Resolvers)
        };
        let mut state = self.resolvers.borrow_mut();
        state.until = Some(Instant::now() + FRESH);
        match answer {
            Ok(FromKeeper::Resolvers(servers)) => state.note(servers),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                if !overdue {
                    warn!("the keeper does not say which resolvers the host has");
                    state.overdue = true;
                }
            }
            answer => debug!("ask the keeper for the resolvers: {answer:?}"),
        }
        state.changed.take()
    }

    /// Has a published port bound.
    ///
    /// # Errors
    /// Why it was not: nothing stays bound then.
    pub fn bind(&self, publish: Publish) -> Result<Vec<Bound>, String> {
        let mut all = Vec::new();
        let mut question = ToKeeper::Bind(publish);
        loop {
            match self.ask(&question) {
                Ok(FromKeeper::Bound { sockets, more }) => {
                    all.extend(sockets);
                    if !more {
                        return Ok(all);
                    }
                }
                Ok(FromKeeper::Failed(why)) => return Err(why),
                Ok(other) => return Err(format!("the keeper answers out of turn: {other:?}")),
                Err(error) => return Err(format!("ask the keeper to bind {publish}: {error}")),
            }
            question = ToKeeper::MoreBound;
        }
    }

    /// Has the next file of a log made, for one that is full; `None` where there is
    /// to be no other.
    ///
    /// # Errors
    /// Why it was not made.
    pub fn next_file(&self, log: Log) -> io::Result<Option<File>> {
        match self.ask(&ToKeeper::NextFile(log))? {
            FromKeeper::File(file) => Ok(file.map(File::from)),
            other => Err(refused(other)),
        }
    }

    /// Has the children of this process but these, and the keeper, killed, and all
    /// below them; returns the children, which are to be reaped.
    ///
    /// # Errors
    /// They cannot be found out.
    pub fn end_children(&self, but: &[Pid]) -> io::Result<Vec<Pid>> {
        let but = but.iter().copied().chain([self.pid()]).collect();
        match self.ask(&ToKeeper::EndChildren(but))? {
            FromKeeper::Killed(children) => Ok(children),
            other => Err(refused(other)),
        }
    }

    /// Has a signal sent to the command that has taken init's place, or to its process
    /// group.
    ///
    /// # Errors
    /// It could not be.
    pub fn signal(&self, signal: i32, group: bool) -> io::Result<()> {
        match self.ask(&ToKeeper::Signal { signal, group })? {
            FromKeeper::Signaled => Ok(()),
            other => Err(refused(other)),
        }
    }

    /// The value of one of [`SETTINGS`]; `None` where the kernel has none.
    pub fn setting(&self, name: &str) -> Option<String> {
        let place = SETTINGS.iter().position(|known| *known == name)?;
        let question = ToKeeper::Setting(u8::try_from(place).ok()?);
        match self.ask(&question) {
            Ok(FromKeeper::Setting(value)) => value,
            answer => {
                debug!("ask the keeper for {name}: {answer:?}");
                None
            }
        }
    }

    /// Has it clean up and end, without waiting for that.
    pub fn finish(&self) {
        if self.finishing.replace(true) {
            return;
        }
        if let Err(error) = self.tell(&ToKeeper::Finish) {
            debug!("tell the keeper to finish: {error}");
        }
    }

    fn ask(&self, question: &ToKeeper) -> io::Result<FromKeeper> {
        let number = self.tell(question)?;
        self.take(Some(number), Channel::receive)
    }

    /// Sends a question; its number.
    fn tell(&self, question: &ToKeeper) -> io::Result<u32> {
        let number = self.asked.get().wrapping_add(1);
        self.asked.set(number);
        // It reads one at a time, so there is room unless it hangs.
        let sent = self.channel.try_send(&Numbered {
            number,
            message: question.clone(),
        });
        match sent {
            Ok(()) => Ok(number),
            // That would say that an answer is on its way.
            Err(error) if error.kind() == io::ErrorKind::TimedOut => Err(io::Error::other(error)),
            Err(error) => Err(error),
        }
    }

    /// Takes the answer to the question of this number by `receive`; where there is
    /// none, what is there of answers that nobody waits for any more.
    fn take(
        &self,
        number: Option<u32>,
        receive: fn(&Channel) -> io::Result<Received<Numbered<FromKeeper>>>,
    ) -> io::Result<FromKeeper> {
        loop {
            match receive(&self.channel)? {
                Received::Message(answer) if Some(answer.number) == number => {
                    return Ok(answer.message);
                }
                // To a question that was given up.
                Received::Message(answer) => {
                    if let FromKeeper::Resolvers(servers) = answer.message {
                        self.resolvers.borrow_mut().note(servers);
                    }
                }
                Received::Nothing => return Err(io::ErrorKind::TimedOut.into()),
                Received::End => return Err(io::ErrorKind::BrokenPipe.into()),
            }
        }
    }

    /// Waits until it has cleaned up and is gone.
    fn wait(&self) -> io::Result<()> {
        self.finish();
        let mut answer = self.take(Some(self.asked.get()), Channel::receive);
        for _ in 0..CLEANING {
            let late = |error: &io::Error| error.kind() == io::ErrorKind::TimedOut;
            if answer.as_ref().is_err_and(late) {
                answer = self.take(Some(self.asked.get()), Channel::receive);
            }
        }
        match answer {
            Ok(FromKeeper::Finished) => {}
            // Dead already, which was noticed elsewhere.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            answer => {
                warn!("the keeper does not end by itself: {answer:?}");
                rustix::process::pidfd_send_signal(&self.child.pidfd, Signal::KILL)?;
            }
        }
        let pidfd = WaitId::PidFd(self.pidfd());
        rustix::io::retry_on_intr(|| {
            rustix::process::waitid(pidfd.clone(), WaitIdOptions::EXITED)
        })?;
        Ok(())
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        if let Err(error) = self.wait() {
            warn!("wait for the keeper: {error}");
        }
    }
}

/// An answer that is not the one hoped for.
fn refused(answer: FromKeeper) -> io::Error {
    match answer {
        FromKeeper::Failed(why) => io::Error::other(why),
        other => io::Error::other(format!("the keeper answers out of turn: {other:?}")),
    }
}
