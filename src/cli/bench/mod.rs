//! `horseshoe bench`: closed loops of gets and puts, and their rates and latencies.
//!
//! Each of N clients has one operation in progress at any time. They are multiplexed over the
//! asynchronous form of few handles, each driven by its own thread, so that the benchmark measures
//! the cluster and not the scheduling of N threads. A single client uses the synchronous call.

mod load;
mod tally;

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use clap::Args;
use kvclient::{CallError, Client};
use wire::{KEY_SIZE_MAX, VALUE_SIZE_MAX};

use self::load::{Load, Workload};
use self::tally::BenchTally;
use super::connection::ConnectionArgs;
use super::exit::Exit;
use super::{report, words};

/// As many calls as one handle can have in flight.
const CLIENTS_MAX: u32 = 65_536;
const KEYS_MAX: u32 = 10_000_000;

/// Measure the cluster with closed loops of gets and puts on keys under bench/.
///
/// The keys are written once before the clock starts, and stay.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// Closed loops: operations in flight at any time
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=i64::from(CLIENTS_MAX)))]
    clients: u32,

    /// Number of keys, each as likely as any other
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=i64::from(KEYS_MAX)))]
    keys: u32,

    /// Bytes of a value
    #[arg(long, value_name = "BYTES", default_value_t = 100, value_parser = clap::value_parser!(u32).range(0..=VALUE_SIZE_MAX as i64))]
    value_size: u32,

    /// Ratio of gets to puts; 0:1 is puts only
    #[arg(long, value_name = "GET:PUT", default_value = "1:1", value_parser = mix)]
    mix: Mix,

    /// How long to measure
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = words::duration)]
    duration: Duration,

    /// Client handles, each with a thread; the clients are divided among them
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    handles: u32,
}

/// Shares of gets and puts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mix {
    gets: u32,
    puts: u32,
}

fn mix(word: &str) -> Result<Mix, String> {
    let error = || "a mix is two whole numbers up to 1000, GET:PUT, not both 0".to_owned();
    let number = |word: &str| word.parse().ok().filter(|&n: &u32| n <= 1_000);
    let (gets, puts) = word.split_once(':').ok_or_else(error)?;
    match (number(gets), number(puts)) {
        (Some(gets), Some(puts)) if gets + puts > 0 => Ok(Mix { gets, puts }),
        _ => Err(error()),
    }
}

pub fn run(arguments: &BenchArgs, connection: &ConnectionArgs) -> Exit {
    let handles = arguments.handles.min(arguments.clients);
    let clients: Result<Vec<Client>, Exit> = (0..handles).map(|_| connection.open()).collect();
    let clients = match clients {
        Ok(clients) => clients,
        Err(exit) => return exit,
    };
    let workload = Arc::new(Workload::new(arguments));
    if let Err(error) = load::write_keys(&clients[0], &workload) {
        return failed(connection, "the keys can't be written", &error);
    }
    let started = Instant::now();
    let done = Arc::new(AtomicU64::new(0));
    let threads: Vec<JoinHandle<BenchTally>> = clients
        .into_iter()
        .zip(0..)
        .map(|(client, at)| {
            // The first threads get one client more if the division has a remainder.
            let share = arguments.clients / handles + u32::from(at < arguments.clients % handles);
            let load = Load {
                client,
                workload: workload.clone(),
                seed: u64::from(at),
                clients: share as usize,
                until: started + arguments.duration,
                done: done.clone(),
            };
            thread::spawn(move || load.run())
        })
        .collect();
    show_progress(&threads, &done, started);
    let mut tally = BenchTally::default();
    for thread in threads {
        match thread.join() {
            Ok(part) => tally.merge(&part),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
    finish(arguments, connection, &tally)
}

fn finish(arguments: &BenchArgs, connection: &ConnectionArgs, tally: &BenchTally) -> Exit {
    let text = match connection.json {
        true => format!("{}\n", tally.in_json(arguments)),
        false => tally.in_words(arguments),
    };
    if let Err(exit) = report::print_bytes(text.as_bytes()) {
        return exit;
    }
    match (&tally.first_error, tally.count()) {
        (Some(error), 0) => failed(connection, "nothing was done", error),
        _ => Exit::Done,
    }
}

fn failed(connection: &ConnectionArgs, what: &str, error: &CallError) -> Exit {
    let (name, exit) = report::classify(error);
    connection.refuse(name, exit, &format!("{what}: {error}"))
}

/// A line on a terminal that changes each second, until the threads are done.
fn show_progress(threads: &[JoinHandle<BenchTally>], done: &AtomicU64, started: Instant) {
    let mut stderr = std::io::stderr();
    if !stderr.is_terminal() {
        return;
    }
    let (mut shown, mut shown_at) = (0, started);
    while !threads.iter().all(JoinHandle::is_finished) {
        thread::sleep(Duration::from_millis(50));
        let now = Instant::now();
        let since = now - shown_at;
        if since >= Duration::from_secs(1) {
            let count = done.load(Ordering::Relaxed);
            let per_second = (count - shown) as f64 / since.as_secs_f64();
            let seconds = (now - started).as_secs();
            // An error in writing the line of progress does not matter.
            let _ = write!(stderr, "\r\x1b[K{seconds} s  {per_second:.0} a second");
            (shown, shown_at) = (count, now);
        }
    }
    let _ = write!(stderr, "\r\x1b[K");
}

const _: () = assert!("bench/".len() + 10 <= KEY_SIZE_MAX);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mix_is_two_numbers() {
        assert_eq!(mix("1:1"), Ok(Mix { gets: 1, puts: 1 }));
        assert_eq!(mix("0:1"), Ok(Mix { gets: 0, puts: 1 }));
        for word in [
            "",
            "1",
            "0:0",
            "a:1",
            "1:-1",
            "1:1:1",
            "1:1001",
            "4294967295:1",
        ] {
            assert!(mix(word).is_err(), "{word}");
        }
    }
}
