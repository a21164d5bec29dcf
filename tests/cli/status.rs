//! `horseshoe status`.

use serde_json::json;

use crate::fake::{FakeCluster, Mood};
use crate::nodes::{Cluster, Keep};
use crate::shell::Shell;

#[test]
fn each_node_has_a_row() {
    let mut cluster = Cluster::start(3, Keep::Memory);
    let shell = Shell::with(&cluster.list());
    let (told, status) = shell.json(&["status"]);
    assert_eq!((&told["quorum"], status), (&json!(true), 0));
    for (place, node) in told["nodes"].as_array().unwrap().iter().enumerate() {
        assert_eq!(node["address"], json!(cluster.address(place)));
        assert_eq!(node["reachable"], json!(true));
        assert_eq!(node["votes"], json!(true));
        assert_eq!(node["is_master"], json!(place == 0));
        assert_eq!(node["durability"], json!("memory"));
        assert_eq!(node["version"], json!(env!("CARGO_PKG_VERSION")));
    }

    cluster.kill([1, 2]);
    cluster.wait_until_dark([0]);
    let ran = shell.run(&["status", "--timeout", "300ms"]);
    let text = String::from_utf8(ran.stdout).unwrap();
    assert_eq!(ran.status, 3, "{text}");
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("address"));
    let cells = |line: usize| lines[line].split_whitespace().collect::<Vec<_>>();
    assert_eq!(
        cells(1)[..6],
        [cluster.address(0), "yes", "1", "yes", "yes", "1/3"]
    );
    assert_eq!(cells(2)[..3], [cluster.address(1), "no", "-"]);
    assert_eq!(lines.last(), Some(&"no quorum is up"));
}

#[test]
fn what_a_node_waits_for_is_told() {
    let cluster = FakeCluster::start(2);
    let shell = Shell::with(&cluster.nodes());
    assert_eq!(shell.run(&["status"]).status, 0);
    cluster.set_mood(Mood::NoQuorum);
    let ran = shell.run(&["status"]);
    let text = String::from_utf8(ran.stdout).unwrap();
    assert_eq!(ran.status, 3);
    assert!(text.contains(": node 2 is not heard\n"), "{text}");
    let (told, status) = shell.json(&["status"]);
    assert_eq!((&told["quorum"], status), (&json!(false), 3));
    assert_eq!(told["nodes"][0]["incarnation"], json!("fffffffffffffffe"));
}
