use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::json;

use super::super::bpf::NATIVE;
use super::super::tests::{Call, fail, result_of, run};
use super::*;

const HERE: Target = Target {
    capabilities: caps::DEFAULT,
    kernel: (6, 1),
};

fn filter(profile: &serde_json::Value) -> Vec<Instruction> {
    compile(profile.to_string().as_bytes(), HERE).unwrap().0
}

fn error(profile: &serde_json::Value) -> String {
    compile(profile.to_string().as_bytes(), HERE)
        .unwrap_err()
        .to_string()
}

#[test]
fn actions_are_what_the_kernel_calls_them() {
    for (action, errno, expected) in [
        ("SCMP_ACT_ALLOW", None, RET_ALLOW),
        ("SCMP_ACT_LOG", None, RET_LOG),
        ("SCMP_ACT_TRAP", None, RET_TRAP),
        ("SCMP_ACT_KILL", None, RET_KILL_THREAD),
        ("SCMP_ACT_KILL_THREAD", None, RET_KILL_THREAD),
        ("SCMP_ACT_KILL_PROCESS", None, RET_KILL_PROCESS),
        ("SCMP_ACT_ERRNO", None, fail(1)),
        ("SCMP_ACT_ERRNO", Some(38), fail(38)),
        ("SCMP_ACT_ERRNO", Some(0), fail(0)),
    ] {
        let as_default = json!({"defaultAction": action, "defaultErrnoRet": errno});
        let as_rule = json!({
            "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 99,
            "syscalls": [{"names": ["getpid"], "action": action, "errnoRet": errno}],
        });
        for profile in [as_default, as_rule] {
            let result = result_of(&filter(&profile), libc::SYS_getpid, [0; 6]);
            assert_eq!(result, expected, "{profile}");
        }
    }
    let named = json!({
        "defaultAction": "SCMP_ACT_ERRNO", "defaultErrno": "ENOSYS", "defaultErrnoRet": 1,
        "syscalls": [{"name": "getpid", "action": "SCMP_ACT_ERRNO", "errno": "EINVAL"}],
    });
    let filter = filter(&named);
    assert_eq!(result_of(&filter, libc::SYS_getpid, [0; 6]), fail(22));
    assert_eq!(result_of(&filter, libc::SYS_getppid, [0; 6]), fail(38));
}

#[test]
fn flags_are_passed_on() {
    let flags = |flags: &[&str]| {
        let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": flags});
        compile(profile.to_string().as_bytes(), HERE).map(|(_, flags)| flags)
    };
    let both = FilterFlags::LOG.with(FilterFlags::SPEC_ALLOW);
    assert_eq!(flags(&[]).unwrap(), FilterFlags::NONE);
    assert_eq!(
        flags(&["SECCOMP_FILTER_FLAG_TSYNC"]).unwrap(),
        FilterFlags::NONE
    );
    let given = flags(&["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"]);
    assert_eq!(given.unwrap(), both);
    assert!(flags(&["SECCOMP_FILTER_FLAG_X"]).is_err());
}

#[test]
fn arguments_are_compared_whole() {
    const WORDS: [u64; 9] = [
        0,
        1,
        0x7fff_ffff,
        0xffff_ffff,
        0x1_0000_0000,
        0x1_0000_0001,
        0xffff_ffff_0000_0000,
        0xffff_ffff_0000_0001,
        u64::MAX,
    ];
    for value in WORDS {
        for (op, holds) in [
            ("EQ", (|arg, value| arg == value) as fn(u64, u64) -> bool),
            ("NE", |arg, value| arg != value),
            ("LT", |arg, value| arg < value),
            ("LE", |arg, value| arg <= value),
            ("GT", |arg, value| arg > value),
            ("GE", |arg, value| arg >= value),
        ] {
            let filter = filter(&json!({
                "defaultAction": "SCMP_ACT_ERRNO",
                "syscalls": [{"names": ["getpid"], "action": "SCMP_ACT_ALLOW",
                    "args": [{"index": 5, "value": value, "op": format!("SCMP_CMP_{op}")}]}],
            }));
            for arg in WORDS {
                let arguments = [7, 7, 7, 7, 7, arg];
                let expected = if holds(arg, value) {
                    RET_ALLOW
                } else {
                    fail(1)
                };
                let result = result_of(&filter, libc::SYS_getpid, arguments);
                assert_eq!(result, expected, "{arg:#x} {op} {value:#x}");
            }
        }
    }
}

