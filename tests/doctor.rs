//! `crun-lite doctor`: what it says is held against what other programs find, here and
//! where something has been taken away, and its verdict against what runs do.

use std::process::{Command, Stdio};

use crate::util::{CrunLite, Host, Side, Who, has_program, report, tool};

mod place;

use place::{Place, text};

/// What a shell of this user prints; whether it succeeds.
fn ask(who: Who, script: &str) -> (bool, String) {
    let mut argv = who.prefix();
    argv.extend(["sh", "-c", script].map(str::to_owned));
    let output = Command::new(&argv[0])
        .args(&argv[1..])
        .current_dir("/")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    (output.status.success(), printed)
}

/// Makes a socket of an address family, a type and a protocol.
const SOCKET: &str = "/usr/bin/python3 -c 'import socket, sys
socket.socket(*map(int, sys.argv[1:]))'";

/// Prints whether `tap0` takes TCP and UDP segments (`ETHTOOL_GFEATURES`).
const FEATURES: &str = r"
import array, fcntl, socket, struct
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
def call(data):
    data = array.array('B', data)
    request = bytearray(struct.pack('16sQ16x', b'tap0', data.buffer_info()[0]))
    fcntl.ioctl(s, 0x8946, request)
    return data.tobytes()
count = struct.unpack_from('I', call(struct.pack('IIQ', 0x37, 0, 1 << 4) + bytes(4)), 16)[0]
names = call(struct.pack('III', 0x1b, 4, count) + bytes(32 * count))[12:]
names = [names[i:i + 32].split(b'\0')[0] for i in range(0, 32 * count, 32)]
blocks = (count + 31) // 32
found = struct.unpack_from('I' * 4 * blocks, call(struct.pack('II', 0x3a, blocks) + bytes(16 * blocks)), 8)
for name in (b'tx-tcp-segmentation', b'tx-udp-segmentation'):
    at = names.index(name)
    print(found[at // 32 * 4 + 2] >> at % 32 & 1)
";

both! {
    /// Every statement about this host.
    fn what_it_says_of_this_host(who) {
        let said = Place::here(who).examined();
        let yes = |script: &str| ask(who, script).0;
        let prints = |script: &str| ask(who, script).1;
        let is_ok = |part: &str| said.of(part).0 == "ok";

        assert_eq!(said.of("kernel").1, prints("echo $(uname -s) $(uname -r) on $(uname -m)"));
        assert_eq!(is_ok("user namespaces"), yes("unshare --user true"));
        let limit = prints("cat /proc/sys/user/max_user_namespaces");
        assert!(said.of("user namespaces").1.contains(&format!("= {limit})")));
        let all = "unshare --user --mount --pid --fork --uts --ipc --net --cgroup true";
        assert_eq!(is_ok("namespaces"), yes(all));
        let fresh = "unshare --user --map-root-user --mount --pid --fork --net sh -c \
                     'mount -t proc proc /proc && mount -t sysfs sysfs /sys'";
        assert_eq!(is_ok("/proc and /sys"), yes(fresh));

        let root = who.crun(&["--net=none", "--log-level=info", "--", "true"]).run();
        let (_, chosen) = said.of("root filesystem").1.split_once(": ").unwrap();
        assert!(root.stderr.contains(&format!("root filesystem: {chosen}")), "{chosen}{root}");

        let tap = "test -r /dev/net/tun -a -w /dev/net/tun &&
                   unshare --user --map-root-user --net ip tuntap add mode tap name tap0";
        assert_eq!(is_ok("TAP"), yes(tap));
        let veth = format!("unshare --user --map-root-user --net sh -c \"ip link add type veth &&
                   {}\" sh", format!("{SOCKET} 17 3 0").replace('\n', "; "));
        assert_eq!(is_ok("veth"), yes(&veth));

        let limit = prints("ulimit -Hn");
        assert!(said.of("descriptors").1.contains(&format!("RLIMIT_NOFILE = {limit})")));
        assert!(prints("cat /proc/sys/kernel/seccomp/actions_avail").contains("errno"));
        assert!(is_ok("seccomp"));
        let filter = who.sh(&[], "grep ^Seccomp: /proc/self/status");
        assert_eq!(filter.split_whitespace().last(), Some("2"));
        let version = prints("/usr/bin/python3 -c 'import ctypes
print(ctypes.CDLL(None).syscall(444, None, 0, 1))'");
        let (state, found) = said.of("Landlock");
        match version.parse::<i32>().unwrap() {
            -1 => assert_eq!(state, "missing"),
            version => assert!(found.starts_with(&format!("ABI version {version};")), "{found}"),
        }
    }

    fn what_it_says_of_the_hosts_network(who) {
        let said = Place::here(who).doctor();
        let prints = |script: &str| ask(who, script).1;
        for (part, family, world) in [("IPv4", "-4", "198.41.0.4"), ("IPv6", "-6", "2001:503:ba3e::2:30")] {
            let (state, found) = said.of(part);
            let (routed, route) = ask(who, &format!("ip -o {family} route get {world}"));
            if state == "ok" {
                assert!(routed, "{found}");
                for (before, key) in [("default route by ", "dev"), ("from ", "src")] {
                    let value = route.split(&format!(" {key} ")).nth(1).unwrap();
                    let value = value.split_whitespace().next().unwrap();
                    assert!(found.contains(&format!("{before}{value}")), "{found}: {route}");
                }
            } else if part == "IPv4" {
                assert!(!routed, "{found}: {route}");
            }
        }
        let global = prints("ip -o -6 addr show scope global | grep -v ' lo '");
        assert_eq!(said.of("IPv6").0 == "missing", global.is_empty(), "{global}");

        for server in prints("awk '$1 == \"nameserver\" {print $2}' /etc/resolv.conf").lines().take(3) {
            assert!(said.of("resolvers").1.contains(server), "{server}");
        }
        let (state, found) = said.of("echo");
        let range = prints("echo $(cat /proc/sys/net/ipv4/ping_group_range)");
        assert!(found.contains(&format!("ping_group_range = {range}")), "{found}");
        assert_eq!(state == "ok", ask(who, &format!("{SOCKET} 2 2 1")).0, "{found}");

        let bind = "/usr/bin/python3 -c 'import socket; socket.socket().bind((\"\", 1))'";
        let start = prints("cat /proc/sys/net/ipv4/ip_unprivileged_port_start");
        let (state, found) = said.of("ports");
        assert_eq!(state == "ok", ask(who, bind).0, "{found}");
        assert!(state == "ok" || found.starts_with(&format!("{start} is the lowest")), "{found}");
    }

    /// The kernel in a container says what its link takes off it.
    fn what_it_says_of_offloads(who) {
        need!(who.has_tun(), "{who:?} may not open /dev/net/tun");
        let state = Place::here(who).doctor().of("offloads").0.to_owned();
        let features = who.run(&["--rootfs=/", "--", "/usr/bin/python3", "-c", FEATURES]).success();
        let wanted = match features.as_str() {
            "1\n1\n" => "ok",
            "1\n0\n" => "limited",
            other => panic!("{other}"),
        };
        assert_eq!(state, wanted);
    }

    fn what_it_says_of_ids(who) {
        let said = Place::here(who).doctor();
        let (state, found) = said.of("ids");
        let map = who.sh(&[], "cat /proc/self/uid_map");
        let size: u64 = map.lines().map(|line| -> u64 {
            line.split_whitespace().last().unwrap().parse().unwrap()
        }).sum();
        assert!(found.contains(&format!("{size} user and")) || size == 1, "{found}: {map}");
        assert_eq!(state == "ok", size >= 65535, "{found}: {map}");
        if who == Who::User && has_program("getsubids") && state == "ok" {
            // getsubids(1): "0: NAME FIRST COUNT"
            let (_, line) = ask(who, &format!("getsubids {}", who.identity().name));
            let words: Vec<&str> = line.split_whitespace().collect();
            assert!(found.contains(&format!("/etc/subuid ({}:{})", words[2], words[3])), "{found}");
        }
    }

    fn what_it_says_of_cgroups(who) {
        let said = Place::here(who).doctor();
        let (state, found) = said.of("cgroups");
        let mounts = ask(who, "cat /proc/self/mountinfo").1;
        let (v1, v2) = (mounts.contains(" - cgroup "), mounts.contains(" - cgroup2 "));
        let version = match (v1, v2) {
            (true, true) => "v1, with v2 beside it",
            (true, false) => "v1;",
            (false, true) => "v2",
            (false, false) => "none",
        };
        assert!(found.starts_with(version), "{found}");
        if v1 {
            let own = "path=$(awk -F: '$2 ~ /(^|,)memory(,|$)/ {print $3}' /proc/self/cgroup)
                       test -w /sys/fs/cgroup/memory$path/cgroup.procs";
            assert_eq!(state != "missing", ask(who, own).0, "{found}");
        } else if v2 {
            // As it is delegated: this cgroup or the one above it.
            let own = "path=/sys/fs/cgroup$(sed -n s/^0:://p /proc/self/cgroup)
                       test -w $path/cgroup.subtree_control ||
                           test -w $path/../cgroup.subtree_control -a -w $path/../cgroup.procs";
            assert_eq!(state != "missing", ask(who, own).0, "{found}");
        }
    }

    fn no_user_namespaces_are_left(who) {
        let place = Place::through(who, &[
            "unshare", "--user", "--map-root-user", "sh", "-ec",
            "echo 0 > /proc/sys/user/max_user_namespaces; exec \"$@\"", "sh",
        ]);
        let said = place.examined();
        said.says(
            "user namespaces",
            "missing",
            "user.max_user_namespaces = 0",
            "sysctl user.max_user_namespaces=",
        );
        assert_eq!(said.json["verdict"]["none"], false);
        // An error of a run says the same.
        let remedy = said.finding("user namespaces")["remedy"].clone();
        place.crun(&["run", "--net=none", "--", "true"]).run().refused(&[text(&remedy)]);
    }

    fn no_network_namespaces_are_left(who) {
        let said = Place::through(who, &[
            "unshare", "--user", "--map-root-user", "sh", "-ec",
            "echo 0 > /proc/sys/user/max_net_namespaces; exec \"$@\"", "sh",
        ]).examined();
        said.says(
            "namespaces",
            "missing",
            "(user.max_net_namespaces = 0)",
            "sysctl user.max_net_namespaces=",
        );
    }

    /// Within another container: its filter, its masks, its missing device.
    fn in_a_container(who) {
        let crun = who.program();
        let crun = crun.path.to_str().unwrap();
        let outer = [crun, "run", "--rootfs=/", "--net=none", "--"];
        let said = Place::through(who, &outer).examined();
        said.says("user namespaces", "missing", "Seccomp 2", "seccomp=unconfined");

        let outer = [crun, "run", "--rootfs=/", "--net=none", "--security-opt=seccomp=unconfined", "--"];
        let said = Place::through(who, &outer).examined();
        said.says("user namespaces", "ok", "", "");
        said.says("/proc and /sys", "limited", "/proc/irq", "unmask=ALL");
        said.says("TAP", "missing", "/dev/net/tun: No such file", "modprobe tun");
        said.says("IPv4", "limited", "no route", "ip route add default");
        said.says("IPv6", "missing", "", "as root");
    }

    fn few_descriptors(who) {
        for (limit, found) in [("100", "36 connections"), ("64", "0 connections")] {
            let limit = format!("--nofile={limit}:{limit}");
            let said = Place::through(who, &["prlimit", &limit]).examined();
            said.says("descriptors", "limited", found, "hard nofile 524288");
        }
    }

    fn a_procfs_of_which_parts_are_hidden(who) {
        need!(Who::tests_run_as_root(), "mounts of the test's own need root");
        let place = Place::after(who, "mount -t tmpfs none /proc/irq; exec \"$@\"");
        let said = place.examined();
        said.says("/proc and /sys", "limited", "no fresh /proc where", "unmask=ALL");
        said.says("/proc and /sys", "limited", "(mounted over: /proc/irq", "systempaths=unconfined");
        let shown = place.crun(&["run", "--net=none", "--", "cat", "/proc/mounts"]).run().success();
        assert!(shown.contains(" /proc/irq "), "it is the outer one: {shown}");
    }

    fn the_tun_device_is_taken_away(who) {
        need!(Who::tests_run_as_root(), "mounts of the test's own need root");
        let said = Place::after(who, "mount -t tmpfs none /dev/net; exec \"$@\"").examined();
        said.says("TAP", "missing", "/dev/net/tun: No such file", "modprobe tun");
        assert_eq!(said.json["verdict"]["none"], true);

        let closed = "mount -t tmpfs -o mode=755 none /dev/net
                      mknod -m 0600 /dev/net/tun c 10 200; exec \"$@\"";
        let said = Place::after(who, closed).examined();
        match who {
            Who::Root => said.says("TAP", "ok", "can be opened", ""),
            Who::User => said.says("TAP", "missing", "(mode 0600): Permission", "chmod 0666 /dev/net/tun"),
        }

        let other = "mount -t tmpfs -o mode=755 none /dev/net
                     echo > /dev/net/tun; chmod 666 /dev/net/tun; exec \"$@\"";
        let said = Place::after(who, other).examined();
        said.says("TAP", "missing", "no character device", "mknod");

        let null = "mount --bind /dev/null /dev/net/tun; exec \"$@\"";
        assert_eq!(Place::after(who, null).examined().of("TAP").0, "missing");
    }

    fn no_busybox(who) {
        need!(Who::tests_run_as_root(), "mounts of the test's own need root");
        // An empty file is no program.
        let script = "for b in $(which -a busybox); do mount --bind /etc/hostname $b; done; exec \"$@\"";
        let said = Place::after(who, script).examined();
        said.says("root filesystem", "ok", "host-usr: the host's own /usr", "");
    }

    fn in_a_chroot(who) {
        need!(Who::tests_run_as_root(), "a chroot needs root");
        // All that the host's root has, so that whatever the tests lie in is there as well;
        // the new root is no mount point itself, as that of a chroot seldom is.
        let script = "mount -t tmpfs -o mode=755 none /mnt; mkdir -m 755 /mnt/root; cd /mnt/root
                      for f in /*; do
                          if [ $f = /mnt ]; then :
                          elif [ -L $f ]; then cp -P $f .
                          elif [ -d $f ]; then mkdir .$f; mount --rbind $f .$f
                          fi
                      done
                      exec chroot . \"$@\"";
        let said = Place::after(who, script).examined();
        said.says("user namespaces", "missing", "chroot(2)", "outside of the chroot");
    }
}

#[test]
fn subordinate_ids_are_taken_away() {
    need!(
        Who::User.has_user_namespaces() && Who::User.has_subordinate_ids(),
        "the user has no subordinate ids"
    );
    let name = &Who::User.identity().name;
    let said = Place::through(Who::User, &["env", "PATH=/nowhere"]).examined();
    said.says(
        "ids",
        "limited",
        "newuidmap is not in PATH",
        "package uidmap",
    );
    let said = Place::through(Who::User, &["setpriv", "--no-new-privs"]).examined();
    said.says(
        "ids",
        "limited",
        "no_new_privs is set",
        "NoNewPrivileges=no",
    );

    need!(
        Who::tests_run_as_root(),
        "mounts of the test's own need root"
    );
    let script = "mount --bind /dev/null /etc/subgid; exec \"$@\"";
    let said = Place::after(Who::User, script).examined();
    let found = format!("no range for {name} in /etc/subgid");
    said.says("ids", "limited", &found, "usermod --add-subuids ");
    // The range that the remedy names is nobody's.
    let remedy = text(&said.finding("ids")["remedy"]).to_owned();
    let first = remedy.split("--add-subuids ").nth(1).unwrap();
    let first: u64 = first.split('-').next().unwrap().parse().unwrap();
    for line in tool("cat", &["/etc/subuid"]).lines() {
        let numbers: Vec<u64> = line
            .split(':')
            .skip(1)
            .map(|n| n.parse().unwrap())
            .collect();
        assert!(first >= numbers[0] + numbers[1], "{remedy}: {line}");
    }

    let script = "for d in /usr/bin /bin; do
                      mount --bind $d $d; mount -o remount,bind,nosuid $d
                  done; exec \"$@\"";
    let said = Place::after(Who::User, script).examined();
    said.says("ids", "limited", "mounted nosuid", "remount");

    let script = "for t in newuidmap newgidmap; do
                      cp /usr/bin/$t /run/$t.$$; chmod 755 /run/$t.$$
                      mount --bind /run/$t.$$ /usr/bin/$t; rm /run/$t.$$
                  done; exec \"$@\"";
    let said = Place::after(Who::User, &format!("mount -t tmpfs none /run; {script}")).examined();
    said.says(
        "ids",
        "limited",
        "neither set-user-ID",
        "setcap cap_setuid+ep /usr/bin/newuidmap",
    );

    // It is there and fails: so does a run.
    let script = "mount -t tmpfs none /run; printf '#!/bin/sh\\necho no >&2; exit 1\\n' > /run/t
                  chmod 4755 /run/t; mount --bind /run/t /usr/bin/newuidmap; exec \"$@\"";
    let said = Place::after(Who::User, script).examined();
    said.says("ids", "missing", "newuidmap: no", "--uidmap=0:");
}

#[test]
fn the_network_of_another_host() {
    need!(
        Who::tests_run_as_root(),
        "a host of the test's own needs root"
    );
    need!(
        Who::User.has_user_namespaces(),
        "an ordinary user may not make user namespaces"
    );
    let host = Host::new();
    let prefix = host.prefix();
    let prefix: Vec<&str> = prefix.iter().map(String::as_str).collect();
    for who in [Who::Root, Who::User] {
        let place = Place {
            outside: prefix.clone(),
            ..Place::here(who)
        };
        host.tool(&[
            "sh",
            "-c",
            "echo '0 2147483647' > /proc/sys/net/ipv4/ping_group_range
            echo 80 > /proc/sys/net/ipv4/ip_unprivileged_port_start
            echo 0 > /proc/sys/net/ipv6/conf/all/disable_ipv6
            ip route replace default via 198.18.0.254",
        ]);
        host.set_resolvers(&["127.0.0.53", "198.18.0.254"]);
        let said = place.examined();
        said.says(
            "IPv4",
            "ok",
            "default route by host0 and 198.18.0.254, from 198.18.0.1",
            "",
        );
        said.says("IPv6", "missing", "global scope", "ip address add");
        said.says("resolvers", "ok", "127.0.0.53:53, 198.18.0.254:53", "");
        said.says("echo", "ok", "= 0 2147483647)", "");
        match who {
            Who::Root => said.says("ports", "ok", "any", ""),
            Who::User => said.says("ports", "limited", "80 is the lowest", "port_start=80"),
        }
        // Which is so.
        for (port, code) in [
            ("80:80", 0),
            ("79:79", if who == Who::User { 125 } else { 0 }),
        ] {
            place
                .crun(&["run", "-p", port, "--", "true"])
                .run()
                .exit(code);
        }

        host.tool(&[
            "sh",
            "-c",
            "echo '1 0' > /proc/sys/net/ipv4/ping_group_range
            echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6
            ip route del default",
        ]);
        host.set_resolvers(&[]);
        let said = place.examined();
        said.says(
            "IPv4",
            "limited",
            "no route to the world",
            "ip route add default via",
        );
        said.says(
            "IPv6",
            "missing",
            "disable_ipv6 = 1",
            "sysctl net.ipv6.conf.all.disable_ipv6=0",
        );
        said.says(
            "resolvers",
            "limited",
            "names none, so 127.0.0.1:53",
            "nameserver",
        );
        said.says(
            "echo",
            "limited",
            "= 1 0 has none",
            "net.ipv4.ping_group_range=0 2147483647",
        );
    }
    assert!(
        host.inside(Side::Host, || std::net::UdpSocket::bind("198.18.0.1:0"))
            .is_ok()
    );

    let routed = Host::routed();
    let prefix = routed.prefix();
    let place = Place {
        outside: prefix.iter().map(String::as_str).collect(),
        ..Place::here(Who::User)
    };
    place
        .examined()
        .says("IPv6", "ok", "default route by host0 and 2001:db8::fe", "");
    routed.tool(&["ip", "-6", "route", "del", "default"]);
    place.examined().says(
        "IPv6",
        "limited",
        "no route to the world",
        "enable_ipv6=false",
    );
}

/// A host that mounts cgroup v2 alone, as a namespace can show it.
#[test]
fn what_of_a_cgroup_is_ours() {
    need!(
        Who::tests_run_as_root(),
        "mounts of the test's own need root"
    );
    let none = "umount -R /sys/fs/cgroup; exec \"$@\"";
    let said = Place::after(Who::Root, none).doctor();
    said.says("cgroups", "missing", "none are mounted", "mount -t cgroup2");
    let v2 = "umount -R /sys/fs/cgroup; mount -t cgroup2 none /sys/fs/cgroup; exec \"$@\"";
    let said = Place::after(Who::Root, v2).doctor();
    let (_, found) = said.of("cgroups");
    assert!(
        found.starts_with("v2, own cgroup /sys/fs/cgroup"),
        "{found}"
    );
    let read_only = "umount -R /sys/fs/cgroup; mount -t cgroup2 none /sys/fs/cgroup
                     mount -o remount,bind,ro /sys/fs/cgroup; exec \"$@\"";
    let said = Place::after(Who::Root, read_only).doctor();
    said.says(
        "cgroups",
        "missing",
        "neither it nor one above",
        "read-write",
    );
}

#[test]
fn the_output_is_for_people_too() {
    let output = CrunLite::new(Who::Root, &["doctor"]).run();
    assert!(
        !output.stdout.contains('\x1b'),
        "no colour into a pipe{output}"
    );
    assert_eq!(output.stderr, "");
    let last = output.stdout.lines().last().unwrap();
    assert!(last.starts_with("verdict: run --net=none "), "{last}");
    let said = Place::here(Who::Root).doctor();
    for finding in said.json["findings"].as_array().unwrap() {
        let line = output
            .stdout
            .lines()
            .find(|line| line.starts_with(text(&finding["part"])))
            .unwrap();
        assert!(line.contains(text(&finding["state"])), "{line}");
        assert!(line.ends_with(text(&finding["found"])), "{line}: {finding}");
        if let Some(remedy) = finding["remedy"].as_str() {
            assert!(output.stdout.contains(&format!(" remedy: {remedy}\n")));
        }
    }
}

#[test]
fn the_profile_is_of_the_program_where_it_is() {
    let output = CrunLite::new(Who::Root, &["doctor", "--apparmor-profile"]).run();
    let program = Who::Root.program();
    let profile = output.success();
    let wanted = format!(
        "profile crun-lite \"{}\" flags=(unconfined) {{",
        program.path.display()
    );
    assert!(profile.contains(&wanted), "{profile}");
    assert!(profile.contains("\n  userns,\n"), "{profile}");
    CrunLite::new(Who::Root, &["doctor", "--json", "--apparmor-profile"])
        .run()
        .refused(&["cannot be used with"]);

    // Older parsers do not know the rule.
    let knows = [
        "sh",
        "-c",
        "apparmor_parser --version | grep -q 'version [4-9]'",
    ];
    if !has_program("apparmor_parser") || !Who::Root.can(&knows) {
        report("the profile's syntax is not checked: no apparmor_parser(8) from version 4 on");
        return;
    }
    let mut parser = Command::new("apparmor_parser")
        .args(["--skip-kernel-load", "--skip-cache"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut parser.stdin.take().unwrap(), profile.as_bytes()).unwrap();
    assert!(parser.wait().unwrap().success());
}
