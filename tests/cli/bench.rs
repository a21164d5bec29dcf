//! `horseshoe bench`.

use std::process::Child;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::fake::{FakeCluster, Mood};
use crate::nodes::{Cluster, Keep, SOON, wait_until};
use crate::shell::{Ran, Shell, ended};

fn number(told: &Value, path: &str) -> f64 {
    let found = told.pointer(path).and_then(Value::as_f64);
    found.unwrap_or_else(|| panic!("no {path} in {told}"))
}

/// What an open loop did with each operation that was to start: none is left out.
#[track_caller]
fn assert_all_are_accounted_for(told: &Value) {
    let errors = told["errors"].as_object().expect("an object").values();
    let failed: f64 = errors.map(|count| count.as_f64().unwrap()).sum();
    let sum = number(told, "/all/count") + failed + number(told, "/behind");
    assert_eq!(sum, number(told, "/intended"), "{told}");
}

fn json_of(ran: &Ran) -> Value {
    serde_json::from_slice(&ran.stdout).unwrap_or_else(|_| panic!("no JSON: {}", ran.stderr))
}

fn interrupt(child: &Child) {
    let id = Pid::from_raw(i32::try_from(child.id()).unwrap());
    kill(id, Signal::SIGINT).unwrap();
}

#[test]
fn one_client_and_many_are_measured() {
    let cluster = Cluster::start(3, Keep::Memory);
    let shell = Shell::with(&cluster.list());
    for (clients, handles) in [("1", "1"), ("50", "1"), ("7", "2")] {
        let words = ["bench", "--duration", "300ms", "--keys", "20"];
        let rest = [
            "--value-size",
            "7",
            "--clients",
            clients,
            "--handles",
            handles,
        ];
        let (told, status) = shell.json(&[&words[..], &rest[..]].concat());
        assert_eq!(status, 0, "{told}");
        assert_eq!(told["errors"], json!({}), "{told}");
        let of = |kind: &str, name: &str| told[kind][name].as_f64().unwrap();
        assert!(of("get", "count") > 0.0 && of("put", "count") > 0.0);
        assert!((of("get", "count") + of("put", "count") - of("all", "count")).abs() < 0.5);
        assert!(of("all", "p50_us") <= of("all", "p99_us"));
        assert!(of("all", "p99_us") <= of("all", "max_us"));
        assert!(of("all", "per_second") > 0.0);
        assert_eq!(told["loop"], "closed");
        assert_eq!(told["achieved_per_second"], told["all"]["per_second"]);
        let [min, mean, max] = ["count_min", "count_mean", "count_max"]
            .map(|name| number(&told, &format!("/per_client/{name}")));
        assert!(min <= mean && mean <= max, "{told}");
        let clients: f64 = clients.parse().unwrap();
        assert!((mean * clients - of("all", "count")).abs() < 0.5, "{told}");
    }
    let got = shell.run(&["get", "bench/00000019"]);
    assert_eq!((got.status, got.stdout.len()), (0, 7));
    shell.run(&["get", "bench/00000020"]).failed(1, "");
}

#[test]
fn the_mix_is_kept() {
    let cluster = FakeCluster::start(1);
    let shell = Shell::with(&cluster.nodes());
    let words = ["bench", "--duration=100ms", "--keys=3"];
    let (told, _) = shell.json(&[&words[..], &["--mix=0:1"]].concat());
    assert_eq!((&told["get"], &told["mix"]), (&json!(null), &json!("0:1")));
    let ran = shell.run(&[&words[..], &["--mix=1:0"]].concat());
    let text = String::from_utf8(ran.stdout).unwrap();
    assert!(
        text.contains("\nget ") && !text.contains("\nput "),
        "{text}"
    );
    assert!(text.ends_with("no errors\n"), "{text}");
}

#[test]
fn adds_have_keys_of_their_own() {
    let cluster = Cluster::start(3, Keep::Memory);
    let shell = Shell::with(&cluster.list());
    let words = ["bench", "--duration=300ms", "--keys=1", "--clients=8"];
    let (told, _) = shell.json(&[&words[..], &["--mix=0:0:1", "--warmup=100ms"]].concat());
    let added = number(&told, "/add/count");
    assert!(added > 0.0 && told["put"].is_null(), "{told}");
    assert_eq!(told["errors"], json!({}), "{told}");
    // Those of the warm-up, and the one before it, are not counted.
    let sum = shell.run(&["get", "bench/counter/00000000"]);
    let sum: f64 = String::from_utf8(sum.stdout)
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    assert!(sum > added, "{sum} after {added}");
    shell.run(&["get", "bench/00000000"]).failed(1, "");
}

