//! Words to meanings: validates the raw arguments into a [`RunSpec`].
//!
//! Nothing is opened for writing, created or changed here, and what the caller
//! is and has comes in as a [`Host`], so that the parsers can be tested as
//! anybody on any host.

mod account;
mod budgets;
mod egress;
mod env;
mod ids;
mod limits;
mod log_file;
mod mounts;
mod names;
mod network;
mod paths;
mod publish;
mod security;
mod sysctl;

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::io;
use std::path::PathBuf;

use super::args::RunArgs;
use crate::config::{
    Groups, IdMapEntry, NameOrId, Namespaces, Network, RootFs, RunSpec, UserNamespace, UserSpec,
};
use crate::error::Error;
use crate::sys::listen_fds;
pub(super) use egress::rules;
pub(super) use publish::ports;

/// What is run when no command is given.
const DEFAULT_COMMAND: &str = "/bin/sh";
/// The host name unless `--hostname` gives one.
const DEFAULT_HOSTNAME: &str = "container";

/// Who starts the container, and where.
#[derive(Debug, Clone)]
pub(super) struct Host {
    /// Our effective user id.
    pub euid: u32,
    /// Our effective group id.
    pub egid: u32,
    /// Our environment.
    pub env: Vec<(OsString, OsString)>,
    /// The host's name, which the container shares with `--uts=host`.
    pub hostname: String,
    /// Reads a file of the host; nothing is in one that cannot be read.
    pub read: fn(&str) -> Vec<u8>,
    /// How many CPUs it has online; looked up where it matters.
    pub cpus: fn() -> usize,
}

impl Host {
    /// This process on this host.
    pub(super) fn current() -> Self {
        Self {
            euid: rustix::process::geteuid().as_raw(),
            egid: rustix::process::getegid().as_raw(),
            env: std::env::vars_os()
                .filter(|(name, _)| !listen_fds::is_about(name))
                .collect(),
            hostname: rustix::system::uname()
                .nodename()
                .to_string_lossy()
                .into_owned(),
            read: |path| std::fs::read(path).unwrap_or_default(),
            cpus: limits::cpus_online,
        }
    }

    /// Root need not be a user whom the kernel lets do without a user namespace,
    /// but nobody else ever is.
    fn is_root(&self) -> bool {
        self.euid == 0
    }
}

/// Validates `crun-lite run`.
pub(super) fn validate(args: RunArgs, host: &Host) -> Result<RunSpec, Error> {
    if args.privileged {
        return Err(usage(
            "--privileged is not supported: give the command what it needs with --cap-add, \
             --security-opt and --net",
        ));
    }
    let userns = ids::user_namespace(args.userns.as_deref(), host)?;
    let namespaces = namespaces(&args, userns)?;
    let mut network = network::parse(&args.net, args.mtu.as_deref(), args.mac_address.as_deref())?;
    let default = args.net_default.as_deref();
    egress::set(
        &args.net_allow,
        &args.net_deny,
        default,
        &args.dns,
        &mut network,
    )?;
    let namespaces = Namespaces {
        net: network != Network::Host,
        ..namespaces
    };
    let hostname = hostname(args.hostname.as_deref(), namespaces.uts, host)?;
    let (uid_map, gid_map) = ids::maps(&args.uidmap, &args.gidmap, userns)?;
    let kept = ids::kept(userns, host);
    let user = match (&args.user, kept) {
        (Some(user), _) => ids::user(user)?,
        (None, Some((uid, gid))) => UserSpec {
            user: Some(NameOrId::Id(uid)),
            group: Some(NameOrId::Id(gid)),
        },
        (None, None) => UserSpec::default(),
    };
    let groups = ids::groups(&args.surroundings.group_add)?;
    let capabilities = security::capabilities(&args.cap_add, &args.cap_drop)?;
    let security = security::options(&args.security_opt, capabilities.all)?;
    let rootfs = rootfs(args.rootfs.as_deref())?;
    let mut mounts = mounts::collect(
        &mounts::Words {
            volumes: &args.volume,
            mounts: &args.mount,
            tmpfs_mounts: &args.tmpfs,
            devices: &args.surroundings.device,
        },
        userns,
        host.is_root(),
    )?;
    if args.read_only {
        if args.read_only_tmpfs.unwrap_or(true) {
            mounts::add_read_only_tmpfs(&mut mounts, &rootfs);
        }
    } else if args.read_only_tmpfs == Some(true) {
        return Err(usage("--read-only-tmpfs is only for --read-only"));
    }
    let workdir = args
        .workdir
        .map(|dir| paths::in_container("--workdir", &dir))
        .transpose()?;
    let spec = RunSpec {
        command: command(args.command)?,
        read_only: args.read_only,
        account: kept.map(|ids| account::of_caller(host, ids, &mounts, workdir.as_deref())),
        workdir,
        env: env::build(&args.env, &args.env_file, args.tty, &hostname, host)?,
        user,
        groups,
        mounts,
        tty: args.tty,
        init: args.surroundings.init.unwrap_or(true),
        interactive: args.interactive,
        namespaces,
        userns,
        uid_map,
        gid_map,
        capabilities: capabilities.all,
        ambient: capabilities.ambient,
        seccomp: security.seccomp,
        landlock: security.landlock,
        no_new_privileges: security.no_new_privileges,
        mask: security.mask,
        unmask: security.unmask,
        dns: network::dns(&args.dns)?,
        dns_search: network::dns_search(&args.dns_search, &network)?,
        dns_options: network::dns_options(&args.dns_option, &network)?,
        add_host: network::add_host(&args.add_host, &network)?,
        shm_size: sysctl::shm_size(args.surroundings.shm_size.as_deref(), &namespaces)?,
        sysctls: sysctl::sysctls(&args.surroundings.sysctl, &namespaces)?,
        pcap: args
            .pcap
            .map(|pcap| log_file::pcap(&pcap, &network))
            .transpose()?,
        net_log: args
            .net_log
            .map(|log| log_file::net_log(&log, &network))
            .transpose()?,
        publish: publish::publish(&args.publish, &network)?,
        name: args.name.as_deref().map(publish::name).transpose()?,
        limits: limits::limits(&args.limits, host.cpus)?,
        network,
        rootfs,
        hostname,
    };
    check_ids(&spec, &spec.uid_map, &spec.gid_map)?;
    Ok(spec)
}