#[test]
fn rules_are_put_together_as_libseccomp_does() {
    let rule = |action: &str, args: serde_json::Value| json!({"names": ["getpid", "no_such_call"], "action": action, "args": args});
    let equal =
        |index: u8, value: u64| json!({"index": index, "value": value, "op": "SCMP_CMP_EQ"});
    let result = |rules: &[serde_json::Value], arguments| {
        let profile = json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules});
        result_of(&filter(&profile), libc::SYS_getpid, arguments)
    };
    let both = [rule("SCMP_ACT_ALLOW", json!([equal(0, 1), equal(1, 2)]))];
    assert_eq!(result(&both, [1, 2, 0, 0, 0, 0]), RET_ALLOW);
    assert_eq!(result(&both, [1, 3, 0, 0, 0, 0]), fail(1));
    let either = [rule("SCMP_ACT_ALLOW", json!([equal(0, 1), equal(0, 2)]))];
    for (first, expected) in [(1, RET_ALLOW), (2, RET_ALLOW), (3, fail(1))] {
        assert_eq!(result(&either, [first, 0, 0, 0, 0, 0]), expected);
    }
    // Alone without conditions, wherever it stands; and no rule if it changes nothing.
    for rules in [
        [
            rule("SCMP_ACT_KILL", json!([equal(0, 1)])),
            rule("SCMP_ACT_LOG", json!(null)),
        ],
        [
            rule("SCMP_ACT_LOG", json!([])),
            rule("SCMP_ACT_KILL", json!([equal(0, 1)])),
        ],
    ] {
        assert_eq!(result(&rules, [1, 0, 0, 0, 0, 0]), RET_LOG);
    }
    let nothing = [
        rule("SCMP_ACT_ERRNO", json!(null)),
        rule("SCMP_ACT_ALLOW", json!([equal(0, 1)])),
    ];
    assert_eq!(result(&nothing, [1, 0, 0, 0, 0, 0]), RET_ALLOW);
}

#[test]
fn circumstances_decide_which_rules_count() {
    let other = if ARCHITECTURE == "amd64" {
        "arm64"
    } else {
        "amd64"
    };
    for (key, circumstances, counts) in [
        ("includes", json!({}), true),
        ("includes", json!({"caps": [], "arches": null}), true),
        ("includes", json!({"arches": [ARCHITECTURE, other]}), true),
        ("includes", json!({"arches": [other]}), false),
        ("includes", json!({"caps": ["CAP_CHOWN", "CAP_KILL"]}), true),
        ("includes", json!({"caps": ["CAP_CHOWN", "CAP_BPF"]}), false),
        ("includes", json!({"minKernel": "6.1"}), true),
        ("includes", json!({"minKernel": "6.2.0"}), false),
        ("excludes", json!({}), true),
        ("excludes", json!({"arches": [ARCHITECTURE]}), false),
        ("excludes", json!({"caps": ["CAP_BPF", "CAP_KILL"]}), false),
        ("excludes", json!({"caps": ["CAP_BPF"]}), true),
        ("excludes", json!({"minKernel": "4.8"}), false),
        ("excludes", json!({"minKernel": "10.0"}), true),
    ] {
        let mut rule = json!({"names": ["getpid"], "action": "SCMP_ACT_ALLOW"});
        rule[key] = circumstances;
        let profile = json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [rule]});
        let expected = if counts { RET_ALLOW } else { fail(1) };
        let result = result_of(&filter(&profile), libc::SYS_getpid, [0; 6]);
        assert_eq!(result, expected, "{profile}");
    }
}

#[test]
fn other_abis_do_not_come_by() {
    let filter = filter(&json!({"defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mount"], "action": "SCMP_ACT_ERRNO"}]}));
    let of = |arch, number| {
        let arguments = [0; 6];
        let call = Call {
            arch,
            number,
            arguments,
        };
        run(&filter, &call).0
    };
    assert_eq!(of(0x4000_0003, 21), RET_KILL_PROCESS, "32-bit x86");
    assert_eq!(of(NATIVE, X32 | 165), fail(38), "x32");
    assert_eq!(
        of(NATIVE, u32::MAX),
        RET_ALLOW,
        "a tracer's own result stands"
    );
    assert_eq!(of(NATIVE, 1000), RET_ALLOW);
}

