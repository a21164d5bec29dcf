//! Checks that one order explains what clients saw of several keys at once: strict
//! serializability of transactions, together with operations on single keys.
//!
//! The search is complete: it places one operation after another whose call no other operation's
//! end precedes, and remembers which sets of placed operations, with the state that they left, led
//! nowhere.

use std::collections::{BTreeMap, HashSet, VecDeque};

use bytes::Bytes;
use wire::{
    Action, Condition, Failure, FailureReason, KeyChange, KeyResult, Outcome, Transaction,
    TransactionPart, VALUE_SIZE_DEFAULT,
};

use crate::CheckVerdict;
use crate::history::{Ending, RecordedCall};
use crate::model::{KnownVersion, ModelState, number};

type KeysState = BTreeMap<Bytes, ModelState>;

/// Checks all operations of all keys that transactions combine.
pub fn check(calls: &[RecordedCall], effort_max: u64) -> CheckVerdict {
    search(calls, effort_max)
}

fn search(calls: &[RecordedCall], effort_max: u64) -> CheckVerdict {
    let mut calls: Vec<&RecordedCall> = calls.iter().filter(|call| !call.is_void()).collect();
    calls.sort_by_key(|call| call.called);
    let mut search = Search {
        places: vec![0; calls.len().div_ceil(64)],
        left: calls.iter().filter(|call| !call.is_maybe()).count(),
        longest: 0,
        calls: &calls,
        dead: HashSet::new(),
        effort: effort_max,
    };
    match search.run() {
        Some(true) => CheckVerdict::Linearizable,
        None => CheckVerdict::Undecided,
        Some(false) => {
            let until = (search.longest + 20).min(calls.len());
            CheckVerdict::Violation(calls[..until].iter().map(|call| (*call).clone()).collect())
        }
    }
}

/// Whether the operation is part of a transaction, or names one of these keys.
pub fn keys_of(call: &RecordedCall) -> Vec<Bytes> {
    match &call.action {
        Action::Transact { transaction } => transaction
            .parts
            .iter()
            .map(|part| part.key.clone())
            .collect(),
        _ => vec![call.key.clone()],
    }
}

/// Which operations were placed, and what they left.
type Dead = (Vec<u64>, Vec<(Bytes, ModelState)>);

struct Search<'a> {
    /// In order of their calls.
    calls: &'a [&'a RecordedCall],
    /// Which are placed.
    places: Vec<u64>,
    /// How many are to be placed that have surely happened.
    left: usize,
    /// The furthest operation that was ever a candidate.
    longest: usize,
    dead: HashSet<Dead>,
    effort: u64,
}

