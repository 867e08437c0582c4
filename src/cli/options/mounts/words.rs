//! The words after a mount's paths: `KEY` or `KEY=VALUE`.
//!
//! Each kind of word has a `set`, which gives `None` for a word of another kind.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use super::super::super::args::parse_bool;
use super::super::shown;
use crate::config::{MountFlags, Propagation, Tmpfs};

/// A word, and its value where it has one.
pub(super) type KeyValue<'a> = (&'a [u8], Option<&'a OsStr>);

pub(super) fn key_value(word: &OsStr) -> KeyValue<'_> {
    let bytes = word.as_bytes();
    match bytes.iter().position(|byte| *byte == b'=') {
        Some(at) => (&bytes[..at], Some(OsStr::from_bytes(&bytes[at + 1..]))),
        None => (bytes, None),
    }
}

pub(super) fn unknown(key: &[u8], known: &str) -> String {
    format!(
        "unknown option {} (known: {known})",
        shown(OsStr::from_bytes(key))
    )
}

/// Sets what may be said once.
pub(super) fn once<T>(place: &mut Option<T>, value: T, what: &str) -> Result<(), String> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(format!("{what} is given twice")),
    }
}

/// The value of a switch.
fn flag(value: Option<&OsStr>) -> Result<bool, String> {
    match value {
        None => Ok(true),
        Some(text) => text
            .to_str()
            .and_then(parse_bool)
            .ok_or_else(|| format!("{} is not true or false", shown(text))),
    }
}

/// What is allowed in a mount: `ro` or `rw`, `nosuid` or `suid` and so on, no two of
/// which contradict each other.
#[derive(Debug, Default)]
pub(super) struct Access {
    read_only: Option<bool>,
    nosuid: Option<bool>,
    nodev: Option<bool>,
    noexec: Option<bool>,
}

impl Access {
    /// The words, for a list of what is known.
    pub(super) const KNOWN: &str = "ro, rw, exec, noexec, suid, nosuid, dev, nodev";

    pub(super) fn set(&mut self, (key, value): KeyValue) -> Option<Result<(), String>> {
        // Only these take a value, in --mount; there `readonly` is another name.
        let switch = match key {
            b"ro" | b"readonly" => Some(true),
            b"rw" => Some(false),
            _ => None,
        };
        let (place, names, wanted) = match (key, value) {
            (_, value) if switch.is_some() => match flag(value) {
                Ok(on) => (&mut self.read_only, "ro and rw", Some(on) == switch),
                Err(why) => return Some(Err(why)),
            },
            (b"nosuid", None) => (&mut self.nosuid, "suid and nosuid", true),
            (b"suid", None) => (&mut self.nosuid, "suid and nosuid", false),
            (b"nodev", None) => (&mut self.nodev, "dev and nodev", true),
            (b"dev", None) => (&mut self.nodev, "dev and nodev", false),
            (b"noexec", None) => (&mut self.noexec, "exec and noexec", true),
            (b"exec", None) => (&mut self.noexec, "exec and noexec", false),
            _ => return None,
        };
        Some(match place.replace(wanted) {
            Some(before) if before != wanted => Err(format!("both {names} are given")),
            _ => Ok(()),
        })
    }

    /// The attributes, `default` where nothing is said.
    pub(super) fn flags(&self, default: MountFlags) -> MountFlags {
        MountFlags {
            read_only: self.read_only.unwrap_or(default.read_only),
            nosuid: self.nosuid.unwrap_or(default.nosuid),
            nodev: self.nodev.unwrap_or(default.nodev),
            noexec: self.noexec.unwrap_or(default.noexec),
            noatime: default.noatime,
        }
    }
}

/// What a bind can be told besides.
#[derive(Debug, Default)]
pub(super) struct BindWords {
    propagation: Option<Propagation>,
    idmap: bool,
}

impl BindWords {
    pub(super) const KNOWN: &str = "bind, rbind, z, Z, [r]private, [r]slave, [r]shared, idmap";

    /// A word of `--volume`.
    pub(super) fn set(&mut self, (key, value): KeyValue) -> Option<Result<(), String>> {
        Some(match (key, value) {
            // Binds are always recursive; labels are for SELinux, which we leave alone.
            (b"bind" | b"rbind" | b"z" | b"Z", None) => Ok(()),
            (b"idmap", value) => flag(value).map(|on| self.idmap = on),
            (b"U" | b"chown", value) => flag(value).and_then(|on| {
                if on {
                    Err("U (changing the owner of the source) is not supported: see idmap, and --userns=keep-id"
                        .to_owned())
                } else {
                    Ok(())
                }
            }),
            (b"O", None) => Err("O (an overlay over the source) is not supported".to_owned()),
            (word, None) => return propagation(word).map(|wanted| self.propagate(wanted)),
            _ => return None,
        })
    }

