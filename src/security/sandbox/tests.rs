//! Holds forked children to the list, for real.

use std::collections::BTreeSet;

use rustix::process::{WaitId, WaitIdOptions};

use super::calls::Call;
use super::*;
use crate::sys::process::{exit, fork_beside_threads};
use crate::sys::seccomp::probe_all;
use crate::testing::{in_namespaces, report, scratch};

const ALL: Features = Features {
    terminal: true,
    outbound_address: true,
};
/// Numbers that there are, and more.
const NUMBERS: std::ops::Range<i64> = 0..512;

#[test]
fn the_list_is_short_and_every_call_has_a_reason() {
    let numbers: BTreeSet<_> = CALLS.iter().map(|call| call.number).collect();
    let names: BTreeSet<_> = CALLS.iter().map(|call| call.name).collect();
    assert_eq!((numbers.len(), names.len()), (CALLS.len(), CALLS.len()));
    assert!(CALLS.len() <= 34, "{} calls", CALLS.len());
    assert!(CALLS.iter().all(|call| call.reason.len() > 5));
    assert!(Features::default().calls().len() < ALL.calls().len());
    for forbidden in [
        "openat", "open", "execve", "execveat", "clone", "clone3", "ptrace",
    ] {
        assert!(!names.contains(forbidden), "{forbidden}");
    }
}

/// Whoever reads about the list reads this one.
#[test]
fn the_readme_has_the_list() {
    let readme = include_str!("../../../README.md");
    let begin = readme.find("every system call but").unwrap();
    let end = begin + readme[begin..].find('.').unwrap();
    let told: BTreeSet<&str> = readme[begin..end].split('`').skip(1).step_by(2).collect();
    let told_count = readme[begin..]
        .split(' ')
        .find_map(|word| word.trim_end_matches(',').parse().ok());
    let names: BTreeSet<&str> = CALLS.iter().map(|call| call.name).collect();
    assert_eq!((told, told_count), (names, Some(CALLS.len())));
    let changes = include_str!("../../../CHANGELOG.md");
    assert!(changes.contains(&format!("{} system calls", CALLS.len())));
}

#[test]
fn what_is_not_on_the_list_kills() {
    in_namespaces("security::sandbox::tests::inside::numbers", |_| {});
}

#[test]
fn so_does_an_argument_that_is_not() {
    in_namespaces("security::sandbox::tests::inside::arguments", |_| {});
}

#[test]
fn the_walls_stand() {
    in_namespaces("security::sandbox::tests::inside::walls", |_| {});
}

/// The tests that run in namespaces of their own.
mod inside {
    use super::*;

    /// How a child ends that does this.
    fn child(what: impl FnOnce() -> u8) -> Result<i32, i32> {
        let Some(child) = fork_beside_threads().unwrap() else {
            exit(what());
        };
        let status = rustix::process::waitid(WaitId::Pid(child), WaitIdOptions::EXITED);
        let status = status.unwrap().unwrap();
        status
            .exit_status()
            .ok_or_else(|| status.terminating_signal().unwrap())
    }

    /// Whether a call kills a child that is held to the list.
    fn kills(features: Features, number: i64, arguments: [i64; 6]) -> bool {
        let own = Pid::from_raw(OWN).unwrap();
        let filter = compile(features, own);
        let ended = child(|| {
            set_no_new_privs(true).unwrap();
            install_filter(&filter, FilterFlags::NONE).unwrap();
            let _ = probe_all(number, arguments);
            0
        });
        match ended {
            Ok(_) => false,
            Err(libc::SIGSYS) => true,
            Err(other) => panic!("call {number} {arguments:?}: signal {other}"),
        }
    }

    /// uretprobe(2) and uprobe(2) of x86-64: of the kernel's own trampolines, about which
    /// it asks no filter (`__secure_computing`); whoever else calls them gets nothing.
    const PROBES: [i64; 2] = [335, 336];

    /// A process id that is nobody's: beyond the largest (PID_MAX_LIMIT).
    const OWN: i32 = 1 << 23;

    /// Arguments that a way allows, and otherwise point nowhere.
    fn within(way: &[Check]) -> [i64; 6] {
        let mut arguments = [-1; 6];
        for check in way {
            match *check {
                Check::Is(argument, value) => arguments[usize::from(argument)] = value.into(),
                Check::Without(argument, _) => arguments[usize::from(argument)] = 0,
                Check::Own(argument) => arguments[usize::from(argument)] = OWN.into(),
            }
        }
        arguments
    }

    fn holds(check: &Check, arguments: [i64; 6]) -> bool {
        let low = |argument: u8| u32::try_from(arguments[usize::from(argument)] & 0xffff_ffff);
        match *check {
            Check::Is(argument, value) => low(argument) == Ok(value),
            Check::Without(argument, bits) => low(argument).unwrap() & bits == 0,
            Check::Own(argument) => low(argument) == Ok(OWN.cast_unsigned()),
        }
    }

