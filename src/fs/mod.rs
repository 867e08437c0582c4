//! Carries out the file-system steps of a plan.
//!
//! # Theory of operation
//!
//! An [`Executor`] runs in the container's init: in a mount namespace of its
//! own, and in most cases in a user namespace of its own, where it is root.
//! What it has to reckon with:
//!
//! * **The root filesystem may be hostile.** Any path in it can be a link, and
//!   another process may change it while we work. So every target is resolved
//!   by the kernel beneath an fd of the new root (openat2(2) with
//!   `RESOLVE_IN_ROOT` and `RESOLVE_NO_MAGICLINKS`), missing parts are made on
//!   the fds of their parents, and mounts go on the fd that was found
//!   (move_mount(2)), never on a path. procfs, sysfs and `/dev` tolerate no
//!   link at all in their path, and what is masked in them is looked up
//!   beneath the mount that we made, not beneath the name it was mounted at.
//! * **Devices come from the host**, and are what they claim to be: each is
//!   opened by fd and its device number compared before it is used.
//! * **The host's mounts are locked** when the user namespace is new
//!   (mount_namespaces(7)): copies are recursive, attributes are only added.
//! * **Linux 6.1 cannot copy out of, or mount onto, a tree that is not
//!   attached** to the namespace. So the first step that needs a root makes a
//!   private tmpfs, the stage, and pivots into it. From then until
//!   [`Step::PivotRoot`] the process's `/` is that stage, and host paths are
//!   resolved beneath an fd of the host's root. Whatever opens a host path by
//!   name must therefore come before it in the plan.
//! * **No trace.** The last step pivots into the finished tree and detaches
//!   the stage with the host's tree below it. No directory was made for it,
//!   and only mounts of the container are left.
//!
//! The umask is 0 in between, so that modes are what the plan says.

mod accounts;
mod copy_up;
mod cover;
mod create;
mod dev;
pub mod idmapped;
mod kernel;
mod mount;
pub mod probe;
mod root;
mod stage;
#[cfg(test)]
mod tests;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::{Errno, Result as SysResult};
use rustix::mount::MountAttrFlags;

use crate::config::{Account, DeviceNode, MountFlags, Propagation, Tmpfs};
use crate::error::StepFailure;
use crate::plan::Step;
use crate::sys::mount::{MountChange, PropagationType, mount_setattr};
pub use kernel::Origin;
use mount::{Depth, Opt, attach, attributes, copy_mount, new_mount, restrict};
use root::{Missing, Root, RootKind};
use stage::Stage;

/// The container's terminal: a pair from its own devpts.
#[derive(Debug)]
pub struct Pty {
    /// The end that the parent reads and writes.
    pub master: OwnedFd,
    /// The end that becomes the command's controlling terminal.
    pub slave: OwnedFd,
}

/// Carries out the file-system steps of a plan, in their order.
#[derive(Debug)]
pub struct Executor {
    umask: Mode,
    tree: Option<Tree>,
    outer_proc: bool,
    pty: Option<Pty>,
    warnings: Vec<String>,
    /// Mounts that are mounted nowhere yet, by where they are to be.
    held: Vec<(PathBuf, OwnedFd)>,
}

/// A root that is being put together.
#[derive(Debug)]
struct Tree {
    stage: Stage,
    root: Root,
}

impl Executor {
    /// Nothing is mounted yet; the umask of the process is 0 from here until
    /// [`Step::PivotRoot`] restores it. `made` are mounts that the parent has made, by
    /// where they are to be ([`idmapped`]).
    pub fn new(made: Vec<(PathBuf, OwnedFd)>) -> Self {
        Self {
            umask: rustix::process::umask(Mode::empty()),
            tree: None,
            outer_proc: false,
            pty: None,
            warnings: Vec::new(),
            held: made,
        }
    }

