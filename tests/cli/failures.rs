//! The messages when nodes do not serve.

use std::time::Duration;

use serde_json::json;

use crate::fake::{FakeCluster, Mood};
use crate::nodes::{Cluster, Keep};
use crate::shell::Shell;

/// The documented bound is two seconds; the machine may be busy with other tests.
const SOON: Duration = Duration::from_secs(3);

#[test]
fn nobody_there_is_no_quorum() {
    let shell = Shell::with("127.0.0.1:1 127.0.0.1:2");
    for words in [&["get", "k"][..], &["put", "k", "v"], &["del", "k"]] {
        let ran = shell.run(words);
        ran.failed(3, "no quorum");
        assert!(ran.took < SOON, "{:?}", ran.took);
        let (told, status) = shell.json(words);
        assert_eq!((&told["error"], status), (&json!("no_quorum"), 3));
        assert_eq!(told["result"], json!("error"));
    }
    let unresolved = shell.run(&["--nodes", "no-such-host.invalid:1", "get", "k"]);
    unresolved.failed(3, "no-such-host.invalid");
}

#[test]
fn nodes_without_a_quorum_say_so() {
    let cluster = FakeCluster::start(2);
    cluster.set_mood(Mood::NoQuorum);
    let shell = Shell::with(&cluster.nodes());
    for words in [&["get", "k"][..], &["add", "k", "1"]] {
        let ran = shell.run(words);
        ran.failed(3, "no quorum");
        assert!(ran.took < SOON, "{:?}", ran.took);
    }
}

#[test]
fn a_short_timeout_still_tells_no_quorum() {
    let shell = Shell::with("127.0.0.1:1");
    let ran = shell.run(&["--timeout", "200ms", "get", "k"]);
    ran.failed(3, "no quorum");
}

#[test]
fn two_of_three_nodes_killed_leave_no_quorum() {
    let mut cluster = Cluster::start(3, Keep::Memory);
    let shell = Shell::with(&cluster.list());
    shell.run(&["put", "k", "v"]).gave(0, "");
    cluster.kill([2]);
    shell.run(&["get", "k"]).gave(0, "v");
    cluster.kill([1]);
    cluster.wait_until_dark([0]);
    let ran = shell.run(&["get", "k"]);
    ran.failed(3, "no quorum");
    assert!(ran.took < SOON, "{:?}", ran.took);
    shell.run(&["put", "k", "w"]).failed(3, "no quorum");
}

#[test]
fn a_write_without_an_answer_has_an_unknown_outcome() {
    let cluster = FakeCluster::start(2);
    let shell = Shell::with(&cluster.nodes());
    for mood in [Mood::Swallow, Mood::Mute] {
        cluster.set_mood(mood);
        shell
            .run(&["put", "k", "v", "--timeout", "1.5"])
            .failed(5, "unknown outcome");
        shell
            .run(&["get", "k", "--timeout", "1.5"])
            .failed(6, "timed out");
    }
    let (told, status) = shell.json(&["put", "k", "v", "--timeout", "1.5"]);
    assert_eq!((&told["error"], status), (&json!("unknown_outcome"), 5));
}

#[test]
fn busy_nodes_are_told_of() {
    let cluster = FakeCluster::start(2);
    cluster.set_mood(Mood::Busy);
    let shell = Shell::with(&cluster.nodes());
    shell
        .run(&["put", "k", "v", "--timeout", "300ms"])
        .failed(6, "busy");
}

#[test]
fn an_old_value_that_nobody_knows_any_more_is_no_failure() {
    let cluster = FakeCluster::start(1);
    let shell = Shell::with(&cluster.nodes());
    cluster.set_mood(Mood::Forget);
    let ran = shell.run(&["put", "--old", "k", "v"]);
    ran.failed(0, "done, old value no longer known");
    let (told, status) = shell.json(&["put", "--old", "k", "v"]);
    assert_eq!((&told["old_known"], status), (&json!(false), 0));
    assert_eq!(told.get("old"), None);
}

#[test]
fn a_reader_that_went_away_is_no_failure_and_a_full_disk_is() {
    let cluster = FakeCluster::start(1);
    let shell = Shell::with(&cluster.nodes());
    shell.run(&["put", "k", "v"]).gave(0, "");
    let binary = env!("CARGO_BIN_EXE_horseshoe");
    let nodes = cluster.nodes();
    let status = |line: &str| {
        let line = format!("{binary} get k --nodes {nodes} {line}");
        let ran = std::process::Command::new("bash")
            .args(["-c", &line])
            .output()
            .unwrap();
        ran.status.code()
    };
    assert_eq!(status("> >(true); sleep 0; exit $?"), Some(0));
    assert_eq!(status(">/dev/full"), Some(6));
}
