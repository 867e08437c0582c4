use std::collections::BTreeMap;

use super::bpf::{
    AND, ARCH, JUMP, JUMP_ABOVE, JUMP_ANY_BIT, JUMP_AT_LEAST, JUMP_EQUAL, LOAD, NATIVE, NUMBER,
    RET_ALLOW, RET_ERRNO, RET_KILL_PROCESS, RETURN, low_half,
};
use super::profile::{
    EAFNOSUPPORT, ENOSYS, EPERM, EPROTONOSUPPORT, GROUPS, NEW_NAMESPACES, TIOCLINUX_LOW,
    TIOCSETD_LOW, TIOCSTI_LOW,
};
use super::*;
use crate::security::caps;

/// What the kernel gives a filter (linux/seccomp.h).
#[derive(Clone, Copy)]
pub(super) struct Call {
    pub(super) arch: u32,
    pub(super) number: u32,
    pub(super) arguments: [u64; 6],
}

/// Runs a filter as the kernel does: panics where its verifier would refuse.
/// Returns the result and the number of instructions executed.
pub(super) fn run(filter: &[Instruction], call: &Call) -> (u32, usize) {
    let mut accumulator = 0;
    let mut at = 0;
    for executed in 1.. {
        let Instruction {
            code,
            jump_true,
            jump_false,
            k,
        } = filter[at];
        at += 1;
        let mut jump = |holds: bool| at += usize::from(if holds { jump_true } else { jump_false });
        match code {
            LOAD if k == NUMBER => accumulator = call.number,
            LOAD if k == ARCH => accumulator = call.arch,
            LOAD => {
                let (argument, offset) = ((k as usize - 16) / 8, (k - 16) % 8);
                assert!([0, 4].contains(&offset), "{k}");
                accumulator = (call.arguments[argument] >> (8 * offset) & 0xffff_ffff) as u32;
            }
            AND => accumulator &= k,
            JUMP_ABOVE => jump(accumulator > k),
            JUMP => at += k as usize,
            JUMP_EQUAL => jump(accumulator == k),
            JUMP_AT_LEAST => jump(accumulator >= k),
            JUMP_ANY_BIT => jump(accumulator & k != 0),
            RETURN => return (k, executed),
            other => panic!("unknown instruction {other:#x}"),
        }
    }
    unreachable!()
}

pub(super) fn result_of(filter: &[Instruction], number: libc::c_long, arguments: [u64; 6]) -> u32 {
    run(
        filter,
        &Call {
            arch: NATIVE,
            number: number.try_into().unwrap(),
            arguments,
        },
    )
    .0
}

pub(super) fn fail(errno: u16) -> u32 {
    RET_ERRNO | u32::from(errno)
}

#[test]
fn every_call_has_one_decision_and_a_reason() {
    let mut seen = BTreeMap::new();
    for group in GROUPS {
        assert!(group.reason.len() > 10, "{group:?}");
        for &number in group.calls {
            assert!((0..1024).contains(&number), "{number} of {}", group.reason);
            if let Some(other) = seen.insert(number, group.reason) {
                panic!("call {number} is in {other:?} and in {:?}", group.reason);
            }
        }
    }
}

/// The search tree must agree with the table for every number there is.
#[test]
fn the_filter_decides_as_the_profile_says() {
    for capabilities in [0, caps::DEFAULT, caps::SYS_ADMIN, caps::ALL] {
        let filter = compile(capabilities);
        let decisions = decisions(capabilities);
        let ends = [
            0x3fff_ffff,
            0x4000_0000,
            0x4000_0027,
            0x7fff_ffff,
            0x8000_0000,
            0xffff_fffe,
        ];
        for number in (0..=1024).chain(ends) {
            let call = Call {
                arch: NATIVE,
                number,
                arguments: [0; 6],
            };
            let expected = match decisions.get(&number) {
                Some(Decision::Allow) => RET_ALLOW,
                Some(Decision::Fail(errno)) => fail(*errno),
                // Evaluated with arguments below.
                Some(Decision::Depends(..)) => continue,
                None => fail(ENOSYS),
            };
            assert_eq!(run(&filter, &call).0, expected, "call {number}");
        }
        let skipped = Call {
            arch: NATIVE,
            number: u32::MAX,
            arguments: [0; 6],
        };
        assert_eq!(
            run(&filter, &skipped).0,
            RET_ALLOW,
            "a tracer's own result stands"
        );
    }
}

