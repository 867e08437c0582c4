//! Scripts of two applications, with the sockets of two kernels: what netstack's own tests
//! play under virtual time, through a real link. Each side reads what the other has
//! written, and sees it end as it has ended.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use hostile::script::{self, Act, Ending, Model, Script, Sees};
use socket2::SockRef;

use crate::util::command::Running;
use crate::util::{Family, Host, SOON, Side, Who, number_from_env};

const AGENT: &str = include_str!("scripts/agent.py");
/// Where the container listens, and the host for it.
const PORT: u16 = 7000;
/// Scripts, unless `CRUN_LITE_SCRIPTS` says otherwise.
const SCRIPTS: u64 = 40;

/// What the far application is to do, and has done.
#[derive(Debug)]
struct State {
    todo: usize,
    said: usize,
    shuts: bool,
    shut: bool,
    reads: bool,
    resets: bool,
    got: usize,
    ending: Ending,
    /// A write has failed: an error is told once.
    broken: bool,
    wrong: bool,
    over: bool,
}

/// The far application, on a thread of its own.
struct Far {
    state: Arc<Mutex<State>>,
    thread: Option<JoinHandle<()>>,
}

impl Far {
    fn new(stream: TcpStream) -> Self {
        stream.set_nonblocking(true).unwrap();
        let state = Arc::new(Mutex::new(State {
            todo: 0,
            said: 0,
            shuts: false,
            shut: false,
            reads: true,
            resets: false,
            got: 0,
            ending: Ending::None,
            broken: false,
            wrong: false,
            over: false,
        }));
        let shared = Arc::clone(&state);
        let thread = thread::spawn(move || {
            loop {
                let mut state = shared.lock().unwrap();
                if state.over {
                    return;
                }
                if state.resets {
                    SockRef::from(&stream)
                        .set_linger(Some(Duration::ZERO))
                        .unwrap();
                    return;
                }
                drive(&stream, &mut state);
                drop(state);
                thread::sleep(Duration::from_micros(500));
            }
        });
        Self {
            state,
            thread: Some(thread),
        }
    }

    fn change(&self, act: impl FnOnce(&mut State)) {
        act(&mut self.state.lock().unwrap());
    }