#[test]
fn a_warm_up_is_not_measured() {
    let cluster = FakeCluster::start(1);
    let shell = Shell::with(&cluster.nodes());
    let words = [
        "bench",
        "--rate=1000",
        "--warmup=300ms",
        "--duration=500ms",
        "--keys=10",
    ];
    let (told, _) = shell.json(&words);
    assert_eq!(number(&told, "/intended"), 500.0, "{told}");
    assert_all_are_accounted_for(&told);
    assert_eq!(number(&told, "/warmup_seconds"), 0.3);
}

#[test]
fn each_second_is_told() {
    let cluster = FakeCluster::start(1);
    let shell = Shell::with(&cluster.nodes());
    let words = ["bench", "--duration=1500ms", "--keys=100", "--dist=zipf"];
    let (told, _) = shell.json(&words);
    assert_eq!(told["dist"], json!("zipf"), "{told}");
    let each_second = told["succeeded_each_second"].as_array().unwrap();
    assert_eq!(each_second.len(), 2, "{told}");
    let sum: u64 = each_second.iter().filter_map(Value::as_u64).sum();
    assert_eq!(json!(sum), told["all"]["count"]);
}

#[test]
fn without_a_quorum_it_ends_at_once() {
    let cluster = FakeCluster::start(1);
    cluster.set_mood(Mood::NoQuorum);
    let shell = Shell::with(&cluster.nodes());
    let ran = shell.run(&["bench", "--keys", "5000", "--duration", "1m"]);
    ran.failed(3, "the keys can't be written: no quorum");
}

#[test]
fn at_a_rate_each_operation_is_accounted_for() {
    let cluster = Cluster::start(3, Keep::Memory);
    let shell = Shell::with(&cluster.list());
    let words = ["bench", "--duration=500ms", "--keys=20", "--rate=501"];
    for handles in ["--handles=1", "--handles=2"] {
        let (told, status) = shell.json(&[&words[..], &[handles]].concat());
        assert_eq!((status, &told["loop"]), (0, &json!("open")), "{told}");
        assert_eq!(number(&told, "/intended_per_second"), 501.0);
        assert_eq!(number(&told, "/intended"), 251.0, "{told}");
        assert_all_are_accounted_for(&told);
        assert!(number(&told, "/achieved_per_second") > 0.0, "{told}");
        assert!(number(&told, "/in_flight_max") >= 1.0, "{told}");
        assert!(told.get("per_client").is_none(), "{told}");
    }
    let ran = shell.run(&words);
    let text = String::from_utf8(ran.stdout).unwrap();
    assert!(text.contains("rate: 501 a second intended, "), "{text}");
    assert!(text.contains(" of 251 were never started"), "{text}");
}

/// With one operation in flight no cluster reaches a million a second: the operations queue, and
/// the time in the queue is part of their latency.
#[test]
fn latency_counts_from_the_intended_start() {
    let cluster = FakeCluster::start(1);
    let shell = Shell::with(&cluster.nodes());
    let words = ["bench", "--rate=1000000", "--clients=1", "--duration=300ms"];
    let (told, status) = shell.json(&[&words[..], &["--keys=1"]].concat());
    assert_eq!((status, number(&told, "/intended")), (0, 300_000.0));
    assert_all_are_accounted_for(&told);
    assert!(number(&told, "/behind") > 0.0, "{told}");
    assert!(number(&told, "/behind_max_ms") > 0.0, "{told}");
    assert_eq!(number(&told, "/in_flight_max"), 1.0, "{told}");
    let late_ms = number(&told, "/started_late_max_ms");
    assert!(late_ms > 10.0, "{told}");
    assert!(number(&told, "/all/max_us") >= late_ms * 990.0, "{told}");
    assert!(number(&told, "/all/p50_us") > 1_000.0, "{told}");
}

