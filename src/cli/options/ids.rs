//! `--user`, `--group-add`, `--userns`, `--uidmap` and `--gidmap`.
//!
//! Ids are exact or refused: a number that does not fit must never wrap to
//! somebody else, least of all to 0.

use super::{Host, shown, usage};
use crate::config::{Groups, IdMapEntry, NameOrId, UserNamespace, UserSpec};
use crate::error::Error;

/// The highest id; the next, `(uid_t)-1`, means "leave it" to setresuid(2).
const ID_MOST: u32 = u32::MAX - 1;
/// The most lines of a map (user_namespaces(7)).
const MAP_LINES_MOST: usize = 340;
/// `LOGIN_NAME_MAX` without its NUL (linux/limits.h).
const NAME_MOST: usize = 255;

/// `--user USER[:GROUP]`.
pub(super) fn user(text: &str) -> Result<UserSpec, Error> {
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let part = |part: &str, what: &str| {
        name_or_id(part).map_err(|why| usage(format!("--user {}: {what} {why}", shown(text))))
    };
    Ok(UserSpec {
        user: Some(part(user, "the user")?),
        group: group.map(|group| part(group, "the group")).transpose()?,
    })
}

fn name_or_id(text: &str) -> Result<NameOrId, String> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return id(text).map(NameOrId::Id);
    }
    let name = text.strip_suffix('$').unwrap_or(text);
    let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
        && text.len() <= NAME_MOST;
    if is_name {
        return Ok(NameOrId::Name(text.to_owned()));
    }
    Err(match text {
        "" => "is empty".to_owned(),
        _ => "is neither a number nor a name".to_owned(),
    })
}

fn id(text: &str) -> Result<u32, String> {
    number(text, 0, ID_MOST)
}

/// Digits and nothing else: `u32::from_str` takes a sign too.
fn number(text: &str, least: u32, most: u32) -> Result<u32, String> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(number) if digits && (least..=most).contains(&number) => Ok(number),
        _ => Err(format!("is not a number from {least} to {most}")),
    }
}

/// `--userns MODE[:KEY=VALUE,...]`.
pub(super) fn user_namespace(mode: Option<&str>, host: &Host) -> Result<UserNamespace, Error> {
    let Some(text) = mode else {
        return Ok(UserNamespace::Private);
    };
    let refused = |why: String| usage(format!("--userns {}: {why}", shown(text)));
    let (mode, options) = match text.split_once(':') {
        Some((mode, options)) => (mode, options.split(',').collect()),
        None => (text, Vec::new()),
    };
    let (uid, gid, size) = match mode {
        "keep-id" => (true, true, false),
        "auto" => (false, false, true),
        "private" | "host" | "nomap" => (false, false, false),
        _ => {
            return Err(refused(
                "unknown mode (known: private, host, keep-id[:uid=UID,gid=GID], auto[:size=N], \
                 nomap)"
                    .to_owned(),
            ));
        }
    };
    let mut values = [("uid", uid, None), ("gid", gid, None), ("size", size, None)];
    for option in options {
        let (key, value) = option.split_once('=').unwrap_or((option, ""));
        let place = values
            .iter_mut()
            .find(|(name, is_known, _)| *is_known && *name == key)
            .ok_or_else(|| refused(format!("{mode} has no option {}", shown(key))))?;
        let least = u32::from(key == "size");
        let value = number(value, least, ID_MOST).map_err(|why| refused(format!("{key} {why}")))?;
        if place.2.replace(value).is_some() {
            return Err(refused(format!("{key} is given twice")));
        }
    }
    let [(.., uid), (.., gid), (.., size)] = values;
    match mode {
        "private" => Ok(UserNamespace::Private),
        "host" if host.is_root() => Ok(UserNamespace::Host),
        "host" => Err(usage(
            "--userns=host is only for root: an ordinary user cannot make a container without \
             a user namespace",
        )),
        "keep-id" | "nomap" if host.is_root() => Err(refused(
            "it is for an ordinary user, whose own ids are neither the host's root nor mapped \
             to it"
                .to_owned(),
        )),
        "keep-id" => Ok(UserNamespace::KeepId { uid, gid }),
        "auto" => Ok(UserNamespace::Auto { size }),
        _ => Ok(UserNamespace::NoMap),
    }
}

/// Our own user and group as the container has them, with `--userns=keep-id`.
pub(super) fn kept(userns: UserNamespace, host: &Host) -> Option<(u32, u32)> {
    match userns {
        UserNamespace::KeepId { uid, gid } => {
            Some((uid.unwrap_or(host.euid), gid.unwrap_or(host.egid)))
        }
        _ => None,
    }
}

