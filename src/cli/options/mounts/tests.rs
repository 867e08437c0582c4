use proptest::prelude::*;

use super::*;

fn bind(source: &str, target: &str, read_only: bool) -> MountSpec {
    let kind = MountKind::Bind {
        source: source.into(),
        propagation: Propagation::Private,
        idmap: false,
    };
    MountSpec {
        target: target.into(),
        kind,
        flags: MountFlags {
            read_only,
            ..VOLUME_FLAGS
        },
    }
}

fn fresh(
    target: &str,
    size: Option<u64>,
    mode: impl Into<Option<u32>>,
    exec: bool,
    read_only: bool,
) -> MountSpec {
    MountSpec {
        target: target.into(),
        kind: MountKind::Tmpfs(Tmpfs {
            mode: mode.into(),
            size,
            ..Tmpfs::default()
        }),
        flags: MountFlags {
            read_only,
            noexec: !exec,
            ..TMPFS_FLAGS
        },
    }
}

fn refused(parse: impl Fn(&OsStr) -> Result<MountSpec, Error>, bad: &[&str]) {
    for text in bad {
        let result = parse(OsStr::new(text));
        assert!(
            matches!(result, Err(Error::Usage(_))),
            "{}: {result:?}",
            shown(text)
        );
    }
}

#[test]
fn volumes() {
    for (text, wanted) in [
        ("/a:/b", bind("/a", "/b", false)),
        ("/a:/b:ro", bind("/a", "/b", true)),
        ("/a:/b:rw,z", bind("/a", "/b", false)),
        ("/a:/b:Z,ro,rbind", bind("/a", "/b", true)),
        ("./a:/b/../c/", bind("./a", "/c", false)),
        ("../a:/b", bind("../a", "/b", false)),
        (".:/b", bind(".", "/b", false)),
        ("..:/b", bind("..", "/b", false)),
        ("/a,b:/b c", bind("/a,b", "/b c", false)),
    ] {
        assert_eq!(volume(OsStr::new(text)).unwrap(), wanted, "{text}");
    }
    refused(
        volume,
        &[
            "",
            ":",
            "/a",
            "a",
            "/a:",
            ":/b",
            "/a:b",
            "/a:/",
            "/a:/..",
            "name:/b",
            ".hidden:/b",
            "~/a:/b",
            "/a:/b:",
            "/a:/b:ro,rw",
            "/a:/b:U",
            "/a:/b:O",
            "/a:/b:RO",
            "/a:/b:ro:x",
            "/a:/b:noexec,exec",
            "/a:/b:slave,shared",
            "/a:/b:unbindable",
            "/a:/b:idmap=true",
            "/a:/b:ro=true",
            "/a:/b:readonly",
            "/a:/b:noatime",
            "/a:/b:size=1k",
            "/a:/b:ro,",
            &format!("/a:/{}", "b/".repeat(32 * 1024)),
        ],
    );
    let named = volume(OsStr::new("data:/b")).unwrap_err().to_string();
    assert!(named.contains("named volumes are not supported"), "{named}");
}

#[test]
fn mounts() {
    for (text, wanted) in [
        ("type=bind,src=/a,dst=/b", bind("/a", "/b", false)),
        ("source=a:b,target=/b,ro,type=bind", bind("a:b", "/b", true)),
        (
            "type=bind,source=/a,destination=/b,readonly=true",
            bind("/a", "/b", true),
        ),
        (
            "type=bind,src=/a,dst=/b,readonly=false",
            bind("/a", "/b", false),
        ),
        ("type=bind,src=/a,dst=/b,rw=false", bind("/a", "/b", true)),
        ("type=tmpfs,dst=/b", fresh("/b", None, None, false, false)),
        (
            "type=tmpfs,dst=/b,tmpfs-size=2k,tmpfs-mode=0700,ro,exec",
            fresh("/b", Some(2048), 0o700, true, true),
        ),
    ] {
        assert_eq!(mount(OsStr::new(text)).unwrap(), wanted, "{text}");
    }
    refused(
        mount,
        &[
            "",
            "src=/a,dst=/b",
            "type=volume,src=a,dst=/b",
            "type=bind,dst=/b",
            "type=bind,src=/a",
            "type=bind,src=/a,dst=/b,dst=/c",
            "type=bind,src=/a,src=/b,dst=/c",
            "type=bind,type=bind",
            "type=bind,src=/a,dst=b",
            "type=bind,src=/a,dst=/b,bogus",
            "type=bind,src=/a,dst=/b,ro,rw",
            "type=bind,src=/a,dst=/b,ro=maybe",
            "type=bind,src=/a,dst=/b,tmpfs-size=1k",
            "type",
            "type=tmpfs,dst=/b,src=/a",
            "type=tmpfs,dst=/b,tmpfs-size=",
            "type=tmpfs,dst=/b,tmpfs-size",
            "type=tmpfs,dst=/b,tmpfs-mode=8",
            "type=tmpfs",
            "type=bind,src=/a,dst",
            "type=bind,src=/a,dst=/b,",
        ],
    );
}

