//! Addresses move from one cluster to another: a client stays with the one it met first.

use std::process::{Command, Output};
use std::time::Duration;

use kvclient::{Call, CallError, Client, ClientOptions};
use wire::{Action, Outcome};

use crate::nodes::{Cluster, Keep};
use crate::process::{Node, wait_until_serving};

const KEY: &str = "k";

fn put(client: &Client, value: &str) -> Result<Outcome, CallError> {
    let value = value.to_owned().into();
    client.call(Call::new(KEY, Action::Put { value }))
}

fn open(nodes: &str) -> Client {
    let options = ClientOptions {
        deadline: Duration::from_secs(2),
        ..ClientOptions::default()
    };
    Client::open(nodes, options).expect("addresses")
}

fn horseshoe(nodes: &str, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_horseshoe"));
    command.args(["--nodes", nodes]).args(words);
    command.output().expect("the binary runs")
}

/// The value in the cluster of one node.
fn held(client: &Client) -> Option<Vec<u8>> {
    match client.call(Call::new(KEY, Action::Get)) {
        Ok(Outcome::Value { value, .. }) => Some(value.to_vec()),
        Ok(Outcome::Absent) => None,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_client_never_writes_into_another_cluster() {
    let mut own = Cluster::start(3, Keep::Memory);
    let client = open(&own.list());
    put(&client, "before").expect("it serves");
    // A node's address now belongs to a cluster of one node.
    let address = own.address(1).to_owned();
    own.kill([1]);
    let _other = Node::serve(&["0", &address], std::process::Stdio::null());
    wait_until_serving(&address);
    for number in 0..50 {
        put(&client, &format!("{number}")).expect("two of three serve");
    }
    // No other node is up: the client must not use the other cluster instead of its own.
    own.kill([0, 2]);
    for number in 0..3 {
        let outcome = put(&client, &format!("late {number}"));
        assert!(outcome.is_err(), "{outcome:?}");
    }
    assert_eq!(held(&open(&address)), None, "the other cluster has no key");
}

#[test]
fn nodes_of_two_clusters_are_an_error_unless_one_is_named() {
    let one = Cluster::start(1, Keep::Memory);
    let two = Cluster::start(1, Keep::Memory);
    let list = format!("{},{}", one.address(0), two.address(0));
    let ids = [&one, &two].map(|c| c.status(0).expect("it answers").cluster);
    let ids = ids.map(|id| format!("{id:016x}"));
    for words in [&["put", KEY, "v"][..], &["get", KEY]] {
        let told = horseshoe(&list, words);
        let text = String::from_utf8_lossy(&told.stderr).into_owned();
        assert_eq!(told.status.code(), Some(2), "{text}");
        assert!(ids.iter().all(|id| text.contains(id.as_str())), "{text}");
    }
    let told = horseshoe(&list, &["--cluster", &ids[1], "put", KEY, "v"]);
    assert!(told.status.success(), "{told:?}");
    assert_eq!(held(&open(one.address(0))), None);
    assert_eq!(held(&open(two.address(0))).as_deref(), Some(&b"v"[..]));
    let told = horseshoe(&list, &["--cluster", "77", "get", KEY]);
    assert_eq!(told.status.code(), Some(2), "{told:?}");
    let absent = horseshoe(
        &list,
        &[
            "--cluster",
            "00000000000000ff",
            "--timeout",
            "1s",
            "get",
            KEY,
        ],
    );
    let text = String::from_utf8_lossy(&absent.stderr).into_owned();
    assert_eq!(absent.status.code(), Some(3), "{text}");
    assert!(text.contains("belongs to cluster"), "{text}");
}
