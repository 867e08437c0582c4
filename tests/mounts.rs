//! Volumes, tmpfs and a read-only root.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use crate::util::who::Identity;
use crate::util::{Host, Who, rootfs, tool};

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

    fn a_tmpfs_can_be_told_more(who) {
        need!(who.has_subordinate_ids(), "{:?} has no subordinate ids", who);
        let script = "stat -c '%a %u:%g' /t; grep ' /t ' /proc/self/mountinfo; for i in 1 2 3 4; do touch /t/$i; done 2>/dev/null; ls /t";
        let options = "mode=750,uid=3,gid=4,nr_inodes=4,noatime,suid,exec";
        for option in [
            format!("--tmpfs=/t:{options}"),
            format!("--mount=type=tmpfs,dst=/t,{options}"),
        ] {
            let printed = who.sh(&[&option], script);
            let lines: Vec<_> = printed.lines().collect();
            assert_eq!(lines[0], "750 3:4", "{printed}");
            let flags = lines[1].split(' ').nth(5).unwrap();
            assert_eq!(flags, "rw,nodev,noatime", "{printed}");
            assert_eq!(&lines[2..], ["1", "2", "3"], "{printed}");
        }
        who.run(&["--net=none", "--tmpfs=/t:uid=4000000000", "--", "true"])
            .refused(&["/t", "4000000000"]);
    }

    fn a_tmpfs_can_begin_with_a_copy(who) {
        let folder = rootfs::busybox(who);
        need!(folder.is_some(), "the host has no static busybox");
        let folder = folder.unwrap();
        let data = folder.path().join("data");
        fs::create_dir_all(data.join("inner/deep")).unwrap();
        fs::write(data.join("file"), "text\n").unwrap();
        fs::write(data.join("inner/deep/file"), "deep\n").unwrap();
        symlink("/etc/shadow", data.join("link")).unwrap();
        fs::set_permissions(data.join("file"), fs::Permissions::from_mode(0o640)).unwrap();
        fs::set_permissions(&data, fs::Permissions::from_mode(0o711)).unwrap();
        tool("mkfifo", &[data.join("fifo").to_str().unwrap()]);
        if Who::tests_run_as_root() {
            let Identity { uid, gid, .. } = who.identity();
            let owner = format!("{uid}:{gid}");
            tool("chown", &["-R", "-h", &owner, data.to_str().unwrap()]);
        }
        let root = format!("--rootfs={}", folder.path().display());
        let script = "cd /data; ls; cat file inner/deep/file; stat -c '%a %u %F' . file link fifo; echo x > new; echo x > file";
        let printed = who.sh(&[&root, "--tmpfs=/data:tmpcopyup"], script);
        assert_eq!(
            printed,
            "fifo\nfile\ninner\nlink\ntext\ndeep\n711 0 directory\n640 0 regular file\n777 0 symbolic link\n644 0 fifo\n"
        );
        // The folder itself is as it was; without the word there is no copy.
        assert!(!data.join("new").exists());
        assert_eq!(fs::read_to_string(data.join("file")).unwrap(), "text\n");
        assert_eq!(who.sh(&[&root, "--tmpfs=/data"], "ls /data"), "");
        assert_eq!(who.sh(&[&root, "--tmpfs=/data:notmpcopyup"], "ls /data"), "");
        let mount = "--mount=type=tmpfs,dst=/data,tmpcopyup,ro,tmpfs-mode=700";
        let printed = who.sh(&[&root, mount], "stat -c %a /data; cat /data/file; touch /data/x 2>&1; true");
        assert!(printed.starts_with("700\ntext\n") && printed.contains("Read-only"), "{printed}");
        let args = ["--net=none", &root, "--tmpfs=/data:tmpcopyup,size=4k,nr_inodes=2", "--", "true"];
        who.run(&args).refused(&["mount tmpfs", "/data", "No space left"]);
    }

    fn volumes_can_be_told_more(who) {
        let folder = who.folder();
        let script = folder.path().join("script");
        fs::write(&script, "#!/bin/sh\necho ran\n").unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        who.own(&script);
        let path = folder.path().display();
        let run = |option: &str| {
            let printed = who.sh(&[option], "/data/script 2>/dev/null; grep ' /data ' /proc/self/mountinfo");
            let flags = printed.lines().last().unwrap().split(' ').nth(5).unwrap().to_owned();
            (printed.starts_with("ran\n"), flags)
        };
        let has = |flags: &str, flag: &str| flags.split(',').any(|it| it == flag);
        let (ran, flags) = run(&format!("-v={path}:/data:noexec"));
        assert!(!ran && has(&flags, "noexec") && has(&flags, "nosuid") && has(&flags, "nodev"), "{flags}");
        let (ran, flags) = run(&format!("--mount=type=bind,src={path},dst=/data,suid,dev,exec"));
        assert!(ran && !has(&flags, "nosuid") && !has(&flags, "nodev"), "{flags}");
    }

    fn a_volume_follows_the_host_when_it_is_a_slave(who) {
        let host = Host::new();
        need!(host.is_own(), "a mount on the host needs root");
        let folder = who.folder();
        let path = folder.path().to_str().unwrap();
        let mounted = |mode: &str| format!("{path}:/data:{mode}");
        // In a mount that is private, nothing would come.
        host.tool(&["mount", "-t", "tmpfs", "-o", "mode=777", "tmpfs", path]);
        host.tool(&["mount", "--make-private", path]);
        for mode in ["slave", "rslave", "shared"] {
            let args = ["--net=none", "-v", &mounted(mode), "--", "true"];
            who.crun(&args).on(&host).run().refused(&["--volume", path, "mount --make-shared"]);
        }
        host.tool(&["mount", "--make-shared", path]);
        host.tool(&["mkdir", "-m", "777", &format!("{path}/below")]);
        let script = "echo ready; read line; cat /data/below/file";
        for (mode, shown) in [("rslave", true), ("slave", true), ("shared", true), ("private", false)] {
            let volume = mounted(mode);
            let args = ["--net=none", "-i", "-v", &volume, "--", "sh", "-c", script];
            let mut running = who.crun(&args).stdin_open().on(&host).spawn();
            running.expect("ready\n");
            let below = format!("{path}/below");
            host.tool(&["mount", "-t", "tmpfs", "-o", "mode=777", "tmpfs", &below]);
            host.tool(&["sh", "-c", &format!("echo later > {below}/file")]);
            running.write(b"go\n");
            let output = running.finish();
            assert_eq!(output.stdout.ends_with("later\n"), shown, "{mode}{output}");
            host.tool(&["umount", &below]);
        }
    }
}

