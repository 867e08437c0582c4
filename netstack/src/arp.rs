//! ARP (RFC 826): we answer for the gateway and the DNS forwarder, nothing else.

use smoltcp::wire::{ArpOperation, ArpPacket, ArpRepr};

use crate::config::Config;
use crate::host::Host;
use crate::link::{Link, RxFrame};

/// Bytes of a packet for Ethernet and IPv4.
const PACKET_LEN: usize = 28;

/// Answers a request for one of our addresses. Replies and gratuitous requests
/// teach us nothing: the container's MAC is learnt from requests that it makes
/// with its own address, and from every IP frame.
pub(crate) fn input(config: &Config, link: &mut Link, frame: &RxFrame<'_>, host: &mut impl Host) {
    let Ok(packet) = ArpPacket::new_checked(frame.payload) else {
        return;
    };
    let Ok(ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Request,
        source_hardware_addr,
        source_protocol_addr,
        target_protocol_addr,
        ..
    }) = ArpRepr::parse(&packet)
    else {
        return;
    };
    let ours = target_protocol_addr == config.gateway || target_protocol_addr == config.dns;
    // A request that claims our own address (or none: RFC 5227 probe of ours) gets no answer.
    if !ours || source_protocol_addr == target_protocol_addr || !source_hardware_addr.is_unicast() {
        return;
    }
    if source_protocol_addr == config.container {
        link.learn(source_hardware_addr);
    }
    let reply = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Reply,
        source_hardware_addr: link.mac(),
        source_protocol_addr: target_protocol_addr,
        target_hardware_addr: source_hardware_addr,
        target_protocol_addr: source_protocol_addr,
    };
    let mut packet = [0; PACKET_LEN];
    reply.emit(&mut ArpPacket::new_unchecked(&mut packet));
    link.transmit_arp(host, &packet);
}
