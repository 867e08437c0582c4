//! `--userns` and `--group-add`: whose ids the container has.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use crate::util::command::Running;
use crate::util::{Host, Who, rootfs, tool};

/// Lines of a map: (container, host, size).
type Map = Vec<(u32, u32, u32)>;
/// The uid map and the gid map.
type Maps = [Map; 2];

/// The lines of a map as (container, host, size).
fn map(text: &str) -> Map {
    let number = |word: Option<&str>| word.unwrap().parse().unwrap();
    text.lines()
        .map(|line| {
            let mut words = line.split_whitespace();
            (
                number(words.next()),
                number(words.next()),
                number(words.next()),
            )
        })
        .collect()
}

const MAPS: &str = "cat /proc/self/uid_map; echo; cat /proc/self/gid_map";

/// Both maps as the container shows them.
fn maps(printed: &str) -> Maps {
    let (uid, gid) = printed.split_once("\n\n").unwrap();
    [map(uid), map(gid)]
}

macro_rules! need_subordinate_ids {
    ($who:expr) => {
        need!(
            $who.has_subordinate_ids(),
            "{} has no subordinate ids or no newuidmap(1)",
            $who.identity().name
        );
    };
}

/// A host where root has ids to give away.
fn host_with_containers_user() -> Host {
    let host = Host::new();
    let folder = Who::Root.folder();
    let file = folder.path().join("ids");
    fs::write(&file, "tester:100000:65536\ncontainers:2000000:4096\n").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    for path in ["/etc/subuid", "/etc/subgid"] {
        host.tool(&["mount", "--bind", file.to_str().unwrap(), path]);
    }
    host
}

#[test]
fn keep_id_keeps_the_ids() {
    let who = Who::User;
    need!(
        who.has_user_namespaces(),
        "an ordinary user may not make user namespaces"
    );
    let user = who.identity();
    let script = "id -u; id -g; id -un; id -gn; echo $HOME; grep CapEff /proc/self/status; touch /tmp/file; stat -c %u:%g /tmp/file";
    let printed = who.sh(&["--userns=keep-id"], script);
    let (uid, gid) = (user.uid, user.gid);
    let name = &user.name;
    let group = tool("id", &["-gn", name]);
    assert_eq!(
        printed,
        format!("{uid}\n{gid}\n{name}\n{group}/\nCapEff:\t0000000000000000\n{uid}:{gid}\n")
    );
    for [id, own] in [[uid, uid], [gid, gid]] {
        let maps = maps(&who.sh(&["--userns=keep-id"], MAPS));
        assert!(
            maps.iter().any(|map| map.contains(&(id, own, 1))),
            "{maps:?}"
        );
    }
    if who.has_subordinate_ids() {
        let [uids, _] = maps(&who.sh(&["--userns=keep-id"], MAPS));
        assert_eq!((uids[0].0, uids[0].2), (0, uid), "{uids:?}");
    }
    // Somebody else can be asked for; the entry stays.
    let printed = who.sh(
        &["--userns=keep-id", "--user=0"],
        "id -u; tail -n 1 /etc/passwd",
    );
    if who.has_subordinate_ids() {
        assert!(
            printed.starts_with(&format!("0\n{name}:*:{uid}:{gid}:")),
            "{printed}"
        );
    }
}

#[test]
fn keep_id_shares_files_with_the_user() {
    let who = Who::User;
    need!(
        who.has_user_namespaces(),
        "an ordinary user may not make user namespaces"
    );
    let folder = who.folder();
    let volume = format!("{}:/data", folder.path().display());
    who.sh(&["--userns=keep-id", "-v", &volume], "echo x > /data/file");
    let meta = fs::metadata(folder.path().join("file")).unwrap();
    assert_eq!(
        (meta.uid(), meta.gid()),
        (who.identity().uid, who.identity().gid)
    );
}

