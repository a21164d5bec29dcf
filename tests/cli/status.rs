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
    assert!(text.contains(": node 2 is unreachable\n"), "{text}");
    let (told, status) = shell.json(&["status"]);
    assert_eq!((&told["quorum"], status), (&json!(false), 3));
    assert_eq!(told["nodes"][0]["incarnation"], json!("fffffffffffffffe"));
}

#[test]
fn links_and_the_ways_around_missing_ones_are_shown() {
    let cluster = FakeCluster::start(3);
    let shell = Shell::with(&cluster.nodes());
    let ran = shell.run(&["status", "--links"]);
    let text = String::from_utf8(ran.stdout).unwrap();
    assert_eq!(ran.status, 0, "{text}");
    let has = |line: &str| {
        let words = |line: &str| {
            line.split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        text.lines().any(|found| words(found) == words(line))
    };
    assert!(has("1 - 0.25 ms down"), "{text}");
    assert!(has("2 0.25 ms - 0.25 ms"), "{text}");
    assert!(
        has("1 -> 3: through 2") && has("3 -> 1: through 2"),
        "{text}"
    );
    assert!(!text.contains("1 -> 2"), "{text}");
    let first = cluster.nodes().split(',').next().unwrap().to_owned();
    assert!(has(&format!("1 {first} 1 2 3 yes")), "{text}");
    assert_eq!(text.lines().last(), Some("a quorum is up"));

    let (told, status) = shell.json(&["status", "--links"]);
    assert_eq!(status, 0);
    let down = json!({
        "from": 1, "to": 3, "up": false, "rtt_us": 0, "loss_permille": 0, "drops_large": false
    });
    let links = told["links"].as_array().unwrap();
    assert_eq!(links.len(), 6);
    assert!(links.contains(&down));
    let third = &told["nodes"][2];
    let route = json!({ "to": 1, "through": [2], "works": true });
    assert_eq!(third["routes"][0], route);
    assert_eq!(third["component"], json!([1, 2, 3]));
    assert_eq!(
        (&third["messages_sent"], &third["messages_relayed"]),
        (&json!(70), &json!(7))
    );
}
