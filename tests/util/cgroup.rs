//! Cgroups of a test's own, in which the program runs: what it makes can be seen there,
//! and must not be left there.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use crun_lite::cgroup::{self, Hierarchy};

use super::{CrunLite, SOON, Who, report};

/// A part of the host's cgroups that belongs to the program's user.
pub(crate) struct Cell {
    who: Who,
    /// Where the program makes its cgroups: with v1 one for each controller.
    dirs: Vec<PathBuf>,
    /// Where the program itself is put.
    homes: Vec<PathBuf>,
    pub(crate) unified: bool,
}

impl Cell {
    /// One with these controllers, by their names in v2. `alone`: the program is the only
    /// process in it, and nothing above it is an ordinary user's. The error says what is missing.
    pub(crate) fn new(who: Who, controllers: &[&str], alone: bool) -> Result<Self, String> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("cell-{}-{number}", std::process::id());
        let found = cgroup::look();
        let mut cell = Self {
            who,
            dirs: Vec::new(),
            homes: Vec::new(),
            unified: found.hierarchy == Hierarchy::V2,
        };
        if !cell.unified {
            for &controller in controllers {
                let v1 = if controller == "io" {
                    "blkio"
                } else {
                    controller
                };
                let own = found.v1.iter().find(|one| one.name == v1 && one.writable);
                let own = own.ok_or_else(|| format!("no controller {v1} to make cgroups of"))?;
                cell.make(&own.dir, &name)?;
            }
            cell.homes.clone_from(&cell.dirs);
            return Ok(cell);
        }
        let top = found.delegated.ok_or("no part of the cgroups is ours")?.dir;
        pass_on(&top, controllers)?;
        cell.make(&top, &name)?;
        cell.homes.clone_from(&cell.dirs);
        if alone && who == Who::Root {
            // As systemd does it; without that what is above would do for root.
            let flags = rustix::fs::XattrFlags::empty();
            rustix::fs::setxattr(top.join(&name), "user.delegate", b"1", flags)
                .map_err(|error| format!("no mark of delegation: {error}"))?;
        }
        if !alone {
            let dir = top.join(&name);
            pass_on(&dir, controllers)?;
            fs::create_dir(dir.join("main")).map_err(|error| error.to_string())?;
            cell.homes = vec![dir.join("main")];
            cell.give(&dir.join("main"));
        }
        Ok(cell)
    }

    fn make(&mut self, parent: &Path, name: &str) -> Result<(), String> {
        let dir = parent.join(name);
        fs::create_dir(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        // A cpuset of v1 begins empty.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if !self.unified
                && let Ok(above) = fs::read_to_string(parent.join(file))
            {
                fs::write(dir.join(file), above).unwrap();
            }
        }
        self.give(&dir);
        self.dirs.push(dir);
        Ok(())
    }

    fn give(&self, dir: &Path) {
        self.who.own(dir);
        for file in ["cgroup.procs", "cgroup.subtree_control", "cgroup.threads"] {
            if dir.join(file).exists() {
                self.who.own(&dir.join(file));
            }
        }
    }

    /// `crun-lite run ARGS`, in it.
    pub(crate) fn crun(&self, args: &[&str]) -> CrunLite {
        let mut script = String::new();
        for home in &self.homes {
            script += &format!("echo $$ >{}/cgroup.procs && ", home.display());
        }
        script += "exec \"$@\"";
        self.who.crun(args).outermost(&["sh", "-c", &script, "sh"])
    }

    /// The cgroups that the program has in it now.
    pub(crate) fn made(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut dirs = self.dirs.clone();
        while let Some(dir) = dirs.pop() {
            let Ok(entries) = fs::read_dir(&dir) else {
                continue;
            };
            for entry in entries.filter_map(Result::ok) {
                if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    continue;
                }
                if entry
                    .file_name()
                    .to_string_lossy()
                    .starts_with("crun-lite-")
                {
                    found.push(entry.path());
                }
                dirs.push(entry.path());
            }
        }
        found
    }

    /// Writes a file of its own, where the program is not yet.
    pub(crate) fn set(&self, name: &str, value: &str) -> std::io::Result<()> {
        self.dirs
            .iter()
            .try_for_each(|dir| fs::write(dir.join(name), value))
    }

    /// What a file of the container's cgroup says.
    pub(crate) fn file(&self, name: &str) -> Option<String> {
        let made = self.made().into_iter();
        // Not where the program itself is meanwhile.
        let containers = made.filter(|dir| !dir.to_string_lossy().ends_with("-runtime"));
        let files = containers.map(|dir| dir.join(name));
        let text = files
            .filter_map(|path| fs::read_to_string(path).ok())
            .next()?;
        Some(text.trim_end().to_owned())
    }

    /// Nothing of the program may be in it.
    #[track_caller]
    pub(crate) fn assert_empty(&self) {
        assert_eq!(self.made(), Vec::<PathBuf>::new());
    }
}

/// Has `dir` pass controllers on to those below.
fn pass_on(dir: &Path, controllers: &[&str]) -> Result<(), String> {
    for controller in controllers {
        fs::write(dir.join("cgroup.subtree_control"), format!("+{controller}"))
            .map_err(|error| format!("no controller {controller} in {}: {error}", dir.display()))?;
    }
    Ok(())
}

impl Drop for Cell {
    fn drop(&mut self) {
        let end = std::time::Instant::now() + SOON;
        for dir in self
            .made()
            .iter()
            .rev()
            .chain(&self.homes)
            .chain(&self.dirs)
        {
            // What has just been killed may still be in it.
            while let Err(error) = fs::remove_dir(dir) {
                if error.kind() == std::io::ErrorKind::NotFound {
                    break;
                }
                if std::time::Instant::now() > end {
                    report(&format!("{}: {error}", dir.display()));
                    break;
                }
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
        }
    }
}
