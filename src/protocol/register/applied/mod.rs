//! Exactly once: this module turns operations into outcomes and records (X1, X2, V1).
//!
//! `Proposal` takes the record that a round found, runs the round's operations on it in order, and
//! returns the record to propose. It owns the rules of the applied table and the meaning of each
//! operation. It knows no ballots except the round's own, no messages and no clock.

#[cfg(test)]
mod expiry_tests;
mod steps;
mod table;
#[cfg(test)]
mod tests;

use bytes::{Bytes, BytesMut};
use wire::{
    Action, Birth, OLD_VALUE_KEPT_SIZE_MAX, Old, Operation, Outcome, VALUE_SIZE_DEFAULT, Version,
};

use crate::protocol::clients::low_marks::LowMarks;
use crate::protocol::clients::text_operation;
use crate::protocol::types::ballot::{Ballot, Moment};
use crate::protocol::types::record::{Applied, Record};
use crate::protocol::types::rules::rule;
use crate::protocol::types::transaction::{Seen, StepAnswer};
pub use steps::check_conditions;
pub(in crate::protocol) use table::CLIENT_SIZE;
use table::{LookUp, OPERATION_SIZE};

/// The result of an operation in a proposal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ApplyVerdict {
    Answer(Outcome),
    /// X1: expired, because it is below its client's low mark or is a text operation received too
    /// long ago. Its client waits for no answer any more.
    Straggler,
    /// The result of a transaction's step.
    Step(StepAnswer),
    /// T2, T5: a transaction's intent lies over the record. The operation leaves the round.
    Waits,
}

/// A record under construction.
#[derive(Debug)]
pub struct Proposal {
    record: Record,
    ballot: Ballot,
    moment: Moment,
    changed: bool,
    /// X6: the size limit of the table while it has no space to grow.
    table_max: Option<usize>,
    value_size_max: usize,
}

impl Proposal {
    /// `found` is the record with the highest accepted ballot, `None` if the key is absent; then
    /// `forgotten` is X3's initial `dropped`. `moment` is a time of the coordinator's clock.
    pub fn new(found: Option<&Record>, ballot: Ballot, moment: Moment, forgotten: Birth) -> Self {
        let record = found.cloned().unwrap_or_else(|| Record {
            applied: Applied {
                dropped: if rule!(X3) { forgotten } else { 0 },
                ..Applied::default()
            },
            ..Record::default()
        });
        let mut proposal = Proposal {
            record,
            ballot,
            moment,
            changed: false,
            table_max: None,
            value_size_max: VALUE_SIZE_DEFAULT,
        };
        proposal.record.applied.forget_old(&moment);
        proposal.expire();
        proposal
    }

    /// The coordinator's node has received these low marks with operations on other keys.
    pub fn raise_marks(&mut self, marks: &LowMarks) {
        self.record.applied.raise_marks(marks);
    }

    /// L1: an expired key is deleted before any operation looks at it.
    fn expire(&mut self) {
        if self.record.is_expired(self.moment.wall_ms) && rule!(L1_round) {
            self.record.version = self.next_version();
            self.record.value = None;
            self.record.expiry_ms = None;
            self.changed = true;
        }
    }

    /// The limit of the coordinator's node.
    pub fn limit_values(&mut self, size_max: usize) {
        self.value_size_max = size_max;
    }

    /// X6: while a node is full, the table stays no larger than the table found, or than one entry.
    /// `dropped` covers the entries that leave for this, as at the table's bound.
    pub fn keep_size(&mut self, found: Option<&Record>) {
        let size = found.map_or(0, |record| record.applied.size());
        self.table_max = Some(size.max(CLIENT_SIZE + OPERATION_SIZE));
    }

