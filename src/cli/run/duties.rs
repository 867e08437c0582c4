//! What the keeper does for a run, where container and network meet.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use rustix::process::Pid;

use crate::cgroup::{Cgroup, Heir};
use crate::config::Publish;
use crate::container::{self, Prepared, Remains};
use crate::error::{Error, chain};
use crate::keeper::{Bound, Cleanup, Duties, Keeper, Log};
use crate::net::{self, Capture, Driver, Folder, Listener, NetLog, Resolvers};
use crate::plan::Plan;

/// Makes the container's cgroup, if the plan has one, and before that the process that
/// removes it where this one is killed; to be dropped after it.
pub(super) fn make_cgroup(plan: &Plan) -> Result<(Option<Heir>, Option<Cgroup>), Error> {
    let Some(wanted) = &plan.cgroup else {
        return Ok((None, None));
    };
    // One that ended this process now would leave the cgroup to the heir alone.
    container::block_signals()?;
    let heir = Heir::start(wanted);
    let heir = heir.map_err(|error| Error::host("fork the heir of the cgroup", error))?;
    let cgroup = Cgroup::make(wanted, heir.pid())?;
    Ok((Some(heir), Some(cgroup)))
}

/// The logs of a run, and where their files are.
#[derive(Debug, Default)]
pub(super) struct Logs {
    pub(super) capture: Option<(Capture, Folder)>,
    pub(super) refusals: Option<(NetLog, Folder)>,
}

/// A keeper, and what asks it.
#[derive(Debug)]
pub(super) struct Started {
    pub(super) keeper: Rc<Keeper>,
    pub(super) capture: Option<Capture>,
    pub(super) refusals: Option<NetLog>,
}

/// See [`Duties`].
struct OfRun {
    container: Remains,
    resolvers: Resolvers,
    capture: Option<Folder>,
    refusals: Option<Folder>,
}

/// Forks the keeper of a container without a network, as PID 1 of which the command runs:
/// that could have cleared the request to be killed with its parent.
///
/// # Errors
/// It could not be forked.
pub(super) fn start_alone(container: &Prepared) -> Result<Keeper, Error> {
    let start = || {
        let duties = OfRun {
            container: container.remains()?,
            resolvers: Resolvers::of_host(),
            capture: None,
            refusals: None,
        };
        Keeper::start(Box::new(duties), Vec::new())
    };
    start().map_err(|error| Error::host("start the keeper", error))
}

/// Forks the keeper of `container`, and has container and logs ask it from now on. It
/// also takes the cgroup over.
///
/// # Errors
/// It could not be forked.
pub(super) fn start(
    container: &mut Prepared,
    logs: Logs,
    cgroup: Option<Cgroup>,
) -> Result<Started, Error> {
    let failed = |error| Error::host("start the keeper", error);
    let (mut capture, capture_folder) = logs.capture.unzip();
    let (mut refusals, refusals_folder) = logs.refusals.unzip();
    let duties = OfRun {
        container: container.remains().map_err(failed)?,
        resolvers: Resolvers::of_host(),
        capture: capture_folder,
        refusals: refusals_folder,
    };
    let cleanup = |cgroup| Box::new(OfCgroup(cgroup)) as Box<dyn Cleanup>;
    let cleanups = cgroup.map(cleanup).into_iter().collect();
    let keeper = Rc::new(Keeper::start(Box::new(duties), cleanups).map_err(failed)?);
    let asked = Rc::clone(&keeper);
    container.ask_for_the_end(Box::new(move |but| match asked.end_children(but) {
        // Init has ended what was below it, and the keeper's death is said elsewhere.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Vec::new()),
        ended => ended,
    }));
    let asked = Rc::clone(&keeper);
    container.send_signals_by(Box::new(move |signal, group| asked.signal(signal, group)));
    if let Some(capture) = &mut capture {
        let asked = Rc::clone(&keeper);
        capture.set_next(Box::new(move || asked.next_file(Log::Capture)));
    }
    if let Some(refusals) = &mut refusals {
        let asked = Rc::clone(&keeper);
        refusals.set_next(Box::new(move || asked.next_file(Log::Refusals)));
    }
    Ok(Started {
        keeper,
        capture,
        refusals,
    })
}

/// Has the driver ask the keeper for the host's resolvers.
pub(super) fn follow_resolvers(driver: &mut Driver, keeper: &Rc<Keeper>) {
    let asked = Rc::clone(keeper);
    driver.follow_resolvers(Box::new(move || asked.resolvers()));
}

/// Has the keeper bind ports; all or none.
pub(super) fn bind(keeper: &Keeper, wanted: &[Publish]) -> Result<Vec<Listener>, String> {
    let listener = |bound: Bound| {
        Listener::from_parts(
            bound.transport,
            bound.host,
            bound.container_port,
            bound.socket,
        )
    };
    let mut listeners = Vec::new();
    for one in wanted {
        listeners.extend(keeper.bind(*one)?.into_iter().map(listener));
    }
    Ok(listeners)
}

/// The container's cgroup, which is made where paths can be written to.
struct OfCgroup(Cgroup);

impl Cleanup for OfCgroup {
    fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        self.0.descriptors()
    }

    fn run(self: Box<Self>) {
        drop(self.0);
    }

    fn let_go(self: Box<Self>) {
        self.0.let_go();
    }
}

impl Duties for OfRun {
    fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        let mut all = self.container.descriptors();
        let folders = [&self.capture, &self.refusals];
        all.extend(folders.into_iter().flatten().map(AsFd::as_fd));
        all
    }

    fn resolvers(&mut self) -> Option<Vec<SocketAddr>> {
        self.resolvers.changed()
    }

    fn bind(&mut self, publish: &Publish) -> Result<Vec<Bound>, String> {
        let listeners = net::bind_published(&[*publish], Vec::new());
        let bound = |listener: Listener| {
            let (transport, host, container_port, socket) = listener.into_parts();
            Bound {
                transport,
                host,
                container_port,
                socket,
            }
        };
        match listeners {
            Ok(listeners) => Ok(listeners.into_iter().map(bound).collect()),
            Err(error) => Err(chain(&error)),
        }
    }

    fn next_file(&mut self, log: Log) -> io::Result<Option<OwnedFd>> {
        let folder = match log {
            Log::Capture => &self.capture,
            Log::Refusals => &self.refusals,
        };
        let Some(folder) = folder else {
            return Ok(None);
        };
        Ok(folder.next()?.map(OwnedFd::from))
    }

    fn end_children(&mut self, parent: Pid, but: &[Pid]) -> io::Result<Vec<Pid>> {
        self.container.end_children(parent, but)
    }

    fn signal(&mut self, signal: i32, group: bool) -> io::Result<()> {
        self.container.signal(signal, group)
    }

    fn end_container(&mut self) -> io::Result<()> {
        self.container.end()
    }
}
