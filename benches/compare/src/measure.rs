//! Runs all measurements: one system at a time, in turn, several rounds.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::chain::Chain;
use crate::connection::ready;
use crate::costs::{Sampler, system_calls};
use crate::killed;
use crate::large;
use crate::load::{Load, fill, runtime};
use crate::plan::{self, COUNT_AFTER, Planned};
use crate::results::{InChain, Kills, Results, Row};
use crate::systems::{Cluster, Keep, NODES, Place, System};

const READY_MAX: Duration = Duration::from_secs(60);
/// File systems in memory, and on a disk.
const IN_MEMORY: &str = "/dev/shm";
const HORSESHOE_KILLS: usize = 40;
const PEER_KILLS: usize = 10;
const CHAIN_CLIENTS: usize = 64;
/// After links were cut, systems may elect and reconnect for this long.
const CHAIN_SETTLE: Duration = Duration::from_secs(15);

pub struct Settings {
    pub horseshoe: PathBuf,
    pub systems: Vec<System>,
    pub rounds: usize,
    pub duration: Duration,
    /// A directory on the disk.
    pub disk: PathBuf,
    pub large_keys: u64,
    pub parts: Vec<Part>,
    /// Written after each step, so that a run that ends early is not lost.
    pub results: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    Loads,
    Killed,
    Large,
    Chain,
}

pub fn run(settings: &Settings, results: &mut Results) -> Result<()> {
    for part in &settings.parts {
        match part {
            Part::Loads => run_loads(settings, results)?,
            Part::Killed => run_killed(settings, results)?,
            Part::Large => run_large(settings, results)?,
            Part::Chain => run_chain(settings, results)?,
        }
    }
    Ok(())
}

fn run_loads(settings: &Settings, results: &mut Results) -> Result<()> {
    for round in 1..=settings.rounds {
        for keep in [Keep::Memory, Keep::Os, Keep::Fsync] {
            for system in &settings.systems {
                if system.keeps(keep) {
                    let (cluster, _directory) = start(settings, *system, keep)?;
                    println!("round {round}: {system}, {keep:?}");
                    run_loads_on(&cluster, settings, results)?;
                    save(settings, results)?;
                }
            }
        }
    }
    Ok(())
}

fn run_loads_on(cluster: &Cluster, settings: &Settings, results: &mut Results) -> Result<()> {
    for planned in plan::loads(cluster.place.keep, settings.duration) {
        let clients = planned.load.clients;
        let row = match measure(cluster, &planned) {
            Ok(row) => row,
            Err(error) => {
                println!("  {:16} {clients:5} clients: {error:#}", planned.name);
                continue;
            }
        };
        println!(
            "  {:16} {:5} clients: {:9.0}/s, p50 {:8.0} us, {:6.1} us of the nodes",
            planned.name, clients, row.figures.per_second, row.figures.p50_us, row.cpu_us
        );
        results.rows.push(row);
    }
    Ok(())
}

fn measure(cluster: &Cluster, planned: &Planned) -> Result<Row> {
    let load = &planned.load;
    fill(cluster, load.keys, load.value_size, load.clients.min(64))?;
    let processes = cluster.processes();
    let sampler = Sampler::start(processes.clone());
    let counting = planned.is_counted().then(|| {
        std::thread::spawn(move || {
            std::thread::sleep(COUNT_AFTER);
            system_calls(&processes)
        })
    });
    let figures = load.run(cluster)?;
    let rates = sampler.rates(load.duration)?;
    let per_second = figures.per_second.max(1.0);
    let calls = counting.and_then(|thread| thread.join().expect("counting does not panic"));
    Ok(Row {
        system: cluster.system,
        workload: planned.name.to_owned(),
        keep: cluster.place.keep,
        clients: load.clients,
        figures,
        cpu_us: rates.cpu_seconds * 1e6 / per_second,
        packets: rates.packets / per_second,
        system_calls: calls.map(|calls| calls / per_second),
    })
}

