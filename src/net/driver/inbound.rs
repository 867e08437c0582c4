//! Clients of published ports: which way each of them takes.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use netstack::{FlowId, Host};

use super::{Container, Driver};
use crate::config::{Publish, Transport};
use crate::error::Error;
use crate::net::publish::{Accepted, Listener, reset};

/// A published UDP port.
#[derive(Debug)]
pub(super) struct UdpPort {
    pub(super) at: SocketAddr,
    pub(super) container_port: u16,
    pub(super) flow: FlowId,
}

/// Clients accepted in one turn.
const TURN_CLIENTS: usize = 64;

impl Driver {
    /// Lets clients of these ports in. All or none.
    ///
    /// # Errors
    /// A socket cannot be watched.
    pub fn publish(&mut self, listeners: Vec<Listener>) -> Result<(), Error> {
        let mut done = Vec::new();
        for listener in listeners {
            let (transport, at) = (listener.transport(), listener.at());
            let published = match transport {
                Transport::Tcp => self.published.add(listener),
                Transport::Udp => self.publish_udp(listener),
            };
            if let Err(error) = published {
                for (transport, at) in done {
                    self.withdraw(transport, at);
                }
                return Err(Error::host("watch a published port", error));
            }
            done.push((transport, at));
        }
        Ok(())
    }

    /// Has no more clients come by what is bound there.
    fn withdraw(&mut self, transport: Transport, at: SocketAddr) {
        match transport {
            Transport::Tcp => self.published.remove(at),
            Transport::Udp => {
                for port in self.udp_ports.extract_if(.., |port| port.at == at) {
                    self.stack.unpublish_udp(port.flow, &mut self.host);
                }
            }
        }
    }

    fn publish_udp(&mut self, listener: Listener) -> io::Result<()> {
        let address = self.container.address(listener.at().ip());
        let to = SocketAddr::new(address, listener.container_port());
        let no_room = || io::Error::from_raw_os_error(libc::ENOBUFS);
        let flow = self.stack.publish_udp(to).ok_or_else(no_room)?;
        let port = UdpPort {
            at: listener.at(),
            container_port: listener.container_port(),
            flow,
        };
        if self
            .host
            .add_published(flow, listener.into_socket(), port.at)
            .is_err()
        {
            self.stack.unpublish_udp(flow, &mut self.host);
            return Err(no_room());
        }
        self.udp_ports.push(port);
        Ok(())
    }

    /// Publishes these no longer; connections and exchanges go on. All or none.
    ///
    /// # Errors
    /// The first that is not published.
    pub fn unpublish(&mut self, ports: &[Publish]) -> Result<(), Publish> {
        let all = self.ports();
        let mut gone = Vec::new();
        for port in ports {
            let before = gone.len();
            gone.extend(all.iter().filter(|(transport, at, inside)| {
                *transport == port.transport && port.covers(*at, *inside)
            }));
            if gone.len() == before {
                return Err(*port);
            }
        }
        for (transport, at, _) in gone {
            self.withdraw(transport, at);
        }
        Ok(())
    }

    /// Has clients of the host itself enter by the link, too: there is nobody to make
    /// sockets in the container's network namespace.
    pub fn admit_all_by_link(&mut self) {
        self.joins = false;
    }

    /// How many sockets of the container's network namespace it would like to have;
    /// they count as asked for. To be called until it is 0.
    pub fn sockets_wanted(&mut self) -> usize {
        if self.joins {
            self.published.wanted()
        } else {
            0
        }
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

    /// A client of the host itself is joined to a socket inside; any other enters by
    /// the link, with its own address, or the gateway's where that means nothing inside.
    fn admit(&mut self, accepted: Accepted) {
        let client = accepted.client;
        let is_local = client.ip().is_loopback() || self.host.is_local(client.ip());
        if is_local && self.joins {
            let addresses = self.container.addresses(client.ip());
            return self.published.join(accepted, &addresses, self.now);
        }
        let address = if is_local {
            // One try is all there is, and no server listens for IPv6 alone as a rule.
            IpAddr::V4(self.container.v4)
        } else {
            self.container.address(client.ip())
        };
        let to = SocketAddr::new(address, accepted.container_port);
        match self.stack.accept(self.now, client, to, &mut self.host) {
            Some(flow) => {
                if let Err(error) = self.host.add_accepted(flow, accepted.socket) {
                    tracing::debug!("a client of a published port: {error}");
                    self.stack.abort(flow, &mut self.host);
                }
            }
            None => reset(&accepted.socket),
        }
    }
}

impl Container {
    /// Its address of the version of `of`, or the one that it has.
    fn address(&self, of: IpAddr) -> IpAddr {
        let v6 = self.v6.filter(|_| of.is_ipv6()).map(IpAddr::V6);
        v6.unwrap_or(IpAddr::V4(self.v4))
    }

    /// Where a client of the host is led to: by the same version of IP if it can be,
    /// by IPv4 where that is refused, for many a server listens there alone and
    /// `localhost` is ::1 first.
    fn addresses(&self, client: IpAddr) -> Vec<IpAddr> {
        let v6 = self.v6.filter(|_| client.is_ipv6()).map(IpAddr::V6);
        v6.into_iter().chain([IpAddr::V4(self.v4)]).collect()
    }
}
