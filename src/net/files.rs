//! Files of bounded size that we write: `FILE`, and older ones as `FILE.1`, `FILE.2`.
//!
//! Whoever writes ([`Files`]) may not be who may make files ([`Folder`]), so they are
//! two, with a function between them ([`NextFile`]).
//!
//! Files are made anew below a directory that is opened once, and nothing is
//! followed or written over: who may write to that directory can neither have
//! another file written to nor read along.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::config::LogFile;

/// Makes the next file, when one is full; `None`: there is to be no other.
pub type NextFile = Box<dyn FnMut() -> io::Result<Option<File>>>;

/// What is known of a file to whoever writes it.
pub(super) struct Files {
    name: OsString,
    size: u64,
    next: NextFile,
}

impl std::fmt::Debug for Files {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Files")
            .field("name", &self.name)
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}

impl Files {
    /// Of a file that there is no other after, until [`Files::set_next`].
    pub(super) fn new(folder: &Folder, file: &LogFile) -> Self {
        Self {
            name: folder.name.clone(),
            size: file.size,
            next: Box::new(|| Ok(None)),
        }
    }

    pub(super) fn set_next(&mut self, next: NextFile) {
        self.next = next;
    }

    pub(super) fn name(&self) -> &OsStr {
        &self.name
    }

    /// Most bytes of one file.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// The next file, when one is full; `None`: there is to be no other.
    pub(super) fn next(&mut self) -> io::Result<Option<File>> {
        (self.next)()
    }
}

/// Where a file and the older ones are.
#[derive(Debug)]
pub struct Folder {
    directory: OwnedFd,
    name: OsString,
    count: u32,
}

impl Folder {
    pub(super) fn open(file: &LogFile) -> io::Result<Self> {
        let name = file
            .path
            .file_name()
            .ok_or(io::ErrorKind::IsADirectory)?
            .to_owned();
        let directory = match file.path.parent() {
            None => Path::new("."),
            Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
            Some(parent) => parent,
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self {
            directory: rustix::fs::openat(CWD, directory, flags, Mode::empty())?,
            name,
            count: file.files,
        })
    }

    /// The next file, when one is full; `None`: there is to be no other.
    ///
    /// # Errors
    /// The kernel's; something that is no file has the name.
    pub fn next(&self) -> io::Result<Option<File>> {
        if self.count == 1 {
            return Ok(None);
        }
        self.shift()?;
        self.create().map(Some)
    }

    /// Makes the file, in place of one that there may be.
    pub(super) fn create(&self) -> io::Result<File> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let create = || {
            rustix::fs::openat(
                &self.directory,
                &self.name,
                flags,
                Mode::from_raw_mode(0o600),
            )
        };
        match create() {
            Err(Errno::EXIST) => {
                self.remove(&self.name)?;
                Ok(create()?.into())
            }
            created => Ok(created?.into()),
        }
    }

    /// Removes the file that was made last, with which nothing can be done.
    pub(super) fn take_back(&self) -> io::Result<()> {
        self.remove(&self.name)
    }

    /// Removes a file, and nothing else.
    fn remove(&self, name: &OsStr) -> io::Result<()> {
        let stat = rustix::fs::statat(&self.directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "it exists and is not a file",
            ));
        }
        rustix::fs::unlinkat(&self.directory, name, AtFlags::empty())?;
        Ok(())
    }

    /// Gives each file the name of the next older one; the oldest is written over.
    fn shift(&self) -> io::Result<()> {
        for age in (1..self.count).rev() {
            let from = self.aged(age - 1);
            match rustix::fs::renameat(&self.directory, &from, &self.directory, self.aged(age)) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn aged(&self, age: u32) -> OsString {
        let mut name = self.name.clone();
        if age > 0 {
            name.push(format!(".{age}"));
        }
        name
    }
}

impl AsFd for Folder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}
