//! Options compiled to an ordered list of steps, which `--dry-run` prints and
//! the container's init carries out.
//!
//! Compiling is pure: it reads nothing and changes nothing.

mod cgroup;
mod compile;
mod display;
mod etc_files;
mod step;

pub use crate::config::MountFlags;
pub use cgroup::{CgroupDir, CgroupFile, CgroupPlan, CgroupVersion};
pub use compile::{RootSource, compile};
pub use etc_files::{EtcFiles, given_names, own_names};
pub use step::{ExecStep, FileKind, LandlockStep, LinkStep, Plan, Step};
