//! TCP segments (RFC 9293, 3.1): what one of the container's says, and the
//! headers of ours.

use std::net::IpAddr;

use smoltcp::wire::{
    IpProtocol, Ipv4Packet, Ipv6Packet, TcpControl, TcpOption, TcpPacket, TcpRepr,
};

use super::seq::Seq;
use crate::config::LinkConfig;
use crate::flow::FlowKey;
use crate::host::Host;
use crate::ip::{self, len16};
use crate::link::{Link, MAX_HEAD, TxOffload};

/// TCP header without options, bytes.
pub(super) const HEADER_LEN: usize = 20;
/// Largest shift of the window scale option (RFC 7323, 2.3).
const MAX_SCALE: u8 = 14;

/// What a segment of the container says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Segment<'a> {
    pub(super) seq: Seq,
    pub(super) ack: Option<Seq>,
    pub(super) window: u16,
    pub(super) syn: bool,
    pub(super) fin: bool,
    pub(super) rst: bool,
    pub(super) payload: &'a [u8],
    /// Blocks of the SACK option (RFC 2018).
    pub(super) sacked: [Option<(Seq, Seq)>; 3],
}

impl<'a> Segment<'a> {
    pub(super) fn new(packet: &TcpPacket<&'a [u8]>) -> Self {
        let mut sacked = [None; 3];
        if usize::from(packet.header_len()) > HEADER_LEN && !packet.syn() {
            for_each_option(packet, |option| {
                if let TcpOption::SackRange(ranges) = option {
                    sacked = ranges.map(|range| range.map(|(l, r)| (Seq::new(l), Seq::new(r))));
                }
            });
        }
        Self {
            seq: packet.seq_number().into(),
            ack: packet.ack().then(|| packet.ack_number().into()),
            window: packet.window_len(),
            syn: packet.syn(),
            fin: packet.fin(),
            rst: packet.rst(),
            payload: packet.payload(),
            sacked,
        }
    }

    /// Whether it is a SYN that can begin a connection, and nothing else besides.
    pub(super) fn opens(&self) -> bool {
        self.syn && self.ack.is_none() && !self.rst && !self.fin
    }

    /// Sequence space that it takes (SEG.LEN).
    pub(super) fn len(&self) -> usize {
        self.payload.len() + usize::from(self.syn) + usize::from(self.fin)
    }
}

/// What a SYN says beyond its header.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct SynOptions {
    pub(super) mss: Option<u16>,
    pub(super) scale: Option<u8>,
    pub(super) sack_permitted: bool,
}

impl SynOptions {
    pub(super) fn new(packet: &TcpPacket<&[u8]>) -> Self {
        let mut options = Self::default();
        for_each_option(packet, |option| match option {
            TcpOption::MaxSegmentSize(mss) => options.mss = Some(mss),
            TcpOption::WindowScale(shift) => options.scale = Some(shift.min(MAX_SCALE)),
            TcpOption::SackPermitted => options.sack_permitted = true,
            _ => {}
        });
        options
    }
}

/// Reads options up to the first that is malformed.
fn for_each_option<'a>(packet: &TcpPacket<&'a [u8]>, mut each: impl FnMut(TcpOption<'a>)) {
    let mut rest = packet.options();
    while !rest.is_empty() {
        match TcpOption::parse(rest) {
            Ok((_, TcpOption::EndOfList)) | Err(_) => return,
            Ok((next, option)) => {
                each(option);
                rest = next;
            }
        }
    }
}

/// The headers of a segment as a packet of its own, for as long as it waits.
/// Data that comes with a SYN (TCP Fast Open, RFC 7413) is left to be sent
/// again, as by any server without cookies.
pub(super) fn without_payload(packet: &ip::Packet<'_>) -> Option<Box<[u8]>> {
    let headers = packet.whole.len() - packet.payload.len();
    let segment = TcpPacket::new_checked(packet.payload).ok()?;
    let head = packet
        .whole
        .get(..headers + usize::from(segment.header_len()))?;
    let mut head: Box<[u8]> = head.into();
    let total = head.len();
    if packet.source.is_ipv4() {
        let mut view = Ipv4Packet::new_unchecked(&mut head[..]);
        view.set_total_len(len16(total));
        view.fill_checksum();
    } else {
        let mut view = Ipv6Packet::new_unchecked(&mut head[..]);
        view.set_payload_len(len16(total - ip::v6::HEADER_LEN));
    }
    Some(head)
}

/// The header of a segment of ours that has nothing to say yet but its place.
pub(super) fn header(key: &FlowKey, seq: Seq, ack: Option<Seq>, window: u16) -> TcpRepr<'static> {
    TcpRepr {
        src_port: key.remote.map_or(0, |remote| remote.port()),
        dst_port: key.container.port(),
        control: TcpControl::None,
        seq_number: seq.into(),
        ack_number: ack.map(Into::into),
        window_len: window,
        window_scale: None,
        max_seg_size: None,
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload: &[],
    }
}

/// Sends a segment to the container; with `mss` not 0 it is a super-segment.
pub(super) fn transmit(
    link: &mut Link,
    host: &mut impl Host,
    key: &FlowKey,
    header: &TcpRepr<'_>,
    payload: [&[u8]; 2],
    mss: u16,
) {
    let Some(source) = key.remote.map(|remote| remote.ip()) else {
        return;
    };
    let destination = key.container.ip();
    let mut head = [0; MAX_HEAD];
    let start = ip::header_len(destination);
    let len = start + header.header_len();
    let Some(head) = head.get_mut(..len) else {
        return;
    };
    let total = len + payload[0].len() + payload[1].len();
    ip::emit(head, total, source, destination, IpProtocol::Tcp);
    let mut view = TcpPacket::new_unchecked(&mut head[start..]);
    header.emit(
        &mut view,
        &source.into(),
        &destination.into(),
        &smoltcp::phy::ChecksumCapabilities::ignored(),
    );
    link.transmit(host, TxOffload::Tcp { mss }, head, payload);
}

/// Payload of the longest packet that the link takes to or from `address`, bytes.
pub(super) fn room(link: LinkConfig, address: IpAddr) -> u16 {
    let headers = ip::header_len(address) + HEADER_LEN;
    len16(usize::from(link.mtu).saturating_sub(headers)).max(1)
}

/// Answers a segment that belongs to no connection with a reset (RFC 9293,
/// 3.10.7.1).
pub(super) fn refuse(link: &mut Link, host: &mut impl Host, key: &FlowKey, segment: &Segment<'_>) {
    if segment.rst {
        return;
    }
    let mut reset = match segment.ack {
        Some(ack) => header(key, ack, None, 0),
        None => header(key, Seq::new(0), Some(segment.seq + segment.len()), 0),
    };
    reset.control = TcpControl::Rst;
    transmit(link, host, key, &reset, [&[], &[]], 0);
}
