//! `--device`: devices of the host, and no way around what is hidden.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use crate::util::{Who, rootfs, tool};

both! {
    fn a_device_is_shown_where_it_is_asked_for(who) {
        let full = "{ echo x > $1; } 2>&1; stat -c '%F %t:%T' $1";
        let script = |path: &str| format!("set -- {path}; {full}");
        for (option, path) in [
            ("--device=/dev/full:/dev/nearly", "/dev/nearly"),
            ("--device=/dev/full:/deep/er/full:rwm", "/deep/er/full"),
            ("--device=/dev/full", "/dev/full"),
        ] {
            let printed = who.sh(&[option], &script(path));
            assert!(printed.contains("No space left on device"), "{option}: {printed}");
            assert!(printed.ends_with("character special file 1:7\n"), "{option}: {printed}");
        }
        // Read-only roots and volumes leave it alone.
        let printed = who.sh(&["--read-only", "--device=/dev/null:/dev/x"], "echo x > /dev/x && echo fine");
        assert_eq!(printed, "fine\n");
        let folder = who.folder();
        let volume = format!("{}:/data", folder.path().display());
        let options = ["--device=/dev/null:/data/null", "-v", &volume];
        assert_eq!(who.sh(&options, "stat -c %F /data/null"), "character special file\n");
    }

    fn a_link_is_followed_on_the_host(who) {
        let folder = who.folder();
        let link = folder.path().join("link");
        symlink("/dev/full", &link).unwrap();
        let option = format!("--device={}:/dev/link", link.display());
        assert_eq!(who.sh(&[&option], "stat -c '%F %t:%T' /dev/link"), "character special file 1:7\n");
    }

    fn the_devices_of_a_folder_are_shown(who) {
        need!(Who::tests_run_as_root(), "device nodes of the test's own need root");
        let folder = who.folder();
        let path = folder.path().display().to_string();
        tool("mkdir", &["-p", &format!("{path}/dev/sub"), &format!("{path}/empty")]);
        fs::write(folder.path().join("dev/file"), "no device").unwrap();
        symlink("/dev/zero", folder.path().join("dev/link")).unwrap();
        for (name, minor) in [("dev/null", "3"), ("dev/sub/full", "7")] {
            let node = format!("{path}/{name}");
            tool("mknod", &["-m", "666", &node, "c", "1", minor]);
        }
        let option = format!("--device={path}/dev:/dev/mine");
        let printed = who.sh(&[&option], "cd /dev/mine; find . | sort; echo x > null; echo x 2>/dev/null > sub/full || echo full");
        assert_eq!(printed, ".\n./null\n./sub\n./sub/full\nfull\n");
        let option = format!("--device={path}/empty:/dev/mine");
        who.run(&[&option, "--", "true"]).refused(&["--device", "no device in that directory"]);
        // A volume holds no devices unless it is told to.
        let script = "echo x 2>/dev/null > /data/null || echo refused";
        let volume = format!("{path}/dev:/data");
        assert_eq!(who.sh(&["-v", &volume], script), "refused\n");
        assert_eq!(who.sh(&["-v", &format!("{volume}:dev")], script), "");
    }

    fn what_is_no_device_is_refused(who) {
        let folder = who.folder();
        let fifo = folder.path().join("fifo");
        tool("mkfifo", &[fifo.to_str().unwrap()]);
        let fifo = format!("--device={}", fifo.display());
        for (option, words) in [
            ("--device=/dev/no-such-device", &["--device", "/dev/no-such-device", "No such file"][..]),
            ("--device=/etc/passwd", &["--device", "/etc/passwd", "not a device"]),
            ("--device=/proc/version:/dev/version", &["not a device"]),
            (&fifo, &["not a device"]),
            ("--device=dev/null", &["absolute path"]),
            ("--device=/dev/null:/dev/x:rwx", &["permissions"]),
            ("--device=/dev/null:/proc/timer_list", &["/proc or /sys"]),
            ("--device=/dev/null:/dev/../sys/firmware", &["/proc or /sys"]),
            ("--device=/dev/null:/", &["/"]),
        ] {
            who.run(&["--net=none", option, "--", "true"]).refused(words);
        }
    }

    fn it_is_no_way_around_a_mask(who) {
        let folder = rootfs::busybox(who);
        need!(folder.is_some(), "the host has no static busybox");
        let folder = folder.unwrap();
        symlink("/proc", folder.path().join("kernel")).unwrap();
        who.own(&folder.path().join("kernel"));
        let root = format!("--rootfs={}", folder.path().display());
        let args = ["--net=none", &root, "--device=/dev/zero:/kernel/timer_list", "--", "true"];
        who.run(&args).refused(&["bind device", "/kernel/timer_list"]);
        // What was masked stays so, with whatever device in its place.
        let plan = who.run(&["--dry-run", "--device=/dev/null:/dev/x", "true"]).success();
        for line in ["mask /proc/kcore", "bind device /dev/null on /dev/x (character 1:3, nosuid, noexec)"] {
            assert!(plan.contains(line), "{line}: {plan}");
        }
    }

    fn permissions_are_told_to_be_the_files(who) {
        let output = who.run(&["--net=none", "--device=/dev/full:/dev/x:r", "--", "sh", "-c", "head -c 1 /dev/x | wc -c"]);
        assert!(output.stderr.contains("not enforced"), "{output}");
        assert_eq!(output.success(), "1\n");
    }
}

#[test]
fn a_device_that_is_closed_stays_closed() {
    need!(
        Who::tests_run_as_root(),
        "device nodes of the test's own need root"
    );
    let who = Who::User;
    let folder = who.folder();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let node = folder.path().join("null");
    tool(
        "mknod",
        &["-m", "600", node.to_str().unwrap(), "c", "1", "3"],
    );
    let option = format!("--device={}:/dev/x", node.display());
    let printed = who.sh(
        &[&option],
        "{ echo x > /dev/x; } 2>/dev/null || echo refused",
    );
    assert_eq!(printed, "refused\n");
}
