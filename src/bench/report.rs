//! Samples to results, and the JSON that has all of it.

use std::collections::BTreeMap;

use serde::Serialize;

use super::backend::Backend;
use super::cases::{Case, Metric};
use super::machine::Machine;
use super::sample::Figures;
use super::stats::Summary;
use super::{Samples, Spec};

/// The version of the JSON's shape.
const SCHEMA: u32 = 1;

/// Everything about one run of the benchmark; serialized, it is the JSON output.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Version of this shape.
    pub schema: u32,
    /// Where and when.
    pub machine: Machine,
    /// How.
    pub settings: Settings,
    /// What was compared, in order.
    pub backends: Vec<Backend>,
    /// What was measured, in order.
    pub cases: Vec<CaseInfo>,
    /// Whether it was ended early.
    pub complete: bool,
    /// By MTU, then case, then backend, in the orders above.
    pub results: Vec<Outcome>,
    /// Every sample, in the order in which they were taken.
    pub samples: Vec<SampleInfo>,
}

/// The options.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Settings {
    /// Seconds per sample.
    pub seconds: f64,
    /// Samples of each.
    pub rounds: u32,
    /// MTUs of the links.
    pub mtus: Vec<u16>,
    /// Of both ends; `null` for the system's default.
    pub congestion_control: Option<String>,
    /// The CPUs that everything was confined to; empty for all.
    pub cpus: Vec<usize>,
}

/// A case and its main figure.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CaseInfo {
    /// Its name on the command line.
    pub name: Case,
    /// What it is, in words.
    pub title: String,
    /// The figure that it is about.
    pub metric: Metric,
}

/// One case over one backend.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// The case.
    pub case: Case,
    /// MTU of the link.
    pub mtu: u16,
    /// The backend's label.
    pub backend: String,
    /// How many samples gave nothing.
    pub failures: usize,
    /// Why the last of those did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The figures by their keys.
    pub figures: BTreeMap<&'static str, Summary>,
}

