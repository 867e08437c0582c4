//! Binding: everything that can go wrong with a published port does so here,
//! before there is a container.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::config::{Publish, Transport};
use crate::error::Error;
use crate::net::driver::raise_descriptor_limit;

/// Connections that the kernel keeps until they are accepted; it takes less where
/// `net.core.somaxconn` is less.
const BACKLOG: i32 = 4096;
/// How often free ports in a row are looked for.
const TRIES: usize = 64;

/// A bound socket of the host that leads to a port of the container.
#[derive(Debug)]
pub struct Listener {
    pub(super) socket: Socket,
    pub(super) transport: Transport,
    /// Where it is bound.
    pub(super) host: SocketAddr,
    pub(super) container_port: u16,
}

impl Listener {
    pub(crate) fn transport(&self) -> Transport {
        self.transport
    }

    /// Where it is bound.
    pub(crate) fn at(&self) -> SocketAddr {
        self.host
    }

    pub(crate) fn container_port(&self) -> u16 {
        self.container_port
    }

    pub(crate) fn into_socket(self) -> Socket {
        self.socket
    }

    /// One that another process has bound.
    pub fn from_parts(
        transport: Transport,
        host: SocketAddr,
        container_port: u16,
        socket: OwnedFd,
    ) -> Self {
        Self {
            socket: socket.into(),
            transport,
            host,
            container_port,
        }
    }

    /// The reverse of [`Listener::from_parts`].
    pub fn into_parts(self) -> (Transport, SocketAddr, u16, OwnedFd) {
        (
            self.transport,
            self.host,
            self.container_port,
            self.socket.into(),
        )
    }
}

/// Binds all that `publish` asks for. A socket of `inherited` that is bound where
/// one of them wants to be is taken in place of a new one.
///
/// # Errors
/// [`Error::Publish`]: nothing stays bound.
pub fn bind(publish: &[Publish], inherited: Vec<OwnedFd>) -> Result<Vec<Listener>, Error> {
    let _limit = RaisedLimit::new();
    let mut inherited = Inherited::new(inherited);
    let mut listeners = Vec::new();
    for one in publish {
        match one.host_port {
            Some(first) => bind_range(one, first, &mut inherited, &mut listeners)?,
            None => bind_free(one, &mut listeners)?,
        }
    }
    for left in inherited.0 {
        tracing::warn!(
            "the socket that was passed to us at {} {} is not used: no -p asks for it",
            left.at,
            left.transport
        );
    }
    Ok(listeners)
}

/// The limit on open files at its most, while there may be thousands of ports to
/// bind. The container is to have what its caller had.
struct RaisedLimit(Rlimit);

impl RaisedLimit {
    fn new() -> Self {
        let before = getrlimit(Resource::Nofile);
        // Where it stays fewer ports can be bound, which is an error then.
        raise_descriptor_limit();
        Self(before)
    }
}

impl Drop for RaisedLimit {
    fn drop(&mut self) {
        // Lowering it is always allowed.
        let _ = setrlimit(Resource::Nofile, self.0);
    }
}

/// Binds one `-p` at the ports from `first` on.
fn bind_range(
    publish: &Publish,
    first: u16,
    inherited: &mut Inherited,
    listeners: &mut Vec<Listener>,
) -> Result<(), Error> {
    let addresses = publish.addresses();
    for (host_port, container_port) in (first..=u16::MAX).zip(publish.container_ports()) {
        let begin = listeners.len();
        // Whoever has bound one family of a port for us may not have wanted the other.
        let passed = addresses
            .iter()
            .any(|&address| inherited.find(publish, (address, host_port)).is_some());
        for &address in &addresses {
            let at = SocketAddr::new(address, host_port);
            let socket = match inherited.take(publish, (address, host_port)) {
                Some(socket) => socket,
                None if passed => continue,
                None => match open(at, publish.transport) {
                    Ok(socket) => socket,
                    // A host without IPv6 has no such addresses to be asked for.
                    Err(error) if begin < listeners.len() && is_no_family(&error) => continue,
                    Err(source) => return Err(failed(at, publish.transport, source)),
                },
            };
            let host = local(&socket).map_err(|source| failed(at, publish.transport, source))?;
            listeners.push(Listener {
                socket,
                transport: publish.transport,
                host,
                container_port,
            });
        }
    }
    Ok(())
}

