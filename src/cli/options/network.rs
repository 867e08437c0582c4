//! `--net`, `--mtu`, `--dns` and `--add-host`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use super::super::args::parse_bool;
use super::{budgets, names, shown, usage};
use crate::config::{BuiltinNetwork, Ipv6Mode, LinkChoice, Network, Outbound};
use crate::error::Error;

/// The keys of `--net=builtin:`.
const KEYS: &str = "mtu, link, cidr, enable_ipv6, cidr6, outbound_addr, outbound_addr6, \
                    allow_host_loopback, allow_host_addresses, allow_link_local, \
                    busy_poll, sandbox";
/// The smallest packet that every IPv4 host has to take (RFC 791 section 3.1).
const MTU_LEAST: u16 = 576;
/// The largest that leaves room for a link header in 64 KiB.
const MTU_MOST: u16 = 65520;
/// Longest time to look for events before sleeping, microseconds: beyond it a
/// sleep costs less than it saves.
const BUSY_POLL_MOST: u64 = 1000;

/// `--net` with `--mtu`.
pub(super) fn parse(
    net: &[String],
    mtu: Option<&str>,
    mac: Option<&str>,
) -> Result<Network, Error> {
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
            if let Some(mac) = mac {
                builtin.mac = Some(
                    parse_mac(mac)
                        .map_err(|why| usage(format!("--mac-address {}: {why}", shown(mac))))?,
                );
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
    if mac.is_some() {
        return Err(usage(format!(
            "--mac-address is only for --net=builtin, not for --net={mode}"
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
    if network.ipv6 == Ipv6Mode::Off && (network.network6.is_some() || network.outbound6.is_some())
    {
        return Err(usage(
            "--net: enable_ipv6=false leaves cidr6 and outbound_addr6 without a use",
        ));
    }
    if network.network6.is_some() {
        network.ipv6 = Ipv6Mode::On;
    }
    Ok(network)
}

fn set(network: &mut BuiltinNetwork, key: &str, value: &str) -> Result<(), String> {
    let flag = || parse_bool(value).ok_or_else(|| "true or false is needed".to_owned());
    match key {
        "mtu" => network.mtu = parse_mtu(value)?,
        "link" => {
            network.link = match value {
                "auto" => LinkChoice::Auto,
                "tap" => LinkChoice::Tap,
                "veth" => LinkChoice::Veth,
                _ => return Err("auto, tap or veth is needed".to_owned()),
            };
        }
        "cidr" => (network.network, network.prefix_len) = parse_cidr(value)?,
        "enable_ipv6" => {
            network.ipv6 = if flag()? { Ipv6Mode::On } else { Ipv6Mode::Off };
        }
        "cidr6" => network.network6 = Some(parse_cidr6(value)?),
        "outbound_addr" => network.outbound = Some(parse_outbound(value, IpAddr::is_ipv4)?),
        "outbound_addr6" => network.outbound6 = Some(parse_outbound(value, IpAddr::is_ipv6)?),
        "allow_host_loopback" => network.allow_host_loopback = flag()?,
        "allow_host_addresses" => network.allow_host_addresses = flag()?,
        "allow_link_local" => network.allow_link_local = flag()?,
        "busy_poll" => {
            let micros = number(value)
                .filter(|micros| *micros <= BUSY_POLL_MOST)
                .ok_or_else(|| format!("microseconds from 0 to {BUSY_POLL_MOST} are needed"))?;
            network.busy_poll = Duration::from_micros(micros);
        }
        "sandbox" => network.sandbox = flag()?,
        _ => {
            let unknown = || format!("unknown option (known: {KEYS}, {})", budgets::KEYS);
            budgets::set(network, key, value).ok_or_else(unknown)??;
        }
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

/// The address of a /64 that a network can have.
fn parse_cidr6(text: &str) -> Result<Ipv6Addr, String> {
    let needed = || "PREFIX/64 is needed, such as fd00::/64".to_owned();
    let (address, prefix) = text.split_once('/').ok_or_else(needed)?;
    let address: Ipv6Addr = address.parse().map_err(|_| needed())?;
    if number::<u8>(prefix) != Some(64) {
        return Err("the prefix length is not 64, which hosts need for their addresses".to_owned());
    }
    let [a, b, c, d, rest @ ..] = address.segments();
    if rest != [0; 4] {
        let network = Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0);
        return Err(format!(
            "not a network address: the network is {network}/64"
        ));
    }
    // RFC 4291, 2.4: unspecified, loopback and mapped, link-local, multicast.
    if [a, b, c, d] == [0; 4] || address.is_unicast_link_local() || address.is_multicast() {
        return Err("no network can have these addresses".to_owned());
    }
    Ok(address)
}

/// An address of the right version, or an interface.
fn parse_outbound(text: &str, version: fn(&IpAddr) -> bool) -> Result<Outbound, String> {
    /// `IFNAMSIZ` without the final zero.
    const NAME_MOST: usize = 15;
    match text.parse::<IpAddr>() {
        Ok(address) if !version(&address) => {
            Err("an address of this IP version is needed".to_owned())
        }
        // Sockets can be bound to all of these, but nothing is sent from there.
        Ok(address)
            if address.is_unspecified()
                || address.is_loopback()
                || address.is_multicast()
                || address == IpAddr::V4(Ipv4Addr::BROADCAST) =>
        {
            Err("nothing can leave the host from this address".to_owned())
        }
        Ok(address) => Ok(Outbound::Address(address)),
        Err(_)
            if (1..=NAME_MOST).contains(&text.len())
                && text
                    .bytes()
                    .all(|byte| byte.is_ascii_graphic() && byte != b'/')
                && !text.contains(':') =>
        {
            Ok(Outbound::Interface(text.to_owned()))
        }
        Err(_) => Err("neither an IP address nor the name of an interface".to_owned()),
    }
}

/// A unicast MAC in the usual notation.
fn parse_mac(text: &str) -> Result<[u8; 6], String> {
    let mut mac = [0; 6];
    let mut words = text.split([':', '-']);
    for byte in &mut mac {
        let digits = words
            .next()
            .filter(|word| word.len() == 2 && word.bytes().all(|digit| digit.is_ascii_hexdigit()));
        *byte = digits
            .and_then(|digits| u8::from_str_radix(digits, 16).ok())
            .ok_or("six bytes are needed, such as 52:55:0a:00:02:64")?;
    }
    if words.next().is_some() {
        return Err("six bytes are needed, such as 52:55:0a:00:02:64".to_owned());
    }
    if mac[0] & 1 != 0 || mac == [0; 6] {
        return Err("not the address of one interface".to_owned());
    }
    if mac == crate::net::GATEWAY_MAC {
        return Err("this is the gateway's address".to_owned());
    }
    Ok(mac)
}

/// `--dns-search`; `.` stands for none.
pub(super) fn dns_search(
    domains: &[String],
    network: &Network,
) -> Result<Option<Vec<String>>, Error> {
    if domains.is_empty() {
        return Ok(None);
    }
    needs_network("--dns-search", network)?;
    if domains.iter().any(|domain| domain == ".") {
        return if domains.len() == 1 {
            Ok(Some(Vec::new()))
        } else {
            Err(usage(
                "--dns-search . (no domain) goes with no other domain",
            ))
        };
    }
    domains
        .iter()
        .map(|domain| names::domain(domain.strip_suffix('.').unwrap_or(domain)))
        .collect::<Result<_, _>>()
        .map(Some)
}

/// `--dns-option`: words of the `options` line.
pub(super) fn dns_options(
    options: &[String],
    network: &Network,
) -> Result<Option<Vec<String>>, Error> {
    if options.is_empty() {
        return Ok(None);
    }
    needs_network("--dns-option", network)?;
    for option in options {
        let word = |byte: u8| byte.is_ascii_graphic() && byte != b'#' && byte != b';';
        if option.is_empty() || !option.bytes().all(word) {
            return Err(usage(format!(
                "--dns-option {}: a word such as ndots:2 is needed",
                shown(option)
            )));
        }
    }
    Ok(Some(options.to_vec()))
}

/// Without a network there is nobody to ask; podman refuses these, too.
fn needs_network(option: &str, network: &Network) -> Result<(), Error> {
    match network {
        Network::None => Err(usage(format!("{option} is of no use with --net=none"))),
        Network::Builtin(_) | Network::Host => Ok(()),
    }
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
        parse(&[text.to_owned()], None, None)
    }

    #[test]
    fn modes() {
        assert_eq!(
            parse(&[], None, None).unwrap(),
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
        assert!(parse(&["none".into(), "none".into()], None, None).is_err());
        assert!(parse(&["none".into()], Some("1500"), None).is_err());
        assert!(parse(&["host".into()], Some("1500"), None).is_err());
        assert!(parse(&["builtin:mtu=1500".into()], Some("1500"), None).is_err());
    }

    #[test]
    fn ipv6_outbound_and_mac() {
        let builtin = |text: &str| match net(text) {
            Ok(Network::Builtin(network)) => network,
            other => panic!("{text}: {other:?}"),
        };
        assert_eq!(builtin("builtin:enable_ipv6=false").ipv6, Ipv6Mode::Off);
        assert_eq!(builtin("builtin:enable_ipv6=1").ipv6, Ipv6Mode::On);
        let network = builtin("builtin:cidr6=fd12:3456::/64");
        assert_eq!(network.ipv6, Ipv6Mode::On);
        assert_eq!(
            network.container6(),
            Some("fd12:3456::100".parse().unwrap())
        );
        assert_eq!(
            builtin("builtin:outbound_addr=198.51.100.1,outbound_addr6=eth0").outbound6,
            Some(Outbound::Interface("eth0".to_owned()))
        );
        for bad in [
            "cidr6=fd00::/63",
            "cidr6=fd00::",
            "cidr6=fd00::1/64",
            "cidr6=fe80::/64",
            "cidr6=ff05::/64",
            "cidr6=::/64",
            "cidr6=10.0.2.0/24",
            "enable_ipv6=false,cidr6=fd00::/64",
            "outbound_addr=",
            "outbound_addr=fd00::1",
            "outbound_addr=0.0.0.0",
            "outbound_addr=127.0.0.1",
            "outbound_addr=224.0.0.1",
            "outbound_addr=255.255.255.255",
            "outbound_addr6=::1",
            "outbound_addr6=ff02::1",
            "outbound_addr=a/b",
            "outbound_addr=a-name-that-is-too-long",
            "outbound_addr6=1.2.3.4",
        ] {
            let text = format!("builtin:{bad}");
            assert!(matches!(net(&text), Err(Error::Usage(_))), "{bad}");
        }
        assert_eq!(
            parse_mac("52:55:0a:00:02:FF"),
            Ok([0x52, 0x55, 10, 0, 2, 255])
        );
        for bad in [
            "",
            "52:55:0a:00:02",
            "52:55:0a:00:02:64:00",
            "53:55:0a:00:02:64",
            "0:0:0:0:0:0",
            "00:00:00:00:00:00",
            "52:55:0a:00:02:+4",
            "52:55:0a:00:02:02",
        ] {
            assert!(parse_mac(bad).is_err(), "{bad}");
        }
        let none = net("none");
        assert!(none.is_ok() && parse(&["none".into()], None, Some("52:55:0a:00:02:64")).is_err());
    }

    #[test]
    fn resolver_options() {
        let words = |words: &[&str]| words.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(dns_search(&[], &Network::Host).unwrap(), None);
        assert_eq!(
            dns_search(&words(&["."]), &Network::Host).unwrap(),
            Some(Vec::new())
        );
        assert_eq!(
            dns_search(&words(&["a.example", "b.example."]), &Network::Host).unwrap(),
            Some(words(&["a.example", "b.example"]))
        );
        assert!(dns_search(&words(&[".", "a.example"]), &Network::Host).is_err());
        assert!(dns_search(&words(&["a example"]), &Network::Host).is_err());
        assert_eq!(dns_options(&[], &Network::Host).unwrap(), None);
        assert_eq!(
            dns_options(&words(&["ndots:2"]), &Network::Host).unwrap(),
            Some(words(&["ndots:2"]))
        );
        assert!(dns_options(&words(&["a\nnameserver 1.1.1.1"]), &Network::Host).is_err());
        let message = dns_search(&words(&["a example"]), &Network::Host).unwrap_err();
        assert!(message.to_string().contains("--dns-search"), "{message}");
        assert!(dns_search(&words(&["a.example"]), &Network::None).is_err());
        assert!(dns_options(&words(&["ndots:2"]), &Network::None).is_err());
        assert_eq!(dns_options(&[], &Network::None).unwrap(), None);
    }

    #[test]
    fn keys_of_builtin() {
        let all = "builtin:mtu=1500,cidr=192.168.4.0/22,allow_host_loopback=true,\
                   allow_host_addresses=1,allow_link_local=false,max_flows=7,busy_poll=0,\
                   sandbox=false";
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
                sandbox: false,
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
            "busy_poll=",
            "busy_poll=1001",
            "busy_poll=1ms",
            "sandbox",
            "sandbox=maybe",
            "link",
            "link=",
            "link=TAP",
            "link=tap,link=veth",
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
            "link=auto",
        ] {
            assert!(net(&format!("builtin:{good}")).is_ok(), "{good}");
        }
        for (value, wanted) in [("tap", LinkChoice::Tap), ("veth", LinkChoice::Veth)] {
            let parsed = net(&format!("builtin:link={value}")).unwrap();
            assert!(matches!(parsed, Network::Builtin(network) if network.link == wanted));
        }
        let Network::Builtin(short) = parse(&[], Some("9000"), None).unwrap() else {
            panic!()
        };
        assert_eq!(short.mtu, 9000);
        assert!(parse(&[], Some("1"), None).is_err());
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
            let _ = parse(&[text], Some(&mtu), None);
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
