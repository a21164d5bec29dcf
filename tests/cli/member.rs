//! `horseshoe member`, against real nodes.

use serde_json::{Value, json};

use crate::nodes::{Cluster, Keep, SOON, wait_until};
use crate::shell::Shell;

/// Node ids with their roles, in order.
fn roles(shell: &Shell) -> Vec<(u64, String)> {
    let (told, status) = shell.json(&["member", "list"]);
    assert_eq!(status, 0, "{told}");
    let nodes = told["nodes"].as_array().unwrap().iter();
    let role = |node: &Value| node["role"].as_str().unwrap().to_owned();
    nodes
        .map(|node| (node["node"].as_u64().unwrap(), role(node)))
        .collect()
}

fn expected(roles: &[(u64, &str)]) -> Vec<(u64, String)> {
    let roles = roles.iter();
    roles
        .map(|(node, role)| (*node, (*role).to_owned()))
        .collect()
}

#[track_caller]
fn assert_done(shell: &Shell, words: &[&str]) {
    let ran = shell.run(words);
    let stdout = String::from_utf8(ran.stdout).unwrap();
    assert_eq!(ran.status, 0, "{words:?}: {stdout}{}", ran.stderr);
}

#[track_caller]
fn assert_refused(shell: &Shell, words: &[&str], status: i32, part: &str) {
    let ran = shell.run(words);
    assert_eq!(ran.status, status, "{words:?}: {}", ran.stderr);
    assert!(ran.stderr.contains(part), "{words:?}: {}", ran.stderr);
}

#[test]
fn a_machine_is_replaced_and_the_master_role_goes_over() {
    let mut cluster = Cluster::start(3, Keep::Memory);
    // The clients still have the old list.
    let shell = Shell::with(&cluster.list());
    assert_done(&shell, &["put", "k", "v"]);
    let at_first = expected(&[(1, "master"), (2, "member"), (3, "member")]);
    assert_eq!(roles(&shell), at_first);

    let new = cluster.list_another();
    cluster.start_node(3);
    let address = cluster.address(new).to_owned();
    assert_done(&shell, &["member", "replace", "2", &address]);
    let replaced = expected(&[(1, "master"), (3, "member"), (4, "member")]);
    assert_eq!(roles(&shell), replaced);
    assert_done(&shell, &["member", "replace", "2", &address]);
    assert_eq!(roles(&shell), replaced, "asked again, nothing changes");
    wait_until(SOON, "the word of the one taken out", || {
        let status = cluster.status(1);
        status.is_some_and(|s| s.node == 0 && s.waits_for.contains("was removed"))
    });

    assert_done(&shell, &["member", "transfer-master", "4"]);
    let (told, status) = shell.json(&["member", "remove", "1"]);
    assert_eq!((&told["result"], status), (&json!("done"), 0));
    assert_eq!(roles(&shell), expected(&[(4, "master"), (3, "member")]));
    let ran = Shell::with(&address).run(&["get", "k"]);
    assert_eq!((ran.status, ran.stdout), (0, b"v".to_vec()));
}

#[test]
fn what_makes_no_sense_is_refused() {
    let cluster = Cluster::start(1, Keep::Memory);
    let shell = Shell::with(&cluster.list());
    for (words, status, part) in [
        (&["member", "remove", "7"][..], 6, "there is no node 7"),
        (&["member", "remove", "1"], 6, "the only member"),
        (&["member", "transfer-master", "2"], 6, "there is no node 2"),
        (
            &["member", "replace", "2", "127.0.0.1:1"],
            6,
            "there is no node 2",
        ),
        (
            &["member", "add", "no-such-host.invalid:1"],
            6,
            "/etc/hosts",
        ),
        (&["member", "force", "1", "--yes"], 6, "a quorum is up"),
        (&["member", "force", "2", "--yes"], 6, "does not respond"),
        (&["member", "add", "nowhere"], 2, "has no port"),
        (&["member", "remove", "0"], 2, "not a node's id"),
        (&["member", "force"], 2, "required"),
    ] {
        assert_refused(&shell, words, status, part);
    }
    assert_eq!(roles(&shell), expected(&[(1, "master")]));
}

