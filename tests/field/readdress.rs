//! Renumbering: nodes get other addresses, and keep what they hold.

use std::process::{Command, Output};
use std::time::Duration;

use kvclient::{Call, Client, ClientOptions};
use nix::sys::signal::Signal;
use wire::{Action, Outcome};

use crate::nodes::{Cluster, Keep, SOON, wait_until};

fn list(network: u8, count: usize) -> Vec<String> {
    let addresses = (1..=count).map(|node| format!("127.94.{network}.{node}:8801"));
    addresses.collect()
}

fn pairs(old: &[String], new: &[String]) -> Vec<String> {
    let moved = old.iter().zip(new).filter(|(old, new)| old != new);
    moved.map(|(old, new)| format!("{old}={new}")).collect()
}

fn readdress(nodes: &Cluster, node: usize, pairs: &[String]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_horseshoe"));
    command
        .args(["data", "readdress"])
        .arg(nodes.data_directory(node));
    command.args(pairs).output().expect("the binary runs")
}

#[track_caller]
fn ended(output: &Output, status: i32, words: &str) {
    let text = [&output.stdout[..], &output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert_eq!(output.status.code(), Some(status), "{text}");
    assert!(text.contains(words), "{words}: {text}");
}

fn client(nodes: &Cluster) -> Client {
    Client::open(&nodes.list(), ClientOptions::default()).expect("addresses")
}

fn put(nodes: &Cluster, value: &str) {
    let (client, value) = (client(nodes), value.to_owned());
    wait_until(SOON, "a put", || {
        let value = value.clone().into();
        let written = client.call(Call::new("k", Action::Put { value }));
        matches!(written, Ok(Outcome::Written { .. }))
    });
}

#[track_caller]
fn assert_holds(nodes: &Cluster, expected: &str) {
    let client = client(nodes);
    let mut last = None;
    wait_until(SOON, "a get", || {
        last = client.call(Call::new("k", Action::Get)).ok();
        last.is_some()
    });
    assert!(
        matches!(&last, Some(Outcome::Value { value, .. }) if value == expected),
        "{expected}: {last:?}"
    );
}

/// Waits until all nodes have a vote and the configuration has these addresses; returns its epoch.
fn wait_until_agreed(nodes: &Cluster, expected: &[String]) -> u64 {
    let mut expected = expected.to_vec();
    expected.sort_unstable();
    let mut epoch = 0;
    for node in 0..nodes.count() {
        wait_until(2 * SOON, &format!("node {node} with all addresses"), || {
            let Some(status) = nodes.status(node) else {
                return false;
            };
            let members = status.members.iter().filter(|m| m.heard);
            let mut members: Vec<String> = members.map(|m| m.address.clone()).collect();
            members.sort_unstable();
            epoch = status.epoch;
            members == expected && status.votes && status.quorum && !status.joint
        });
    }
    epoch
}

/// Three nodes, of which the first `moved` ones are renumbered while all are down.
fn renumber_all_at_once(networks: [u8; 2], moved: usize) {
    let old = list(networks[0], 3);
    let mut new = old.clone();
    new[..moved].clone_from_slice(&list(networks[1], moved));
    let mut nodes = Cluster::start_at(old.clone(), Keep::Fsync, &[]);
    put(&nodes, "before");
    let before = wait_until_agreed(&nodes, &old);
    for node in 0..3 {
        nodes.stop(node, Signal::SIGTERM);
    }
    for node in 0..3 {
        ended(&readdress(&nodes, node, &pairs(&old, &new)), 0, &new[0]);
    }
    nodes.relist(new.clone());
    nodes.start_nodes(0..3);
    assert_holds(&nodes, "before");
    put(&nodes, "after");
    // The address was written into the configuration, so no node needs `readdress` for it any more.
    wait_until(SOON, "another configuration", || {
        nodes.status(0).is_some_and(|s| s.epoch >= before + 2)
    });
    wait_until_agreed(&nodes, &new);
    nodes.kill(0..3);
    // A node that has lost its state learns the addresses from the others.
    std::fs::remove_dir_all(nodes.data_directory(1)).expect("a directory");
    nodes.start_nodes(0..3);
    wait_until_agreed(&nodes, &new);
    assert_holds(&nodes, "after");
    // `readdress` may be repeated, and reversed.
    nodes.stop(0, Signal::SIGTERM);
    ended(&readdress(&nodes, 0, &pairs(&old, &new)), 0, "already");
    nodes.start_node(0);
    wait_until_agreed(&nodes, &new);
}

#[test]
fn all_nodes_are_renumbered() {
    renumber_all_at_once([1, 2], 3);
}

#[test]
fn some_nodes_are_renumbered() {
    renumber_all_at_once([3, 4], 2);
}

#[test]
fn one_node_is_renumbered_while_the_others_serve() {
    let old = list(5, 3);
    let mut new = old.clone();
    new[0] = list(6, 1).remove(0);
    let mut nodes = Cluster::start_at(old.clone(), Keep::Fsync, &[]);
    put(&nodes, "before");
    // The master is unreachable until one of the other nodes knows its address.
    for node in 0..3 {
        nodes.stop(node, Signal::SIGTERM);
        ended(&readdress(&nodes, node, &pairs(&old, &new)), 0, &new[0]);
        if node == 0 {
            nodes.relist(new.clone());
        }
        nodes.start_node(node);
        if node > 0 {
            nodes.wait_until_serving([node]);
        }
        put(&nodes, "meanwhile");
    }
    wait_until_agreed(&nodes, &new);
    assert_holds(&nodes, "meanwhile");
}

/// The ids of the nodes stay, and quorums consist of ids: the side that has a quorum resolves the
/// addresses.
#[test]
fn two_halves_that_were_told_different_addresses_are_one_cluster() {
    let (old, new) = (list(7, 4), list(8, 4));
    let mut nodes = Cluster::start_at(old.clone(), Keep::Fsync, &[]);
    put(&nodes, "before");
    for node in 0..4 {
        nodes.stop(node, Signal::SIGTERM);
    }
    let nobody = list(9, 2);
    let wrong = [&nobody[..], &new[2..]].concat();
    for node in 0..4 {
        let told = if node < 2 { &new } else { &wrong };
        ended(&readdress(&nodes, node, &pairs(&old, told)), 0, &told[0]);
    }
    // The last two nodes alone for a while, with the addresses that they were given: half of four,
    // without the master.
    nodes.relist(wrong);
    nodes.start_nodes([2, 3]);
    std::thread::sleep(Duration::from_secs(2));
    for node in [2, 3] {
        assert!(nodes.status(node).is_some_and(|s| !s.quorum), "node {node}");
    }
    nodes.relist(new.clone());
    nodes.start_nodes([0, 1]);
    wait_until_agreed(&nodes, &new);
    assert_holds(&nodes, "before");
}

#[test]
fn what_is_wrong_is_refused_and_changes_nothing() {
    let old = list(10, 2);
    let mut nodes = Cluster::start_at(old.clone(), Keep::Fsync, &[]);
    put(&nodes, "before");
    let told = |nodes: &Cluster, words: &str| readdress(nodes, 0, &[words.to_owned()]);
    let elsewhere = &list(11, 1)[0];
    let good = format!("{}={elsewhere}", old[0]);
    ended(&told(&nodes, &good), 6, "in use");
    nodes.kill(0..2);
    ended(
        &told(&nodes, &format!("{elsewhere}=127.94.11.2:1")),
        6,
        "is not an address",
    );
    ended(
        &told(&nodes, &format!("{}={}", old[0], old[1])),
        6,
        "node 1 and of node 2",
    );
    ended(
        &told(&nodes, &format!("{0}={0}", old[0])),
        6,
        "changes nothing",
    );
    ended(&told(&nodes, "nonsense"), 2, "OLD=NEW");
    let identity = nodes.data_directory(0).join("identity");
    let before = std::fs::read_to_string(&identity).expect("a file");
    assert!(!before.contains("readdressed"), "{before}");
    ended(&told(&nodes, &good), 0, elsewhere);
    ended(&told(&nodes, &good), 0, "already");
    // After the reversal the state is as if nothing had been readdressed.
    ended(
        &told(&nodes, &format!("{elsewhere}={}", old[0])),
        0,
        &old[0],
    );
    let after = std::fs::read_to_string(&identity).expect("a file");
    assert_eq!(after, before);
    nodes.start_nodes(0..2);
    nodes.wait_until_serving(0..2);
    assert_holds(&nodes, "before");
    let nowhere = Command::new(env!("CARGO_BIN_EXE_horseshoe"))
        .args(["data", "readdress", "/nonexistent", &good])
        .output();
    ended(
        &nowhere.expect("the binary runs"),
        6,
        "not the data directory",
    );
}
