//! What the recipes ask of the host. Nothing is changed by asking.

use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// How long the BusyBox may take to name its applets; it needs about 1 ms.
const LIST_TIMEOUT: Duration = Duration::from_secs(2);
/// Most that is read of its output: a full list has some 6 KiB.
const OUTPUT_LIMIT: usize = 256 * 1024;
/// Largest host file that is copied into the container's memory.
const COPY_LIMIT: u64 = 16 * 1024 * 1024;

/// A view of the host: its file tree and its `$PATH`.
#[derive(Debug, Clone)]
pub struct HostProbe {
    root: PathBuf,
    path: Vec<PathBuf>,
}

impl HostProbe {
    /// This host, with the `$PATH` of this process.
    pub fn new() -> Self {
        let path = std::env::var_os("PATH").unwrap_or_default();
        Self {
            root: PathBuf::from("/"),
            path: std::env::split_paths(&path).collect(),
        }
    }

    /// The tree below `root` as if it were a host's, with this `$PATH`.
    pub fn at(root: impl Into<PathBuf>, path: impl IntoIterator<Item = PathBuf>) -> Self {
        Self {
            root: root.into(),
            path: path.into_iter().collect(),
        }
    }

    /// Where a path of the host lies for this process.
    pub(crate) fn locate(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// The absolute folders of `$PATH`.
    pub(crate) fn search_path(&self) -> impl Iterator<Item = &Path> {
        self.path
            .iter()
            .map(PathBuf::as_path)
            .filter(|path| path.is_absolute())
    }

    /// What a symbolic link says; `None` where there is none.
    pub(crate) fn link(&self, path: &Path) -> Option<PathBuf> {
        fs::read_link(self.locate(path)).ok()
    }

    /// Whether there is a directory, links followed.
    pub(crate) fn is_directory(&self, path: &Path) -> bool {
        self.locate(path).is_dir()
    }

    /// The regular file behind a path (links followed), where everyone may read
    /// it and it is small enough to be copied.
    pub(crate) fn public_file(&self, path: &Path) -> Option<PathBuf> {
        let source = fs::canonicalize(self.locate(path)).ok()?;
        let metadata = fs::metadata(&source).ok()?;
        let public = metadata.is_file() && metadata.mode() & 0o004 != 0;
        (public && metadata.len() <= COPY_LIMIT).then_some(source)
    }

    /// The sorted names in a directory that everyone may list and enter.
    pub(crate) fn public_directory(&self, path: &Path) -> Option<Vec<OsString>> {
        let located = self.locate(path);
        let metadata = fs::symlink_metadata(&located).ok()?;
        if !metadata.is_dir() || metadata.mode() & 0o005 != 0o005 {
            return None;
        }
        self.names(path)
    }

    /// The sorted names in a directory; `None` where it cannot be read.
    pub(crate) fn names(&self, path: &Path) -> Option<Vec<OsString>> {
        let mut names: Vec<_> = fs::read_dir(self.locate(path))
            .ok()?
            .filter_map(|entry| entry.ok().map(|entry| entry.file_name()))
            .collect();
        names.sort();
        Some(names)
    }

    /// Metadata, links followed.
    pub(crate) fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        fs::metadata(self.locate(path))
    }
}

impl Default for HostProbe {
    fn default() -> Self {
        Self::new()
    }
}

/// Whether anyone may execute the file.
pub(crate) fn is_executable(metadata: &Metadata) -> bool {
    metadata.is_file() && metadata.permissions().mode() & 0o111 != 0
}

/// What `program --list-full` prints.
pub(crate) fn list_applets(program: &Path) -> io::Result<String> {
    run(Command::new(program).arg("--list-full"), LIST_TIMEOUT)
}

/// What a command prints, run with an empty environment and a time limit.
pub(crate) fn run(command: &mut Command, timeout: Duration) -> io::Result<String> {
    let mut child = command
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let printed = read_output(&mut child, Instant::now() + timeout);
    if printed.is_err() {
        // Fails only where it has ended by itself; wait() tells both alike.
        let _ = child.kill();
    }
    let status = child.wait()?;
    let printed = printed?;
    if !status.success() {
        return Err(io::Error::other(format!("it ended with {status}")));
    }
    String::from_utf8(printed).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

fn read_output(child: &mut Child, deadline: Instant) -> io::Result<Vec<u8>> {
    let mut printed = Vec::new();
    let Some(mut output) = child.stdout.take() else {
        return Ok(printed);
    };
    let mut chunk = [0; 8192];
    loop {
        wait_for(&output, deadline)?;
        let count = output.read(&mut chunk)?;
        if count == 0 {
            break;
        }
        printed.extend_from_slice(chunk.get(..count).unwrap_or_default());
        if printed.len() > OUTPUT_LIMIT {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                "its output has no end",
            ));
        }
    }
    // The end of its output is not yet its own end.
    let process = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    wait_for(&process, deadline)?;
    Ok(printed)
}

