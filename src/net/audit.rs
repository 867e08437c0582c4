//! What the policy has refused, told to the owner.
//!
//! # Theory of operation
//!
//! A hostile container can be refused as often as it likes, so what it can make us
//! write is bounded, three times:
//!
//! - The same refusal (protocol, destination, name, reason) is a line once in
//!   [`WINDOW`]; how often it came again is said by a second line after that.
//! - There are [`BURST`] lines at once and [`RATE`] a second at most. What finds no
//!   room is counted, and the count is a line as soon as there is room.
//! - A file of `--net-log` is kept to its size ([`super::files`]).
//!
//! Lines go to the file of `--net-log`, as JSON, or to standard error as messages: as
//! warnings where there are rules, since then somebody wants to know what they do.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use netstack::{Attempt, Name, Protocol, Reason, Refusal};
use serde::Serialize;

use super::files::{Files, Folder, NextFile};
use crate::config::LogFile;
use crate::error::Error;

/// How long the same refusal is only counted.
const WINDOW: Duration = Duration::from_secs(10);
/// Lines at once, and each second.
const BURST: u32 = 100;
const RATE: u32 = 10;
/// Refusals that are told apart.
const MOST: usize = 1024;

/// What makes a refusal the same as another one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    attempt: Attempt,
    remote: SocketAddr,
    name: Option<Name>,
    reason: Reason,
    ended: bool,
}

/// A refusal that was told.
#[derive(Debug)]
struct Known {
    since: Instant,
    container: SocketAddr,
    rule: Option<String>,
    /// How often it has come since.
    again: u64,
}

/// Tells refusals.
#[derive(Debug)]
pub(crate) struct Audit {
    known: HashMap<Key, Known>,
    /// Lines that may be written at once.
    room: u32,
    refilled: Instant,
    looked: Instant,
    /// Refusals that found no room.
    suppressed: u64,
    strict: bool,
    log: Option<NetLog>,
}

/// A line.
#[derive(Debug, Serialize)]
struct Line<'a> {
    time: String,
    protocol: &'static str,
    source: SocketAddr,
    destination: SocketAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<&'a str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    ended: bool,
    count: u64,
}

#[derive(Debug, Serialize)]
struct Suppressed {
    time: String,
    suppressed: u64,
}

impl Default for Audit {
    fn default() -> Self {
        let now = Instant::now();
        Self {
            known: HashMap::new(),
            room: BURST,
            refilled: now,
            looked: now,
            suppressed: 0,
            strict: false,
            log: None,
        }
    }
}

impl Audit {
    /// Whether there are rules.
    pub(super) fn set_strict(&mut self, strict: bool) {
        self.strict = strict;
    }

    /// Writes to a file from now on.
    pub(super) fn write_to(&mut self, log: NetLog) {
        self.log = Some(log);
    }

    /// One more refusal.
    pub(super) fn add(&mut self, refusal: &Refusal<'_>) {
        self.add_at(Instant::now(), refusal);
    }

    fn add_at(&mut self, now: Instant, refusal: &Refusal<'_>) {
        let key = Key {
            attempt: refusal.attempt,
            remote: refusal.remote,
            name: refusal.name.cloned(),
            reason: refusal.reason,
            ended: refusal.ended,
        };
        if let Some(known) = self.known.get_mut(&key) {
            known.again += 1;
            return;
        }
        if self.known.len() >= MOST {
            self.forget(now, |_| true);
        }
        let known = Known {
            since: now,
            container: refusal.container,
            rule: refusal.rule.map(ToString::to_string),
            again: 0,
        };
        if self.tell(now, &key, &known, 1) {
            self.known.insert(key, known);
        }
    }

    /// Tells what has come again; to be called now and then.
    pub(super) fn turn(&mut self) {
        if !self.known.is_empty() || self.suppressed > 0 {
            self.turn_at(Instant::now());
        }
    }

    fn turn_at(&mut self, now: Instant) {
        if now.saturating_duration_since(self.looked) < Duration::from_secs(1) {
            return;
        }
        self.looked = now;
        self.forget(now, |known| {
            now.saturating_duration_since(known.since) >= WINDOW
        });
        self.tell_suppressed(now);
    }

    /// Forgets refusals, and tells how often they have come again.
    fn forget(&mut self, now: Instant, which: impl Fn(&Known) -> bool) {
        let gone: Vec<_> = self.known.extract_if(|_, known| which(known)).collect();
        for (key, known) in gone {
            if known.again > 0 {
                self.tell(now, &key, &known, known.again);
            }
        }
    }

