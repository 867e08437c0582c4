//! What a segment says, in other words: copies of the container's segments in a
//! form that the engine takes well. Their TCP checksums are not made right:
//! segments have been verified before.

use smoltcp::wire::{Ipv4Packet, TcpPacket};

use crate::ipv4;

/// TCP header without options, bytes.
const HEADER_LEN: usize = 20;
/// Least MSS that is respected: the default (RFC 9293, 3.7.1), which every IPv4
/// host can take. Less would turn a full ring into a flood of tiny frames.
const MIN_MSS: u16 = 536;

/// The SYN as its endpoint will be shown it. Data that comes with it (TCP Fast
/// Open, RFC 7413) is left to be sent again, as by any server without cookies.
pub(super) fn syn_to_hold(packet: &ipv4::Packet<'_>) -> Option<Box<[u8]>> {
    let header = packet.whole.len() - packet.payload.len();
    let mut syn = without_payload(packet)?;
    let options = syn.get_mut(header + HEADER_LEN..)?;
    let mut at = 0;
    // Malformed options are the engine's matter.
    while let Some(&kind) = options.get(at) {
        match (kind, options.get(at + 1).copied()) {
            (1, _) => at += 1,
            (2, Some(4)) => {
                if let Some([high, low]) = options.get_mut(at + 2..at + 4) {
                    let mss = u16::from_be_bytes([*high, *low]).max(MIN_MSS);
                    [*high, *low] = mss.to_be_bytes();
                }
                break;
            }
            (3.., Some(length @ 2..)) => at += usize::from(length),
            _ => break,
        }
    }
    Some(syn)
}

/// The headers of a segment as a packet of its own.
fn without_payload(packet: &ipv4::Packet<'_>) -> Option<Box<[u8]>> {
    let headers = packet.whole.len() - packet.payload.len();
    let segment = TcpPacket::new_checked(packet.payload).ok()?;
    let syn = packet
        .whole
        .get(..headers + usize::from(segment.header_len()))?;
    let mut syn: Box<[u8]> = syn.into();
    let total = ipv4::len16(syn.len());
    let mut view = Ipv4Packet::new_unchecked(&mut syn[..]);
    view.set_total_len(total);
    view.fill_checksum();
    Some(syn)
}

/// A segment with data and a FIN as two packets. smoltcp 0.14 cuts data off at
/// the edge of its window and takes the FIN behind it all the same, so that the
/// end of the stream would be lost without a trace. The edge may move back by
/// less than the unit of the window scale (RFC 7323, 2.4), under a sender that
/// has used all of it.
pub(super) fn split_fin(packet: &ipv4::Packet<'_>) -> Option<(Vec<u8>, Box<[u8]>)> {
    let segment = TcpPacket::new_checked(packet.payload).ok()?;
    let length = packet.payload.len() - usize::from(segment.header_len());
    if length == 0 || !segment.fin() {
        return None;
    }
    let header = packet.whole.len() - packet.payload.len();
    let mut data = packet.whole.to_vec();
    TcpPacket::new_unchecked(data.get_mut(header..)?).set_fin(false);
    let mut fin = without_payload(packet)?;
    TcpPacket::new_unchecked(fin.get_mut(header..)?).set_seq_number(segment.seq_number() + length);
    Some((data, fin))
}

/// A copy of what a segment says without the sequence space that it takes.
pub(super) fn bare_ack(packet: &ipv4::Packet<'_>) -> Option<Box<[u8]>> {
    let segment = TcpPacket::new_checked(packet.payload).ok()?;
    let header = packet.whole.len() - packet.payload.len();
    let mut ack = without_payload(packet)?;
    let mut view = TcpPacket::new_unchecked(ack.get_mut(header..)?);
    view.set_seq_number(segment.seq_number() + segment.segment_len());
    view.set_psh(false);
    view.set_fin(false);
    Some(ack)
}

/// A segment without data for an endpoint that has but its FIN to send again.
/// The third acknowledgement that repeats itself would make smoltcp 0.14 stop
/// its timer for a fast retransmission without data, and forget the FIN; one that
/// changes the window (which is of no more use) is no repetition to it.
pub(super) fn with_odd_window(packet: &ipv4::Packet<'_>, last: &mut u16) -> Option<Box<[u8]>> {
    *last = *last % 2 + 1;
    let header = packet.whole.len() - packet.payload.len();
    let mut ack = without_payload(packet)?;
    TcpPacket::new_unchecked(ack.get_mut(header..)?).set_window_len(*last);
    Some(ack)
}
