//! Restricts threads for real, in user namespaces of their own.

use std::collections::BTreeMap;
use std::fs;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::Command;

use rustix::fs::CWD;

use super::seccomp::{Decision, decisions};
use super::*;
use crate::config::{Groups, UserSpec};
use crate::plan::LandlockStep;
use crate::sys::seccomp::probe;
use crate::testing::in_namespaces;

#[test]
fn capabilities_that_do_not_exist_are_refused() {
    assert_eq!(
        Restrictions::prepare(&exec(1 << 41), CWD)
            .unwrap_err()
            .errno,
        libc::EINVAL
    );
    assert!(Restrictions::prepare(&exec(caps::ALL), CWD).is_ok());
}

#[test]
fn root_keeps_what_was_asked_for() {
    in_namespaces("security::tests::inside::root", |_| {});
}

#[test]
fn another_user_starts_with_nothing() {
    in_namespaces("security::tests::inside::user", |_| {});
}

#[test]
fn privileges_can_be_left_on() {
    in_namespaces("security::tests::inside::privileges", |_| {});
    in_namespaces("security::tests::inside::unconfined", |_| {});
}

#[test]
fn refused_calls_fail_and_programs_run() {
    in_namespaces("security::tests::inside::calls", |_| {});
}

#[test]
fn another_abi_kills() {
    in_namespaces("security::tests::inside::abi", |_| {});
}

#[test]
fn what_is_outside_the_domain_is_out_of_reach() {
    if !landlock::is_available() {
        crate::testing::skip("the kernel has no Landlock");
        return;
    }
    in_namespaces("security::tests::inside::domain", |_| {});
}

#[test]
fn who_may_mount_is_in_no_domain() {
    let default = SeccompProfile::Default;
    assert!(landlock::wanted(caps::DEFAULT, &default));
    assert!(!landlock::wanted(caps::DEFAULT | caps::SYS_ADMIN, &default));
    assert!(!landlock::wanted(
        caps::DEFAULT,
        &SeccompProfile::Unconfined
    ));
}

fn exec(capabilities: u64) -> ExecStep {
    ExecStep {
        argv: vec!["true".into()],
        env: Vec::new(),
        workdir: None,
        user: UserSpec::default(),
        groups: Groups::default(),
        capabilities,
        ambient: 0,
        seccomp: SeccompProfile::Default,
        landlock: None,
        no_new_privileges: true,
        tty: false,
        init: true,
        ulimits: Vec::new(),
    }
}

/// The tests that run in namespaces of their own, as root there.
mod inside {
    use super::*;
    use crate::testing::scratch;

    fn restrict(exec: &ExecStep, uid_is_root: bool) {
        scratch();
        let restrictions = Restrictions::prepare(exec, CWD).unwrap();
        restrictions.before_setuid().unwrap();
        restrictions.after_setuid(uid_is_root).unwrap();
    }

    fn check(expected: [(&str, u64); 7]) {
        let text = fs::read_to_string("/proc/thread-self/status").unwrap();
        let fields: BTreeMap<_, _> = text
            .lines()
            .filter_map(|line| line.split_once(":\t"))
            .collect();
        for (field, value) in expected {
            assert_eq!(u64::from_str_radix(fields[field], 16), Ok(value), "{field}");
        }
    }

    #[test]
    #[ignore = "started by root_keeps_what_was_asked_for"]
    fn root() {
        let kept = caps::DEFAULT | caps::NET_RAW;
        restrict(&exec(kept), true);
        check([
            ("CapBnd", kept),
            ("CapPrm", kept),
            ("CapEff", kept),
            ("CapInh", 0),
            ("CapAmb", 0),
            ("NoNewPrivs", 1),
            ("Seccomp", 2),
        ]);
    }

    #[test]
    #[ignore = "started by another_user_starts_with_nothing"]
    fn user() {
        restrict(&exec(caps::DEFAULT), false);
        check([
            ("CapBnd", caps::DEFAULT),
            ("CapPrm", 0),
            ("CapEff", 0),
            ("CapInh", 0),
            ("CapAmb", 0),
            ("NoNewPrivs", 1),
            ("Seccomp", 2),
        ]);
    }

