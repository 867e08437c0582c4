//! What `netstack` is held to: a model of its host, of its link, and of what a container
//! may be sent.
//!
//! # Theory of operation
//!
//! A [`scene::Scene`] is a stack with all that is around it, and knows what a container can
//! do to it, well or badly: each of its *acts* makes a frame, an event of the host or some
//! time out of a [`source::Source`] of choices. The source is the bytes of a fuzzer
//! ([`targets`]) or a seed ([`blast`]), so both play the same acts, and a find of either is
//! played again from its bytes or from its seed.
//!
//! What the stack does is looked at in three places:
//!
//! - [`watch`] looks at each frame for the container as a kernel does: lengths, checksums,
//!   virtio header, options, what may be sent at all.
//! - [`conn`] knows what both ends of a connection have said: which bytes the host must be
//!   given, which the container, and what may be acknowledged.
//! - [`host`] and [`world`] compare the sockets with the flow table after each call, hold
//!   the stack to its budgets and its deadlines, and see that nothing is left at the end.
//!
//! A find is a panic.
#![forbid(unsafe_code)]
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "for tests only: a panic is what a find is, and numbers are cut on purpose"
)]

/// Plants the fault that the environment variable `NETMODEL_FAULT` names, in a build that
/// has any.
pub fn plant() {
    #[cfg(fuzz_fault)]
    {
        use netstack::fault::{Fault, plant};
        match std::env::var("NETMODEL_FAULT").as_deref() {
            Ok("checksum") => plant(Fault::Checksum),
            Ok("leak") => plant(Fault::Leak),
            Ok("edge") => plant(Fault::Edge),
            Ok(other) => panic!("NETMODEL_FAULT={other} is no fault"),
            Err(_) => {}
        }
    }
}

pub mod blast;
pub mod conn;
pub mod frame;
pub mod host;
pub mod pcap;
pub mod scene;
pub mod source;
pub mod stream;
pub mod targets;
pub mod watch;
pub mod world;
