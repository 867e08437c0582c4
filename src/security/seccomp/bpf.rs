//! Decisions to classic BPF (linux/filter.h, linux/seccomp.h).

use super::{Condition, Decision, Rule};
use crate::sys::seccomp::Instruction;

// Operations: class, size or comparison, and operand source.
pub(super) const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
pub(super) const JUMP: u16 = 0x05; // BPF_JMP | BPF_JA
pub(super) const JUMP_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
pub(super) const JUMP_ABOVE: u16 = 0x25; // BPF_JMP | BPF_JGT | BPF_K
pub(super) const JUMP_AT_LEAST: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
pub(super) const JUMP_ANY_BIT: u16 = 0x45; // BPF_JMP | BPF_JSET | BPF_K
pub(super) const AND: u16 = 0x54; // BPF_ALU | BPF_AND | BPF_K
pub(super) const RETURN: u16 = 0x06; // BPF_RET | BPF_K

// What a filter returns.
pub(super) const RET_ALLOW: u32 = 0x7fff_0000; // SECCOMP_RET_ALLOW
pub(super) const RET_ERRNO: u32 = 0x0005_0000; // SECCOMP_RET_ERRNO
pub(super) const RET_LOG: u32 = 0x7ffc_0000; // SECCOMP_RET_LOG
pub(super) const RET_TRAP: u32 = 0x0003_0000; // SECCOMP_RET_TRAP
pub(super) const RET_KILL_THREAD: u32 = 0; // SECCOMP_RET_KILL_THREAD
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

/// Offset of the high half.
pub(super) fn high_half(argument: u8) -> u32 {
    low_half(argument) + 4
}

/// A whole filter. Each range reaches to the start of the next, the last to
/// the end; the first starts at 0. Rules for capabilities other than these
/// are left out.
pub(super) fn assemble(ranges: &[(u32, Decision)], capabilities: u64) -> Vec<Instruction> {
    assemble_with(ranges, &|code, decision| {
        code.decide(*decision, capabilities)
    })
}

/// How a decision is written.
pub(super) type Write<'a, D> = &'a dyn Fn(&mut Backwards, &D) -> Target;

/// The same for decisions of any kind.
pub(super) fn assemble_with<D>(ranges: &[(u32, D)], write: Write<'_, D>) -> Vec<Instruction> {
    let mut code = Backwards::default();
    let search = code.search(ranges, write);
    code.enter(search);
    let mut code = code.written;
    code.extend([
        load(NUMBER),
        ret(RET_KILL_PROCESS),
        instruction(JUMP_EQUAL, 1, 0, NATIVE),
        load(ARCH),
    ]);
    code.reverse();
    code
}

/// A filter that is written from its end to its start: jumps only lead forward,
/// so where one leads has been written before it. The kernel checks, converts
/// and compiles every instruction at the start of every container, so results
/// are shared as far as a jump reaches.
#[derive(Default)]
pub(super) struct Backwards {
    written: Vec<Instruction>,
    /// Where each result was last written.
    returns: Vec<(u32, usize)>,
}

/// Where to go on.
#[derive(Clone, Copy)]
pub(super) enum Target {
    /// At the instruction written at this place.
    At(usize),
    /// At any that returns this.
    Return(u32),
}

impl Backwards {
    /// Writes the search through `ranges`.
    fn search<D>(&mut self, ranges: &[(u32, D)], write: Write<'_, D>) -> Target {
        match ranges {
            [] => Target::Return(RET_KILL_PROCESS),
            [(_, decision)] => write(self, decision),
            _ => {
                let (below, above) = ranges.split_at(ranges.len() / 2);
                let first_above = above.first().map_or(0, |(first, _)| *first);
                let above = self.search(above, write);
                let below = self.search(below, write);
                self.choose(JUMP_AT_LEAST, first_above, above, below)
            }
        }
    }

