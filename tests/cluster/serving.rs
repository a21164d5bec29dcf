//! Clusters of all sizes serve, through every node.

use super::clients::{assert_no_quorum, assert_serves, client, get, put};
use super::nodes::{Cluster, Keep};
use std::time::Duration;

/// A put through each node, by a client that knows only that node, is read back through all others.
fn assert_every_node_serves(cluster: &Cluster) {
    let clients: Vec<_> = (0..cluster.count())
        .map(|node| client(cluster.address(node)))
        .collect();
    for (through, writer) in clients.iter().enumerate() {
        let key = format!("through-{through}");
        for value in ["first", "second"] {
            put(writer, &key, value);
            for reader in &clients {
                assert_eq!(get(reader, &key).as_deref(), Some(value));
            }
        }
    }
    assert_eq!(get(&clients[0], "never written"), None);
}

#[test]
fn five_nodes_serve_through_each() {
    let cluster = Cluster::start(5, Keep::Memory);
    assert_every_node_serves(&cluster);
    let masters: Vec<u8> = (0..5)
        .map(|node| cluster.status(node).unwrap().master)
        .collect();
    let first = cluster.status(0).unwrap().node;
    assert_eq!(masters, [first; 5]);
}

#[test]
fn four_nodes_serve_through_each() {
    assert_every_node_serves(&Cluster::start(4, Keep::Memory));
}

#[test]
fn one_node_serves() {
    assert_every_node_serves(&Cluster::start(1, Keep::Memory));
}

#[test]
fn of_two_nodes_the_master_serves_alone_and_the_other_does_not() {
    let mut cluster = Cluster::start(2, Keep::Memory);
    assert_every_node_serves(&cluster);
    assert!(
        cluster.log(0).contains("alone is a quorum"),
        "the start says so"
    );
    cluster.kill([1]);
    assert_serves(&cluster.list(), "master alone");

    let mut cluster = Cluster::start(2, Keep::Memory);
    cluster.kill([0]);
    cluster.wait_until_dark([1]);
    assert_no_quorum(&cluster.list(), "other alone", Duration::from_secs(2));
}

/// The node has lost its promises: its vote must not count any more.
#[test]
fn a_node_that_forgot_has_no_vote_and_forwards() {
    let mut cluster = Cluster::start(5, Keep::Memory);
    put(&client(&cluster.list()), "before", "1");
    cluster.kill([4]);
    cluster.start_node(4);
    super::nodes::wait_until(super::nodes::SOON, "node 4 says what it lacks", || {
        let status = cluster.status(4);
        status.is_some_and(|s| s.cluster != 0 && !s.votes && !s.waits_for.is_empty())
    });

    let alone = client(cluster.address(4));
    assert_eq!(get(&alone, "before").as_deref(), Some("1"));
    put(&alone, "through 4", "2");
    for node in 0..4 {
        let other = client(cluster.address(node));
        assert_eq!(get(&other, "through 4").as_deref(), Some("2"));
        put(&other, &format!("through {node}"), "3");
    }

    // Three of five votes are up, and three are needed. The fifth node's vote would make no visible
    // difference; with two votes it would.
    cluster.kill([3]);
    assert_serves(&cluster.list(), "three votes");
    cluster.kill([2]);
    cluster.wait_until_dark([0, 1, 4]);
    assert_no_quorum(&cluster.list(), "two votes", Duration::from_secs(2));
    assert!(!cluster.status(4).unwrap().votes);
}
