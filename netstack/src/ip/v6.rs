//! IPv6 (RFC 8200): checked parsing of what the container sends, and the header
//! of what we send.

use std::net::Ipv6Addr;

use smoltcp::wire::{IpProtocol, Ipv6Packet};

use super::{Packet, Unusable, len16};

/// Bytes of the header that we send; we never send extension headers.
pub(crate) const HEADER_LEN: usize = 40;
/// Bytes of a fragment header (RFC 8200, 4.5).
pub(super) const FRAGMENT_HEADER_LEN: usize = 8;
/// Least MTU of a link (RFC 8200, 5).
pub(crate) const MIN_MTU: u16 = 1280;
/// Extension headers in one packet at most: more than one of each kind makes no
/// sense (RFC 8200, 4.1), and each costs us time.
pub(super) const MAX_EXTENSIONS: usize = 6;

/// Parses and checks a packet. A packet for which a node of ours would have to do
/// something that we do not (source routing, options that must be understood) is
/// malformed.
pub(crate) fn parse(bytes: &[u8]) -> Result<Packet<'_>, Unusable> {
    let view = Ipv6Packet::new_checked(bytes).map_err(|_| Unusable::Malformed)?;
    if view.version() != 6 || view.src_addr().is_multicast() {
        return Err(Unusable::Malformed);
    }
    let whole = bytes
        .get(..HEADER_LEN + usize::from(view.payload_len()))
        .ok_or(Unusable::Malformed)?;
    let (protocol, start) = upper_layer(view.next_header(), whole)?;
    let payload = whole.get(start..).ok_or(Unusable::Malformed)?;
    Ok(Packet {
        source: view.src_addr().into(),
        destination: view.dst_addr().into(),
        protocol,
        hop_limit: view.hop_limit(),
        dont_fragment: true,
        whole,
        payload,
    })
}

/// Walks the extension headers: the protocol behind them, and where it begins.
fn upper_layer(first: IpProtocol, whole: &[u8]) -> Result<(IpProtocol, usize), Unusable> {
    let (mut next, mut at) = (first, HEADER_LEN);
    for _ in 0..=MAX_EXTENSIONS {
        match next {
            IpProtocol::Ipv6Frag => return Err(Unusable::Fragment),
            // Hop-by-hop options come first or not at all (RFC 8200, 4.1).
            IpProtocol::HopByHop if at != HEADER_LEN => return Err(Unusable::Malformed),
            IpProtocol::HopByHop | IpProtocol::Ipv6Opts | IpProtocol::Ipv6Route => {}
            upper => return Ok((upper, at)),
        }
        let header = whole.get(at..).ok_or(Unusable::Malformed)?;
        let [following, length, data @ ..] = header else {
            return Err(Unusable::Malformed);
        };
        let length = (usize::from(*length) + 1) * 8;
        let data = data.get(..length - 2).ok_or(Unusable::Malformed)?;
        let skip = match next {
            // Segments left: we are no waypoint (and type 0 is gone, RFC 5095).
            IpProtocol::Ipv6Route => data.get(1) == Some(&0),
            _ => may_skip(data),
        };
        if !skip {
            return Err(Unusable::Malformed);
        }
        (next, at) = (IpProtocol::from(*following), at + length);
    }
    Err(Unusable::Malformed)
}

/// Whether all options may be skipped by who does not know them (RFC 8200, 4.2).
fn may_skip(mut options: &[u8]) -> bool {
    loop {
        options = match options {
            [] => return true,
            [0, rest @ ..] => rest,
            [kind, length, rest @ ..] if kind >> 6 == 0 => match rest.get(usize::from(*length)..) {
                Some(rest) => rest,
                None => return false,
            },
            _ => return false,
        };
    }
}

