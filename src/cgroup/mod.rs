//! Control groups: what there is, and the container's own, which limits it.
//!
//! # Theory of operation
//!
//! A run that asks for no limit has nothing to do with cgroups. For one that does,
//! [`design()`] looks at what the host has and says what will be made, or what is missing
//! for it; nothing is changed before that. [`Cgroup::make`] makes it, the container's
//! init is cloned or moved into it before its first step, and when the container has
//! ended it is removed.
//!
//! **v2** has one tree. A part of it is delegated to a user by making its directory,
//! `cgroup.procs` and `cgroup.subtree_control` the user's (cgroups(7), "Delegation"). To
//! put a process into another cgroup one must be able to write to `cgroup.procs` of the
//! two cgroups' common ancestor, so the container's is made right below an ancestor of
//! our own cgroup that is ours: the nearest one that will do, so that what limits those
//! on the way up to it limits the container, too. What will not do is one that has
//! processes of its own, for the kernel passes controllers on to the cgroups below only
//! where there are none (the root of the tree is exempt). Our own cgroup will do where we
//! are alone in it, as in a scope or a service of systemd: we step aside then, into a
//! cgroup below it, and come back in the end. It is the first choice where systemd has
//! handed it over (`Delegate=yes`), else the last.
//! Init is cloned into it (clone3(2), `CLONE_INTO_CGROUP`), which every kernel has that
//! has the other calls that a container takes.
//!
//! **v1** has a tree for each controller, and no such rule: directories are made below
//! our own one in each tree that has a limit, and init's process id is written into
//! them. Where both versions are mounted, the controllers that v1 has are not v2's.
//!
//! A cgroup namespace has as its root the cgroup that its maker was in. Init is cloned
//! without one, and unshares it once it is in its cgroup, so that this is what
//! `/proc/self/cgroup` and `/sys/fs/cgroup` show in the container as the root.
//!
//! A directory that has been made is locked (flock(2)) for as long as anybody has it
//! open. A run that was killed has let go of its lock with its life: its [`Heir`] removes
//! what it has left, and where that was killed, too, whoever makes a cgroup later in the
//! same place removes what is named as ours and is not locked. Process ids would not do
//! for that, which are reused and differ between PID namespaces.

mod design;
mod discover;
mod handle;
mod heir;
pub mod remedy;
mod tree;
mod v1;
mod v2;

pub use design::design;
pub use discover::{Cgroups, Delegated, Hierarchy, V1, look};
pub use handle::Cgroup;
pub use heir::Heir;
