//! Starting the command: the last step of the plan.
//!
//! # Theory of operation
//! [`Command::prepare`] runs in init with the container's root in place and does
//! everything that can fail for a reason the user can mend: it looks up the
//! user, makes the working directory, compiles the filter, builds the strings.
//! [`Command::exec`] runs in init's child, or with `--init=false` in init itself, and
//! only makes system calls, in the order that each needs the privilege which the next
//! one drops.
//!
//! Between its fork and its execve(2) the child is crun-lite's own program
//! inside the container. It cannot be looked into (not dumpable, like init), and
//! the command is not allowed to be that program: a path that goes through a
//! magic link, such as a script with `#!/proc/self/exe`, is refused, so that the
//! host's binary never runs as a process of the container, from where it could
//! be opened for writing (CVE-2019-5736). That look is for the message: between it
//! and the execve(2) a script can change. What holds is the kernel's own, the Landlock
//! domain that the process is in by then ([`crate::security::landlock`]), or where
//! there is none, that the program runs as a sealed copy (`cli::seal`). A descriptor of the host cannot be
//! reached either way (CVE-2024-21626): the working directory is opened beneath
//! the root without magic links and entered by descriptor, and all descriptors
//! but the first three close with the execve(2).

use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};

use super::ipc::{Channel, FromInit};
use super::rlimits;
use super::users::{self, Identity};
use crate::config::Ulimit;
use crate::error::{EXIT_NOT_EXECUTABLE, EXIT_NOT_FOUND, EXIT_RUNTIME, StepFailure};
use crate::plan::ExecStep;
use crate::security::Restrictions;
use crate::sys::exec::CStringArray;
use crate::sys::signal::SignalSet;
use crate::sys::{self};

/// Where commands are looked for when the environment does not say: the path
/// that podman gives a container.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// How deep the kernel follows interpreters of interpreters (fs/exec.c).
const MAX_INTERPRETERS: usize = 5;
/// How much of a file the kernel looks at for `#!` (`BINPRM_BUF_SIZE`).
const SCRIPT_HEAD: usize = 256;

/// Everything that the execve(2) needs, ready.
#[derive(Debug)]
pub(super) struct Command {
    name: String,
    /// Paths to try, in order (execvp(3)).
    candidates: Vec<CString>,
    /// Those of them that lead through a magic link.
    refused: Vec<CString>,
    argv: CStringArray,
    env: CStringArray,
    identity: Identity,
    /// setgroups(2) works and is to be used.
    setgroups: bool,
    workdir: OwnedFd,
    restrictions: Restrictions,
    /// The slave of the command's pty.
    terminal: Option<OwnedFd>,
    /// It is started below init, not in its place.
    below_init: bool,
    ulimits: Vec<Ulimit>,
}

impl Command {
    /// Prepares `step`. Runs in init, after the root has been changed.
    pub(super) fn prepare(
        step: &ExecStep,
        terminal: Option<OwnedFd>,
        setgroups: bool,
    ) -> Result<Self, StepFailure> {
        let Some(name) = step.argv.first() else {
            return Err(StepFailure::new(
                "start",
                "the command",
                &io::Error::from_raw_os_error(libc::EINVAL),
            ));
        };
        let root = open_directory(rustix::fs::CWD, Path::new("/"), ResolveFlags::empty())
            .map_err(|error| StepFailure::new("open", "/", &error.into()))?;
        let identity = users::resolve_beneath(root.as_fd(), &step.user, &step.groups)?;
        let workdir = step.workdir.as_deref().unwrap_or(Path::new("/"));
        let workdir = make_workdir(root.as_fd(), workdir, &identity).map_err(|error| {
            StepFailure::new(
                "enter the working directory",
                workdir.to_string_lossy(),
                &error.into(),
            )
        })?;
        let mut env = step.env.clone();
        if !env.iter().any(|(key, _)| key == "HOME") {
            env.push(("HOME".into(), identity.home.clone()));
        }
        let path = env
            .iter()
            .find(|(key, _)| key == "PATH")
            .map_or(OsStr::new(DEFAULT_PATH), |(_, value)| value);
        let candidates = candidates(name, path)?;
        let is_magic =
            |path: &&CString| refuse_magic_links(workdir.as_fd(), path, MAX_INTERPRETERS).is_err();
        let refused = candidates.iter().filter(is_magic).cloned().collect();
        Ok(Self {
            name: name.to_string_lossy().into_owned(),
            candidates,
            refused,
            argv: c_strings(step.argv.iter().cloned(), "the command's arguments")?,
            env: c_strings(
                env.into_iter().map(|(key, value)| assignment(key, &value)),
                "the environment",
            )?,
            identity,
            setgroups,
            workdir,
            restrictions: Restrictions::prepare(step, root.as_fd())?,
            terminal,
            below_init: step.init,
            ulimits: step.ulimits.clone(),
        })
    }