#[test]
fn tmpfses() {
    for (text, wanted) in [
        ("/t", fresh("/t", None, None, false, false)),
        (
            "/t:size=64m",
            fresh("/t", Some(64 << 20), None, false, false),
        ),
        (
            "/t:rw,size=1G,mode=755,exec",
            fresh("/t", Some(1 << 30), 0o755, true, false),
        ),
        (
            "/t:ro,noexec,nosuid,nodev,size=4096",
            fresh("/t", Some(4096), None, false, true),
        ),
    ] {
        assert_eq!(tmpfs(OsStr::new(text)).unwrap(), wanted, "{text}");
    }
    refused(
        tmpfs,
        &[
            "",
            "t",
            "/",
            "/t:",
            "/t:ro:x",
            "/t:size",
            "/t:size=",
            "/t:size=0",
            "/t:size=-1",
            "/t:size=1x",
            "/t:size=k",
            "/t:size=50%",
            "/t:size=+1",
            "/t:size=9999999999g",
            "/t:size=1,size=1",
            "/t:mode=",
            "/t:mode=10000",
            "/t:mode=99",
            "/t:mode=+7",
            "/t:ro,rw",
            "/t:exec,noexec",
            "/t:suid,nosuid",
            "/t:nodev,dev",
            "/t:uid=-1",
            "/t:uid=4294967295",
            "/t:gid=x",
            "/t:uid=1,uid=1",
            "/t:nr_inodes=0",
            "/t:nr_inodes=much",
            "/t:tmpcopyup,notmpcopyup",
            "/t:slave",
            "/t:idmap",
            "/t:U",
            "/t:tmpfs-size=1k",
            "/t:ro=true",
            "/t:size=1k,mode=700,huge=always",
        ],
    );
}

#[test]
fn binds_can_be_told_more() {
    let plain = bind("/a", "/b", false);
    let with = |propagation, idmap, flags| MountSpec {
        kind: MountKind::Bind {
            source: "/a".into(),
            propagation,
            idmap,
        },
        flags,
        ..plain.clone()
    };
    let open = MountFlags {
        nosuid: false,
        nodev: false,
        noexec: true,
        ..VOLUME_FLAGS
    };
    for (text, wanted) in [
        ("rslave", with(Propagation::Slave, false, VOLUME_FLAGS)),
        ("shared", with(Propagation::Shared, false, VOLUME_FLAGS)),
        ("private", plain.clone()),
        ("idmap", with(Propagation::Private, true, VOLUME_FLAGS)),
        ("suid,dev,noexec", with(Propagation::Private, false, open)),
        ("nosuid,nodev,exec", plain.clone()),
    ] {
        let text = format!("/a:/b:{text}");
        assert_eq!(volume(OsStr::new(&text)).unwrap(), wanted, "{text}");
    }
    for (text, wanted) in [
        (
            "bind-propagation=slave",
            with(Propagation::Slave, false, VOLUME_FLAGS),
        ),
        ("bind-propagation=rprivate,relabel=shared", plain.clone()),
        ("idmap", with(Propagation::Private, true, VOLUME_FLAGS)),
        ("idmap=false,U=false", plain.clone()),
        ("suid,dev,noexec", with(Propagation::Private, false, open)),
    ] {
        let text = format!("type=bind,src=/a,dst=/b,{text}");
        assert_eq!(mount(OsStr::new(&text)).unwrap(), wanted, "{text}");
    }
    let start = "type=bind,src=/a,dst=/b,";
    for bad in [
        "bind-propagation=",
        "bind-propagation=up",
        "bind-propagation=slave,bind-propagation=slave",
        "slave",
        "idmap=maybe",
        "U",
        "chown=true",
        "relabel=other",
        "uid=1",
    ] {
        refused(mount, &[&format!("{start}{bad}")]);
    }
}

#[test]
fn tmpfses_can_be_told_more() {
    let wanted = MountSpec {
        target: "/t".into(),
        kind: MountKind::Tmpfs(Tmpfs {
            mode: Some(0o750),
            size: Some(1024),
            inodes: Some(2048),
            uid: Some(0),
            gid: Some(7),
            copy_up: true,
        }),
        flags: MountFlags {
            read_only: true,
            nosuid: false,
            nodev: false,
            noexec: false,
            noatime: true,
        },
    };
    let words = "nr_inodes=2k,uid=0,gid=7,tmpcopyup,ro,suid,dev,exec,noatime";
    let text = format!("/t:size=1k,mode=750,{words}");
    assert_eq!(tmpfs(OsStr::new(&text)).unwrap(), wanted);
    for prefix in ["", "tmpfs-"] {
        let text = format!("type=tmpfs,dst=/t,{prefix}size=1k,{prefix}mode=750,{words}");
        assert_eq!(mount(OsStr::new(&text)).unwrap(), wanted);
    }
}

/// As an ordinary user with a user namespace.
fn collected(
    volumes: &[OsString],
    mounts: &[OsString],
    tmpfs_mounts: &[OsString],
) -> Result<Vec<MountSpec>, Error> {
    let words = Words {
        volumes,
        mounts,
        tmpfs_mounts,
        devices: &[],
    };
    collect(&words, UserNamespace::Private, false)
}

