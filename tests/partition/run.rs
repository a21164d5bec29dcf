//! Runs one scenario: a new cluster of real processes, clients, the steps, and the observations.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use kvclient::ClientOptions;
use nix::sys::signal::Signal;
use wire::{Action, NodeStatus};

use crate::claims::{Claim, succeeded};
use crate::clients::{self, Caller, Clock};
use crate::flood::Flood;
use crate::footprint::{self, Footprint, Left};
use crate::nodes::Cluster;
use crate::record::{Client, Mark, MessageCount, QuorumSaid, Record};
use crate::table::{At, DiskAct, Load, Scenario, Verb};
use crate::watcher::Watcher;
use crate::{transfers, usage, waits};

/// Clients that are given all nodes.
const ROAMING: usize = 2;
/// The number of the scenario's own client.
const OWN_NUMBER: usize = 99;
/// The numbers of the scenario's readers, one through each node, start here, relative to its own.
const READERS_FROM: usize = 20;
const WATCH_INTERVAL: Duration = Duration::from_millis(50);
const STATUS_WAIT: Duration = Duration::from_millis(300);

/// The addresses of the nodes of the lab.
pub fn addresses(nodes: usize) -> Vec<String> {
    let numbers = 1..=nodes;
    numbers.map(|n| format!("127.0.0.{n}:880{n}")).collect()
}

/// Ends the clients, even if a step fails.
pub struct Stop<'a>(pub &'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

pub fn run(scenario: &Scenario, seed: u64, cluster: &mut Cluster) -> Result<Record> {
    script(cluster, "heal.sh", &[])?;
    let mut flood = match scenario.load {
        Load::Flood => Some(Flood::fill(&cluster.list())?),
        Load::Mixed | Load::OneKey | Load::Transfers | Load::Idle => None,
    };
    let clock = Clock::start();
    let stop = AtomicBool::new(false);
    let list = cluster.list();
    let places = places_of_clients(scenario, cluster);
    let is_watched = scenario
        .claims
        .iter()
        .any(|c| matches!(c, Claim::DarkBy(..)));
    let mut record = Record::default();
    let watcher = has_watcher(scenario).then(|| Watcher::start(&list));
    let before = statuses(&list);
    std::thread::scope(|scope| {
        let (clock, stop) = (&clock, &stop);
        let client = |(number, (tied_to, nodes)): (usize, &(Option<usize>, String))| {
            let caller = Caller::new(clock, number, nodes);
            let work = move || clients::run(caller, scenario.load, seed, stop);
            (number, *tied_to, scope.spawn(work))
        };
        let running: Vec<_> = places.iter().enumerate().map(client).collect();
        let watched = is_watched.then(|| scope.spawn(|| watch(&list, clock, stop)));
        let flooding = flood
            .as_mut()
            .map(|flood| scope.spawn(move || flood.run(clock, seed, stop)));
        let guard = Stop(stop);
        let mut run = Run {
            clock,
            stop,
            cluster,
            record: &mut record,
            caller: Caller::new(clock, OWN_NUMBER, &list),
            keys: Vec::new(),
            flood: None,
            footprints: Vec::new(),
        };
        run.do_steps(scenario)?;
        drop(guard);
        let own_calls = run.caller.into_calls();
        record.own_calls.extend(own_calls);
        let after = statuses(&list);
        for (number, tied_to, thread) in running {
            let calls = thread.join().expect("a client's thread");
            record.clients.push(Client {
                number,
                tied_to,
                calls,
            });
        }
        if let Some(flooding) = flooding {
            (record.writes, record.flood_errors) = flooding.join().expect("the flood's thread");
        }
        if let Some(watched) = watched {
            record.quorums = watched.join().expect("the thread that watches");
        }
        record.messages = messages_between(&before, &after);
        anyhow::Ok(())
    })?;
    script(cluster, "heal.sh", &[])?;
    if let Some(flood) = &mut flood {
        record.flood_errors.extend(flood.check()?);
    }
    if ends_dark(scenario) {
        return Ok(record);
    }
    let last = last_reads(scenario, cluster, &clock)?;
    record.own_calls.extend(last);
    if let Some(watcher) = watcher {
        record.watch_faults = watcher.check(&list)?;
    }
    Ok(record)
}

/// A watcher of very many keys would be measured with the nodes, and so would one of idle nodes.
fn has_watcher(scenario: &Scenario) -> bool {
    let is_measured = scenario
        .steps
        .iter()
        .any(|step| matches!(step.verb, Verb::Fill | Verb::Measure | Verb::CountMessages));
    !is_measured && !matches!(scenario.load, Load::Idle | Load::Flood)
}

fn ends_dark(scenario: &Scenario) -> bool {
    scenario.steps.iter().any(|s| s.verb == Verb::EndDark)
}

/// The nodes that each client is given, and the node that it is tied to.
fn places_of_clients(scenario: &Scenario, cluster: &Cluster) -> Vec<(Option<usize>, String)> {
    let tied = (0..scenario.nodes).map(|node| (Some(node), cluster.address(node).to_owned()));
    let roaming = std::iter::repeat_n((None, cluster.list()), ROAMING);
    match scenario.load {
        Load::Idle | Load::Flood => Vec::new(),
        Load::OneKey => tied.collect(),
        Load::Mixed | Load::Transfers => tied.chain(roaming).collect(),
    }
}

