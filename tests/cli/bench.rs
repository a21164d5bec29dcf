//! `horseshoe bench`.

use serde_json::json;

use crate::fake::{FakeCluster, Mood};
use crate::nodes::{Cluster, Keep};
use crate::shell::Shell;

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
fn without_a_quorum_it_ends_at_once() {
    let cluster = FakeCluster::start(1);
    cluster.set_mood(Mood::NoQuorum);
    let shell = Shell::with(&cluster.nodes());
    let ran = shell.run(&["bench", "--keys", "5000", "--duration", "1m"]);
    ran.failed(3, "the keys can't be written: no quorum");
}
