//! As much of a DNS message (RFC 1035, 4.1) as a forwarder has to understand: the
//! header, the question section and, of a query, whether it speaks EDNS (RFC 6891).
//!
//! Nothing is decoded for its own sake: a question section is compared as it is, but
//! for the case of letters.

use crate::policy::Name;

/// Bytes of a header.
pub(super) const HEADER_LEN: usize = 12;
/// Bytes of a question behind its name: type and class.
const QUESTION_TAIL: usize = 4;
/// Bytes of a record behind its name, without its data.
const RECORD_TAIL: usize = 10;
/// Longest name, bytes (RFC 1035, 2.3.4).
pub(super) const MAX_NAME: usize = 255;
/// Bytes of an answer that every client takes (RFC 1035, 4.2.1).
const MAX_PLAIN: usize = 512;
/// Bytes of an answer of ours that EDNS allows: no fragments on any link.
const EDNS_PAYLOAD: u16 = 1232;

pub(super) const QR: u8 = 0x80;
pub(super) const OPCODE: u8 = 0x78;
const AA: u8 = 0x04;
const TC: u8 = 0x02;
const RD: u8 = 0x01;
const RA: u8 = 0x80;
const CD: u8 = 0x10;
pub(super) const RCODE: u8 = 0x0f;

pub(super) const CLASS_IN: u16 = 1;
const TYPE_OPT: u16 = 41;
/// An option of EDNS, and one of its codes (RFC 8914).
const EXTENDED_ERROR: u16 = 15;
const BLOCKED: u16 = 15;
/// The upper bits of BADVERS (RFC 6891, 9).
const BAD_VERSION: u8 = 1;
const DNSSEC_OK: u8 = 0x80;
/// How long a client may keep an answer of ours, seconds.
const TTL: u32 = 60;
/// A pointer to the name of the first question (RFC 1035, 4.1.4).
const QUESTION_NAME: [u8; 2] = [0xc0, 12];

/// Response codes (RFC 1035, 4.1.1).
pub(super) mod rcode {
    pub(in crate::dns) const NO_ERROR: u8 = 0;
    pub(in crate::dns) const SERVFAIL: u8 = 2;
    pub(in crate::dns) const NXDOMAIN: u8 = 3;
    pub(in crate::dns) const NOTIMP: u8 = 4;
    pub(in crate::dns) const REFUSED: u8 = 5;
}

/// A query that can be forwarded.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Query<'a> {
    whole: &'a [u8],
    /// Where the question section ends.
    end: usize,
}

/// Where the OPT record of a query is.
#[derive(Debug, Clone, Copy)]
struct Opt {
    /// Where it goes on behind its name.
    tail: usize,
    /// Bytes of options.
    options: usize,
    /// Nothing is behind it.
    is_last: bool,
}

/// What the OPT record of a query says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Edns {
    version: u8,
    /// The client wants DNSSEC records (RFC 3225).
    dnssec_ok: bool,
}

impl<'a> Query<'a> {
    /// `None`: not a query, or one without a question, by which its answer could not
    /// be told.
    pub(crate) fn parse(whole: &'a [u8]) -> Option<Self> {
        let flags = *whole.get(2)?;
        let questions = u16_at(whole, 4)?;
        if whole.len() < HEADER_LEN || flags & QR != 0 || questions == 0 {
            return None;
        }
        let mut end = HEADER_LEN;
        for _ in 0..questions {
            end = skip_name(whole, end)? + QUESTION_TAIL;
        }
        (end <= whole.len()).then_some(Self { whole, end })
    }

