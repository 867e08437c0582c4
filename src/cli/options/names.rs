//! Host names (RFC 1123 section 2.1, with the underscores that are in use).

use super::{shown, usage};
use crate::error::Error;

/// `__NEW_UTS_LEN` (sethostname(2)).
const HOSTNAME_MOST: usize = 64;
/// RFC 1035 section 2.3.4.
const LABEL_MOST: usize = 63;
/// RFC 1035 section 2.3.4, as text without the trailing dot.
const NAME_MOST: usize = 253;

/// `--hostname`.
pub(super) fn hostname(name: &str) -> Result<String, Error> {
    check("--hostname", name, HOSTNAME_MOST)
}

/// A name of `--add-host`.
pub(super) fn host(name: &str) -> Result<String, Error> {
    check("--add-host", name, NAME_MOST)
}

/// A domain of `--dns-search`.
pub(super) fn domain(name: &str) -> Result<String, Error> {
    check("--dns-search", name, NAME_MOST)
}

fn check(option: &str, name: &str, most: usize) -> Result<String, Error> {
    if name.len() > most {
        return Err(usage(format!(
            "{option}: a name of {} bytes; {most} are the most",
            name.len()
        )));
    }
    if name.split('.').all(is_label) {
        return Ok(name.to_owned());
    }
    Err(usage(format!(
        "{option}: {} is not a host name (letters, digits, - and _ in parts of at most \
         {LABEL_MOST} bytes, joined by dots)",
        shown(name)
    )))
}

fn is_label(label: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || c == '_';
    !label.is_empty()
        && label.len() <= LABEL_MOST
        && label.chars().all(|c| inner(c) || c == '-')
        && label.starts_with(inner)
        && label.ends_with(inner)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn good_and_bad_names() {
        for good in [
            "a",
            "container",
            "web-1.example.com",
            "my_host",
            "1",
            &"x".repeat(63),
        ] {
            assert_eq!(hostname(good).unwrap(), *good);
        }
        for bad in [
            "",
            ".",
            "a.",
            ".a",
            "a..b",
            "-a",
            "a-",
            "a b",
            "a\n",
            "a/b",
            "é",
            "a:b",
            "--rm",
            &"x".repeat(64),
            &"x.".repeat(40),
            &"x".repeat(64 * 1024),
        ] {
            assert!(hostname(bad).is_err(), "{}", shown(bad));
        }
        assert!(host(&"x.y".repeat(30)).is_ok());
        assert!(hostname(&"x.y".repeat(30)).is_err());
    }

    proptest! {
        #[test]
        fn what_is_accepted_is_kept_and_short(name in ".{0,80}") {
            if let Ok(kept) = hostname(&name) {
                prop_assert_eq!(&kept, &name);
                prop_assert!(kept.len() <= HOSTNAME_MOST && kept.is_ascii());
            }
        }
    }
}
