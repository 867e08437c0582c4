//! Facts of a machine that has everything, and what is said of them.

use super::super::facts::{Inside, Surroundings};
use super::super::{Finding, State};
use crate::fs::Origin;
use crate::net::probe::Offloads;

pub(super) fn around(settings: &[(&'static str, &str)]) -> Surroundings {
    Surroundings {
        settings: settings
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect(),
        ..Surroundings::default()
    }
}

pub(super) fn inside() -> Inside {
    Inside {
        tmpfs: Ok(()),
        proc: Ok(Origin::New),
        sysfs: Ok(Origin::New),
        tap: Ok(Offloads {
            tcp: true,
            udp: true,
        }),
        veth: Ok(()),
        filter: Ok(()),
    }
}

/// A finding that stops nothing is in this state, says this and has this remedy.
#[track_caller]
pub(super) fn says(finding: &Finding, state: State, found: &str, remedy: &str) {
    assert_eq!((finding.state, finding.stops), (state, None), "{finding:?}");
    assert!(finding.found.contains(found), "{finding:?}");
    assert!(
        finding.remedy.as_ref().unwrap().contains(remedy),
        "{finding:?}"
    );
}
