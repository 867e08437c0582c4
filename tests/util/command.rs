//! Runs the program and keeps what it printed.

use std::fmt::Write as _;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

use super::captured::Captured;
use super::host::Host;
use super::who::{Program, Who};

/// How long a run may take, unless the test says otherwise.
const USUAL_LIMIT: Duration = Duration::from_secs(60);

/// One `crun-lite ...`, not yet started.
pub(crate) struct CrunLite {
    who: Who,
    program: Program,
    /// Words before the program, outermost first: namespaces, user, wrapper.
    prefix: Vec<String>,
    wrapper: Vec<String>,
    args: Vec<String>,
    env: Vec<(String, String)>,
    stdin: Input,
    limit: Duration,
}

enum Input {
    Null,
    Bytes(Vec<u8>),
    Open,
}

impl Who {
    /// `crun-lite run ARGS`.
    pub(crate) fn crun(self, args: &[&str]) -> CrunLite {
        let mut all = vec!["run"];
        all.extend(args);
        CrunLite::new(self, &all)
    }

    /// Runs `crun-lite run ARGS` to its end.
    #[track_caller]
    pub(crate) fn run(self, args: &[&str]) -> Output {
        self.crun(args).run()
    }

    /// Runs a shell script in a container without network and gives what it
    /// printed; the script must succeed.
    #[track_caller]
    pub(crate) fn sh(self, options: &[&str], script: &str) -> String {
        let mut args = vec!["--net=none"];
        args.extend(options);
        args.extend(["--", "sh", "-c", script]);
        self.run(&args).success()
    }
}

impl CrunLite {
    /// `crun-lite ARGS`.
    pub(crate) fn new(who: Who, args: &[&str]) -> Self {
        let identity = who.identity();
        let env = [
            (
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            ),
            ("HOME", identity.home.to_str().unwrap()),
            ("USER", &identity.name),
            ("TERM", "xterm"),
        ];
        Self {
            who,
            program: who.program(),
            prefix: Vec::new(),
            wrapper: Vec::new(),
            args: with_link(args.iter().map(|&arg| arg.to_owned()).collect()),
            env: env
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .to_vec(),
            stdin: Input::Null,
            limit: USUAL_LIMIT,
        }
    }

    /// Runs it on a host of the test's own.
    pub(crate) fn on(mut self, host: &Host) -> Self {
        self.prefix.extend(host.prefix());
        self
    }

    /// Words that go before everything else, as root where the tests are.
    pub(crate) fn outermost(mut self, words: &[&str]) -> Self {
        self.prefix
            .splice(0..0, words.iter().map(|&word| word.to_owned()));
        self
    }

    /// Words that go after those so far, still as root where the tests are.
    pub(crate) fn innermost(mut self, words: &[&str]) -> Self {
        self.prefix
            .extend(words.iter().map(|&word| word.to_owned()));
        self
    }

    /// Words that go right before the program, as its user.
    pub(crate) fn through(mut self, words: &[&str]) -> Self {
        self.wrapper
            .extend(words.iter().map(|&word| word.to_owned()));
        self
    }

    pub(crate) fn env(mut self, key: &str, value: &str) -> Self {
        self.env.retain(|(other, _)| other != key);
        self.env.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Its standard input, whole.
    pub(crate) fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = Input::Bytes(bytes.into());
        self
    }

    /// Its standard input is a pipe that the test holds.
    pub(crate) fn stdin_open(mut self) -> Self {
        self.stdin = Input::Open;
        self
    }

    pub(crate) fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// The whole command line.
    fn argv(&self) -> Vec<String> {
        let mut argv = self.prefix.clone();
        argv.extend(self.who.prefix());
        argv.extend(self.wrapper.clone());
        argv.push(self.program.path.to_str().unwrap().to_owned());
        argv.extend(self.args.clone());
        argv
    }

    /// The command, for a caller that wires the standard streams itself.
    pub(crate) fn command(&self) -> Command {
        let argv = self.argv();
        let mut command = Command::new(&argv[0]);
        command
            .args(&argv[1..])
            .env_clear()
            .envs(self.env.iter().cloned())
            .current_dir("/");
        command
    }

    #[track_caller]
    pub(crate) fn spawn(self) -> Running {
        let input = if matches!(self.stdin, Input::Null) {
            Stdio::null()
        } else {
            Stdio::piped()
        };
        let child = self
            .command()
            .stdin(input)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{:?}: {error}", self.argv()));
        Running::new(child, self)
    }

    #[track_caller]
    pub(crate) fn run(self) -> Output {
        self.spawn().finish()
    }
}

/// Adds to a run the link that `CRUN_LITE_TEST_LINK` (tap, veth) names, where it has
/// a network of its own and does not say itself.
fn with_link(mut args: Vec<String>) -> Vec<String> {
    let Ok(link) = std::env::var("CRUN_LITE_TEST_LINK") else {
        return args;
    };
    if args.first().is_none_or(|verb| verb != "run") {
        return args;
    }
    let options = args.iter().position(|arg| arg == "--");
    let options = args.iter_mut().take(options.unwrap_or(usize::MAX));
    let mut given = options.filter(|arg| arg.starts_with("--net"));
    match given.next() {
        Some(net) if net.starts_with("--net=builtin") && !net.contains("link=") => {
            let separator = if net.contains(':') { ',' } else { ':' };
            *net = format!("{net}{separator}link={link}");
        }
        Some(_) => {}
        None => args.insert(1, format!("--net=builtin:link={link}")),
    }
    args
}