impl Search<'_> {
    fn is_placed(&self, at: usize) -> bool {
        self.places[at / 64] & 1 << (at % 64) != 0
    }

    fn toggle(&mut self, at: usize) {
        self.places[at / 64] ^= 1 << (at % 64);
        if !self.calls[at].is_maybe() {
            self.left = match self.is_placed(at) {
                true => self.left - 1,
                false => self.left + 1,
            };
        }
    }

    /// The operations that may come next: no other one ended before they were called.
    fn candidates(&self, first: usize) -> Vec<usize> {
        let mut end = u64::MAX;
        let mut found = Vec::new();
        for at in first..self.calls.len() {
            let call = self.calls[at];
            if call.called > end {
                break;
            }
            if self.is_placed(at) {
                continue;
            }
            found.push(at);
            if !call.is_maybe() {
                end = end.min(call.ended.unwrap_or(u64::MAX));
            }
        }
        // What ended first probably happened first. What may never have happened comes last.
        found.sort_by_key(|at| {
            let call = self.calls[*at];
            (call.is_maybe(), call.ended.unwrap_or(u64::MAX))
        });
        found
    }

    /// Whether the operations have an order; `None` if the search gave up.
    fn run(&mut self) -> Option<bool> {
        let mut steps: Vec<SearchStep> = Vec::new();
        let mut found = self.step(KeysState::new(), 0)?;
        loop {
            match found {
                Entered::Ends => return Some(true),
                Entered::Dead => {}
                Entered::Open(step) => steps.push(step),
            }
            let next = loop {
                let Some(step) = steps.last_mut() else {
                    return Some(false);
                };
                if let Some(at) = step.placed.take() {
                    self.toggle(at);
                }
                if let Some(next) = self.place_next(step) {
                    break (next, step.first);
                }
                let step = steps.pop().expect("just seen");
                self.dead.insert(step.place);
            };
            found = self.step(next.0, next.1)?;
        }
    }

    /// All before `first` are placed. `None`: the search gives up.
    fn step(&mut self, state: KeysState, mut first: usize) -> Option<Entered> {
        if self.left == 0 {
            return Some(Entered::Ends);
        }
        self.effort = self.effort.checked_sub(1)?;
        while first < self.calls.len() && self.is_placed(first) {
            first += 1;
        }
        let known: Vec<(Bytes, ModelState)> =
            state.iter().map(|(k, s)| (k.clone(), s.clone())).collect();
        let place = (self.places.clone(), known);
        if self.dead.contains(&place) {
            return Some(Entered::Dead);
        }
        let candidates = self.candidates(first);
        let furthest = candidates.iter().copied().max().unwrap_or(0);
        self.longest = self.longest.max(furthest);
        Some(Entered::Open(SearchStep {
            state,
            first,
            place,
            candidates: candidates.into(),
            placed: None,
        }))
    }

    /// Places the next candidate that can come next. Returns the state after it.
    fn place_next(&mut self, step: &mut SearchStep) -> Option<KeysState> {
        while let Some(at) = step.candidates.pop_front() {
            let Some(next) = after(self.calls[at], &step.state) else {
                continue;
            };
            if next == step.state {
                // An unseen operation without effect may as well not have happened.
                if self.calls[at].is_maybe() {
                    continue;
                }
                // It could have been placed here in any order.
                step.candidates.clear();
            }
            self.toggle(at);
            step.placed = Some(at);
            return Some(next);
        }
        None
    }
}

/// What is known after the operations that were placed so far.
struct SearchStep {
    state: KeysState,
    first: usize,
    place: Dead,
    /// The operations that may come next and were not tried.
    candidates: VecDeque<usize>,
    placed: Option<usize>,
}

enum Entered {
    /// All that surely happened is placed.
    Ends,
    /// The search has been here.
    Dead,
    Open(SearchStep),
}

/// The state after the operation, if it can have had its outcome.
fn after(call: &RecordedCall, state: &KeysState) -> Option<KeysState> {
    let outcome = match &call.ending {
        Ending::Answered(Outcome::Unknown) | Ending::Open => None,
        Ending::Answered(outcome) => Some(outcome),
        Ending::TimedOut => return None,
    };
    let of = |key: &Bytes| state.get(key).cloned().unwrap_or_else(ModelState::empty);
    let mut next = state.clone();
    let Action::Transact { transaction } = &call.action else {
        let before = of(&call.key);
        let made = match outcome {
            Some(outcome) => before.after(&call.action, call.want_old, outcome, None)?,
            None => before.after_unseen(&call.action, None)?,
        };
        next.insert(call.key.clone(), made);
        return Some(next);
    };
    match outcome {
        Some(Outcome::Committed { results }) => {
            if results.len() != transaction.parts.len() {
                return None;
            }
            for (part, result) in transaction.parts.iter().zip(results) {
                let made = after_part(part, Some(result), &of(&part.key))?;
                next.insert(part.key.clone(), made);
            }
        }
        Some(Outcome::Failed { failure }) => {
            let part = transaction.parts.get(usize::from(failure.part))?;
            let seen = after_failure(transaction, *failure, &of(&part.key))?;
            next.insert(part.key.clone(), seen);
        }
        Some(_) => return None,
        None => {
            for part in &transaction.parts {
                let made = after_part(part, None, &of(&part.key))?;
                next.insert(part.key.clone(), made);
            }
        }
    }
    Some(next)
}

fn holds(condition: &Condition, state: &ModelState) -> Option<ModelState> {
    let present = state.value.as_ref();
    match condition {
        Condition::Absent => present.is_none().then(|| state.clone()),
        Condition::Present => present.is_some().then(|| state.clone()),
        Condition::Version(version) => {
            present?;
            state.pinned(*version)
        }
        Condition::Value(value) => (present == Some(value)).then(|| state.clone()),
    }
}