    /// Runs one operation. `tried`: an earlier attempt may have been made (X2).
    pub fn apply(&mut self, operation: &Operation, tried: bool) -> ApplyVerdict {
        if self.is_covered() && (operation.action.is_read() || rule!(T2_under)) {
            return ApplyVerdict::Waits;
        }
        if operation.action.is_read() {
            return ApplyVerdict::Answer(read(&self.record, &operation.action, &self.moment));
        }
        match self.record.applied.look_up(operation, &self.moment) {
            LookUp::BelowMark => return ApplyVerdict::Straggler,
            LookUp::Found(outcome) => return ApplyVerdict::Answer(outcome),
            LookUp::Unanswerable => return ApplyVerdict::Answer(Outcome::Unknown),
            LookUp::Forgotten(_) if tried => return ApplyVerdict::Answer(Outcome::Unknown),
            LookUp::Forgotten(dropped) => return ApplyVerdict::Answer(Outcome::Remake { dropped }),
            LookUp::New => {}
        }
        if text_operation::is_text(operation.id.client) && rule!(X1_text) {
            let (applied, moment) = (&self.record.applied, &self.moment);
            // Without space to grow, the table keeps the entry without its old value.
            let size = CLIENT_SIZE + OPERATION_SIZE;
            let has_room = match self.table_max {
                Some(max) => applied.has_kept_room_for_text(size, max, moment),
                None => applied.has_room_for_text(moment),
            };
            if !has_room {
                return ApplyVerdict::Answer(Outcome::Busy { after_ms: 0 });
            }
        }
        let outcome = self.execute(operation);
        let wrote = matches!(outcome, Outcome::Written { .. });
        // X2: an outcome that changes nothing enters the table too if an earlier attempt may still
        // arrive.
        if wrote || (tried && rule!(X2_node)) {
            self.enter(operation, &outcome);
        }
        ApplyVerdict::Answer(outcome)
    }

    fn enter(&mut self, operation: &Operation, outcome: &Outcome) {
        let applied = &mut self.record.applied;
        match self.table_max {
            Some(max) => {
                let outcome = table::without_old(outcome);
                applied.enter(operation, &outcome, &self.moment);
                applied.shrink_to(max, &self.moment);
            }
            None => applied.enter(operation, outcome, &self.moment),
        }
        self.changed = true;
    }

    /// The record to propose, and whether it differs from the one found.
    pub fn finish(self) -> (Record, bool) {
        (self.record, self.changed)
    }

    /// An upper bound of the bytes that an operation takes in the table.
    pub fn size_of(operation: &Operation) -> usize {
        let old = if operation.want_old {
            OLD_VALUE_KEPT_SIZE_MAX
        } else {
            0
        };
        CLIENT_SIZE + OPERATION_SIZE + old
    }

    fn execute(&mut self, operation: &Operation) -> Outcome {
        let old = self.old(operation.want_old);
        let current = self.present();
        match &operation.action {
            Action::Get
            | Action::GetStale
            | Action::TimeToLive
            | Action::Scan { .. }
            | Action::Watch { .. } => unreachable!("reads are answered before"),
            Action::Put { value } => self.write(Some(value.clone()), old, None),
            Action::PutIfAbsent { value } => match current {
                Some(_) => self.conflict(old),
                None => self.write(Some(value.clone()), old, None),
            },
            Action::Delete => match current {
                Some(_) => self.write(None, old, None),
                None => Outcome::NothingToDelete,
            },
            Action::DeleteVersion { version } => match current {
                _ if !self.holds(*version) => self.conflict(old),
                Some(_) => self.write(None, old, None),
                None => Outcome::NothingToDelete,
            },
            Action::PutFor {
                value,
                ttl_ms,
                over,
            } => {
                let holds = over.is_none_or(|version| self.holds(version));
                if !holds {
                    return self.conflict(old);
                }
                let outcome = self.write(Some(value.clone()), old, None);
                self.record.expiry_ms = Some(self.expiry_ms(*ttl_ms));
                outcome
            }
            Action::Expire { ttl_ms, over } => {
                let expiry_ms = Some(self.expiry_ms(*ttl_ms));
                self.set_expiry(expiry_ms, *over, old)
            }
            Action::Persist { over } => self.set_expiry(None, *over, old),
            Action::CompareVersion { version, value } => {
                if current.is_some() && self.record.version == *version {
                    self.write(Some(value.clone()), old, None)
                } else {
                    self.conflict(old)
                }
            }
            Action::CompareValue { expected, value } => {
                if current.as_ref() == Some(expected) {
                    self.write(Some(value.clone()), old, None)
                } else {
                    self.conflict(old)
                }
            }
            Action::PutOver {
                value,
                old_size_max,
                old_without,
            } => {
                let takes = |old: &Bytes| {
                    old.len() as u64 <= *old_size_max
                        && !old.iter().any(|b| old_without.contains(b))
                };
                if current.as_ref().is_none_or(takes) {
                    self.write(Some(value.clone()), old, None)
                } else {
                    // The caller can't handle the old value, so the conflict does not contain it.
                    self.conflict(Old::NotAsked)
                }
            }
            Action::Add { delta } => {
                let Some(before) = current.as_ref().map_or(Some(0), number) else {
                    return Outcome::NotANumber;
                };
                let Some(sum) = before.checked_add(*delta) else {
                    return Outcome::Overflow;
                };
                self.rewrite(Bytes::from(sum.to_string()), old, Some(sum))
            }
            Action::Append { value } => {
                let before = current.unwrap_or_default();
                let size = before.len() + value.len();
                if size > self.value_size_max {
                    return Outcome::TooLarge {
                        limit: self.value_size_max as u64,
                    };
                }
                let mut joined = BytesMut::with_capacity(size);
                joined.extend_from_slice(&before);
                joined.extend_from_slice(value);
                self.rewrite(joined.freeze(), old, None)
            }
            Action::Transact { .. } => unreachable!("transactions run in steps"),
        }
    }

