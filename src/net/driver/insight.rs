//! What there is to tell about a running network.

use std::net::SocketAddr;

use netstack::FlowInfo;

use super::Driver;
use crate::config::Transport;

/// Flows told at a time: the packet loop waits for a fraction of a millisecond.
const PAGE: usize = 500;
/// From this place on a walk is among connections of the host's own.
const PAIRS: usize = 1 << 32;

/// A counter, or a gauge: what can go down.
#[derive(Debug, Clone, Copy)]
pub struct Figure {
    /// Its name, in the style of Prometheus.
    pub name: &'static str,
    /// What it says.
    pub help: &'static str,
    /// It can go down.
    pub gauge: bool,
    /// Its value.
    pub value: u64,
}

impl Driver {
    /// The published ports: what they speak, where the host listens, the port of the
    /// container.
    pub fn ports(&self) -> Vec<(Transport, SocketAddr, u16)> {
        let tcp = self.published.ports();
        let udp = self
            .udp_ports
            .iter()
            .map(|port| (Transport::Udp, port.at, port.container_port));
        let mut ports: Vec<_> = tcp.chain(udp).collect();
        ports.sort_unstable();
        ports
    }

    /// Some TCP and UDP flows, and where to go on if there may be more: `from` is 0,
    /// then what the call before returned. After those of the link come connections
    /// of the host's own to published ports, whose remote is as the host knows it.
    pub fn flows(&self, from: usize) -> (Vec<FlowInfo>, Option<usize>) {
        match from.checked_sub(PAIRS) {
            None => {
                let (page, next) = self.stack.flows(self.now, from, PAGE);
                (page, Some(next.unwrap_or(PAIRS)))
            }
            Some(from) => {
                let (page, next) = self.published.flows(self.now, from, PAGE);
                (page, next.map(|next| next + PAIRS))
            }
        }
    }

    /// Counters of everything.
    pub fn figures(&self) -> Vec<Figure> {
        let stats = self.stack.stats();
        let [spliced_up, spliced_down] = self.published.moved();
        let flows = self.stack.flow_count() as u64;
        let usage = self.stack.usage();
        let counter = |name, help, value| Figure {
            name,
            help,
            gauge: false,
            value,
        };
        vec![
            Figure {
                name: "flows",
                help: "Flows at present, all protocols, UDP sockets among them.",
                gauge: true,
                value: flows,
            },
            Figure {
                name: "half_open_flows",
                help: "TCP connections at present that are half-open.",
                gauge: true,
                value: usage.half_open as u64,
            },
            Figure {
                name: "buffered_bytes",
                help: "Memory for TCP payload on its way at present, bytes.",
                gauge: true,
                value: usage.buffered as u64,
            },
            counter(
                "frames_up_total",
                "Frames from the container.",
                stats.frames_in,
            ),
            counter(
                "frames_down_total",
                "Frames to the container.",
                stats.frames_out,
            ),
            counter(
                "frames_lost_total",
                "Frames that the container's link did not take.",
                self.host.frames_lost,
            ),
            counter(
                "frames_missed_total",
                "Frames of the container that came when the queue towards us was full (veth only; \
                 those of a TAP are what the container's kernel counts as dropped by it).",
                self.host.frames_missed,
            ),
            counter(
                "frames_dropped_total",
                "Frames of the container that were malformed or of no use.",
                stats.dropped,
            ),
            counter(
                "denied_total",
                "Flows and DNS queries refused by policy.",
                stats.denied,
            ),
            counter(
                "over_limit_total",
                "Flows refused because there were too many.",
                stats.over_limit,
            ),
            counter(
                "over_half_open_total",
                "Connections refused because too many were half-open.",
                stats.over_half_open,
            ),
            counter(
                "over_buffered_total",
                "Connections reset because too many bytes were waiting.",
                stats.over_buffered,
            ),
            counter(
                "over_pps_total",
                "Frames lost because there were too many in a second.",
                stats.over_pps,
            ),
            counter(
                "given_up_total",
                "Datagram flows without an answer of late given up for new flows.",
                stats.given_up,
            ),
            counter(
                "tcp_up_bytes_total",
                "TCP payload from the container, bytes.",
                stats.tcp_bytes_up,
            ),
            counter(
                "tcp_down_bytes_total",
                "TCP payload to the container, bytes.",
                stats.tcp_bytes_down,
            ),
            counter(
                "spliced_up_bytes_total",
                "Payload of the host's own connections to published ports, from the container, \
                 bytes.",
                spliced_down,
            ),
            counter(
                "spliced_down_bytes_total",
                "Payload of the host's own connections to published ports, to the container, \
                 bytes.",
                spliced_up,
            ),
            counter(
                "udp_up_total",
                "Datagrams from the container.",
                stats.udp_up,
            ),
            counter(
                "udp_down_total",
                "Datagrams to the container.",
                stats.udp_down,
            ),
            counter(
                "udp_filtered_total",
                "Datagrams from whom the container had not sent to.",
                stats.udp_filtered,
            ),
            counter(
                "dns_unmatched_total",
                "Datagrams to the DNS forwarder that answered no query.",
                stats.dns_unmatched,
            ),
        ]
    }
}
