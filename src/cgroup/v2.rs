//! The unified hierarchy: where the container's cgroup goes, and the files of its
//! limits (the kernel's Documentation/admin-guide/cgroup-v2.rst).

use std::fs;
use std::path::Path;

use super::design::{Wanted, check_list, file, limit};
use super::discover::{Cgroups, Delegated};
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
    let option = wanted.first().map_or("--memory", |(_, option)| *option);
    let Some(own) = &cgroups.own else {
        let cause = "our own cgroup is not to be seen in this cgroup namespace";
        return Err(limit(option, cause, remedy::NAMESPACE));
    };
    let Some(Delegated { dir: top, .. }) = &cgroups.delegated else {
        let names: Vec<&str> = wanted.iter().map(|(name, _)| *name).collect();
        let cause = format!(
            "the controller {} is closed to you: neither our own cgroup, {}, nor one above it is \
             delegated to you",
            names.join(", "),
            own.display()
        );
        return Err(limit(option, cause, remedy::delegate(cgroups, root)));
    };
    let place = place(own, top, wanted, cgroups, root)?;
    let parent = place.dir;
    let effective = |name: &str| fs::read_to_string(parent.join(name)).ok();
    let cpus = effective("cpuset.cpus.effective");
    check_list(
        "--cpuset-cpus",
        limits.cpuset_cpus.as_ref(),
        cpus.as_deref(),
    )?;
    let mems = effective("cpuset.mems.effective");
    check_list(
        "--cpuset-mems",
        limits.cpuset_mems.as_ref(),
        mems.as_deref(),
    )?;
    Ok(CgroupPlan {
        version: CgroupVersion::V2,
        memory: limits.memory,
        dirs: vec![CgroupDir {
            parent: parent.to_owned(),
            step_aside: place.step_aside,
            enable: place.enable,
            files: files(limits),
        }],
    })
}

/// Where the container's cgroup is made.
struct Place<'a> {
    dir: &'a Path,
    /// Our own process has to leave it first.
    step_aside: bool,
    /// Controllers that it does not pass on yet.
    enable: Vec<String>,
}

/// The nearest cgroup from `own` up to `top` below which one with these controllers can
/// be made: what limits those above stays in force. Our own is the last, since what we
/// have it pass on stays so where we are killed, but the first where systemd has handed
/// it over: it goes with us then, and those above may change at any time. The error is
/// that of the topmost.
fn place<'a>(
    own: &'a Path,
    top: &Path,
    wanted: &[Wanted],
    cgroups: &Cgroups,
    root: bool,
) -> Result<Place<'a>, Error> {
    let at_own = || fits(own, true, wanted, cgroups, root);
    if cgroups.handed_over
        && let Ok(place) = at_own()
    {
        return Ok(place);
    }
    let mut why = None;
    let above = own.ancestors().skip(1);
    for dir in above.take_while(|dir| dir.starts_with(top)) {
        match fits(dir, false, wanted, cgroups, root) {
            Ok(place) => return Ok(place),
            Err(error) => why = Some(error),
        }
    }
    at_own().map_err(|error| why.unwrap_or(error))
}

fn fits<'a>(
    dir: &'a Path,
    is_own: bool,
    wanted: &[Wanted],
    cgroups: &Cgroups,
    root: bool,
) -> Result<Place<'a>, Error> {
    let words = |file: &str| -> Vec<String> {
        let text = fs::read_to_string(dir.join(file)).unwrap_or_default();
        text.split_whitespace().map(str::to_owned).collect()
    };
    let not_in = |words: &[String]| -> Vec<Wanted> {
        let has = |name: &str| words.iter().any(|word| word == name);
        let missing = wanted.iter().filter(|(name, _)| !has(name));
        missing.copied().collect()
    };
    let missing = not_in(&words("cgroup.controllers"));
    if let Some((_, option)) = missing.first() {
        let names: Vec<&str> = missing.iter().map(|(name, _)| *name).collect();
        let cause = format!(
            "the controller {} is not among those of the cgroup that is delegated to you, {}",
            names.join(", "),
            dir.display()
        );
        let parent = dir.parent().unwrap_or(dir);
        let remedy = remedy::pass_on(cgroups, root, parent, &names);
        return Err(limit(option, cause, remedy));
    }
    let enable = not_in(&words("cgroup.subtree_control"));
    // The root of the tree alone has no type, and may have processes and controllers.
    let is_root = !dir.join("cgroup.type").exists();
    // One with threads of its own (EOPNOTSUPP) is no better than one with processes.
    let procs = fs::read_to_string(dir.join("cgroup.procs"));
    let is_free = is_root || procs.as_deref().is_ok_and(str::is_empty);
    let alone =
        is_own && procs.is_ok_and(|procs| procs.trim_end() == std::process::id().to_string());
    if let Some((name, option)) = enable.first()
        && !is_free
        && !alone
    {
        let cause = format!(
            "the controller {name} cannot be passed on below {}, which has processes of its own",
            dir.display()
        );
        return Err(limit(option, cause, remedy::make_room(dir)));
    }
    Ok(Place {
        dir,
        step_aside: alone && !is_root,
        enable: enable.iter().map(|(name, _)| (*name).to_owned()).collect(),
    })
}

