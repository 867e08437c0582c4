//! Which addresses are the host's own: asked of the kernel, not of a list.
//!
//! # Theory of operation
//!
//! `RTM_GETROUTE` says what kind of route leads to an address, which covers
//! every alias and AnyIP route. Answers are kept until the kernel announces a
//! change of addresses or routes.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::io::Errno;

use crate::sys::netlink::{Netlink, RouteType};

/// Answers kept at most.
const CAPACITY: usize = 4096;
/// Announcements read at a time.
const READS: usize = 64;

/// Answers whether an address is the host's own.
#[derive(Debug)]
pub(crate) struct LocalAddresses {
    netlink: Netlink,
    monitor: OwnedFd,
    /// There may be more announcements, of which no event tells: where some are lost, the
    /// kernel says nothing more until all have been read (`NETLINK_S_CONGESTED`).
    unread: bool,
    known: HashMap<IpAddr, bool>,
}

impl LocalAddresses {
    pub(crate) fn new(registry: &Registry, token: Token) -> io::Result<Self> {
        let monitor = Netlink::monitor()?;
        registry.register(
            &mut SourceFd(&monitor.as_raw_fd()),
            token,
            Interest::READABLE,
        )?;
        Ok(Self {
            netlink: Netlink::open()?,
            monitor,
            unread: false,
            known: HashMap::new(),
        })
    }

    /// Something has changed: forget.
    pub(crate) fn changed(&mut self) {
        let mut buffer = [0; 4096];
        // What has changed does not matter, only that; an overrun (ENOBUFS) says so, too.
        self.known.clear();
        self.unread = true;
        for _ in 0..READS {
            match rustix::io::read(&self.monitor, &mut buffer) {
                Ok(_) | Err(Errno::NOBUFS | Errno::INTR) => {}
                Err(error) => {
                    if error != Errno::AGAIN {
                        tracing::debug!("changes of addresses: {error}");
                    }
                    self.unread = false;
                    return;
                }
            }
        }
    }

    /// Whether [`Self::changed`] is to be called without an event.
    pub(crate) fn is_unread(&self) -> bool {
        self.unread
    }

    /// Whether `address` is the host's own. When the kernel can not be asked,
    /// it counts as such: out of reach is the safe answer.
    pub(crate) fn contains(&mut self, address: IpAddr) -> bool {
        if let Some(known) = self.known.get(&address) {
            return *known;
        }
        match self.netlink.route_type(address) {
            Ok(kind) => {
                if self.known.len() >= CAPACITY {
                    self.known.clear();
                }
                self.known.insert(address, kind == RouteType::Host);
                kind == RouteType::Host
            }
            Err(error) => {
                tracing::warn!("cannot ask the kernel about {address}: {error}");
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{in_namespaces, scratch};

    /// More is announced at once than the kernel keeps for us.
    #[test]
    fn changes_are_noticed_after_an_overrun() {
        in_namespaces("net::local::tests::overrun", |_| {});
    }

    #[test]
    #[ignore = "started by changes_are_noticed_after_an_overrun"]
    fn overrun() {
        const LO: u32 = 1;
        scratch();
        let mut poll = mio::Poll::new().unwrap();
        let mut events = mio::Events::with_capacity(1);
        let mut local = LocalAddresses::new(poll.registry(), Token(0)).unwrap();
        let address = "203.0.113.1".parse().unwrap();
        assert!(!local.contains(address));
        let mut netlink = Netlink::open().unwrap();
        for number in 0..3000_u32 {
            let other = std::net::Ipv4Addr::from(0x0a00_0001 + number);
            netlink.add_address(LO, other.into(), 32).unwrap();
        }
        // As the loop does: after an event, and for as long as that was not all.
        let mut turn = || {
            poll.poll(&mut events, Some(std::time::Duration::ZERO))
                .unwrap();
            if !events.is_empty() || local.is_unread() {
                local.changed();
            }
            (local.is_unread(), local.contains(address))
        };
        assert_eq!(turn(), (true, false));
        for _ in 0..3000 {
            turn();
        }
        assert_eq!(turn(), (false, false));
        netlink.add_address(LO, address, 32).unwrap();
        assert_eq!(turn(), (false, true));
    }
}
