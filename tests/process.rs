//! The process model through the library, mostly without a root file system: the test
//! program runs itself as a small `crun-lite run`, and looks at it from outside.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test without the harness, which lints do not take for one"
)]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use crun_lite::ns::idmap;

#[path = "process/runtime.rs"]
mod runtime;
#[path = "process/terminal.rs"]
mod terminal;

/// First argument that makes this program the runtime instead of the test.
const RUN: &str = "--as-runtime";

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1).peekable();
    if args.next_if(|arg| arg == RUN).is_some() {
        return match runtime::run(args.collect()) {
            Ok(code) => ExitCode::from(code),
            Err(error) => {
                let source = std::error::Error::source(&error)
                    .map(|e| format!(": {e}"))
                    .unwrap_or_default();
                eprintln!("runtime: {error}{source}");
                ExitCode::from(error.exit_code())
            }
        };
    }
    let filter = args.find(|arg| !arg.starts_with('-')).unwrap_or_default();
    let mut failed = 0;
    for (name, test) in TESTS.iter().filter(|(name, _)| name.contains(&filter)) {
        let start = Instant::now();
        let passed = std::panic::catch_unwind(test).is_ok();
        failed += usize::from(!passed);
        println!(
            "{} {name} ({:?})",
            if passed { "ok  " } else { "FAIL" },
            start.elapsed()
        );
    }
    ExitCode::from(u8::from(failed > 0))
}

const TESTS: &[(&str, fn())] = &[
    ("exit_codes", exit_codes),
    ("commands_that_do_not_start", commands_that_do_not_start),
    ("the_command_starts_clean", the_command_starts_clean),
    ("identity", identity),
    ("init_is_no_window", init_is_no_window),
    ("stdin", stdin),
    ("signals_reach_the_command", signals_reach_the_command),
    ("stop_and_continue", stop_and_continue),
    ("what_the_caller_left_behind", what_the_caller_left_behind),
    ("orphans_are_reaped", orphans_are_reaped),
    ("killed_parent_leaves_nothing", killed_parent_leaves_nothing),
    ("killed_init_leaves_nothing", killed_init_leaves_nothing),
    ("set_up_that_hangs", set_up_that_hangs),
    ("terminal", terminal::terminal),
    (
        "terminal_output_is_complete",
        terminal::terminal_output_is_complete,
    ),
    (
        "terminal_of_a_killed_parent",
        terminal::terminal_of_a_killed_parent,
    ),
    ("terminal_without_one", terminal::terminal_without_one),
];

fn runtime_command(options: &[&str], command: &[&str]) -> Command {
    let mut runtime = Command::new(std::env::current_exe().unwrap());
    runtime
        .arg(RUN)
        .args(options)
        .arg("--")
        .args(command)
        .env("CANARY", "1");
    runtime
}

struct Outcome {
    code: i32,
    out: String,
    err: String,
}

