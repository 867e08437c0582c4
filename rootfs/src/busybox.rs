//! The BusyBox recipe: one static program, a link per applet, and private files.

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use crate::etc::{self, Flavour};
use crate::probe::{Linkage, is_executable, linkage, list_applets};
use crate::{Entry, HostProbe, Recipe, skeleton};

/// Where distributions install it, before `$PATH` is searched.
const CANDIDATES: &[&str] = &[
    "/bin/busybox",
    "/usr/bin/busybox",
    "/sbin/busybox",
    "/usr/sbin/busybox",
    "/usr/local/bin/busybox",
];

/// Where it is put in the container; every applet links to it.
const BUSYBOX: &str = "/bin/busybox";

const DIRECTORIES: &[&str] = &[
    "/bin",
    "/lib",
    "/sbin",
    "/usr",
    "/usr/bin",
    "/usr/lib",
    "/usr/local",
    "/usr/local/bin",
    "/usr/local/sbin",
    "/usr/sbin",
    "/usr/share",
];

const FLAVOUR: Flavour = Flavour {
    shell: "/bin/sh",
    nologin: "/bin/false",
    shells: "/bin/sh\n/bin/ash\n",
};

const OS_RELEASE: &str = "\
ID=crun-lite-busybox
NAME=\"crun-lite BusyBox\"
PRETTY_NAME=\"crun-lite BusyBox\"
";

/// The recipe, or why this host has none.
pub(crate) fn recipe(host: &HostProbe) -> Result<Recipe, String> {
    let mut refused = Vec::new();
    let mut seen = HashSet::new();
    let searched = host.search_path().map(|folder| folder.join("busybox"));
    for path in CANDIDATES.iter().map(PathBuf::from).chain(searched) {
        let Ok(metadata) = host.metadata(&path) else {
            continue;
        };
        if !seen.insert((metadata.dev(), metadata.ino())) {
            continue;
        }
        if !is_executable(&metadata) {
            refused.push(format!("{} is not executable", path.display()));
            continue;
        }
        match applets(&host.locate(&path)) {
            Ok(applets) => return Ok(assemble(host, &path, &applets)),
            Err(reason) => refused.push(format!("{} {reason}", path.display())),
        }
    }
    if refused.is_empty() {
        return Err("no busybox found".to_owned());
    }
    Err(format!("no static busybox ({})", refused.join(", ")))
}

fn applets(program: &Path) -> Result<Vec<PathBuf>, String> {
    match linkage(program) {
        Ok(Linkage::Static) => {}
        Ok(Linkage::Dynamic) => return Err("is linked dynamically".to_owned()),
        Err(error) => return Err(format!("cannot be examined: {error}")),
    }
    let list =
        list_applets(program).map_err(|error| format!("does not name its applets: {error}"))?;
    let applets = parse(&list)?;
    if !applets.iter().any(|path| path == Path::new("/bin/sh")) {
        return Err("has no shell".to_owned());
    }
    Ok(applets)
}

/// The absolute paths of the applets, sorted. What the program prints becomes
/// paths, so it is held to the form `usr/bin/env`.
fn parse(list: &str) -> Result<Vec<PathBuf>, String> {
    let mut applets = HashSet::new();
    for line in list.lines() {
        let path = Path::new(line);
        let plain = path
            .components()
            .all(|part| matches!(part, Component::Normal(_)));
        if line.is_empty() || !plain {
            return Err(format!("names an applet {line:?}"));
        }
        applets.insert(Path::new("/").join(path));
    }
    // Not a command: it starts the init of an initial ramdisk.
    applets.remove(Path::new("/linuxrc"));
    applets.remove(Path::new(BUSYBOX));
    let mut applets: Vec<_> = applets.into_iter().collect();
    applets.sort();
    Ok(applets)
}

fn assemble(host: &HostProbe, program: &Path, applets: &[PathBuf]) -> Recipe {
    let mut entries = skeleton::entries();
    entries.extend(DIRECTORIES.iter().map(|path| Entry::directory(path, 0o755)));
    entries.push(Entry::copy(BUSYBOX, 0o755, host.locate(program)));
    entries.extend(applets.iter().map(|path| Entry::symlink(path, BUSYBOX)));
    entries.extend(etc::own(&FLAVOUR));
    entries.push(Entry::file("/etc/os-release", 0o644, OS_RELEASE));
    entries.extend(etc::shared(host));
    Recipe {
        name: "busybox",
        summary: format!(
            "BusyBox of {} with {} applets",
            program.display(),
            applets.len()
        ),
        entries,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_becomes_absolute_paths_without_the_program_itself() {
        let applets =
            parse("usr/bin/env\nbin/busybox\nbin/sh\nlinuxrc\nusr/bin/[\nbin/sh\n").unwrap();
        let expected: Vec<PathBuf> = ["/bin/sh", "/usr/bin/[", "/usr/bin/env"]
            .iter()
            .map(PathBuf::from)
            .collect();
        assert_eq!(applets, expected);
    }

    #[test]
    fn a_list_cannot_name_a_path_outside() {
        for line in [
            "/etc/passwd",
            "../bin/sh",
            "bin/../../x",
            "",
            ".",
            "bin/sh\n\nbin/ls",
        ] {
            assert!(parse(&format!("{line}\n")).is_err(), "accepted {line:?}");
        }
    }
}
