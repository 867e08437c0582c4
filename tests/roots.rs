//! Folders of a user as root: they serve, and whatever is in them leads nowhere outside.

use std::fs;

use crate::util::{Who, rootfs, tool};

both! {
    fn a_folder_serves_as_root(who) {
        let folder = rootfs::busybox(who);
        need!(folder.is_some(), "the host has no static busybox");
        let folder = folder.unwrap();
        let root = format!("--rootfs={}", folder.path().display());
        let printed = who.sh(&[&root], "hostname; id -u; ls /; cat /proc/self/mountinfo | while read a b c d at rest; do echo $at; done; touch /made");
        let lines: Vec<_> = printed.lines().collect();
        assert_eq!(lines[..2], ["container", "0"], "{printed}");
        assert!(
            lines.contains(&"/proc") && lines.contains(&"/dev"),
            "{printed}"
        );
        let host_path = folder.path().to_str().unwrap();
        assert!(
            !printed.contains(host_path),
            "where it lies on the host shows: {printed}"
        );
        assert!(folder.path().join("made").exists(), "it is writable");
    }

    fn a_root_of_links_leads_nowhere(who) {
        // CVE-2019-19921, CVE-2021-30465, CVE-2026-41579: mount points that are
        // links must not make anything outside the root.
        let folder = rootfs::busybox(who);
        need!(folder.is_some(), "the host has no static busybox");
        let folder = folder.unwrap();
        let canary = who.folder();
        // Such a root does serve, without the links.
        let plain = rootfs::busybox(who).unwrap();
        who.sh(&[&format!("--rootfs={}", plain.path().display())], "true");
        let before = tree(canary.path());
        for (name, to) in [
            ("proc", ""),
            ("sys", ""),
            ("dev", ""),
            ("etc", ""),
            ("tmp", "/absent/deep"),
            ("run", "/../../.."),
        ] {
            let to = format!("{}{to}", canary.path().display());
            std::os::unix::fs::symlink(to, folder.path().join(name)).unwrap();
        }
        let target = format!("{}:/etc/linked/deep", canary.path().display());
        let root = format!("--rootfs={}", folder.path().display());
        for options in [
            &[&*root][..],
            &[&root, "-v", &target],
            &[&root, "--tmpfs=/tmp/x", "-w", "/etc/y"],
        ] {
            let mut args = vec!["--net=none"];
            args.extend(options);
            args.extend(["--", "true"]);
            // Refused or started inside: both are right, a trace outside is not.
            let output = who.run(&args);
            assert!([Some(0), Some(125)].contains(&output.code()), "{output}");
            assert_eq!(tree(canary.path()), before, "{output}");
        }
    }

    fn a_null_device_that_is_a_link_is_not_used_as_mask(who) {
        // CVE-2025-31133.
        let folder = rootfs::busybox(who);
        need!(folder.is_some(), "the host has no static busybox");
        let folder = folder.unwrap();
        fs::create_dir(folder.path().join("dev")).unwrap();
        std::os::unix::fs::symlink(
            "/proc/sys/kernel/core_pattern",
            folder.path().join("dev/null"),
        )
        .unwrap();
        std::os::unix::fs::symlink("/proc/kcore", folder.path().join("dev/console")).unwrap();
        let root = format!("--rootfs={}", folder.path().display());
        let printed = who.sh(
            &[&root],
            "stat -c '%t:%T' /dev/null; cat /proc/self/mountinfo",
        );
        assert!(printed.starts_with("1:3\n"), "{printed}");
        let masks = printed
            .lines()
            .filter(|line| line.contains(" /proc/kcore "));
        for mask in masks {
            assert_eq!(mask.split(' ').nth(3), Some("/null"), "{mask}");
        }
    }
}

/// Everything in a folder, with what tells a change.
fn tree(path: &std::path::Path) -> String {
    tool(
        "find",
        &[path.to_str().unwrap(), "-printf", "%p %y %m %s %C@\n"],
    )
}
