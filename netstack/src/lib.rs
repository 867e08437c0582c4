//! Sans-IO user-space NAT: a container's Ethernet frames on one side, ordinary
//! host sockets on the other.
//!
//! # Theory of operation
//!
//! A [`Stack`] knows no file descriptor, no clock and no event loop. Its owner
//!
//! - hands it every frame that the container sends ([`Stack::input`]),
//! - tells it what happened to a host socket ([`Stack::connected`],
//!   [`Stack::connect_failed`], [`Stack::ready`], [`Stack::accept`],
//!   [`Stack::datagram`], [`Stack::datagram_failed`], [`Stack::echo_reply`],
//!   [`Stack::echo_failed`]),
//! - calls [`Stack::tick`] once [`Stack::next_deadline`] has passed,
//!
//! and carries out what the stack asks for through the [`Host`] trait: send a
//! frame, open, read, write, half-close or close a socket. Every call takes the
//! time as an argument, so tests run under virtual time and a run can be replayed.
//!
//! ```text
//!            frames                                  Host calls
//! container <----> link > arp
//!                       > ip > { ndp, icmp, dhcp, udp, dns, tcp } <----> sockets
//!                              |        one flow table          |
//!                              '------- policy, timers ---------'
//! ```
//!
//! Payload is lent, not copied: a UDP datagram to [`Host::udp_send`] and the
//! payload of TCP segments to [`Host::tcp_send`] out of the frames they came in,
//! what [`Host::tcp_receive`] has read to [`Host::transmit`] out of the ring that
//! holds it until the container has acknowledged it. An idle flow holds no ring.
//!
//! The cost of a packet does not depend on the number of flows: one hash lookup
//! (keyed, since the container chooses the keys), one TCP endpoint, and a timer
//! queue that is touched only when a deadline moves forward.
//!
//! What the container may reach is decided in one place, [`Policy`].
#![forbid(unsafe_code)]

mod arp;
mod checksum;
mod config;
mod dhcp;
mod dns;
#[cfg(fuzz_fault)]
pub mod fault;
#[cfg(not(fuzz_fault))]
mod fault;
mod flow;
mod host;
mod icmp;
mod ip;
mod link;
mod ndp;
mod pace;
mod policy;
mod stack;
mod stats;
mod tcp;
mod udp;

pub use config::{Config, Ipv6Config, Limits, LinkConfig};
pub use flow::{FlowId, FlowInfo, FlowKey, Protocol};
pub use host::{Close, Failure, Host, HostError, Io, IpFields, Readiness};
pub use link::VNET_HEADER_LEN;
pub use policy::{
    Action, Attempt, InvalidRule, Name, Policy, Reason, Refusal, Rule, Rules, Verdict,
};
pub use smoltcp::time::{Duration, Instant};
pub use stack::Stack;
pub use stats::{Stats, Usage};

#[cfg(test)]
mod tests;
