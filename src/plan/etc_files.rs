//! The files of `/etc` that describe the container's own network.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr};

use crate::config::{NameServer, Network, RunSpec, nameservers};

/// The container's names for the host: podman's, and ours.
const HOST_NAMES: [&str; 2] = ["host.containers.internal", "host.crun-lite.internal"];

/// Content of the private files that are put over the root filesystem's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EtcFiles {
    /// `/etc/resolv.conf`, resolv.conf(5)
    pub resolv_conf: Vec<u8>,
    /// `/etc/hosts`, hosts(5)
    pub hosts: Vec<u8>,
    /// `/etc/hostname`, hostname(5)
    pub hostname: Vec<u8>,
}

impl EtcFiles {
    /// The files of a run. `host_resolv_conf` and `host_hosts` are the text of
    /// the host's own files, which a container in the host's network shares.
    pub fn new(spec: &RunSpec, host_resolv_conf: &str, host_hosts: &str) -> Self {
        let (mut own, mut gateways) = (Vec::new(), Vec::new());
        let (servers, host_text) = match &spec.network {
            Network::Builtin(net) => {
                own = net.container_addresses();
                gateways = net.gateway_addresses();
                (vec![IpAddr::from(net.dns()).into()], host_resolv_conf)
            }
            Network::None => (Vec::new(), ""),
            Network::Host => (nameservers(host_resolv_conf), host_resolv_conf),
        };
        let servers = if spec.dns.is_empty() {
            servers
        } else {
            spec.dns.iter().copied().map(NameServer::from).collect()
        };
        let mut hosts = hosts(&spec.hostname, &own, &gateways, &spec.add_host);
        if spec.network == Network::Host {
            hosts = host_hosts.as_bytes().to_vec();
            if !hosts.is_empty() && !hosts.ends_with(b"\n") {
                hosts.push(b'\n');
            }
            hosts.extend(added_hosts(&spec.add_host).into_bytes());
        }
        Self {
            resolv_conf: resolv_conf(
                &servers,
                host_text,
                spec.dns_search.as_deref(),
                spec.dns_options.as_deref(),
            ),
            hosts,
            hostname: format!("{}\n", spec.hostname).into_bytes(),
        }
    }
}

/// The names that a container has for itself and for the host, with their
/// addresses, for whoever asks by DNS. What `--add-host` names is left to it.
pub fn own_names(spec: &RunSpec) -> Vec<(String, Vec<IpAddr>)> {
    let Network::Builtin(net) = &spec.network else {
        return Vec::new();
    };
    let (container, gateway) = (net.container_addresses(), net.gateway_addresses());
    [(spec.hostname.as_str(), container)]
        .into_iter()
        .chain(HOST_NAMES.map(|name| (name, gateway.clone())))
        .filter(|(name, _)| !spec.add_host.iter().any(|(given, _)| given == name))
        .map(|(name, addresses)| (name.to_ascii_lowercase(), addresses))
        .collect()
}

/// The names of `--add-host`, each with an address.
pub fn given_names(spec: &RunSpec) -> Vec<(String, Vec<IpAddr>)> {
    let given = spec.add_host.iter();
    given
        .map(|(name, address)| (name.clone(), vec![*address]))
        .collect()
}

/// A resolv.conf(5) with these name servers, this search list and these options;
/// without the latter, the `search`, `domain` and `options` lines of `host`.
fn resolv_conf(
    servers: &[NameServer],
    host: &str,
    search: Option<&[String]>,
    options: Option<&[String]>,
) -> Vec<u8> {
    let mut text = String::new();
    let kept = |line: &&str| match line.split_ascii_whitespace().next() {
        Some("search" | "domain") => search.is_none(),
        Some("options") => options.is_none(),
        _ => false,
    };
    for line in host.lines().filter(kept) {
        text.push_str(line);
        text.push('\n');
    }
    for (key, words) in [("search", search), ("options", options)] {
        if let Some(words) = words.filter(|words| !words.is_empty()) {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{key} {}", words.join(" "));
        }
    }
    for server in servers {
        let _ = writeln!(text, "nameserver {server}");
    }
    text.into_bytes()
}

/// A hosts(5) of a container with this name and these addresses, which knows the
/// host by these gateways.
fn hosts(
    hostname: &str,
    own: &[IpAddr],
    gateways: &[IpAddr],
    added: &[(String, IpAddr)],
) -> Vec<u8> {
    let mut text =
        String::from("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    let loopback = [Ipv4Addr::LOCALHOST.into()];
    for address in if own.is_empty() { &loopback } else { own } {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{address}\t{hostname}");
    }
    let names: Vec<_> = HOST_NAMES
        .into_iter()
        .filter(|known| !added.iter().any(|(name, _)| name == known))
        .collect();
    for gateway in gateways.iter().filter(|_| !names.is_empty()) {
        let _ = writeln!(text, "{gateway}\t{}", names.join(" "));
    }
    text.push_str(&added_hosts(added));
    text.into_bytes()
}

fn added_hosts(added: &[(String, IpAddr)]) -> String {
    let mut text = String::new();
    for (name, address) in added {
        let _ = writeln!(text, "{address}\t{name}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_name_everything_once() {
        let addresses = |texts: &[&str]| -> Vec<IpAddr> {
            texts.iter().map(|text| text.parse().unwrap()).collect()
        };
        let added = [("db".to_owned(), IpAddr::from([192, 0, 2, 7]))];
        let own = addresses(&["10.0.2.100", "fd00::100"]);
        let gateways = addresses(&["10.0.2.2", "fd00::2"]);
        let text = hosts("box", &own, &gateways, &added);
        assert_eq!(
            String::from_utf8(text).unwrap(),
            "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
             10.0.2.100\tbox\nfd00::100\tbox\n\
             10.0.2.2\thost.containers.internal host.crun-lite.internal\n\
             fd00::2\thost.containers.internal host.crun-lite.internal\n192.0.2.7\tdb\n"
        );
        let own = [(HOST_NAMES[0].to_owned(), IpAddr::from([192, 0, 2, 8]))];
        let text = hosts("box", &[], &gateways, &own);
        let text = String::from_utf8(text).unwrap();
        assert!(text.contains("127.0.0.1\tbox\n"), "{text}");
        assert_eq!(text.matches(HOST_NAMES[0]).count(), 1, "{text}");
        assert_eq!(text.matches(HOST_NAMES[1]).count(), 2, "{text}");
    }

    #[test]
    fn resolv_conf_keeps_what_names_no_server() {
        let host = "# comment\nnameserver 127.0.0.53\nsearch example.org\n options edns0\nsortlist 10.0.0.0\nsearches x";
        let forwarder = [NameServer::from(IpAddr::from([10, 0, 2, 3]))];
        let text = |search: Option<&[String]>, options: Option<&[String]>| {
            String::from_utf8(resolv_conf(&forwarder, host, search, options)).unwrap()
        };
        assert_eq!(
            text(None, None),
            "search example.org\n options edns0\nnameserver 10.0.2.3\n"
        );
        let words = ["a.example".to_owned(), "b.example".to_owned()];
        assert_eq!(
            text(Some(&words), None),
            " options edns0\nsearch a.example b.example\nnameserver 10.0.2.3\n"
        );
        assert_eq!(
            text(Some(&[]), Some(&["ndots:2".to_owned()])),
            "options ndots:2\nnameserver 10.0.2.3\n"
        );
    }
}
