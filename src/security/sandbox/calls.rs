//! The system calls that the packet loop's process makes, as data.
//!
//! Each with the arguments that it may have, who makes it, and why. What is not here
//! kills the process. `tests.rs` beside this file shows that it does, and
//! `tests/sandbox.rs` that what is here is used.

use libc::{
    AF_INET, AF_INET6, F_GETFD, F_GETPIPE_SZ, F_SETPIPE_SZ, IP_BIND_ADDRESS_NO_PORT, IP_MTU,
    IP_MTU_DISCOVER, IP_PKTINFO, IP_RECVERR, IP_TTL, IPPROTO_ICMP, IPPROTO_ICMPV6, IPV6_DONTFRAG,
    IPV6_MTU, IPV6_RECVERR, IPV6_RECVPKTINFO, IPV6_UNICAST_HOPS, IPV6_V6ONLY, P_PID, P_PIDFD,
    PACKET_STATISTICS, PROT_EXEC, SIGABRT, SIGKILL, SIGTSTP, SO_BINDTODEVICE, SO_DOMAIN, SO_ERROR,
    SO_KEEPALIVE, SO_LINGER, SO_OOBINLINE, SO_PEERCRED, SO_RCVBUF, SO_TYPE, SOCK_CLOEXEC,
    SOCK_DGRAM, SOCK_NONBLOCK, SOCK_STREAM, SOL_IP, SOL_IPV6, SOL_PACKET, SOL_SOCKET, SOL_TCP,
    SOL_UDP, TCP_CONGESTION, TCP_KEEPCNT, TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_NODELAY, c_int, c_long,
};

/// A system call, and how it may be called.
#[derive(Debug)]
pub(super) struct Call {
    /// Its name.
    pub(super) name: &'static str,
    /// Its number.
    pub(super) number: c_long,
    /// What its arguments may be: one of these. None: anything.
    pub(super) ways: &'static [&'static [Check]],
    /// Who needs it; it is only allowed where there is such.
    pub(super) needed: Needed,
    /// Who makes it, and why.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "for readers, and for the tests")
    )]
    pub(super) reason: &'static str,
    /// Why hardly any run makes it; else the tests see it made.
    pub(super) rare: Option<&'static str>,
}

/// A condition on an argument; the kernel takes all of these as 32 bits.
#[derive(Debug, Clone, Copy)]
pub(super) enum Check {
    /// It is this.
    Is(u8, u32),
    /// It has none of these bits.
    Without(u8, u32),
    /// It is our own process id.
    Own(u8),
}

/// In which runs a call is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Needed {
    /// In all.
    Always,
    /// With `-t`.
    Terminal,
    /// With an address that traffic is to leave the host from.
    OutboundAddress,
}

const fn call(name: &'static str, number: c_long, reason: &'static str) -> Call {
    Call {
        name,
        number,
        ways: &[],
        needed: Needed::Always,
        reason,
        rare: None,
    }
}

impl Call {
    const fn only(mut self, ways: &'static [&'static [Check]]) -> Self {
        self.ways = ways;
        self
    }

    const fn needed(mut self, needed: Needed) -> Self {
        self.needed = needed;
        self
    }

    const fn rare(mut self, why: &'static str) -> Self {
        self.rare = Some(why);
        self
    }
}

const fn is(argument: u8, value: c_int) -> Check {
    Check::Is(argument, value.cast_unsigned())
}

/// An option of a socket: setsockopt(2) and getsockopt(2) name it by two arguments.
const fn option(level: c_int, name: c_int) -> [Check; 2] {
    [is(2, name), is(1, level)]
}

const NEW: c_int = SOCK_NONBLOCK | SOCK_CLOEXEC;
// linux/udp.h; the libc crate does not have it for glibc.
const UDP_GRO: c_int = 104;
// asm-generic/ioctls.h: struct termios2 with both speeds.
const TCGETS2: u32 = 0x802c_542a;
const TCSETS2: u32 = 0x402c_542b;
const TIOCGWINSZ: u32 = 0x5413;
const TIOCSWINSZ: u32 = 0x5414;

const SOCKET: &[&[Check]] = &[
    &[is(0, AF_INET), is(1, SOCK_STREAM | NEW), is(2, 0)],
    &[is(0, AF_INET), is(1, SOCK_DGRAM | NEW), is(2, 0)],
    &[is(0, AF_INET), is(1, SOCK_DGRAM | NEW), is(2, IPPROTO_ICMP)],
    &[is(0, AF_INET6), is(1, SOCK_STREAM | NEW), is(2, 0)],
    &[is(0, AF_INET6), is(1, SOCK_DGRAM | NEW), is(2, 0)],
    &[
        is(0, AF_INET6),
        is(1, SOCK_DGRAM | NEW),
        is(2, IPPROTO_ICMPV6),
    ],
];

const SET: &[&[Check]] = &[
    &option(SOL_TCP, TCP_NODELAY),
    &option(SOL_SOCKET, SO_OOBINLINE),
    &option(SOL_IP, IP_TTL),
    &option(SOL_IP, IP_MTU_DISCOVER),
    &option(SOL_IP, IP_RECVERR),
    &option(SOL_SOCKET, SO_RCVBUF),
    &option(SOL_UDP, UDP_GRO),
    &option(SOL_SOCKET, SO_LINGER),
    &option(SOL_SOCKET, SO_KEEPALIVE),
    &option(SOL_TCP, TCP_KEEPIDLE),
    &option(SOL_TCP, TCP_KEEPINTVL),
    &option(SOL_TCP, TCP_KEEPCNT),
    &option(SOL_TCP, TCP_CONGESTION),
    &option(SOL_IPV6, IPV6_V6ONLY),
    &option(SOL_IPV6, IPV6_RECVERR),
    &option(SOL_IPV6, IPV6_UNICAST_HOPS),
    &option(SOL_IPV6, IPV6_DONTFRAG),
    &option(SOL_IP, IP_PKTINFO),
    &option(SOL_IPV6, IPV6_RECVPKTINFO),
    &option(SOL_IP, IP_BIND_ADDRESS_NO_PORT),
    &option(SOL_SOCKET, SO_BINDTODEVICE),
];

