//! A cluster whose nodes are hosts of an emulated network, and what its tests ask of it.

use std::process::Stdio;
use std::time::Duration;

use kvclient::{Call, Client, ClientOptions};
use wire::{Action, NodeStatus, Outcome, VALUE_SIZE_DEFAULT};

use crate::emulated::{Network, address};
use crate::nodes::wait_until;
use crate::process::Node;

/// A node of a cluster of the first `count` hosts.
pub fn serve(network: &Network, host: usize, count: usize) -> Node {
    let mut command = network.command(host, env!("CARGO_BIN_EXE_horseshoe"));
    command.arg("serve").arg((host - 1).to_string());
    command.args((1..=count).map(address));
    command.stdout(Stdio::null()).stderr(Stdio::null());
    Node(command.spawn().expect("the binary runs"))
}

/// A node on each of the first `count` hosts.
pub fn serve_all(network: &Network, count: usize) -> Vec<Node> {
    (1..=count)
        .map(|host| serve(network, host, count))
        .collect()
}

/// A client of the nodes on the first `count` hosts.
pub fn open(count: usize, deadline: Duration) -> Client {
    let nodes: Vec<String> = (1..=count).map(address).collect();
    let options = ClientOptions {
        deadline,
        ..ClientOptions::default()
    };
    Client::open(&nodes.join(","), options).expect("addresses")
}

pub fn statuses(client: &Client) -> Vec<NodeStatus> {
    let told = client.status(Duration::from_secs(2));
    told.into_iter().filter_map(|(_, status)| status).collect()
}

/// Waits until `count` nodes are members, and all of them serve.
pub fn wait_for_members(client: &Client, count: usize, patience: Duration) {
    wait_until(patience, &format!("{count} members"), || {
        let told = statuses(client);
        let serve = |s: &&NodeStatus| s.votes && s.quorum && s.members.len() == count;
        told.iter().filter(serve).count() == count
    });
}

/// Waits until `count` nodes hold the same records.
pub fn wait_until_equal(client: &Client, count: usize, patience: Duration) {
    wait_until(patience, "the same digest everywhere", || {
        let told = statuses(client);
        told.len() == count && told.iter().all(|s| s.digest == told[0].digest)
    });
}

fn large_value(seed: usize) -> Vec<u8> {
    let size = VALUE_SIZE_DEFAULT - seed;
    (0..size).map(|at| (at * 7 % 251 + seed) as u8).collect()
}

fn call(client: &Client, key: usize, action: Action) -> Outcome {
    let outcome = client.call(Call::new(format!("key {key}"), action));
    outcome.expect("it is done")
}

/// Puts a value of almost 1 MiB, reads it back and compares it.
pub fn put_and_get_large(client: &Client, key: usize) {
    let value = large_value(key).into();
    let outcome = call(client, key, Action::Put { value });
    assert!(matches!(outcome, Outcome::Written { .. }), "{outcome:?}");
    let outcome = call(client, key, Action::Get);
    let is_it = matches!(&outcome, Outcome::Value { value, .. } if *value == large_value(key));
    assert!(is_it, "key {key}");
}
