//! Capabilities by name and number (capabilities(7), linux/capability.h).

/// Names without `CAP_`, in the order of their numbers.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// Every capability there is, as a bit set.
pub const ALL: u64 = (1 << NAMES.len()) - 1;

/// What a command keeps by default: podman's set.
pub const DEFAULT: u64 = CHOWN
    | DAC_OVERRIDE
    | FOWNER
    | FSETID
    | KILL
    | NET_BIND_SERVICE
    | SETFCAP
    | SETGID
    | SETPCAP
    | SETUID
    | SYS_CHROOT;

/// The bit of a capability; an unknown name does not compile.
const fn bit(name: &str) -> u64 {
    let mut number = 0;
    while number < NAMES.len() {
        if same(NAMES[number].as_bytes(), name.as_bytes()) {
            return 1 << number;
        }
        number += 1;
    }
    unreachable!()
}

const fn same(one: &[u8], other: &[u8]) -> bool {
    if one.len() != other.len() {
        return false;
    }
    let mut index = 0;
    while index < one.len() {
        if one[index] != other[index] {
            return false;
        }
        index += 1;
    }
    true
}

const CHOWN: u64 = bit("CHOWN");
const DAC_OVERRIDE: u64 = bit("DAC_OVERRIDE");
const FOWNER: u64 = bit("FOWNER");
const FSETID: u64 = bit("FSETID");
const KILL: u64 = bit("KILL");
const NET_BIND_SERVICE: u64 = bit("NET_BIND_SERVICE");
const SETFCAP: u64 = bit("SETFCAP");
const SETGID: u64 = bit("SETGID");
const SETPCAP: u64 = bit("SETPCAP");
const SETUID: u64 = bit("SETUID");

/// chroot(2), setns(2) into a mount namespace
pub const SYS_CHROOT: u64 = bit("SYS_CHROOT");
/// open_by_handle_at(2)
pub const DAC_READ_SEARCH: u64 = bit("DAC_READ_SEARCH");
/// Raw and packet sockets
pub const NET_RAW: u64 = bit("NET_RAW");
/// Netfilter and the like
pub const NET_ADMIN: u64 = bit("NET_ADMIN");
/// init_module(2)
pub const SYS_MODULE: u64 = bit("SYS_MODULE");
/// iopl(2)
pub const SYS_RAWIO: u64 = bit("SYS_RAWIO");
/// ptrace(2) of any process
pub const SYS_PTRACE: u64 = bit("SYS_PTRACE");
/// acct(2)
pub const SYS_PACCT: u64 = bit("SYS_PACCT");
/// mount(2) and very much else
pub const SYS_ADMIN: u64 = bit("SYS_ADMIN");
/// reboot(2)
pub const SYS_BOOT: u64 = bit("SYS_BOOT");
/// set_mempolicy(2) and priorities
pub const SYS_NICE: u64 = bit("SYS_NICE");
/// clock_settime(2)
pub const SYS_TIME: u64 = bit("SYS_TIME");
/// vhangup(2)
pub const SYS_TTY_CONFIG: u64 = bit("SYS_TTY_CONFIG");
/// syslog(2)
pub const SYSLOG: u64 = bit("SYSLOG");
/// perf_event_open(2)
pub const PERFMON: u64 = bit("PERFMON");
/// bpf(2)
pub const BPF: u64 = bit("BPF");

/// What `--cap-add` and `--cap-drop` make of the default set. Names are taken
/// in any case, with or without `CAP_`; `ALL` means every capability.
///
/// # Errors
/// A message about a name that is unknown, or given to both options.
pub fn resolve(add: &[String], drop: &[String]) -> Result<Kept, String> {
    let (add, add_all) = parse(add)?;
    let (drop, drop_all) = parse(drop)?;
    if add_all && drop_all {
        return Err("capability ALL cannot be both added and dropped".to_owned());
    }
    if let Some(name) = names(add & drop).first() {
        return Err(format!(
            "capability {name} cannot be both added and dropped"
        ));
    }
    let start = match (add_all, drop_all) {
        (true, _) => ALL,
        (false, true) => 0,
        (false, false) => DEFAULT,
    };
    Ok(Kept {
        all: (start | add) & !drop,
        ambient: (if add_all { ALL } else { add }) & !drop,
    })
}

