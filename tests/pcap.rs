//! `--pcap`, read by who has to be able to.

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::MetadataExt;

use crate::util::{Host, Side, Who, has_program, http, tool};

both! {
    fn tshark_reads_both_directions(who) {
        need!(who.has_tun(), "{who:?} may not open /dev/net/tun");
        need!(has_program("tshark"), "no tshark(1)");
        let host = Host::new();
        let folder = who.folder();
        let file = folder.path().join("a,b.pcap");
        let path = file.to_str().unwrap();
        who.crun(&[
            "--net=builtin:mtu=1500", "--pcap", path, "--rootfs=/", "--",
            "ping", "-c", "3", "-i", "0.01", "-s", "3000", "10.0.2.2",
        ])
        .on(&host)
        .run()
        .success();
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
        let frames = |filter: &str| {
            let fields = ["-T", "fields", "-e", "ip.src", "-e", "frame.len"];
            let printed = tool("tshark", &[&["-n", "-r", path, "-Y", filter][..], &fields].concat());
            printed.lines().map(str::to_owned).collect::<Vec<_>>()
        };
        // Each message comes in three pieces; the last one shows the whole.
        assert_eq!(frames("icmp.type == 8"), ["10.0.2.100\t82"; 3]);
        assert_eq!(frames("icmp.type == 0"), ["10.0.2.2\t82"; 3]);
        assert_eq!(frames("ip").len(), 18);
        assert_eq!(frames("_ws.malformed || icmp.checksum.status == 0"), [""; 0]);
        let types = tool("capinfos", &["-E", "-T", "-r", path]);
        assert!(types.contains("ether"), "{types}");
    }

    fn full_files_make_room(who) {
        need!(who.has_tun(), "{who:?} may not open /dev/net/tun");
        need!(has_program("curl"), "no curl(1)");
        let host = Host::new();
        let server = http::start(&host);
        for (files, names) in [(1, &["d"][..]), (3, &["d", "d.1", "d.2"])] {
            let folder = who.folder();
            let pcap = format!("{}/d,size=1m,files={files}", folder.path().display());
            let url = format!("http://{}:{}/bytes/8000000", Ipv4Addr::new(10, 0, 2, 2), server.port());
            who.crun(&[
                "--net=builtin:allow_host_loopback=true", "--pcap", &pcap, "--rootfs=/", "--",
                "curl", "-sS", "-o", "/dev/null", &url,
            ])
            .on(&host)
            .run()
            .success();
            let mut found: Vec<_> = fs::read_dir(folder.path())
                .unwrap()
                .map(|file| file.unwrap().file_name().into_string().unwrap())
                .collect();
            found.sort();
            assert_eq!(found, names);
            for name in names {
                let length = fs::metadata(folder.path().join(name)).unwrap().len();
                assert!(length <= 1 << 20, "{name}: {length}");
            }
        }
    }

    fn what_cannot_be_written_is_said_before_anything_is_done(who) {
        let folder = who.folder();
        let missing = format!("{}/none/d", folder.path().display());
        let directory = folder.path().to_str().unwrap();
        who.run(&["--pcap", &missing, "--", "true"]).refused(&["--pcap", &missing]);
        who.run(&["--pcap", directory, "--", "true"]).refused(&["--pcap", directory]);
        who.run(&["--net=none", "--pcap", "d", "--", "true"]).refused(&["--pcap", "--net=builtin"]);
    }
}