const GET: &[&[Check]] = &[
    &option(SOL_SOCKET, SO_ERROR),
    &option(SOL_SOCKET, SO_TYPE),
    &option(SOL_SOCKET, SO_DOMAIN),
    &option(SOL_SOCKET, SO_PEERCRED),
    &option(SOL_IP, IP_MTU),
    &option(SOL_IPV6, IPV6_MTU),
    &option(SOL_PACKET, PACKET_STATISTICS),
];

/// The list. A call is here once.
#[rustfmt::skip] // One a line, as far as it goes.
pub(super) const CALLS: &[Call] = &[
    call("epoll_wait", EPOLL_WAIT, "the loop: waits for events"),
    call("epoll_ctl", libc::SYS_epoll_ctl, "the loop: watches a new socket"),
    call("timerfd_settime", libc::SYS_timerfd_settime, "the loop: the next deadline of the stack"),

    call("read", libc::SYS_read, "frames of a TAP, data of sockets, signals, netlink, the terminal"),
    call("write", libc::SYS_write, "data to sockets, messages, log and capture files, the terminal"),
    call("writev", libc::SYS_writev, "frames to the link, data to sockets in parts"),
    call("close", libc::SYS_close, "ends a flow"),

    call("socket", libc::SYS_socket, "a flow's socket: TCP, UDP or ICMP echo, of IP alone").only(SOCKET),
    call("connect", libc::SYS_connect, "opens a TCP flow, to the host's network or into the container"),
    call("setsockopt", libc::SYS_setsockopt, "what a flow's socket is to do").only(SET),
    call("getsockopt", libc::SYS_getsockopt, "how a connect ended, who a client is, a path's MTU, frames lost").only(GET),
    call("shutdown", libc::SYS_shutdown, "passes on the end of one direction"),
    call("accept4", libc::SYS_accept4, "clients of published ports and of the control socket")
        .only(&[&[is(3, NEW)]]),
    call("sendmsg", libc::SYS_sendmsg, "a datagram; messages to init and keeper"),
    call("sendmmsg", libc::SYS_sendmmsg, "a burst of datagrams"),
    call("recvmsg", libc::SYS_recvmsg, "messages of init and keeper; errors of datagrams"),
    call("recvmmsg", libc::SYS_recvmmsg, "a burst of datagrams"),
    call("bind", libc::SYS_bind, "where a flow leaves the host from").needed(Needed::OutboundAddress),

    call("pipe2", libc::SYS_pipe2, "a spliced connection").only(&[&[is(1, libc::O_CLOEXEC | libc::O_NONBLOCK)]])
        .rare("a few pipes are made before: only where many connections hold data at a time"),
    call("splice", libc::SYS_splice, "a spliced connection"),
    call("fcntl", libc::SYS_fcntl, "the size of a pipe; a debug build's look at what it closes")
        .only(&[&[is(1, F_SETPIPE_SZ)], &[is(1, F_GETPIPE_SZ)], &[is(1, F_GETFD)]]),

    call("mmap", libc::SYS_mmap, "memory: of no file, not to be executed")
        .only(&[&[Check::Without(2, PROT_EXEC.cast_unsigned()), is(4, -1)]]),
    call("munmap", libc::SYS_munmap, "memory that is given back"),
    call("mremap", libc::SYS_mremap, "a large block that grows"),
    call("brk", libc::SYS_brk, "the C library's heap"),

    call("ioctl", libc::SYS_ioctl, "modes and sizes of the caller's terminal and the container's")
        .only(&[
            &[Check::Is(1, TCGETS2)], &[Check::Is(1, TCSETS2)],
            &[Check::Is(1, TIOCGWINSZ)], &[Check::Is(1, TIOCSWINSZ)],
        ])
        .needed(Needed::Terminal),
    call("rt_sigprocmask", libc::SYS_rt_sigprocmask, "stops with ^Z; the end, when signals are unblocked"),
    call("tgkill", libc::SYS_tgkill, "stops itself with ^Z; a panic's end")
        .only(&[&[Check::Own(0), is(2, SIGTSTP)], &[Check::Own(0), is(2, SIGABRT)]]),

    call("ppoll", libc::SYS_ppoll, "waits for init's word while it sets the container up; standard streams that \
        cannot be opened anew; a pause where waiting for events fails"),
    call("waitid", libc::SYS_waitid, "reaps init, keeper and what is left of the container")
        .only(&[&[is(0, P_PIDFD.cast_signed())], &[is(0, P_PID.cast_signed())]]),
    call("pidfd_send_signal", libc::SYS_pidfd_send_signal, "ends the container, or a keeper that hangs")
        .only(&[&[is(1, SIGKILL), is(3, 0)]]),
    call("clock_gettime", libc::SYS_clock_gettime, "the time")
        .rare("the vDSO answers, except with a clock source that it cannot read"),
    call("exit_group", libc::SYS_exit_group, "the end"),
];

// Where the architecture has it; mio uses epoll_pwait(2) elsewhere by that name.
#[cfg(target_arch = "x86_64")]
const EPOLL_WAIT: c_long = libc::SYS_epoll_wait;
#[cfg(not(target_arch = "x86_64"))]
const EPOLL_WAIT: c_long = libc::SYS_epoll_pwait;
