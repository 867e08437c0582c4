//! The runtime that the test program is when it runs itself.

use std::fs;
use std::io::Read;
use std::time::Duration;

use crun_lite::config::{
    DEFAULT_SHM_SIZE, Groups, IdMapEntry, NameOrId, Namespaces, SeccompProfile, UserSpec,
};
use crun_lite::container::{Inherited, NetLink, SpawnIo, Supervisor, spawn};
use crun_lite::error::Error;
use crun_lite::ns::idmap;
use crun_lite::plan::{ExecStep, LinkStep, Plan, Step};

/// `[OPTION...] -- COMMAND [ARG...]`
pub(super) fn run(args: Vec<String>) -> Result<u8, Error> {
    let split = args.iter().position(|arg| arg == "--").expect("no --");
    let (options, command) = (&args[..split], &args[split + 1..]);
    let has = |name: &str| options.iter().any(|option| option == name);
    let value = |name: &str| options.iter().find_map(|option| option.strip_prefix(name));
    let namespaces = Namespaces {
        user: !has("userns=host"),
        pid: !has("pid=host"),
        ..Namespaces::PRIVATE
    };
    let tty = has("-t");
    let mut maps = idmap::default_maps();
    if has("single") {
        let one = |host| {
            vec![IdMapEntry {
                container: 0,
                host,
                size: 1,
            }]
        };
        maps.uid = one(rustix::process::geteuid().as_raw());
        maps.gid = one(rustix::process::getegid().as_raw());
    }
    if let Some(shift) = value("shift=") {
        let entry = IdMapEntry {
            container: 0,
            host: shift.parse().unwrap(),
            size: 1000,
        };
        maps = idmap::Maps {
            uid: vec![entry],
            gid: vec![entry],
        };
    }
    let user = value("user=").map(|user| match user.parse() {
        Ok(id) => NameOrId::Id(id),
        Err(_) => NameOrId::Name(user.to_owned()),
    });
    let exec = ExecStep {
        argv: command.iter().map(Into::into).collect(),
        env: vec![("PATH".into(), "/usr/bin:/bin".into())],
        workdir: value("workdir=").map(Into::into),
        user: UserSpec { user, group: None },
        groups: Groups::default(),
        capabilities: 0,
        ambient: 0,
        seccomp: SeccompProfile::Unconfined,
        landlock: None,
        no_new_privileges: true,
        ulimits: Vec::new(),
        tty,
        init: true,
    };
    let mut steps = vec![
        Step::Hostname {
            name: "container".into(),
        },
        Step::Network {
            link: Some(LinkStep::Tap),
        },
    ];
    if tty {
        // A terminal belongs to a /dev of its own, and that to a root.
        steps.extend([
            Step::PrivateMounts,
            Step::RootBind {
                source: "/".into(),
                read_only: false,
                nosuid: true,
            },
            Step::Dev {
                target: "/dev".into(),
                console: true,
                shm_size: DEFAULT_SHM_SIZE,
            },
            Step::PivotRoot,
        ]);
    }
    steps.push(Step::Exec(Box::new(exec)));
    let plan = Plan {
        egress: None,
        sandbox: None,
        namespaces,
        uid_map: maps.uid,
        gid_map: maps.gid,
        publish: Vec::new(),
        cgroup: None,
        oom_score_adj: None,
        steps,
    };
    let hang = has("hang");
    let network = Box::new(move |link: bool| {
        assert!(link);
        if hang {
            std::thread::sleep(Duration::from_secs(1000));
        }
        let about = "zeroes".to_owned();
        let fds = vec![fs::File::open("/dev/zero").unwrap().into()];
        Ok(Some(NetLink { about, fds }))
    });
    let mut prepared = spawn(
        &plan,
        SpawnIo {
            tty,
            interactive: has("-i"),
        },
        network,
        None,
        Inherited::default(),
    )?;
    let mut link: NetLink = prepared.take_link()?.expect("no link");
    assert_eq!(link.about, "zeroes");
    let link = link.fds.pop().expect("no descriptor");
    assert_eq!(fs::File::from(link).read(&mut [1; 4]).unwrap(), 4);
    let mut poll = mio::Poll::new().map_err(|e| Error::host("make an event loop", e))?;
    let mut supervisor: Supervisor = prepared.supervise(poll.registry().try_clone().unwrap())?;
    let mut events = mio::Events::with_capacity(64);
    supervisor.start()?;
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            result => result.map_err(|e| Error::host("wait for events", e))?,
        }
        for event in &events {
            if let Some(code) = supervisor.ready(event)? {
                return Ok(code);
            }
        }
    }
}
