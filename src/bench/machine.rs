//! What the figures were measured on.

use std::fs;
use std::time::SystemTime;

use serde::Serialize;

/// The machine, its kernel, and the settings that matter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Machine {
    /// Model of the processor.
    pub cpu: String,
    /// How many of them this process may use.
    pub cpus: usize,
    /// Release of the kernel.
    pub kernel: String,
    /// Architecture.
    pub architecture: String,
    /// The system's default congestion control, which helpers use for their own
    /// sockets.
    pub system_congestion_control: String,
    /// Whether the benchmark runs as root.
    pub root: bool,
    /// When, as RFC 3339 in UTC.
    pub date: String,
}

impl Machine {
    /// This machine, now.
    pub fn current() -> Self {
        let uname = rustix::system::uname();
        let architecture = uname.machine().to_string_lossy().into_owned();
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let default = fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control");
        Self {
            cpu: cpu_model(&cpuinfo).unwrap_or(&architecture).to_owned(),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: uname.release().to_string_lossy().into_owned(),
            system_congestion_control: default
                .map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned()),
            root: rustix::process::geteuid().is_root(),
            date: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            architecture,
        }
    }

    /// The day it was.
    pub fn day(&self) -> &str {
        self.date.split('T').next().unwrap_or_default()
    }
}

/// The line is missing on some architectures.
fn cpu_model(cpuinfo: &str) -> Option<&str> {
    let fields = cpuinfo.lines().filter_map(|line| line.split_once(':'));
    fields
        .map(|(key, value)| (key.trim(), value.trim()))
        .find(|(key, value)| *key == "model name" && !value.is_empty())
        .map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_is_found_where_there_is_one() {
        let text = "processor\t: 0\nmodel\t\t: 1\nmodel name\t: AMD EPYC: 1\n";
        assert_eq!(cpu_model(text), Some("AMD EPYC: 1"));
        assert_eq!(cpu_model("processor\t: 0\nBogoMIPS\t: 50.00\n"), None);
    }

    #[test]
    fn the_day_is_the_head_of_the_date() {
        let machine = Machine::current();
        assert_eq!(machine.day().len(), "2026-11-24".len());
        assert!(machine.date.ends_with('Z'), "{}", machine.date);
        assert!(machine.cpus > 0 && !machine.cpu.is_empty());
    }
}
