use proptest::prelude::*;

use super::*;

fn bind(source: &str, target: &str, read_only: bool) -> MountSpec {
    let kind = MountKind::Bind {
        source: source.into(),
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
            "/a:/b:noexec",
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
            "/t:suid",
            "/t:dev",
            "/t:uid=1",
            "/t:size=1k,mode=700,huge=always",
        ],
    );
}

#[test]
fn sources_have_to_exist_and_parents_come_first() {
    let words = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
    let all = collect(
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

    let missing = collect(&words(&["/nowhere/at/all:/b"]), &[], &[]).unwrap_err();
    assert_eq!(missing.to_string(), "--volume: /nowhere/at/all");
    assert!(collect(&words(&["/:/b"]), &[], &words(&["/c/../b"])).is_err());
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
