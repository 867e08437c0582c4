//! What there is on this host: one file per part.

mod child;
mod host;
mod ids;
mod inside;
mod surroundings;
mod trial;

pub use crate::cgroup::{Cgroups, Delegated, Hierarchy, V1};
pub use host::{Address, Host, Resolvers};
pub use ids::Ids;
pub use inside::{Inside, Tried, Tun};
pub use surroundings::Surroundings;
pub use trial::{Trial, Trials};

/// All of it.
#[derive(Debug, Clone)]
pub struct Facts {
    /// Who runs it, and within what.
    pub surroundings: Surroundings,
    /// What namespaces could be made, and what could be done in them.
    pub tried: Tried,
    /// Which ids a container has.
    pub ids: Ids,
    /// The default root filesystem: what it is, or why there is none.
    pub rootfs: Result<String, String>,
    /// The TUN device.
    pub tun: Tun,
    /// The host's network.
    pub host: Host,
    /// Version of Landlock's interface, or errno(3).
    pub landlock: Result<u32, i32>,
    /// Control groups.
    pub cgroups: Cgroups,
    /// Whether runs work.
    pub trials: Trials,
}

/// Looks and tries.
pub fn gather() -> Facts {
    let code = |error: std::io::Error| error.raw_os_error().unwrap_or(libc::EIO);
    // Where the caller ignores SIGCHLD, the kernel would reap our children unseen.
    if let Err(error) = crate::sys::signal::reset_disposition(libc::SIGCHLD) {
        tracing::debug!("reset the disposition of SIGCHLD: {error}");
    }
    let (tried, written) = inside::try_namespaces();
    Facts {
        surroundings: surroundings::look(),
        tried,
        ids: ids::look(written),
        rootfs: crun_lite_rootfs::choose(&crun_lite_rootfs::HostProbe::new())
            .map(|recipe| format!("{}: {}", recipe.name, recipe.summary))
            .map_err(|error| error.to_string()),
        tun: inside::look_at_tun(),
        host: host::look(),
        landlock: crate::sys::landlock::version().map_err(code),
        cgroups: crate::cgroup::look(),
        trials: trial::run(),
    }
}
