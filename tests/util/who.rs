//! As whom a test runs.
//!
//! When the tests run as root, the ordinary user is `tester` (or the one that
//! `CRUN_LITE_TEST_USER` names; else `nobody`), and the program is run through
//! setpriv(1). When they run as an ordinary user, it is that one.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock, Weak};

use tempfile::TempDir;

/// As whom the program runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Who {
    /// uid 0 of the host.
    Root,
    /// An ordinary user.
    User,
}

/// A line of passwd(5).
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub(crate) name: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) home: PathBuf,
}

impl Who {
    pub(crate) fn tests_run_as_root() -> bool {
        rustix::process::getuid().is_root()
    }

    pub(crate) fn identity(self) -> &'static Identity {
        static ROOT: OnceLock<Identity> = OnceLock::new();
        static USER: OnceLock<Identity> = OnceLock::new();
        match self {
            Self::Root => {
                ROOT.get_or_init(|| look_up(|user| user.uid == 0).expect("uid 0 in /etc/passwd"))
            }
            Self::User => USER.get_or_init(ordinary_user),
        }
    }

    /// Words that go before a command so that it runs as this user.
    pub(crate) fn prefix(self) -> Vec<String> {
        if self == Self::Root || !Self::tests_run_as_root() {
            return Vec::new();
        }
        let Identity { uid, gid, .. } = self.identity();
        [
            "setpriv",
            "--reuid",
            &uid.to_string(),
            "--regid",
            &gid.to_string(),
            "--init-groups",
            "--inh-caps=-all",
            "--",
        ]
        .map(str::to_owned)
        .to_vec()
    }

    /// Runs a program of the host as this user and says whether it succeeds.
    pub(crate) fn can(self, words: &[&str]) -> bool {
        let mut argv = self.prefix();
        argv.extend(words.iter().map(|word| (*word).to_owned()));
        Command::new(&argv[0])
            .args(&argv[1..])
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    }

    /// Whether this user may make user namespaces, with an id map.
    pub(crate) fn has_user_namespaces(self) -> bool {
        static USER: OnceLock<bool> = OnceLock::new();
        self == Self::Root
            || *USER.get_or_init(|| self.can(&["unshare", "--user", "--map-root-user", "true"]))
    }

    /// Whether this user may have the link that the tests are to use: may open
    /// `/dev/net/tun`, or needs nothing for a veth pair.
    pub(crate) fn has_tun(self) -> bool {
        let veth = std::env::var("CRUN_LITE_TEST_LINK").is_ok_and(|link| link == "veth");
        veth || self.can(&["sh", "-c", ": <>/dev/net/tun"])
    }

    /// Whether this user may map ids other than its own: root any, others their
    /// subordinate ones, with the programs for it.
    pub(crate) fn has_subordinate_ids(self) -> bool {
        let Identity { name, uid, .. } = self.identity();
        let listed = |path: &str| {
            let named = |line: &str| {
                line.split(':')
                    .next()
                    .is_some_and(|first| first == name || first == uid.to_string())
            };
            fs::read_to_string(path).is_ok_and(|text| text.lines().any(named))
        };
        self == Self::Root
            || (super::has_program("newuidmap") && listed("/etc/subuid") && listed("/etc/subgid"))
    }

    /// The program, where this user may execute it.
    pub(crate) fn program(self) -> Program {
        let built = Path::new(env!("CARGO_BIN_EXE_crun-lite"));
        if self == Self::Root || !Self::tests_run_as_root() {
            return Program {
                path: built.to_owned(),
                _copy: None,
            };
        }
        let copy = shared_copy(built);
        Program {
            path: copy.path().join("crun-lite"),
            _copy: Some(copy),
        }
    }

    /// A folder that belongs to this user and is removed in the end.
    pub(crate) fn folder(self) -> TempDir {
        let folder = tempfile::Builder::new()
            .prefix("crun-lite-test.")
            .tempdir_in("/tmp")
            .unwrap();
        self.own(folder.path());
        folder
    }

    /// Gives a path to this user.
    pub(crate) fn own(self, path: &Path) {
        if Self::tests_run_as_root() {
            let Identity { uid, gid, .. } = self.identity();
            std::os::unix::fs::lchown(path, Some(*uid), Some(*gid)).unwrap();
        }
    }
}

/// The program to test, with what keeps it there.
pub(crate) struct Program {
    pub(crate) path: PathBuf,
    _copy: Option<Arc<TempDir>>,
}

/// The build folder may be closed to the user, so all tests that run at the same
/// time share a copy; the last of them removes it.
fn shared_copy(built: &Path) -> Arc<TempDir> {
    static SHARED: Mutex<Weak<TempDir>> = Mutex::new(Weak::new());
    let mut shared = SHARED
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(copy) = shared.upgrade() {
        return copy;
    }
    let folder = tempfile::Builder::new()
        .prefix("crun-lite-test.")
        .tempdir_in("/tmp")
        .unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    // By cp(1), not by us: a thread that forks while we write would hold the
    // file open for writing, and executing it would give ETXTBSY.
    super::tool(
        "cp",
        &[
            "--",
            built.to_str().unwrap(),
            folder.path().to_str().unwrap(),
        ],
    );
    let folder = Arc::new(folder);
    *shared = Arc::downgrade(&folder);
    folder
}

fn ordinary_user() -> Identity {
    if !Who::tests_run_as_root() {
        let own = rustix::process::getuid().as_raw();
        return look_up(|user| user.uid == own).expect("the user is in /etc/passwd");
    }
    let wanted = std::env::var("CRUN_LITE_TEST_USER").unwrap_or_else(|_| "tester".to_owned());
    look_up(|user| user.name == wanted)
        .or_else(|| look_up(|user| user.name == "nobody"))
        .expect("nobody is in /etc/passwd")
}

fn look_up(wanted: impl Fn(&Identity) -> bool) -> Option<Identity> {
    let text = fs::read_to_string("/etc/passwd").expect("/etc/passwd");
    text.lines().filter_map(parse_passwd).find(wanted)
}

fn parse_passwd(line: &str) -> Option<Identity> {
    let mut fields = line.split(':');
    let name = fields.next()?.to_owned();
    let uid = fields.nth(1)?.parse().ok()?;
    let gid = fields.next()?.parse().ok()?;
    let home = PathBuf::from(fields.nth(1)?);
    Some(Identity {
        name,
        uid,
        gid,
        home,
    })
}
