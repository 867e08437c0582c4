//! Programs as people use them, inside, with real servers behind a router.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::util::dns::{self, DnsServer};
use crate::util::service::{Port, Service};
use crate::util::{Family, Host, Output, Side, Who, http, report, tool};

/// What the larger transfers move.
const LARGE: u64 = 64 << 20;
const MEDIUM: u64 = 16 << 20;

/// Runs a script in the host's own tree, with a folder as `/data`.
#[track_caller]
fn inside(who: Who, host: &Host, data: &Path, script: &str) -> Output {
    let volume = format!("{}:/data", data.display());
    let options = ["--rootfs=/", "--tmpfs=/tmp", "-v", &volume];
    let command = ["--", "sh", "-ec", script];
    who.crun(&[&options[..], &command].concat())
        .on(host)
        .limit(Duration::from_secs(120))
        .run()
}

/// A self-signed certificate and its key, as `cert.pem` and `key.pem`.
fn certificate(folder: &Path) {
    let script = "cd \"$1\"
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \
            -keyout key.pem -out cert.pem -days 2 -subj /CN=far.test 2>&1";
    tool("sh", &["-ec", script, "sh", folder.to_str().unwrap()]);
}

/// The lines of numbers that a transfer sends, and their sum.
fn numbers(count: u64) -> (String, String) {
    let data = format!("seq 1 400000000 | head -c {count}");
    let sum = tool("sh", &["-c", &format!("{data} | sha256sum")]);
    (data, sum)
}

