//! Results that no machine has measured, for the tests.

use std::time::Duration;

use super::backend::Choice;
use super::cases::Case;
use super::machine::Machine;
use super::report::Report;
use super::{Sample, Samples, Spec};

/// A sample with the main figure of its case.
pub(super) fn sample(case: Case, backend: &str, round: u32, result: Result<f64, &str>) -> Sample {
    Sample {
        case,
        mtu: 1500,
        backend: backend.to_owned(),
        round,
        result: result
            .map(|value| [(case.metric().key, value)].into())
            .map_err(str::to_owned),
    }
}

/// The report on these samples.
pub(super) fn report(labels: &[&str], cases: &[Case], samples: &[Sample]) -> Report {
    let backend = |label: &&str| {
        let choice: Choice = format!("{label}:native").parse().unwrap();
        choice.find("/own".as_ref()).unwrap()
    };
    let spec = Spec {
        own: "/own".into(),
        cases: cases.to_vec(),
        backends: labels.iter().map(backend).collect(),
        mtus: vec![1500],
        duration: Duration::from_millis(1500),
        rounds: 2,
        congestion_control: Some("reno".to_owned()),
        cpus: vec![0, 2],
    };
    let machine = Machine {
        cpu: "Abacus".to_owned(),
        cpus: 2,
        kernel: "6.1.0".to_owned(),
        architecture: "x86_64".to_owned(),
        system_congestion_control: "cubic".to_owned(),
        root: false,
        date: "2026-11-24T10:00:00Z".to_owned(),
    };
    let samples = Samples {
        taken: samples.to_vec(),
        interrupted: None,
    };
    Report::new(&spec, machine, &samples)
}
