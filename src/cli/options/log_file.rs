//! The files of `--pcap` and `--net-log`.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::mounts::bytes;
use super::{paths, shown, usage};
use crate::config::{LogFile, Network};
use crate::error::Error;

/// Two frames of any length fit into a file.
const SIZE_LEAST: u64 = 128 << 10;
const PCAP_SIZE: u64 = 100 << 20;
const NET_LOG_SIZE: u64 = 10 << 20;
const FILES: u32 = 2;
const FILES_MOST: u32 = 1000;

/// `--pcap`.
pub(super) fn pcap(given: &OsStr, network: &Network) -> Result<LogFile, Error> {
    parse("--pcap", given, PCAP_SIZE, network)
}

/// `--net-log`.
pub(super) fn net_log(given: &OsStr, network: &Network) -> Result<LogFile, Error> {
    parse("--net-log", given, NET_LOG_SIZE, network)
}

/// `FILE[,size=BYTES][,files=N]`. A comma that no known key follows is part of the name.
fn parse(
    option: &'static str,
    given: &OsStr,
    usual_size: u64,
    network: &Network,
) -> Result<LogFile, Error> {
    if !matches!(network, Network::Builtin(_)) {
        return Err(usage(format!("{option} is only for --net=builtin")));
    }
    let wrong = |why: String| usage(format!("{option} {}: {why}", shown(given)));
    let (mut path, mut size, mut files) = (given.as_bytes(), None, None);
    while let Some(comma) = path.iter().rposition(|byte| *byte == b',') {
        let (before, word) = (&path[..comma], &path[comma + 1..]);
        let twice = if let Some(value) = word.strip_prefix(b"size=") {
            let value = std::str::from_utf8(value)
                .ok()
                .and_then(bytes)
                .filter(|size| *size >= SIZE_LEAST)
                .ok_or_else(|| {
                    wrong("size is not a number of bytes, or with k, m or g, from 128k on".into())
                })?;
            size.replace(value).is_some()
        } else if let Some(value) = word.strip_prefix(b"files=") {
            let value = std::str::from_utf8(value)
                .ok()
                .and_then(super::network::number)
                .filter(|files| (1..=FILES_MOST).contains(files))
                .ok_or_else(|| wrong(format!("files is not a number from 1 to {FILES_MOST}")))?;
            files.replace(value).is_some()
        } else {
            break;
        };
        if twice {
            return Err(wrong("a key is given twice".into()));
        }
        path = before;
    }
    let path = OsStr::from_bytes(path);
    paths::check_length(option, path)?;
    if path.is_empty() {
        return Err(wrong("a file is needed".into()));
    }
    Ok(LogFile {
        path: PathBuf::from(path),
        size: size.unwrap_or(usual_size),
        files: files.unwrap_or(FILES),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::BuiltinNetwork;

    fn parsed(text: &str) -> Result<(String, u64, u32), Error> {
        let network = Network::Builtin(BuiltinNetwork::default());
        pcap(OsStr::new(text), &network).map(|pcap| {
            (
                pcap.path.to_str().unwrap().to_owned(),
                pcap.size,
                pcap.files,
            )
        })
    }

    #[test]
    fn files_and_limits() {
        for (text, path, size, files) in [
            ("a.pcap", "a.pcap", 100 << 20, 2),
            ("/tmp/a b,size=1m", "/tmp/a b", 1 << 20, 2),
            ("a,files=1", "a", 100 << 20, 1),
            ("a,size=128k,files=1000", "a", 128 << 10, 1000),
            ("a,files=3,size=2g", "a", 2 << 30, 3),
            ("a,b,size", "a,b,size", 100 << 20, 2),
            ("a,size=1m,b", "a,size=1m,b", 100 << 20, 2),
        ] {
            assert_eq!(parsed(text).unwrap(), (path.to_owned(), size, files));
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, why) in [
            ("", "a file is needed"),
            (",size=1m", "a file is needed"),
            ("a,size=127k", "from 128k on"),
            ("a,size=", "from 128k on"),
            ("a,size=99999999999g", "from 128k on"),
            ("a,files=0", "from 1 to 1000"),
            ("a,files=1001", "from 1 to 1000"),
            ("a,files=+1", "from 1 to 1000"),
            ("a,files=1,files=2", "twice"),
            ("a,size=1m,files=2,size=1m", "twice"),
        ] {
            let message = parsed(text).unwrap_err().to_string();
            assert!(message.contains(why), "{text}: {message}");
        }
        let none = pcap(OsStr::new("a"), &Network::None).unwrap_err();
        assert!(none.to_string().contains("--net=builtin"));
    }
}
