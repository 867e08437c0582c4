//! Id maps (user_namespaces(7)): which ids a container has, and who writes them.
//!
//! # Theory of operation
//! The kernel lets a process without privilege map one id, its own; anything
//! more is written by root, or for an ordinary user by the set-uid programs
//! newuidmap(1) and newgidmap(1), which consult `/etc/subuid` and `/etc/subgid`.
//! Both maps are written once, by the parent, while the new process waits.
//!
//! `setgroups` is denied before a one-entry gid map is written without
//! privilege, as the kernel demands: dropping a group could otherwise open files
//! that deny that group (CVE-2014-8989). The container then keeps the caller's
//! supplementary groups, which show as `nobody`.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rustix::process::Pid;
use rustix::thread::CapabilitySet;

use crate::config::IdMapEntry;
use crate::error::{Error, NOT_INSTALLED};

/// How many ids root's container has by default, and an ordinary user's at most.
const DEFAULT_SIZE: u32 = 65536;

/// A uid map and a gid map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Maps {
    /// For uid_map.
    pub uid: Vec<IdMapEntry>,
    /// For gid_map.
    pub gid: Vec<IdMapEntry>,
}

/// User or group: two maps with the same rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    User,
    Group,
}

impl Kind {
    fn file(self) -> &'static str {
        match self {
            Self::User => "uid_map",
            Self::Group => "gid_map",
        }
    }

    fn tool(self) -> &'static str {
        match self {
            Self::User => "newuidmap",
            Self::Group => "newgidmap",
        }
    }

    fn write_step(self) -> &'static str {
        match self {
            Self::User => "write the container's uid_map",
            Self::Group => "write the container's gid_map",
        }
    }
}

/// The maps of a container for which none were asked.
///
/// Root: ids 0 to 65535 are themselves, as far as they exist here. An ordinary
/// user: container 0 is the user, and ids from 1 up are the user's subordinate
/// ranges where both files have some and both tools are installed.
pub fn default_maps() -> Maps {
    if may_map_anything() {
        return Maps {
            uid: identity(Kind::User),
            gid: identity(Kind::Group),
        };
    }
    let (uid, gid) = own_ids();
    let one = |host| {
        vec![IdMapEntry {
            container: 0,
            host,
            size: 1,
        }]
    };
    let (uids, gids) = usable_ranges().unwrap_or_default();
    Maps {
        uid: append(one(uid), &uids),
        gid: append(one(gid), &gids),
    }
}

/// Our own user and group.
pub(super) fn own_ids() -> (u32, u32) {
    (
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    )
}

/// Ranges of ids: the first of each, and how many.
pub(super) type Ranges = Vec<(u32, u32)>;

/// An ordinary user's subordinate user and group ids, where there are both and both
/// can be mapped.
pub(super) fn usable_ranges() -> Option<(Ranges, Ranges)> {
    let (uid, gid) = own_ids();
    // newgidmap(1) serves only those whose group is that of /etc/passwd.
    let (name, _) = account(uid).filter(|(_, primary)| *primary == gid)?;
    let ranges = |file| {
        fs::read(file)
            .map(|text| subordinate_ranges(&text, &name, uid))
            .unwrap_or_default()
    };
    let (uids, gids) = (ranges("/etc/subuid"), ranges("/etc/subgid"));
    let usable = !uids.is_empty() && !gids.is_empty() && tools_work();
    usable.then_some((uids, gids))
}

/// Whether the caller may map ids that are not its own (user_namespaces(7):
/// `CAP_SETUID` and `CAP_SETGID` in the namespace that it is in).
pub(super) fn may_map_anything() -> bool {
    let needed = CapabilitySet::SETUID | CapabilitySet::SETGID;
    rustix::process::geteuid().is_root()
        && rustix::thread::capabilities(None).is_ok_and(|sets| sets.effective.contains(needed))
}

/// Ids 0 to 65535 mapped to themselves, without those that this process's own
/// user namespace lacks.
fn identity(kind: Kind) -> Vec<IdMapEntry> {
    let whole = vec![IdMapEntry {
        container: 0,
        host: 0,
        size: DEFAULT_SIZE,
    }];
    match fs::read_to_string(format!("/proc/self/{}", kind.file())) {
        Ok(own) => clip(&parse_map(&own), DEFAULT_SIZE),
        Err(_) => whole,
    }
}

