//! Whom the command runs as: `--user` looked up in the container's own
//! `/etc/passwd` and `/etc/group` (passwd(5), group(5)).
//!
//! # Theory of operation
//! The files belong to the container and may say anything; a lookup is exact or
//! it is refused. A field that is no number, or the number 2^32-1 (which
//! setresuid(2) takes as "leave as it is"), never turns into 0: such a line does
//! not exist as far as this module is concerned (CVE-2026-30892, CVE-2026-46680).
//! Supplementary groups come from the container's `/etc/group` alone, and only
//! where no group was given, as in Docker and podman; `--group-add` adds to them.

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStringExt;

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::config::{Groups, NameOrId, UserSpec};
use crate::error::StepFailure;

/// Longest `/etc/passwd` or `/etc/group` that is read, bytes.
const MAX_FILE: u64 = 16 << 20;
/// Most supplementary groups of a process (`NGROUPS_MAX`).
const MAX_GROUPS: usize = 65536;
/// Not an id: "leave as it is" to setresuid(2).
const NO_ID: u32 = u32::MAX;

/// The ids that the command gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    /// User id.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Home directory; `/` where the container does not say.
    pub home: OsString,
}

/// Looks `spec` up in the files beneath `root`.
///
/// # Errors
/// A name that is not there, an id that is none, or a file that cannot be read.
pub(super) fn resolve_beneath(
    root: BorrowedFd<'_>,
    spec: &UserSpec,
    groups: &Groups,
) -> Result<Identity, StepFailure> {
    let (passwd, group) = (read(root, "etc/passwd")?, read(root, "etc/group")?);
    let mut identity = resolve(spec, &passwd, &group)?;
    match groups {
        Groups::Added(added) => {
            for wanted in added {
                identity.groups.push(match wanted {
                    NameOrId::Id(gid) => *gid,
                    NameOrId::Name(name) => look_up(name, &group)?,
                });
            }
            identity.groups.sort_unstable();
            identity.groups.dedup();
        }
        Groups::Kept => identity.groups.clear(),
    }
    Ok(identity)
}

/// The number of the group `name`.
fn look_up(name: &str, group: &[u8]) -> Result<u32, StepFailure> {
    groups(group)
        .find(|group| group.name == name.as_bytes())
        .map(|group| group.gid)
        .ok_or_else(|| not_found("look up the group in /etc/group", name))
}

/// Reads a small regular file of the container; one that is missing or
/// masked (`/dev/null`) is empty.
fn read(root: BorrowedFd<'_>, path: &str) -> Result<Vec<u8>, StepFailure> {
    let fail = |error: io::Error| StepFailure::new("read", format!("/{path}"), &error);
    // Not to hang on a FIFO and not to adopt a terminal that lies in its place.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let file = match rustix::fs::openat2(root, path, flags, Mode::empty(), resolve) {
        Ok(file) => file,
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(Vec::new()),
        Err(error) => return Err(fail(error.into())),
    };
    let stat = rustix::fs::fstat(&file).map_err(|error| fail(error.into()))?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => {}
        // Masked: the device that covers it is never read.
        FileType::CharacterDevice => return Ok(Vec::new()),
        _ => return Err(fail(io::Error::from_raw_os_error(libc::EINVAL))),
    }
    let mut content = Vec::new();
    std::fs::File::from(file)
        .take(MAX_FILE + 1)
        .read_to_end(&mut content)
        .map_err(fail)?;
    if content.len() as u64 > MAX_FILE {
        return Err(fail(io::Error::from_raw_os_error(libc::EFBIG)));
    }
    Ok(content)
}

/// A line of passwd(5).
struct User<'a> {
    name: &'a [u8],
    uid: u32,
    gid: u32,
    home: &'a [u8],
}

/// A line of group(5).
struct Group<'a> {
    name: &'a [u8],
    gid: u32,
    members: &'a [u8],
}

/// Looks `spec` up in the text of the two files.
fn resolve(spec: &UserSpec, passwd: &[u8], group: &[u8]) -> Result<Identity, StepFailure> {
    let root = NameOrId::Id(0);
    let wanted = spec.user.as_ref().unwrap_or(&root);
    let (uid, user) = match wanted {
        NameOrId::Id(uid) => (*uid, users(passwd).find(|user| user.uid == *uid)),
        NameOrId::Name(name) => {
            let user = users(passwd).find(|user| user.name == name.as_bytes());
            let user = user.ok_or_else(|| not_found("look up the user in /etc/passwd", name))?;
            (user.uid, Some(user))
        }
    };
    let gid = match &spec.group {
        Some(NameOrId::Id(gid)) => *gid,
        Some(NameOrId::Name(name)) => look_up(name, group)?,
        None => user.as_ref().map_or(0, |user| user.gid),
    };
    for (step, id) in [("set the user id", uid), ("set the group id", gid)] {
        if id == NO_ID {
            return Err(StepFailure::new(
                step,
                id.to_string(),
                &io::Error::from_raw_os_error(libc::EINVAL),
            ));
        }
    }
    let mut supplementary = Vec::new();
    if let (Some(user), None) = (&user, &spec.group) {
        let of_user = groups(group).filter(|group| {
            group
                .members
                .split(|byte| *byte == b',')
                .any(|m| m == user.name)
        });
        supplementary.extend(of_user.map(|group| group.gid).take(MAX_GROUPS));
        supplementary.sort_unstable();
        supplementary.dedup();
    }
    let home = user
        .map(|user| user.home)
        .filter(|home| home.starts_with(b"/"))
        .unwrap_or(b"/");
    Ok(Identity {
        uid,
        gid,
        groups: supplementary,
        home: OsString::from_vec(home.to_vec()),
    })
}

