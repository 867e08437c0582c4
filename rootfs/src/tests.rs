//! Both recipes on hosts made for the purpose, and on this one.

use std::collections::HashSet;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use super::*;

/// A host tree in a folder of its own.
struct Host {
    root: TempDir,
}

impl Host {
    fn new() -> Self {
        Self {
            root: TempDir::new().unwrap(),
        }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.path().join(path.trim_start_matches('/'))
    }

    fn file(&self, path: &str, mode: u32, content: &[u8]) -> &Self {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        self
    }

    fn directory(&self, path: &str, mode: u32) -> &Self {
        let path = self.path(path);
        fs::create_dir_all(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        self
    }

    fn link(&self, path: &str, to: &str) -> &Self {
        symlink(to, self.path(path)).unwrap();
        self
    }

    fn choose(&self) -> Result<Recipe, Error> {
        choose(&HostProbe::at(self.root.path(), []))
    }
}

/// A merged-/usr host without any BusyBox.
fn plain_host() -> Host {
    let host = Host::new();
    host.file("/usr/bin/sh", 0o755, b"#!")
        .link("/bin", "usr/bin")
        .link("/lib64", "/usr/lib64");
    host.directory("/usr/lib64", 0o755)
        .directory("/lib", 0o755)
        .directory("/etc", 0o755);
    host
}

fn find<'a>(recipe: &'a Recipe, path: &str) -> Option<&'a Entry> {
    recipe
        .entries
        .iter()
        .find(|entry| entry.path() == Path::new(path))
}

/// What holds for any recipe: absolute clean paths, no path twice, parents first,
/// sources that exist.
fn assert_sound(recipe: &Recipe) {
    let mut made: HashSet<&Path> = HashSet::from([Path::new("/")]);
    for entry in &recipe.entries {
        let path = entry.path();
        assert!(
            path.is_absolute() && !path.to_string_lossy().contains(".."),
            "{path:?}"
        );
        let parent = path.parent().unwrap();
        assert!(made.contains(parent), "{path:?} comes before its parent");
        assert!(made.insert(path), "{path:?} is made twice");
        if let Entry::CopyOf { source, .. } | Entry::BindReadOnly { source, .. } = entry {
            assert!(source.exists(), "{source:?} does not exist");
        }
    }
    for (path, mode) in [
        ("/tmp", 0o1777),
        ("/var/tmp", 0o1777),
        ("/root", 0o700),
        ("/run", 0o755),
    ] {
        let expected = Entry::directory(path, mode);
        assert_eq!(find(recipe, path), Some(&expected));
    }
    for path in [
        "/etc/passwd",
        "/etc/group",
        "/etc/profile",
        "/etc/nsswitch.conf",
    ] {
        assert!(
            matches!(find(recipe, path), Some(Entry::File { mode: 0o644, .. })),
            "{path}"
        );
    }
    for path in ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf"] {
        assert_eq!(find(recipe, path), None, "{path} is the runtime's");
    }
}

#[test]
fn this_host_gives_a_sound_recipe() {
    assert_sound(&choose(&HostProbe::new()).unwrap());
}

#[test]
fn the_usr_recipe_of_this_host_is_sound() {
    let recipe = host_usr::recipe(&HostProbe::new(), "not asked for").unwrap();
    assert_sound(&recipe);
    assert!(
        recipe.summary.contains("not asked for"),
        "{}",
        recipe.summary
    );
}

#[test]
fn a_static_busybox_is_preferred_and_brings_its_applets() {
    let probe = HostProbe::new();
    let Ok(recipe) = busybox::recipe(&probe) else {
        eprintln!("SKIP this host has no static busybox");
        return;
    };
    assert_eq!(choose(&probe).unwrap(), recipe);
    assert_eq!(recipe.name, "busybox");
    assert_eq!(
        find(&recipe, "/bin/sh"),
        Some(&Entry::symlink("/bin/sh", "/bin/busybox"))
    );
    assert!(matches!(
        find(&recipe, "/bin/busybox"),
        Some(Entry::CopyOf { mode: 0o755, .. })
    ));
    let binds = recipe
        .entries
        .iter()
        .any(|entry| matches!(entry, Entry::BindReadOnly { .. }));
    assert!(!binds, "nothing of the host is mounted");
}

#[test]
fn without_busybox_usr_is_shown_read_only_and_its_links_are_kept() {
    let recipe = plain_host().choose().unwrap();
    assert_eq!(recipe.name, "host-usr");
    assert!(
        recipe.summary.contains("no busybox found"),
        "{}",
        recipe.summary
    );
    assert!(matches!(
        find(&recipe, "/usr"),
        Some(Entry::BindReadOnly { .. })
    ));
    assert_eq!(
        find(&recipe, "/bin"),
        Some(&Entry::symlink("/bin", "usr/bin"))
    );
    assert_eq!(
        find(&recipe, "/lib64"),
        Some(&Entry::symlink("/lib64", "/usr/lib64"))
    );
    assert!(
        matches!(find(&recipe, "/lib"), Some(Entry::BindReadOnly { .. })),
        "a folder is bound"
    );
    assert_eq!(find(&recipe, "/lib32"), None);
}

