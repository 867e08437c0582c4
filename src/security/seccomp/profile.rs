//! The default profile, as data: what a command may call, and why.
//!
//! Numbers are the kernel's own (`libc::SYS_*`, or asm-generic/unistd.h for
//! calls that have the same number everywhere and no name in libc yet).

use libc::*;

use super::{Condition, Decision, Rule};
use crate::security::caps;

/// As if for want of a capability.
pub(crate) const EPERM: u16 = 1;
/// As on a kernel without the call.
pub(crate) const ENOSYS: u16 = 38;
/// As on a kernel without the protocol.
pub(crate) const EPROTONOSUPPORT: u16 = 93;
/// As on a kernel without the protocol family.
pub(crate) const EAFNOSUPPORT: u16 = 97;

/// System calls with one decision, and its reason.
#[derive(Debug)]
pub(crate) struct Group {
    /// Why the decision is what it is.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "for readers, and for the test below")
    )]
    pub(crate) reason: &'static str,
    /// The decision.
    pub(crate) decision: Decision,
    /// Any of these capabilities, if the command keeps it, lifts the decision:
    /// then the kernel's own checks are all.
    pub(crate) lifted_by: u64,
    /// The system calls.
    pub(crate) calls: &'static [c_long],
}

const fn allow(reason: &'static str, calls: &'static [c_long]) -> Group {
    Group {
        reason,
        decision: Decision::Allow,
        lifted_by: 0,
        calls,
    }
}

const fn refuse(reason: &'static str, lifted_by: u64, calls: &'static [c_long]) -> Group {
    Group {
        reason,
        decision: Decision::Fail(EPERM),
        lifted_by,
        calls,
    }
}

const fn missing(reason: &'static str, lifted_by: u64, calls: &'static [c_long]) -> Group {
    Group {
        reason,
        decision: Decision::Fail(ENOSYS),
        lifted_by,
        calls,
    }
}

const fn depends(
    reason: &'static str,
    rules: &'static [Rule],
    otherwise: u16,
    calls: &'static [c_long],
) -> Group {
    Group {
        reason,
        decision: Decision::Depends(rules, otherwise),
        lifted_by: 0,
        calls,
    }
}

const fn allow_if(when: [Condition; 3]) -> Rule {
    Rule {
        needs: 0,
        when,
        fail: None,
    }
}

const fn allow_with(needs: u64, when: [Condition; 3]) -> Rule {
    Rule {
        needs,
        when,
        fail: None,
    }
}

const fn is(argument: u8, value: u32) -> Condition {
    Condition::Is(argument, value)
}

const ANY: Condition = Condition::Always;

/// `CLONE_NEW*` of clone(2), where 0x80 is part of the signal number.
pub(crate) const NEW_NAMESPACES: u32 = 0x7e02_0000;
/// `CLONE_NEWTIME`, which unshare(2) takes.
pub(crate) const NEW_TIME_NAMESPACE: u32 = 0x80;

const CLONE: &[Rule] = &[
    allow_if([Condition::Without(0, NEW_NAMESPACES), ANY, ANY]),
    allow_with(caps::SYS_ADMIN, [ANY; 3]),
];

const UNSHARE: &[Rule] = &[
    allow_if([
        Condition::Without(0, NEW_NAMESPACES | NEW_TIME_NAMESPACE),
        ANY,
        ANY,
    ]),
    allow_with(caps::SYS_ADMIN, [ANY; 3]),
];

// linux/socket.h, linux/in.h, linux/netlink.h
const UNIX: u32 = 1;
const INET: u32 = 2;
const INET6: u32 = 10;
const NETLINK: u32 = 16;
const PACKET: u32 = 17;
const NETLINK_ROUTE: u32 = 0;
const ICMP: u32 = 1;
const TCP: u32 = 6;
const UDP: u32 = 17;
const ICMPV6: u32 = 58;
const MPTCP: u32 = 262;

/// Bits of socket types other than stream (1), datagram (2) and raw (3):
/// SCTP and DCCP come by such types, and packet sockets by `SOCK_PACKET`.
const OTHER_TYPES: u32 = 0xc;

const fn inet(family: u32, protocol: u32) -> Rule {
    allow_if([
        is(0, family),
        Condition::Without(1, OTHER_TYPES),
        is(2, protocol),
    ])
}