    pub(crate) fn whole(&self) -> &'a [u8] {
        self.whole
    }

    /// Header and question section: what an answer is told by.
    pub(super) fn head(&self) -> &'a [u8] {
        self.whole.get(..self.end).unwrap_or_default()
    }

    /// An ordinary query, which may be asked more than once.
    pub(super) fn is_standard(&self) -> bool {
        self.flags()[0] & OPCODE == 0
    }

    /// Whether `other` is the same query again.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let [own, other] = [self, other].map(|query| {
            let (header, question) = query.head().split_at_checked(HEADER_LEN)?;
            Some((&header[..2], header[2] & OPCODE, &header[4..6], question))
        });
        own == other
    }

    fn flags(&self) -> [u8; 2] {
        match *self.whole {
            [_, _, a, b, ..] => [a, b],
            _ => [0; 2],
        }
    }

    /// Name, type and class of the question, when there is just one.
    pub(super) fn question(&self) -> Option<(&'a [u8], u16, u16)> {
        let tail = self.end.checked_sub(QUESTION_TAIL)?;
        let name = self.whole.get(HEADER_LEN..tail)?;
        let (kind, class) = (u16_at(self.whole, tail)?, u16_at(self.whole, tail + 2)?);
        (u16_at(self.whole, 4)? == 1).then_some((name, kind, class))
    }

    /// The name that it asks for, if that is all that it says: an ordinary query with
    /// one question of the Internet, and no records but that of EDNS.
    pub(crate) fn plain_name(&self) -> Option<Name> {
        let (name, _, class) = self.question()?;
        let counts = [6, 8, 10].map(|at| u16_at(self.whole, at));
        let additional = match counts {
            [Some(0), Some(0), Some(0)] => self.end == self.whole.len(),
            [Some(0), Some(0), Some(1)] => self.opt().is_some_and(|opt| opt.is_last),
            _ => false,
        };
        if !self.is_standard() || class != CLASS_IN || !additional {
            return None;
        }
        let (read, end) = Name::read(self.whole, HEADER_LEN)?;
        (end - HEADER_LEN == name.len() && read.wire().len() == name.len()).then_some(read)
    }

    /// The same without the options of EDNS, if it has any: they may say anything, and
    /// some resolvers pass them on.
    pub(crate) fn without_options(&self) -> Option<Vec<u8>> {
        let opt = self.opt()?;
        if !opt.is_last || opt.options == 0 {
            return None;
        }
        let mut message = self.whole.get(..opt.tail + RECORD_TAIL)?.to_vec();
        message.get_mut(opt.tail + 8..)?.fill(0);
        Some(message)
    }

    fn edns(&self) -> Option<Edns> {
        let tail = self.opt()?.tail;
        Some(Edns {
            version: *self.whole.get(tail + 5)?,
            dnssec_ok: self.whole.get(tail + 6)? & DNSSEC_OK != 0,
        })
    }

    /// The OPT record.
    fn opt(&self) -> Option<Opt> {
        let records = [6, 8, 10].map(|at| u16_at(self.whole, at).unwrap_or(0));
        let mut at = self.end;
        for _ in 0..records.into_iter().map(u32::from).sum() {
            let tail = skip_name(self.whole, at)?;
            if u16_at(self.whole, tail)? == TYPE_OPT && tail == at + 1 {
                let options = usize::from(u16_at(self.whole, tail + 8)?);
                return Some(Opt {
                    tail,
                    options,
                    is_last: tail + RECORD_TAIL + options == self.whole.len(),
                });
            }
            at = tail + RECORD_TAIL + usize::from(u16_at(self.whole, tail + 8)?);
        }
        None
    }

    /// An answer that says that the policy knows no such name: NXDOMAIN, for many
    /// clients take no other refusal for an answer and wait; EDNS has the reason.
    pub(crate) fn no_such_name(&self) -> Vec<u8> {
        let mut message = self.answer(false, rcode::NXDOMAIN, []);
        if self.edns().is_some_and(|edns| edns.version == 0)
            && let Some(length) = message.len().checked_sub(2)
        {
            let option = extended_error();
            message.truncate(length);
            message.extend(u16::try_from(option.len()).unwrap_or(0).to_be_bytes());
            message.extend(option);
        }
        message
    }

    /// An answer that says that the policy passes no such query.
    pub(crate) fn refusal(&self) -> Vec<u8> {
        self.answer(false, rcode::REFUSED, [])
    }

    /// An answer of our own: `code`, and `records` of the name that was asked for, each
    /// by its type and data. What does not fit an answer that every client takes is
    /// left out.
    pub(super) fn answer<'r>(
        &self,
        authoritative: bool,
        code: u8,
        records: impl IntoIterator<Item = (u16, &'r [u8])>,
    ) -> Vec<u8> {
        let edns = self.edns();
        let opt = edns.map(|edns| edns.answer());
        let reserve = opt.map_or(0, |opt| opt.len());
        let mut message = self.head().to_vec();
        let [flags, more] = self.flags();
        let mut count = 0_u16;
        // RFC 6891, 6.1.3: the version is answered, not the question.
        let answered = edns.is_none_or(|edns| edns.version == 0);
        for (kind, data) in records {
            let Ok(length) = u16::try_from(data.len()) else {
                continue;
            };
            let size = QUESTION_NAME.len() + RECORD_TAIL + data.len();
            if !answered || message.len() + size + reserve > MAX_PLAIN {
                break;
            }
            message.extend_from_slice(&QUESTION_NAME);
            message.extend_from_slice(&kind.to_be_bytes());
            message.extend_from_slice(&CLASS_IN.to_be_bytes());
            message.extend_from_slice(&TTL.to_be_bytes());
            message.extend_from_slice(&length.to_be_bytes());
            message.extend_from_slice(data);
            count += 1;
        }
        message.extend_from_slice(opt.as_ref().map_or(&[], |opt| opt.as_slice()));
        if let Some([_, _, a, b, header @ ..]) = message.first_chunk_mut::<HEADER_LEN>() {
            *a = QR | flags & (OPCODE | RD) | if authoritative { AA } else { 0 };
            *b = RA | more & CD | code;
            header[2..4].copy_from_slice(&count.to_be_bytes());
            header[4..6].fill(0);
            header[6..8].copy_from_slice(&u16::from(opt.is_some()).to_be_bytes());
        }
        message
    }
}

