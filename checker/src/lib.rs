//! Checks that a single register can explain what clients saw of one key: linearizability, after
//! Wing and Gong, with the memo of Lowe and Horn.
//!
//! `items` has the facts about each operation, `model` is the register, `search` looks for an
//! order, and `shortest` cuts a history that has none down to the operations that show it. The
//! checker knows nothing about nodes and messages. `several` does the same for keys that
//! transactions combine: strict serializability. The tests and `horseshoe bench --check` use it.

pub mod history;
mod items;
pub mod model;
pub mod random;
mod search;
pub mod several;
mod shortest;
mod tokens;

use std::collections::HashMap;

use bytes::Bytes;
use wire::{Action, Outcome, Version};

use crate::history::{Ending, RecordedCall};
use items::{CheckItem, disagreement, items};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CheckVerdict {
    Linearizable,
    /// No order explains these.
    Violation(Vec<RecordedCall>),
    /// The search reached its bound.
    Undecided,
}

/// Checks all operations of one key. Keys that expire may do so at any time.
pub fn check(calls: &[RecordedCall], effort_max: u64) -> CheckVerdict {
    check_within(calls, effort_max, None)
}

/// Checks all operations of one key. A key that expires is there for its time to live, and gone
/// after it, except for this error of the store's clocks; `None`: their error has no bound.
pub fn check_within(
    calls: &[RecordedCall],
    effort_max: u64,
    clock_error_us: Option<u64>,
) -> CheckVerdict {
    let items = items(calls, clock_error_us);
    let pair = contradiction(&items).or_else(|| untrue_stale(calls, &items));
    if let Some(pair) = pair {
        return CheckVerdict::Violation(pair.into_iter().cloned().collect());
    }
    match search::search(&items, effort_max) {
        search::SearchEnd::Order => CheckVerdict::Linearizable,
        search::SearchEnd::Nothing => {
            let shortest = shortest::shortest(calls, effort_max, clock_error_us);
            CheckVerdict::Violation(shortest)
        }
        search::SearchEnd::GaveUp => CheckVerdict::Undecided,
    }
}

/// A few operations that no order reconciles, by their versions or long values alone. The search
/// would find these too; this is quick, and yields the shortest report.
fn contradiction<'a>(items: &[CheckItem<'a>]) -> Option<Vec<&'a RecordedCall>> {
    same_version(items)
        .or_else(|| back_in_time(items))
        .or_else(|| disagreement(items))
}

/// A version belongs to one write, and stands for one value.
fn same_version<'a>(items: &[CheckItem<'a>]) -> Option<Vec<&'a RecordedCall>> {
    let mut writers: HashMap<Version, &CheckItem> = HashMap::new();
    let mut values: HashMap<Version, (&CheckItem, Option<Bytes>)> = HashMap::new();
    for item in items {
        let Some(version) = item.version else {
            continue;
        };
        if item.writes
            && let Some(other) = writers.insert(version, item)
        {
            return Some(vec![other.call, item.call]);
        }
        let Some(value) = value_at_version(item) else {
            continue;
        };
        match values.get(&version) {
            Some((other, held)) if *held != value => return Some(vec![other.call, item.call]),
            Some(_) => {}
            None => {
                values.insert(version, (item, value));
            }
        }
    }
    None
}

/// A stale read, with an operation that shows another value of that version. A stale read has no
/// place in the order, but what it tells was chosen.
fn untrue_stale<'a>(
    calls: &'a [RecordedCall],
    items: &[CheckItem<'a>],
) -> Option<Vec<&'a RecordedCall>> {
    let known = items.iter().filter_map(|item| {
        let value = value_at_version(item)?;
        Some((item.version?, (item, value)))
    });
    let known: HashMap<Version, (&CheckItem, Option<Bytes>)> = known.collect();
    calls.iter().find_map(|call| match &call.ending {
        Ending::Answered(Outcome::Stale {
            version,
            value: Some(value),
            ..
        }) => {
            let (item, held) = known.get(version)?;
            (held.as_ref() != Some(value)).then(|| vec![item.call, call])
        }
        _ => None,
    })
}

/// The value that the item's version stands for, where the item alone shows it.
fn value_at_version(item: &CheckItem) -> Option<Option<Bytes>> {
    match (item.outcome.as_ref()?, &item.call.action) {
        (Outcome::Value { value, .. }, _) => Some(Some(value.clone())),
        (
            Outcome::Written {
                number: Some(number),
                ..
            },
            _,
        ) => Some(Some(number.to_string().into())),
        (Outcome::Written { .. }, action) => match action {
            Action::Put { value }
            | Action::PutFor { value, .. }
            | Action::PutIfAbsent { value }
            | Action::CompareVersion { value, .. }
            | Action::CompareValue { value, .. }
            | Action::PutOver { value, .. } => Some(Some(value.clone())),
            Action::Delete | Action::DeleteVersion { .. } => Some(None),
            Action::Get
            | Action::GetStale
            | Action::TimeToLive
            | Action::Scan { .. }
            | Action::Watch { .. }
            | Action::Transact { .. }
            | Action::Expire { .. }
            | Action::Persist { .. }
            | Action::Add { .. }
            | Action::Append { .. } => None,
        },
        _ => None,
    }
}

/// An operation that is called after another has ended cannot have an earlier version.
fn back_in_time<'a>(items: &[CheckItem<'a>]) -> Option<Vec<&'a RecordedCall>> {
    let mut by_call: Vec<&CheckItem> = items.iter().filter(|i| i.version.is_some()).collect();
    by_call.sort_by_key(|i| i.called);
    let mut by_end: Vec<&CheckItem> = by_call
        .iter()
        .copied()
        .filter(|i| i.ended.is_some())
        .collect();
    by_end.sort_by_key(|i| i.ended);
    let mut ended = by_end.into_iter().peekable();
    let mut newest: Option<&CheckItem> = None;
    for item in by_call {
        while let Some(before) = ended.next_if(|e| e.ended < Some(item.called)) {
            if newest.is_none_or(|n| n.version < before.version) {
                newest = Some(before);
            }
        }
        if let Some(before) = newest
            && (item.version < before.version || item.writes && item.version == before.version)
        {
            return Some(vec![before.call, item.call]);
        }
    }
    None
}
