//! The C library's heap (mallopt(3)).

/// Blocks of at least this many bytes are mapped one by one, so that freeing
/// them gives their pages back at once. It is the size of the smallest ring of
/// a TCP flow. glibc would otherwise raise its threshold to the largest block
/// that was ever freed, and keep what is below for ever.
const MAPPED_FROM: libc::c_int = 16 << 10;

/// Makes large blocks go back to the system when they are freed.
pub fn give_back_large_blocks() {
    // SAFETY: takes two numbers and changes nothing but glibc's own settings,
    // under its lock. It can only fail for a number that is out of range.
    let set = unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_FROM) };
    debug_assert_eq!(set, 1);
}
