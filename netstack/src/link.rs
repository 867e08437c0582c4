//! Ethernet framing and the virtio-net header.
//!
//! # Theory of operation
//!
//! With [`LinkConfig::vnet_header`] each frame begins with the 10 bytes of
//! `struct virtio_net_hdr` (virtio 1.2, 5.1.6; `linux/virtio_net.h`) in the
//! machine's byte order, as `tun(4)` and packet sockets use it. It lets both
//! kernels leave checksums undone on a link that loses no bits, and lets one
//! frame carry up to 64 KiB of TCP payload whatever the MTU: the receiving
//! kernel cuts it into segments of `gso_size` only if it must. Without it each
//! frame costs a checksum over the payload and each MTU a system call.

use std::io::IoSlice;

use smoltcp::wire::{EthernetAddress, EthernetFrame, EthernetProtocol, IpProtocol};

use crate::checksum::Sum;
use crate::config::LinkConfig;
use crate::fault::{Fault, is_planted};
use crate::host::Host;
use crate::ip::{self, len16};

/// Bytes of `struct virtio_net_hdr` without `num_buffers`.
pub const VNET_HEADER_LEN: usize = 10;
/// Bytes of an Ethernet header.
pub(crate) const ETHERNET_HEADER_LEN: usize = 14;
/// Longest network and transport header that we send, bytes: IPv6 without
/// extensions, TCP with all options.
pub(crate) const MAX_HEAD: usize = ip::MAX_HEADER_LEN + 60;

const F_NEEDS_CSUM: u8 = 1;
const F_DATA_VALID: u8 = 2;
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;

/// What the sender says about the transport checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RxChecksum {
    /// Left undone, or known to be right: nothing to verify.
    Offloaded,
    /// In the packet, to be verified.
    Present,
}

/// A frame from the container, taken apart.
#[derive(Debug)]
pub(crate) struct RxFrame<'a> {
    pub(crate) source: EthernetAddress,
    /// It was sent to us alone.
    pub(crate) unicast: bool,
    pub(crate) ethertype: EthernetProtocol,
    pub(crate) payload: &'a [u8],
    pub(crate) checksum: RxChecksum,
    /// Payload bytes of each datagram of a UDP super-segment; 0 when it is one.
    pub(crate) udp_segment: u16,
}

/// What is still to be done to an outgoing packet: its transport checksum, and
/// cutting it up when it is a super-segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TxOffload {
    /// Everything is in the packet.
    Complete,
    /// TCP; `mss` is 0 for a single segment.
    Tcp { mss: u16 },
    /// UDP; `segment` is 0 for a single datagram.
    Udp { segment: u16 },
}

/// The framing of one link.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) config: LinkConfig,
    mac: EthernetAddress,
    /// The container's MAC, learnt from every frame it sends.
    peer: EthernetAddress,
    transmitted: u64,
}

impl Link {
    pub(crate) fn new(config: LinkConfig, mac: [u8; 6]) -> Self {
        Self {
            config,
            mac: EthernetAddress(mac),
            peer: EthernetAddress::BROADCAST,
            transmitted: 0,
        }
    }

    /// Frames sent so far.
    pub(crate) fn transmitted(&self) -> u64 {
        self.transmitted
    }

    pub(crate) fn mac(&self) -> EthernetAddress {
        self.mac
    }

    /// Remembers where answers go.
    pub(crate) fn learn(&mut self, peer: EthernetAddress) {
        if peer.is_unicast() && peer != self.mac {
            self.peer = peer;
        }
    }

