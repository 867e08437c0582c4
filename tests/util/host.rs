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
//! `Host::routed` adds a third one behind the world, which then is a router, and
//! IPv6 everywhere:
//!
//! ```text
//!   host                     world                              far
//!   198.18.0.1   host0 ---- world0 .254  world1 198.18.1.254 ---- far0 198.18.1.1, .2
//!   2001:db8::1                    ::fe         2001:db8:1::fe         2001:db8:1::1, ::2
//! ```
//!
//! As an ordinary user there is only the machine's own loopback.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tempfile::TempDir;

use super::family::Family;
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
    /// Behind the world, where the host is a routed one.
    Far,
}

/// The world's addresses on the link to the far side.
const WORLD1_ADDRESS: Ipv4Addr = Ipv4Addr::new(198, 18, 1, 254);
const WORLD1_ADDRESS6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0xfe);

/// A kernel sends few errors a second to one peer.
const PROMPT_ERRORS: &str = "
    echo 0 > /proc/sys/net/ipv4/icmp_ratelimit
    echo 0 > /proc/sys/net/ipv6/icmp/ratelimit";

/// A kernel uses no IPv6 address for a second or two, while it looks for another
/// owner.
const NO_DUPLICATES: &str = "
    for file in accept_dad dad_transmits; do
        file=/proc/sys/net/ipv6/conf/default/$file
        [ ! -e $file ] || echo 0 > $file
    done";

/// A host for one test.
pub(crate) struct Host {
    own: Option<Own>,
}

struct Own {
    host: Holder,
    world: Holder,
    far: Option<Holder>,
    files: TempDir,
}