#[test]
fn errors_say_where() {
    let rule = |rule: serde_json::Value| json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": [], "action": "SCMP_ACT_LOG"}, rule]});
    for (profile, words) in [
        (json!({}), &["defaultAction", "line 1 column 2"][..]),
        (json!([]), &["not a profile"]),
        (
            json!({"defaultAction": "ALLOW"}),
            &["`ALLOW`", "SCMP_ACT_ERRNO", "line 1"],
        ),
        (
            json!({"defaultAction": "SCMP_ACT_NOTIFY"}),
            &["defaultAction: SCMP_ACT_NOTIFY", "supervisor"],
        ),
        (
            json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 4096}),
            &["defaultErrnoRet: 4096"],
        ),
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/x"}),
            &["listenerPath"],
        ),
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": ["X"]}),
            &["flags[0]", "\"X\""],
        ),
        (
            rule(json!({"names": ["read"], "action": "SCMP_ACT_TRACE"})),
            &["syscalls[1].action", "SCMP_ACT_TRACE"],
        ),
        (
            rule(json!({"names": ["read"], "action": "SCMP_ACT_ERRNO", "errno": "EWHAT"})),
            &["syscalls[1].errno", "EWHAT"],
        ),
        (
            rule(
                json!({"names": ["read"], "action": "SCMP_ACT_LOG", "args": [{"index": 6, "value": 1, "op": "SCMP_CMP_EQ"}]}),
            ),
            &["syscalls[1].args[0].index", "6"],
        ),
        (
            rule(
                json!({"names": ["read"], "action": "SCMP_ACT_LOG", "args": [{"index": 0, "value": -1, "op": "SCMP_CMP_EQ"}]}),
            ),
            &["-1", "line 1 column"],
        ),
        (
            rule(
                json!({"names": ["read"], "action": "SCMP_ACT_LOG", "excludes": {"minKernel": "new"}}),
            ),
            &["syscalls[1].excludes.minKernel", "new"],
        ),
    ] {
        let text = error(&profile);
        for word in words {
            assert!(text.contains(word), "{word}: {text}");
        }
    }
    assert!(matches!(compile(b"{\n\n", HERE), Err(ProfileError::Json(error)) if error.line() == 3));
}

#[test]
fn what_the_kernel_would_not_take_is_refused() {
    let rules: Vec<_> = (0..2000_u64)
        .map(|value| json!({"names": ["getpid"], "action": "SCMP_ACT_LOG", "args": [{"index": 0, "value": value, "op": "SCMP_CMP_EQ"}]}))
        .collect();
    let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules});
    assert!(error(&profile).contains("4096 are the most"));
}

/// What podman's profile, where it is installed, allows and ours does not, and the
/// other way round.
#[test]
fn our_profile_beside_podmans() {
    let Ok(text) = std::fs::read("/usr/share/containers/seccomp.json") else {
        crate::testing::skip("podman's profile is not installed");
        return;
    };
    let (podmans, _) = compile(&text, HERE).unwrap();
    let ours = super::super::compile(HERE.capabilities);
    let (mut stricter, mut laxer) = (BTreeSet::new(), BTreeSet::new());
    for call in syscalls::Sysno::iter() {
        // Arguments that no rule is about.
        let number = call.id().into();
        let allowed = |filter: &[Instruction]| result_of(filter, number, [1; 6]) == RET_ALLOW;
        match (allowed(&podmans), allowed(&ours)) {
            (true, false) => stricter.insert(call.name()),
            (false, true) => laxer.insert(call.name()),
            _ => false,
        };
    }
    // A newer profile than Debian 12's may allow more calls that ours refuses, or know
    // more of those that ours allows, but not the other way round.
    let ours: BTreeSet<_> = STRICTER.iter().copied().collect();
    assert_eq!(
        &ours - &stricter,
        BTreeSet::new(),
        "not refused by ours alone"
    );
    assert_eq!(
        &laxer - &LAXER.iter().copied().collect(),
        BTreeSet::new(),
        "allowed by ours alone"
    );
    let more: Vec<_> = (&stricter - &ours).into_iter().collect();
    assert_eq!(more, [""; 0], "refused by ours alone");
}

/// What podman lets through for containers within containers and leaves to the kernel's
/// own checks, and what is of the host: see the reasons in `profile`. Conditions on
/// arguments (namespaces, families of sockets, ioctls) come on top.
const STRICTER: &[&str] = &[
    "clock_adjtime",
    "clone3",
    "epoll_ctl_old",
    "epoll_wait_old",
    "fanotify_mark",
    "fsconfig",
    "fsmount",
    "fsopen",
    "fspick",
    "get_mempolicy",
    "keyctl",
    "mbind",
    "modify_ldt",
    "mount",
    "mount_setattr",
    "move_mount",
    "open_tree",
    "pivot_root",
    "reboot",
    "set_mempolicy",
    "setns",
    "syslog",
    "umount2",
];
/// New calls that are like older ones, and what podman withholds without a reason here:
/// `vmsplice` and `process_madvise` are about the memory of the process itself.
const LAXER: &[&str] = &[
    "cachestat",
    "fchmodat2",
    "futex_requeue",
    "futex_wait",
    "futex_waitv",
    "futex_wake",
    "getxattrat",
    "io_pgetevents",
    "listxattrat",
    "map_shadow_stack",
    "mseal",
    "process_madvise",
    "removexattrat",
    "setxattrat",
    "uprobe",
    "uretprobe",
    "vmsplice",
];

