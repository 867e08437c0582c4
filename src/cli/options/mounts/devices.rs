//! `--device SRC[:DST[:PERMS]]`.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::super::{paths, shown};
use super::{refusal, split, target};
use crate::config::{DeviceNode, MountFlags, MountKind, MountSpec};
use crate::error::Error;

const DEVICE: &str = "--device";
/// How deep a directory of devices is searched; `/dev/bus/usb` needs two.
const DEPTH: u32 = 8;
/// The most devices of one directory.
const DEVICES_MOST: usize = 1024;
/// Where no device is put: a mount there could be taken for the kernel's own file.
const KERNELS: [&str; 2] = ["/proc", "/sys"];

/// The option by its form alone.
#[derive(Debug, PartialEq, Eq)]
struct Device<'a> {
    source: &'a OsStr,
    target: PathBuf,
    permissions: Permissions,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Permissions {
    read: bool,
    write: bool,
}

/// The devices that `text` names: one, or those of a directory.
pub(super) fn device(text: &OsStr) -> Result<Vec<MountSpec>, Error> {
    let parsed = parse(text)?;
    let source = paths::on_host(DEVICE, parsed.source)?;
    let mut found = Vec::new();
    look(&source, &parsed.target, DEPTH, &mut found).map_err(|error| Error::Path {
        option: DEVICE,
        path: parsed.source.into(),
        source: error,
    })?;
    let refused = refusal(DEVICE, text);
    if found.is_empty() {
        return Err(refused(if source.is_dir() {
            "there is no device in that directory"
        } else {
            "that is not a device"
        }));
    }
    if found.len() > DEVICES_MOST {
        return Err(refused(&format!(
            "more than {DEVICES_MOST} devices are in that directory"
        )));
    }
    let Permissions { read, write } = parsed.permissions;
    if !(read && write) {
        tracing::warn!(
            "{DEVICE} {}: what may be done with it is what the file's own mode says; without \
             the devices cgroup, permissions are not enforced",
            shown(text)
        );
    }
    let flags = MountFlags {
        read_only: !write,
        nosuid: true,
        nodev: false,
        noexec: true,
        noatime: false,
    };
    Ok(found
        .into_iter()
        .map(|(source, target, node)| MountSpec {
            target,
            kind: MountKind::Device { source, node },
            flags,
        })
        .collect())
}

/// Collects the device at `source`, or those in it. Links are not followed.
fn look(
    source: &Path,
    target: &Path,
    depth: u32,
    found: &mut Vec<(PathBuf, PathBuf, DeviceNode)>,
) -> std::io::Result<()> {
    let meta = fs::symlink_metadata(source)?;
    let kind = meta.file_type();
    if kind.is_dir() && depth > 0 {
        let mut names: Vec<OsString> = fs::read_dir(source)?
            .map(|entry| entry.map(|entry| entry.file_name()))
            .collect::<Result<_, _>>()?;
        names.sort_unstable();
        for name in names {
            if found.len() > DEVICES_MOST {
                break;
            }
            look(&source.join(&name), &target.join(&name), depth - 1, found)?;
        }
    } else if kind.is_char_device() || kind.is_block_device() {
        let node = DeviceNode {
            block: kind.is_block_device(),
            major: rustix::fs::major(meta.rdev()),
            minor: rustix::fs::minor(meta.rdev()),
        };
        found.push((source.to_owned(), target.to_owned(), node));
    }
    Ok(())
}

fn parse(text: &OsStr) -> Result<Device<'_>, Error> {
    let refused = refusal(DEVICE, text);
    let mut parts = split(text, b':');
    let (Some(source), second, third, None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(refused("SRC[:DST[:PERMS]] is needed"));
    };
    if !source.as_bytes().starts_with(b"/") {
        return Err(refused("the device is an absolute path"));
    }
    let (place, permissions) = match (second, third) {
        (None, _) => (source, None),
        (Some(word), None) if !word.as_bytes().starts_with(b"/") => (source, Some(word)),
        (Some(place), permissions) => (place, permissions),
    };
    let target = target(DEVICE, place)?;
    if KERNELS.iter().any(|kernel| target.starts_with(kernel)) {
        return Err(refused("no device can be put in /proc or /sys"));
    }
    let permissions = match permissions {
        None => Permissions {
            read: true,
            write: true,
        },
        Some(word) => permissions_of(word.as_bytes())
            .ok_or_else(|| refused("the permissions are some of r, w and m"))?,
    };
    Ok(Device {
        source,
        target,
        permissions,
    })
}

/// Some of `r` (read), `w` (write) and `m` (mknod(2)), each once.
fn permissions_of(word: &[u8]) -> Option<Permissions> {
    let count = |letter| word.iter().filter(|byte| **byte == letter).count();
    let (read, write, make) = (count(b'r'), count(b'w'), count(b'm'));
    let is_valid = !word.is_empty()
        && word.len() == read + write + make
        && [read, write, make].iter().all(|count| *count <= 1);
    is_valid.then_some(Permissions {
        read: read == 1,
        write: write == 1,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn forms() {
        let device = |text: &'static str| {
            let Device {
                source,
                target,
                permissions: Permissions { read, write },
            } = parse(OsStr::new(text)).unwrap();
            (
                source.to_str().unwrap(),
                target.display().to_string(),
                read,
                write,
            )
        };
        for (text, wanted) in [
            ("/dev/fuse", ("/dev/fuse", "/dev/fuse", true, true)),
            ("/dev/fuse:/dev/f", ("/dev/fuse", "/dev/f", true, true)),
            ("/dev/fuse:r", ("/dev/fuse", "/dev/fuse", true, false)),
            ("/dev/fuse:/x/../f:mrw", ("/dev/fuse", "/f", true, true)),
            ("/dev/fuse:/f:wm", ("/dev/fuse", "/f", false, true)),
        ] {
            let (source, target, read, write) = device(text);
            assert_eq!((source, target.as_str(), read, write), wanted, "{text}");
        }
        for bad in [
            "",
            ":",
            "dev/fuse",
            "/dev/fuse:",
            "/dev/fuse:f",
            "/dev/fuse:rr",
            "/dev/fuse:rwx",
            "/dev/fuse:/f:",
            "/dev/fuse:/f:x",
            "/dev/fuse:r:w",
            "/dev/fuse:r:/f",
            "/dev/fuse:/f:rw:m",
            "/dev/fuse:/",
            "/dev/null:/proc/timer_list",
            "/dev/null:/x/../proc/kcore",
            "/dev/null:/sys/firmware",
        ] {
            assert!(parse(OsStr::new(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_devices_are_devices() {
        let one = device(OsStr::new("/dev/null:/dev/zilch:rwm")).unwrap();
        assert!(matches!(
            one.as_slice(),
            [MountSpec { target, kind: MountKind::Device { node, .. }, flags }]
                if target == Path::new("/dev/zilch")
                    && *node == DeviceNode { block: false, major: 1, minor: 3 }
                    && !flags.nodev && !flags.read_only
        ));
        for bad in [
            "/etc/passwd",
            "/etc",
            "/dev/stdin/x",
            "/nowhere",
            "/proc/kcore",
        ] {
            assert!(device(OsStr::new(bad)).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in "[a-z/:.rwm]{0,40}") {
            if let Ok(device) = parse(OsStr::new(&text)) {
                let is_kernels = KERNELS.iter().any(|kernel| device.target.starts_with(kernel));
                prop_assert!(device.target.is_absolute() && !is_kernels);
            }
        }
    }
}
