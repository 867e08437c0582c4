//! Counters and gauges.

/// What the stack has seen; all monotonic.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Frames from the container.
    pub frames_in: u64,
    /// Frames to the container.
    pub frames_out: u64,
    /// Frames dropped: malformed, bad checksum, wrong source, unknown protocol.
    pub dropped: u64,
    /// IP fragments from the container.
    pub fragments_in: u64,
    /// Packets made of them.
    pub reassembled: u64,
    /// IP fragments that came to nothing: malformed, overlapping, or without the rest.
    pub fragments_dropped: u64,
    /// IP fragments to the container.
    pub fragments_out: u64,
    /// Flows and DNS queries refused by policy.
    pub denied: u64,
    /// Flows refused because there were too many, or no room for them.
    pub over_limit: u64,
    /// TCP connections refused, or given up for new ones, because too many were
    /// half-open.
    pub over_half_open: u64,
    /// TCP flows reset because too many bytes were waiting.
    pub over_buffered: u64,
    /// Frames lost because there were too many in a second.
    pub over_pps: u64,
    /// Datagram flows given up for new flows.
    pub given_up: u64,
    /// TCP payload bytes, container to host.
    pub tcp_bytes_up: u64,
    /// TCP payload bytes, host to container.
    pub tcp_bytes_down: u64,
    /// UDP datagrams, container to host.
    pub udp_up: u64,
    /// UDP datagrams, host to container.
    pub udp_down: u64,
    /// UDP datagrams from a host that the container has not sent to.
    pub udp_filtered: u64,
    /// Datagrams to the DNS forwarder that answer no query.
    pub dns_unmatched: u64,
    /// UDP datagrams too long for any packet of their IP version.
    pub udp_too_long: u64,
}

/// What a container makes use of at present, of what [`crate::Limits`] bounds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Flows of all protocols; not the UDP sockets that several of them share.
    pub flows: usize,
    /// TCP connections that are half-open.
    pub half_open: usize,
    /// Bytes of memory for TCP payload that is on its way.
    pub buffered: usize,
}
