//! Ends that nobody has asked for: a terminal that is gone, a signal at any moment, a full
//! disk, no memory left.

use std::fs::{self, File};
use std::io::Read;
use std::net::Ipv4Addr;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::process::{Pid, Signal};

use crate::util::cgroup::Cell;
use crate::util::pty::Pty;
use crate::util::servers::UdpServer;
use crate::util::traces::{self, Traces};
use crate::util::{Host, SOON, Side, Who, eventually, number_from_env};

/// Nothing of a dead run may be left after this.
const A_SECOND: Duration = Duration::from_secs(1);
/// A memory limit around the program and its container: enough for them.
const AROUND: u64 = 96 << 20;

/// The networks that this user's containers may have.
fn networks(who: Who) -> &'static [&'static str] {
    if who.has_tun() {
        &["--net=none", "--net=builtin"]
    } else {
        &["--net=none"]
    }
}

/// A run on a terminal of which only its screen and keyboard are left to the test.
struct OnScreen {
    screen: File,
    child: Child,
    _program: crate::util::CrunLite,
}

impl OnScreen {
    fn start(who: Who, host: &Host, args: &[&str]) -> Self {
        let (screen, terminal) = Pty::open(who);
        let (child, program) = Pty::spawn_on(&terminal, who.crun(args).on(host));
        Self {
            screen: File::from(screen),
            child,
            _program: program,
        }
    }

    fn expect(&mut self, word: &str) {
        let mut seen = Vec::new();
        while !String::from_utf8_lossy(&seen).contains(word) {
            let mut bytes = [0; 1024];
            let length = self.screen.read(&mut bytes).unwrap();
            seen.extend(&bytes[..length]);
        }
    }

    /// Closes the terminal; the exit code.
    #[track_caller]
    fn hang_up(self) -> Option<i32> {
        let Self {
            screen, mut child, ..
        } = self;
        drop(screen);
        let deadline = Instant::now() + SOON;
        while Instant::now() < deadline {
            if let Some(status) = child.try_wait().unwrap() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        panic!("it goes on without a terminal");
    }
}

/// A file system of a few pages that belongs to a user, all of them used.
struct Full {
    folder: tempfile::TempDir,
}

impl Full {
    fn new(who: Who) -> Self {
        let folder = who.folder();
        let options = c"size=16k,nr_inodes=20";
        mount(
            c"tmpfs",
            folder.path(),
            c"tmpfs",
            MountFlags::empty(),
            Some(options),
        )
        .unwrap();
        who.own(folder.path());
        let full = Self { folder };
        assert!(fs::write(full.at("fill"), [1; 1 << 20]).is_err());
        full
    }

