//! The container's cgroup, as a part of the plan.

use std::fmt::{self, Display, Formatter};
use std::path::PathBuf;

use serde::Serialize;

/// What the container's cgroup is called by the plan; the name has our process id.
const NAME: &str = "crun-lite-PID";

/// Which version of cgroups(7) limits the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum CgroupVersion {
    /// Controllers with a tree each.
    V1,
    /// One tree.
    V2,
}

/// The container's cgroup: with v1 a directory in each tree that has a limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CgroupPlan {
    /// Of which version.
    pub version: CgroupVersion,
    /// What to make; with v2 one.
    pub dirs: Vec<CgroupDir>,
    /// The memory limit, bytes.
    pub memory: Option<u64>,
}

/// One directory of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CgroupDir {
    /// Where it is made.
    pub parent: PathBuf,
    /// Our own process is all that there is in `parent`, and has to leave it for a cgroup
    /// below it first (v2).
    pub step_aside: bool,
    /// Controllers that `parent` does not pass on yet (v2).
    pub enable: Vec<String>,
    /// What is written into it, in order.
    pub files: Vec<CgroupFile>,
}

/// A limit of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CgroupFile {
    /// The option that it comes of.
    pub option: &'static str,
    /// Names and values; the first file that there is gets its value.
    pub choices: Vec<(&'static str, String)>,
    /// There need be none.
    pub optional: bool,
}

impl Display for CgroupDir {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let parent = self.parent.display();
        if self.step_aside {
            write!(f, "move ourselves to {parent}/{NAME}-runtime, ")?;
        }
        if !self.enable.is_empty() {
            write!(f, "pass {} on below {parent}, ", self.enable.join(", "))?;
        }
        write!(f, "make the cgroup {parent}/{NAME}")?;
        for (index, file) in self.files.iter().enumerate() {
            f.write_str(if index == 0 { ": " } else { ", " })?;
            for (index, (name, value)) in file.choices.iter().enumerate() {
                let or = if index == 0 { "" } else { " or " };
                write!(f, "{or}{name}={value}")?;
            }
        }
        Ok(())
    }
}
