//! resolv.conf(5), as much as a forwarder needs.

use std::net::{IpAddr, SocketAddr};

/// What the host's `resolv.conf` says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResolvConf {
    /// `nameserver` lines.
    pub servers: Vec<IpAddr>,
    /// `search`, `domain` and `options` lines, to be passed on as they are.
    pub other: String,
}

impl ResolvConf {
    /// Parses the file; lines that mean nothing to us are dropped, as the
    /// resolver library does.
    pub fn parse(text: &str) -> Self {
        let mut parsed = Self::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match (words.next(), words.next()) {
                (Some("nameserver"), Some(address)) => {
                    // A scope (fe80::1%eth0) names an interface that only this host knows.
                    if let Ok(address) = address.parse() {
                        parsed.servers.push(address);
                    }
                }
                (Some("search" | "domain" | "options"), Some(_)) => {
                    parsed.other.push_str(line.trim());
                    parsed.other.push('\n');
                }
                _ => {}
            }
        }
        parsed
    }

    /// Reads the host's file; without one there are no resolvers.
    pub fn host() -> Self {
        match std::fs::read("/etc/resolv.conf") {
            Ok(bytes) => Self::parse(&String::from_utf8_lossy(&bytes)),
            Err(error) => {
                tracing::info!("/etc/resolv.conf: {error}");
                Self::default()
            }
        }
    }

    /// Where queries go.
    pub fn upstreams(&self) -> Vec<SocketAddr> {
        self.servers
            .iter()
            .map(|server| SocketAddr::new(*server, 53))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_and_the_rest() {
        let text = "# c\nnameserver 127.0.0.53\n nameserver  ::1 \nnameserver fe80::1%eth0\n\
                    nameserver bad\nsearch a.example b.example\noptions edns0 trust-ad\nnameserver\n";
        let parsed = ResolvConf::parse(text);
        assert_eq!(
            parsed.upstreams(),
            [
                "127.0.0.53:53".parse().unwrap(),
                "[::1]:53".parse().unwrap()
            ]
        );
        assert_eq!(
            parsed.other,
            "search a.example b.example\noptions edns0 trust-ad\n"
        );
    }
}
