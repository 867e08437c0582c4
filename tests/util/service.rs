//! A real server: a program that serves until it is dropped.

use std::io::{self, Write};
use std::process::{Child, Command, Stdio};

use super::captured::Captured;
use super::host::{Host, Side};
use super::report;

/// A port that a program listens on.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Port {
    Tcp(u16),
    Udp(u16),
}

impl Port {
    /// Whether a socket of this side is bound to it, whatever the IP version: as
    /// `/proc/net` has it (proc_net_tcp(5)), in state 0A for one that listens.
    fn is_served(self, host: &Host, side: Side) -> bool {
        let (files, number, state) = match self {
            Self::Tcp(number) => (["tcp", "tcp6"], number, Some("0A")),
            Self::Udp(number) => (["udp", "udp6"], number, None),
        };
        let end = format!(":{number:04X}");
        let is_it = |line: &str| {
            let mut fields = line.split_whitespace().skip(1);
            fields.next().is_some_and(|local| local.ends_with(&end))
                && state.is_none_or(|state| fields.nth(1) == Some(state))
        };
        let tables = host.inside(side, || {
            files.map(|file| std::fs::read_to_string(format!("/proc/thread-self/net/{file}")))
        });
        let tables: io::Result<Vec<_>> = tables.into_iter().collect();
        tables.unwrap().iter().any(|text| text.lines().any(is_it))
    }
}

/// A program that serves on one side.
pub(crate) struct Service {
    name: String,
    child: Child,
    output: [Captured; 2],
}

impl Service {
    /// Starts it and waits until it serves these ports.
    #[track_caller]
    pub(crate) fn start(host: &Host, side: Side, words: &[&str], ports: &[Port]) -> Self {
        let mut argv = host.service_prefix(side);
        argv.extend(words.iter().map(|&word| word.to_owned()));
        let mut child = Command::new(&argv[0])
            .args(&argv[1..])
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{argv:?}: {error}"));
        let output = [
            Captured::start(child.stdout.take().unwrap()),
            Captured::start(child.stderr.take().unwrap()),
        ];
        let mut service = Self {
            name: words.join(" "),
            child,
            output,
        };
        let what = format!("{} serves {ports:?}", service.name);
        super::eventually(&what, super::SOON, || {
            let ended = service.child.try_wait().unwrap();
            assert!(ended.is_none(), "{what}: {ended:?}");
            ports.iter().all(|port| port.is_served(host, side))
        });
        service
    }

    /// Waits for a text on its standard output.
    #[track_caller]
    pub(crate) fn expect(&self, text: &str) {
        if let Err(what) = self.output[0].wait_for(text, super::SOON) {
            panic!("{}: {what}", self.name);
        }
    }

    /// Writes to its standard input.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        let stdin = self.child.stdin.as_mut().unwrap();
        stdin.write_all(bytes).unwrap();
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // It may have ended by itself; both are the end of it.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let [stdout, stderr] = &self.output;
            report(&format!(
                "{}: {}{}",
                self.name,
                stdout.text(),
                stderr.text()
            ));
        }
    }
}
