//! Reassembly of the container's fragments (RFC 791, 3.2; RFC 8200, 4.5).
//!
//! # Theory of operation
//!
//! A fragment's payload is copied to its place in the buffer of its datagram, and
//! a sorted list says which ranges are there. When they add up to the whole, the
//! buffer is one contiguous packet, as if it had never been cut: the header is that
//! of the first fragment, kept in front of the payload, and mended.
//!
//! - An exact duplicate is ignored. Any other overlap is an attack or damage: all
//!   of the datagram is dropped, and so is what still comes of it (RFC 5722, also
//!   for IPv4). The same goes for fragments that contradict one another about the
//!   datagram's length.
//! - An IPv6 fragment that is the whole datagram meets no other (RFC 6946).
//! - The first fragment of an IPv6 datagram holds all headers (RFC 7112).
//!
//! What a container can make us hold is bounded by the number of datagrams: the
//! longest buffer is 64 KiB, and fragments of 8 bytes make the longest list, 32 KiB.
//! The oldest datagram makes room for a new one. A kernel sends the fragments of a
//! datagram one after another, so neither one whose rest never comes nor a flood of
//! them is in the way of those that are complete.

use std::collections::VecDeque;
use std::net::IpAddr;

use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{IpProtocol, Ipv4Packet, Ipv6Packet};

use super::v4;
use super::v6::{FRAGMENT_HEADER_LEN, HEADER_LEN as V6_HEADER_LEN, MAX_EXTENSIONS};

/// Datagrams that may be incomplete at once.
const MAX_DATAGRAMS: usize = 64;
/// How long the rest of a datagram may take (RFC 1122, 3.3.2 asks for 60 s to 120 s,
/// Linux has 30 s, after which a sender's identifications may be in use again).
const V4_LIFETIME: Duration = Duration::from_secs(30);
/// The same for IPv6 (RFC 8200, 4.5).
const V6_LIFETIME: Duration = Duration::from_secs(60);
/// Room in front of the payload for headers. Those of IPv4 are 60 bytes at most;
/// nobody puts more than a few bytes of options in front of an IPv6 fragment header.
const HEADROOM: usize = 256;
/// Unused buffers that are kept.
const SPARE: usize = 4;

/// What became of a fragment.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// More is to come.
    Waiting,
    /// It was the last that was missing. The packet is to be given back with
    /// [`Reassembly::recycle`].
    Complete(Whole),
    /// It was not taken.
    Dropped(#[cfg_attr(not(test), expect(dead_code, reason = "all are dropped alike"))] Refusal),
}

/// Why a fragment was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// No fragment, no payload, or not a multiple of 8 bytes with more to come.
    Malformed,
    /// The datagram would be longer than an IP packet can be.
    TooLong,
    /// The first fragment does not hold all headers.
    HeadersCut,
    /// It contradicts what came before, or another one did.
    Overlap,
}

/// A packet in a buffer of its own.
#[derive(Debug)]
pub(crate) struct Whole {
    storage: Storage,
    start: usize,
    end: usize,
}

impl Whole {
    /// The packet, from its network header on.
    pub(crate) fn packet(&self) -> &[u8] {
        self.storage
            .bytes
            .get(self.start..self.end)
            .unwrap_or_default()
    }
}

/// What fragments belong together by. The next header of an IPv6 fragment header
/// is no part of it (RFC 8200, 4.5): the protocol is 0 there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Key {
    source: IpAddr,
    destination: IpAddr,
    id: u32,
    protocol: u8,
}

/// A fragment, taken apart.
#[derive(Debug)]
struct Fragment<'a> {
    key: Key,
    /// Bytes.
    offset: u16,
    more: bool,
    /// Everything in front of the payload, the fragment header included.
    header: &'a [u8],
    /// Where the header says that a fragment header follows (IPv6).
    next_header_at: usize,
    payload: &'a [u8],
}

#[derive(Debug, Default)]
struct Storage {
    /// Headroom, then the payload. What was left by earlier datagrams is still
    /// there, and never shown: all of a datagram is overwritten before it is complete.
    bytes: Vec<u8>,
    /// Start and end of what has arrived, sorted; not merged, so that duplicates
    /// can be told from overlaps.
    ranges: Vec<(u16, u16)>,
}

