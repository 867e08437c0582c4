//! Names are resolved by the resolvers of the host, whatever becomes of them.

use std::net::Ipv4Addr;

use crate::network::MTUS;
use crate::util::command::Running;
use crate::util::dns::{self, DnsServer};
use crate::util::host::RESOLVER_ADDRESS;
use crate::util::{Host, Side, Who, has_program};

both! {
    fn names_are_resolved_over_udp_and_tcp(who) {
        need!(who.has_tun(), "{who:?} may not open /dev/net/tun");
        need!(has_program("dig"), "no dig(1)");
        let host = Host::new();
        need!(host.is_own(), "a resolver of the test's own needs root");
        let server = DnsServer::start(&host);
        let script = "
            dig +short +notcp host.test; dig +short +tcp host.test
            dig +short +tcp @10.0.2.3 host.test; dig +notcp absent.test | grep -o NXDOMAIN
            dig +short long.test TXT | tr -d '\" ' | wc -c";
        for mtu in MTUS {
            let output = who
                .crun(&[
                    &format!("--mtu={mtu}"),
                    "--rootfs=/",
                    "--",
                    "sh",
                    "-c",
                    script,
                ])
                .on(&host)
                .run();
            let address = dns::ADDRESS;
            assert_eq!(
                output.success(),
                format!("{address}\n{address}\n{address}\nNXDOMAIN\n1201\n"),
                "MTU {mtu}"
            );
        }
        assert!(server.udp.received(&host, Side::Host) >= 6);
        assert!(server.tcp.accepted(&host, Side::Host) >= 6);
        let busybox = who
            .crun(&["--", "nslookup", "host.test"])
            .on(&host)
            .run()
            .exit(0);
        assert!(
            busybox.stdout.contains(&dns::ADDRESS.to_string()),
            "{busybox}"
        );
    }

    fn dead_resolvers_are_passed_over(who) {
        need!(who.has_tun(), "{who:?} may not open /dev/net/tun");
        need!(has_program("dig"), "no dig(1)");
        let host = Host::new();
        need!(host.is_own(), "a resolver of the test's own needs root");
        let _server = DnsServer::start(&host);
        // Without a route; without a server; alive.
        let alive = RESOLVER_ADDRESS.to_string();
        host.set_resolvers(&["2001:db8::53", "127.0.0.54", &alive]);
        // A client that asks once.
        let script = "
            dig +short +tries=1 +notcp host.test; dig +short +tries=1 +tcp host.test
            dig +short +tries=1 long.test TXT | tr -d '\" ' | wc -c";
        let crun = |script| {
            let run = who.crun(&["--rootfs=/", "--", "sh", "-c", script]);
            run.on(&host).run()
        };
        let address = dns::ADDRESS;
        assert_eq!(crun(script).success(), format!("{address}\n{address}\n1201\n"));
        // All are dead: the client is told, and does not wait for it.
        host.set_resolvers(&["2001:db8::53", "127.0.0.54"]);
        let output = crun("dig +tries=1 +time=30 +notcp host.test");
        assert!(output.stdout.contains("connection refused"), "{output}");
    }

    fn answers_of_any_length_pass(who) {
        need!(who.has_tun(), "{who:?} may not open /dev/net/tun");
        need!(has_program("dig"), "no dig(1)");
        let host = Host::new();
        need!(host.is_own(), "a resolver of the test's own needs root");
        let server = DnsServer::start(&host);
        for mtu in MTUS {
            // Over TCP after a truncated answer; in one datagram; over TCP at once.
            let script = "for how in +bufsize=1232 '+bufsize=8192 +notcp +ignore' +tcp; do
                dig +short +tries=1 $how huge.test TXT | tr -d '\" \n' | wc -c; done";
            let mtu = format!("--mtu={mtu}");
            let run = who.crun(&[&mtu, "--rootfs=/", "--", "sh", "-c", script]);
            assert_eq!(run.on(&host).run().success(), "6000\n6000\n6000\n", "{mtu}");
        }
        assert_eq!(server.udp.received(&host, Side::Host), 4);
    }

    fn forged_answers_are_not_believed(who) {
        need!(who.has_tun(), "{who:?} may not open /dev/net/tun");
        need!(has_program("dig"), "no dig(1)");
        let host = Host::new();
        need!(host.is_own(), "a resolver of the test's own needs root");
        let server = dns::liar(&host);
        let run = who.crun(&["--rootfs=/", "--", "dig", "+short", "+tries=1", "host.test"]);
        // A forgery that came through would stand here, or a warning of dig's.
        assert_eq!(run.on(&host).run().success(), format!("{}\n", dns::ADDRESS));
        assert_eq!(server.received(&host, Side::Host), 1);
    }

    fn a_resolv_conf_that_is_replaced_is_followed(who) {
        need!(who.has_tun(), "{who:?} may not open /dev/net/tun");
        let host = Host::new();
        need!(host.is_own(), "a resolver of the test's own needs root");
        need!(host.has_own_etc(), "no overlay filesystem");
        let first = DnsServer::start(&host);
        let script = "while read -r _; do nslookup host.test | grep -o '192[.].*53$'; done";
        let mut run = who
            .crun(&["--interactive", "--", "sh", "-c", script])
            .stdin_open()
            .on(&host)
            .spawn();
        let address = dns::ADDRESS.to_string();
        let answered = |run: &mut Running| {
            run.write(b"ask\n");
            run.expect(&format!("{address}\n"));
        };
        answered(&mut run);
        // Only the new one is alive.
        drop(first);
        let other = Ipv4Addr::new(127, 0, 0, 54);
        let _second = DnsServer::start_at(&host, Side::Host, other);
        host.replace_resolv_conf(&[&other.to_string()]);
        answered(&mut run);
        run.close_stdin();
        assert_eq!(run.finish().success(), format!("{address}\n").repeat(2));
    }
}
