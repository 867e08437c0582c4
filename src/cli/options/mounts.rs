//! `--volume`, `--mount` and `--tmpfs`.
//!
//! Each is parsed by its form alone ([`volume`], [`mount`], [`tmpfs`]); only then
//! [`collect`] looks for the sources on the host.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::super::args::parse_bool;
use super::{paths, shown, usage};
use crate::config::{MountFlags, MountKind, MountSpec, RootFs, Tmpfs};
use crate::error::Error;

const VOLUME: &str = "--volume";
const MOUNT: &str = "--mount";
const TMPFS: &str = "--tmpfs";
/// Attributes of a volume (podman's, with everything below it).
const VOLUME_FLAGS: MountFlags = MountFlags {
    read_only: false,
    nosuid: true,
    nodev: true,
    noexec: false,
    noatime: false,
};
/// Attributes of a tmpfs.
const TMPFS_FLAGS: MountFlags = MountFlags {
    noexec: true,
    ..VOLUME_FLAGS
};
/// Where programs write that a read-only root would stop (podman's
/// `--read-only-tmpfs`; `/dev` and `/dev/shm` are a tmpfs anyway).
const READ_ONLY_TMPFS: [&str; 3] = ["/run", "/tmp", "/var/tmp"];

/// Every mount, parents before what lies below them, whatever the order given.
pub(super) fn collect(
    volumes: &[OsString],
    mounts: &[OsString],
    tmpfs_mounts: &[OsString],
) -> Result<Vec<MountSpec>, Error> {
    let volumes = volumes.iter().map(|text| on_host(VOLUME, volume(text)?));
    let mounts = mounts.iter().map(|text| on_host(MOUNT, mount(text)?));
    let tmpfs_mounts = tmpfs_mounts.iter().map(|text| tmpfs(text));
    let mut all: Vec<_> = volumes
        .chain(mounts)
        .chain(tmpfs_mounts)
        .collect::<Result<_, _>>()?;
    let mut targets = HashSet::new();
    if let Some(twice) = all.iter().find(|mount| !targets.insert(&mount.target)) {
        return Err(usage(format!("{} is mounted twice", shown(&twice.target))));
    }
    sort(&mut all);
    Ok(all)
}

fn sort(mounts: &mut [MountSpec]) {
    mounts.sort_by_key(|mount| mount.target.components().count());
}

/// What podman's `--read-only-tmpfs` adds, where the root has the folder.
pub(super) fn add_read_only_tmpfs(mounts: &mut Vec<MountSpec>, rootfs: &RootFs) {
    for target in READ_ONLY_TMPFS.map(PathBuf::from) {
        let is_there = match rootfs {
            RootFs::Default => true,
            RootFs::Dir(root) => target.strip_prefix("/").is_ok_and(|name| {
                root.join(name)
                    .symlink_metadata()
                    .is_ok_and(|it| it.is_dir())
            }),
        };
        if is_there && !mounts.iter().any(|mount| mount.target == target) {
            mounts.push(MountSpec {
                target,
                kind: MountKind::Tmpfs(Tmpfs::default()),
                flags: TMPFS_FLAGS,
            });
        }
    }
    sort(mounts);
}

/// Replaces the source of a bind by the host path that it is.
fn on_host(option: &'static str, mount: MountSpec) -> Result<MountSpec, Error> {
    let MountKind::Bind { source } = mount.kind else {
        return Ok(mount);
    };
    let source = paths::on_host(option, source.as_os_str())?;
    Ok(MountSpec {
        kind: MountKind::Bind { source },
        ..mount
    })
}

/// A mount point: anywhere but on the root itself.
fn target(option: &str, path: &OsStr) -> Result<PathBuf, Error> {
    match paths::in_container(option, path)? {
        root if root == Path::new("/") => Err(usage(format!(
            "{option}: / cannot be mounted over: give --rootfs"
        ))),
        path => Ok(path),
    }
}

fn split(text: &OsStr, separator: u8) -> impl Iterator<Item = &OsStr> {
    text.as_bytes()
        .split(move |byte| *byte == separator)
        .map(OsStr::from_bytes)
}

fn refusal(option: &str, text: &OsStr) -> impl Fn(&str) -> Error {
    move |why| usage(format!("{option} {}: {why}", shown(text)))
}

