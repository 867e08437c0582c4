//! `--volume`, `--mount`, `--tmpfs` and `--device`.
//!
//! Each is parsed by its form alone ([`volume`], [`mount`], [`tmpfs`]); only then
//! [`collect`] looks for the sources on the host.

mod devices;
mod propagation;
mod words;

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::{paths, shown, usage};
use crate::config::{
    IdMapEntry, MountFlags, MountKind, MountSpec, Propagation, RootFs, Tmpfs, UserNamespace,
};
use crate::error::Error;
use crate::ns::idmap;
use words::{Access, BindWords, KeyValue, TmpfsWords, key_value, once, unknown};

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

/// What was typed.
#[derive(Debug)]
pub(super) struct Words<'a> {
    pub(super) volumes: &'a [OsString],
    pub(super) mounts: &'a [OsString],
    pub(super) tmpfs_mounts: &'a [OsString],
    pub(super) devices: &'a [OsString],
}

/// Every mount, parents before what lies below them, whatever the order given.
pub(super) fn collect(
    words: &Words<'_>,
    userns: UserNamespace,
    is_root: bool,
) -> Result<Vec<MountSpec>, Error> {
    let find = |option, text: &OsString, mount| on_host(option, text, mount, userns, is_root);
    let volumes = words.volumes.iter();
    let volumes = volumes.map(|text| find(VOLUME, text, volume(text)?));
    let mounts = words.mounts.iter();
    let mounts = mounts.map(|text| find(MOUNT, text, mount(text)?));
    let tmpfs_mounts = words.tmpfs_mounts.iter().map(|text| tmpfs(text));
    let mut all: Vec<_> = volumes
        .chain(mounts)
        .chain(tmpfs_mounts)
        .collect::<Result<_, _>>()?;
    for text in words.devices {
        all.extend(devices::device(text)?);
    }
    let mut targets = HashSet::new();
    if let Some(twice) = all.iter().find(|mount| !targets.insert(&mount.target)) {
        return Err(usage(format!("{} is mounted twice", shown(&twice.target))));
    }
    sort(&mut all);
    check_shared(&all)?;
    Ok(all)
}

