//! Profiles of others: the JSON of OCI runtimes, Docker and podman, compiled.
//!
//! # Theory of operation
//!
//! OCI's `linux.seccomp` is the core: a default action and, for names of system
//! calls, actions with conditions on arguments. Docker's and podman's files have
//! the same and leave more open: which rules count depends on the capabilities, the
//! architecture and the kernel (`includes`, `excludes`). Those are decided here, for
//! this container, and what remains is compiled like our own profile.
//!
//! Where the texts leave a question, the answer is that of libseccomp, on which
//! crun and runc stand, so that a profile does here what it does there:
//!
//! - A rule that does what is done anyway is no rule.
//! - A rule without conditions is all that counts for its call.
//! - Conditions on one argument each must all hold; where two are on the same
//!   argument, each is a rule of its own.
//! - Names that this architecture does not have are passed over: a profile names
//!   calls of every architecture and of kernels to come.
//!
//! Rules whose conditions overlap are tried in the order of the file.
//!
//! Only the native ABI is carried: 32-bit calls kill the process and x32 calls do not
//! exist, whatever `architectures` and `archMap` say. A supervisor that is asked
//! (`SCMP_ACT_NOTIFY`) or a tracer (`SCMP_ACT_TRACE`) is refused: nobody would answer.

use std::collections::BTreeMap;
use std::str::FromStr;

use serde::Deserialize;

use super::bpf::{
    self, RET_ALLOW, RET_ERRNO, RET_KILL_PROCESS, RET_KILL_THREAD, RET_LOG, RET_TRAP,
};
use super::compare::{Comparison, Match};
use super::{SKIPPED, errno, profile};
use crate::security::caps;
use crate::sys::seccomp::{FilterFlags, Instruction};

/// `BPF_MAXINSNS` (linux/bpf_common.h)
const MOST_INSTRUCTIONS: usize = 4096;
/// As much as a filter can return (`SECCOMP_RET_DATA`; `MAX_ERRNO` caps it).
const MOST_ERRNO: u32 = 4095;
/// The first number of an x32 call (`__X32_SYSCALL_BIT`).
const X32: u32 = 0x4000_0000;
/// This architecture, as Go and with it Docker's profiles call it.
#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: &str = "amd64";
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: &str = "arm64";