    fn until(&self, sees: &Sees) -> (usize, Ending) {
        let deadline = Instant::now() + SOON;
        loop {
            let state = self.state.lock().unwrap();
            assert!(!state.wrong, "wrong bytes before {}", state.got);
            if sees.is(state.got, state.ending) {
                return (state.got, state.ending);
            }
            assert!(Instant::now() < deadline, "{sees:?} and not {state:?}");
            drop(state);
            thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        if let Ok(mut state) = self.state.lock() {
            state.over = true;
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Says and reads what can be.
fn drive(mut stream: &TcpStream, state: &mut State) {
    while state.todo > 0 && !state.broken {
        let some = script::bytes(script::Side::Far, state.said, state.todo.min(50_000));
        match stream.write(&some) {
            Ok(count) => {
                state.said += count;
                state.todo -= count;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(_) => state.broken = true,
        }
    }
    if state.shuts && !state.shut && state.todo == 0 && !state.broken {
        state.shut = true;
        state.broken |= stream.shutdown(Shutdown::Write).is_err();
    }
    let mut buffer = vec![0; 65_536];
    while state.reads && state.ending == Ending::None {
        match stream.read(&mut buffer) {
            Ok(0) if state.broken => state.ending = Ending::Reset,
            Ok(0) => state.ending = Ending::InOrder,
            Ok(count) => {
                let right = script::bytes(script::Side::Container, state.got, count);
                state.wrong |= right != buffer[..count];
                state.got += count;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(_) => state.ending = Ending::Reset,
        }
    }
}

/// The application in the container.
struct Agent {
    run: Running,
    commands: usize,
}

impl Agent {
    fn tell(&mut self, command: &str) {
        self.run.write(format!("{command}\n").as_bytes());
        self.commands += 1;
    }

    fn does(&mut self, command: &str) {
        self.tell(command);
        self.run.expect(&format!("#{} ok", self.commands));
    }
}

/// The connection, once both ends have it.
fn connect(agent: &mut Agent, host: &Host, listener: &TcpListener, inbound: bool) -> TcpStream {
    if inbound {
        let to = SocketAddr::new(Family::V4.host(), PORT);
        let stream = host.inside(Side::Far, || TcpStream::connect_timeout(&to, SOON));
        agent.does("accept");
        stream.unwrap()
    } else {
        let to = listener.local_addr().unwrap();
        agent.tell(&format!("open {} {}", to.ip(), to.port()));
        let (stream, _) = listener.accept().unwrap();
        agent.run.expect(&format!("#{} ok", agent.commands));
        stream
    }
}

fn settle(agent: &mut Agent, far: &Far, model: &mut Model) {
    let word = |ending: Ending| match ending {
        Ending::None => "none",
        Ending::InOrder => "inorder",
        Ending::Reset => "reset",
    };
    let inside = model.sees(script::Side::Container);
    if let Some(sees) = inside {
        let [one, other] = sees.ending.map(word);
        agent.does(&format!(
            "until {} {} {one},{other} {}",
            sees.least,
            sees.most,
            SOON.as_secs()
        ));
        let ending = match sees.ending {
            [one, other] if one == other => one,
            _ => Ending::None,
        };
        model.settled(script::Side::Container, sees.least, ending);
    }
    if let Some(sees) = model.sees(script::Side::Far) {
        let (got, ending) = far.until(&sees);
        model.settled(script::Side::Far, got, ending);
    }
}

fn play(agent: &mut Agent, host: &Host, listener: &TcpListener, script: &Script) {
    use script::Side::{Container, Far as Away};
    let far = Far::new(connect(agent, host, listener, script.inbound));
    let mut model = Model::default();
    let ends = [
        Act::Reads(Container, true),
        Act::Reads(Away, true),
        Act::Shut(Container),
        Act::Shut(Away),
        Act::Settle,
    ];
    let mut here = true;
    for act in script.acts.iter().chain(&ends) {
        if !model.does(act) {
            continue;
        }
        match *act {
            Act::Write(Container, bytes) => agent.does(&format!("write {bytes}")),
            Act::Write(Away, bytes) => far.change(|state| state.todo += bytes),
            Act::Reads(Container, reads) if here => agent.does(&format!("reads {reads}")),
            Act::Reads(Container, _) => {}
            Act::Reads(Away, reads) => far.change(|state| state.reads = reads),
            Act::Shut(Container) => agent.does("shut"),
            Act::Shut(Away) => far.change(|state| state.shuts = true),
            Act::Reset(Container) => {
                here = false;
                agent.does("reset");
            }
            Act::Reset(Away) => far.change(|state| state.resets = true),
            Act::Wait(millis) => thread::sleep(Duration::from_millis(millis.into())),
            Act::Settle => settle(agent, &far, &mut model),
        }
    }
    if here {
        agent.does("close");
    }
}

both! {
    fn two_kernels_play_the_scripts(who) {
        let host = routed_host!(who, "python3");
        let far = SocketAddr::new(Family::V4.far(), 0);
        let listener = host.inside(Side::Far, || TcpListener::bind(far)).unwrap();
        let port = format!("{PORT}:{PORT}");
        let args = ["-i", "--rootfs=/", "-p", &port, "--", "python3", "-c", AGENT];
        let run = who.crun(&args).on(&host).stdin_open().spawn();
        let mut agent = Agent { run, commands: 0 };
        agent.run.expect("ready");
        let count = usize::try_from(number_from_env("CRUN_LITE_SCRIPTS", SCRIPTS)).unwrap();
        for (n, script) in script::some(count, 1).iter().enumerate() {
            // For whoever has to find out which.
            eprintln!("{n}: {script:?}");
            play(&mut agent, &host, &listener, script);
        }
        agent.run.close_stdin();
        agent.run.finish().success();
    }
}
