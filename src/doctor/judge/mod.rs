//! What the facts mean: pure functions from facts to findings, in the order in which a
//! run needs the parts.

mod cgroups;
mod confinement;
mod files;
mod host;
mod ids;
mod link;
mod namespaces;
#[cfg(test)]
mod testing;

use super::facts::{Facts, Trial, Trials};
use super::{Diagnosis, Finding, Stops, Verdict};

/// What follows from all of them.
pub fn diagnose(facts: &Facts) -> Diagnosis {
    let around = &facts.surroundings;
    let inside = facts.tried.inside.as_ref();
    let inside = inside.map_err(String::as_str);
    let host = &facts.host;
    let findings = vec![
        Finding::ok("kernel", around.kernel.clone()),
        namespaces::user(&facts.tried, around),
        namespaces::others(&facts.tried, around),
        ids::judge(&facts.ids),
        files::rootfs(&facts.rootfs),
        files::kernel(inside, around),
        link::tap(inside, &facts.tun),
        link::veth(inside, !link::has_tap(inside)),
        link::offloads(inside),
        host::v4(&host.v4),
        host::v6(&host.v6, host.has_v6, around),
        host::resolvers(&host.resolvers),
        host::echo(host, around),
        host::ports(host, around),
        host::descriptors(around.descriptors),
        confinement::filters(inside),
        confinement::landlock(facts.landlock),
        cgroups::judge(&facts.cgroups, around.root),
    ];
    let verdict = verdict(&facts.trials, &findings);
    Diagnosis { findings, verdict }
}

/// Whether runs work, and which findings say why not.
fn verdict(trials: &Trials, findings: &[Finding]) -> Verdict {
    let one = |option: &str, trial: &Trial, stops: &[Stops]| match trial {
        Trial::Works => format!("run {option} works"),
        Trial::Fails(message) => {
            let parts: Vec<&str> = findings
                .iter()
                .filter(|finding| finding.stops.is_some_and(|what| stops.contains(&what)))
                .map(|finding| finding.part)
                .collect();
            let why = if parts.is_empty() {
                String::new()
            } else {
                format!("for want of {}, ", parts.join(", "))
            };
            format!("run {option} does not work: {why}it says '{message}'")
        }
    };
    let text = [
        one("--net=none", &trials.none, &[Stops::Run]),
        one(
            "--net=builtin",
            &trials.builtin,
            &[Stops::Run, Stops::Builtin],
        ),
    ];
    Verdict {
        none: trials.none == Trial::Works,
        builtin: trials.builtin == Trial::Works,
        text: text.join("; "),
    }
}

/// The OS error's words.
fn os(errno: i32) -> String {
    std::io::Error::from_raw_os_error(errno).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_put_down_to_what_is_missing() {
        let failed = Trial::Fails("open: /dev/net/tun".to_owned());
        let trials = |none: &Trial, builtin: &Trial| Trials {
            none: none.clone(),
            builtin: builtin.clone(),
        };
        let tap = Finding::missing("TAP", "none").stops(Stops::Builtin);
        let good = verdict(&trials(&Trial::Works, &Trial::Works), &[]);
        assert!(good.none && good.builtin);
        assert_eq!(good.text, "run --net=none works; run --net=builtin works");
        let bad = verdict(&trials(&Trial::Works, &failed), std::slice::from_ref(&tap));
        assert!(bad.none && !bad.builtin);
        assert_eq!(
            bad.text,
            "run --net=none works; run --net=builtin does not work: for want of TAP, it says \
             'open: /dev/net/tun'"
        );
        // What stops only the network does not explain why none of it works.
        let worse = verdict(&trials(&failed, &failed), &[tap]);
        assert!(
            worse
                .text
                .starts_with("run --net=none does not work: it says"),
            "{}",
            worse.text
        );
    }
}
