//! A naive checker that tries every order, and histories on which to compare the two.

use bytes::Bytes;
use proptest::prelude::*;
use wire::{Action, Old, Outcome, Version};

use crate::sim::checker::model::{ModelEffect, compared, effect};
use crate::sim::history::{Ending, RecordedCall};
use crate::sim::random::Random;

/// A value, and whether it expires: at any time.
type Value = Option<(Bytes, bool)>;

/// Tries every order and, for each write that no client saw, every version that could matter.
pub fn is_linearizable(calls: &[RecordedCall]) -> bool {
    let left: Vec<&RecordedCall> = calls.iter().filter(|c| !c.is_void()).collect();
    let mut versions: Vec<Version> = left.iter().flat_map(|c| named_versions(c)).collect();
    versions.sort_unstable();
    fits(&left, &None, 0, &versions)
}

fn fits(left: &[&RecordedCall], value: &Value, version: Version, versions: &[Version]) -> bool {
    if left.iter().all(|c| c.is_maybe()) {
        return true;
    }
    if let Some((_, true)) = value
        && fits(left, &None, version + 1, versions)
    {
        return true;
    }
    let due = left
        .iter()
        .filter(|c| !c.is_maybe())
        .filter_map(|c| c.ended)
        .min();
    (0..left.len()).any(|at| {
        let call = left[at];
        if due.is_some_and(|due| call.called > due) {
            return false;
        }
        let mut rest = left.to_vec();
        rest.remove(at);
        let next = if call.is_maybe() {
            unseen(call, value, version, versions)
        } else {
            seen(call, value, version).into_iter().collect()
        };
        next.iter()
            .any(|(value, version)| fits(&rest, value, *version, versions))
    })
}

/// Versions that the history names, in outcomes or comparisons.
fn named_versions(call: &RecordedCall) -> Vec<Version> {
    let mut named = Vec::new();
    if let Ending::Answered(
        Outcome::Written { version, .. }
        | Outcome::Value { version, .. }
        | Outcome::Lives { version, .. }
        | Outcome::Conflict { version, .. },
    ) = &call.ending
    {
        named.push(*version);
    }
    named.extend(compared(&call.action));
    named
}

fn unseen(
    call: &RecordedCall,
    value: &Value,
    version: Version,
    versions: &[Version],
) -> Vec<(Value, Version)> {
    let written = match run(&call.action, value, version) {
        ModelEffect::Writes { value: written, .. } => kept(&call.action, value, written),
        ModelEffect::Renews => return vec![(renewed(&call.action, value), version)],
        _ => return Vec::new(),
    };
    let named = versions.iter().copied().filter(|v| *v > version);
    named
        .chain([version + 1])
        .map(|v| (written.clone(), v))
        .collect()
}

fn run(action: &Action, value: &Value, version: Version) -> ModelEffect {
    let holds = compared(action).is_none_or(|compared| compared == version);
    effect(action, value.as_ref().map(|(value, _)| value), holds)
}

/// Whether what was written expires.
fn kept(action: &Action, before: &Value, written: Option<Bytes>) -> Value {
    let expired = before.as_ref().is_some_and(|(_, expires)| *expires);
    let expires = match action {
        Action::Add { .. } | Action::Append { .. } => expired,
        _ => action.ttl_ms().is_some(),
    };
    written.map(|value| (value, expires))
}

fn renewed(action: &Action, before: &Value) -> Value {
    let expires = action.ttl_ms().is_some();
    before.as_ref().map(|(value, _)| (value.clone(), expires))
}

fn seen(call: &RecordedCall, value: &Value, version: Version) -> Option<(Value, Version)> {
    let Ending::Answered(outcome) = &call.ending else {
        panic!("{call} tells nothing");
    };
    let next = expected(
        &call.action,
        call.want_old,
        value,
        version,
        outcome_version(outcome),
    );
    let mut told = outcome.clone();
    if let Outcome::Written { old, .. } | Outcome::Conflict { old, .. } = &mut told
        && *old == Old::Forgotten
        && call.want_old
    {
        *old = old_of(true, value);
    }
    (next.0 == told).then_some((next.1, next.2))
}

fn outcome_version(outcome: &Outcome) -> Version {
    match outcome {
        Outcome::Written { version, .. } => *version,
        _ => 0,
    }
}

