//! What a profile says about one call, rule by rule.

use crun_lite::security::caps;
use crun_lite::security::file::Target;
use serde_json::Value;
use syscalls::Sysno;

use super::filter::Call;

/// `AUDIT_ARCH_*`, and the name that profiles have for it.
#[cfg(target_arch = "x86_64")]
pub(super) const NATIVE: u32 = 0xc000_003e;
#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: &str = "amd64";
#[cfg(target_arch = "aarch64")]
pub(super) const NATIVE: u32 = 0xc000_00b7;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: &str = "arm64";

const ALLOW: u32 = 0x7fff_0000;
const ERRNO: u32 = 0x0005_0000;
const KILL_PROCESS: u32 = 0x8000_0000;

/// The fields of an object in the order in which a list in its place would have them.
const PROFILE: [&str; 6] = [
    "defaultAction",
    "defaultErrnoRet",
    "defaultErrno",
    "flags",
    "listenerPath",
    "syscalls",
];
const RULE: [&str; 8] = [
    "names", "name", "action", "errnoRet", "errno", "args", "includes", "excludes",
];
const ARGUMENT: [&str; 4] = ["index", "value", "valueTwo", "op"];
const CIRCUMSTANCES: [&str; 3] = ["caps", "arches", "minKernel"];

/// A field of an object, which may be written as a list of the values alone.
pub(super) fn field<'a>(of: &'a Value, name: &str) -> &'a Value {
    let Value::Array(values) = of else {
        return &of[name];
    };
    let kinds = [&PROFILE[..], &RULE, &ARGUMENT, &CIRCUMSTANCES];
    let place = kinds
        .iter()
        .find_map(|fields| fields.iter().position(|field| *field == name));
    place
        .and_then(|place| values.get(place))
        .unwrap_or(&Value::Null)
}

/// The values of a list that may be missing.
pub(super) fn list(of: &Value) -> &[Value] {
    of.as_array().map_or(&[], Vec::as_slice)
}

/// A word, which JSON may have as the only key of an object, too.
pub(super) fn string(of: &Value) -> &str {
    match of {
        Value::String(text) => text,
        Value::Object(object) => object.keys().next().map_or("", String::as_str),
        _ => "",
    }
}

pub(super) fn names(rule: &Value) -> impl Iterator<Item = &Value> {
    list(field(rule, "names"))
        .iter()
        .chain(Some(field(rule, "name")))
}

pub(super) fn index(argument: &Value) -> usize {
    usize::try_from(field(argument, "index").as_u64().unwrap()).unwrap()
}

pub(super) fn value(argument: &Value) -> u64 {
    field(argument, "value").as_u64().unwrap()
}

pub(super) fn value_two(argument: &Value) -> u64 {
    field(argument, "valueTwo").as_u64().unwrap_or(0)
}

pub(super) fn operator(argument: &Value) -> &str {
    string(field(argument, "op"))
}

/// What is to be returned for the call.
pub(super) fn verdict(profile: &Value, target: Target, call: &Call) -> u32 {
    if call.architecture != NATIVE {
        return KILL_PROCESS;
    }
    if call.number == u32::MAX {
        // A tracer has skipped the call.
        return ALLOW;
    }
    if call.number >= 0x4000_0000 {
        // x32
        return ERRNO | 38;
    }
    let default = result(
        field(profile, "defaultAction"),
        field(profile, "defaultErrno"),
        field(profile, "defaultErrnoRet"),
    );
    let result_of = |rule: &Value| {
        let (action, errno) = (field(rule, "action"), field(rule, "errno"));
        result(action, errno, field(rule, "errnoRet"))
    };
    let called = Sysno::new(usize::try_from(call.number).unwrap());
    let about = |rule: &&Value| {
        let is_it = |name| called.is_some_and(|called| string(name) == called.name());
        names(rule).any(is_it) && counts(rule, target) && result_of(rule) != default
    };
    let rules: Vec<_> = list(field(profile, "syscalls"))
        .iter()
        .filter(about)
        .collect();
    let whatever = |rule: &&&Value| list(field(rule, "args")).is_empty();
    let decides = rules
        .iter()
        .find(whatever)
        .or_else(|| rules.iter().find(|rule| applies(rule, call)));
    decides.map_or(default, |rule| result_of(rule))
}