both! {
    fn curl_moves_large_bodies_both_ways(who) {
        let host = routed_host!(who, "curl");
        let folder = who.folder();
        let (data, sum) = numbers(LARGE);
        let expected = format!("{}  -\n{}", http::sha256_of_bytes(LARGE), &sum[..64]);
        for &family in Family::ALL {
            let server = http::start_at(&host, Side::Far, family.far());
            let url = format!("http://{}", family.far_in_url(server.port()));
            let script = format!(
                "curl -sS {url}/bytes/{LARGE} | sha256sum; {data} | curl -sS -T - {url}/up"
            );
            let output = inside(who, &host, folder.path(), &script).exit(0);
            assert_eq!(output.stdout, expected, "{family:?}{output}");
        }
    }

    fn dig_asks_a_name_server_of_its_own_choice(who) {
        let host = routed_host!(who, "dig");
        let folder = who.folder();
        for &family in Family::ALL {
            let server = DnsServer::start_at(&host, Side::Far, family.far());
            let far = family.far();
            let script = format!(
                "dig +short +notcp @{far} host.test; dig +short +tcp @{far} host.test
                 dig +short @{far} long.test TXT | tr -d '\" ' | wc -c
                 dig @{far} absent.test | grep -o NXDOMAIN"
            );
            let output = inside(who, &host, folder.path(), &script).exit(0);
            let address = dns::ADDRESS;
            assert_eq!(
                output.stdout,
                format!("{address}\n{address}\n1201\nNXDOMAIN\n"),
                "{family:?}{output}"
            );
            assert_eq!(server.tcp.accepted(&host, Side::Far), 2, "{family:?}");
        }
    }

    fn iperf3_runs_in_all_its_ways(who) {
        let host = routed_host!(who, "iperf3");
        let folder = who.folder();
        let ways = [
            "-n 64M",
            "-n 64M -R",
            "-n 64M -P 4",
            "-n 64M -P 4 -R",
            "-u -b 40M -n 4M -l 1200",
            "-u -b 40M -n 4M -l 1200 -R",
        ];
        for &family in Family::ALL {
            for (number, way) in (0_u16..).zip(ways) {
                let port = 5201 + number;
                let (address, text) = (family.far().to_string(), port.to_string());
                let words = ["iperf3", "--server", "--bind", &address, "--port", &text];
                let _server = Service::start(&host, Side::Far, &words, &[Port::Tcp(port)]);
                let script = format!("iperf3 -J -c {address} -p {port} {way}");
                let output = inside(who, &host, folder.path(), &script).exit(0);
                let result: Value = serde_json::from_str(&output.stdout).unwrap();
                let end = &result["end"];
                let figure = |sum: &str, name: &str| end[sum][name].as_f64().unwrap_or(0.0);
                if way.starts_with("-u") {
                    let lost = figure("sum", "lost_percent");
                    assert!(figure("sum", "packets") > 3000.0, "{family:?} {way}{output}");
                    // Nothing but a full queue of a busy machine loses any.
                    assert!(lost < 50.0, "{family:?} {way}: {lost} % lost{output}");
                    report(&format!("iperf3 {way}, {family:?}, {who:?}: {lost:.1} % lost"));
                } else {
                    let (sent, received) =
                        (figure("sum_sent", "bytes"), figure("sum_received", "bytes"));
                    assert!(sent >= f64::from(64 << 20), "{family:?} {way}{output}");
                    // What is on its way when the sender has sent all is not counted.
                    assert!(received >= 0.25 * sent, "{family:?} {way}{output}");
                }
            }
        }
    }

    fn ssh_runs_commands_and_copies_files(who) {
        let host = routed_host!(who, "ssh", "scp", "sshd");
        let folder = who.folder();
        let server = Who::Root.folder();
        let (data, sum) = numbers(MEDIUM);
        let keys = "cd \"$1\"
            ssh-keygen -q -t ed25519 -N '' -f host_key
            ssh-keygen -q -t ed25519 -N '' -f \"$2/key\"
            cp \"$2/key.pub\" authorized_keys
            echo 'root:*:19000:0:99999:7:::' > shadow
            chmod 600 shadow
            mount --bind shadow /etc/shadow
            mkdir -p /run/sshd";
        let at = server.path().to_str().unwrap();
        let client = folder.path().to_str().unwrap();
        host.tool_on(Side::Far, &["sh", "-ec", keys, "sh", at, client]);
        who.own(&folder.path().join("key"));
        for &family in Family::ALL {
            let far = family.far();
            let listen = format!("ListenAddress={far}");
            let key = format!("HostKey={at}/host_key");
            let authorized = format!("AuthorizedKeysFile={at}/authorized_keys");
            let mut words = vec!["/usr/sbin/sshd", "-D", "-e", "-f", "/dev/null"];
            for option in [
                &listen,
                &key,
                &authorized,
                "PermitRootLogin=yes",
                "StrictModes=no",
                "UsePAM=no",
                "PidFile=none",
                "Subsystem=sftp internal-sftp",
            ] {
                words.extend(["-o", option]);
            }
            let _server = Service::start(&host, Side::Far, &words, &[Port::Tcp(22)]);
            let script = format!(
                "cp /data/key /tmp/key; chmod 600 /tmp/key
                 options='-F none -i /tmp/key -o BatchMode=yes -o StrictHostKeyChecking=no
                     -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR'
                 ssh $options root@{far} 'echo \"from $SSH_CONNECTION\"'
                 ssh $options root@{far} 'exit 7' || echo \"exit $?\"
                 {data} | ssh $options root@{far} sha256sum
                 {data} > /tmp/there
                 scp -q $options /tmp/there 'root@[{far}]:/run/file'
                 scp -q $options 'root@[{far}]:/run/file' /tmp/back
                 sha256sum < /tmp/back"
            );
            let output = inside(who, &host, folder.path(), &script).exit(0);
            let printed = output.stdout.split_once('\n').unwrap();
            let from = format!("from {} ", family.host());
            assert!(printed.0.starts_with(&from), "{family:?}{output}");
            assert_eq!(printed.1, format!("exit 7\n{sum}{sum}"), "{family:?}{output}");
        }
    }

    fn git_clones_over_http(who) {
        let host = routed_host!(who, "git", "python3");
        let folder = who.folder();
        let server = Who::Root.folder();
        let make = "cd \"$1\"
            export HOME=\"$1\" GIT_CONFIG_NOSYSTEM=1
            git init -q -b main work
            cd work
            seq 1 100000 > numbers
            git add numbers
            git -c user.name=T -c user.email=t@t.test commit -q -m 'first'
            git clone -q --bare . ../served.git
            cd ../served.git
            git update-server-info
            git rev-parse main";
        let at = server.path().to_str().unwrap();
        let commit = tool("sh", &["-ec", make, "sh", at]);
        for &family in Family::ALL {
            let _server = file_server(&host, family, at);
            let url = format!("http://{}/served.git", family.far_in_url(FILES_PORT));
            let script = format!(
                "export HOME=/tmp GIT_CONFIG_NOSYSTEM=1
                 git clone -q {url} /tmp/clone
                 cd /tmp/clone
                 git fsck --strict
                 git rev-parse HEAD
                 wc -l < numbers"
            );
            let output = inside(who, &host, folder.path(), &script).exit(0);
            assert_eq!(output.stdout, format!("{commit}100000\n"), "{family:?}{output}");
        }
    }

    fn apt_updates_from_a_mirror(who) {
        let host = routed_host!(who, "apt-get", "dpkg-deb", "python3");
        let folder = who.folder();
        let server = Who::Root.folder();
        let at = server.path().to_str().unwrap();
        let sum = tool("sh", &["-ec", MIRROR, "sh", at]);
        for &family in Family::ALL {
            let _server = file_server(&host, family, at);
            let url = format!("http://{}", family.far_in_url(FILES_PORT));
            let script = format!(
                "mkdir -p /tmp/apt/lists/partial /tmp/apt/archives/partial
                 cd /tmp/apt
                 echo 'deb [trusted=yes] {url} stable main' > sources.list
                 : > status
                 options='-o Dir::Etc::sourcelist=/tmp/apt/sources.list -o Dir::Etc::sourceparts=-
                     -o Dir::State::lists=/tmp/apt/lists -o Dir::State::status=/tmp/apt/status
                     -o Dir::Cache=/tmp/apt -o APT::Architecture=all -o APT::Sandbox::User=root
                     -o Acquire::http::Proxy=DIRECT -o Acquire::Languages=none'
                 apt-get $options -qq --error-on=any update
                 apt-get $options -qq download small
                 sha256sum < small_1.0_all.deb"
            );
            let output = inside(who, &host, folder.path(), &script).exit(0);
            assert!(output.stdout.ends_with(&sum), "{family:?} {sum}{output}");
        }
    }

    fn dtls_is_spoken_both_ways(who) {
        let host = routed_host!(who, "openssl");
        let folder = who.folder();
        certificate(folder.path());
        let at = folder.path().to_str().unwrap();
        for &family in Family::ALL {
            let far = family.far_in_url(4433);
            let (cert, key) = (format!("{at}/cert.pem"), format!("{at}/key.pem"));
            let words = [
                "openssl", "s_server", "-dtls", "-accept", &far, "-cert", &cert, "-key", &key,
                "-quiet",
            ];
            let mut server = Service::start(&host, Side::Far, &words, &[Port::Udp(4433)]);
            let volume = format!("{at}:/data");
            let args = ["-i", "--rootfs=/", "-v", &volume, "--"];
            let client = [
                "openssl", "s_client", "-dtls", "-connect", &far, "-CAfile", "/data/cert.pem",
                "-verify_return_error", "-quiet", "-no_ign_eof",
            ];
            let client = who.crun(&[&args[..], &client].concat()).on(&host);
            let mut client = client.stdin_open().spawn();
            client.write(b"from the client\n");
            server.expect("from the client\n");
            server.write(b"from the server\n");
            client.expect("from the server\n");
            client.close_stdin();
            client.finish().exit(0);
        }
    }

    fn quic_fetches_a_file(who) {
        let host = routed_host!(who, "gtlsclient", "gtlsserver", "openssl");
        let folder = who.folder();
        let server = Who::Root.folder();
        certificate(server.path());
        let (data, sum) = numbers(4 << 20);
        let at = server.path().to_str().unwrap();
        tool("sh", &["-ec", &format!("{data} > \"$1/file\""), "sh", at]);
        for &family in Family::ALL {
            let far = family.far().to_string();
            let (cert, key) = (format!("{at}/cert.pem"), format!("{at}/key.pem"));
            let words = ["gtlsserver", "-q", "-d", at, &far, "4433", &key, &cert];
            let _server = Service::start(&host, Side::Far, &words, &[Port::Udp(4433)]);
            let script = format!(
                "cd /tmp
                 gtlsclient -q --exit-on-all-streams-close --download=/tmp {far} 4433 \
                     https://{}/file >&2
                 sha256sum < /tmp/file",
                family.far_in_url(4433)
            );
            let output = inside(who, &host, folder.path(), &script).exit(0);
            assert_eq!(output.stdout, sum, "{family:?}{output}");
        }
    }

    fn stun_finds_a_mapping_that_is_the_same_for_all(who) {
        let host = routed_host!(who, "stun", "stund");
        let folder = who.folder();
        // Its protocol, RFC 3489, knows no IPv6.
        let (first, second) = (Family::V4.far().to_string(), Family::V4.far_second().to_string());
        let words = ["stund", "-h", &first, "-a", &second];
        let _server =
            Service::start(&host, Side::Far, &words, &[Port::Udp(3478), Port::Udp(3479)]);
        let output = inside(who, &host, folder.path(), &format!("stun {first} || true"));
        assert!(
            output.stdout.contains("Independent Mapping"),
            "RFC 4787, REQ-1{output}"
        );
        report(&format!("stun, {who:?}: {}", output.stdout.trim().replace('\n', "; ")));
    }
}