fn run_killed(settings: &Settings, results: &mut Results) -> Result<()> {
    for system in &settings.systems {
        let mut kills = Kills {
            system: Some(*system),
            ..Kills::default()
        };
        let (mut cluster, mut _directory) = start(settings, *system, Keep::Memory)?;
        fill(&cluster, 10_000, 100, 8)?;
        let count = match system {
            System::Horseshoe => HORSESHOE_KILLS,
            _ => PEER_KILLS,
        };
        for kill in 0..count {
            let node = kill % NODES;
            if node == 0 {
                let (longest, _) = killed::longest_ms(&mut cluster, None)?;
                kills.undisturbed_ms.push(longest);
            }
            let (longest, failed) = killed::longest_ms(&mut cluster, Some(node))?;
            println!("{system}: node {node} killed: {longest:.0} ms, {failed} failed");
            kills.longest_ms.push((node, longest));
            kills.failed += failed;
            // Nodes that keep nothing are started again as a new cluster; so all systems are.
            drop(cluster);
            (cluster, _directory) = start(settings, *system, Keep::Memory)?;
            fill(&cluster, 10_000, 100, 8)?;
        }
        results.kills.push(kills);
        save(settings, results)?;
    }
    Ok(())
}

fn run_large(settings: &Settings, results: &mut Results) -> Result<()> {
    for system in &settings.systems {
        let (mut cluster, _directory) = start(settings, *system, Keep::Fsync)?;
        let store = large::measure(&mut cluster, settings.large_keys)
            .with_context(|| format!("{} keys in {system}", settings.large_keys))?;
        println!("{system}: {store:?}");
        results.large.push((*system, store));
        save(settings, results)?;
    }
    Ok(())
}

fn run_chain(settings: &Settings, results: &mut Results) -> Result<()> {
    let chain = Chain::build()?;
    for system in &settings.systems {
        let directory = TempDir::new_in(IN_MEMORY)?;
        let place = Place {
            hosts: chain.hosts(),
            wrappers: chain.wrappers(),
            ..place(settings, &directory, Keep::Memory)
        };
        let cluster = Cluster::start(*system, place)?;
        wait_until_ready(&cluster)?;
        let load = Load {
            mix: [0, 1, 0],
            clients: CHAIN_CLIENTS,
            keys: 1_000,
            is_zipf: false,
            value_size: 100,
            warmup: Duration::from_secs(1),
            duration: Duration::from_secs(5),
        };
        fill(&cluster, load.keys, load.value_size, 16)?;
        let whole = load.run(&cluster)?;
        chain.cut()?;
        std::thread::sleep(CHAIN_SETTLE);
        // A system without a quorum has nothing to measure.
        let in_chain = load.run_for_at_most(&cluster, Duration::from_secs(30));
        chain.heal()?;
        let in_chain = in_chain.unwrap_or_else(|error| {
            println!("{system} in a chain: {error:#}");
            Default::default()
        });
        println!(
            "{system}: {:.0}/s, in a chain {:.0}/s",
            whole.per_second, in_chain.per_second
        );
        results.chains.push(InChain {
            system: *system,
            whole,
            chain: in_chain,
        });
        save(settings, results)?;
    }
    Ok(())
}

fn place(settings: &Settings, directory: &TempDir, keep: Keep) -> Place {
    Place {
        horseshoe: settings.horseshoe.clone(),
        hosts: (1..=NODES).map(|node| format!("127.77.0.{node}")).collect(),
        wrappers: vec![Vec::new(); NODES],
        directory: directory.path().to_path_buf(),
        keep,
    }
}

/// Five new nodes that serve, and their directory.
fn start(settings: &Settings, system: System, keep: Keep) -> Result<(Cluster, TempDir)> {
    let on_disk = keep != Keep::Memory;
    let parent = match on_disk {
        true => settings.disk.as_path(),
        false => Path::new(IN_MEMORY),
    };
    let directory = TempDir::new_in(parent)?;
    let cluster = Cluster::start(system, place(settings, &directory, keep))?;
    wait_until_ready(&cluster)?;
    Ok((cluster, directory))
}

fn wait_until_ready(cluster: &Cluster) -> Result<()> {
    let addresses = cluster.client_addresses(None);
    match cluster.system {
        System::Horseshoe => crate::load::wait_for_horseshoe(cluster, READY_MAX),
        system => runtime()?.block_on(ready(system, &addresses, READY_MAX)),
    }
}

fn save(settings: &Settings, results: &Results) -> Result<()> {
    let text = serde_json::to_string_pretty(results)?;
    std::fs::write(&settings.results, text)
        .with_context(|| format!("cannot write {}", settings.results.display()))
}