impl Edns {
    /// The OPT record of an answer.
    fn answer(self) -> [u8; 11] {
        let mut record = [0; 11];
        record[1..3].copy_from_slice(&TYPE_OPT.to_be_bytes());
        record[3..5].copy_from_slice(&EDNS_PAYLOAD.to_be_bytes());
        record[5] = if self.version == 0 { 0 } else { BAD_VERSION };
        record[7] = if self.dnssec_ok { DNSSEC_OK } else { 0 };
        record
    }
}

/// The option that says why (RFC 8914): 15 is "Blocked", by a policy of whoever runs
/// the resolver.
fn extended_error() -> Vec<u8> {
    const TEXT: &[u8] = b"not allowed by --net-allow or --net-deny";
    let mut option = EXTENDED_ERROR.to_be_bytes().to_vec();
    option.extend(u16::try_from(2 + TEXT.len()).unwrap_or(0).to_be_bytes());
    option.extend(BLOCKED.to_be_bytes());
    option.extend(TEXT);
    option
}

/// An answer without what it answers: there is no such name.
pub(crate) fn emptied(answer: &[u8]) -> Vec<u8> {
    let end = answer
        .get(HEADER_LEN..)
        .and_then(|_| Some(skip_name(answer, HEADER_LEN)? + QUESTION_TAIL));
    let mut message = end
        .and_then(|end| answer.get(..end))
        .unwrap_or_default()
        .to_vec();
    if let Some([_, _, a, b, header @ ..]) = message.first_chunk_mut::<HEADER_LEN>() {
        *a &= !(AA | TC);
        *b = *b & (RA | CD) | rcode::NXDOMAIN;
        header[2..].fill(0);
    }
    message
}

/// How an answer belongs to a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Match {
    /// Its question is the query's.
    Whole,
    /// A server that did not understand the query returned a header alone, with an
    /// error in it.
    Bare,
}

/// An answer of a server.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answer<'a> {
    whole: &'a [u8],
}

impl<'a> Answer<'a> {
    pub(super) fn parse(whole: &'a [u8]) -> Option<Self> {
        let is_answer = whole.len() >= HEADER_LEN && whole.get(2)? & QR != 0;
        is_answer.then_some(Self { whole })
    }

    pub(super) fn whole(&self) -> &'a [u8] {
        self.whole
    }

    /// The server would rather not have been asked: another one may know.
    pub(super) fn is_failure(&self) -> bool {
        let code = self.whole.get(3).map_or(0, |flags| flags & RCODE);
        matches!(code, rcode::SERVFAIL | rcode::NOTIMP | rcode::REFUSED)
    }

    /// Whether it answers the query with this header and question section.
    pub(super) fn matches(&self, head: &[u8]) -> Option<Match> {
        let (header, question) = head.split_at_checked(HEADER_LEN)?;
        let (own, rest) = self.whole.split_at_checked(HEADER_LEN)?;
        let opcode = own[2] & OPCODE;
        if own[..2] != header[..2] || opcode != header[2] & OPCODE {
            return None;
        }
        // Some servers change the case of a name; whether that matters is the
        // client's to say, which sees the answer as it came.
        let same = |asked: &[u8]| {
            let name = question.len().saturating_sub(QUESTION_TAIL);
            asked[name..] == question[name..] && asked.eq_ignore_ascii_case(question)
        };
        if own[4..6] == header[4..6] && rest.get(..question.len()).is_some_and(same) {
            return Some(Match::Whole);
        }
        let bare = own[4..6] == [0, 0];
        if bare && opcode != 0 {
            // Not all operations repeat their question (RFC 2136, 3.8).
            Some(Match::Whole)
        } else {
            (bare && rest.is_empty() && own[3] & RCODE != 0).then_some(Match::Bare)
        }
    }
}

/// Where the name at `at` ends.
fn skip_name(message: &[u8], mut at: usize) -> Option<usize> {
    let begin = at;
    loop {
        let length = *message.get(at)?;
        match length >> 6 {
            0 if length == 0 => return Some(at + 1),
            0 => at += 1 + usize::from(length),
            3 => return Some(at + 2),
            _ => return None,
        }
        if at - begin >= MAX_NAME {
            return None;
        }
    }
}

pub(super) fn u16_at(message: &[u8], at: usize) -> Option<u16> {
    let bytes = message.get(at..)?.first_chunk::<2>()?;
    Some(u16::from_be_bytes(*bytes))
}
