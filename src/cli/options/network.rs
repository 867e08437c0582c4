//! `--net`, `--mtu`, `--dns` and `--add-host`.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use super::super::args::parse_bool;
use super::{names, shown, usage};
use crate::config::{BuiltinNetwork, Network};
use crate::error::Error;

/// The keys of `--net=builtin:`.
const KEYS: &str = "mtu, cidr, allow_host_loopback, allow_host_addresses, allow_link_local, \
                    max_flows, busy_poll";
/// The smallest packet that every IPv4 host has to take (RFC 791 section 3.1).
const MTU_LEAST: u16 = 576;
/// The largest that leaves room for a link header in 64 KiB.
const MTU_MOST: u16 = 65520;
/// The most file descriptors of a process as kernels are set up (`fs.nr_open`).
const FLOWS_MOST: usize = 1 << 20;

/// Longest time to look for events before sleeping, microseconds: beyond it a
/// sleep costs less than it saves.
const BUSY_POLL_MOST: u64 = 1000;

/// `--net` with `--mtu`.
pub(super) fn parse(net: &[String], mtu: Option<&str>) -> Result<Network, Error> {
    let text = match net {
        [] => "builtin",
        [one] => one,
        [_, _, ..] => return Err(usage("--net is given twice: a container has one network")),
    };
    let (mode, keys) = match text.split_once(':') {
        Some((mode, keys)) => (mode, Some(keys)),
        None => (text, None),
    };
    let network = match mode {
        "builtin" => {
            let mut builtin = parse_builtin(keys.unwrap_or_default(), mtu.is_some())?;
            if let Some(mtu) = mtu {
                builtin.mtu =
                    parse_mtu(mtu).map_err(|why| usage(format!("--mtu {}: {why}", shown(mtu))))?;
            }
            return Ok(Network::Builtin(builtin));
        }
        "none" => Network::None,
        "host" => Network::Host,
        other => {
            return Err(usage(format!(
                "--net: unknown network {} (known: builtin, none, host)",
                shown(other)
            )));
        }
    };
    if keys.is_some() {
        return Err(usage(format!(
            "--net={mode} has no options: only builtin has"
        )));
    }
    if mtu.is_some() {
        return Err(usage(format!(
            "--mtu is only for --net=builtin, not for --net={mode}"
        )));
    }
    Ok(network)
}

fn parse_builtin(keys: &str, mtu_given: bool) -> Result<BuiltinNetwork, Error> {
    let mut network = BuiltinNetwork::default();
    let mut seen = Vec::new();
    for word in keys.split(',').filter(|_| !keys.is_empty()) {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        if seen.contains(&key) {
            return Err(usage(format!("--net: {} is given twice", shown(key))));
        }
        seen.push(key);
        if key == "mtu" && mtu_given {
            return Err(usage(
                "--mtu and --net=builtin:mtu= say the same twice: give one",
            ));
        }
        set(&mut network, key, value)
            .map_err(|why| usage(format!("--net: {}: {why}", shown(word))))?;
    }
    Ok(network)
}

fn set(network: &mut BuiltinNetwork, key: &str, value: &str) -> Result<(), String> {
    let flag = || parse_bool(value).ok_or_else(|| "true or false is needed".to_owned());
    match key {
        "mtu" => network.mtu = parse_mtu(value)?,
        "cidr" => (network.network, network.prefix_len) = parse_cidr(value)?,
        "allow_host_loopback" => network.allow_host_loopback = flag()?,
        "allow_host_addresses" => network.allow_host_addresses = flag()?,
        "allow_link_local" => network.allow_link_local = flag()?,
        "max_flows" => {
            network.max_flows = Some(
                number(value)
                    .filter(|flows| (1..=FLOWS_MOST).contains(flows))
                    .ok_or_else(|| format!("a number from 1 to {FLOWS_MOST} is needed"))?,
            );
        }
        "busy_poll" => {
            let micros = number(value)
                .filter(|micros| *micros <= BUSY_POLL_MOST)
                .ok_or_else(|| format!("microseconds from 0 to {BUSY_POLL_MOST} are needed"))?;
            network.busy_poll = Duration::from_micros(micros);
        }
        _ => return Err(format!("unknown option (known: {KEYS})")),
    }
    Ok(())
}

/// Digits and nothing else: `from_str` takes a sign too.
pub(super) fn number<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse().ok())?
}

fn parse_mtu(text: &str) -> Result<u16, String> {
    number(text)
        .filter(|mtu| (MTU_LEAST..=MTU_MOST).contains(mtu))
        .ok_or_else(|| format!("a number of bytes from {MTU_LEAST} to {MTU_MOST} is needed"))
}

