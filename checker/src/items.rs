//! The facts about each operation, collected before the search for an order.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use wire::{Action, Old, Outcome, Version};

use super::model::{Gone, ModelState, renews};
use super::tokens::left_by_appends;
use crate::history::{Ending, RecordedCall};

/// The facts about one operation, in the form that the search needs.
#[derive(Debug, Clone)]
pub struct CheckItem<'a> {
    pub call: &'a RecordedCall,
    pub called: u64,
    /// `None`: it may happen at any time after the call, or never.
    pub ended: Option<u64>,
    /// What its client received, or what the reads of others show of it.
    pub outcome: Option<Outcome>,
    /// The version that it wrote or saw.
    pub version: Option<Version>,
    pub writes: bool,
    /// For a write: the value after it, if a client saw it.
    pub leaves: Option<Bytes>,
    /// Whether a client saw a value that it may have contributed to.
    pub shows: bool,
    /// For an operation that sets a time to live: when the key expires.
    pub gone: Option<Gone>,
}

/// The calls that constrain the order. A value that was seen at a version, and that only one write
/// without an outcome can have made, shows that write's outcome.
pub fn items(calls: &[RecordedCall], clock_error_us: Option<u64>) -> Vec<CheckItem<'_>> {
    let new = |call| CheckItem::new(call, clock_error_us);
    let mut items: Vec<CheckItem> = calls.iter().filter_map(new).collect();
    let seen = seen_values(&items);
    for item in items.iter_mut().filter(|i| i.outcome.is_none()) {
        item.shows = seen
            .iter()
            .any(|value| has_part_in(&item.call.action, value));
    }
    resolve(&mut items);
    let read: HashMap<Version, Bytes> = items.iter().filter_map(CheckItem::reads).collect();
    let appended = left_by_appends(&items, &seen).unwrap_or_default();
    for (index, item) in items.iter_mut().enumerate().filter(|(_, i)| i.writes) {
        let read = item.version.and_then(|version| read.get(&version));
        item.leaves = read.or_else(|| appended.get(&index)).cloned();
    }
    items
}

/// An append about which two values disagree, with an operation that saw each of them.
pub fn disagreement<'a>(items: &[CheckItem<'a>]) -> Option<Vec<&'a RecordedCall>> {
    let (index, one, other) = left_by_appends(items, &seen_values(items)).err()?;
    let saw = |beginning: &Bytes| {
        let saw = |i: &&CheckItem| seen_by(i).iter().any(|value| value.starts_with(beginning));
        items.iter().find(saw).map(|i| i.call)
    };
    Some(
        [Some(items[index].call), saw(&one), saw(&other)]
            .into_iter()
            .flatten()
            .collect(),
    )
}

impl<'a> CheckItem<'a> {
    /// Whether the state fits what was seen of the value after this write.
    pub fn may_leave(&self, state: &ModelState) -> bool {
        self.leaves.is_none() || self.leaves == state.value
    }

    /// What the reads of others show of a write without an outcome.
    fn take_version(&mut self, version: Version, value: &Bytes) {
        let number = match self.call.action {
            Action::Add { .. } => std::str::from_utf8(value).ok().and_then(|t| t.parse().ok()),
            _ => None,
        };
        let old = match self.call.want_old {
            true => Old::Forgotten,
            false => Old::NotAsked,
        };
        self.outcome = Some(Outcome::Written {
            version,
            old,
            number,
        });
        self.version = Some(version);
    }

    fn reads(&self) -> Option<(Version, Bytes)> {
        match &self.outcome {
            Some(Outcome::Value { version, value }) => Some((*version, value.clone())),
            _ => None,
        }
    }

    fn new(call: &'a RecordedCall, clock_error_us: Option<u64>) -> Option<Self> {
        if call.is_void() {
            return None;
        }
        let maybe = call.is_maybe();
        let outcome = match &call.ending {
            Ending::Answered(outcome) if !maybe => Some(outcome.clone()),
            _ => None,
        };
        let (version, writes) = match &outcome {
            Some(Outcome::Written { version, .. }) => (Some(*version), !renews(&call.action)),
            Some(Outcome::Value { version, .. } | Outcome::Lives { version, .. }) => {
                (Some(*version), false)
            }
            Some(Outcome::Conflict { version, .. }) if *version > 0 => (Some(*version), false),
            Some(_) => (None, false),
            None => (None, !renews(&call.action)),
        };
        let ended = if maybe { None } else { call.ended };
        let called = call.called;
        Some(CheckItem {
            call,
            called,
            ended,
            outcome,
            version,
            writes,
            leaves: None,
            shows: true,
            gone: gone(call, maybe, clock_error_us),
        })
    }
}