    fn decide(&mut self, decision: Decision, capabilities: u64) -> Target {
        match decision {
            Decision::Allow => Target::Return(RET_ALLOW),
            Decision::Fail(errno) => Target::Return(RET_ERRNO | u32::from(errno)),
            Decision::Depends(rules, errno) => {
                let otherwise = Target::Return(RET_ERRNO | u32::from(errno));
                rules
                    .iter()
                    .filter(|rule| rule.needs & !capabilities == 0)
                    .rev()
                    .fold(otherwise, |rest, rule| self.apply(rule, rest))
            }
        }
    }

    /// If all conditions hold, the rule's result; else `rest`.
    fn apply(&mut self, rule: &Rule, rest: Target) -> Target {
        let result = rule
            .fail
            .map_or(RET_ALLOW, |errno| RET_ERRNO | u32::from(errno));
        self.guard(&rule.when, Target::Return(result), rest)
    }

    /// `then` if all conditions hold, else `rest`.
    pub(super) fn guard(&mut self, when: &[Condition], then: Target, rest: Target) -> Target {
        let mut then = then;
        for condition in when.iter().rev() {
            let (argument, comparison) = match *condition {
                Condition::Always => continue,
                Condition::Is(argument, value) => {
                    (argument, self.choose(JUMP_EQUAL, value, then, rest))
                }
                Condition::Without(argument, bits) => {
                    (argument, self.choose(JUMP_ANY_BIT, bits, rest, then))
                }
            };
            self.enter(comparison);
            then = self.push(load(low_half(argument)));
        }
        then
    }

    /// `yes` if the comparison holds, else `no`.
    pub(super) fn choose(&mut self, comparison: u16, k: u32, yes: Target, no: Target) -> Target {
        // Each may add an instruction that takes the other out of reach.
        let (mut yes, mut no) = (yes, no);
        loop {
            let (jump_true, jump_false) = (self.reach(&mut yes), self.reach(&mut no));
            if let (Some(jump_true), Some(jump_false)) = (jump_true, jump_false) {
                return self.push(instruction(comparison, jump_true, jump_false, k));
            }
        }
    }

    /// How far the next instruction has to jump to `target`, for which the offset
    /// of a conditional jump has eight bits. Where those are too few, something in
    /// its place is written: `target` is that then, and the answer `None`.
    fn reach(&mut self, target: &mut Target) -> Option<u8> {
        let found = match *target {
            Target::At(place) => Some(place),
            Target::Return(value) => self
                .returns
                .iter()
                .find(|(known, _)| *known == value)
                .map(|(_, place)| *place),
        };
        if let Some(distance) = found.map(|place| self.written.len() - 1 - place)
            && let Ok(distance) = u8::try_from(distance)
        {
            return Some(distance);
        }
        *target = match *target {
            Target::At(place) => {
                // A filter has at most 4096 instructions (BPF_MAXINSNS).
                let distance = u32::try_from(self.written.len() - 1 - place).unwrap_or(u32::MAX);
                self.push(instruction(JUMP, 0, 0, distance))
            }
            Target::Return(value) => self.finish(value),
        };
        None
    }

    /// Makes `target` what follows the next instruction.
    pub(super) fn enter(&mut self, target: Target) {
        match target {
            Target::At(place) if place + 1 == self.written.len() => {}
            Target::At(place) => {
                let distance = u32::try_from(self.written.len() - 1 - place).unwrap_or(u32::MAX);
                self.push(instruction(JUMP, 0, 0, distance));
            }
            Target::Return(value) => {
                self.finish(value);
            }
        }
    }

    fn finish(&mut self, value: u32) -> Target {
        self.returns.retain(|(known, _)| *known != value);
        self.returns.push((value, self.written.len()));
        self.push(ret(value))
    }

    pub(super) fn push(&mut self, instruction: Instruction) -> Target {
        self.written.push(instruction);
        Target::At(self.written.len() - 1)
    }
}

pub(super) fn load(offset: u32) -> Instruction {
    instruction(LOAD, 0, 0, offset)
}

fn ret(value: u32) -> Instruction {
    instruction(RETURN, 0, 0, value)
}

pub(super) fn instruction(code: u16, jump_true: u8, jump_false: u8, k: u32) -> Instruction {
    Instruction {
        code,
        jump_true,
        jump_false,
        k,
    }
}
