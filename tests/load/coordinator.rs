//! A transaction's coordinator that is killed between any two of its sends. strace kills it: at the
//! entry of the system call, so what this call would have sent does not leave.

use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kvclient::{Call, CallError, Client, ClientOptions};
use wire::{Action, KeyChange, Outcome, Transaction, TransactionPart};

use crate::bench::scaled;
use crate::can_trace::can_trace;
use crate::nodes::{Cluster, Keep, SOON, wait_until};

const ACCOUNTS: [&str; 2] = ["account/from", "account/to"];
/// How long the clients go on before strace is attached, and after the kill.
const BEFORE: Duration = Duration::from_millis(100);
const AFTER: Duration = Duration::from_millis(500);
const PAUSE: Duration = Duration::from_millis(2);

fn open(nodes: &str) -> Client {
    Client::open(nodes, ClientOptions::default()).expect("addresses")
}

/// The preferred coordinator of the transactions. The ids of a new cluster's nodes are their places
/// in the list, from 1.
fn coordinator_of(cluster: &Cluster) -> usize {
    let weight = |node: &usize| wire::rendezvous_weight(ACCOUNTS[0].as_bytes(), *node as u8 + 1);
    (0..cluster.count()).max_by_key(weight).expect("nodes")
}

/// Ends the clients, also where the test fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Attaches strace, which kills the node at that send of its loop.
fn kill_at_send(process: u32, count: usize) -> Child {
    let inject = format!("inject=sendmsg,sendmmsg:signal=KILL:when={count}");
    let strace = Command::new("strace")
        .args(["-q", "-e", "trace=sendmsg,sendmmsg", "-e", &inject])
        .args(["-o", "/dev/null", "-p", &process.to_string()])
        .stderr(Stdio::null())
        .spawn();
    let strace = strace.expect("strace is installed, as tests/run.sh does");
    wait_until(SOON, "the node is traced", || {
        let path = format!("/proc/{process}/status");
        let status = std::fs::read_to_string(path).unwrap_or_default();
        // A node that has ended was traced.
        status.is_empty() || status.contains("State:\tZ") || !status.contains("TracerPid:\t0\n")
    });
    strace
}

/// Moves an amount again and again through the node that is killed. Returns whether it answered
/// any, and whether it left one open.
fn transfer_until(coordinator: &Client, is_over: &AtomicBool) -> (bool, bool) {
    let (mut answered, mut left) = (false, false);
    let part = |(key, delta): (&str, i64)| TransactionPart {
        key: key.to_owned().into(),
        change: Some(KeyChange::Add(delta)),
        ..TransactionPart::default()
    };
    let parts: Vec<TransactionPart> = ACCOUNTS.into_iter().zip([-1, 1]).map(part).collect();
    let transaction = Transaction { parts };
    while !is_over.load(Ordering::Relaxed) {
        let mut call = Call::new(
            ACCOUNTS[0],
            Action::Transact {
                transaction: transaction.clone(),
            },
        );
        call.deadline_us = Some(300_000);
        match coordinator.call(call) {
            Ok(_) => answered = true,
            // A call that begins after the kill is sent nowhere.
            Err(error) => left |= error == CallError::UnknownOutcome,
        }
    }
    (answered, left)
}

/// Adds to an account through the other nodes. Returns how often, and the longest wait.
fn add_until(others: &Client, key: &str, is_over: &AtomicBool) -> (i64, Duration) {
    let (mut added, mut longest) = (0, Duration::ZERO);
    while !is_over.load(Ordering::Relaxed) {
        let began = Instant::now();
        let outcome = others.call(Call::new(key.to_owned(), Action::Add { delta: 1 }));
        longest = longest.max(began.elapsed());
        assert!(outcome.is_ok(), "{key}: {outcome:?}");
        added += 1;
        std::thread::sleep(PAUSE);
    }
    (added, longest)
}

fn balance(client: &Client, key: &str) -> i64 {
    match client.call(Call::new(key.to_owned(), Action::Get)) {
        Ok(Outcome::Value { value, .. }) => {
            let text = String::from_utf8_lossy(&value);
            text.parse().expect("a number")
        }
        other => panic!("{key}: {other:?}"),
    }
}

/// What the clients saw of one kill.
struct Seen {
    added: i64,
    longest_wait: Duration,
    /// A transfer was under way.
    has_met: bool,
}

/// Kills the coordinator at one of its sends, while it moves amounts.
fn kill_once(cluster: &mut Cluster, node: usize, count: usize) -> Seen {
    let others: Vec<&str> = (0..cluster.count())
        .filter(|other| *other != node)
        .map(|other| cluster.address(other))
        .collect();
    let (coordinator, others) = (open(cluster.address(node)), open(&others.join(",")));
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (is_over, others, coordinator) = (&is_over, &others, &coordinator);
        let over = Over(is_over);
        let adders = ACCOUNTS.map(|key| scope.spawn(move || add_until(others, key, is_over)));
        let transfers = scope.spawn(move || transfer_until(coordinator, is_over));
        std::thread::sleep(BEFORE);
        let mut strace = kill_at_send(cluster.process_id(node), count);
        wait_until(SOON, "the node is killed", || !cluster.is_running(node));
        std::thread::sleep(AFTER);
        drop(over);
        strace.wait().expect("strace ends with the node");
        let adders = adders.map(|adder| adder.join().expect("an adder"));
        let (answered, has_met) = transfers.join().expect("the transfers");
        assert!(answered, "no transfer was done before");
        let longest = adders.iter().map(|(_, longest)| *longest).max();
        Seen {
            added: adders.iter().map(|(added, _)| added).sum(),
            longest_wait: longest.expect("two"),
            has_met,
        }
    })
}

/// Neither account is blocked for long, and no transfer is done by half.
#[test]
fn a_coordinator_that_is_killed_between_any_two_steps() {
    if !can_trace("a coordinator that is killed at its sends") {
        return;
    }
    let mut cluster = Cluster::start(5, Keep::Os);
    let node = coordinator_of(&cluster);
    let kills = scaled(40, 4);
    let (mut added, mut met, mut waits) = (0, 0, Vec::new());
    for kill in 0..kills {
        let seen = kill_once(&mut cluster, node, 1 + kill * scaled(1, 7));
        added += seen.added;
        met += usize::from(seen.has_met);
        waits.push(seen.longest_wait);
        cluster.restart(node);
        cluster.wait_until_serving(0..cluster.count());
    }
    let client = open(&cluster.list());
    let balances = ACCOUNTS.map(|key| balance(&client, key));
    assert_eq!(balances.iter().sum::<i64>(), added, "{balances:?}");
    waits.sort();
    let (median, longest) = (waits[kills / 2], waits[kills - 1]);
    println!(
        "{kills} kills, {met} during a transfer; longest waits: median {median:?}, at most {longest:?}"
    );
    assert!(met > 0, "no kill met a transfer");
    let bound = Duration::from_millis(scaled(200, 2_000));
    assert!(longest <= bound, "{waits:?}");
}
