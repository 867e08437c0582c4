//! What is measured: the cases, their figures, and the units of those.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

/// Most streams or connections at once.
const MOST_STREAMS: u32 = 256;
/// Most idle connections: one client address has no more ports for one server.
const MOST_FLOWS: u32 = 28_000;
/// IPv4 and UDP header, bytes.
pub const UDP_OVERHEAD: u16 = 28;
/// Smallest payload of a flood; less is kept for the datagram that opens it.
const LEAST_DATAGRAM: u16 = 16;

/// One kind of work. "Up" is from the container to the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Case {
    /// Streams to the host.
    TcpUp(u32),
    /// Streams from the host.
    TcpDown(u32),
    /// One byte there and back, on one connection.
    TcpRr,
    /// Connect, one byte there and back, close; so many at a time.
    TcpCrr(u32),
    /// One-byte datagram there and back.
    UdpRr,
    /// Datagrams of so many bytes to the host.
    UdpUp(u16),
    /// Datagrams from the host.
    UdpDown(u16),
    /// Idle connections, and [`Case::TcpRr`] beside them.
    Flows(u32),
    /// From launch to exit of `true` in a container with a network.
    Startup,
}

/// The cases that are measured when none are named.
pub const DEFAULT: [Case; 14] = [
    Case::TcpUp(1),
    Case::TcpUp(4),
    Case::TcpDown(1),
    Case::TcpDown(4),
    Case::TcpRr,
    Case::TcpCrr(1),
    Case::TcpCrr(16),
    Case::UdpRr,
    Case::UdpUp(64),
    Case::UdpUp(1400),
    Case::UdpDown(64),
    Case::UdpDown(1400),
    Case::Flows(1000),
    Case::Startup,
];

/// A figure: its key in the JSON, its unit, and what it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Metric {
    /// Name in the JSON.
    pub key: &'static str,
    /// Unit as printed.
    pub unit: &'static str,
    /// Whether more is better.
    pub more_is_better: bool,
}

const fn metric(key: &'static str, unit: &'static str, more_is_better: bool) -> Metric {
    Metric {
        key,
        unit,
        more_is_better,
    }
}

/// Payload that arrived per second.
pub const THROUGHPUT: Metric = metric("gbit_per_s", "Gbit/s", true);
/// Transactions per second.
pub const TRANSACTIONS: Metric = metric("transactions_per_s", "/s", true);
/// Datagrams that arrived per second.
pub const PACKETS: Metric = metric("packets_per_s", "pkt/s", true);
/// Growth of the helper's resident memory per connection.
pub const FLOW_BYTES: Metric = metric("bytes_per_flow", "B/flow", false);
/// From launch to exit.
pub const START: Metric = metric("start_ms", "ms", false);
/// CPU time of the helper per gigabyte (10⁹ bytes) of payload.
pub const HELPER_PER_GB: Metric = metric("helper_cpu_s_per_gb", "s/GB", false);
/// CPU time of the helper per transaction or datagram that arrived.
pub const HELPER_PER_OPERATION: Metric = metric("helper_cpu_us_per_op", "µs", false);
/// Median time per transaction.
pub const P50: Metric = metric("p50_us", "µs", false);
/// 99th percentile of the time per transaction.
pub const P99: Metric = metric("p99_us", "µs", false);
/// Datagrams sent that did not arrive.
pub const LOSS: Metric = metric("loss_percent", "%", false);
/// Connections opened per second, one after the other.
pub const OPENED: Metric = metric("opened_per_s", "/s", true);
/// Resident memory of the helper at the end of the sample.
pub const HELPER_MEMORY: Metric = metric("helper_rss_kib", "KiB", false);

impl Case {
    /// The figure that it is about.
    pub fn metric(self) -> Metric {
        match self {
            Self::TcpUp(_) | Self::TcpDown(_) => THROUGHPUT,
            Self::TcpRr | Self::TcpCrr(_) | Self::UdpRr => TRANSACTIONS,
            Self::UdpUp(_) | Self::UdpDown(_) => PACKETS,
            Self::Flows(_) => FLOW_BYTES,
            Self::Startup => START,
        }
    }

