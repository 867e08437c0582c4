//! Volumes, tmpfs and a read-only root.

use std::fs;
use std::os::unix::fs::symlink;

use crate::util::{Host, Who};

both! {
    fn a_read_only_root_is_read_only(who) {
        let script = "{ touch /file; } 2>&1; mkdir /etc/folder 2>&1; echo x > /dev/null && echo 'devices work'";
        let printed = who.sh(&["--read-only"], script);
        assert_eq!(
            printed.matches("Read-only file system").count(),
            2,
            "{printed}"
        );
        assert!(printed.contains("devices work"), "{printed}");
        assert_eq!(who.sh(&[], "touch /file && ls /file"), "/file\n");
    }

    fn volumes_are_shared_both_ways(who) {
        let folder = who.folder();
        fs::write(folder.path().join("from-host"), "host\n").unwrap();
        let volume = format!("{}:/data", folder.path().display());
        let printed = who.sh(
            &["-v", &volume],
            "cat /data/from-host; echo container > /data/from-container",
        );
        assert_eq!(printed, "host\n");
        assert_eq!(
            fs::read_to_string(folder.path().join("from-container")).unwrap(),
            "container\n"
        );
    }

    fn read_only_volumes_refuse_writes(who) {
        let folder = who.folder();
        let path = folder.path().to_str().unwrap();
        for options in [
            ["-v".to_owned(), format!("{path}:/data:ro")],
            [
                "--mount".to_owned(),
                format!("type=bind,source={path},destination=/data,ro"),
            ],
            [
                "--mount".to_owned(),
                format!("type=bind,src={path},target=/data,readonly"),
            ],
        ] {
            let printed = who.sh(&[&options[0], &options[1]], "touch /data/file 2>&1; true");
            assert!(
                printed.contains("Read-only file system"),
                "{options:?}: {printed}"
            );
            assert_eq!(fs::read_dir(path).unwrap().count(), 0, "{options:?}");
        }
    }

    fn a_volume_below_a_read_only_one_stays_read_only(who) {
        need!(Host::new().is_own(), "a mount on the host needs root");
        // Everything mounted below a volume comes with it, and is as read-only.
        let folder = who.folder();
        let path = folder.path().to_str().unwrap();
        fs::create_dir(folder.path().join("below")).unwrap();
        let host = Host::new();
        host.tool(&[
            "mount",
            "-t",
            "tmpfs",
            "-o",
            "mode=777",
            "tmpfs",
            &format!("{path}/below"),
        ]);
        let volume = format!("{path}:/data:ro");
        let output = who
            .crun(&[
                "--net=none",
                "-v",
                &volume,
                "--",
                "sh",
                "-c",
                "touch /data/below/file 2>&1; true",
            ])
            .on(&host)
            .run();
        let printed = output.success();
        assert!(printed.contains("Read-only file system"), "{printed}");
    }

    fn a_file_is_a_volume_too(who) {
        let folder = who.folder();
        let path = folder.path().join("file");
        fs::write(&path, "text\n").unwrap();
        let volume = format!("{}:/new/place:ro", path.display());
        assert_eq!(who.sh(&["-v", &volume], "cat /new/place"), "text\n");
    }

    fn a_target_behind_a_link_stays_inside(who) {
        // The default root's /var/run leads to /run.
        let folder = who.folder();
        fs::write(folder.path().join("file"), "text\n").unwrap();
        let volume = format!("{}:/var/run/data", folder.path().display());
        assert_eq!(who.sh(&["-v", &volume], "cat /run/data/file"), "text\n");
    }

    fn a_source_may_be_a_link(who) {
        let folder = who.folder();
        fs::create_dir(folder.path().join("real")).unwrap();
        fs::write(folder.path().join("real/file"), "text\n").unwrap();
        symlink("real", folder.path().join("link")).unwrap();
        let volume = format!("{}:/data", folder.path().join("link").display());
        assert_eq!(who.sh(&["-v", &volume], "cat /data/file"), "text\n");
    }

    fn mounts_carry_no_privileges(who) {
        let folder = who.folder();
        let volume = format!("{}:/data", folder.path().display());
        let printed = who.sh(
            &["-v", &volume, "--tmpfs=/scratch"],
            "cat /proc/self/mountinfo",
        );
        for target in [
            "/data",
            "/scratch",
            "/proc",
            "/sys",
            "/dev/shm",
            "/dev/mqueue",
        ] {
            let line = printed
                .lines()
                .find(|line| line.split(' ').nth(4) == Some(target));
            let line = line.unwrap_or_else(|| panic!("{target} is not mounted: {printed}"));
            let flags: Vec<_> = line.split(' ').nth(5).unwrap().split(',').collect();
            for flag in ["nosuid", "nodev"] {
                assert!(flags.contains(&flag), "{target} is not {flag}: {line}");
            }
            assert_eq!(target == "/sys", flags.contains(&"ro"), "{line}");
        }
    }

    fn a_tmpfs_has_its_size_and_mode(who) {
        let script = "stat -c %a /scratch; head -c 2m /dev/zero > /scratch/file 2>/dev/null; wc -c < /scratch/file";
        let printed = who.sh(&["--tmpfs=/scratch:size=1m,mode=700"], script);
        assert_eq!(printed, "700\n1048576\n");
        let mount = "--mount=type=tmpfs,destination=/scratch,tmpfs-size=1m,tmpfs-mode=700";
        assert_eq!(who.sh(&[mount], script), "700\n1048576\n");
        assert_eq!(
            who.sh(&["--tmpfs=/scratch"], "stat -c %a /scratch"),
            "1777\n"
        );
    }

    fn a_tmpfs_executes_nothing_unless_asked(who) {
        let script = "cp /bin/busybox /scratch/true 2>/dev/null || cp $(which true) /scratch/true; /scratch/true 2>/dev/null && echo ran; true";
        assert_eq!(who.sh(&["--tmpfs=/scratch"], script), "");
        assert_eq!(who.sh(&["--tmpfs=/scratch:exec"], script), "ran\n");
    }

    fn later_mounts_lie_over_earlier_ones(who) {
        let folder = who.folder();
        fs::write(folder.path().join("file"), "text\n").unwrap();
        let volume = format!("{}:/scratch/inner", folder.path().display());
        let printed = who.sh(
            &["--tmpfs=/scratch", "-v", &volume],
            "ls /scratch; cat /scratch/inner/file",
        );
        assert_eq!(printed, "inner\ntext\n");
    }
}

#[test]
fn a_container_cannot_undo_its_mounts() {
    for script in [
        "umount /proc/kcore",
        "mount -o remount,rw /sys",
        "mount -t tmpfs tmpfs /mnt",
        "umount -l /etc/hosts",
    ] {
        let output = Who::User.run(&["--net=none", "--", "sh", "-c", script]);
        assert!(!matches!(output.code(), Some(0 | 125)), "{script}{output}");
    }
}
