//! `/dev`: a small tmpfs with the standard devices and nothing else.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::{Errno, Result};
use rustix::mount::MountAttrFlags;
use rustix::pty::OpenptFlags;

use super::mount::{Depth, INERT, Opt, attach, copy_mount, new_mount, restrict};
use super::root::Root;
use super::stage::Stage;
use super::{Pty, failed};
use crate::error::StepFailure;

/// Name, major and minor number (Linux's admin-guide/devices.txt).
const DEVICES: [(&str, u32, u32); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// The group that owns terminals, where the container has it (`tty`).
const TTY_GROUP: &str = "5";
/// Major numbers of Unix 98 terminals (devices.txt).
const PTS_MAJORS: std::ops::RangeInclusive<u32> = 136..=143;

const NO_DATA: MountAttrFlags =
    MountAttrFlags::MOUNT_ATTR_NOSUID.union(MountAttrFlags::MOUNT_ATTR_NOEXEC);

/// Populates `target`; with `console` also makes a terminal, bound to `console`.
/// `shm` holds `shm_size` bytes at most, without limit where that is 0.
pub(super) fn populate(
    root: &mut Root,
    stage: &Stage,
    target: &Path,
    console: bool,
    shm_size: u64,
) -> std::result::Result<Option<Pty>, StepFailure> {
    let dev = mount_tmpfs(root, target, console).map_err(failed("mount /dev", target))?;
    for (name, major, minor) in DEVICES {
        bind_device(stage, &dev, name, major, minor)
            .map_err(failed("bind device", target.join(name)))?;
    }
    let pts = mount_devpts(&dev).map_err(failed("mount devpts", target.join("pts")))?;
    mount_shm(&dev, shm_size).map_err(failed("mount tmpfs", target.join("shm")))?;
    mount_mqueue(stage, &dev).map_err(failed("mount mqueue", target.join("mqueue")))?;
    let pty = if console {
        Some(open_console(&dev, &pts).map_err(failed("make terminal", target.join("console")))?)
    } else {
        None
    };
    root.add_anchor(target, dev);
    Ok(pty)
}

fn mount_tmpfs(root: &mut Root, target: &Path, console: bool) -> Result<OwnedFd> {
    let target = root.fixed_mount_point(target)?;
    let options = [Opt::Value("mode", "755"), Opt::Value("size", "65536k")];
    let attrs = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_STRICTATIME;
    let dev = new_mount("tmpfs", &options, attrs)?;
    for name in ["pts", "shm", "mqueue"] {
        rustix::fs::mkdirat(&dev, name, Mode::from_raw_mode(0o755))?;
    }
    for (name, to) in LINKS {
        rustix::fs::symlinkat(to, &dev, name)?;
    }
    for name in DEVICES
        .iter()
        .map(|(name, ..)| *name)
        .chain(console.then_some("console"))
    {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDONLY | OFlags::CLOEXEC;
        rustix::fs::openat(&dev, name, flags, Mode::from_raw_mode(0o600))?;
    }
    attach(&dev, target)?;
    Ok(dev)
}

/// Opens what is to be mounted on in our own `/dev`.
fn place(dev: &OwnedFd, name: &str) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(dev, name, flags, Mode::empty())
}

fn bind_device(stage: &Stage, dev: &OwnedFd, name: &str, major: u32, minor: u32) -> Result<()> {
    let device = copy_mount(stage.open_host_device(name, major, minor)?, Depth::Top)?;
    restrict(&device, NO_DATA, Depth::Top)?;
    attach(&device, place(dev, name)?)
}

fn mount_devpts(dev: &OwnedFd) -> Result<OwnedFd> {
    let with_group = [
        Opt::Flag("newinstance"),
        Opt::Value("ptmxmode", "0666"),
        Opt::Value("mode", "0620"),
        Opt::Value("gid", TTY_GROUP),
    ];
    let without_group = with_group
        .split_last()
        .map_or(with_group.as_slice(), |(_, rest)| rest);
    // A group that the container's map lacks is refused as an invalid value.
    let pts = match new_mount("devpts", &with_group, NO_DATA) {
        Err(Errno::INVAL) => new_mount("devpts", without_group, NO_DATA),
        result => result,
    }?;
    attach(&pts, place(dev, "pts")?)?;
    Ok(pts)
}

/// tmpfs, too, takes 0 for "no limit" (tmpfs(5)).
fn mount_shm(dev: &OwnedFd, size: u64) -> Result<()> {
    let size = size.to_string();
    let options = [Opt::Value("mode", "1777"), Opt::Value("size", &size)];
    let shm = new_mount("tmpfs", &options, INERT)?;
    attach(&shm, place(dev, "shm")?)
}

fn mount_mqueue(stage: &Stage, dev: &OwnedFd) -> Result<()> {
    let queues = match new_mount("mqueue", &[], INERT) {
        Ok(queues) => queues,
        // The IPC namespace is the host's: so are its queues, if it shows them.
        Err(Errno::PERM) => match stage.open_host(Path::new("/dev/mqueue"), OFlags::PATH) {
            Ok(host) => {
                let queues = copy_mount(host, Depth::Tree)?;
                restrict(&queues, INERT, Depth::Tree)?;
                queues
            }
            Err(Errno::NOENT) => return Ok(()),
            Err(error) => return Err(error),
        },
        // A kernel without POSIX message queues.
        Err(Errno::NODEV) => return Ok(()),
        Err(error) => return Err(error),
    };
    attach(&queues, place(dev, "mqueue")?)
}

/// Makes a terminal in the container's own devpts. Its slave is opened through
/// the master (`TIOCGPTPEER`) and mounted by that fd, so that no name is
/// looked up which could be something else (CVE-2025-52565).
fn open_console(dev: &OwnedFd, pts: &OwnedFd) -> Result<Pty> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let master = rustix::fs::openat(pts, "ptmx", flags, Mode::empty())?;
    rustix::pty::unlockpt(&master)?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags)?;
    let stat = rustix::fs::fstat(&slave)?;
    let is_pts = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
        && PTS_MAJORS.contains(&rustix::fs::major(stat.st_rdev));
    if !is_pts {
        return Err(Errno::NODEV);
    }
    let console = copy_mount(&slave, Depth::Top)?;
    attach(&console, place(dev, "console")?)?;
    Ok(Pty { master, slave })
}