    /// Further figures that are printed, each with its words.
    pub fn details(self) -> &'static [(Metric, &'static str)] {
        match self {
            Self::TcpUp(_) | Self::TcpDown(_) => &[(HELPER_PER_GB, "helper CPU, s/GB")],
            Self::TcpRr | Self::TcpCrr(_) => &[
                (P50, "p50, µs"),
                (P99, "p99, µs"),
                (HELPER_PER_OPERATION, "helper CPU, µs each"),
            ],
            Self::UdpRr => &[
                (P50, "p50, µs"),
                (P99, "p99, µs"),
                (LOSS, "loss, %"),
                (HELPER_PER_OPERATION, "helper CPU, µs each"),
            ],
            Self::UdpUp(_) | Self::UdpDown(_) => &[
                (LOSS, "loss, %"),
                (HELPER_PER_GB, "helper CPU, s/GB"),
                (HELPER_PER_OPERATION, "helper CPU, µs each"),
            ],
            Self::Flows(_) => &[
                (TRANSACTIONS, "tcp_rr beside them, /s"),
                (OPENED, "opened, /s"),
                (HELPER_MEMORY, "helper memory, KiB"),
            ],
            Self::Startup => &[],
        }
    }

    /// What it is, in words.
    pub fn title(self) -> String {
        let streams = |n: u32| match n {
            1 => "1 stream".to_owned(),
            n => format!("{n} streams"),
        };
        match self {
            Self::TcpUp(n) => format!("TCP to the host, {}", streams(n)),
            Self::TcpDown(n) => format!("TCP from the host, {}", streams(n)),
            Self::TcpRr => "TCP request and response".to_owned(),
            Self::TcpCrr(1) => "TCP connections, one by one".to_owned(),
            Self::TcpCrr(n) => format!("TCP connections, {n} at a time"),
            Self::UdpRr => "UDP request and response".to_owned(),
            Self::UdpUp(n) => format!("UDP to the host, {n} bytes"),
            Self::UdpDown(n) => format!("UDP from the host, {n} bytes"),
            Self::Flows(n) => format!("Memory of {n} idle flows"),
            Self::Startup => "Launch to exit of true".to_owned(),
        }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TcpUp(n) => write!(f, "tcp_up_{n}"),
            Self::TcpDown(n) => write!(f, "tcp_down_{n}"),
            Self::TcpRr => write!(f, "tcp_rr"),
            Self::TcpCrr(n) => write!(f, "tcp_crr_{n}"),
            Self::UdpRr => write!(f, "udp_rr"),
            Self::UdpUp(n) => write!(f, "udp_up_{n}"),
            Self::UdpDown(n) => write!(f, "udp_down_{n}"),
            Self::Flows(n) => write!(f, "flows_{n}"),
            Self::Startup => write!(f, "startup"),
        }
    }
}

impl Serialize for Case {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Why a word is no case.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CaseError {
    /// There is no case of this name.
    #[error(
        "unknown case {0:?} (known: tcp_up_N, tcp_down_N, tcp_rr, tcp_crr_N, udp_rr, \
         udp_up_SIZE, udp_down_SIZE, flows_N, startup)"
    )]
    Unknown(String),
    /// Its number is out of range.
    #[error("{name}: the number must be from {least} to {most}")]
    Range {
        /// The word.
        name: String,
        /// Smallest number.
        least: u32,
        /// Largest.
        most: u32,
    },
}

impl FromStr for Case {
    type Err = CaseError;

    fn from_str(name: &str) -> Result<Self, CaseError> {
        let unknown = || CaseError::Unknown(name.to_owned());
        match name {
            "tcp_rr" => return Ok(Self::TcpRr),
            "udp_rr" => return Ok(Self::UdpRr),
            "startup" => return Ok(Self::Startup),
            _ => {}
        }
        let (kind, digits) = name.rsplit_once('_').ok_or_else(unknown)?;
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(unknown());
        }
        let within = |least: u32, most: u32| {
            let number = digits.parse().ok();
            number
                .filter(|number| (least..=most).contains(number))
                .ok_or_else(|| CaseError::Range {
                    name: name.to_owned(),
                    least,
                    most,
                })
        };
        let size = || {
            let most = u16::MAX - UDP_OVERHEAD;
            let size = within(u32::from(LEAST_DATAGRAM), u32::from(most))?;
            Ok(u16::try_from(size).unwrap_or(most))
        };
        Ok(match kind {
            "tcp_up" => Self::TcpUp(within(1, MOST_STREAMS)?),
            "tcp_down" => Self::TcpDown(within(1, MOST_STREAMS)?),
            "tcp_crr" => Self::TcpCrr(within(1, MOST_STREAMS)?),
            "udp_up" => Self::UdpUp(size()?),
            "udp_down" => Self::UdpDown(size()?),
            "flows" => Self::Flows(within(1, MOST_FLOWS)?),
            _ => return Err(unknown()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for case in DEFAULT {
            assert_eq!(case.to_string().parse(), Ok(case));
        }
        assert_eq!("flows_5000".parse(), Ok(Case::Flows(5000)));
    }

    #[test]
    fn others_are_refused_with_the_word() {
        for word in [
            "",
            "tcp",
            "tcp_up",
            "tcp_up_",
            "tcp_up_x",
            "tcp_up_+1",
            "udp_rr_1",
            "up_1",
        ] {
            let unknown = CaseError::Unknown(word.to_owned());
            assert_eq!(word.parse::<Case>(), Err(unknown), "{word:?}");
        }
        for word in [
            "tcp_up_0",
            "tcp_crr_257",
            "udp_up_8",
            "udp_down_65508",
            "flows_99999999999",
        ] {
            let error = word.parse::<Case>().unwrap_err();
            assert!(
                matches!(error, CaseError::Range { .. }),
                "{word:?}: {error}"
            );
        }
    }
}
