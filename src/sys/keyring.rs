//! keyctl(2): a session keyring of one's own.

use std::io;

/// `KEYCTL_JOIN_SESSION_KEYRING` (linux/keyctl.h)
const JOIN_SESSION_KEYRING: libc::c_int = 1;

/// Replaces the session keyring that was inherited by a new, empty one.
pub fn join_new_session() -> io::Result<()> {
    let anonymous = std::ptr::null::<libc::c_char>();
    // SAFETY: a null name asks for an anonymous keyring; nothing is written.
    match unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, anonymous) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
