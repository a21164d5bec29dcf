//! A bank whose nodes are killed, cut off and restarted in turn. Each transfer writes an entry of
//! its own in the same transaction, so the entries tell at the end which transfers were done. A
//! watcher of all keys must know at the end what a scan tells.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kvclient::{Client, ClientOptions, Scan};
use wire::{Condition, KeyChange, Outcome, TransactionPart};

use crate::clients::{Caller, Clock};
use crate::history::{Ending, RecordedCall};
use crate::nodes::{Cluster, Keep};
use crate::random::Random;
use crate::run::{Stop, addresses, script};
use crate::transfers::{account, balances, choose, snapshot, transfer, wrong_sum};
use crate::waits;
use crate::watcher::Watcher;

const NODES: usize = 5;
const ACCOUNTS: u64 = 50;
const PAYERS: usize = 32;
const READERS: usize = 4;
const ENTRIES: &str = "transfer/";
/// How long each fault lasts.
const FAULT: Duration = Duration::from_millis(1_500);
/// Within this, all nodes are members again.
const MEMBERS_WITHIN_MS: u64 = 20_000;
/// An operation that a fault met may end so long after it.
const AFTER_FAULT_US: u64 = 500_000;
/// Between two faults.
const PAUSE: Duration = Duration::from_millis(1_500);
/// The longest wait of a client, with one node of five at fault. Only a whole run is held to it.
const WAIT_MAX_US: u64 = 1_000_000;
const WHOLE: Duration = Duration::from_secs(60);

/// When a node was at fault, in microseconds since the start.
#[derive(Debug, Clone, Copy)]
struct Fault {
    from_us: u64,
    to_us: u64,
}

/// Runs the bank for so long; returns the faults that it found.
pub fn run(duration: Duration, seed: u64) -> Result<Vec<String>> {
    let mut cluster = Cluster::start_at(addresses(NODES), Keep::Os, &[]);
    script(&cluster, "heal.sh", &[])?;
    waits::members(&mut cluster, NODES, MEMBERS_WITHIN_MS)?;
    let clock = Clock::start();
    let stop = AtomicBool::new(false);
    let list = cluster.list();
    let watcher = Watcher::start(&list);
    let (faults, calls) = std::thread::scope(|scope| {
        let (clock, stop, list) = (&clock, &stop, &list);
        let client = |number: usize| {
            let caller = Caller::new(clock, number, list);
            scope.spawn(move || use_bank(caller, number, seed, stop))
        };
        let clients: Vec<_> = (0..PAYERS + READERS).map(client).collect();
        let guard = Stop(stop);
        let faults = strike(&mut cluster, clock, duration);
        drop(guard);
        let calls = clients
            .into_iter()
            .map(|c| c.join().expect("a client's thread"));
        let calls: Vec<RecordedCall> = calls.flatten().collect();
        faults.map(|faults| (faults, calls))
    })?;
    let entries = entries(&list)?;
    let mut last = Caller::new(&clock, PAYERS + READERS, &list);
    let (key, action) = snapshot(ACCOUNTS);
    let last = balances(last.call(&key, action, false)).context("the last snapshot failed")?;
    let mut failures = judge(&calls, &faults, &entries, &last);
    match watcher.check(&list) {
        Ok(wrong) => failures.extend(wrong),
        Err(error) => failures.push(format!("{error:#}")),
    }
    if duration >= WHOLE {
        failures.extend(long_wait(&calls));
    }
    report(&calls, &faults);
    Ok(failures)
}

fn use_bank(mut caller: Caller, number: usize, seed: u64, stop: &AtomicBool) -> Vec<RecordedCall> {
    let mut random = Random::stream(seed, number as u64 + 1);
    let mut count = 0;
    while !stop.load(Ordering::Relaxed) {
        let (key, action) = match number < PAYERS {
            false => snapshot(ACCOUNTS),
            true => {
                count += 1;
                let (from, to, amount) = choose(&mut random, ACCOUNTS);
                let entry = TransactionPart {
                    key: format!("{ENTRIES}{number}/{count}").into(),
                    conditions: vec![Condition::Absent],
                    get: false,
                    change: Some(KeyChange::Put(format!("{from} {to} {amount}").into())),
                };
                transfer(from, to, amount, Some(entry))
            }
        };
        caller.call(&key, action, false);
        std::thread::sleep(Duration::from_micros(random.between(2_000, 6_000)));
    }
    caller.into_calls()
}

/// Kills and restarts a node, then cuts the next one off, and so on.
fn strike(cluster: &mut Cluster, clock: &Clock, duration: Duration) -> Result<Vec<Fault>> {
    let end_us = duration.as_micros() as u64;
    let mut faults = Vec::new();
    let mut turn = 0;
    std::thread::sleep(FAULT);
    while clock.now_us() < end_us {
        let node = turn % NODES;
        let from_us = clock.now_us();
        match turn % 2 {
            0 => {
                cluster.kill([node]);
                std::thread::sleep(FAULT);
                cluster.start_node(node);
            }
            _ => {
                script(cluster, "isolate.sh", &[node.to_string()])?;
                std::thread::sleep(FAULT);
                script(cluster, "heal.sh", &[])?;
            }
        }
        waits::members(cluster, NODES, MEMBERS_WITHIN_MS)?;
        let to_us = clock.now_us();
        faults.push(Fault { from_us, to_us });
        std::thread::sleep(PAUSE);
        turn += 1;
    }
    ensure!(!faults.is_empty(), "the time was too short for a fault");
    Ok(faults)
}

