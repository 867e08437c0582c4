//! The old hierarchies: where the container's directories go, and the files of its
//! limits (the kernel's Documentation/admin-guide/cgroup-v1/).

use std::fs;
use std::path::Path;

use super::design::{Wanted, check_list, file, limit};
use super::discover::{Cgroups, V1};
use super::remedy;
use crate::config::{Limits, MemorySwap};
use crate::error::Error;
use crate::plan::{CgroupDir, CgroupFile, CgroupPlan, CgroupVersion};

pub(super) fn design(
    limits: &Limits,
    wanted: &[Wanted],
    cgroups: &Cgroups,
    root: bool,
) -> Result<CgroupPlan, Error> {
    let mut dirs: Vec<CgroupDir> = Vec::new();
    for &(name, option) in wanted {
        // io has another name here.
        let name = if name == "io" { "blkio" } else { name };
        let found = cgroups.v1.iter().find(|controller| controller.name == name);
        let Some(V1 { dir, writable, .. }) = found else {
            let cause = format!("the controller {name} of cgroup v1 is not mounted");
            let remedy = format!(
                "as root, 'mkdir -p /sys/fs/cgroup/{name}' and \
                 'mount -t cgroup -o {name} {name} /sys/fs/cgroup/{name}'"
            );
            return Err(limit(option, cause, remedy));
        };
        if !writable {
            let cause = format!(
                "the controller {name} is closed to you: {} is not writable",
                dir.display()
            );
            return Err(limit(option, cause, remedy::v1(root)));
        }
        let files = match name {
            "memory" => memory(limits),
            "cpu" => cpu(limits),
            "cpuset" => cpuset(limits, dir)?,
            "pids" => pids(limits),
            _ => blkio(limits),
        };
        // Controllers can be mounted together.
        match dirs.iter_mut().find(|known| known.parent == *dir) {
            Some(known) => known.files.extend(files),
            None => dirs.push(CgroupDir {
                parent: dir.clone(),
                step_aside: false,
                enable: Vec::new(),
                files,
            }),
        }
    }
    Ok(CgroupPlan {
        version: CgroupVersion::V1,
        memory: limits.memory,
        dirs,
    })
}

fn memory(limits: &Limits) -> Vec<CgroupFile> {
    let mut files = Vec::new();
    if let Some(memory) = limits.memory {
        files.push(file("--memory", "memory.limit_in_bytes", memory));
        // After the limit, which must not be above it.
        let both = match limits.memory_swap {
            None => memory.saturating_mul(2).to_string(),
            Some(MemorySwap::Unlimited) => "-1".to_owned(),
            Some(MemorySwap::Bytes(both)) => both.to_string(),
        };
        files.push(CgroupFile {
            // A kernel that does not count swap (swapaccount=0) has none to limit by
            // default.
            optional: limits.memory_swap.is_none(),
            ..file("--memory-swap", "memory.memsw.limit_in_bytes", both)
        });
    }
    if let Some(reservation) = limits.memory_reservation {
        let name = "memory.soft_limit_in_bytes";
        files.push(file("--memory-reservation", name, reservation));
    }
    files
}

fn cpu(limits: &Limits) -> Vec<CgroupFile> {
    let mut files = Vec::new();
    if let Some(shares) = limits.cpu_shares {
        files.push(file("--cpu-shares", "cpu.shares", shares));
    }
    if let Some(period) = limits.cpu_period {
        files.push(file("--cpu-period", "cpu.cfs_period_us", period));
    }
    if let Some(quota) = limits.cpu_quota {
        files.push(file("--cpus", "cpu.cfs_quota_us", quota));
    }
    files
}

/// A new cpuset has neither CPUs nor nodes, and takes no process before it has both:
/// what is not asked for is as above.
fn cpuset(limits: &Limits, parent: &Path) -> Result<Vec<CgroupFile>, Error> {
    let mut files = Vec::new();
    for (option, name, asked) in [
        ("--cpuset-cpus", "cpuset.cpus", &limits.cpuset_cpus),
        ("--cpuset-mems", "cpuset.mems", &limits.cpuset_mems),
    ] {
        let path = parent.join(name);
        let above = fs::read_to_string(&path).map_err(|source| Error::Cgroup {
            step: "read",
            path,
            source,
        })?;
        check_list(option, asked.as_ref(), Some(&above))?;
        let value = match asked {
            Some(list) => list.to_string(),
            None => above.trim().to_owned(),
        };
        files.push(file(option, name, value));
    }
    Ok(files)
}