    /// Whether init stays to look after it.
    pub(super) fn is_below_init(&self) -> bool {
        self.below_init
    }

    /// Becomes the command, after `last`, when nothing of this process changes any more
    /// but its program. On failure the parent is told and the process exits as podman's
    /// would.
    pub(super) fn exec(
        self,
        channel: &Channel,
        last: impl FnOnce() -> Result<(), StepFailure>,
    ) -> ! {
        let (message, code) = match self.try_exec(channel, last) {
            Ok((candidate, error)) => {
                let errno = error.raw_os_error().unwrap_or(libc::EIO);
                let code = if is_not_found(errno) {
                    EXIT_NOT_FOUND
                } else {
                    EXIT_NOT_EXECUTABLE
                };
                (
                    FromInit::ExecFailed {
                        errno,
                        command: candidate,
                    },
                    code,
                )
            }
            Err(failure) => (FromInit::Failed(failure), EXIT_RUNTIME),
        };
        // Where the parent is gone there is nobody left to tell.
        let _ = channel.send(&message);
        sys::process::exit(code)
    }

    /// `Ok` is a failure of the execve(2) itself, `Err` one of a step before.
    fn try_exec(
        &self,
        channel: &Channel,
        last: impl FnOnce() -> Result<(), StepFailure>,
    ) -> Result<(String, io::Error), StepFailure> {
        let fail = |step: &'static str, object: String| {
            move |error: Errno| StepFailure::new(step, object, &error.into())
        };
        let Identity {
            uid, gid, groups, ..
        } = &self.identity;
        // Its own session in every case: no terminal of the host is its
        // controlling one, so it can push no input into it (TIOCSTI).
        // Init has one already.
        if self.below_init {
            rustix::process::setsid().map_err(fail("make a session for", self.name.clone()))?;
        }
        if let Some(terminal) = &self.terminal {
            self.adopt(terminal)
                .map_err(fail("attach the terminal of", self.name.clone()))?;
        }
        if let Err(error) = sys::keyring::join_new_session()
            && error.raw_os_error() != Some(libc::ENOSYS)
        {
            let warning = format!("the container keeps the caller's session keyring: {error}");
            let _ = channel.send(&FromInit::Warning(warning));
        }
        rustix::process::umask(Mode::from_raw_mode(0o022));
        self.restrictions.before_setuid()?;
        if self.setgroups {
            let groups: Vec<Gid> = groups.iter().copied().map(Gid::from_raw).collect();
            rustix::thread::set_thread_groups(&groups)
                .map_err(fail("set the supplementary groups of", self.name.clone()))?;
        }
        let id = Gid::from_raw(*gid);
        rustix::thread::set_thread_res_gid(id, id, id)
            .map_err(fail("set the group id", gid.to_string()))?;
        let id = Uid::from_raw(*uid);
        rustix::thread::set_thread_res_uid(id, id, id)
            .map_err(fail("set the user id", uid.to_string()))?;
        self.enter_workdir()
            .map_err(fail("enter the working directory of", self.name.clone()))?;
        sys::fd::close_all_on_exec()
            .map_err(|error| StepFailure::new("close the descriptors of", &self.name, &error))?;
        sys::signal::set_mask(SignalSet::EMPTY)
            .map_err(|error| StepFailure::new("unblock the signals of", &self.name, &error))?;
        rlimits::set(&self.ulimits)?;
        self.restrictions.after_setuid(*uid == 0)?;
        last()?;
        Ok(self.execvp())
    }

    /// Makes the pty the controlling terminal and the three standard streams.
    fn adopt(&self, terminal: &OwnedFd) -> Result<(), Errno> {
        rustix::process::ioctl_tiocsctty(terminal)?;
        rustix::stdio::dup2_stdin(terminal)?;
        rustix::stdio::dup2_stdout(terminal)?;
        rustix::stdio::dup2_stderr(terminal)?;
        // So that the user can open it again by name, as login(1) does.
        rustix::fs::fchown(terminal, Some(Uid::from_raw(self.identity.uid)), None)
    }

    /// Changes the directory, and makes sure that it is one of the container: a
    /// path from outside shows as "(unreachable)" (getcwd(2)).
    fn enter_workdir(&self) -> Result<(), Errno> {
        rustix::process::fchdir(&self.workdir)?;
        match rustix::process::getcwd(Vec::new())?.as_bytes() {
            [b'/', ..] => Ok(()),
            _ => Err(Errno::XDEV),
        }
    }

    /// Tries each candidate as execvp(3) does; returns the one to complain about.
    fn execvp(&self) -> (String, io::Error) {
        let mut failure = (
            self.name.clone(),
            io::Error::from_raw_os_error(libc::ENOENT),
        );
        for candidate in &self.candidates {
            let error = if self.refused.contains(candidate) {
                io::Error::from_raw_os_error(libc::ELOOP)
            } else {
                sys::exec::execve(candidate, &self.argv, &self.env)
            };
            match error.raw_os_error() {
                Some(errno) if is_not_found(errno) => {}
                // Another directory may have one that is allowed.
                Some(libc::EACCES) => failure = (candidate.to_string_lossy().into_owned(), error),
                _ => return (candidate.to_string_lossy().into_owned(), error),
            }
        }
        failure
    }
}