/// The status of all nodes.
fn statuses(list: &str) -> Vec<Option<NodeStatus>> {
    let client = kvclient::Client::open(list, ClientOptions::default());
    let told = client.expect("addresses").status(STATUS_WAIT);
    told.into_iter().map(|(_, status)| status).collect()
}

/// Messages between two checks, if no node was restarted in between.
fn messages_between(before: &[Option<NodeStatus>], after: &[Option<NodeStatus>]) -> Option<u64> {
    let each = before.iter().zip(after).map(|(before, after)| {
        let (before, after) = (before.as_ref()?, after.as_ref()?);
        let count = |s: &NodeStatus| s.messages_sent + s.messages_relayed;
        (before.boot == after.boot).then(|| count(after).saturating_sub(count(before)))
    });
    each.sum()
}

/// Repeatedly asks the nodes whether they reach a quorum.
fn watch(list: &str, clock: &Clock, stop: &AtomicBool) -> Vec<QuorumSaid> {
    let client = kvclient::Client::open(list, ClientOptions::default()).expect("addresses");
    let mut said = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let asked_us = clock.now_us();
        for (node, (_, status)) in client.status(STATUS_WAIT).into_iter().enumerate() {
            said.extend(status.map(|status| QuorumSaid {
                asked_us,
                node,
                quorum: status.quorum,
            }));
        }
        std::thread::sleep(WATCH_INTERVAL);
    }
    said
}

/// Runs a script of this directory.
pub fn script(cluster: &Cluster, name: &str, arguments: &[String]) -> Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/partition");
    let output = Command::new(path.join(name))
        .args(arguments)
        .env("NODES", cluster.list())
        .output()
        .with_context(|| format!("{name} does not start"))?;
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{name} {arguments:?}: {told}");
    Ok(())
}

/// A scenario whose steps are in progress.
struct Run<'a> {
    clock: &'a Clock,
    stop: &'a AtomicBool,
    cluster: &'a mut Cluster,
    record: &'a mut Record,
    caller: Caller<'a>,
    /// The keys that steps have put.
    keys: Vec<String>,
    /// Writes of very many keys.
    flood: Option<Flood>,
    footprints: Vec<Vec<Footprint>>,
}

