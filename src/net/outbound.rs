//! Where the container's traffic leaves the host from: an address or an interface.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;

use socket2::{Domain, SockAddr, Socket, Type};

use crate::config::{BuiltinNetwork, Outbound};
use crate::error::Error;
use crate::sys::ip;

/// The choice for each IP version.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outbounds {
    v4: Option<Outbound>,
    v6: Option<Outbound>,
}

impl Outbounds {
    pub(crate) fn new(network: &BuiltinNetwork) -> Self {
        Self {
            v4: network.outbound.clone(),
            v6: network.outbound6.clone(),
        }
    }

    /// Prepares a new socket that is to reach `to`. The host's own loopback is
    /// reached from itself.
    pub(crate) fn apply(&self, socket: &Socket, to: IpAddr) -> io::Result<()> {
        let outbound = if to.is_ipv4() { &self.v4 } else { &self.v6 };
        match outbound {
            Some(outbound) if !to.is_loopback() => bind(socket, outbound),
            _ => Ok(()),
        }
    }
}

fn bind(socket: &Socket, outbound: &Outbound) -> io::Result<()> {
    match outbound {
        Outbound::Address(address) => {
            // A wish: without it there are fewer ports for connections.
            let _ = ip::bind_address_no_port(socket.as_fd());
            socket.bind(&SockAddr::from(SocketAddr::new(*address, 0)))
        }
        Outbound::Interface(name) => socket.bind_device(Some(name.as_bytes())),
    }
}

/// Whether sockets can be bound as the network wants it.
///
/// # Errors
/// An address that is not the host's, or an interface that it does not have.
pub fn check(network: &BuiltinNetwork) -> Result<(), Error> {
    for (key, domain, outbound) in [
        ("outbound_addr", Domain::IPV4, &network.outbound),
        ("outbound_addr6", Domain::IPV6, &network.outbound6),
    ] {
        let Some(outbound) = outbound else { continue };
        let bound =
            Socket::new(domain, Type::DGRAM, None).and_then(|socket| bind(&socket, outbound));
        if let Err(error) = bound {
            let value = match outbound {
                Outbound::Address(address) => address.to_string(),
                Outbound::Interface(name) => name.clone(),
            };
            return Err(Error::Usage(format!("--net: {key}={value}: {error}")));
        }
    }
    Ok(())
}