#[derive(Debug)]
struct Datagram {
    key: Key,
    deadline: Instant,
    storage: Storage,
    /// Length of the header of the first fragment; 0 until it has arrived.
    header_len: usize,
    next_header_at: usize,
    /// Payload bytes of the first fragment.
    first_len: u16,
    /// Payload bytes in all, known from the last fragment.
    total: Option<u16>,
    /// Payload bytes that have arrived.
    arrived: usize,
    /// Nothing more is taken of it.
    refused: bool,
}

/// The datagrams that are incomplete, the oldest first.
#[derive(Debug, Default)]
pub(crate) struct Reassembly {
    datagrams: VecDeque<Datagram>,
    spare: Vec<Storage>,
    discarded: u64,
}

impl Reassembly {
    /// Fragments so far that came to nothing.
    pub(crate) fn discarded(&self) -> u64 {
        self.discarded
    }

    /// Takes a fragment, given as the IP packet that it is.
    pub(crate) fn insert(&mut self, now: Instant, packet: &[u8]) -> Outcome {
        self.take(now, packet).unwrap_or_else(|refusal| {
            self.discarded += 1;
            Outcome::Dropped(refusal)
        })
    }

    fn take(&mut self, now: Instant, packet: &[u8]) -> Result<Outcome, Refusal> {
        let fragment = Fragment::parse(packet).ok_or(Refusal::Malformed)?;
        let end = fragment.end()?;
        if fragment.offset == 0 && !fragment.holds_all_headers() {
            return Err(Refusal::HeadersCut);
        }
        if fragment.offset == 0 && !fragment.more {
            let mut datagram = Datagram::new(now, &fragment, self.storage());
            datagram.add(&fragment, end)?;
            return Ok(Outcome::Complete(datagram.finish()?));
        }
        if fragment.payload.is_empty() || fragment.more && !fragment.payload.len().is_multiple_of(8)
        {
            return Err(Refusal::Malformed);
        }
        // What comes belongs to what came last, as a rule.
        let at = match self.datagrams.iter().rposition(|d| d.key == fragment.key) {
            Some(at) => at,
            None => {
                if self.datagrams.len() >= MAX_DATAGRAMS {
                    self.discard(0);
                }
                let datagram = Datagram::new(now, &fragment, self.storage());
                self.datagrams.push_back(datagram);
                self.datagrams.len() - 1
            }
        };
        let Some(datagram) = self.datagrams.get_mut(at) else {
            return Err(Refusal::Malformed);
        };
        if datagram.refused {
            return Err(Refusal::Overlap);
        }
        match datagram.add(&fragment, end) {
            Ok(()) if datagram.is_complete() => match self.datagrams.remove(at) {
                Some(datagram) => Ok(Outcome::Complete(datagram.finish()?)),
                None => Ok(Outcome::Waiting),
            },
            Ok(()) => Ok(Outcome::Waiting),
            Err(refusal) => {
                datagram.refused = true;
                self.discarded += datagram.storage.ranges.len() as u64;
                let storage = std::mem::take(&mut datagram.storage);
                self.keep(storage);
                Err(refusal)
            }
        }
    }

    /// Gives a buffer back.
    pub(crate) fn recycle(&mut self, whole: Whole) {
        self.keep(whole.storage);
    }

    /// When [`Reassembly::expire`] is due.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.datagrams.iter().map(|d| d.deadline).min()
    }

    /// Gives up a datagram whose time has passed: the first fragment of one that has
    /// got it, for an ICMP error to quote ("time exceeded", code 1; RFC 792, RFC
    /// 4443, 3.3). To be called until there is none.
    pub(crate) fn expire(&mut self, now: Instant) -> Option<Whole> {
        loop {
            let at = self.datagrams.iter().position(|d| d.deadline <= now)?;
            let mut datagram = self.datagrams.remove(at)?;
            self.discarded += datagram.storage.ranges.len() as u64;
            if datagram.header_len > 0 && !datagram.refused {
                return Some(Whole {
                    start: HEADROOM - datagram.header_len,
                    end: HEADROOM + usize::from(datagram.first_len),
                    storage: datagram.storage,
                });
            }
            self.keep(std::mem::take(&mut datagram.storage));
        }
    }

    fn discard(&mut self, at: usize) {
        if let Some(datagram) = self.datagrams.remove(at) {
            self.discarded += datagram.storage.ranges.len() as u64;
            self.keep(datagram.storage);
        }
    }

    fn storage(&mut self) -> Storage {
        self.spare.pop().unwrap_or_default()
    }

    fn keep(&mut self, mut storage: Storage) {
        if self.spare.len() < SPARE && !storage.bytes.is_empty() {
            storage.ranges.clear();
            self.spare.push(storage);
        }
    }
}