    #[test]
    #[ignore = "started by privileges_can_be_left_on"]
    fn privileges() {
        restrict(
            &ExecStep {
                no_new_privileges: false,
                ..exec(caps::DEFAULT)
            },
            true,
        );
        check([
            ("CapBnd", caps::DEFAULT),
            ("CapPrm", caps::DEFAULT),
            ("CapEff", caps::DEFAULT),
            ("CapInh", 0),
            ("CapAmb", 0),
            ("NoNewPrivs", 0),
            ("Seccomp", 2),
        ]);
    }

    #[test]
    #[ignore = "started by privileges_can_be_left_on"]
    fn unconfined() {
        restrict(
            &ExecStep {
                seccomp: SeccompProfile::Unconfined,
                ..exec(0)
            },
            true,
        );
        check([
            ("CapBnd", 0),
            ("CapPrm", 0),
            ("CapEff", 0),
            ("CapInh", 0),
            ("CapAmb", 0),
            ("NoNewPrivs", 1),
            ("Seccomp", 0),
        ]);
    }

    #[test]
    #[ignore = "started by refused_calls_fail_and_programs_run"]
    fn calls() {
        restrict(&exec(caps::DEFAULT), true);
        let mut probed = 0;
        for (number, decision) in decisions(caps::DEFAULT) {
            if let Decision::Fail(errno) = decision {
                let result = probe(number.into(), [-1; 3]).map_err(Errno::raw_os_error);
                assert_eq!(result, Err(errno.into()), "call {number}");
                probed += 1;
            }
        }
        assert!(probed > 40, "{probed}");
        let errno = |call, arguments| probe(call, arguments).unwrap_err().raw_os_error();
        let typed = 0x5412;
        assert_eq!(errno(libc::SYS_ioctl, [-1, typed, 0]), libc::EPERM);
        assert_eq!(
            errno(libc::SYS_ioctl, [-1, typed | 1 << 32, 0]),
            libc::EPERM
        );
        assert_eq!(
            errno(libc::SYS_ioctl, [-1, 0x5401, 0]),
            libc::EBADF,
            "reaches the kernel"
        );
        for flag in [0x1000_0000, 0x4000_0000, 0x2_0000] {
            assert_eq!(errno(libc::SYS_clone, [flag, 0, 0]), libc::EPERM);
            assert_eq!(errno(libc::SYS_unshare, [flag, 0, 0]), libc::EPERM);
        }
        assert_eq!(errno(libc::SYS_socket, [40, 1, 0]), libc::EAFNOSUPPORT);
        assert_eq!(errno(libc::SYS_socket, [17, 3, 0]), libc::EAFNOSUPPORT);
        assert_eq!(errno(libc::SYS_socket, [16, 3, 12]), libc::EPROTONOSUPPORT);
        assert_eq!(errno(0x4000_0027, [0; 3]), libc::ENOSYS, "x32");
        assert_eq!(errno(10_000, [0; 3]), libc::ENOSYS);

        // The filter is kept by what is started from here.
        let output = Command::new("sh")
            .args(["-c", "(echo $(exec echo works) | cat)"])
            .output();
        assert_eq!(output.unwrap().stdout, b"works\n");
        let refused = Command::new("unshare")
            .args(["--user", "true"])
            .output()
            .unwrap();
        assert!(!refused.status.success());
        std::thread::spawn(|| ()).join().unwrap();
        UnixStream::pair().unwrap();
        UdpSocket::bind("[::1]:0").err();
        // `lo` is down here, so connecting fails, but not for want of a socket.
        let listener = TcpListener::bind("0.0.0.0:0").unwrap();
        let refused = TcpStream::connect(listener.local_addr().unwrap()).map_err(|e| e.kind());
        assert!(
            !matches!(refused, Err(std::io::ErrorKind::PermissionDenied)),
            "{refused:?}"
        );
    }

