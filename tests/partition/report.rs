//! The result of a scenario: a row of the printed table, and the claims that did not hold.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use bytes::Bytes;

use crate::claims::succeeded;
use crate::history::RecordedCall;
use crate::nodes::Cluster;
use crate::record::Record;
use crate::table::Scenario;
use crate::transfers::wrong_sum;
use checker::{CheckVerdict, check, several};

const CHECK_EFFORT_MAX: u64 = 400_000;

pub const HEAD: &str = "scenario              operations  errors  longest gap  messages  history
                                                   ms     per op";

#[derive(Debug)]
pub struct Report {
    name: String,
    note: String,
    operations: usize,
    errors: usize,
    gap_us: Option<u64>,
    messages_per_operation: Option<f64>,
    history: &'static str,
    pub failures: Vec<String>,
    calls: Vec<RecordedCall>,
}

impl Report {
    pub fn of(scenario: &Scenario, record: &Record) -> Report {
        let mut failures: Vec<String> = Vec::new();
        for claim in &scenario.claims {
            let told = claim.check(record);
            failures.extend(told.into_iter().map(|line| format!("{line}  ({claim:?})")));
        }
        failures.extend(record.flood_errors.iter().cloned());
        failures.extend(record.watch_faults.iter().cloned());
        let mut calls: Vec<RecordedCall> =
            record.calls().chain(&record.own_calls).cloned().collect();
        calls.sort_by_key(|call| call.called);
        let history = check_histories(&calls, &mut failures);
        let gaps = scenario
            .claims
            .iter()
            .filter_map(|c| c.longest_gap_us(record));
        let mut note = vec![scenario.note.clone()];
        note.extend(scenario.claims.iter().filter_map(|c| c.figures(record)));
        note.extend(record.notes.iter().cloned());
        note.retain(|part| !part.is_empty());
        let operations = record.calls().count();
        let messages = record.messages.filter(|_| operations > 0);
        Report {
            note: note.join("; "),
            operations,
            errors: record.calls().filter(|call| !succeeded(call)).count(),
            gap_us: gaps.max(),
            messages_per_operation: messages.map(|count| count as f64 / operations as f64),
            history,
            failures,
            calls,
            ..Report::empty(scenario)
        }
    }

    /// The scenario did not reach its end.
    pub fn stopped(scenario: &Scenario, why: String) -> Report {
        Report {
            failures: vec![why],
            ..Report::empty(scenario)
        }
    }

    fn empty(scenario: &Scenario) -> Report {
        Report {
            name: scenario.name.clone(),
            note: scenario.note.clone(),
            operations: 0,
            errors: 0,
            gap_us: None,
            messages_per_operation: None,
            history: "-",
            failures: Vec::new(),
            calls: Vec::new(),
        }
    }

    pub fn row(&self) -> String {
        let dash = || "-".to_owned();
        let gap = self.gap_us.map_or_else(dash, |us| (us / 1_000).to_string());
        let messages = self.messages_per_operation;
        let messages = messages.map_or_else(dash, |count| format!("{count:.1}"));
        let (name, operations, errors) = (&self.name, self.operations, self.errors);
        let verdict = match self.failures.is_empty() {
            true => "",
            false => "  FAILED",
        };
        let history = self.history;
        let row = format!(
            "{name:20}  {operations:10}  {errors:6}  {gap:>11}  {messages:>8}  {history}{verdict}"
        );
        format!("{row}  {}", self.note).trim_end().to_owned()
    }

    pub fn details(&self) -> String {
        let mut text = String::new();
        for failure in &self.failures {
            writeln!(text, "    {failure}").expect("a string takes all");
        }
        text
    }

    /// Writes the nodes' logs and all calls into one directory.
    pub fn keep(&self, cluster: &Cluster, logs: &Path) {
        let directory = logs.join(&self.name);
        let write = || {
            std::fs::create_dir_all(&directory)?;
            for node in 0..cluster.count() {
                std::fs::write(
                    directory.join(format!("node-{node}.log")),
                    cluster.log(node),
                )?;
            }
            let lines = self
                .calls
                .iter()
                .map(|call| format!("{} {call}\n", show_key(call)));
            std::fs::write(directory.join("history.txt"), lines.collect::<String>())?;
            std::fs::write(directory.join("failures.txt"), self.details())
        };
        if let Err(error) = write() {
            eprintln!("{}: {error}", directory.display());
        }
    }
}

/// The verdict on all keys; violations are added to the failures.
fn check_histories(calls: &[RecordedCall], failures: &mut Vec<String>) -> &'static str {
    let mut history = "linearizable";
    let mut single = calls.to_vec();
    for calls in several::components(&mut single) {
        history = "serializable";
        match several::check(&calls, CHECK_EFFORT_MAX) {
            CheckVerdict::Linearizable => {}
            CheckVerdict::Undecided => {
                history = "undecided";
                failures.push("transactions: no order of them was found in time".to_owned());
            }
            CheckVerdict::Violation(calls) => {
                history = "NOT SERIALIZABLE";
                let lines = calls.iter().map(|call| format!("\n        {call}"));
                let lines: String = lines.collect();
                failures.push(format!("transactions: no order of them exists:{lines}"));
            }
        }
    }
    if let Some(call) = wrong_sum(calls) {
        failures.push(format!("a snapshot has another sum: {call}"));
    }
    let mut by_key: BTreeMap<&Bytes, Vec<RecordedCall>> = BTreeMap::new();
    for call in &single {
        by_key.entry(&call.key).or_default().push(call.clone());
    }
    for (key, calls) in by_key {
        let key = String::from_utf8_lossy(key);
        match check(&calls, CHECK_EFFORT_MAX) {
            CheckVerdict::Linearizable => {}
            CheckVerdict::Undecided => {
                history = "undecided";
                failures.push(format!("{key}: no order of its calls was found in time"));
            }
            CheckVerdict::Violation(shortest) => {
                history = "NOT LINEARIZABLE";
                let lines = shortest.iter().map(|call| format!("\n        {call}"));
                failures.push(format!(
                    "{key}: no register does this:{}",
                    lines.collect::<String>()
                ));
            }
        }
    }
    history
}

fn show_key(call: &RecordedCall) -> String {
    String::from_utf8_lossy(&call.key).into_owned()
}