/// The files and their values.
fn files(limits: &Limits) -> Vec<CgroupFile> {
    let mut files = Vec::new();
    if let Some(memory) = limits.memory {
        files.push(file("--memory", "memory.max", memory));
        // Swap alone here, where the option is both together.
        let swap = match limits.memory_swap {
            None => memory.to_string(),
            Some(MemorySwap::Unlimited) => "max".to_owned(),
            Some(MemorySwap::Bytes(both)) => both.saturating_sub(memory).to_string(),
        };
        files.push(CgroupFile {
            // A kernel that does not count swap has none to limit by default.
            optional: limits.memory_swap.is_none(),
            ..file("--memory-swap", "memory.swap.max", swap)
        });
    }
    if let Some(reservation) = limits.memory_reservation {
        files.push(file("--memory-reservation", "memory.low", reservation));
    }
    if limits.cpu_quota.is_some() || limits.cpu_period.is_some() {
        let quota = limits.cpu_quota;
        let quota = quota.map_or_else(|| "max".to_owned(), |quota| quota.to_string());
        let value = match limits.cpu_period {
            Some(period) => format!("{quota} {period}"),
            None => quota,
        };
        files.push(file("--cpus", "cpu.max", value));
    }
    if let Some(shares) = limits.cpu_shares {
        files.push(file("--cpu-shares", "cpu.weight", cpu_weight(shares)));
    }
    if let Some(cpus) = &limits.cpuset_cpus {
        files.push(file("--cpuset-cpus", "cpuset.cpus", cpus));
    }
    if let Some(mems) = &limits.cpuset_mems {
        files.push(file("--cpuset-mems", "cpuset.mems", mems));
    }
    if let Some(pids) = limits.pids {
        files.push(file("--pids-limit", "pids.max", pids));
    }
    if let Some(weight) = limits.blkio_weight {
        files.push(CgroupFile {
            option: "--blkio-weight",
            // The file of a scheduler that counts as the option does, and that of the
            // kernel's own cost model.
            choices: vec![
                ("io.bfq.weight", weight.to_string()),
                ("io.weight", io_weight(weight).to_string()),
            ],
            optional: false,
        });
    }
    files
}

/// Shares of v1 (2 to 262144, usually 1024) as a weight of v2 (1 to 10000, usually
/// 100): the curve through these three that runc and crun use,
/// 10^((l² + 125 l) / 612 - 7 / 34) with l the binary logarithm of the shares.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "both are small numbers"
)]
fn cpu_weight(shares: u64) -> u64 {
    let log = (shares as f64).log2();
    let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
    // The curve goes through whole numbers there, where a float may be a hair above.
    let weight = (10_f64.powf(exponent) - 1e-6).ceil() as u64;
    weight.clamp(1, 10_000)
}