/// The state of one key after a committed transaction; without a result, of one that nobody saw.
fn after_part(
    part: &TransactionPart,
    result: Option<&KeyResult>,
    before: &ModelState,
) -> Option<ModelState> {
    let mut before = before.clone();
    for condition in &part.conditions {
        before = holds(condition, &before)?;
    }
    if let Some(result) = result {
        before = match &before.value {
            Some(_) => before.pinned(result.found)?,
            None => (result.found == 0).then_some(before)?,
        };
        let value = before.value.clone().filter(|_| part.get);
        if value != result.value {
            return None;
        }
    }
    let Some((value, sum)) = effect(part, before.value.as_ref()).ok()? else {
        let same = result.is_none_or(|r| r.version == r.found && r.number.is_none());
        return same.then_some(before);
    };
    let version = match result {
        Some(result) => {
            let fits = result.version > before.version.lowest() && result.number == sum;
            fits.then_some(KnownVersion::Exactly(result.version))?
        }
        None => KnownVersion::AtLeast(before.version.lowest() + 1),
    };
    Some(ModelState {
        value,
        version,
        gone: None,
    })
}

/// The new value and the sum; `None` if nothing changes.
type PartEffect = Option<(Option<Bytes>, Option<i64>)>;

fn effect(part: &TransactionPart, before: Option<&Bytes>) -> Result<PartEffect, FailureReason> {
    Ok(match &part.change {
        None => None,
        Some(KeyChange::Put(value) | KeyChange::PutFor { value, .. }) => {
            Some((Some(value.clone()), None))
        }
        Some(KeyChange::Delete) => before.map(|_| (None, None)),
        Some(KeyChange::Add(delta)) => {
            let number = before.map_or(Some(0), number);
            let number = number.ok_or(FailureReason::NotANumber)?;
            let sum = number.checked_add(*delta).ok_or(FailureReason::Overflow)?;
            Some((Some(sum.to_string().into()), Some(sum)))
        }
        Some(KeyChange::Append(value)) => {
            let joined = [before.cloned().unwrap_or_default(), value.clone()].concat();
            if joined.len() > VALUE_SIZE_DEFAULT {
                let limit = VALUE_SIZE_DEFAULT as u64;
                return Err(FailureReason::TooLarge { limit });
            }
            Some((Some(joined.into()), None))
        }
    })
}

/// The state of the key for which a transaction failed, if it can have failed so.
fn after_failure(
    transaction: &Transaction,
    failure: Failure,
    before: &ModelState,
) -> Option<ModelState> {
    let part = &transaction.parts[usize::from(failure.part)];
    let FailureReason::Condition { place, version } = failure.reason else {
        return (effect(part, before.value.as_ref()) == Err(failure.reason))
            .then(|| before.clone());
    };
    let before = match &before.value {
        Some(_) => before.pinned(version)?,
        None => (version == 0).then(|| before.clone())?,
    };
    let (first, rest) = part.conditions.split_at_checked(usize::from(place))?;
    let held = first
        .iter()
        .all(|condition| holds(condition, &before).is_some());
    let failed = holds(rest.first()?, &before).is_none();
    (held && failed).then_some(before)
}

/// The operations of each group of keys that transactions combine, taken out of `calls`. Stale
/// reads stay: they have no place in an order. None of these keys may have a time to live.
pub fn components(calls: &mut Vec<RecordedCall>) -> Vec<Vec<RecordedCall>> {
    let mut group_of: BTreeMap<Bytes, usize> = BTreeMap::new();
    let mut groups = 0;
    for call in calls.iter() {
        if !matches!(call.action, Action::Transact { .. }) {
            continue;
        }
        let keys = keys_of(call);
        let joined: Vec<usize> = keys
            .iter()
            .filter_map(|k| group_of.get(k).copied())
            .collect();
        for group in group_of.values_mut() {
            if joined.contains(group) {
                *group = groups;
            }
        }
        group_of.extend(keys.into_iter().map(|key| (key, groups)));
        groups += 1;
    }
    let mut parts: BTreeMap<usize, Vec<RecordedCall>> = BTreeMap::new();
    let mut rest = Vec::new();
    for call in std::mem::take(calls) {
        match group_of.get(&keys_of(&call)[0]) {
            Some(group) if !call.action.is_stale() => parts.entry(*group).or_default().push(call),
            _ => rest.push(call),
        }
    }
    *calls = rest;
    parts.into_values().collect()
}