/// When a key with the time to live that this call sets expires.
fn gone(call: &RecordedCall, maybe: bool, clock_error_us: Option<u64>) -> Option<Gone> {
    let ttl_us = call.action.ttl_ms()?.saturating_mul(1_000);
    let from_us = call.called_us.saturating_add(ttl_us);
    let ended_us = call.ended_us.filter(|_| !maybe).unwrap_or(u64::MAX);
    let by_us = ended_us.saturating_add(ttl_us);
    Some(match clock_error_us {
        Some(error_us) => Gone {
            from_us: from_us.saturating_sub(error_us),
            by_us: by_us.saturating_add(error_us),
        },
        None => Gone {
            from_us: 0,
            by_us: u64::MAX,
        },
    })
}

fn seen_values(items: &[CheckItem]) -> Vec<Bytes> {
    let mut seen: Vec<Bytes> = items.iter().flat_map(seen_by).collect();
    seen.sort();
    seen.dedup();
    seen
}

/// The values that an operation certainly found.
fn seen_by(item: &CheckItem) -> Vec<Bytes> {
    let mut seen = Vec::new();
    match &item.outcome {
        Some(Outcome::Value { value, .. }) => seen.push(value.clone()),
        Some(Outcome::Written {
            old: Old::Value(value),
            ..
        })
        | Some(Outcome::Conflict {
            old: Old::Value(value),
            ..
        }) => seen.push(value.clone()),
        _ => {}
    }
    if let (Action::CompareValue { expected, .. }, Some(Outcome::Written { .. })) =
        (&item.call.action, &item.outcome)
    {
        seen.push(expected.clone());
    }
    seen
}

/// Whether the action may have left the value, or an earlier value that it was extended from.
fn has_part_in(action: &Action, value: &Bytes) -> bool {
    match action {
        Action::Get
        | Action::GetStale
        | Action::TimeToLive
        | Action::Scan { .. }
        | Action::Watch { .. }
        | Action::Transact { .. } => false,
        Action::Delete
        | Action::DeleteVersion { .. }
        | Action::Expire { .. }
        | Action::Persist { .. }
        | Action::Add { .. } => true,
        Action::Put { value: own }
        | Action::PutFor { value: own, .. }
        | Action::PutIfAbsent { value: own }
        | Action::CompareVersion { value: own, .. }
        | Action::CompareValue { value: own, .. }
        | Action::PutOver { value: own, .. }
        | Action::Append { value: own } => {
            own.is_empty() || value.windows(own.len()).any(|part| part == own)
        }
    }
}

/// Whether the action may leave exactly this value.
fn may_leave(action: &Action, value: &Bytes) -> bool {
    match action {
        Action::Get
        | Action::GetStale
        | Action::TimeToLive
        | Action::Scan { .. }
        | Action::Watch { .. }
        | Action::Transact { .. }
        | Action::Delete
        | Action::DeleteVersion { .. }
        | Action::Expire { .. }
        | Action::Persist { .. } => false,
        Action::Put { value: own }
        | Action::PutFor { value: own, .. }
        | Action::PutIfAbsent { value: own }
        | Action::CompareVersion { value: own, .. }
        | Action::CompareValue { value: own, .. }
        | Action::PutOver { value: own, .. } => own == value,
        Action::Append { value: own } => value.ends_with(own),
        Action::Add { .. } => std::str::from_utf8(value).is_ok_and(|t| t.parse::<i64>().is_ok()),
    }
}

/// Gives each write without an outcome the version that was read of it, where only that write can
/// have written what was read. One that is known leaves fewer candidates for the others, so this
/// goes on until it finds nothing.
fn resolve(items: &mut [CheckItem]) {
    let writers = items.iter().filter(|item| item.writes);
    let mut written: HashSet<Version> = writers.filter_map(|item| item.version).collect();
    let mut open: Vec<usize> = (0..items.len())
        .filter(|at| items[*at].outcome.is_none())
        .collect();
    let mut readers: Vec<usize> = (0..items.len())
        .filter(|at| items[*at].reads().is_some())
        .collect();
    loop {
        let found_before = open.len();
        readers.retain(|at| {
            let Some((version, value)) = items[*at].reads() else {
                return false;
            };
            if open.is_empty() || written.contains(&version) {
                return false;
            }
            if let Some(writer) = only_writer(items, &open, *at, &value) {
                items[writer].take_version(version, &value);
                written.insert(version);
                open.retain(|at| *at != writer);
            }
            true
        });
        if open.len() == found_before {
            return;
        }
    }
}

/// The write among the open ones that must have written what the reader read, if only one can have.
fn only_writer(items: &[CheckItem], open: &[usize], reader: usize, value: &Bytes) -> Option<usize> {
    let ended = items[reader].ended;
    let mut writers = open.iter().copied().filter(|at| {
        let item = &items[*at];
        ended.is_none_or(|ended| item.called < ended) && may_leave(&item.call.action, value)
    });
    let writer = writers.next()?;
    writers.next().is_none().then_some(writer)
}