    fn is_allowed(call: &Call, arguments: [i64; 6]) -> bool {
        let all = |way: &&[Check]| way.iter().all(|check| holds(check, arguments));
        call.ways.is_empty() || call.ways.iter().any(all)
    }

    #[test]
    #[ignore = "started by what_is_not_on_the_list_kills"]
    fn numbers() {
        scratch();
        let mut killed = 0;
        for features in [ALL, Features::default()] {
            for number in NUMBERS.chain([1000, 0x4000_0000, 0x4000_0001]) {
                if cfg!(target_arch = "x86_64") && PROBES.contains(&number) {
                    continue;
                }
                let call = CALLS.iter().find(|call| call.number == number);
                match call.filter(|call| features.need(call.needed)) {
                    None => {
                        assert!(kills(features, number, [-1; 6]), "call {number}");
                        killed += 1;
                    }
                    // What the filter lets through ends here as in any process.
                    Some(call) => {
                        let way = call.ways.first().copied().unwrap_or_default();
                        assert!(!kills(features, number, within(way)), "{}", call.name);
                    }
                }
            }
        }
        report(&format!("{killed} calls that are not on the list kill"));
    }

    #[test]
    #[ignore = "started by so_does_an_argument_that_is_not"]
    fn arguments() {
        scratch();
        let (mut killed, mut passed) = (0, 0);
        for call in CALLS {
            for way in call.ways {
                let good = within(way);
                assert!(!kills(ALL, call.number, good), "{} {good:?}", call.name);
                // The kernel does not see the high half either.
                let mut high = good;
                for check in *way {
                    let (Check::Is(argument, _) | Check::Own(argument)) = *check else {
                        continue;
                    };
                    high[usize::from(argument)] ^= 1 << 40;
                }
                assert!(!kills(ALL, call.number, high), "{} {high:?}", call.name);
                passed += 2;
                for check in *way {
                    for bit in [0, 1, 4, 13, 31] {
                        let mut bad = good;
                        let argument = match *check {
                            Check::Is(argument, _) | Check::Own(argument) => argument,
                            Check::Without(argument, bits) => {
                                bad[usize::from(argument)] |= i64::from(bits);
                                argument
                            }
                        };
                        if !matches!(check, Check::Without(..)) {
                            bad[usize::from(argument)] ^= 1 << bit;
                        }
                        if is_allowed(call, bad) {
                            continue;
                        }
                        assert!(kills(ALL, call.number, bad), "{} {bad:?}", call.name);
                        killed += 1;
                    }
                }
            }
        }
        report(&format!("{killed} arguments kill, {passed} do not"));
        assert!(killed > 200, "{killed}");
    }

    #[test]
    #[ignore = "started by the_walls_stand"]
    fn walls() {
        scratch();
        // Each wall without the others, as far as it can be told from them.
        let landlocked = child(|| {
            set_no_new_privs(true).unwrap();
            let Some(rules) = Sandbox::prepare(Features::default()).unwrap().rules else {
                return 77;
            };
            rules.restrict_self().unwrap();
            let paths = ["/", "/proc/self/status", "/dev/null", "/etc/passwd"];
            u8::from(paths.iter().any(|path| std::fs::File::open(path).is_ok()))
        });
        match landlocked {
            Ok(77) => report("no Landlock here"),
            landlocked => assert_eq!(landlocked, Ok(0), "a file could be opened"),
        }
        let capable = child(|| {
            drop_capabilities().unwrap();
            let sets = rustix::thread::capabilities(None).unwrap();
            let bounding = (0..64).any(|number| {
                let capability = CapabilitySet::from_bits_retain(1 << number);
                rustix::thread::capability_is_in_bounding_set(capability) == Ok(true)
            });
            u8::from(
                bounding
                    || !sets.permitted.is_empty()
                    || !sets.effective.is_empty()
                    || !sets.inheritable.is_empty(),
            )
        });
        assert_eq!(capable, Ok(0), "there is a capability left");
        // All of them.
        let whole = |then: fn() -> u8| {
            child(move || {
                let sandbox = Sandbox::prepare(Features::default()).unwrap();
                sandbox.enter().unwrap();
                then()
            })
        };
        assert_eq!(whole(|| 7), Ok(7));
        assert_eq!(whole(|| u8::from(vec![1; 1 << 20].len() == 3)), Ok(0));
        assert_eq!(
            whole(|| u8::from(std::fs::File::open("/").is_ok())),
            Err(libc::SIGSYS)
        );
        assert_eq!(
            whole(|| u8::from(fork_beside_threads().is_ok())),
            Err(libc::SIGSYS)
        );
        assert_eq!(whole(|| std::process::abort()), Err(libc::SIGSYS));
    }
}
