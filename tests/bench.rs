//! `crun-lite bench net`: short runs, what they print and write, and what they
//! leave behind. No figure is held to a value.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::util::traces::{self, Traces};
use crate::util::{CrunLite, Host, SOON, Who, eventually};

/// Short, but something of everything.
const CASES: &str =
    "tcp_up_1,tcp_down_4,tcp_rr,tcp_crr_4,udp_rr,udp_up_64,udp_down_1400,flows_20,startup";
/// Samples in all the cases together may take so long on a busy machine.
const LIMIT: Duration = Duration::from_secs(180);

/// `crun-lite bench net OPTIONS` that writes to `folder`.
fn bench(who: Who, folder: &Path, options: &[&str]) -> CrunLite {
    let output = format!("--output={}", folder.display());
    let mut args = vec!["bench", "net", "--seconds=0.2", "--rounds=1", &output];
    args.extend(options);
    CrunLite::new(who, &args).limit(LIMIT)
}

/// The result of a case over a backend.
#[track_caller]
fn figure(json: &Value, case: &str, backend: &str, key: &str) -> f64 {
    let results = json["results"].as_array().unwrap();
    let result = results
        .iter()
        .find(|result| result["case"] == case && result["backend"] == backend);
    let result = result.unwrap_or_else(|| panic!("{case} over {backend} is missing in {json:#}"));
    assert_eq!(result["failures"], 0, "{result:#}");
    let figure = &result["figures"][key];
    assert_eq!(figure["n"], 1, "{key} in {result:#}");
    figure["median"].as_f64().unwrap()
}

/// Holds a chart to being XML, with a bar for each figure.
fn check_chart(svg: &str, values: usize) {
    let document = roxmltree::Document::parse(svg).unwrap();
    assert!(
        document
            .root_element()
            .has_tag_name(("http://www.w3.org/2000/svg", "svg"))
    );
    let bars = document.descendants().filter(|node| {
        node.has_tag_name(("http://www.w3.org/2000/svg", "rect"))
            && node
                .attribute("class")
                .is_some_and(|class| class.starts_with('b'))
    });
    assert_eq!(bars.count(), values, "{svg}");
    assert!(!svg.contains("failed"), "{svg}");
}

