//! The host's network, and the limits of it.

use super::super::Finding;
use super::super::facts::{Address, Host, Resolvers, Surroundings};
use super::os;
use crate::error::Hint;
use crate::net;

/// Fewer flows than this a program with many connections may miss.
const FEW_FLOWS: usize = 1000;

fn route(address: &Address) -> Result<String, String> {
    match (&address.source, &address.by) {
        (Ok(source), Some((device, gateway))) if !gateway.is_unspecified() => Ok(format!(
            "default route by {device} and {gateway}, from {source}"
        )),
        (Ok(source), Some((device, _))) => Ok(format!("default route by {device}, from {source}")),
        (Ok(source), None) => Ok(format!("a route to the world, from {source}")),
        (Err(errno), _) => Err(format!("no route to the world: {}", os(*errno))),
    }
}

/// IPv4
pub(super) fn v4(address: &Address) -> Finding {
    match route(address) {
        Ok(found) => Finding::ok("IPv4", found),
        Err(found) => Finding::limited(
            "IPv4",
            format!("{found}; a container reaches what the host has routes to"),
        )
        .remedy("give the host a default route: as root, 'ip route add default via GATEWAY'"),
    }
}

/// IPv6. `has`: an address of the host lets containers have IPv6.
pub(super) fn v6(address: &Address, has: bool, around: &Surroundings) -> Finding {
    if !has {
        let disabled = around.setting("net.ipv6.conf.all.disable_ipv6");
        let (found, remedy) = match disabled.as_deref() {
            None => (
                "the kernel has none (no /proc/sys/net/ipv6)",
                "boot without ipv6.disable=1, or a kernel with CONFIG_IPV6",
            ),
            Some("1") => (
                "switched off: net.ipv6.conf.all.disable_ipv6 = 1",
                "as root, 'sysctl net.ipv6.conf.all.disable_ipv6=0'",
            ),
            Some(_) => (
                "no interface but lo has an address of global scope (/proc/net/if_inet6)",
                "give the host one: as root, 'ip address add ADDRESS/64 dev INTERFACE' and \
                 'ip -6 route add default via GATEWAY'",
            ),
        };
        let found = format!("{found}: containers get no IPv6 by default");
        return Finding::missing("IPv6", found).remedy(remedy);
    }
    match route(address) {
        Ok(found) => Finding::ok("IPv6", found),
        Err(found) => Finding::limited(
            "IPv6",
            format!("{found}; a container has it and reaches what the host has routes to"),
        )
        .remedy(
            "give the host a default route: as root, 'ip -6 route add default via GATEWAY'; or run \
             with --net=builtin:enable_ipv6=false",
        ),
    }
}

/// The servers for names.
pub(super) fn resolvers(resolvers: &Resolvers) -> Finding {
    const PART: &str = "resolvers";
    const REMEDY: &str = "as root, put 'nameserver ADDRESS' into /etc/resolv.conf; it is looked at \
                          again before each query";
    match resolvers {
        Ok((servers, named)) => {
            let list: Vec<String> = servers.iter().map(ToString::to_string).collect();
            let list = list.join(", ");
            if *named {
                Finding::ok(PART, format!("{list} (/etc/resolv.conf)"))
            } else {
                let found = format!(
                    "/etc/resolv.conf names none, so {list} is asked, as resolv.conf(5) says"
                );
                Finding::limited(PART, found).remedy(REMEDY)
            }
        }
        Err(why) => {
            let found = format!("/etc/resolv.conf: {why}; 127.0.0.1:53 is asked");
            Finding::limited(PART, found).remedy(REMEDY)
        }
    }
}

/// ICMP echo.
pub(super) fn echo(host: &Host, around: &Surroundings) -> Finding {
    const PART: &str = "echo";
    const KEY: &str = "net.ipv4.ping_group_range";
    let range = around.setting(KEY).unwrap_or_default();
    let range = range.split_whitespace().collect::<Vec<_>>().join(" ");
    match host.echo {
        Ok(()) => Finding::ok(
            PART,
            format!("ICMP echo sockets can be made ({KEY} = {range})"),
        ),
        Err(errno @ (libc::EACCES | libc::EPERM)) => {
            let groups: Vec<String> = host.groups.iter().map(ToString::to_string).collect();
            let found = format!(
                "only the gateway answers ping: {KEY} = {range} has none of your groups ({}): {}",
                groups.join(", "),
                os(errno)
            );
            Finding::limited(PART, found)
                .remedy(format!("as root, 'sysctl -w \"{KEY}=0 2147483647\"'"))
        }
        Err(errno) => Finding::limited(
            PART,
            format!(
                "only the gateway answers ping: ICMP echo socket: {}",
                os(errno)
            ),
        )
        .remedy("a kernel with CONFIG_INET is needed, and nothing around that filters socket(2)"),
    }
}

/// Ports to publish.
pub(super) fn ports(host: &Host, around: &Surroundings) -> Finding {
    const PART: &str = "ports";
    const KEY: &str = "net.ipv4.ip_unprivileged_port_start";
    let first: Option<u16> = around.setting(KEY).and_then(|value| value.parse().ok());
    match (host.lowest_port, first) {
        (Ok(()), _) => Finding::ok(PART, "any can be published, from 1 up"),
        (Err(_), Some(first)) if first > 1 => Finding::limited(
            PART,
            format!("{first} is the lowest to be published ({KEY})"),
        )
        .remedy(Hint::PrivilegedPort(first, 80).remedy()),
        (Err(errno), _) => Finding::limited(PART, format!("port 1 cannot be bound: {}", os(errno)))
            .remedy("publish higher ports, or have the sockets bound for you (LISTEN_FDS)"),
    }
}

