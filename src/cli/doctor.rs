//! `crun-lite doctor`: prints what [`crate::doctor`] finds.

use std::env;
use std::fmt::Write as _;
use std::io::{self, IsTerminal};
use std::path::Path;
use std::process::ExitCode;

use super::args::DoctorArgs;
use super::logging::printable;
use super::output;
use crate::doctor::{self, Diagnosis, State};
use crate::error::Error;

/// The profile for AppArmor, of a program in the usual place.
const PROFILE: &str = include_str!("../../etc/apparmor.d/crun-lite");
/// Where it is for, in [`PROFILE`].
const USUAL_PLACE: &str = "/usr/{,local/}bin/crun-lite";

/// Exit code of a host on which `run` does not work.
const UNFIT: u8 = 1;

pub(super) fn run(args: DoctorArgs) -> Result<ExitCode, Error> {
    if args.apparmor_profile {
        let program = env::current_exe().map_err(|error| Error::host("find crun-lite", error))?;
        output::print(&profile(&program))?;
        return Ok(ExitCode::SUCCESS);
    }
    let diagnosis = doctor::examine();
    if args.json {
        let json = serde_json::to_string(&diagnosis)
            .map_err(|error| Error::host("write the findings as JSON", error))?;
        output::print(&format!("{json}\n"))?;
    } else {
        output::print(&table(&diagnosis, has_colours()))?;
    }
    Ok(if diagnosis.verdict.builtin {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(UNFIT)
    })
}

/// A terminal that has them and whose user has not said no (no-color.org).
fn has_colours() -> bool {
    io::stdout().is_terminal()
        && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && env::var_os("TERM").is_none_or(|terminal| terminal != "dumb")
}

/// A line for each finding, with its remedy below, and the verdict.
fn table(diagnosis: &Diagnosis, colours: bool) -> String {
    let parts = diagnosis.findings.iter().map(|finding| finding.part.len());
    let width = parts.max().unwrap_or_default();
    let states = [State::Ok, State::Limited, State::Missing];
    let state_width = states.map(|state| state.name().len());
    let state_width = state_width.into_iter().max().unwrap_or_default();
    let mut text = String::new();
    for finding in &diagnosis.findings {
        let name = finding.state.name();
        let padding = state_width.saturating_sub(name.len());
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{:width$}  {}{:padding$}  {}",
            finding.part,
            coloured(finding.state, name, colours),
            "",
            printable(&finding.found)
        );
        if let Some(remedy) = &finding.remedy {
            let indent = width + state_width + 4;
            let _ = writeln!(text, "{:indent$}remedy: {}", "", printable(remedy));
        }
    }
    let verdict = &diagnosis.verdict;
    let state = match (verdict.builtin, verdict.none) {
        (true, true) => State::Ok,
        (false, false) => State::Missing,
        _ => State::Limited,
    };
    let word = coloured(state, "verdict", colours);
    let _ = writeln!(text, "{word}: {}", printable(&verdict.text));
    text
}

fn coloured(state: State, word: &str, colours: bool) -> String {
    let colour = match state {
        State::Ok => 32,
        State::Limited => 33,
        State::Missing => 31,
    };
    if colours {
        format!("\x1b[{colour}m{word}\x1b[0m")
    } else {
        word.to_owned()
    }
}

/// The profile for the program where it is.
fn profile(program: &Path) -> String {
    let usual = ["/usr/bin/crun-lite", "/usr/local/bin/crun-lite"];
    if usual.iter().any(|path| Path::new(path) == program) {
        return PROFILE.to_owned();
    }
    // apparmor.d(5): what has a meaning in a path; a byte that is no text cannot be
    // named, but something stands for it.
    let mut place = String::from("\"");
    for c in program.to_string_lossy().chars() {
        match c {
            '"' | '\\' | '*' | '?' | '[' | ']' | '{' | '}' | '^' | '@' => {
                place.push('\\');
                place.push(c);
            }
            c if c.is_control() || c == char::REPLACEMENT_CHARACTER => place.push('?'),
            c => place.push(c),
        }
    }
    place.push('"');
    PROFILE.replace(USUAL_PLACE, &place)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::{Finding, Verdict};

    fn diagnosis() -> Diagnosis {
        let finding = |part, state, found: &str, remedy: Option<&str>| Finding {
            part,
            state,
            found: found.to_owned(),
            remedy: remedy.map(str::to_owned),
            stops: None,
        };
        Diagnosis {
            findings: vec![
                finding("a", State::Ok, "good", None),
                finding("part", State::Limited, "so\x1bso", Some("more")),
            ],
            verdict: Verdict {
                none: true,
                builtin: false,
                text: "it depends".to_owned(),
            },
        }
    }

    #[test]
    fn columns() {
        assert_eq!(
            table(&diagnosis(), false),
            "a     ok       good\n\
             part  limited  so\\u{1b}so\n               remedy: more\n\
             verdict: it depends\n"
        );
        let coloured = table(&diagnosis(), true);
        assert!(
            coloured.contains("a     \x1b[32mok\x1b[0m       good"),
            "{coloured}"
        );
        assert!(coloured.contains("\x1b[33mverdict\x1b[0m: "), "{coloured}");
    }

    #[test]
    fn the_profile_is_for_the_program_where_it_is() {
        assert!(PROFILE.contains(&format!("profile crun-lite {USUAL_PLACE} flags=")));
        assert_eq!(profile(Path::new("/usr/local/bin/crun-lite")), PROFILE);
        let text = profile(Path::new("/home/a b/{x}\"/crun-lite"));
        assert!(
            text.contains("profile crun-lite \"/home/a b/\\{x\\}\\\"/crun-lite\" flags="),
            "{text}"
        );
        assert!(!text.contains(USUAL_PLACE));
    }
}