/// What a command keeps, as bit sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// Its bounding set, and what it has as root.
    pub all: u64,
    /// Those of them that it has as another user: what was added, as with podman.
    pub ambient: u64,
}

/// The names of a set, without `CAP_`, in the order of their numbers.
pub fn names(set: u64) -> Vec<&'static str> {
    (0u32..)
        .zip(NAMES)
        .filter(|(number, _)| set >> number & 1 == 1)
        .map(|(_, name)| name)
        .collect()
}

/// The capabilities named one by one, and whether `ALL` was among them.
fn parse(list: &[String]) -> Result<(u64, bool), String> {
    let mut set = 0;
    let mut all = false;
    for given in list {
        let upper = given.to_ascii_uppercase();
        let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
        match NAMES.iter().position(|known| *known == name) {
            Some(number) => set |= 1u64 << number,
            None if upper == "ALL" => all = true,
            None => return Err(format!("unknown capability {given:?}")),
        }
    }
    Ok((set, all))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(add: &[&str], drop: &[&str]) -> Result<u64, String> {
        let owned = |list: &[&str]| {
            list.iter()
                .map(|name| (*name).to_owned())
                .collect::<Vec<_>>()
        };
        resolve(&owned(add), &owned(drop)).map(|kept| kept.all)
    }

    #[test]
    fn another_user_has_what_was_added() {
        let ambient = |add: &str, drop: &str| {
            let list = |name: &str| vec![name.to_owned()];
            resolve(&list(add), &list(drop)).unwrap().ambient
        };
        assert_eq!(ambient("NET_RAW", "CHOWN"), NET_RAW);
        assert_eq!(ambient("ALL", "CHOWN"), ALL & !CHOWN);
        assert_eq!(resolve(&[], &[]).unwrap().ambient, 0);
    }

    #[test]
    fn numbers_are_the_kernels() {
        // linux/capability.h
        for (name, number) in [
            ("CHOWN", 0),
            ("SETUID", 7),
            ("NET_RAW", 13),
            ("SYS_CHROOT", 18),
            ("SYS_ADMIN", 21),
            ("MKNOD", 27),
            ("SETFCAP", 31),
            ("BPF", 39),
            ("CHECKPOINT_RESTORE", 40),
        ] {
            assert_eq!(bit(name), 1 << number, "{name}");
        }
        // podman's default set, as /proc/PID/status shows it.
        assert_eq!(DEFAULT, 0x8004_05fb);
        assert_eq!(names(ALL).len(), 41);
    }

    #[test]
    fn lists_are_merged_as_podman_does() {
        assert_eq!(resolved(&[], &[]), Ok(DEFAULT));
        assert_eq!(
            resolved(&["cap_net_raw", "SYS_ADMIN"], &[]),
            Ok(DEFAULT | NET_RAW | SYS_ADMIN)
        );
        assert_eq!(resolved(&[], &["all"]), Ok(0));
        assert_eq!(resolved(&["Net_Raw"], &["ALL"]), Ok(NET_RAW));
        assert_eq!(resolved(&["ALL"], &["CAP_SYS_ADMIN"]), Ok(ALL & !SYS_ADMIN));
        assert_eq!(resolved(&[], &["chown", "mknod"]), Ok(DEFAULT & !CHOWN));
    }

    #[test]
    fn contradictions_and_typos_are_refused() {
        for (add, drop) in [
            (vec!["ALL"], vec!["ALL"]),
            (vec!["KILL"], vec!["CAP_KILL"]),
            (vec!["CAP_ALL"], vec![]),
            (vec!["CAP_"], vec![]),
            (vec![""], vec![]),
            (vec!["CAP_CAP_KILL"], vec![]),
            (vec!["KILL,CHOWN"], vec![]),
        ] {
            assert!(resolved(&add, &drop).is_err(), "{add:?} {drop:?}");
        }
    }
}
