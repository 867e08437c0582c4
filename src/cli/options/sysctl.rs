//! `--sysctl` and `--shm-size`.

use super::{shown, usage};
use crate::config::{DEFAULT_SHM_SIZE, Namespaces, Sysctl, SysctlOwner};
use crate::error::Error;

/// A sysctl takes one write(2), of less than a page (fs/proc/proc_sysctl.c).
const VALUE_MOST: usize = 4095;

/// `--sysctl KEY=VALUE`; the last value of a key holds.
pub(super) fn sysctls(words: &[String], namespaces: &Namespaces) -> Result<Vec<Sysctl>, Error> {
    let mut sysctls: Vec<Sysctl> = Vec::new();
    for word in words {
        let sysctl = sysctl(word, namespaces)
            .map_err(|why| usage(format!("--sysctl {}: {why}", shown(word))))?;
        sysctls.retain(|before| before.key != sysctl.key);
        sysctls.push(sysctl);
    }
    Ok(sysctls)
}

fn sysctl(word: &str, namespaces: &Namespaces) -> Result<Sysctl, String> {
    let (key, value) = word.split_once('=').ok_or("KEY=VALUE is needed")?;
    let key = dotted(key)?;
    let owner = SysctlOwner::of(&key).ok_or(
        "the container has no such parameter for itself (it has net.*, kernel.msgmax, \
         kernel.msgmnb, kernel.msgmni, kernel.sem, kernel.shm_rmid_forced, kernel.shmall, \
         kernel.shmmax, kernel.shmmni, fs.mqueue.*, kernel.domainname)",
    )?;
    let (is_private, option) = match owner {
        SysctlOwner::Ipc => (namespaces.ipc, "--ipc=host"),
        SysctlOwner::Network => (namespaces.net, "--net=host"),
        SysctlOwner::Uts => (namespaces.uts, "--uts=host"),
    };
    if !is_private {
        return Err(format!("with {option} it is the host's"));
    }
    if key == "kernel.hostname" {
        return Err("--hostname sets it, and the files that name it".to_owned());
    }
    if value.is_empty() || value.len() > VALUE_MOST {
        return Err(format!("a value of 1 to {VALUE_MOST} bytes is needed"));
    }
    // A line feed ends a value; nothing that a terminal acts on belongs in one.
    if value.chars().any(|c| c.is_control() && c != '\t') {
        return Err("a value has no control characters".to_owned());
    }
    Ok(Sysctl {
        key,
        value: value.to_owned(),
    })
}

/// `net.core.somaxconn`, or `net/core/somaxconn` as sysctl(8) takes it, too: the
/// separator is one of the two throughout, so that neither can be in a part.
fn dotted(key: &str) -> Result<String, String> {
    match (key.contains('.'), key.contains('/')) {
        (true, true) => Err("the key has . and /, and only one can separate its parts".to_owned()),
        (false, true) => Ok(key.replace('/', ".")),
        _ => Ok(key.to_owned()),
    }
}

