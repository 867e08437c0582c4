//! IPv4 (RFC 791): checked parsing of what the container sends, and the header
//! of what we send.

use std::net::Ipv4Addr;

use smoltcp::wire::{IpProtocol, Ipv4Packet};

/// Bytes of the header that we send; we never send options.
pub(crate) const HEADER_LEN: usize = 20;
/// Initial time to live of packets that we originate (RFC 1700).
const TTL: u8 = 64;

/// A valid IPv4 packet, padding removed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Packet<'a> {
    pub(crate) source: Ipv4Addr,
    pub(crate) destination: Ipv4Addr,
    pub(crate) protocol: IpProtocol,
    /// Header and payload.
    pub(crate) whole: &'a [u8],
    pub(crate) payload: &'a [u8],
}

/// Why a packet was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unusable {
    Malformed,
    Fragment,
}

/// Parses and checks a packet.
pub(crate) fn parse(bytes: &[u8]) -> Result<Packet<'_>, Unusable> {
    let view = Ipv4Packet::new_checked(bytes).map_err(|_| Unusable::Malformed)?;
    if view.version() != 4 || usize::from(view.header_len()) < HEADER_LEN || !view.verify_checksum()
    {
        return Err(Unusable::Malformed);
    }
    if view.more_frags() || view.frag_offset() != 0 {
        return Err(Unusable::Fragment);
    }
    let whole = bytes
        .get(..usize::from(view.total_len()))
        .ok_or(Unusable::Malformed)?;
    let payload = whole
        .get(usize::from(view.header_len())..)
        .ok_or(Unusable::Malformed)?;
    Ok(Packet {
        source: view.src_addr(),
        destination: view.dst_addr(),
        protocol: view.next_header(),
        whole,
        payload,
    })
}

/// Writes the header of a packet of `total` bytes in all to the front of `buffer`.
pub(crate) fn emit(
    buffer: &mut [u8],
    total: usize,
    source: Ipv4Addr,
    destination: Ipv4Addr,
    protocol: IpProtocol,
) {
    let mut view = Ipv4Packet::new_unchecked(buffer);
    view.set_version(4);
    view.set_header_len(20);
    view.set_dscp(0);
    view.set_ecn(0);
    view.set_total_len(len16(total));
    view.set_ident(0);
    view.clear_flags();
    // RFC 6864: with DF set and no fragmentation the identification has no meaning.
    view.set_dont_frag(true);
    view.set_frag_offset(0);
    view.set_hop_limit(TTL);
    view.set_next_header(protocol);
    view.set_src_addr(source);
    view.set_dst_addr(destination);
    view.fill_checksum();
}

/// A length as a header field. Nothing that we send is longer than the field
/// can say; the receiver of a wrong length would drop the packet.
pub(crate) fn len16(len: usize) -> u16 {
    u16::try_from(len).unwrap_or(u16::MAX)
}
