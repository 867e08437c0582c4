//! `crun-lite doctor`: what this host offers for every part of the program, and how to
//! get what is missing.
//!
//! # Theory of operation
//!
//! [`facts`] looks and tries; [`judge`] makes findings of what came of it, and is
//! pure: what this machine does not have is a value in a test. What can be tried is
//! tried, with the code that a run uses, in a child with namespaces of its own, which
//! end with it; nothing of the host is changed. Versions decide nothing.
//!
//! The findings say why; whether a run works, two runs say: containers with the
//! defaults, with and without a network, that end at once.

pub mod facts;
pub mod judge;

use serde::Serialize;

/// How much of a part there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// All of it.
    Ok,
    /// Less than there could be.
    Limited,
    /// Nothing.
    Missing,
}

impl State {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Limited => "limited",
            Self::Missing => "missing",
        }
    }
}

/// What does not work without a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Stops {
    /// `run` at all.
    Run,
    /// `run --net=builtin`.
    Builtin,
}

/// What was found of one part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which part.
    pub part: &'static str,
    /// How much of it there is.
    pub state: State,
    /// What was found, with its object.
    pub found: String,
    /// What to do to have more, and as whom.
    pub remedy: Option<String>,
    /// What does not work like this.
    pub stops: Option<Stops>,
}

impl Finding {
    fn new(part: &'static str, state: State, found: impl Into<String>) -> Self {
        Self {
            part,
            state,
            found: found.into(),
            remedy: None,
            stops: None,
        }
    }

    fn ok(part: &'static str, found: impl Into<String>) -> Self {
        Self::new(part, State::Ok, found)
    }

    fn limited(part: &'static str, found: impl Into<String>) -> Self {
        Self::new(part, State::Limited, found)
    }

    fn missing(part: &'static str, found: impl Into<String>) -> Self {
        Self::new(part, State::Missing, found)
    }

    fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    fn stops(mut self, what: Stops) -> Self {
        self.stops = Some(what);
        self
    }
}

/// Whether runs work, tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// `run --net=none` works.
    pub none: bool,
    /// `run --net=builtin`, the default, works.
    pub builtin: bool,
    /// The same in words, and why not.
    pub text: String,
}

/// Everything that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnosis {
    /// Part by part.
    pub findings: Vec<Finding>,
    /// What follows.
    pub verdict: Verdict,
}

/// Looks at everything. The caller must have one thread only.
pub fn examine() -> Diagnosis {
    judge::diagnose(&facts::gather())
}