/// Refuses ids that the maps do not have; an empty map is not known yet, or is the
/// host's, which has all.
pub(super) fn check_ids(
    spec: &RunSpec,
    uid_map: &[IdMapEntry],
    gid_map: &[IdMapEntry],
) -> Result<(), Error> {
    ids::check_mapped(&spec.user, &spec.groups, uid_map, gid_map)?;
    mounts::check_mapped(&spec.mounts, uid_map, gid_map)
}

/// The highest id that the options name.
pub(super) fn highest_id(spec: &RunSpec) -> u32 {
    let added = match &spec.groups {
        Groups::Added(groups) => groups.as_slice(),
        Groups::Kept => &[],
    };
    let named = [&spec.user.user, &spec.user.group].into_iter().flatten();
    named
        .chain(added)
        .filter_map(|id| match id {
            NameOrId::Id(id) => Some(*id),
            NameOrId::Name(_) => None,
        })
        .max()
        .unwrap_or_default()
}

fn command(words: Vec<OsString>) -> Result<Vec<OsString>, Error> {
    match words.first() {
        None => Ok(vec![DEFAULT_COMMAND.into()]),
        Some(first) if first.is_empty() => Err(usage("the command is an empty word")),
        Some(first) => paths::check_length("the command", first).map(|()| words),
    }
}

/// All but the network namespace, which `--net` decides.
fn namespaces(args: &RunArgs, userns: UserNamespace) -> Result<Namespaces, Error> {
    let pid = private("--pid", args.pid.as_deref())?;
    if !pid && args.surroundings.init == Some(false) {
        return Err(usage(
            "--init=false needs a PID namespace: with --pid=host nothing but our init ends what \
             the command leaves behind",
        ));
    }
    Ok(Namespaces {
        user: userns != UserNamespace::Host,
        mount: true,
        pid,
        uts: private("--uts", args.uts.as_deref())?,
        ipc: private("--ipc", args.ipc.as_deref())?,
        net: true,
        cgroup: private("--cgroupns", args.cgroupns.as_deref())?,
    })
}

/// `private` (true) or `host` (false).
fn private(option: &str, mode: Option<&str>) -> Result<bool, Error> {
    match mode {
        None | Some("private") => Ok(true),
        Some("host") => Ok(false),
        Some(other) => Err(usage(format!(
            "{option}: unknown mode {} (known: private, host)",
            shown(other)
        ))),
    }
}

fn hostname(given: Option<&str>, new_uts: bool, host: &Host) -> Result<String, Error> {
    match given {
        Some(_) if !new_uts => Err(usage(
            "--hostname cannot be set with --uts=host: the name is the host's",
        )),
        Some(name) => names::hostname(name),
        None if new_uts => Ok(DEFAULT_HOSTNAME.to_owned()),
        None => Ok(host.hostname.clone()),
    }
}

fn rootfs(dir: Option<&OsStr>) -> Result<RootFs, Error> {
    let Some(dir) = dir else {
        return Ok(RootFs::Default);
    };
    let path = paths::on_host("--rootfs", dir)?;
    if path.is_dir() {
        Ok(RootFs::Dir(path))
    } else {
        Err(Error::Path {
            option: "--rootfs",
            path: PathBuf::from(dir),
            source: io::Error::from(rustix::io::Errno::NOTDIR),
        })
    }
}

fn usage(message: impl Into<String>) -> Error {
    Error::Usage(message.into())
}

/// A value as messages show it: quoted, control characters escaped, and not
/// longer than a person wants to see.
fn shown(value: impl AsRef<OsStr>) -> String {
    const MOST: usize = 80;
    let text = value.as_ref().to_string_lossy();
    let mut quoted = format!("{:?}", text.chars().take(MOST).collect::<String>());
    if text.chars().nth(MOST).is_some() {
        // Writing to a String cannot fail.
        let _ = write!(quoted, "... ({} bytes)", value.as_ref().len());
    }
    quoted
}

#[cfg(test)]
mod tests;