/// A run under way. It is killed when the test ends before it does.
pub(crate) struct Running {
    child: Child,
    pub(crate) stdout: Captured,
    stderr: Captured,
    stdin: Option<ChildStdin>,
    feeder: Option<JoinHandle<()>>,
    command: CrunLite,
    started: Instant,
}

impl Running {
    fn new(mut child: Child, mut command: CrunLite) -> Self {
        let started = Instant::now();
        let stdout = Captured::start(child.stdout.take().unwrap());
        let stderr = Captured::start(child.stderr.take().unwrap());
        let mut stdin = child.stdin.take();
        let feeder = match std::mem::replace(&mut command.stdin, Input::Null) {
            Input::Bytes(bytes) => {
                let mut pipe = stdin.take().unwrap();
                // A run that ends before it has read all is the test's to judge.
                Some(std::thread::spawn(move || drop(pipe.write_all(&bytes))))
            }
            Input::Null | Input::Open => None,
        };
        Self {
            child,
            stdout,
            stderr,
            stdin,
            feeder,
            command,
            started,
        }
    }

    /// The process id of `crun-lite` (the words before it exec, none forks).
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Waits for a text on its standard output.
    #[track_caller]
    pub(crate) fn expect(&self, text: &str) {
        if let Err(what) = self.stdout.wait_for(text, self.command.limit) {
            panic!(
                "{:?}: {what}\nstderr: {}",
                self.command.argv(),
                self.stderr.text()
            );
        }
    }

    /// Sends a signal to `crun-lite` itself.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Writes to its standard input.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.stdin.as_mut().unwrap().write_all(bytes).unwrap();
    }

    /// Ends its standard input.
    pub(crate) fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// Waits for its end and for the end of what it printed.
    #[track_caller]
    pub(crate) fn finish(mut self) -> Output {
        let limit = self.command.limit;
        let ended = wait_for_exit(&self.child, limit);
        if !ended {
            self.kill();
        }
        let status = self.child.wait().unwrap();
        let closed = self.stdout.wait_for_end(super::SOON) && self.stderr.wait_for_end(super::SOON);
        if let Some(feeder) = self.feeder.take().filter(|_| closed) {
            feeder.join().unwrap();
        }
        let output = Output {
            argv: self.command.argv(),
            status,
            stdout: self.stdout.text(),
            stderr: self.stderr.text(),
            took: self.started.elapsed(),
        };
        assert!(ended, "not ended within {limit:?}, so killed{output}");
        assert!(
            closed,
            "somebody keeps its output open after its end{output}"
        );
        output
    }

    fn kill(&mut self) {
        // It may have ended by itself; both are the end of it.
        let _ = self.child.kill();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
        let _ = self.child.wait();
    }
}

/// Waits for the end of a child, without reaping it.
fn wait_for_exit(child: &Child, limit: Duration) -> bool {
    let Ok(pidfd) = pidfd_open(Pid::from_child(child), PidfdFlags::empty()) else {
        return true;
    };
    let deadline = Instant::now() + limit;
    loop {
        let left = Timespec::try_from(deadline.saturating_duration_since(Instant::now())).unwrap();
        match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&left)) {
            Ok(count) => return count > 0,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => panic!("poll: {error}"),
        }
    }
}

/// What a run came to.
pub(crate) struct Output {
    argv: Vec<String>,
    status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) took: Duration,
}

impl Output {
    /// The exit code; a death by signal is none.
    pub(crate) fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// The signal that ended it.
    pub(crate) fn killed_by(&self) -> Option<i32> {
        self.status.signal()
    }

    /// Holds the exit code to a value.
    #[track_caller]
    pub(crate) fn exit(self, code: i32) -> Self {
        assert_eq!(self.code(), Some(code), "exit code{self}");
        self
    }

    /// Its standard output; it must have succeeded.
    #[track_caller]
    pub(crate) fn success(self) -> String {
        self.exit(0).stdout
    }

    /// An error of its own before the command was started: exit code 125, one
    /// message that names these things, and nothing on standard output.
    #[track_caller]
    pub(crate) fn refused(self, names: &[&str]) {
        assert_eq!(self.code(), Some(125), "exit code{self}");
        assert_eq!(self.stdout, "", "standard output{self}");
        for name in names {
            assert!(
                self.stderr.contains(name),
                "{name:?} is not in the message{self}"
            );
        }
        assert!(
            !self.stderr.contains("panicked"),
            "a panic is no message{self}"
        );
    }
}

impl std::fmt::Display for Output {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut text = format!(
            "\ncommand: {:?}\n{} after {:?}\n",
            self.argv, self.status, self.took
        );
        for (name, stream) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
            let shown: String = stream.chars().take(8000).collect();
            writeln!(text, "--- {name} ({} bytes)\n{shown}", stream.len())?;
        }
        out.write_str(&text)
    }
}
