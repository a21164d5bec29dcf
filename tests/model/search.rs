//! The search: depth first, each state once.

use std::collections::{BTreeSet, HashSet};
use std::fmt::Write as _;

use wire::{Action, Outcome};
use xxhash_rust::xxh3::xxh3_128;

use super::history::History;
use super::nodes::{Event, Nodes};
use super::scope::Scope;
use super::state::{State, Step};
use crate::sim::checker::{self, CheckVerdict, several};

/// The most steps of the checker for one history.
const EFFORT_MAX: u64 = 100_000;

#[derive(Debug, Default)]
pub struct Report {
    pub states: usize,
    pub locals: usize,
    pub transitions: usize,
    /// The number of different histories in which all operations ended.
    pub complete: usize,
    /// The answers to reads; "" if the key is absent.
    pub seen: BTreeSet<String>,
}

struct Frame {
    state: State,
    steps: Vec<Step>,
    /// The step that led to this state.
    by: Option<Step>,
}

pub struct Search {
    nodes: Nodes,
    visited: HashSet<u128, foldhash::fast::FixedState>,
    checked: HashSet<u128>,
    path: Vec<Frame>,
    report: Report,
}

/// Searches the whole scope. Returns what was found, or the first violation with the steps that led
/// to it.
pub fn exhaust(scope: Scope) -> Result<Report, String> {
    let (mut nodes, locals) = Nodes::new(scope);
    let state = State::new(&mut nodes, locals);
    let mut search = Search {
        nodes,
        visited: HashSet::default(),
        checked: HashSet::new(),
        path: Vec::new(),
        report: Report::default(),
    };
    match search.run(state) {
        Ok(()) => {
            let mut report = search.report;
            report.states = search.visited.len();
            (report.locals, report.transitions) = search.nodes.sizes();
            Ok(report)
        }
        Err(what) => Err(search.tell(&what)),
    }
}

impl Search {
    fn run(&mut self, first: State) -> Result<(), String> {
        let mut bytes = Vec::new();
        self.visited.insert(first.fingerprint(&mut bytes));
        self.push(first, None);
        while let Some(frame) = self.path.last_mut() {
            let Some(step) = frame.steps.pop() else {
                self.path.pop();
                continue;
            };
            let ended = count_ended(&frame.state.history);
            let after = frame.state.after(&mut self.nodes, step);
            let failed = |what| format!("{what}\n  at: {}", describe(&self.nodes, step));
            let Some(state) = after.map_err(failed)? else {
                continue;
            };
            if !self.visited.insert(state.fingerprint(&mut bytes)) {
                continue;
            }
            if self.visited.len() > self.nodes.scope.states_max {
                return Err("the scope is larger than its bound of states".into());
            }
            let answered = count_ended(&state.history) > ended;
            self.push(state, Some(step));
            if answered {
                self.check_history()?;
            }
        }
        Ok(())
    }

    fn push(&mut self, state: State, by: Option<Step>) {
        let steps = state.steps(&self.nodes);
        self.path.push(Frame { state, steps, by });
    }

    /// The answers that clients have received so far are linearizable.
    fn check_history(&mut self) -> Result<(), String> {
        let history = &self.path.last().expect("just pushed").state.history;
        let mut bytes = Vec::new();
        history.encode(&mut bytes);
        if !self.checked.insert(xxh3_128(&bytes)) {
            return Ok(());
        }
        for (operation, plan) in history.operations.iter().zip(&self.nodes.scope.plans) {
            let Some((_, outcome)) = operation.ended.filter(|_| plan.action == Action::Get) else {
                continue;
            };
            let seen = match self.nodes.outcome(outcome) {
                Outcome::Value { value, .. } => String::from_utf8_lossy(value).into_owned(),
                Outcome::Absent => String::new(),
                other => format!("{other:?}"),
            };
            self.report.seen.insert(seen);
        }
        self.report.complete += usize::from(history.is_complete());
        let calls = history.calls(&self.nodes);
        let verdict = match self.nodes.scope.has_transactions() {
            true => several::check(&calls, EFFORT_MAX),
            false => checker::check(&calls, EFFORT_MAX),
        };
        match verdict {
            CheckVerdict::Linearizable => Ok(()),
            CheckVerdict::Undecided => Err("a history is too hard to check".into()),
            CheckVerdict::Violation(calls) => {
                let lines: Vec<String> = calls.iter().map(|c| format!("  {c}")).collect();
                Err(format!("not linearizable:\n{}", lines.join("\n")))
            }
        }
    }

    fn tell(&self, what: &str) -> String {
        let mut text = format!("{what}\nafter:\n");
        for step in self.path.iter().filter_map(|frame| frame.by) {
            writeln!(text, "  {}", describe(&self.nodes, step)).expect("a string");
        }
        text
    }
}

fn count_ended(history: &History) -> usize {
    history
        .operations
        .iter()
        .filter(|o| o.ended.is_some())
        .count()
}

fn describe(nodes: &Nodes, step: Step) -> String {
    let show = |id, how| {
        let envelope = &nodes.message(id).envelope;
        // The sender of a configuration does not matter.
        let from = envelope.origin.checked_sub(1);
        let from = from.map_or("*".into(), |node| node.to_string());
        let (to, epoch) = (envelope.destination - 1, envelope.epoch);
        format!("{from} -> {to} in {epoch}{how}: {:?}", envelope.message)
    };
    match step {
        Step::Duplicate(id) => show(id, " (it stays in flight)"),
        Step::Purge => "all hold the tombstone".into(),
        Step::Node { node, event } => match event {
            Event::Deliver(id) => show(id, ""),
            Event::Request { plan, attempt } => {
                let action = &nodes.scope.plans[usize::from(plan)].action;
                format!("node {node} is asked, operation {plan}, attempt {attempt}: {action:?}")
            }
            other => format!("node {node}: {other:?}"),
        },
    }
}