/// Open files.
pub(super) fn descriptors(limit: Option<u64>) -> Finding {
    const PART: &str = "descriptors";
    let flows = net::flows_within(limit);
    let limit = limit.map_or_else(|| "unlimited".to_owned(), |limit| limit.to_string());
    let found = format!("{flows} connections at once (hard limit RLIMIT_NOFILE = {limit})");
    if flows >= FEW_FLOWS {
        Finding::ok(PART, found)
    } else {
        Finding::limited(PART, found).remedy(
            "as root, '* hard nofile 524288' in /etc/security/limits.d/crun-lite.conf and a new \
             login, or LimitNOFILE=524288 for a service",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::State;
    use super::super::testing::{around, says};
    use super::*;

    fn address(source: Result<&str, i32>, by: Option<(&str, &str)>) -> Address {
        Address {
            source: source.map(|address| address.parse().unwrap()),
            by: by.map(|(device, gateway)| (device.to_owned(), gateway.parse().unwrap())),
        }
    }

    fn host() -> Host {
        Host {
            v4: address(Ok("198.18.0.1"), None),
            v6: address(Err(libc::ENETUNREACH), None),
            has_v6: false,
            resolvers: Ok((Vec::new(), true)),
            echo: Ok(()),
            groups: vec![1000, 27],
            lowest_port: Err(libc::EACCES),
        }
    }

    #[test]
    fn routes() {
        let good = address(Ok("198.18.0.1"), Some(("eth0", "198.18.0.254")));
        assert_eq!(
            v4(&good).found,
            "default route by eth0 and 198.18.0.254, from 198.18.0.1"
        );
        let point = address(Ok("198.18.0.1"), Some(("tun0", "0.0.0.0")));
        assert_eq!(v4(&point).found, "default route by tun0, from 198.18.0.1");
        assert_eq!(v4(&host().v4).state, State::Ok);
        let none = address(Err(libc::ENETUNREACH), None);
        says(
            &v4(&none),
            State::Limited,
            "unreachable",
            "ip route add default",
        );
    }

    #[test]
    fn the_other_version() {
        let key = "net.ipv6.conf.all.disable_ipv6";
        let none = host().v6;
        let missing = |settings: &[(&'static str, &str)]| v6(&none, false, &around(settings));
        says(
            &missing(&[]),
            State::Missing,
            "the kernel has none",
            "ipv6.disable",
        );
        says(
            &missing(&[(key, "1")]),
            State::Missing,
            key,
            "disable_ipv6=0",
        );
        says(
            &missing(&[(key, "0")]),
            State::Missing,
            "global scope",
            "ip address add",
        );
        says(
            &v6(&none, true, &around(&[(key, "0")])),
            State::Limited,
            "no route",
            "ip -6 route add default",
        );
        let good = address(Ok("2001:db8::1"), Some(("eth0", "fe80::1")));
        assert_eq!(v6(&good, true, &around(&[])).state, State::Ok);
    }

    #[test]
    fn servers() {
        let at = || vec!["127.0.0.53:53".parse().unwrap()];
        let named = resolvers(&Ok((at(), true)));
        assert_eq!(named.found, "127.0.0.53:53 (/etc/resolv.conf)");
        says(
            &resolvers(&Ok((at(), false))),
            State::Limited,
            "names none",
            "nameserver",
        );
        says(
            &resolvers(&Err("no".to_owned())),
            State::Limited,
            "127.0.0.1:53",
            "nameserver",
        );
    }

    #[test]
    fn pings() {
        let range = around(&[("net.ipv4.ping_group_range", "1\t0")]);
        assert!(echo(&host(), &range).found.contains("= 1 0)"));
        let refused = Host {
            echo: Err(libc::EACCES),
            ..host()
        };
        let finding = echo(&refused, &range);
        says(
            &finding,
            State::Limited,
            "1 0 has none of your groups (1000, 27)",
            "ping_group_range=0 2147483647",
        );
        let unknown = Host {
            echo: Err(libc::EPROTONOSUPPORT),
            ..host()
        };
        says(
            &echo(&unknown, &range),
            State::Limited,
            "socket",
            "CONFIG_INET",
        );
    }

    #[test]
    fn low_ports() {
        let usual = around(&[("net.ipv4.ip_unprivileged_port_start", "1024")]);
        says(
            &ports(&host(), &usual),
            State::Limited,
            "1024 is the lowest",
            "port_start=80",
        );
        let any = Host {
            lowest_port: Ok(()),
            ..host()
        };
        assert_eq!(ports(&any, &usual).state, State::Ok);
        let odd = around(&[("net.ipv4.ip_unprivileged_port_start", "0")]);
        says(
            &ports(&host(), &odd),
            State::Limited,
            "port 1",
            "LISTEN_FDS",
        );
    }

    #[test]
    fn open_files() {
        assert_eq!(descriptors(None).state, State::Ok);
        assert_eq!(
            descriptors(Some(4096)).found,
            "4032 connections at once (hard limit RLIMIT_NOFILE = 4096)"
        );
        says(
            &descriptors(Some(100)),
            State::Limited,
            "36 connections",
            "nofile 524288",
        );
    }
}
