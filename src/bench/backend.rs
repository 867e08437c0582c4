//! What is compared: ways for a program in a network namespace to reach the host.
//!
//! Each is set up so that the host's loopback has the address [`GATEWAY`] in the
//! container; TCP and UDP over IPv4 are all that is asked of it.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::time::Duration;

use rustix::io::FdFlags;
use rustix::pipe::PipeFlags;
use serde::Serialize;

use super::process::{Interrupts, Process, ProcessError};

/// The host's loopback, as the container sees it.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
/// The container's own address.
const CONTAINER: &str = "10.0.2.100";
/// How long a helper may take to set the network up.
const SET_UP: Duration = Duration::from_secs(10);
/// Where programs are that are not in everybody's `PATH`.
const MORE_FOLDERS: &str = "/usr/local/sbin:/usr/sbin:/sbin";

/// A kind of backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// No namespace: the host's loopback itself.
    Native,
    /// Our own network.
    CrunLite,
    /// slirp4netns(1).
    Slirp4netns,
    /// pasta(1).
    Pasta,
}

/// All of them, as they are measured when none are named.
pub const KINDS: [Kind; 4] = [Kind::Native, Kind::CrunLite, Kind::Slirp4netns, Kind::Pasta];

impl Kind {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::CrunLite => "crun-lite",
            Self::Slirp4netns => "slirp4netns",
            Self::Pasta => "pasta",
        }
    }
}

/// Why a word names no backend.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BackendError {
    /// There is no such kind.
    #[error("unknown backend {0:?} (known: native, crun-lite, slirp4netns, pasta)")]
    Unknown(String),
    /// A label or a path is empty, or native has a path.
    #[error("{0:?} is not LABEL[:KIND][=PATH]")]
    Form(String),
    /// The path that was given leads to no program.
    #[error("{0}: there is no such program")]
    NoProgram(PathBuf),
}

/// `LABEL[:KIND][=PATH]`, as typed; without a kind the label is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    label: String,
    kind: Kind,
    path: Option<PathBuf>,
}

impl Choice {
    /// The kind under its own name, wherever it is installed.
    pub fn usual(kind: Kind) -> Self {
        Self {
            label: kind.name().to_owned(),
            kind,
            path: None,
        }
    }

    /// What its results are called.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Looks for the program. One that is only named need not be there.
    ///
    /// # Errors
    /// A path was given, but leads to no program.
    pub fn find(self, own: &Path) -> Result<Backend, BackendError> {
        let Self { label, kind, path } = self;
        let given = path.is_some();
        let program = match (path, kind) {
            (Some(path), _) if is_program(&path) => Some(path),
            (Some(path), _) => return Err(BackendError::NoProgram(path)),
            (None, Kind::Native | Kind::CrunLite) => Some(own.to_owned()),
            (None, _) => look_up(kind.name()),
        };
        let version = match kind {
            Kind::Native => None,
            Kind::CrunLite if !given => Some(env!("CARGO_PKG_VERSION").to_owned()),
            _ => program.as_deref().and_then(|path| version(path, kind)),
        };
        Ok(Backend {
            label,
            kind,
            missing: program.is_none(),
            version,
            program: program.unwrap_or_default(),
        })
    }
}

impl FromStr for Choice {
    type Err = BackendError;

    fn from_str(word: &str) -> Result<Self, BackendError> {
        let form = || BackendError::Form(word.to_owned());
        let (name, path) = match word.split_once('=') {
            Some((_, "")) => return Err(form()),
            Some((name, path)) => (name, Some(PathBuf::from(path))),
            None => (word, None),
        };
        let (label, kind) = name.split_once(':').unwrap_or((name, name));
        let kind = KINDS
            .into_iter()
            .find(|known| known.name() == kind)
            .ok_or_else(|| BackendError::Unknown(kind.to_owned()))?;
        if label.is_empty() || (kind == Kind::Native && path.is_some()) {
            return Err(form());
        }
        Ok(Self {
            label: label.to_owned(),
            kind,
            path,
        })
    }
}

/// A way to reach the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Backend {
    /// What its results are called.
    pub label: String,
    /// What it is.
    pub kind: Kind,
    /// What its program says, where it has one and says it.
    pub version: Option<String>,
    /// It is not installed here.
    pub missing: bool,
    #[serde(skip)]
    program: PathBuf,
}

/// A program of ours in its container, and the helper that it may need.
#[derive(Debug)]
pub struct Container {
    /// The program; with crun-lite and pasta, the helper that has started it.
    pub client: Process,
    helper: Option<Process>,
    kind: Kind,
}

impl Container {
    /// The process that is, or has started, the helper.
    pub fn helper(&self) -> Option<rustix::process::Pid> {
        match (self.kind, &self.helper) {
            (Kind::Native, _) => None,
            (_, Some(helper)) => Some(helper.pid()),
            (_, None) => Some(self.client.pid()),
        }
    }

    /// Starts what makes the network, where that is done from outside. The
    /// program in the container runs by now.
    ///
    /// # Errors
    /// It does not start, or not get ready.
    pub fn connect(
        &mut self,
        backend: &Backend,
        mtu: u16,
        interrupts: &Interrupts,
    ) -> Result<(), ProcessError> {
        if self.kind != Kind::Slirp4netns {
            return Ok(());
        }
        let name = backend.program_name();
        let start = |source: std::io::Error| ProcessError::Start {
            name: name.clone(),
            source,
        };
        let (ready, writer) =
            rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(|e| start(e.into()))?;
        // Nothing else is started while it can be inherited.
        rustix::io::fcntl_setfd(&writer, FdFlags::empty()).map_err(|e| start(e.into()))?;
        let mut command = Command::new(&backend.program);
        command
            .args(["--configure", "--disable-dns", "--exit-fd=0"])
            .arg(format!("--mtu={mtu}"))
            .arg(format!(
                "--ready-fd={}",
                std::os::fd::AsRawFd::as_raw_fd(&writer)
            ))
            .arg(self.client.pid().to_string())
            .arg("tap0");
        let mut helper = Process::start(&name, &mut command)?;
        drop(writer);
        helper.signals_readiness(File::from(ready), SET_UP, interrupts)?;
        self.helper = Some(helper);
        Ok(())
    }

