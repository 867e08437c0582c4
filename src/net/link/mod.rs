//! The container's link to us, of whatever it is made.
//!
//! # Theory of operation
//!
//! A link carries Ethernet frames with a virtio header between the kernel in the
//! container and us. It is a TAP device ([`tap`]) where `/dev/net/tun` is open to
//! the user, and else a veth pair ([`veth`]), which needs no device. Which of them
//! it can be is found out where it is made, by init in the container's network
//! namespace: only what has been made is known to work. Init hands over what the
//! parent needs, with a word on what it is and why ([`Link`]); the parent makes of
//! it a [`Receiver`] and a [`Sender`], and nothing beyond them knows the difference.

mod frames;
mod ring;
pub(super) mod tap;
pub(super) mod veth;

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use mio::event::Event;
use netstack::LinkConfig;
use rustix::io::Errno;

use crate::config::{BuiltinNetwork, LinkChoice};
use crate::error::{Error, StepFailure};
use crate::sys::netlink::Netlink;
use crate::sys::packet::Rings;

pub(super) use frames::Receiver;
use ring::Queue;
pub use tap::probe as probe_tap;

/// The interface's name in the container, as slirp4netns has it; whatever the link is
/// made of, so that what is written for one works with the other.
pub(crate) const NAME: &str = "tap0";

/// What a link is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Tap,
    /// And why not a TAP; `None`: it was asked for.
    Veth(Option<String>),
}

/// A link as init hands it to the parent.
#[derive(Debug)]
pub struct Link {
    kind: Kind,
    /// Frames go out by this one, and come by it.
    socket: OwnedFd,
    /// Of a veth pair: the other sockets that frames come by, and what keeps the
    /// container's network namespace.
    more: Vec<OwnedFd>,
    /// Of the far end of a veth pair, while it is made.
    there: Option<Netlink>,
}

impl Link {
    /// Makes the link in the current network namespace, `here` being of it.
    pub(super) fn create(here: &Netlink, network: &BuiltinNetwork) -> Result<Self, StepFailure> {
        let why = match network.link {
            LinkChoice::Veth => None,
            LinkChoice::Tap => return Self::tap(),
            LinkChoice::Auto => match Self::tap() {
                Err(failure) if tap::is_unavailable(failure.errno) => Some(failure.to_string()),
                made => return made,
            },
        };
        let pair = veth::create(here, network.mtu)?;
        let [socket, a, b] = pair.sockets;
        Ok(Self {
            kind: Kind::Veth(why),
            socket,
            more: vec![a, b, pair.namespace],
            there: Some(pair.there),
        })
    }

    /// The interface has been brought up.
    pub(super) fn settle(&mut self, here: &mut Netlink) {
        if let Some(there) = &mut self.there {
            veth::settle(here, there);
        }
    }

    fn tap() -> Result<Self, StepFailure> {
        Ok(Self {
            kind: Kind::Tap,
            socket: tap::create()?,
            more: Vec::new(),
            there: None,
        })
    }

    /// A word on what it is, and its descriptors: [`Link::from_parts`] takes them.
    pub fn into_parts(self) -> (String, Vec<OwnedFd>) {
        let about = match self.kind {
            Kind::Tap => "tap".to_owned(),
            Kind::Veth(None) => "veth".to_owned(),
            Kind::Veth(Some(why)) => format!("veth {why}"),
        };
        (about, [self.socket].into_iter().chain(self.more).collect())
    }

    /// The reverse of [`Link::into_parts`].
    ///
    /// # Errors
    /// They are not the parts of a link.
    pub fn from_parts(about: &str, fds: Vec<OwnedFd>) -> Result<Self, Error> {
        let (name, why) = match about.split_once(' ') {
            Some((name, why)) => (name, Some(why.to_owned())),
            None => (about, None),
        };
        let kind = match name {
            "tap" => Some(Kind::Tap),
            "veth" => Some(Kind::Veth(why)),
            _ => None,
        };
        let mut fds = fds.into_iter();
        match (kind, fds.next()) {
            (Some(kind), Some(socket)) => Ok(Self {
                kind,
                socket,
                more: fds.collect(),
                there: None,
            }),
            _ => Err(Self::no_link()),
        }
    }

    fn no_link() -> Error {
        Error::host(
            "take over the container's network link",
            io::Error::from(io::ErrorKind::InvalidData),
        )
    }

    /// Says in the log what it is.
    fn report(&self) {
        match &self.kind {
            Kind::Tap => tracing::info!("the container's link is a TAP device"),
            Kind::Veth(None) => tracing::info!("the container's link is a veth pair"),
            Kind::Veth(Some(why)) => {
                tracing::info!("the container's link is a veth pair, for there is no TAP: {why}");
            }
        }
    }

    /// Gets it ready to be driven.
    pub(super) fn open(self, mtu: u16) -> Result<(LinkConfig, Receiver, Sender), Error> {
        self.report();
        let mut sender = Sender::new(self.socket);
        match self.kind {
            Kind::Tap => {
                let config = tap::configure(&sender.socket, mtu)
                    .map_err(|error| Error::host("configure the TAP device", error))?;
                Ok((config, Receiver::reading(), sender))
            }
            Kind::Veth(_) => {
                let config = LinkConfig {
                    mtu,
                    vnet_header: true,
                    tso: true,
                    uso: true,
                };
                let [a, b, namespace] =
                    <[OwnedFd; 3]>::try_from(self.more).map_err(|_| Self::no_link())?;
                let rings = Rings::map([sender.socket.as_fd(), a.as_fd(), b.as_fd()])
                    .map_err(|error| Error::host("map the rings of the packet sockets", error))?;
                sender.namespace = Some(namespace);
                Ok((config, Receiver::rings(Queue::new(rings, [a, b])), sender))
            }
        }
    }
}

/// The sending half, which holds the descriptor.
#[derive(Debug)]
pub(super) struct Sender {
    socket: OwnedFd,
    /// Keeps the container's network namespace, where the socket does not.
    #[allow(dead_code, reason = "it is open for as long as this is")]
    namespace: Option<OwnedFd>,
    /// The interface has been taken away.
    gone: Option<Errno>,
}

impl Sender {
    /// Of any descriptor that takes a frame a call and does not block.
    pub(super) fn new(socket: OwnedFd) -> Self {
        Self {
            socket,
            namespace: None,
            gone: None,
        }
    }

    /// Sends a frame; false when it is lost, as it may be on any link: its queue is
    /// full, or it is down or gone.
    pub(super) fn send(&mut self, frame: &[IoSlice<'_>]) -> bool {
        loop {
            match rustix::io::writev(&self.socket, frame) {
                Ok(_) => return true,
                Err(Errno::INTR) => {}
                // What a packet socket says once, to whoever calls first.
                Err(error @ (Errno::NETDOWN | Errno::NXIO | Errno::NODEV)) => {
                    self.gone = Some(error);
                    return false;
                }
                Err(_) => return false,
            }
        }
    }

    /// An event of the descriptor.
    pub(super) fn note(&mut self, event: &Event) {
        if event.is_error()
            && let Ok(Err(error)) = rustix::net::sockopt::socket_error(&self.socket)
        {
            self.gone = Some(error);
        }
    }

    /// # Errors
    /// The interface has been taken away.
    pub(super) fn check(&self) -> io::Result<()> {
        match self.gone {
            None => Ok(()),
            Some(error) => Err(error.into()),
        }
    }
}

impl AsFd for Sender {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