both! {
    fn a_short_run_measures_writes_and_leaves_nothing(who) {
        need!(who.has_tun(), "/dev/net/tun is closed to {who:?}");
        let host = Host::new();
        let folder = who.folder();
        let output = folder.path().join("made/by/it");
        let options = ["--backends=native,crun-lite", "--cases", CASES, "--mtu=1500"];
        let table = bench(who, &output, &options).on(&host).run().success();

        let text = fs::read_to_string(output.join("net.json")).unwrap();
        let json: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(json["complete"], true, "{json:#}");
        assert_eq!(json["samples"].as_array().unwrap().len(), 2 * 9);
        for backend in ["native", "crun-lite"] {
            for (case, key) in [
                ("tcp_up_1", "gbit_per_s"),
                ("tcp_down_4", "gbit_per_s"),
                ("tcp_rr", "transactions_per_s"),
                ("tcp_rr", "p50_us"),
                ("tcp_crr_4", "p99_us"),
                ("udp_rr", "transactions_per_s"),
                ("udp_up_64", "packets_per_s"),
                ("udp_down_1400", "packets_per_s"),
                ("flows_20", "opened_per_s"),
                ("startup", "start_ms"),
            ] {
                let value = figure(&json, case, backend, key);
                assert!(value > 0.0, "{case} {key} over {backend}: {value}");
            }
            let loss = figure(&json, "udp_up_64", backend, "loss_percent");
            assert!((0.0..100.0).contains(&loss), "{backend}: {loss}");
        }
        let cpu = figure(&json, "tcp_up_1", "crun-lite", "helper_cpu_s_per_gb");
        assert!(cpu > 0.0, "{cpu}");
        let memory = figure(&json, "flows_20", "crun-lite", "helper_rss_kib");
        assert!(memory > 0.0, "{memory}");
        figure(&json, "flows_20", "crun-lite", "bytes_per_flow");

        assert!(table.contains("| tcp_up_1, Gbit/s "), "{table}");
        assert!(table.starts_with(&fs::read_to_string(output.join("net.md")).unwrap()), "{table}");
        // 9 cases, helper CPU, round trips beside flows; native has no helper.
        let svg = fs::read_to_string(output.join("net-mtu1500.svg")).unwrap();
        check_chart(&svg, 2 * (9 + 2) - 2);
        // The folder's name is in the command line of everything that has one.
        let marker = format!("--output={}", output.display());
        assert_eq!(traces::marked(&marker), []);
    }

    fn json_goes_to_standard_output(who) {
        let folder = who.folder();
        let options = ["--backends=native", "--cases=tcp_rr", "--json", "--cc=", "--cpus=0"];
        let text = bench(who, folder.path(), &options).run().success();
        let json: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(json["settings"]["congestion_control"], Value::Null);
        assert_eq!(json["settings"]["cpus"], serde_json::json!([0]));
        assert!(figure(&json, "tcp_rr", "native", "transactions_per_s") > 0.0);
        assert_eq!(fs::read_to_string(folder.path().join("net.json")).unwrap(), text);
    }

    fn a_signal_ends_everything_and_keeps_what_there_is(who) {
        need!(who.has_tun(), "/dev/net/tun is closed to {who:?}");
        for signal in [Signal::INT, Signal::TERM] {
            let folder = who.folder();
            let options = [
                "--backends=bad:pasta=/bin/false,crun-lite",
                "--cases=tcp_up_1",
                "--seconds=60",
            ];
            let running = bench(who, folder.path(), &options).spawn();
            // Its children: a server, and a crun-lite with the client in a container.
            eventually("a container", SOON, || traces::below(running.pid()).len() >= 4);
            let traces = Traces::of(running.pid());
            running.signal(signal);
            let output = running.finish().exit(128 + signal.as_raw());
            assert!(output.stdout.contains("ended early"), "{output}");
            traces.assert_gone(SOON);
            let text = fs::read_to_string(folder.path().join("net.json")).unwrap();
            let json: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(json["complete"], false);
            assert_eq!(json["samples"][0]["backend"], "bad", "{json:#}");
            assert_eq!(json["samples"].as_array().unwrap().len(), 1, "{json:#}");
        }
    }

    fn a_benchmark_that_is_killed_takes_everything_with_it(who) {
        need!(who.has_tun(), "/dev/net/tun is closed to {who:?}");
        let folder = who.folder();
        let options = ["--backends=crun-lite", "--cases=tcp_rr", "--seconds=60"];
        let running = bench(who, folder.path(), &options).spawn();
        eventually("a container", SOON, || traces::below(running.pid()).len() >= 4);
        let traces = Traces::of(running.pid());
        running.signal(Signal::KILL);
        assert_eq!(running.finish().killed_by(), Some(Signal::KILL.as_raw()));
        traces.assert_gone(SOON);
    }

    fn what_fails_is_in_the_table_with_its_reason(who) {
        let folder = who.folder();
        let options = ["--backends=native,bad:pasta=/bin/false", "--cases=tcp_rr"];
        let table = bench(who, folder.path(), &options).run().success();
        assert!(table.contains("| failed |"), "{table}");
        assert!(
            table.contains("bad, tcp_rr, MTU 65520: 1 failed: false ended (exit code 1)"),
            "{table}"
        );
        assert!(fs::read_to_string(folder.path().join("net-mtu65520.svg")).unwrap().contains(">failed<"));
    }

    fn what_is_not_installed_is_named(who) {
        let folder = who.folder();
        let options = ["--backends=native,slirp4netns,pasta", "--cases=tcp_rr"];
        let run = bench(who, folder.path(), &options).through(&["env", "PATH=/nowhere"]);
        // Peers may be where administrators' programs are, which is looked at, too.
        let table = run.run().success();
        for peer in ["slirp4netns", "pasta"] {
            let installed = ["/usr/local/sbin", "/usr/sbin", "/sbin"]
                .iter()
                .any(|folder| Path::new(folder).join(peer).exists());
            let missing = format!("- {peer}: not installed\n");
            assert_eq!(table.contains(&missing), !installed, "{table}");
        }
    }

    fn wrong_words_are_refused_before_anything_starts(who) {
        let folder = who.folder();
        let output = folder.path().join("out");
        for (option, name) in [
            ("--cases=tcp_rr,tcp_sideways", "tcp_sideways"),
            ("--backends=native,vpnkit", "vpnkit"),
            ("--backends=pasta=/no/such/program", "/no/such/program"),
            ("--mtu=70000", "70000"),
            ("--seconds=fast", "fast"),
            ("--cpus=a", "--cpus"),
            ("--no-such-option", "--no-such-option"),
        ] {
            bench(who, &output, &[option]).run().refused(&[name]);
            assert!(!output.exists(), "{option}: it has begun");
        }
        bench(who, Path::new("/proc/nowhere"), &[]).run().refused(&["--output", "/proc/nowhere"]);
        let refused = bench(who, &output, &["--cpus=1000", "--backends=native", "--cases=tcp_rr"]);
        refused.run().refused(&["1000"]);
    }
}

/// Peers, where they are installed: whatever comes of it is told, and nothing stays.
#[test]
fn peers_are_measured_where_they_are_installed() {
    let who = Who::User;
    need!(
        who.has_user_namespaces(),
        "an ordinary user may not make user namespaces"
    );
    let host = Host::new();
    for peer in ["slirp4netns", "pasta"] {
        // Not needed for anything else, so that a machine need not have them.
        if !crate::util::has_program(peer) {
            crate::util::report(&format!("SKIP {peer} is not installed"));
            continue;
        }
        let folder = who.folder();
        let backends = format!("--backends={peer}");
        // Not upwards: pasta stands still there for longer than this takes.
        let options = [
            &*backends,
            "--cases=tcp_down_1,udp_rr,flows_10,startup",
            "--mtu=1500",
        ];
        let table = bench(who, folder.path(), &options)
            .on(&host)
            .run()
            .success();
        let text = fs::read_to_string(folder.path().join("net.json")).unwrap();
        let json: Value = serde_json::from_str(&text).unwrap();
        for (case, key) in [
            ("tcp_down_1", "gbit_per_s"),
            ("tcp_down_1", "helper_cpu_s_per_gb"),
            ("udp_rr", "transactions_per_s"),
            ("flows_10", "helper_rss_kib"),
            ("startup", "start_ms"),
        ] {
            assert!(
                figure(&json, case, peer, key) > 0.0,
                "{case} {key}: {table}"
            );
        }
        assert_eq!(
            traces::marked(&format!("--output={}", folder.path().display())),
            []
        );
    }
}