fn result(action: &Value, errno: &Value, errno_ret: &Value) -> u32 {
    match string(action) {
        "SCMP_ACT_ALLOW" => ALLOW,
        "SCMP_ACT_LOG" => 0x7ffc_0000,
        "SCMP_ACT_TRAP" => 0x0003_0000,
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => 0,
        "SCMP_ACT_KILL_PROCESS" => KILL_PROCESS,
        "SCMP_ACT_ERRNO" => {
            let number = match string(errno) {
                "" => u32::try_from(errno_ret.as_u64().unwrap_or(1)).unwrap(),
                name => number(name).unwrap(),
            };
            ERRNO | number
        }
        other => unreachable!("{other:?} is refused"),
    }
}

/// Of an error's name, for some; the seeds and what is made of bytes have these.
fn number(name: &str) -> Option<u32> {
    match name {
        "EPERM" => Some(1),
        "EACCES" => Some(13),
        "EINVAL" => Some(22),
        "ENOSYS" => Some(38),
        number => number.parse().ok(),
    }
}

/// Whether all errors of the profile have a number or one of these names.
pub(super) fn knows(profile: &Value) -> bool {
    let rules = list(field(profile, "syscalls"));
    let of_rules = rules.iter().map(|rule| field(rule, "errno"));
    let mut errors = of_rules.chain(Some(field(profile, "defaultErrno")));
    errors.all(|name| string(name).is_empty() || number(string(name)).is_some())
}

/// Whether the rule is one for the target.
fn counts(rule: &Value, target: Target) -> bool {
    let held = caps::names(target.capabilities);
    let has = |name: &Value| {
        let name = string(name);
        held.contains(&name.strip_prefix("CAP_").unwrap_or(name))
    };
    let is_here = |name: &Value| string(name) == ARCHITECTURE;
    let reached = |of: &Value| {
        let text = string(field(of, "minKernel"));
        (!text.is_empty()).then(|| target.kernel >= version(text))
    };
    let (includes, excludes) = (field(rule, "includes"), field(rule, "excludes"));
    let (caps, arches) = (
        list(field(includes, "caps")),
        list(field(includes, "arches")),
    );
    caps.iter().all(has)
        && (arches.is_empty() || arches.iter().any(is_here))
        && reached(includes) != Some(false)
        && !list(field(excludes, "caps")).iter().any(has)
        && !list(field(excludes, "arches")).iter().any(is_here)
        && reached(excludes) != Some(true)
}

/// Major and minor number, and one byte of whatever kind between them.
fn version(text: &str) -> (u32, u32) {
    let mut numbers = [0_u32; 2];
    let mut place = 0;
    for byte in text.chars() {
        match (byte.to_digit(10), numbers.get_mut(place)) {
            (Some(digit), Some(number)) => *number = *number * 10 + digit,
            _ => place += 1,
        }
    }
    (numbers[0], numbers[1])
}

/// Whether the conditions of a rule hold that has some.
fn applies(rule: &Value, call: &Call) -> bool {
    let arguments = list(field(rule, "args"));
    let one_each = (0..6).all(|number| {
        let of_it = |argument: &&Value| index(argument) == number;
        arguments.iter().filter(of_it).count() < 2
    });
    let mut hold = arguments.iter().map(|argument| holds(argument, call));
    if one_each {
        hold.all(|holds| holds)
    } else {
        hold.any(|holds| holds)
    }
}

fn holds(argument: &Value, call: &Call) -> bool {
    let is = call.arguments[index(argument)];
    let (value, two) = (value(argument), value_two(argument));
    match operator(argument) {
        "SCMP_CMP_NE" => is != value,
        "SCMP_CMP_LT" => is < value,
        "SCMP_CMP_LE" => is <= value,
        "SCMP_CMP_EQ" => is == value,
        "SCMP_CMP_GE" => is >= value,
        "SCMP_CMP_GT" => is > value,
        "SCMP_CMP_MASKED_EQ" => is & value == two,
        other => unreachable!("{other:?} is refused"),
    }
}