fn run(options: &[&str], command: &[&str]) -> Outcome {
    let output = runtime_command(options, command)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    Outcome {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

fn sh(options: &[&str], script: &str) -> Outcome {
    run(options, &["sh", "-c", script])
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A runtime in the background, and what it prints.
struct Running {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Running {
    fn start(options: &[&str], script: &str) -> Self {
        Self::from(&mut runtime_command(options, &["sh", "-c", script]))
    }

    fn from(runtime: &mut Command) -> Self {
        let mut child = runtime
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Self { child, out }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.out.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn signal(&self, signal: &str) {
        kill(self.child.id(), signal);
    }

    fn end(mut self) -> i32 {
        drop(self.child.stdin.take());
        self.child.wait().unwrap().code().unwrap_or(-1)
    }
}

fn kill(pid: u32, signal: &str) {
    let status = Command::new("kill")
        .args(["-s", signal, &pid.to_string()])
        .status()
        .unwrap();
    assert!(status.success());
}

fn children(pid: u32) -> Vec<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_ascii_whitespace()
        .map(|pid| pid.parse().unwrap())
        .collect()
}

fn within(limit: Duration, what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < limit, "{what}: not within {limit:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// All processes below `pid`, and itself.
fn tree(pid: u32) -> Vec<u32> {
    let mut all = vec![pid];
    let mut seen = 0;
    while let Some(pid) = all.get(seen).copied() {
        all.extend(children(pid));
        seen += 1;
    }
    all
}

fn gone(pid: u32) -> bool {
    match fs::read_to_string(format!("/proc/{pid}/stat")) {
        // A zombie waits for its parent, and that is this test or the system's init.
        Ok(stat) => stat.rsplit_once(") ").unwrap().1.starts_with('Z'),
        Err(_) => true,
    }
}

/// The variants of namespaces that this user can have.
fn variants() -> Vec<&'static [&'static str]> {
    let mut variants: Vec<&[&str]> = vec![&[], &["pid=host"], &["single"], &["single", "pid=host"]];
    if is_root() {
        variants.extend([
            &["userns=host"][..],
            &["userns=host", "pid=host"],
            &["shift=200000"],
        ]);
    }
    variants
}

fn exit_codes() {
    for options in variants() {
        assert_eq!(run(options, &["/bin/true"]).code, 0, "{options:?}");
        assert_eq!(run(options, &["false"]).code, 1);
        assert_eq!(sh(options, "exit 7").code, 7);
        assert_eq!(sh(options, "exit 125").code, 125);
        assert_eq!(sh(options, "kill -9 $$").code, 137);
        assert_eq!(sh(options, "kill -TERM $$").code, 143);
        assert_eq!(
            sh(options, "sleep 1000 & setsid sleep 1000 & exit 3").code,
            3
        );
    }
}

fn commands_that_do_not_start() {
    let missing = run(&[], &["no-such-command"]);
    assert_eq!(
        (missing.code, missing.err.as_str()),
        (
            127,
            "runtime: no-such-command: command not found in the container\n"
        )
    );
    assert_eq!(run(&[], &["/no/such/file"]).code, 127);
    assert_eq!(run(&[], &["/etc/passwd/x"]).code, 127);
    let denied = run(&[], &["/etc/passwd"]);
    assert_eq!(denied.code, 126);
    assert!(
        denied
            .err
            .contains("/etc/passwd: cannot be executed: Permission denied"),
        "{}",
        denied.err
    );
    assert_eq!(run(&[], &["/etc"]).code, 126);
    let itself = run(&[], &["/proc/self/exe"]);
    assert_eq!(itself.code, 126, "{}", itself.err);
    let path = std::env::temp_dir().join(format!("crun-lite-process-{}", std::process::id()));
    for (text, code) in [
        ("#!/proc/self/exe\n", 126),
        ("#!/no/such\n", 127),
        ("no format", 126),
        ("#!/bin/sh\nexit 4", 4),
    ] {
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        assert_eq!(run(&[], &[path.to_str().unwrap()]).code, code, "{text}");
    }
    fs::remove_file(path).unwrap();
    let nobody = run(&["user=no-such-user"], &["true"]);
    assert_eq!(nobody.code, 125);
    assert!(nobody.err.contains("no-such-user"), "{}", nobody.err);
    assert_eq!(run(&["user=4294967295"], &["true"]).code, 125);
    let outside = run(&["workdir=/proc/self/fd/0"], &["true"]);
    assert_eq!(outside.code, 125);
    assert!(
        outside
            .err
            .contains("enter the working directory: /proc/self/fd/0"),
        "{}",
        outside.err
    );
}

fn the_command_starts_clean() {
    for options in variants() {
        let status = run(options, &["cat", "/proc/self/status"]);
        for line in [
            "SigBlk:\t0000000000000000",
            "SigIgn:\t0000000000000000",
            "SigCgt:\t0000000000000000",
            "Umask:\t0022",
        ] {
            assert!(
                status.out.contains(line),
                "{options:?} {line}\n{}",
                status.out
            );
        }
        // 3 is the directory that ls itself reads.
        assert_eq!(run(options, &["ls", "/proc/self/fd"]).out, "0\n1\n2\n3\n");
        assert_eq!(run(options, &["hostname"]).out, "container\n");
        let env = run(options, &["env"]).out;
        assert!(
            env.contains("HOME=/root\n") && env.lines().count() == 2,
            "{env}"
        );
        // Field 6 is the session, 1 the process: its own.
        assert_eq!(
            sh(
                options,
                "read p n s pp g sid r < /proc/self/stat; [ $p = $sid ] && [ $p = $g ]"
            )
            .code,
            0
        );
    }
    assert_eq!(run(&["workdir=/usr/bin"], &["pwd"]).out, "/usr/bin\n");
}

fn identity() {
    for options in variants() {
        assert_eq!(sh(options, "id -u; id -g").out, "0\n0\n", "{options:?}");
    }
    // One id cannot be another.
    assert_eq!(run(&["single", "user=1"], &["true"]).code, 125);
    if idmap::covers(&idmap::default_maps().uid, 1) {
        let daemon = sh(&["user=daemon"], "id -u; id -G; echo $HOME");
        assert_eq!(daemon.out, "1\n1\n/usr/sbin\n", "{}", daemon.err);
        assert_eq!(sh(&["user=4242"], "id -u; id -g").out, "4242\n0\n");
        assert_eq!(sh(&[], "id -G").out, "0\n");
    }
}

fn init_is_no_window() {
    let mut running = Running::start(&["-i"], "echo up; read x");
    assert_eq!(running.line(), "up");
    let [init] = children(running.child.id())[..] else {
        panic!("no init")
    };
    assert_eq!(
        fs::read(format!("/proc/{init}/cmdline"))
            .unwrap()
            .split(|b| *b == 0)
            .next(),
        Some(&b"crun-lite init"[..])
    );
    assert_eq!(
        fs::read_to_string(format!("/proc/{init}/comm")).unwrap(),
        "crun-lite-init\n"
    );
    let status = fs::read_to_string(format!("/proc/{init}/status")).unwrap();
    assert!(status.contains("SigIgn:\t0000000000000000"), "{status}");
    if is_root() {
        assert!(
            !String::from_utf8_lossy(&fs::read(format!("/proc/{init}/environ")).unwrap())
                .contains("CANARY")
        );
        let open: Vec<_> = fs::read_dir(format!("/proc/{init}/fd")).unwrap().collect();
        // Three of /dev/null and its source, socket, lifeline, signalfd, procfs, the child's pidfd.
        assert!(open.len() <= 9, "{open:?}");
    }
    // Shares the machine's procfs, so the host's numbers are visible in this rig.
    let peek = sh(
        &["single"],
        &format!(
            "cat /proc/{init}/environ; readlink /proc/{init}/exe; readlink /proc/{init}/fd/3 /proc/{init}/cwd"
        ),
    );
    assert!(peek.out.is_empty() && peek.code != 0, "{}", peek.out);
    assert_eq!(running.end(), 1);
}

fn stdin() {
    assert_eq!(sh(&[], "cat; readlink /proc/self/fd/0").out, "/dev/null\n");
    let mut runtime = runtime_command(&["-i"], &["cat"]);
    let mut child = runtime
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(b"passed through")
        .unwrap();
    assert_eq!(child.wait_with_output().unwrap().stdout, b"passed through");
}

fn signals_reach_the_command() {
    for options in variants() {
        for signal in [
            "TERM", "INT", "HUP", "QUIT", "USR1", "USR2", "WINCH", "RTMIN+3",
        ] {
            let number = if signal == "RTMIN+3" {
                "37".to_owned()
            } else {
                signal.to_owned()
            };
            let script =
                format!("trap 'echo got; exit 9' {number}; echo up; while :; do sleep 0.01; done");
            let mut running = Running::start(options, &script);
            assert_eq!(running.line(), "up");
            running.signal(signal);
            assert_eq!(running.line(), "got", "{options:?} {signal}");
            assert_eq!(running.end(), 9);
        }
    }
    let mut running = Running::start(&[], "echo up; exec sleep 1000");
    assert_eq!(running.line(), "up");
    running.signal("TERM");
    assert_eq!(running.end(), 143);
}

fn state(pid: u32) -> char {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(") ").unwrap().1.chars().next().unwrap()
}

fn stop_and_continue() {
    // A group of its own, which is no orphan: as under a shell with job control.
    let mut runtime = runtime_command(&["-i"], &["sh", "-c", "echo up; read x; exit 5"]);
    let mut running = Running::from(runtime.process_group(0));
    assert_eq!(running.line(), "up");
    let parent = running.child.id();
    let [init] = children(parent)[..] else {
        panic!("no init")
    };
    let [command] = children(init)[..] else {
        panic!("no command")
    };
    let second = Duration::from_secs(1);
    running.signal("TSTP");
    within(second, "both stop", || {
        state(command) == 'T' && state(parent) == 'T'
    });
    running.signal("CONT");
    within(second, "both go on", || {
        state(command) != 'T' && state(parent) != 'T'
    });
    assert_eq!(running.end(), 5);
}

fn what_the_caller_left_behind() {
    // Descriptors without close-on-exec, SIGCHLD and SIGHUP ignored.
    let script =
        "trap '' CHLD HUP; exec 5</ 6</dev/null 77</; exec \"$0\" --as-runtime -- sh -c \"$1\"";
    let start = |inner: &str| {
        let mut shell = Command::new("bash");
        shell
            .arg("-c")
            .arg(script)
            .arg(std::env::current_exe().unwrap())
            .arg(inner);
        shell.stdout(Stdio::piped()).spawn().unwrap()
    };
    let out = |inner| String::from_utf8(start(inner).wait_with_output().unwrap().stdout).unwrap();
    assert_eq!(out("ls /proc/self/fd"), "0\n1\n2\n3\n");
    assert!(out("cat /proc/self/status").contains("SigIgn:\t0000000000000000"));
    assert_eq!(start("exit 4").wait().unwrap().code(), Some(4));
    // The hang-up that it ignored is not for the command either.
    let mut child = start("echo up; sleep 0.2; exit 8");
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    kill(child.id(), "HUP");
    assert_eq!(child.wait().unwrap().code(), Some(8));
}

fn orphans_are_reaped() {
    for options in [&["-i"][..], &["-i", "pid=host"]] {
        let script =
            "i=0; while [ $i -lt 10000 ]; do (true &); i=$((i+1)); done; echo up; read x; exit 6";
        let mut running = Running::start(options, script);
        assert_eq!(running.line(), "up");
        let [init] = children(running.child.id())[..] else {
            panic!("no init")
        };
        within(Duration::from_secs(1), "only the command is left", || {
            children(init).len() == 1
        });
        assert_eq!(running.end(), 6);
    }
}

const BROOD: &str =
    "sleep 1000 & (setsid sh -c 'sleep 1000 & sleep 1000' &) ; sleep 0.1; echo up; sleep 1000";

fn killed_parent_leaves_nothing() {
    for options in variants() {
        let mut running = Running::start(options, BROOD);
        assert_eq!(running.line(), "up");
        let all = tree(running.child.id());
        assert!(all.len() >= 7, "{all:?}");
        running.child.kill().unwrap();
        running.child.wait().unwrap();
        within(Duration::from_secs(1), "all processes end", || {
            all.iter().all(|pid| gone(*pid))
        });
    }
    // At any moment of the start.
    for delay in 0..60 {
        let mut runtime = runtime_command(&[], &["sleep", "1000"]);
        let mut child = runtime.stdin(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_micros(200 * delay));
        let all = tree(child.id());
        child.kill().unwrap();
        child.wait().unwrap();
        within(Duration::from_secs(1), "all processes end", || {
            all.iter().all(|pid| gone(*pid))
        });
    }
}

fn killed_init_leaves_nothing() {
    for options in variants() {
        let mut running = Running::start(options, BROOD);
        assert_eq!(running.line(), "up");
        let all = tree(running.child.id());
        let [init] = children(running.child.id())[..] else {
            panic!("no init")
        };
        kill(init, "KILL");
        assert_eq!(running.end(), 137, "{options:?}");
        within(Duration::from_secs(1), "all processes end", || {
            all.iter().all(|pid| gone(*pid))
        });
    }
}

fn set_up_that_hangs() {
    let start = |options: &[&str]| {
        let mut all = vec!["hang"];
        all.extend(options);
        let child = runtime_command(&all, &["true"])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        within(Duration::from_secs(5), "init starts", || {
            children(child.id()).first().is_some_and(|init| {
                fs::read_to_string(format!("/proc/{init}/comm"))
                    .is_ok_and(|comm| comm == "crun-lite-init\n")
            })
        });
        child
    };
    for options in variants() {
        let mut child = start(options);
        let all = tree(child.id());
        child.kill().unwrap();
        child.wait().unwrap();
        within(Duration::from_secs(1), "all processes end", || {
            all.iter().all(|pid| gone(*pid))
        });

        let mut child = start(options);
        let all = tree(child.id());
        kill(child.id(), "TERM");
        assert_eq!(child.wait().unwrap().code(), Some(143));
        assert!(all.iter().all(|pid| gone(*pid)));

        let mut child = start(options);
        kill(children(child.id())[0], "KILL");
        assert_eq!(child.wait().unwrap().code(), Some(125));
    }
}
