//! Whichever process of a run is killed, and whenever: it is noticed and nothing is left.
//!
//! The moments are random; `CRUN_LITE_KILLS` says how many of them each test tries. That
//! all of a run is gone within a second is asserted; how soon is printed.

use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::util::cgroup::Cell;
use crate::util::command::Running;
use crate::util::places::Places;
use crate::util::pty::{OnTerminal, Pty};
use crate::util::traces::{self, Traces};
use crate::util::{Host, SOON, Times, Who, eventually, number_from_env};

/// Nothing of a dead run may be left after this.
const A_SECOND: Duration = Duration::from_secs(1);
/// The port of the host that is published: that it is free for the next run is a part of
/// what is shown.
const PORT: &str = "127.0.0.1:18080:80";

/// Who is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Parent,
    Keeper,
    Init,
    Command,
    /// The process that removes the cgroup of a killed run.
    Heir,
    /// Both, one right after the other.
    KeeperAndParent,
}

/// What a run has.
#[derive(Debug, Clone, Copy)]
struct Kind {
    network: bool,
    limits: bool,
    port: bool,
    terminal: bool,
}

impl Kind {
    /// All that have the processes that a victim takes.
    fn with(victim: Victim, has_tun: bool) -> Vec<Self> {
        let kind = |network, limits, port, terminal| Self {
            network,
            limits,
            port,
            terminal,
        };
        let all = [
            kind(false, false, false, false),
            kind(true, false, false, false),
            kind(false, true, false, false),
            kind(true, true, false, false),
            kind(true, false, true, false),
            kind(false, false, false, true),
            kind(true, true, true, true),
        ];
        let fits = |kind: &Self| match victim {
            Victim::Parent | Victim::Init | Victim::Command => true,
            Victim::Keeper => kind.network,
            Victim::Heir => kind.limits,
            Victim::KeeperAndParent => kind.network && kind.limits,
        };
        let can = |kind: &Self| has_tun || !kind.network;
        all.into_iter().filter(fits).filter(can).collect()
    }

    fn args(self) -> Vec<&'static str> {
        let mut args = vec![if self.network {
            "--net=builtin"
        } else {
            "--net=none"
        }];
        if self.limits {
            args.extend(["--memory=256m", "--pids-limit=100"]);
        }
        if self.port {
            args.extend(["--publish", PORT]);
        }
        if self.terminal {
            args.push("-it");
        }
        args
    }
}

/// A run under way, on a terminal or not.
enum Run<'a> {
    Piped(Running),
    OnTerminal(OnTerminal<'a>),
}

impl Run<'_> {
    fn pid(&self) -> Pid {
        match self {
            Self::Piped(run) => run.pid(),
            Self::OnTerminal(run) => run.pid(),
        }
    }

    /// Its exit code, or else the signal that has ended it, and what it has said.
    #[track_caller]
    fn finish(self) -> (Option<i32>, Option<i32>, String) {
        match self {
            Self::Piped(run) => {
                let output = run.finish();
                (output.code(), output.killed_by(), output.to_string())
            }
            Self::OnTerminal(run) => {
                let status = run.finish(SOON);
                (status.code(), status.signal(), String::new())
            }
        }
    }
}

/// The process that is called so below a run, if it is there. One that is ending is not,
/// and the container's command is not one of the host's programs that set the run up:
/// their end, or a signal to what is left of them, ends no container.
fn process(run: Pid, name: &str) -> Option<i32> {
    let below = traces::below(run);
    let is_it = |pid: &i32| match name {
        "command" => {
            let parent = traces::parent(*pid).map(traces::name);
            matches!(&*traces::name(*pid), "sh" | "sleep")
                && parent.is_some_and(|parent| parent == "crun-lite-init")
        }
        name => traces::name(*pid) == name,
    };
    below.iter().map(|process| process.pid).find(is_it)
}

/// Whether it has ended. A signal to one that has, and has not been reaped, is no error
/// and does nothing.
fn has_ended(pidfd: &OwnedFd) -> bool {
    let at_once = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
    rustix::io::retry_on_intr(|| poll(&mut fds, Some(&at_once))).unwrap() > 0
}

/// Waits for the victims; descriptors of them.
#[track_caller]
fn find(victim: Victim, run: Pid) -> Vec<OwnedFd> {
    let own = run.as_raw_nonzero().get();
    let find = |victim| match victim {
        Victim::Keeper => process(run, "crun-lite-keep"),
        Victim::Init => process(run, "crun-lite-init"),
        Victim::Command => process(run, "command"),
        Victim::Heir => process(run, "crun-lite-heir"),
        Victim::Parent | Victim::KeeperAndParent => {
            (traces::name(own) == "crun-lite").then_some(own)
        }
    };
    let wanted = match victim {
        Victim::KeeperAndParent => vec![Victim::Keeper, Victim::Parent],
        one => vec![one],
    };
    let wait = |victim| {
        let mut found = None;
        eventually(&format!("there is the {victim:?}"), SOON, || {
            let pid = find(victim).and_then(Pid::from_raw);
            found = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
            found.is_some()
        });
        found.unwrap()
    };
    wanted.into_iter().map(wait).collect()
}