#[test]
fn a_new_node_is_waited_for_within_the_time() {
    let mut cluster = Cluster::start(1, Keep::Memory);
    let shell = Shell::with(&cluster.list());
    let new = cluster.list_another();
    let address = cluster.address(new).to_owned();
    let words = ["member", "add", &address, "--timeout", "1s"];
    let ran = shell.run(&words);
    assert_eq!(ran.status, 5, "{}", ran.stderr);
    let hint = format!("horseshoe serve 1 {} {address}", cluster.address(0));
    assert!(ran.stderr.contains(&hint), "{}", ran.stderr);
    assert!(ran.stderr.contains("not completed yet"), "{}", ran.stderr);
    assert_eq!(roles(&shell), expected(&[(1, "master"), (2, "away")]));
    cluster.start_node(new);
    assert_done(&shell, &["member", "add", &address]);
    assert_eq!(roles(&shell), expected(&[(1, "master"), (2, "member")]));
}

#[test]
fn who_forgot_makes_no_quorum_and_force_goes_on_with_the_others() {
    let mut cluster = Cluster::start(5, Keep::Memory);
    let shell = Shell::with(&cluster.list());
    assert_done(&shell, &["put", "k", "v"]);
    cluster.kill([2, 3, 4]);
    cluster.start_nodes([2, 3, 4]);
    wait_until(SOON, "the word on a quorum that is lost", || {
        let status = cluster.status(0);
        status.is_some_and(|s| s.waits_for.contains("`horseshoe member force 1 2`"))
    });
    assert_eq!(shell.run(&["get", "k"]).status, 3);

    let empty = ["member", "force", "1", "3", "--yes"];
    assert_refused(&shell, &empty, 6, "omit it");
    let ran = shell.run_with_input(&["member", "force", "1", "2"], b"yes\n");
    assert_eq!(ran.status, 2, "{}", ran.stderr);
    assert!(ran.stderr.contains("What may be lost"), "{}", ran.stderr);
    let ran = shell.run_with_input(&["member", "force", "1", "2"], b"force\n");
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    let ran = shell.run(&["get", "k"]);
    assert_eq!((ran.status, ran.stdout), (0, b"v".to_vec()));
    assert_done(&shell, &["put", "k", "w"]);
    // The other nodes catch up, and are members again.
    cluster.wait_until_serving(0..5);
    assert_eq!(roles(&shell).len(), 5);
    let ran = shell.run(&["get", "k"]);
    assert_eq!((ran.status, ran.stdout), (0, b"w".to_vec()));
}

/// A membership change is an operation: it goes to the cluster in use, even if another cluster at
/// the given addresses has made more changes.
#[test]
fn members_of_two_clusters_are_an_error_unless_one_is_named() {
    let mut one = Cluster::start(1, Keep::Memory);
    let mut two = Cluster::start(1, Keep::Memory);
    let new = two.list_another();
    let [own, other, address] =
        [one.address(0), two.address(0), two.address(new)].map(str::to_owned);
    two.start_node(new);
    assert_done(&Shell::with(&other), &["member", "add", &address]);

    let both = Shell::with(&format!("{own},{other}"));
    let [one_id, two_id] = [&one, &two].map(|c| c.status(0).expect("it answers").cluster);
    let [one_id, two_id] = [one_id, two_id].map(|id| format!("{id:016x}"));
    for words in [
        &["member", "list"][..],
        &["member", "add", "127.0.0.1:1"],
        &["member", "remove", "2"],
        &["member", "replace", "2", "127.0.0.1:1"],
        &["member", "transfer-master", "2"],
        &["member", "force", "1", "--yes"],
    ] {
        for id in [&one_id, &two_id] {
            assert_refused(&both, words, 2, id);
        }
        assert_refused(&both, words, 2, "belong to two clusters");
    }
    let (told, status) = both.json(&["member", "transfer-master", "2"]);
    assert_eq!((&told["error"], status), (&json!("two_clusters"), 2));

    let named = ["--cluster", &one_id, "member", "remove", "2"];
    assert_refused(&both, &named, 6, "there is no node 2");
    let named = ["--cluster", &one_id, "member", "list", "--json"];
    let told = String::from_utf8(both.run(&named).stdout).expect("text");
    assert!(told.contains(&one_id) && !told.contains(&two_id), "{told}");
    assert_done(
        &both,
        &["--cluster", &two_id, "member", "transfer-master", "2"],
    );
    assert_eq!(roles(&Shell::with(&own)), expected(&[(1, "master")]));
    let turned = expected(&[(2, "master"), (1, "member")]);
    assert_eq!(roles(&Shell::with(&other)), turned);
    let absent = [
        "--cluster",
        "00000000000000ff",
        "member",
        "remove",
        "2",
        "--timeout",
        "1s",
    ];
    assert_refused(&both, &absent, 3, "belongs to cluster");
    one.kill([0]);
    two.kill([0, 1]);
}
