//! Options of `crun-lite run` that limit what the container uses.

use clap::Args;

/// Limits, as typed.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Limits")]
pub(in crate::cli) struct LimitArgs {
    /// Most memory: bytes, or a number with b, k, m or g, at least 6m; 0 for no limit.
    /// A process of the container is killed when it would need more
    #[arg(short, long, value_name = "SIZE")]
    pub memory: Option<String>,
    /// Most memory and swap together, with --memory; -1 for no limit on swap [default:
    /// twice --memory]
    #[arg(long, value_name = "SIZE")]
    pub memory_swap: Option<String>,
    /// Memory that is left to the container when the host is short of it
    #[arg(long, value_name = "SIZE")]
    pub memory_reservation: Option<String>,
    /// Most CPU time, in CPUs (0.01 and up); 0 for no limit
    #[arg(long, value_name = "NUMBER")]
    pub cpus: Option<String>,
    /// Share of CPU time when CPUs are busy, 2 to 262144, where others have 1024; 0 for
    /// the usual
    #[arg(short, long, value_name = "NUMBER")]
    pub cpu_shares: Option<String>,
    /// Period of --cpu-quota, 1000 to 1000000 [default: 100000]
    #[arg(long, value_name = "USEC")]
    pub cpu_period: Option<String>,
    /// Most CPU time in each period, at least 1000; -1 or 0 for no limit
    #[arg(long, value_name = "USEC")]
    pub cpu_quota: Option<String>,
    /// CPUs to run on, such as 0-2,7
    #[arg(long, value_name = "LIST")]
    pub cpuset_cpus: Option<String>,
    /// Memory nodes to allocate from
    #[arg(long, value_name = "LIST")]
    pub cpuset_mems: Option<String>,
    /// Most processes and threads, our own init among them; -1 or 0 for no limit
    #[arg(long, value_name = "NUMBER")]
    pub pids_limit: Option<String>,
    /// Share of disk time when disks are busy, 10 to 1000, where others have 100; 0 for
    /// the usual
    #[arg(long, value_name = "NUMBER")]
    pub blkio_weight: Option<String>,
    /// Limit of the command's processes (setrlimit(2)), such as nofile=1024:4096; -1 for
    /// none. host: as we have them, which they are anyway
    #[arg(long, value_name = "NAME=SOFT[:HARD]", value_delimiter = ',')]
    pub ulimit: Vec<String>,
    /// How soon the kernel kills the container when the host is out of memory: -1000
    /// (never) to 1000 (first)
    #[arg(long, value_name = "NUMBER")]
    pub oom_score_adj: Option<String>,
}