#[test]
fn mounts_reach_the_host_only_when_they_are_shared() {
    need!(Who::tests_run_as_root(), "a mount on the host needs root");
    let host = Host::new();
    let folder = Who::Root.folder();
    let path = folder.path().to_str().unwrap();
    host.tool(&["mount", "-t", "tmpfs", "tmpfs", path]);
    host.tool(&["mount", "--make-shared", path]);
    host.tool(&["mkdir", &format!("{path}/below")]);
    // Everything that could keep the container from mounting is taken away.
    let open = [
        "--net=none",
        "--cap-add=ALL",
        "--security-opt=seccomp=unconfined",
        "--security-opt=no-new-privileges=false",
    ];
    let script = "mount -t tmpfs tmpfs /data/below && echo container > /data/below/file && echo ready && read line";
    for (who, userns, mode, reaches) in [
        (Who::Root, "host", "shared", true),
        (Who::Root, "host", "slave", false),
        (Who::Root, "host", "rw", false),
        (Who::Root, "private", "shared", false),
        (Who::User, "private", "shared", false),
    ] {
        let (volume, userns) = (format!("{path}:/data:{mode}"), format!("--userns={userns}"));
        host.tool(&["chmod", "777", path, &format!("{path}/below")]);
        let mut args = open.to_vec();
        args.extend(["-i", &userns, "-v", &volume, "--", "sh", "-c", script]);
        let mut running = who.crun(&args).stdin_open().on(&host).spawn();
        running.expect("ready\n");
        let seen = host.tool(&[
            "sh",
            "-c",
            &format!("cat {path}/below/file 2>/dev/null || echo nothing"),
        ]);
        running.write(b"go\n");
        let output = running.finish().exit(0);
        assert_eq!(
            seen == "container\n",
            reaches,
            "{who:?} {userns} {mode}: {seen}"
        );
        let warned = output.stderr.contains("user namespace of its own");
        assert_eq!(
            warned,
            mode == "shared" && userns.ends_with("private"),
            "{output}"
        );
        if reaches {
            host.tool(&["umount", &format!("{path}/below")]);
        }
    }
    let inner = Who::Root.folder();
    let (outer, inner) = (
        format!("{path}:/data:shared"),
        format!("{}:/data/inner", inner.path().display()),
    );
    let args = [
        "--net=none",
        "--userns=host",
        "-v",
        &outer,
        "-v",
        &inner,
        "--",
        "true",
    ];
    Who::Root
        .crun(&args)
        .on(&host)
        .run()
        .refused(&["/data/inner", "shared"]);
}