    /// Ends the helper that is no parent of the program.
    pub fn disconnect(&mut self) {
        self.helper = None;
    }
}

impl Backend {
    /// Where the program in the container finds the host's 127.0.0.1.
    pub fn host_loopback(&self) -> Ipv4Addr {
        match self.kind {
            Kind::Native => Ipv4Addr::LOCALHOST,
            _ => GATEWAY,
        }
    }

    /// Whether its helper is started beside a program that runs already.
    pub fn is_connected_later(&self) -> bool {
        self.kind == Kind::Slirp4netns
    }

    /// Whether its link has an MTU of our choice.
    pub fn has_mtu(&self) -> bool {
        self.kind != Kind::Native
    }

    /// Starts a program of the host, by its absolute path, in a container.
    ///
    /// # Errors
    /// The container's program cannot be started.
    pub fn start(
        &self,
        program: &Path,
        args: &[OsString],
        mtu: u16,
    ) -> Result<Container, ProcessError> {
        let mut command = self.command(program, mtu);
        command.args(args);
        Ok(Container {
            client: Process::start(&self.program_name(), &mut command)?,
            helper: None,
            kind: self.kind,
        })
    }

    fn command(&self, program: &Path, mtu: u16) -> Command {
        match self.kind {
            Kind::Native => Command::new(program),
            Kind::CrunLite => {
                let mut command = Command::new(&self.program);
                command
                    .args(["run", "-i", "--net=builtin:allow_host_loopback=true"])
                    .arg(format!("--mtu={mtu}"))
                    .args(["--rootfs", "/", "--"])
                    .arg(program);
                command
            }
            Kind::Slirp4netns => {
                let mut command = Command::new("unshare");
                command
                    .args(["--user", "--map-root-user", "--net", "--"])
                    .arg(program);
                command
            }
            Kind::Pasta => {
                let mut command = Command::new(&self.program);
                command
                    .args(["--foreground", "--quiet", "--ipv4-only", "--config-net"])
                    .args(["--address", CONTAINER, "--netmask", "24"])
                    .args(["--gateway", &GATEWAY.to_string()])
                    .args(["--mtu", &mtu.to_string()])
                    .args(["--tcp-ports", "none", "--udp-ports", "none"])
                    .args(["--tcp-ns", "none", "--udp-ns", "none"]);
                if rustix::process::geteuid().is_root() {
                    // It would become nobody, and could not enter its namespaces.
                    command.args(["--runas", "0:0"]);
                }
                command.arg("--").arg(program);
                command
            }
        }
    }

    fn program_name(&self) -> String {
        let name = self.program.file_name().unwrap_or(self.program.as_os_str());
        name.to_string_lossy().into_owned()
    }
}

fn is_program(path: &Path) -> bool {
    path.metadata()
        .is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

/// Looks for a program in `PATH` and where administrators' programs are.
pub fn look_up(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(env::split_paths(OsStr::new(MORE_FOLDERS)));
    folders
        .map(|folder| folder.join(name))
        .find(|path| path.is_absolute() && is_program(path))
}

/// What `--version` prints first, without the program's name.
fn version(program: &Path, kind: Kind) -> Option<String> {
    let output = Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().next()?.trim();
    let line = line.strip_prefix(kind.name()).unwrap_or(line).trim();
    let line = line.strip_prefix("version").unwrap_or(line).trim();
    // pasta built without one says "unknown version".
    Some(line.to_owned()).filter(|line| !line.is_empty() && !line.starts_with("unknown"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_have_a_label_a_kind_and_a_path() {
        let choice = |label: &str, kind, path: Option<&str>| {
            Ok(Choice {
                label: label.to_owned(),
                kind,
                path: path.map(PathBuf::from),
            })
        };
        for kind in KINDS {
            assert_eq!(kind.name().parse(), Ok(Choice::usual(kind)));
        }
        assert_eq!(
            "new:pasta=/opt/a=b".parse(),
            choice("new", Kind::Pasta, Some("/opt/a=b"))
        );
        assert_eq!("mtu:crun-lite".parse(), choice("mtu", Kind::CrunLite, None));
    }

    #[test]
    fn others_are_refused() {
        let parse = |word: &str| word.parse::<Choice>().unwrap_err();
        assert_eq!(parse("vpnkit"), BackendError::Unknown("vpnkit".to_owned()));
        assert_eq!(parse("a:"), BackendError::Unknown(String::new()));
        for word in ["pasta=", ":pasta", "native=/bin/true"] {
            assert_eq!(parse(word), BackendError::Form(word.to_owned()));
        }
    }

    #[test]
    fn only_what_is_named_by_path_has_to_be_there() {
        let own = Path::new("/own");
        let gone: Choice = "pasta=/no/such/pasta".parse().unwrap();
        let error = gone.find(own).unwrap_err();
        assert_eq!(error, BackendError::NoProgram("/no/such/pasta".into()));
        let native = Choice::usual(Kind::Native).find(own).unwrap();
        assert!(!native.missing && native.version.is_none());
    }
}
