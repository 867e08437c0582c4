//! DHCP for a container that asks, though all that it says is set already.
//!
//! # Theory of operation
//!
//! There is one client and one address, so there are no leases to keep: each
//! message is answered out of the configuration and itself, and nothing is
//! remembered. The address is the container's for good.

pub(crate) mod v4;
pub(crate) mod v6;

/// Longest label and name (RFC 1035, 2.3.4), bytes.
const MAX_LABEL: usize = 63;
const MAX_NAME: usize = 255;

/// Names as a search list has them (RFC 3397, RFC 8415, 10): labels, not
/// compressed. What is no name is left out.
fn search_list(names: &[String]) -> Vec<u8> {
    let mut list = Vec::new();
    for name in names {
        let labels = name.trim_end_matches('.').split('.');
        let valid = |label: &str| (1..=MAX_LABEL).contains(&label.len());
        if name.len() + 2 > MAX_NAME || !labels.clone().all(valid) {
            continue;
        }
        for label in labels {
            // At most 63, as was seen.
            list.extend(u8::try_from(label.len()));
            list.extend_from_slice(label.as_bytes());
        }
        list.push(0);
    }
    list
}

#[cfg(test)]
mod tests {
    use super::search_list;

    #[test]
    fn names() {
        let encoded = |names: &[&str]| {
            let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
            search_list(&names)
        };
        assert_eq!(encoded(&["a.bc", "d."]), b"\x01a\x02bc\0\x01d\0");
        let long = "x".repeat(64);
        let many = "abc.".repeat(64);
        assert_eq!(encoded(&["", ".", "a..b", &long, &many, "e"]), b"\x01e\0");
    }
}