/// The transfers that were done: their names, and what they moved.
fn entries(list: &str) -> Result<BTreeMap<String, (u64, u64, i64)>> {
    let client = Client::open(list, ClientOptions::default())?;
    let mut entries = BTreeMap::new();
    for entry in client.scan(Scan::prefix(ENTRIES.as_bytes())) {
        let entry = entry?;
        let value = entry.value.context("a scan tells values")?;
        let text = String::from_utf8_lossy(&value).into_owned();
        let mut words = text.split(' ');
        let mut word = || words.next().context("three words");
        let moved = (word()?.parse()?, word()?.parse()?, word()?.parse()?);
        let name = String::from_utf8_lossy(&entry.key).into_owned();
        entries.insert(name, moved);
    }
    Ok(entries)
}

/// The name of a transfer's entry.
fn entry_of(call: &RecordedCall) -> Option<String> {
    let keys = checker::several::keys_of(call);
    let key = keys
        .iter()
        .find(|key| key.starts_with(ENTRIES.as_bytes()))?;
    Some(String::from_utf8_lossy(key).into_owned())
}

fn judge(
    calls: &[RecordedCall],
    faults: &[Fault],
    entries: &BTreeMap<String, (u64, u64, i64)>,
    last: &[i64],
) -> Vec<String> {
    let mut failures = Vec::new();
    if let Some(call) = wrong_sum(calls) {
        failures.push(format!("a snapshot has another sum: {call}"));
    }
    let mut expected = vec![0; ACCOUNTS as usize];
    for (from, to, amount) in entries.values() {
        expected[*from as usize] -= amount;
        expected[*to as usize] += amount;
    }
    for (index, (told, expected)) in (0..).zip(last.iter().zip(&expected)) {
        if told != expected {
            let name = String::from_utf8_lossy(&account(index)).into_owned();
            failures.push(format!(
                "{name} has {told}, and its entries add up to {expected}"
            ));
        }
    }
    let mut named = BTreeSet::new();
    for call in calls {
        let Some(name) = entry_of(call) else { continue };
        let is_done = entries.contains_key(&name);
        match &call.ending {
            Ending::Answered(Outcome::Committed { .. }) if !is_done => {
                failures.push(format!("{name} was lost: {call}"));
            }
            Ending::Answered(Outcome::Committed { .. } | Outcome::Unknown) => {}
            _ if is_done => failures.push(format!("{name} was done all the same: {call}")),
            _ => {}
        }
        named.insert(name);
    }
    failures.extend(
        entries
            .keys()
            .filter(|name| !named.contains(*name))
            .map(|name| format!("{name} was done, and nobody ordered it")),
    );
    let unknown = calls.iter().filter(|call| is_unknown(call));
    let unexplained = unknown.filter(|call| !faults.iter().any(|fault| meets(call, *fault)));
    failures.extend(unexplained.map(|call| format!("unknown without a fault: {call}")));
    failures
}

fn long_wait(calls: &[RecordedCall]) -> Option<String> {
    let longest = calls.iter().max_by_key(|call| waited_us(call))?;
    let waited_us = waited_us(longest);
    (waited_us > WAIT_MAX_US).then(|| format!("a wait of {} ms: {longest}", waited_us / 1_000))
}

fn is_unknown(call: &RecordedCall) -> bool {
    matches!(&call.ending, Ending::Answered(Outcome::Unknown))
}

fn waited_us(call: &RecordedCall) -> u64 {
    call.ended_us
        .unwrap_or(u64::MAX)
        .saturating_sub(call.called_us)
}

fn meets(call: &RecordedCall, fault: Fault) -> bool {
    let ended_us = call.ended_us.unwrap_or(u64::MAX);
    call.called_us <= fault.to_us + AFTER_FAULT_US && fault.from_us <= ended_us
}

fn report(calls: &[RecordedCall], faults: &[Fault]) {
    let snapshots = calls.iter().filter(|call| balances(call).is_some()).count();
    let committed =
        |call: &&RecordedCall| matches!(&call.ending, Ending::Answered(Outcome::Committed { .. }));
    let transfers = calls.iter().filter(committed).count() - snapshots;
    let unknown = calls.iter().filter(|call| is_unknown(call)).count();
    let others = calls.len() - transfers - snapshots - unknown;
    let longest_us = calls.iter().map(waited_us).max().unwrap_or(0);
    println!(
        "bank: {transfers} transfers, {snapshots} snapshots, {unknown} unknown, {others} not done; \
         {} faults; the longest wait was {} ms",
        faults.len(),
        longest_us / 1_000
    );
}