#[test]
fn the_filter_is_short_and_shallow() {
    for capabilities in [0, caps::DEFAULT, caps::ALL] {
        let filter = compile(capabilities);
        assert!(filter.len() < 1024, "{} instructions", filter.len());
        assert!(
            filter
                .iter()
                .any(|instruction| instruction.code == JUMP_AT_LEAST)
        );
        for number in 0..512 {
            let socket = number == u32::try_from(libc::SYS_socket).unwrap();
            let call = Call {
                arch: NATIVE,
                number,
                arguments: [99; 6],
            };
            let (_, executed) = run(&filter, &call);
            let most = if socket { 80 } else { 24 };
            assert!(
                executed <= most,
                "call {number} takes {executed} instructions"
            );
        }
    }
    // Jumps stay inside, which the kernel would refuse to load otherwise; and of
    // arguments only low halves are looked at (CVE-2019-10063).
    let filter = compile(caps::DEFAULT);
    assert!(filter.iter().all(|instruction| instruction.code != LOAD
        || [NUMBER, ARCH].contains(&instruction.k)
        || instruction.k % 8 == 0));
    for (at, instruction) in filter.iter().enumerate() {
        let furthest = match instruction.code {
            JUMP => instruction.k as usize,
            LOAD | RETURN => 0,
            _ => usize::from(instruction.jump_true.max(instruction.jump_false)),
        };
        assert!(at + furthest < filter.len(), "instruction {at}");
    }
    assert_eq!(filter.last().map(|last| last.code), Some(RETURN));
}

#[test]
fn other_abis_kill() {
    let filter = compile(caps::ALL);
    for arch in [0, 0x4000_0003, 0xc000_0003, 62, NATIVE ^ 0x4000_0000] {
        for number in [0, 20, 11, u32::MAX] {
            let call = Call {
                arch,
                number,
                arguments: [0; 6],
            };
            assert_eq!(
                run(&filter, &call).0,
                RET_KILL_PROCESS,
                "{arch:#x} {number}"
            );
        }
    }
}

#[test]
fn nothing_makes_a_namespace() {
    let filter = compile(caps::DEFAULT);
    for bit in 0..32 {
        let flag = 1u64 << bit;
        let new = flag & u64::from(NEW_NAMESPACES) != 0;
        let expected = if new { fail(EPERM) } else { RET_ALLOW };
        for garbage in [0, 0x1100, 0xffff_ffff_0000_0000] {
            let flags = [flag | garbage, 0, 0, 0, 0, 0];
            assert_eq!(
                result_of(&filter, libc::SYS_clone, flags),
                expected,
                "{flags:x?}"
            );
        }
        // 0x80 is CLONE_NEWTIME here.
        let expected = if new || flag == 0x80 {
            fail(EPERM)
        } else {
            RET_ALLOW
        };
        let flags = [flag, 0, 0, 0, 0, 0];
        assert_eq!(
            result_of(&filter, libc::SYS_unshare, flags),
            expected,
            "{flags:x?}"
        );
    }
    // What glibc's fork(3) and pthread_create(3) pass.
    for flags in [0x0120_0011, 0x003d_0f00] {
        let arguments = [flags, 0, 0, 0, 0, 0];
        assert_eq!(
            result_of(&filter, libc::SYS_clone, arguments),
            RET_ALLOW,
            "{flags:#x}"
        );
    }
    assert_eq!(result_of(&filter, libc::SYS_clone3, [0; 6]), fail(ENOSYS));
    assert_eq!(result_of(&filter, libc::SYS_setns, [0; 6]), fail(EPERM));
    let filter = compile(caps::SYS_ADMIN);
    assert_eq!(
        result_of(&filter, libc::SYS_clone, [0x1000_0000, 0, 0, 0, 0, 0]),
        RET_ALLOW
    );
    assert_eq!(result_of(&filter, libc::SYS_clone3, [0; 6]), RET_ALLOW);
}

#[test]
fn terminals_take_no_typing_whatever_the_high_bits() {
    for capabilities in [caps::DEFAULT, caps::ALL] {
        let filter = compile(capabilities);
        let ioctl = |request: u64| result_of(&filter, libc::SYS_ioctl, [0, request, 0, 0, 0, 0]);
        for refused in [TIOCSTI_LOW, TIOCLINUX_LOW, TIOCSETD_LOW] {
            for garbage in [0, 1 << 32, 0xffff_ffff_0000_0000, 0x8000_0000_0000_0000] {
                assert_eq!(
                    ioctl(u64::from(refused) | garbage),
                    fail(EPERM),
                    "{refused:#x}"
                );
            }
        }
        for allowed in [
            0,
            0x5401,
            0x5413,
            0x541b,
            0x5411,
            0x541d,
            0x8000_5412,
            u64::MAX,
        ] {
            assert_eq!(ioctl(allowed), RET_ALLOW, "{allowed:#x}");
        }
    }
}