#[test]
fn errors_are_counted_by_kind() {
    let cluster = FakeCluster::start(1);
    let shell = Shell::with(&cluster.nodes());
    for load in ["--rate=1000", "--clients=10"] {
        cluster.set_mood(Mood::Serve);
        let before = cluster.requests();
        let words = ["--json", "bench", "--keys=3", "--timeout=200ms", load];
        let child = shell.start(&[&words[..], &["--duration=1s"]].concat());
        wait_until(SOON, "the first operations", || {
            cluster.requests() > before + 20
        });
        cluster.set_mood(Mood::Mute);
        let ran = ended(child);
        let told = json_of(&ran);
        assert_eq!(ran.status, 0, "{told}");
        assert!(number(&told, "/errors/timed_out") > 0.0, "{told}");
        assert!(number(&told, "/errors/unknown_outcome") > 0.0, "{told}");
        if load.starts_with("--rate") {
            assert_all_are_accounted_for(&told);
        }
    }
}

#[test]
fn an_interrupt_ends_the_measurement_and_reports_it() {
    let cluster = FakeCluster::start(1);
    let shell = Shell::with(&cluster.nodes());
    for load in ["--rate=500", "--clients=1", "--clients=9"] {
        let before = cluster.requests();
        let words = ["--json", "bench", "--keys=3", "--duration=1h", load];
        let child = shell.start(&words);
        wait_until(SOON, "the first operations", || {
            cluster.requests() > before + 20
        });
        interrupt(&child);
        let ran = ended(child);
        let told = json_of(&ran);
        assert_eq!((ran.status, &told["interrupted"]), (0, &json!(true)));
        assert!(number(&told, "/all/count") > 0.0, "{told}");
        assert!(number(&told, "/seconds") < 600.0, "{told}");
        if load.starts_with("--rate") {
            assert_all_are_accounted_for(&told);
        }
    }
}

#[test]
fn an_interrupt_before_the_measurement_is_told() {
    let cluster = FakeCluster::start(1);
    cluster.set_mood(Mood::Swallow);
    let shell = Shell::with(&cluster.nodes());
    let child = shell.start(&["bench", "--timeout=1h"]);
    wait_until(SOON, "the first request", || cluster.requests() > 0);
    interrupt(&child);
    ended(child).failed(
        6,
        "interrupted while the keys were written; nothing was measured",
    );
}

#[test]
fn an_interrupt_in_the_warm_up_is_told() {
    let cluster = FakeCluster::start(1);
    let shell = Shell::with(&cluster.nodes());
    let child = shell.start(&["bench", "--keys=1", "--warmup=1h"]);
    wait_until(SOON, "the load", || cluster.requests() > 100);
    interrupt(&child);
    ended(child).failed(
        6,
        "interrupted before the measurement; nothing was measured",
    );
}

/// The second run finds the values of the first one, which have another size.
#[test]
fn a_history_is_checked_also_on_keys_that_exist() {
    let cluster = Cluster::start(3, Keep::Memory);
    let shell = Shell::with(&cluster.list());
    for (size, load) in [
        ("--value-size=100", "--clients=9"),
        ("--value-size=16", "--rate=500"),
        ("--value-size=17", "--clients=1"),
    ] {
        let words = ["bench", "--check", "--keys=5", "--duration=500ms"];
        let rest = ["--handles=2", size, load];
        let (told, status) = shell.json(&[&words[..], &rest[..]].concat());
        assert_eq!(status, 0, "{told}");
        assert_eq!(told["check"]["linearizable"], true, "{told}");
        assert_eq!(number(&told, "/check/keys"), 5.0);
        assert_eq!(number(&told, "/check/keys_unread"), 0.0);
        // Each key is also written before the load and read after it.
        let counted = number(&told, "/all/count") + 10.0;
        assert!(number(&told, "/check/operations") >= counted, "{told}");
    }
    let ran = shell.run(&["bench", "--check", "--mix=0:1", "--duration=100ms"]);
    let text = String::from_utf8(ran.stdout).unwrap();
    assert!(text.contains("\ncheck: linearizable; "), "{text}");
}

/// A cluster that is slower than the rate: the library refuses operations that would wait for too
/// long. These belong to the history too.
#[test]
fn the_record_has_the_operations_that_the_library_refused() {
    let cluster = FakeCluster::start(1);
    let shell = Shell::with(&cluster.nodes());
    let words = ["--json", "bench", "--check", "--keys=3", "--timeout=500ms"];
    let child = shell.start(&[&words[..], &["--rate=20000", "--duration=4s"]].concat());
    wait_until(SOON, "the first operations", || cluster.requests() > 1_000);
    cluster.set_mood(Mood::Slow);
    let told = json_of(&ended(child));
    assert_all_are_accounted_for(&told);
    assert!(number(&told, "/errors/busy") > 0.0, "{told}");
    let started = number(&told, "/intended") - number(&told, "/behind");
    let recorded = number(&told, "/check/operations");
    assert!(recorded >= started + 6.0, "{started} started: {told}");
    assert_eq!(told["check"]["linearizable"], true, "{told}");
}

