//! The keys of `--net=builtin:` that bound what a container uses.

use std::num::{NonZeroU32, NonZeroUsize};

use super::mounts::bytes;
use super::network::number;
use crate::config::BuiltinNetwork;

/// Their names, for a message.
pub(super) const KEYS: &str = "max_flows, max_half_open, max_buffered, max_pps";
/// The most file descriptors of a process as kernels are set up (`fs.nr_open`).
const FLOWS_MOST: usize = 1 << 20;
/// Room for a few dozen connections that wait for somebody slow.
const BUFFERED_LEAST: usize = 1 << 20;

/// Sets one of them; `None`: it is none of these.
pub(super) fn set(
    network: &mut BuiltinNetwork,
    key: &str,
    value: &str,
) -> Option<Result<(), String>> {
    let result = match key {
        "max_flows" => count(value).map(|flows| network.max_flows = Some(flows.get())),
        "max_half_open" => count(value).map(|flows| network.max_half_open = Some(flows)),
        "max_buffered" => buffered(value).map(|size| network.max_buffered = Some(size)),
        "max_pps" => pps(value).map(|rate| network.max_pps = rate),
        _ => return None,
    };
    Some(result)
}

fn count(value: &str) -> Result<NonZeroUsize, String> {
    number(value)
        .filter(|flows: &NonZeroUsize| flows.get() <= FLOWS_MOST)
        .ok_or_else(|| format!("a number from 1 to {FLOWS_MOST} is needed"))
}

fn buffered(value: &str) -> Result<usize, String> {
    bytes(value)
        .and_then(|size| usize::try_from(size).ok())
        .filter(|size| *size >= BUFFERED_LEAST)
        .ok_or_else(|| "a size of 1m or more is needed (bytes, or a number with k, m or g)".into())
}

/// 0 stands for no bound, as for `busy_poll`.
fn pps(value: &str) -> Result<Option<NonZeroU32>, String> {
    number(value).map(NonZeroU32::new).ok_or_else(|| {
        format!(
            "frames a second from 0 (no bound) to {} are needed",
            u32::MAX
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<BuiltinNetwork, String> {
        let mut network = BuiltinNetwork::default();
        let (key, value) = text.split_once('=').unwrap();
        set(&mut network, key, value).unwrap()?;
        Ok(network)
    }

    #[test]
    fn budgets() {
        assert_eq!(parse("max_flows=1048576").unwrap().max_flows, Some(1 << 20));
        let half_open = parse("max_half_open=7").unwrap().max_half_open;
        assert_eq!(half_open, NonZeroUsize::new(7));
        for (text, size) in [("1m", 1 << 20), ("1048577", (1 << 20) + 1), ("2g", 2 << 30)] {
            let network = parse(&format!("max_buffered={text}")).unwrap();
            assert_eq!(network.max_buffered, Some(size));
        }
        assert_eq!(parse("max_pps=0").unwrap(), BuiltinNetwork::default());
        assert_eq!(
            parse("max_pps=1000").unwrap().max_pps,
            NonZeroU32::new(1000)
        );
        for bad in [
            "max_flows=0",
            "max_flows=-1",
            "max_flows=1048577",
            "max_half_open=",
            "max_half_open=0",
            "max_half_open=1k",
            "max_half_open=+5",
            "max_buffered=1023k",
            "max_buffered=0",
            "max_buffered=1M ",
            "max_buffered=9223372036854775807g",
            "max_pps=-1",
            "max_pps=4294967296",
            "max_pps=1k",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert!(set(&mut BuiltinNetwork::default(), "mtu", "1500").is_none());
    }
}
