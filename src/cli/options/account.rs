//! The caller's account, which `--userns=keep-id` brings into the container.

use std::path::{Path, PathBuf};

use super::Host;
use crate::config::{Account, MountSpec};

/// The entry for a user who is `uid` and `gid` in the container.
///
/// As with podman, the home directory is the user's own where that is, or is in,
/// something that is mounted, else the working directory.
pub(super) fn of_caller(
    host: &Host,
    (uid, gid): (u32, u32),
    mounts: &[MountSpec],
    workdir: Option<&Path>,
) -> Account {
    let passwd = (host.read)("/etc/passwd");
    let group = (host.read)("/etc/group");
    let user = fields(&passwd, 2, host.euid);
    let own_home = user
        .as_ref()
        .and_then(|fields| fields.get(5))
        .map(PathBuf::from)
        .filter(|home| mounts.iter().any(|mount| home.starts_with(&mount.target)));
    let home = own_home
        .or_else(|| workdir.map(Path::to_owned))
        .filter(|home| is_field(&home.to_string_lossy()) && home.to_str().is_some())
        .unwrap_or_else(|| "/".into());
    let field = |fields: &Option<Vec<String>>, index: usize| {
        let field = fields.as_ref()?.get(index)?;
        Some(field.clone()).filter(|field| !field.is_empty())
    };
    Account {
        name: field(&user, 0).unwrap_or_else(|| uid.to_string()),
        uid,
        gid,
        comment: field(&user, 4).unwrap_or_default(),
        home,
        group: field(&fields(&group, 2, host.egid), 0).unwrap_or_else(|| gid.to_string()),
    }
}

/// The fields of the first line of passwd(5) or group(5) whose field `index` is `id`.
fn fields(text: &[u8], index: usize, id: u32) -> Option<Vec<String>> {
    let text = String::from_utf8_lossy(text);
    text.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let found: u32 = fields.get(index)?.parse().ok()?;
        (found == id).then(|| fields.into_iter().map(str::to_owned).collect())
    })
}

/// Whether a line of passwd(5) can hold it.
fn is_field(text: &str) -> bool {
    !text.contains([':', '\n'])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{MountFlags, MountKind, Tmpfs};

    fn host() -> Host {
        Host {
            euid: 1000,
            egid: 100,
            env: Vec::new(),
            hostname: String::new(),
            cpus: || 2,
            read: |path| match path {
                "/etc/passwd" => {
                    b"x:x:1:1::/:\nann:x:1000:100:Ann,,,:/home/ann:/bin/zsh\n".to_vec()
                }
                _ => b"users:x:100:bob\n".to_vec(),
            },
        }
    }

    fn mount(target: &str) -> MountSpec {
        MountSpec {
            target: target.into(),
            kind: MountKind::Tmpfs(Tmpfs::default()),
            flags: MountFlags::default(),
        }
    }

    #[test]
    fn home_is_the_working_directory_unless_it_is_mounted() {
        let home = |mounts: &[MountSpec], workdir: Option<&str>| {
            of_caller(&host(), (1000, 100), mounts, workdir.map(Path::new)).home
        };
        assert_eq!(home(&[], None), Path::new("/"));
        assert_eq!(home(&[], Some("/srv")), Path::new("/srv"));
        assert_eq!(home(&[], Some("/a:b")), Path::new("/"));
        for mounted in ["/home", "/home/ann"] {
            assert_eq!(
                home(&[mount(mounted)], Some("/srv")),
                Path::new("/home/ann")
            );
        }
        for other in ["/home/ann/src", "/home/an"] {
            assert_eq!(home(&[mount(other)], None), Path::new("/"), "{other}");
        }
    }

    #[test]
    fn a_user_without_an_account_is_a_number() {
        let ann = of_caller(&host(), (7, 8), &[], None);
        assert_eq!(
            (ann.name.as_str(), ann.group.as_str(), ann.uid),
            ("ann", "users", 7)
        );
        assert_eq!(ann.comment, "Ann,,,");
        let nobody = Host {
            read: |_| Vec::new(),
            ..host()
        };
        let nobody = of_caller(&nobody, (7, 8), &[], None);
        assert_eq!((nobody.name.as_str(), nobody.group.as_str()), ("7", "8"));
    }
}
