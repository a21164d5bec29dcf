//! Values of many datagrams on links that lose some of them and drop packets of more than 1,280
//! bytes. One link works in one direction only. Senders repeat the lost pieces, and
//! acknowledgements take a path that works.

use std::process::Stdio;
use std::time::Duration;

use kvclient::{Call, Client, ClientOptions};
use wire::{Action, NodeStatus, Outcome, VALUE_SIZE_DEFAULT};

use crate::emulated::{Link, Network, address, is_lab};
use crate::nodes::wait_until;
use crate::process::Node;

const NODES: usize = 3;
const CLIENT_HOST: usize = NODES + 1;
const VALUES: usize = 4;
/// Allowance for a machine that also runs other programs.
const PATIENCE: Duration = Duration::from_secs(60);

fn serve(network: &Network, host: usize) -> Node {
    let mut command = network.command(host, env!("CARGO_BIN_EXE_horseshoe"));
    command.arg("serve").arg((host - 1).to_string());
    command.args((1..=NODES).map(address));
    command.stdout(Stdio::null()).stderr(Stdio::null());
    Node(command.spawn().expect("the binary runs"))
}

fn value(seed: usize) -> Vec<u8> {
    let size = VALUE_SIZE_DEFAULT - seed;
    (0..size).map(|at| (at * 7 % 251 + seed) as u8).collect()
}

fn call(client: &Client, key: usize, action: Action) -> Outcome {
    let outcome = client.call(Call::new(format!("key {key}"), action));
    outcome.expect("it is done")
}

fn statuses(client: &Client) -> Vec<NodeStatus> {
    let told = client.status(Duration::from_secs(2));
    told.into_iter().filter_map(|(_, status)| status).collect()
}

#[test]
fn large_values_pass_where_datagrams_are_lost_and_a_link_has_one_direction() {
    if !is_lab() {
        return;
    }
    let link = Link {
        delay_min_ms: 1,
        delay_max_ms: 2,
        packet_size_max: 1_280,
        drops_fragments: true,
        loss_percent: 5,
        cut: Some((3, 2)),
    };
    let network = Network::new("ll", CLIENT_HOST, link);
    let _nodes: Vec<Node> = (1..=NODES).map(|host| serve(&network, host)).collect();
    network.on(CLIENT_HOST, || {
        let nodes: Vec<String> = (1..=NODES).map(address).collect();
        let options = ClientOptions {
            deadline: PATIENCE,
            ..ClientOptions::default()
        };
        let client = Client::open(&nodes.join(","), options).expect("addresses");
        wait_until(PATIENCE, "all nodes are members", || {
            let told = statuses(&client);
            let serve = |s: &&NodeStatus| s.votes && s.quorum && s.members.len() == NODES;
            told.iter().filter(serve).count() == NODES
        });
        for key in 0..VALUES {
            let bytes = value(key).into();
            let outcome = call(&client, key, Action::Put { value: bytes });
            assert!(matches!(outcome, Outcome::Written { .. }), "{outcome:?}");
            let outcome = call(&client, key, Action::Get);
            let is_it = matches!(&outcome, Outcome::Value { value: got, .. } if *got == value(key));
            assert!(is_it, "key {key}");
        }
        // Every member gets every value, also over the link of one direction.
        wait_until(PATIENCE, "the same digest everywhere", || {
            let told = statuses(&client);
            told.len() == NODES && told.iter().all(|s| s.digest == told[0].digest)
        });
    });
}