/// One sample.
#[derive(Debug, Clone, Serialize)]
pub struct SampleInfo {
    case: Case,
    mtu: u16,
    backend: String,
    round: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    figures: Option<Figures>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl Report {
    /// Sums up what was measured.
    pub fn new(spec: &Spec, machine: Machine, samples: &Samples) -> Self {
        let mut results = Vec::new();
        for &mtu in &spec.mtus {
            for &case in &spec.cases {
                let present = spec.present();
                results.extend(present.filter_map(|b| outcome(samples, case, mtu, &b.label)));
            }
        }
        Self {
            schema: SCHEMA,
            machine,
            settings: Settings {
                seconds: spec.duration.as_secs_f64(),
                rounds: spec.rounds,
                mtus: spec.mtus.clone(),
                congestion_control: spec.congestion_control.clone(),
                cpus: spec.cpus.clone(),
            },
            backends: spec.backends.clone(),
            cases: spec.cases.iter().map(|&case| info(case)).collect(),
            complete: samples.interrupted.is_none(),
            results,
            samples: samples.taken.iter().map(SampleInfo::of).collect(),
        }
    }

    /// The backends that were measured.
    pub fn present(&self) -> impl Iterator<Item = &Backend> {
        self.backends.iter().filter(|backend| !backend.missing)
    }

    /// The result of a case over a backend, if there was any sample of it.
    pub fn outcome(&self, case: Case, mtu: u16, backend: &str) -> Option<&Outcome> {
        self.results.iter().find(|outcome| {
            outcome.case == case && outcome.mtu == mtu && outcome.backend == backend
        })
    }

    /// Machine, kernel, settings and date, as the heads of table and chart have them.
    pub fn circumstances(&self, mtu: u16) -> [String; 2] {
        let machine = &self.machine;
        let cpus = match (self.settings.cpus.as_slice(), machine.cpus) {
            ([], 1) => "1 CPU".to_owned(),
            ([], n) => format!("{n} CPUs"),
            (list, _) => {
                let list: Vec<String> = list.iter().map(ToString::to_string).collect();
                format!("on CPU {}", list.join(","))
            }
        };
        let ours = self.settings.congestion_control.as_deref();
        let system = &machine.system_congestion_control;
        let congestion = match ours {
            Some(name) if name != system => format!("{name} (system: {system})"),
            _ => system.clone(),
        };
        [
            format!("{}, {cpus}, Linux {}", machine.cpu, machine.kernel),
            format!(
                "MTU {mtu}, congestion control {congestion}, {} s per sample, {}, as {}, {}",
                self.settings.seconds,
                match self.settings.rounds {
                    1 => "1 round".to_owned(),
                    n => format!("{n} interleaved rounds"),
                },
                if machine.root {
                    "root"
                } else {
                    "an ordinary user"
                },
                machine.day(),
            ),
        ]
    }
}

impl Outcome {
    /// One of its figures.
    pub fn figure(&self, metric: Metric) -> Option<Summary> {
        self.figures.get(metric.key).copied()
    }
}

impl SampleInfo {
    fn of(sample: &super::Sample) -> Self {
        Self {
            case: sample.case,
            mtu: sample.mtu,
            backend: sample.backend.clone(),
            round: sample.round,
            figures: sample.result.as_ref().ok().cloned(),
            error: sample.result.as_ref().err().cloned(),
        }
    }
}

fn info(case: Case) -> CaseInfo {
    CaseInfo {
        name: case,
        title: case.title(),
        metric: case.metric(),
    }
}

fn outcome(samples: &Samples, case: Case, mtu: u16, backend: &str) -> Option<Outcome> {
    let mut figures: BTreeMap<&'static str, Vec<f64>> = BTreeMap::new();
    let mut failures = 0;
    let mut error = None;
    let mut any = false;
    let mine = samples
        .taken
        .iter()
        .filter(|sample| sample.case == case && sample.mtu == mtu && sample.backend == backend);
    for sample in mine {
        any = true;
        match &sample.result {
            Ok(result) => {
                for (&key, &value) in result {
                    figures.entry(key).or_default().push(value);
                }
            }
            Err(reason) => {
                failures += 1;
                error = Some(reason.clone());
            }
        }
    }
    any.then(|| Outcome {
        case,
        mtu,
        backend: backend.to_owned(),
        failures,
        error,
        figures: figures
            .into_iter()
            .filter_map(|(key, values)| Some((key, Summary::of(values)?)))
            .collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::testing::{report, sample};

    #[test]
    fn samples_of_a_case_and_backend_are_summed_up() {
        let case = Case::TcpRr;
        let samples = [
            sample(case, "native", 1, Ok(5.0)),
            sample(case, "pasta", 1, Ok(9.0)),
            sample(case, "native", 2, Ok(1.0)),
            sample(case, "native", 3, Err("gone")),
            sample(Case::UdpRr, "native", 1, Ok(100.0)),
        ];
        let report = report(&["native", "pasta"], &[case, Case::UdpRr], &samples);
        let native = report.outcome(case, 1500, "native").unwrap();
        assert_eq!(
            (native.failures, native.error.as_deref()),
            (1, Some("gone"))
        );
        let figure = native.figure(case.metric()).unwrap();
        assert_eq!(
            (figure.median, figure.min, figure.max, figure.n),
            (3.0, 1.0, 5.0, 2)
        );
        assert!(report.outcome(Case::UdpRr, 1500, "pasta").is_none());
        assert!(report.outcome(case, 65520, "native").is_none());
    }

    #[test]
    fn the_json_has_results_samples_and_circumstances() {
        let samples = [sample(Case::TcpUp(4), "native", 1, Ok(40.0))];
        let report = report(&["native"], &[Case::TcpUp(4)], &samples);
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["schema"], 1);
        assert_eq!(json["complete"], true);
        assert_eq!(json["machine"]["kernel"], "6.1.0");
        assert_eq!(json["settings"]["congestion_control"], "reno");
        assert_eq!(json["settings"]["cpus"], serde_json::json!([0, 2]));
        assert_eq!(json["cases"][0]["name"], "tcp_up_4");
        assert_eq!(json["cases"][0]["metric"]["unit"], "Gbit/s");
        assert_eq!(json["backends"][0]["kind"], "native");
        assert_eq!(json["results"][0]["figures"]["gbit_per_s"]["median"], 40.0);
        assert_eq!(json["samples"][0]["figures"]["gbit_per_s"], 40.0);
    }

    #[test]
    fn the_circumstances_name_what_matters() {
        let [machine, settings] = report(&["native"], &[], &[]).circumstances(1500);
        assert_eq!(machine, "Abacus, on CPU 0,2, Linux 6.1.0");
        assert_eq!(
            settings,
            "MTU 1500, congestion control reno (system: cubic), 1.5 s per sample, \
             2 interleaved rounds, as an ordinary user, 2026-11-24"
        );
    }
}
