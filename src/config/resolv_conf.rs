//! resolv.conf(5), as much as a forwarder needs.

use std::net::IpAddr;

/// The addresses of the `nameserver` lines; other lines, and addresses that mean
/// nothing outside this host (`fe80::1%eth0`), are passed over.
pub fn nameservers(text: &str) -> Vec<IpAddr> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_ascii_whitespace();
            (words.next() == Some("nameserver")).then(|| words.next()?.parse().ok())?
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_usable_addresses() {
        let text = "# c\nnameserver 127.0.0.53\n nameserver  ::1 \nnameserver fe80::1%eth0\n\
                    nameserver bad\nsearch a.example\noptions edns0\nnameserver\n";
        let expected: [IpAddr; 2] = ["127.0.0.53".parse().unwrap(), "::1".parse().unwrap()];
        assert_eq!(nameservers(text), expected);
    }
}
