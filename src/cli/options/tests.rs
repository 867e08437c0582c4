use std::net::Ipv4Addr;

use clap::FromArgMatches;
use proptest::prelude::*;

use super::super::args::{self, Cli, Verb};
use super::*;
use crate::config::{MountKind, NameOrId, SeccompProfile, Tmpfs};

fn host() -> Host {
    Host {
        euid: 1000,
        egid: 1000,
        env: vec![("TERM".into(), "screen".into())],
        hostname: "outside".into(),
        read: |_| Vec::new(),
        cpus: || 2,
    }
}

fn raw(line: &[&str]) -> Result<RunArgs, clap::Error> {
    let words = ["crun-lite", "run"].iter().chain(line);
    let matches = args::command().try_get_matches_from(words)?;
    match Cli::from_arg_matches(&matches)?.verb {
        Verb::Run(args) => Ok(*args),
        other => panic!("{other:?}"),
    }
}

fn spec(line: &[&str]) -> RunSpec {
    validate(raw(line).unwrap(), &host()).unwrap()
}

fn refusal(line: &[&str], host: &Host) -> String {
    validate(raw(line).unwrap(), host).unwrap_err().to_string()
}

#[test]
fn the_definition_is_sound() {
    args::command().debug_assert();
}

#[test]
fn defaults() {
    let spec = spec(&[]);
    assert_eq!(spec.command, ["/bin/sh"]);
    assert_eq!(spec.rootfs, RootFs::Default);
    assert_eq!(spec.hostname, "container");
    assert_eq!(spec.network, Network::Builtin(Default::default()));
    assert_eq!(spec.user, UserSpec::default());
    assert_eq!(spec.seccomp, SeccompProfile::Default);
    assert!(spec.no_new_privileges && !spec.tty && !spec.interactive && !spec.read_only);
    assert_eq!(spec.namespaces, Namespaces::PRIVATE);
}

