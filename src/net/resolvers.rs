//! The host's resolvers, followed as they change.
//!
//! # Theory of operation
//!
//! `/etc/resolv.conf` is rarely written in place: NetworkManager, a VPN or
//! systemd-resolved rename a new one over it, or change what it is a link to. Whoever
//! has a query to forward asks whether the name still leads to the file that was read
//! last, as the C library does (resolv.conf(5)): one stat(2), and nothing to do while
//! nobody asks. The packet loop may not open files, so it asks another process, which
//! has the [`Resolvers`] ([`Ask`]). An inotify(7) descriptor would cost more: to close it, and so to end,
//! takes a grace period of the kernel's, about as long as the rest of a start. A file
//! that is gone for a moment leaves what was known.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::config::{NameServer, nameservers};

/// resolv.conf(5)
const PATH: &str = "/etc/resolv.conf";
/// Servers that are used, as in the C library (`MAXNS`).
const SERVERS: usize = 3;
/// Longest file that is read, bytes.
const LONGEST: u64 = 64 << 10;
const DNS_PORT: u16 = 53;

/// Asks whoever has the [`Resolvers`]: the host's, if they are others than at the last
/// call.
pub type Ask = Box<dyn FnMut() -> Option<Vec<SocketAddr>>>;

/// Which file it is, and in which state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    file: (u64, u64),
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Identity {
    fn of(file: &Metadata) -> Self {
        Self {
            file: (file.dev(), file.ino()),
            length: file.len(),
            modified: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
        }
    }
}

/// Follows a resolv.conf.
#[derive(Debug)]
pub struct Resolvers {
    path: PathBuf,
    /// What was read last.
    seen: Option<Identity>,
}

impl Resolvers {
    /// Follows the host's. The first look always reads it.
    pub fn of_host() -> Self {
        Self::at(PATH)
    }

    fn at(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            seen: None,
        }
    }

    /// The resolvers, if they may be others than at the last look.
    pub fn changed(&mut self) -> Option<Vec<SocketAddr>> {
        let found = match self.path.metadata() {
            Ok(found) => Identity::of(&found),
            // Between two files, or for good: either way it names no other servers.
            Err(error) => {
                tracing::trace!("{}: {error}", self.path.display());
                return None;
            }
        };
        if self.seen == Some(found) {
            return None;
        }
        match read(&self.path) {
            Ok(text) => {
                // Of before it was read: what has come since then is found next time.
                self.seen = Some(found);
                let resolvers = servers(&text);
                tracing::debug!("{}: {resolvers:?}", self.path.display());
                Some(resolvers)
            }
            Err(error) => {
                tracing::debug!("{}: {error}", self.path.display());
                None
            }
        }
    }
}

fn read(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(LONGEST).read_to_end(&mut bytes)?;
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

    /// Written in place, replaced, reached by another link, gone for a while.
    #[test]
    fn changes_are_noticed() {
        use std::fs::{remove_file, rename, write};
        use std::os::unix::fs::symlink;

        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let file = |name: &str, at: &str| write(path(name), format!("nameserver {at}\n")).unwrap();
        let of = |at: &str| Some(vec![SocketAddr::new(at.parse().unwrap(), 53)]);

        let mut resolvers = Resolvers::at(path("resolv.conf"));
        assert_eq!(resolvers.changed(), None, "there is no file");
        file("resolv.conf", "192.0.2.1");
        assert_eq!(resolvers.changed(), of("192.0.2.1"));
        assert_eq!(resolvers.changed(), None);
        file("resolv.conf", "192.0.2.10");
        assert_eq!(resolvers.changed(), of("192.0.2.10"), "written in place");
        file("new", "192.0.2.20");
        rename(path("new"), path("resolv.conf")).unwrap();
        assert_eq!(resolvers.changed(), of("192.0.2.20"), "replaced by rename");
        remove_file(path("resolv.conf")).unwrap();
        assert_eq!(resolvers.changed(), None, "gone");
        file("stub", "192.0.2.30");
        symlink("stub", path("resolv.conf")).unwrap();
        assert_eq!(resolvers.changed(), of("192.0.2.30"), "a link");
        file("other", "192.0.2.31");
        rename(path("other"), path("stub")).unwrap();
        assert_eq!(resolvers.changed(), of("192.0.2.31"), "behind the link");
        assert_eq!(resolvers.changed(), None);
    }

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
