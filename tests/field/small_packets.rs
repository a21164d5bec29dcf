//! A network that drops IP fragments and packets of more than 1,280 bytes: nothing may depend on
//! larger ones, in particular nothing that is used only when a member is removed.

use std::process::Stdio;
use std::time::Duration;

use kvclient::{Call, Client, ClientOptions};
use wire::{Action, NodeStatus, Outcome};

use crate::emulated::{Link, Network, address, is_lab};
use crate::nodes::wait_until;
use crate::process::Node;

const NODES: usize = 5;
const CLIENT_HOST: usize = NODES + 1;
/// Allowance for a machine that also runs other programs.
const PATIENCE: Duration = Duration::from_secs(90);
const CLIENTS: usize = 30;
const ADDS: usize = 6;

fn serve(network: &Network, host: usize) -> Node {
    let mut command = network.command(host, env!("CARGO_BIN_EXE_horseshoe"));
    command.arg("serve").arg((host - 1).to_string());
    command.args((1..=NODES).map(address));
    command.stdout(Stdio::null()).stderr(Stdio::null());
    Node(command.spawn().expect("the binary runs"))
}

fn open() -> Client {
    let nodes: Vec<String> = (1..=NODES).map(address).collect();
    let options = ClientOptions {
        deadline: Duration::from_secs(20),
        ..ClientOptions::default()
    };
    Client::open(&nodes.join(","), options).expect("addresses")
}

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

fn statuses(client: &Client) -> Vec<NodeStatus> {
    let told = client.status(Duration::from_secs(2));
    told.into_iter().filter_map(|(_, status)| status).collect()
}

/// Waits until `count` nodes are members, and all of them serve.
fn wait_for_members(client: &Client, count: usize) {
    wait_until(PATIENCE, &format!("{count} members"), || {
        let told = statuses(client);
        let serve = |s: &&NodeStatus| s.votes && s.quorum && s.members.len() == count;
        told.iter().filter(serve).count() == count
    });
}

/// Many clients add at the same time: the record of such a key contains the outcomes for retries.
fn count_together() {
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let client = open();
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
    let mut nodes: Vec<Node> = (1..=NODES).map(|host| serve(&network, host)).collect();
    network.on(CLIENT_HOST, || {
        let client = open();
        wait_for_members(&client, NODES);
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
        wait_for_members(&client, NODES - 1);
        nodes.push(serve(&network, NODES));
        wait_for_members(&client, NODES);
        assert_eq!(get(&client, "large"), vec![b'l'; 40_000]);
        wait_until(PATIENCE, "the same digest everywhere", || {
            let told = statuses(&client);
            told.len() == NODES && told.iter().all(|s| s.digest == told[0].digest)
        });
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