/// A network address with room for the gateway, the resolver and the container,
/// as slirp4netns counts them.
fn parse_cidr(text: &str) -> Result<(Ipv4Addr, u8), String> {
    let needed = || "ADDRESS/PREFIX is needed, such as 10.0.2.0/24".to_owned();
    let (address, prefix) = text.split_once('/').ok_or_else(needed)?;
    let address: Ipv4Addr = address.parse().map_err(|_| needed())?;
    let prefix: u8 = number(prefix)
        .filter(|prefix| (1..=25).contains(prefix))
        .ok_or_else(|| "the prefix is not a number from 1 to 25".to_owned())?;
    let host_bits = u32::MAX >> prefix;
    let first = u32::from(address);
    let network = first & !host_bits;
    if network != first {
        let network = Ipv4Addr::from(network);
        return Err(format!(
            "not a network address: the network is {network}/{prefix}"
        ));
    }
    // Addresses that no host has or that never leave it: RFC 1122 section 3.2.1.3.
    let overlaps = |from: [u8; 4], to: [u8; 4]| {
        first <= u32::from_be_bytes(to) && first | host_bits >= u32::from_be_bytes(from)
    };
    if overlaps([0; 4], [0, 255, 255, 255])
        || overlaps([127, 0, 0, 0], [127, 255, 255, 255])
        || overlaps([224, 0, 0, 0], [255; 4])
    {
        return Err("overlaps addresses that no network can have".to_owned());
    }
    Ok((address, prefix))
}

/// `--dns`.
pub(super) fn dns(servers: &[String]) -> Result<Vec<IpAddr>, Error> {
    servers
        .iter()
        .map(|text| match text.parse::<IpAddr>() {
            Ok(address) if !address.is_unspecified() && !address.is_multicast() => Ok(address),
            _ => Err(usage(format!(
                "--dns: {} is not the address of a server",
                shown(text)
            ))),
        })
        .collect()
}

/// `--add-host NAME[;NAME...]:ADDR`.
pub(super) fn add_host(
    lines: &[String],
    network: &Network,
) -> Result<Vec<(String, IpAddr)>, Error> {
    let mut hosts = Vec::new();
    for line in lines {
        let (names, address) = line.split_once(':').ok_or_else(|| {
            usage(format!(
                "--add-host {}: NAME:ADDRESS is needed",
                shown(line)
            ))
        })?;
        let address = host_address(address, network)
            .map_err(|why| usage(format!("--add-host {}: {why}", shown(line))))?;
        for name in names.split(';') {
            hosts.push((names::host(name)?, address));
        }
    }
    Ok(hosts)
}

