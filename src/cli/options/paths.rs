//! Paths: on the host, where they have to exist, and in the container, where
//! only their form can be checked.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use super::{shown, usage};
use crate::error::Error;

/// `PATH_MAX` without its NUL (linux/limits.h).
const PATH_MOST: usize = 4095;
/// `NAME_MAX` (linux/limits.h).
const NAME_MOST: usize = 255;

/// Refuses what no path of Linux can be, before anything is done with it.
pub(super) fn check_length(option: &str, path: &OsStr) -> Result<(), Error> {
    let bytes = path.as_bytes();
    if bytes.len() > PATH_MOST {
        return Err(usage(format!(
            "{option}: a path of {} bytes; {PATH_MOST} are the most",
            bytes.len()
        )));
    }
    if bytes.contains(&0) {
        return Err(usage(format!(
            "{option}: {} contains a NUL byte",
            shown(path)
        )));
    }
    match bytes
        .split(|byte| *byte == b'/')
        .find(|name| name.len() > NAME_MOST)
    {
        Some(name) => Err(usage(format!(
            "{option}: a file name of {} bytes; {NAME_MOST} are the most",
            name.len()
        ))),
        None => Ok(()),
    }
}

/// An absolute path in the container, tidied: no `.`, no `//`, no trailing `/`,
/// and `..` taken back word by word as podman does. What its links lead to is
/// found out beneath the new root, by file descriptor.
pub(super) fn in_container(option: &str, path: &OsStr) -> Result<PathBuf, Error> {
    check_length(option, path)?;
    if !Path::new(path).is_absolute() {
        return Err(usage(format!(
            "{option}: {} is not an absolute path",
            shown(path)
        )));
    }
    let mut tidy = PathBuf::from("/");
    for part in Path::new(path).components() {
        match part {
            Component::Normal(name) => tidy.push(name),
            Component::ParentDir => {
                tidy.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    Ok(tidy)
}

/// An existing path on the host: absolute, without links.
pub(super) fn on_host(option: &'static str, path: &OsStr) -> Result<PathBuf, Error> {
    if path.is_empty() {
        return Err(usage(format!("{option}: the path is empty")));
    }
    check_length(option, path)?;
    fs::canonicalize(path).map_err(|source| path_error(option, path, source))
}

pub(super) fn path_error(option: &'static str, path: &OsStr, source: io::Error) -> Error {
    Error::Path {
        option,
        path: PathBuf::from(path),
        source,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn container_paths_are_tidied() {
        for (given, tidy) in [
            ("/", "/"),
            ("//a///b/", "/a/b"),
            ("/a/./b/../c", "/a/c"),
            ("/../../x", "/x"),
            ("/a b\t", "/a b\t"),
        ] {
            assert_eq!(
                in_container("-w", OsStr::new(given)).unwrap(),
                Path::new(tidy)
            );
        }
        for bad in ["", "a", "./a", "../a", "~"] {
            assert!(in_container("-w", OsStr::new(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn long_paths_are_refused_by_length_alone() {
        let long = "/x".repeat(32 * 1024);
        for result in [
            in_container("-v", OsStr::new(&long)).map(drop),
            on_host("--rootfs", OsStr::new(&long)).map(drop),
            in_container("-v", OsStr::new(&format!("/{}", "x".repeat(256)))).map(drop),
        ] {
            let message = result.unwrap_err().to_string();
            assert!(
                message.contains("are the most") && message.len() < 120,
                "{message}"
            );
        }
        assert!(in_container("-v", OsStr::new(&"/x".repeat(2047))).is_ok());
        assert!(in_container("-v", OsStr::new(&format!("/{}", "x".repeat(255)))).is_ok());
    }

    proptest! {
        #[test]
        fn tidying_is_total_and_idempotent(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(once) = in_container("-v", OsStr::from_bytes(&bytes)) {
                prop_assert!(once.is_absolute());
                prop_assert!(!once.components().any(|part| part == Component::ParentDir));
                let again = in_container("-v", once.as_os_str()).unwrap();
                prop_assert_eq!(again, once);
            }
        }
    }
}
