//! Where the program may keep files of its own on the host.

use std::fs;

use super::{CrunLite, Who};

/// A home, a runtime and a temporary directory that nobody else has.
pub(crate) struct Places {
    folder: tempfile::TempDir,
}

const NAMES: [(&str, &str); 3] = [
    ("HOME", "home"),
    ("XDG_RUNTIME_DIR", "run"),
    ("TMPDIR", "tmp"),
];

impl Places {
    pub(crate) fn new(who: Who) -> Self {
        let folder = who.folder();
        for (_, name) in NAMES {
            fs::create_dir(folder.path().join(name)).unwrap();
            who.own(&folder.path().join(name));
        }
        Self { folder }
    }

    /// Has a run use them.
    pub(crate) fn of(&self, crun: CrunLite) -> CrunLite {
        NAMES.into_iter().fold(crun, |crun, (variable, name)| {
            crun.env(variable, self.folder.path().join(name).to_str().unwrap())
        })
    }

    /// Nothing is in them.
    #[track_caller]
    pub(crate) fn assert_empty(&self) {
        for (_, name) in NAMES {
            let entries = fs::read_dir(self.folder.path().join(name)).unwrap();
            let left: Vec<_> = entries.collect();
            assert!(left.is_empty(), "{name}: {left:?}");
        }
    }
}
