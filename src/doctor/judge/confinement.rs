//! What a container is held to.

use super::super::facts::Inside;
use super::super::{Finding, Stops};
use super::os;

/// System-call filters.
pub(super) fn filters(inside: Result<&Inside, &str>) -> Finding {
    const PART: &str = "seccomp";
    match inside.map(|inside| inside.filter) {
        Ok(Ok(())) => Finding::ok(PART, "the default filter can be installed (seccomp(2))"),
        Ok(Err(errno)) => Finding::missing(PART, format!("seccomp(2): {}", os(errno)))
            .remedy(
                "a kernel with CONFIG_SECCOMP_FILTER is needed; or run with --security-opt \
                 seccomp=unconfined and --net=builtin:sandbox=false, and without these walls",
            )
            .stops(Stops::Run),
        Err(why) => {
            Finding::missing(PART, format!("not tried: {why}")).remedy("see user namespaces")
        }
    }
}

/// Landlock: second walls around the container and around the process that runs the
/// network, which runs do without where there is none.
pub(super) fn landlock(version: Result<u32, i32>) -> Finding {
    const PART: &str = "Landlock";
    const UNNEEDED: &str = "a second wall around the container and around the process that runs \
                            its network, which runs do without";
    match version {
        Ok(version) => Finding::ok(PART, format!("ABI version {version}; {UNNEEDED}")),
        Err(libc::EOPNOTSUPP) => Finding::missing(
            PART,
            format!("built in, but not switched on at boot; {UNNEEDED}"),
        )
        .remedy("as root, boot with 'landlock' in the list of lsm= (/sys/kernel/security/lsm)"),
        Err(errno) => Finding::missing(
            PART,
            format!("landlock_create_ruleset(2): {}; {UNNEEDED}", os(errno)),
        )
        .remedy("a kernel with CONFIG_SECURITY_LANDLOCK, and no filter around that forbids it"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::State;
    use super::super::testing::inside;
    use super::*;

    #[test]
    fn walls() {
        assert_eq!(filters(Ok(&inside())).state, State::Ok);
        let none = Inside {
            filter: Err(libc::EINVAL),
            ..inside()
        };
        let finding = filters(Ok(&none));
        assert_eq!(finding.stops, Some(Stops::Run));
        assert!(finding.remedy.unwrap().contains("CONFIG_SECCOMP_FILTER"));
        assert_eq!(filters(Err("x")).stops, None);
        assert!(landlock(Ok(4)).found.starts_with("ABI version 4"));
        assert!(
            landlock(Err(libc::EOPNOTSUPP))
                .remedy
                .unwrap()
                .contains("lsm=")
        );
        assert!(
            landlock(Err(libc::ENOSYS))
                .remedy
                .unwrap()
                .contains("CONFIG_")
        );
    }
}
