//! Capabilities (capabilities(7)).

/// podman's default set: chown, dac_override, fowner, fsetid, kill, setgid,
/// setuid, setpcap, net_bind_service, sys_chroot, setfcap.
pub const DEFAULT: u64 = 0x8004_05fb;

/// The capabilities after `--cap-add` and `--cap-drop`.
pub fn resolve(add: &[String], drop: &[String]) -> Result<u64, String> {
    match add.iter().chain(drop).next() {
        None => Ok(DEFAULT),
        Some(name) => Err(format!("unknown capability {name:?}")),
    }
}
