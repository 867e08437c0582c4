//! execve(2).

use std::ffi::{CStr, CString};
use std::io;

/// Arguments or environment in the form that execve(2) takes, made ahead of
/// time so that nothing can fail between fork and exec.
#[derive(Debug)]
pub struct CStringArray {
    strings: Vec<CString>,
    /// One pointer into each of `strings`, then null.
    pointers: Vec<*const libc::c_char>,
}

impl CStringArray {
    /// Takes the strings over.
    pub fn new(strings: Vec<CString>) -> Self {
        let pointers = strings
            .iter()
            .map(|s| s.as_ptr())
            .chain([std::ptr::null()])
            .collect();
        Self { strings, pointers }
    }

    /// The strings.
    pub fn strings(&self) -> &[CString] {
        &self.strings
    }
}

/// Runs the program at `path` in place of this one; returns only on failure.
pub fn execve(path: &CStr, argv: &CStringArray, env: &CStringArray) -> io::Error {
    // SAFETY: `path` is NUL-terminated; both arrays end with a null pointer and
    // point into strings that they own, whose buffers do not move.
    unsafe { libc::execve(path.as_ptr(), argv.pointers.as_ptr(), env.pointers.as_ptr()) };
    io::Error::last_os_error()
}