/// A profile's rule and its meaning.
#[derive(Debug, Clone)]
struct Made {
    call: &'static str,
    action: (&'static str, u32),
    args: Vec<(u8, &'static str, u64, u64)>,
}

fn made() -> impl Strategy<Value = Made> {
    let value = prop_oneof![
        Just(0),
        Just(1),
        Just(0xffff_ffff),
        Just(0x1_0000_0000),
        Just(u64::MAX),
        any::<u64>()
    ];
    let op = prop::sample::select(&["EQ", "NE", "LT", "LE", "GT", "GE", "MASKED_EQ"][..]);
    let arg = (0..6_u8, op, value.clone(), value);
    let action = prop::sample::select(
        &[
            ("SCMP_ACT_ALLOW", RET_ALLOW),
            ("SCMP_ACT_LOG", RET_LOG),
            ("SCMP_ACT_KILL_PROCESS", RET_KILL_PROCESS),
            ("SCMP_ACT_ERRNO", RET_ERRNO | 1),
        ][..],
    );
    let call = prop::sample::select(&["read", "write", "socket", "openat"][..]);
    (call, action, prop::collection::vec(arg, 0..4)).prop_map(|(call, action, args)| Made {
        call,
        action,
        args,
    })
}

/// What the text of the module says that a profile means.
fn meaning(rules: &[Made], default: u32, call: &str, arguments: [u64; 6]) -> u32 {
    let rules: Vec<_> = rules
        .iter()
        .filter(|rule| rule.call == call && rule.action.1 != default)
        .collect();
    if let Some(rule) = rules.iter().find(|rule| rule.args.is_empty()) {
        return rule.action.1;
    }
    let holds = |&(index, op, value, two): &(u8, &str, u64, u64)| {
        let arg = arguments[usize::from(index)];
        match op {
            "EQ" => arg == value,
            "NE" => arg != value,
            "LT" => arg < value,
            "LE" => arg <= value,
            "GT" => arg > value,
            "GE" => arg >= value,
            _ => arg & value == two,
        }
    };
    let first = rules.iter().find(|rule| {
        let indices: BTreeSet<u8> = rule.args.iter().map(|arg| arg.0).collect();
        if indices.len() < rule.args.len() {
            rule.args.iter().any(holds)
        } else {
            rule.args.iter().all(holds)
        }
    });
    first.map_or(default, |rule| rule.action.1)
}

proptest! {
    #[test]
    fn a_filter_does_what_its_profile_says(
        rules in prop::collection::vec(made(), 0..12),
        calls in prop::collection::vec((0..5_usize, any::<[bool; 6]>(), any::<u64>()), 1..20),
    ) {
        let json: Vec<_> = rules.iter().map(|rule| {
            let args: Vec<_> = rule.args.iter().map(|(index, op, value, two)| json!({
                "index": index, "op": format!("SCMP_CMP_{op}"), "value": value, "valueTwo": two,
            })).collect();
            json!({"names": [rule.call], "action": rule.action.0, "args": args})
        }).collect();
        let filter = filter(&json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": json}));
        // The values that rules compare to, beside others.
        let known: Vec<u64> = rules.iter().flat_map(|rule| &rule.args).map(|arg| arg.2).chain([0]).collect();
        for (call, use_known, other) in calls {
            let (name, number) = [
                ("read", libc::SYS_read), ("write", libc::SYS_write), ("socket", libc::SYS_socket),
                ("openat", libc::SYS_openat), ("getpid", libc::SYS_getpid),
            ][call];
            let mut arguments = [other; 6];
            for (at, argument) in arguments.iter_mut().enumerate() {
                if use_known[at] {
                    *argument = known[(at + usize::from(other.to_le_bytes()[0])) % known.len()];
                }
            }
            let expected = meaning(&rules, RET_ERRNO | 1, name, arguments);
            prop_assert_eq!(result_of(&filter, number, arguments), expected, "{} {:x?}", name, arguments);
        }
    }

    #[test]
    fn any_text_is_a_profile_or_an_error(text in ".{0,200}") {
        let _ = compile(text.as_bytes(), HERE);
    }

    #[test]
    fn a_broken_profile_is_an_error_or_another_profile(
        cut in any::<prop::sample::Index>(), byte in any::<u8>(), rules in prop::collection::vec(made(), 1..4),
    ) {
        let json: Vec<_> = rules.iter().map(|rule| json!({"names": [rule.call], "action": rule.action.0,
            "args": [{"index": 1, "op": "SCMP_CMP_EQ", "value": 3}], "includes": {"caps": ["CAP_KILL"], "minKernel": "5.0"}})).collect();
        let mut text = json!({"defaultAction": "SCMP_ACT_ERRNO", "flags": [], "syscalls": json}).to_string().into_bytes();
        let at = cut.index(text.len());
        text[at] = byte;
        let _ = compile(&text, HERE);
        let _ = compile(&text[..at], HERE);
    }
}