/// Why a profile cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// It is not such a file; says where.
    #[error("not a profile: {0}")]
    Json(#[from] serde_json::Error),
    /// It asks for what does not exist here.
    #[error("{field}: {reason}")]
    Field {
        /// Where in the file.
        field: String,
        /// What is the matter.
        reason: String,
    },
    /// The kernel takes no filter of this size.
    #[error("{0} instructions when compiled; {MOST_INSTRUCTIONS} are the most")]
    TooLong(usize),
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    default_action: Action,
    default_errno_ret: Option<u32>,
    default_errno: Option<String>,
    flags: Option<Vec<String>>,
    listener_path: Option<String>,
    syscalls: Option<Vec<Rule>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    names: Option<Vec<String>>,
    /// What Docker had before `names`.
    name: Option<String>,
    action: Action,
    errno_ret: Option<u32>,
    errno: Option<String>,
    args: Option<Vec<Argument>>,
    includes: Option<Circumstances>,
    excludes: Option<Circumstances>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Argument {
    index: u8,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: Operator,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Circumstances {
    caps: Option<Vec<String>>,
    arches: Option<Vec<String>>,
    min_kernel: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
enum Action {
    #[serde(rename = "SCMP_ACT_KILL", alias = "SCMP_ACT_KILL_THREAD")]
    KillThread,
    #[serde(rename = "SCMP_ACT_KILL_PROCESS")]
    KillProcess,
    #[serde(rename = "SCMP_ACT_TRAP")]
    Trap,
    #[serde(rename = "SCMP_ACT_ERRNO")]
    Errno,
    #[serde(rename = "SCMP_ACT_TRACE")]
    Trace,
    #[serde(rename = "SCMP_ACT_NOTIFY")]
    Notify,
    #[serde(rename = "SCMP_ACT_LOG")]
    Log,
    #[serde(rename = "SCMP_ACT_ALLOW")]
    Allow,
}

#[derive(Debug, Clone, Copy, Deserialize)]
enum Operator {
    #[serde(rename = "SCMP_CMP_NE")]
    NotEqual,
    #[serde(rename = "SCMP_CMP_LT")]
    Less,
    #[serde(rename = "SCMP_CMP_LE")]
    AtMost,
    #[serde(rename = "SCMP_CMP_EQ")]
    Equal,
    #[serde(rename = "SCMP_CMP_GE")]
    AtLeast,
    #[serde(rename = "SCMP_CMP_GT")]
    Greater,
    #[serde(rename = "SCMP_CMP_MASKED_EQ")]
    Masked,
}

/// For whom a profile is compiled.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Capabilities that the command keeps.
    pub capabilities: u64,
    /// Version of the kernel, its first two numbers.
    pub kernel: (u32, u32),
}

impl Target {
    /// A command that keeps `capabilities`, on this kernel.
    pub fn here(capabilities: u64) -> Self {
        let release = rustix::system::uname()
            .release()
            .to_string_lossy()
            .into_owned();
        Self {
            capabilities,
            kernel: version(&release).unwrap_or((0, 0)),
        }
    }
}

/// Compiles the profile `text`.
///
/// # Errors
/// What is wrong in it, and where.
pub fn compile(
    text: &[u8],
    target: Target,
) -> Result<(Vec<Instruction>, FilterFlags), ProfileError> {
    let profile: Profile = serde_json::from_slice(text)?;
    if profile.listener_path.is_some_and(|path| !path.is_empty()) {
        return Err(field("listenerPath", "there is no supervisor to ask"));
    }
    let mut flags = FilterFlags::NONE;
    for (number, flag) in profile.flags.iter().flatten().enumerate() {
        flags = match flag.as_str() {
            "SECCOMP_FILTER_FLAG_LOG" => flags.with(FilterFlags::LOG),
            "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => flags.with(FilterFlags::SPEC_ALLOW),
            // There is one thread; and nothing waits for a supervisor.
            "SECCOMP_FILTER_FLAG_TSYNC" | "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV" => flags,
            other => {
                return Err(field(
                    format!("flags[{number}]"),
                    format!("unknown flag {other:?}"),
                ));
            }
        };
    }
    let default = result(
        profile.default_action,
        (profile.default_errno.as_deref(), profile.default_errno_ret),
        "default",
    )?;
    let mut calls = BTreeMap::<u32, Vec<Match>>::new();
    for (number, rule) in profile.syscalls.iter().flatten().enumerate() {
        let at = format!("syscalls[{number}].");
        // Looked at whether it counts or not: a file is good or it is not.
        let result = result(rule.action, (rule.errno.as_deref(), rule.errno_ret), &at)?;
        let matches = matches(rule, result, &at)?;
        if !applies(rule, target, &at)? || result == default {
            continue;
        }
        for name in rule.names.iter().flatten().chain(&rule.name) {
            if let Ok(call) = syscalls::Sysno::from_str(name)
                && let Ok(call) = u32::try_from(call.id())
            {
                let known = calls.entry(call).or_default();
                known.extend(matches.iter().cloned());
            }
        }
    }
    let filter = assemble(calls, default);
    if filter.len() > MOST_INSTRUCTIONS {
        return Err(ProfileError::TooLong(filter.len()));
    }
    Ok((filter, flags))
}

fn assemble(calls: BTreeMap<u32, Vec<Match>>, default: u32) -> Vec<Instruction> {
    let mut ranges: Vec<(u32, Vec<Match>)> = vec![(0, Vec::new())];
    let mut push = |first: u32, rules: Vec<Match>| match ranges.last_mut() {
        Some((_, last)) if *last == rules => {}
        // A range that this one leaves nothing of.
        Some((start, last)) if *start == first => *last = rules,
        _ => ranges.push((first, rules)),
    };
    for (call, rules) in calls {
        // Without conditions a rule stands alone.
        let alone = rules.iter().position(|rule| rule.when.is_empty());
        let rules = match alone.and_then(|at| rules.get(at)) {
            Some(rule) => vec![rule.clone()],
            None => rules,
        };
        push(call, rules);
        push(call + 1, Vec::new());
    }
    let always = |result| {
        let when = Vec::new();
        vec![Match { when, result }]
    };
    push(X32, always(RET_ERRNO | u32::from(profile::ENOSYS)));
    push(SKIPPED, always(RET_ALLOW));
    bpf::assemble_with(&ranges, &|code, rules| code.first_match(rules, default))
}

/// What the filter returns for `action`.
fn result(
    action: Action,
    (name, number): (Option<&str>, Option<u32>),
    at: &str,
) -> Result<u32, ProfileError> {
    let (action_field, errno_field) = match at.strip_suffix('.') {
        Some(_) => (format!("{at}action"), format!("{at}errno")),
        None => (format!("{at}Action"), format!("{at}Errno")),
    };
    match action {
        Action::Allow => Ok(RET_ALLOW),
        Action::Log => Ok(RET_LOG),
        Action::Trap => Ok(RET_TRAP),
        Action::KillThread => Ok(RET_KILL_THREAD),
        Action::KillProcess => Ok(RET_KILL_PROCESS),
        Action::Errno => {
            // As podman has it: the name before the number.
            let errno = match name.filter(|name| !name.is_empty()) {
                Some(name) => errno::number(name)
                    .ok_or_else(|| field(&errno_field, format!("unknown error {name:?}")))?,
                None => number.unwrap_or(u32::from(profile::EPERM)),
            };
            if errno > MOST_ERRNO {
                let reason = format!("{errno} is no error number; {MOST_ERRNO} is the highest");
                return Err(field(format!("{errno_field}Ret"), reason));
            }
            Ok(RET_ERRNO | errno)
        }
        Action::Trace => Err(field(
            action_field,
            "SCMP_ACT_TRACE is not supported: there is no tracer",
        )),
        Action::Notify => Err(field(
            action_field,
            "SCMP_ACT_NOTIFY is not supported: there is no supervisor to ask",
        )),
    }
}

/// The rules that `rule` makes for each of its calls.
fn matches(rule: &Rule, result: u32, at: &str) -> Result<Vec<Match>, ProfileError> {
    let mut conditions = Vec::new();
    for (number, argument) in rule.args.iter().flatten().enumerate() {
        if argument.index > 5 {
            let reason = format!("{} is no argument; 5 is the last", argument.index);
            return Err(field(format!("{at}args[{number}].index"), reason));
        }
        let value = argument.value;
        let comparison = match argument.op {
            Operator::NotEqual => Comparison::NotEqual(value),
            Operator::Less => Comparison::Less(value),
            Operator::AtMost => Comparison::AtMost(value),
            Operator::Equal => Comparison::Masked(u64::MAX, value),
            Operator::AtLeast => Comparison::AtLeast(value),
            Operator::Greater => Comparison::Greater(value),
            Operator::Masked => Comparison::Masked(value, argument.value_two),
        };
        conditions.push((argument.index, comparison));
    }
    let mut indices: Vec<u8> = conditions.iter().map(|(index, _)| *index).collect();
    indices.sort_unstable();
    let repeated = indices.windows(2).any(|pair| pair.first() == pair.last());
    if !repeated {
        let when = conditions;
        return Ok(vec![Match { when, result }]);
    }
    let alone = |condition| Match {
        when: vec![condition],
        result,
    };
    Ok(conditions.into_iter().map(alone).collect())
}

/// Whether `rule` is one for `target`.
fn applies(rule: &Rule, target: Target, at: &str) -> Result<bool, ProfileError> {
    let held = caps::names(target.capabilities);
    let holds = |name: &String| held.contains(&name.strip_prefix("CAP_").unwrap_or(name));
    let is_here = |arches: &[String]| arches.iter().any(|arch| arch == ARCHITECTURE);
    let reached = |of: &Circumstances, which: &str| match of.min_kernel.as_deref() {
        None | Some("") => Ok(None),
        Some(text) => version(text)
            .map(|wanted| Some(target.kernel >= wanted))
            .ok_or_else(|| {
                let reason = format!("{text:?} is no version of a kernel");
                field(format!("{at}{which}.minKernel"), reason)
            }),
    };
    let given = |list: &Option<Vec<String>>| list.clone().filter(|list| !list.is_empty());
    let none = Circumstances::default();
    let excludes = rule.excludes.as_ref().unwrap_or(&none);
    let includes = rule.includes.as_ref().unwrap_or(&none);
    // Before anything else is known: a version is good or it is not, for whoever it is.
    let (from, until) = (
        reached(includes, "includes")?,
        reached(excludes, "excludes")?,
    );
    let excluded = given(&excludes.arches).is_some_and(|arches| is_here(&arches))
        || given(&excludes.caps).is_some_and(|names| names.iter().any(holds))
        || until == Some(true);
    let included = given(&includes.arches).is_none_or(|arches| is_here(&arches))
        && given(&includes.caps).is_none_or(|names| names.iter().all(holds))
        && from != Some(false);
    Ok(included && !excluded)
}

/// The first two numbers of a version.
fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit());
    let first = numbers.next()?.parse().ok()?;
    let second = numbers.next()?.parse().ok()?;
    Some((first, second))
}

fn field(field: impl Into<String>, reason: impl Into<String>) -> ProfileError {
    ProfileError::Field {
        field: field.into(),
        reason: reason.into(),
    }
}

#[cfg(test)]
mod tests;
