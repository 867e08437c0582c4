//! The files of `/etc` that describe the container's own network.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr};

use crate::config::{Network, RunSpec, nameservers};

/// The container's name for the host (podman's).
const HOST_NAME: &str = "host.containers.internal";

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
        let (resolvers, address, gateway) = match &spec.network {
            Network::Builtin(net) => (
                vec![net.dns().into()],
                Some(net.container()),
                Some(net.gateway()),
            ),
            Network::None => (Vec::new(), None, None),
            Network::Host => (nameservers(host_resolv_conf), None, None),
        };
        let resolvers = if spec.dns.is_empty() {
            &resolvers
        } else {
            &spec.dns
        };
        let search = match spec.network {
            Network::None => "",
            Network::Builtin(_) | Network::Host => host_resolv_conf,
        };
        let mut hosts = hosts(&spec.hostname, address, gateway, &spec.add_host);
        if spec.network == Network::Host {
            hosts = host_hosts.as_bytes().to_vec();
            if !hosts.is_empty() && !hosts.ends_with(b"\n") {
                hosts.push(b'\n');
            }
            hosts.extend(added_hosts(&spec.add_host).into_bytes());
        }
        Self {
            resolv_conf: resolv_conf(resolvers, search),
            hosts,
            hostname: format!("{}\n", spec.hostname).into_bytes(),
        }
    }
}

/// A resolv.conf(5) with these name servers, and the `search`, `domain` and
/// `options` lines of `host`.
pub fn resolv_conf(nameservers: &[IpAddr], host: &str) -> Vec<u8> {
    let mut text = String::new();
    let kept = |line: &&str| {
        matches!(
            line.split_ascii_whitespace().next(),
            Some("search" | "domain" | "options")
        )
    };
    for line in host.lines().filter(kept) {
        text.push_str(line);
        text.push('\n');
    }
    for address in nameservers {
        // Writing to a string does not fail.
        let _ = writeln!(text, "nameserver {address}");
    }
    text.into_bytes()
}

/// A hosts(5) of a container with this name, and this address if it has one.
pub fn hosts(
    hostname: &str,
    address: Option<Ipv4Addr>,
    gateway: Option<Ipv4Addr>,
    added: &[(String, IpAddr)],
) -> Vec<u8> {
    let mut text =
        String::from("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    let address = address.unwrap_or(Ipv4Addr::LOCALHOST);
    let _ = writeln!(text, "{address}\t{hostname}");
    if let Some(gateway) = gateway
        && !added.iter().any(|(name, _)| name == HOST_NAME)
    {
        let _ = writeln!(text, "{gateway}\t{HOST_NAME}");
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
        let added = [("db".to_owned(), IpAddr::from([192, 0, 2, 7]))];
        let text = hosts(
            "box",
            Some([10, 0, 2, 100].into()),
            Some([10, 0, 2, 2].into()),
            &added,
        );
        assert_eq!(
            String::from_utf8(text).unwrap(),
            "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
             10.0.2.100\tbox\n10.0.2.2\thost.containers.internal\n192.0.2.7\tdb\n"
        );
        let own = [(HOST_NAME.to_owned(), IpAddr::from([192, 0, 2, 8]))];
        let text = hosts("box", None, Some([10, 0, 2, 2].into()), &own);
        let text = String::from_utf8(text).unwrap();
        assert!(text.contains("127.0.0.1\tbox\n"), "{text}");
        assert_eq!(text.matches(HOST_NAME).count(), 1, "{text}");
    }

    #[test]
    fn resolv_conf_keeps_what_names_no_server() {
        let host = "# comment\nnameserver 127.0.0.53\nsearch example.org\n options edns0\nsortlist 10.0.0.0\nsearches x";
        let text = resolv_conf(&[[10, 0, 2, 3].into()], host);
        assert_eq!(
            String::from_utf8(text).unwrap(),
            "search example.org\n options edns0\nnameserver 10.0.2.3\n"
        );
        assert_eq!(
            nameservers("nameserver 127.0.0.53\nnameserver\nnameserver x\n nameserver\t::1 #"),
            [IpAddr::from([127, 0, 0, 53]), "::1".parse().unwrap()]
        );
    }
}
