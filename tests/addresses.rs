//! Which addresses a container has, which the world sees, and several containers
//! at once.

use std::time::Duration;

use crate::util::{Family, Host, SOON, Side, Who, http, whoami};

const PORT: u16 = 7000;

/// Runs a script in the host's own tree and gives what it printed.
#[track_caller]
fn inside(who: Who, host: &Host, options: &[&str], script: &str) -> String {
    let command = ["--rootfs=/", "--", "sh", "-ec", script];
    who.crun(&[options, &command].concat())
        .on(host)
        .run()
        .success()
}

/// The sockets of a container's parent in IPv6: the host has no others. Each line
/// behind a table's first is one (proc(5)).
fn ipv6_sockets(host: &Host) -> usize {
    let tables = host.inside(Side::Host, || {
        ["tcp6", "udp6", "icmp6", "raw6"]
            .map(|name| std::fs::read_to_string(format!("/proc/thread-self/net/{name}")).unwrap())
    });
    tables.iter().map(|table| table.lines().count() - 1).sum()
}

/// Prints what the container has of IPv6, then asks the far side in both versions
/// and waits.
fn ask_and_wait() -> String {
    let [v4, v6] = [Family::V4, Family::V6].map(|family| family.far());
    format!(
        "ip -6 -oneline addr show dev tap0; ip -6 route show default
/usr/bin/python3 -c \"$1\" {v4} {PORT}
/usr/bin/python3 -c \"$1\" {v6} {PORT} || echo no IPv6
ping -6 -c 1 -W 1 {v6} > /dev/null || echo no ping
echo asked
read line"
    )
}

