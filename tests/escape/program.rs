//! T1: the program itself stays out of reach.
//!
//! A command that is a script with `#!/proc/self/exe` would have the host's program run
//! as a process of the container, where others could open it for writing.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::{race, races};
use crate::util::{Who, report, rootfs};

/// Looks for something to write to while it lasts.
const LOOK: &str = "#!/bin/sh
for p in /proc/[0-9]* /proc/self; do
    ( : >> $p/exe ) 2>/dev/null && echo written $p
done
echo ran
";
/// The program says its name, where it is the interpreter.
const BECOME: &str = "#!/proc/self/exe --version\n";
const NAME: &str = "crun-lite ";

/// With the domain, and with a sealed copy in its place.
const WALLS: [(&str, bool); 4] = [
    ("--rm", false),
    ("--security-opt=landlock=disable", true),
    ("--security-opt=seccomp=unconfined", true),
    ("--cap-add=SYS_ADMIN", true),
];

fn executable(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
}

both! {
    fn a_script_that_becomes_the_runtime_gets_nowhere(who) {
        let folder = rootfs::busybox(who);
        need!(folder.is_some(), "the host has no static busybox");
        let folder = folder.unwrap();
        let root = folder.path();
        let program = who.program();
        let path = &program.path;
        // As with a program in the user's own folder: the container's root owns it.
        who.own(path);
        let option = format!("--rootfs={}", root.display());
        executable(&root.join("entry"), LOOK);
        executable(&root.join("other"), BECOME);
        let pairs = [(root.join("entry"), root.join("other"))];
        let state = || (fs::read(path).unwrap(), fs::metadata(path).unwrap().permissions());
        let before = state();
        let domain = crun_lite::security::landlock::is_available();
        for (wall, sealed) in WALLS {
            let sealed = sealed || !domain;
            let run = who.crun(&["--net=none", &option, wall, "--", "/entry"]);
            let mut outcomes = BTreeMap::<_, u64>::new();
            let swaps = race(&run, &pairs, |start| {
                let all = format!("{wall}: {:?} {}{}", start.code, start.stdout, start.stderr);
                let outcome = match start.code {
                    Some(0) if start.stdout == "ran\n" => "ran",
                    // The shell has opened what was the other by then: comments to it.
                    Some(0) if start.stdout.is_empty() => "read the other",
                    Some(0) if sealed && start.stdout.starts_with(NAME) => "ran a sealed copy",
                    Some(126) if start.stderr.contains("Too many levels of symbolic links") => "seen before",
                    Some(126) if !sealed && start.stderr.contains("Permission denied") => "stopped by the domain",
                    _ => panic!("CVE-2019-5736: {all}"),
                };
                *outcomes.entry(outcome).or_default() += 1;
            });
            report(&format!("T1, {who:?}, {wall}: {} starts, {swaps} exchanges: {outcomes:?}", races()));
        }
        assert!(state() == before, "CVE-2019-5736: the program was changed");
    }

    fn without_a_domain_the_program_is_a_copy_that_nothing_changes(who) {
        let program = who.program();
        who.own(&program.path);
        let domain = crun_lite::security::landlock::is_available();
        for (wall, sealed) in WALLS {
            let mut run = who.crun(&["--net=none", "-i", wall, "--", "sh", "-c", "echo on; read line; echo $line"]).stdin_open().spawn();
            run.expect("on\n");
            let own = format!("/proc/{}/exe", run.pid().as_raw_nonzero());
            let link = fs::read_link(&own).unwrap();
            if sealed || !domain {
                assert_eq!(link.to_str(), Some("/memfd:crun-lite (deleted)"), "{wall}");
                assert!(fs::read(&own).unwrap() == fs::read(&program.path).unwrap(), "{wall}");
                let refused = fs::OpenOptions::new().write(true).open(&own).and_then(|mut file| std::io::Write::write(&mut file, b"x"));
                assert!(refused.is_err(), "{wall}");
                let name = fs::read_to_string(format!("/proc/{}/comm", run.pid().as_raw_nonzero())).unwrap();
                assert_eq!(name, "crun-lite\n");
            } else {
                assert_eq!(link, program.path, "{wall}");
            }
            run.write(b"off\n");
            assert_eq!(run.finish().success(), "on\noff\n");
        }
        // The container's users have nothing of the host's where the program is root's.
        if who == Who::User && Who::tests_run_as_root() {
            std::os::unix::fs::chown(&program.path, Some(0), Some(0)).unwrap();
            let mut run = who.crun(&["--net=none", "-i", "--security-opt=seccomp=unconfined", "--", "sh", "-c", "echo on; read line"]).stdin_open().spawn();
            run.expect("on\n");
            let link = fs::read_link(format!("/proc/{}/exe", run.pid().as_raw_nonzero())).unwrap();
            assert_eq!(link, program.path);
            run.write(b"off\n");
            run.finish().success();
        }
    }
}