    fn at(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.folder.path()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    }
}

impl Drop for Full {
    fn drop(&mut self) {
        let _ = unmount(self.folder.path(), UnmountFlags::DETACH);
    }
}

/// Does not outlive the test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // It may have ended, as it should.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Has a part of the cgroups take no more memory than this.
fn limit_memory(cell: &Cell, bytes: u64) {
    let files = if cell.unified {
        ["memory.max", "memory.swap.max"]
    } else {
        ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes"]
    };
    let swap = if cell.unified { 0 } else { bytes };
    cell.set(files[0], &bytes.to_string()).unwrap();
    // Not every kernel counts swap.
    let _ = cell.set(files[1], &swap.to_string());
}

both! {
    fn a_closed_terminal_ends_the_run_with_129(who) {
        let host = Host::new();
        for net in networks(who) {
            let marker = format!("closed-{who:?}-{}-", std::process::id());
            let script = "echo ready; sleep 1000; exit 9";
            let mut run =
                OnScreen::start(who, &host, &[net, "-it", "--", "sh", "-c", script, &marker]);
            run.expect("ready");
            let traces = Traces::of(Pid::from_child(&run.child));
            assert_eq!(run.hang_up(), Some(129), "{net}");
            traces.assert_gone(A_SECOND);
            assert!(traces::marked(&marker).is_empty());
        }
    }

    /// A host sends what its programs have sent, whether they have ended since or not.
    fn the_last_datagrams_of_a_command_arrive(who) {
        const COUNT: usize = 200;
        need!(who.has_tun(), "{who:?} may not open /dev/net/tun");
        let host = Host::new();
        let (sender, receiver) = mpsc::channel();
        let server = UdpServer::start(&host, Side::Host, Ipv4Addr::LOCALHOST, move |data| {
            let _ = sender.send(data.to_vec());
            None
        });
        let client = format!(
            "import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.connect(('10.0.2.2', {}))
print('ready', flush=True)
input()
for _ in range({COUNT}): s.send(b'last')",
            server.port()
        );
        let mut run = who
            .crun(&["-i", "--net=builtin:allow_host_loopback=true", "--rootfs=/", "--", "python3", "-c", &client])
            .on(&host)
            .stdin_open()
            .spawn();
        run.expect("ready\n");
        run.signal(Signal::STOP);
        let parent = run.pid().as_raw_nonzero();
        let children = format!("/proc/{parent}/task/{parent}/children");
        let ended = || {
            let children = fs::read_to_string(&children).unwrap();
            children.split_whitespace().any(|child| {
                let stat = fs::read_to_string(format!("/proc/{child}/stat"));
                stat.is_ok_and(|stat| stat.contains(") Z "))
            })
        };
        run.write(b"\n");
        eventually("the container ends", SOON, ended);
        run.signal(Signal::CONT);
        assert_eq!(run.finish().success(), "ready\n");
        let arrived = std::iter::from_fn(|| receiver.recv_timeout(Duration::from_secs(1)).ok());
        assert_eq!(arrived.take(COUNT).count(), COUNT);
    }

    /// What nobody reads is not waited for any longer than the caller wants.
    fn a_signal_ends_a_run_whose_output_is_not_taken(who) {
        let host = Host::new();
        let (_reader, writer) = rustix::pipe::pipe().unwrap();
        let room = writer.try_clone().unwrap();
        let args = ["--net=none", "-t", "--", "sh", "-c", "while :; do echo and again; done"];
        let crun = who.crun(&args).on(&host);
        let mut command = crun.command();
        let child = command.stdin(Stdio::null()).stdout(writer).spawn().unwrap();
        drop(command);
        let pid = Pid::from_child(&child);
        let mut child = Killed(child);
        eventually("nothing more fits", SOON, || {
            let mut fds = [PollFd::new(&room, PollFlags::OUT)];
            poll(&mut fds, Some(&Timespec::default())).unwrap() == 0
        });
        let traces = Traces::of(pid);
        let mut status = None;
        // The first is the command's; one of a caller who has waited for long is ours.
        eventually("it ends", SOON, || {
            rustix::process::kill_process(pid, Signal::TERM).unwrap();
            status = child.0.try_wait().unwrap();
            status.is_some()
        });
        // One more, once all is over, ends it as any program.
        let status = status.unwrap();
        assert_eq!(status.code().or(status.signal().map(|signal| 128 + signal)), Some(143));
        traces.assert_gone(A_SECOND);
    }

    fn a_command_that_ignores_a_hang_up_reads_the_end_of_its_input(who) {
        let host = Host::new();
        for net in networks(who) {
            let script = "trap '' HUP; echo ready; cat; exit 7";
            let mut run = OnScreen::start(who, &host, &[net, "-it", "--", "sh", "-c", script]);
            run.expect("ready");
            let traces = Traces::of(Pid::from_child(&run.child));
            assert_eq!(run.hang_up(), Some(7), "{net}");
            traces.assert_gone(A_SECOND);
        }
    }

    fn a_signal_at_any_moment_has_its_exit_code_and_leaves_nothing(who) {
        let host = Host::new();
        let signals = [Signal::TERM, Signal::INT, Signal::QUIT, Signal::HUP];
        let nets = networks(who);
        for round in 0..number_from_env("CRUN_LITE_KILLS", 50) {
            let index = usize::try_from(round).unwrap();
            let signal = signals[index % signals.len()];
            let net = nets[index / signals.len() % nets.len()];
            let what = format!("{signal:?} in round {round}, {net}");
            let pty = Pty::new(who);
            let modes = pty.modes();
            let marker = format!("signal-{who:?}-{}-{round}-", std::process::id());
            // No shell, which may wait for its child first.
            let crun = who.crun(&[net, "-it", "--", "sleep", "1000"]).on(&host);
            let run = pty.spawn(crun.env("CRUN_LITE_TEST_MARKER", &marker));
            let own = run.pid().as_raw_nonzero().get();
            eventually(&what, SOON, || traces::name(own) == "crun-lite");
            std::thread::sleep(Duration::from_micros(fastrand::u64(..80_000)));
            let traces = Traces::of(run.pid());
            run.signal(signal);
            let status = run.finish(SOON);
            // Before it has anything to put in order the signal ends it as any program;
            // a shell says the same of both.
            let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
            assert_eq!(code, Some(128 + signal.as_raw()), "{what}: {:?}", pty.screen.text());
            traces.assert_gone(A_SECOND);
            let gone = || traces::marked(&marker).is_empty();
            eventually(&format!("{what}: no process is left"), A_SECOND, gone);
            assert_eq!(pty.modes(), modes, "{what}");
        }
    }

    fn a_full_disk_is_an_error_before_the_command_starts(who) {
        need!(Who::tests_run_as_root(), "only root can mount a small file system");
        let full = Full::new(who);
        let before = full.names();
        let command = ["--", "sh", "-c", "echo started"];
        if who.has_tun() {
            let capture = full.at("a.pcap");
            let args = [&["--pcap", &capture][..], &command].concat();
            who.run(&args).refused(&["--pcap", &capture, "No space left on device"]);
            assert_eq!(full.names(), before, "no empty file stays");
        }
        let root = full.at("root");
        fs::create_dir(&root).unwrap();
        who.own(root.as_ref());
        // No file can be made at all, in a root file system as anywhere.
        while File::create(full.at(&format!("f{}", fastrand::u32(..)))).is_ok() {}
        let before = full.names();
        if who.has_tun() {
            for option in ["--pcap", "--net-log"] {
                let log = full.at("b");
                let args = [&[option, &*log][..], &command].concat();
                who.run(&args).refused(&[option, &log, "No space left on device"]);
                assert_eq!(full.names(), before);
            }
        }
        let args = [&["--net=none", "--rootfs", &root][..], &command].concat();
        who.run(&args).refused(&["No space left on device"]);
        assert_eq!(full.names(), before);
    }

    fn whoever_the_lack_of_memory_kills_nothing_is_left(who) {
        need!(Who::tests_run_as_root(), "only root says who is killed first");
        let host = Host::new();
        let cell = match Cell::new(who, &["memory"], false) {
            Ok(cell) => cell,
            Err(why) => return crate::util::skip(&why),
        };
        limit_memory(&cell, AROUND);
        let marker = format!("memory-{who:?}-{}-", std::process::id());
        let script = "echo ready; read line; exec dd if=/dev/zero of=/dev/null bs=400M count=1";
        for net in networks(who) {
            for victim in ["crun-lite", "crun-lite-keep", "crun-lite-init", "sh"] {
                let args = [net, "-i", "--", "sh", "-c", script, &marker];
                let mut run = cell.crun(&args).on(&host).stdin_open().spawn();
                run.expect("ready\n");
                let traces = Traces::of(run.pid());
                let is_it = |process: &&traces::Process| traces::name(process.pid) == victim;
                let Some(process) = traces.processes.iter().find(is_it) else {
                    assert_eq!((victim, *net), ("crun-lite-keep", "--net=none"), "{traces:?}");
                    continue;
                };
                fs::write(format!("/proc/{}/oom_score_adj", process.pid), "1000").unwrap();
                run.close_stdin();
                let output = run.finish();
                let right = match victim {
                    "crun-lite" => output.killed_by() == Some(9),
                    // The command may be next, before that is noticed.
                    "crun-lite-keep" => matches!(output.code(), Some(125 | 137)),
                    _ => output.code() == Some(137),
                };
                assert!(right, "{victim}, {net}{output}");
                traces.assert_gone(A_SECOND);
                assert!(traces::marked(&marker).is_empty(), "{victim}, {net}");
            }
        }
    }

    fn an_init_that_the_memory_limit_kills_is_told(who) {
        need!(Who::tests_run_as_root(), "only root says who is killed first");
        let cell = match Cell::new(who, &["memory"], false) {
            Ok(cell) => cell,
            Err(why) => return crate::util::skip(&why),
        };
        let script = "echo ready; read line; exec dd if=/dev/zero of=/dev/null bs=400M count=1";
        let args = ["--net=none", "-m=64m", "-i", "--", "sh", "-c", script];
        let mut run = cell.crun(&args).stdin_open().spawn();
        run.expect("ready\n");
        let traces = Traces::of(run.pid());
        let init = traces::init_below(run.pid());
        fs::write(format!("/proc/{}/oom_score_adj", init.pid), "1000").unwrap();
        run.close_stdin();
        let output = run.finish().exit(137);
        for word in ["out of memory", "--memory"] {
            assert!(output.stderr.contains(word), "{word}{output}");
        }
        traces.assert_gone(A_SECOND);
        cell.assert_empty();
    }
}
