//! `crun-lite bench soak`, `flows`, `churn` and `integrity`: short runs, what they
//! find, print and write, and what they leave behind.
//!
//! What the idle container uses is not held to a value: a test is no measurement.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::util::traces::{self, Traces};
use crate::util::{CrunLite, SOON, Who, eventually};

/// All of a run on a busy machine.
const LIMIT: Duration = Duration::from_secs(180);

/// `crun-lite bench VERB OPTIONS` that writes to `folder`.
fn bench(who: Who, verb: &str, folder: &Path, options: &[&str]) -> CrunLite {
    let json = format!("--json={}/out.json", folder.display());
    let mut args = vec![
        "bench",
        verb,
        "--settle=5s",
        "--idle=500ms",
        "--max-idle=100",
        &json,
    ];
    args.extend(options);
    CrunLite::new(who, &args).limit(LIMIT)
}

fn json_of(folder: &Path) -> Value {
    let text = fs::read_to_string(folder.join("out.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// The bar of that name, whether it is met or not.
#[track_caller]
fn bar<'a>(json: &'a Value, name: &str) -> &'a Value {
    let bars = json["bars"].as_array().unwrap();
    let found = bars.iter().find(|bar| bar["name"] == name);
    found.unwrap_or_else(|| panic!("no bar {name} in {json:#}"))
}

both! {
    fn a_short_soak_finds_nothing_and_leaves_nothing(who) {
        let folder = who.folder();
        let svg = folder.path().join("made/by/it.svg");
        let svg_option = format!("--svg={}", svg.display());
        let options = ["--duration=6s", "--interval=1s", "--rate=0.2", &svg_option];
        let table = bench(who, "soak", folder.path(), &options).run().success();
        assert!(table.contains("| errors "), "{table}");
        assert!(!table.contains("MISSED"), "{table}");

        let json = json_of(folder.path());
        assert_eq!(json["complete"], true, "{json:#}");
        assert_eq!(json["notes"], serde_json::json!([]), "{json:#}");
        assert_eq!(bar(&json, "errors")["value"], 0.0);
        for name in ["TCP flows in the end", "descriptors in the end"] {
            assert_eq!(bar(&json, name)["met"], true, "{json:#}");
        }
        // Each client has done each kind of work, and its bytes were right.
        for (client, kinds) in [
            ("container", &["tcp_rr", "udp_rr", "udp_flow", "connections", "names"][..]),
            ("host", &["tcp_rr", "udp_rr", "udp_flow", "connections"]),
            ("outside", &["tcp_rr", "udp_rr", "udp_flow", "connections"]),
        ] {
            let client = &json["clients"][client];
            for kind in kinds {
                assert!(client["done"][kind].as_u64() > Some(0), "{kind} in {client:#}");
            }
            for way in ["bytes_up", "bytes_down"] {
                assert!(client[way].as_u64() > Some(0), "{way} in {client:#}");
            }
        }
        let samples = json["samples"].as_array().unwrap();
        assert!(samples.len() >= 2, "{json:#}");
        for sample in samples {
            assert!(sample["rss_kib"].as_u64() > Some(1000), "{sample:#}");
            assert!(sample["fds"].as_u64() > Some(2), "{sample:#}");
            assert!(sample["flows"].as_u64() > Some(0), "{sample:#}");
        }
        let text = fs::read_to_string(&svg).unwrap();
        let document = roxmltree::Document::parse(&text).unwrap();
        let lines = document.descendants().filter(|node| {
            node.has_tag_name(("http://www.w3.org/2000/svg", "polyline"))
        });
        assert!(lines.count() > 10, "{text}");
        assert_eq!(traces::marked(&svg_option), []);
    }

    fn many_flows_are_held_and_answer(who) {
        let folder = who.folder();
        let options = ["--count=500", "--duration=3s", "--interval=1s"];
        bench(who, "flows", folder.path(), &options).run().exit(0);
        let json = json_of(folder.path());
        assert_eq!(bar(&json, "flows that are open")["value"], 500.0);
        assert_eq!(bar(&json, "flows in the end")["met"], true, "{json:#}");
        assert!(json["figures"]["flows_most"].as_f64() >= Some(500.0), "{json:#}");
        assert!(json["figures"]["rss_bytes_per_flow"].as_f64() > Some(0.0), "{json:#}");
    }

    fn runs_add_up_in_a_record(who) {
        let folder = who.folder();
        let record = folder.path().join("results.jsonl");
        let option = format!("--record={}", record.display());
        let churn = ["--cycles=600", "--workers=8", &option];
        bench(who, "churn", folder.path(), &churn).run().exit(0);
        assert_eq!(json_of(folder.path())["clients"]["container"]["done"]["connections"], 600);
        let integrity = ["--gib=0.0625", "--flows=16", &option];
        bench(who, "integrity", folder.path(), &integrity).run().exit(0);
        let json = json_of(folder.path());
        for way in ["gib_up", "gib_down"] {
            assert_eq!(json["figures"][way], 0.0625, "{json:#}");
        }
        let printed = bench(who, "churn", folder.path(), &churn).run().success();
        assert!(printed.contains("churn: 2 of 2 runs good"), "{printed}");
        assert!(printed.contains(" connections 1200.00"), "{printed}");
        let text = fs::read_to_string(&record).unwrap();
        let verbs: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap()["verb"].take())
            .collect();
        assert_eq!(verbs, ["churn", "integrity", "churn"]);
    }

    fn a_bar_that_is_missed_is_the_exit_code(who) {
        let folder = who.folder();
        let options = ["--cycles=100000000", "--duration=500ms"];
        let output = bench(who, "churn", folder.path(), &options).run().exit(1);
        assert!(output.stdout.contains("MISSED"), "{output}");
        let json = json_of(folder.path());
        assert_eq!(bar(&json, "connections")["met"], false, "{json:#}");
        assert_eq!(bar(&json, "errors")["met"], true, "{json:#}");
    }

    fn a_signal_ends_it_and_keeps_what_there_is(who) {
        let folder = who.folder();
        let running = bench(who, "soak", folder.path(), &["--interval=200ms"]).spawn();
        // Servers, clients, and a crun-lite with its container.
        eventually("a container", SOON, || traces::below(running.pid()).len() >= 6);
        std::thread::sleep(Duration::from_secs(1));
        let traces = Traces::of(running.pid());
        running.signal(Signal::TERM);
        let output = running.finish().exit(128 + Signal::TERM.as_raw());
        assert!(output.stdout.contains("ended early"), "{output}");
        traces.assert_gone(SOON);
        assert_eq!(json_of(folder.path())["complete"], false);
    }

    fn wrong_options_are_refused(who) {
        let folder = who.folder();
        let notes = folder.path().join("notes");
        fs::write(&notes, "remember the milk\n").unwrap();
        who.own(&notes);
        let record = format!("--record={}", notes.display());
        for (verb, option, word) in [
            ("soak", "--net=none", "only the network of our own"),
            ("soak", "--rate=0", "a number from"),
            ("soak", "--duration=1ms", "at least"),
            ("flows", "--count=131000", "--count"),
            ("churn", &record, "--record"),
            ("integrity", "--json=/proc/none/out.json", "--json"),
        ] {
            CrunLite::new(who, &["bench", verb, option]).run().refused(&[word]);
        }
        assert_eq!(fs::read_to_string(&notes).unwrap(), "remember the milk\n");
        CrunLite::new(who, &["bench", "flows", "--count=901"])
            .through(&["prlimit", "--nofile=1000"])
            .run()
            .refused(&["--count", "900", "limit on open files"]);
    }
}
