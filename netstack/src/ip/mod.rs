//! The internet layer: packets of both versions, as the protocols above see them.
//!
//! # Theory of operation
//!
//! What the container sends is checked once and taken apart into a [`Packet`],
//! which is the same for IPv4 and IPv6. What we send has the shortest header of
//! its version: no options, no extension headers. The container's fragments are mended
//! before anything else looks at them ([`reassembly`]); what comes from a host socket
//! and is longer than the link's MTU is cut ([`fragmentation`]).

pub(crate) mod fragmentation;
pub(crate) mod reassembly;
pub(crate) mod v4;
pub(crate) mod v6;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use smoltcp::wire::IpProtocol;

use crate::checksum::Sum;
use crate::host::IpFields;

/// Initial hop limit of packets that we originate (RFC 1700).
const HOP_LIMIT: u8 = 64;
/// Longest header that we send, bytes.
pub(crate) const MAX_HEADER_LEN: usize = v6::HEADER_LEN;

/// Payload that passes everywhere, bytes: with all headers within the least MTU
/// of IPv6.
const SHORT: usize = 1200;

/// A valid packet, padding removed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Packet<'a> {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    /// Of the payload, behind all extension headers.
    pub(crate) protocol: IpProtocol,
    /// Hop limit, or time to live.
    pub(crate) hop_limit: u8,
    /// The sender wants to hear that it is too long rather than have it cut.
    pub(crate) dont_fragment: bool,
    /// Headers and payload.
    pub(crate) whole: &'a [u8],
    pub(crate) payload: &'a [u8],
}

/// Why a packet was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unusable {
    Malformed,
    Fragment,
}

impl Packet<'_> {
    /// The sum of the pseudo-header of a transport packet of `length` bytes.
    pub(crate) fn pseudo_header(&self, length: usize) -> Sum {
        Sum::pseudo_header(self.source, self.destination, self.protocol.into(), length)
    }

    /// What of the header is passed on with a payload of `length` bytes. A hop limit
    /// that is no smaller than the host's own is left to it, and a payload that fits
    /// everywhere is never fragmented: neither costs a system call.
    pub(crate) fn fields(&self, length: usize) -> IpFields {
        IpFields {
            hop_limit: (self.hop_limit < HOP_LIMIT).then(|| self.hop_limit.saturating_sub(1)),
            dont_fragment: self.dont_fragment && length > SHORT,
        }
    }

    /// Whether the payload's checksum, which covers all of it and the pseudo-header,
    /// is right.
    pub(crate) fn is_intact(&self) -> bool {
        let mut sum = self.pseudo_header(self.payload.len());
        sum.add(self.payload);
        sum.is_valid()
    }
}

/// Parses and checks a packet.
pub(crate) fn parse(bytes: &[u8]) -> Result<Packet<'_>, Unusable> {
    match version(bytes) {
        Some(4) => v4::parse(bytes),
        Some(6) => v6::parse(bytes),
        _ => Err(Unusable::Malformed),
    }
}

fn version(bytes: &[u8]) -> Option<u8> {
    bytes.first().map(|first| first >> 4)
}

/// Bytes of the header that we send to `address`.
pub(crate) fn header_len(address: IpAddr) -> usize {
    match address {
        IpAddr::V4(_) => v4::HEADER_LEN,
        IpAddr::V6(_) => v6::HEADER_LEN,
    }
}

/// Source, destination and length of the header at the front of a packet of ours.
pub(crate) fn ends(head: &[u8]) -> Option<(IpAddr, IpAddr, usize)> {
    if version(head)? == 4 {
        let (source, rest) = head.get(12..)?.split_first_chunk::<4>()?;
        let (destination, _) = rest.split_first_chunk::<4>()?;
        let [source, destination] = [*source, *destination].map(|a| Ipv4Addr::from(a).into());
        Some((source, destination, v4::HEADER_LEN))
    } else {
        let (source, rest) = head.get(8..)?.split_first_chunk::<16>()?;
        let (destination, _) = rest.split_first_chunk::<16>()?;
        let [source, destination] = [*source, *destination].map(|a| Ipv6Addr::from(a).into());
        Some((source, destination, v6::HEADER_LEN))
    }
}

/// Writes the header of a packet of `total` bytes in all to the front of
/// `buffer`, which has room for it. Both addresses are of one version.
pub(crate) fn emit(
    buffer: &mut [u8],
    total: usize,
    source: IpAddr,
    destination: IpAddr,
    protocol: IpProtocol,
) {
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            v4::emit(buffer, total, source, destination, protocol);
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            v6::emit(buffer, total, source, destination, protocol, HOP_LIMIT);
        }
        _ => debug_assert!(false, "{source} and {destination}"),
    }
}

/// A length as a header field. Nothing that we send is longer than the field
/// can say; the receiver of a wrong length would drop the packet.
pub(crate) fn len16(len: usize) -> u16 {
    u16::try_from(len).unwrap_or(u16::MAX)
}
