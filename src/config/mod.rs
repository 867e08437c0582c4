//! Validated options: what the command line means.
//!
//! Everything here is plain data. Nothing has been opened, created or changed
//! when a [`RunSpec`] exists, but everything that can be checked has been.

mod egress;
mod ids;
mod limits;
mod mounts;
mod publish;
mod resolv_conf;
mod sysctl;

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use crate::sys::seccomp::{FilterFlags, Instruction};

pub use egress::{Action, EgressRules, Rules, rule};
pub use ids::{Account, Groups, NameOrId, UserNamespace, UserSpec};
pub use limits::{Limits, MemorySwap, NumberList, RESOURCES, Ulimit};
pub use mounts::{DeviceNode, MountFlags, MountKind, MountSpec, Propagation, Tmpfs};
pub use publish::{Publish, Transport};
pub use resolv_conf::{NameServer, nameservers, search_domains};
pub use sysctl::{Sysctl, SysctlOwner};

/// One `crun-lite run`, validated.
#[derive(Debug, Clone, Serialize)]
pub struct RunSpec {
    /// The command and its arguments; never empty.
    #[serde(skip)]
    pub command: Vec<OsString>,
    /// Where the root filesystem comes from.
    pub rootfs: RootFs,
    /// `--read-only`: the root filesystem is mounted read-only.
    pub read_only: bool,
    /// `--hostname`; at most 64 bytes (`HOST_NAME_MAX`).
    pub hostname: String,
    /// `--workdir`: absolute path in the container.
    pub workdir: Option<PathBuf>,
    /// The command's environment, complete but for what `/etc/passwd` decides.
    #[serde(skip)]
    pub env: Vec<(OsString, OsString)>,
    /// `--user`.
    pub user: UserSpec,
    /// `--group-add`.
    pub groups: Groups,
    /// A user to make known in the container.
    pub account: Option<Account>,
    /// Volumes, `--mount`s and `--tmpfs`s, in the order given.
    pub mounts: Vec<MountSpec>,
    /// `-t`.
    pub tty: bool,
    /// `--init`: the command runs below an init of ours; else it is PID 1 itself.
    pub init: bool,
    /// `-i`.
    pub interactive: bool,
    /// Which namespaces are new.
    pub namespaces: Namespaces,
    /// `--userns`.
    pub userns: UserNamespace,
    /// `--uidmap`; empty means the map of `userns`.
    pub uid_map: Vec<IdMapEntry>,
    /// `--gidmap`; empty means the map of `userns`.
    pub gid_map: Vec<IdMapEntry>,
    /// Bit set of the capabilities the command keeps (bit n = capability n).
    pub capabilities: u64,
    /// Those of them that it has as another user than root, too.
    pub ambient: u64,
    /// System-call filter of the command.
    pub seccomp: SeccompProfile,
    /// Landlock, on unless `--security-opt landlock=disable`.
    pub landlock: bool,
    /// `no_new_privs`, on unless `--security-opt no-new-privileges=false`.
    pub no_new_privileges: bool,
    /// Paths to hide in addition to the default ones.
    pub mask: Vec<PathBuf>,
    /// Default masks to lift; `ALL` lifts all.
    pub unmask: Vec<PathBuf>,
    /// `--shm-size`: most bytes in `/dev/shm`, 0 for no limit.
    pub shm_size: u64,
    /// `--sysctl`, each key once, of namespaces that are new.
    pub sysctls: Vec<Sysctl>,
    /// `--net`.
    pub network: Network,
    /// `--dns`: resolvers to write into `resolv.conf` in place of ours.
    pub dns: Vec<IpAddr>,
    /// `--dns-search`: replaces the host's search list.
    pub dns_search: Option<Vec<String>>,
    /// `--dns-option`: replaces the host's resolver options.
    pub dns_options: Option<Vec<String>>,
    /// `--add-host NAME:ADDR`.
    pub add_host: Vec<(String, IpAddr)>,
    /// `--publish`, in the order given; no two ask for one port of the host.
    pub publish: Vec<Publish>,
    /// `--name`; `None` is our process id.
    pub name: Option<String>,
    /// `--pcap`; only with a network of our own.
    pub pcap: Option<LogFile>,
    /// `--net-log`; only with a network of our own.
    pub net_log: Option<LogFile>,
    /// What it may use.
    pub limits: Limits,
}

