//! Domain names, as rules and answers have them.

use std::fmt::{self, Display, Formatter};

/// Longest name, bytes in wire format (RFC 1035, 2.3.4).
const MAX_WIRE: usize = 255;
/// Longest label, bytes.
const MAX_LABEL: usize = 63;

/// A domain name in wire format (RFC 1035, 3.1), lower case.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Box<[u8]>);

impl Name {
    /// A name as people write it, with or without the dot at the end; `None` when no
    /// message can hold it. Any byte but a dot may be in it.
    pub fn new(text: &str) -> Option<Self> {
        let mut wire = Vec::with_capacity(text.len() + 2);
        for label in text.strip_suffix('.').unwrap_or(text).split('.') {
            let length = u8::try_from(label.len())
                .ok()
                .filter(|length| (1..=MAX_LABEL).contains(&usize::from(*length)))?;
            wire.push(length);
            wire.extend_from_slice(label.to_ascii_lowercase().as_bytes());
        }
        wire.push(0);
        (wire.len() <= MAX_WIRE).then(|| Self(wire.into()))
    }

    /// The name at `at` of a DNS message, and where it ends there. Compressed names
    /// are followed (RFC 1035, 4.1.4), backwards only, so that they come to an end.
    pub(crate) fn read(message: &[u8], at: usize) -> Option<(Self, usize)> {
        let mut wire = Vec::with_capacity(32);
        let (mut at, mut least, mut end) = (at, at, None);
        loop {
            let length = *message.get(at)?;
            match length >> 6 {
                0 => {
                    let next = at + 1 + usize::from(length);
                    wire.push(length);
                    wire.extend(message.get(at + 1..next)?.to_ascii_lowercase().iter());
                    if wire.len() > MAX_WIRE {
                        return None;
                    }
                    at = next;
                    if length == 0 {
                        return Some((Self(wire.into()), end.unwrap_or(at)));
                    }
                }
                3 => {
                    let low = *message.get(at + 1)?;
                    end = end.or(Some(at + 2));
                    at = usize::from(u16::from_be_bytes([length & 0x3f, low]));
                    if at >= least {
                        return None;
                    }
                    least = at;
                }
                _ => return None,
            }
        }
    }

    pub(crate) fn wire(&self) -> &[u8] {
        &self.0
    }

    /// Whether it is this label (in lower case) and nothing else.
    pub(super) fn is_label(&self, label: &str) -> bool {
        let alone = self.0.strip_suffix(&[0]).and_then(<[u8]>::split_first);
        alone.is_some_and(|(length, only)| {
            usize::from(*length) == only.len() && only == label.as_bytes()
        })
    }

    /// The names that it is below, the nearest first, in wire format; the root is not
    /// among them.
    pub(super) fn parents(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest: &[u8] = &self.0;
        std::iter::from_fn(move || {
            let length = usize::from(*rest.first()?);
            rest = rest.get(1 + length..).filter(|_| length > 0)?;
            (rest.len() > 1).then_some(rest)
        })
    }
}

/// Without the dot at the end; what is no letter, digit, `-` or `_` as `\DDD` (RFC
/// 4343, 2.1).
impl Display for Name {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut rest: &[u8] = &self.0;
        let mut first = true;
        while let Some((&length, after)) = rest.split_first() {
            if length == 0 {
                break;
            }
            if !std::mem::take(&mut first) {
                f.write_str(".")?;
            }
            let (label, after) = after.split_at_checked(length.into()).ok_or(fmt::Error)?;
            for &byte in label {
                if byte.is_ascii_alphanumeric() || b"-_".contains(&byte) {
                    write!(f, "{}", char::from(byte))?;
                } else {
                    write!(f, "\\{byte:03}")?;
                }
            }
            rest = after;
        }
        if first { f.write_str(".") } else { Ok(()) }
    }
}
