//! Half-broken networks with real processes and real iptables: `tests/partition/run.sh` runs this
//! in a separate network namespace. Runs the scenarios of `scenarios.csv`, or of `failures.csv`,
//! and prints a line for each. With `--bank` it runs a bank instead.

mod bank;
mod claims;
mod clients;
mod flood;
mod footprint;
mod graphs;
#[allow(dead_code)] // the tests of whole clusters use the rest of it
#[path = "../cluster/nodes.rs"]
mod nodes;
mod places;
mod record;
mod report;
mod run;
mod table;
mod transfers;
mod usage;
mod waits;
mod watcher;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use checker::{history, random};
use nodes::Cluster;
use report::Report;
use table::Scenario;

const NETWORKS: &str = include_str!("scenarios.csv");
const FAILURES: &str = include_str!("failures.csv");
/// As long as a bank runs unless told otherwise.
const BANK_S_DEFAULT: u64 = 60;
const USAGE: &str = "usage: run.sh [--failures] [--all] [--list] [NAME ...]
       run.sh --bank [SECONDS]

Runs a sample of the scenarios, or all, or those whose names begin with a NAME; with --failures those
in which nodes fail and configurations follow; with --bank transfers between accounts for 60 s, while
nodes are killed, cut off and restarted in turn. SEED=n places the nodes and chooses the operations otherwise.";

#[derive(Debug, Default)]
struct Arguments {
    failures: bool,
    all: bool,
    list: bool,
    bank: bool,
    names: Vec<String>,
}

fn main() -> ExitCode {
    match run_all() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("partition: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn parse(words: impl Iterator<Item = String>) -> Result<Arguments> {
    let mut arguments = Arguments::default();
    for word in words {
        match word.as_str() {
            "--failures" => arguments.failures = true,
            "--all" => arguments.all = true,
            "--list" => arguments.list = true,
            "--bank" => arguments.bank = true,
            // Cargo passes its own options on.
            "--quiet" => {}
            flag if flag.starts_with('-') => bail!("{USAGE}"),
            _ => arguments.names.push(word),
        }
    }
    Ok(arguments)
}

fn is_wanted(scenario: &Scenario, arguments: &Arguments) -> bool {
    if arguments.names.is_empty() {
        return arguments.all || scenario.in_sample;
    }
    let begins = |name: &String| {
        let rest = scenario.name.strip_prefix(name.as_str());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    };
    arguments.names.iter().any(begins)
}

/// Runs all scenarios; returns whether all claims held.
fn run_all() -> Result<bool> {
    let arguments = parse(std::env::args().skip(1))?;
    let seed = match std::env::var("SEED") {
        Ok(seed) => seed.parse().context("SEED is no number")?,
        Err(_) => 1,
    };
    if arguments.bank {
        return run_bank(&arguments, seed);
    }
    let table = match arguments.failures {
        true => FAILURES,
        false => NETWORKS,
    };
    let mut scenarios = table::read(table, seed)?;
    scenarios.retain(|scenario| is_wanted(scenario, &arguments));
    ensure!(
        !scenarios.is_empty(),
        "no scenario has such a name\n{USAGE}"
    );
    if arguments.list {
        scenarios
            .iter()
            .for_each(|s| println!("{} {}", s.name, s.note));
        return Ok(true);
    }
    require_lab()?;
    let logs = PathBuf::from(std::env::var_os("LOG_DIR").context("LOG_DIR is not set")?);
    println!("SEED={seed}\n{}", report::HEAD);
    let mut failed = Vec::new();
    for scenario in &scenarios {
        let report = run_one(scenario, seed, &logs);
        println!("{}", report.row());
        if !report.failures.is_empty() {
            print!("{}", report.details());
            failed.push(scenario.name.as_str());
        }
    }
    let (count, bad) = (scenarios.len(), failed.len());
    println!(
        "\n{} held, {bad} did not: {}",
        count - bad,
        failed.join(" ")
    );
    Ok(failed.is_empty())
}

/// Returns whether nothing was lost or doubled, and nobody waited long.
fn run_bank(arguments: &Arguments, seed: u64) -> Result<bool> {
    require_lab()?;
    let seconds = match &arguments.names[..] {
        [] => BANK_S_DEFAULT,
        [seconds] => seconds.parse().context("SECONDS is no number")?,
        _ => bail!("{USAGE}"),
    };
    println!("SEED={seed}");
    let failures = bank::run(Duration::from_secs(seconds), seed)?;
    failures
        .iter()
        .take(20)
        .for_each(|line| println!("    {line}"));
    println!(
        "{}",
        if failures.is_empty() {
            "held"
        } else {
            "FAILED"
        }
    );
    Ok(failures.is_empty())
}

/// Checks that this is a namespace with nothing but a loopback interface: only there do the rules
/// and ports certainly belong to no other program.
fn require_lab() -> Result<()> {
    let text = std::fs::read_to_string("/proc/self/net/dev")?;
    let interfaces = text
        .lines()
        .skip(2)
        .filter_map(|line| line.split(':').next());
    let others = interfaces
        .map(str::trim)
        .filter(|name| *name != "lo")
        .count();
    let in_lab = std::env::var_os("HORSESHOE_LAB").is_some() && others == 0;
    ensure!(in_lab, "this is not the lab: use tests/partition/run.sh");
    Ok(())
}

fn run_one(scenario: &Scenario, seed: u64, logs: &std::path::Path) -> Report {
    let mut cluster = None;
    // A wait panics if its condition does not hold in time.
    let ran = catch_unwind(AssertUnwindSafe(|| {
        let options: &[&str] = match scenario.is_fixed {
            true => &["--shrink-after=0"],
            false => &[],
        };
        let addresses = run::addresses(scenario.nodes);
        let started = Cluster::start_at(addresses, scenario.keep, options);
        run::run(scenario, seed, cluster.insert(started))
    }));
    let report = match ran {
        Ok(Ok(record)) => Report::of(scenario, &record),
        Ok(Err(error)) => Report::stopped(scenario, format!("{error:#}")),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            Report::stopped(scenario, text.unwrap_or_else(|| "it panicked".to_owned()))
        }
    };
    if let (false, Some(cluster)) = (report.failures.is_empty(), &cluster) {
        report.keep(cluster, logs);
    }
    report
}
