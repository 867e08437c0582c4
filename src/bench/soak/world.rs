//! A host and an outside of the benchmark's own.
//!
//! # Theory of operation
//! The benchmark moves itself into namespaces of its own, before it starts
//! anything: what it measures meets no other traffic, disturbs none, and finds all
//! ports free. An ordinary user may do so in a user namespace in which its id is
//! the only one, and stays that user. Root needs no user namespace.
//!
//! ```text
//!   here: the host of crun-lite            outside
//!   127.0.0.1, 198.18.0.1 host0 ---- out0 198.18.0.2 ... .65
//! ```
//!
//! The outside has many addresses, so that a million connections do not run out of
//! ports while each leaves one in TIME-WAIT. `/etc/resolv.conf` names a resolver of
//! the benchmark's own; what stands there for others does not change. Everything
//! ends with the last process in it.

use std::fs::{self, File};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::CWD;
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount,
    mount_change, move_mount, open_tree, unmount,
};

use crate::bench::Error;
use crate::sys::netlink::{LinkChange, Netlink};
use crate::sys::netns;

/// The host's address on its uplink.
pub(super) const HOST: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
/// How many addresses the outside has.
pub(super) const OUTSIDE_ADDRESSES: u8 = 64;
/// The host's resolver, on its loopback as systemd-resolved has it.
pub(super) const RESOLVER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 53);
const PREFIX: u8 = 24;
const HOST_LINK: &str = "host0";
const OUTSIDE_LINK: &str = "out0";
const MTU: u32 = 65_520;
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Ports for outgoing connections; the servers' are below.
const PORTS: &str = "10000 65535";

/// The addresses of the outside.
pub(super) fn outside_addresses() -> impl Iterator<Item = Ipv4Addr> {
    (2..=OUTSIDE_ADDRESSES + 1).map(|last| Ipv4Addr::new(198, 18, 0, last))
}

/// The network namespaces; this process is in the first.
#[derive(Debug)]
pub(super) struct World {
    here: OwnedFd,
    outside: OwnedFd,
    /// Why names cannot be asked for, where they cannot.
    pub no_names: Option<String>,
}

impl World {
    /// Moves this process, which has one thread, into a host of its own.
    ///
    /// # Errors
    /// The kernel does not allow it, or a step fails.
    pub(super) fn make() -> Result<Self, Error> {
        become_owner()?;
        // The servers' ports and the resolver's are below 1024 or ours.
        write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0")?;
        write("/proc/sys/net/ipv4/ip_local_port_range", PORTS)?;
        let here = namespace()?;
        netns::unshare().map_err(failed("a second network namespace"))?;
        write("/proc/sys/net/ipv4/ip_local_port_range", PORTS)?;
        let outside = namespace()?;
        let mut netlink = open()?;
        up(&mut netlink, "lo", &[])?;
        netns::enter(here.as_fd()).map_err(failed("the way back"))?;
        let mut own = open()?;
        up(&mut own, "lo", &[])?;
        own.add_veth(HOST_LINK, OUTSIDE_LINK, outside.as_fd(), MTU)
            .map_err(failed("a veth pair"))?;
        up(&mut own, HOST_LINK, &[HOST])?;
        let addresses: Vec<_> = outside_addresses().collect();
        // The socket is still one of the outside.
        up(&mut netlink, OUTSIDE_LINK, &addresses)?;
        let no_names = replace_resolv_conf().err().map(|error| error.to_string());
        Ok(Self {
            here,
            outside,
            no_names,
        })
    }

    /// Calls `start` outside; what it starts stays there.
    ///
    /// # Errors
    /// As setns(2).
    pub(super) fn outside<T>(&self, start: impl FnOnce() -> T) -> Result<T, Error> {
        netns::enter(self.outside.as_fd()).map_err(failed("the way outside"))?;
        let result = start();
        netns::enter(self.here.as_fd()).map_err(failed("the way back"))?;
        Ok(result)
    }
}

fn failed(step: &'static str) -> impl Fn(io::Error) -> Error {
    move |source| Error::World { step, source }
}

/// New namespaces, in which this process may do everything.
fn become_owner() -> Result<(), Error> {
    let (user, group) = (rustix::process::geteuid(), rustix::process::getegid());
    let ordinary = !user.is_root();
    netns::unshare_with_mounts(ordinary).map_err(failed("namespaces"))?;
    if ordinary {
        // user_namespaces(7): one's own id, and no more group ids.
        write("/proc/self/setgroups", "deny")?;
        let (user, group) = (user.as_raw(), group.as_raw());
        write("/proc/self/uid_map", &format!("{user} {user} 1"))?;
        write("/proc/self/gid_map", &format!("{group} {group} 1"))?;
    }
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).map_err(|error| failed("mounts of its own")(error.into()))
}

fn write(path: &'static str, text: &str) -> Result<(), Error> {
    fs::write(path, text).map_err(failed(path))
}

fn namespace() -> Result<OwnedFd, Error> {
    let file = File::open("/proc/thread-self/ns/net").map_err(failed("a network namespace"))?;
    Ok(file.into())
}

fn open() -> Result<Netlink, Error> {
    Netlink::open().map_err(failed("rtnetlink"))
}

fn up(netlink: &mut Netlink, link: &'static str, addresses: &[Ipv4Addr]) -> Result<(), Error> {
    let change = LinkChange {
        up: true,
        ..LinkChange::default()
    };
    let result = netlink.link_index(link).and_then(|index| {
        for &address in addresses {
            netlink.add_address(index, address.into(), PREFIX)?;
        }
        netlink.change_link(index, change)
    });
    result.map_err(failed(link))
}

/// Puts a file of ours over the host's, for this process and those that it starts.
fn replace_resolv_conf() -> io::Result<()> {
    // It is made in a file system over the folder that it belongs to, which goes at
    // once: no file is anywhere else, and none is left behind.
    let folder = Path::new(RESOLV_CONF).parent().unwrap_or(Path::new("/"));
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("tmpfs", folder, "tmpfs", flags, Some(c"mode=0755"))?;
    let file = fs::write(RESOLV_CONF, format!("nameserver {RESOLVER}\n")).and_then(|()| {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        Ok(open_tree(CWD, RESOLV_CONF, flags)?)
    });
    unmount(folder, UnmountFlags::DETACH)?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_SYMLINKS;
    Ok(move_mount(file?, "", CWD, RESOLV_CONF, flags)?)
}