    /// Takes the room of one line.
    fn take_room(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.refilled);
        let more = u32::try_from(passed.as_millis() / 1000 * u128::from(RATE)).unwrap_or(BURST);
        if more > 0 {
            self.room = self.room.saturating_add(more).min(BURST);
            self.refilled = now;
        }
        match self.room.checked_sub(1) {
            Some(room) => {
                self.room = room;
                true
            }
            None => false,
        }
    }

    /// Tells a refusal; what finds no room is counted.
    fn tell(&mut self, now: Instant, key: &Key, known: &Known, count: u64) -> bool {
        if !self.take_room(now) {
            self.suppressed += count;
            return false;
        }
        let line = Line {
            time: time(),
            protocol: match key.attempt {
                Attempt::Flow(Protocol::Tcp) => "tcp",
                Attempt::Flow(Protocol::Udp) => "udp",
                Attempt::Flow(Protocol::Echo) => "icmp",
                Attempt::Query => "dns",
            },
            source: known.container,
            destination: key.remote,
            name: key.name.as_ref().map(ToString::to_string),
            reason: reason(key.reason),
            rule: known.rule.as_deref(),
            ended: key.ended,
            count,
        };
        if let Some(log) = &mut self.log {
            log.write(&line);
        }
        let (name, rule) = (line.name.as_deref(), line.rule);
        let (source, destination) = (line.source.to_string(), line.destination.to_string());
        macro_rules! told {
            ($level:ident) => {
                tracing::$level!(
                    target: "crun_lite::net::policy",
                    protocol = line.protocol,
                    source = source.as_str(),
                    destination = destination.as_str(),
                    name,
                    reason = line.reason,
                    rule,
                    count,
                    "{} by the network policy",
                    if line.ended { "ended" } else { "refused" },
                )
            };
        }
        if self.strict && self.log.is_none() {
            told!(warn);
        } else {
            told!(info);
        }
        self.tell_suppressed(now);
        true
    }

    fn tell_suppressed(&mut self, now: Instant) {
        if self.suppressed == 0 || !self.take_room(now) {
            return;
        }
        let suppressed = std::mem::take(&mut self.suppressed);
        if let Some(log) = &mut self.log {
            log.write(&Suppressed {
                time: time(),
                suppressed,
            });
        }
        if self.strict && self.log.is_none() {
            tracing::warn!(target: "crun_lite::net::policy", suppressed, "more was refused");
        } else {
            tracing::info!(target: "crun_lite::net::policy", suppressed, "more was refused");
        }
    }
}

impl Drop for Audit {
    fn drop(&mut self) {
        self.finish();
    }
}

impl Audit {
    /// Tells all that is left to tell.
    pub(super) fn finish(&mut self) {
        let now = Instant::now();
        self.forget(now, |_| true);
        // The last line has room in any case.
        self.room = self.room.max(1);
        self.tell_suppressed(now);
    }
}

fn time() -> String {
    humantime::format_rfc3339_millis(SystemTime::now()).to_string()
}

/// A word for it.
fn reason(reason: Reason) -> &'static str {
    match reason {
        Reason::HostLoopback => "host-loopback",
        Reason::HostAddress => "host-address",
        Reason::LinkLocal => "link-local",
        Reason::NotUnicast => "not-unicast",
        Reason::NoSuchNeighbor => "no-such-neighbor",
        Reason::Rule(_) => "rule",
        Reason::NoRule => "default",
        Reason::OddQuery => "odd-query",
    }
}

/// The file of `--net-log`: a line of JSON for each refusal.
#[derive(Debug)]
pub struct NetLog {
    files: Files,
    /// The file that is written; `None`: it is full and the last, or has failed.
    file: Option<File>,
    length: u64,
}

impl NetLog {
    /// Makes the file. Nothing more is written when it is full, unless
    /// [`NetLog::set_next`] has been given what the folder makes next.
    ///
    /// # Errors
    /// It cannot be made, or something that is no file has its name.
    pub fn create(file: &LogFile) -> Result<(Self, Folder), Error> {
        let create = || {
            let folder = Folder::open(file)?;
            let log = Self {
                file: Some(folder.create()?),
                files: Files::new(&folder, file),
                length: 0,
            };
            Ok((log, folder))
        };
        create().map_err(|source| Error::Path {
            option: "--net-log",
            path: file.path.clone(),
            source,
        })
    }

    /// Where the next file comes from.
    pub fn set_next(&mut self, next: NextFile) {
        self.files.set_next(next);
    }

