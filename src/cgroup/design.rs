//! From limits to a plan, or to what is missing for one.

use super::discover::{Hierarchy, look};
use super::{remedy, v1, v2};
use crate::config::{Limits, NumberList};
use crate::error::Error;
use crate::plan::{CgroupFile, CgroupPlan};

/// The cgroup for `limits`; `None` where they need none. Looks, and changes nothing.
///
/// # Errors
/// [`Error::Limit`]: what is missing, and how to get it.
pub fn design(limits: &Limits) -> Result<Option<CgroupPlan>, Error> {
    let wanted = wanted(limits);
    let Some(&(_, option)) = wanted.first() else {
        return Ok(None);
    };
    let cgroups = look();
    let root = rustix::process::geteuid().is_root();
    match cgroups.hierarchy {
        Hierarchy::None => Err(limit(option, "no cgroups are mounted", remedy::MOUNT)),
        Hierarchy::V2 => v2::design(limits, &wanted, &cgroups, root).map(Some),
        Hierarchy::V1 | Hierarchy::Hybrid => v1::design(limits, &wanted, &cgroups, root).map(Some),
    }
}

/// A controller and the first option that needs it.
pub(super) type Wanted = (&'static str, &'static str);

/// The controllers that `limits` need, by their names in v2.
fn wanted(limits: &Limits) -> Vec<Wanted> {
    let Limits {
        memory,
        // Nothing without the one before.
        memory_swap: _,
        memory_reservation,
        cpu_quota,
        cpu_period,
        cpu_shares,
        cpuset_cpus,
        cpuset_mems,
        pids,
        blkio_weight,
        ulimits: _,
        oom_score_adj: _,
    } = limits;
    let all = [
        ("memory", "--memory", memory.is_some()),
        (
            "memory",
            "--memory-reservation",
            memory_reservation.is_some(),
        ),
        ("cpu", "--cpus (--cpu-quota)", cpu_quota.is_some()),
        ("cpu", "--cpu-period", cpu_period.is_some()),
        ("cpu", "--cpu-shares", cpu_shares.is_some()),
        ("cpuset", "--cpuset-cpus", cpuset_cpus.is_some()),
        ("cpuset", "--cpuset-mems", cpuset_mems.is_some()),
        ("pids", "--pids-limit", pids.is_some()),
        ("io", "--blkio-weight", blkio_weight.is_some()),
    ];
    let mut wanted: Vec<Wanted> = Vec::new();
    for (controller, option, is_wanted) in all {
        if is_wanted && !wanted.iter().any(|(known, _)| *known == controller) {
            wanted.push((controller, option));
        }
    }
    wanted
}

pub(super) fn limit(
    option: &'static str,
    cause: impl Into<String>,
    remedy: impl Into<String>,
) -> Error {
    Error::Limit {
        option,
        cause: cause.into(),
        remedy: remedy.into(),
    }
}

/// One file and its value.
pub(super) fn file(option: &'static str, name: &'static str, value: impl ToString) -> CgroupFile {
    CgroupFile {
        option,
        choices: vec![(name, value.to_string())],
        optional: false,
    }
}

/// Refuses CPUs or nodes that are not among `there` (what the cgroup above has).
pub(super) fn check_list(
    option: &'static str,
    asked: Option<&NumberList>,
    there: Option<&str>,
) -> Result<(), Error> {
    let there = there.and_then(|text| NumberList::parse(text.trim()));
    let (Some(asked), Some(there)) = (asked, there) else {
        return Ok(());
    };
    match asked.without(&there) {
        None => Ok(()),
        Some(missing) => Err(Error::Usage(format!(
            "{option}: {missing} cannot be had: there are {there}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_limit_needs_nothing() {
        assert_eq!(design(&Limits::default()).unwrap(), None);
        let others = Limits {
            oom_score_adj: Some(5),
            cpu_quota: None,
            ..Limits::default()
        };
        assert_eq!(design(&others).unwrap(), None);
    }

    #[test]
    fn what_is_wanted_is_wanted_once() {
        let limits = Limits {
            memory: Some(1 << 30),
            memory_reservation: Some(1 << 20),
            blkio_weight: Some(10),
            cpu_period: Some(1000),
            cpu_quota: Some(1000),
            ..Limits::default()
        };
        assert_eq!(
            wanted(&limits),
            [
                ("memory", "--memory"),
                ("cpu", "--cpus (--cpu-quota)"),
                ("io", "--blkio-weight")
            ]
        );
    }

    #[test]
    fn lists_are_held_against_what_there_is() {
        let list = NumberList::parse("1-2").unwrap();
        assert!(check_list("-x", Some(&list), Some("0-3\n")).is_ok());
        assert!(check_list("-x", Some(&list), None).is_ok());
        let refused = check_list("-x", Some(&list), Some("0-1\n")).unwrap_err();
        assert_eq!(refused.to_string(), "-x: 2 cannot be had: there are 0-1");
    }
}
