//! Clients of published ports: which way each of them takes.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use super::{Container, Driver};
use crate::config::Transport;
use crate::error::Error;
use crate::net::publish::{Accepted, Listener};

/// Clients accepted in one turn.
const TURN_CLIENTS: usize = 64;

impl Driver {
    /// Lets clients of these ports in.
    ///
    /// # Errors
    /// A socket cannot be watched.
    pub fn publish(&mut self, listeners: Vec<Listener>) -> Result<(), Error> {
        for listener in listeners {
            match listener.transport() {
                Transport::Tcp => self.published.add(listener),
                Transport::Udp => Ok(()),
            }
            .map_err(|error| Error::host("watch a published port", error))?;
        }
        Ok(())
    }

    /// How many sockets of the container's network namespace it would like to have;
    /// they count as asked for. To be called until it is 0.
    pub fn sockets_wanted(&mut self) -> usize {
        self.published.wanted()
    }

    /// `count` sockets could not be asked for.
    pub fn sockets_refused(&mut self, count: usize) {
        self.published.not_asked(count, self.now);
    }

    /// Takes sockets of the container's network namespace, `asked` or fewer.
    pub fn supply_sockets(&mut self, asked: usize, sockets: Vec<OwnedFd>) {
        self.published.supply(asked, sockets, self.now);
    }

    /// Accepts clients, in turn of their ports.
    pub(super) fn accept_turn(&mut self) {
        for _ in 0..TURN_CLIENTS {
            let Some(accepted) = self.published.accept(self.now) else {
                return;
            };
            self.admit(accepted);
        }
    }

    fn admit(&mut self, accepted: Accepted) {
        let client = accepted.client.ip();
        let addresses = self.container.addresses(client);
        self.published.join(accepted, &addresses);
    }
}

impl Container {
    /// Where a client of the host is led to: by the same version of IP if it can be,
    /// by IPv4 where that is refused, for many a server listens there alone and
    /// `localhost` is ::1 first.
    fn addresses(&self, client: IpAddr) -> Vec<IpAddr> {
        let v6 = self.v6.filter(|_| client.is_ipv6()).map(IpAddr::V6);
        v6.into_iter().chain([IpAddr::V4(self.v4)]).collect()
    }
}
