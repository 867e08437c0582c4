//! What the container may use: sizes, shares, lists, ulimits.

use super::mounts;
use super::network::number;
use super::{shown, usage};
use crate::cli::args::LimitArgs;
use crate::config::{Limits, MemorySwap, NumberList, RESOURCES, Ulimit};
use crate::error::Error;

/// With less a container's own set-up does not fit.
const MEMORY_LEAST: u64 = 6 << 20;
/// Microseconds (kernel/sched/core.c: `max_cfs_quota_period`, `min_cfs_quota_period`).
const PERIOD: std::ops::RangeInclusive<u64> = 1_000..=1_000_000;
/// What `--cpus` is counted in, microseconds.
const PERIOD_USUAL: u64 = 100_000;
const QUOTA_LEAST: u64 = 1_000;
/// The kernel takes what is beyond for these (kernel/sched/sched.h).
const SHARES: std::ops::RangeInclusive<u64> = 2..=262_144;
/// Block layer's weights as container engines have them.
const WEIGHT: std::ops::RangeInclusive<u16> = 10..=1000;

/// How many CPUs the host has online.
pub(super) fn cpus_online() -> usize {
    let text = std::fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_default();
    match NumberList::parse(text.trim_end()) {
        Some(list) => list.count(),
        // Without a sysfs: those that we may use.
        None => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
    }
}

/// Validates them; `cpus` says how many CPUs the host has.
pub(super) fn limits(args: &LimitArgs, cpus: fn() -> usize) -> Result<Limits, Error> {
    let mut limits = Limits {
        memory: given(&args.memory, "--memory", memory)?.flatten(),
        memory_reservation: given(&args.memory_reservation, "--memory-reservation", size)?
            .flatten(),
        cpu_quota: given(&args.cpu_quota, "--cpu-quota", quota)?.flatten(),
        cpu_period: given(&args.cpu_period, "--cpu-period", |text| {
            within(text, &PERIOD, "microseconds")
        })?
        .flatten(),
        cpu_shares: given(&args.cpu_shares, "--cpu-shares", |text| {
            within(text, &SHARES, "shares")
        })?
        .flatten(),
        cpuset_cpus: given(&args.cpuset_cpus, "--cpuset-cpus", list)?.flatten(),
        cpuset_mems: given(&args.cpuset_mems, "--cpuset-mems", list)?.flatten(),
        pids: given(&args.pids_limit, "--pids-limit", pids)?.flatten(),
        blkio_weight: given(&args.blkio_weight, "--blkio-weight", |text| {
            within(text, &WEIGHT, "a weight")
        })?
        .flatten(),
        oom_score_adj: given(&args.oom_score_adj, "--oom-score-adj", oom_score_adj)?,
        ulimits: ulimits(&args.ulimit)?,
        memory_swap: None,
    };
    limits.memory_swap = given(&args.memory_swap, "--memory-swap", memory_swap)?.flatten();
    match (limits.memory, limits.memory_swap, limits.memory_reservation) {
        (None, Some(_), _) => {
            return Err(usage(
                "--memory-swap is only for --memory, which it includes",
            ));
        }
        (Some(memory), Some(MemorySwap::Bytes(both)), _) if both < memory => {
            return Err(usage(format!(
                "--memory-swap: {both} bytes are less than --memory, {memory} bytes, which they \
                 include"
            )));
        }
        (Some(memory), _, Some(reservation)) if reservation > memory => {
            return Err(usage(format!(
                "--memory-reservation: {reservation} bytes are more than --memory, {memory} bytes"
            )));
        }
        _ => {}
    }
    if let Some(text) = &args.cpus {
        if args.cpu_period.is_some() || args.cpu_quota.is_some() {
            return Err(usage(
                "--cpus cannot be given with --cpu-period or --cpu-quota: it sets both",
            ));
        }
        let quota = cpu_time(text, cpus())
            .map_err(|why| usage(format!("--cpus: {} {why}", shown(text))))?;
        limits.cpu_quota = quota;
        limits.cpu_period = quota.map(|_| PERIOD_USUAL);
    }
    Ok(limits)
}