#[test]
fn the_ids_of_a_volume_can_be_mapped() {
    need!(Who::tests_run_as_root(), "id maps of a mount need root");
    let kind = tool("stat", &["-f", "-c", "%T", "/tmp"]);
    let knows = ["ext2/ext3", "xfs", "btrfs", "tmpfs", "f2fs"].contains(&kind.trim());
    need!(
        knows,
        "the file system of /tmp, {kind}, may not know idmapped mounts"
    );
    let folder = Who::Root.folder();
    let path = folder.path();
    for (name, uid) in [("roots", 0), ("users", 7), ("others", 4_000_000)] {
        fs::write(path.join(name), name).unwrap();
        std::os::unix::fs::chown(path.join(name), Some(uid), Some(uid)).unwrap();
    }
    let script = "cd /data; stat -c '%n %u:%g' *; touch new; chown 5:6 new";
    for (volume, shown) in [
        (format!("-v={}:/data:idmap", path.display()), true),
        (
            format!(
                "--mount=type=bind,src={},dst=/data,idmap=true",
                path.display()
            ),
            true,
        ),
        (format!("-v={}:/data", path.display()), false),
    ] {
        let args = [
            "--net=none",
            "--uidmap=0:300000:1000",
            &volume,
            "--",
            "sh",
            "-c",
            script,
        ];
        let output = Who::Root.run(&args);
        let wanted = if shown {
            "others 65534:65534\nroots 0:0\nusers 7:7\n"
        } else {
            "others 65534:65534\nroots 65534:65534\nusers 65534:65534\n"
        };
        assert_eq!(output.stdout, wanted, "{volume}{output}");
        if shown {
            let meta = fs::metadata(path.join("new")).unwrap();
            assert_eq!((meta.uid(), meta.gid()), (5, 6), "{volume}");
            fs::remove_file(path.join("new")).unwrap();
        }
    }
    // Read-only, and what cannot have it.
    let volume = format!("-v={}:/data:idmap,ro", path.display());
    let args = [
        "--net=none",
        "--uidmap=0:300000:1000",
        &volume,
        "--",
        "touch",
        "/data/x",
    ];
    assert!(Who::Root.run(&args).stderr.contains("Read-only"));
    let args = [
        "--net=none",
        "--uidmap=0:300000:1000",
        "-v=/proc/sys:/data:idmap",
        "--",
        "true",
    ];
    Who::Root
        .run(&args)
        .refused(&["map the ids of", "/proc/sys"]);
    Who::User
        .run(&["--net=none", &volume, "--", "true"])
        .refused(&["idmap is only for root"]);
    Who::Root
        .run(&["--userns=host", &volume, "--", "true"])
        .refused(&["--userns=host"]);
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