const SOCKET: &[Rule] = &[
    allow_if([is(0, UNIX), ANY, ANY]),
    inet(INET, 0),
    inet(INET, TCP),
    inet(INET, UDP),
    inet(INET, ICMP),
    inet(INET, MPTCP),
    inet(INET6, 0),
    inet(INET6, TCP),
    inet(INET6, UDP),
    inet(INET6, ICMPV6),
    inet(INET6, MPTCP),
    allow_if([is(0, NETLINK), is(2, NETLINK_ROUTE), ANY]),
    allow_with(caps::NET_RAW, [is(0, INET), ANY, ANY]),
    allow_with(caps::NET_RAW, [is(0, INET6), ANY, ANY]),
    allow_with(caps::NET_RAW, [is(0, PACKET), ANY, ANY]),
    allow_with(caps::NET_ADMIN, [is(0, NETLINK), ANY, ANY]),
    // As programs expect where a protocol is not built in: libaudit, for one,
    // takes it as "no auditing here".
    Rule {
        needs: 0,
        when: [is(0, INET), ANY, ANY],
        fail: Some(EPROTONOSUPPORT),
    },
    Rule {
        needs: 0,
        when: [is(0, INET6), ANY, ANY],
        fail: Some(EPROTONOSUPPORT),
    },
    Rule {
        needs: 0,
        when: [is(0, NETLINK), ANY, ANY],
        fail: Some(EPROTONOSUPPORT),
    },
];

const SOCKETPAIR: &[Rule] = &[allow_if([is(0, UNIX), ANY, ANY])];

// asm-generic/ioctls.h
pub(crate) const TIOCSTI_LOW: u32 = 0x5412;
pub(crate) const TIOCLINUX_LOW: u32 = 0x541c;
pub(crate) const TIOCSETD_LOW: u32 = 0x5423;

const IOCTL: &[Rule] = &[
    Rule {
        needs: 0,
        when: [is(1, TIOCSTI_LOW), ANY, ANY],
        fail: Some(EPERM),
    },
    Rule {
        needs: 0,
        when: [is(1, TIOCLINUX_LOW), ANY, ANY],
        fail: Some(EPERM),
    },
    Rule {
        needs: 0,
        when: [is(1, TIOCSETD_LOW), ANY, ANY],
        fail: Some(EPERM),
    },
    allow_if([ANY; 3]),
];

/// linux/personality.h: Linux, 32-bit Linux, either with `UNAME26`, and the
/// question for the current one.
const PERSONALITY: &[Rule] = &[
    allow_if([is(0, 0), ANY, ANY]),
    allow_if([is(0, 8), ANY, ANY]),
    allow_if([is(0, 0x2_0000), ANY, ANY]),
    allow_if([is(0, 0x2_0008), ANY, ANY]),
    allow_if([is(0, 0xffff_ffff), ANY, ANY]),
];

// Calls that are younger than libc's names for them.
const CACHESTAT: c_long = 451;
const FCHMODAT2: c_long = 452;
const MAP_SHADOW_STACK: c_long = 453;
const FUTEX_WAKE: c_long = 454;
const FUTEX_WAIT: c_long = 455;
const FUTEX_REQUEUE: c_long = 456;
const STATMOUNT: c_long = 457;
const LISTMOUNT: c_long = 458;
const SETXATTRAT: c_long = 463;
const GETXATTRAT: c_long = 464;
const LISTXATTRAT: c_long = 465;
const REMOVEXATTRAT: c_long = 466;
const OPEN_TREE_ATTR: c_long = 467;
#[cfg(target_arch = "x86_64")]
const IO_PGETEVENTS: c_long = 333;
#[cfg(target_arch = "x86_64")]
const KEXEC_FILE_LOAD: c_long = 320;
#[cfg(target_arch = "aarch64")]
const IO_PGETEVENTS: c_long = 292;
#[cfg(target_arch = "aarch64")]
const KEXEC_FILE_LOAD: c_long = 294;

