//! Faults that are planted on purpose, to see that the checks of the model find them.
//!
//! Only a build with `--cfg fuzz_fault` has them, and only one that is named by
//! `plant` is active; in every other build [`is_planted`] is constantly false.

/// A planted fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(
    not(fuzz_fault),
    expect(unreachable_pub, reason = "for builds that have faults")
)]
pub enum Fault {
    /// Of a payload in two parts the second is not in the checksum.
    Checksum = 1,
    /// The host's socket stays open when the container refuses a connection.
    Leak = 2,
    /// A byte is skipped where a segment is cut off at the edge of the window.
    Edge = 3,
}

#[cfg(fuzz_fault)]
static PLANTED: std::sync::atomic::AtomicU8 = std::sync::atomic::AtomicU8::new(0);

/// Plants a fault, in place of any other.
#[cfg(fuzz_fault)]
pub fn plant(fault: Fault) {
    PLANTED.store(fault as u8, std::sync::atomic::Ordering::Relaxed);
}

#[cfg(fuzz_fault)]
pub(crate) fn is_planted(fault: Fault) -> bool {
    PLANTED.load(std::sync::atomic::Ordering::Relaxed) == fault as u8
}

#[cfg(not(fuzz_fault))]
pub(crate) const fn is_planted(_: Fault) -> bool {
    false
}