/// Binds one `-p` at ports in a row that are free.
fn bind_free(publish: &Publish, listeners: &mut Vec<Listener>) -> Result<(), Error> {
    let first = publish.addresses().first().copied();
    let any = SocketAddr::new(first.unwrap_or(Ipv6Addr::UNSPECIFIED.into()), 0);
    let fail = |source| failed(any, publish.transport, source);
    let kept = listeners.len();
    let mut tries = 0;
    loop {
        tries += 1;
        // The kernel knows a free one; it may be taken again before we have it.
        let port = open(any, publish.transport)
            .and_then(|probe| local(&probe))
            .map_err(fail)?
            .port();
        let outcome = if port.checked_add(publish.count - 1).is_some() {
            bind_range(publish, port, &mut Inherited(Vec::new()), listeners)
        } else {
            Err(fail(io::Error::from_raw_os_error(libc::EADDRINUSE)))
        };
        match outcome {
            Err(Error::Publish { source, .. })
                if tries < TRIES && source.kind() == io::ErrorKind::AddrInUse =>
            {
                listeners.truncate(kept);
            }
            outcome => return outcome,
        }
    }
}

fn failed(address: SocketAddr, transport: Transport, source: io::Error) -> Error {
    Error::Publish {
        address,
        transport,
        source,
    }
}

/// Whether the host lacks the address family, as with `ipv6.disable=1`, or has
/// none of its addresses (`net.ipv6.conf.all.disable_ipv6`).
fn is_no_family(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)
    )
}

fn open(at: SocketAddr, transport: Transport) -> io::Result<Socket> {
    let kind = match transport {
        Transport::Tcp => Type::STREAM,
        Transport::Udp => Type::DGRAM,
    };
    let socket = Socket::new(Domain::for_address(at), kind.nonblocking(), None)?;
    if at.is_ipv6() {
        // IPv4 has a socket of its own, or has not been asked for.
        socket.set_only_v6(true)?;
    }
    if transport == Transport::Tcp {
        // Connections of a container before this one may still be closing. With UDP
        // it would share the port with whoever asks for that.
        socket.set_reuse_address(true)?;
    }
    socket.bind(&SockAddr::from(at))?;
    if transport == Transport::Tcp {
        socket.listen(BACKLOG)?;
    }
    Ok(socket)
}

/// Where a socket is bound.
fn local(socket: &Socket) -> io::Result<SocketAddr> {
    socket
        .local_addr()?
        .as_socket()
        .ok_or_else(|| io::Error::from_raw_os_error(libc::EAFNOSUPPORT))
}

/// Sockets that were bound for us.
struct Inherited(Vec<Bound>);

struct Bound {
    socket: Socket,
    at: SocketAddr,
    transport: Transport,
}

impl Inherited {
    fn new(fds: Vec<OwnedFd>) -> Self {
        Self(fds.into_iter().filter_map(Bound::new).collect())
    }

    /// The one that is bound at `at`; `[::]` serves IPv4, too, unless told not to.
    fn find(&self, publish: &Publish, at: (IpAddr, u16)) -> Option<usize> {
        self.0
            .iter()
            .position(|bound| bound.transport == publish.transport && bound.at == at.into())
    }

    fn take(&mut self, publish: &Publish, at: (IpAddr, u16)) -> Option<Socket> {
        let place = self.find(publish, at)?;
        Some(self.0.swap_remove(place).socket)
    }
}

impl Bound {
    /// What was passed, if it is a TCP socket that listens or a UDP socket.
    fn new(fd: OwnedFd) -> Option<Self> {
        let socket = Socket::from(fd);
        let known = || -> io::Result<Option<(SocketAddr, Transport)>> {
            socket.set_nonblocking(true)?;
            let Some(at) = socket.local_addr()?.as_socket() else {
                return Ok(None);
            };
            let transport = match socket.r#type()? {
                Type::STREAM if socket.is_listener()? => Transport::Tcp,
                Type::DGRAM => Transport::Udp,
                _ => return Ok(None),
            };
            Ok(Some((at, transport)))
        };
        let Some((at, transport)) = known().ok().flatten() else {
            tracing::warn!(
                "a descriptor that was passed to us (LISTEN_FDS) is no listening TCP or bound UDP \
                 socket"
            );
            return None;
        };
        Some(Self {
            socket,
            at,
            transport,
        })
    }
}