    fn write(&mut self, line: &impl Serialize) {
        if let Err(error) = self.try_write(line) {
            let name = self.files.name();
            tracing::warn!("--net-log: {name:?}: {error}: nothing more is written to it");
            self.file = None;
        }
    }

    fn try_write(&mut self, line: &impl Serialize) -> io::Result<()> {
        let mut bytes = serde_json::to_vec(line)?;
        bytes.push(b'\n');
        let length = bytes.len() as u64;
        if self.file.is_some() && self.length + length > self.files.size() {
            self.file = None;
            self.file = self.files.next()?;
            self.length = 0;
            if self.file.is_none() {
                tracing::info!("{:?} is full: nothing more is written", self.files.name());
            }
        }
        let Some(file) = &mut self.file else {
            return Ok(());
        };
        self.length += length;
        file.write_all(&bytes)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn refusal(port: u16) -> Refusal<'static> {
        Refusal {
            attempt: Attempt::Flow(Protocol::Udp),
            container: ([10, 0, 2, 100], 1234).into(),
            remote: ([192, 0, 2, 1], port).into(),
            name: None,
            reason: Reason::NoRule,
            rule: None,
            ended: false,
        }
    }

    fn audit(folder: &tempfile::TempDir, size: u64, files: u32) -> Audit {
        let mut audit = Audit::default();
        let path = folder.path().join("log");
        let (mut log, folder) = NetLog::create(&LogFile { path, size, files }).unwrap();
        log.set_next(Box::new(move || folder.next()));
        audit.write_to(log);
        audit
    }

    fn lines(folder: &tempfile::TempDir) -> Vec<Value> {
        let text = std::fs::read_to_string(folder.path().join("log")).unwrap();
        let line = |line: &str| serde_json::from_str(line).unwrap();
        text.lines().map(line).collect()
    }

    fn sum(lines: &[Value], key: &str) -> u64 {
        lines.iter().filter_map(|line| line[key].as_u64()).sum()
    }

    #[test]
    fn the_same_again_is_counted() {
        let folder = tempfile::tempdir().unwrap();
        let mut audit = audit(&folder, 1 << 20, 2);
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        for _ in 0..1000 {
            audit.add_at(at(0), &refusal(7));
        }
        audit.add_at(at(1), &refusal(8));
        audit.turn_at(at(9));
        assert_eq!(lines(&folder).len(), 2);
        audit.turn_at(at(10));
        let told = lines(&folder);
        assert_eq!((told.len(), &told[2]["count"]), (3, &999.into()));
        assert_eq!(told[0]["destination"], "192.0.2.1:7");
        assert_eq!(told[0]["source"], "10.0.2.100:1234");
        assert_eq!(
            (&told[0]["protocol"], &told[0]["reason"]),
            (&"udp".into(), &"default".into())
        );
        assert!(told[0]["time"].as_str().unwrap().ends_with('Z'));
        // Then it is told anew.
        audit.add_at(at(11), &refusal(7));
        assert_eq!(lines(&folder).len(), 4);
        // What has come again is told at the end.
        audit.add_at(at(12), &refusal(7));
        drop(audit);
        assert_eq!(sum(&lines(&folder), "count"), 1003);
    }

    #[test]
    fn there_are_only_so_many_lines() {
        let folder = tempfile::tempdir().unwrap();
        let mut audit = audit(&folder, 1 << 30, 2);
        let begin = Instant::now();
        let mut made = 0;
        for second in 0..100_u64 {
            for port in 0..5000 {
                audit.add_at(begin + Duration::from_secs(second), &refusal(port));
                made += 1;
            }
            audit.turn_at(begin + Duration::from_secs(second));
        }
        assert!(audit.known.len() <= MOST);
        drop(audit);
        let told = lines(&folder);
        assert_eq!(sum(&told, "count") + sum(&told, "suppressed"), made);
        assert!(told.len() <= 100 + 10 * 100 + 1, "{}", told.len());
    }

    #[test]
    fn files_are_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let mut audit = audit(&folder, 1000, 2);
        let begin = Instant::now();
        for port in 0..200 {
            audit.add_at(begin + Duration::from_secs(port.into()), &refusal(port));
        }
        drop(audit);
        let files = std::fs::read_dir(folder.path()).unwrap();
        let sizes: Vec<_> = files
            .map(|file| file.unwrap().metadata().unwrap().len())
            .collect();
        assert!(
            sizes.len() == 2 && sizes.iter().all(|size| *size <= 1000),
            "{sizes:?}"
        );
        assert_eq!(
            lines(&folder).last().unwrap()["destination"],
            "192.0.2.1:199"
        );
    }
}