/// `SRC:DST[:OPTIONS]`.
fn volume(text: &OsStr) -> Result<MountSpec, Error> {
    let refused = refusal(VOLUME, text);
    let mut parts = split(text, b':');
    let (source, target_path, options) =
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(source), Some(target), options, None) => (source, target, options),
            (Some(path), None, ..) if path.as_bytes().starts_with(b"/") => {
                return Err(refused(
                    "anonymous volumes are not supported: give SRC:DST, or --tmpfs",
                ));
            }
            _ => {
                return Err(refused(
                    "SRC:DST[:OPTIONS] is needed (a path with a colon: --mount)",
                ));
            }
        };
    let bytes = source.as_bytes();
    let is_path = [&b"/"[..], b"./", b"../"]
        .iter()
        .any(|start| bytes.starts_with(start))
        || matches!(bytes, b"." | b"..");
    if !is_path {
        return Err(refused(
            "named volumes are not supported: begin the path with /, ./ or ../",
        ));
    }
    let mut access = Access::default();
    for option in options.into_iter().flat_map(|options| split(options, b',')) {
        match option.as_bytes() {
            b"ro" => access.set(true),
            b"rw" => access.set(false),
            // Binds are always recursive; labels are for SELinux, which we leave alone.
            b"bind" | b"rbind" | b"z" | b"Z" => Ok(()),
            b"U" => Err("U (changing the owner of the source) is not supported".to_owned()),
            b"O" => Err("O (an overlay over the source) is not supported".to_owned()),
            _ => Err(format!(
                "unknown option {} (known: ro, rw, bind, rbind, z, Z)",
                shown(option)
            )),
        }
        .map_err(|why| refused(&why))?;
    }
    Ok(MountSpec {
        target: target(VOLUME, target_path)?,
        kind: MountKind::Bind {
            source: source.into(),
        },
        flags: MountFlags {
            read_only: access.read_only(),
            ..VOLUME_FLAGS
        },
    })
}

/// `type=bind|tmpfs,KEY=VALUE,...`.
fn mount(text: &OsStr) -> Result<MountSpec, Error> {
    let refused = refusal(MOUNT, text);
    let mut kind = None;
    let mut rest = Vec::new();
    for word in split(text, b',') {
        match key_value(word) {
            (b"type", Some(value)) if kind.is_none() => kind = Some(value),
            (b"type", Some(_)) => return Err(refused("type= is given twice")),
            pair => rest.push(pair),
        }
    }
    match kind.map(OsStr::as_bytes) {
        Some(b"bind") => mount_bind(&rest, &refused),
        Some(b"tmpfs") => mount_tmpfs(&rest, &refused),
        _ => Err(refused("type=bind or type=tmpfs is needed")),
    }
}

type KeyValue<'a> = (&'a [u8], Option<&'a OsStr>);

fn key_value(word: &OsStr) -> KeyValue<'_> {
    let bytes = word.as_bytes();
    match bytes.iter().position(|byte| *byte == b'=') {
        Some(at) => (&bytes[..at], Some(OsStr::from_bytes(&bytes[at + 1..]))),
        None => (bytes, None),
    }
}

fn mount_bind(pairs: &[KeyValue], refused: &impl Fn(&str) -> Error) -> Result<MountSpec, Error> {
    let mut source = None;
    let mut common = Common::default();
    for (key, value) in pairs {
        match (*key, *value) {
            (b"src" | b"source", Some(path)) => once(&mut source, path, "the source"),
            pair => common.set(pair).unwrap_or_else(|| {
                Err(unknown(
                    key,
                    "type, src, source, dst, destination, target, ro, readonly, rw",
                ))
            }),
        }
        .map_err(|why| refused(&why))?;
    }
    let source = source.ok_or_else(|| refused("src= is needed"))?;
    common.finish(
        MountKind::Bind {
            source: source.into(),
        },
        VOLUME_FLAGS,
        refused,
    )
}

fn mount_tmpfs(pairs: &[KeyValue], refused: &impl Fn(&str) -> Error) -> Result<MountSpec, Error> {
    let mut common = Common::default();
    let mut options = TmpfsOptions::default();
    for (key, value) in pairs {
        match (*key, *value) {
            (b"tmpfs-size", Some(size)) => options.set_size(size),
            (b"tmpfs-mode", Some(mode)) => options.set_mode(mode),
            pair => common
                .set(pair)
                .or_else(|| options.set_flag(pair))
                .unwrap_or_else(|| {
                    Err(unknown(
                        key,
                        "type, dst, destination, target, tmpfs-size, tmpfs-mode, ro, readonly, rw, \
                     exec, noexec, nosuid, nodev",
                    ))
                }),
        }
        .map_err(|why| refused(&why))?;
    }
    common.finish(options.kind(), options.flags(), refused)
}

/// `DST[:OPTIONS]`.
fn tmpfs(text: &OsStr) -> Result<MountSpec, Error> {
    let refused = refusal(TMPFS, text);
    let mut parts = split(text, b':');
    let (Some(path), words, None) = (parts.next(), parts.next(), parts.next()) else {
        return Err(refused("DST[:OPTIONS] is needed"));
    };
    let mut access = Access::default();
    let mut options = TmpfsOptions::default();
    for word in words.into_iter().flat_map(|words| split(words, b',')) {
        match key_value(word) {
            (b"ro", None) => access.set(true),
            (b"rw", None) => access.set(false),
            (b"size", Some(size)) => options.set_size(size),
            (b"mode", Some(mode)) => options.set_mode(mode),
            pair => options.set_flag(pair).unwrap_or_else(|| {
                Err(unknown(
                    word.as_bytes(),
                    "size=, mode=, ro, rw, exec, noexec, nosuid, nodev",
                ))
            }),
        }
        .map_err(|why| refused(&why))?;
    }
    let target = target(TMPFS, path)?;
    Ok(MountSpec {
        target,
        kind: options.kind(),
        flags: MountFlags {
            read_only: access.read_only(),
            ..options.flags()
        },
    })
}

