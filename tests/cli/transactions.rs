//! `horseshoe txn`, on real nodes.

use std::time::Duration;

use serde_json::json;

use crate::nodes::{Cluster, Keep, wait_until};
use crate::shell::Shell;

const GUIDE: &str = include_str!("../../docs/guide.md");

fn three_nodes() -> (Cluster, Shell) {
    let cluster = Cluster::start(3, Keep::Memory);
    let shell = Shell::with(&cluster.list());
    (cluster, shell)
}

/// The transaction in the guide.
fn example() -> &'static str {
    let (_, rest) = GUIDE.split_once("horseshoe txn - <<'END'\n").unwrap();
    rest.split_once("END\n").unwrap().0
}

#[test]
fn the_example_of_the_guide_moves_money_once() {
    let (_cluster, shell) = three_nodes();
    let run = || shell.run_with_input(&["txn", "-"], example().as_bytes());
    run().failed(
        4,
        "conflict: `if alice present` does not hold: the key does not exist",
    );
    shell.run(&["get", "order:17"]).failed(1, "no such key");
    shell.run(&["put", "alice", "20"]).gave(0, "");
    run().gave(0, "15\n5\n");
    shell.run(&["get", "order:17"]).gave(0, "five from alice");
    run().failed(
        4,
        "conflict: `if order:17 absent` does not hold: the key has version",
    );
    shell.run(&["get", "alice"]).gave(0, "15");
    let all = b"get alice\nget bob\nget none\n";
    shell
        .run_with_input(&["txn", "-"], all)
        .gave(0, "15\n5\n\n");
}

#[test]
fn json_has_an_object_a_line() {
    let (_cluster, shell) = three_nodes();
    let input = b"if a absent\nput a 1\nadd n 4\nget n\ndel gone\n";
    let (object, status) = shell.json_with_input(&["txn", "-"], input);
    assert_eq!((status, &object["result"]), (0, &json!("committed")));
    let results = object["results"].as_array().unwrap();
    let field = |name: &str| {
        results
            .iter()
            .map(|line| line[name].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(field("key"), ["a", "a", "n", "n", "gone"]);
    let none = json!(null);
    assert_eq!(
        field("value"),
        [
            none.clone(),
            none.clone(),
            json!("4"),
            none.clone(),
            none.clone()
        ]
    );
    let versions = field("version");
    assert!(versions[1].is_string() && versions[2].is_string());
    assert_eq!([&versions[0], &versions[3], &versions[4]], [&none; 3]);
    let version = versions[1].as_str().unwrap();
    let input = format!("if a version {version}\nif a value 2\nput a 3\n");
    let (object, status) = shell.json_with_input(&["txn", "-"], input.as_bytes());
    assert_eq!((status, &object["result"]), (4, &json!("conflict")));
    assert_eq!(object["condition"], json!("if a value 2"));
    assert_eq!(object["version"], versions[1]);
}

#[test]
fn a_put_with_a_time_to_live_expires() {
    let (_cluster, shell) = three_nodes();
    let run = |input: &[u8]| shell.run_with_input(&["txn", "-"], input);
    run(b"put long v ttl 1h\nput short v ttl 300ms\nput kept v ttl 1h\n").gave(0, "");
    let (object, _) = shell.json(&["ttl", "long"]);
    let left_ms = object["ttl_ms"].as_u64().expect("a time");
    assert!((3_500_000..=3_600_000).contains(&left_ms), "{left_ms}");
    // A put without a time to live removes it; an append keeps it.
    run(b"put long v\nappend kept w\n").gave(0, "");
    assert_eq!(shell.json(&["ttl", "long"]).0["ttl_ms"], json!(null));
    assert!(shell.json(&["ttl", "kept"]).0["ttl_ms"].is_u64());
    wait_until(Duration::from_secs(20), "the short one is gone", || {
        shell.run(&["get", "short"]).status == 1
    });
    run(b"if short absent\nget kept\n").gave(0, "vw\n");
}

#[test]
fn a_file_of_operations_may_have_transactions() {
    let (_cluster, shell) = three_nodes();
    let input = b"PUT,a,1\nBEGIN\nGET,a\nPUT,b,2\nDELETE,c\nCOMMIT\nGET,b\n";
    let ran = shell.run_with_input(&["run", "-"], input);
    let text = String::from_utf8(ran.stdout).unwrap();
    let commit = text.lines().nth(1).unwrap();
    assert_eq!(ran.status, 0, "{text}");
    assert!(
        commit.starts_with("2  COMMIT  \"a\"") && commit.ends_with("3 keys"),
        "{text}"
    );
    let ran = shell.run_with_input(&["--json", "run", "-"], input);
    let text = String::from_utf8(ran.stdout).unwrap();
    let objects = text.lines().map(|line| serde_json::from_str(line).unwrap());
    let objects: Vec<serde_json::Value> = objects.collect();
    assert_eq!(objects[1]["result"], json!("committed"), "{text}");
    let results = objects[1]["results"].as_array().unwrap();
    let keys: Vec<_> = results.iter().map(|r| (&r["key"], &r["value"])).collect();
    let (a, b, c) = (json!("a"), json!("b"), json!("c"));
    let (one, none) = (json!("1"), json!(null));
    assert_eq!(keys, [(&a, &one), (&b, &none), (&c, &none)]);
    assert!(results[1]["version"].is_string() && results[2]["version"].is_null());
    assert_eq!(objects[2]["value"], json!("2"));
    let bad = shell.run_with_input(&["run", "-"], b"PUT,a,9\nBEGIN\nPUT,b,9\n");
    bad.failed(2, "line 2: BEGIN without COMMIT; nothing was done");
    shell.run(&["get", "a"]).gave(0, "1");
}

#[test]
fn errors_say_what_was_wrong_and_nothing_is_done() {
    let (_cluster, shell) = three_nodes();
    let run = |input: &[u8]| shell.run_with_input(&["txn", "-"], input);
    run(b"put a 1\nputs b\n").failed(2, "line 2: \"puts b\" is not");
    run(b"").failed(2, "names no key");
    run(b"put a 1\nadd a 1\n").failed(2, "a key has two writes");
    shell.run(&["put", "word", "x"]).gave(0, "");
    run(b"put a 1\nadd word 1\n").failed(6, "not a number");
    shell.run(&["get", "a"]).failed(1, "no such key");
    shell.run(&["txn", "/no/such/file"]).failed(2, "can't read");
}