/// Whether `errno` of execve(2) means that there is no such command.
pub(super) fn is_not_found(errno: i32) -> bool {
    matches!(errno, libc::ENOENT | libc::ENOTDIR)
}

/// The paths that execvp(3) tries for `name`.
fn candidates(name: &OsStr, path: &OsStr) -> Result<Vec<CString>, StepFailure> {
    let name = name.as_bytes();
    let paths: Vec<Vec<u8>> = if name.is_empty() {
        Vec::new()
    } else if name.contains(&b'/') {
        vec![name.to_vec()]
    } else {
        path.as_bytes()
            .split(|byte| *byte == b':')
            .map(|dir| if dir.is_empty() { &b"."[..] } else { dir })
            .map(|dir| [dir, b"/", name].concat())
            .collect()
    };
    paths
        .into_iter()
        .map(|path| c_string(path, "the command"))
        .collect()
}

/// Fails with `ELOOP` where `path`, or the interpreter that a script names there,
/// leads through a magic link. Whatever else is wrong with it, execve(2) will say.
fn refuse_magic_links(
    dir: BorrowedFd<'_>,
    path: &std::ffi::CStr,
    depth: usize,
) -> Result<(), Errno> {
    let resolve = ResolveFlags::NO_MAGICLINKS;
    let open =
        |flags| rustix::fs::openat2(dir, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve);
    let found = match open(OFlags::PATH) {
        Ok(found) => found,
        Err(Errno::LOOP) => return Err(Errno::LOOP),
        Err(_) => return Ok(()),
    };
    let is_file =
        |stat: rustix::fs::Stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
    if depth == 0 || !rustix::fs::fstat(&found).is_ok_and(is_file) {
        return Ok(());
    }
    let Ok(file) = open(OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY) else {
        return Ok(());
    };
    let mut head = [0; SCRIPT_HEAD];
    let length = rustix::io::read(&file, &mut head)?;
    match head.get(..length).and_then(interpreter) {
        Some(interpreter) => refuse_magic_links(dir, &interpreter, depth - 1),
        None => Ok(()),
    }
}

/// The interpreter that a script's first line names (execve(2)).
fn interpreter(head: &[u8]) -> Option<CString> {
    let line = head
        .strip_prefix(b"#!")?
        .split(|byte| *byte == b'\n')
        .next()?;
    let word = line
        .split(|byte| matches!(byte, b' ' | b'\t' | 0))
        .find(|word| !word.is_empty())?;
    CString::new(word).ok()
}

/// Opens the working directory, making what is missing of it. What is made
/// belongs to the user; `..` and links stay beneath the root.
fn make_workdir(root: BorrowedFd<'_>, path: &Path, owner: &Identity) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    match open_directory(root, path, resolve) {
        Err(Errno::NOENT) => {}
        result => return result,
    }
    let mut parent = root.try_clone_to_owned().map_err(|_| Errno::MFILE)?;
    let mut so_far = std::path::PathBuf::from("/");
    for component in path.components() {
        let name = match component {
            Component::Normal(name) => name,
            Component::ParentDir => return Err(Errno::NOENT),
            _ => continue,
        };
        so_far.push(name);
        match rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755)) {
            Ok(()) => {
                let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
                rustix::fs::chownat(
                    &parent,
                    name,
                    Some(uid),
                    Some(gid),
                    AtFlags::SYMLINK_NOFOLLOW,
                )?;
            }
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error),
        }
        // From the root each time, so that a link on the way is followed in it.
        parent = open_directory(root, &so_far, resolve)?;
    }
    Ok(parent)
}

fn open_directory(
    dir: BorrowedFd<'_>,
    path: &Path,
    resolve: ResolveFlags,
) -> Result<OwnedFd, Errno> {
    rustix::fs::openat2(
        dir,
        path,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
        resolve,
    )
}

fn assignment(key: OsString, value: &OsStr) -> OsString {
    let mut text = key;
    text.push("=");
    text.push(value);
    text
}