fn old_of(want_old: bool, value: &Value) -> Old {
    match value {
        _ if !want_old => Old::NotAsked,
        Some((value, _)) => Old::Value(value.clone()),
        None => Old::Absent,
    }
}

/// The outcome that a register returns, and its next state; a write takes the version `given`, if
/// that is higher.
pub fn expected(
    action: &Action,
    want_old: bool,
    value: &Value,
    version: Version,
    given: Version,
) -> (Outcome, Value, Version) {
    let same = |outcome| (outcome, value.clone(), version);
    if action.is_read() {
        return same(match (value, action) {
            (Some((_, expires)), Action::TimeToLive) => Outcome::Lives {
                version,
                left_ms: expires.then_some(5),
            },
            (Some((value, _)), _) => Outcome::Value {
                version,
                value: value.clone(),
            },
            (None, _) => Outcome::Absent,
        });
    }
    let old = old_of(want_old, value);
    match run(action, value, version) {
        ModelEffect::Writes {
            value: written,
            number,
        } => {
            let version = given.max(version + 1);
            (
                Outcome::Written {
                    version,
                    old,
                    number,
                },
                kept(action, value, written),
                version,
            )
        }
        ModelEffect::Renews => {
            let (number, renewed) = (None, renewed(action, value));
            let outcome = Outcome::Written {
                version,
                old,
                number,
            };
            (outcome, renewed, version)
        }
        ModelEffect::Conflict => {
            // A client that cannot receive an old value does not get it.
            let old = match action {
                Action::PutOver { .. } => Old::NotAsked,
                _ => old,
            };
            let stands = if value.is_some() { version } else { 0 };
            same(Outcome::Conflict {
                version: stands,
                old,
            })
        }
        ModelEffect::NothingToDelete => same(Outcome::NothingToDelete),
        ModelEffect::NotANumber => same(Outcome::NotANumber),
        ModelEffect::Overflow => same(Outcome::Overflow),
        ModelEffect::TooLarge => same(Outcome::TooLarge { limit: 0 }),
    }
}

/// One operation of a small run: its action, its duration, and how it ends.
#[derive(Debug, Clone)]
pub struct Step {
    action: u8,
    value: u8,
    want_old: bool,
    before: u8,
    after: u8,
    ending: u8,
    rise: u8,
    /// Whether the key expires before the operation, if it can.
    expires: bool,
}

pub fn any_step() -> impl Strategy<Value = Step> {
    (
        0..18u8,
        0..3u8,
        any::<bool>(),
        0..30u8,
        0..30u8,
        0..10u8,
        1..3u8,
        any::<bool>(),
    )
        .prop_map(
            |(action, value, want_old, before, after, ending, rise, expires)| Step {
                action,
                value,
                want_old,
                before,
                after,
                ending,
                rise,
                expires,
            },
        )
}

fn action_of(step: u64, choice: u8, value: u8, version: Version) -> Action {
    let text = |n: u8| Bytes::from(n.to_string());
    match choice {
        0..=3 => Action::Get,
        4 | 5 => Action::Put { value: text(value) },
        6 => Action::PutIfAbsent { value: text(value) },
        7 => Action::Delete,
        8 => Action::CompareVersion {
            version: version + u64::from(value) / 2,
            value: text(value),
        },
        9 => Action::CompareValue {
            expected: text(value),
            value: text(value + 1),
        },
        10 => Action::Add {
            delta: i64::from(value),
        },
        11 => Action::Append { value: text(value) },
        12 => Action::PutOver {
            value: text(value),
            old_size_max: u64::from(value),
            old_without: text(1),
        },
        13 => Action::PutFor {
            value: text(value),
            ttl_ms: 5,
            over: [None, Some(0), Some(version)][usize::from(value)],
        },
        14 => Action::Expire {
            ttl_ms: 5,
            over: [None, None, Some(version)][usize::from(value)],
        },
        15 => Action::Persist {
            over: [None, Some(version), Some(version + 1)][usize::from(value)],
        },
        16 => Action::TimeToLive,
        17 => Action::DeleteVersion {
            version: version + u64::from(value) / 2,
        },
        _ => Action::Append {
            value: Bytes::from(format!("+{step};")),
        },
    }
}