fn pids(limits: &Limits) -> Vec<CgroupFile> {
    let limit = limits
        .pids
        .map(|pids| file("--pids-limit", "pids.max", pids));
    limit.into_iter().collect()
}

fn blkio(limits: &Limits) -> Vec<CgroupFile> {
    let both = |weight: u16| CgroupFile {
        option: "--blkio-weight",
        // Which of them there is depends on the kernel's disk schedulers.
        choices: vec![
            ("blkio.weight", weight.to_string()),
            ("blkio.bfq.weight", weight.to_string()),
        ],
        optional: false,
    };
    limits.blkio_weight.map(both).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::Hierarchy;
    use crate::config::NumberList;

    fn cgroups(folder: &Path) -> Cgroups {
        fs::write(folder.join("cpuset.cpus"), "0-3\n").unwrap();
        fs::write(folder.join("cpuset.mems"), "0\n").unwrap();
        let at = |name: &str, dir: &str, writable| V1 {
            name: name.to_owned(),
            dir: dir.into(),
            writable,
        };
        let folder = folder.to_str().unwrap();
        Cgroups {
            hierarchy: Hierarchy::Hybrid,
            own: None,
            handed_over: false,
            delegated: None,
            v1: vec![
                at("cpu", "/c/cpu,cpuacct", true),
                at("cpuset", folder, true),
                at("memory", "/c/memory/a", true),
                at("blkio", "/c/memory/a", true),
                at("pids", "/c/pids", false),
            ],
            systemd: false,
        }
    }

    #[test]
    fn a_directory_for_each_tree() {
        let folder = tempfile::tempdir().unwrap();
        let limits = Limits {
            memory: Some(100),
            memory_reservation: Some(50),
            cpu_quota: Some(2000),
            cpu_period: Some(1000),
            cpu_shares: Some(3),
            cpuset_cpus: NumberList::parse("1"),
            blkio_weight: Some(10),
            ..Limits::default()
        };
        let wanted = [
            ("memory", "--memory"),
            ("cpu", "--cpus"),
            ("cpuset", "--cpuset-cpus"),
            ("io", "--blkio-weight"),
        ];
        let plan = design(&limits, &wanted, &cgroups(folder.path()), false).unwrap();
        let shown: Vec<String> = plan.dirs.iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            [
                "make the cgroup /c/memory/a/crun-lite-PID: memory.limit_in_bytes=100, \
                 memory.memsw.limit_in_bytes=200, memory.soft_limit_in_bytes=50, \
                 blkio.weight=10 or blkio.bfq.weight=10"
                    .to_owned(),
                "make the cgroup /c/cpu,cpuacct/crun-lite-PID: cpu.shares=3, \
                 cpu.cfs_period_us=1000, cpu.cfs_quota_us=2000"
                    .to_owned(),
                format!(
                    "make the cgroup {}/crun-lite-PID: cpuset.cpus=1, cpuset.mems=0",
                    folder.path().display()
                ),
            ]
        );
    }

    #[test]
    fn both_together_may_be_unlimited() {
        let limits = Limits {
            memory: Some(100),
            memory_swap: Some(MemorySwap::Unlimited),
            ..Limits::default()
        };
        assert_eq!(memory(&limits)[1].choices[0].1, "-1");
        assert!(!memory(&limits)[1].optional);
    }

    #[test]
    fn what_is_missing_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let cgroups = cgroups(folder.path());
        let limits = Limits::default();
        let refused = |name, option| match design(&limits, &[(name, option)], &cgroups, false) {
            Err(Error::Limit { cause, remedy, .. }) => (cause, remedy),
            other => panic!("{other:?}"),
        };
        let (cause, remedy) = refused("pids", "--pids-limit");
        assert!(
            cause.contains("controller pids") && cause.contains("/c/pids"),
            "{cause}"
        );
        assert!(remedy.contains("v2"), "{remedy}");
        let mut bare = cgroups.clone();
        bare.v1.clear();
        let error = design(&limits, &[("memory", "--memory")], &bare, true).unwrap_err();
        assert!(error.to_string().contains("not mounted"), "{error}");
        let set = Limits {
            cpuset_cpus: NumberList::parse("3-4"),
            ..Limits::default()
        };
        let error = design(&set, &[("cpuset", "--cpuset-cpus")], &cgroups, true).unwrap_err();
        assert!(error.to_string().contains("4 cannot be had"), "{error}");
    }
}
