//! A member that was down receives the writes that it missed, though no client reads them (C1).

use std::time::Duration;

use bytes::Bytes;
use horseshoe::protocol::types::record::{AcceptorState, Key};
use horseshoe::storage::{DiskOptions, Durability, Table, disk};
use kvclient::{Call, Client};
use nix::sys::signal::Signal;
use wire::Action;

use super::clients::{client, try_put};
use super::nodes::{Cluster, Keep, SOON, wait_until};

const KEYS: u64 = 1_000;
/// The number of these keys that are deleted at the end.
const DELETED: u64 = 100;
const AWAY: usize = 2;

fn name(number: u64) -> String {
    format!("key-{number}")
}

/// Runs one call for each key, all in flight together, and `halfway` when half of them are done.
/// Returns the keys whose calls failed.
fn all_at_once(
    client: &Client,
    action: impl Fn(u64) -> Action,
    halfway: impl FnOnce(),
) -> Vec<u64> {
    for number in 0..KEYS {
        client
            .submit(Call::new(name(number).into_bytes(), action(number)), number)
            .expect("a call is taken");
    }
    let mut halfway = Some(halfway);
    let mut done = Vec::new();
    while done.len() < KEYS as usize {
        client.wait(Duration::from_secs(1));
        client.completions(&mut done, (KEYS / 2) as usize);
        if done.len() >= (KEYS / 2) as usize
            && let Some(halfway) = halfway.take()
        {
            halfway();
        }
    }
    let failed = done.iter().filter(|completion| completion.result.is_err());
    failed.map(|completion| completion.tag).collect()
}

/// How many keys other nodes keep for the node that is down.
fn kept_for_it(cluster: &Cluster) -> u64 {
    let others = (0..cluster.count()).filter(|node| *node != AWAY);
    let behind = others.flat_map(|node| cluster.status(node).expect("it runs").behind);
    behind.map(|b| b.keys).sum()
}

/// The content of a stopped node's disk.
fn table(cluster: &Cluster, node: usize) -> Table {
    let list = cluster.list().split(',').map(str::to_owned).collect();
    let directory = cluster.directory().join(format!("data-{node}"));
    let options = DiskOptions::new(directory, list, node as u8, Durability::Fsync);
    let fresh_incarnation = 1;
    disk::open(options, fresh_incarnation)
        .expect("a store that was stopped")
        .table
}

#[test]
fn a_member_that_was_killed_gets_what_it_missed() {
    let mut cluster = Cluster::start(3, Keep::Fsync);
    let writer = client(&cluster.list());
    let first = |_| Action::Put {
        value: Bytes::from_static(b"first"),
    };
    let failed = all_at_once(&writer, first, || cluster.kill([AWAY]));
    for number in failed {
        // The outcome is unknown, and a put may be repeated.
        try_put(&writer, &name(number), "first").expect("a put again");
    }
    let last = |number| match number {
        number if number < DELETED => Action::Delete,
        number => Action::Put {
            value: Bytes::from(format!("last of {number}")),
        },
    };
    assert_eq!(all_at_once(&writer, last, || ()), [0; 0]);
    wait_until(SOON, "a hint for each key", || {
        kept_for_it(&cluster) >= KEYS
    });

    cluster.start_node(AWAY);
    wait_until(SOON, "all that it missed", || {
        let status = cluster.status(AWAY);
        status.is_some_and(|s| s.keys == KEYS - DELETED) && kept_for_it(&cluster) == 0
    });
    for node in 0..3 {
        let (status, _) = cluster.stop(node, Signal::SIGTERM);
        assert!(status.success(), "{status}");
    }
    let tables: Vec<Table> = (0..3).map(|node| table(&cluster, node)).collect();
    for number in 0..KEYS {
        let key = Key::user(name(number).as_bytes());
        let held = tables
            .iter()
            .map(|table| table.load(&key).expect("a state"));
        let held: Vec<AcceptorState> = held.collect();
        let same = |state: &AcceptorState| {
            (state.accepted, &state.record) == (held[0].accepted, &held[0].record)
        };
        assert!(held.iter().all(same), "{}: {held:#?}", name(number));
        let value = held[0].record.as_ref().expect("a record").value.as_ref();
        let expected = (number >= DELETED).then(|| format!("last of {number}"));
        assert_eq!(
            value.map(|v| v.as_ref()),
            expected.as_ref().map(|e| e.as_bytes())
        );
    }
}
