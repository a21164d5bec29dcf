//! X1: the applied table: how an operation is looked up, how it enters, and which entries leave.

use wire::{Birth, OLD_VALUE_KEPT_SIZE_MAX, Old, Operation, Outcome};

use crate::protocol::clients::text_operation;
use crate::protocol::types::ballot::Moment;
use crate::protocol::types::limits::{
    APPLIED_OPERATIONS_MAX, APPLIED_SIZE_MAX, APPLIED_TEXT_SIZE_MAX,
};
use crate::protocol::types::record::{Applied, AppliedOperation, ClientEntry};
use crate::protocol::types::rules::rule;

/// Upper bounds of an entry's encoded size, without its byte strings.
pub(super) const CLIENT_SIZE: usize = 48;
pub(super) const OPERATION_SIZE: usize = 52;

pub(super) enum LookUp {
    BelowMark,
    Found(Outcome),
    /// The same text operation was recently applied for another source. It may be a retry or
    /// another client's, so it is neither applied nor answered with an outcome.
    FromElsewhere,
    Forgotten(Birth),
    New,
}

impl Applied {
    pub(super) fn look_up(&self, operation: &Operation, moment: &Moment) -> LookUp {
        let entry = self
            .clients
            .iter()
            .find(|c| c.client == operation.id.client);
        if let Some(entry) = entry {
            if operation.id.sequence < entry.mark && rule!(X1_mark) {
                return LookUp::BelowMark;
            }
            let sequence = operation.id.sequence;
            let held = entry.operations.iter().find(|o| o.sequence == sequence);
            if let Some(held) = held
                && rule!(X1_table)
            {
                return LookUp::Found(held.outcome.clone());
            }
        }
        if self.was_done_elsewhere(operation, moment) && rule!(X1_source) {
            return LookUp::FromElsewhere;
        }
        if operation.birth <= self.dropped && rule!(X1_dropped) {
            return LookUp::Forgotten(self.dropped);
        }
        LookUp::New
    }

    /// Whether the same text operation was applied for another source within the time in which a
    /// retry may arrive. After that time it is surely another client's operation.
    fn was_done_elsewhere(&self, operation: &Operation, moment: &Moment) -> bool {
        let client = operation.id.client;
        let same = |o: &AppliedOperation| {
            o.sequence == operation.id.sequence && !moment.lets_text_leave(o.birth)
        };
        let mut alike = self
            .clients
            .iter()
            .filter(|c| text_operation::is_from_elsewhere(client, c.client));
        alike.any(|entry| entry.operations.iter().any(same))
    }

    /// The highest birth of a text operation; 0 if there is none.
    pub fn newest_text(&self) -> Birth {
        let texts = self.clients.iter().filter(|c| c.is_text());
        texts.map(|entry| entry.birth_max).max().unwrap_or(0)
    }

    /// X1: whether there is space for one more text operation of this size beside those that may
    /// not leave yet.
    pub(super) fn has_room_for_text(&self, size: usize, max: usize, moment: &Moment) -> bool {
        let stays = |o: &&AppliedOperation| !moment.lets_text_leave(o.birth);
        let texts = self.clients.iter().filter(|c| c.is_text());
        let sizes = texts.map(|entry| {
            let kept = entry.operations.iter().filter(stays);
            let kept: usize = kept.map(operation_size).sum();
            kept + if kept > 0 { CLIENT_SIZE } else { 0 }
        });
        sizes.sum::<usize>() + size <= max
    }

    pub(super) fn enter(&mut self, operation: &Operation, outcome: &Outcome, moment: &Moment) {
        let client = operation.id.client;
        let above_texts = self.newest_text() + 1;
        let place = self.clients.iter().position(|c| c.client == client);
        let place = place.unwrap_or_else(|| {
            self.clients.push(ClientEntry {
                client,
                mark: 0,
                birth_max: 0,
                operations: Vec::new(),
            });
            self.clients.len() - 1
        });
        let entry = &mut self.clients[place];
        let text = entry.is_text();
        // A text operation's birth in the request belongs to one attempt, and a retry has a later
        // one. So the table takes the time at which the operation was applied. Births rise even if
        // coordinators' clocks differ. So a coordinator that saw a birth in a chosen record knows
        // that the operations with lower births were applied by then.
        let birth = if text {
            operation.birth.max(moment.now).max(above_texts)
        } else {
            operation.birth
        };
        entry.mark = entry.mark.max(operation.low_mark);
        let mark = entry.mark;
        entry.operations.retain(|o| o.sequence >= mark);
        entry.birth_max = entry.birth_max.max(birth);
        entry.operations.push(AppliedOperation {
            sequence: operation.id.sequence,
            birth,
            outcome: shortened(outcome),
        });
        while text && self.text_size() > APPLIED_TEXT_SIZE_MAX {
            self.drop_oldest(moment, ClientEntry::is_text);
        }
        while self.is_over_bound() {
            self.drop_oldest(moment, |_| true);
        }
    }