#[test]
fn busyboxes_that_do_not_serve_are_named_with_the_reason() {
    let host = plain_host();
    host.file("/usr/bin/busybox", 0o755, b"#!/bin/sh\n");
    host.file("/usr/local/bin/busybox", 0o644, b"\x7fELF");
    host.file("/opt/tools/busybox", 0o755, &fs::read("/bin/sh").unwrap());
    let probe = HostProbe::at(
        host.root.path(),
        [PathBuf::from("/opt/tools"), PathBuf::from("bin")],
    );
    let summary = choose(&probe).unwrap().summary;
    for reason in [
        "/bin/busybox cannot be examined: not an ELF executable",
        "/usr/local/bin/busybox is not executable",
        "/opt/tools/busybox is linked dynamically",
    ] {
        assert!(
            summary.contains(reason),
            "{reason:?} is missing from {summary:?}"
        );
    }
}

#[test]
fn a_program_that_never_answers_is_given_up() {
    let mut command = Command::new("sleep");
    let error = probe::run(command.arg("60"), Duration::from_millis(50)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
}

#[test]
fn a_program_that_never_stops_talking_is_cut_off() {
    let error = probe::run(&mut Command::new("yes"), Duration::from_secs(20)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FileTooLarge);
}

#[test]
fn a_program_gets_nothing_of_our_environment() {
    let environment = probe::run(&mut Command::new("/usr/bin/env"), Duration::from_secs(20));
    assert_eq!(environment.unwrap(), "");
}

#[test]
fn a_program_that_fails_is_no_busybox() {
    assert!(probe::list_applets(Path::new("/bin/false")).is_err());
}

#[test]
fn private_files_of_the_host_are_not_taken() {
    let host = plain_host();
    host.file("/etc/ld.so.cache", 0o600, b"secret")
        .file("/etc/services", 0o644, b"http 80/tcp\n");
    host.file("/etc/ssl/openssl.cnf", 0o644, b"")
        .file("/etc/ssl/key.pem", 0o640, b"secret");
    host.file("/etc/ssl/private/key.pem", 0o644, b"secret")
        .directory("/etc/ssl/private", 0o710);
    let recipe = host.choose().unwrap();
    assert_sound(&recipe);
    assert!(find(&recipe, "/etc/services").is_some());
    assert!(find(&recipe, "/etc/ssl/openssl.cnf").is_some());
    for path in [
        "/etc/ld.so.cache",
        "/etc/ssl/key.pem",
        "/etc/ssl/private",
        "/etc/ssl/private/key.pem",
    ] {
        assert_eq!(find(&recipe, path), None);
    }
}

#[test]
fn the_certificate_bundle_is_found_where_any_distribution_keeps_it() {
    for place in [
        "/etc/ssl/certs/ca-certificates.crt",
        "/etc/pki/tls/certs/ca-bundle.crt",
        "/etc/ssl/cert.pem",
    ] {
        let host = plain_host();
        host.file(place, 0o644, b"certificates");
        let recipe = host.choose().unwrap();
        assert_sound(&recipe);
        let Some(Entry::CopyOf { source, .. }) =
            find(&recipe, "/etc/ssl/certs/ca-certificates.crt")
        else {
            panic!("{place} is not taken: {recipe:#?}");
        };
        assert_eq!(fs::read(source).unwrap(), b"certificates");
    }
}

#[test]
fn certificate_links_stay_links() {
    let host = plain_host();
    host.file("/etc/ssl/certs/ca-certificates.crt", 0o644, b"");
    host.link("/etc/ssl/certs/0a1b2c3d.0", "Root.pem");
    let recipe = host.choose().unwrap();
    let link = Entry::symlink("/etc/ssl/certs/0a1b2c3d.0", "Root.pem");
    assert_eq!(find(&recipe, "/etc/ssl/certs/0a1b2c3d.0"), Some(&link));
}

#[test]
fn stores_that_usr_leads_into_are_shown() {
    let host = plain_host();
    host.directory("/nix/store", 0o755);
    assert!(matches!(
        find(&host.choose().unwrap(), "/nix/store"),
        Some(Entry::BindReadOnly { .. })
    ));
}

#[test]
fn a_host_with_nothing_is_an_error_that_says_what_to_do() {
    let error = Host::new().choose().unwrap_err().to_string();
    for part in ["no busybox found", "no /usr", "--rootfs"] {
        assert!(error.contains(part), "{part:?} is missing from {error:?}");
    }
}
