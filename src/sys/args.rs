//! The memory that the kernel shows as `/proc/PID/cmdline` and `environ`.

use std::fs;
use std::io;

/// Where the kernel put argv and the environment; fields 48 to 51 of
/// `/proc/self/stat` (proc_pid_stat(5)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Area {
    arg_start: usize,
    arg_end: usize,
    env_start: usize,
    env_end: usize,
}

/// Overwrites what `/proc/PID/cmdline` and `/proc/PID/environ` show of this
/// process: the arguments become `title`, cut to what fits, and the environment
/// is blanked. For a forked child whose parent's options are nobody's business
/// in the container; it must not look at its own environment afterwards.
pub fn replace(title: &str) -> io::Result<()> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let area = parse(&stat).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
    let arg_len = area.arg_end.saturating_sub(area.arg_start);
    let env_len = area.env_end.saturating_sub(area.env_start);
    // SAFETY: the kernel says that these ranges of our own stack hold the
    // strings of argv and the environment; they are mapped writable, and the
    // process has one thread. Whoever still has a pointer to one of the strings
    // finds a shorter string, still NUL-terminated: the last byte becomes NUL.
    unsafe {
        let args = area.arg_start as *mut u8;
        std::ptr::write_bytes(args, 0, arg_len);
        std::ptr::copy_nonoverlapping(
            title.as_ptr(),
            args,
            title.len().min(arg_len.saturating_sub(1)),
        );
        std::ptr::write_bytes(area.env_start as *mut u8, 0, env_len);
    }
    Ok(())
}

/// Picks the four addresses from a line of `/proc/PID/stat`.
fn parse(stat: &str) -> Option<Area> {
    // Field 2 is the name in parentheses and may hold blanks and parentheses.
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest
        .split_ascii_whitespace()
        .skip(48 - 3)
        .map(str::parse::<usize>);
    let mut next = || fields.next()?.ok().filter(|address| *address != 0);
    Some(Area {
        arg_start: next()?,
        arg_end: next()?,
        env_start: next()?,
        env_end: next()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_addresses_behind_a_strange_name() {
        let fields: Vec<String> = (3..=52).map(|n| n.to_string()).collect();
        let line = format!("1 (a) b (c) {}\n", fields.join(" "));
        assert_eq!(
            parse(&line),
            Some(Area {
                arg_start: 48,
                arg_end: 49,
                env_start: 50,
                env_end: 51
            })
        );
    }

    #[test]
    fn hidden_addresses_are_refused() {
        let line = format!("1 (x) {}\n", ["0"; 50].join(" "));
        assert_eq!(parse(&line), None);
    }

    #[test]
    fn the_live_line_names_our_own_arguments() {
        let stat = fs::read_to_string("/proc/self/stat").unwrap();
        let area = parse(&stat).unwrap();
        assert!(area.arg_end > area.arg_start && area.env_start >= area.arg_end);
    }
}