#[test]
fn a_lost_write_fails_the_check() {
    let cluster = FakeCluster::start(1);
    let shell = Shell::with(&cluster.nodes());
    cluster.set_mood(Mood::Lose);
    let words = ["bench", "--check", "--keys=20", "--duration=200ms"];
    // Puts only are checked by the gets at the end.
    for mix in ["--mix=1:1", "--mix=0:1"] {
        let (told, status) = shell.json(&[&words[..], &[mix]].concat());
        assert_eq!((status, &told["check"]["linearizable"]), (7, &json!(false)));
        assert!(number(&told, "/check/violations") > 0.0, "{told}");
        let history = told["check"]["histories"][0].clone();
        assert!(history["key"].as_str().unwrap().starts_with("bench/"));
        let lines = history["operations"].as_array().unwrap();
        assert!(lines.len() >= 2, "{told}");
        let ran = shell.run(&[&words[..], &[mix]].concat());
        let text = String::from_utf8(ran.stdout).unwrap();
        assert_eq!(ran.status, 7, "{text}");
        assert!(text.contains("check: NOT LINEARIZABLE: "), "{text}");
        assert!(text.contains("\nkey bench/000000"), "{text}");
        assert!(ran.stderr.contains("the history is not linearizable"));
    }
}

#[test]
fn a_key_that_others_write_is_not_judged() {
    let cluster = FakeCluster::start(1);
    let shell = Shell::with(&cluster.nodes());
    let words = ["--json", "bench", "--check", "--keys=2", "--clients=1"];
    let child = shell.start(&[&words[..], &["--duration=2s", "--mix=9:1"]].concat());
    wait_until(SOON, "the first operations", || cluster.requests() > 20);
    for _ in 0..20 {
        shell.run(&["put", "bench/00000001", "foreign"]).gave(0, "");
    }
    let ran = ended(child);
    let told = json_of(&ran);
    assert_eq!(
        (ran.status, &told["check"]["linearizable"]),
        (6, &Value::Null)
    );
    assert_eq!(number(&told, "/check/undecided_other_writer"), 1.0);
    assert_eq!(number(&told, "/check/violations"), 0.0, "{told}");
}

#[test]
fn a_history_through_kills_of_nodes_is_linearizable() {
    const KEYS: u64 = 30;
    let mut cluster = Cluster::start(5, Keep::Memory);
    let shell = Shell::with(&cluster.list());
    for load in ["--rate=500", "--clients=20"] {
        let words = ["--json", "bench", "--check", "--keys=30", "--duration=6s"];
        let child = shell.start(&[&words[..], &[load]].concat());
        wait_until(SOON, "the keys", || {
            cluster.status(0).is_some_and(|status| status.keys == KEYS)
        });
        for node in [1, 3] {
            cluster.kill([node]);
            cluster.wait_until_serving([0, 2, 4]);
            cluster.start_node(node);
            cluster.wait_until_serving([node]);
        }
        let ran = ended(child);
        let told = json_of(&ran);
        assert_eq!(ran.status, 0, "{told} {}", ran.stderr);
        assert_eq!(told["check"]["linearizable"], true, "{told}");
        if load.starts_with("--rate") {
            assert_all_are_accounted_for(&told);
        }
    }
}

/// More clients than a handle has room for were answered busy by the library all the time.
#[test]
fn no_handle_is_given_more_than_it_can_have_in_flight() {
    let shell = Shell::with("127.0.0.1:1");
    for load in [&[][..], &["--rate=1"]] {
        let words = [&["bench", "--clients=32769"], load].concat();
        shell
            .run(&words)
            .failed(2, "give --handles 2 or --clients 32768");
    }
}

#[test]
fn without_a_node_it_ends_at_once() {
    let shell = Shell::with("127.0.0.1:1");
    let ran = shell.run(&["bench", "--rate=100", "--duration=1m", "--timeout=500ms"]);
    ran.failed(3, "the keys can't be written: no quorum");
}
