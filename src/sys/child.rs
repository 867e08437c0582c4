//! Children by fork and exec that end with this process, and what they use.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use rustix::process::{Pid, Signal};

use super::signal::{SignalSet, set_mask};

/// Has the kernel kill the program that `command` starts when the thread that
/// starts it ends (`PR_SET_PDEATHSIG`, prctl(2)), and starts it with no signal
/// blocked. The kernel forgets the former when the program changes its
/// credentials, as one does that enters a user namespace.
pub fn tie_to_parent(command: &mut Command) {
    let parent = rustix::process::getpid();
    let before_exec = move || {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        // It may have ended before that took effect.
        if rustix::process::getppid() != Some(parent) {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
        set_mask(SignalSet::EMPTY).map(drop)
    };
    // SAFETY: runs between fork and exec: system calls only, no allocation and
    // no lock.
    unsafe { command.pre_exec(before_exec) };
}

/// CPU time, user and system, of all threads that the process `pid` has or has
/// had, to the nanosecond (clock_getcpuclockid(3)).
///
/// # Errors
/// There is no such process.
pub fn cpu_time(pid: Pid) -> io::Result<Duration> {
    let mut clock: libc::clockid_t = 0;
    // SAFETY: the pointer is to a live clockid_t.
    let error = unsafe { libc::clock_getcpuclockid(pid.as_raw_nonzero().get(), &raw mut clock) };
    if error != 0 {
        return Err(io::Error::from_raw_os_error(error));
    }
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the pointer is to a live timespec.
    if unsafe { libc::clock_gettime(clock, &raw mut time) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    Ok(Duration::from_secs(seconds) + Duration::from_nanos(nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_time_is_what_the_clock_of_this_process_says() {
        let clock = rustix::time::ClockId::ProcessCPUTime;
        let before = Duration::try_from(rustix::time::clock_gettime(clock)).unwrap();
        let ours = cpu_time(rustix::process::getpid()).unwrap();
        let after = Duration::try_from(rustix::time::clock_gettime(clock)).unwrap();
        assert!(
            before <= ours && ours <= after,
            "{before:?} {ours:?} {after:?}"
        );
    }

    #[test]
    fn no_process_is_an_error() {
        // Beyond the largest number that the kernel gives (PID_MAX_LIMIT).
        assert!(cpu_time(Pid::from_raw(1 << 23).unwrap()).is_err());
    }
}
