//! The container's side: its network namespace is brought up by init.

use std::io;

use super::link::{Link, NAME};
use crate::config::BuiltinNetwork;
use crate::error::StepFailure;
use crate::sys::netlink::{LinkChange, Netlink};

/// MAC of the gateway and the DNS forwarder: locally administered, as all of ours.
pub(crate) const GATEWAY_MAC: [u8; 6] = [0x52, 0x55, 0x0a, 0x00, 0x02, 0x02];
/// MAC of the container.
pub(crate) const CONTAINER_MAC: [u8; 6] = [0x52, 0x55, 0x0a, 0x00, 0x02, 0x64];
/// Frames that the kernel queues towards us. A TAP drops what finds its queue full
/// (`tun_net_xmit` in drivers/net/tun.c), and a stream whose segments are dropped over and
/// over stands still for minutes. While we wait for a processor, a hundred streams at full
/// speed send a window each, 16 frames of 64 KiB, and as many acknowledgements.
const QUEUE_LEN: u32 = 4096;

/// Brings up `lo` and, with a built-in network, makes and configures the link.
/// Called in the container's network namespace, while the host's
/// `/dev/net/tun` can still be reached.
///
/// # Errors
/// The step that failed.
pub fn set_up(network: Option<&BuiltinNetwork>) -> Result<Option<Link>, StepFailure> {
    let failed =
        |step, object: &'static str| move |error: io::Error| StepFailure::new(step, object, &error);
    let mut netlink = Netlink::open().map_err(failed("open rtnetlink", "socket"))?;
    // `lo` is always the first interface of a network namespace.
    netlink
        .change_link(
            1,
            LinkChange {
                up: true,
                ..LinkChange::default()
            },
        )
        .map_err(failed("bring up", "lo"))?;
    let Some(network) = network else {
        return Ok(None);
    };
    let mut link = Link::create(&netlink, network)?;
    let index = netlink.link_index(NAME).map_err(failed("find", NAME))?;
    let change = LinkChange {
        up: true,
        mtu: Some(u32::from(network.mtu)),
        address: Some(network.mac.unwrap_or(CONTAINER_MAC)),
        queue_len: Some(QUEUE_LEN),
        ..LinkChange::default()
    };
    if network.network6.is_none() {
        // Where the kernel has no IPv6 it makes no address either.
        if let Err(error) = netlink.no_ipv6_address(index) {
            tracing::debug!("{}: {error}", NAME);
        }
    }
    netlink
        .change_link(index, change)
        .map_err(failed("bring up", NAME))?;
    link.settle(&mut netlink);
    let lengths = [network.prefix_len, 64];
    let addresses = network.container_addresses().into_iter().zip(lengths);
    for (address, length) in addresses {
        netlink
            .add_address(index, address, length)
            .map_err(failed("add the address to", NAME))?;
    }
    for gateway in network.gateway_addresses() {
        // It never moves. An answer that is lost, as on a full queue, would cost the
        // container a second of waiting before it asks again.
        netlink
            .add_neighbor(index, gateway, GATEWAY_MAC)
            .map_err(failed("add the gateway to the neighbors of", NAME))?;
        netlink
            .add_default_route(index, gateway)
            .map_err(failed("add the default route by", NAME))?;
    }
    Ok(Some(link))
}