/// `--group-add GROUP|keep-groups`.
pub(super) fn groups(words: &[String]) -> Result<Groups, Error> {
    const KEEP: &str = "keep-groups";
    let mut added = Vec::new();
    for word in words {
        if word == KEEP {
            if words.iter().any(|other| other != KEEP) {
                return Err(usage(
                    "--group-add keep-groups stands alone: the caller's groups are kept only \
                     where none is set",
                ));
            }
            return Ok(Groups::Kept);
        }
        let group = name_or_id(word)
            .map_err(|why| usage(format!("--group-add {}: the group {why}", shown(word))))?;
        added.push(group);
    }
    Ok(Groups::Added(added))
}

/// `--uidmap` and `--gidmap`; where only one is given, it serves for both.
pub(super) fn maps(
    uid: &[String],
    gid: &[String],
    userns: UserNamespace,
) -> Result<(Vec<IdMapEntry>, Vec<IdMapEntry>), Error> {
    let given = !uid.is_empty() || !gid.is_empty();
    let refused = match userns {
        UserNamespace::Private => None,
        UserNamespace::Host => Some("need a user namespace: not with --userns=host"),
        _ => Some("are a map of their own: only with --userns=private"),
    };
    if let Some(why) = refused.filter(|_| given) {
        return Err(usage(format!("--uidmap and --gidmap {why}")));
    }
    let uid_map = map("--uidmap", uid)?;
    let gid_map = map("--gidmap", gid)?;
    Ok(match (uid.is_empty(), gid.is_empty()) {
        (false, true) => (uid_map.clone(), uid_map),
        (true, false) => (gid_map.clone(), gid_map),
        _ => (uid_map, gid_map),
    })
}

fn map(option: &str, lines: &[String]) -> Result<Vec<IdMapEntry>, Error> {
    if lines.len() > MAP_LINES_MOST {
        return Err(usage(format!(
            "{option}: {} ranges; {MAP_LINES_MOST} are the most",
            lines.len()
        )));
    }
    let map: Vec<IdMapEntry> = lines
        .iter()
        .map(|line| entry(line).map_err(|why| usage(format!("{option} {}: {why}", shown(line)))))
        .collect::<Result<_, _>>()?;
    check_overlap(option, &map, "container", |entry| entry.container)?;
    check_overlap(option, &map, "host", |entry| entry.host)?;
    if !map.is_empty() && find(&map, 0).is_none() {
        return Err(usage(format!(
            "{option}: id 0 of the container is not mapped: its root filesystem is set up as 0"
        )));
    }
    Ok(map)
}

/// `CONTAINER:HOST:SIZE`; podman's `@HOST` says what ours always means, an id
/// of the host itself.
fn entry(line: &str) -> Result<IdMapEntry, String> {
    let mut words = line.split(':');
    let (Some(container), Some(host), Some(size), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err("CONTAINER:HOST:SIZE is needed".to_owned());
    };
    let host = host.strip_prefix('@').unwrap_or(host);
    let entry = IdMapEntry {
        container: id(container).map_err(|why| format!("CONTAINER {why}"))?,
        host: id(host).map_err(|why| format!("HOST {why}"))?,
        size: number(size, 1, u32::MAX).map_err(|why| format!("SIZE {why}"))?,
    };
    for first in [entry.container, entry.host] {
        if entry.size - 1 > ID_MOST - first {
            return Err(format!("the range goes beyond {ID_MOST}"));
        }
    }
    Ok(entry)
}

/// The kernel refuses maps that are not one-to-one, but does not say why.
fn check_overlap(
    option: &str,
    map: &[IdMapEntry],
    side: &str,
    first: impl Fn(&IdMapEntry) -> u32,
) -> Result<(), Error> {
    let mut ranges: Vec<_> = map
        .iter()
        .map(|entry| {
            (
                u64::from(first(entry)),
                u64::from(first(entry)) + u64::from(entry.size),
            )
        })
        .collect();
    ranges.sort_unstable();
    match ranges.windows(2).find(|pair| pair[1].0 < pair[0].1) {
        Some(pair) => Err(usage(format!(
            "{option}: {side} id {} is mapped twice",
            pair[1].0
        ))),
        None => Ok(()),
    }
}

/// Numbers that are given have to be in the maps, when these are known already.
pub(super) fn check_mapped(
    user: &UserSpec,
    groups: &Groups,
    uid_map: &[IdMapEntry],
    gid_map: &[IdMapEntry],
) -> Result<(), Error> {
    let added = match groups {
        Groups::Added(groups) => groups.as_slice(),
        Groups::Kept => &[],
    };
    let given = [("--user: user", user.user.as_ref(), uid_map)]
        .into_iter()
        .chain([("--user: group", user.group.as_ref(), gid_map)])
        .chain(
            added
                .iter()
                .map(|group| ("--group-add: group", Some(group), gid_map)),
        );
    for (what, id, map) in given {
        if let Some(NameOrId::Id(id)) = id
            && !map.is_empty()
            && find(map, *id).is_none()
        {
            return Err(usage(format!(
                "{what} id {id} is not mapped into the container"
            )));
        }
    }
    Ok(())
}