/// Most bytes in `/dev/shm` unless `--shm-size` says otherwise: 64 MiB, as podman has it.
pub const DEFAULT_SHM_SIZE: u64 = 64 << 20;

/// `FILE[,size=BYTES][,files=N]` of `--pcap` and `--net-log`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LogFile {
    /// The file; older ones are `FILE.1`, `FILE.2` and so on.
    pub path: PathBuf,
    /// Most bytes of one file.
    pub size: u64,
    /// Most files; with one, nothing more is written when it is full.
    pub files: u32,
}

/// Where the root filesystem comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum RootFs {
    /// No `--rootfs`: assembled at start (see the `rootfs` crate).
    Default,
    /// `--rootfs DIR`; `/` is the host's own tree. Absolute, canonical.
    Dir(PathBuf),
}

/// Which namespaces are new (true) and which are the host's (false).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Namespaces {
    /// user_namespaces(7)
    pub user: bool,
    /// mount_namespaces(7); always new.
    pub mount: bool,
    /// pid_namespaces(7)
    pub pid: bool,
    /// uts_namespaces(7)
    pub uts: bool,
    /// ipc_namespaces(7)
    pub ipc: bool,
    /// network_namespaces(7)
    pub net: bool,
    /// cgroup_namespaces(7)
    pub cgroup: bool,
}

impl Namespaces {
    /// All are new.
    pub const PRIVATE: Self = Self {
        user: true,
        mount: true,
        pid: true,
        uts: true,
        ipc: true,
        net: true,
        cgroup: true,
    };
}

/// One line of uid_map or gid_map (user_namespaces(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct IdMapEntry {
    /// First id inside.
    pub container: u32,
    /// First id outside.
    pub host: u32,
    /// How many.
    pub size: u32,
}

/// System-call filter of the command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum SeccompProfile {
    /// Ours.
    Default,
    /// That of a file.
    File(Box<SeccompFile>),
    /// None.
    Unconfined,
}

/// A profile in the format of OCI runtimes, compiled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SeccompFile {
    /// Where it is from.
    pub path: PathBuf,
    /// The filter.
    #[serde(skip)]
    pub filter: Vec<Instruction>,
    /// How it is installed.
    #[serde(skip)]
    pub flags: FilterFlags,
}

/// `--net`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum Network {
    /// The in-process stack.
    Builtin(BuiltinNetwork),
    /// A network namespace with nothing but `lo`.
    None,
    /// The host's own network.
    Host,
}

/// Where connections and datagrams of the container leave the host from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum Outbound {
    /// This address of the host.
    Address(IpAddr),
    /// This interface.
    Interface(String),
}

/// Whether a network has IPv6.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub enum Ipv6Mode {
    /// As the host has it or not.
    #[default]
    Auto,
    /// Yes.
    On,
    /// No: no address, no advertisement, no IPv6 socket on the host.
    Off,
}

/// What the container's link is made of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub enum LinkChoice {
    /// A TAP device where one can be made, else a veth pair.
    #[default]
    Auto,
    /// A TAP device.
    Tap,
    /// A veth pair.
    Veth,
}