    /// A word of `--mount`.
    pub(super) fn set_named(&mut self, (key, value): KeyValue) -> Option<Result<(), String>> {
        match (key, value) {
            (b"bind-propagation", Some(value)) => Some(match propagation(value.as_bytes()) {
                Some(wanted) => self.propagate(wanted),
                None => Err(format!(
                    "{} is no propagation (private, rprivate, slave, rslave, shared, rshared)",
                    shown(value)
                )),
            }),
            (b"relabel", Some(value)) if value == "shared" || value == "private" => Some(Ok(())),
            (b"idmap" | b"U" | b"chown", _) => self.set((key, value)),
            _ => None,
        }
    }

    fn propagate(&mut self, wanted: Propagation) -> Result<(), String> {
        once(&mut self.propagation, wanted, "the propagation")
    }

    pub(super) fn propagation(&self) -> Propagation {
        self.propagation.unwrap_or_default()
    }

    pub(super) fn idmap(&self) -> bool {
        self.idmap
    }
}

/// The forms with and without `r` are the same here: binds are always recursive.
fn propagation(word: &[u8]) -> Option<Propagation> {
    match word {
        b"private" | b"rprivate" => Some(Propagation::Private),
        b"slave" | b"rslave" => Some(Propagation::Slave),
        b"shared" | b"rshared" => Some(Propagation::Shared),
        _ => None,
    }
}

/// What a tmpfs can be told besides.
#[derive(Debug, Default)]
pub(super) struct TmpfsWords {
    size: Option<u64>,
    mode: Option<u32>,
    inodes: Option<u64>,
    uid: Option<u32>,
    gid: Option<u32>,
    copy_up: Option<bool>,
    noatime: bool,
}

impl TmpfsWords {
    pub(super) const KNOWN: &str =
        "size=, mode=, uid=, gid=, nr_inodes=, noatime, tmpcopyup, notmpcopyup";

    pub(super) fn set(&mut self, (key, value): KeyValue) -> Option<Result<(), String>> {
        Some(match (key, value) {
            (b"size" | b"tmpfs-size", Some(size)) => number(
                size,
                super::bytes,
                "a size (bytes, or a number with k, m or g)",
            )
            .and_then(|size| once(&mut self.size, size, "the size")),
            (b"nr_inodes", Some(inodes)) => number(inodes, super::bytes, "a number of files")
                .and_then(|inodes| once(&mut self.inodes, inodes, "the number of files")),
            (b"mode" | b"tmpfs-mode", Some(mode)) => {
                number(mode, octal, "an octal mode up to 7777")
                    .and_then(|mode| once(&mut self.mode, mode, "the mode"))
            }
            (b"uid", Some(uid)) => {
                number(uid, id, "a user id").and_then(|uid| once(&mut self.uid, uid, "the user"))
            }
            (b"gid", Some(gid)) => {
                number(gid, id, "a group id").and_then(|gid| once(&mut self.gid, gid, "the group"))
            }
            (b"noatime", None) => {
                self.noatime = true;
                Ok(())
            }
            (b"tmpcopyup", None) => self.copy_up(true),
            (b"notmpcopyup", None) => self.copy_up(false),
            (b"U" | b"chown", _) => Err("U is not supported: see uid= and gid=".to_owned()),
            _ => return None,
        })
    }

    fn copy_up(&mut self, wanted: bool) -> Result<(), String> {
        match self.copy_up.replace(wanted) {
            Some(before) if before != wanted => {
                Err("both tmpcopyup and notmpcopyup are given".to_owned())
            }
            _ => Ok(()),
        }
    }

    pub(super) fn tmpfs(&self) -> Tmpfs {
        Tmpfs {
            mode: self.mode,
            size: self.size,
            inodes: self.inodes,
            uid: self.uid,
            gid: self.gid,
            copy_up: self.copy_up.unwrap_or(false),
        }
    }

    pub(super) fn noatime(&self) -> bool {
        self.noatime
    }
}

fn number<T>(text: &OsStr, parse: impl Fn(&str) -> Option<T>, what: &str) -> Result<T, String> {
    text.to_str()
        .and_then(parse)
        .ok_or_else(|| format!("{} is not {what}", shown(text)))
}

fn digits(text: &str) -> Option<&str> {
    (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())).then_some(text)
}

fn octal(text: &str) -> Option<u32> {
    u32::from_str_radix(digits(text)?, 8)
        .ok()
        .filter(|mode| *mode <= 0o7777)
}

fn id(text: &str) -> Option<u32> {
    digits(text)?.parse().ok().filter(|id| *id != u32::MAX)
}