    /// L2: writes what was derived from the present value, whose time to live stays.
    fn rewrite(&mut self, value: Bytes, old: Old, number: Option<i64>) -> Outcome {
        let expiry_ms = self.record.expiry_ms;
        let outcome = self.write(Some(value), old, number);
        self.record.expiry_ms = expiry_ms;
        outcome
    }

    /// A new value, or a tombstone, without a time to live.
    fn write(&mut self, value: Option<Bytes>, old: Old, number: Option<i64>) -> Outcome {
        let version = self.next_version();
        self.record.version = version;
        self.record.value = value;
        self.record.expiry_ms = None;
        Outcome::Written {
            version,
            old,
            number,
        }
    }

    /// V1: each write gets its own version, above the previous one and not below the ballot.
    fn next_version(&self) -> Version {
        let above = self.record.version + u64::from(rule!(V1_combined));
        self.ballot.0.max(above)
    }

    /// L2: changes when the key expires. The version stays, because it may be the token of a lock.
    fn set_expiry(&mut self, expiry_ms: Option<u64>, over: Option<Version>, old: Old) -> Outcome {
        let version = self.record.version;
        let holds = over.is_none_or(|over| over == version);
        if self.present().is_none() || !holds {
            return self.conflict(old);
        }
        self.record.expiry_ms = expiry_ms;
        if !rule!(L2) {
            self.record.version = self.next_version();
        }
        Outcome::Written {
            version: self.record.version,
            old,
            number: None,
        }
    }

    fn expiry_ms(&self, ttl_ms: u64) -> u64 {
        self.moment.wall_ms.saturating_add(ttl_ms)
    }

    /// Whether the key has this version; 0 is that of an absent key.
    fn holds(&self, version: Version) -> bool {
        match self.present() {
            Some(_) => version == self.record.version,
            None => version == 0,
        }
    }

    fn present(&self) -> Option<Bytes> {
        present(&self.record, &self.moment).cloned()
    }

    fn conflict(&self, old: Old) -> Outcome {
        let version = self.present().map_or(0, |_| self.record.version);
        Outcome::Conflict { version, old }
    }

    fn old(&self, wanted: bool) -> Old {
        match self.present() {
            _ if !wanted => Old::NotAsked,
            Some(value) => Old::Value(value),
            None => Old::Absent,
        }
    }
}

/// The outcome of a read of that record.
pub fn read(record: &Record, action: &Action, moment: &Moment) -> Outcome {
    told(present(record, moment), record, action, moment.wall_ms)
}

/// The outcome of a read that met a transaction's intent over the record. The record does not
/// expire under it (T9).
pub fn read_under(record: &Record, action: &Action, wall_ms: u64) -> Outcome {
    told(record.value.as_ref(), record, action, wall_ms)
}

fn told(value: Option<&Bytes>, record: &Record, action: &Action, wall_ms: u64) -> Outcome {
    let version = record.version;
    match (value, action) {
        (None, _) => Outcome::Absent,
        (Some(_), Action::TimeToLive) => Outcome::Lives {
            version,
            left_ms: record
                .expiry_ms
                .map(|expiry_ms| expiry_ms.saturating_sub(wall_ms)),
        },
        (Some(value), _) => Outcome::Value {
            version,
            value: value.clone(),
        },
    }
}

/// The value, unless it has expired. While L1 holds, no operation finds one that has.
fn present<'a>(record: &'a Record, moment: &Moment) -> Option<&'a Bytes> {
    let value = record.value.as_ref();
    value.filter(|_| !record.is_expired(moment.wall_ms))
}

/// What a read of a transaction sees in a record.
pub fn seen(record: &Record) -> Seen {
    Seen {
        version: record.version,
        value: record.value.clone(),
        floors: None,
    }
}

/// A signed 64-bit number in canonical decimal text, as in Redis.
fn number(value: &Bytes) -> Option<i64> {
    let text = std::str::from_utf8(value).ok()?;
    let number: i64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}
