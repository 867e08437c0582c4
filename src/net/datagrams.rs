//! Datagram sockets, and what they remember.

use std::cell::Cell;
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};

use netstack::IpFields;
use socket2::{Socket, Type};

use super::sockets::domain;
use crate::sys::ip;
use crate::sys::udp;

/// A datagram socket, and what it puts into IP headers at present.
#[derive(Debug)]
pub(crate) struct Datagrams {
    socket: Socket,
    v4: bool,
    fields: Cell<IpFields>,
    /// Of a published port that has several addresses.
    sources: Option<Box<Sources>>,
}

/// Which of the host's addresses clients have sent to: answers come from there, or the
/// clients would not know them. Of very many clients the earliest are forgotten, whose
/// answers then come from where the routes say.
#[derive(Debug, Default)]
struct Sources {
    young: HashMap<SocketAddr, IpAddr>,
    old: HashMap<SocketAddr, IpAddr>,
}

impl Sources {
    /// Clients of each of both generations.
    const MOST: usize = 2048;

    fn note(&mut self, client: SocketAddr, address: IpAddr) {
        if self.young.insert(client, address).is_none() && self.young.len() >= Self::MOST {
            self.old = std::mem::take(&mut self.young);
        }
    }

    fn of(&self, client: SocketAddr) -> Option<IpAddr> {
        self.young
            .get(&client)
            .or_else(|| self.old.get(&client))
            .copied()
    }
}

impl Datagrams {
    /// A new one of the family of an address.
    pub(super) fn new(family_of: IpAddr, protocol: Option<socket2::Protocol>) -> io::Result<Self> {
        let v4 = family_of.is_ipv4();
        let socket = Socket::new(domain(family_of), Type::DGRAM.nonblocking(), protocol)?;
        if !v4 {
            socket.set_only_v6(true)?;
        }
        Self::of(socket, v4)
    }

    /// Takes a socket; it hears of errors. One that did not would keep them from the
    /// container for as long as that uses the port.
    fn of(socket: Socket, v4: bool) -> io::Result<Self> {
        udp::enable_errors(socket.as_fd(), v4)?;
        Ok(Self {
            socket,
            v4,
            fields: Cell::default(),
            sources: None,
        })
    }

    /// Takes one that is bound to a published port, there.
    pub(super) fn published(socket: Socket, at: SocketAddr) -> io::Result<Self> {
        let v4 = at.is_ipv4();
        let mut datagrams = Self::of(socket, v4)?;
        // A wish: without it answers come from where the routes say.
        if at.ip().is_unspecified() && udp::enable_destinations(datagrams.as_fd(), v4).is_ok() {
            datagrams.sources = Some(Box::default());
        }
        Ok(datagrams)
    }

    /// A client has sent to this address of the host.
    pub(super) fn note_source(&mut self, client: SocketAddr, address: IpAddr) {
        if let Some(sources) = &mut self.sources {
            sources.note(client, address);
        }
    }

    /// Which of the host's addresses this peer is to be sent to from.
    pub(super) fn source_for(&self, peer: SocketAddr) -> Option<IpAddr> {
        self.sources.as_ref()?.of(peer)
    }

    /// The socket itself.
    pub(super) fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Has the socket put these into the datagrams that follow.
    pub(super) fn set(&self, fields: IpFields) {
        let mut now = self.fields.get();
        // Wishes: a kernel that does not fulfil them sends the datagrams all the same. The
        // next datagram has it asked again.
        if now.hop_limit != fields.hop_limit {
            match ip::set_hop_limit(self.as_fd(), self.v4, fields.hop_limit) {
                Ok(()) => now.hop_limit = fields.hop_limit,
                Err(error) => tracing::debug!("hop limit of datagrams: {error}"),
            }
        }
        if now.dont_fragment != fields.dont_fragment {
            match ip::set_dont_fragment(self.as_fd(), self.v4, fields.dont_fragment) {
                Ok(()) => now.dont_fragment = fields.dont_fragment,
                Err(error) => tracing::debug!("whether datagrams are cut: {error}"),
            }
        }
        self.fields.set(now);
    }
}

impl AsFd for Datagrams {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
