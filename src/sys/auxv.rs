//! The auxiliary vector (getauxval(3)).

/// The kernel started this program with more privileges than its caller has:
/// set-user-ID, set-group-ID or file capabilities (`AT_SECURE`).
pub fn at_secure() -> bool {
    // SAFETY: getauxval(3) reads a vector that the kernel wrote before `main`
    // and that nothing changes; any type is a valid argument.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}
