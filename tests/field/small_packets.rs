//! A network that drops IP fragments and packets of more than 1,280 bytes: nothing may depend on
//! larger ones, in particular nothing that is used only when a member is removed.

use std::time::Duration;

use kvclient::{Call, Client};
use wire::{Action, NodeStatus, Outcome};

use crate::emulated::{Link, Network, is_lab};
use crate::emulated_cluster::{
    open, serve, serve_all, statuses, wait_for_members, wait_until_equal,
};
use crate::nodes::wait_until;

const NODES: usize = 5;
const CLIENT_HOST: usize = NODES + 1;
/// Allowance for a machine that also runs other programs.
const PATIENCE: Duration = Duration::from_secs(90);
const DEADLINE: Duration = Duration::from_secs(20);
const CLIENTS: usize = 30;
const ADDS: usize = 6;

fn put(client: &Client, key: &str, value: Vec<u8>) {
    let value = value.into();
    let outcome = client.call(Call::new(key.to_owned(), Action::Put { value }));
    assert!(
        matches!(outcome, Ok(Outcome::Written { .. })),
        "{key}: {outcome:?}"
    );
}

fn get(client: &Client, key: &str) -> Vec<u8> {
    match client.call(Call::new(key.to_owned(), Action::Get)) {
        Ok(Outcome::Value { value, .. }) => value.to_vec(),
        other => panic!("{key}: {other:?}"),
    }
}

/// Many clients add at the same time: the record of such a key contains the outcomes for retries.
fn count_together() {
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let client = open(NODES, DEADLINE);
                for _ in 0..ADDS {
                    let outcome = client.call(Call::new("hot", Action::Add { delta: 1 }));
                    assert!(
                        matches!(outcome, Ok(Outcome::Written { .. })),
                        "{outcome:?}"
                    );
                }
            });
        }
    });
}

#[test]
fn nothing_depends_on_packets_of_more_than_1280_bytes() {
    if !is_lab() {
        return;
    }
    let link = Link {
        packet_size_max: 1_280,
        drops_fragments: true,
        ..Link::GOOD
    };
    let network = Network::new("sp", CLIENT_HOST, link);
    let mut nodes = serve_all(&network, NODES);
    network.on(CLIENT_HOST, || {
        let client = open(NODES, DEADLINE);
        wait_for_members(&client, NODES, PATIENCE);
        for number in 0..300 {
            put(&client, &format!("key {number}"), vec![b'v'; 20]);
        }
        put(&client, "large", vec![b'l'; 40_000]);
        assert_eq!(get(&client, "large"), vec![b'l'; 40_000]);
        count_together();
        assert_eq!(
            get(&client, "hot"),
            (CLIENTS * ADDS).to_string().into_bytes()
        );
        // A member is stopped, is removed, comes back without its state, copies all records, and is
        // admitted.
        drop(nodes.pop());
        wait_for_members(&client, NODES - 1, PATIENCE);
        nodes.push(serve(&network, NODES, NODES));
        wait_for_members(&client, NODES, PATIENCE);
        assert_eq!(get(&client, "large"), vec![b'l'; 40_000]);
        wait_until_equal(&client, NODES, PATIENCE);
        let is_named = |s: &NodeStatus| {
            let own = s.links.iter().filter(|link| link.to == s.node);
            own.filter(|link| link.drops_large).count() == NODES - 1
        };
        wait_until(PATIENCE, "the status names the links", || {
            let told = statuses(&client);
            told.len() == NODES && told.iter().all(is_named)
        });
    });
}