#[test]
fn keep_id_maps_to_the_ids_given() {
    let who = Who::User;
    need!(
        who.has_user_namespaces(),
        "an ordinary user may not make user namespaces"
    );
    need_subordinate_ids!(who);
    let user = who.identity();
    let folder = who.folder();
    let volume = format!("{}:/data", folder.path().display());
    let options = ["--userns=keep-id:uid=12,gid=34", "-v", &volume];
    let printed = who.sh(
        &options,
        "id -u; id -g; id -un; echo > /data/file; stat -c %u:%g /data/file",
    );
    assert_eq!(printed, format!("12\n34\n{}\n12:34\n", user.name));
    assert_eq!(
        fs::metadata(folder.path().join("file")).unwrap().uid(),
        user.uid
    );
    let [uids, gids] = maps(&who.sh(&["--userns=keep-id:uid=12,gid=34"], MAPS));
    assert!(
        uids.contains(&(12, user.uid, 1)) && gids.contains(&(34, user.gid, 1)),
        "{uids:?} {gids:?}"
    );
}

#[test]
fn keep_id_has_podmans_home() {
    let who = Who::User;
    need!(
        who.has_user_namespaces(),
        "an ordinary user may not make user namespaces"
    );
    let home = |options: &[&str]| {
        let mut all = vec!["--userns=keep-id"];
        all.extend(options);
        who.sh(
            &all,
            "echo $HOME; grep -c \"^$(id -un):\" /etc/passwd /etc/group",
        )
    };
    let known = "/etc/passwd:1\n/etc/group:1\n";
    assert_eq!(home(&["-w", "/srv"]), format!("/srv\n{known}"));
    let own = who.identity().home.display();
    let folder = who.folder();
    let volume = format!("{}:{own}", folder.path().display());
    assert_eq!(
        home(&["-v", &volume, "-w", "/srv"]),
        format!("{own}\n{known}")
    );
    assert_eq!(
        home(&["-e", "HOME=/elsewhere"]),
        format!("/elsewhere\n{known}")
    );
}

#[test]
fn keep_id_leaves_a_folder_of_the_hosts_as_it_is() {
    let who = Who::User;
    need!(
        who.has_user_namespaces(),
        "an ordinary user may not make user namespaces"
    );
    let folder = rootfs::busybox(who);
    need!(folder.is_some(), "the host has no static busybox");
    let folder = folder.unwrap();
    let etc = folder.path().join("etc");
    fs::create_dir(&etc).unwrap();
    who.own(&etc);
    let passwd = etc.join("passwd");
    fs::write(&passwd, "root:x:0:0::/root:/bin/sh").unwrap();
    who.own(&passwd);
    let root = format!("--rootfs={}", folder.path().display());
    let uid = who.identity().uid;
    let printed = who.sh(&["--userns=keep-id", &root], "id -u; cat /etc/passwd");
    assert!(
        printed.starts_with(&format!(
            "{uid}\nroot:x:0:0::/root:/bin/sh\n{}:*:{uid}:",
            who.identity().name
        )),
        "{printed}"
    );
    assert_eq!(
        fs::read_to_string(&passwd).unwrap(),
        "root:x:0:0::/root:/bin/sh"
    );
    // Where the name is known nothing is added.
    let own = format!("{}:x:1:1::/else:/bin/sh\n", who.identity().name);
    fs::write(&passwd, &own).unwrap();
    assert_eq!(who.sh(&["--userns=keep-id", &root], "cat /etc/passwd"), own);
    // Nothing is waited for where no file is.
    fs::remove_file(&passwd).unwrap();
    tool("mkfifo", &[passwd.to_str().unwrap()]);
    who.own(&passwd);
    let args = ["--net=none", "--userns=keep-id", &root, "--", "id", "-u"];
    let output = who.run(&args);
    assert!(output.stderr.contains("/etc/passwd: "), "{output}");
}