fn find(map: &[IdMapEntry], id: u32) -> Option<&IdMapEntry> {
    map.iter()
        .find(|entry| id >= entry.container && id - entry.container < entry.size)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn spec(user: NameOrId, group: Option<NameOrId>) -> UserSpec {
        UserSpec {
            user: Some(user),
            group,
        }
    }

    #[test]
    fn users_are_exact() {
        let name = |text: &str| NameOrId::Name(text.to_owned());
        for (text, wanted) in [
            ("0", spec(NameOrId::Id(0), None)),
            ("1", spec(NameOrId::Id(1), None)),
            ("1:0", spec(NameOrId::Id(1), Some(NameOrId::Id(0)))),
            ("007", spec(NameOrId::Id(7), None)),
            ("4294967294", spec(NameOrId::Id(4_294_967_294), None)),
            ("www-data:adm", spec(name("www-data"), Some(name("adm")))),
            ("_apt:65534", spec(name("_apt"), Some(NameOrId::Id(65534)))),
            ("host$", spec(name("host$"), None)),
        ] {
            assert_eq!(user(text).unwrap(), wanted, "{text}");
        }
    }

    // containerd's CVE-2026-46680 and crun's CVE-2026-30892: such words became root.
    #[test]
    fn what_is_not_exact_is_refused() {
        for text in [
            "",
            ":",
            "1:",
            ":1",
            "1:2:3",
            "4294967295",
            "4294967296",
            "-1",
            "+1",
            "0x0",
            " 0",
            "0 ",
            "1 ",
            "1.0",
            "1e3",
            "٣",
            "-u",
            "a b",
            "a/b",
            "root\n",
            "99999999999999999999",
            "1a",
            &"x".repeat(64 * 1024),
            &"1".repeat(64 * 1024),
        ] {
            assert!(user(text).is_err(), "{}", shown(text));
        }
    }

    fn lines(lines: &[&str]) -> Vec<String> {
        lines.iter().map(|line| (*line).to_owned()).collect()
    }

    #[test]
    fn maps_are_one_to_one_and_serve_for_both() {
        let (uid, gid) = maps(
            &lines(&["0:1000:1", "1:@100000:65536"]),
            &[],
            UserNamespace::Private,
        )
        .unwrap();
        assert_eq!(uid, gid);
        assert_eq!(
            uid[1],
            IdMapEntry {
                container: 1,
                host: 100_000,
                size: 65536
            }
        );
        let (uid, gid) = maps(
            &lines(&["0:5:1"]),
            &lines(&["0:6:1"]),
            UserNamespace::Private,
        )
        .unwrap();
        assert_eq!((uid[0].host, gid[0].host, uid[0].size), (5, 6, 1));
        assert_eq!(
            maps(&[], &[], UserNamespace::Host).unwrap(),
            (vec![], vec![])
        );
        assert!(maps(&lines(&["0:0:4294967295"]), &[], UserNamespace::Private).is_ok());
        for bad in [
            &["0"][..],
            &["0:1"],
            &["0:1:2:3"],
            &["0:1:0"],
            &["a:1:1"],
            &["0:-1:1"],
            &["0:1:"],
            &[""],
            &["0:1:4294967295"],
            &["0:4294967295:1"],
            &["0:0:4294967296"],
            &["1:1:1"],
            &["0:0:10", "9:100:1"],
            &["0:0:10", "10:9:1"],
            &["+0:1:1"],
        ] {
            assert!(
                maps(&lines(bad), &[], UserNamespace::Private).is_err(),
                "{bad:?}"
            );
        }
        assert!(maps(&lines(&["0:1:1"]), &[], UserNamespace::Host).is_err());
        assert!(maps(&vec!["0:1:1".to_owned(); 341], &[], UserNamespace::Private).is_err());
    }

    #[test]
    fn a_user_has_to_be_mapped() {
        let map = map("--uidmap", &lines(&["0:1000:1", "10:2000:5"])).unwrap();
        for (id, mapped) in [
            (0, true),
            (1, false),
            (9, false),
            (10, true),
            (14, true),
            (15, false),
        ] {
            let user = spec(NameOrId::Id(id), None);
            assert_eq!(
                check_mapped(&user, &Groups::default(), &map, &map).is_ok(),
                mapped,
                "{id}"
            );
            assert!(check_mapped(&user, &Groups::default(), &[], &[]).is_ok());
        }
    }

    fn host(euid: u32) -> Host {
        Host {
            euid,
            egid: 100,
            env: Vec::new(),
            hostname: String::new(),
            cpus: || 2,
            read: |_| Vec::new(),
        }
    }

    #[test]
    fn modes_of_the_user_namespace() {
        let ann = host(1000);
        let mode = |text: &str| user_namespace(Some(text), &ann);
        let keep = |uid, gid| UserNamespace::KeepId { uid, gid };
        for (text, wanted) in [
            ("private", UserNamespace::Private),
            ("keep-id", keep(None, None)),
            ("keep-id:uid=7", keep(Some(7), None)),
            ("keep-id:gid=0,uid=7", keep(Some(7), Some(0))),
            ("auto", UserNamespace::Auto { size: None }),
            ("auto:size=5000", UserNamespace::Auto { size: Some(5000) }),
            ("nomap", UserNamespace::NoMap),
        ] {
            assert_eq!(mode(text).unwrap(), wanted, "{text}");
        }
        for bad in [
            "",
            ":",
            "keep-id:",
            "keep-id:uid",
            "keep-id:uid=",
            "keep-id:uid=-1",
            "keep-id:size=1",
            "keep-id:uid=1,uid=1",
            "keep-id:uid=4294967295",
            "auto:size=0",
            "auto:uid=1",
            "nomap:size=1",
            "private:uid=1",
            "host",
            "container:x",
            "ns:/proc/1/ns/user",
            "KEEP-ID",
        ] {
            assert!(mode(bad).is_err(), "{bad}");
        }
        let root = host(0);
        assert_eq!(
            user_namespace(Some("host"), &root).unwrap(),
            UserNamespace::Host
        );
        for bad in ["keep-id", "nomap", "host:uid=0"] {
            assert!(user_namespace(Some(bad), &root).is_err(), "{bad}");
        }
        assert_eq!(kept(keep(None, Some(5)), &ann), Some((1000, 5)));
        assert_eq!(kept(UserNamespace::NoMap, &ann), None);
        assert!(maps(&lines(&["0:1:1"]), &[], UserNamespace::NoMap).is_err());
    }

    #[test]
    fn groups_are_exact_and_kept_alone() {
        let parse = |words: &[&str]| groups(&lines(words));
        assert_eq!(
            parse(&["audio", "44"]).unwrap(),
            Groups::Added(vec![NameOrId::Name("audio".to_owned()), NameOrId::Id(44)])
        );
        assert_eq!(parse(&[]).unwrap(), Groups::default());
        assert_eq!(parse(&["keep-groups"]).unwrap(), Groups::Kept);
        assert_eq!(
            parse(&["keep-groups", "keep-groups"]).unwrap(),
            Groups::Kept
        );
        for bad in [
            &["keep-groups", "1"][..],
            &["1", "keep-groups"],
            &[""],
            &["-1"],
            &["4294967295"],
            &["a b"],
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
        let added = |id| Groups::Added(vec![NameOrId::Id(id)]);
        let map = map("--gidmap", &lines(&["0:1000:2"])).unwrap();
        let user = UserSpec::default();
        assert!(check_mapped(&user, &added(1), &map, &map).is_ok());
        assert!(check_mapped(&user, &added(2), &map, &map).is_err());
        assert!(check_mapped(&user, &Groups::Kept, &map, &map).is_ok());
    }

    proptest! {
        #[test]
        fn any_text_is_exact_or_refused(text in "[-+0-9a-z:$@ ]{0,24}") {
            if let Ok(UserSpec { user: Some(NameOrId::Id(id)), .. }) = user(&text) {
                let digits = text.split(':').next().unwrap().trim_start_matches('0');
                let back = if id == 0 { String::new() } else { id.to_string() };
                prop_assert_eq!(back, digits);
            }
            if let Ok(map) = entry(&text) {
                prop_assert!(u64::from(map.container) + u64::from(map.size) <= u64::from(u32::MAX));
                prop_assert!(u64::from(map.host) + u64::from(map.size) <= u64::from(u32::MAX));
            }
        }

        #[test]
        fn entries_round_trip(container in 0..=ID_MOST, host in 0..=ID_MOST, size in 1..1000_u32) {
            let fits = |first: u32| first.checked_add(size).is_some();
            let parsed = entry(&format!("{container}:{host}:{size}"));
            prop_assert_eq!(parsed.is_ok(), fits(container) && fits(host));
            if let Ok(parsed) = parsed {
                prop_assert_eq!(parsed, IdMapEntry { container, host, size });
            }
        }
    }
}