fn unknown(key: &[u8], known: &str) -> String {
    format!(
        "unknown option {} (known: {known})",
        shown(OsStr::from_bytes(key))
    )
}

/// Sets what may be said once.
fn once<T>(place: &mut Option<T>, value: T, what: &str) -> Result<(), String> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(format!("{what} is given twice")),
    }
}

/// `ro` or `rw`, not both.
#[derive(Debug, Default)]
struct Access(Option<bool>);

impl Access {
    fn set(&mut self, read_only: bool) -> Result<(), String> {
        match self.0.replace(read_only) {
            Some(before) if before != read_only => Err("both ro and rw are given".to_owned()),
            _ => Ok(()),
        }
    }

    fn read_only(&self) -> bool {
        self.0.unwrap_or(false)
    }
}

/// The keys of `--mount` that every type has.
#[derive(Debug, Default)]
struct Common<'a> {
    target: Option<&'a OsStr>,
    access: Access,
}

impl<'a> Common<'a> {
    /// `None` is a key of another kind.
    fn set(&mut self, (key, value): KeyValue<'a>) -> Option<Result<(), String>> {
        let flag = |value: Option<&OsStr>| match value {
            None => Ok(true),
            Some(text) => text
                .to_str()
                .and_then(parse_bool)
                .ok_or_else(|| format!("{} is not true or false", shown(text))),
        };
        Some(match (key, value) {
            (b"dst" | b"destination" | b"target", Some(path)) => {
                once(&mut self.target, path, "the destination")
            }
            (b"ro" | b"readonly", value) => flag(value).and_then(|ro| self.access.set(ro)),
            (b"rw", value) => flag(value).and_then(|rw| self.access.set(!rw)),
            _ => return None,
        })
    }

    fn finish(
        self,
        kind: MountKind,
        flags: MountFlags,
        refused: &impl Fn(&str) -> Error,
    ) -> Result<MountSpec, Error> {
        let path = self.target.ok_or_else(|| refused("dst= is needed"))?;
        Ok(MountSpec {
            target: target(MOUNT, path)?,
            kind,
            flags: MountFlags {
                read_only: self.access.read_only(),
                ..flags
            },
        })
    }
}

/// What a tmpfs can be told.
#[derive(Debug, Default)]
struct TmpfsOptions {
    size: Option<u64>,
    mode: Option<u32>,
    exec: Option<bool>,
}

impl TmpfsOptions {
    fn set_size(&mut self, text: &OsStr) -> Result<(), String> {
        let size = text.to_str().and_then(bytes).ok_or_else(|| {
            format!(
                "{} is not a size (bytes, or a number with k, m or g)",
                shown(text)
            )
        })?;
        once(&mut self.size, size, "the size")
    }

    fn set_mode(&mut self, text: &OsStr) -> Result<(), String> {
        let mode = text
            .to_str()
            .filter(|text| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()))
            .and_then(|text| u32::from_str_radix(text, 8).ok())
            .filter(|mode| *mode <= 0o7777)
            .ok_or_else(|| format!("{} is not an octal mode up to 7777", shown(text)))?;
        once(&mut self.mode, mode, "the mode")
    }

    /// `None` is a key of another kind.
    fn set_flag(&mut self, (key, value): KeyValue) -> Option<Result<(), String>> {
        let exec = match (key, value) {
            (b"exec", None) => true,
            (b"noexec", None) => false,
            // How it is mounted anyway.
            (b"nosuid" | b"nodev", None) => return Some(Ok(())),
            (b"suid" | b"dev", None) => {
                return Some(Err("a tmpfs is always nosuid and nodev".to_owned()));
            }
            _ => return None,
        };
        Some(match self.exec.replace(exec) {
            Some(before) if before != exec => Err("both exec and noexec are given".to_owned()),
            _ => Ok(()),
        })
    }

    fn kind(&self) -> MountKind {
        MountKind::Tmpfs(Tmpfs {
            mode: self.mode,
            size: self.size,
            ..Tmpfs::default()
        })
    }

    fn flags(&self) -> MountFlags {
        MountFlags {
            noexec: !self.exec.unwrap_or(false),
            ..TMPFS_FLAGS
        }
    }
}

/// Bytes, or a number with k, m or g (powers of 1024, tmpfs(5)). tmpfs takes 0
/// for "no limit", which is not what a person means by it.
pub(super) fn bytes(text: &str) -> Option<u64> {
    let (digits, unit) = match text.char_indices().next_back()? {
        (at, 'k' | 'K') => (&text[..at], 10),
        (at, 'm' | 'M') => (&text[..at], 20),
        (at, 'g' | 'G') => (&text[..at], 30),
        _ => (text, 0),
    };
    let digits = Some(digits).filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?;
    let size = digits.parse::<u64>().ok()?.checked_mul(1 << unit)?;
    // The kernel counts in signed bytes.
    i64::try_from(size)
        .is_ok_and(|size| size > 0)
        .then_some(size)
}

#[cfg(test)]
mod tests;
