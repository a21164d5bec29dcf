//! A network whose links take packets of up to 1,500 bytes, and later only of 1,280, of which it
//! reports nothing. Transfers find out what gets through, between nodes and with clients.

use std::process::Stdio;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use kvclient::{Call, Client, ClientOptions};
use wire::{Action, NodeStatus, Outcome, VALUE_SIZE_DEFAULT};

use crate::emulated::{Link, Network, address, is_lab};
use crate::nodes::wait_until;
use crate::process::Node;

const NODES: usize = 3;
const CLIENT_HOST: usize = NODES + 1;
/// Allowance for a machine that also runs other programs.
const PATIENCE: Duration = Duration::from_secs(60);
/// Probes are meant to be cut: they show whether fragments pass.
const PROBE_SIZE_MAX: usize = 1_700;

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

fn put_and_get(client: &Client, key: usize) {
    let bytes = value(key).into();
    let outcome = call(client, key, Action::Put { value: bytes });
    assert!(matches!(outcome, Outcome::Written { .. }), "{outcome:?}");
    let outcome = call(client, key, Action::Get);
    let is_it = matches!(&outcome, Outcome::Value { value: got, .. } if *got == value(key));
    assert!(is_it, "key {key}");
}

fn statuses(client: &Client) -> Vec<NodeStatus> {
    let told = client.status(Duration::from_secs(2));
    told.into_iter().filter_map(|(_, status)| status).collect()
}

#[test]
fn datagrams_grow_to_what_a_path_takes_and_shrink_with_it() {
    if !is_lab() {
        return;
    }
    let link = Link {
        packet_size_max: 1_500,
        ..Link::GOOD
    };
    let network = Network::new("ps", CLIENT_HOST, link);
    let passing = network.passing.clone();
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
        let began = Instant::now();
        (0..8).for_each(|key| put_and_get(&client, key));
        println!("with 1,500 bytes: {:?}", began.elapsed());
        assert_eq!(passing.largest.load(Ordering::Relaxed), 1_500);
        std::thread::scope(|scope| {
            let client = &client;
            let writing = scope.spawn(move || (8..16).for_each(|key| put_and_get(client, key)));
            std::thread::sleep(Duration::from_millis(30));
            passing.packet_size_max.store(1_280, Ordering::Relaxed);
            let began = Instant::now();
            writing.join().expect("all is written");
            println!("after the fall to 1,280 bytes: {:?}", began.elapsed());
        });
        wait_until(PATIENCE, "the same digest everywhere", || {
            let told = statuses(&client);
            told.len() == NODES && told.iter().all(|s| s.digest == told[0].digest)
        });
    });
    let largest_cut = passing.largest_cut.load(Ordering::Relaxed);
    assert!(
        largest_cut <= PROBE_SIZE_MAX,
        "{largest_cut} bytes in fragments"
    );
}