#[test]
fn options_end_at_the_command() {
    for (line, command) in [
        (&["ls", "-la"][..], &["ls", "-la"][..]),
        (
            &["--net=none", "ls", "-la", "--net=host"],
            &["ls", "-la", "--net=host"],
        ),
        (&["--", "ls", "--", "-x"], &["ls", "--", "-x"]),
        (&["--", "-x"], &["-x"]),
        (&["ls", "--", "-x"], &["ls", "--", "-x"]),
        (&["ls", "--help"], &["ls", "--help"]),
        (&["sh", "-c", "exit 3"], &["sh", "-c", "exit 3"]),
        (&["ls", "--log-level=trace"], &["ls", "--log-level=trace"]),
        (&["-w", "/", "ls", "run"], &["ls", "run"]),
    ] {
        assert_eq!(spec(line).command, command, "{line:?}");
    }
    assert_eq!(
        spec(&["--net=none", "ls", "--net=host"]).network,
        Network::None
    );
    for bad in [
        &["--bogus", "ls"][..],
        &["-X", "ls"],
        &["-1"],
        &["--restart", "always", "ls"],
    ] {
        assert!(raw(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn short_options_combine() {
    let spec = spec(&["-itw", "/x", "-e", "A=1", "-eB=2", "-e=C=3", "-u1:2", "ls"]);
    assert!(spec.interactive && spec.tty);
    assert_eq!(spec.workdir, Some("/x".into()));
    assert_eq!(spec.user.user, Some(NameOrId::Id(1)));
    let has = |name: &str, value: &str| spec.env.contains(&(name.into(), value.into()));
    assert!(has("A", "1") && has("B", "2") && has("C", "3") && has("TERM", "screen"));
}

#[test]
fn switches_take_a_value_only_after_equals() {
    assert!(!spec(&["-it=false", "ls"]).tty);
    assert!(spec(&["-it=false", "ls"]).interactive);
    assert!(!spec(&["--rm=true", "--read-only=0", "true"]).read_only);
    assert_eq!(spec(&["--read-only", "true"]).command, ["true"]);
    assert!(!spec(&["--tty", "--tty=false"]).tty);
    assert!(raw(&["--tty=maybe"]).is_err());
}

#[test]
fn the_last_value_holds() {
    assert_eq!(spec(&["-w", "/a", "-w", "/b"]).workdir, Some("/b".into()));
    assert_eq!(spec(&["--hostname", "a", "-h", "b"]).hostname, "b");
}

#[test]
fn a_value_may_look_like_an_option() {
    assert!(
        spec(&["-e", "-A=1"])
            .env
            .contains(&("-A".into(), "1".into()))
    );
    assert!(refusal(&["--user", "-1"], &host()).contains("neither a number nor a name"));
    assert!(refusal(&["--hostname", "--rm"], &host()).contains("not a host name"));
}

#[test]
fn contradictions_are_refused() {
    let root = Host { euid: 0, ..host() };
    for (line, words) in [
        (
            &["--net=host", "--mtu", "1500"][..],
            "--mtu is only for --net=builtin",
        ),
        (
            &["--net=none", "--mtu=1500"],
            "--mtu is only for --net=builtin",
        ),
        (&["--net=none:mtu=1500"], "has no options"),
        (&["--net=none", "--network=host"], "twice"),
        (&["--net=builtin:mtu=1500", "--mtu=1500"], "twice"),
        (
            &["--userns=host", "--uidmap=0:0:1"],
            "not with --userns=host",
        ),
        (&["--uts=host", "--hostname=a"], "--uts=host"),
        (&["--read-only-tmpfs"], "only for --read-only"),
        (&["--net=none", "--add-host=a:host-gateway"], "no gateway"),
        (&["--uidmap=0:1000:1", "--user=1"], "not mapped"),
        (
            &["--uidmap=0:1000:10", "--gidmap=0:1000:1", "--user=1:1"],
            "group id 1 is not mapped",
        ),
        (&["--tmpfs=/a", "-v", "/:/a"], "mounted twice"),
        (&["--privileged"], "not supported"),
        (&["--pid=container:x"], "known: private, host"),
        (&["--rootfs="], "empty"),
        (&[""], "empty word"),
    ] {
        let message = refusal(line, &root);
        assert!(message.contains(words), "{line:?}: {message}");
    }
}

#[test]
fn a_user_namespace_is_not_optional_for_an_ordinary_user() {
    assert!(refusal(&["--userns=host"], &host()).contains("only for root"));
    let root = Host { euid: 0, ..host() };
    let spec = validate(raw(&["--userns=host"]).unwrap(), &root).unwrap();
    assert!(!spec.namespaces.user);
}

#[test]
fn the_hosts_namespaces() {
    let spec = spec(&[
        "--pid=host",
        "--ipc=host",
        "--uts=host",
        "--cgroupns=host",
        "--net=host",
    ]);
    let only = Namespaces {
        user: true,
        mount: true,
        pid: false,
        uts: false,
        ipc: false,
        net: false,
        cgroup: false,
    };
    assert_eq!(spec.namespaces, only);
    assert_eq!(spec.hostname, "outside");
    assert!(spec.env.contains(&("HOSTNAME".into(), "outside".into())));
    assert!(self::spec(&["--net=none"]).namespaces.net);
}

#[test]
fn the_root_has_to_be_a_directory() {
    assert_eq!(
        spec(&["--rootfs", "/usr/.."]).rootfs,
        RootFs::Dir("/".into())
    );
    for (dir, errno) in [("/nowhere", libc::ENOENT), ("/dev/null", libc::ENOTDIR)] {
        match validate(raw(&["--rootfs", dir]).unwrap(), &host()) {
            Err(Error::Path {
                option: "--rootfs",
                source,
                ..
            }) => {
                assert_eq!(source.raw_os_error(), Some(errno));
            }
            other => panic!("{other:?}"),
        }
    }
    let long = "/x".repeat(32 * 1024);
    assert!(refusal(&["--rootfs", &long], &host()).len() < 120);
}

#[test]
fn lists_add_up() {
    let spec = spec(&[
        "--dns=1.1.1.1,::1",
        "--dns",
        "9.9.9.9",
        "--add-host=a:host-gateway",
        "--tmpfs=/t:size=1m",
        "--uidmap=0:1000:1,1:100000:10",
        "--net=builtin:cidr=10.9.0.0/16",
    ]);
    assert_eq!(spec.dns.len(), 3);
    assert_eq!(
        spec.add_host,
        [("a".to_owned(), Ipv4Addr::new(10, 9, 0, 2).into())]
    );
    assert_eq!((spec.uid_map.len(), spec.gid_map.len()), (2, 2));
    assert!(matches!(
        spec.mounts[0].kind,
        MountKind::Tmpfs(Tmpfs {
            size: Some(0x10_0000),
            ..
        })
    ));
}

#[test]
fn values_are_shown_short_and_without_control_characters() {
    assert_eq!(shown("a\x1b[1m\n"), r#""a\u{1b}[1m\n""#);
    let long = shown("x".repeat(64 * 1024));
    assert!(
        long.len() < 110 && long.ends_with("(65536 bytes)"),
        "{long}"
    );
}

/// A word that could stand in a command line: an option, with or without a value.
fn word() -> impl Strategy<Value = String> {
    let names: Vec<String> = args::command()
        .find_subcommand("run")
        .into_iter()
        .flat_map(clap::Command::get_arguments)
        .filter_map(|arg| arg.get_long().map(|name| format!("--{name}")))
        .collect();
    prop_oneof![
        prop::sample::select(names.clone()),
        (prop::sample::select(names), "[a-z0-9/:=,.*@-]{0,12}")
            .prop_map(|(name, value)| format!("{name}={value}")),
        "-[itewuv]{1,3}",
        "[a-z0-9/:=,.*-]{0,12}",
    ]
}

proptest! {
    #[test]
    fn any_command_line_is_understood_or_refused(words in prop::collection::vec(word(), 0..8)) {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        if let Ok(args) = raw(&words)
            && let Ok(spec) = validate(args, &host())
        {
            prop_assert!(!spec.command.is_empty());
            prop_assert!(spec.namespaces.user && spec.namespaces.mount);
            prop_assert!(spec.hostname.len() <= 64);
        }
    }
}