/// The profile. Each call is in one group.
#[rustfmt::skip] // Hundreds of names, one a line, would hide the reasons.
pub(crate) const GROUPS: &[Group] = &[
    allow(
        "reads, writes and controls open files: permission was checked when they were opened",
        &[
            SYS_read, SYS_write, SYS_readv, SYS_writev, SYS_pread64, SYS_pwrite64, SYS_preadv,
            SYS_pwritev, SYS_preadv2, SYS_pwritev2, SYS_lseek, SYS_sendfile, SYS_copy_file_range,
            SYS_splice, SYS_tee, SYS_vmsplice, SYS_close, SYS_close_range, SYS_dup, SYS_dup3,
            SYS_fcntl, SYS_flock, SYS_fsync, SYS_fdatasync, SYS_sync, SYS_syncfs, SYS_ftruncate,
            SYS_fallocate, SYS_fadvise64, SYS_readahead, SYS_getdents64, SYS_fstat, SYS_fstatfs,
            SYS_fchmod, SYS_fchown, SYS_fchdir, SYS_fsetxattr, SYS_fgetxattr, SYS_flistxattr,
            SYS_fremovexattr, CACHESTAT,
        ],
    ),
    allow(
        "finds, makes and removes files by path: the mounts and file modes decide",
        &[
            SYS_openat, SYS_openat2, SYS_getcwd, SYS_chdir, SYS_chroot, SYS_umask, SYS_mkdirat,
            SYS_mknodat, SYS_unlinkat, SYS_renameat2, SYS_linkat, SYS_symlinkat, SYS_readlinkat,
            SYS_fchmodat, FCHMODAT2, SYS_fchownat, SYS_faccessat, SYS_faccessat2, SYS_newfstatat,
            SYS_statx, SYS_statfs, SYS_truncate, SYS_utimensat, SYS_setxattr, SYS_lsetxattr,
            SYS_getxattr, SYS_lgetxattr, SYS_listxattr, SYS_llistxattr, SYS_removexattr,
            SYS_lremovexattr, SETXATTRAT, GETXATTRAT, LISTXATTRAT, REMOVEXATTRAT,
            SYS_name_to_handle_at, SYS_inotify_init1, SYS_inotify_add_watch, SYS_inotify_rm_watch,
        ],
    ),
    allow(
        "waits for events, and for asynchronous I/O of the old kind",
        &[
            SYS_ppoll, SYS_pselect6, SYS_epoll_create1, SYS_epoll_ctl, SYS_epoll_pwait,
            SYS_epoll_pwait2, SYS_eventfd2, SYS_signalfd4, SYS_pipe2, SYS_io_setup,
            SYS_io_destroy, SYS_io_submit, SYS_io_getevents, SYS_io_cancel, IO_PGETEVENTS,
        ],
    ),
    allow(
        "manages the memory of the process itself",
        &[
            SYS_brk, SYS_mmap, SYS_munmap, SYS_mremap, SYS_mprotect, SYS_msync, SYS_mincore,
            SYS_madvise, SYS_process_madvise, SYS_process_mrelease, SYS_mlock, SYS_mlock2,
            SYS_munlock, SYS_mlockall, SYS_munlockall, SYS_remap_file_pages, SYS_memfd_create,
            SYS_memfd_secret, SYS_membarrier, SYS_pkey_alloc, SYS_pkey_free, SYS_pkey_mprotect,
            SYS_mseal, MAP_SHADOW_STACK,
        ],
    ),
    allow(
        "starts, ends, signals and describes processes: they are the container's own",
        &[
            SYS_execve, SYS_execveat, SYS_exit, SYS_exit_group, SYS_wait4, SYS_waitid, SYS_kill,
            SYS_tkill, SYS_tgkill, SYS_pidfd_open, SYS_pidfd_send_signal, SYS_pidfd_getfd,
            SYS_rt_sigaction, SYS_rt_sigpending, SYS_rt_sigprocmask, SYS_rt_sigqueueinfo,
            SYS_rt_sigreturn, SYS_rt_sigsuspend, SYS_rt_sigtimedwait, SYS_rt_tgsigqueueinfo,
            SYS_sigaltstack, SYS_restart_syscall, SYS_getpid, SYS_getppid, SYS_gettid,
            SYS_setpgid, SYS_getpgid, SYS_setsid, SYS_getsid, SYS_getpriority, SYS_setpriority,
            SYS_ioprio_get, SYS_ioprio_set, SYS_sched_yield, SYS_sched_getattr, SYS_sched_setattr,
            SYS_sched_getparam, SYS_sched_setparam, SYS_sched_getscheduler,
            SYS_sched_setscheduler, SYS_sched_getaffinity, SYS_sched_setaffinity,
            SYS_sched_get_priority_max, SYS_sched_get_priority_min, SYS_sched_rr_get_interval,
            SYS_getcpu, SYS_prlimit64, SYS_getrusage, SYS_times, SYS_uname, SYS_sysinfo,
            SYS_prctl,
        ],
    ),
    allow(
        "synchronises threads, and what a C library sets up for each",
        &[
            SYS_futex, SYS_futex_waitv, FUTEX_WAKE, FUTEX_WAIT, FUTEX_REQUEUE,
            SYS_set_robust_list, SYS_get_robust_list, SYS_set_tid_address, SYS_rseq,
        ],
    ),
    allow(
        "debuggers: the kernel confines ptrace and the like to processes of the same container \
         with no more privileges, and since 4.8 a tracer cannot evade the filter",
        &[SYS_ptrace, SYS_process_vm_readv, SYS_process_vm_writev],
    ),
    allow(
        "changes ids and capabilities within the user namespace and the bounding set",
        &[
            SYS_getuid, SYS_geteuid, SYS_getgid, SYS_getegid, SYS_getresuid, SYS_getresgid,
            SYS_getgroups, SYS_setuid, SYS_setgid, SYS_setreuid, SYS_setregid, SYS_setresuid,
            SYS_setresgid, SYS_setfsuid, SYS_setfsgid, SYS_setgroups, SYS_capget, SYS_capset,
        ],
    ),
    allow(
        "restricts the process further: sandboxes within the container",
        &[
            SYS_seccomp, SYS_landlock_create_ruleset, SYS_landlock_add_rule,
            SYS_landlock_restrict_self,
        ],
    ),
    allow(
        "reads clocks and sets timers; adjtimex only sets anything with CAP_SYS_TIME",
        &[
            SYS_clock_gettime, SYS_clock_getres, SYS_clock_nanosleep, SYS_nanosleep,
            SYS_gettimeofday, SYS_getitimer, SYS_setitimer, SYS_timer_create, SYS_timer_settime,
            SYS_timer_gettime, SYS_timer_getoverrun, SYS_timer_delete, SYS_timerfd_create,
            SYS_timerfd_settime, SYS_timerfd_gettime, SYS_adjtimex,
        ],
    ),
    allow(
        "System V and POSIX IPC, in an IPC namespace of its own",
        &[
            SYS_shmget, SYS_shmat, SYS_shmctl, SYS_shmdt, SYS_semget, SYS_semop, SYS_semctl,
            SYS_semtimedop, SYS_msgget, SYS_msgsnd, SYS_msgrcv, SYS_msgctl, SYS_mq_open,
            SYS_mq_unlink, SYS_mq_timedsend, SYS_mq_timedreceive, SYS_mq_notify,
            SYS_mq_getsetattr,
        ],
    ),
    allow(
        "uses sockets, whose families are decided when they are made",
        &[
            SYS_bind, SYS_listen, SYS_accept, SYS_accept4, SYS_connect, SYS_getsockname,
            SYS_getpeername, SYS_sendto, SYS_recvfrom, SYS_sendmsg, SYS_recvmsg, SYS_sendmmsg,
            SYS_recvmmsg, SYS_shutdown, SYS_setsockopt, SYS_getsockopt,
        ],
    ),
    allow(
        "entropy, without which nothing secret can be made",
        &[SYS_getrandom],
    ),
    #[cfg(target_arch = "x86_64")]
    allow(
        "the older forms of calls above, which this architecture still has",
        &[
            SYS_open, SYS_creat, SYS_stat, SYS_lstat, SYS_access, SYS_readlink, SYS_rename,
            SYS_renameat, SYS_mkdir, SYS_mknod, SYS_rmdir, SYS_link, SYS_unlink, SYS_symlink,
            SYS_chmod, SYS_chown, SYS_lchown, SYS_utime, SYS_utimes, SYS_futimesat, SYS_getdents,
            SYS_poll, SYS_select, SYS_epoll_create, SYS_epoll_wait, SYS_eventfd, SYS_signalfd,
            SYS_inotify_init, SYS_pipe, SYS_dup2, SYS_fork, SYS_vfork, SYS_getpgrp, SYS_pause,
            SYS_alarm, SYS_time, SYS_sync_file_range, SYS_getrlimit, SYS_setrlimit,
        ],
    ),
    #[cfg(target_arch = "aarch64")]
    allow(
        "renameat, sync_file_range, getrlimit, setrlimit: not in every libc of this architecture",
        &[38, 84, 163, 164],
    ),
    #[cfg(target_arch = "x86_64")]
    allow(
        "thread-local storage, and what the kernel itself puts into a traced process",
        &[
            SYS_arch_prctl, SYS_set_thread_area, SYS_get_thread_area, 335, 336,
        ],
    ),
    depends(
        "makes processes and threads, but not namespaces: those give a process capabilities over \
         kernel code that is rarely hardened against its own root",
        CLONE,
        EPERM,
        &[SYS_clone],
    ),
    depends(
        "stops sharing, but makes no namespaces, as clone",
        UNSHARE,
        EPERM,
        &[SYS_unshare],
    ),
    missing(
        "takes its flags from memory, where no filter can see them; C libraries fall back to clone",
        caps::SYS_ADMIN,
        &[SYS_clone3],
    ),
    depends(
        "families and protocols that the container's network carries; no vsock to reach a \
         hypervisor, no alg, no netfilter, nothing that loads a module",
        SOCKET,
        EAFNOSUPPORT,
        &[SYS_socket],
    ),
    depends(
        "pairs exist for local sockets alone",
        SOCKETPAIR,
        EAFNOSUPPORT,
        &[SYS_socketpair],
    ),
    depends(
        "devices decide, but for typing into a terminal (TIOCSTI, CVE-2017-5226), pasting into a \
         console (TIOCLINUX) and line disciplines (TIOCSETD, CVE-2017-2636)",
        IOCTL,
        EPERM,
        &[SYS_ioctl],
    ),
    depends(
        "no personality that weakens address-space randomisation",
        PERSONALITY,
        EPERM,
        &[SYS_personality],
    ),
    refuse(
        "changes what is mounted, and so undoes masks; enters namespaces",
        caps::SYS_ADMIN,
        &[
            SYS_mount, SYS_umount2, SYS_pivot_root, SYS_fsopen, SYS_fsconfig, SYS_fsmount,
            SYS_fspick, SYS_open_tree, OPEN_TREE_ATTR, SYS_move_mount, SYS_mount_setattr,
            SYS_setns,
        ],
    ),
    missing(
        "new ways to read the mount table; libmount falls back to mountinfo",
        caps::SYS_ADMIN,
        &[STATMOUNT, LISTMOUNT],
    ),
    refuse(
        "administers the machine",
        caps::SYS_ADMIN,
        &[
            SYS_sethostname, SYS_setdomainname, SYS_quotactl, SYS_quotactl_fd, SYS_fanotify_init,
            SYS_fanotify_mark, SYS_lookup_dcookie,
        ],
    ),
    refuse(
        "runs code in the kernel",
        caps::BPF | caps::SYS_ADMIN,
        &[SYS_bpf],
    ),
    refuse(
        "observes other processes, with a long record of kernel bugs",
        caps::PERFMON | caps::SYS_ADMIN,
        &[SYS_perf_event_open],
    ),
    missing(
        "I/O that no filter sees, with a long record of kernel bugs; programs fall back",
        0,
        &[
            SYS_io_uring_setup,
            SYS_io_uring_enter,
            SYS_io_uring_register,
        ],
    ),
    refuse(
        "stops the kernel in the middle of a copy, which exploits rely on; compares kernel pointers",
        caps::SYS_PTRACE,
        &[SYS_userfaultfd, SYS_kcmp],
    ),
    refuse(
        "keyrings are of the host's user, not of a namespace",
        0,
        &[SYS_add_key, SYS_request_key, SYS_keyctl],
    ),
    refuse(
        "loads code into the kernel",
        caps::SYS_MODULE,
        &[SYS_init_module, SYS_finit_module, SYS_delete_module],
    ),
    refuse(
        "replaces the kernel, or where it pages to",
        0,
        &[SYS_kexec_load, KEXEC_FILE_LOAD, SYS_swapon, SYS_swapoff],
    ),
    refuse("restarts the machine", caps::SYS_BOOT, &[SYS_reboot]),
    refuse(
        "writes to a file for all processes of the machine",
        caps::SYS_PACCT,
        &[SYS_acct],
    ),
    refuse(
        "opens files by what may be guessed",
        caps::DAC_READ_SEARCH,
        &[SYS_open_by_handle_at],
    ),
    refuse(
        "sets clocks, which have no namespace",
        caps::SYS_TIME,
        &[SYS_settimeofday, SYS_clock_settime, SYS_clock_adjtime],
    ),
    refuse(
        "reads and clears the kernel's log",
        caps::SYSLOG,
        &[SYS_syslog],
    ),
    refuse("hangs up terminals", caps::SYS_TTY_CONFIG, &[SYS_vhangup]),
    refuse(
        "places memory of any process, and shows where it is",
        caps::SYS_NICE,
        &[
            SYS_get_mempolicy, SYS_set_mempolicy, SYS_set_mempolicy_home_node, SYS_mbind,
            SYS_move_pages, SYS_migrate_pages,
        ],
    ),
    #[cfg(target_arch = "x86_64")]
    refuse(
        "talks to hardware",
        caps::SYS_RAWIO,
        &[SYS_iopl, SYS_ioperm],
    ),
    #[cfg(target_arch = "x86_64")]
    refuse(
        "16-bit segments, of use to emulators and exploits",
        0,
        &[SYS_modify_ldt],
    ),
];
