//! The table of the system calls that the network makes, and what meets each.

/// A system call, with the kind of object that it is about.
#[derive(Debug, Clone, Copy)]
pub(super) struct Site {
    pub(super) name: &'static str,
    /// What is done to meet it.
    pub(super) action: &'static str,
}

const fn site(name: &'static str, action: &'static str) -> Site {
    Site { name, action }
}

/// Each with the keys of the network of a container that meets them.
pub(super) const TABLES: &[(&str, &[Site])] = &[
    ("busy_poll=0,link=tap", SITES),
    ("busy_poll=0,link=veth", OF_VETH),
    (
        "busy_poll=0,link=tap,outbound_addr=198.18.0.1,outbound_addr6=2001:db8::1",
        OF_OUTBOUND,
    ),
];

/// Those of a link that is a veth pair.
const OF_VETH: &[Site] = &[site("writev packet", "tcp")];

/// Those of traffic that leaves the host from an address that is given.
const OF_OUTBOUND: &[Site] = &[
    site("bind tcp", "tcp"),
    site("setsockopt IP_BIND_ADDRESS_NO_PORT tcp", "tcp"),
    site("setsockopt IP_BIND_ADDRESS_NO_PORT udp", "udp"),
    site("bind udp", "udp"),
    site("setsockopt IP_BIND_ADDRESS_NO_PORT ping", "ping"),
    site("bind ping", "ping"),
];

