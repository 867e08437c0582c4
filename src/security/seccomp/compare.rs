//! Conditions on whole arguments, as profiles of others have them.
//!
//! Classic BPF has 32-bit words, so each argument is two of them, and the upper
//! half is looked at first.

use super::bpf::{
    AND, Backwards, JUMP_ABOVE, JUMP_AT_LEAST, JUMP_EQUAL, Target, high_half, instruction, load,
    low_half,
};

/// What an argument is compared to (`SCMP_CMP_*`, seccomp_rule_add(3)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Comparison {
    /// `arg & mask == value`
    Masked(u64, u64),
    /// `arg != value`
    NotEqual(u64),
    /// `arg < value`
    Less(u64),
    /// `arg <= value`
    AtMost(u64),
    /// `arg >= value`
    AtLeast(u64),
    /// `arg > value`
    Greater(u64),
}

/// If all conditions hold, this is what the filter returns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Match {
    /// Numbers of arguments, and what they are compared to.
    pub(crate) when: Vec<(u8, Comparison)>,
    /// `SECCOMP_RET_*`
    pub(crate) result: u32,
}

impl Backwards {
    /// The result of the first of `rules` that holds, else `otherwise`.
    pub(super) fn first_match(&mut self, rules: &[Match], otherwise: u32) -> Target {
        rules
            .iter()
            .rev()
            .fold(Target::Return(otherwise), |rest, rule| {
                let result = Target::Return(rule.result);
                let all = rule.when.iter().rev();
                all.fold(result, |then, &(argument, comparison)| {
                    self.compare(argument, comparison, then, rest)
                })
            })
    }

    fn compare(&mut self, argument: u8, comparison: Comparison, yes: Target, no: Target) -> Target {
        match comparison {
            Comparison::Masked(mask, value) => self.masked(argument, mask, value, yes, no),
            Comparison::NotEqual(value) => self.masked(argument, u64::MAX, value, no, yes),
            Comparison::Less(value) => self.order(JUMP_AT_LEAST, argument, value, no, yes),
            Comparison::AtMost(value) => self.order(JUMP_ABOVE, argument, value, no, yes),
            Comparison::AtLeast(value) => self.order(JUMP_AT_LEAST, argument, value, yes, no),
            Comparison::Greater(value) => self.order(JUMP_ABOVE, argument, value, yes, no),
        }
    }

    fn masked(&mut self, argument: u8, mask: u64, value: u64, yes: Target, no: Target) -> Target {
        let halves = [
            (low_half(argument), low(mask), low(value)),
            (high_half(argument), high(mask), high(value)),
        ];
        halves.into_iter().fold(yes, |then, (offset, mask, value)| {
            let jump = self.choose(JUMP_EQUAL, value, then, no);
            self.enter(jump);
            if mask != u32::MAX {
                self.push(instruction(AND, 0, 0, mask));
            }
            self.push(load(offset))
        })
    }

    /// `comparison` decides where the upper halves are equal.
    fn order(
        &mut self,
        comparison: u16,
        argument: u8,
        value: u64,
        yes: Target,
        no: Target,
    ) -> Target {
        let jump = self.choose(comparison, low(value), yes, no);
        self.enter(jump);
        let lower = self.push(load(low_half(argument)));
        let same = self.choose(JUMP_EQUAL, high(value), lower, no);
        let above = self.choose(JUMP_ABOVE, high(value), yes, same);
        self.enter(above);
        self.push(load(high_half(argument)))
    }
}

fn low(value: u64) -> u32 {
    let [a, b, c, d, ..] = value.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

fn high(value: u64) -> u32 {
    low(value >> 32)
}
