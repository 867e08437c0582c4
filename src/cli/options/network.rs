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
mod tests;
