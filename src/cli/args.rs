//! The command line as typed: `clap` splits it into words, [`super::options`]
//! finds out what the words mean.
//!
//! The syntax is podman's, which is that of Go's `pflag`: options end at the
//! first word that is not one, a switch can be given a value (`--rm=false`), an
//! option takes the next word as its value whatever that looks like, and a
//! repeated option overrides the one before.

mod limits;
mod surroundings;

use std::ffi::OsString;

use clap::{ArgAction, Args, Command, CommandFactory, Parser, Subcommand, ValueEnum};

use super::bench::BenchArgs;
pub(super) use limits::LimitArgs;
use surroundings::SurroundingsArgs;

/// How ids are mapped and what the exit status means: what a user has to know
/// that no single option says.
const RUN_NOTES: &str = "\
Ids:
  The container has a user namespace of its own unless --userns=host; its root is
  you. With --userns=private, and without --uidmap and --gidmap, the map is
    as an ordinary user  0 is your own id, 1 and up are your subordinate ids
                         (/etc/subuid, /etc/subgid; newuidmap and newgidmap have
                         to be installed). Without such ids only 0 is mapped.
    as root              0 to 65535 are the same ids on the host, as far as there
                         are such: a root that gets out is the host's root.

Exit status:
  125  crun-lite itself failed; what was wrong is on standard error
  126  the command was found but could not be executed
  127  the command was not found
  128+N  the command was ended by signal N
  any other  the command's own

Examples:
  crun-lite run -it                               a shell in a fresh BusyBox root
  crun-lite run --net=none -v ./src:/src:ro -w /src ls -la
  crun-lite run --rootfs ./debian --net=builtin:mtu=1500 -- curl https://example.com";

/// What a user has to know of `crun-lite doctor`.
const DOCTOR_NOTES: &str = "\
Nothing is changed: what can be tried is tried in namespaces that end with it, and two
containers with the defaults are run, with and without a network.

Exit status:
  0    run works with its defaults
  1    it does not
  125  crun-lite itself failed";

/// Rootless containers in one binary, with a network of their own.
#[derive(Debug, Parser)]
#[command(
    name = "crun-lite",
    version,
    disable_help_subcommand = true,
    arg_required_else_help = false
)]
pub(super) struct Cli {
    #[command(flatten)]
    pub global: GlobalArgs,
    #[command(subcommand)]
    pub verb: Verb,
}

/// Options of every verb.
#[derive(Debug, Clone, Copy, Args)]
#[command(next_help_heading = "Messages")]
pub(super) struct GlobalArgs {
    /// Least severe message that is printed
    #[arg(long, global = true, value_enum, value_name = "LEVEL", default_value_t = LogLevel::Warn)]
    pub log_level: LogLevel,
    /// How messages, and the plan of --dry-run, are printed
    #[arg(long, global = true, value_enum, value_name = "FORMAT", default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

/// `--log-level`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum LogLevel {
    Error,
    #[value(alias = "warning")]
    Warn,
    Info,
    Debug,
    Trace,
}

/// `--log-format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    Text,
    Json,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Run a command in a new container
    Run(Box<RunArgs>),
    /// Measure how fast it is, and how fast others are
    Bench(Box<BenchArgs>),
    /// List and change the published ports of a running container
    #[command(subcommand)]
    Port(PortArgs),
    /// See what a running container's network does
    #[command(subcommand)]
    Net(NetArgs),
    /// Say what this host offers, and how to get what is missing
    #[command(after_long_help = DOCTOR_NOTES)]
    Doctor(DoctorArgs),
}

/// `crun-lite doctor`, as typed.
#[derive(Debug, Args)]
pub(super) struct DoctorArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Print a profile for AppArmor instead, which lets this program make user
    /// namespaces where kernel.apparmor_restrict_unprivileged_userns is 1
    #[arg(long, conflicts_with = "json")]
    pub apparmor_profile: bool,
}