    /// Carries out one step. After a failure the namespace is of no more use.
    ///
    /// # Errors
    /// What failed. `EINVAL` for a step that is none of the file system's, or
    /// that comes before the root it needs.
    pub fn step(&mut self, step: &Step) -> Result<(), StepFailure> {
        match step {
            Step::PrivateMounts => {
                make_private().map_err(failed("make the mounts private", Path::new("/")))
            }
            Step::RootTmpfs => self
                .root_tmpfs()
                .map_err(failed("mount tmpfs", Path::new("root"))),
            Step::RootBind {
                source,
                nosuid,
                read_only,
            } => {
                let flags = MountFlags {
                    // The container's devices are mounts of their own.
                    nodev: true,
                    nosuid: *nosuid,
                    read_only: *read_only,
                    noexec: false,
                    noatime: false,
                };
                self.root_bind(source, flags)
                    .map_err(failed("bind the root", source))
            }
            Step::Create { target, kind } => self.with_tree(target, "create", |tree| {
                create::create(&mut tree.root, &tree.stage, target, kind)
            }),
            Step::Hold { source, target } => self
                .hold(source, target)
                .map_err(failed("take hold of", source)),
            Step::Bind {
                source,
                target,
                flags,
                propagation,
                idmap,
            } => {
                let made = self.take_held(target);
                let is_made = made.is_some();
                let wanted = *idmap || *propagation != Propagation::Private;
                self.with_tree(target, "bind", |tree| {
                    if is_made != wanted {
                        return Err(Errno::INVAL);
                    }
                    tree.bind(source, target, *flags, *propagation, made)
                })
                // Both paths matter, and either can be the wrong one.
                .map_err(|failure| StepFailure {
                    object: format!("{} on {}", source.display(), target.display()),
                    ..failure
                })
            }
            Step::Device {
                source,
                target,
                node,
                flags,
            } => self
                .with_tree(target, "bind device", |tree| {
                    tree.device(source, target, *node, *flags)
                })
                .map_err(|failure| StepFailure {
                    object: format!("{} on {}", source.display(), target.display()),
                    ..failure
                }),
            Step::Tmpfs {
                target,
                options,
                flags,
            } => self.with_tree(target, "mount tmpfs", |tree| {
                tree.tmpfs(target, options, *flags)
            }),
            Step::Proc { target } => self.proc(target),
            Step::Sysfs { target } => self.with_tree(target, "mount sysfs", |tree| {
                kernel::mount_sysfs(&mut tree.root, &mut tree.stage, target).map(|_| ())
            }),
            Step::Dev {
                target,
                console,
                shm_size,
            } => {
                let tree = self.tree_for("mount /dev", target)?;
                self.pty = dev::populate(&mut tree.root, &tree.stage, target, *console, *shm_size)?;
                Ok(())
            }
            Step::Cgroup { target } => self.with_tree(target, "mount cgroup2", |tree| {
                kernel::mount_cgroup(&mut tree.root, &mut tree.stage, target)
            }),
            Step::File { target, content } => self.file(target, content),
            Step::Account(account) => self.account(account),
            Step::Mask { target } => self.with_tree(target, "mask", |tree| {
                cover::mask(&mut tree.root, &mut tree.stage, target)
            }),
            Step::ReadOnlyPath { target } => self.with_tree(target, "make read-only", |tree| {
                cover::read_only(&mut tree.root, target)
            }),
            Step::ReadOnlyRoot => self.with_tree(Path::new("/"), "make read-only", |tree| {
                restrict(
                    tree.root.dir(),
                    MountAttrFlags::MOUNT_ATTR_RDONLY,
                    Depth::Top,
                )
            }),
            Step::PivotRoot => self
                .pivot_root()
                .map_err(failed("pivot_root", Path::new("/"))),
            Step::Sysctl {
                key,
                value,
                required,
            } => self.sysctl(key, value, *required),
            Step::Hostname { .. } | Step::Network { .. } | Step::Exec(_) => {
                Err(failed(
                    "carry out",
                    Path::new("a step that is not the file system's"),
                )(Errno::INVAL))
            }
        }
    }

    /// The terminal that [`Step::Dev`] made, once.
    pub fn take_pty(&mut self) -> Option<Pty> {
        self.pty.take()
    }

