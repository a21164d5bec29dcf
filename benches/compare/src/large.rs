//! A store with very many keys: how long it takes to fill, what it occupies, and how long it takes
//! to start again.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

use crate::connection::{connect, ready};
use crate::costs::{disk_size, resident};
use crate::load::{Load, fill, key, runtime};
use crate::systems::{Cluster, NODES, System};

const CLIENTS: usize = 256;
pub const VALUE_SIZE: usize = 100;
/// Freed memory goes back to the system after about ten seconds.
const SETTLE: Duration = Duration::from_secs(15);
const START_MAX: Duration = Duration::from_secs(300);

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct LargeStore {
    pub keys: u64,
    pub fill_seconds: f64,
    /// The mean of the nodes, in bytes.
    pub resident: u64,
    pub resident_restarted: u64,
    /// The mean of the nodes, in bytes.
    pub disk: u64,
    /// From the start of one node to its first answer to a get, while the others run.
    pub one_starts_seconds: f64,
    /// From the start of all nodes, which were killed, to the first get.
    pub all_start_seconds: f64,
}

pub fn measure(cluster: &mut Cluster, keys: u64) -> Result<LargeStore> {
    let began = Instant::now();
    fill(cluster, keys, VALUE_SIZE, CLIENTS)?;
    let load = Load {
        mix: [1, 0, 0],
        clients: CLIENTS,
        keys,
        is_zipf: false,
        value_size: VALUE_SIZE,
        warmup: Duration::ZERO,
        duration: Duration::from_secs(1),
    };
    if cluster.system == System::Horseshoe {
        load.run(cluster)?;
    }
    let fill_seconds = match cluster.system {
        System::Horseshoe => began.elapsed().as_secs_f64() - load.duration.as_secs_f64(),
        _ => began.elapsed().as_secs_f64(),
    };
    std::thread::sleep(SETTLE);
    let resident_filled = mean_resident(cluster)?;
    let disk = disk_size(&cluster.place.directory)? / NODES as u64;
    let last = NODES - 1;
    cluster.kill_node(last)?;
    let one_starts_seconds = start(cluster, &[last], Some(last))?;
    (0..NODES).try_for_each(|node| cluster.kill_node(node))?;
    let all = Vec::from_iter(0..NODES);
    let all_start_seconds = start(cluster, &all, None)?;
    std::thread::sleep(SETTLE);
    Ok(LargeStore {
        keys,
        fill_seconds,
        resident: resident_filled,
        resident_restarted: mean_resident(cluster)?,
        disk,
        one_starts_seconds,
        all_start_seconds,
    })
}

fn mean_resident(cluster: &Cluster) -> Result<u64> {
    let mut sum = 0;
    for pid in cluster.processes() {
        sum += resident(pid)?;
    }
    Ok(sum / NODES as u64)
}

/// Starts nodes, and returns after how many seconds the given one, or any, answers a get.
fn start(cluster: &mut Cluster, nodes: &[usize], asked: Option<usize>) -> Result<f64> {
    let began = Instant::now();
    for node in nodes {
        cluster.start_node(*node)?;
    }
    let addresses = cluster.client_addresses(asked);
    match cluster.system {
        System::Horseshoe => get_from_horseshoe(cluster, &addresses, began)?,
        System::Redis if asked.is_some() => get_from_replica(&addresses[0], began)?,
        system => match asked {
            Some(_) => runtime()?.block_on(get(system, &addresses, began))?,
            None => runtime()?.block_on(ready(system, &addresses, START_MAX))?,
        },
    }
    Ok(began.elapsed().as_secs_f64())
}

fn get_from_horseshoe(cluster: &Cluster, addresses: &[String], began: Instant) -> Result<()> {
    while began.elapsed() < START_MAX {
        let got = Command::new(&cluster.place.horseshoe)
            .args(["--nodes", &addresses.join(","), "--timeout", "500ms"])
            .args(["get", &key(1)])
            .output()?;
        // 1: there is no such key.
        if got.status.code().is_some_and(|code| code <= 1) {
            return Ok(());
        }
    }
    bail!("no node answers after {START_MAX:?}")
}

/// A replica that has loaded its data and is connected to the primary.
fn get_from_replica(address: &str, began: Instant) -> Result<()> {
    let (host, port) = address.split_once(':').expect("an address has a port");
    while began.elapsed() < START_MAX {
        let told = Command::new("redis-cli")
            .args(["-h", host, "-p", port, "info", "replication"])
            .output()?;
        if String::from_utf8_lossy(&told.stdout).contains("master_link_status:up") {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    bail!("the replica is not connected after {START_MAX:?}")
}

async fn get(system: System, addresses: &[String], began: Instant) -> Result<()> {
    while began.elapsed() < START_MAX {
        let attempt = async {
            let mut connections = connect(system, addresses, 1).await?;
            connections[0].get(&key(1)).await
        };
        let attempt = tokio::time::timeout(Duration::from_secs(2), attempt);
        if let Ok(Ok(())) = attempt.await {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    bail!("the node does not answer after {START_MAX:?}")
}