/// Refuses a mount below a shared one: the host would get it, too.
fn check_shared(mounts: &[MountSpec]) -> Result<(), Error> {
    for shared in mounts.iter().filter(|mount| mount.is_shared()) {
        let below = |mount: &&MountSpec| {
            mount.target != shared.target && mount.target.starts_with(&shared.target)
        };
        if let Some(inner) = mounts.iter().find(below) {
            return Err(usage(format!(
                "{} lies in {}, which is shared: it would be mounted on the host as well",
                shown(&inner.target),
                shown(&shared.target)
            )));
        }
    }
    Ok(())
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

/// Replaces the source of a bind by the host path that it is, and checks what
/// depends on the host.
fn on_host(
    option: &'static str,
    text: &OsStr,
    mount: MountSpec,
    userns: UserNamespace,
    is_root: bool,
) -> Result<MountSpec, Error> {
    let MountKind::Bind {
        source,
        propagation,
        idmap,
    } = mount.kind
    else {
        return Ok(mount);
    };
    let source = paths::on_host(option, source.as_os_str())?;
    let refused = refusal(option, text);
    propagation::check(&source, propagation).map_err(|why| refused(&why))?;
    if propagation == Propagation::Shared && userns != UserNamespace::Host {
        tracing::warn!(
            "{option} {}: the container has a user namespace of its own, so the kernel lets \
             nothing that it mounts there reach the host (only --userns=host would)",
            shown(text)
        );
    }
    match (idmap, userns, is_root) {
        (false, ..) => {}
        (true, _, false) => {
            return Err(refused(
                "idmap is only for root: the kernel maps the ids of a mount only for who has \
                 CAP_SYS_ADMIN where its file system was mounted (mount_setattr(2))",
            ));
        }
        (true, UserNamespace::Host, true) => {
            return Err(refused(
                "idmap needs a user namespace: not with --userns=host",
            ));
        }
        (true, ..) if propagation != Propagation::Private => {
            return Err(refused("a mount with idmap is always private"));
        }
        (true, ..) => {}
    }
    Ok(MountSpec {
        kind: MountKind::Bind {
            source,
            propagation,
            idmap,
        },
        ..mount
    })
}

/// The owner of a tmpfs has to be in the maps, when these are known already.
pub(super) fn check_mapped(
    mounts: &[MountSpec],
    uid_map: &[IdMapEntry],
    gid_map: &[IdMapEntry],
) -> Result<(), Error> {
    for mount in mounts {
        let MountKind::Tmpfs(Tmpfs { uid, gid, .. }) = &mount.kind else {
            continue;
        };
        for (what, id, map) in [("user", uid, uid_map), ("group", gid, gid_map)] {
            if let Some(id) = id
                && !map.is_empty()
                && !idmap::covers(map, *id)
            {
                return Err(usage(format!(
                    "the tmpfs on {}: {what} id {id} is not mapped into the container",
                    shown(&mount.target)
                )));
            }
        }
    }
    Ok(())
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
    let mut bind = BindWords::default();
    for option in options.into_iter().flat_map(|options| split(options, b',')) {
        let word = key_value(option);
        // No word of a volume has a value; these two are of --mount.
        let known = match word {
            (b"readonly" | b"chown", _) | (_, Some(_)) => None,
            word => access.set(word).or_else(|| bind.set(word)),
        };
        let known = known.unwrap_or_else(|| {
            let known = format!("{}, {}", Access::KNOWN, BindWords::KNOWN);
            Err(unknown(option.as_bytes(), &known))
        });
        known.map_err(|why| refused(&why))?;
    }
    Ok(MountSpec {
        target: target(VOLUME, target_path)?,
        kind: kind(source, &bind),
        flags: access.flags(VOLUME_FLAGS),
    })
}

fn kind(source: &OsStr, bind: &BindWords) -> MountKind {
    MountKind::Bind {
        source: source.into(),
        propagation: bind.propagation(),
        idmap: bind.idmap(),
    }
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

fn mount_bind(pairs: &[KeyValue], refused: &impl Fn(&str) -> Error) -> Result<MountSpec, Error> {
    let mut source = None;
    let mut common = Common::default();
    let mut bind = BindWords::default();
    for pair in pairs {
        let known = match *pair {
            (b"src" | b"source", Some(path)) => Some(once(&mut source, path, "the source")),
            pair => common.set(pair).or_else(|| bind.set_named(pair)),
        };
        let known = known.unwrap_or_else(|| {
            let known = format!(
                "src, source, {}, bind-propagation=, relabel=, idmap",
                Common::KNOWN
            );
            Err(unknown(pair.0, &known))
        });
        known.map_err(|why| refused(&why))?;
    }
    let source = source.ok_or_else(|| refused("src= is needed"))?;
    common.finish(kind(source, &bind), VOLUME_FLAGS, refused)
}

fn mount_tmpfs(pairs: &[KeyValue], refused: &impl Fn(&str) -> Error) -> Result<MountSpec, Error> {
    let mut common = Common::default();
    let mut options = TmpfsWords::default();
    for pair in pairs {
        let known = common.set(*pair).or_else(|| options.set(*pair));
        let known = known.unwrap_or_else(|| {
            let known = format!(
                "{}, tmpfs-size=, tmpfs-mode=, {}",
                Common::KNOWN,
                TmpfsWords::KNOWN
            );
            Err(unknown(pair.0, &known))
        });
        known.map_err(|why| refused(&why))?;
    }
    let flags = MountFlags {
        noatime: options.noatime(),
        ..TMPFS_FLAGS
    };
    common.finish(MountKind::Tmpfs(options.tmpfs()), flags, refused)
}

/// `DST[:OPTIONS]`.
fn tmpfs(text: &OsStr) -> Result<MountSpec, Error> {
    let refused = refusal(TMPFS, text);
    let mut parts = split(text, b':');
    let (Some(path), words, None) = (parts.next(), parts.next(), parts.next()) else {
        return Err(refused("DST[:OPTIONS] is needed"));
    };
    let mut access = Access::default();
    let mut options = TmpfsWords::default();
    for word in words.into_iter().flat_map(|words| split(words, b',')) {
        let known = match key_value(word) {
            // These are of --mount.
            (b"readonly" | b"tmpfs-size" | b"tmpfs-mode", _) | (b"ro" | b"rw", Some(_)) => None,
            pair => access.set(pair).or_else(|| options.set(pair)),
        };
        let known = known.unwrap_or_else(|| {
            let known = format!("{}, {}", Access::KNOWN, TmpfsWords::KNOWN);
            Err(unknown(word.as_bytes(), &known))
        });
        known.map_err(|why| refused(&why))?;
    }
    let flags = MountFlags {
        noatime: options.noatime(),
        ..TMPFS_FLAGS
    };
    Ok(MountSpec {
        target: target(TMPFS, path)?,
        kind: MountKind::Tmpfs(options.tmpfs()),
        flags: access.flags(flags),
    })
}

/// The keys of `--mount` that every type has.
#[derive(Debug, Default)]
struct Common<'a> {
    target: Option<&'a OsStr>,
    access: Access,
}

impl<'a> Common<'a> {
    const KNOWN: &'static str =
        "dst, destination, target, ro, readonly, rw, exec, noexec, suid, nosuid, dev, nodev";

    /// `None` is a key of another kind.
    fn set(&mut self, pair: KeyValue<'a>) -> Option<Result<(), String>> {
        match pair {
            (b"dst" | b"destination" | b"target", Some(path)) => {
                Some(once(&mut self.target, path, "the destination"))
            }
            pair => self.access.set(pair),
        }
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
            flags: self.access.flags(flags),
        })
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
