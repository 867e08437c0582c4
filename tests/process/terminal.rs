//! Runs on a terminal.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::{gone, runtime_command, sh, tree, within};

/// A runtime on a terminal of its own.
struct OnTerminal {
    child: Child,
    master: fs::File,
    slave: OwnedFd,
}

impl OnTerminal {
    fn start(options: &[&str], script: &str) -> Self {
        let flags = rustix::pty::OpenptFlags::RDWR
            | rustix::pty::OpenptFlags::NOCTTY
            | rustix::pty::OpenptFlags::CLOEXEC;
        let master = rustix::pty::openpt(flags).unwrap();
        rustix::pty::unlockpt(&master).unwrap();
        let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags).unwrap();
        let size = rustix::termios::Winsize {
            ws_row: 33,
            ws_col: 77,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        rustix::termios::tcsetwinsize(&master, size).unwrap();
        let end = || Stdio::from(slave.try_clone().unwrap());
        // Makes it the leader of a session with this controlling terminal.
        let runtime = runtime_command(options, &["sh", "-c", script]);
        let child = Command::new("setsid")
            .arg("--ctty")
            .arg(runtime.get_program())
            .args(runtime.get_args())
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .spawn()
            .unwrap();
        Self {
            child,
            master: master.into(),
            slave,
        }
    }

    fn until(&mut self, wanted: &str) -> String {
        let mut text = String::new();
        let mut buffer = [0; 4096];
        while !text.contains(wanted) {
            let mut fds = [rustix::event::PollFd::new(
                &self.master,
                rustix::event::PollFlags::IN,
            )];
            let limit = rustix::time::Timespec {
                tv_sec: 5,
                tv_nsec: 0,
            };
            assert_ne!(
                rustix::event::poll(&mut fds, Some(&limit)).unwrap(),
                0,
                "no {wanted:?} in {text:?}"
            );
            let length = self.master.read(&mut buffer).unwrap();
            text.push_str(&String::from_utf8_lossy(&buffer[..length]));
        }
        text
    }

    fn settings(&self) -> String {
        format!(
            "{:?}",
            rustix::termios::tcgetattr(self.slave.as_fd()).unwrap()
        )
    }
}

pub(super) fn terminal() {
    let mut on = OnTerminal::start(
        &["-t", "-i"],
        "trap 'echo got; exit 9' INT; trap 'stty size; tty' WINCH; stty size; while :; do sleep 0.01; done",
    );
    let cooked = on.settings();
    on.until("33 77");
    assert_ne!(on.settings(), cooked, "not raw");
    let size = rustix::termios::Winsize {
        ws_row: 44,
        ws_col: 88,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    rustix::termios::tcsetwinsize(&on.master, size).unwrap();
    on.until("44 88");
    on.master.write_all(&[3]).unwrap();
    on.until("got");
    assert_eq!(on.child.wait().unwrap().code(), Some(9));
    assert_eq!(on.settings(), cooked, "not restored");

    // Without -i, or without a pty at all, the key is a signal, and arrives once.
    for options in [&["-t"][..], &["-i"], &[]] {
        let script = "n=0; trap 'n=$((n+1))' INT; echo up; i=0; while [ $i -lt 30 ]; do sleep 0.01; i=$((i+1)); done; exit $n";
        let mut on = OnTerminal::start(options, script);
        on.until("up");
        on.master.write_all(&[3]).unwrap();
        assert_eq!(on.child.wait().unwrap().code(), Some(1), "{options:?}");
        assert_eq!(on.settings(), cooked);
    }
}

pub(super) fn terminal_output_is_complete() {
    // To a pipe whose reader is slower than the command.
    let script = "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done";
    let mut runtime = runtime_command(&["-t"], &["sh", "-c", script]);
    let mut child = runtime
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let wanted: String = (0..20000).map(|i| format!("line {i}\r\n")).collect();
    let mut got = String::new();
    let mut out = child.stdout.take().unwrap();
    std::thread::sleep(Duration::from_millis(300));
    out.read_to_string(&mut got).unwrap();
    assert!(got == wanted, "{} bytes of {}", got.len(), wanted.len());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    for _ in 0..50 {
        assert_eq!(sh(&["-t"], "printf the-end").out, "the-end");
    }
}

pub(super) fn terminal_of_a_killed_parent() {
    let mut on = OnTerminal::start(&["-t", "-i"], "echo up; exec sleep 1000");
    let cooked = on.settings();
    on.until("up");
    assert_ne!(on.settings(), cooked, "not raw");
    let all = tree(on.child.id());
    assert_eq!(all.len(), 4, "{all:?}");
    on.child.kill().unwrap();
    on.child.wait().unwrap();
    within(Duration::from_secs(1), "the terminal is restored", || {
        on.settings() == cooked
    });
    within(Duration::from_secs(1), "all processes end", || {
        all.iter().all(|pid| gone(*pid))
    });
}

pub(super) fn terminal_without_one() {
    let mut runtime = runtime_command(
        &["-t", "-i"],
        &["sh", "-c", "tty >/dev/null && cat && echo over"],
    );
    let mut child = runtime
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"text").unwrap();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.starts_with("text") && text.contains("over\r\n"),
        "{text:?}"
    );
    assert!(Path::new("/dev/ptmx").exists());
    // A regular file as input and as output.
    let path = std::env::temp_dir().join(format!("crun-lite-file-{}", std::process::id()));
    fs::write(&path, "from a file\n").unwrap();
    let out = fs::File::create(path.with_extension("out")).unwrap();
    let mut runtime = runtime_command(&["-t", "-i"], &["sh", "-c", "read x; echo $x; exit 4"]);
    let code = runtime
        .stdin(fs::File::open(&path).unwrap())
        .stdout(out)
        .status()
        .unwrap()
        .code();
    assert_eq!(code, Some(4));
    assert!(
        fs::read_to_string(path.with_extension("out"))
            .unwrap()
            .ends_with("from a file\r\n")
    );
    fs::remove_file(path.with_extension("out")).unwrap();
    fs::remove_file(path).unwrap();
}