const FILES_PORT: u16 = 8000;

/// Serves a folder over HTTP on the far side.
fn file_server(host: &Host, family: Family, folder: &str) -> Service {
    let address = family.far().to_string();
    let port = FILES_PORT.to_string();
    let words = [
        "/usr/bin/python3",
        "-m",
        "http.server",
        "--bind",
        &address,
        "--directory",
        folder,
        &port,
    ];
    Service::start(host, Side::Far, &words, &[Port::Tcp(FILES_PORT)])
}

/// Makes a Debian mirror with one package of 1 MiB in it, prints the package's sum.
const MIRROR: &str = "cd \"$1\"
    mkdir -p small/DEBIAN small/usr/share dists/stable/main/binary-all pool
    printf '%s\n' 'Package: small' 'Version: 1.0' 'Architecture: all' \
        'Maintainer: T <t@t.test>' 'Description: a small package' > small/DEBIAN/control
    seq 1 200000 > small/usr/share/small
    chmod -R u=rwX,go=rX .
    dpkg-deb -Znone --root-owner-group -b small pool/small_1.0_all.deb >&2
    packages=dists/stable/main/binary-all/Packages
    cat small/DEBIAN/control > $packages
    printf '%s\n' 'Filename: pool/small_1.0_all.deb' \
        \"Size: $(stat -c %s pool/small_1.0_all.deb)\" \
        \"SHA256: $(sha256sum < pool/small_1.0_all.deb | cut -c1-64)\" >> $packages
    printf '%s\n' 'Origin: T' 'Suite: stable' 'Codename: stable' 'Architectures: all' \
        'Components: main' \"Date: $(date -Ru)\" 'SHA256:' \
        \" $(sha256sum < $packages | cut -c1-64) $(stat -c %s $packages) main/binary-all/Packages\" \
        > dists/stable/Release
    sha256sum < pool/small_1.0_all.deb";
