//! DHCP for a container that asks, though all that it says is set already.
//!
//! # Theory of operation
//!
//! There is one client and one address, so there are no leases to keep: each
//! message is answered out of the configuration and itself, and nothing is
//! remembered. The address is the container's for good.

pub(crate) mod v4;
pub(crate) mod v6;

use std::net::{IpAddr, Ipv6Addr};

use crate::host::Host;
use crate::ip;
use crate::link::RxChecksum;
use crate::stack::Stack;
use crate::udp;

/// All DHCP servers of the link (RFC 8415, 7.1).
const ALL_SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);

/// Longest label and name (RFC 1035, 2.3.4), bytes.
const MAX_LABEL: usize = 63;
const MAX_NAME: usize = 255;

/// Names as a search list has them (RFC 3397, RFC 8415, 10): labels, not
/// compressed. What is no name is left out.
fn search_list(names: &[String]) -> Vec<u8> {
    let mut list = Vec::new();
    for name in names {
        let labels = name.trim_end_matches('.').split('.');
        let valid = |label: &str| (1..=MAX_LABEL).contains(&label.len());
        if name.len() + 2 > MAX_NAME || !labels.clone().all(valid) {
            continue;
        }
        for label in labels {
            // At most 63, as was seen.
            list.extend(u8::try_from(label.len()));
            list.extend_from_slice(label.as_bytes());
        }
        list.push(0);
    }
    list
}

impl Stack {
    /// Whether a UDP packet is for the DHCP server.
    pub(crate) fn is_for_dhcp(&self, packet: &ip::Packet<'_>) -> bool {
        let port = match packet.destination {
            IpAddr::V4(to) if to == self.config.gateway || self.is_group(to.into()) => {
                v4::SERVER_PORT
            }
            IpAddr::V6(to) if to == ALL_SERVERS || self.is_ours(to.into()) => v6::SERVER_PORT,
            _ => return false,
        };
        packet.payload.get(2..4) == Some(&port.to_be_bytes())
    }

    /// A message for the DHCP server.
    pub(crate) fn dhcp_input<H: Host>(
        &mut self,
        packet: &ip::Packet<'_>,
        checksum: RxChecksum,
        host: &mut H,
    ) {
        let Some(datagram) = udp::parse(packet, checksum) else {
            self.stats.dropped += 1;
            return;
        };
        match (packet.source, self.config.ipv6) {
            (IpAddr::V4(_), _) => self.dhcpv4_input(datagram.payload, host),
            (IpAddr::V6(source), Some(own)) if !source.is_unspecified() => {
                let offer = v6::Offer {
                    container: own.container,
                    mac: self.config.mac,
                    dns: &[own.dns],
                    search: &self.search,
                };
                if let Some(reply) = v6::answer(&offer, datagram.payload) {
                    let from = (self.router, v6::SERVER_PORT).into();
                    let to = (source, v6::CLIENT_PORT).into();
                    self.udp_emit_complete(from, to, &reply, host);
                }
            }
            (IpAddr::V6(_), _) => {}
        }
    }

    fn dhcpv4_input<H: Host>(&mut self, message: &[u8], host: &mut H) {
        let gateway = self.config.gateway;
        let offer = v4::Offer {
            container: self.config.container,
            gateway,
            prefix_len: self.config.prefix_len,
            dns: &[self.config.dns],
            mtu: self.link.config.mtu,
            search: &self.search,
        };
        if let Some(v4::Reply { to, message }) = v4::answer(&offer, message) {
            let from = (gateway, v4::SERVER_PORT).into();
            self.udp_emit_complete(from, (to, v4::CLIENT_PORT).into(), &message, host);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::search_list;

    #[test]
    fn names() {
        let encoded = |names: &[&str]| {
            let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
            search_list(&names)
        };
        assert_eq!(encoded(&["a.bc", "d."]), b"\x01a\x02bc\0\x01d\0");
        let long = "x".repeat(64);
        let many = "abc.".repeat(64);
        assert_eq!(encoded(&["", ".", "a..b", &long, &many, "e"]), b"\x01e\0");
    }
}