/// Waits until there is something to read, or fails at the deadline.
fn wait_for(fd: &impl std::os::fd::AsFd, deadline: Instant) -> io::Result<()> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).map_err(io::Error::other)?;
        let mut fds = [PollFd::new(fd, PollFlags::IN)];
        match poll(&mut fds, Some(&left)) {
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// What the program headers of an ELF file say (elf(5)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Linkage {
    /// No interpreter is asked for: it runs without any library.
    Static,
    /// `PT_INTERP`: it needs a dynamic loader and libraries.
    Dynamic,
}

/// How an ELF executable is linked.
pub(crate) fn linkage(path: &Path) -> io::Result<Linkage> {
    /// The ELF header and the program headers behind it: 64 + 56 * 70 bytes.
    const HEAD: u64 = 4096;
    let mut head = Vec::new();
    File::open(path)?.take(HEAD).read_to_end(&mut head)?;
    parse_linkage(&head)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not an ELF executable"))
}

fn parse_linkage(head: &[u8]) -> Option<Linkage> {
    const PT_INTERP: u64 = 3;
    if head.get(..4)? != b"\x7fELF" {
        return None;
    }
    let wide = match head.get(4)? {
        1 => false,
        2 => true,
        _ => return None,
    };
    let little = match head.get(5)? {
        1 => true,
        2 => false,
        _ => return None,
    };
    let number = |offset: usize, size: usize| -> Option<u64> {
        let bytes = head.get(offset..offset.checked_add(size)?)?;
        let join = |value: u64, byte: &u8| value << 8 | u64::from(*byte);
        Some(if little {
            bytes.iter().rev().fold(0, join)
        } else {
            bytes.iter().fold(0, join)
        })
    };
    // e_phoff, e_phentsize and e_phnum of Elf64_Ehdr and Elf32_Ehdr.
    let (table, entry_size, entries) = if wide {
        (number(32, 8)?, number(54, 2)?, number(56, 2)?)
    } else {
        (number(28, 4)?, number(42, 2)?, number(44, 2)?)
    };
    for index in 0..entries {
        let offset = table.checked_add(index.checked_mul(entry_size)?)?;
        if number(usize::try_from(offset).ok()?, 4)? == PT_INTERP {
            return Some(Linkage::Dynamic);
        }
    }
    (entries > 0).then_some(Linkage::Static)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A minimal 64-bit little-endian ELF head with these segment types.
    fn elf(types: &[u32]) -> Vec<u8> {
        let mut head = vec![0; 64];
        head[..6].copy_from_slice(b"\x7fELF\x02\x01");
        head[32..40].copy_from_slice(&64_u64.to_le_bytes());
        head[54..56].copy_from_slice(&56_u16.to_le_bytes());
        head[56..58].copy_from_slice(&u16::try_from(types.len()).unwrap().to_le_bytes());
        for kind in types {
            let mut entry = vec![0; 56];
            entry[..4].copy_from_slice(&kind.to_le_bytes());
            head.extend(entry);
        }
        head
    }

    #[test]
    fn an_interpreter_means_dynamic() {
        assert_eq!(parse_linkage(&elf(&[6, 3, 1])), Some(Linkage::Dynamic));
        assert_eq!(parse_linkage(&elf(&[1, 2])), Some(Linkage::Static));
    }

    #[test]
    fn what_is_no_executable_is_neither() {
        assert_eq!(parse_linkage(b"#!/bin/sh\n"), None);
        assert_eq!(parse_linkage(b"\x7fELF"), None);
        assert_eq!(parse_linkage(&elf(&[])), None);
        let whole = elf(&[1, 1]);
        for length in 0..whole.len() - 60 {
            assert_eq!(
                parse_linkage(&whole[..length]),
                None,
                "cut to {length} bytes"
            );
        }
    }

    #[test]
    fn a_table_beyond_the_end_of_everything_is_refused() {
        let mut head = elf(&[1]);
        head[32..40].copy_from_slice(&u64::MAX.to_le_bytes());
        assert_eq!(parse_linkage(&head), None);
    }

    #[test]
    fn this_test_itself_is_an_elf_file() {
        let linked = linkage(&std::env::current_exe().unwrap()).unwrap();
        let expected = if cfg!(target_feature = "crt-static") {
            Linkage::Static
        } else {
            Linkage::Dynamic
        };
        assert_eq!(linked, expected);
    }
}
