//! `horseshoe txn`, on real nodes.

use serde_json::json;

use crate::nodes::{Cluster, Keep};
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