impl Run<'_> {
    fn do_steps(&mut self, scenario: &Scenario) -> Result<()> {
        let mut done_us = 0;
        for step in &scenario.steps {
            let (planned_ms, at_us) = match step.at {
                At::Ms(ms) => (Some(ms), ms * 1_000),
                At::After(ms) => (None, done_us + ms * 1_000),
            };
            self.clock.sleep_until(at_us);
            let began_us = self.clock.now_us();
            self.do_step(&step.verb)
                .with_context(|| format!("{:?}", step.verb))?;
            done_us = self.clock.now_us();
            self.record.marks.push(Mark {
                planned_ms,
                began_us,
                done_us,
            });
            let ends = step.verb.is_end() || step.verb == Verb::Quiet;
            if ends && self.record.ended_us == 0 {
                self.record.ended_us = began_us;
            }
        }
        Ok(())
    }

    fn do_step(&mut self, verb: &Verb) -> Result<()> {
        match verb {
            Verb::Script(name, arguments) => script(self.cluster, name, arguments)?,
            Verb::Kill(nodes) => self.cluster.kill(nodes.iter().copied()),
            Verb::Start(node) => {
                self.cluster.start_node(*node);
                self.cluster.wait_until_serving([*node]);
            }
            Verb::Launch(nodes) => self.cluster.start_nodes(nodes.iter().copied()),
            Verb::Stop(node) => {
                let (status, _) = self.cluster.stop(*node, Signal::SIGTERM);
                ensure!(status.success(), "it ended with {status}");
            }
            Verb::Disk(node, act) => self.change_disk(*node, *act)?,
            Verb::Members { count, within_ms } => {
                let took = waits::members(self.cluster, *count, *within_ms)?;
                self.note(&format!("{count} members"), took);
            }
            Verb::Last(node) => waits::last(self.cluster, *node)?,
            Verb::Says(node, text) => drop(waits::says(self.cluster, *node, text)?),
            Verb::Logs(node, text) => waits::logs(self.cluster, *node, text)?,
            Verb::PutKeys(count) => self.put_keys(*count)?,
            Verb::DeleteKeys => self.delete_keys()?,
            Verb::ReadKeys => self.read_keys()?,
            Verb::Forgotten { within_ms } => {
                let took = waits::forgotten(self.cluster, *within_ms)?;
                self.note("forgotten", took);
            }
            Verb::Measure => self.measure()?,
            Verb::Fill => self.flood = Some(Flood::fill(&self.cluster.list())?),
            Verb::Empty => self.flood()?.empty()?,
            Verb::Gone => self.flood()?.check_gone()?,
            Verb::Shrunk { left, within_ms } => self.wait_until_shrunk(*left, *within_ms)?,
            Verb::Quiet => self.stop.store(true, Ordering::Relaxed),
            Verb::Equal { within_ms } => {
                let took = waits::equal(self.cluster, *within_ms)?;
                self.note("equal", took);
            }
            Verb::CountMessages => self.count_messages()?,
            Verb::Idle(ms) => self.record.idle = Some(usage::measure(self.cluster, *ms)?),
            Verb::End | Verb::EndDark => {}
        }
        Ok(())
    }

    fn note(&mut self, what: &str, took: Duration) {
        let seconds = took.as_secs_f64();
        self.record
            .notes
            .push(format!("{what} after {seconds:.1} s"));
    }

    fn flood(&mut self) -> Result<&mut Flood> {
        self.flood.as_mut().context("nothing was filled")
    }

    fn measure(&mut self) -> Result<()> {
        let measured = footprint::measure(self.cluster)?;
        self.record.notes.push(footprint::show(&measured));
        self.footprints.push(measured);
        Ok(())
    }

    fn wait_until_shrunk(&mut self, left: Left, within_ms: u64) -> Result<()> {
        let [before, full] = &self.footprints[..] else {
            bail!("it was not measured twice");
        };
        let within = Duration::from_millis(within_ms);
        let (took, now) = footprint::wait_until_left(self.cluster, [before, full], left, within)?;
        self.note(&footprint::show(&now), took);
        Ok(())
    }

    fn change_disk(&mut self, node: usize, act: DiskAct) -> Result<()> {
        ensure!(!self.cluster.is_running(node), "the node runs");
        let data = self.cluster.data_directory(node);
        let copy = data.with_extension("copy");
        match act {
            DiskAct::Wipe => std::fs::remove_dir_all(&data)?,
            DiskAct::Copy => copy_directory(&data, &copy)?,
            DiskAct::RollBack => {
                std::fs::remove_dir_all(&data)?;
                copy_directory(&copy, &data)?;
            }
        }
        Ok(())
    }

    fn put_keys(&mut self, count: usize) -> Result<()> {
        for _ in 0..count {
            let key = format!("key-{}", self.keys.len());
            let value = Bytes::from(format!("value of {key}"));
            let call = self.caller.call(&key, Action::Put { value }, false);
            ensure!(succeeded(call), "{call}");
            self.keys.push(key);
        }
        Ok(())
    }

    fn delete_keys(&mut self) -> Result<()> {
        for key in &self.keys {
            let call = self.caller.call(key, Action::Delete, false);
            ensure!(succeeded(call), "{call}");
        }
        Ok(())
    }

    /// The history shows whether the values are correct.
    fn read_keys(&mut self) -> Result<()> {
        for node in 0..self.cluster.count() {
            if !self.cluster.is_running(node) {
                continue;
            }
            let number = OWN_NUMBER + READERS_FROM + node;
            let mut caller = Caller::new(self.clock, number, self.cluster.address(node));
            for key in &self.keys {
                let call = caller.call(key, Action::Get, false);
                ensure!(succeeded(call), "through node {node}: {call}");
            }
            self.record.own_calls.extend(caller.into_calls());
        }
        Ok(())
    }

    fn count_messages(&mut self) -> Result<()> {
        let at_us = self.clock.now_us();
        let mut messages = 0;
        for status in statuses(&self.cluster.list()) {
            let Some(status) = status else {
                bail!("a node does not answer");
            };
            messages += status.messages_sent + status.messages_relayed;
        }
        self.record.counts.push(MessageCount { at_us, messages });
        Ok(())
    }
}

/// Reads every key through every running node, after the network is healed and all other operations
/// have ended: these reads agree, or the history shows it.
fn last_reads(
    scenario: &Scenario,
    cluster: &mut Cluster,
    clock: &Clock,
) -> Result<Vec<crate::history::RecordedCall>> {
    let keys: &[&str] = match scenario.load {
        Load::Mixed => &clients::SHARED_KEYS,
        Load::OneKey => &clients::ONE_KEY,
        Load::Transfers | Load::Idle | Load::Flood => &[],
    };
    let mut calls = Vec::new();
    for node in 0..cluster.count() {
        if !cluster.is_running(node) {
            continue;
        }
        let mut caller = Caller::new(clock, OWN_NUMBER + 1 + node, cluster.address(node));
        for key in keys {
            let call = caller.call(key, Action::Get, false);
            ensure!(succeeded(call), "a last read through node {node}: {call}");
        }
        if scenario.load == Load::Transfers {
            let (key, action) = transfers::snapshot(transfers::ACCOUNTS);
            let call = caller.call(&key, action, false);
            ensure!(
                succeeded(call),
                "a last snapshot through node {node}: {call}"
            );
        }
        calls.extend(caller.into_calls());
    }
    Ok(calls)
}

/// A data directory contains files and directories.
fn copy_directory(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let place = to.join(entry.file_name());
        match entry.file_type()?.is_dir() {
            true => copy_directory(&entry.path(), &place)?,
            false => drop(std::fs::copy(entry.path(), place)?),
        }
    }
    Ok(())
}
