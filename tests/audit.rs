//! The container audit: a script that looks around in the default container, with
//! canaries planted outside.
//!
//! The script and its helper are not part of this repository: they are taken from
//! the folder that `CRUN_LITE_AUDIT_DIR` names.

use std::fs;
use std::net::Ipv4Addr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::PathBuf;
use std::time::Duration;

use crate::util::host::METADATA_ADDRESS;
use crate::util::servers::{TcpServer, UdpServer};
use crate::util::{Host, Side, Who, has_program, report, tool};

fn folder() -> Option<PathBuf> {
    let folder = PathBuf::from(std::env::var_os("CRUN_LITE_AUDIT_DIR")?);
    folder.join("container_audit.sh").exists().then_some(folder)
}

both! {
    fn the_default_container_passes(who) {
        let Some(tools) = folder() else {
            // Not `need!`: a checkout alone does not have it, in CI either.
            report("SKIP no container_audit.sh in CRUN_LITE_AUDIT_DIR");
            return;
        };
        need!(who.has_tun(), "{who:?} may not open /dev/net/tun");
        need!(has_program("gcc"), "no gcc(1)");
        let work = who.folder();
        let helper = work.path().join("container_audit_helper");
        let source = tools.join("container_audit.c");
        tool(
            "gcc",
            &[
                "-O2",
                "-static",
                "-o",
                helper.to_str().unwrap(),
                source.to_str().unwrap(),
            ],
        );
        fs::copy(
            tools.join("container_audit.sh"),
            work.path().join("container_audit.sh"),
        )
        .unwrap();

        // The canaries: an environment variable, a descriptor, a listener of each
        // kind, all of the host.
        let host = Host::new();
        let tcp = TcpServer::echo(&host, Side::Host, Ipv4Addr::UNSPECIFIED);
        let udp = UdpServer::echo(&host, Side::Host, Ipv4Addr::UNSPECIFIED);
        let name = format!("crun-lite-audit-{who:?}-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let _listener = host
            .inside(Side::Host, || UnixListener::bind_addr(&address))
            .unwrap();

        let namespaces: Vec<_> = ["pid", "mnt", "uts", "ipc", "net", "user", "cgroup"]
            .iter()
            .map(|kind| {
                host.tool(&["readlink", &format!("/proc/self/ns/{kind}")])
                    .trim()
                    .to_owned()
            })
            .collect();
        let arguments = [
            format!("NS={}", namespaces.join(",")),
            format!("HOSTNAME={}", host.tool(&["hostname"]).trim()),
            format!("PORT={}", tcp.port()),
            format!("UDP={}", udp.port()),
            format!("ABS={name}"),
            "GW=10.0.2.2".to_owned(),
            "HELPER=/run/audit/container_audit_helper".to_owned(),
            format!("META={METADATA_ADDRESS}"),
        ];
        let volume = format!("{}:/run/audit:ro", work.path().display());
        let mut args = vec!["-v", &volume, "--", "sh", "/run/audit/container_audit.sh"];
        let given = if host.is_own() {
            &arguments[..]
        } else {
            &arguments[..7]
        };
        args.extend(given.iter().map(String::as_str));
        let output = who
            .crun(&args)
            .on(&host)
            .env("AUDIT_CANARY", "1")
            .through(&["bash", "-c", "exec 9</etc/passwd; exec \"$@\"", "bash"])
            .limit(Duration::from_secs(180))
            .run();
        let failed: Vec<_> = output
            .stdout
            .lines()
            .filter(|line| line.starts_with("FAIL"))
            .collect();
        let passed = output
            .stdout
            .lines()
            .filter(|line| line.starts_with("ok "))
            .count();
        for line in &failed {
            report(&format!("audit, {who:?}: {line}"));
        }
        report(&format!(
            "audit, {who:?}: {passed} passed, {} failed",
            failed.len()
        ));
        assert!(passed > 100, "the audit did not run to its end{output}");
        assert!(failed.is_empty(), "{failed:#?}{output}");
    }
}