impl Datagram {
    fn new(now: Instant, fragment: &Fragment<'_>, storage: Storage) -> Self {
        let lifetime = match fragment.key.source {
            IpAddr::V4(_) => V4_LIFETIME,
            IpAddr::V6(_) => V6_LIFETIME,
        };
        Self {
            key: fragment.key,
            deadline: now + lifetime,
            storage,
            header_len: 0,
            next_header_at: 0,
            first_len: 0,
            total: None,
            arrived: 0,
            refused: false,
        }
    }

    fn is_complete(&self) -> bool {
        self.total.map(usize::from) == Some(self.arrived)
    }

    /// Adds a fragment that ends at `end`.
    fn add(&mut self, fragment: &Fragment<'_>, end: u16) -> Result<(), Refusal> {
        let start = fragment.offset;
        let Storage { bytes, ranges } = &mut self.storage;
        let contradicts = match self.total {
            Some(total) => end > total || (end == total) == fragment.more,
            // Something has come from behind the end.
            None => !fragment.more && ranges.last().is_some_and(|&(_, last)| last >= end),
        };
        if contradicts {
            return Err(Refusal::Overlap);
        }
        let place = HEADROOM + usize::from(start)..HEADROOM + usize::from(end);
        if bytes.len() < place.end {
            bytes.resize(place.end, 0);
        }
        let place = bytes.get_mut(place).ok_or(Refusal::Malformed)?;
        let at = ranges.partition_point(|&(other, _)| other < start);
        let next = ranges.get(at);
        if next == Some(&(start, end)) {
            let duplicate = place == fragment.payload;
            return if duplicate {
                Ok(())
            } else {
                Err(Refusal::Overlap)
            };
        }
        let before = at.checked_sub(1).and_then(|at| ranges.get(at));
        if before.is_some_and(|&(_, other)| other > start)
            || next.is_some_and(|&(other, _)| other < end)
        {
            return Err(Refusal::Overlap);
        }
        place.copy_from_slice(fragment.payload);
        ranges.insert(at, (start, end));
        self.arrived += fragment.payload.len();
        if !fragment.more {
            self.total = Some(end);
        }
        if start == 0 {
            self.header_len = fragment.header.len();
            self.next_header_at = fragment.next_header_at;
            self.first_len = end;
            bytes
                .get_mut(HEADROOM - self.header_len..HEADROOM)
                .ok_or(Refusal::Malformed)?
                .copy_from_slice(fragment.header);
        }
        Ok(())
    }

    /// Makes one packet of a complete datagram.
    fn finish(mut self) -> Result<Whole, Refusal> {
        let bytes = &mut self.storage.bytes;
        let end = HEADROOM + self.arrived;
        let mut start = HEADROOM - self.header_len;
        // The first header may be longer than those that were judged by.
        let length = |fixed: usize| u16::try_from(end - start - fixed);
        match self.key.source {
            IpAddr::V4(_) => {
                let length = length(0).map_err(|_| Refusal::TooLong)?;
                let packet = bytes.get_mut(start..end).ok_or(Refusal::Malformed)?;
                let mut view = Ipv4Packet::new_unchecked(packet);
                view.set_total_len(length);
                view.clear_flags();
                view.set_frag_offset(0);
                view.fill_checksum();
            }
            IpAddr::V6(_) => {
                let length =
                    length(V6_HEADER_LEN + FRAGMENT_HEADER_LEN).map_err(|_| Refusal::TooLong)?;
                let behind = HEADROOM - FRAGMENT_HEADER_LEN;
                let next_header = bytes.get(behind).copied().ok_or(Refusal::Malformed)?;
                bytes.copy_within(start..behind, start + FRAGMENT_HEADER_LEN);
                start += FRAGMENT_HEADER_LEN;
                let packet = bytes.get_mut(start..end).ok_or(Refusal::Malformed)?;
                if let Some(byte) = packet.get_mut(self.next_header_at) {
                    *byte = next_header;
                }
                Ipv6Packet::new_unchecked(packet).set_payload_len(length);
            }
        }
        Ok(Whole {
            storage: self.storage,
            start,
            end,
        })
    }
}

impl<'a> Fragment<'a> {
    /// `None` when the packet is malformed, or no fragment.
    fn parse(packet: &'a [u8]) -> Option<Self> {
        match packet.first()? >> 4 {
            4 => Self::parse_v4(packet),
            6 => Self::parse_v6(packet),
            _ => None,
        }
    }