/// `crun-lite port`, as typed.
#[derive(Debug, Subcommand)]
pub(super) enum PortArgs {
    /// List the published ports
    Ls {
        #[command(flatten)]
        container: ContainerArg,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Publish more ports; all of them or none
    Add {
        #[command(flatten)]
        container: ContainerArg,
        /// As for `run --publish`
        #[arg(required = true, value_name = "[[ADDR:]HOST:]CONTAINER[/tcp|udp]")]
        ports: Vec<String>,
    },
    /// Publish ports no longer; connections that there are go on
    Rm {
        #[command(flatten)]
        container: ContainerArg,
        /// As for `run --publish`
        #[arg(required = true, value_name = "[[ADDR:]HOST:]CONTAINER[/tcp|udp]")]
        ports: Vec<String>,
    },
}

/// `crun-lite net`, as typed.
#[derive(Debug, Subcommand)]
pub(super) enum NetArgs {
    /// List the connections and datagram flows
    Flows {
        #[command(flatten)]
        container: ContainerArg,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// List the rules about what the container reaches
    Rules {
        #[command(flatten)]
        container: ContainerArg,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Let the container reach more
    Allow(RuleArgs),
    /// Let the container reach less; connections that are denied now end
    Deny(RuleArgs),
    /// Set what is done where no rule says anything
    Default {
        #[command(flatten)]
        container: ContainerArg,
        /// allow or deny
        #[arg(value_enum, value_name = "ACTION")]
        action: ActionArg,
    },
    /// Print counters
    Stats {
        #[command(flatten)]
        container: ContainerArg,
        /// Print JSON
        #[arg(long, conflicts_with = "prometheus")]
        json: bool,
        /// Print the text format of Prometheus
        #[arg(long)]
        prometheus: bool,
    },
}

/// Rules of a running container, as typed.
#[derive(Debug, Args)]
pub(super) struct RuleArgs {
    /// Take rules back that are there
    #[arg(long)]
    pub remove: bool,
    #[command(flatten)]
    pub container: ContainerArg,
    /// As for `run --net-allow` and `--net-deny`; all of them or none
    #[arg(
        required = true,
        value_name = "[PROTO:]TARGET[:PORT[-PORT]]",
        value_delimiter = ','
    )]
    pub rules: Vec<String>,
}

/// `allow` or `deny`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum ActionArg {
    Allow,
    Deny,
}

/// Which container.
#[derive(Debug, Args)]
pub(super) struct ContainerArg {
    /// Its --name, or the process id of its `crun-lite run`
    #[arg(value_name = "CONTAINER")]
    pub container: String,
}

/// `crun-lite run`, as typed.
#[derive(Debug, Default, Args)]
#[command(
    override_usage = "crun-lite run [OPTIONS] [--] [COMMAND [ARG]...]",
    disable_help_flag = true,
    after_long_help = RUN_NOTES,
    args_override_self = true
)]
pub(super) struct RunArgs {
    /// The command and its arguments; options end where it begins. Without one,
    /// /bin/sh
    #[arg(value_name = "COMMAND", trailing_var_arg = true)]
    pub command: Vec<OsString>,

    /// Print what would be done, in order, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Name of the container, by which `crun-lite port` and `crun-lite net` know
    /// it [default: our process id]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Remove the container when it ends (accepted: nothing is ever kept)
    #[arg(long)]
    pub rm: bool,
    /// Print this help
    #[arg(long, action = ArgAction::HelpLong)]
    help: Option<bool>,

    /// Keep standard input connected
    #[arg(short, long, help_heading = "Command")]
    pub interactive: bool,
    /// Give the command a terminal of its own
    #[arg(short, long, help_heading = "Command")]
    pub tty: bool,
    /// Set an environment variable. NAME alone takes our own value of it, NAME*
    /// all of ours that begin so. Nothing else of our environment comes in
    #[arg(short, long, value_name = "NAME[=VALUE]", help_heading = "Command")]
    pub env: Vec<OsString>,
    /// Read environment variables from a file, one per line as for --env; lines
    /// that begin with # are comments. --env overrides it
    #[arg(long, value_name = "FILE", help_heading = "Command")]
    pub env_file: Vec<OsString>,
    /// Whom the command runs as: names in the container's /etc/passwd and
    /// /etc/group, or numbers [default: 0:0]
    #[arg(short, long, value_name = "USER[:GROUP]", help_heading = "Command")]
    pub user: Option<String>,
    /// Working directory in the container, made when missing [default: /]
    #[arg(short, long, value_name = "DIR", help_heading = "Command")]
    pub workdir: Option<OsString>,