/// Those of any.
#[rustfmt::skip] // One a line.
const SITES: &[Site] = &[
    // The loop.
    site("epoll_wait", "tcp"),
    site("timerfd_settime", "sink"),
    // The link.
    site("read tap", "tcp"),
    site("writev tap", "tcp"),
    // Connections of the container.
    site("socket tcp", "tcp"),
    site("setsockopt TCP_NODELAY tcp", "tcp"),
    site("setsockopt SO_OOBINLINE tcp", "tcp"),
    site("connect tcp", "tcp"),
    site("epoll_ctl add tcp", "tcp"),
    site("getsockopt SO_ERROR tcp", "refused"),
    site("read tcp", "tcp"),
    site("write tcp", "small"),
    site("writev tcp", "bulk"),
    site("shutdown tcp", "tcp"),
    site("setsockopt SO_LINGER tcp", "reset"),
    site("setsockopt SO_KEEPALIVE tcp", "slow"),
    site("setsockopt TCP_KEEPIDLE tcp", "slow"),
    site("setsockopt TCP_KEEPINTVL tcp", "slow"),
    site("setsockopt TCP_KEEPCNT tcp", "slow"),
    // Which addresses are the host's own.
    site("write routes", "address"),
    site("read routes", "address"),
    site("read monitor", "address"),
    // Datagrams of the container.
    site("socket udp", "udp"),
    site("setsockopt IPV6_V6ONLY udp", "udp6"),
    site("setsockopt IPV6_RECVERR udp", "udp6"),
    site("setsockopt IP_RECVERR udp", "udp"),
    site("setsockopt SO_RCVBUF udp", "udp"),
    site("setsockopt UDP_GRO udp", "udp"),
    site("epoll_ctl add udp", "udp"),
    site("sendmsg udp", "udp"),
    site("sendmmsg udp", "segments"),
    site("recvmmsg udp", "udp"),
    site("recvmsg errors of udp", "closed"),
    site("setsockopt IP_MTU_DISCOVER udp", "toolong"),
    site("connect udp", "toolong"),
    site("getsockopt IP_MTU udp", "toolong"),
    // Echo requests.
    site("socket ping", "ping"),
    site("setsockopt IP_RECVERR ping", "ping"),
    site("setsockopt IP_TTL ping", "hops"),
    site("epoll_ctl add ping", "ping"),
    site("sendmsg ping", "ping"),
    site("read ping", "ping"),
    site("recvmsg errors of ping", "hops"),
    // Names: the keeper knows the resolvers.
    site("sendmsg keeper", "dns"),
    site("recvmsg keeper", "dns"),
    // Published ports.
    site("accept4 listener", "far client"),
    site("epoll_ctl add accepted", "far client"),
    site("read accepted", "far client"),
    site("write accepted", "far small"),
    site("writev accepted", "far bulk"),
    site("shutdown accepted", "far client"),
    site("setsockopt SO_LINGER accepted", "far refused"),
    site("setsockopt SO_KEEPALIVE accepted", "far slow"),
    site("setsockopt TCP_KEEPIDLE accepted", "far slow"),
    site("setsockopt TCP_KEEPINTVL accepted", "far slow"),
    site("setsockopt TCP_KEEPCNT accepted", "far slow"),
    site("recvmmsg published udp", "far datagram"),
    site("sendmmsg published udp", "far datagram"),
    site("recvmsg errors of published udp", "far gone"),
    // Published ports, for clients of the host itself.
    site("setsockopt TCP_CONGESTION accepted", "own client"),
    site("getsockopt SO_DOMAIN inside", "own client"),
    site("connect inside", "own client"),
    site("epoll_ctl add inside", "own client"),
    site("splice from accepted", "own client"),
    site("splice to inside", "own client"),
    site("splice from inside", "own client"),
    site("splice to accepted", "own client"),
    site("shutdown inside", "own client"),
    site("write pipe", "own urgent"),
    site("getsockopt SO_ERROR accepted", "own reset"),
    site("setsockopt SO_LINGER inside", "own reset"),
    site("pipe2", "own held"),
    site("fcntl pipe", "own held"),
    site("sendmsg init", "own many"),
    site("recvmsg init", "own many"),
    site("getsockopt SO_TYPE inside", "own many"),
    // The control socket.
    site("accept4 control listener", "stats"),
    site("getsockopt SO_PEERCRED control client", "stats"),
    site("epoll_ctl add control client", "stats"),
    site("read control client", "stats"),
    site("write control client", "stats"),
    // Ports that are published later.
    site("setsockopt TCP_NODELAY listener", "ports"),
    site("setsockopt SO_OOBINLINE listener", "ports"),
    site("epoll_ctl add listener", "ports"),
    site("setsockopt IP_RECVERR published udp", "ports"),
    site("setsockopt IPV6_RECVERR published udp", "ports"),
    site("setsockopt IP_PKTINFO published udp", "ports"),
    site("setsockopt IPV6_RECVPKTINFO published udp", "ports"),
    site("setsockopt SO_RCVBUF published udp", "ports"),
    site("setsockopt UDP_GRO published udp", "ports"),
    site("epoll_ctl add published udp", "ports"),
];

/// Sites that not each run meets, and why.
pub(super) const RARE: &[(&str, &str)] = &[
    (
        "epoll_ctl delete inside",
        "a connect inside is over when the call returns, as a rule",
    ),
    ("getsockopt SO_ERROR inside", "likewise"),
    (
        "getsockopt PACKET_STATISTICS packet",
        "only where a ring has been full",
    ),
];

/// Calls that are none of the network's, or cannot fail so.
pub(super) const OTHERS: &[(&str, &str)] = &[
    ("close", "whatever it returns, the descriptor is gone"),
    (
        "look",
        "what a debug build asks of a descriptor that it closes",
    ),
    ("memory", "a program without memory ends"),
    ("write stdio", "the log"),
    ("read signals", "the container's life"),
    ("waitid", "likewise"),
];

/// All sites of all tables.
pub(super) fn all() -> impl Iterator<Item = &'static Site> {
    TABLES.iter().flat_map(|(_, table)| table.iter())
}

/// Everything that is done, each once.
pub(super) fn actions() -> Vec<&'static str> {
    let mut actions: Vec<_> = all().map(|site| site.action).collect();
    actions.extend([
        "train",
        "burst",
        "denied",
        "own bulk",
        "own refused",
        "flows",
    ]);
    actions.sort_unstable();
    actions.dedup();
    actions
}
