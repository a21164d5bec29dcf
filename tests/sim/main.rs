//! `cargo sim`: runs seeds on all cores. `SEED=n` runs one and prints its story.

// Without a harness the modules' own tests do not run here, and their imports are unused.
#![allow(unused_imports)] // See above.

#[path = "mod.rs"]
mod sim;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use sim::plan::Config;
use sim::run::{Failure, Report, run_hostile, run_seed};
use sim::trace::Detail;

const SEEDS_DEFAULT: u64 = 700;
/// Seeds whose failures are printed in full.
const FAILURES_TOLD: usize = 10;

struct Arguments {
    first: u64,
    seeds: u64,
    /// With hostile members and clients.
    hostile: bool,
    /// A filter of the test runner that does not select this target.
    skip: bool,
}

fn main() -> ExitCode {
    let arguments = match parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(usage) => {
            eprintln!("{usage}");
            return ExitCode::from(2);
        }
    };
    if let Ok(seed) = std::env::var("SEED") {
        return match parse_seed(&seed) {
            Some(seed) => replay(seed, arguments.hostile),
            None => {
                eprintln!("SEED={seed} is not a number");
                ExitCode::from(2)
            }
        };
    }
    if arguments.skip {
        println!("0 passed, 0 failed");
        return ExitCode::SUCCESS;
    }
    run_all(&arguments)
}

fn parse(arguments: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let usage = "usage: cargo sim [--hostile] [--seeds N] [--first SEED]; SEED=n cargo sim replays one, \
                 with DETAIL=messages message by message, with HOSTILE=1 one of --hostile";
    let mut parsed = Arguments {
        first: 1,
        seeds: SEEDS_DEFAULT,
        hostile: std::env::var_os("HOSTILE").is_some(),
        skip: false,
    };
    let mut rest = arguments;
    while let Some(argument) = rest.next() {
        let mut number = || rest.next().as_deref().and_then(parse_seed).ok_or(usage);
        match argument.as_str() {
            "--seeds" => parsed.seeds = number()?,
            "--first" => parsed.first = number()?,
            "--hostile" => parsed.hostile = true,
            "--" => {}
            "--help" | "-h" => return Err(usage.into()),
            // Options that `cargo test` passes to all its targets.
            "--list" => parsed.skip = true,
            flag if flag.starts_with('-') => {}
            filter => parsed.skip |= !"sim".contains(filter),
        }
    }
    Ok(parsed)
}

fn parse_seed(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

/// A panic of the core is a failure like any other.
fn run_caught(seed: u64, hostile: bool, config: &Config) -> Result<Report, Failure> {
    let run = if hostile { run_hostile } else { run_seed };
    catch_unwind(AssertUnwindSafe(|| run(seed, config))).unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|t| t.to_string()));
        Err(Failure(format!("panicked: {}", text.unwrap_or_default())))
    })
}

fn replay(seed: u64, hostile: bool) -> ExitCode {
    let detail = match std::env::var("DETAIL").as_deref() {
        Ok("messages") => Detail::Messages,
        _ => Detail::Story,
    };
    match run_caught(seed, hostile, &Config { detail }) {
        Ok(report) => {
            tell(&report);
            println!("1 passed, 0 failed");
            ExitCode::SUCCESS
        }
        Err(Failure(text)) => {
            println!("SEED={seed} failed: {text}");
            println!("0 passed, 1 failed");
            ExitCode::FAILURE
        }
    }
}

#[derive(Default)]
struct Total {
    report: Report,
    passed: u64,
    failures: Vec<(u64, Failure)>,
}

impl Total {
    fn add(&mut self, seed: u64, hostile: bool, result: Result<Report, Failure>) {
        match result {
            Ok(report) => {
                self.passed += 1;
                self.report.add(&report);
            }
            Err(Failure(text)) if hostile => {
                let text = format!("(HOSTILE=1) {text}");
                self.failures.push((seed, Failure(text)));
            }
            Err(failure) => self.failures.push((seed, failure)),
        }
    }
}

/// One in this many seeds also runs with hostile members and clients.
const HOSTILE_EVERY: u64 = 10;

fn run_all(arguments: &Arguments) -> ExitCode {
    let Arguments { first, seeds, .. } = *arguments;
    // Panics are reported with their seed, at the end.
    std::panic::set_hook(Box::new(|_| {}));
    let next = AtomicU64::new(first);
    let end = first.saturating_add(seeds);
    let total = Mutex::new(Total::default());
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        return;
                    }
                    for hostile in [false, true] {
                        let runs = match arguments.hostile {
                            true => hostile,
                            false => !hostile || seed.is_multiple_of(HOSTILE_EVERY),
                        };
                        if runs {
                            let result = run_caught(seed, hostile, &Config::default());
                            let mut total = total.lock().expect("no thread panics with it");
                            total.add(seed, hostile, result);
                        }
                    }
                }
            });
        }
    });
    conclude(total.into_inner().expect("no thread panics with it"))
}

fn conclude(mut total: Total) -> ExitCode {
    total.failures.sort_by_key(|(seed, _)| *seed);
    tell(&total.report);
    for (seed, Failure(text)) in total.failures.iter().take(FAILURES_TOLD) {
        println!("SEED={seed} failed: {text}\n");
    }
    for (seed, Failure(text)) in total.failures.iter().skip(FAILURES_TOLD) {
        let line: String = text
            .lines()
            .next()
            .unwrap_or_default()
            .chars()
            .take(150)
            .collect();
        println!("SEED={seed} failed: {line}");
    }
    println!("{} passed, {} failed", total.passed, total.failures.len());
    if total.failures.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn tell(report: &Report) {
    println!("operations: {}", report.operations);
    for (name, count) in &report.outcomes {
        println!("    {name}: {count}");
    }
    println!("faults: {}", report.faults.values().sum::<u64>());
    for (kind, count) in &report.faults {
        println!("    {kind:?}: {count}");
    }
    println!("runs without a configuration: {}", report.unformed);
    println!("runs that took a second force: {}", report.forced_again);
    println!("messages sent to do harm: {}", report.hostile);
    println!("keys too hard to check: {}", report.undecided);
    println!("keys that lost writes by force: {}", report.lost);
    println!(
        "simulated: {} s, {} events",
        report.simulated_us / 1_000_000,
        report.events
    );
    println!("hash: {:016x}", report.hash);
}
