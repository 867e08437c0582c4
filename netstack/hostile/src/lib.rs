//! Bad input for the network stack: the cases N1 to N34, what once broke other stacks.
//!
//! Each case is a list of [`Step`]s that needs nothing but a link to the stack, so that
//! the same frames go through the stack in the process, under virtual time, and through
//! a real link from inside a container. What a case has to leave behind is for those who
//! play it: everything works as before.
//!
//! Two cases are about the host's side and have no frames: N17, host calls that fail
//! ([`Call`]), and N18, a link that does not take what it is given.
//!
//! Ports: connections made by hand come from ports below 20,000.
#![forbid(unsafe_code)]
#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "for tests only; fields and constants have the names of the standards"
)]

pub mod frames;

mod addresses;
mod calls;
mod datagrams;
mod fragments;
mod icmp;
mod ip;
mod ipv6;
mod link;
pub mod script;
mod tcp;

use frames::Segment;

pub use calls::{CALLS, Call};
pub use datagrams::dhcp;
pub use fragments::{fragment, fragments};
pub use ipv6::Ip6;
pub use link::valid;
pub use tcp::{half_closed, syn_flood};

/// What the container does.
#[derive(Debug, Clone)]
pub enum Step {
    /// Sends a frame, as it is on an Ethernet.
    Frame(Vec<u8>),
    /// Sends a frame behind a virtio header with these fields; only on a link that has
    /// such headers.
    Virtio([u8; 10], Vec<u8>),
    /// Opens a connection by hand: sends this SYN, waits for its answer and acknowledges
    /// it.
    Open(Segment),
    /// Sends a segment of a connection that was opened from its port. Its
    /// acknowledgement counts from the first byte that can come.
    On(Segment),
    /// Lets time pass, milliseconds.
    Pause(u16),
}

/// One of the cases.
#[derive(Debug, Clone)]
pub struct Case {
    /// N what.
    pub number: u8,
    /// What it is about.
    pub name: &'static str,
    pub steps: Vec<Step>,
}

/// A case, to be made when it is needed: some are large.
pub type Maker = fn() -> Case;

/// All cases, in order, each with its number.
pub const ALL: [(u8, Maker); 32] = [
    (1, tcp::n01),
    (2, datagrams::n02),
    (3, datagrams::n03),
    (4, datagrams::n04),
    (5, link::n05),
    (6, ipv6::n06),
    (7, fragments::n07),
    (8, fragments::n08),
    (9, tcp::n09),
    (10, addresses::n10),
    (11, datagrams::n11),
    (12, tcp::n12),
    (13, datagrams::n13),
    (14, ip::n14),
    (15, datagrams::n15),
    (16, tcp::n16),
    (19, tcp::n19),
    (20, fragments::n20),
    (21, addresses::n21),
    (22, ipv6::n22),
    (23, ipv6::n23),
    (24, link::n24),
    (25, icmp::n25),
    (26, tcp::n26),
    (27, tcp::n27),
    (28, tcp::n28),
    (29, fragments::n29),
    (30, datagrams::n30),
    (31, addresses::n31),
    (32, ip::n32),
    (33, ip::n33),
    (34, tcp::n34),
];

/// The case with this number.
pub fn case(number: u8) -> Option<Case> {
    let (_, make) = ALL.iter().find(|entry| entry.0 == number)?;
    Some(make())
}

/// Bytes that look like anything, the same each time.
#[derive(Debug, Clone)]
pub(crate) struct Noise(u64);

impl Noise {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed ^ 0x9e37_79b9_7f4a_7c15)
    }

    /// The next 32 bits (xorshift64*).
    pub(crate) fn next(&mut self) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        u32::try_from(self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32).unwrap()
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next().to_be_bytes()[0]).collect()
    }
}

/// Steps from frames.
pub(crate) fn frames_of(frames: impl IntoIterator<Item = Vec<u8>>) -> Vec<Step> {
    frames.into_iter().map(Step::Frame).collect()
}