    #[test]
    #[ignore = "started by what_is_outside_the_domain_is_out_of_reach"]
    fn domain() {
        use std::os::linux::net::SocketAddrExt;
        use std::os::unix::net::{SocketAddr, UnixListener};

        use rustix::fs::{Mode, OFlags, open, openat};

        let root = scratch();
        for name in ["in", "beside"] {
            fs::create_dir(root.join(name)).unwrap();
            fs::write(root.join(name).join("file"), name).unwrap();
        }
        // What a mistake would leave open: the host's root directory.
        let path = OFlags::PATH | OFlags::CLOEXEC;
        let leaked = open("/", path, Mode::empty()).unwrap();
        let dir = open(&root, path, Mode::empty()).unwrap();
        let address = |name: &str| SocketAddr::from_abstract_name(name).unwrap();
        let before = UnixListener::bind_addr(&address("before")).unwrap();
        let exec = ExecStep {
            landlock: Some(LandlockStep {
                writable: vec!["/in".into(), "/beside/file".into()],
                scope_sockets: true,
            }),
            ..exec(caps::DEFAULT)
        };
        let restrictions = Restrictions::prepare(&exec, dir.as_fd()).unwrap();
        restrictions.before_setuid().unwrap();
        restrictions.after_setuid(true).unwrap();

        let denied = |result: std::io::Result<()>| {
            let errno = result.unwrap_err().raw_os_error();
            assert!(
                [Some(libc::EACCES), Some(libc::EXDEV)].contains(&errno),
                "{errno:?}"
            );
        };
        denied(fs::read("/etc/passwd").map(drop));
        denied(fs::read_dir("/").map(drop));
        denied(fs::write("/tmp/crun-lite-canary", ""));
        let through = openat(&leaked, "etc/passwd", OFlags::RDONLY, Mode::empty());
        assert_eq!(through.unwrap_err(), Errno::ACCESS, "CVE-2024-21626");
        denied(Command::new("/bin/true").status().map(drop));

        assert_eq!(fs::read(root.join("beside/file")).unwrap(), b"beside");
        fs::write(root.join("beside/file"), "written").unwrap();
        denied(fs::write(root.join("beside/new"), ""));
        denied(fs::remove_file(root.join("beside/file")));
        denied(fs::create_dir(root.join("new")));
        fs::create_dir(root.join("in/new")).unwrap();
        fs::rename(root.join("in/file"), root.join("in/new/file")).unwrap();
        denied(fs::rename(
            root.join("in/new/file"),
            root.join("beside/more"),
        ));

        let refused = UnixStream::connect_addr(&address("before"));
        if crate::sys::landlock::version().unwrap() >= 6 {
            assert_eq!(refused.unwrap_err().raw_os_error(), Some(libc::EPERM));
        }
        drop(before);
        let _own = UnixListener::bind_addr(&address("own")).unwrap();
        UnixStream::connect_addr(&address("own")).unwrap();
    }

    /// `int 0x80` and the calls of 32-bit programs.
    #[test]
    #[ignore = "started by another_abi_kills"]
    fn abi() {
        use std::os::unix::process::ExitStatusExt;
        restrict(&exec(caps::DEFAULT), true);
        let Some(program) = foreign_program() else {
            return;
        };
        let path = scratch().join("foreign");
        fs::write(&path, program).unwrap();
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let status = Command::new(&path).status().unwrap();
        assert_eq!(status.signal(), Some(libc::SIGSYS), "{status:?}");
    }

    /// A 64-bit ELF program that ends with status 0 through `int 0x80`.
    fn foreign_program() -> Option<Vec<u8>> {
        // xor ebx, ebx; mov eax, 1; int 0x80
        const CODE: [u8; 9] = [0x31, 0xdb, 0xb8, 1, 0, 0, 0, 0xcd, 0x80];
        const BASE: u64 = 0x40_0000;
        if cfg!(not(target_arch = "x86_64")) {
            return None;
        }
        let start = 64 + 56;
        let size = start + CODE.len() as u64;
        let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
        // Executable, x86-64, version 1, entry, program headers right behind.
        elf.extend([2, 0, 62, 0, 1, 0, 0, 0]);
        for word in [BASE + start, 64, 0] {
            elf.extend(word.to_le_bytes());
        }
        elf.extend([0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
        // One segment: load, readable and executable, the whole file.
        elf.extend([1, 0, 0, 0, 5, 0, 0, 0]);
        for word in [0, BASE, BASE, size, size, 0x1000] {
            elf.extend(word.to_le_bytes());
        }
        elf.extend(CODE);
        Some(elf)
    }
}