/// The ids below `limit` that `own` has, mapped to themselves; neighbours joined.
fn clip(own: &[IdMapEntry], limit: u32) -> Vec<IdMapEntry> {
    let mut ranges: Vec<(u32, u32)> = own
        .iter()
        .map(|entry| {
            (
                entry.container,
                entry.container.saturating_add(entry.size).min(limit),
            )
        })
        .filter(|(start, end)| start < end)
        .collect();
    ranges.sort_unstable();
    let mut map: Vec<IdMapEntry> = Vec::new();
    for (start, end) in ranges {
        match map.last_mut() {
            Some(last) if last.container + last.size == start => last.size += end - start,
            _ => map.push(IdMapEntry {
                container: start,
                host: start,
                size: end - start,
            }),
        }
    }
    map
}

/// Parses a map as `/proc/PID/uid_map` shows it.
fn parse_map(text: &str) -> Vec<IdMapEntry> {
    let entry = |line: &str| {
        let mut numbers = line.split_ascii_whitespace().map(str::parse);
        let mut next = || numbers.next()?.ok();
        Some(IdMapEntry {
            container: next()?,
            host: next()?,
            size: next()?,
        })
    };
    text.lines().filter_map(entry).collect()
}

/// The ranges (first id, count) that `text`, in the form of subuid(5), gives to
/// the user `name` or `uid`. Lines that make no sense give nothing.
pub(super) fn subordinate_ranges(text: &[u8], name: &[u8], uid: u32) -> Vec<(u32, u32)> {
    let range = |line: &[u8]| {
        let mut fields = line.split(|byte| *byte == b':');
        let owner = fields.next()?;
        if owner != name && number(owner) != Some(uid) {
            return None;
        }
        let (start, count) = (number(fields.next()?)?, number(fields.next()?)?);
        // The last id, 2^32-1, is "no id".
        (count > 0 && start.checked_add(count).is_some() && fields.next().is_none())
            .then_some((start, count))
    };
    text.split(|byte| *byte == b'\n')
        .filter_map(range)
        .collect()
}

fn number(text: &[u8]) -> Option<u32> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    digits
        .then(|| std::str::from_utf8(text).ok()?.parse().ok())
        .flatten()
}

/// `map` followed by `ranges`, each at the next free container id. The kernel
/// takes 340 entries at most.
pub(super) fn append(mut map: Vec<IdMapEntry>, ranges: &[(u32, u32)]) -> Vec<IdMapEntry> {
    let mut next: u32 = map
        .iter()
        .map(|entry| entry.container + entry.size)
        .max()
        .unwrap_or(0);
    for &(host, count) in ranges.iter().take(339) {
        let size = count.min(u32::MAX - next);
        if size > 0 {
            map.push(IdMapEntry {
                container: next,
                host,
                size,
            });
            next += size;
        }
    }
    map
}

/// Name and primary group of user `uid` on the host. Only `/etc/passwd` is
/// asked: a name service would need the C library's modules.
fn account(uid: u32) -> Option<(Vec<u8>, u32)> {
    let passwd = fs::read("/etc/passwd").ok()?;
    passwd.split(|byte| *byte == b'\n').find_map(|line| {
        let mut fields = line.split(|byte| *byte == b':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let (id, group) = (number(fields.nth(1)?)?, number(fields.next()?)?);
        (id == uid).then(|| (name.to_vec(), group))
    })
}

/// Whether both tools are installed and can get the privilege that they need.
fn tools_work() -> bool {
    !rustix::thread::no_new_privs().unwrap_or(true)
        && [Kind::User, Kind::Group]
            .into_iter()
            .all(|kind| matches!(tool(kind), Tool::Works(_)))
}

/// How newuidmap(1) or newgidmap(1) is installed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tool {
    /// Not in `PATH`.
    Missing,
    /// Neither set-user-ID root nor with a capability: it can do nothing.
    Unprivileged(PathBuf),
    /// On a file system that is mounted nosuid.
    Nosuid(PathBuf),
    /// It gets the privilege that it needs.
    Works(PathBuf),
}

fn tool(kind: Kind) -> Tool {
    let Some(path) = find_tool(kind) else {
        return Tool::Missing;
    };
    let set_uid = fs::metadata(&path).is_ok_and(|meta| meta.permissions().mode() & 0o4000 != 0);
    let has_capability =
        || rustix::fs::getxattr(&path, "security.capability", &mut [0; 64]).is_ok();
    let honoured = rustix::fs::statvfs(&path)
        .is_ok_and(|fs| !fs.f_flag.contains(rustix::fs::StatVfsMountFlags::NOSUID));
    if !(set_uid || has_capability()) {
        Tool::Unprivileged(path)
    } else if honoured {
        Tool::Works(path)
    } else {
        Tool::Nosuid(path)
    }
}