/// Writes the header of a packet of `total` bytes in all to the front of `buffer`.
pub(crate) fn emit(
    buffer: &mut [u8],
    total: usize,
    source: Ipv6Addr,
    destination: Ipv6Addr,
    protocol: IpProtocol,
    hop_limit: u8,
) {
    let mut view = Ipv6Packet::new_unchecked(buffer);
    view.set_version(6);
    view.set_traffic_class(0);
    view.set_flow_label(0);
    view.set_payload_len(len16(total.saturating_sub(HEADER_LEN)));
    view.set_next_header(protocol);
    view.set_hop_limit(hop_limit);
    view.set_src_addr(source);
    view.set_dst_addr(destination);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A packet from fd00::1 to fd00::2 with these extension headers and payload.
    fn packet(first: u8, rest: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; HEADER_LEN];
        let [source, destination] = ["fd00::1", "fd00::2"].map(|a| a.parse().unwrap());
        emit(
            &mut bytes,
            HEADER_LEN + rest.len(),
            source,
            destination,
            first.into(),
            64,
        );
        bytes.extend_from_slice(rest);
        bytes
    }

    fn upper(first: u8, rest: &[u8]) -> Result<(u8, Vec<u8>), Unusable> {
        parse(&packet(first, rest)).map(|p| (p.protocol.into(), p.payload.to_vec()))
    }

    #[test]
    fn extension_headers() {
        let data = b"12345678";
        let with = |head: &[u8]| [head, data].concat();
        assert_eq!(upper(17, data), Ok((17, data.to_vec())));
        // PadN of 4, then UDP.
        let pad = [17, 0, 1, 4, 0, 0, 0, 0];
        assert_eq!(upper(0, &with(&pad)), Ok((17, data.to_vec())));
        assert_eq!(upper(60, &with(&pad)), Ok((17, data.to_vec())));
        // Six times Pad1; router alert (RFC 2711).
        assert_eq!(
            upper(60, &with(&[6, 0, 0, 0, 0, 0, 0, 0])),
            Ok((6, data.to_vec()))
        );
        assert_eq!(
            upper(0, &with(&[58, 0, 5, 2, 0, 0, 1, 0])),
            Ok((58, data.to_vec()))
        );
        // An option that must be understood, one that is longer than its header.
        assert_eq!(
            upper(60, &with(&[17, 0, 0xc2, 4, 0, 1, 0, 0])),
            Err(Unusable::Malformed)
        );
        assert_eq!(
            upper(60, &with(&[17, 0, 1, 5, 0, 0, 0, 0])),
            Err(Unusable::Malformed)
        );
        // Hop-by-hop options behind others.
        let twice = [&[0, 0, 1, 4, 0, 0, 0, 0], &pad[..]].concat();
        assert_eq!(upper(60, &with(&twice)), Err(Unusable::Malformed));
        // A route with segments left, and one without.
        assert_eq!(
            upper(43, &with(&[17, 0, 0, 1, 0, 0, 0, 0])),
            Err(Unusable::Malformed)
        );
        assert_eq!(
            upper(43, &with(&[17, 0, 4, 0, 0, 0, 0, 0])),
            Ok((17, data.to_vec()))
        );
        assert_eq!(
            upper(44, &with(&[17, 0, 0, 0, 0, 0, 0, 1])),
            Err(Unusable::Fragment)
        );
        // Longer than the packet; more than anybody needs.
        assert_eq!(
            upper(60, &[17, 9, 0, 0, 0, 0, 0, 0]),
            Err(Unusable::Malformed)
        );
        let many = [60, 0, 1, 4, 0, 0, 0, 0].repeat(20);
        assert_eq!(upper(60, &many), Err(Unusable::Malformed));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes(mut bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            if let Some(first) = bytes.first_mut() {
                *first = 0x60 | (*first & 0xf);
            }
            if let Ok(packet) = parse(&bytes) {
                proptest::prop_assert!(packet.payload.len() + HEADER_LEN <= packet.whole.len());
                proptest::prop_assert!(bytes.starts_with(packet.whole));
            }
        }
    }
}
