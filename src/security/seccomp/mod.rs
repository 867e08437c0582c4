//! The command's system-call filter: our own profile, compiled to classic BPF, or
//! that of a file ([`mod@file`]).
//!
//! # Theory of operation
//!
//! The profile ([`profile`]) is a list of groups of system calls, each with
//! the reason why it is allowed, allowed under conditions, or refused, and
//! with the capability that lifts a refusal. Everything it does not name
//! fails with `ENOSYS`, as on a kernel that lacks the call, so that a C
//! library falls back to what it did before the call existed. What it names
//! as refused fails with `EPERM`, as for want of a capability.
//!
//! [`compile`] lays the decisions out by call number and emits a binary search
//! over ranges with the same decision, so that any call is decided after about
//! eight comparisons, and conditions on arguments are only evaluated for their
//! own call. (The kernel evaluates calls that are allowed whatever their
//! arguments once, and then skips the filter: `seccomp_cache_prepare()` in
//! kernel/seccomp.c.)
//!
//! Arguments that the kernel takes as `int` or `unsigned int` are compared by
//! their low 32 bits alone: a filter that compares all 64 is passed by setting
//! a high bit that the kernel then ignores (CVE-2019-10063).
//!
//! Calls of another ABI (32-bit x86 through `int 0x80`) have other numbers, to
//! which nothing here applies: they kill the process. x32 calls are numbers
//! above all others, and fail with `ENOSYS`.

mod bpf;
mod compare;
mod errno;
pub mod file;
mod profile;

use crate::sys::seccomp::Instruction;

/// What is done about one system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    /// It is carried out.
    Allow,
    /// It fails with this error number.
    Fail(u16),
    /// It depends on the arguments: the first rule that holds decides, and
    /// the error number is for when none does.
    Depends(&'static [Rule], u16),
}

/// What is done if all conditions hold.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    /// The rule is only there for a command that keeps all of these.
    pub(crate) needs: u64,
    /// All must hold.
    pub(crate) when: [Condition; 3],
    /// Then this is done; `None` lets the call through.
    pub(crate) fail: Option<u16>,
}

/// A condition on the low 32 bits of an argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Condition {
    /// None.
    Always,
    /// The argument is this.
    Is(u8, u32),
    /// It has none of these bits.
    Without(u8, u32),
}

/// The number that a tracer sets to skip a call (ptrace(2)); the filter sees
/// it afterwards, and must not replace the result that the tracer chose.
const SKIPPED: u32 = u32::MAX;

/// Compiles the default profile for a command that keeps `capabilities`.
pub(crate) fn compile(capabilities: u64) -> Vec<Instruction> {
    let mut ranges = Vec::new();
    let mut push = |first: u32, decision: Decision| match ranges.last() {
        Some(&(_, last)) if last == decision => {}
        _ => ranges.push((first, decision)),
    };
    let mut next = 0;
    for decision in table(capabilities) {
        push(next, decision.unwrap_or(UNKNOWN));
        next += 1;
    }
    push(next, UNKNOWN);
    push(SKIPPED, Decision::Allow);
    bpf::assemble(&ranges, capabilities)
}

/// Ways in which a call is allowed, each a list of conditions that must all hold.
pub(crate) type Ways = Vec<Vec<Condition>>;

/// Compiles a list of calls, in the order of their numbers, each with the ways in
/// which it is allowed. Everything else kills the process.
pub(crate) fn compile_list(list: &[(u32, Ways)]) -> Vec<Instruction> {
    const ALLOW: bpf::Target = bpf::Target::Return(bpf::RET_ALLOW);
    const KILL: bpf::Target = bpf::Target::Return(bpf::RET_KILL_PROCESS);
    let mut ranges = vec![(0, Ways::new())];
    for (number, ways) in list {
        // Between two calls there is a range of those that are not on the list.
        if ranges.last().is_some_and(|(first, _)| first == number) {
            ranges.pop();
        }
        ranges.push((*number, ways.clone()));
        ranges.push((number.saturating_add(1), Ways::new()));
    }
    ranges.push((SKIPPED, vec![Vec::new()]));
    bpf::assemble_with(&ranges, &|code, ways: &Ways| {
        ways.iter()
            .rev()
            .fold(KILL, |rest, way| code.guard(way, ALLOW, rest))
    })
}

/// What is done about a call that the profile does not name.
const UNKNOWN: Decision = Decision::Fail(profile::ENOSYS);

/// The decision about every call that the profile names, at its number.
fn table(capabilities: u64) -> Vec<Option<Decision>> {
    let mut decisions = Vec::with_capacity(512);
    for group in profile::GROUPS {
        let lifted = capabilities & group.lifted_by != 0;
        let decision = if lifted {
            Decision::Allow
        } else {
            group.decision
        };
        for &number in group.calls {
            let Ok(number) = usize::try_from(number) else {
                continue;
            };
            if number >= decisions.len() {
                decisions.resize(number + 1, None);
            }
            if let Some(place) = decisions.get_mut(number) {
                *place = Some(decision);
            }
        }
    }
    decisions
}

/// The decision about every call that the profile names, by number.
#[cfg(test)]
pub(crate) fn decisions(capabilities: u64) -> std::collections::BTreeMap<u32, Decision> {
    (0..)
        .zip(table(capabilities))
        .filter_map(|(number, decision)| Some((number, decision?)))
        .collect()
}

#[cfg(test)]
mod tests;