    /// The root filesystem; `/` is the host's own tree. Without it a BusyBox root
    /// is assembled in memory at start
    #[arg(long, value_name = "DIR", help_heading = "Files")]
    pub rootfs: Option<OsString>,
    /// Make the root filesystem read-only
    #[arg(long, help_heading = "Files")]
    pub read_only: bool,
    /// With --read-only, put a fresh tmpfs on each of /run, /tmp and /var/tmp
    /// [default: true]
    #[arg(long, help_heading = "Files")]
    pub read_only_tmpfs: Option<bool>,
    #[allow(
        rustdoc::broken_intra_doc_links,
        reason = "the help text of an option, not a link"
    )]
    /// Show a host path in the container, with everything mounted below it. SRC
    /// begins with /, ./ or ../; OPTIONS are ro, rw, [no]exec, [no]suid, [no]dev, bind,
    /// rbind, z, Z, [r]private, [r]slave (what the host mounts below it later shows),
    /// [r]shared (and the other way round), idmap (its files belong to the container's
    /// ids; only as root) [default: rw,nosuid,nodev,private]
    #[arg(short, long, value_name = "SRC:DST[:OPTIONS]", help_heading = "Files")]
    pub volume: Vec<OsString>,
    #[allow(
        rustdoc::broken_intra_doc_links,
        reason = "the help text of an option, not a link"
    )]
    /// The same in words: type=bind,src=PATH,dst=PATH[,ro[=BOOL]][,bind-propagation=MODE]
    /// [,idmap[=BOOL]] or type=tmpfs,dst=PATH[,tmpfs-size=BYTES[k|m|g]]
    /// [,tmpfs-mode=OCTAL][,ro] and the options of --tmpfs
    #[arg(long, value_name = "type=TYPE,KEY=VALUE,...", help_heading = "Files")]
    pub mount: Vec<OsString>,
    #[allow(
        rustdoc::broken_intra_doc_links,
        reason = "the help text of an option, not a link"
    )]
    /// Mount a fresh tmpfs. OPTIONS are size=BYTES[k|m|g], mode=OCTAL, uid=UID, gid=GID,
    /// nr_inodes=N, ro, rw, [no]exec, [no]suid, [no]dev, noatime, tmpcopyup (begin with
    /// a copy of what is there), notmpcopyup [default: rw,noexec,nosuid,nodev,mode=1777]
    #[arg(long, value_name = "DST[:OPTIONS]", help_heading = "Files")]
    pub tmpfs: Vec<OsString>,

    /// The network: builtin (our own user-space stack), none (only lo), host (the host's
    /// own). Keys of builtin: mtu=BYTES (576 to 65520), link=auto|tap|veth (a TAP device
    /// or a veth pair; auto, the default: a TAP device where one can be made, else a veth
    /// pair), cidr=ADDR/N (N from 1 to 25, 10.0.2.0/24), enable_ipv6=BOOL (as the host
    /// has it), cidr6=PREFIX/64 (the first of fd00::/64, fd00:0:0:1::/64 ... that the
    /// host does not use), outbound_addr=IP|IFACE and outbound_addr6=IP|IFACE (where
    /// traffic leaves the host from), allow_host_loopback=BOOL (the gateway address
    /// reaches the host's 127.0.0.1 and ::1), allow_host_addresses=BOOL (the host's other
    /// addresses are reachable), allow_link_local=BOOL (169.254.0.0/16, fd00:ec2::254 and
    /// fd20:ce::254 are), max_flows=N (connections at once, as many as the limit on open
    /// files allows and never more), max_half_open=N (TCP connections that are still
    /// being opened, 1024), max_buffered=SIZE (TCP payload that waits, 512m; k, m or g),
    /// max_pps=N (frames of the container a second, 0: no bound), busy_poll=USEC (look
    /// for events that long before sleeping, 64; 0 for never), sandbox=BOOL (the process
    /// that runs the network locks itself in, true)
    /// [default: builtin]
    #[arg(
        long,
        visible_alias = "network",
        value_name = "MODE[:KEY=VALUE,...]",
        help_heading = "Network"
    )]
    pub net: Vec<String>,
    /// Largest IP packet on the link, bytes: short for --net=builtin:mtu=
    /// [default: 65520]
    #[arg(long, value_name = "BYTES", help_heading = "Network")]
    pub mtu: Option<String>,
    /// Host name in the container, at most 64 bytes [default: container]
    #[arg(short = 'h', long, value_name = "NAME", help_heading = "Network")]
    pub hostname: Option<String>,
    /// Resolver to write into /etc/resolv.conf in place of our own
    #[arg(
        long,
        value_name = "ADDR",
        value_delimiter = ',',
        help_heading = "Network"
    )]
    pub dns: Vec<String>,
    /// Domain to search names in, in place of the host's; . for none
    #[arg(
        long,
        value_name = "DOMAIN",
        value_delimiter = ',',
        help_heading = "Network"
    )]
    pub dns_search: Vec<String>,
    /// Option of the resolver (resolv.conf(5)), in place of the host's
    #[arg(
        long,
        value_name = "OPTION",
        value_delimiter = ',',
        help_heading = "Network"
    )]
    pub dns_option: Vec<String>,
    /// MAC address of the container's interface
    #[arg(long, value_name = "MAC", help_heading = "Network")]
    pub mac_address: Option<String>,
    /// Line to add to /etc/hosts; the address host-gateway stands for the host
    #[arg(
        long,
        value_name = "NAME[;NAME...]:ADDR",
        value_delimiter = ',',
        help_heading = "Network"
    )]
    pub add_host: Vec<String>,
    #[allow(
        rustdoc::broken_intra_doc_links,
        reason = "the help text of an option, not a link"
    )]
    /// Lead ports of the host to the container's; ADDR is one of the host's
    /// addresses, an IPv6 one in brackets [default: all, IPv4 and IPv6]. Without
    /// HOST any free port is taken. Ranges (80-89) are of equal length
    #[arg(
        short = 'p',
        long,
        value_name = "[[ADDR:]HOST:]CONTAINER[/tcp|udp]",
        help_heading = "Network"
    )]
    pub publish: Vec<String>,

    /// Let the container reach nothing but this, and what other such options name
    /// (repeatable). PROTO is tcp, udp, icmp or dns, else all; TARGET is an address, a
    /// network (10.0.0.0/8), a name (example.org; *.example.org for all below it) or *
    /// for any. An IPv6 address with a port is in brackets. A name opens the addresses
    /// that our DNS has answered the container for it; no other name is answered.
    /// What the host protects (see allow_host_loopback and so on) stays closed
    #[arg(
        long,
        value_name = "[PROTO:]TARGET[:PORT[-PORT]]",
        value_delimiter = ',',
        help_heading = "Network"
    )]
    pub net_allow: Vec<String>,
    /// Never let the container reach this, whatever --net-allow says (repeatable).
    /// Without --net-allow all else is reached. A name stands alone
    #[arg(
        long,
        value_name = "[PROTO:]TARGET[:PORT[-PORT]]",
        value_delimiter = ',',
        help_heading = "Network"
    )]
    pub net_deny: Vec<String>,
    /// What is done where no rule says anything: allow, deny [default: deny with
    /// --net-allow, else allow]
    #[arg(long, value_name = "ACTION", help_heading = "Network")]
    pub net_default: Option<String>,
    /// Write what was refused to a file, a line of JSON each, instead of to standard
    /// error; at most 10 lines a second. A file of BYTES [default: 10m; at least 128k]
    /// becomes FILE.1 and so on; N files are kept [default: 2]
    #[arg(
        long,
        value_name = "FILE[,size=BYTES[k|m|g]][,files=N]",
        help_heading = "Network"
    )]
    pub net_log: Option<OsString>,

    /// Write what passes the container's network link to a file that tcpdump and
    /// Wireshark read. A file of BYTES [default: 100m; at least 128k] becomes
    /// FILE.1, that one FILE.2 and so on; N files are kept [default: 2]. With
    /// files=1 the capture ends when the file is full
    #[arg(
        long,
        value_name = "FILE[,size=BYTES[k|m|g]][,files=N]",
        help_heading = "Network"
    )]
    pub pcap: Option<OsString>,

    #[command(flatten)]
    pub limits: LimitArgs,

    #[command(flatten)]
    pub surroundings: SurroundingsArgs,

    #[allow(
        rustdoc::broken_intra_doc_links,
        reason = "the help text of an option, not a link"
    )]
    /// User namespace: private; keep-id[:uid=UID,gid=GID] (your ids are the same
    /// inside, or these, and the command runs with them); auto[:size=N] (N ids that no
    /// other such container has, 1024); nomap (your own id is none of the container's);
    /// host (only as root) [default: private]
    #[arg(long, value_name = "MODE[:KEY=VALUE,...]", help_heading = "Isolation")]
    pub userns: Option<String>,
    /// PID namespace: private, host [default: private]
    #[arg(long, value_name = "MODE", help_heading = "Isolation")]
    pub pid: Option<String>,
    /// IPC namespace: private, host [default: private]
    #[arg(long, value_name = "MODE", help_heading = "Isolation")]
    pub ipc: Option<String>,
    /// UTS namespace (host name): private, host [default: private]
    #[arg(long, value_name = "MODE", help_heading = "Isolation")]
    pub uts: Option<String>,
    /// Cgroup namespace: private, host [default: private]
    #[arg(long, value_name = "MODE", help_heading = "Isolation")]
    pub cgroupns: Option<String>,
    /// Map SIZE user ids from CONTAINER on to the host's own ids from HOST on.
    /// Serves for group ids too when --gidmap is not given
    #[arg(
        long,
        value_name = "CONTAINER:HOST:SIZE",
        value_delimiter = ',',
        help_heading = "Isolation"
    )]
    pub uidmap: Vec<String>,
    /// The same for group ids
    #[arg(
        long,
        value_name = "CONTAINER:HOST:SIZE",
        value_delimiter = ',',
        help_heading = "Isolation"
    )]
    pub gidmap: Vec<String>,
    /// Capability that the command has besides the default ones, or ALL
    #[arg(
        long,
        value_name = "CAP",
        value_delimiter = ',',
        help_heading = "Isolation"
    )]
    pub cap_add: Vec<String>,
    /// Capability that the command loses, or ALL
    #[arg(
        long,
        value_name = "CAP",
        value_delimiter = ',',
        help_heading = "Isolation"
    )]
    pub cap_drop: Vec<String>,
    /// seccomp=unconfined (no system-call filter) or seccomp=FILE (that of a profile
    /// as podman and Docker have them), landlock=disable (no second wall around the
    /// tree), no-new-privileges[=BOOL] (true), mask=PATH[:PATH...] (hide more), unmask=ALL or PATH[:PATH...]
    /// (hide less)
    #[arg(long, value_name = "KEY[=VALUE]", help_heading = "Isolation")]
    pub security_opt: Vec<OsString>,
    /// Refused, with what to do in its place
    #[arg(long, hide = true)]
    pub privileged: bool,
}

