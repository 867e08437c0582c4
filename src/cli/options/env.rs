//! The command's environment: ours does not come in, only what is named.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use super::{Host, paths, shown, usage};
use crate::error::Error;

/// What podman sets for an image that says nothing.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// By this name programs find out that they are in a container (systemd's
/// Container Interface).
const CONTAINER: &str = "crun-lite";
/// `TERM` where the host has none to pass on.
const TERM: &str = "xterm";
/// The longest string that execve(2) takes, with its NUL (`MAX_ARG_STRLEN`).
const STRING_MOST: usize = 131_071;
/// The largest environment file, so that `/dev/zero` ends too.
const FILE_MOST: u64 = 1 << 20;

type Variable = (OsString, OsString);

/// The environment: the defaults, then the files, then the options.
pub(super) fn build(
    options: &[OsString],
    files: &[OsString],
    tty: bool,
    hostname: &str,
    host: &Host,
) -> Result<Vec<Variable>, Error> {
    let mut env = Vec::new();
    set(&mut env, "PATH".into(), PATH.into());
    if tty {
        set(&mut env, "TERM".into(), terminal(host));
    }
    set(&mut env, "HOSTNAME".into(), hostname.into());
    set(&mut env, "container".into(), CONTAINER.into());
    for file in files {
        let text = read(file)?;
        for line in lines(&text) {
            let found = apply(&mut env, line, &host.env);
            found.map_err(|why| usage(format!("--env-file {}: {why}", shown(file))))?;
        }
    }
    for option in options {
        apply(&mut env, option.as_bytes(), &host.env)
            .map_err(|why| usage(format!("--env: {why}")))?;
    }
    let length = |(name, value): &Variable| name.len() + 1 + value.len();
    match env.iter().find(|variable| length(variable) >= STRING_MOST) {
        Some(variable) => Err(usage(format!(
            "--env: {} has {} bytes; {} are the most",
            shown(&variable.0),
            length(variable),
            STRING_MOST - 1
        ))),
        None => Ok(env),
    }
}

/// The host's `TERM`, unless it is something that no terminfo entry is called.
fn terminal(host: &Host) -> OsString {
    let is_name = |term: &OsStr| {
        let bytes = term.as_bytes();
        !bytes.is_empty() && bytes.len() <= 64 && bytes.iter().all(u8::is_ascii_graphic)
    };
    let ours = host
        .env
        .iter()
        .find(|(name, _)| name == "TERM")
        .map(|(_, term)| term);
    ours.filter(|term| is_name(term))
        .map_or_else(|| TERM.into(), Clone::clone)
}

/// Sets a variable; the place of an earlier value is kept.
fn set(env: &mut Vec<Variable>, name: OsString, value: OsString) {
    match env.iter_mut().find(|(known, _)| *known == name) {
        Some((_, old)) => *old = value,
        None => env.push((name, value)),
    }
}

/// `NAME=VALUE`, `NAME` (nothing where we have no such variable) or `NAME*`.
fn apply(env: &mut Vec<Variable>, word: &[u8], ours: &[Variable]) -> Result<(), String> {
    let os = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
    let equals = word.iter().position(|byte| *byte == b'=');
    let (name, value) = match equals {
        Some(at) => (&word[..at], Some(&word[at + 1..])),
        None => (word, None),
    };
    if name.is_empty() {
        return Err(format!("{} has no name", shown(OsStr::from_bytes(word))));
    }
    if word.contains(&0) {
        return Err(format!(
            "{} contains a NUL byte",
            shown(OsStr::from_bytes(name))
        ));
    }
    if let Some(value) = value {
        set(env, os(name), os(value));
        return Ok(());
    }
    for (our_name, our_value) in ours {
        let wanted = match name.strip_suffix(b"*") {
            Some(prefix) => our_name.as_bytes().starts_with(prefix),
            None => our_name.as_bytes() == name,
        };
        if wanted {
            set(env, our_name.clone(), our_value.clone());
        }
    }
    Ok(())
}

/// Lines that say something, without the white space before them: as podman
/// reads them, quotes and what follows a value are part of the value.
fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| *byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line).trim_ascii_start())
        .filter(|line| !line.is_empty() && !line.starts_with(b"#"))
}

