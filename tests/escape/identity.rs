//! T9, T10, T11: ids, groups and the terminal.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::process::Command;

use crate::util::pty::Pty;
use crate::util::{SOON, Who, has_program, rootfs};

/// Tries to type into the terminal at standard input, in both forms.
const TYPE: &str = "
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.argtypes = [ctypes.c_long] * 4
libc.syscall.restype = ctypes.c_long
for request in (0x5412, 0x5412 | 1 << 32, 0x5412 | 0xffffffff << 32, 0x541c):
    for fd in (0, 1, 2):
        byte = ctypes.create_string_buffer(b'!')
        result = libc.syscall(16, fd, request, ctypes.addressof(byte))
        print('typed' if result == 0 else os.strerror(ctypes.get_errno()))
print('over')
";

both! {
    fn users_are_never_root_by_mistake(who) {
        let folder = rootfs::busybox(who);
        need!(folder.is_some(), "the host has no static busybox");
        let folder = folder.unwrap();
        let etc = folder.path().join("etc");
        fs::create_dir(&etc).unwrap();
        // A name of digits is root's here.
        fs::write(etc.join("passwd"), "root:x:0:0::/:/bin/sh\n1:x:0:0::/:/bin/sh\n1:x:1:0::/:/bin/sh\n").unwrap();
        fs::write(etc.join("group"), "root:x:0:\n1:x:0:\n").unwrap();
        who.own(&etc);
        let option = format!("--rootfs={}", folder.path().display());
        for (user, uid, gid) in [("1", Some("1"), None), ("1:1", Some("1"), Some("1")), ("1:", Some("1"), None), (":1", None, Some("1")), ("01", Some("1"), None), ("+1", None, None), ("1 ", None, None), ("1.0", None, None)] {
            let word = format!("--user={user}");
            let output = who.run(&["--net=none", &option, &word, "--", "sh", "-c", "id -u; id -g"]);
            if output.code() == Some(125) {
                assert_eq!(output.stdout, "", "{output}");
                continue;
            }
            let printed = output.success();
            let lines: Vec<_> = printed.lines().collect();
            assert!(uid.is_some() || gid.is_some(), "{user}: {printed}");
            for (wanted, found) in [(uid, lines[0]), (gid, lines[1])] {
                assert!(wanted.is_none_or(|wanted| wanted == found), "CVE-2026-30892: {user}: {printed}");
            }
        }
    }

    fn no_input_is_pushed_into_the_terminal(who) {
        need!(cfg!(target_arch = "x86_64"), "the call numbers of this test are x86-64's");
        need!(has_program("python3"), "no python3");
        for terminal in [&["-i"][..], &["-t", "-i"], &["-i", "--cap-add=ALL"]] {
            let pty = Pty::new(who);
            let mut args = vec!["--net=none", "--rootfs=/"];
            args.extend(terminal);
            args.extend(["--", "/usr/bin/python3", "-c", TYPE]);
            let run = pty.spawn(who.crun(&args));
            pty.expect("over");
            assert!(run.finish(SOON).success(), "{}", pty.screen.text());
            let screen = pty.screen.text();
            assert!(!screen.contains("typed") && !screen.contains('!'), "CVE-2017-5226, CVE-2019-10063: {screen}");
            assert!(screen.matches("Operation not permitted").count() >= 12, "{screen}");
        }
    }
}

/// A file is closed to a group that the caller is in: it stays so, for groups cannot
/// be dropped where the map is of the caller's own id alone.
#[test]
fn a_file_that_excludes_a_group_stays_closed() {
    need!(Who::tests_run_as_root(), "only root makes files of others");
    let folder = Who::Root.folder();
    fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let user = Who::User.identity();
    let (program, excluded) = (Who::User.program(), 4242);
    let run = |group: u32, options: &[&str], script: &str| {
        let file = folder.path().join("file");
        let _ = fs::remove_file(&file);
        fs::write(&file, "secret").unwrap();
        chown(&file, Some(0), Some(group)).unwrap();
        fs::set_permissions(&file, PermissionsExt::from_mode(0o604)).unwrap();
        let volume = format!("{}:/file:ro", file.display());
        let groups = format!("--groups={},{excluded}", user.gid);
        let output = Command::new("setpriv")
            .args([
                &format!("--reuid={}", user.uid),
                &format!("--regid={}", user.gid),
                &groups,
                "--inh-caps=-all",
                "--",
            ])
            .arg(&program.path)
            .args(["run", "--net=none", "-v", &volume])
            .args(options)
            .args(["--", "sh", "-c", script])
            .env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin")
            .current_dir("/")
            .output()
            .unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let own = [
        format!("--uidmap=0:{}:1", user.uid),
        format!("--gidmap=0:{}:1", user.gid),
    ];
    let own = own.each_ref().map(String::as_str);
    let script = "cat /file 2>/dev/null; cat /proc/self/setgroups; id -G";
    for group in [excluded, user.gid] {
        let (code, stdout, stderr) = run(group, &own, script);
        assert_eq!(code, Some(0), "{stdout}{stderr}");
        assert!(
            stdout.starts_with("deny\n"),
            "CVE-2018-7169: {stdout}{stderr}"
        );
    }
    // Another's file of another group is open to all others.
    let (_, stdout, _) = run(4243, &own, script);
    assert!(stdout.starts_with("secret"), "{stdout}");
    // With ids of more groups, as the host has given them, the group stays until the
    // command leaves it, which is what those ids are for (newgidmap(1)).
    let (code, stdout, stderr) = run(user.gid, &[], "cat /file 2>/dev/null; echo over");
    assert_eq!((code, &*stdout), (Some(0), "over\n"), "{stderr}");
}