/// `--shm-size`: bytes, or a number with b, k, m or g; 0 is no limit.
pub(super) fn shm_size(text: Option<&str>, namespaces: &Namespaces) -> Result<u64, Error> {
    let Some(text) = text else {
        return Ok(DEFAULT_SHM_SIZE);
    };
    let refused = |why: &str| usage(format!("--shm-size {}: {why}", shown(text)));
    if !namespaces.ipc {
        return Err(refused("with --ipc=host /dev/shm is the host's"));
    }
    let digits = text.strip_suffix(['b', 'B']).unwrap_or(text);
    if !digits.is_empty() && digits.bytes().all(|byte| byte == b'0') {
        return Ok(0);
    }
    super::mounts::bytes(digits).ok_or_else(|| {
        refused("it is not a size (bytes, or a number with b, k, m or g; 0 for no limit)")
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(words: &[&str]) -> Result<Vec<Sysctl>, Error> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        sysctls(&words, &Namespaces::PRIVATE)
    }

    fn pair(key: &str, value: &str) -> Sysctl {
        Sysctl {
            key: key.to_owned(),
            value: value.to_owned(),
        }
    }

    #[test]
    fn both_separators_name_the_same_key() {
        for (word, wanted) in [
            ("net.ipv4.ip_forward=1", pair("net.ipv4.ip_forward", "1")),
            ("net/ipv4/ip_forward=1", pair("net.ipv4.ip_forward", "1")),
            (
                "net.ipv4.ip_local_port_range=1024 65000",
                pair("net.ipv4.ip_local_port_range", "1024 65000"),
            ),
            ("kernel.sem=1\t2\t3\t4", pair("kernel.sem", "1\t2\t3\t4")),
            ("kernel.domainname=a=b", pair("kernel.domainname", "a=b")),
        ] {
            assert_eq!(parse(&[word]).unwrap(), [wanted], "{word}");
        }
    }

    // CVE-2022-0811: a value with `+` led to another key.
    #[test]
    fn no_other_file_can_be_named() {
        for word in [
            "",
            "=",
            "net.x",
            "net.ipv4.ip_forward=",
            "=1",
            "kernel.core_pattern=|/x",
            "kernel/core_pattern=|/x",
            "vm.swappiness=1",
            "net.ipv4/../../kernel/core_pattern=1",
            "net/../kernel/core_pattern=1",
            "net...kernel.core_pattern=1",
            "/net/ipv4/ip_forward=1",
            "net//ipv4=1",
            "net.ipv4.ip_forward+kernel.core_pattern=1",
            "net.ipv4.ip_forward=1\nkernel.core_pattern=|/x",
            "net.ipv4.ip_forward\nkernel.core_pattern=1",
            "net.ipv4.ip_forward=1\0",
            "net.ipv4.ip_forward=\u{1b}[1m",
            " net.ipv4.ip_forward=1",
            "net.ipv4.ip_forward =1",
            "kernel.hostname=x",
            "kernel.shm=1",
        ] {
            assert!(parse(&[word]).is_err(), "{word:?}");
        }
        let long = format!("net.ipv4.ip_forward={}", "1".repeat(VALUE_MOST + 1));
        assert!(parse(&[&long]).is_err());
    }

    #[test]
    fn the_hosts_parameters_stay_as_they_are() {
        for (word, host) in [
            (
                "net.ipv4.ip_forward=1",
                Namespaces {
                    net: false,
                    ..Namespaces::PRIVATE
                },
            ),
            (
                "kernel.msgmax=1",
                Namespaces {
                    ipc: false,
                    ..Namespaces::PRIVATE
                },
            ),
            (
                "fs.mqueue.msg_max=1",
                Namespaces {
                    ipc: false,
                    ..Namespaces::PRIVATE
                },
            ),
            (
                "kernel.domainname=x",
                Namespaces {
                    uts: false,
                    ..Namespaces::PRIVATE
                },
            ),
        ] {
            let error = sysctls(&[word.to_owned()], &host).unwrap_err().to_string();
            assert!(error.contains("it is the host's"), "{word}: {error}");
        }
    }

    #[test]
    fn the_last_value_of_a_key_holds() {
        let parsed = parse(&["net.a=1", "net.b=2", "net/a=3"]).unwrap();
        assert_eq!(parsed, [pair("net.b", "2"), pair("net.a", "3")]);
    }

    #[test]
    fn sizes_of_shm() {
        for (text, wanted) in [
            ("0", Some(0)),
            ("0b", Some(0)),
            ("4096", Some(4096)),
            ("4096b", Some(4096)),
            ("2k", Some(2048)),
            ("1M", Some(1 << 20)),
            ("3g", Some(3 << 30)),
            ("", None),
            ("b", None),
            ("k", None),
            ("-1", None),
            ("1.5g", None),
            ("1kb", Some(1024)),
            ("1t", None),
            ("99999999999g", None),
        ] {
            assert_eq!(
                shm_size(Some(text), &Namespaces::PRIVATE).ok(),
                wanted,
                "{text}"
            );
        }
        assert_eq!(
            shm_size(None, &Namespaces::PRIVATE).unwrap(),
            DEFAULT_SHM_SIZE
        );
        let host = Namespaces {
            ipc: false,
            ..Namespaces::PRIVATE
        };
        assert_eq!(shm_size(None, &host).unwrap(), DEFAULT_SHM_SIZE);
        assert!(shm_size(Some("1m"), &host).is_err());
    }

    proptest! {
        #[test]
        fn whatever_is_taken_is_of_a_namespace(word in "(net|kernel|fs|)[./a-z=+\n 0-9]{0,24}") {
            if let Ok(parsed) = parse(&[&word]) {
                let sysctl = &parsed[0];
                prop_assert!(SysctlOwner::of(&sysctl.key).is_some());
                prop_assert!(!sysctl.key.contains('/') && !sysctl.key.contains(".."));
                prop_assert!(!sysctl.value.contains('\n'));
            }
        }
    }
}
