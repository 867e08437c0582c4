//! The program from outside: usage errors, help, version and dry runs.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const BINARY: &str = env!("CARGO_BIN_EXE_crun-lite");

fn crun_lite<T: AsRef<OsStr>>(args: &[T]) -> Command {
    let mut command = Command::new(BINARY);
    command.args(args).stdin(Stdio::null());
    command
}

fn output<T: AsRef<OsStr>>(args: &[T]) -> Output {
    crun_lite(args).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// Runs to exit code 125 with nothing on standard output; the error lines.
fn refused<T: AsRef<OsStr> + std::fmt::Debug>(args: &[T]) -> String {
    let output = output(args);
    assert_eq!(output.status.code(), Some(125), "{args:?}: {output:?}");
    assert_eq!(text(&output.stdout), "", "{args:?}");
    text(&output.stderr).to_owned()
}

/// A folder that is removed with its content.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("crun-lite-{name}-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

#[test]
fn usage_errors_are_one_line_and_125() {
    for (args, words) in [
        (
            &["run", "--bogus", "ls"][..],
            "unexpected argument '--bogus'",
        ),
        (&["run", "--net"], "a value is required for '--net"),
        (&["run", "--net=bogus"], "unknown network \"bogus\""),
        (&["run", "--tty=maybe"], "true or false is needed"),
        (
            &["run", "--rootfs=/nowhere", "ls"],
            "--rootfs: /nowhere: No such file or directory",
        ),
        (
            &["run", "--rootfs=/dev/null"],
            "--rootfs: /dev/null: Not a directory",
        ),
        (
            &["run", "-v", "/nowhere:/x", "ls"],
            "--volume: /nowhere: No such file or directory",
        ),
        (
            &["run", "--mount=type=bind,src=/nowhere,dst=/x"],
            "--mount: /nowhere: No such file",
        ),
        (
            &["run", "--env-file=/nowhere"],
            "--env-file: /nowhere: No such file or directory",
        ),
        (&["run", "--cap-add=bogus"], "bogus"),
        (&["bogus"], "unrecognized subcommand 'bogus'"),
        (&["--log-level=loud", "run"], "invalid value 'loud'"),
        (&[], "requires a subcommand"),
    ] {
        let lines = refused(args);
        let (first, rest) = lines.split_once('\n').unwrap();
        assert!(
            first.starts_with("crun-lite: ") && first.contains(words),
            "{args:?}: {lines}"
        );
        assert!(
            rest.lines().all(|line| line.starts_with("hint: ")),
            "{args:?}: {lines}"
        );
    }
}

#[test]
fn errors_as_json() {
    for args in [
        &["--log-format=json", "run", "--net=bogus"][..],
        &["run", "--log-format", "json", "--bogus", "ls"],
    ] {
        let lines = refused(args);
        let error: serde_json::Value = serde_json::from_str(&lines).unwrap();
        assert_eq!(error["level"], "error", "{lines}");
        assert!(error["msg"].as_str().unwrap().contains("bogus"), "{lines}");
        assert_eq!(lines.lines().count(), 1, "{lines}");
    }
}

#[test]
fn what_is_no_text_is_refused_where_text_is_needed() {
    let net = [b"--net=".as_slice(), b"\xff"].concat();
    let args = [OsStr::new("run"), OsStr::from_bytes(&net)];
    assert!(refused(&args).contains("invalid UTF-8"));
}

#[test]
fn help_and_version_go_to_standard_output() {
    for (args, words) in [
        (&["--help"][..], "Run a command in a new container"),
        (
            &["run", "--help"],
            "crun-lite run [OPTIONS] [--] [COMMAND [ARG]...]",
        ),
        (
            &["run", "-it", "--help"],
            "as an ordinary user  0 is your own id",
        ),
        (
            &["--version"],
            concat!("crun-lite ", env!("CARGO_PKG_VERSION")),
        ),
    ] {
        let output = output(args);
        assert!(output.status.success(), "{args:?}: {output:?}");
        assert!(text(&output.stdout).contains(words), "{args:?}: {output:?}");
        assert_eq!(text(&output.stderr), "", "{args:?}");
    }
}

#[test]
fn every_option_is_explained() {
    let help = output(&["run", "--help"]);
    let help = text(&help.stdout);
    for option in [
        "--add-host",
        "--cap-add",
        "--cap-drop",
        "--cgroupns",
        "--device",
        "--dns",
        "--dry-run",
        "--env",
        "--env-file",
        "--gidmap",
        "--group-add",
        "--hostname",
        "--init",
        "--interactive",
        "--ipc",
        "--log-format",
        "--log-level",
        "--mount",
        "--mtu",
        "--net",
        "--network",
        "--pid",
        "--read-only",
        "--rm",
        "--rootfs",
        "--security-opt",
        "--shm-size",
        "--sysctl",
        "--tmpfs",
        "--tty",
        "--uidmap",
        "--user",
        "--userns",
        "--uts",
        "--volume",
        "--workdir",
    ] {
        assert!(help.contains(option), "{option}");
    }
}

#[test]
fn a_closed_pipe_is_no_error_but_a_full_disk_is() {
    let mut child = crun_lite(&["run", "--help"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .env("COLUMNS", "80")
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(text(&output.stderr), "");

    let full = || File::options().write(true).open("/dev/full").unwrap();
    let output = crun_lite(&["--version"]).stdout(full()).output().unwrap();
    assert_eq!(output.status.code(), Some(125), "{output:?}");
    assert!(text(&output.stderr).contains("write to standard output: No space left"));

    let status = crun_lite(&["run", "--net=bogus"])
        .stderr(full())
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(125));
}

#[test]
fn a_dry_run_prints_the_plan_and_changes_nothing() {
    let root = Folder::new("dry-run");
    let root_option = format!("--rootfs={}", root.0.display());
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let args = [
        "run",
        "--dry-run",
        &root_option,
        "--net=none",
        "--tmpfs=/made",
        "ls",
        "-la",
    ];

    let output = output(&args);
    assert!(output.status.success(), "{output:?}");
    let plan = text(&output.stdout);
    assert!(
        plan.starts_with("1. clone into new namespaces: user, mount, pid, uts, ipc, net, cgroup\n"),
        "{plan}"
    );
    assert_eq!(text(&output.stderr), "");

    let json = crun_lite(&["--log-format=json"])
        .args(args)
        .output()
        .unwrap();
    let plan: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(plan["namespaces"]["net"], true, "{plan}");
    assert!(plan["steps"].is_array(), "{plan}");

    assert_eq!(fs::read_dir(&root.0).unwrap().count(), 0);
    assert_eq!(fs::read_to_string("/proc/self/mountinfo").unwrap(), mounts);
}

// bubblewrap's CVE-2020-5291: what is set-user-ID hands out its rights.
#[test]
fn a_set_user_id_copy_refuses_to_run() {
    need!(
        rustix::process::geteuid().is_root(),
        "only root can make a set-user-ID program of another user"
    );
    let folder = Folder::new("set-user-id");
    fs::set_permissions(&folder.0, PermissionsExt::from_mode(0o755)).unwrap();
    let run = |name: &str, mode: u32| {
        let copy = copy(&folder.0, name, mode);
        Command::new(copy)
            .arg("--version")
            .uid(65534)
            .gid(65534)
            .output()
            .unwrap()
    };
    assert_eq!(run("plain", 0o755).status.code(), Some(0));
    for (name, mode) in [("set-user-id", 0o4755), ("set-group-id", 0o2755)] {
        let output = run(name, mode);
        assert_eq!(output.status.code(), Some(125), "{name}: {output:?}");
        assert!(
            text(&output.stderr).contains("more privileges than the caller"),
            "{output:?}"
        );
    }
}

fn copy(folder: &Path, name: &str, mode: u32) -> PathBuf {
    let copy = folder.join(name);
    // By another program: while this one had the copy open for writing, any other
    // thread's child would have it, too, and it could not be executed (ETXTBSY).
    let status = Command::new("cp").arg(BINARY).arg(&copy).status().unwrap();
    assert!(status.success());
    fs::set_permissions(&copy, PermissionsExt::from_mode(mode)).unwrap();
    copy
}
