//! Facts of a machine that has everything.

use super::super::facts::{Inside, Surroundings};
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
