//! A user who is to be known in the container: passwd(5) and group(5).
//!
//! The files are the container's. What is in them stays; a line is added where there
//! is none for the name or the number. As with every private file, nothing of the
//! host's is written to.

use std::io::Read;
use std::path::Path;

use rustix::fs::{FileType, OFlags, ResolveFlags};
use rustix::io::{Errno, Result};

use super::cover;
use super::root::Root;
use super::stage::Stage;
use crate::config::Account;

/// Longest file that is read, bytes.
const MAX_FILE: u64 = 16 << 20;

/// Adds `account`. Gives the files that could not be used, and why.
pub(super) fn add(
    root: &mut Root,
    stage: &mut Stage,
    account: &Account,
) -> Result<Vec<(&'static str, String)>> {
    let Account {
        name,
        uid,
        gid,
        comment,
        home,
        group,
    } = account;
    let home = home.display();
    let files = [
        (
            "/etc/passwd",
            name,
            *uid,
            format!("{name}:*:{uid}:{gid}:{comment}:{home}:/bin/sh\n"),
        ),
        (
            "/etc/group",
            group,
            *gid,
            format!("{group}:x:{gid}:{name}\n"),
        ),
    ];
    let mut skipped = Vec::new();
    for (path, name, id, line) in files {
        let content = match read(root, Path::new(path)) {
            Ok(content) => content,
            Err(error) => {
                skipped.push((path, std::io::Error::from(error).to_string()));
                continue;
            }
        };
        if let Some(content) = with_line(content, name, id, &line)
            && let Some(why) = cover::file(root, stage, Path::new(path), &content)?
        {
            skipped.push((path, why));
        }
    }
    Ok(skipped)
}

/// `content` with `line`; `None` where it has one for `name` or `id` already.
fn with_line(mut content: Vec<u8>, name: &str, id: u32, line: &str) -> Option<Vec<u8>> {
    let id = id.to_string();
    let is_known = content.split(|byte| *byte == b'\n').any(|line| {
        let mut fields = line.split(|byte| *byte == b':');
        fields.next() == Some(name.as_bytes()) || fields.nth(1) == Some(id.as_bytes())
    });
    if is_known {
        return None;
    }
    if content.last().is_some_and(|last| *last != b'\n') {
        content.push(b'\n');
    }
    content.extend_from_slice(line.as_bytes());
    Some(content)
}

/// The content of a file of the container; of one that is not there, none.
fn read(root: &Root, path: &Path) -> Result<Vec<u8>> {
    // Not to hang on a FIFO and not to adopt a terminal that lies in its place.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = match root.open_as(path, flags, ResolveFlags::empty()) {
        Err(Errno::NOENT) => return Ok(Vec::new()),
        file => file?,
    };
    if FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) != FileType::RegularFile {
        return Err(Errno::INVAL);
    }
    let mut content = Vec::new();
    std::fs::File::from(file)
        .take(MAX_FILE + 1)
        .read_to_end(&mut content)
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    if content.len() as u64 > MAX_FILE {
        return Err(Errno::FBIG);
    }
    Ok(content)
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn a_line_is_added_once() {
        let text = |content: &str, name: &str, id| {
            let added = with_line(content.into(), name, id, "NEW\n");
            added.map(|content| String::from_utf8(content).unwrap())
        };
        assert_eq!(text("", "a", 1).unwrap(), "NEW\n");
        assert_eq!(text("b:x:2:", "a", 1).unwrap(), "b:x:2:\nNEW\n");
        assert_eq!(text("a:x:2:\n", "a", 1), None);
        assert_eq!(text("b:x:1:1:\n", "a", 1), None);
        assert_eq!(
            text("b:x:11:1:\nab:1:\n", "a", 1).unwrap().lines().count(),
            3
        );
    }
}
