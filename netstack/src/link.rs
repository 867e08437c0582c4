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

use std::cell::Cell;

use smoltcp::wire::{EthernetAddress, EthernetFrame, EthernetProtocol, IpProtocol};

use crate::config::LinkConfig;
use crate::host::Host;
use crate::ipv4;

/// Bytes of `struct virtio_net_hdr` without `num_buffers`.
pub const VNET_HEADER_LEN: usize = 10;
/// Bytes of an Ethernet header.
pub(crate) const ETHERNET_HEADER_LEN: usize = 14;

const F_NEEDS_CSUM: u8 = 1;
const F_DATA_VALID: u8 = 2;
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
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
    pub(crate) ethertype: EthernetProtocol,
    pub(crate) payload: &'a [u8],
    pub(crate) checksum: RxChecksum,
    /// Payload bytes of each datagram of a UDP super-segment; 0 when it is one.
    pub(crate) udp_segment: u16,
}

/// How the transport checksum of an outgoing packet is made and whether the
/// packet is a super-segment.
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
    transmitted: Cell<u64>,
}

impl Link {
    pub(crate) fn new(config: LinkConfig, mac: [u8; 6]) -> Self {
        Self {
            config,
            mac: EthernetAddress(mac),
            peer: EthernetAddress::BROADCAST,
            transmitted: Cell::new(0),
        }
    }

    /// Frames sent so far.
    pub(crate) fn transmitted(&self) -> u64 {
        self.transmitted.get()
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
        // Nothing but ARP comes as a broadcast (RFC 1122, 3.3.6).
        let broadcast = !destination.is_unicast() && ethernet.ethertype() == EthernetProtocol::Arp;
        if destination != self.mac && !broadcast {
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

    /// Sends one frame of `len` payload bytes written by `fill`.
    pub(crate) fn transmit<R>(
        &self,
        host: &mut impl Host,
        ethertype: EthernetProtocol,
        len: usize,
        offload: TxOffload,
        fill: impl FnOnce(&mut [u8]) -> R,
    ) -> R {
        self.transmitted.set(self.transmitted.get() + 1);
        let vnet = self.vnet_len();
        host.transmit(vnet + ETHERNET_HEADER_LEN + len, |buffer| {
            let (header, frame) = buffer.split_at_mut(vnet);
            let (ethernet, payload) = frame.split_at_mut(ETHERNET_HEADER_LEN);
            ethernet[..6].copy_from_slice(self.peer.as_bytes());
            ethernet[6..12].copy_from_slice(self.mac.as_bytes());
            ethernet[12..].copy_from_slice(&u16::from(ethertype).to_be_bytes());
            let result = fill(payload);
            if vnet == 0 {
                return result;
            }
            header.fill(0);
            let (protocol, segment, gso, offset) = match offload {
                TxOffload::Complete => return result,
                TxOffload::Tcp { mss } => (IpProtocol::Tcp, mss, GSO_TCPV4, 16),
                TxOffload::Udp { segment } => (IpProtocol::Udp, segment, GSO_UDP_L4, 6),
            };
            partial_checksum(payload, protocol, offset);
            header[0] = F_NEEDS_CSUM;
            let start = ipv4::len16(ETHERNET_HEADER_LEN + ipv4::HEADER_LEN);
            if segment != 0 {
                header[1] = gso;
                let transport = match offload {
                    TxOffload::Tcp { .. } => u16::from(payload[ipv4::HEADER_LEN + 12] >> 4) * 4,
                    _ => 8,
                };
                header[2..4].copy_from_slice(&(start + transport).to_ne_bytes());
                header[4..6].copy_from_slice(&segment.to_ne_bytes());
            }
            header[6..8].copy_from_slice(&start.to_ne_bytes());
            header[8..10].copy_from_slice(&ipv4::len16(offset).to_ne_bytes());
            result
        })
    }
}

/// Writes what `VIRTIO_NET_HDR_F_NEEDS_CSUM` expects in the checksum field: the
/// sum over the pseudo-header, not complemented. `packet` is an IPv4 packet
/// without options, made by us.
fn partial_checksum(packet: &mut [u8], protocol: IpProtocol, offset: usize) {
    let word = |at: usize| u32::from(u16::from_be_bytes([packet[at], packet[at + 1]]));
    let length = u32::from(ipv4::len16(packet.len() - ipv4::HEADER_LEN));
    let mut sum =
        word(12) + word(14) + word(16) + word(18) + u32::from(u8::from(protocol)) + length;
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    let [_, _, high, low] = sum.to_be_bytes();
    let at = ipv4::HEADER_LEN + offset;
    packet[at..at + 2].copy_from_slice(&[high, low]);
}
