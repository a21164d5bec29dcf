//! Links with a long round trip: a slow node is not a dead one, and retries must not make nodes
//! compete.

use std::process::Stdio;
use std::time::{Duration, Instant};

use kvclient::{Call, Client, ClientOptions};
use wire::{Action, Outcome};

use crate::emulated::{Link, Network, address, is_lab};
use crate::nodes::wait_until;
use crate::process::Node;

const NODES: usize = 5;
const CLIENT_HOST: usize = NODES + 1;
/// Allowance for a machine that also runs other programs.
const SLACK: Duration = Duration::from_secs(60);

fn list() -> Vec<String> {
    (1..=NODES).map(address).collect()
}

/// The mean round-trip time in milliseconds; each one varies between half and one and a half of it.
fn jittery(rtt_ms: u64) -> Link {
    Link {
        delay_min_ms: rtt_ms / 4,
        delay_max_ms: rtt_ms * 3 / 4,
        ..Link::GOOD
    }
}

fn start(network: &Network, options: &[&str]) -> Vec<Node> {
    let start_one = |host: usize| {
        let mut command = network.command(host, env!("CARGO_BIN_EXE_horseshoe"));
        command
            .arg("serve")
            .arg((host - 1).to_string())
            .args(list())
            .args(options);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        Node(command.spawn().expect("the binary runs"))
    };
    (1..=NODES).map(start_one).collect()
}

fn options(rtt_ms: u64) -> ClientOptions {
    // The options that the guide recommends for such links.
    ClientOptions {
        deadline: Duration::from_millis(15 * rtt_ms).max(Duration::from_secs(5)),
        no_quorum_after: Duration::from_millis(3 * rtt_ms).max(Duration::from_secs(1)),
        ..ClientOptions::default()
    }
}

fn put(client: &Client, key: &str) -> (Result<Outcome, kvclient::CallError>, Duration) {
    let began = Instant::now();
    let value = "v".into();
    let outcome = client.call(Call::new(key.to_owned(), Action::Put { value }));
    (outcome, began.elapsed())
}

/// Every write of a few new clients with all addresses succeeds, and most writes of one client take
/// three round trips, plus the delay of this machine.
fn writes(tag: &str, rtt_ms: u64, serve: &[&str]) {
    if !is_lab() {
        return;
    }
    let network = Network::new(tag, CLIENT_HOST, jittery(rtt_ms));
    let _nodes = start(&network, serve);
    let nodes = list().join(",");
    network.on(CLIENT_HOST, || {
        let client = Client::open(&nodes, options(rtt_ms)).expect("addresses");
        let wait = Duration::from_millis(5 * rtt_ms).max(Duration::from_secs(1));
        wait_until(SLACK, "all nodes serve", || {
            let told = client.status(wait);
            told.iter()
                .all(|(_, status)| status.as_ref().is_some_and(|s| s.votes && s.quorum))
        });
        for number in 0..4 {
            let fresh = Client::open(&nodes, options(rtt_ms)).expect("addresses");
            let (outcome, took) = put(&fresh, &format!("k{number}"));
            assert!(
                matches!(outcome, Ok(Outcome::Written { .. })),
                "{outcome:?} after {took:?}"
            );
        }
        let mut times = Vec::new();
        for number in 0..9 {
            let (outcome, took) = put(&client, &format!("k{number}"));
            assert!(
                matches!(outcome, Ok(Outcome::Written { .. })),
                "{outcome:?} after {took:?}"
            );
            times.push(took);
        }
        times.sort();
        let bound = Duration::from_millis(3 * rtt_ms) + Duration::from_millis(400);
        assert!(times[4] < bound, "{times:?}");
    });
}

#[test]
fn round_trips_of_300_ms() {
    writes("sl", 300, &[]);
}

#[test]
#[ignore = "takes two minutes"] // Runs with --all.
fn round_trips_of_a_second() {
    writes("sm", 1_000, &[]);
    writes(
        "sn",
        1_000,
        &["--heartbeat-ms", "1000", "--link-down-ms", "3000"],
    );
}
