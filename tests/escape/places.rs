//! T5, T6, T8: what is put into the root, and where.

use std::fs;
use std::os::unix::fs::symlink;

use crate::util::pty::Pty;
use crate::util::{SOON, Who, has_program, rootfs};

both! {
    fn the_console_is_the_terminal(who) {
        let folder = rootfs::busybox(who);
        need!(folder.is_some(), "the host has no static busybox");
        let folder = folder.unwrap();
        let root = folder.path();
        fs::create_dir_all(root.join("dev/pts")).unwrap();
        for (name, to) in [("console", "/proc/sysrq-trigger"), ("pts/0", "/proc/kcore"), ("ptmx", "/proc/self/fd/0"), ("tty", "/proc/1/environ")] {
            symlink(to, root.join("dev").join(name)).unwrap();
        }
        for path in ["dev", "dev/pts"] {
            who.own(&root.join(path));
        }
        let option = format!("--rootfs={}", root.display());
        let pty = Pty::new(who);
        let script = "for f in console pts/0 tty; do stat -c '%n=%t:%T' /dev/$f; done; ls /dev/pts; echo over";
        let run = pty.spawn(who.crun(&["--net=none", "-t", &option, "--", "sh", "-c", script]));
        pty.expect("over");
        let status = run.finish(SOON);
        let screen = pty.screen.text();
        assert!(status.success(), "{screen}");
        // Majors of Unix 98 terminals are 136 to 143 (0x88); the tty device is 5:0.
        for line in ["/dev/console=88:0", "/dev/pts/0=88:0", "/dev/tty=5:0"] {
            assert!(screen.contains(line), "CVE-2025-52565: {line}: {screen}");
        }
    }

    fn a_false_procfs_is_not_written_to(who) {
        let folder = rootfs::busybox(who);
        need!(folder.is_some(), "the host has no static busybox");
        let folder = folder.unwrap();
        let root = folder.path();
        let outside = who.folder();
        let canary = outside.path().join("canary");
        fs::write(&canary, "as it was").unwrap();
        who.own(&canary);
        fs::create_dir_all(root.join("proc/sys/net/ipv4")).unwrap();
        fs::create_dir_all(root.join("proc/self/attr")).unwrap();
        for file in ["sys/net/ipv4/ping_group_range", "self/uid_map", "self/setgroups", "self/attr/exec"] {
            symlink(&canary, root.join("proc").join(file)).unwrap();
        }
        let option = format!("--rootfs={}", root.display());
        let printed = who.sh(&[&option], "cat /proc/sys/net/ipv4/ping_group_range; cat /proc/self/uid_map");
        assert!(!printed.contains("as it was") && printed.starts_with('0'), "{printed}");
        assert_eq!(fs::read_to_string(&canary).unwrap(), "as it was", "CVE-2025-52881");
        // Nor is a volume that lies over procfs.
        let volume = format!("{}:/proc/sys/net/ipv4/ping_group_range", canary.display());
        let output = who.run(&["--net=none", "-v", &volume, "--", "true"]);
        assert!([Some(0), Some(125)].contains(&output.code()), "{output}");
        assert_eq!(fs::read_to_string(&canary).unwrap(), "as it was", "CVE-2025-52881{output}");
    }
}

/// What strace(1) sees: a path of the root is only ever looked at by its name.
#[test]
fn nothing_is_made_in_the_root_by_name() {
    need!(
        Who::tests_run_as_root(),
        "to trace newuidmap(1) and namespaces takes root"
    );
    need!(has_program("strace"), "no strace(1)");
    let folder = rootfs::busybox(Who::Root);
    need!(folder.is_some(), "the host has no static busybox");
    let folder = folder.unwrap();
    let trace = Who::Root.folder();
    let trace = trace.path().join("trace");
    let option = format!("--rootfs={}", folder.path().display());
    let words = [
        "strace",
        "-f",
        "-qq",
        "-s",
        "4096",
        "-e",
        "trace=%file,mount,move_mount",
        "-o",
        trace.to_str().unwrap(),
    ];
    let args = [
        "--net=none",
        &option,
        "-v",
        "/usr:/new/place",
        "--tmpfs=/other",
        "-w",
        "/work",
        "--",
        "true",
    ];
    Who::Root.crun(&args).through(&words).run().success();
    let text = fs::read_to_string(&trace).unwrap();
    let path = folder.path().to_str().unwrap();
    let mut seen = 0;
    for line in text
        .lines()
        .filter(|line| line.contains(&format!("\"{path}")))
    {
        seen += 1;
        let looks = [
            "execve(",
            "readlink(",
            "stat(",
            "lstat(",
            "statx(",
            "newfstatat(",
            "access(",
        ];
        let call = line
            .split_once(' ')
            .map_or(line, |(_, call)| call.trim_start());
        let opens = call.starts_with("open") && call.contains("O_PATH");
        assert!(
            opens || looks.iter().any(|look| call.starts_with(look)),
            "CVE-2025-24965: {line}"
        );
    }
    assert!(seen > 1, "{text}");
    // Before the command's execve(2) nothing that makes or changes a file has a path
    // that begins anywhere but at a descriptor.
    let made = [
        "mkdir(",
        "creat(",
        "mknod(",
        "symlink(",
        "link(",
        "rename(",
        "unlink(",
        "rmdir(",
        "chmod(",
        "chown(",
        "truncate(",
    ];
    let wrong = text.lines().find(|line| {
        let call = line
            .split_once(' ')
            .map_or(*line, |(_, call)| call.trim_start());
        let by_name = made.iter().any(|made| call.starts_with(made));
        let at_cwd = call.contains("at(AT_FDCWD, \"/")
            && [
                "mkdirat(",
                "mknodat(",
                "symlinkat(",
                "linkat(",
                "renameat",
                "unlinkat(",
            ]
            .iter()
            .any(|made| call.starts_with(made));
        let writes = call.starts_with("open")
            && call.contains("AT_FDCWD, \"/")
            && (call.contains("O_CREAT") || call.contains("O_WRONLY") || call.contains("O_RDWR"));
        by_name || at_cwd || writes && !call.contains("\"/dev/") && !call.contains("\"/proc/")
    });
    assert_eq!(wrong, None, "CVE-2025-24965");
}