fn not_found(step: &str, name: &str) -> StepFailure {
    StepFailure::new(
        step,
        format!("{name:?}"),
        &io::Error::from_raw_os_error(libc::ENOENT),
    )
}

fn users(passwd: &[u8]) -> impl Iterator<Item = User<'_>> {
    passwd.split(|byte| *byte == b'\n').filter_map(|line| {
        let mut fields = line.split(|byte| *byte == b':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let uid = id(fields.nth(1)?)?;
        let gid = id(fields.next()?)?;
        let home = fields.nth(1).unwrap_or_default();
        Some(User {
            name,
            uid,
            gid,
            home,
        })
    })
}

fn groups(group: &[u8]) -> impl Iterator<Item = Group<'_>> {
    group.split(|byte| *byte == b'\n').filter_map(|line| {
        let mut fields = line.split(|byte| *byte == b':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let gid = id(fields.nth(1)?)?;
        Some(Group {
            name,
            gid,
            members: fields.next().unwrap_or_default(),
        })
    })
}

/// A decimal id, digits only.
fn id(text: &[u8]) -> Option<u32> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text)
        .ok()?
        .parse()
        .ok()
        .filter(|id| *id != NO_ID)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh\n\
        bad:x::0::/:\nworse:x:0x0:0::/:\nworst:x: 0:0::/:\nhuge:x:4294967295:0::/:\nover:x:4294967296:0::/:\nneg:x:-1:0::/:\n\
        :x:0:0::/:\nshort:x:7\n1000:x:42:42::/digits:\nann:x:1000:100:Ann:/home/ann:/bin/sh\nrel:x:1001:1:::\nann:x:0:0::/:\n";
    const GROUP: &[u8] = b"root:x:0:\nusers:x:100:\nwheel:x:10:ann,root\naudio:x:29:ann\nfake:x:x:ann\nall:x:5:annie,xann,\ndup:x:10:ann\n";

    fn spec(user: Option<NameOrId>, group: Option<NameOrId>) -> UserSpec {
        UserSpec { user, group }
    }

    fn name(text: &str) -> Option<NameOrId> {
        Some(NameOrId::Name(text.into()))
    }

    #[test]
    fn nobody_given_is_root_with_its_groups() {
        let root = resolve(&UserSpec::default(), PASSWD, GROUP).unwrap();
        assert_eq!(
            root,
            Identity {
                uid: 0,
                gid: 0,
                groups: vec![10],
                home: "/root".into()
            }
        );
        let bare = resolve(&UserSpec::default(), b"", b"").unwrap();
        assert_eq!(
            bare,
            Identity {
                uid: 0,
                gid: 0,
                groups: vec![],
                home: "/".into()
            }
        );
    }

    #[test]
    fn names_and_numbers_find_the_same_line() {
        let ann = Identity {
            uid: 1000,
            gid: 100,
            groups: vec![10, 29],
            home: "/home/ann".into(),
        };
        assert_eq!(
            resolve(&spec(name("ann"), None), PASSWD, GROUP).unwrap(),
            ann
        );
        assert_eq!(
            resolve(&spec(Some(NameOrId::Id(1000)), None), PASSWD, GROUP).unwrap(),
            ann
        );
    }

    #[test]
    fn a_group_given_is_the_only_group() {
        let ann = resolve(&spec(name("ann"), name("wheel")), PASSWD, GROUP).unwrap();
        assert_eq!((ann.uid, ann.gid, ann.groups), (1000, 10, vec![]));
        let ann = resolve(&spec(name("ann"), Some(NameOrId::Id(0))), PASSWD, GROUP).unwrap();
        assert_eq!((ann.uid, ann.gid), (1000, 0));
    }

    #[test]
    fn an_unknown_number_is_itself_with_group_0() {
        let user = resolve(&spec(Some(NameOrId::Id(4242)), None), PASSWD, GROUP).unwrap();
        assert_eq!(
            user,
            Identity {
                uid: 4242,
                gid: 0,
                groups: vec![],
                home: "/".into()
            }
        );
    }

    #[test]
    fn never_root_by_mistake() {
        for bad in [
            "bad", "worse", "worst", "huge", "over", "neg", "", "short", "nobody", "roo", "root ",
            " root", "-1",
        ] {
            let failure = resolve(&spec(name(bad), None), PASSWD, GROUP).unwrap_err();
            assert_eq!(failure.errno, libc::ENOENT, "{bad}");
        }
        for (user, group) in [
            (Some(NameOrId::Id(NO_ID)), None),
            (None, Some(NameOrId::Id(NO_ID))),
        ] {
            assert_eq!(
                resolve(&spec(user, group), PASSWD, GROUP)
                    .unwrap_err()
                    .errno,
                libc::EINVAL
            );
        }
        assert!(resolve(&spec(None, name("fake")), PASSWD, GROUP).is_err());
    }

    #[test]
    fn a_home_that_is_no_path_is_the_root() {
        assert_eq!(
            resolve(&spec(name("rel"), None), PASSWD, GROUP)
                .unwrap()
                .home,
            "/"
        );
    }
}
