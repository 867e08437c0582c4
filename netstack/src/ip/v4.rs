//! IPv4 (RFC 791): checked parsing of what the container sends, and the header
//! of what we send.

use std::net::Ipv4Addr;

use smoltcp::wire::{IpProtocol, Ipv4Packet};

use super::{HOP_LIMIT, Packet, Unusable, len16};

/// Bytes of the header that we send; we never send options.
pub(crate) const HEADER_LEN: usize = 20;

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
        source: view.src_addr().into(),
        destination: view.dst_addr().into(),
        protocol: view.next_header(),
        hop_limit: view.hop_limit(),
        dont_fragment: view.dont_frag(),
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
    view.set_hop_limit(HOP_LIMIT);
    view.set_next_header(protocol);
    view.set_src_addr(source);
    view.set_dst_addr(destination);
    view.fill_checksum();
}