#[test]
fn ids_are_mapped_for_root_alone() {
    let volumes = [OsString::from("/usr:/x:idmap")];
    let words = Words {
        volumes: &volumes,
        mounts: &[],
        tmpfs_mounts: &[],
        devices: &[],
    };
    let told =
        |userns, is_root| collect(&words, userns, is_root).map_err(|error| error.to_string());
    assert!(
        told(UserNamespace::Private, false)
            .unwrap_err()
            .contains("CAP_SYS_ADMIN")
    );
    assert!(
        told(UserNamespace::Host, true)
            .unwrap_err()
            .contains("--userns=host")
    );
    assert!(told(UserNamespace::Private, true).is_ok());
}

#[test]
fn nothing_is_mounted_in_a_shared_volume() {
    let shared = MountSpec {
        kind: MountKind::Bind {
            source: "/a".into(),
            propagation: Propagation::Shared,
            idmap: false,
        },
        ..bind("/a", "/b", false)
    };
    let inner = bind("/a", "/b/c", false);
    let beside = bind("/a", "/bc", false);
    assert!(check_shared(&[shared.clone(), beside]).is_ok());
    assert!(check_shared(&[shared, inner.clone()]).is_err());
    assert!(check_shared(&[bind("/a", "/b", false), inner]).is_ok());
}

#[test]
fn sources_have_to_exist_and_parents_come_first() {
    let words = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
    let all = collected(
        &words(&["/proc/self/../..:/z/y/x"]),
        &words(&["type=bind,src=/usr/.,dst=/z/y"]),
        &words(&["/z", "/a/b"]),
    )
    .unwrap();
    let order: Vec<_> = all
        .iter()
        .map(|mount| mount.target.to_str().unwrap())
        .collect();
    assert_eq!(order, ["/z", "/z/y", "/a/b", "/z/y/x"]);
    assert_eq!(all[1], bind("/usr", "/z/y", false));
    assert_eq!(all[3], bind("/", "/z/y/x", false));

    let missing = collected(&words(&["/nowhere/at/all:/b"]), &[], &[]).unwrap_err();
    assert_eq!(missing.to_string(), "--volume: /nowhere/at/all");
    assert!(collected(&words(&["/:/b"]), &[], &words(&["/c/../b"])).is_err());
}

#[test]
fn a_read_only_root_keeps_places_to_write() {
    let targets = |mounts: &[MountSpec]| {
        mounts
            .iter()
            .map(|mount| mount.target.display().to_string())
            .collect::<Vec<_>>()
    };
    let mut mounts = vec![bind("/a", "/tmp/x", false), bind("/a", "/run", false)];
    add_read_only_tmpfs(&mut mounts, &RootFs::Default);
    assert_eq!(targets(&mounts), ["/run", "/tmp", "/tmp/x", "/var/tmp"]);
    assert_eq!(mounts[0], bind("/a", "/run", false));

    let mut none = Vec::new();
    add_read_only_tmpfs(&mut none, &RootFs::Dir("/proc/self".into()));
    assert_eq!(none, []);
}

fn path() -> impl Strategy<Value = String> {
    "(/[a-zA-Z0-9_ .-]{0,3}[a-z]){1,4}"
}

proptest! {
    #[test]
    fn any_bytes_are_parsed_or_refused(
        bytes in prop::collection::vec(any::<u8>(), 0..60),
        text in "(type=(bind|tmpfs),)?[a-z/:,=0-9-]{0,60}",
    ) {
        for word in [OsStr::from_bytes(&bytes), OsStr::new(&text)] {
            for parsed in [volume(word), mount(word), tmpfs(word)].into_iter().flatten() {
                prop_assert!(parsed.target.is_absolute());
                prop_assert_ne!(parsed.target, PathBuf::from("/"));
            }
        }
    }

    #[test]
    fn binds_round_trip(source in path(), target in path(), read_only: bool) {
        let wanted = bind(&source, &target, read_only);
        let mode = if read_only { "ro" } else { "rw" };
        let text = format!("{source}:{target}:{mode}");
        prop_assert_eq!(volume(OsStr::new(&text)).unwrap(), wanted.clone());
        let text = format!("type=bind,src={source},dst={target},ro={read_only}");
        prop_assert_eq!(mount(OsStr::new(&text)).unwrap(), wanted);
    }

    #[test]
    fn tmpfses_round_trip(
        target in path(), size in 1..=i64::MAX.unsigned_abs(), mode in 0..=0o7777_u32, exec: bool, read_only: bool,
    ) {
        let wanted = fresh(&target, Some(size), mode, exec, read_only);
        let (access, exec) = (if read_only { "ro" } else { "rw" }, if exec { "exec" } else { "noexec" });
        let text = format!("{target}:size={size},mode={mode:o},{access},{exec}");
        prop_assert_eq!(tmpfs(OsStr::new(&text)).unwrap(), wanted.clone());
        let text = format!("type=tmpfs,dst={target},tmpfs-size={size},tmpfs-mode={mode:o},{access},{exec}");
        prop_assert_eq!(mount(OsStr::new(&text)).unwrap(), wanted);
    }
}
