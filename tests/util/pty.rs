//! A terminal, for `-t`.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use super::captured::Captured;
use super::command::CrunLite;
use super::who::Who;

/// A terminal whose keyboard and screen are the test's.
pub(crate) struct Pty {
    keyboard: File,
    terminal: OwnedFd,
    pub(crate) screen: Captured,
}

impl Pty {
    /// The keyboard and screen of a terminal, and the terminal, which belongs to a user.
    pub(crate) fn open(who: Who) -> (OwnedFd, OwnedFd) {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let keyboard = openpt(flags).unwrap();
        grantpt(&keyboard).unwrap();
        unlockpt(&keyboard).unwrap();
        let terminal = ioctl_tiocgptpeer(&keyboard, flags).unwrap();
        if Who::tests_run_as_root() {
            let identity = who.identity();
            std::os::unix::fs::fchown(&terminal, Some(identity.uid), None).unwrap();
        }
        (keyboard, terminal)
    }

    /// A terminal of 24 lines and 80 columns that belongs to a user.
    pub(crate) fn new(who: Who) -> Self {
        let (keyboard, terminal) = Self::open(who);
        let keyboard = File::from(keyboard);
        let screen = Captured::start(keyboard.try_clone().unwrap());
        let pty = Self {
            keyboard,
            terminal,
            screen,
        };
        pty.resize(24, 80);
        pty
    }

    /// Starts a program whose controlling terminal is this.
    pub(crate) fn spawn_on(terminal: &OwnedFd, crun: CrunLite) -> (Child, CrunLite) {
        let stream = || Stdio::from(terminal.try_clone().unwrap());
        // setsid(1) does not fork here: what we spawn leads no process group.
        let program = crun.outermost(&["setsid", "--ctty"]);
        let mut command = program.command();
        let child = command
            .stdin(stream())
            .stdout(stream())
            .stderr(stream())
            .spawn()
            .unwrap();
        (child, program)
    }

    /// Starts a program whose controlling terminal it is.
    pub(crate) fn spawn(&self, crun: CrunLite) -> OnTerminal<'_> {
        let (child, program) = Self::spawn_on(&self.terminal, crun);
        OnTerminal {
            pty: self,
            child,
            _program: program,
        }
    }

    /// Types.
    pub(crate) fn type_keys(&self, keys: &str) {
        (&self.keyboard).write_all(keys.as_bytes()).unwrap();
    }

    /// Waits for a text on the screen.
    #[track_caller]
    pub(crate) fn expect(&self, text: &str) {
        if let Err(what) = self.screen.wait_for(text, super::SOON) {
            panic!("on the screen: {what}");
        }
    }

    /// Changes its size; the foreground process group gets SIGWINCH.
    pub(crate) fn resize(&self, rows: u16, columns: u16) {
        let size = Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&self.keyboard, size).unwrap();
    }

    /// Its modes, as `stty -g` prints them.
    pub(crate) fn modes(&self) -> String {
        let terminal = self.terminal.as_fd().try_clone_to_owned().unwrap();
        let output = Command::new("stty")
            .arg("-g")
            .stdin(Stdio::from(terminal))
            .output()
            .unwrap();
        assert!(output.status.success(), "stty -g: {output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }
}

/// A program on the terminal; killed when the test ends before it does.
pub(crate) struct OnTerminal<'a> {
    pty: &'a Pty,
    child: Child,
    /// What is executed must stay as long as it runs.
    _program: CrunLite,
}

impl OnTerminal<'_> {
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Waits for its end; panics with the screen when that does not come.
    #[track_caller]
    pub(crate) fn finish(mut self, limit: Duration) -> ExitStatus {
        let mut status = None;
        super::eventually(
            &format!("the end of it; the screen: {:?}", self.pty.screen.text()),
            limit,
            || {
                status = self.child.try_wait().unwrap();
                status.is_some()
            },
        );
        status.unwrap()
    }
}

impl Drop for OnTerminal<'_> {
    fn drop(&mut self) {
        // Either may fail where it has ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
