//! kill -9, with data directories.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use kvclient::{Call, Client};
use wire::Action;

use super::clients::{client, get, put, try_add, while_running};
use super::nodes::{Cluster, Keep, SOON, wait_until};

const KEYS: u64 = 1_000;

/// Runs one call for each key, all in flight together; all must succeed.
fn all_at_once(client: &Client, action: impl Fn(u64) -> Action) {
    for number in 0..KEYS {
        let key = format!("key-{number}");
        client
            .submit(Call::new(key.into_bytes(), action(number)), number)
            .expect("a call is taken");
    }
    let mut done = Vec::new();
    while done.len() < KEYS as usize {
        client.wait(Duration::from_secs(1));
        client.completions(&mut done, KEYS as usize);
    }
    for completion in done {
        if let Err(error) = completion.result {
            panic!("call {}: {error}", completion.tag);
        }
    }
}

fn keys_survive(keep: Keep) {
    let mut cluster = Cluster::start(5, keep);
    let value = |number: u64, life: u64| format!("{number} of life {life}");
    for life in 0..3 {
        let writer = client(&cluster.list());
        all_at_once(&writer, |number| Action::Put {
            value: Bytes::from(value(number, life)),
        });
        cluster.kill(0..5);
        cluster.start_nodes(0..5);
        cluster.wait_until_serving(0..5);
        let reader = client(&cluster.list());
        for number in 0..KEYS {
            let found = get(&reader, &format!("key-{number}"));
            assert_eq!(found, Some(value(number, life)), "key-{number}");
        }
    }
    // A quorum holds each key.
    let held: u64 = (0..5).map(|node| cluster.status(node).unwrap().keys).sum();
    assert!((3 * KEYS..=5 * KEYS).contains(&held), "{held} keys in all");
}

#[test]
fn keys_survive_the_end_of_all_nodes_at_once() {
    keys_survive(Keep::Fsync);
}

#[test]
fn keys_survive_the_end_of_all_nodes_at_once_without_syncs() {
    keys_survive(Keep::Os);
}

#[test]
fn adds_are_exact_while_nodes_are_killed_one_at_a_time() {
    let mut cluster = Cluster::start(5, Keep::Fsync);
    let nodes = cluster.list();
    put(&client(&nodes), "sum", "0");
    let done = AtomicU64::new(0);
    let add = |client: &Client, _, _| {
        try_add(client, "sum", 1)?;
        done.fetch_add(1, Ordering::Relaxed);
        Ok(())
    };
    let go_on = |what: &str| {
        let before = done.load(Ordering::Relaxed);
        wait_until(SOON, what, || done.load(Ordering::Relaxed) >= before + 200);
    };
    let (count, ()) = while_running(50, &nodes, add, || {
        for node in [0, 1, 2, 3, 4, 0] {
            cluster.kill([node]);
            go_on("adds without a node");
            cluster.start_node(node);
            cluster.wait_until_serving([node]);
            go_on("adds with all nodes");
        }
    });
    let sum: i64 = get(&client(&nodes), "sum").unwrap().parse().unwrap();
    println!("sum {sum}; {} done, {} unknown", count.done, count.unknown);
    assert_eq!(count.errors, [""; 0]);
    let expected = count.done..=count.done + count.unknown;
    assert!(expected.contains(&sum), "{sum} is not in {expected:?}");
}
