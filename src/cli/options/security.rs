//! `--security-opt`, `--cap-add` and `--cap-drop`.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use super::super::args::parse_bool;
use super::{paths, shown, usage};
use crate::config::{SeccompFile, SeccompProfile};
use crate::error::Error;
use crate::security::caps::{self, Kept};
use crate::security::file::{self, Target};

/// What `--security-opt` can say.
const KNOWN: &str = "seccomp=unconfined|FILE, landlock=disable, no-new-privileges[=true|false], \
                     mask=PATH[:PATH...], unmask=ALL|PATH[:PATH...]";
/// Far more than any profile has, bytes.
const MOST_PROFILE: u64 = 16 << 20;
/// Lifts every default mask.
const ALL: &str = "ALL";

/// What `--security-opt` has said.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Security {
    pub(super) seccomp: SeccompProfile,
    pub(super) landlock: bool,
    pub(super) no_new_privileges: bool,
    pub(super) mask: Vec<PathBuf>,
    pub(super) unmask: Vec<PathBuf>,
}

/// `--security-opt` for a command that keeps `capabilities`; what is said last about a
/// key holds, paths add up.
pub(super) fn options(options: &[OsString], capabilities: u64) -> Result<Security, Error> {
    let mut security = Security {
        seccomp: SeccompProfile::Default,
        landlock: true,
        no_new_privileges: true,
        mask: Vec::new(),
        unmask: Vec::new(),
    };
    for option in options {
        set(&mut security, option, capabilities)?;
    }
    match security
        .mask
        .iter()
        .find(|path| security.unmask.contains(path))
    {
        Some(both) => Err(usage(format!(
            "--security-opt: {} is in mask= and in unmask=",
            shown(both)
        ))),
        None => Ok(security),
    }
}

/// One `KEY=VALUE`, or `KEY:VALUE` as docker once wrote it.
fn set(security: &mut Security, option: &OsStr, capabilities: u64) -> Result<(), Error> {
    let bytes = option.as_bytes();
    let (key, value) = match bytes.iter().position(|byte| matches!(byte, b'=' | b':')) {
        Some(at) => (&bytes[..at], Some(OsStr::from_bytes(&bytes[at + 1..]))),
        None => (bytes, None),
    };
    let refused = |why: &str| usage(format!("--security-opt {}: {why}", shown(option)));
    match (key, value) {
        (b"seccomp", Some(value)) if value == "unconfined" => {
            security.seccomp = SeccompProfile::Unconfined;
        }
        (b"seccomp", Some(value)) if !value.is_empty() => {
            security.seccomp = SeccompProfile::File(Box::new(profile(value, capabilities)?));
        }
        (b"seccomp", _) => return Err(refused("unconfined or a file is needed")),
        (b"landlock", Some(value)) if value == "disable" => security.landlock = false,
        (b"landlock", _) => return Err(refused("landlock=disable is all that it can be")),
        (b"no-new-privileges", None) => security.no_new_privileges = true,
        (b"no-new-privileges", Some(value)) => {
            security.no_new_privileges = value
                .to_str()
                .and_then(parse_bool)
                .ok_or_else(|| refused("true or false is needed"))?;
        }
        (b"mask", Some(value)) => security.mask.extend(path_list(value)?),
        (b"unmask", Some(value)) if value.eq_ignore_ascii_case(ALL) => {
            security.unmask.push(ALL.into());
        }
        (b"unmask", Some(value)) if value.as_bytes().contains(&b'*') => {
            return Err(refused(
                "patterns are not supported: name the paths, or ALL",
            ));
        }
        (b"unmask", Some(value)) => security.unmask.extend(path_list(value)?),
        (b"mask" | b"unmask", None) => return Err(refused("paths are needed")),
        _ => return Err(refused(&format!("unknown (known: {KNOWN})"))),
    }
    Ok(())
}

/// Reads and compiles the profile in `file`, relative to where we are.
fn profile(file: &OsStr, capabilities: u64) -> Result<SeccompFile, Error> {
    paths::check_length("--security-opt", file)?;
    let path = PathBuf::from(file);
    let unreadable = |source| Error::Path {
        option: "--security-opt seccomp",
        path: path.clone(),
        source,
    };
    // Not a FIFO, which would make us wait.
    let opened = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(&path)
        .map_err(unreadable)?;
    let length = opened.metadata().map_err(unreadable)?;
    if !length.is_file() || length.len() > MOST_PROFILE {
        return Err(unreadable(io::Error::from_raw_os_error(libc::EINVAL)));
    }
    let mut text = Vec::new();
    opened
        .take(MOST_PROFILE)
        .read_to_end(&mut text)
        .map_err(unreadable)?;
    let (filter, flags) = file::compile(&text, Target::here(capabilities))
        .map_err(|error| usage(format!("--security-opt seccomp={}: {error}", shown(&path))))?;
    Ok(SeccompFile {
        path,
        filter,
        flags,
    })
}

fn path_list(value: &OsStr) -> Result<Vec<PathBuf>, Error> {
    value
        .as_bytes()
        .split(|byte| *byte == b':')
        .map(|path| paths::in_container("--security-opt", OsStr::from_bytes(path)))
        .collect()
}

/// `--cap-add` and `--cap-drop`.
pub(super) fn capabilities(add: &[String], drop: &[String]) -> Result<Kept, Error> {
    caps::resolve(add, drop).map_err(usage)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(words: &[&str]) -> Result<Security, Error> {
        options(&words.iter().map(OsString::from).collect::<Vec<_>>(), 0)
    }

    #[test]
    fn strict_unless_told_otherwise() {
        let default = parse(&[]).unwrap();
        assert_eq!(default.seccomp, SeccompProfile::Default);
        assert!(default.landlock && !parse(&["landlock=disable"]).unwrap().landlock);
        assert!(default.no_new_privileges && default.mask.is_empty() && default.unmask.is_empty());
    }

    #[test]
    fn both_separators() {
        for separator in ["=", ":"] {
            let words = [
                "seccomp?unconfined",
                "no-new-privileges?false",
                "mask?/a:/b/",
                "unmask?ALL",
            ]
            .map(|word| word.replacen('?', separator, 1));
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let parsed = parse(&words).unwrap();
            assert_eq!(parsed.seccomp, SeccompProfile::Unconfined);
            assert!(!parsed.no_new_privileges);
            assert_eq!(parsed.mask, [PathBuf::from("/a"), PathBuf::from("/b")]);
            assert_eq!(parsed.unmask, [PathBuf::from("ALL")]);
        }
        let both = parse(&["no-new-privileges=false", "no-new-privileges"]).unwrap();
        assert!(both.no_new_privileges);
    }

    #[test]
    fn what_is_refused() {
        for bad in [
            "",
            "seccomp",
            "seccomp=",
            "seccomp=/no/such/profile.json",
            "seccomp=/dev/zero",
            "seccomp=/",
            "landlock",
            "landlock=",
            "landlock=enable",
            "no-new-privileges=maybe",
            "mask",
            "mask=",
            "mask=a",
            "mask=/a:",
            "unmask=/proc/*",
            "unmask=relative",
            "label=disable",
            "apparmor=unconfined",
            "Seccomp=unconfined",
        ] {
            assert!(parse(&[bad]).is_err(), "{bad}");
        }
        assert!(parse(&["mask=/a", "unmask=/a/."]).is_err());
    }

    proptest! {
        #[test]
        fn parsing_is_total(key in "(seccomp|mask|unmask|no-new-privileges)?[=:]?", value in ".{0,20}") {
            let _ = parse(&[&format!("{key}{value}")]);
        }
    }
}