/// `--net=builtin:KEY=VALUE,...`
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BuiltinNetwork {
    /// IP MTU of the link, bytes: 576 to 65520.
    pub mtu: u16,
    /// What the link is made of.
    pub link: LinkChoice,
    /// Why a TAP device can not be made; `None`: nothing is known to be in its way.
    /// For the plan alone: what can be made is found out by making it.
    pub no_tap: Option<String>,
    /// Network address.
    pub network: Ipv4Addr,
    /// Prefix length, 1 to 25.
    pub prefix_len: u8,
    /// Whether there is IPv6.
    pub ipv6: Ipv6Mode,
    /// IPv6 network address, of a /64; `None`: one that the host does not use, if
    /// there is to be IPv6. [`crate::net::choose_ipv6`] decides.
    pub network6: Option<Ipv6Addr>,
    /// Where IPv4 leaves the host from; `None`: as its routes say.
    pub outbound: Option<Outbound>,
    /// Where IPv6 leaves the host from.
    pub outbound6: Option<Outbound>,
    /// The container's MAC; `None`: the same for every container.
    pub mac: Option<[u8; 6]>,
    /// The gateway address reaches the host's loopback.
    pub allow_host_loopback: bool,
    /// The host's own other addresses are reachable.
    pub allow_host_addresses: bool,
    /// 169.254.0.0/16, fd00:ec2::254 and fd20:ce::254 (cloud metadata) are reachable.
    pub allow_link_local: bool,
    /// `--net-allow`, `--net-deny` and `--net-default`.
    #[serde(serialize_with = "egress::serialize")]
    pub rules: Box<Rules>,
    /// Most flows at once, all protocols; `None` follows RLIMIT_NOFILE.
    pub max_flows: Option<usize>,
    /// Most half-open TCP connections; `None`: as [`netstack::Limits`] has it.
    pub max_half_open: Option<NonZeroUsize>,
    /// Most bytes of TCP payload that wait; `None` likewise.
    pub max_buffered: Option<usize>,
    /// Most frames of the container a second; `None`: no bound.
    pub max_pps: Option<NonZeroU32>,
    /// Most time to look for events before sleeping; zero: none.
    pub busy_poll: Duration,
    /// The process that runs the network locks itself in.
    pub sandbox: bool,
}

impl Default for BuiltinNetwork {
    fn default() -> Self {
        Self {
            mtu: 65520,
            link: LinkChoice::Auto,
            no_tap: None,
            network: Ipv4Addr::new(10, 0, 2, 0),
            prefix_len: 24,
            ipv6: Ipv6Mode::Auto,
            network6: None,
            outbound: None,
            outbound6: None,
            mac: None,
            allow_host_loopback: false,
            allow_host_addresses: false,
            allow_link_local: false,
            rules: Box::default(),
            max_flows: None,
            max_half_open: None,
            max_buffered: None,
            max_pps: None,
            busy_poll: Duration::from_micros(64),
            sandbox: true,
        }
    }
}

impl BuiltinNetwork {
    /// The `n`th address of the network, as slirp4netns counts them:
    /// 2 is the gateway, 3 the name server, 100 the container.
    pub fn address(&self, n: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.network).wrapping_add(n))
    }

    /// The gateway, which stands for the host.
    pub fn gateway(&self) -> Ipv4Addr {
        self.address(2)
    }

    /// The DNS forwarder.
    pub fn dns(&self) -> Ipv4Addr {
        self.address(3)
    }

    /// The container's own address.
    pub fn container(&self) -> Ipv4Addr {
        self.address(100)
    }

    /// The address of the IPv6 network with this interface identifier; `None`
    /// without IPv6.
    pub fn address6(&self, identifier: u16) -> Option<Ipv6Addr> {
        let [a, b, c, d, ..] = self.network6?.segments();
        Some(Ipv6Addr::new(a, b, c, d, 0, 0, 0, identifier))
    }

    /// The IPv6 gateway.
    pub fn gateway6(&self) -> Option<Ipv6Addr> {
        self.address6(2)
    }

    /// The container's addresses, that of IPv4 first.
    pub fn container_addresses(&self) -> Vec<IpAddr> {
        both(self.container(), self.container6())
    }

    /// The gateway's addresses, that of IPv4 first.
    pub fn gateway_addresses(&self) -> Vec<IpAddr> {
        both(self.gateway(), self.gateway6())
    }

    /// The DNS forwarder's IPv6 address.
    pub fn dns6(&self) -> Option<Ipv6Addr> {
        self.address6(3)
    }

    /// The container's own IPv6 address.
    pub fn container6(&self) -> Option<Ipv6Addr> {
        self.address6(0x100)
    }
}

fn both(v4: Ipv4Addr, v6: Option<Ipv6Addr>) -> Vec<IpAddr> {
    [v4.into()].into_iter().chain(v6.map(IpAddr::V6)).collect()
}
