//! What a container is, seen from inside: names, ids, namespaces, privileges.

use std::collections::BTreeMap;
use std::fs;

use crate::util::{Host, Who, tool};

/// The roots that a test of the isolation runs in.
const ROOTS: [&[&str]; 2] = [&[], &["--rootfs=/"]];

both! {
    fn it_has_names_and_ids_of_its_own(who) {
        for root in ROOTS {
            let printed = who.sh(
                root,
                "hostname; id -u; id -g; pwd; cat /etc/hostname; echo $$",
            );
            let lines: Vec<_> = printed.lines().collect();
            assert_eq!(
                lines[..5],
                ["container", "0", "0", "/", "container"],
                "{root:?}: {printed}"
            );
            assert_ne!(
                lines[5], "1",
                "an init stands in front of the command ({root:?})"
            );
        }
    }

    fn the_hostname_is_an_option(who) {
        let printed = who.sh(
            &["--hostname=elsewhere"],
            "hostname; cat /etc/hostname; grep -w elsewhere /etc/hosts",
        );
        let lines: Vec<_> = printed.lines().collect();
        assert_eq!(lines[..2], ["elsewhere", "elsewhere"], "{printed}");
        assert_eq!(lines.len(), 3, "its own name is in /etc/hosts: {printed}");
    }

    fn it_sees_only_its_own_processes(who) {
        for root in ROOTS {
            let printed = who.sh(root, "for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline; echo; done; ps >/dev/null && echo done");
            let lines: Vec<_> = printed.lines().collect();
            assert_eq!(
                lines.last(),
                Some(&"done"),
                "ps works ({root:?}): {printed}"
            );
            assert!(
                lines.len() <= 5,
                "init, the shell and its children ({root:?}): {printed}"
            );
        }
    }

    fn its_namespaces_are_not_the_hosts(who) {
        let kinds = ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"];
        for root in ROOTS {
            let printed = who.sh(
                root,
                "for n in cgroup ipc mnt net pid user uts; do readlink /proc/self/ns/$n; done",
            );
            let inside: Vec<_> = printed.lines().collect();
            assert_eq!(inside.len(), kinds.len(), "{printed}");
            for (kind, inside) in kinds.iter().zip(inside) {
                let outside = fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
                assert!(inside.starts_with(kind), "{inside}");
                assert_ne!(inside, outside.to_str().unwrap(), "{root:?}");
            }
        }
    }

    fn a_namespace_that_is_kept_is_the_hosts(who) {
        for (option, kind) in [
            ("--uts=host", "uts"),
            ("--ipc=host", "ipc"),
            ("--net=host", "net"),
        ] {
            let output = who.run(&[option, "--", "readlink", &format!("/proc/self/ns/{kind}")]);
            let outside = fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
            assert_eq!(
                output.success().trim(),
                outside.to_str().unwrap(),
                "{option}"
            );
        }
    }

    fn no_host_path_shows_in_the_mount_table(who) {
        // proc_pid_mountinfo(5): the fourth field is the root of the mount in its
        // file system, the fifth where it is, the seventh and on its propagation.
        let printed = who.sh(&[], "cat /proc/self/mountinfo");
        for line in printed.lines() {
            let fields: Vec<_> = line.split(' ').collect();
            let device = [
                "/null", "/zero", "/full", "/random", "/urandom", "/tty", "/ptmx",
            ]
            .contains(&fields[3]);
            // A part of procfs over itself, to be read-only.
            let kernel = line.contains(" - proc ") && fields[4] == format!("/proc{}", fields[3]);
            let terminal = fields[3].trim_start_matches('/').parse::<u32>().is_ok();
            assert!(
                fields[3] == "/" || device || kernel || terminal,
                "a host path: {line}\n{printed}"
            );
            assert_eq!(fields[6], "-", "the mount propagates: {line}");
            let known = [
                "/proc",
                "/sys",
                "/dev",
                "/tmp",
                "/run",
                "/etc/hosts",
                "/etc/hostname",
                "/etc/resolv.conf",
            ];
            let expected = fields[4] == "/" || known.iter().any(|at| fields[4].starts_with(at));
            assert!(expected, "an unexpected mount: {line}");
        }
    }

    fn no_mount_of_the_hosts_tree_propagates(who) {
        let printed = who.sh(&["--rootfs=/"], "cat /proc/self/mountinfo");
        for line in printed.lines() {
            assert!(
                !line.contains(" shared:") && !line.contains(" master:"),
                "{line}"
            );
        }
    }

    fn no_trace_of_the_old_root_is_left(who) {
        let names = "/.old_root /.oldroot /oldroot /.put_old /put_old /.pivot_root /pivot_root /newroot /.orig-root";
        let script = format!(
            "for d in {names}; do [ -e $d ] && echo $d; done
             [ $(stat -c %i /) = $(stat -c %i /..) ] || echo '/.. is elsewhere'
             grep -iE 'old_?root|put_?old|pivot' /proc/self/mountinfo
             ls -a /; true"
        );
        let printed = who.sh(&[], &script);
        let expected = [
            ".", "..", "bin", "dev", "etc", "home", "lib", "mnt", "opt", "proc", "root", "run",
            "sbin", "srv", "sys", "tmp", "usr", "var",
        ];
        // A host without BusyBox shows its own lib* folders too.
        let unexpected = printed
            .lines()
            .find(|line| !expected.contains(line) && !line.starts_with("lib"));
        assert_eq!(unexpected, None, "{printed}");
        let printed = who.sh(
            &["--rootfs=/"],
            &format!("for d in {names}; do [ -e $d ] && echo $d; done; true"),
        );
        let own = printed.lines().find(|name| !fs::exists(name).unwrap());
        assert_eq!(own, None, "a folder that the host has not: {printed}");
    }

    fn it_has_podmans_capabilities_and_no_more(who) {
        let capabilities = |options: &[&str]| status(who, options);
        // chown, dac_override, fowner, fsetid, kill, setgid, setuid, setpcap,
        // net_bind_service, sys_chroot, setfcap (containers.conf(5)).
        let default = "00000000800405fb";
        for root in ROOTS {
            let status = capabilities(root);
            for set in ["CapEff", "CapPrm", "CapBnd"] {
                assert_eq!(status[set], default, "{set} {root:?}");
            }
            for set in ["CapInh", "CapAmb"] {
                assert_eq!(status[set], "0000000000000000", "{set} {root:?}");
            }
        }
        let none = capabilities(&["--cap-drop=ALL"]);
        assert_eq!(
            (&*none["CapEff"], &*none["CapBnd"]),
            ("0000000000000000", "0000000000000000")
        );
        assert_eq!(
            capabilities(&["--cap-drop=all", "--cap-add=NET_BIND_SERVICE"])["CapEff"],
            "0000000000000400"
        );
        assert_eq!(
            capabilities(&["--cap-add=CAP_NET_ADMIN"])["CapEff"],
            "00000000800415fb"
        );
        assert_eq!(
            capabilities(&["--cap-drop=chown"])["CapEff"],
            "00000000800405fa"
        );
    }

    fn it_is_filtered_and_gains_no_privileges(who) {
        let usual = status(who, &[]);
        assert_eq!((&*usual["Seccomp"], &*usual["NoNewPrivs"]), ("2", "1"));
        let open = status(
            who,
            &[
                "--security-opt=seccomp=unconfined",
                "--security-opt=no-new-privileges=false",
            ],
        );
        assert_eq!(open["NoNewPrivs"], "0");
        assert_eq!(open["Seccomp"], status_of_the_host()["Seccomp"]);
    }

    fn it_starts_with_default_signals_and_umask(who) {
        // Not by way of a shell: BusyBox's ignores SIGQUIT itself.
        let cat = ["--net=none", "--", "cat", "/proc/self/status"];
        let status = fields(&who.crun(&cat).run().success());
        assert_eq!(status["SigBlk"], "0000000000000000");
        assert_eq!(status["SigIgn"], "0000000000000000");
        assert_eq!(who.sh(&[], "umask"), "0022\n");
    }

    fn no_descriptor_of_the_callers_comes_in(who) {
        let open = "for fd in $(seq 3 200); do eval \"exec $fd</\"; done; exec \"$@\"";
        let output = who
            .crun(&["--net=none", "--", "sh", "-c", "echo /proc/self/fd/*"])
            .through(&["bash", "-c", open, "bash"])
            .run();
        let printed = output.success();
        let numbers: Vec<u32> = printed
            .split_whitespace()
            .map(|path| path.rsplit('/').next().unwrap().parse().unwrap())
            .collect();
        // The fourth is the shell's own, for the folder that it lists.
        assert!(numbers.iter().all(|&number| number <= 3), "{printed}");
    }

    fn the_working_directory_of_the_caller_does_not_come_in(who) {
        let output = who
            .crun(&["--net=none", "--", "readlink", "/proc/self/cwd"])
            .through(&["env", "-C", "/etc"])
            .run();
        assert_eq!(output.success(), "/\n");
        for fd in [3, 7, 20] {
            let path = format!("/proc/self/fd/{fd}");
            let open = "for fd in $(seq 3 20); do eval \"exec $fd</etc\"; done; exec \"$@\"";
            let output = who
                .crun(&["--net=none", "-w", &path, "--", "sh", "-c", "pwd -P; ls"])
                .through(&["bash", "-c", open, "bash"])
                .run();
            assert!(
                output.code() != Some(0) || !output.stdout.contains("passwd"),
                "CVE-2024-21626{output}"
            );
        }
    }

    fn its_session_is_its_own(who) {
        // Field 6 of proc_pid_stat(5): the session. Zero is one from outside.
        let printed = who.sh(&[], "cut -d' ' -f6 /proc/self/stat");
        assert_ne!(printed.trim(), "0", "TIOCSTI, CVE-2017-5226");
    }

    fn ids_are_mapped_to_the_callers(who) {
        let identity = who.identity();
        let folder = who.folder();
        let volume = format!("{}:/data", folder.path().display());
        who.sh(&["-v", &volume], "echo text > /data/file");
        let outside = tool(
            "stat",
            &[
                "-c",
                "%u %g %s",
                folder.path().join("file").to_str().unwrap(),
            ],
        );
        assert_eq!(
            outside.trim(),
            format!("{} {} 5", identity.uid, identity.gid)
        );
        let map = who.sh(&[], "cat /proc/self/uid_map; cat /proc/self/setgroups");
        let first: Vec<_> = map.lines().next().unwrap().split_whitespace().collect();
        assert_eq!(first[..2], ["0", &identity.uid.to_string()], "{map}");
        assert_ne!(first[2], "4294967295", "that is the host's own map");
        if first[2] == "1" && map.lines().count() == 2 {
            assert!(
                map.ends_with("deny\n"),
                "setgroups with a map of one (CVE-2018-7169): {map}"
            );
        }
    }

    fn the_init_cannot_be_reached(who) {
        let script = "( : > /proc/1/exe ) 2>/dev/null && echo written; ls /proc/1/fd 2>/dev/null; ls -l /proc/1/root/ >/dev/null 2>&1; true";
        let before = fs::read(who.program().path).unwrap();
        let printed = who.sh(&[], script);
        assert!(!printed.contains("written"), "CVE-2019-5736");
        assert!(
            fs::read(who.program().path).unwrap() == before,
            "the program was changed"
        );
    }

    fn what_the_kernel_tells_of_the_host_is_masked(who) {
        let printed = who.sh(&[], "
            for f in /proc/kcore /proc/keys /proc/timer_list /proc/latency_stats /proc/sched_debug /proc/interrupts; do
                [ -e $f ] && [ -n \"$(head -c 1 $f 2>/dev/null)\" ] && echo $f
            done
            for d in /proc/acpi /proc/scsi /proc/asound /sys/firmware /sys/devices/virtual/powercap; do
                [ -d $d ] && [ -n \"$(ls -A $d)\" ] && echo $d
            done
            for f in /proc/sysrq-trigger /proc/sys/kernel/core_pattern /proc/sys/vm/drop_caches /proc/irq/default_smp_affinity; do
                ( : >> $f ) 2>/dev/null && echo writable $f
            done; true");
        assert_eq!(printed, "");
    }

    fn masks_are_options(who) {
        let masked = who.sh(
            &["--security-opt=mask=/etc/passwd:/home"],
            "cat /etc/passwd; ls -A /home; mkdir /home/new 2>&1 && echo made; true",
        );
        assert!(
            !masked.contains("root:") && !masked.contains("made"),
            "{masked}"
        );
        let count = "grep -c ' /proc/timer_list ' /proc/self/mountinfo; true";
        assert_eq!(
            who.sh(&["--security-opt=unmask=/proc/timer_list"], count),
            "0\n"
        );
        assert_eq!(
            who.sh(
                &["--security-opt=unmask=ALL"],
                "grep -cE ' /proc/(kcore|keys) ' /proc/self/mountinfo; true"
            ),
            "0\n"
        );
    }

    fn devices_are_the_standard_ones_and_work(who) {
        for root in ROOTS {
            let printed = who.sh(root, "
                for d in null zero full random urandom tty; do stat -L -c '%n %t:%T %a' /dev/$d; done
                for l in fd stdin stdout stderr; do readlink /dev/$l; done
                echo x > /dev/null && head -c 4 /dev/zero | od -An -tx1
                echo x 2>/dev/null > /dev/full || echo full
                head -c 8 /dev/urandom | wc -c
                echo shared > /dev/shm/f && cat /dev/shm/f
                grep -c ' /dev/mqueue ' /proc/self/mountinfo
                for d in /dev/*; do [ -b $d ] && echo block $d; done
                ls /dev/pts | grep -v ptmx; true");
            let expected = "\
/dev/null 1:3 666
/dev/zero 1:5 666
/dev/full 1:7 666
/dev/random 1:8 666
/dev/urandom 1:9 666
/dev/tty 5:0 666
/proc/self/fd
/proc/self/fd/0
/proc/self/fd/1
/proc/self/fd/2
 00 00 00 00
full
8
shared
1
";
            assert_eq!(printed, expected, "{root:?}");
        }
    }

    fn nothing_but_the_standard_devices_is_there(who) {
        let printed = who.sh(&["--rootfs=/"], "ls /dev");
        let known = [
            "console", "core", "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm",
            "stderr", "stdin", "stdout", "tty", "urandom", "zero",
        ];
        let unknown = printed.lines().find(|name| !known.contains(name));
        assert_eq!(unknown, None, "{printed}");
    }

    fn names_are_resolved_by_files_of_its_own(who) {
        let options = [
            "--dns=192.0.2.1",
            "--dns=2001:db8::1",
            "--add-host=other.test:192.0.2.7",
        ];
        let printed = who.sh(&options, "cat /etc/resolv.conf; echo =; cat /etc/hosts");
        let (resolv, hosts) = printed.split_once("=\n").unwrap();
        for server in ["nameserver 192.0.2.1", "nameserver 2001:db8::1"] {
            assert!(
                resolv.lines().any(|line| line == server),
                "{server}: {resolv}"
            );
        }
        let words = |name: &str| {
            hosts
                .lines()
                .filter(|line| line.split_whitespace().skip(1).any(|word| word == name))
                .count()
        };
        assert!(
            words("localhost") >= 1 && words("other.test") == 1 && words("container") >= 1,
            "{hosts}"
        );
        assert!(
            hosts.lines().any(|line| line.starts_with("192.0.2.7")),
            "{hosts}"
        );
        if let Ok(own) = fs::read_to_string("/etc/hostname") {
            assert_eq!(words(own.trim()), 0, "the host's name: {hosts}");
        }
    }

    fn the_environment_is_its_own(who) {
        let output = who
            .crun(&[
                "--net=none",
                "-e",
                "GIVEN=a b",
                "-e",
                "TAKEN",
                "-e",
                "ABSENT",
                "--",
                "env",
            ])
            .env("TAKEN", "from outside")
            .env("CANARY", "secret")
            .run();
        let printed = output.success();
        let env: BTreeMap<_, _> = printed
            .lines()
            .filter_map(|line| line.split_once('='))
            .collect();
        assert_eq!(env.get("GIVEN"), Some(&"a b"), "{printed}");
        assert_eq!(env.get("TAKEN"), Some(&"from outside"), "{printed}");
        assert_eq!(env.get("HOME"), Some(&"/root"), "{printed}");
        assert!(env["PATH"].contains("/usr/bin"), "{printed}");
        for absent in ["CANARY", "ABSENT", "USER"] {
            assert_eq!(env.get(absent), None, "{printed}");
        }
    }

    fn the_environment_can_come_from_a_file(who) {
        let folder = who.folder();
        let path = folder.path().join("env");
        fs::write(
            &path,
            "# a comment\n\nFIRST=1\nSECOND=two words\nTHIRD=file\n",
        )
        .unwrap();
        who.own(&path);
        let printed = who.sh(
            &["--env-file", path.to_str().unwrap(), "-e", "THIRD=option"],
            "echo \"$FIRST|$SECOND|$THIRD\"",
        );
        assert_eq!(printed, "1|two words|option\n", "-e wins over --env-file");
    }

    fn the_working_directory_is_an_option_and_is_made(who) {
        assert_eq!(who.sh(&["-w", "/tmp"], "pwd"), "/tmp\n");
        assert_eq!(who.sh(&["--workdir=/new/folder"], "pwd"), "/new/folder\n");
    }

    fn users_are_exact_or_refused(who) {
        // CVE-2026-30892, CVE-2026-46680: never uid 0 by mistake.
        for user in [
            "4294967295",
            "4294967296",
            "-1",
            "0x0",
            " 0",
            "",
            ":",
            "1:2:3",
            "no-such-user",
            "0:no-such-group",
        ] {
            let output = who.run(&["--net=none", &format!("--user={user}"), "--", "id", "-u"]);
            assert_eq!(output.code(), Some(125), "user {user:?}{output}");
            assert_eq!(output.stdout, "", "user {user:?}{output}");
        }
        assert_eq!(who.sh(&["-u", "root"], "id -u"), "0\n");
        assert_eq!(who.sh(&["-u", "0:0"], "id -g"), "0\n");
    }

    fn users_beyond_root_need_a_map_and_get_no_capability(who) {
        need!(
            who.has_subordinate_ids(),
            "{:?} has no subordinate ids or no newuidmap(1)",
            who.identity().name
        );
        let script = "id -u; id -g; grep CapEff /proc/self/status";
        assert_eq!(
            who.sh(&["-u", "1000:1001"], script),
            "1000\n1001\nCapEff:\t0000000000000000\n"
        );
        // But those that were added on purpose.
        let status = status(who, &["-u", "1000:1001", "--cap-add=NET_RAW", "--cap-drop=CHOWN"]);
        for set in ["CapEff", "CapPrm", "CapInh", "CapAmb"] {
            assert_eq!(status[set], "0000000000002000", "{set}");
        }
        assert_eq!(status["CapBnd"], "00000000800425fa");
        let printed = who.sh(&["-u", "nobody"], "id -u; id -g");
        assert_eq!(printed, "65534\n65534\n");
    }

    fn the_host_side_is_left_as_it_was(who) {
        let host = Host::new();
        let before = host.mounts();
        let output = who
            .crun(&["--net=none", "--rootfs=/", "--tmpfs=/mnt", "--", "true"])
            .on(&host)
            .run();
        output.success();
        assert_eq!(host.mounts(), before);
    }
}

/// `/proc/self/status` of a command in a container.
fn status(who: Who, options: &[&str]) -> BTreeMap<String, String> {
    fields(&who.sh(options, "cat /proc/self/status"))
}

fn status_of_the_host() -> BTreeMap<String, String> {
    fields(&fs::read_to_string("/proc/self/status").unwrap())
}

fn fields(status: &str) -> BTreeMap<String, String> {
    let pairs = status.lines().filter_map(|line| line.split_once(':'));
    pairs
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect()
}