impl Own {
    fn holder(&self, side: Side) -> &Holder {
        match side {
            Side::Host => &self.host,
            Side::World => &self.world,
            Side::Far => self
                .far
                .as_ref()
                .expect("only a routed host has a far side"),
        }
    }
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
             ip link add host0 type veth peer name world0 netns /proc/{world}/ns/net
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
                far: None,
                files,
            }),
        }
    }

    /// The same with IPv6, and with a machine behind the world.
    pub(crate) fn routed() -> Self {
        let mut routed = Self::new();
        let Some(own) = &mut routed.own else {
            return routed;
        };
        let (v4, v6) = (Family::V4, Family::V6);
        // A daemon's files of /run are not the machine's.
        own.far = Some(Holder::start(&format!(
            "ip link set lo up
             {PROMPT_ERRORS}
             mount -t tmpfs tmpfs /run
             ip link add far0 type veth peer name world1 netns /proc/{world}/ns/net
             ip addr add {}/24 dev far0
             ip addr add {}/24 dev far0
             ip addr add {}/64 dev far0 nodad
             ip addr add {}/64 dev far0 nodad preferred_lft 0
             ip link set far0 up
             ip route add default via {WORLD1_ADDRESS}
             ip route add default via {WORLD1_ADDRESS6} dev far0",
            v4.far(),
            v4.far_second(),
            v6.far(),
            v6.far_second(),
            world = own.world.child.id(),
        )));
        for (side, script) in [
            (
                Side::World,
                format!(
                    "{PROMPT_ERRORS}
                     ip addr add {}/64 dev world0 nodad
                     ip addr add {WORLD1_ADDRESS}/24 dev world1
                     ip addr add {WORLD1_ADDRESS6}/64 dev world1 nodad
                     ip link set world1 up
                     echo 1 > /proc/sys/net/ipv4/ip_forward
                     echo 1 > /proc/sys/net/ipv6/conf/all/forwarding",
                    v6.router()
                ),
            ),
            (
                Side::Host,
                format!(
                    "{PROMPT_ERRORS}
                     ip addr add {}/64 dev host0 nodad
                     ip route add default via {} dev host0",
                    v6.host(),
                    v6.router()
                ),
            ),
        ] {
            routed.tool_on(side, &["sh", "-ec", &script]);
        }
        routed
    }

    /// Gives the link between the world and the far side another MTU, bytes.
    pub(crate) fn set_far_mtu(&self, mtu: u32) {
        for (side, device) in [(Side::World, "world1"), (Side::Far, "far0")] {
            self.tool_on(
                side,
                &["ip", "link", "set", device, "mtu", &mtu.to_string()],
            );
        }
    }

    /// Replaces the resolvers of a host of the test's own.
    pub(crate) fn set_resolvers(&self, addresses: &[&str]) {
        let own = self.own.as_ref().expect("a host of the test's own");
        let lines = addresses.iter().map(|at| format!("nameserver {at}\n"));
        // In place: it is mounted over the real one.
        fs::write(
            own.files.path().join("resolv.conf"),
            lines.collect::<String>(),
        )
        .unwrap();
    }

    /// Gives it an `/etc` in which files can be replaced, if the kernel can.
    pub(crate) fn has_own_etc(&self) -> bool {
        let own = self.own.as_ref().expect("a host of the test's own");
        let script = format!(
            "grep -q overlay /proc/filesystems || exit 0
             cd {}
             mkdir etc && mount -t tmpfs tmpfs etc
             mkdir etc/upper etc/work && cp resolv.conf etc/upper
             umount /etc/resolv.conf
             mount -t overlay -o lowerdir=/etc,upperdir=etc/upper,workdir=etc/work overlay /etc
             echo own",
            own.files.path().display()
        );
        self.tool(&["sh", "-ec", &script]) == "own\n"
    }

    /// Replaces the file that names the resolvers, in an `/etc` of its own.
    pub(crate) fn replace_resolv_conf(&self, addresses: &[&str]) {
        let lines = addresses.iter().map(|at| format!("nameserver {at}\n"));
        let script = "printf %s \"$1\" > /etc/resolv.conf.new
            mv /etc/resolv.conf.new /etc/resolv.conf";
        let text = lines.collect::<String>();
        self.tool(&["sh", "-ec", script, "sh", &text]);
    }

    /// Whether it has addresses, a resolver and a world of its own.
    pub(crate) fn is_own(&self) -> bool {
        self.own.is_some()
    }

    /// Words before a command that is to run on it.
    pub(crate) fn prefix(&self) -> Vec<String> {
        self.prefix_on(Side::Host)
    }

    /// Words before a command that is to run on one side.
    pub(crate) fn prefix_on(&self, side: Side) -> Vec<String> {
        let Some(own) = &self.own else {
            return Vec::new();
        };
        let pid = own.holder(side).child.id().to_string();
        ["nsenter", "--target", &pid, "--net", "--mount", "--"]
            .map(str::to_owned)
            .to_vec()
    }

    /// Words before a command that is to end with that side, or before it with the
    /// process that they make.
    pub(crate) fn service_prefix(&self, side: Side) -> Vec<String> {
        let mut words = self.prefix_on(side);
        if let Some(own) = &self.own {
            let pid = own.holder(side).child.id();
            let namespace = format!("--pid=/proc/{pid}/ns/pid_for_children");
            words.insert(words.len() - 1, namespace);
        }
        words.extend(["setpriv", "--pdeathsig", "KILL", "--"].map(str::to_owned));
        words
    }

    /// What a program of the host prints when it runs there.
    #[track_caller]
    pub(crate) fn tool(&self, words: &[&str]) -> String {
        self.tool_on(Side::Host, words)
    }

    /// What a program prints when it runs on one side.
    #[track_caller]
    pub(crate) fn tool_on(&self, side: Side, words: &[&str]) -> String {
        let prefix = self.prefix_on(side);
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
        let path = format!("/proc/{}/ns/net", own.holder(side).child.id());
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
/// that it reads from, and with it whatever else is in its PID namespace.
struct Holder {
    child: Child,
}

impl Holder {
    fn start(script: &str) -> Self {
        let mut child = Command::new("unshare")
            .args(["--net", "--mount", "--propagation", "private"])
            .args(["--pid", "--fork", "--kill-child", "sh", "-ec"])
            .arg(format!(
                "{NO_DUPLICATES}\n{script}\necho ready\nexec cat >/dev/null"
            ))
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
