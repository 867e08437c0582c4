//! `--publish` and `--name`.

use std::net::IpAddr;

use super::network::number;
use super::{shown, usage};
use crate::config::{Network, Publish, Transport};
use crate::error::Error;

/// The longest name, bytes: it is a part of a socket's name (unix(7)).
const NAME_MOST: usize = 80;

/// `-p`, for a container with this network.
pub(super) fn publish(words: &[String], network: &Network) -> Result<Vec<Publish>, Error> {
    if !words.is_empty() && !matches!(network, Network::Builtin(_)) {
        let mode = match network {
            Network::Host => "host: its ports are the host's own",
            _ => "none: nothing could reach it",
        };
        return Err(usage(format!(
            "--publish is only for --net=builtin, not for --net={mode}"
        )));
    }
    ports(words)
}

/// Port mappings, as `-p` and `crun-lite port` take them.
pub(in crate::cli) fn ports(words: &[String]) -> Result<Vec<Publish>, Error> {
    let mut all = Vec::<Publish>::new();
    for word in words {
        let one = parse(word).map_err(|why| usage(format!("--publish {}: {why}", shown(word))))?;
        if let Some(other) = all.iter().find(|other| other.collides_with(&one)) {
            return Err(usage(format!(
                "--publish {}: asks for a port that {other} has already",
                shown(word)
            )));
        }
        all.push(one);
    }
    Ok(all)
}

/// `[[ADDR:][HOST[-RANGE]]:]CONTAINER[-RANGE][/tcp|udp]`; an IPv6 address is in
/// brackets.
fn parse(text: &str) -> Result<Publish, String> {
    let (ports, transport) = match text.split_once('/') {
        None => (text, Transport::Tcp),
        Some((ports, protocol)) => (ports, parse_transport(protocol)?),
    };
    let (address, ports) = match ports.strip_prefix('[') {
        Some(rest) => {
            let (address, rest) = rest
                .split_once(']')
                .ok_or("the bracket of the address is not closed")?;
            let address = address
                .parse()
                .map_err(|_| "what is in brackets is not an IPv6 address")?;
            let rest = rest
                .strip_prefix(':')
                .ok_or("a colon and ports must follow the address")?;
            (Some(IpAddr::V6(address)), rest)
        }
        None => match ports.rsplitn(3, ':').collect::<Vec<_>>()[..] {
            [_, _, address] if address.contains(':') => {
                return Err("an IPv6 address is to be in brackets".to_owned());
            }
            [container, host, address] => {
                let address = address
                    .parse()
                    .map_err(|_| "the address of the host is not an IP address")?;
                (
                    Some(IpAddr::V4(address)),
                    ports
                        .get(ports.len() - host.len() - container.len() - 1..)
                        .unwrap_or(ports),
                )
            }
            _ => (None, ports),
        },
    };
    let (host, container) = match ports.split_once(':') {
        Some((host, container)) => (Some(host), container),
        None if address.is_some() => {
            return Err(
                "a port of the host, or nothing, and a colon must follow the address, \
                        such as ADDR::80"
                    .to_owned(),
            );
        }
        None => (None, ports),
    };
    let (container_port, count) =
        range(container).map_err(|why| format!("the container's port: {why}"))?;
    let host_port = match host.filter(|host| !host.is_empty()) {
        None => None,
        Some(host) => {
            let (first, len) = range(host).map_err(|why| format!("the host's port: {why}"))?;
            if len != count {
                return Err(format!(
                    "the ranges differ in length: {len} of the host, {count} of the container"
                ));
            }
            Some(first)
        }
    };
    Ok(Publish {
        address,
        host_port,
        container_port,
        count,
        transport,
    })
}

fn parse_transport(text: &str) -> Result<Transport, String> {
    if text.eq_ignore_ascii_case("tcp") {
        Ok(Transport::Tcp)
    } else if text.eq_ignore_ascii_case("udp") {
        Ok(Transport::Udp)
    } else {
        Err(format!(
            "unknown protocol {} (known: tcp, udp)",
            shown(text)
        ))
    }
}