/// The `clap` command, with podman's syntax for switches and values.
pub(super) fn command() -> Command {
    Cli::command().mut_subcommand("run", |run| {
        run.mut_args(|arg| match arg.get_action() {
            ArgAction::SetTrue => switch(arg),
            _ if ["read_only_tmpfs", "init"].contains(&arg.get_id().as_str()) => {
                switch(arg).default_value(None)
            }
            ArgAction::Set | ArgAction::Append if !arg.is_positional() => {
                arg.allow_hyphen_values(true)
            }
            _ => arg,
        })
    })
}

/// An option that may have a value, but only after `=`.
fn switch(arg: clap::Arg) -> clap::Arg {
    arg.action(ArgAction::Set)
        .num_args(0..=1)
        .require_equals(true)
        .value_name("BOOL")
        .value_parser(|text: &str| parse_bool(text).ok_or("true or false is needed"))
        .default_missing_value("true")
        .default_value("false")
        .hide_default_value(true)
}

/// A truth value, as podman (Go's `strconv.ParseBool`) reads it.
pub(super) fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Whether messages about a command line that cannot be parsed are to be JSON.
pub(super) fn asks_for_json(args: &[OsString]) -> bool {
    let words: Vec<_> = args.iter().take_while(|word| *word != "--").collect();
    words.iter().any(|word| *word == "--log-format=json")
        || words
            .windows(2)
            .any(|pair| pair[0] == "--log-format" && pair[1] == "json")
}
