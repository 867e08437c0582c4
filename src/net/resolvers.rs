//! The host's resolvers, followed as they change.
//!
//! # Theory of operation
//!
//! `/etc/resolv.conf` is rarely written in place: NetworkManager, a VPN or
//! systemd-resolved rename a new one over it, or change what it is a link to. So
//! the folders are watched (inotify(7)), that of the name and that of each link on
//! the way to the file, for anything that happens to these names; then everything
//! is looked at again. A file that is gone for a moment leaves what was known.

use std::ffi::OsString;
use std::io::{self, Read};
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;

use crate::config::{NameServer, nameservers};

/// resolv.conf(5)
const PATH: &str = "/etc/resolv.conf";
/// Servers that are used, as in the C library (`MAXNS`).
const SERVERS: usize = 3;
/// Longest file that is read, bytes.
const LONGEST: u64 = 64 << 10;
/// Links that are followed (`MAXSYMLINKS`).
const MAX_LINKS: usize = 40;
const DNS_PORT: u16 = 53;

/// Watches the host's resolv.conf.
#[derive(Debug)]
pub(crate) struct Resolvers {
    inotify: OwnedFd,
    /// Names that lead to the file, by the watch on their folder.
    names: Vec<(i32, OsString)>,
}

impl Resolvers {
    /// Begins to watch.
    pub(crate) fn watch(registry: &Registry, token: Token) -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        registry.register(
            &mut SourceFd(&inotify.as_raw_fd()),
            token,
            Interest::READABLE,
        )?;
        let mut resolvers = Self {
            inotify,
            names: Vec::new(),
        };
        resolvers.follow(Path::new(PATH));
        Ok(resolvers)
    }

    /// Watches the folders on the way to the file.
    fn follow(&mut self, path: &Path) {
        self.names.clear();
        let mut path = path.to_owned();
        for _ in 0..MAX_LINKS {
            let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
                return;
            };
            let events = WatchFlags::CLOSE_WRITE
                | WatchFlags::CREATE
                | WatchFlags::DELETE
                | WatchFlags::MOVED_FROM
                | WatchFlags::MOVED_TO
                | WatchFlags::ONLYDIR;
            match inotify::add_watch(&self.inotify, folder, events) {
                Ok(watch) => self.names.push((watch, name.to_owned())),
                Err(error) => tracing::debug!("watch {}: {error}", folder.display()),
            }
            match std::fs::read_link(&path) {
                // An absolute target replaces the whole path.
                Ok(target) => path = folder.join(target),
                Err(_) => return,
            }
        }
    }

    /// Something has happened in a watched folder: the resolvers, if they may have
    /// changed.
    pub(crate) fn changed(&mut self) -> Option<Vec<SocketAddr>> {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&self.inotify, &mut buffer);
        let mut concerned = false;
        loop {
            match reader.next() {
                Ok(event) => {
                    let named = |(watch, name): &(i32, OsString)| {
                        *watch == event.wd()
                            && event
                                .file_name()
                                .is_some_and(|file| file.to_bytes() == name.as_bytes())
                    };
                    concerned |= event.events().contains(ReadFlags::QUEUE_OVERFLOW)
                        || self.names.iter().any(named);
                }
                Err(Errno::INTR) => {}
                Err(_) => break,
            }
        }
        if !concerned {
            return None;
        }
        self.follow(Path::new(PATH));
        match read(Path::new(PATH)) {
            Ok(text) => {
                let resolvers = servers(&text);
                tracing::info!("{PATH} has changed: {resolvers:?}");
                Some(resolvers)
            }
            // Between two files, or for good: either way it names no other servers.
            Err(error) => {
                tracing::debug!("{PATH}: {error}");
                None
            }
        }
    }
}

fn read(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?
        .take(LONGEST)
        .read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The servers that a resolv.conf(5) names; the host itself where it names none.
pub fn servers(text: &str) -> Vec<SocketAddr> {
    let servers: Vec<SocketAddr> = nameservers(text)
        .iter()
        .filter_map(address)
        .take(SERVERS)
        .collect();
    if servers.is_empty() {
        vec![(Ipv4Addr::LOCALHOST, DNS_PORT).into()]
    } else {
        servers
    }
}

/// Where a server is; `None` when its zone is no interface of ours.
fn address(server: &NameServer) -> Option<SocketAddr> {
    match (server.address, &server.zone) {
        (address, None) => Some((address, DNS_PORT).into()),
        (IpAddr::V6(address), Some(zone)) => {
            let index = zone.parse().ok().or_else(|| interface_index(zone))?;
            Some(SocketAddrV6::new(address, DNS_PORT, 0, index).into())
        }
        (IpAddr::V4(_), Some(_)) => None,
    }
}

/// The index of an interface, from sysfs: no socket is needed.
fn interface_index(name: &str) -> Option<u32> {
    if name.contains('/') {
        return None;
    }
    let path: PathBuf = ["/sys/class/net", name, "ifindex"].iter().collect();
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_of_a_file() {
        let of =
            |text: &str| -> Vec<String> { servers(text).iter().map(ToString::to_string).collect() };
        assert_eq!(of(""), ["127.0.0.1:53"]);
        assert_eq!(of("search x\nnameserver bad\n"), ["127.0.0.1:53"]);
        assert_eq!(
            of(
                "nameserver 192.0.2.1\nnameserver 2001:db8::1\nnameserver fe80::1%7\nnameserver 192.0.2.4"
            ),
            ["192.0.2.1:53", "[2001:db8::1]:53", "[fe80::1%7]:53"]
        );
        assert_eq!(
            of("nameserver fe80::1%no-such\nnameserver 192.0.2.1"),
            ["192.0.2.1:53"]
        );
    }
}
