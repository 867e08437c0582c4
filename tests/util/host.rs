//! The host side of network tests.
//!
//! As root, a test gets a host of its own: a network namespace with `lo` and an
//! uplink, a private `/etc/resolv.conf`, and behind the uplink a second
//! namespace, the outside world. Both live as long as two shells that read from
//! pipes of ours, so they are gone with the test, however it ends.
//!
//! ```text
//!   host                                        world
//!   127.0.0.1, 198.18.0.1 host0 ---- world0 198.18.0.254
//!   default route via 198.18.0.254          lo     169.254.169.254
//! ```
//!
//! As an ordinary user there is only the machine's own loopback.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tempfile::TempDir;

use super::who::Who;

/// The host's address on its uplink.
pub(crate) const HOST_ADDRESS: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
/// A machine of the outside world.
pub(crate) const WORLD_ADDRESS: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 254);
/// Where clouds keep their metadata: also in the outside world.
pub(crate) const METADATA_ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
/// The host's resolver, on its loopback as systemd-resolved has it.
pub(crate) const RESOLVER_ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 53);

/// Where a server stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// On the host that crun-lite runs on.
    Host,
    /// Behind its uplink.
    World,
}

/// A host for one test.
pub(crate) struct Host {
    own: Option<Own>,
}

struct Own {
    host: Holder,
    world: Holder,
    _files: TempDir,
}

impl Host {
    /// A host of the test's own where the tests run as root; else the machine.
    pub(crate) fn new() -> Self {
        if !Who::tests_run_as_root() {
            return Self { own: None };
        }
        let files = tempfile::Builder::new()
            .prefix("crun-lite-test.")
            .tempdir_in("/tmp")
            .unwrap();
        let resolv_conf = files.path().join("resolv.conf");
        fs::write(&resolv_conf, format!("nameserver {RESOLVER_ADDRESS}\n")).unwrap();

        let world = Holder::start(&format!(
            "ip link set lo up
             ip addr add {METADATA_ADDRESS}/32 dev lo"
        ));
        // Ordinary users may send echo requests, as distributions have it.
        let host = Holder::start(&format!(
            "ip link set lo up
             ip link add host0 type veth peer name world0 netns {world}
             ip addr add {HOST_ADDRESS}/24 dev host0
             ip link set host0 up
             nsenter --net=/proc/{world}/ns/net ip addr add {WORLD_ADDRESS}/24 dev world0
             nsenter --net=/proc/{world}/ns/net ip link set world0 up
             ip route add default via {WORLD_ADDRESS}
             echo '0 2147483647' > /proc/sys/net/ipv4/ping_group_range
             mount --bind {resolv_conf} /etc/resolv.conf",
            world = world.child.id(),
            resolv_conf = resolv_conf.display(),
        ));
        Self {
            own: Some(Own {
                host,
                world,
                _files: files,
            }),
        }
    }

    /// Whether it has addresses, a resolver and a world of its own.
    pub(crate) fn is_own(&self) -> bool {
        self.own.is_some()
    }

    /// Words before a command that is to run on it.
    pub(crate) fn prefix(&self) -> Vec<String> {
        let Some(own) = &self.own else {
            return Vec::new();
        };
        let pid = own.host.child.id().to_string();
        ["nsenter", "--target", &pid, "--net", "--mount", "--"]
            .map(str::to_owned)
            .to_vec()
    }

    /// What a program of the host prints when it runs there.
    #[track_caller]
    pub(crate) fn tool(&self, words: &[&str]) -> String {
        let prefix = self.prefix();
        let argv: Vec<&str> = prefix
            .iter()
            .map(String::as_str)
            .chain(words.iter().copied())
            .collect();
        super::tool(argv[0], &argv[1..])
    }

    /// Calls a function whose sockets belong to one side.
    pub(crate) fn inside<T: Send>(&self, side: Side, make: impl FnOnce() -> T + Send) -> T {
        let Some(own) = &self.own else { return make() };
        let holder = if side == Side::Host {
            &own.host
        } else {
            &own.world
        };
        let path = format!("/proc/{}/ns/net", holder.child.id());
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let namespace = File::open(&path).unwrap();
                move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                    .unwrap();
                make()
            });
            thread.join().unwrap()
        })
    }

    /// Its mount table.
    pub(crate) fn mounts(&self) -> String {
        let who = self
            .own
            .as_ref()
            .map_or_else(|| "self".to_owned(), |own| own.host.child.id().to_string());
        fs::read_to_string(format!("/proc/{who}/mountinfo")).unwrap()
    }
}

/// A shell in namespaces of its own, which it keeps alive. It ends with the pipe
/// that it reads from.
struct Holder {
    child: Child,
}

impl Holder {
    fn start(script: &str) -> Self {
        let mut child = Command::new("unshare")
            .args(["--net", "--mount", "--propagation", "private", "sh", "-ec"])
            .arg(format!("{script}\necho ready\nexec cat >/dev/null"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare(1)");
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        assert_eq!(
            line, "ready\n",
            "a host of the test's own could not be made; its stderr is above"
        );
        Self { child }
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}
