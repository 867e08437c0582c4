//! `/etc`: files of our own, and the few that are taken from the host.

use std::path::{Path, PathBuf};

use crate::{Entry, HostProbe};

/// passwd(5): root and nobody, as every image has them.
fn passwd(shell: &str, nologin: &str) -> String {
    format!("root:x:0:0:root:/root:{shell}\nnobody:x:65534:65534:nobody:/:{nologin}\n")
}

/// group(5): root, the groups that device nodes and tools ask for by name, and
/// nogroup. The numbers are those of Debian, Alpine and BusyBox images.
const GROUP: &str = "\
root:x:0:
daemon:x:1:
bin:x:2:
sys:x:3:
adm:x:4:
tty:x:5:
disk:x:6:
lp:x:7:
mail:x:8:
wheel:x:10:
cdrom:x:24:
audio:x:29:
shadow:x:42:
utmp:x:43:
video:x:44:
users:x:100:
nogroup:x:65534:
";

/// shadow(5): no password fits.
const SHADOW: &str = "root:*:::::::\nnobody:*:::::::\n";

/// nsswitch.conf(5). The host's own may name modules (sss, systemd) whose
/// daemons the container does not have.
const NSSWITCH: &str = "\
passwd: files
group: files
shadow: files
hosts: files dns
networks: files
protocols: files
services: files
ethers: files
rpc: files
";

/// For login shells. The path is only set where the runtime gave none, and the
/// prompt says whose shell it is.
const PROFILE: &str = r#"# /etc/profile: for login shells
: "${PATH:=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin}"
export PATH
if [ -n "${PS1-}" ]; then
	if [ "$(id -u)" = 0 ]; then
		PS1="$(hostname):\$PWD# "
	else
		PS1="$(hostname):\$PWD\$ "
	fi
fi
umask 022
"#;

/// Where distributions keep the bundle of certificate authorities.
const CA_BUNDLES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Where the bundle is put: the path that most programs try first.
const CA_BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";

/// What a recipe's `/etc` needs to know of it.
pub(crate) struct Flavour {
    /// Root's shell.
    pub(crate) shell: &'static str,
    /// The shell of those who may not log in.
    pub(crate) nologin: &'static str,
    /// shells(5)
    pub(crate) shells: &'static str,
}

/// The files of our own. `/etc/hostname`, `hosts` and `resolv.conf` are missing
/// on purpose: the runtime writes them.
pub(crate) fn own(flavour: &Flavour) -> Vec<Entry> {
    let file = |path: &str, content: &str| Entry::file(path, 0o644, content);
    vec![
        file("/etc/passwd", &passwd(flavour.shell, flavour.nologin)),
        file("/etc/group", GROUP),
        Entry::file("/etc/shadow", 0o600, SHADOW),
        file("/etc/shells", flavour.shells),
        file("/etc/nsswitch.conf", NSSWITCH),
        file("/etc/profile", PROFILE),
        Entry::symlink("/etc/mtab", "/proc/self/mounts"),
    ]
}

/// The names of services and protocols, the time zone and the certificate
/// authorities: what any program may ask for and no container should lack.
pub(crate) fn shared(host: &HostProbe) -> Vec<Entry> {
    let mut entries: Vec<_> = ["/etc/services", "/etc/protocols", "/etc/localtime"]
        .into_iter()
        .filter_map(|path| copy(host, path))
        .collect();
    entries.extend(ca_bundle(host));
    entries
}

/// A copy of a host file at the same path, where there is one to show.
pub(crate) fn copy(host: &HostProbe, path: &str) -> Option<Entry> {
    host.public_file(Path::new(path))
        .map(|source| Entry::copy(path, 0o644, source))
}

fn ca_bundle(host: &HostProbe) -> Vec<Entry> {
    let Some(source) = CA_BUNDLES
        .iter()
        .find_map(|path| host.public_file(Path::new(path)))
    else {
        return Vec::new();
    };
    vec![
        Entry::directory("/etc/ssl", 0o755),
        Entry::directory("/etc/ssl/certs", 0o755),
        Entry::copy(CA_BUNDLE, 0o644, source),
    ]
}

/// Bounds on a copied folder: a certificate store has some 500 entries.
const FOLDER_ENTRIES: usize = 4096;
const FOLDER_DEPTH: usize = 4;

/// A host folder with all public files and links in it, at the same path.
/// Sub-folders that not everyone may enter (`/etc/ssl/private`) are left out.
pub(crate) fn folder(host: &HostProbe, path: &str) -> Vec<Entry> {
    let mut entries = Vec::new();
    copy_folder(host, PathBuf::from(path), FOLDER_DEPTH, &mut entries);
    if !entries.is_empty() {
        let above = Path::new(path)
            .ancestors()
            .skip(1)
            .filter(|path| path.starts_with("/etc"));
        for path in above {
            entries.insert(0, Entry::directory(path, 0o755));
        }
    }
    entries
}

fn copy_folder(host: &HostProbe, path: PathBuf, depth: usize, entries: &mut Vec<Entry>) {
    let Some(names) = host.public_directory(&path) else {
        return;
    };
    entries.push(Entry::directory(&path, 0o755));
    for name in names {
        if entries.len() >= FOLDER_ENTRIES {
            return;
        }
        let child = path.join(name);
        if let Some(to) = host.link(&child) {
            entries.push(Entry::symlink(child, to));
        } else if let Some(source) = host.public_file(&child) {
            entries.push(Entry::copy(child, 0o644, source));
        } else if depth > 0 {
            copy_folder(host, child, depth - 1, entries);
        }
    }
}
