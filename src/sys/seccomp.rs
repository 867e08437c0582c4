//! Installing a system-call filter (seccomp(2)).

use rustix::io::{Errno, Result};

/// One instruction of classic BPF (`struct sock_filter`, linux/filter.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    /// Operation, addressing mode and operand kind.
    pub code: u16,
    /// Instructions to skip when a comparison holds.
    pub jump_true: u8,
    /// Instructions to skip when it does not.
    pub jump_false: u8,
    /// The operand.
    pub k: u32,
}

/// Flags of seccomp(2).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FilterFlags(libc::c_ulong);

impl FilterFlags {
    /// None: mitigation of speculative store bypass stays on where the kernel ties
    /// it to seccomp.
    pub const NONE: Self = Self(0);
    /// `SECCOMP_FILTER_FLAG_LOG`: what is not allowed is logged.
    pub const LOG: Self = Self(libc::SECCOMP_FILTER_FLAG_LOG);
    /// `SECCOMP_FILTER_FLAG_SPEC_ALLOW`: speculation is left as it is.
    pub const SPEC_ALLOW: Self = Self(libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW);

    /// These and `other`.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

#[repr(C)]
struct Program {
    len: libc::c_ushort,
    filter: *const Instruction,
}

/// Installs `program` as a filter of the calling thread and what it becomes;
/// it can never be taken off. The thread needs `no_new_privs` or
/// `CAP_SYS_ADMIN` in its user namespace.
pub fn install_filter(program: &[Instruction], flags: FilterFlags) -> Result<()> {
    let len = libc::c_ushort::try_from(program.len()).map_err(|_| Errno::INVAL)?;
    let program = Program {
        len,
        filter: program.as_ptr(),
    };
    // SAFETY: `Program` and `Instruction` have the layout of `struct
    // sock_fprog` and `struct sock_filter`; pointer and length describe a live
    // slice, which the kernel copies and does not keep.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags.0,
            &raw const program,
        )
    };
    if result < 0 {
        return Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO));
    }
    Ok(())
}

/// Makes any system call, with arguments that point nowhere.
#[cfg(test)]
pub(crate) fn probe(number: libc::c_long, arguments: [libc::c_long; 3]) -> Result<libc::c_long> {
    let [first, second, third] = arguments;
    probe_all(number, [first, second, third, -1, -1, -1])
}

/// [`probe`] with all six arguments.
#[cfg(test)]
pub(crate) fn probe_all(
    number: libc::c_long,
    arguments: [libc::c_long; 6],
) -> Result<libc::c_long> {
    let [a, b, c, d, e, f] = arguments;
    // SAFETY: callers give small numbers or -1, none of which is the address
    // of anything: the kernel can write nowhere.
    let result = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    if result < 0 {
        return Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO));
    }
    Ok(result)
}
