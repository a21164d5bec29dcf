//! `horseshoe bench`: gets, puts and adds in closed loops or at a rate, and their latencies.
//!
//! The operations are multiplexed over the asynchronous form of few handles, each driven by its own
//! thread, so that the benchmark measures the cluster and not the scheduling of many threads.
//!
//! `plan` checks the flags; `load` with `closed` and `open` runs the operations; `tally` counts
//! them; `record` stores them for `judge`, the check; `show` prints the report.

mod closed;
mod early;
mod judge;
mod keys;
mod load;
mod open;
mod plan;
mod record;
mod schedule;
mod show;
mod tally;

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use kvclient::{CallError, Client};
use wire::KEY_SIZE_MAX;

use self::early::{EarlyEnd, EarlyReason};
use self::judge::CheckReport;
use self::keys::{KeyPass, KeysLeft};
use self::load::{Load, LoadResult, Workload};
pub use self::plan::BenchArgs;
use self::plan::BenchPlan;
use self::record::{RecordLog, Recording, UniqueValues};
use self::schedule::RateSchedule;
use self::show::Measurement;
use self::tally::Kind;
use super::connection::ConnectionArgs;
use super::exit::Exit;
use super::report;

pub fn run(arguments: &BenchArgs, connection: &ConnectionArgs) -> Exit {
    let plan = match BenchPlan::new(arguments) {
        Ok(plan) => plan,
        Err(message) => return connection.refuse("usage", Exit::Usage, &message),
    };
    let early = EarlyEnd::watch();
    let clients: Result<Vec<Client>, Exit> = (0..plan.handles).map(|_| connection.open()).collect();
    let clients = match clients {
        Ok(clients) => clients,
        Err(exit) => return exit,
    };
    let recording = match plan.check.then(|| recording(&plan)).transpose() {
        Ok(recording) => recording,
        Err(error) => return connection.refuse("system", Exit::Other, &error),
    };
    let workload = Arc::new(Workload::new(&plan, recording));
    let mut log = RecordLog::default();
    for kind in workload.first_kinds() {
        let first = KeyPass {
            client: &clients[0],
            workload: &workload,
            kind,
            client_number: plan.clients,
            early: Some(&early),
        };
        match first.run(&mut log).1 {
            Ok(()) => {}
            Err(KeysLeft::Error(error)) => {
                return failed(connection, "the keys can't be written", &error);
            }
            Err(KeysLeft::Interrupted) => {
                let message = "interrupted while the keys were written; nothing was measured";
                return connection.refuse("interrupted", Exit::Other, message);
            }
        }
    }
    let (clients, result) = measure(&plan, clients, &workload, &early);
    let is_interrupted = early.reason() == Some(EarlyReason::Interrupted);
    if is_interrupted && result.tally.took.is_zero() {
        let message = "interrupted before the measurement; nothing was measured";
        return connection.refuse("interrupted", Exit::Other, message);
    }
    log.merge(result.log);
    let measurement = Measurement {
        plan: &plan,
        tally: &result.tally,
        early: early.reason(),
        check: checked(&plan, &clients[0], &workload, log),
    };
    finish(&measurement, connection)
}

fn recording(plan: &BenchPlan) -> Result<Recording, String> {
    let run = getrandom::u32().map_err(|error| format!("no random numbers: {error}"))?;
    let values = UniqueValues::new(run, plan.value_size as usize);
    Ok(Recording::new(values, plan.recorded_load_max()))
}

/// Reads all keys once more, which shows puts that were lost, and judges the whole record.
fn checked(
    plan: &BenchPlan,
    client: &Client,
    workload: &Workload,
    mut log: RecordLog,
) -> Option<CheckReport> {
    let recording = workload.recording.as_ref()?;
    let last = KeyPass {
        client,
        workload,
        kind: Kind::Get,
        client_number: plan.clients,
        early: None,
    };
    let (read, _) = last.run(&mut log);
    let mut report = judge::judge(log, &recording.values);
    report.unread = (workload.key_count() - read) as u64;
    Some(report)
}

fn measure(
    plan: &BenchPlan,
    clients: Vec<Client>,
    workload: &Arc<Workload>,
    early: &EarlyEnd,
) -> (Vec<Client>, LoadResult) {
    let started = Instant::now() + plan.warmup;
    let done = Arc::new(AtomicU64::new(0));
    let mut clients_before = 0;
    let threads: Vec<JoinHandle<(Client, LoadResult)>> = clients
        .into_iter()
        .zip(0..)
        .map(|(client, handle)| {
            let schedule = |rate| RateSchedule::new(rate, handle, plan.handles);
            let load = Load {
                client,
                workload: workload.clone(),
                seed: plan.seed.wrapping_add(u64::from(handle)),
                clients: plan.clients_of(handle) as usize,
                clients_before,
                schedule: plan.rate.map(schedule),
                started,
                warmup: plan.warmup,
                duration: plan.duration,
                early: early.clone(),
                done: done.clone(),
            };
            clients_before += plan.clients_of(handle);
            thread::spawn(move || load.run())
        })
        .collect();
    show_progress(&threads, &done, started - plan.warmup);
    let mut clients = Vec::new();
    let mut result = LoadResult::default();
    for thread in threads {
        match thread.join() {
            Ok((client, part)) => {
                clients.push(client);
                result.tally.merge(&part.tally);
                result.log.merge(part.log);
            }
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
    (clients, result)
}

fn finish(measurement: &Measurement, connection: &ConnectionArgs) -> Exit {
    let text = match connection.json {
        true => format!("{}\n", measurement.in_json()),
        false => measurement.in_words(),
    };
    if let Err(exit) = report::print_bytes(text.as_bytes()) {
        return exit;
    }
    let tally = measurement.tally;
    match measurement.check.as_ref().map(CheckReport::is_linearizable) {
        None | Some(Some(true)) => {}
        Some(Some(false)) => {
            report::complain("horseshoe: the history is not linearizable\n");
            return Exit::Violation;
        }
        Some(None) => {
            report::complain("horseshoe: it is not decided whether the history is linearizable\n");
            return Exit::Other;
        }
    }
    match (&tally.first_error, tally.count()) {
        (Some(error), 0) => {
            report::complain(&format!("horseshoe: nothing was done: {error}\n"));
            report::classify(error).1
        }
        _ => Exit::Done,
    }
}

fn failed(connection: &ConnectionArgs, what: &str, error: &CallError) -> Exit {
    let (name, exit) = report::classify(error);
    connection.refuse(name, exit, &format!("{what}: {error}"))
}

/// A line on a terminal that changes each second, until the threads are done.
fn show_progress<T>(threads: &[JoinHandle<T>], done: &AtomicU64, started: Instant) {
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
