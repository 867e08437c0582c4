//! Kernel parameters of the container's own, and the size of `/dev/shm`.

use std::fs;

use crate::util::Who;

fn host_value(key: &str) -> String {
    fs::read_to_string(format!("/proc/sys/{}", key.replace('.', "/"))).unwrap()
}

/// Whether IPC parameters belong to root of the namespace's owner (Linux 6.9).
fn ipc_is_the_namespaces(who: Who) -> bool {
    let own = "unshare --user --map-root-user --ipc sh -c 'echo 8192 > /proc/sys/kernel/msgmax'";
    who == Who::Root || who.can(&["sh", "-c", own])
}

both! {
    fn a_network_parameter_is_set_in_the_container_alone(who) {
        let before = host_value("net.ipv4.ip_unprivileged_port_start");
        for key in ["net.ipv4.ip_unprivileged_port_start", "net/ipv4/ip_unprivileged_port_start"] {
            let option = format!("--sysctl={key}=81");
            let printed = who.sh(
                &[&option, "--sysctl=net.ipv4.ip_local_port_range=20000 30000"],
                "cd /proc/sys/net/ipv4; cat ip_unprivileged_port_start ip_local_port_range",
            );
            assert_eq!(printed, "81\n20000\t30000\n", "{key}");
        }
        assert_eq!(host_value("net.ipv4.ip_unprivileged_port_start"), before);
    }

    fn the_link_has_parameters_too(who) {
        need!(who.has_tun(), "{:?} may not open /dev/net/tun", who);
        let script = "cat /proc/sys/net/ipv4/conf/tap0/rp_filter /proc/sys/net/ipv4/ping_group_range";
        let output = who.run(&[
            "--sysctl=net.ipv4.conf.tap0.rp_filter=2",
            "--sysctl=net.ipv4.ping_group_range=0 5",
            "--",
            "sh",
            "-c",
            script,
        ]);
        assert_eq!(output.success(), "2\n0\t5\n");
    }

    fn parameters_of_ipc_and_uts_are_set(who) {
        let printed = who.sh(&["--sysctl=kernel.domainname=example"], "cat /proc/sys/kernel/domainname");
        assert_eq!(printed, "example\n");
        need!(ipc_is_the_namespaces(who), "this kernel gives IPC parameters to the host's root");
        let before = host_value("kernel.msgmax");
        let printed = who.sh(
            &["--sysctl=kernel.msgmax=4242", "--sysctl=fs.mqueue.msg_max=7", "--sysctl=kernel.sem=10 20 30 40"],
            "cat /proc/sys/kernel/msgmax /proc/sys/fs/mqueue/msg_max /proc/sys/kernel/sem",
        );
        assert_eq!(printed, "4242\n7\n10\t20\t30\t40\n");
        assert_eq!(host_value("kernel.msgmax"), before);
    }

    fn what_is_not_the_containers_is_refused(who) {
        let pattern = host_value("kernel.core_pattern");
        for options in [
            &["--sysctl=kernel.core_pattern=|/bin/true"][..],
            &["--sysctl=vm.swappiness=1"],
            &["--sysctl=net.ipv4.ip_forward=1\nkernel.core_pattern=x"],
            &["--sysctl=net.ipv4.ip_forward+kernel.core_pattern=x"],
            &["--sysctl=net/../kernel/core_pattern=x"],
            &["--sysctl=net...kernel.core_pattern=x"],
            &["--sysctl=net.ipv4/../../kernel/core_pattern=x"],
            &["--sysctl=net.ipv4.ip_forward"],
            &["--sysctl=kernel.hostname=x"],
            &["--net=host", "--sysctl=net.ipv4.ip_forward=1"],
            &["--ipc=host", "--sysctl=kernel.msgmax=1"],
            &["--uts=host", "--sysctl=kernel.domainname=x"],
            // Known only to the kernel.
            &["--sysctl=net.ipv4.no_such_parameter=1"],
            &["--sysctl=net.ipv4.ip_local_port_range=many"],
        ] {
            let mut args = options.to_vec();
            args.extend(["--", "true"]);
            who.run(&args).refused(&["sysctl"]);
        }
        assert_eq!(host_value("kernel.core_pattern"), pattern);
    }

    fn the_command_cannot_set_them(who) {
        let printed = who.sh(
            &["--sysctl=net.ipv4.ip_forward=1"],
            "cat /proc/sys/net/ipv4/ip_forward; echo 0 2>/dev/null > /proc/sys/net/ipv4/ip_forward || echo refused",
        );
        assert_eq!(printed, "1\nrefused\n");
    }

    fn shm_has_its_size(who) {
        let df = "df -k /dev/shm | tail -n 1 | tr -s ' ' | cut -d ' ' -f 2";
        for (options, size) in [
            (&[][..], "65536\n"),
            (&["--shm-size=1m"], "1024\n"),
            (&["--shm-size=2097152b", "--read-only"], "2048\n"),
        ] {
            assert_eq!(who.sh(options, df), size, "{options:?}");
        }
        let fill = "head -c 2m /dev/zero > /dev/shm/file 2>/dev/null; wc -c < /dev/shm/file";
        assert_eq!(who.sh(&["--shm-size=1m"], fill), "1048576\n");
        // Without a limit df(1) has no size to show, and more than 64 MiB fit.
        let fill = "head -c 70m /dev/zero > /dev/shm/file && wc -c < /dev/shm/file";
        assert_eq!(who.sh(&["--shm-size=0"], fill), "73400320\n");
        who.run(&["--ipc=host", "--shm-size=1m", "--", "true"]).refused(&["--shm-size", "--ipc=host"]);
        who.run(&["--shm-size=much", "--", "true"]).refused(&["--shm-size", "much"]);
    }

    fn the_plan_tells_both(who) {
        let args = ["--dry-run", "--net=none", "--shm-size=1k", "--sysctl=net.ipv4.ip_forward=1", "true"];
        let plan = who.run(&args).success();
        for line in ["/dev/shm of at most 1024 bytes", "set sysctl net.ipv4.ip_forward to 1"] {
            assert!(plan.contains(line), "{line}: {plan}");
        }
    }
}
