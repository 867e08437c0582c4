//! The recipe for hosts without a static BusyBox: the host's own programs,
//! read-only, and everything else private.

use std::collections::HashSet;
use std::path::{Component, Path};

use crate::etc::{self, Flavour};
use crate::{Entry, HostProbe, Recipe, skeleton};

/// Folders outside `/usr` that a host's `/usr` may lead into (Nix, Guix).
const STORES: &[&str] = &["/nix/store", "/gnu/store"];

/// Files that the loader, TLS libraries and shells of the host read.
const ETC_FILES: &[&str] = &["/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/os-release"];
/// Folders of the same kind. Debian's alternatives are links from `/usr/bin`
/// through `/etc/alternatives` back into `/usr`.
const ETC_FOLDERS: &[&str] = &[
    "/etc/ld.so.conf.d",
    "/etc/alternatives",
    "/etc/ssl",
    "/etc/pki/tls",
    "/etc/pki/ca-trust",
    "/etc/crypto-policies",
];

const FLAVOUR: Flavour = Flavour {
    shell: "/bin/sh",
    nologin: "/usr/sbin/nologin",
    shells: "/bin/sh\n/bin/bash\n",
};

/// The recipe, or why this host has none.
pub(crate) fn recipe(host: &HostProbe, no_busybox: &str) -> Result<Recipe, String> {
    if !host.is_directory(Path::new("/usr")) {
        return Err("no /usr".to_owned());
    }
    if host.metadata(Path::new("/bin/sh")).is_err() {
        return Err("no /bin/sh".to_owned());
    }
    let mut entries = skeleton::entries();
    entries.push(Entry::bind("/usr", host.locate(Path::new("/usr"))));
    for name in host.names(Path::new("/")).unwrap_or_default() {
        let Some(text) = name.to_str() else { continue };
        if matches!(text, "bin" | "sbin") || text.starts_with("lib") {
            entries.extend(belongs_to_usr(host, &Path::new("/").join(text)));
        }
    }
    for store in STORES
        .iter()
        .map(Path::new)
        .filter(|path| host.is_directory(path))
    {
        entries.extend(store.parent().map(|path| Entry::directory(path, 0o755)));
        entries.push(Entry::bind(store, host.locate(store)));
    }
    entries.extend(etc::own(&FLAVOUR));
    entries.extend(etc::shared(host));
    entries.extend(ETC_FILES.iter().filter_map(|path| etc::copy(host, path)));
    for path in ETC_FOLDERS {
        entries.extend(etc::folder(host, path));
    }
    let entries = first_of_each_path(entries);
    Ok(Recipe {
        name: "host-usr",
        summary: format!("the host's own /usr, read-only ({no_busybox})"),
        entries,
    })
}

/// `/bin`, `/sbin` or a `/lib*`: the same link where it is one into `/usr`, else
/// the folder itself, read-only.
fn belongs_to_usr(host: &HostProbe, path: &Path) -> Option<Entry> {
    if let Some(to) = host.link(path)
        && leads_into_usr(&to)
    {
        return Some(Entry::symlink(path, to));
    }
    host.is_directory(path)
        .then(|| Entry::bind(path, host.locate(path)))
}

/// Whether what a link in `/` says stays in `/usr`.
fn leads_into_usr(to: &Path) -> bool {
    let relative = to.strip_prefix("/").unwrap_or(to);
    relative.starts_with("usr")
        && relative
            .components()
            .all(|part| matches!(part, Component::Normal(_)))
}

/// What two lists name (the certificate bundle lies in a folder that is copied
/// too) is made once.
fn first_of_each_path(entries: Vec<Entry>) -> Vec<Entry> {
    let mut seen = HashSet::new();
    entries
        .into_iter()
        .filter(|entry| seen.insert(entry.path().to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_into_usr_are_told_from_others() {
        for to in ["usr/bin", "/usr/lib64", "usr"] {
            assert!(leads_into_usr(Path::new(to)), "{to}");
        }
        for to in [
            "/system/bin",
            "usr/../etc",
            "usrlocal/bin",
            "../usr/bin",
            "/",
        ] {
            assert!(!leads_into_usr(Path::new(to)), "{to}");
        }
    }
}