/// Reads an option's value where there is one; an empty one is none, as with podman.
fn given<T>(
    value: &Option<String>,
    option: &str,
    read: impl FnOnce(&str) -> Result<T, String>,
) -> Result<Option<T>, Error> {
    let value = value.as_deref().filter(|text| !text.is_empty());
    let read = |text| read(text).map_err(|why| usage(format!("{option}: {} {why}", shown(text))));
    value.map(read).transpose()
}

/// A size, `b` being allowed for bytes; `None` is 0, for no limit.
fn size(text: &str) -> Result<Option<u64>, String> {
    let digits = text.strip_suffix(['b', 'B']).unwrap_or(text);
    if digits.trim_end_matches(['k', 'K', 'm', 'M', 'g', 'G']) == "0" {
        return Ok(None);
    }
    match mounts::bytes(digits) {
        Some(bytes) => Ok(Some(bytes)),
        None => Err("is no size (bytes, or a number with b, k, m or g)".to_owned()),
    }
}

fn memory(text: &str) -> Result<Option<u64>, String> {
    match size(text)? {
        Some(bytes) if bytes < MEMORY_LEAST => {
            Err("is too little: a container needs 6m to start".to_owned())
        }
        size => Ok(size),
    }
}

fn memory_swap(text: &str) -> Result<Option<MemorySwap>, String> {
    match text {
        "-1" => Ok(Some(MemorySwap::Unlimited)),
        _ => Ok(size(text)?.map(MemorySwap::Bytes)),
    }
}

fn quota(text: &str) -> Result<Option<u64>, String> {
    match text {
        "-1" | "0" => Ok(None),
        _ => number(text)
            .filter(|quota| *quota >= QUOTA_LEAST && i64::try_from(*quota).is_ok())
            .map(Some)
            .ok_or_else(|| format!("is no number of microseconds from {QUOTA_LEAST} on")),
    }
}

/// A number; `None` is 0, for what is usual.
fn within<T>(
    text: &str,
    range: &std::ops::RangeInclusive<T>,
    what: &str,
) -> Result<Option<T>, String>
where
    T: std::str::FromStr + PartialOrd + std::fmt::Display,
{
    if text == "0" {
        return Ok(None);
    }
    number(text)
        .filter(|number| range.contains(number))
        .map(Some)
        .ok_or_else(|| format!("is not {what} from {} to {}", range.start(), range.end()))
}

fn list(text: &str) -> Result<Option<NumberList>, String> {
    NumberList::parse(text)
        .map(Some)
        .ok_or_else(|| "is no list of numbers and ranges, such as 0-2,7".to_owned())
}

fn pids(text: &str) -> Result<Option<u64>, String> {
    /// The most that there can be (`PID_MAX_LIMIT`).
    const MOST: u64 = 1 << 22;
    match text {
        "-1" => Ok(None),
        _ => within(text, &(1..=MOST), "a number of processes"),
    }
}

fn oom_score_adj(text: &str) -> Result<i16, String> {
    let number = text.strip_prefix('-').unwrap_or(text);
    let digits = number.bytes().all(|byte| byte.is_ascii_digit());
    text.parse()
        .ok()
        .filter(|score| digits && (-1000..=1000).contains(score))
        .ok_or_else(|| "is no number from -1000 to 1000".to_owned())
}

/// `--cpus` as CPU time in each [`PERIOD_USUAL`]; `None` for no limit.
fn cpu_time(text: &str, cpus: usize) -> Result<Option<u64>, String> {
    const DIGITS: usize = 5;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let wrong = || "is no number of CPUs, such as 1.5".to_owned();
    if !digits(whole) || !digits(fraction) || (whole.is_empty() && fraction.is_empty()) {
        return Err(wrong());
    }
    // In decimal: 0.29 of 100000 is 29000, which a binary fraction misses. What is
    // beyond a microsecond does not count.
    let fraction = fraction.get(..DIGITS).unwrap_or(fraction);
    let padded = format!("{whole:0>1}{fraction:0<DIGITS$}");
    let quota: u64 = padded.parse().map_err(|_| wrong())?;
    let most = PERIOD_USUAL.saturating_mul(cpus as u64);
    match quota {
        0 => Ok(None),
        _ if quota > most => Err(format!("is more than the host has: {cpus} CPUs")),
        _ if quota < QUOTA_LEAST => Err("is too little: 0.01 is the least".to_owned()),
        _ => Ok(Some(quota)),
    }
}