/// What an ordinary user's subordinate ids depend on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subordinate {
    /// The user's name, if `/etc/passwd` knows it with the group that we run with.
    pub name: Option<String>,
    /// Ranges (first id, count) of `/etc/subuid`.
    pub uids: Vec<(u32, u32)>,
    /// Those of `/etc/subgid`.
    pub gids: Vec<(u32, u32)>,
    /// newuidmap(1)
    pub uid_tool: Tool,
    /// newgidmap(1)
    pub gid_tool: Tool,
    /// The process can gain no privilege, and so can no program that it starts.
    pub no_new_privs: bool,
    /// The first id that nobody has in either file, 100000 or more.
    pub free: u32,
}

/// What the caller's subordinate ids depend on; `None` for one that may map any id.
pub fn subordinate() -> Option<Subordinate> {
    if may_map_anything() {
        return None;
    }
    let (uid, gid) = own_ids();
    let name = account(uid)
        .filter(|(_, primary)| *primary == gid)
        .map(|(name, _)| name);
    let files = ["/etc/subuid", "/etc/subgid"].map(|file| fs::read(file).unwrap_or_default());
    let [uids, gids] = files
        .each_ref()
        .map(|text| subordinate_ranges(text, name.as_deref().unwrap_or_default(), uid));
    Some(Subordinate {
        name: name.map(|name| String::from_utf8_lossy(&name).into_owned()),
        uids,
        gids,
        uid_tool: tool(Kind::User),
        gid_tool: tool(Kind::Group),
        no_new_privs: rustix::thread::no_new_privs().unwrap_or(true),
        free: files
            .iter()
            .map(|text| free(text))
            .max()
            .unwrap_or(FIRST_SUBORDINATE),
    })
}

/// What useradd(8) gives first (login.defs(5), `SUB_UID_MIN`).
const FIRST_SUBORDINATE: u32 = 100_000;

/// The first id from [`FIRST_SUBORDINATE`] on beyond all ranges of `text`.
fn free(text: &[u8]) -> u32 {
    let end = |line: &[u8]| {
        let mut fields = line.split(|byte| *byte == b':').skip(1);
        number(fields.next()?)?.checked_add(number(fields.next()?)?)
    };
    text.split(|byte| *byte == b'\n')
        .filter_map(end)
        .max()
        .map_or(FIRST_SUBORDINATE, |end| end.max(FIRST_SUBORDINATE))
}

/// Where the tool for `kind` is installed.
fn find_tool(kind: Kind) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into());
    std::env::split_paths(&path)
        .filter(|dir| dir.is_absolute())
        .map(|dir| dir.join(kind.tool()))
        .find(|file| {
            fs::metadata(file)
                .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
        })
}

/// Writes both maps of the new process `pid`, which must be a child that waits.
///
/// # Errors
/// Those of the kernel or of the tool, naming the map.
pub fn write(pid: Pid, maps: &Maps) -> Result<(), Error> {
    let privileged = may_map_anything();
    let uid = start(Kind::User, pid, &maps.uid, privileged)?;
    let gid = start(Kind::Group, pid, &maps.gid, privileged);
    // Both are waited for whatever becomes of one, so that none is left behind.
    let uid = uid.map_or(Ok(()), RunningTool::finish);
    let gid = gid?.map_or(Ok(()), RunningTool::finish);
    uid.and(gid)
}

/// Writes one map at once, or starts the tool that will.
fn start(
    kind: Kind,
    pid: Pid,
    map: &[IdMapEntry],
    privileged: bool,
) -> Result<Option<RunningTool>, Error> {
    let own = match kind {
        Kind::User => rustix::process::geteuid().as_raw(),
        Kind::Group => rustix::process::getegid().as_raw(),
    };
    let own_only = matches!(map, [entry] if entry.host == own && entry.size == 1);
    if !privileged && !own_only {
        return RunningTool::start(kind, pid, map).map(Some);
    }
    let put = |file: &str, text: &str| {
        fs::write(format!("/proc/{pid}/{file}"), text)
            .map_err(|error| Error::host(kind.write_step(), error))
    };
    if kind == Kind::Group && !privileged {
        put("setgroups", "deny")?;
    }
    put(kind.file(), &lines(map))?;
    Ok(None)
}

/// The map as the kernel wants it: one write, one line per entry.
fn lines(map: &[IdMapEntry]) -> String {
    map.iter()
        .map(|entry| format!("{} {} {}\n", entry.container, entry.host, entry.size))
        .collect()
}

/// newuidmap(1) or newgidmap(1) at work.
#[derive(Debug)]
struct RunningTool {
    kind: Kind,
    child: std::process::Child,
}

