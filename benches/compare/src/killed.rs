//! The longest write while one node is killed.

use std::cell::RefCell;
use std::process::Command;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::task::LocalSet;

use crate::connection::{Connection, connect};
use crate::load::{Figures, figures_of, key, runtime};
use crate::systems::{Cluster, System};

const CLIENTS: usize = 8;
const KEYS: u64 = 10_000;
/// Before the node is killed. `horseshoe bench` puts each key once in this time.
const BEFORE: Duration = Duration::from_millis(1_700);
const AFTER: Duration = Duration::from_millis(1_800);
/// A write that takes longer counts as one that never ends.
pub const WAIT_MAX: Duration = Duration::from_secs(15);
/// A client that hears nothing for this long tries again.
const ATTEMPT_MAX: Duration = Duration::from_secs(5);

/// The longest write in milliseconds, and how many failed. `None` kills no node, for comparison.
pub fn longest_ms(cluster: &mut Cluster, node: Option<usize>) -> Result<(f64, u64)> {
    match cluster.system {
        System::Horseshoe => longest_of_horseshoe(cluster, node),
        _ => runtime()?.block_on(longest_of_peer(cluster, node)),
    }
}

fn longest_of_horseshoe(cluster: &mut Cluster, node: Option<usize>) -> Result<(f64, u64)> {
    let mut command = Command::new(&cluster.place.horseshoe);
    let clients = CLIENTS.to_string();
    command
        .args(["--nodes", &cluster.client_addresses(None).join(",")])
        .args(["--json", "bench", "--mix", "0:1", "--duration", "3s"])
        .args(["--handles", &clients, "--clients", &clients])
        .args(["--keys", &KEYS.to_string()]);
    let bench = std::thread::spawn(move || figures_of(command));
    std::thread::sleep(BEFORE);
    if let Some(node) = node {
        cluster.kill_node(node)?;
    }
    let figures: Figures = bench.join().expect("bench does not panic")?;
    Ok((figures.max_us / 1e3, figures.errors))
}

/// What all clients have seen.
#[derive(Default)]
struct Seen {
    longest: Duration,
    failed: u64,
    /// When the clients end.
    end: Option<Instant>,
}

async fn longest_of_peer(cluster: &mut Cluster, node: Option<usize>) -> Result<(f64, u64)> {
    let addresses = cluster.client_addresses(None);
    let connections = connect(cluster.system, &addresses, CLIENTS).await?;
    let seen = Rc::new(RefCell::new(Seen::default()));
    let clients = LocalSet::new();
    for (client, connection) in connections.into_iter().enumerate() {
        clients.spawn_local(write(client as u64, connection, seen.clone()));
    }
    let kill = async {
        tokio::time::sleep(BEFORE).await;
        if let Some(node) = node {
            cluster.kill_node(node)?;
        }
        seen.borrow_mut().end = Some(Instant::now() + AFTER);
        anyhow::Ok(())
    };
    clients.run_until(kill).await?;
    // Clients that still wait for a write count with the time that they have waited.
    let ended = tokio::time::timeout(WAIT_MAX, clients).await;
    let seen = seen.borrow();
    let longest = ended.map_or(WAIT_MAX, |()| seen.longest);
    Ok((longest.as_secs_f64() * 1e3, seen.failed))
}

/// Writes until the end. A write that fails is tried again: for its user it takes as long as all
/// attempts.
async fn write(client: u64, mut connection: Connection, seen: Rc<RefCell<Seen>>) {
    let mut number = client;
    loop {
        let started = Instant::now();
        if seen.borrow().end.is_some_and(|end| started >= end) {
            return;
        }
        number = (number + 7) % KEYS;
        loop {
            let key = key(number);
            let attempt = connection.put(&key, &[b'v'; 100]);
            let done = tokio::time::timeout(ATTEMPT_MAX, attempt).await;
            if done.context("no answer").flatten().is_ok() {
                break;
            }
            seen.borrow_mut().failed += 1;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let mut seen = seen.borrow_mut();
        seen.longest = seen.longest.max(started.elapsed());
    }
}
