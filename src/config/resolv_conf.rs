//! resolv.conf(5), as much as a forwarder needs.

use std::fmt;
use std::net::IpAddr;

/// A server of a `nameserver` line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameServer {
    /// Its address.
    pub address: IpAddr,
    /// The interface behind a `%`, by name or number (RFC 4007, 11).
    pub zone: Option<String>,
}

impl NameServer {
    fn parse(text: &str) -> Option<Self> {
        let (address, zone) = match text.split_once('%') {
            Some((address, zone)) => (address, Some(zone.to_owned())),
            None => (text, None),
        };
        let address = address.parse().ok()?;
        Some(Self { address, zone })
    }
}

impl From<IpAddr> for NameServer {
    fn from(address: IpAddr) -> Self {
        Self {
            address,
            zone: None,
        }
    }
}

impl fmt::Display for NameServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.address)?;
        match &self.zone {
            Some(zone) => write!(f, "%{zone}"),
            None => Ok(()),
        }
    }
}

/// The servers of the `nameserver` lines; other lines are passed over.
pub fn nameservers(text: &str) -> Vec<NameServer> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_ascii_whitespace();
            (words.next() == Some("nameserver")).then(|| NameServer::parse(words.next()?))?
        })
        .collect()
}

/// The domains that names are looked for in: those of the last `search` or `domain`
/// line.
pub fn search_domains(text: &str) -> Vec<String> {
    let mut domains = Vec::new();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        if let Some("search" | "domain") = words.next() {
            domains = words.map(str::to_owned).collect();
        }
    }
    domains
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_usable_addresses() {
        let text = "# c\nnameserver 127.0.0.53\n nameserver  ::1 \nnameserver fe80::1%eth0\n\
                    nameserver bad\nsearch a.example\noptions edns0\nnameserver\n";
        let servers: Vec<String> = nameservers(text).iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["127.0.0.53", "::1", "fe80::1%eth0"]);
    }

    #[test]
    fn the_last_search_line_counts() {
        assert_eq!(search_domains("nameserver 127.0.0.1\n"), [""; 0]);
        let text = "domain a.example\n search b.example c.example\nsearches d\n#search e\n";
        assert_eq!(search_domains(text), ["b.example", "c.example"]);
        assert_eq!(search_domains("search a\nsearch\n"), [""; 0]);
    }
}
