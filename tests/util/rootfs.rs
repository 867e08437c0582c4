//! Root filesystems for `--rootfs DIR`.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use tempfile::TempDir;

use super::who::Who;

/// A folder with a static BusyBox, its shell and nothing else, that belongs to a
/// user; `None` where the host has no static BusyBox.
pub(crate) fn busybox(who: Who) -> Option<TempDir> {
    let recipe = crun_lite_rootfs::choose(&crun_lite_rootfs::HostProbe::new()).ok()?;
    let source = recipe.entries.iter().find_map(|entry| match entry {
        crun_lite_rootfs::Entry::CopyOf { path, source, .. }
            if path == Path::new("/bin/busybox") =>
        {
            Some(source)
        }
        _ => None,
    })?;
    let folder = who.folder();
    let bin = folder.path().join("bin");
    fs::create_dir(&bin).unwrap();
    // By cp(1): see `who::shared_copy`.
    super::tool(
        "cp",
        &[
            "--",
            source.to_str().unwrap(),
            bin.join("busybox").to_str().unwrap(),
        ],
    );
    for applet in [
        "sh", "ls", "cat", "mount", "id", "hostname", "true", "touch", "ps", "mkdir", "stat",
    ] {
        symlink("busybox", bin.join(applet)).unwrap();
        who.own(&bin.join(applet));
    }
    who.own(&bin);
    who.own(&bin.join("busybox"));
    Some(folder)
}
