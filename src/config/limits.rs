//! What a container may use, as asked for.

use std::fmt::{self, Display, Formatter};

use rustix::process::Resource;
use serde::{Serialize, Serializer};

/// Limits on what a container uses; those that are `None` are none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Limits {
    /// `--memory`, bytes.
    pub memory: Option<u64>,
    /// `--memory-swap`; `None` with a memory limit is twice that.
    pub memory_swap: Option<MemorySwap>,
    /// `--memory-reservation`, bytes: what is left to it when memory is short.
    pub memory_reservation: Option<u64>,
    /// `--cpu-quota`, or `--cpus` of a period: microseconds of CPU time in each.
    pub cpu_quota: Option<u64>,
    /// `--cpu-period`, microseconds; `None` is the kernel's 100 ms.
    pub cpu_period: Option<u64>,
    /// `--cpu-shares`, 2 to 262144; what others have unless told otherwise is 1024.
    pub cpu_shares: Option<u64>,
    /// `--cpuset-cpus`: the CPUs that it runs on.
    pub cpuset_cpus: Option<NumberList>,
    /// `--cpuset-mems`: the memory nodes that it allocates from.
    pub cpuset_mems: Option<NumberList>,
    /// `--pids-limit`: most processes and threads.
    pub pids: Option<u64>,
    /// `--blkio-weight`, 10 to 1000; what others have is 100.
    pub blkio_weight: Option<u16>,
    /// `--ulimit`, of the command.
    pub ulimits: Vec<Ulimit>,
    /// `--oom-score-adj`, -1000 to 1000.
    pub oom_score_adj: Option<i16>,
}

/// `--memory-swap`: memory and swap together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum MemorySwap {
    /// As much swap as there is.
    Unlimited,
    /// Bytes; not less than the memory limit.
    Bytes(u64),
}

/// One `--ulimit` (setrlimit(2)); `None` is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Ulimit {
    /// Of what.
    #[serde(serialize_with = "by_name")]
    pub resource: Resource,
    /// What is enforced.
    pub soft: Option<u64>,
    /// Up to where the command can raise that.
    pub hard: Option<u64>,
}

/// The resources of setrlimit(2) by podman's names.
pub const RESOURCES: [(&str, Resource); 16] = [
    ("as", Resource::As),
    ("core", Resource::Core),
    ("cpu", Resource::Cpu),
    ("data", Resource::Data),
    ("fsize", Resource::Fsize),
    ("locks", Resource::Locks),
    ("memlock", Resource::Memlock),
    ("msgqueue", Resource::Msgqueue),
    ("nice", Resource::Nice),
    ("nofile", Resource::Nofile),
    ("nproc", Resource::Nproc),
    ("rss", Resource::Rss),
    ("rtprio", Resource::Rtprio),
    ("rttime", Resource::Rttime),
    ("sigpending", Resource::Sigpending),
    ("stack", Resource::Stack),
];

impl Ulimit {
    /// What its resource is called.
    pub fn name(&self) -> &'static str {
        let named = RESOURCES.iter().find(|(_, one)| *one == self.resource);
        named.map_or("unknown", |(name, _)| name)
    }
}

impl Display for Ulimit {
    /// As `--ulimit` has it.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}=", self.name())?;
        match self.soft {
            Some(soft) => write!(f, "{soft}:")?,
            None => f.write_str("unlimited:")?,
        }
        match self.hard {
            Some(hard) => write!(f, "{hard}"),
            None => f.write_str("unlimited"),
        }
    }
}

fn by_name<S: Serializer>(resource: &Resource, serializer: S) -> Result<S::Ok, S::Error> {
    let named = RESOURCES.iter().find(|(_, one)| one == resource);
    serializer.serialize_str(named.map_or("unknown", |(name, _)| name))
}

/// Numbers of CPUs or memory nodes, as ranges: "0-2,7" (cpuset(7), "List format").
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NumberList(Vec<(u32, u32)>);

/// More CPUs than any kernel is built for, or nodes.
const NUMBER_MOST: u32 = 65535;

impl NumberList {
    /// Reads one; `None` where `text` is none, or an empty one.
    pub fn parse(text: &str) -> Option<Self> {
        let number = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            let number = digits.then(|| text.parse().ok())??;
            (number <= NUMBER_MOST).then_some(number)
        };
        let range = |text: &str| {
            let (first, last) = text.split_once('-').unwrap_or((text, text));
            let (first, last) = (number(first)?, number(last)?);
            (first <= last).then_some((first, last))
        };
        text.split(',').map(range).collect::<Option<_>>().map(Self)
    }

    /// How many there are, where none is named twice.
    pub fn count(&self) -> usize {
        let of = |&(first, last): &(u32, u32)| (first..=last).count();
        self.0.iter().map(of).sum()
    }

    /// The numbers of `self` that are not in `others`.
    pub fn without(&self, others: &Self) -> Option<Self> {
        let has = |number: &u32| {
            others
                .0
                .iter()
                .any(|(first, last)| (first..=last).contains(&number))
        };
        let numbers = self.0.iter().flat_map(|(first, last)| *first..=*last);
        let mut left: Vec<(u32, u32)> = numbers
            .filter(|number| !has(number))
            .map(|number| (number, number))
            .collect();
        left.dedup_by(|next, before| {
            let joins = next.0 == before.1.saturating_add(1);
            if joins {
                before.1 = next.1;
            }
            joins
        });
        (!left.is_empty()).then_some(Self(left))
    }
}

impl Display for NumberList {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (index, (first, last)) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{first}")?;
            if last != first {
                write!(f, "-{last}")?;
            }
        }
        Ok(())
    }
}

impl Serialize for NumberList {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> NumberList {
        NumberList::parse(text).unwrap()
    }

    #[test]
    fn lists() {
        for text in ["0", "0-3", "0,2-5,9", "65535"] {
            assert_eq!(list(text).to_string(), text);
        }
        for bad in [
            "", ",", "1,", "a", "3-1", "-1", "0-", "1-2-3", "+1", "65536", "0x1", " 0",
        ] {
            assert_eq!(NumberList::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn what_a_list_has_more_than_another() {
        assert_eq!(list("0-3,7").count(), 5);
        assert_eq!(list("0-3").without(&list("0,1-7")), None);
        assert_eq!(
            list("0-9").without(&list("2-3,7")),
            Some(list("0-1,4-6,8-9"))
        );
        assert_eq!(list("5").without(&list("0-1")), Some(list("5")));
    }

    #[test]
    fn ulimits_are_told_as_they_are_typed() {
        let ulimit = Ulimit {
            resource: Resource::Nofile,
            soft: Some(10),
            hard: None,
        };
        assert_eq!(ulimit.to_string(), "nofile=10:unlimited");
    }
}