#[test]
fn nomap_has_none_of_the_users_ids() {
    let who = Who::User;
    need!(
        who.has_user_namespaces(),
        "an ordinary user may not make user namespaces"
    );
    need_subordinate_ids!(who);
    let user = who.identity();
    let [uids, gids] = maps(&who.sh(&["--userns=nomap"], MAPS));
    for (lines, own) in [(uids, user.uid), (gids, user.gid)] {
        assert!(
            lines
                .iter()
                .all(|(_, host, size)| !(*host..host + size).contains(&own)),
            "{lines:?}"
        );
    }
    assert_eq!(
        who.sh(&["--userns=nomap"], "id -u; touch /file; stat -c %u /file"),
        "0\n0\n"
    );
    // What is the user's is nobody's there.
    let folder = who.folder();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(folder.path().join("secret"), "secret").unwrap();
    who.own(&folder.path().join("secret"));
    fs::set_permissions(
        folder.path().join("secret"),
        fs::Permissions::from_mode(0o600),
    )
    .unwrap();
    let volume = format!("{}:/data", folder.path().display());
    let printed = who.sh(
        &["--userns=nomap", "-v", &volume],
        "stat -c %u /data/secret; cat /data/secret 2>/dev/null; touch /data/new 2>/dev/null; ls /data",
    );
    assert_eq!(printed, "65534\nsecret\n");
}

/// A container that runs until its standard input ends, and its maps.
fn start(who: Who, host: &Host, mode: &str) -> (Running, Maps) {
    let script = format!("{MAPS}; echo ready; cat");
    let args = ["--net=none", "-i", mode, "--", "sh", "-c", &script];
    let running = who.crun(&args).stdin_open().on(host).spawn();
    running.expect("ready\n");
    let printed = running.stdout.text();
    let maps = maps(printed.strip_suffix("ready\n").unwrap());
    (running, maps)
}

fn ids(maps: &Maps) -> HashSet<(usize, u32)> {
    let one = |(kind, lines): (usize, &Map)| {
        let lines = lines.clone();
        lines
            .into_iter()
            .flat_map(move |(_, host, size)| (host..host + size).map(move |id| (kind, id)))
    };
    maps.iter().enumerate().flat_map(one).collect()
}