    fn parse_v4(packet: &'a [u8]) -> Option<Self> {
        let view = Ipv4Packet::new_checked(packet).ok()?;
        let header_len = usize::from(view.header_len());
        let offset = view.frag_offset();
        let is_fragment = view.more_frags() || offset != 0;
        if header_len < v4::HEADER_LEN || !view.verify_checksum() || !is_fragment {
            return None;
        }
        Some(Self {
            key: Key {
                source: view.src_addr().into(),
                destination: view.dst_addr().into(),
                id: view.ident().into(),
                protocol: view.next_header().into(),
            },
            offset,
            more: view.more_frags(),
            header: packet.get(..header_len)?,
            next_header_at: 0,
            payload: packet.get(header_len..usize::from(view.total_len()))?,
        })
    }

    fn parse_v6(packet: &'a [u8]) -> Option<Self> {
        let view = Ipv6Packet::new_checked(packet).ok()?;
        let packet = packet.get(..V6_HEADER_LEN + usize::from(view.payload_len()))?;
        let (mut next, mut next_header_at, mut at) = (view.next_header(), 6, V6_HEADER_LEN);
        for _ in 0..MAX_EXTENSIONS {
            if next == IpProtocol::Ipv6Frag {
                break;
            }
            (next_header_at, (next, at)) = (at, skip_extension(next, packet, at)?);
        }
        if next != IpProtocol::Ipv6Frag || at + FRAGMENT_HEADER_LEN > HEADROOM {
            return None;
        }
        let (fragment_header, payload) = packet.get(at..)?.split_first_chunk()?;
        let [_, _, a, b, id @ ..]: &[u8; FRAGMENT_HEADER_LEN] = fragment_header;
        let offset = u16::from_be_bytes([*a, *b]);
        Some(Self {
            key: Key {
                source: view.src_addr().into(),
                destination: view.dst_addr().into(),
                id: u32::from_be_bytes(*id),
                protocol: 0,
            },
            offset: offset & !7,
            more: offset & 1 != 0,
            header: packet.get(..at + FRAGMENT_HEADER_LEN)?,
            next_header_at,
            payload,
        })
    }

    /// Where it ends in the datagram, if an IP packet can be that long.
    fn end(&self) -> Result<u16, Refusal> {
        let end = usize::from(self.offset) + self.payload.len();
        let counted = match self.key.source {
            IpAddr::V4(_) => self.header.len(),
            IpAddr::V6(_) => self.header.len() - V6_HEADER_LEN - FRAGMENT_HEADER_LEN,
        };
        match u16::try_from(counted + end) {
            Ok(_) => u16::try_from(end).map_err(|_| Refusal::TooLong),
            Err(_) => Err(Refusal::TooLong),
        }
    }

    /// RFC 7112: a first fragment holds everything up to the upper-layer header, and
    /// that one, too. IPv4 has no such rule, and tiny first fragments.
    fn holds_all_headers(&self) -> bool {
        if self.key.source.is_ipv4() {
            return true;
        }
        let fragment_header = self.header.len() - FRAGMENT_HEADER_LEN;
        let Some(&next) = self.header.get(fragment_header) else {
            return false;
        };
        let (mut next, mut at) = (IpProtocol::from(next), 0);
        for _ in 0..=MAX_EXTENSIONS {
            let upper = match next {
                IpProtocol::Ipv6Opts | IpProtocol::Ipv6Route | IpProtocol::HopByHop => {
                    match skip_extension(next, self.payload, at) {
                        Some(behind) => (next, at) = behind,
                        None => return false,
                    }
                    continue;
                }
                IpProtocol::Tcp => 20,
                IpProtocol::Udp | IpProtocol::Icmpv6 => 8,
                _ => 0,
            };
            return at + upper <= self.payload.len();
        }
        false
    }
}

/// The protocol behind the extension header at `at`, and where it begins.
fn skip_extension(kind: IpProtocol, bytes: &[u8], at: usize) -> Option<(IpProtocol, usize)> {
    match kind {
        IpProtocol::HopByHop | IpProtocol::Ipv6Opts | IpProtocol::Ipv6Route => {}
        _ => return None,
    }
    let (&next, &length) = (bytes.get(at)?, bytes.get(at + 1)?);
    let behind = at + (usize::from(length) + 1) * 8;
    (behind <= bytes.len()).then(|| (next.into(), behind))
}

#[cfg(test)]
mod tests;