/// All of them; of those for one resource the last one counts.
fn ulimits(texts: &[String]) -> Result<Vec<Ulimit>, Error> {
    let mut ulimits: Vec<Ulimit> = Vec::new();
    for text in texts.iter().filter(|text| *text != "host") {
        let ulimit =
            ulimit(text).map_err(|why| usage(format!("--ulimit: {} {why}", shown(text))))?;
        ulimits.retain(|other| other.resource != ulimit.resource);
        ulimits.push(ulimit);
    }
    Ok(ulimits)
}

fn ulimit(text: &str) -> Result<Ulimit, String> {
    let (name, values) = text
        .split_once('=')
        .ok_or("is not NAME=SOFT[:HARD] or host")?;
    let lower = name.to_ascii_lowercase();
    let lower = lower.strip_prefix("rlimit_").unwrap_or(&lower);
    let resource = RESOURCES
        .iter()
        .find(|(known, _)| *known == lower)
        .map(|(_, resource)| *resource)
        .ok_or_else(|| {
            let known: Vec<&str> = RESOURCES.iter().map(|(name, _)| *name).collect();
            format!("names no limit (known: {})", known.join(", "))
        })?;
    let value = |text: &str| match text {
        "-1" | "unlimited" => Ok(None),
        // The largest number stands for no limit (RLIM_INFINITY).
        _ => match number::<u64>(text) {
            Some(value) => Ok(Some(value).filter(|value| *value != u64::MAX)),
            None => Err("needs numbers, or -1 for no limit".to_owned()),
        },
    };
    let (soft, hard) = values.split_once(':').unwrap_or((values, values));
    let (soft, hard) = (value(soft)?, value(hard)?);
    if soft.unwrap_or(u64::MAX) > hard.unwrap_or(u64::MAX) {
        return Err("has a soft limit above the hard one".to_owned());
    }
    Ok(Ulimit {
        resource,
        soft,
        hard,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(set: impl FnOnce(&mut LimitArgs)) -> Result<Limits, String> {
        let mut args = LimitArgs::default();
        set(&mut args);
        limits(&args, || 2).map_err(|error| error.to_string())
    }

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn sizes() {
        let memory = |text: &str| parse(|args| args.memory = some(text)).map(|all| all.memory);
        for (text, bytes) in [
            ("6m", 6 << 20),
            ("6291456", 6 << 20),
            ("6291456b", 6 << 20),
            ("8192K", 8 << 20),
            ("2g", 2 << 30),
        ] {
            assert_eq!(memory(text), Ok(Some(bytes)), "{text}");
        }
        for text in ["0", "0m", "0b", ""] {
            assert_eq!(memory(text), Ok(None), "{text}");
        }
        for bad in [
            "6291455",
            "-1",
            "1.5",
            "m",
            "b",
            "1t",
            "6mm",
            "9223372036854775807g",
        ] {
            let why = memory(bad).unwrap_err();
            assert!(why.starts_with("--memory: ") && why.contains(bad), "{why}");
        }
    }

    #[test]
    fn memory_and_swap_belong_together() {
        let swap = |memory: Option<&str>, swap: &str| {
            parse(|args| {
                args.memory = memory.map(str::to_owned);
                args.memory_swap = some(swap);
            })
            .map(|all| all.memory_swap)
        };
        assert_eq!(swap(Some("64m"), "-1"), Ok(Some(MemorySwap::Unlimited)));
        let same = MemorySwap::Bytes(64 << 20);
        assert_eq!(swap(Some("64m"), "64m"), Ok(Some(same)));
        assert_eq!(swap(Some("64m"), "0"), Ok(None));
        assert!(swap(None, "64m").unwrap_err().contains("--memory"));
        assert!(swap(None, "-1").is_err());
        assert!(swap(Some("0"), "64m").is_err());
        assert!(swap(Some("64m"), "63m").unwrap_err().contains("less than"));
        assert!(swap(Some("64m"), "-2").is_err());
        let reservation = |text| {
            parse(|args| {
                args.memory = some("64m");
                args.memory_reservation = some(text);
            })
        };
        assert!(reservation("32m").is_ok());
        assert!(reservation("65m").unwrap_err().contains("more than"));
    }

    #[test]
    fn cpu_times() {
        let cpus = |text: &str| {
            parse(|args| args.cpus = some(text)).map(|all| (all.cpu_quota, all.cpu_period))
        };
        for (text, quota) in [
            ("2", 200_000),
            ("0.2", 20_000),
            (".5", 50_000),
            ("1.", 100_000),
            ("0.29", 29_000),
            ("0.01", 1_000),
            ("1.234567", 123_456),
            ("02.000", 200_000),
        ] {
            assert_eq!(cpus(text), Ok((Some(quota), Some(100_000))), "{text}");
        }
        assert_eq!(cpus("0"), Ok((None, None)));
        for (bad, why) in [
            ("2.1", "2 CPUs"),
            ("99999999999999999999999", "no number"),
            ("0.001", "0.01"),
            ("-1", "no number"),
            ("1e0", "no number"),
            (".", "no number"),
            ("", "no number"),
            ("NaN", "no number"),
        ] {
            assert!(cpus(bad).unwrap_err().contains(why), "{bad}");
        }
        let both = parse(|args| {
            args.cpus = some("1");
            args.cpu_quota = some("5000");
        });
        assert!(both.unwrap_err().contains("--cpu-quota"));
        let quota = |text: &str| parse(|args| args.cpu_quota = some(text)).map(|all| all.cpu_quota);
        assert_eq!(quota("-1"), Ok(None));
        assert_eq!(quota("1000"), Ok(Some(1000)));
        assert!(quota("999").is_err() && quota("-2").is_err());
    }

    #[test]
    fn numbers_within_bounds() {
        let pids = |text: &str| parse(|args| args.pids_limit = some(text)).map(|all| all.pids);
        assert_eq!(pids("-1"), Ok(None));
        assert_eq!(pids("0"), Ok(None));
        assert_eq!(pids("1"), Ok(Some(1)));
        for bad in ["-2", "4194305", "1k", "+1"] {
            assert!(pids(bad).unwrap_err().contains("--pids-limit"), "{bad}");
        }
        let score =
            |text: &str| parse(|args| args.oom_score_adj = some(text)).map(|all| all.oom_score_adj);
        assert_eq!(score("-1000"), Ok(Some(-1000)));
        assert_eq!(score("0"), Ok(Some(0)));
        for bad in ["1001", "-1001", "+1", "x", "-", "--1"] {
            assert!(score(bad).is_err(), "{bad}");
        }
        assert!(parse(|args| args.blkio_weight = some("9")).is_err());
        assert!(parse(|args| args.cpu_shares = some("1")).is_err());
        assert!(parse(|args| args.cpu_period = some("999")).is_err());
        assert!(parse(|args| args.cpuset_cpus = some("1-0")).is_err());
    }

    #[test]
    fn ulimits_by_name() {
        let ulimits = |texts: &[&str]| {
            let texts: Vec<String> = texts.iter().map(|&text| text.to_owned()).collect();
            parse(|args| args.ulimit = texts).map(|all| {
                let shown: Vec<String> = all.ulimits.iter().map(ToString::to_string).collect();
                shown.join(" ")
            })
        };
        assert_eq!(ulimits(&["nofile=10"]).unwrap(), "nofile=10:10");
        assert_eq!(
            ulimits(&["RLIMIT_CORE=0:-1", "host", "nofile=1:2", "nofile=3:4"]).unwrap(),
            "core=0:unlimited nofile=3:4"
        );
        for bad in [
            "nofile",
            "files=1",
            "nofile=",
            "nofile=2:1",
            "nofile=-1:5",
            "nofile=1:2:3",
        ] {
            assert!(ulimits(&[bad]).unwrap_err().contains(bad), "{bad}");
        }
    }
}
