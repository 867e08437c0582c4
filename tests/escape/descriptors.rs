//! T2: nothing that the caller has open is a way out; and the second wall, for what
//! is passed on purpose.

use crate::util::Who;

/// Opens a folder of the host at every descriptor from 3 to 64.
const OPEN: &str = "for fd in $(seq 3 64); do eval \"exec $fd</etc\"; done; exec \"$@\"";

both! {
    fn no_descriptor_is_a_working_directory(who) {
        for fd in 3..=64 {
            let path = format!("/proc/self/fd/{fd}");
            let output = who
                .crun(&["--net=none", "-w", &path, "--", "sh", "-c", "pwd -P; ls; cat passwd"])
                .through(&["bash", "-c", OPEN, "bash"])
                .run();
            assert_eq!(output.code(), Some(125), "CVE-2024-21626{output}");
            assert_eq!(output.stdout, "", "{output}");
        }
    }

    fn a_folder_of_the_hosts_that_is_passed_leads_nowhere(who) {
        need!(landlock(), "the kernel has no Landlock");
        let run = |options: &[&str], script: &str| {
            let mut args = vec!["--net=none", "-i"];
            args.extend(options);
            args.extend(["--", "sh", "-c", script]);
            who.crun(&args)
                .through(&["sh", "-c", "exec \"$@\" </etc", "sh"])
                .run()
        };
        let script = "ls /proc/self/fd/0/; cat /proc/self/fd/0/passwd; echo x > /proc/self/fd/0/../tmp/canary; true";
        let held = run(&[], script);
        assert_eq!(held.success(), "", "CVE-2024-21626");
        // Without it, it does: the test could not fail otherwise.
        let open = run(&["--security-opt=landlock=disable"], "ls /proc/self/fd/0/");
        assert!(open.success().contains("passwd"));
        // A command that may mount does without.
        let mounting = run(&["--cap-add=SYS_ADMIN"], "mount -t tmpfs none /mnt && echo mounted");
        assert_eq!(mounting.success(), "mounted\n");
    }

    fn standard_streams_open_again_for_what_they_are_open_for(who) {
        let folder = who.folder();
        let file = folder.path().join("file");
        let path = file.to_str().unwrap();
        std::fs::write(&file, "in\n").unwrap();
        who.own(&file);
        let stream = |redirect: &str, script: &str| {
            let redirect = format!("exec \"$@\" {redirect}");
            who.crun(&["--net=none", "-i", "--", "sh", "-c", script])
                .through(&["sh", "-c", &redirect, "sh"])
                .run()
        };
        let quoted = format!("'{path}'");
        let input = stream(&format!("<{quoted}"), "cat /dev/stdin").stdout;
        assert_eq!(input, "in\n");
        let output = stream(&format!(">{quoted} 2>&1"), "echo one > /dev/stdout; echo two >> /dev/stderr");
        assert_eq!(output.code(), Some(0), "{output}");
        assert!(std::fs::read_to_string(&file).unwrap().contains("two\n"), "{output}");
        if landlock() {
            let refused = stream(&format!("<{quoted}"), "echo changed > /proc/self/fd/0");
            assert_ne!(refused.code(), Some(0), "{refused}");
            assert!(!std::fs::read_to_string(&file).unwrap().contains("changed"));
        }
    }

    fn a_read_only_root_is_written_where_it_is_left_writable(who) {
        let folder = who.folder();
        let volume = format!("{}:/data/deep", folder.path().display());
        // The second volume lies over the place of the first.
        let options = ["--read-only", "-v", &volume, "--tmpfs=/data", "--tmpfs=/more", "-v", &format!("{}:/volume", folder.path().display())];
        let printed = who.sh(&options, "for d in / /bin /tmp /run /dev/shm /data /more /volume; do touch $d/new 2>/dev/null && echo $d; done; true");
        assert_eq!(printed, "/tmp\n/run\n/dev/shm\n/data\n/more\n/volume\n");
    }

    fn files_move_and_sockets_meet_within_the_second_wall(who) {
        let python = "import os, socket
os.mkdir('/tmp/a'); os.mkdir('/tmp/b'); open('/tmp/a/f', 'w').write('x')
os.rename('/tmp/a/f', '/tmp/b/g'); os.link('/tmp/b/g', '/tmp/a/h'); os.truncate('/tmp/a/h', 0)
s = socket.socket(socket.AF_UNIX); s.bind('\\0here'); s.listen()
c = socket.socket(socket.AF_UNIX); c.connect('\\0here')
m = os.memfd_create('m'); os.write(m, b'#!/bin/sh'); open('/proc/self/fd/%d' % m, 'w').close()
r, w = os.pipe(); open('/proc/self/fd/%d' % w, 'w').write('p'); print(os.read(r, 1).decode())
os.mkfifo('/tmp/p'); os.symlink('x', '/tmp/l'); os.remove('/tmp/l'); os.rmdir('/tmp/a') if not os.listdir('/tmp/a') else None
m, s = os.openpty(); print(os.path.exists(os.ttyname(s)))";
        need!(crate::util::has_program("python3"), "no python3");
        let output = who.run(&["--net=none", "--rootfs=/", "--tmpfs=/tmp", "--", "/usr/bin/python3", "-c", python]);
        assert_eq!(output.success(), "p\nTrue\n");
    }
}

/// Whether the kernel has what the second wall is made of.
fn landlock() -> bool {
    crun_lite::security::landlock::is_available()
}
