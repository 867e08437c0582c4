//! Options compiled to an ordered list of steps, which `--dry-run` prints and
//! the container's init carries out.
//!
//! Compiling is pure: it reads nothing and changes nothing.

mod display;
mod step;

pub use step::{ExecStep, FileKind, MountFlags, Plan, Step};
