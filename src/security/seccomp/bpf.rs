//! Decisions to classic BPF (linux/filter.h, linux/seccomp.h).

use super::{Condition, Decision, Rule};
use crate::sys::seccomp::Instruction;

// Operations: class, size or comparison, and operand source.
pub(super) const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
pub(super) const JUMP: u16 = 0x05; // BPF_JMP | BPF_JA
pub(super) const JUMP_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
pub(super) const JUMP_AT_LEAST: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
pub(super) const JUMP_ANY_BIT: u16 = 0x45; // BPF_JMP | BPF_JSET | BPF_K
pub(super) const RETURN: u16 = 0x06; // BPF_RET | BPF_K

// What a filter returns.
pub(super) const RET_ALLOW: u32 = 0x7fff_0000; // SECCOMP_RET_ALLOW
pub(super) const RET_ERRNO: u32 = 0x0005_0000; // SECCOMP_RET_ERRNO
pub(super) const RET_KILL_PROCESS: u32 = 0x8000_0000; // SECCOMP_RET_KILL_PROCESS

// Offsets in struct seccomp_data.
pub(super) const NUMBER: u32 = 0;
pub(super) const ARCH: u32 = 4;
const ARGUMENTS: u32 = 16;

/// `AUDIT_ARCH_*` (linux/audit.h) of this build: ELF machine, 64-bit,
/// little-endian.
#[cfg(target_arch = "x86_64")]
pub(super) const NATIVE: u32 = 62 | 0xc000_0000;
#[cfg(target_arch = "aarch64")]
pub(super) const NATIVE: u32 = 183 | 0xc000_0000;
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("the system-call filter knows x86_64 and aarch64 only");

/// Offset of the low half of an argument; the halves of both architectures
/// are little-endian.
pub(super) fn low_half(argument: u8) -> u32 {
    ARGUMENTS + 8 * u32::from(argument)
}

/// A whole filter. Each range reaches to the start of the next, the last to
/// the end; the first starts at 0. Rules for capabilities other than these
/// are left out.
///
/// Every piece of code ends in a return, so that jumps only ever skip whole
/// pieces.
pub(super) fn assemble(ranges: &[(u32, Decision)], capabilities: u64) -> Vec<Instruction> {
    let mut code = vec![
        load(ARCH),
        instruction(JUMP_EQUAL, 1, 0, NATIVE),
        ret(RET_KILL_PROCESS),
        load(NUMBER),
    ];
    code.extend(search(ranges, capabilities));
    code
}

fn search(ranges: &[(u32, Decision)], capabilities: u64) -> Vec<Instruction> {
    match ranges {
        [] => vec![ret(RET_KILL_PROCESS)],
        [(_, decision)] => decide(*decision, capabilities),
        _ => {
            let (below, above) = ranges.split_at(ranges.len() / 2);
            let first_above = above.first().map_or(0, |(first, _)| *first);
            choose(
                JUMP_AT_LEAST,
                first_above,
                search(above, capabilities),
                search(below, capabilities),
            )
        }
    }
}

fn decide(decision: Decision, capabilities: u64) -> Vec<Instruction> {
    match decision {
        Decision::Allow => vec![ret(RET_ALLOW)],
        Decision::Fail(errno) => vec![ret(RET_ERRNO | u32::from(errno))],
        Decision::Depends(rules, errno) => {
            let otherwise = vec![ret(RET_ERRNO | u32::from(errno))];
            rules
                .iter()
                .filter(|rule| rule.needs & !capabilities == 0)
                .rev()
                .fold(otherwise, |rest, rule| apply(rule, rest))
        }
    }
}

/// If all conditions hold, the rule's result; else `rest`.
fn apply(rule: &Rule, rest: Vec<Instruction>) -> Vec<Instruction> {
    let result = rule
        .fail
        .map_or(RET_ALLOW, |errno| RET_ERRNO | u32::from(errno));
    // A failed condition jumps over the rest of the rule, which is short.
    let mut code = vec![ret(result)];
    for condition in rule.when.iter().rev() {
        let after = u8::try_from(code.len()).unwrap_or(u8::MAX);
        let (argument, comparison) = match *condition {
            Condition::Always => continue,
            Condition::Is(argument, value) => (argument, instruction(JUMP_EQUAL, 0, after, value)),
            Condition::Without(argument, bits) => {
                (argument, instruction(JUMP_ANY_BIT, after, 0, bits))
            }
        };
        code.splice(..0, [load(low_half(argument)), comparison]);
    }
    code.extend(rest);
    code
}

/// `yes` if the comparison holds, else `no`. The offset of a conditional jump
/// has eight bits; a longer one takes an unconditional jump.
fn choose(
    comparison: u16,
    k: u32,
    yes: Vec<Instruction>,
    no: Vec<Instruction>,
) -> Vec<Instruction> {
    let mut code = Vec::with_capacity(yes.len() + no.len() + 2);
    match u8::try_from(no.len()) {
        Ok(skip) => code.push(instruction(comparison, skip, 0, k)),
        Err(_) => {
            code.push(instruction(comparison, 0, 1, k));
            // A filter has at most 4096 instructions (BPF_MAXINSNS).
            code.push(instruction(
                JUMP,
                0,
                0,
                u32::try_from(no.len()).unwrap_or(u32::MAX),
            ));
        }
    }
    code.extend(no);
    code.extend(yes);
    code
}

fn load(offset: u32) -> Instruction {
    instruction(LOAD, 0, 0, offset)
}

fn ret(value: u32) -> Instruction {
    instruction(RETURN, 0, 0, value)
}

fn instruction(code: u16, jump_true: u8, jump_false: u8, k: u32) -> Instruction {
    Instruction {
        code,
        jump_true,
        jump_false,
        k,
    }
}
