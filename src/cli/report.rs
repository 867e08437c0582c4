//! The error that ends the program, on standard error: one line, and a `hint:`
//! line per thing to do about it. As JSON it is the line that container engines
//! expect of a runtime.

use std::error::Error as _;
use std::io::{self, Write};
use std::process::ExitCode;

use serde::Serialize;

use super::args::LogFormat;
use super::logging::printable;
use crate::error::{EXIT_RUNTIME, Error, Hint};

/// What went wrong and what can be done about it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Report {
    message: String,
    hints: Vec<String>,
    exit_code: u8,
}

impl From<Error> for Report {
    fn from(error: Error) -> Self {
        let hint = error.hint();
        Self::new(&error, hint)
    }
}

impl Report {
    /// With what can be done about it, if that is known.
    pub(super) fn new(error: &Error, hint: Option<Hint>) -> Self {
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            message = format!("{message}: {cause}");
            source = cause.source();
        }
        let hints = match error {
            // The message has said why.
            Error::Limit { remedy, .. } => vec![remedy.clone()],
            _ => hint.iter().map(ToString::to_string).collect(),
        };
        Self {
            message,
            hints,
            exit_code: error.exit_code(),
        }
    }
}

impl Report {
    /// What the program ends with.
    pub(super) fn exit_code(&self) -> u8 {
        self.exit_code
    }

    /// What went wrong, for somebody else to print.
    pub(super) fn into_message(self) -> String {
        self.message
    }
}

impl From<clap::Error> for Report {
    /// `clap` writes "error: WHAT", indented details and tips, then the usage; the
    /// first paragraph is the message and the tips are hints.
    fn from(error: clap::Error) -> Self {
        let text = error.render().to_string();
        let mut paragraphs = text.split("\n\n");
        let first = paragraphs.next().unwrap_or_default();
        let words: Vec<&str> = first.split_whitespace().collect();
        let message = words.join(" ");
        let mut hints: Vec<String> = paragraphs
            .flat_map(str::lines)
            .filter_map(|line| line.trim_start().strip_prefix("tip: "))
            // What looks like an unknown option is hardly ever meant as the command.
            .filter(|tip| !tip.starts_with("to pass "))
            .map(str::to_owned)
            .collect();
        // "Usage: crun-lite VERB... [OPTIONS] ...", where clap knows the verb.
        let usage = text.lines().find_map(|line| line.strip_prefix("Usage: "));
        let words = usage.unwrap_or("crun-lite run").split(' ');
        let verb: Vec<&str> = words
            .take_while(|word| word.starts_with(|c: char| c.is_ascii_lowercase()))
            .collect();
        hints.push(format!("try '{} --help'", verb.join(" ")));
        Self {
            message: message
                .strip_prefix("error: ")
                .unwrap_or(&message)
                .to_owned(),
            hints,
            exit_code: EXIT_RUNTIME,
        }
    }
}

#[derive(Serialize)]
struct Line<'a> {
    level: &'static str,
    msg: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

impl Report {
    /// Prints it; the program ends with what this returns.
    pub(super) fn print(&self, format: LogFormat) -> ExitCode {
        // Where standard error cannot be written to, the exit code says it all.
        let _ = io::stderr().write_all(self.render(format).as_bytes());
        ExitCode::from(self.exit_code)
    }

    fn render(&self, format: LogFormat) -> String {
        match format {
            LogFormat::Text => {
                let mut text = format!("crun-lite: {}\n", printable(&self.message));
                for hint in &self.hints {
                    text += &format!("hint: {}\n", printable(hint));
                }
                text
            }
            LogFormat::Json => {
                let hint = Some(self.hints.join("; ")).filter(|hint| !hint.is_empty());
                let line = Line {
                    level: "error",
                    msg: &self.message,
                    hint,
                };
                // Strings and a constant: there is nothing that could not be written.
                serde_json::to_string(&line).unwrap_or_default() + "\n"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::StepFailure;

    fn not_found() -> io::Error {
        io::Error::from_raw_os_error(libc::ENOENT)
    }

    #[test]
    fn the_chain_is_one_line() {
        let path = "/no\nwhere".into();
        let report = Report::from(Error::Path {
            option: "--rootfs",
            path,
            source: not_found(),
        });
        assert_eq!(report.exit_code, 125);
        assert_eq!(
            report.render(LogFormat::Text),
            "crun-lite: --rootfs: /no\\nwhere: No such file or directory (os error 2)\n"
        );
        let json: serde_json::Value =
            serde_json::from_str(&report.render(LogFormat::Json)).unwrap();
        assert_eq!(json["level"], "error");
        assert_eq!(
            json["msg"],
            "--rootfs: /no\nwhere: No such file or directory (os error 2)"
        );
        assert!(json.get("hint").is_none());
    }

    #[test]
    fn known_causes_have_a_hint() {
        let failure = StepFailure::new("open", "/dev/net/tun", &not_found());
        let report = Report::from(Error::from(failure));
        let text = report.render(LogFormat::Text);
        let (first, second) = text.split_once('\n').unwrap();
        assert_eq!(
            first,
            "crun-lite: open: /dev/net/tun: No such file or directory (os error 2)"
        );
        assert!(
            second.starts_with("hint: ") && second.ends_with("\n"),
            "{text}"
        );
        assert!(report.render(LogFormat::Json).contains(r#""hint":"#));
    }

    #[test]
    fn clap_errors_are_taken_apart() {
        let error = super::super::args::command()
            .try_get_matches_from(["crun-lite", "run", "--host-name=a"])
            .unwrap_err();
        let report = Report::from(error);
        assert_eq!(report.message, "unexpected argument '--host-name' found");
        assert_eq!(report.hints.len(), 2, "{report:?}");
        assert!(report.hints[0].contains("--hostname"), "{report:?}");
        assert_eq!(report.exit_code, 125);
    }
}