fn host_address(text: &str, network: &Network) -> Result<IpAddr, String> {
    if text == "host-gateway" {
        return match network {
            Network::Builtin(builtin) => Ok(builtin.gateway().into()),
            Network::Host => Ok(Ipv4Addr::LOCALHOST.into()),
            Network::None => Err("there is no gateway with --net=none".to_owned()),
        };
    }
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    match bare {
        Some(v6) => v6.parse().map(IpAddr::V6).map_err(|_| ()),
        None => text.parse().map_err(|_| ()),
    }
    .map_err(|()| "the address is not an IP address".to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn net(text: &str) -> Result<Network, Error> {
        parse(&[text.to_owned()], None)
    }

    #[test]
    fn modes() {
        assert_eq!(
            parse(&[], None).unwrap(),
            Network::Builtin(BuiltinNetwork::default())
        );
        assert_eq!(net("builtin").unwrap(), net("builtin:").unwrap());
        assert_eq!(net("none").unwrap(), Network::None);
        assert_eq!(net("host").unwrap(), Network::Host);
        for bad in [
            "",
            "bridge",
            "slirp4netns",
            "Builtin",
            "host:",
            "none:mtu=1500",
            " none",
        ] {
            assert!(net(bad).is_err(), "{bad}");
        }
        assert!(parse(&["none".into(), "none".into()], None).is_err());
        assert!(parse(&["none".into()], Some("1500")).is_err());
        assert!(parse(&["host".into()], Some("1500")).is_err());
        assert!(parse(&["builtin:mtu=1500".into()], Some("1500")).is_err());
    }

    #[test]
    fn keys_of_builtin() {
        let all = "builtin:mtu=1500,cidr=192.168.4.0/22,allow_host_loopback=true,\
                   allow_host_addresses=1,allow_link_local=false,max_flows=7,busy_poll=0";
        assert_eq!(
            net(all).unwrap(),
            Network::Builtin(BuiltinNetwork {
                mtu: 1500,
                network: Ipv4Addr::new(192, 168, 4, 0),
                prefix_len: 22,
                allow_host_loopback: true,
                allow_host_addresses: true,
                allow_link_local: false,
                max_flows: Some(7),
                busy_poll: Duration::ZERO,
                ..BuiltinNetwork::default()
            })
        );
        for bad in [
            "mtu",
            "mtu=",
            "mtu=575",
            "mtu=65521",
            "mtu=+1500",
            "mtu=0x5dc",
            "mtu=1500,mtu=1500",
            "cidr=10.0.2.1/24",
            "cidr=10.0.2.0",
            "cidr=10.0.2.0/0",
            "cidr=10.0.2.0/26",
            "cidr=10.0.2/24",
            "cidr=0.0.0.0/1",
            "cidr=64.0.0.0/2",
            "cidr=127.0.0.0/24",
            "cidr=224.0.0.0/8",
            "cidr=fd00::/64",
            "cidr=10.0.2.0/+24",
            "allow_host_loopback",
            "allow_host_loopback=yes",
            "max_flows=0",
            "max_flows=-1",
            "max_flows=1048577",
            "busy_poll=",
            "busy_poll=1001",
            "busy_poll=1ms",
            ",",
            "mtu=1500,",
            "port_handler=slirp4netns",
            "MTU=1500",
        ] {
            assert!(net(&format!("builtin:{bad}")).is_err(), "{bad}");
        }
        let message = net("builtin:bogus=1").unwrap_err().to_string();
        assert!(
            message.contains("bogus") && message.contains("max_flows"),
            "{message}"
        );
        for good in [
            "cidr=10.0.0.0/8",
            "cidr=128.0.0.0/2",
            "cidr=10.0.2.128/25",
            "mtu=576",
        ] {
            assert!(net(&format!("builtin:{good}")).is_ok(), "{good}");
        }
        let Network::Builtin(short) = parse(&[], Some("9000")).unwrap() else {
            panic!()
        };
        assert_eq!(short.mtu, 9000);
        assert!(parse(&[], Some("1")).is_err());
    }

    #[test]
    fn servers_and_hosts() {
        let text = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
        assert_eq!(dns(&text(&["1.1.1.1", "::1"])).unwrap().len(), 2);
        for bad in [
            "",
            "none",
            "0.0.0.0",
            "::",
            "224.0.0.1",
            "1.1.1.1:53",
            "fe80::1%eth0",
        ] {
            assert!(dns(&text(&[bad])).is_err(), "{bad}");
        }
        let builtin = Network::Builtin(BuiltinNetwork::default());
        let hosts = add_host(
            &text(&["a;b:10.0.0.1", "c:::1", "d:[fd00::1]", "e:host-gateway"]),
            &builtin,
        );
        let wanted = [
            ("a", "10.0.0.1"),
            ("b", "10.0.0.1"),
            ("c", "::1"),
            ("d", "fd00::1"),
            ("e", "10.0.2.2"),
        ]
        .map(|(name, address)| (name.to_owned(), address.parse().unwrap()));
        assert_eq!(hosts.unwrap(), wanted);
        for bad in [
            "a",
            "a:",
            ":1.1.1.1",
            "a b:1.1.1.1",
            "a:1.1.1",
            "a:[1.1.1.1]",
            "a\nb:1.1.1.1",
        ] {
            assert!(add_host(&text(&[bad]), &builtin).is_err(), "{bad}");
        }
        assert!(add_host(&text(&["a:host-gateway"]), &Network::None).is_err());
        let host = add_host(&text(&["a:host-gateway"]), &Network::Host).unwrap();
        assert!(host[0].1.is_loopback());
    }

    proptest! {
        #[test]
        fn parsing_is_total(text in "(builtin:)?[a-z_=0-9.,/:]{0,60}", mtu in "[0-9]{0,6}") {
            let _ = parse(&[text], Some(&mtu));
        }

        #[test]
        fn networks_round_trip(address: u32, prefix in 1..=25_u8, mtu in MTU_LEAST..=MTU_MOST) {
            let address = Ipv4Addr::from(address & !(u32::MAX >> prefix));
            let parsed = net(&format!("builtin:cidr={address}/{prefix},mtu={mtu}"));
            if let Ok(Network::Builtin(parsed)) = parsed {
                prop_assert_eq!((parsed.network, parsed.prefix_len, parsed.mtu), (address, prefix, mtu));
                for one in [parsed.gateway(), parsed.dns(), parsed.container()] {
                    prop_assert!(!one.is_loopback() && !one.is_multicast() && !one.is_broadcast());
                    prop_assert_eq!(u32::from(one) & !(u32::MAX >> prefix), u32::from(address));
                }
            }
        }
    }
}