    /// What could not be done as planned and was not vital, since the last call.
    pub fn take_warnings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.warnings)
    }

    fn tree_for(&mut self, step: &'static str, target: &Path) -> Result<&mut Tree, StepFailure> {
        self.tree
            .as_mut()
            .ok_or_else(|| failed(step, target)(Errno::INVAL))
    }

    fn with_tree(
        &mut self,
        target: &Path,
        step: &'static str,
        run: impl FnOnce(&mut Tree) -> SysResult<()>,
    ) -> Result<(), StepFailure> {
        run(self.tree_for(step, target)?).map_err(failed(step, target))
    }

    /// Copies the mounts at `source` before they are cut off from their peers. The copies
    /// belong to no namespace, so that nothing reaches them but what their peers pass on.
    fn hold(&mut self, source: &Path, target: &Path) -> SysResult<()> {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let resolve = ResolveFlags::NO_MAGICLINKS;
        let source = rustix::fs::openat2(rustix::fs::CWD, source, flags, Mode::empty(), resolve)?;
        let mount = copy_mount(source, Depth::Tree)?;
        self.held.push((target.to_owned(), mount));
        Ok(())
    }

    fn take_held(&mut self, target: &Path) -> Option<OwnedFd> {
        let at = self.held.iter().position(|(held, _)| held == target)?;
        Some(self.held.swap_remove(at).1)
    }

    fn root_tmpfs(&mut self) -> SysResult<()> {
        let stage = self.new_stage()?;
        let attrs = MountAttrFlags::MOUNT_ATTR_NODEV;
        let root = new_mount("tmpfs", &[Opt::Value("mode", "755")], attrs)?;
        stage.attach_root(&root)?;
        self.tree = Some(Tree {
            stage,
            root: Root::new(root, RootKind::Tmpfs),
        });
        Ok(())
    }

    fn root_bind(&mut self, source: &Path, flags: MountFlags) -> SysResult<()> {
        let stage = self.new_stage()?;
        let source = stage.open_host(source, OFlags::PATH | OFlags::DIRECTORY)?;
        let kind = if same_file(&source, stage.host())? {
            RootKind::HostRoot
        } else {
            RootKind::Directory
        };
        let root = copy_mount(source, Depth::Tree)?;
        restrict(
            &root,
            attributes(MountFlags {
                read_only: false,
                ..flags
            }),
            Depth::Tree,
        )?;
        if flags.read_only {
            read_only_below(&root)?;
        }
        stage.attach_root(&root)?;
        self.tree = Some(Tree {
            stage,
            root: Root::new(root, kind),
        });
        Ok(())
    }

    fn new_stage(&self) -> SysResult<Stage> {
        match self.tree {
            None => Stage::enter(),
            Some(_) => Err(Errno::BUSY),
        }
    }

    fn proc(&mut self, target: &Path) -> Result<(), StepFailure> {
        const STEP: &str = "mount procfs";
        let tree = self.tree_for(STEP, target)?;
        let origin = kernel::mount_proc(&mut tree.root, &tree.stage, target)
            .map_err(failed(STEP, target))?;
        if origin == Origin::Outer {
            self.outer_proc = true;
            self.warnings.push(format!(
                "{}: the kernel refused a new procfs, so the outer one is shown",
                target.display()
            ));
        }
        Ok(())
    }

    fn file(&mut self, target: &Path, content: &[u8]) -> Result<(), StepFailure> {
        const STEP: &str = "put in place";
        let tree = self.tree_for(STEP, target)?;
        let skipped = cover::file(&mut tree.root, &mut tree.stage, target, content)
            .map_err(failed(STEP, target))?;
        if let Some(reason) = skipped {
            self.warnings
                .push(format!("{}: left as it is: {reason}", target.display()));
        }
        Ok(())
    }

    fn account(&mut self, account: &Account) -> Result<(), StepFailure> {
        const STEP: &str = "make known the user";
        let tree = self.tree_for(STEP, Path::new(&account.name))?;
        let skipped = accounts::add(&mut tree.root, &mut tree.stage, account)
            .map_err(failed(STEP, &account.name))?;
        self.warnings.extend(
            skipped
                .into_iter()
                .map(|(path, why)| format!("{path}: left without {}: {why}", account.name)),
        );
        Ok(())
    }

    fn sysctl(&mut self, key: &str, value: &str, required: bool) -> Result<(), StepFailure> {
        let proc = self
            .tree
            .as_ref()
            .and_then(|tree| tree.root.anchor(Path::new("/proc")));
        let written = match proc {
            // The file is the host's root's to write, the call is our root's.
            _ if key == "kernel.domainname" => rustix::system::setdomainname(value.as_bytes()),
            Some(proc) => kernel::write_sysctl(proc, key, value),
            None => Err(Errno::NOENT),
        };
        match written {
            // The outer procfs may be read-only, or of another container.
            Err(error @ (Errno::ROFS | Errno::ACCESS | Errno::PERM | Errno::XDEV))
                if self.outer_proc && !required =>
            {
                let reason = std::io::Error::from(error);
                self.warnings
                    .push(format!("sysctl {key}: left as it is: {reason}"));
                Ok(())
            }
            written => written.map_err(failed("set sysctl", Path::new(key))),
        }
    }

    fn pivot_root(&mut self) -> SysResult<()> {
        let Tree { stage, root } = self.tree.take().ok_or(Errno::INVAL)?;
        stage.leave(&root)?;
        rustix::process::umask(self.umask);
        Ok(())
    }
}

