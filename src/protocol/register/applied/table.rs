//! X1: the applied table: how an operation is looked up, how it enters, and which entries leave.

use wire::{Birth, OLD_VALUE_KEPT_SIZE_MAX, Old, Operation, Outcome, clock};

use crate::protocol::clients::low_marks::LowMarks;
use crate::protocol::clients::text_operation;
use crate::protocol::types::ballot::Moment;
use crate::protocol::types::limits::{
    APPLIED_OPERATIONS_MAX, APPLIED_SIZE_MAX, APPLIED_TEXT_SIZE_MAX, TEXT_SLICE_HASHES_MAX,
    TEXT_SLICE_MS, TEXT_SLICE_OVERHEAD_SIZE, TEXT_SLICES_SIZE_MAX,
};
use crate::protocol::types::record::{Applied, AppliedOperation, ClientEntry, TextSlice};
use crate::protocol::types::rules::rule;

/// Upper bounds of an entry's encoded size, without its byte strings.
pub(in crate::protocol) const CLIENT_SIZE: usize = 48;
pub(super) const OPERATION_SIZE: usize = 52;
/// What a text operation takes at most once its outcome has left.
const HASHED_SIZE: usize = TEXT_SLICE_OVERHEAD_SIZE + size_of::<u64>();

pub(super) enum LookUp {
    BelowMark,
    Found(Outcome),
    /// The same text operation was recently applied for another source, so it may be a retry or
    /// another client's; or it was applied, and its outcome is no longer known. It is neither
    /// applied nor answered with an outcome.
    Unanswerable,
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
            return LookUp::Unanswerable;
        }
        if self.has_hash_of(operation) && rule!(X1_hash) {
            return LookUp::Unanswerable;
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

    fn has_hash_of(&self, operation: &Operation) -> bool {
        if self.slices.is_empty() || !text_operation::is_text(operation.id.client) {
            return false;
        }
        let hash = text_operation::hash_of(operation.id.client, operation.id.sequence);
        self.slices.iter().any(|slice| slice.hashes.contains(&hash))
    }

    /// The highest birth of a text operation; 0 if there is none.
    pub fn newest_text(&self) -> Birth {
        let texts = self.clients.iter().filter(|c| c.is_text());
        let births = texts.map(|entry| entry.birth_max);
        let slices = self.slices.iter().map(|slice| slice.last);
        births.chain(slices).max().unwrap_or(0)
    }

    /// X1: whether there is space for one more text operation beside those that may not leave yet:
    /// each of these could leave its hash.
    pub(super) fn has_room_for_text(&self, moment: &Moment) -> bool {
        let texts = self.clients.iter().filter(|c| c.is_text());
        let operations = texts.flat_map(|entry| &entry.operations);
        let stay = operations.filter(|o| !moment.lets_text_leave(o.birth));
        let hashed = (stay.count() + 1) * HASHED_SIZE;
        self.slices_size() + hashed <= TEXT_SLICES_SIZE_MAX
    }

    /// X6: the same where the table has no space to grow beyond `max`, for an operation of this
    /// size. All others keep what they take.
    pub(super) fn has_kept_room_for_text(&self, size: usize, max: usize, moment: &Moment) -> bool {
        let stays = |o: &&AppliedOperation| !moment.lets_text_leave(o.birth);
        let texts = self.clients.iter().filter(|c| c.is_text());
        let sizes = texts.map(|entry| {
            let kept = entry.operations.iter().filter(stays);
            let kept: usize = kept.map(operation_size).sum();
            kept + if kept > 0 { CLIENT_SIZE } else { 0 }
        });
        self.slices_size() + sizes.sum::<usize>() + size <= max.min(APPLIED_TEXT_SIZE_MAX)
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
        // T3: a later attempt of a transaction takes the place of an earlier one.
        let sequence = operation.id.sequence;
        entry
            .operations
            .retain(|o| o.sequence >= mark && o.sequence != sequence);
        entry.birth_max = entry.birth_max.max(birth);
        entry.operations.push(AppliedOperation {
            sequence: operation.id.sequence,
            birth,
            outcome: shortened(outcome),
        });
        while text && self.text_size() > APPLIED_TEXT_SIZE_MAX {
            self.shorten_oldest_text(moment);
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
        // Those that leave a slice behind are many, so it leaves as soon as it may.
        self.slices.retain(|slice| {
            let leaves = moment.lets_text_leave(slice.last);
            if leaves {
                dropped = dropped.max(slice.last);
            }
            !leaves
        });
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

    /// Outcomes that their clients do not wait for any more leave. What remains of a client is its
    /// mark, which still refuses its stragglers.
    pub(super) fn raise_marks(&mut self, marks: &LowMarks) {
        for entry in &mut self.clients {
            if entry.operations.is_empty() || entry.is_text() {
                continue;
            }
            let mark = marks.of(entry.client);
            if mark > entry.mark {
                entry.mark = mark;
                entry.operations.retain(|o| o.sequence >= mark);
            }
        }
    }

    fn is_over_bound(&self) -> bool {
        let count: usize = self.clients.iter().map(|c| c.operations.len()).sum();
        count > APPLIED_OPERATIONS_MAX || self.clients_size() > APPLIED_SIZE_MAX
    }

    /// An upper bound of the encoded size, in bytes.
    pub fn size(&self) -> usize {
        self.clients_size() + self.slices_size()
    }

    fn clients_size(&self) -> usize {
        self.clients.iter().map(client_size).sum()
    }

    fn slices_size(&self) -> usize {
        self.slices.iter().map(TextSlice::size).sum()
    }

    /// The oldest text operation leaves `clients`. If it may not leave the table yet, its hash
    /// stays.
    fn shorten_oldest_text(&mut self, moment: &Moment) {
        let mut oldest: Option<(Birth, usize, usize)> = None;
        for (place, entry) in self.clients.iter().enumerate() {
            for (at, operation) in entry.operations.iter().enumerate() {
                let found = (operation.birth, place, at);
                if entry.is_text() && oldest.is_none_or(|oldest| found < oldest) {
                    oldest = Some(found);
                }
            }
        }
        let is_empty = |entry: &ClientEntry| entry.is_text() && entry.operations.is_empty();
        let stays = oldest.filter(|(birth, _, _)| !moment.lets_text_leave(*birth));
        let stays = stays.filter(|_| !self.clients.iter().any(is_empty));
        let Some((birth, place, at)) = stays else {
            self.drop_oldest(moment, ClientEntry::is_text);
            return;
        };
        let entry = &mut self.clients[place];
        let operation = entry.operations.remove(at);
        let hash = text_operation::hash_of(entry.client, operation.sequence);
        if entry.operations.is_empty() {
            self.clients.remove(place);
        }
        self.add_hash(hash, birth);
    }

    /// A slice leaves by its highest birth, so whoever adds to it also makes it stay longer.
    fn add_hash(&mut self, hash: u64, birth: Birth) {
        let takes = |slice: &&mut TextSlice| {
            let age = birth.saturating_sub(slice.first);
            slice.hashes.len() < TEXT_SLICE_HASHES_MAX && age < clock::from_ms(TEXT_SLICE_MS)
        };
        if let Some(slice) = self.slices.last_mut().filter(takes) {
            slice.last = slice.last.max(birth);
            slice.hashes.push(hash);
            return;
        }
        self.slices.push(TextSlice {
            first: birth,
            last: birth,
            hashes: vec![hash],
        });
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
