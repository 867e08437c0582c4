//! A profile that is made of bytes.

use serde_json::{Value, json};

const ACTIONS: [&str; 8] = [
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_LOG",
    "SCMP_ACT_TRAP",
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_ERRNO",
];
const OPERATORS: [&str; 8] = [
    "SCMP_CMP_EQ",
    "SCMP_CMP_NE",
    "SCMP_CMP_LT",
    "SCMP_CMP_LE",
    "SCMP_CMP_GE",
    "SCMP_CMP_GT",
    "SCMP_CMP_MASKED_EQ",
    "SCMP_CMP_MASKED_EQ",
];
const NAMES: [&str; 12] = [
    "read",
    "write",
    "openat",
    "mount",
    "clone",
    "personality",
    "socket",
    "ioctl",
    "getpid",
    "getppid",
    "no_such_call",
    "futex_waitv",
];
const ERRORS: [&str; 6] = ["", "EPERM", "EACCES", "EINVAL", "ENOSYS", "4095"];
const CAPABILITIES: [&str; 4] = ["CAP_SYS_ADMIN", "CAP_CHOWN", "KILL", "CAP_NONE"];
const ARCHITECTURES: [&str; 4] = ["amd64", "arm64", "x86", "s390x"];
const KERNELS: [&str; 4] = ["", "4.8", "6.2.0", "10.0-rc1"];

/// Bytes to choose by; when they have run out, zeros.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn next(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    fn one_of(&mut self, of: &[&str]) -> Value {
        of[usize::from(self.next()) % of.len()].into()
    }

    fn some_of(&mut self, of: &[&str]) -> Vec<Value> {
        let bits = self.next();
        let chosen = of.iter().enumerate().filter(|(n, _)| bits >> n & 1 != 0);
        chosen.map(|(_, word)| (*word).into()).collect()
    }

    /// A number with few bits, with most, with those of either half, or with any.
    fn word(&mut self) -> u64 {
        let low = u64::from(self.next());
        match self.next() % 8 {
            0 | 1 => low,
            2 => !low,
            3 => low << 32,
            4 => low << 28,
            5 => u64::from(u32::MAX) ^ low,
            6 => low << 56,
            _ => (0..8).fold(0, |word, _| word << 8 | u64::from(self.next())),
        }
    }
}

pub(super) fn profile(bytes: &[u8]) -> Value {
    let mut bytes = Bytes(bytes);
    let mut profile = json!({
        "defaultAction": bytes.one_of(&ACTIONS),
        "defaultErrnoRet": bytes.next(),
    });
    let mut rules = Vec::new();
    while !bytes.0.is_empty() {
        rules.push(rule(&mut bytes));
    }
    profile["syscalls"] = rules.into();
    profile
}

fn rule(bytes: &mut Bytes<'_>) -> Value {
    let more = bytes.next();
    let names: Vec<_> = (0..=more % 3).map(|_| bytes.one_of(&NAMES)).collect();
    let mut rule = json!({"names": names, "action": bytes.one_of(&ACTIONS)});
    if more & 4 != 0 {
        rule["errnoRet"] = bytes.next().into();
    }
    if more & 8 != 0 {
        rule["errno"] = bytes.one_of(&ERRORS);
    }
    let arguments: Vec<_> = (0..more >> 4 & 3).map(|_| argument(bytes)).collect();
    rule["args"] = arguments.into();
    for (bit, which) in [(64, "includes"), (128, "excludes")] {
        if more & bit != 0 {
            rule[which] = json!({
                "caps": bytes.some_of(&CAPABILITIES),
                "arches": bytes.some_of(&ARCHITECTURES),
                "minKernel": bytes.one_of(&KERNELS),
            });
        }
    }
    rule
}

fn argument(bytes: &mut Bytes<'_>) -> Value {
    json!({
        "index": bytes.next() % 6,
        "op": bytes.one_of(&OPERATORS),
        "value": bytes.word(),
        "valueTwo": bytes.word(),
    })
}