impl Tree {
    /// Binds `source`, or `made` where that is a copy of it.
    fn bind(
        &mut self,
        source: &Path,
        target: &Path,
        flags: MountFlags,
        propagation: Propagation,
        made: Option<OwnedFd>,
    ) -> SysResult<()> {
        let source = match made {
            Some(ref made) => made,
            None => &self.stage.open_host(source, OFlags::PATH)?,
        };
        let missing = match FileType::from_raw_mode(rustix::fs::fstat(source)?.st_mode) {
            FileType::Directory => Missing::Directory,
            _ => Missing::File,
        };
        let place = self.root.mount_point(target, missing)?;
        let mount = match made {
            Some(made) => made,
            None => copy_mount(source, Depth::Tree)?,
        };
        restrict(&mount, attributes(flags), Depth::Tree)?;
        let propagation = match propagation {
            Propagation::Private => None,
            Propagation::Slave => Some(PropagationType::Slave),
            Propagation::Shared => Some(PropagationType::Shared),
        };
        if propagation.is_some() {
            let change = MountChange {
                propagation,
                recursive: true,
                ..MountChange::default()
            };
            mount_setattr(&mount, &change)?;
        }
        attach(mount, place)
    }

    fn device(
        &mut self,
        source: &Path,
        target: &Path,
        node: DeviceNode,
        flags: MountFlags,
    ) -> SysResult<()> {
        let source = self.stage.open_device(source, node)?;
        let place = self.root.mount_point(target, Missing::File)?;
        let mount = copy_mount(source, Depth::Top)?;
        restrict(&mount, attributes(flags), Depth::Top)?;
        attach(mount, place)
    }

    fn tmpfs(&mut self, target: &Path, options: &Tmpfs, flags: MountFlags) -> SysResult<()> {
        let place = self.root.mount_point(target, Missing::Directory)?;
        let Tmpfs { mode, copy_up, .. } = *options;
        let shown = format!("{:o}", mode.unwrap_or(Tmpfs::MODE));
        let number = |number: Option<u64>| number.map(|number| number.to_string());
        let values = [
            ("mode", Some(shown)),
            ("size", number(options.size)),
            ("nr_inodes", number(options.inodes)),
            ("uid", number(options.uid.map(u64::from))),
            ("gid", number(options.gid.map(u64::from))),
        ];
        let options: Vec<Opt<'_>> = values
            .iter()
            .filter_map(|(key, value)| Some(Opt::Value(key, value.as_deref()?)))
            .collect();
        if !copy_up {
            return attach(new_mount("tmpfs", &options, attributes(flags))?, place);
        }
        let writable = MountFlags {
            read_only: false,
            ..flags
        };
        let mount = new_mount("tmpfs", &options, attributes(writable))?;
        copy_up::copy_up(&place, &mount, mode.is_none())?;
        if flags.read_only {
            restrict(&mount, MountAttrFlags::MOUNT_ATTR_RDONLY, Depth::Top)?;
        }
        attach(mount, place)
    }
}

/// Cuts every mount off from its peers, so that nothing propagates either way.
fn make_private() -> SysResult<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open("/", flags, Mode::empty())?;
    mount_setattr(
        root,
        &MountChange {
            propagation: Some(PropagationType::Private),
            recursive: true,
            ..MountChange::default()
        },
    )
}

/// Makes everything that is mounted below `root` read-only, but not `root`,
/// in which mount points may still have to be made.
fn read_only_below(root: &OwnedFd) -> SysResult<()> {
    let was_read_only = rustix::fs::fstatvfs(root)?
        .f_flag
        .contains(rustix::fs::StatVfsMountFlags::RDONLY);
    restrict(root, MountAttrFlags::MOUNT_ATTR_RDONLY, Depth::Tree)?;
    if was_read_only {
        return Ok(());
    }
    let clear = MountAttrFlags::MOUNT_ATTR_RDONLY;
    mount_setattr(
        root,
        &MountChange {
            clear,
            ..MountChange::default()
        },
    )
}

fn same_file(one: &OwnedFd, other: &OwnedFd) -> SysResult<bool> {
    let (one, other) = (rustix::fs::fstat(one)?, rustix::fs::fstat(other)?);
    Ok(one.st_dev == other.st_dev && one.st_ino == other.st_ino)
}

/// Turns the error of a system call into the failure of a step.
fn failed(step: &'static str, object: impl AsRef<Path>) -> impl FnOnce(Errno) -> StepFailure {
    move |error| StepFailure::new(step, object.as_ref().display().to_string(), &error.into())
}