fn c_string(bytes: Vec<u8>, object: &str) -> Result<CString, StepFailure> {
    CString::new(bytes).map_err(|_| {
        StepFailure::new(
            "pass on",
            object,
            &io::Error::from_raw_os_error(libc::EINVAL),
        )
    })
}

fn c_strings(
    strings: impl Iterator<Item = OsString>,
    object: &str,
) -> Result<CStringArray, StepFailure> {
    let strings: Result<Vec<CString>, StepFailure> =
        strings.map(|s| c_string(s.into_vec(), object)).collect();
    Ok(CStringArray::new(strings?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        let (uid, gid) = (
            rustix::process::geteuid().as_raw(),
            rustix::process::getegid().as_raw(),
        );
        Identity {
            uid,
            gid,
            groups: vec![],
            home: "/".into(),
        }
    }

    /// A directory of the test's own, removed at the end.
    struct Scratch(std::path::PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path =
                std::env::temp_dir().join(format!("crun-lite-exec-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn open(&self) -> OwnedFd {
            open_directory(rustix::fs::CWD, &self.0, ResolveFlags::empty()).unwrap()
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn commands_are_looked_for_as_execvp_does() {
        let tried = |name: &str, path: &str| candidates(name.as_ref(), path.as_ref()).unwrap();
        assert_eq!(
            tried("sh", "/a::/b"),
            [c"/a/sh".to_owned(), c"./sh".into(), c"/b/sh".into()]
        );
        assert_eq!(tried("./sh", "/a"), [c"./sh".to_owned()]);
        assert_eq!(tried("", "/a"), Vec::<CString>::new());
        assert!(candidates("a\0b".as_ref(), "/a".as_ref()).is_err());
    }

    #[test]
    fn interpreters_are_read_as_the_kernel_does() {
        assert_eq!(interpreter(b"#! \t/bin/sh -e\nx"), Some(c"/bin/sh".into()));
        assert_eq!(
            interpreter(b"#!/proc/self/exe\0"),
            Some(c"/proc/self/exe".into())
        );
        assert_eq!(interpreter(b"#!\n/bin/sh"), None);
        assert_eq!(interpreter(b"\x7fELF"), None);
    }

    #[test]
    fn the_runtime_itself_is_no_command() {
        let scratch = Scratch::new("magic");
        let write = |name: &str, text: &str| std::fs::write(scratch.0.join(name), text).unwrap();
        write("direct", "#!/proc/self/exe\n");
        write(
            "nested",
            &format!("#! {}\n", scratch.0.join("direct").display()),
        );
        write("fine", "#!/bin/sh\n");
        std::os::unix::fs::symlink("/proc/self/exe", scratch.0.join("link")).unwrap();
        let dir = scratch.open();
        let check = |path| refuse_magic_links(dir.as_fd(), path, MAX_INTERPRETERS);
        for path in [c"/proc/self/exe", c"./direct", c"./nested", c"./link"] {
            assert_eq!(check(path), Err(Errno::LOOP), "{path:?}");
        }
        for path in [c"./fine", c"./missing", c".", c"/bin/sh"] {
            assert_eq!(check(path), Ok(()), "{path:?}");
        }
    }

    #[test]
    fn workdirs_are_made_and_stay_beneath_the_root() {
        let scratch = Scratch::new("workdir");
        std::os::unix::fs::symlink("/elsewhere", scratch.0.join("link")).unwrap();
        std::os::unix::fs::symlink("/proc/self/cwd", scratch.0.join("cwd")).unwrap();
        let root = scratch.open();
        let make = |path: &str| make_workdir(root.as_fd(), Path::new(path), &identity());
        make("/a/b/c").unwrap();
        let outside = scratch.0.file_name().unwrap().to_str().unwrap().to_owned() + "-x";
        make(&format!("/a/../../../{outside}")).unwrap_err();
        make("/a/../a/b").unwrap();
        assert!(scratch.0.join("a/b/c").is_dir());
        assert!(!scratch.0.with_file_name(outside).exists());
        std::fs::create_dir(scratch.0.join("elsewhere")).unwrap();
        make("/link/in").unwrap();
        assert!(scratch.0.join("elsewhere/in").is_dir());
        std::fs::write(scratch.0.join("file"), "").unwrap();
        assert_eq!(make("/file").unwrap_err(), Errno::NOTDIR);
        let here = open_directory(rustix::fs::CWD, Path::new("/"), ResolveFlags::empty()).unwrap();
        let magic = make_workdir(here.as_fd(), Path::new("/proc/self/fd/0"), &identity());
        assert_eq!(magic.unwrap_err(), Errno::LOOP);
    }
}