both! {
    fn containers_of_auto_share_no_id(who) {
        need_subordinate_ids!(who);
        need!(Who::tests_run_as_root(), "subordinate ids of the test's own need root");
        let host = host_with_containers_user();
        let mut running = Vec::new();
        let mut seen: HashSet<(usize, u32)> = HashSet::new();
        for (mode, size) in [("auto", 1024), ("auto:size=600", 600), ("auto:size=1", 1), ("auto:size=1500", 1500)] {
            let (container, maps) = start(who, &host, &format!("--userns={mode}"));
            let own = ids(&maps);
            assert_eq!(own.len(), 2 * size, "{mode}: {maps:?}");
            assert!(seen.is_disjoint(&own), "{mode}: {maps:?}");
            let (first, end) = match who {
                Who::Root => (2_000_000, 2_004_096),
                Who::User => (100_000, 165_536),
            };
            assert!(own.iter().all(|(_, id)| (first..end).contains(id)), "{mode}: {maps:?}");
            seen.extend(own);
            running.push((container, maps));
        }
        // What a killed one had is free again at once.
        let (killed, old) = running.remove(0);
        killed.signal(rustix::process::Signal::KILL);
        killed.finish();
        let (_again, maps) = start(who, &host, "--userns=auto:size=1000");
        assert!(ids(&maps).is_subset(&ids(&old)), "{maps:?} {old:?}");
        if who == Who::Root {
            let args = ["--net=none", "--userns=auto:size=4000", "--", "true"];
            who.crun(&args).on(&host).run().refused(&["--userns=auto", "4000"]);
        }
    }

    fn auto_grows_with_the_user(who) {
        need_subordinate_ids!(who);
        need!(Who::tests_run_as_root(), "subordinate ids of the test's own need root");
        let host = host_with_containers_user();
        let args = ["--net=none", "--userns=auto", "--user=2000", "--", "sh", "-c", "id -u; cat /proc/self/uid_map"];
        let printed = who.crun(&args).on(&host).run().success();
        let (uid, lines) = printed.split_once('\n').unwrap();
        assert_eq!(uid, "2000");
        assert!(matches!(map(lines).as_slice(), [(0, host, 2001)] if *host >= 100_000), "{printed}");
        let args = ["--net=none", "--userns=auto:size=10", "--user=10", "--", "true"];
        who.crun(&args).on(&host).run().refused(&["user id 10 is not mapped"]);
    }

    fn modes_that_cannot_be_are_refused(who) {
        for (options, words) in [
            (&["--userns=keep-id:size=1"][..], &["keep-id"][..]),
            (&["--userns=auto:size=0"], &["auto", "size"]),
            (&["--userns=container:x"], &["unknown mode"]),
            (&["--userns=auto", "--uidmap=0:0:1"], &["--userns=private"]),
            (&["--group-add=keep-groups", "--group-add=1"], &["keep-groups stands alone"]),
            (&["--group-add=no-such-group"], &["no-such-group"]),
            (&["--group-add=4294967295"], &["--group-add"]),
        ] {
            let mut args = vec!["--net=none"];
            args.extend(options);
            args.extend(["--", "true"]);
            who.run(&args).refused(words);
        }
        let refused = if who == Who::Root {
            ["keep-id", "nomap"].as_slice()
        } else {
            &["host"]
        };
        for mode in refused {
            who.run(&[&format!("--userns={mode}"), "--", "true"]).refused(&[mode]);
        }
    }

    fn groups_are_added(who) {
        need_subordinate_ids!(who);
        assert_eq!(who.sh(&["--group-add=audio", "--group-add=44,1234"], "id -G"), "0 29 44 1234\n");
        assert_eq!(who.sh(&["--user=5:6", "--group-add=7"], "id -G"), "6 7\n");
        let plan = who.run(&["--dry-run", "--group-add=audio", "true"]).success();
        assert!(plan.contains(" with groups audio in /"), "{plan}");
    }
}

#[test]
fn root_has_no_ids_of_nobody_to_give_away() {
    need!(Who::tests_run_as_root(), "only root has this case");
    let known = fs::read_to_string("/etc/subuid").unwrap_or_default();
    need!(
        !known.contains("containers:"),
        "root has ids to give away here"
    );
    Who::Root
        .run(&["--net=none", "--userns=auto", "--", "true"])
        .refused(&["containers", "/etc/subuid"]);
}

#[test]
fn the_callers_groups_can_be_kept() {
    need!(
        Who::tests_run_as_root(),
        "groups of the test's own need root"
    );
    let folder = Who::Root.folder();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "for group 4321\n").unwrap();
    std::os::unix::fs::chown(&file, Some(0), Some(4321)).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    let volume = format!("{}:/data", folder.path().display());
    let user = Who::User.identity();
    let host = Host::new();
    let groups = folder.path().join("group");
    let own = fs::read_to_string("/etc/group").unwrap();
    fs::write(&groups, format!("{own}extra:x:4321:{}\n", user.name)).unwrap();
    fs::set_permissions(&groups, fs::Permissions::from_mode(0o644)).unwrap();
    host.tool(&["mount", "--bind", groups.to_str().unwrap(), "/etc/group"]);
    let script = "cat /data/file 2>/dev/null || echo refused; id -G";
    for (options, wanted) in [
        (
            &["--group-add=keep-groups"][..],
            "for group 4321\n0 65534\n",
        ),
        (
            &["--group-add=keep-groups", "--userns=keep-id"],
            "for group 4321\nGID 65534\n",
        ),
        (&[][..], "refused\n0\n"),
    ] {
        let wanted = wanted.replace("GID", &user.gid.to_string());
        let mut args = vec!["--net=none", "-v", &volume];
        args.extend(options);
        args.extend(["--", "sh", "-c", script]);
        let output = Who::User.crun(&args).on(&host).run();
        assert_eq!(output.success(), wanted, "{options:?}");
    }
}
