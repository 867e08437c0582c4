//! The built-in network: the only place where `netstack` meets the OS.
//!
//! # Theory of operation
//!
//! Init calls [`set_up_namespace`] inside the container's network namespace and
//! passes the link's descriptor to the parent, which drives it with a
//! [`Driver`] on its one mio loop: frames are read until the link is empty or
//! the turn's budget is used up, host sockets are read and written as the stack
//! asks for it, gathered datagrams leave at the end of the turn.
//!
//! ```text
//! container:  kernel TCP/IP -- tap0 --.
//! parent:                 link fd ----'  Driver { Stack, HostSide } ---- host sockets
//! ```

mod alarm;
mod audit;
mod busy_poll;
mod datagrams;
mod driver;
mod errors;
mod files;
mod ipv6;
mod link;
mod local;
mod namespace;
mod outbound;
mod outbox;
mod pcap;
pub mod probe;
mod publish;
mod resolvers;
mod sockets;
#[cfg(test)]
mod tests;

pub use audit::NetLog;
pub use driver::{Driver, Figure, flows_within};
pub use files::{Folder, NextFile};
pub use ipv6::{choose as choose_ipv6, host_has as host_has_ipv6};
pub use link::{Link, probe_tap};
pub(crate) use namespace::GATEWAY_MAC;
pub use namespace::set_up as set_up_namespace;
pub use netstack::{FlowInfo, Protocol};
pub use outbound::check as check_outbound;
pub use pcap::Capture;
pub use publish::{Listener, bind as bind_published};
pub use resolvers::{Ask as AskResolvers, Resolvers, servers as resolvers_of};
