//! The link: ARP, neighbours, the virtio header, noise, and what was seen elsewhere.

use std::net::Ipv4Addr;

use hostile::frames::{DNS, GATEWAY, GATEWAY6, GUEST, GUEST_MAC, GUEST6, UDP};

use super::Scene;
use crate::frame::{ICMPV6, IP, VNET};
use crate::source::Source;

impl Scene {
    /// ARP, of the container and of others.
    pub fn arp(&mut self, source: &mut impl Source) {
        let address = source.pick(&[GUEST, GUEST, GATEWAY, DNS, Ipv4Addr::UNSPECIFIED]);
        let target = source.pick(&[GATEWAY, DNS, GUEST, Ipv4Addr::new(10, 0, 2, 9)]);
        let operation = source.pick(&[1, 1, 1, 2, 3, 0]);
        let mut mac = GUEST_MAC;
        if source.one_in(4) {
            mac[5] = source.byte();
        }
        let frame = hostile::frames::arp(operation, mac, address, target);
        self.frame.raw(&frame);
        if source.one_in(4) {
            self.send_mutated(source);
        } else {
            self.send(None);
        }
    }

    /// Neighbour discovery (RFC 4861), with options of all lengths.
    pub(super) fn neighbours(&mut self, source: &mut impl Source) {
        let kind = source.pick(&[135_u8, 133, 136, 134, 137, 143, 131]);
        let link_local = std::net::Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x64);
        let from = source.pick(&[GUEST6, link_local, std::net::Ipv6Addr::UNSPECIFIED]);
        let to = source.pick(&[
            GATEWAY6,
            std::net::Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 2),
            std::net::Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2),
        ]);
        self.frame.v6(from, to, ICMPV6);
        self.frame.packet()[IP + 7] = if source.one_in(8) { 64 } else { 255 };
        if to.is_multicast() {
            let [.., a, b, c, d] = to.octets();
            self.frame.packet()[VNET..VNET + 6].copy_from_slice(&[0x33, 0x33, a, b, c, d]);
        }
        self.frame.push(&[kind, 0, 0, 0, 0, 0, 0, 0]);
        if matches!(kind, 135..=137) {
            self.frame.push(&GATEWAY6.octets());
        }
        for _ in 0..source.below(4) {
            let length = source.pick(&[1_u8, 1, 0, 2, 255]);
            self.frame.push(&[source.pick(&[1, 2, 14, 5]), length]);
            let bytes = usize::from(length.min(2)) * 8;
            for _ in 2..bytes {
                self.frame.push(&[source.byte()]);
            }
        }
        self.frame.finish(false);
        self.send(None);
    }

    /// A frame behind a virtio header of any kind.
    pub fn virtio(&mut self, source: &mut impl Source) {
        let v6 = source.one_in(2);
        let to = if v6 {
            std::net::Ipv6Addr::new(0x2001, 0xdb8, 7, 0, 0, 0, 0, 1).into()
        } else {
            Ipv4Addr::new(192, 0, 2, 1).into()
        };
        let length = source.pick(&[0, 1, 100, 300, 5000]);
        self.frame.ip(to, UDP);
        self.frame.udp(20_000 + source.below(4) as u16, 7, length);
        self.frame.room(length);
        self.frame.finish(false);
        let header = &mut self.frame.packet()[..VNET];
        header[0] = source.pick(&[0_u8, 1, 2, 3, 4, 255]);
        header[1] = source.pick(&[0_u8, 1, 3, 4, 5, 0x81, 0x85, 255]);
        for at in (2..VNET).step_by(2) {
            let value = source.pick(&[0_u16, 1, 14, 34, 54, 100, 1460, 65_535]);
            let value = if source.one_in(4) {
                source.u16()
            } else {
                value
            };
            header[at..at + 2].copy_from_slice(&value.to_ne_bytes());
        }
        if source.one_in(8) {
            let bytes = self.frame.packet();
            bytes.truncate(source.below(120).min(bytes.len()).max(VNET));
        }
        self.send(None);
    }

    /// Noise, behind some of a header.
    pub fn noise(&mut self, source: &mut impl Source) {
        let mut noise = [0; 128];
        let length = source.below(noise.len());
        source.fill(&mut noise[..length]);
        let noise = &noise[..length];
        match source.below(4) {
            0 => {
                // Not even a header of its own.
                let vnet = self.world.vnet;
                let bytes = if vnet && noise.len() < VNET {
                    &[]
                } else {
                    noise
                };
                return self.world.input(bytes, None);
            }
            1 => {
                let kind = source.pick(&[0x0800_u16, 0x86dd, 0x0806, 0x8100, 0x88a8, 0x88f8, 60]);
                let frame = hostile::frames::ethernet(kind, noise);
                self.frame.raw(&frame);
            }
            _ => {
                let protocol = source.pick(&[1_u8, 6, 17, 58, 0, 43, 44, 50, 51, 60, 132, 255]);
                let to = if source.one_in(2) {
                    GATEWAY6.into()
                } else {
                    Ipv4Addr::new(192, 0, 2, 1).into()
                };
                self.frame.ip(to, protocol);
                self.frame.push(noise);
                self.frame.lengths();
            }
        }
        self.send_unknown(source);
    }

    /// A frame that was seen elsewhere, as it was or with changes.
    pub fn seen(&mut self, source: &mut impl Source) {
        if self.captured.is_empty() {
            return;
        }
        let place = usize::from(source.u16()) % self.captured.len();
        self.frame.raw(&self.captured[place]);
        if source.one_in(4) {
            self.send_unknown(source);
        } else {
            self.send_mutated(source);
        }
    }

    /// One of the frames of each kind that are valid.
    pub fn seen_valid(&mut self, source: &mut impl Source) {
        if self.captured.is_empty() {
            self.captured = hostile::valid();
        }
        self.seen(source);
    }

    /// Whatever a fuzzer has for a frame.
    pub fn raw(&mut self, bytes: &[u8], source: &mut impl Source) {
        self.frame.raw(bytes);
        self.send_unknown(source);
    }
}