    /// The retry horizon: entries born at or before it leave the table. This goes by readings. So
    /// an entry of a session may leave early if clocks differ or jump; then `dropped` refuses a
    /// retry (X1), with an unknown outcome. It does not refuse a retry of a text operation, so an
    /// entry of a text operation stays for its second of this node's own time.
    pub(super) fn forget_old(&mut self, moment: &Moment) {
        let horizon = moment.horizon;
        let mut dropped = self.dropped;
        self.clients.retain_mut(|entry| {
            let text = entry.is_text();
            let leaves =
                |birth: Birth| birth <= horizon && (!text || moment.lets_text_leave(birth));
            if leaves(entry.birth_max) {
                dropped = dropped.max(entry.birth_max);
                return false;
            }
            entry.operations.retain(|operation| {
                let leaves = leaves(operation.birth);
                if leaves {
                    dropped = dropped.max(operation.birth);
                }
                !leaves
            });
            true
        });
        self.dropped = dropped;
    }

    fn is_over_bound(&self) -> bool {
        let count: usize = self.clients.iter().map(|c| c.operations.len()).sum();
        count > APPLIED_OPERATIONS_MAX || self.size() > APPLIED_SIZE_MAX
    }

    /// An upper bound of the encoded size, in bytes.
    pub fn size(&self) -> usize {
        self.clients.iter().map(client_size).sum()
    }

    /// X6: removes entries that may leave, lowest birth first, until the table is no larger than
    /// `size_max`.
    pub(super) fn shrink_to(&mut self, size_max: usize, moment: &Moment) {
        let stays = |entry: &ClientEntry| {
            let oldest = entry.operations.iter().map(|o| o.birth).min();
            entry.is_text() && oldest.is_some_and(|birth| !moment.lets_text_leave(birth))
        };
        while self.size() > size_max && !self.clients.iter().all(stays) {
            self.drop_oldest(moment, |entry| !stays(entry));
        }
    }

    fn text_size(&self) -> usize {
        let texts = self.clients.iter().filter(|c| c.is_text());
        texts.map(client_size).sum()
    }

    /// Removes the entry with the lowest birth: an operation, or the entry of a client that has no
    /// operations left. Text operations of the last second leave only if the table has nothing
    /// else. In a table of this release that never happens, because they take at most half of it.
    fn drop_oldest(&mut self, moment: &Moment, of: impl Fn(&ClientEntry) -> bool) {
        let clients = self.clients.iter().enumerate();
        let births = clients
            .filter(|(_, entry)| of(entry))
            .map(|(place, entry)| {
                let oldest = entry.operations.iter().map(|o| o.birth).min();
                let stays = |birth| entry.is_text() && !moment.lets_text_leave(birth);
                let birth = oldest.unwrap_or(entry.birth_max);
                (oldest.is_some_and(stays), birth, place)
            });
        let (_, birth, place) = births.min().expect("a table over its bound is not empty");
        self.dropped = self.dropped.max(birth);
        let entry = &mut self.clients[place];
        let before = entry.operations.len();
        entry.operations.retain(|o| o.birth > birth);
        if before == 0 {
            self.clients.remove(place);
        }
    }
}

impl ClientEntry {
    fn is_text(&self) -> bool {
        text_operation::is_text(self.client)
    }
}

/// The outcome as the table keeps it: without an old value that is too long.
fn shortened(outcome: &Outcome) -> Outcome {
    let mut outcome = outcome.clone();
    if let Outcome::Written { old, .. } | Outcome::Conflict { old, .. } = &mut outcome
        && matches!(old, Old::Value(value) if value.len() > OLD_VALUE_KEPT_SIZE_MAX)
    {
        *old = Old::Forgotten;
    }
    outcome
}

/// The outcome as a table without space to grow keeps it.
pub(super) fn without_old(outcome: &Outcome) -> Outcome {
    let mut outcome = outcome.clone();
    if let Outcome::Written { old, .. } | Outcome::Conflict { old, .. } = &mut outcome
        && matches!(old, Old::Value(_))
    {
        *old = Old::Forgotten;
    }
    outcome
}

fn client_size(entry: &ClientEntry) -> usize {
    CLIENT_SIZE + entry.operations.iter().map(operation_size).sum::<usize>()
}

fn operation_size(operation: &AppliedOperation) -> usize {
    let old = match &operation.outcome {
        Outcome::Written { old, .. } | Outcome::Conflict { old, .. } => old,
        _ => return OPERATION_SIZE,
    };
    let kept = if let Old::Value(value) = old {
        value.len()
    } else {
        0
    };
    OPERATION_SIZE + kept
}