/// The first port of a range and how many there are.
fn range(text: &str) -> Result<(u16, u16), String> {
    let port = |text: &str| {
        number::<u16>(text)
            .filter(|port| *port != 0 && !text.is_empty())
            .ok_or_else(|| format!("{} is not a number from 1 to 65535", shown(text)))
    };
    let (first, last) = match text.split_once('-') {
        None => (port(text)?, port(text)?),
        Some((first, last)) => (port(first)?, port(last)?),
    };
    match last.checked_sub(first) {
        // 1 to 65535 are 65535 ports.
        Some(more) => Ok((first, more + 1)),
        None => Err(format!("the range {} ends before it begins", shown(text))),
    }
}

/// `--name`: podman's rule.
pub(in crate::cli) fn name(text: &str) -> Result<String, Error> {
    let inner = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    if text.len() > NAME_MOST {
        return Err(usage(format!(
            "--name: a name of {} bytes; {NAME_MOST} are the most",
            text.len()
        )));
    }
    if text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(inner) {
        return Ok(text.to_owned());
    }
    Err(usage(format!(
        "--name: {} is not a name: it begins with a letter or a digit, and goes on with those, \
         '_', '.' and '-'",
        shown(text)
    )))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn one(text: &str) -> Publish {
        parse(text).unwrap_or_else(|why| panic!("{text}: {why}"))
    }

    fn published(
        address: Option<&str>,
        host_port: Option<u16>,
        container_port: u16,
        count: u16,
        transport: Transport,
    ) -> Publish {
        Publish {
            address: address.map(|text| text.parse().unwrap()),
            host_port,
            container_port,
            count,
            transport,
        }
    }

    #[test]
    fn podmans_forms() {
        use Transport::{Tcp, Udp};
        for (text, meant) in [
            ("80", published(None, None, 80, 1, Tcp)),
            ("80/udp", published(None, None, 80, 1, Udp)),
            (":80", published(None, None, 80, 1, Tcp)),
            ("8080:80", published(None, Some(8080), 80, 1, Tcp)),
            ("8080:80/TCP", published(None, Some(8080), 80, 1, Tcp)),
            ("53:5353/udp", published(None, Some(53), 5353, 1, Udp)),
            ("8000-8002:80-82", published(None, Some(8000), 80, 3, Tcp)),
            ("80-82", published(None, None, 80, 3, Tcp)),
            ("1-65535:1-65535", published(None, Some(1), 1, 65535, Tcp)),
            (
                "127.0.0.1:8080:80",
                published(Some("127.0.0.1"), Some(8080), 80, 1, Tcp),
            ),
            (
                "127.0.0.1::80",
                published(Some("127.0.0.1"), None, 80, 1, Tcp),
            ),
            (
                "0.0.0.0:8:9",
                published(Some("0.0.0.0"), Some(8), 9, 1, Tcp),
            ),
            (
                "[::1]:8080:80/udp",
                published(Some("::1"), Some(8080), 80, 1, Udp),
            ),
            ("[::1]::80", published(Some("::1"), None, 80, 1, Tcp)),
            (
                "[2001:db8::2]:1-2:3-4",
                published(Some("2001:db8::2"), Some(1), 3, 2, Tcp),
            ),
        ] {
            assert_eq!(one(text), meant, "{text}");
        }
    }

    #[test]
    fn what_is_not_one_is_refused() {
        for (text, why) in [
            ("", "container's port"),
            (":", "container's port"),
            ("80:", "container's port"),
            ("0", "from 1 to 65535"),
            ("0:80", "host's port"),
            ("80:0", "container's port"),
            ("65536", "from 1 to 65535"),
            ("+80", "from 1 to 65535"),
            ("80-", "from 1 to 65535"),
            ("90-80", "ends before"),
            ("8000-8001:80", "differ in length"),
            ("80:80/sctp", "known: tcp, udp"),
            ("80/", "known: tcp, udp"),
            ("80/tcp/udp", "known: tcp, udp"),
            ("1.2.3:80:80", "not an IP address"),
            (":8080:80", "not an IP address"),
            ("localhost:80:80", "not an IP address"),
            ("::1:8080:80", "in brackets"),
            ("[::1:8080:80", "not closed"),
            ("[::1]80", "a colon"),
            ("[1.2.3.4]:80:80", "not an IPv6 address"),
            ("[::1]:80", "ADDR::80"),
            ("1.2.3.4:5:6:7", "in brackets"),
        ] {
            let refused = parse(text).unwrap_err();
            assert!(refused.contains(why), "{text}: {refused}");
        }
    }

    #[test]
    fn a_port_is_published_once() {
        let words = |line: &str| -> Vec<String> { line.split(' ').map(str::to_owned).collect() };
        for line in [
            "80:80 80:81",
            "80-90:80-90 90:1",
            "80:80 127.0.0.1:80:80",
            "80:80 [::1]:80:80",
            "0.0.0.0:80:80 127.0.0.1:80:80",
            "53:53/udp 50-60:50-60/udp",
        ] {
            let refused = ports(&words(line)).unwrap_err().to_string();
            assert!(refused.contains("has already"), "{line}: {refused}");
        }
        for line in [
            "80:80 81:80",
            "80:80 80:80/udp",
            "80 80",
            "127.0.0.1:80:80 127.0.0.2:80:80",
            "0.0.0.0:80:80 [::]:80:80",
            "0.0.0.0:80:80 [::1]:80:80",
        ] {
            assert_eq!(ports(&words(line)).unwrap().len(), 2, "{line}");
        }
    }

    #[test]
    fn only_with_a_network_of_our_own() {
        let words = ["80:80".to_owned()];
        for (network, why) in [(Network::None, "--net=none"), (Network::Host, "--net=host")] {
            let refused = publish(&words, &network).unwrap_err().to_string();
            assert!(refused.contains(why), "{refused}");
            assert!(publish(&[], &network).unwrap().is_empty());
        }
    }

    #[test]
    fn names() {
        for good in ["a", "Web.1", "9_-", &"x".repeat(NAME_MOST)] {
            assert_eq!(name(good).unwrap(), *good);
        }
        for bad in [
            "",
            "-a",
            ".a",
            "_a",
            "a/b",
            "a b",
            "é",
            &"x".repeat(NAME_MOST + 1),
        ] {
            assert!(name(bad).is_err(), "{bad:?}");
        }
    }

    fn any_publish() -> impl Strategy<Value = Publish> {
        let address = prop_oneof![
            Just(None),
            any::<u32>().prop_map(|bits| Some(IpAddr::V4(bits.into()))),
            any::<u128>().prop_map(|bits| Some(IpAddr::V6(bits.into()))),
        ];
        (
            address,
            any::<bool>(),
            1..=65535_u16,
            1..=65535_u16,
            any::<u16>(),
            any::<bool>(),
        )
            .prop_map(|(address, fixed, host, container, count, udp)| Publish {
                address,
                host_port: fixed.then_some(host),
                container_port: container,
                count: count.min(u16::MAX - host.max(container)).max(1),
                transport: if udp { Transport::Udp } else { Transport::Tcp },
            })
    }

    proptest! {
        #[test]
        fn it_is_shown_as_it_is_typed(publish in any_publish()) {
            prop_assert_eq!(parse(&publish.to_string()), Ok(publish));
        }

        #[test]
        fn any_text_is_taken_or_refused(text in "[0-9:/\\[\\]a-z.-]{0,30}|.{0,30}") {
            if let Ok(publish) = parse(&text) {
                prop_assert_eq!(parse(&publish.to_string()), Ok(publish));
                prop_assert_eq!(publish.container_ports().count(), usize::from(publish.count));
            }
        }

        #[test]
        fn collisions_are_mutual(a in any_publish(), b in any_publish()) {
            prop_assert_eq!(a.collides_with(&b), b.collides_with(&a));
            prop_assert!(a.host_port.is_none() || a.collides_with(&a));
        }
    }
}
