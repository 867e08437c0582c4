//! The container's link.

use super::super::facts::{Inside, Tun};
use super::super::{Finding, Stops};
use super::os;
use crate::error::{Hint, StepFailure};

/// Whether a TAP device can be made.
pub(super) fn has_tap(inside: Result<&Inside, &str>) -> bool {
    inside.is_ok_and(|inside| inside.tap.is_ok())
}

/// The TAP device. Without it a run does with a veth pair.
pub(super) fn tap(inside: Result<&Inside, &str>, node: &Tun) -> Finding {
    const PART: &str = "TAP";
    let missing = |found: String, remedy: String| Finding::missing(PART, found).remedy(remedy);
    match node {
        Tun::Unseen(errno) => {
            let hint = Hint::of_tun(*errno).unwrap_or(Hint::TunMissing);
            return missing(format!("/dev/net/tun: {}", os(*errno)), hint.remedy());
        }
        Tun::NotADevice => {
            return missing(
                "/dev/net/tun is no character device".to_owned(),
                "as root, 'rm /dev/net/tun; mknod -m 0666 /dev/net/tun c 10 200'".to_owned(),
            );
        }
        Tun::Device {
            mode,
            opened: Err(errno),
        } => {
            let hint = Hint::of_tun(*errno).unwrap_or(Hint::TunForbidden);
            return missing(
                format!("/dev/net/tun (mode {mode:04o}): {}", os(*errno)),
                hint.remedy(),
            );
        }
        Tun::Device { opened: Ok(()), .. } => {}
    }
    match inside.map(|inside| &inside.tap) {
        Ok(Ok(_)) => Finding::ok(PART, "/dev/net/tun can be opened and makes a TAP device"),
        Ok(Err(failure)) => {
            let hint = Hint::of_tun(failure.errno);
            missing(
                failure.to_string(),
                hint.map_or_else(
                    || "see the kernel's log; or run with --net=builtin:link=veth".to_owned(),
                    |hint| hint.remedy(),
                ),
            )
        }
        Err(why) => Finding::missing(
            PART,
            format!("/dev/net/tun can be opened, but making a TAP device was not tried: {why}"),
        )
        .remedy("see user namespaces"),
    }
}

/// The veth pair; `needed`: there is no other link.
pub(super) fn veth(inside: Result<&Inside, &str>, needed: bool) -> Finding {
    const PART: &str = "veth";
    match inside.map(|inside| &inside.veth) {
        Ok(Ok(())) => Finding::ok(PART, "a veth pair and a packet socket can be made"),
        Ok(Err(failure)) => {
            let finding = Finding::missing(PART, failure.to_string()).remedy(veth_remedy(failure));
            if needed {
                finding.stops(Stops::Builtin)
            } else {
                finding
            }
        }
        Err(why) => {
            Finding::missing(PART, format!("not tried: {why}")).remedy("see user namespaces")
        }
    }
}

fn veth_remedy(failure: &StepFailure) -> String {
    match failure.errno {
        libc::EOPNOTSUPP | libc::EAFNOSUPPORT => "as root, 'modprobe veth' and 'modprobe \
             af_packet' (kernel: CONFIG_VETH, CONFIG_PACKET)"
            .to_owned(),
        _ => Hint::Confined.remedy(),
    }
}

/// What the TAP device takes off the container's kernel.
pub(super) fn offloads(inside: Result<&Inside, &str>) -> Finding {
    const PART: &str = "offloads";
    match inside.map(|inside| &inside.tap) {
        Ok(Ok(offloads)) => match (offloads.tcp, offloads.udp) {
            (true, true) => Finding::ok(
                PART,
                "checksums, TCP and UDP segmentation, both IP versions (TUNSETOFFLOAD)",
            ),
            (true, false) => Finding::limited(
                PART,
                "checksums and TCP segmentation; no UDP segmentation (TUNSETOFFLOAD refuses \
                 TUN_F_USO4), so a datagram at a time",
            )
            .remedy("only a kernel that has TUN_F_USO4 gives it (Linux 6.2 is the first)"),
            (false, _) => Finding::limited(
                PART,
                "none (TUNSETOFFLOAD refuses TUN_F_TSO4): transfers are slow",
            )
            .remedy("only another kernel gives them"),
        },
        _ => Finding::missing(PART, "there is no TAP device to ask").remedy("see TAP"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::State;
    use super::super::testing::inside;
    use super::*;
    use crate::net::probe::Offloads;

    const OPEN: Tun = Tun::Device {
        mode: 0o666,
        opened: Ok(()),
    };

    fn failure(object: &str, errno: i32) -> StepFailure {
        StepFailure::new("make", object, &std::io::Error::from_raw_os_error(errno))
    }

    #[test]
    fn the_node() {
        let all = inside();
        assert_eq!(tap(Ok(&all), &OPEN).state, State::Ok);
        for (node, found, remedy) in [
            (Tun::Unseen(libc::ENOENT), "No such file", "modprobe tun"),
            (Tun::Unseen(libc::EACCES), "denied", "chmod 0666"),
            (Tun::NotADevice, "no character device", "mknod"),
            (
                Tun::Device {
                    mode: 0o600,
                    opened: Err(libc::EACCES),
                },
                "(mode 0600)",
                "chmod 0666 /dev/net/tun",
            ),
            (
                Tun::Device {
                    mode: 0o666,
                    opened: Err(libc::ENODEV),
                },
                "No such device",
                "modprobe tun",
            ),
        ] {
            let finding = tap(Ok(&all), &node);
            assert_eq!(finding.state, State::Missing);
            assert_eq!(finding.stops, None);
            assert!(finding.found.contains(found), "{finding:?}");
            assert!(
                finding.remedy.as_ref().unwrap().contains(remedy),
                "{finding:?}"
            );
        }
    }

    #[test]
    fn a_node_that_makes_nothing() {
        let refused = Inside {
            tap: Err(failure("/dev/net/tun", libc::EPERM)),
            ..inside()
        };
        let finding = tap(Ok(&refused), &OPEN);
        assert_eq!(finding.state, State::Missing);
        assert!(!has_tap(Ok(&refused)) && has_tap(Ok(&inside())));
        assert_eq!(tap(Err("x"), &OPEN).stops, None);
    }

    #[test]
    fn pairs() {
        assert_eq!(veth(Ok(&inside()), true).state, State::Ok);
        let without = |errno| Inside {
            veth: Err(failure("a veth pair", errno)),
            ..inside()
        };
        let finding = veth(Ok(&without(libc::EOPNOTSUPP)), false);
        assert_eq!((finding.state, finding.stops), (State::Missing, None));
        assert!(finding.remedy.unwrap().contains("modprobe veth"));
        let finding = veth(Ok(&without(libc::EPERM)), true);
        assert_eq!(finding.stops, Some(Stops::Builtin));
        assert!(finding.remedy.unwrap().contains("seccomp"));
    }

    #[test]
    fn what_is_taken_off() {
        let with = |tcp, udp| {
            let inside = Inside {
                tap: Ok(Offloads { tcp, udp }),
                ..inside()
            };
            offloads(Ok(&inside))
        };
        assert_eq!(with(true, true).state, State::Ok);
        assert!(with(true, false).found.contains("TUN_F_USO4"));
        assert!(with(false, false).found.contains("TUN_F_TSO4"));
        assert_eq!(offloads(Err("x")).state, State::Missing);
    }
}