impl RunningTool {
    fn start(kind: Kind, pid: Pid, map: &[IdMapEntry]) -> Result<Self, Error> {
        let fail = |reason: String| Error::IdMapTool {
            tool: kind.tool(),
            reason,
        };
        let tool = find_tool(kind).ok_or_else(|| fail(NOT_INSTALLED.into()))?;
        let numbers = map
            .iter()
            .flat_map(|entry| [entry.container, entry.host, entry.size]);
        let child = Command::new(tool)
            .arg(pid.to_string())
            .args(numbers.map(|number| number.to_string()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| fail(error.to_string()))?;
        Ok(Self { kind, child })
    }

    fn finish(self) -> Result<(), Error> {
        let fail = |reason: String| Error::IdMapTool {
            tool: self.kind.tool(),
            reason,
        };
        let output = self
            .child
            .wait_with_output()
            .map_err(|error: io::Error| fail(error.to_string()))?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(fail(match said.trim() {
            "" => output.status.to_string(),
            text => text.replace('\n', "; "),
        }))
    }
}

/// Whether `map` leads to the host's id `id`.
pub fn covers_host(map: &[IdMapEntry], id: u32) -> bool {
    map.iter().any(|entry| {
        id.checked_sub(entry.host)
            .is_some_and(|offset| offset < entry.size)
    })
}

/// Whether `map` gives the container id `id`.
pub fn covers(map: &[IdMapEntry], id: u32) -> bool {
    map.iter().any(|entry| {
        id.checked_sub(entry.container)
            .is_some_and(|offset| offset < entry.size)
    })
}

/// Whether setgroups(2) will work behind `gid_map` once written by [`write()`].
pub fn setgroups_allowed(gid_map: &[IdMapEntry]) -> bool {
    let own = rustix::process::getegid().as_raw();
    // A namespace inherits the denial of the one that it is made in.
    let denied = fs::read("/proc/self/setgroups").is_ok_and(|text| text.starts_with(b"deny"));
    !denied
        && (may_map_anything()
            || !matches!(gid_map, [entry] if entry.host == own && entry.size == 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(container: u32, host: u32, size: u32) -> IdMapEntry {
        IdMapEntry {
            container,
            host,
            size,
        }
    }

    #[test]
    fn subordinate_ranges_are_the_users_own_and_well_formed() {
        let text = b"other:1:2\nme:100000:65536\n\nme:5\nme:x:1\nme:1:0\nme:4294967295:1\n1000:7:1\nme:1:1:1\nmee:9:9";
        assert_eq!(
            subordinate_ranges(text, b"me", 1000),
            [(100_000, 65536), (7, 1)]
        );
        assert_eq!(subordinate_ranges(b"", b"me", 1000), []);
        assert_eq!(subordinate_ranges(b"+1000:1:1\n 1000:2:2", b"me", 1000), []);
    }

    #[test]
    fn free_ids_are_beyond_everybodys() {
        assert_eq!(free(b""), 100_000);
        assert_eq!(free(b"a:100000:65536\nb:1000:5\nc:165536:65536\n"), 231_072);
        assert_eq!(free(b"a:4294967295:9\nb:x:1\n\n"), 100_000);
    }

    #[test]
    fn ranges_follow_the_first_entry_without_gaps() {
        let map = append(vec![entry(0, 1000, 1)], &[(100_000, 10), (7, u32::MAX)]);
        assert_eq!(
            map,
            [
                entry(0, 1000, 1),
                entry(1, 100_000, 10),
                entry(11, 7, u32::MAX - 11)
            ]
        );
        assert_eq!(append(Vec::new(), &vec![(1, 1); 1000]).len(), 339);
    }

    #[test]
    fn identity_is_clipped_to_the_ids_that_exist() {
        let own = parse_map("         0       1000          1\n         1     100000      65536\n");
        assert_eq!(own, [entry(0, 1000, 1), entry(1, 100_000, 65536)]);
        assert_eq!(clip(&own, DEFAULT_SIZE), [entry(0, 0, 65536)]);
        assert_eq!(clip(&[entry(0, 1000, 1)], DEFAULT_SIZE), [entry(0, 0, 1)]);
        assert_eq!(
            clip(&[entry(0, 0, u32::MAX)], DEFAULT_SIZE),
            [entry(0, 0, 65536)]
        );
        assert_eq!(
            clip(&[entry(5, 0, 2), entry(70_000, 9, 9)], DEFAULT_SIZE),
            [entry(5, 5, 2)]
        );
    }

    #[test]
    fn covers_is_exact_at_the_edges() {
        let map = [entry(0, 1000, 1), entry(10, 100_000, 5)];
        let covered: Vec<u32> = (0..20).filter(|id| covers(&map, *id)).collect();
        assert_eq!(covered, [0, 10, 11, 12, 13, 14]);
        assert!(!covers(&map, u32::MAX));
    }

    #[test]
    fn lines_are_what_the_kernel_reads() {
        assert_eq!(
            lines(&[entry(0, 1000, 1), entry(1, 2, 3)]),
            "0 1000 1\n1 2 3\n"
        );
    }
}
