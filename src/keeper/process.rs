//! The keeper's own process.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::process::Pid;
use rustix::time::Timespec;
use tracing::{error, warn};

use super::messages::{FromKeeper, MOST_BOUND, Numbered, ToKeeper};
use super::{Bound, Cleanup, Duties};
use crate::error::{EXIT_RUNTIME, hint};
use crate::ipc::{Channel, Received};
use crate::sys;
use crate::sys::helper::stand_apart;
use crate::sys::process::ExitOnUnwind;

/// How long the end of the parent may take once its descriptors are closed.
const DYING: Duration = Duration::from_secs(1);
/// How long its parent may take to reap it.
const REAPED: Duration = Duration::from_millis(200);

/// What it has of the parent's.
#[derive(Debug)]
pub(super) struct Ends {
    pub(super) channel: Channel,
    /// A pidfd of the parent.
    pub(super) parent: OwnedFd,
    pub(super) parent_pid: Pid,
}

/// The life of the keeper; never returns into what it was forked from.
pub(super) fn run(ends: Ends, duties: Box<dyn Duties>, cleanups: Vec<Box<dyn Cleanup>>) -> ! {
    let _guard = ExitOnUnwind(EXIT_RUNTIME);
    let mut keeper = Process {
        ends,
        duties,
        bound: Vec::new(),
    };
    let lived = keeper.detach(&cleanups).and_then(|()| keeper.serve());
    if let Err(error) = &lived {
        error!("the keeper: {error}");
    }
    let finish = lived.ok().flatten();
    if finish.is_none()
        && let Err(error) = keeper.duties.end_container()
    {
        error!("end the container: {error}");
    }
    for cleanup in cleanups {
        cleanup.run();
    }
    match finish {
        Some(number) => keeper.answer(number, FromKeeper::Finished),
        None => keeper.tell_why(),
    }
    sys::process::exit(0)
}

struct Process {
    ends: Ends,
    duties: Box<dyn Duties>,
    /// Sockets that were bound and have not been asked for yet.
    bound: Vec<Bound>,
}

impl Process {
    /// Lets go of what is the parent's alone.
    fn detach(&self, cleanups: &[Box<dyn Cleanup>]) -> io::Result<()> {
        let mut kept = vec![self.ends.channel.as_fd(), self.ends.parent.as_fd()];
        kept.extend(self.duties.descriptors());
        kept.extend(cleanups.iter().flat_map(|cleanup| cleanup.descriptors()));
        stand_apart(&kept, c"crun-lite-keep", "crun-lite keeper")
    }

    /// Answers until the parent is about to end (the number of that question) or gone.
    fn serve(&mut self) -> io::Result<Option<u32>> {
        loop {
            let Numbered { number, message } = match self.ends.channel.receive()? {
                Received::Message(message) => message,
                // Nobody has set a time by which it must have come.
                Received::Nothing => continue,
                Received::End => return Ok(None),
            };
            let answer = match message {
                ToKeeper::Resolvers => FromKeeper::Resolvers(self.duties.resolvers()),
                ToKeeper::Bind(publish) => match self.duties.bind(&publish) {
                    Ok(bound) => {
                        self.bound = bound;
                        self.next_bound()
                    }
                    Err(why) => FromKeeper::Failed(why),
                },
                ToKeeper::MoreBound => self.next_bound(),
                ToKeeper::NextFile(log) => self
                    .duties
                    .next_file(log)
                    .map_or_else(failed, FromKeeper::File),
                ToKeeper::EndChildren(but) => self
                    .duties
                    .end_children(self.ends.parent_pid, &but)
                    .map_or_else(failed, FromKeeper::Killed),
                ToKeeper::Signal { signal, group } => self
                    .duties
                    .signal(signal, group)
                    .map_or_else(failed, |()| FromKeeper::Signaled),
                ToKeeper::Setting(place) => {
                    let name = hint::SETTINGS.get(usize::from(place));
                    FromKeeper::Setting(name.and_then(|name| hint::sysctl(name)))
                }
                ToKeeper::Finish => return Ok(Some(number)),
            };
            self.answer(number, answer);
        }
    }

    fn next_bound(&mut self) -> FromKeeper {
        let rest = self.bound.split_off(self.bound.len().min(MOST_BOUND));
        let sockets = std::mem::replace(&mut self.bound, rest);
        FromKeeper::Bound {
            sockets,
            more: !self.bound.is_empty(),
        }
    }

    fn answer(&self, number: u32, message: FromKeeper) {
        let answer = Numbered { number, message };
        let Err(error) = self.ends.channel.send(&answer) else {
            return;
        };
        // Where the parent is gone that is seen next. Else there is something that
        // cannot be sent, such as more descriptors than may be on their way.
        let message = failed(error);
        let _ = self.ends.channel.send(&Numbered { number, message });
    }

    /// Says why there is no parent any more, unless it was asked to end.
    fn tell_why(&self) {
        let why = match self.status() {
            Some(status) if asks_for_the_end(status & 0x7f) => return,
            Some(status) if status & 0x7f == libc::SIGSYS => {
                "was killed for a system call that it may not make (SIGSYS): a fault in \
                 crun-lite, or an attack"
                    .to_owned()
            }
            Some(status) if status & 0x7f != 0 => {
                format!("was killed by signal {}", status & 0x7f)
            }
            Some(status) => format!("ended with exit code {}", status >> 8 & 0xff),
            None => "has died".to_owned(),
        };
        error!("the process that runs the network {why}: the container has been ended");
    }

    /// How the parent ended, as wait(2) has it, if that can be found out: by procfs
    /// while it is a zombie, if we may see that of it, or by the pidfd when it has been
    /// reaped, which its own parent will hardly delay.
    fn status(&self) -> Option<i32> {
        // Its descriptors are closed before it is a zombie.
        self.wait_for_parent(PollFlags::IN, DYING);
        let reaped = || sys::pidfd::exit_status(self.ends.parent.as_fd());
        let known = reaped().or_else(|| status_of_zombie(self.ends.parent_pid));
        known.or_else(|| {
            self.wait_for_parent(PollFlags::empty(), REAPED);
            reaped()
        })
    }

    /// Waits for an event of the parent's pidfd; a hang-up always is one.
    fn wait_for_parent(&self, event: PollFlags, limit: Duration) {
        let mut fds = [PollFd::new(&self.ends.parent, event)];
        // No signal is let through, so nothing interrupts.
        let waited = Timespec::try_from(limit)
            .map_err(|_| Errno::INVAL)
            .and_then(|limit| rustix::event::poll(&mut fds, Some(&limit)));
        if let Err(error) = waited {
            warn!("wait for the end of the parent: {error}");
        }
    }
}

/// Whether a signal is one that ends a run in its last phase, when the container is
/// over and signals are blocked no longer.
fn asks_for_the_end(signal: i32) -> bool {
    matches!(
        signal,
        libc::SIGHUP | libc::SIGINT | libc::SIGQUIT | libc::SIGTERM
    )
}

/// The last field of `/proc/PID/stat` (proc_pid_stat(5)), of a process that has ended;
/// 0 where we may not see it.
fn status_of_zombie(pid: Pid) -> Option<i32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(") ")?;
    let status = fields.strip_prefix('Z')?.split_ascii_whitespace().last()?;
    status.parse().ok().filter(|status| *status != 0)
}

fn failed(error: io::Error) -> FromKeeper {
    FromKeeper::Failed(error.to_string())
}