fn read(file: &OsStr) -> Result<Vec<u8>, Error> {
    paths::check_length("--env-file", file)?;
    let mut text = Vec::new();
    File::open(file)
        .and_then(|opened| opened.take(FILE_MOST + 1).read_to_end(&mut text))
        .map_err(|source| paths::path_error("--env-file", file, source))?;
    if u64::try_from(text.len()).is_ok_and(|length| length > FILE_MOST) {
        return Err(usage(format!(
            "--env-file {}: more than {FILE_MOST} bytes",
            shown(file)
        )));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    fn host(env: &[(&str, &str)]) -> Host {
        let env = env
            .iter()
            .map(|(name, value)| (name.into(), value.into()))
            .collect();
        Host {
            euid: 1000,
            egid: 1000,
            env,
            hostname: "outside".to_owned(),
            read: |_| Vec::new(),
            cpus: || 2,
        }
    }

    fn with(options: &[&str], tty: bool, ours: &[(&str, &str)]) -> Result<String, Error> {
        let options: Vec<OsString> = options.iter().map(OsString::from).collect();
        let env = build(&options, &[], tty, "container", &host(ours))?;
        Ok(text(&env))
    }

    fn text(env: &[Variable]) -> String {
        let join = |(name, value): &Variable| {
            format!("{}={}", name.to_string_lossy(), value.to_string_lossy())
        };
        env.iter().map(join).collect::<Vec<_>>().join("\n")
    }

    fn base() -> String {
        format!("PATH={PATH}\nHOSTNAME=container\ncontainer=crun-lite")
    }

    #[test]
    fn nothing_of_ours_comes_in_unnamed() {
        let ours = [
            ("SECRET", "1"),
            ("TERM", "tmux-256color"),
            ("PATH", "/evil"),
        ];
        assert_eq!(with(&[], false, &ours).unwrap(), base());
        assert!(
            with(&[], true, &ours)
                .unwrap()
                .contains("\nTERM=tmux-256color\n")
        );
        assert!(with(&[], true, &[]).unwrap().contains("\nTERM=xterm\n"));
        assert!(
            with(&[], true, &[("TERM", "a\x1b[b")])
                .unwrap()
                .contains("\nTERM=xterm\n")
        );
    }

    #[test]
    fn options() {
        let ours = [
            ("A", "1"),
            ("LC_ALL", "C"),
            ("LC_TIME", "de"),
            ("LCX", "no"),
        ];
        for (options, more) in [
            (&["A=2"][..], "\nA=2"),
            (&["A"], "\nA=1"),
            (&["NONE"], ""),
            (&["A="], "\nA="),
            (&["A=b=c"], "\nA=b=c"),
            (&["LC_*"], "\nLC_ALL=C\nLC_TIME=de"),
            (&["A=*"], "\nA=*"),
            (&["A=1", "B=2", "A=3"], "\nA=3\nB=2"),
        ] {
            assert_eq!(
                with(options, false, &ours).unwrap(),
                base() + more,
                "{options:?}"
            );
        }
        assert!(
            with(&["PATH=/x"], false, &ours)
                .unwrap()
                .starts_with("PATH=/x\n")
        );
        for bad in ["", "=", "=1", "A=\0"] {
            assert!(with(&[bad], false, &ours).is_err(), "{bad:?}");
        }
        assert!(with(&[&format!("A={}", "x".repeat(STRING_MOST - 3))], false, &[]).is_ok());
        assert!(with(&[&format!("A={}", "x".repeat(STRING_MOST - 2))], false, &[]).is_err());
    }

    #[test]
    fn files_come_before_options() {
        let path = std::env::temp_dir().join(format!("crun-lite-env-{}", std::process::id()));
        let mut file = File::create(&path).unwrap();
        file.write_all(b"# comment\n\n  A=1 # kept\r\n\t#B=2\nC=\"q\"\nHERE\nD=file\nNOT_HERE\n")
            .unwrap();
        let env = build(
            &["D=option".into()],
            &[path.clone().into_os_string()],
            false,
            "container",
            &host(&[("HERE", "yes")]),
        );
        assert_eq!(
            text(&env.unwrap()),
            base() + "\nA=1 # kept\nC=\"q\"\nHERE=yes\nD=option"
        );
        for bad in ["=x\n", "A=\0\n"] {
            std::fs::write(&path, bad).unwrap();
            assert!(build(&[], &[path.clone().into()], false, "c", &host(&[])).is_err());
        }
        std::fs::remove_file(&path).unwrap();
        for bad in [
            path.into_os_string(),
            "/dev/zero".into(),
            "/".into(),
            "".into(),
        ] {
            assert!(build(&[], &[bad], false, "c", &host(&[])).is_err());
        }
    }

    proptest! {
        #[test]
        fn any_word_is_kept_whole_or_refused(word in prop::collection::vec(any::<u8>(), 0..40)) {
            let mut env = Vec::new();
            if apply(&mut env, &word, &[]).is_ok() && word.contains(&b'=') {
                let (name, value) = &env[0];
                let joined = [name.as_bytes(), b"=", value.as_bytes()].concat();
                prop_assert_eq!(joined, word);
            }
        }
    }
}
