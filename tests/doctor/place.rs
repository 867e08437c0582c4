//! What `crun-lite doctor` says somewhere, and what runs do there.

use serde_json::Value;

use crate::util::{CrunLite, Who};

/// What it said.
pub(super) struct Said {
    pub(super) json: Value,
    code: Option<i32>,
}

impl Said {
    /// What of a part: state and sentence.
    #[track_caller]
    pub(super) fn of(&self, part: &str) -> (&str, &str) {
        let finding = self.finding(part);
        (text(&finding["state"]), text(&finding["found"]))
    }

    #[track_caller]
    pub(super) fn finding(&self, part: &str) -> &Value {
        let findings = self.json["findings"].as_array().unwrap();
        findings
            .iter()
            .find(|finding| finding["part"] == part)
            .unwrap_or_else(|| panic!("no {part}: {:#}", self.json))
    }

    /// Holds a part to a state, and its sentence and remedy to what they must name.
    #[track_caller]
    pub(super) fn says(&self, part: &str, state: &str, found: &str, remedy: &str) {
        let finding = self.finding(part);
        assert_eq!(text(&finding["state"]), state, "{finding:#}");
        assert!(
            text(&finding["found"]).contains(found),
            "{found}: {finding:#}"
        );
        let words = finding["remedy"].as_str().unwrap_or_default();
        assert!(words.contains(remedy), "{remedy}: {finding:#}");
    }

    /// Holds the verdict to the runs that were made beside it.
    #[track_caller]
    fn is_borne_out(&self, place: &Place<'_>) {
        let verdict = &self.json["verdict"];
        let findings = self.json["findings"].as_array().unwrap();
        for (key, network, parts) in [
            ("none", "--net=none", &["run"][..]),
            ("builtin", "--net=builtin", &["run", "builtin"]),
        ] {
            let output = place.crun(&["run", network, "--", "true"]).run();
            assert_eq!(
                verdict[key] == true,
                output.code() == Some(0),
                "{verdict:#}{output}"
            );
            // A failure has a finding that explains it, and no other finding claims one.
            let stopped = findings.iter().any(|finding| {
                finding["stops"]
                    .as_str()
                    .is_some_and(|what| parts.contains(&what))
            });
            assert_eq!(stopped, output.code() != Some(0), "{:#}{output}", self.json);
            let words = text(&verdict["text"]);
            let works = format!("run {network} works");
            assert_eq!(words.contains(&works), output.code() == Some(0), "{words}");
        }
        assert_eq!(self.code, Some(i32::from(verdict["builtin"] != true)));
    }
}

#[track_caller]
pub(super) fn text(value: &Value) -> &str {
    value
        .as_str()
        .unwrap_or_else(|| panic!("no text: {value:#}"))
}

/// As whom and where it runs.
pub(super) struct Place<'a> {
    pub(super) who: Who,
    /// Words before it, as root where the tests are.
    pub(super) outside: Vec<&'a str>,
    /// Words right before it, as its user.
    pub(super) through: Vec<&'a str>,
}

impl<'a> Place<'a> {
    pub(super) fn here(who: Who) -> Self {
        Self {
            who,
            outside: Vec::new(),
            through: Vec::new(),
        }
    }

    /// In a mount namespace of its own, in which root has run a script.
    pub(super) fn after(who: Who, script: &'a str) -> Self {
        let outside = [
            "unshare",
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-ec",
            script,
            "sh",
        ];
        Self {
            outside: outside.to_vec(),
            ..Self::here(who)
        }
    }

    pub(super) fn through(who: Who, words: &[&'a str]) -> Self {
        Self {
            through: words.to_vec(),
            ..Self::here(who)
        }
    }

    pub(super) fn crun(&self, args: &[&str]) -> CrunLite {
        CrunLite::new(self.who, args)
            .outermost(&self.outside)
            .through(&self.through)
    }

    #[track_caller]
    pub(super) fn doctor(&self) -> Said {
        let output = self.crun(&["doctor", "--json"]).run();
        let json = serde_json::from_str(&output.stdout).unwrap_or_else(|error| {
            panic!("{error}{output}");
        });
        Said {
            json,
            code: output.code(),
        }
    }

    /// What it says, borne out.
    #[track_caller]
    pub(super) fn examined(&self) -> Said {
        let said = self.doctor();
        said.is_borne_out(self);
        said
    }
}