#[test]
fn sockets_are_of_the_families_that_the_network_carries() {
    const FLAGS: u64 = 0x8_0800; // SOCK_CLOEXEC | SOCK_NONBLOCK
    const GARBAGE: u64 = 0xdead_beef_0000_0000;
    let socket = |filter: &[Instruction], family: u64, kind: u64, protocol: u64| {
        let arguments = [
            family | GARBAGE,
            kind | FLAGS | GARBAGE,
            protocol | GARBAGE,
            0,
            0,
            0,
        ];
        result_of(filter, libc::SYS_socket, arguments)
    };
    let filter = compile(caps::DEFAULT);
    for (family, kind, protocol) in [
        (1, 1, 0),
        (1, 2, 0),
        (1, 5, 0),
        (2, 1, 0),
        (2, 1, 6),
        (2, 2, 17),
        (2, 2, 1),
    ]
    .into_iter()
    .chain([
        (2, 3, 1),
        (2, 1, 262),
        (10, 1, 0),
        (10, 2, 58),
        (10, 2, 0),
        (16, 3, 0),
    ]) {
        assert_eq!(
            socket(&filter, family, kind, protocol),
            RET_ALLOW,
            "{family} {kind} {protocol}"
        );
    }
    for family in [2, 10] {
        // UDP-Lite, SCTP, DCCP, L2TP, raw; sequential packets, DCCP, packet sockets.
        for (kind, protocol) in [
            (2, 136),
            (1, 132),
            (1, 33),
            (2, 115),
            (3, 255),
            (5, 0),
            (6, 0),
            (10, 0),
        ] {
            let result = socket(&filter, family, kind, protocol);
            assert_eq!(result, fail(EPROTONOSUPPORT), "{family} {kind} {protocol}");
        }
    }
    for protocol in 1..32 {
        assert_eq!(
            socket(&filter, 16, 3, protocol),
            fail(EPROTONOSUPPORT),
            "netlink {protocol}"
        );
    }
    for family in (0..64).filter(|family| ![1, 2, 10, 16].contains(family)) {
        assert_eq!(
            socket(&filter, family, 1, 0),
            fail(EAFNOSUPPORT),
            "family {family}"
        );
        let pair = result_of(&filter, libc::SYS_socketpair, [family, 1, 0, 0, 0, 0]);
        assert_eq!(pair, fail(EAFNOSUPPORT), "family {family}");
    }
    let raw = compile(caps::DEFAULT | caps::NET_RAW);
    assert_eq!(socket(&raw, 17, 3, 0x300), RET_ALLOW);
    assert_eq!(socket(&raw, 2, 3, 255), RET_ALLOW);
    assert_eq!(socket(&raw, 16, 3, 12), fail(EPROTONOSUPPORT));
    let admin = compile(caps::DEFAULT | caps::NET_ADMIN);
    assert_eq!(socket(&admin, 16, 3, 12), RET_ALLOW);
    assert_eq!(socket(&admin, 17, 3, 0x300), fail(EAFNOSUPPORT));
    assert_eq!(
        socket(&compile(caps::ALL), 40, 1, 0),
        fail(EAFNOSUPPORT),
        "never vsock"
    );
}

#[test]
fn personalities_are_harmless() {
    let filter = compile(caps::DEFAULT);
    for value in [0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff] {
        assert_eq!(
            result_of(&filter, libc::SYS_personality, [value; 6]),
            RET_ALLOW
        );
    }
    // ADDR_NO_RANDOMIZE, READ_IMPLIES_EXEC, MMAP_PAGE_ZERO, SVr4
    for value in [0x4_0000, 0x40_0000, 0x10_0000, 1] {
        assert_eq!(
            result_of(&filter, libc::SYS_personality, [value; 6]),
            fail(EPERM)
        );
    }
}

#[test]
fn capabilities_lift_what_they_are_for_and_no_more() {
    for (capability, call) in [
        (caps::SYS_ADMIN, libc::SYS_mount),
        (caps::SYS_ADMIN, libc::SYS_bpf),
        (caps::BPF, libc::SYS_bpf),
        (caps::PERFMON, libc::SYS_perf_event_open),
        (caps::SYS_MODULE, libc::SYS_finit_module),
        (caps::SYS_BOOT, libc::SYS_reboot),
        (caps::SYS_PACCT, libc::SYS_acct),
        (caps::SYS_TIME, libc::SYS_clock_settime),
        (caps::SYS_NICE, libc::SYS_mbind),
        (caps::SYSLOG, libc::SYS_syslog),
        (caps::SYS_TTY_CONFIG, libc::SYS_vhangup),
        (caps::SYS_PTRACE, libc::SYS_userfaultfd),
        (caps::DAC_READ_SEARCH, libc::SYS_open_by_handle_at),
    ] {
        assert_eq!(
            result_of(&compile(capability), call, [0; 6]),
            RET_ALLOW,
            "{call}"
        );
        let others = compile(caps::DEFAULT & !capability);
        assert_eq!(result_of(&others, call, [0; 6]), fail(EPERM), "{call}");
    }
    let all = compile(caps::ALL);
    for never in [
        libc::SYS_kexec_load,
        libc::SYS_swapon,
        libc::SYS_add_key,
        libc::SYS_keyctl,
    ] {
        assert_eq!(result_of(&all, never, [0; 6]), fail(EPERM), "{never}");
    }
    assert_eq!(
        result_of(&all, libc::SYS_io_uring_setup, [0; 6]),
        fail(ENOSYS)
    );
}

#[test]
fn arguments_are_loaded_where_they_are() {
    // struct seccomp_data: nr, arch, instruction_pointer, args[6]
    assert_eq!([low_half(0), low_half(1), low_half(5)], [16, 24, 56]);
}
