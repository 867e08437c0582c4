//! Clients that ask for what is set already.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use crate::util::{Who, has_program};

/// What a client calls when it has got something: it says what.
const HOOK: &str = "#!/bin/sh
[ \"$1$reason\" = deconfig ] || env | sort
";

/// Runs a client in a container that may use raw sockets; what it has printed.
#[track_caller]
fn client(who: Who, host: &crate::util::Host, net: &str, script: &str) -> String {
    let folder = who.folder();
    let hook = folder.path().join("hook");
    fs::write(&hook, HOOK).unwrap();
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
    who.own(&hook);
    who.crun(&[
        net,
        "--dns-search=corp.example",
        "--rootfs=/",
        "--tmpfs=/run",
        &format!("--volume={}:/mnt", folder.path().display()),
        "--cap-add=NET_ADMIN,NET_RAW",
        "--",
        "sh",
        "-ec",
        script,
    ])
    .on(host)
    .limit(Duration::from_secs(60))
    .run()
    .success()
}

#[track_caller]
fn assert_lines(printed: &str, lines: &[&str]) {
    for line in lines {
        assert!(
            printed.lines().any(|printed| printed == *line),
            "no {line:?}: {printed}"
        );
    }
}

both! {
    fn udhcpc_gets_the_address(who) {
        let host = routed_host!(who, "busybox");
        let script = "busybox udhcpc -i tap0 -n -q -f -t 10 -O search -O mtu -s /mnt/hook 2>&1";
        let printed = client(who, &host, "--net=builtin:mtu=1500", script);
        assert_lines(&printed, &[
            "ip=10.0.2.100",
            "mask=24",
            "subnet=255.255.255.0",
            "router=10.0.2.2",
            "dns=10.0.2.3",
            "mtu=1500",
            "serverid=10.0.2.2",
            "search=corp.example",
        ]);
    }

    fn dhclient_gets_the_address(who) {
        let host = routed_host!(who);
        need!(has_program("dhclient"), "no dhclient(8)");
        let script = "dhclient -1 -sf /mnt/hook -lf /run/leases -pf /run/pid tap0";
        let printed = client(who, &host, "--net=builtin:mtu=9000,cidr=10.9.0.0/16", script);
        assert_lines(&printed, &[
            "reason=BOUND",
            "new_ip_address=10.9.0.100",
            "new_subnet_mask=255.255.0.0",
            "new_routers=10.9.0.2",
            "new_domain_name_servers=10.9.0.3",
            "new_interface_mtu=9000",
            "new_domain_search=corp.example.",
            "new_dhcp_lease_time=4294967295",
        ]);
    }

    fn dhclient_gets_information_about_ipv6(who) {
        let host = routed_host!(who);
        need!(has_program("dhclient"), "no dhclient(8)");
        let script = "sleep 0; until ip -6 addr show dev tap0 scope link -tentative | grep -q fe80; do sleep 0.1; done
                      dhclient -6 -1 -S -sf /mnt/hook -lf /run/leases -pf /run/pid tap0
                      dhclient -6 -1 -sf /mnt/hook -lf /run/leases2 -pf /run/pid2 tap0";
        let printed = client(who, &host, "--net=builtin:enable_ipv6=true,cidr6=fd07::/64", script);
        assert_lines(&printed, &[
            "new_dhcp6_name_servers=fd07::3",
            "new_dhcp6_domain_search=corp.example.",
            "reason=BOUND6",
            "new_ip6_address=fd07::100",
            "new_max_life=4294967295",
        ]);
    }
}
