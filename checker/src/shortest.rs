//! Cuts a history that has no order down to few operations that have none either.

use wire::{Action, Old, Outcome};

use super::items::{CheckItem, items};
use super::search::{SearchEnd, search};
use super::value_at_version;
use crate::history::{Ending, RecordedCall};

/// The shortest beginning of the history that has no order, from the last write that it can start
/// with, without the operations that wrote nothing and are not needed. The omitted calls only add
/// constraints, so the rest is a contradiction alone.
pub fn shortest(
    calls: &[RecordedCall],
    effort_max: u64,
    error_us: Option<u64>,
) -> Vec<RecordedCall> {
    let mut ends: Vec<u64> = calls.iter().filter_map(|c| c.ended).collect();
    ends.sort_unstable();
    let (mut fits, mut fails) = (0, ends.len());
    while fits + 1 < fails {
        let middle = (fits + fails) / 2;
        if is_contradiction(&until(calls, ends[middle - 1]), effort_max, error_us) {
            fails = middle;
        } else {
            fits = middle;
        }
    }
    let end = ends.get(fails.wrapping_sub(1)).copied().unwrap_or(u64::MAX);
    let mut left = until(calls, end);
    if !is_contradiction(&left, effort_max, error_us) {
        return calls.to_vec();
    }
    left.retain(|c| !c.is_void());
    let mut left = from_a_write(&left, effort_max, error_us).unwrap_or(left);
    without_lookers(&mut left, effort_max, error_us);
    left
}

/// The history as of `time`: operations that ended later are still in progress.
fn until(calls: &[RecordedCall], time: u64) -> Vec<RecordedCall> {
    let begun = calls.iter().filter(|c| c.called <= time).cloned();
    begun
        .map(|mut call| {
            if call.ended.is_some_and(|ended| ended > time) {
                call.ended = None;
                call.ended_us = None;
                call.ending = Ending::Open;
            }
            call
        })
        .collect()
}

/// Starts the history at the latest write that overlaps no other operation, if what follows is a
/// contradiction alone: what ended before it does not matter then.
fn from_a_write(
    calls: &[RecordedCall],
    effort_max: u64,
    error_us: Option<u64>,
) -> Option<Vec<RecordedCall>> {
    let all = items(calls, error_us);
    let mut starts: Vec<&CheckItem> = all.iter().filter(|item| is_alone(item, &all)).collect();
    starts.sort_by_key(|item| std::cmp::Reverse(item.called));
    starts.retain(|item| item.gone.is_none());
    starts.into_iter().find_map(|start| {
        let value = value_at_version(start)??;
        let mut first = start.call.clone();
        first.action = Action::Put { value };
        first.want_old = false;
        first.ending = Ending::Answered(Outcome::Written {
            version: start.version?,
            old: Old::NotAsked,
            number: None,
        });
        let later = calls
            .iter()
            .filter(|c| c.is_maybe() || c.called > start.called);
        let cut: Vec<RecordedCall> = std::iter::once(first).chain(later.cloned()).collect();
        is_contradiction(&cut, effort_max, error_us).then_some(cut)
    })
}

/// Whether a write was acknowledged while no other operation with an outcome was in progress.
fn is_alone(item: &CheckItem, all: &[CheckItem]) -> bool {
    let Some(ended) = item.ended.filter(|_| item.writes) else {
        return false;
    };
    all.iter().all(|other| {
        let apart = other.called > ended || other.ended.is_none_or(|e| e < item.called);
        apart || other.called == item.called
    })
}

/// Drops each operation that wrote nothing, if the rest is still a contradiction.
fn without_lookers(calls: &mut Vec<RecordedCall>, effort_max: u64, error_us: Option<u64>) {
    let mut at = 0;
    while at < calls.len() {
        let looks = items(&calls[at..=at], error_us)
            .iter()
            .any(|item| !item.writes);
        if looks {
            let call = calls.remove(at);
            if is_contradiction(calls, effort_max, error_us) {
                continue;
            }
            calls.insert(at, call);
        }
        at += 1;
    }
}

fn is_contradiction(calls: &[RecordedCall], effort_max: u64, error_us: Option<u64>) -> bool {
    search(&items(calls, error_us), effort_max) == SearchEnd::Nothing
}