/// A weight of 10 to 1000 on the scale of 1 to 10000, linear, as runc and crun do it.
fn io_weight(weight: u16) -> u64 {
    1 + (u64::from(weight).saturating_sub(10)) * 9999 / 990
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::Hierarchy;
    use crate::config::NumberList;

    fn shown(limits: &Limits) -> String {
        let files = files(limits);
        let shown = files
            .iter()
            .flat_map(|file| &file.choices)
            .map(|(name, value)| format!("{name}={value}"));
        shown.collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn weights() {
        for (shares, weight) in [(2, 1), (1024, 100), (262_144, 10_000), (512, 59)] {
            assert_eq!(cpu_weight(shares), weight, "{shares}");
        }
        let mut last = 0;
        for shares in 2..262_144 {
            let weight = cpu_weight(shares);
            assert!(weight >= last, "{shares}");
            last = weight;
        }
        for (weight, io) in [(10, 1), (100, 910), (500, 4950), (1000, 10_000)] {
            assert_eq!(io_weight(weight), io, "{weight}");
        }
    }

    #[test]
    fn swap_is_counted_by_itself() {
        let limits = |memory_swap| Limits {
            memory: Some(100),
            memory_swap,
            ..Limits::default()
        };
        let with = |swap| format!("memory.max=100; memory.swap.max={swap}");
        assert_eq!(shown(&limits(None)), with("100"));
        assert_eq!(shown(&limits(Some(MemorySwap::Unlimited))), with("max"));
        assert_eq!(shown(&limits(Some(MemorySwap::Bytes(100)))), with("0"));
        assert_eq!(shown(&limits(Some(MemorySwap::Bytes(250)))), with("150"));
        let optional = |memory_swap| files(&limits(memory_swap))[1].optional;
        assert!(optional(None) && !optional(Some(MemorySwap::Unlimited)));
    }

    #[test]
    fn the_other_files() {
        let limits = Limits {
            cpu_period: Some(50_000),
            cpuset_cpus: NumberList::parse("0-1"),
            cpuset_mems: NumberList::parse("0"),
            pids: Some(9),
            blkio_weight: Some(100),
            memory_reservation: Some(5),
            cpu_shares: Some(1024),
            ..Limits::default()
        };
        assert_eq!(
            shown(&limits),
            "memory.low=5; cpu.max=max 50000; cpu.weight=100; cpuset.cpus=0-1; cpuset.mems=0; \
             pids.max=9; io.bfq.weight=100; io.weight=910"
        );
        let quota = Limits {
            cpu_quota: Some(20_000),
            ..Limits::default()
        };
        assert_eq!(shown(&quota), "cpu.max=20000");
    }

    /// A tree in which the own cgroup is `top/main/own`, and that `top` has `controllers`,
    /// passes on `enabled`, and has `procs`.
    fn tree(controllers: &str, enabled: &str, procs: &str) -> (tempfile::TempDir, Cgroups) {
        let folder = tempfile::tempdir().unwrap();
        let top = folder.path().join("top");
        let own = top.join("main/own");
        fs::create_dir_all(&own).unwrap();
        for (dir, controllers, enabled, procs) in [
            (top.as_path(), controllers, enabled, procs),
            (&top.join("main"), enabled, "", "6\n"),
            (&own, "", "", "7\n"),
        ] {
            fs::write(dir.join("cgroup.type"), "domain\n").unwrap();
            fs::write(dir.join("cgroup.controllers"), controllers).unwrap();
            fs::write(dir.join("cgroup.subtree_control"), enabled).unwrap();
            fs::write(dir.join("cgroup.procs"), procs).unwrap();
        }
        fs::write(top.join("cpuset.cpus.effective"), "0-1\n").unwrap();
        let cgroups = Cgroups {
            hierarchy: Hierarchy::V2,
            own: Some(own),
            handed_over: false,
            delegated: Some(Delegated {
                dir: top,
                controllers: controllers.split(' ').map(str::to_owned).collect(),
            }),
            v1: Vec::new(),
            systemd: false,
        };
        (folder, cgroups)
    }

    fn wanted() -> (Limits, Vec<Wanted>) {
        let limits = Limits {
            memory: Some(64 << 20),
            pids: Some(9),
            cpuset_cpus: NumberList::parse("0-2"),
            ..Limits::default()
        };
        let wanted = vec![("memory", "--memory"), ("pids", "--pids-limit")];
        (limits, wanted)
    }

    /// The end of the chosen directory's path, and what has to be enabled; or the error.
    fn outcome(cgroups: &Cgroups) -> Result<(String, Vec<String>), (String, String)> {
        let (mut limits, wanted) = wanted();
        limits.cpuset_cpus = None;
        match design(&limits, &wanted, cgroups, false) {
            Ok(plan) => {
                let dir = &plan.dirs[0];
                let name = dir.parent.file_name().unwrap().to_str().unwrap();
                Ok((name.to_owned(), dir.enable.clone()))
            }
            Err(Error::Limit { cause, remedy, .. }) => Err((cause, remedy)),
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn the_nearest_that_will_do() {
        let (_folder, free) = tree("cpu memory pids", "", "");
        let both = vec!["memory".to_owned(), "pids".to_owned()];
        assert_eq!(outcome(&free), Ok(("top".into(), both.clone())));
        let (_folder, passing) = tree("cpu memory pids", "memory pids", "");
        assert_eq!(outcome(&passing), Ok(("top".into(), vec![])));
        let (_folder, half) = tree("cpu memory pids", "memory", "");
        assert_eq!(outcome(&half), Ok(("top".into(), vec!["pids".to_owned()])));
        // What has processes and passes nothing on, leaves nothing to those below.
        let (_folder, busy) = tree("cpu memory pids", "", "5\n");
        let (cause, remedy) = outcome(&busy).unwrap_err();
        assert!(cause.contains("controller memory") && cause.contains("top, which has processes"));
        assert!(remedy.contains("cgroup.procs"), "{remedy}");
        // With nobody in it the one below is nearer, and as good.
        let (folder, near) = tree("cpu memory pids", "memory pids", "");
        fs::write(folder.path().join("top/main/cgroup.procs"), "").unwrap();
        let both = vec!["memory".to_owned(), "pids".to_owned()];
        assert_eq!(outcome(&near), Ok(("main".into(), both.clone())));
        let (folder, root) = tree("cpu memory pids", "", "5\n");
        fs::remove_file(folder.path().join("top/cgroup.type")).unwrap();
        assert_eq!(outcome(&root), Ok(("top".into(), both)));
        let (_folder, few) = tree("memory cpu", "", "");
        let (cause, remedy) = outcome(&few).unwrap_err();
        assert!(cause.contains("controller pids is not among"), "{cause}");
        assert!(remedy.contains("echo +pids > "), "{remedy}");
    }

    #[test]
    fn who_is_alone_steps_aside() {
        let (folder, mut cgroups) = tree("memory pids", "memory pids", "");
        let own = folder.path().join("top/main/own");
        fs::write(own.join("cgroup.controllers"), "memory pids\n").unwrap();
        let plan = |cgroups: &Cgroups| {
            let (mut limits, wanted) = wanted();
            limits.cpuset_cpus = None;
            let plan = design(&limits, &wanted, cgroups, false).unwrap();
            plan.dirs[0].to_string()
        };
        let own_id = std::process::id();
        fs::write(own.join("cgroup.procs"), format!("{own_id}\n")).unwrap();
        let dir = own.display();
        let aside = format!(
            "move ourselves to {dir}/crun-lite-PID-runtime, pass memory, pids on below {dir}, \
             make the cgroup {dir}/crun-lite-PID: memory.max=67108864, \
             memory.swap.max=67108864, pids.max=9"
        );
        assert!(plan(&cgroups).starts_with("make the cgroup "));
        cgroups.handed_over = true;
        assert_eq!(plan(&cgroups), aside);
        // With company it is not ours alone to empty.
        fs::write(own.join("cgroup.procs"), format!("{own_id}\n1\n")).unwrap();
        assert!(plan(&cgroups).starts_with("make the cgroup "));
        // Where there is nothing above.
        fs::write(own.join("cgroup.procs"), format!("{own_id}\n")).unwrap();
        cgroups.handed_over = false;
        cgroups.delegated.as_mut().unwrap().dir = own.clone();
        assert_eq!(plan(&cgroups), aside);
    }

    #[test]
    fn without_delegation() {
        let (_folder, mut cgroups) = tree("memory pids", "", "");
        cgroups.delegated = None;
        let (cause, remedy) = outcome(&cgroups).unwrap_err();
        assert!(
            cause.contains("memory, pids") && cause.contains("main/own"),
            "{cause}"
        );
        assert!(remedy.contains("chown"), "{remedy}");
        cgroups.systemd = true;
        let (_, remedy) = outcome(&cgroups).unwrap_err();
        assert!(remedy.contains("systemd-run --user --scope -p Delegate=yes"));
        cgroups.own = None;
        let (cause, _) = outcome(&cgroups).unwrap_err();
        assert!(cause.contains("not to be seen"), "{cause}");
    }

    #[test]
    fn cpus_that_are_not_there() {
        let (_folder, cgroups) = tree("memory pids", "", "");
        let (limits, wanted) = wanted();
        let error = design(&limits, &wanted, &cgroups, false).unwrap_err();
        assert_eq!(
            error.to_string(),
            "--cpuset-cpus: 2 cannot be had: there are 0-1"
        );
    }
}
