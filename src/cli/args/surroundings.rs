//! Options of what the command finds around it, besides files and network.

use std::ffi::OsString;

use clap::Args;

/// Init, groups, devices, the size of `/dev/shm` and kernel parameters, as typed.
#[derive(Debug, Default, Args)]
pub(in crate::cli) struct SurroundingsArgs {
    /// Run the command below an init of ours, which reaps processes and passes signals
    /// on; with --init=false the command itself is PID 1 of the container
    /// [default: true]
    #[arg(long, help_heading = "Command")]
    pub init: Option<bool>,

    /// Group that the command has besides those of its user: a name in the container's
    /// /etc/group, or a number; keep-groups keeps the caller's own, and no others
    #[arg(
        long,
        value_name = "GROUP|keep-groups",
        value_delimiter = ',',
        help_heading = "Command"
    )]
    pub group_add: Vec<String>,

    /// Show a device of the host in the container, or the devices in a directory. PERMS
    /// are some of r, w and m, and not enforced: the file's own mode counts
    #[arg(long, value_name = "SRC[:DST[:PERMS]]", help_heading = "Files")]
    pub device: Vec<OsString>,

    #[allow(
        rustdoc::broken_intra_doc_links,
        reason = "the help text of an option, not a link"
    )]
    /// Most bytes in /dev/shm; 0 for no limit [default: 64m]
    #[arg(long, value_name = "BYTES[b|k|m|g]", help_heading = "Files")]
    pub shm_size: Option<String>,

    /// Set a kernel parameter of the container's own namespaces: net.*, and
    /// kernel.msg*, kernel.sem, kernel.shm*, fs.mqueue.*, kernel.domainname
    #[arg(long, value_name = "KEY=VALUE", help_heading = "Isolation")]
    pub sysctl: Vec<String>,
}
