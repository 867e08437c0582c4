//! Running a test in namespaces of its own.
//!
//! A driver starts this same test program through unshare(1), with a test that
//! is ignored otherwise, as root of a new user namespace and as PID 1 of it.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

const MARK: &str = "CRUN_LITE_TEST_CASE";
/// Begins a line that the driver passes on.
const REPORT: &str = "REPORT ";
/// nobody, whom every system has.
const USER: &str = "65534";

/// A directory that is removed in the end, which anybody can enter.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("crun-lite-{}-{name}", std::process::id()));
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What the namespaces of a test are within.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outside {
    /// The host's.
    Host,
    /// Those of a container, which hides a part of its /proc. Its network and
    /// IPC namespaces are shared.
    Container,
}

/// Starts its arguments where a part of /proc is hidden, for good, and another
/// is read-only.
const CONTAINER: &str = r#"mount -t tmpfs none /proc/irq && mount --bind /proc/sys /proc/sys &&
    mount -o remount,bind,ro /proc/sys && exec "$@""#;

/// Runs test `name` in new namespaces; once as whoever we are, and once as an
/// ordinary user if we are root. Its directory is filled by `prepare`.
pub(crate) fn in_namespaces(name: &str, prepare: impl Fn(&Path)) {
    in_namespaces_of(Outside::Host, name, prepare);
}

/// [`in_namespaces`] that are within others.
pub(crate) fn in_namespaces_of(outside: Outside, name: &str, prepare: impl Fn(&Path)) {
    let mut users = vec![None];
    if rustix::process::getuid().is_root() {
        users.push(Some(USER));
    }
    for user in users {
        let short = name.rsplit("::").next().unwrap_or(name);
        let scratch = Scratch::new(&format!("{short}-{}", user.unwrap_or("self")));
        let program = scratch.0.join("program");
        // Not by this process: a child that another test starts meanwhile would
        // hold the file open for writing, and it could not be executed.
        let copied = Command::new("cp")
            .arg(std::env::current_exe().unwrap())
            .arg(&program)
            .status();
        assert!(copied.unwrap().success());
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        prepare(&scratch.0);
        let mut command = Command::new("setpriv");
        if let Some(user) = user {
            command.args(["--reuid", user, "--regid", user, "--clear-groups"]);
            chown_all(&scratch.0, user.parse().unwrap());
        }
        let always = "unshare --user --map-root-user --mount --pid --fork --uts --cgroup";
        command.args(always.split(' '));
        command.args("--propagation unchanged --ipc --net --".split(' '));
        if outside == Outside::Container {
            command.args(["sh", "-c", CONTAINER, "container"]);
            command.args(always.split(' ')).arg("--");
        }
        let output = command
            .arg(&program)
            .args(["--exact", name])
            .args(["--ignored", "--nocapture", "--test-threads=1"])
            .env(MARK, &scratch.0)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        let what = format!("{name} as {user:?}:\n{text}\n{errors}");
        assert!(output.status.success(), "{what}");
        assert!(text.contains("1 passed"), "was not run: {what}");
        for line in text.lines().filter_map(|line| line.strip_prefix(REPORT)) {
            let _ = writeln!(std::io::stderr(), "{short} as {user:?}: {line}");
        }
    }
}

fn chown_all(path: &Path, user: u32) {
    std::os::unix::fs::lchown(path, Some(user), Some(user)).unwrap();
    if path.symlink_metadata().unwrap().is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            chown_all(&entry.unwrap().path(), user);
        }
    }
}

/// The directory of the test that [`in_namespaces`] started. Nothing but the
/// driver starts it: it would change the namespaces that it is in.
pub(crate) fn scratch() -> PathBuf {
    let scratch = std::env::var_os(MARK).expect("to be started by its driver");
    assert_eq!(std::process::id(), 1, "not in a namespace of its own");
    scratch.into()
}

/// A line that is shown even where the test passes.
pub(crate) fn report(line: &str) {
    // The test library has begun a line of its own.
    println!("\n{REPORT}{line}");
}

/// Reports that a test cannot run here; with `CI=true` that is a failure.
pub(crate) fn skip(reason: &str) {
    assert!(
        std::env::var_os("CI").is_none_or(|ci| ci != "true"),
        "cannot be skipped in CI: {reason}"
    );
    report(&format!("SKIP: {reason}"));
}