both! {
    fn ipv6_is_there_when_the_host_has_it_and_not_when_it_is_off(who) {
        let host = routed_host!(who, "python3", "ping");
        let _servers =
            [Family::V4, Family::V6].map(|family| whoami::start(&host, Side::Far, family.far(), PORT));
        // Off comes first: of a connection that has ended the kernel keeps an entry for a
        // minute (TIME-WAIT), on the side that has ended it.
        for (options, on) in [("builtin:enable_ipv6=false", false), ("builtin", true)] {
            let net = format!("--net={options}");
            let script = ask_and_wait();
            let args = [&net, "-i", "--rootfs=/", "--", "sh", "-c", &script, "sh", whoami::CLIENT];
            let mut run = who.crun(&args).on(&host).stdin_open().spawn();
            run.expect("asked\n");
            let sockets = ipv6_sockets(&host);
            run.write(b"\n");
            let output = run.finish().exit(0);
            let (v4, v6) = (Family::V4.host(), Family::V6.host());
            let printed = &output.stdout;
            assert!(printed.contains(&format!("UDP {v4} ")), "{output}");
            for part in ["inet6 fd00::", "default via ", &format!("TCP {v6} "), &format!("UDP {v6} ")] {
                assert_eq!(printed.contains(part), on, "{options}: {part:?}{output}");
            }
            // Off is off: not even an address of the link, from which to ask a router.
            assert_eq!(printed.contains("inet6"), on, "{options}{output}");
            assert_eq!(printed.contains("no IPv6\n"), !on, "{options}{output}");
            assert_eq!(printed.contains("no ping\n"), !on, "{options}{output}");
            assert_eq!(sockets > 0, on, "{options}: {sockets} sockets of IPv6{output}");
        }
    }

    /// An answer about the gateway may be lost; an entry that is permanent needs none.
    fn the_gateways_are_neighbors_from_the_start(who) {
        let host = routed_host!(who);
        let printed = inside(who, &host, &[], "ip neigh show dev tap0 nud permanent");
        for gateway in ["10.0.2.2", "fd00::2"] {
            let entry = format!("{gateway} lladdr 52:55:0a:00:02:02 PERMANENT");
            assert!(printed.contains(&entry), "{printed}");
        }
    }

    fn ipv6_is_not_there_when_the_host_has_none(who) {
        need!(who.has_tun(), "{who:?} may not open /dev/net/tun");
        let host = Host::new();
        need!(host.is_own(), "a host without IPv6 needs root");
        let printed = inside(who, &host, &[], "ip -6 -oneline addr show dev tap0; ip -6 route");
        assert_eq!(printed, "");
    }

    fn the_ipv6_network_is_never_one_of_the_hosts(who) {
        let host = routed_host!(who, "python3");
        let _server = whoami::start(&host, Side::Far, Family::V6.far(), PORT);
        host.tool(&["ip", "addr", "add", "fd00::5/64", "dev", "host0", "nodad"]);
        host.tool(&["ip", "route", "add", "fd00:0:0:1::/64", "via", &Family::V6.router().to_string()]);
        let script = format!(
            "ip -6 -oneline addr show dev tap0 scope global
             python3 -c '{}' {} {PORT}",
            whoami::CLIENT.replace('\'', "\""),
            Family::V6.far()
        );
        let printed = inside(who, &host, &[], &script);
        assert!(printed.contains("inet6 fd00:0:0:2:"), "{printed}");
        assert!(printed.contains("TCP 2001:db8::1 "), "{printed}");
    }

    fn the_ipv6_network_is_an_option(who) {
        let host = routed_host!(who, "python3");
        let _server = whoami::start(&host, Side::Far, Family::V6.far(), PORT);
        let script = format!(
            "ip -6 -oneline addr show dev tap0 scope global; ip -6 route
             python3 -c '{}' {} {PORT}",
            whoami::CLIENT.replace('\'', "\""),
            Family::V6.far()
        );
        let options = ["--net=builtin:cidr6=fd42:1:2:3::/64"];
        let printed = inside(who, &host, &options, &script);
        assert!(printed.contains("inet6 fd42:1:2:3:"), "{printed}");
        assert!(printed.contains("TCP 2001:db8::1 "), "{printed}");
        assert!(!printed.contains("fd00:"), "{printed}");
    }

    fn the_hardware_address_is_an_option(who) {
        let host = routed_host!(who, "ping");
        let options = ["--mac-address=02:11:22:33:44:55"];
        let script = format!(
            "cat /sys/class/net/tap0/address
             for to in -4\\ {} -6\\ {}; do ping -c 1 -W 5 $to | grep -c ' 0% packet loss'; done",
            Family::V4.far(),
            Family::V6.far()
        );
        let printed = inside(who, &host, &options, &script);
        assert_eq!(printed, "02:11:22:33:44:55\n1\n1\n");
    }

    fn the_world_sees_the_address_that_was_chosen(who) {
        let host = routed_host!(who, "python3");
        let _servers =
            [Family::V4, Family::V6].map(|family| whoami::start(&host, Side::Far, family.far(), PORT));
        host.tool(&["ip", "addr", "add", "198.18.0.7/24", "dev", "host0"]);
        host.tool(&["ip", "addr", "add", "2001:db8::7/64", "dev", "host0", "nodad"]);
        let options = ["--net=builtin:outbound_addr=198.18.0.7,outbound_addr6=2001:db8::7"];
        let script = format!(
            "python3 -c '{}' {} {PORT} {} {PORT}",
            whoami::CLIENT.replace('\'', "\""),
            Family::V4.far(),
            Family::V6.far()
        );
        let printed = inside(who, &host, &options, &script);
        for start in ["TCP 198.18.0.7 ", "UDP 198.18.0.7 ", "TCP 2001:db8::7 ", "UDP 2001:db8::7 "] {
            assert!(printed.contains(start), "{start:?} is missing: {printed}");
        }
    }

    fn ten_containers_at_once_do_not_mix(who) {
        let host = routed_host!(who, "curl", "python3");
        let servers = Family::ALL
            .iter()
            .map(|&family| (family, http::start_at(&host, Side::Far, family.far())));
        let servers: Vec<_> = servers.collect();
        let _names: Vec<_> = Family::ALL
            .iter()
            .map(|&family| whoami::start(&host, Side::Far, family.far(), PORT))
            .collect();
        let runs: Vec<_> = (0..10_u64)
            .map(|number| {
                let bytes = (4 << 20) + number;
                let mut script = String::new();
                for (family, server) in &servers {
                    let url = family.far_in_url(server.port());
                    script += &format!(
                        "curl -sS http://{url}/bytes/{bytes} | sha256sum
                         python3 -c '{}' {} {PORT} | grep -c UDP\n",
                        whoami::CLIENT.replace('\'', "\""),
                        family.far()
                    );
                }
                let run = who
                    .crun(&["--rootfs=/", "--", "sh", "-ec", &script])
                    .on(&host)
                    .limit(SOON + Duration::from_secs(60))
                    .spawn();
                (bytes, run)
            })
            .collect();
        for (bytes, run) in runs {
            let once = format!("{}  -\n1\n", http::sha256_of_bytes(bytes));
            assert_eq!(run.finish().success(), once.repeat(Family::ALL.len()));
        }
    }
}