/// Runs the steps in order on a register, with overlapping calls; then changes one outcome.
pub fn small_run(steps: &[Step], spoil: Option<(u8, u8)>) -> Vec<RecordedCall> {
    let (mut value, mut version): (Value, Version) = (None, 0);
    let mut calls = Vec::new();
    for (n, step) in (0u64..).zip(steps) {
        if step.expires && value.as_ref().is_some_and(|(_, expires)| *expires) {
            (value, version) = (None, version + 1);
        }
        let action = action_of(n, step.action, step.value, version);
        let given = version + u64::from(step.rise);
        let next = expected(&action, step.want_old, &value, version, given);
        let happens = step.ending != 0 && step.ending != 1;
        if happens {
            (value, version) = (next.1, next.2);
        }
        let ending = match step.ending {
            0 => Ending::Answered(Outcome::NoQuorum {
                reached: Vec::new(),
            }),
            1 | 2 => Ending::Open,
            3 => Ending::Answered(Outcome::Unknown),
            _ => Ending::Answered(next.0),
        };
        let at = (n + 4) * 10;
        let times = (at - u64::from(step.before), at + u64::from(step.after));
        calls.push(call(n, action, step.want_old, times, ending));
    }
    if let Some((which, how)) = spoil {
        let count = calls.len();
        spoil_one(&mut calls[usize::from(which) % count], how);
    }
    calls
}

fn call(n: u64, action: Action, want_old: bool, times: (u64, u64), ending: Ending) -> RecordedCall {
    let ended = (ending != Ending::Open).then_some(times.1 * 100 + n);
    RecordedCall {
        client: n as usize,
        key: Bytes::from_static(b"k"),
        action,
        want_old,
        called: times.0 * 100 + n,
        ended,
        called_us: times.0,
        ended_us: ended.map(|e| e / 100),
        ending,
    }
}

fn spoil_one(call: &mut RecordedCall, how: u8) {
    let Ending::Answered(outcome) = &mut call.ending else {
        return;
    };
    let text = Bytes::from((how % 3).to_string());
    match outcome {
        Outcome::Value { version, .. } | Outcome::Lives { version, .. } if how < 128 => {
            *version = u64::from(how % 8)
        }
        Outcome::Value { value, .. } => *value = text,
        Outcome::Absent => {
            *outcome = Outcome::Value {
                version: u64::from(how % 8),
                value: text,
            }
        }
        Outcome::Written { version, .. } if how < 128 => *version = u64::from(how % 8) + 1,
        Outcome::Written { old, .. } => {
            *old = if how < 192 {
                Old::Value(text)
            } else {
                Old::Forgotten
            };
        }
        Outcome::Conflict { version, .. } => *version = u64::from(how % 8),
        _ => {}
    }
}

/// A long run of a correct register: `width` concurrent operations. Of each hundred writes, the
/// clients of `lost` get no answer; half of those writes were applied.
pub fn run_of_a_register(seed: u64, count: u64, width: u64, lost: u64) -> Vec<RecordedCall> {
    let mut random = Random::new(seed);
    let (mut value, mut version) = (None, 0);
    let mut calls = Vec::new();
    for n in 0..count {
        let unique = Bytes::from(format!("v{n};"));
        let action = match random.below(10) {
            0..=3 => Action::Get,
            4 | 5 => Action::Put { value: unique },
            6 => Action::PutIfAbsent { value: unique },
            7 => Action::Delete,
            8 => Action::CompareVersion {
                version,
                value: unique,
            },
            _ => Action::Append {
                value: Bytes::from(format!("+{n};")),
            },
        };
        let want_old = random.chance(300);
        let next = expected(
            &action,
            want_old,
            &value,
            version,
            version + 1 + random.below(50),
        );
        let is_lost = !action.is_read() && random.below(100) < lost;
        let mut ending = Ending::Answered(next.0);
        let mut happens = true;
        if is_lost {
            ending = Ending::Answered(Outcome::Unknown);
            happens = random.chance(500);
        }
        if happens {
            (value, version) = (next.1, next.2);
        }
        let at = (n + width) * 10;
        let times = (at - random.below(width * 10), at + random.below(width * 10));
        calls.push(call(n, action, want_old, times, ending));
    }
    calls
}
