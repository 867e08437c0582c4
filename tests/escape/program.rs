//! T1: the program itself stays out of reach.
//!
//! The hostile root has a dynamic loader of its own, so that code of the container
//! would run as soon as the host's program was executed in it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::{race, races};
use crate::util::{Who, has_program, report, rootfs, tool};

/// Writes what its own program is called, and tries to open it for writing and to
/// change its mode. It starts where a dynamic loader would.
const LOADER: &str = r#"
static long call(long n, long a, long b, long c) {
    long r;
    __asm__ volatile("syscall" : "=a"(r) : "a"(n), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
    return r;
}
void _start(void) {
    static char name[300] = "LOADED ";
    const char *own = "/proc/self/exe";
    long n = call(89, (long)own, (long)name + 7, 280);
    call(1, 1, (long)name, 7 + (n > 0 ? n : 0));
    if (call(2, (long)own, 1, 0) >= 0) call(1, 1, (long)" WRITABLE", 9);
    call(90, (long)own, 0777, 0);
    call(231, 99, 0, 0);
}
"#;
/// Where programs of this architecture have their loader.
const LOADER_PATH: &str = "lib64/ld-linux-x86-64.so.2";

/// What it looks like from inside while it lasts.
const LOOK: &str = "#!/bin/sh
for p in /proc/[0-9]* /proc/self; do
    ( : >> $p/exe ) 2>/dev/null && echo written $p
done
echo ran
";

fn executable(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
}

both! {
    fn a_script_that_becomes_the_runtime_gets_nowhere(who) {
        need!(cfg!(target_arch = "x86_64"), "the loader of this test is for x86-64");
        need!(has_program("gcc"), "no gcc(1)");
        let folder = rootfs::busybox(who);
        need!(folder.is_some(), "the host has no static busybox");
        let folder = folder.unwrap();
        let root = folder.path();
        let source = who.folder();
        let source = source.path().join("loader.c");
        fs::write(&source, LOADER).unwrap();
        fs::create_dir(root.join("lib64")).unwrap();
        let loader = root.join(LOADER_PATH);
        tool("gcc", &["-O2", "-static", "-nostdlib", "-fno-stack-protector", "-no-pie", "-o", loader.to_str().unwrap(), source.to_str().unwrap()]);
        let program = who.program();
        if who == Who::User {
            // As with a program in the user's own folder: the container's root owns it.
            who.own(&program.path);
        }
        let option = format!("--rootfs={}", root.display());
        // Hostile code does run where a program with this loader is executed.
        tool("cp", &["--", program.path.to_str().unwrap(), root.join("bin/copy").to_str().unwrap()]);
        fs::set_permissions(root.join("bin/copy"), PermissionsExt::from_mode(0o755)).unwrap();
        let control = who.run(&["--net=none", &option, "--", "/bin/copy"]);
        assert!(control.code() == Some(99) && control.stdout.starts_with("LOADED /bin/copy"), "{control}");

        executable(&root.join("entry"), LOOK);
        executable(&root.join("other"), "#!/proc/self/exe\n");
        let pairs = [(root.join("entry"), root.join("other"))];
        let before = (fs::read(&program.path).unwrap(), fs::metadata(&program.path).unwrap().permissions());
        // With the domain, and with a sealed copy in its place.
        for options in [&[][..], &["--security-opt=seccomp=unconfined"], &["--cap-add=SYS_ADMIN"], &["--security-opt=landlock=disable"]] {
            let mut args = vec!["--net=none", &option];
            args.extend(options);
            args.extend(["--", "/entry"]);
            let run = who.crun(&args);
            let (mut ran, mut refused, mut lost, mut held) = (0, 0, 0, 0);
            race(&run, &pairs, |start| {
                let all = format!("{:?} {}{}", start.code, start.stdout, start.stderr);
                assert!(!all.contains("WRITABLE") && !all.contains("written"), "{all}");
                match start.code {
                    Some(0) => {
                        assert_eq!(start.stdout, "ran\n", "{all}");
                        ran += 1;
                    }
                    // Of a sealed copy, whatever becomes of it.
                    Some(99) => {
                        assert!(start.stdout.starts_with("LOADED /memfd:crun-lite (deleted)"), "{all}");
                        lost += 1;
                    }
                    Some(126) if start.stderr.contains("Permission denied") => held += 1,
                    Some(126) => {
                        assert!(start.stderr.contains("Too many levels of symbolic links"), "{all}");
                        refused += 1;
                    }
                    _ => panic!("{all}"),
                }
            });
            report(&format!(
                "T1, {who:?}, {options:?}: {} starts: {ran} ran, {refused} refused, {held} stopped by Landlock, {lost} in a sealed copy",
                races()
            ));
        }
        let after = (fs::read(&program.path).unwrap(), fs::metadata(&program.path).unwrap().permissions());
        assert!(before == after, "CVE-2019-5736: the program was changed");
    }
}