    /// Takes a frame apart; `None` when it is too short, not for us, or its
    /// virtio header contradicts it.
    pub(crate) fn parse<'a>(&self, frame: &'a [u8]) -> Option<RxFrame<'a>> {
        let (header, frame) = if self.config.vnet_header {
            let (header, rest) = frame.split_first_chunk::<VNET_HEADER_LEN>()?;
            (Some(header), rest)
        } else {
            (None, frame)
        };
        let ethernet = EthernetFrame::new_checked(frame).ok()?;
        let destination = ethernet.dst_addr();
        let unicast = destination == self.mac;
        if !unicast && destination.is_unicast() {
            return None;
        }
        let (checksum, udp_segment) = match header {
            None => (RxChecksum::Present, 0),
            Some(header) => {
                let offloaded = header[0] & (F_NEEDS_CSUM | F_DATA_VALID) != 0;
                // Segmentation without checksum offload makes no sense (virtio 1.2, 5.1.6.2).
                if header[1] != GSO_NONE && !offloaded {
                    return None;
                }
                let segment = if header[1] & 0x7f == GSO_UDP_L4 {
                    u16::from_ne_bytes([header[4], header[5]])
                } else {
                    0
                };
                (
                    if offloaded {
                        RxChecksum::Offloaded
                    } else {
                        RxChecksum::Present
                    },
                    segment,
                )
            }
        };
        Some(RxFrame {
            source: ethernet.src_addr(),
            unicast,
            ethertype: ethernet.ethertype(),
            payload: frame.get(ETHERNET_HEADER_LEN..)?,
            checksum,
            udp_segment,
        })
    }

    fn vnet_len(&self) -> usize {
        if self.config.vnet_header {
            VNET_HEADER_LEN
        } else {
            0
        }
    }

    /// Sends one IP packet: `head`, which begins with the network header and is at
    /// most [`MAX_HEAD`] bytes long, then `payload`. A transport checksum that is
    /// still to be made is made here, or left to the receiver.
    pub(crate) fn transmit(
        &mut self,
        host: &mut impl Host,
        offload: TxOffload,
        head: &[u8],
        payload: [&[u8]; 2],
    ) {
        let ethertype = if head.first().is_some_and(|first| first >> 4 == 6) {
            EthernetProtocol::Ipv6
        } else {
            EthernetProtocol::Ipv4
        };
        self.send(host, ethertype, offload, head, payload);
    }

    /// Sends an ARP packet.
    pub(crate) fn transmit_arp(&mut self, host: &mut impl Host, packet: &[u8]) {
        let ethertype = EthernetProtocol::Arp;
        self.send(host, ethertype, TxOffload::Complete, packet, [&[], &[]]);
    }

    fn send(
        &mut self,
        host: &mut impl Host,
        ethertype: EthernetProtocol,
        offload: TxOffload,
        head: &[u8],
        payload: [&[u8]; 2],
    ) {
        self.transmitted += 1;
        let mut buffer = [0; VNET_HEADER_LEN + ETHERNET_HEADER_LEN + MAX_HEAD];
        let vnet = self.vnet_len();
        let start = vnet + ETHERNET_HEADER_LEN;
        let Some(frame) = buffer.get_mut(..start + head.len()) else {
            return;
        };
        let (header, ethernet) = frame.split_at_mut(vnet);
        let (ethernet, packet) = ethernet.split_at_mut(ETHERNET_HEADER_LEN);
        ethernet[..6].copy_from_slice(self.peer.as_bytes());
        ethernet[6..12].copy_from_slice(self.mac.as_bytes());
        ethernet[12..].copy_from_slice(&u16::from(ethertype).to_be_bytes());
        packet.copy_from_slice(head);
        if let Some((protocol, offset, segment)) = match offload {
            TxOffload::Complete => None,
            TxOffload::Tcp { mss } => Some((IpProtocol::Tcp, 16, mss)),
            TxOffload::Udp { segment } => Some((IpProtocol::Udp, 6, segment)),
        } {
            let Some((source, destination, start)) = ip::ends(packet) else {
                return;
            };
            let length = packet.len() - start + payload[0].len() + payload[1].len();
            let mut sum = Sum::pseudo_header(source, destination, protocol.into(), length);
            let at = start + offset;
            if vnet == 0 {
                sum.add(&packet[start..]);
                sum.add(payload[0]);
                if !is_planted(Fault::Checksum) {
                    sum.add(payload[1]);
                }
                let checksum = match sum.finish() {
                    // None, in UDP (RFC 768).
                    0 if protocol == IpProtocol::Udp => 0xffff,
                    checksum => checksum,
                };
                packet[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
            } else {
                packet[at..at + 2].copy_from_slice(&sum.partial().to_be_bytes());
                let checksum_start = ETHERNET_HEADER_LEN + start;
                header[0] = F_NEEDS_CSUM;
                if segment != 0 {
                    header[1] = match (protocol, source.is_ipv4()) {
                        (IpProtocol::Tcp, true) => GSO_TCPV4,
                        (IpProtocol::Tcp, false) => GSO_TCPV6,
                        _ => GSO_UDP_L4,
                    };
                    let headers = len16(ETHERNET_HEADER_LEN + packet.len());
                    header[2..4].copy_from_slice(&headers.to_ne_bytes());
                    header[4..6].copy_from_slice(&segment.to_ne_bytes());
                }
                header[6..8].copy_from_slice(&len16(checksum_start).to_ne_bytes());
                header[8..10].copy_from_slice(&len16(offset).to_ne_bytes());
            }
        }
        let parts = [frame, payload[0], payload[1]].map(IoSlice::new);
        let used = 3 - usize::from(payload[1].is_empty()) - usize::from(payload[0].is_empty());
        host.transmit(&parts[..used]);
    }
}
