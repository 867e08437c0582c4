//! Profiles of `--security-opt seccomp=FILE`: what is read compiles to a filter that the
//! kernel takes, and that says of any call what a plain reading of the rules says.
//!
//! Input that begins with `{` or `[` is the file. Of any other a profile is made that is
//! well-formed, so that a fuzzer need not learn JSON to reach the compiler.
//!
//! The reading shares no code with the compiler: it goes through the rules of the JSON
//! for one call at a time. The calls are made of what the profile names: its calls and
//! their neighbours, its values and what is next to them.

#[path = "seccomp/filter.rs"]
mod filter;
#[path = "seccomp/made.rs"]
mod made;
#[path = "seccomp/reading.rs"]
mod reading;

use std::str::FromStr;

use crun_lite::security::caps;
use crun_lite::security::file::{ProfileError, Target, compile};
use serde_json::Value;
use syscalls::Sysno;

use self::filter::Call;
use self::reading::{list, string};

/// Calls that are tried on each profile, for each target.
const TRIES: usize = 100;

/// For whom each profile is compiled.
const TARGETS: [Target; 3] = [
    Target {
        capabilities: caps::DEFAULT,
        kernel: (6, 1),
    },
    Target {
        capabilities: caps::ALL,
        kernel: (4, 8),
    },
    Target {
        capabilities: 0,
        kernel: (10, 0),
    },
];

pub(crate) fn play(bytes: &[u8]) {
    let made;
    let text = if matches!(bytes.first(), Some(b'{' | b'[')) {
        bytes
    } else {
        made = made::profile(bytes).to_string().into_bytes();
        &made
    };
    let compiled = TARGETS.map(|target| compile(text, target));
    // A file is good or it is not, whoever it is for; how long its filter gets is another
    // matter.
    let good = compiled.iter().map(|result| match result {
        Ok(_) | Err(ProfileError::TooLong(_)) => None,
        Err(error) => Some(error.to_string()),
    });
    let good: Vec<_> = good.collect();
    assert!(good.windows(2).all(|pair| pair[0] == pair[1]), "{good:?}");

    for (target, result) in TARGETS.into_iter().zip(compiled) {
        let (filter, _) = match result {
            Ok(compiled) => compiled,
            Err(error) => {
                assert!(!error.to_string().is_empty());
                continue;
            }
        };
        filter::verify(&filter);
        // What the compiler passes over unread may be no JSON.
        let Ok(profile) = serde_json::from_slice(text) else {
            continue;
        };
        if !reading::knows(&profile) {
            continue;
        }
        let mut chance = Chance::of(text);
        let calls = Calls::of(&profile);
        for _ in 0..TRIES {
            let call = calls.next(&mut chance);
            let expected = reading::verdict(&profile, target, &call);
            let verdict = filter::run(&filter, &call);
            assert_eq!(verdict, expected, "{target:?}: {call:x?} with {profile}");
        }
    }
}

/// Numbers that follow from the input alone (xorshift64*), so that a find is found again.
struct Chance(u64);

impl Chance {
    fn of(bytes: &[u8]) -> Self {
        let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
        });
        Self(hash | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() >> 16) as usize % end
    }

    fn one_of<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }
}

/// What calls are made of.
struct Calls {
    numbers: Vec<u32>,
    values: Vec<u64>,
    /// Conditions of the rules for each call: the argument, and a value near its edge.
    wanted: Vec<(u32, Vec<(usize, u64)>)>,
}

impl Calls {
    fn of(profile: &Value) -> Self {
        let mut numbers = vec![0, 1, 462, 1000, 0x3fff_ffff, 0x4000_0000, 0x7fff_ffff];
        numbers.extend([0x8000_0000, u32::MAX - 1, u32::MAX]);
        let mut values = vec![0, 1, u64::from(u32::MAX), 1 << 32, u64::MAX];
        let mut wanted = Vec::new();
        for rule in list(reading::field(profile, "syscalls")) {
            let mut conditions = Vec::new();
            for argument in list(reading::field(rule, "args")) {
                let (value, two) = (reading::value(argument), reading::value_two(argument));
                values.extend([value, two]);
                let masked = reading::operator(argument) == "SCMP_CMP_MASKED_EQ";
                let near = if masked { two | !value } else { value };
                conditions.push((reading::index(argument), near));
            }
            for name in reading::names(rule) {
                if let Some(number) = Sysno::from_str(string(name)).ok().map(|call| call as u32) {
                    numbers.extend([number, number + 1, number.saturating_sub(1)]);
                    numbers.push(0x4000_0000 | number);
                    wanted.push((number, conditions.clone()));
                }
            }
        }
        Self {
            numbers,
            values,
            wanted,
        }
    }

    /// One of which a rule may hold, as a rule.
    fn next(&self, chance: &mut Chance) -> Call {
        let mut call = Call {
            architecture: reading::NATIVE,
            number: chance.one_of(&self.numbers),
            arguments: [0; 6].map(|_: u64| self.near(chance)),
        };
        if !self.wanted.is_empty() && chance.below(4) > 0 {
            let (number, conditions) = &self.wanted[chance.below(self.wanted.len())];
            call.number = *number;
            for (argument, value) in conditions {
                call.arguments[*argument] = beside(*value, chance);
            }
        }
        match chance.below(64) {
            0 => call.architecture = 0x4000_0003,
            1 => call.number = (chance.next() >> 32) as u32,
            _ => {}
        }
        call
    }

    fn near(&self, chance: &mut Chance) -> u64 {
        match chance.below(8) {
            0 => chance.next(),
            _ => beside(chance.one_of(&self.values), chance),
        }
    }
}

/// The value, as a rule, or one that is easily taken for it.
fn beside(value: u64, chance: &mut Chance) -> u64 {
    match chance.below(16) {
        0 => value.wrapping_add(1),
        1 => value.wrapping_sub(1),
        2 => value ^ 1 << chance.below(64),
        3 => value ^ u64::from(u32::MAX),
        4 => value << 32,
        5 => value & u64::from(u32::MAX),
        _ => value,
    }
}