/// Waits for the end of all of these; says how long that took since `begin`.
#[track_caller]
fn wait_for_all(pidfds: &[OwnedFd], begin: Instant, traces: &Traces) -> Duration {
    for pidfd in pidfds {
        let left = A_SECOND.saturating_sub(begin.elapsed());
        let left = Timespec::try_from(left).unwrap();
        let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
        let ended = rustix::io::retry_on_intr(|| poll(&mut fds, Some(&left))).unwrap();
        assert!(ended > 0, "some live after {A_SECOND:?}: {traces:?}");
    }
    begin.elapsed()
}

/// Kills the victim at random moments.
fn kill(who: Who, victim: Victim) {
    let host = Host::new();
    let mounts = host.mounts();
    let cell = match Cell::new(who, &["memory", "pids"], false) {
        Ok(cell) => cell,
        Err(why) => return crate::util::skip(&why),
    };
    let places = Places::new(who);
    let kinds = Kind::with(victim, who.has_tun());
    need!(!kinds.is_empty(), "{who:?} may not open /dev/net/tun");
    let mut times = Times::default();
    for (round, kind) in (0..number_from_env("CRUN_LITE_KILLS", 50)).zip(kinds.iter().cycle()) {
        let what = format!("{victim:?} in round {round}, {kind:?}");
        let marker = format!("death-{victim:?}-{who:?}-{}-{round}-", std::process::id());
        let script = ["--", "sh", "-c", "echo ready; sleep 1000; exit 9", &marker];
        let args = [kind.args(), script.to_vec()].concat();
        let crun = if kind.limits {
            cell.crun(&args)
        } else {
            who.crun(&args)
        };
        let crun = places.of(crun.on(&host).env("CRUN_LITE_TEST_MARKER", &marker));
        let pty = kind.terminal.then(|| Pty::new(who));
        let modes = pty.as_ref().map(Pty::modes);
        let run = match &pty {
            Some(pty) => Run::OnTerminal(pty.spawn(crun)),
            None => Run::Piped(crun.spawn()),
        };
        let victims = find(victim, run.pid());
        // From the first moment that it is there to when all has long been so.
        if round % 3 != 0 {
            std::thread::sleep(Duration::from_micros(fastrand::u64(..60_000)));
        }
        let traces = Traces::of(run.pid());
        let all = traces.processes.iter().filter_map(|process| {
            let pid = Pid::from_raw(process.pid)?;
            pidfd_open(pid, PidfdFlags::empty()).ok()
        });
        let all: Vec<_> = all.collect();
        let begin = Instant::now();
        for victim in &victims {
            // A run whose keeper is dead may have ended before the other is killed.
            assert!(
                victims.len() > 1 || !has_ended(victim),
                "{what}: it is dead already"
            );
            let killed = pidfd_send_signal(victim, Signal::KILL);
            assert!(killed.is_ok() || victims.len() > 1, "{what}: {killed:?}");
        }
        if victim == Victim::Heir {
            // Nobody misses it.
            rustix::process::kill_process(run.pid(), Signal::TERM).unwrap();
        }
        // It is reaped at once, as by any shell: a keeper waits a while for that, to say
        // how its parent has died.
        let (code, signal, said) = run.finish();
        times.add(wait_for_all(&all, begin, &traces));
        let right = match victim {
            Victim::Parent => signal == Some(9),
            Victim::Keeper => code == Some(125),
            // It may not have got so far as to have a command.
            Victim::Init => matches!(code, Some(125 | 137)),
            Victim::Command => code == Some(137),
            Victim::Heir => code == Some(143) || signal == Some(15),
            Victim::KeeperAndParent => code == Some(125) || signal == Some(9),
        };
        assert!(right, "{what}: exit code {code:?}, signal {signal:?}{said}");
        let gone = || traces::marked(&marker).is_empty();
        eventually(&format!("{what}: no process is left"), A_SECOND, gone);
        traces.assert_gone(A_SECOND);
        let gone = || cell.made().is_empty();
        eventually(&format!("{what}: no cgroup is left"), A_SECOND, gone);
        if let (Some(pty), Some(modes)) = (&pty, &modes) {
            let back = || pty.modes() == *modes;
            eventually(&format!("{what}: the modes of before"), A_SECOND, back);
        }
    }
    assert_eq!(host.mounts(), mounts);
    places.assert_empty();
    if host.is_own() {
        let links = host.tool(&["ip", "-oneline", "link"]);
        assert!(!links.contains("tap"), "{links}");
    }
    times.report(&format!("{victim:?} killed as {who:?}, all over"));
}

both! {
    fn a_parent_killed_at_any_moment_leaves_nothing(who) {
        kill(who, Victim::Parent);
    }

    fn a_keeper_killed_at_any_moment_leaves_nothing(who) {
        need!(who.has_tun(), "{who:?} may not open /dev/net/tun");
        kill(who, Victim::Keeper);
    }

    fn an_init_killed_at_any_moment_leaves_nothing(who) {
        kill(who, Victim::Init);
    }

    fn a_command_killed_at_any_moment_leaves_nothing(who) {
        kill(who, Victim::Command);
    }

    fn an_heir_killed_at_any_moment_is_not_missed(who) {
        kill(who, Victim::Heir);
    }

    fn a_keeper_and_a_parent_killed_at_once_leave_nothing(who) {
        need!(who.has_tun(), "{who:?} may not open /dev/net/tun");
        kill(who, Victim::KeeperAndParent);
    }
}
