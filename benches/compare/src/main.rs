//! Compares Horseshoe with etcd, ZooKeeper and Redis on one machine: five nodes of each, one system
//! at a time in turn, under the same loads. `run.sh` installs and builds what it needs, and
//! `docs/performance.md` has the tables and plots of one run.
//!
//! All nodes, and the clients, share the machine's processors. So the figures are ratios of what
//! the systems cost, and not what separate machines would do.

mod chain;
mod connection;
mod costs;
mod killed;
mod large;
mod load;
mod measure;
mod plan;
mod plot;
mod report;
mod results;
mod systems;
mod targets;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

use crate::measure::{Part, Settings};
use crate::results::Results;
use crate::systems::System;

#[derive(Parser)]
#[command(
    version,
    about = "Horseshoe, etcd, ZooKeeper and Redis under the same load"
)]
struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Measure, and write the results as JSON
    Measure {
        /// The program `horseshoe`
        #[arg(long)]
        horseshoe: PathBuf,
        /// The file for the results
        #[arg(long)]
        results: PathBuf,
        /// A directory on the disk for nodes that keep their data there
        #[arg(long)]
        disk: PathBuf,
        /// Only these systems
        #[arg(long, value_delimiter = ',')]
        systems: Vec<System>,
        /// Only these parts
        #[arg(long, value_delimiter = ',')]
        parts: Vec<Part>,
        /// How often each load is measured
        #[arg(long, default_value_t = 3)]
        rounds: usize,
        /// How long each load is measured
        #[arg(long, default_value_t = 2.0)]
        seconds: f64,
        /// The keys of the large store
        #[arg(long, default_value_t = 1_000_000)]
        large_keys: u64,
    },
    /// Write tables into a page, and plots beside it
    Report {
        results: PathBuf,
        /// The page, with a line that begins the tables and one that ends them
        page: PathBuf,
    },
}

fn main() -> Result<()> {
    match Arguments::parse().action {
        Action::Report { results, page } => {
            let text = fs::read_to_string(&results)
                .with_context(|| format!("cannot read {}", results.display()))?;
            report::write(&serde_json::from_str(&text)?, &page)
        }
        Action::Measure {
            horseshoe,
            results,
            disk,
            systems,
            parts,
            rounds,
            seconds,
            large_keys,
        } => {
            let mut found = Results {
                date: printed("date", &["+%Y-%m-%d"])?,
                machine: machine()?,
                versions: Vec::new(),
                rounds,
                seconds,
                ..Results::default()
            };
            let settings = Settings {
                systems: installed(&systems, &horseshoe, &mut found),
                horseshoe,
                rounds,
                duration: Duration::from_secs_f64(seconds),
                disk,
                large_keys,
                parts: match parts.is_empty() {
                    true => vec![Part::Loads, Part::Killed, Part::Large, Part::Chain],
                    false => parts,
                },
                results,
            };
            measure::run(&settings, &mut found)
        }
    }
}

/// The systems that are there; a missing one is named.
fn installed(wanted: &[System], horseshoe: &Path, results: &mut Results) -> Vec<System> {
    let wanted = match wanted.is_empty() {
        true => &System::ALL,
        false => wanted,
    };
    let mut found = Vec::new();
    for system in wanted {
        let version = system.version(horseshoe);
        match &version {
            Some(version) => {
                println!("{system} {version}");
                found.push(*system);
            }
            None => println!("{system} is not installed, and is left out"),
        }
        results.versions.push((*system, version));
    }
    found
}

fn machine() -> Result<String> {
    let processors = std::thread::available_parallelism()?;
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text.lines().find(|line| line.starts_with("model name"));
    let model = model.and_then(|line| line.split_once(": "));
    let model = model.map_or("unknown", |(_, model)| model);
    let kernel = printed("uname", &["-sr"])?;
    Ok(format!("{processors} processors ({model}), {kernel}"))
}

fn printed(program: &str, words: &[&str]) -> Result<String> {
    let output = Command::new(program)
        .args(words)
        .output()
        .with_context(|| format!("cannot run {program}"))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
