//! Who holds a host socket: mappings, the flows that share one, and published ports.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use smoltcp::time::Instant;

use super::{UdpFlow, UdpMapping};
use crate::flow::{Flow, FlowId, FlowKey, Protocol};
use crate::host::{Close, Host};
use crate::stack::Stack;

impl Stack {
    /// The host socket that serves `container`, opened when there is none.
    pub(crate) fn udp_mapping<H: Host>(
        &mut self,
        container: SocketAddr,
        family_of: IpAddr,
        dns: bool,
        host: &mut H,
    ) -> Option<FlowId> {
        let key = if dns {
            dns_mapping_key(container, family_of)
        } else {
            FlowKey::mapping(container)
        };
        if let Some(id) = self.flows.find(&key) {
            return Some(id);
        }
        let id = self.flows.insert(
            key,
            Flow::UdpMapping(UdpMapping {
                flows: 0,
                dns,
                published: false,
            }),
        )?;
        if host.udp_open(id, family_of).is_err() {
            self.flows.remove(id);
            return None;
        }
        Some(id)
    }

    /// Gives up one flow's share of a mapping, or only looks whether it has any.
    pub(crate) fn udp_release<H: Host>(&mut self, id: FlowId, one_flow: bool, host: &mut H) {
        let Some((_, mapping)) = self.flows.mapping_mut(id) else {
            return;
        };
        mapping.flows = mapping.flows.saturating_sub(u32::from(one_flow));
        if mapping.flows == 0 && !mapping.published {
            self.flows.remove(id);
            host.close(id, Close::Orderly);
        }
    }

    /// A UDP port of the container is published: the socket that the owner has
    /// bound for it goes by the id that is returned. `None`: too many flows.
    pub fn publish_udp(&mut self, container: SocketAddr) -> Option<FlowId> {
        let mapping = UdpMapping {
            flows: 0,
            dns: false,
            published: true,
        };
        let key = FlowKey::mapping(container);
        self.flows.insert_unnamed(key, Flow::UdpMapping(mapping))
    }

    /// The port is published no longer; its socket is closed when its last flow ends.
    pub fn unpublish_udp<H: Host>(&mut self, id: FlowId, host: &mut H) {
        if let Some((_, mapping)) = self.flows.mapping_mut(id) {
            mapping.published = false;
            self.udp_release(id, false, host);
        }
    }

    /// A new remote of a mapping; `None`: too many flows.
    pub(super) fn udp_insert(
        &mut self,
        now: Instant,
        key: FlowKey,
        mapping: FlowId,
        target: SocketAddr,
        inbound: bool,
    ) -> Option<FlowId> {
        let flow = UdpFlow {
            mapping,
            target,
            opened: now,
            last_used: now,
            two_way: false,
            inbound,
            bytes_up: 0,
            bytes_down: 0,
        };
        let expires = flow.expires();
        let Some(id) = self.flows.insert(key, Flow::Udp(flow)) else {
            self.stats.over_limit += 1;
            return None;
        };
        self.udp_join(mapping);
        self.flows.used(id, now, false);
        self.timers.arm(&mut self.flows, id, expires);
        Some(id)
    }

    pub(crate) fn udp_join(&mut self, mapping: FlowId) {
        if let Some((_, mapping)) = self.flows.mapping_mut(mapping) {
            mapping.flows += 1;
        }
    }

    /// Forgets the flow, and closes its socket if it was the last one.
    pub(crate) fn udp_remove<H: Host>(&mut self, id: FlowId, host: &mut H) {
        if let Some(Flow::Udp(flow)) = self.flows.remove(id) {
            self.udp_release(flow.mapping, true, host);
        }
    }

    /// A deadline of the flow has passed.
    pub(crate) fn udp_due<H: Host>(&mut self, now: Instant, id: FlowId, host: &mut H) {
        let Some((_, flow)) = self.flows.udp_mut(id) else {
            return;
        };
        let expires = flow.expires();
        if now >= expires {
            self.udp_remove(id, host);
        } else {
            self.timers.arm(&mut self.flows, id, expires);
        }
    }
}

/// The key of the mapping that asks the resolvers of one IP version. Never the key
/// of a flow: port 0 of the forwarder can not be opened.
fn dns_mapping_key(container: SocketAddr, resolver: IpAddr) -> FlowKey {
    let unspecified = match resolver {
        IpAddr::V4(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::from(Ipv6Addr::UNSPECIFIED),
    };
    FlowKey::new(Protocol::Udp, container, (unspecified, 0).into())
}
