//! Hints: the keys that each other member has missed, and which of them are being copied to it
//! (C1). This module keeps the hints within bounds; `replica/catchup/handoff.rs` decides which
//! copies are sent.

use std::collections::{BTreeMap, HashMap, VecDeque};

use crate::protocol::types::ballot::Ballot;
use crate::protocol::types::limits::{
    COPIES_SIZE_MAX, COPIES_UNDER_WAY_MAX, HINTS_MAX, HINTS_SIZE_MAX, ROUNDS_LINGERING_MAX,
};
use crate::protocol::types::message::{NodeId, Now, RoundId};
use crate::protocol::types::quorum::NodeSet;
use crate::protocol::types::record::Key;

/// Approximate memory of a hint besides the name of its key.
const HINT_OVERHEAD: usize = 128;

/// A round that was chosen before all members had answered.
#[derive(Debug)]
struct Lingering {
    key: Key,
    ballot: Ballot,
    missing: NodeSet,
    /// When a member that has not answered has missed it, unless its disk is slow.
    due_us: u64,
}

/// Chosen rounds, for as long as the last answers to them may still arrive.
#[derive(Debug, Default)]
pub struct Rounds {
    lingering: HashMap<RoundId, Lingering, foldhash::fast::RandomState>,
    /// In order of time. An entry whose round is gone is ignored.
    due: VecDeque<(u64, RoundId)>,
    /// The same for rounds that only slow disks have not answered, about in order of time.
    deferred: VecDeque<(u64, RoundId)>,
}

/// A write that some members have not answered.
#[derive(Debug, PartialEq, Eq)]
pub struct Missed {
    pub key: Key,
    pub ballot: Ballot,
    pub nodes: NodeSet,
}

impl Rounds {
    /// Records a chosen write; a member that has not answered after `wait_us` has missed it.
    pub fn chosen(&mut self, now: Now, round: RoundId, missed: Missed, wait_us: u64) {
        let Missed { key, ballot, nodes } = missed;
        let lingering = Lingering {
            key,
            ballot,
            missing: nodes,
            due_us: now.mono_us + wait_us,
        };
        self.due.push_back((lingering.due_us, round));
        self.lingering.insert(round, lingering);
    }

    pub fn accepted(&mut self, round: RoundId, from: NodeId) {
        if let Some(lingering) = self.lingering.get_mut(&round) {
            lingering.missing.remove(from);
            if lingering.missing.is_empty() {
                self.lingering.remove(&round);
            }
        }
    }

    /// That node is no longer a member, or is in another incarnation: nothing waits for its answers
    /// any more.
    pub fn forget(&mut self, node: NodeId) {
        self.lingering.retain(|_, lingering| {
            lingering.missing.remove(node);
            !lingering.missing.is_empty()
        });
    }

    /// The next write that members have missed: its round has waited long enough, or there is no
    /// space for it. `slow_disks`: the members whose answers wait for slow disks, and how much
    /// longer these may take.
    pub fn pop_due(&mut self, now: Now, slow_disks: &[(NodeId, u64)]) -> Option<Missed> {
        loop {
            let has_space = self.due.len() + self.deferred.len() <= ROUNDS_LINGERING_MAX;
            let round = self.pop_round(now, has_space)?;
            let Some(Lingering {
                key,
                ballot,
                mut missing,
                due_us,
            }) = self.lingering.remove(&round)
            else {
                continue;
            };
            let mut waits = NodeSet::default();
            let mut until_us = 0;
            for (node, wait_us) in slow_disks {
                if has_space && missing.contains(*node) && now.mono_us < due_us + wait_us {
                    missing.remove(*node);
                    waits.insert(*node);
                    until_us = until_us.max(due_us + wait_us);
                }
            }
            let missed = (!missing.is_empty()).then(|| Missed {
                key: key.clone(),
                ballot,
                nodes: missing,
            });
            if !waits.is_empty() {
                self.deferred.push_back((until_us, round));
                let lingering = Lingering {
                    key,
                    ballot,
                    missing: waits,
                    due_us,
                };
                self.lingering.insert(round, lingering);
            }
            if missed.is_some() {
                return missed;
            }
        }
    }

    /// The next round that is to be looked at. Without space for all, it is the oldest one.
    fn pop_round(&mut self, now: Now, has_space: bool) -> Option<RoundId> {
        let is_due = |queue: &VecDeque<(u64, RoundId)>| {
            let first = queue.front();
            first.is_some_and(|(due_us, _)| *due_us <= now.mono_us || !has_space)
        };
        let queue = match is_due(&self.deferred) {
            true => &mut self.deferred,
            false => &mut self.due,
        };
        if !is_due(queue) {
            return None;
        }
        queue.pop_front().map(|(_, round)| round)
    }
}

#[derive(Debug)]
struct Copying {
    missed: Ballot,
    /// Zero until a copy was sent.
    sent: Ballot,
    size: usize,
    looked_at_us: u64,
    /// The ballot that blocked the copy at the last check.
    doubt: Option<Ballot>,
}

/// What one member has missed.
#[derive(Debug, Default)]
pub struct Hints {
    /// The ballot that was missed, by key.
    waiting: BTreeMap<Key, Ballot>,
    copying: BTreeMap<Key, Copying>,
    /// The names of the keys, and the overhead of each hint.
    size: usize,
    /// The copies in flight.
    copying_size: usize,
    /// Hint overflow: the hints for which there was no space.
    overflowed: u64,
}

fn hint_size(key: &Key) -> usize {
    key.as_bytes().len() + HINT_OVERHEAD
}

impl Hints {
    /// The number of keys that are pending copy or being copied.
    pub fn len(&self) -> usize {
        self.waiting.len() + self.copying.len()
    }

    pub fn overflowed(&self) -> u64 {
        self.overflowed
    }

    /// The member was found to hold the same records, so it has the writes that exceeded the hint
    /// limit.
    pub fn forget_overflowed(&mut self) {
        self.overflowed = 0;
    }

    /// The member was found to hold the same records, so it has the hinted writes, except for the
    /// keys that are to be kept.
    pub fn forget_noted(&mut self, is_kept: impl Fn(&Key) -> bool) {
        self.pause();
        let mut size = 0;
        self.waiting.retain(|key, _| {
            let kept = is_kept(key);
            size += if kept { 0 } else { hint_size(key) };
            kept
        });
        self.size -= size;
    }

    pub fn has(&self, key: &Key) -> bool {
        self.waiting.contains_key(key) || self.copying.contains_key(key)
    }

    /// About the memory that these hints take.
    pub fn size(&self) -> usize {
        self.size
    }

    /// `others`: the memory that the hints for the other members take.
    pub fn note(&mut self, key: Key, ballot: Ballot, others: usize) {
        // A copy in flight keeps its place in the window, so that the window limits what a member
        // is sent however often it misses the key. Once that copy is answered, another one follows.
        if let Some(copying) = self.copying.get_mut(&key) {
            copying.missed = copying.missed.max(ballot);
            return;
        }
        if let Some(known) = self.waiting.get_mut(&key) {
            *known = ballot.max(*known);
            return;
        }
        let size = hint_size(&key);
        if self.len() >= HINTS_MAX || others + self.size + size > HINTS_SIZE_MAX {
            self.overflowed += 1;
            return;
        }
        self.size += size;
        self.waiting.insert(key, ballot);
    }

    /// The next key to copy, if the window has space; it counts as being copied from now on.
    pub fn start_copy(&mut self, now: Now) -> Option<Key> {
        let full = self.copying.len() >= COPIES_UNDER_WAY_MAX;
        if full || self.copying_size >= COPIES_SIZE_MAX {
            return None;
        }
        let (key, missed) = self.waiting.pop_first()?;
        let copying = Copying {
            missed,
            sent: Ballot::ZERO,
            size: 0,
            looked_at_us: now.mono_us,
            doubt: None,
        };
        self.copying.insert(key.clone(), copying);
        Some(key)
    }

    /// Keys being copied that have not been answered for `wait_us`.
    pub fn overdue(&mut self, now: Now, wait_us: u64) -> Vec<Key> {
        let mut overdue = Vec::new();
        for (key, copying) in &mut self.copying {
            if now.mono_us >= copying.looked_at_us + wait_us {
                copying.looked_at_us = now.mono_us;
                overdue.push(key.clone());
            }
        }
        overdue
    }

    /// The missed ballot of a key that is being copied.
    pub fn missed(&self, key: &Key) -> Option<Ballot> {
        self.copying.get(key).map(|copying| copying.missed)
    }

    /// Whether a copy of this size may be sent now. Without space the key is pending again; a
    /// single copy may always be sent.
    pub fn may_send(&mut self, key: &Key, size: usize) -> bool {
        let others = match self.copying.get(key) {
            Some(copying) => self.copying_size - copying.size,
            None => return false,
        };
        if others > 0 && others + size > COPIES_SIZE_MAX {
            self.wait_again(key);
            return false;
        }
        true
    }

    pub fn sent(&mut self, key: &Key, ballot: Ballot, size: usize) {
        if let Some(copying) = self.copying.get_mut(key) {
            self.copying_size = self.copying_size - copying.size + size;
            copying.sent = ballot;
            copying.size = size;
        }
    }

    /// `ballot` blocks a copy; returns whether it already did at the last check.
    pub fn doubt(&mut self, key: &Key, ballot: Ballot) -> bool {
        let Some(copying) = self.copying.get_mut(key) else {
            return false;
        };
        copying.doubt.replace(ballot) == Some(ballot)
    }

    /// The member holds what was sent at this ballot, or a later record. If it has missed another
    /// write meanwhile, the key is pending again.
    pub fn copied(&mut self, key: &Key, ballot: Ballot) {
        let copying = self.copying.get(key);
        let Some(copying) = copying.filter(|copying| copying.sent == ballot) else {
            return;
        };
        if ballot < copying.missed {
            self.wait_again(key);
        } else {
            self.end_copy(key);
            self.size -= hint_size(key);
        }
    }

    /// Makes the keys that are being copied pending again.
    pub fn pause(&mut self) {
        while let Some((key, copying)) = self.copying.pop_first() {
            self.waiting.insert(key, copying.missed);
        }
        self.copying_size = 0;
    }

    fn wait_again(&mut self, key: &Key) {
        if let Some(copying) = self.end_copy(key) {
            self.waiting.insert(key.clone(), copying.missed);
        }
    }

    fn end_copy(&mut self, key: &Key) -> Option<Copying> {
        let copying = self.copying.remove(key)?;
        self.copying_size -= copying.size;
        Some(copying)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAIT_MS: u64 = 200;
    const WAIT_US: u64 = WAIT_MS * 1_000;

    fn at(mono_ms: u64) -> Now {
        Now {
            mono_us: mono_ms * 1_000,
            wall_ms: 0,
        }
    }

    fn key(number: usize) -> Key {
        Key::user(format!("key-{number:06}").as_bytes())
    }

    fn b(reading: u64) -> Ballot {
        Ballot::new(reading, 1)
    }

    fn missed(number: usize, nodes: &[NodeId]) -> Missed {
        Missed {
            key: key(number),
            ballot: b(number as u64),
            nodes: nodes.iter().copied().collect(),
        }
    }

    #[test]
    fn a_late_answer_leaves_no_hint() {
        let mut rounds = Rounds::default();
        rounds.chosen(at(0), 7, missed(1, &[2, 3]), WAIT_US);
        rounds.chosen(at(0), 8, missed(2, &[2]), WAIT_US);
        rounds.accepted(7, 3);
        rounds.accepted(8, 2);
        rounds.accepted(9, 2);
        assert_eq!(rounds.pop_due(at(WAIT_MS - 1), &[]), None);
        let left = rounds.pop_due(at(WAIT_MS), &[]);
        assert_eq!(left, Some(missed(1, &[2])));
        assert_eq!(rounds.pop_due(at(WAIT_MS), &[]), None);
    }

    #[test]
    fn a_member_with_a_slow_disk_has_longer_to_answer() {
        let mut rounds = Rounds::default();
        let slow = |ms: u64| [(2, ms * 1_000)];
        rounds.chosen(at(0), 7, missed(1, &[2, 3]), WAIT_US);
        rounds.chosen(at(0), 8, missed(2, &[2]), WAIT_US);
        rounds.chosen(at(0), 9, missed(3, &[2]), WAIT_US);
        let left = rounds.pop_due(at(WAIT_MS), &slow(500));
        assert_eq!(left, Some(missed(1, &[3])), "that disk is not slow");
        assert_eq!(rounds.pop_due(at(WAIT_MS + 499), &slow(500)), None);
        rounds.accepted(8, 2);
        assert_eq!(rounds.pop_due(at(WAIT_MS + 500), &slow(600)), None);
        let left = rounds.pop_due(at(WAIT_MS + 600), &slow(600));
        assert_eq!(left, Some(missed(1, &[2])));
        let left = rounds.pop_due(at(WAIT_MS + 600), &slow(600));
        assert_eq!(left, Some(missed(3, &[2])));
        assert_eq!(rounds.pop_due(at(u64::MAX / 1_000), &[]), None);
    }

    #[test]
    fn rounds_beyond_the_bound_are_not_waited_for() {
        let mut rounds = Rounds::default();
        for number in 0..=ROUNDS_LINGERING_MAX {
            rounds.chosen(at(0), number as u64, missed(number, &[2]), WAIT_US);
        }
        let slow = [(2, u64::MAX / 2)];
        assert_eq!(rounds.pop_due(at(1), &slow), Some(missed(0, &[2])));
        assert_eq!(rounds.pop_due(at(1), &slow), None);
        assert_eq!(rounds.pop_due(at(WAIT_MS), &slow), None);
        let more = ROUNDS_LINGERING_MAX as u64 + 1;
        rounds.chosen(at(WAIT_MS), more, missed(0, &[2]), WAIT_US);
        let oldest = rounds.pop_due(at(WAIT_MS), &slow);
        assert_eq!(oldest, Some(missed(1, &[2])));
        assert_eq!(rounds.pop_due(at(WAIT_MS), &slow), None);
    }

    #[test]
    fn hints_are_bounded_and_what_is_left_out_is_counted() {
        let mut hints = Hints::default();
        for number in 0..HINTS_MAX + 3 {
            hints.note(key(number), b(1), 0);
        }
        assert_eq!((hints.len(), hints.overflowed()), (HINTS_MAX, 3));
        // A hint for a key that already has one takes no space.
        hints.note(key(5), b(2), 0);
        assert_eq!((hints.len(), hints.overflowed()), (HINTS_MAX, 3));
        hints.forget_overflowed();
        assert_eq!((hints.len(), hints.overflowed()), (HINTS_MAX, 0));
        let mut hints = Hints::default();
        let long = |number: usize| Key::user(format!("{number:01000}").as_bytes());
        for number in 0..HINTS_MAX {
            hints.note(long(number), b(1), 0);
        }
        assert!(hints.len() < HINTS_MAX && hints.size <= HINTS_SIZE_MAX);
        assert_eq!(hints.len() as u64 + hints.overflowed(), HINTS_MAX as u64);
        // Those for all members share the memory.
        let mut of_another = Hints::default();
        of_another.note(long(0), b(1), hints.size());
        assert_eq!((of_another.len(), of_another.overflowed()), (0, 1));
        of_another.note(long(0), b(1), hints.size() / 2);
        assert_eq!((of_another.len(), of_another.overflowed()), (1, 1));
    }

    #[test]
    fn what_the_member_holds_already_is_forgotten() {
        let mut hints = Hints::default();
        (0..5).for_each(|number| hints.note(key(number), b(1), 0));
        hints.start_copy(at(0));
        hints.forget_noted(|kept| *kept == key(3));
        let has: Vec<bool> = (0..5).map(|number| hints.has(&key(number))).collect();
        assert_eq!(has, [false, false, false, true, false]);
        assert_eq!((hints.size, hints.copying_size), (hint_size(&key(3)), 0));
    }

    #[test]
    fn a_hint_goes_when_what_was_sent_is_answered() {
        let mut hints = Hints::default();
        hints.note(key(1), b(5), 0);
        assert_eq!(hints.start_copy(at(0)), Some(key(1)));
        assert_eq!(hints.missed(&key(1)), Some(b(5)));
        assert!(hints.may_send(&key(1), 100));
        hints.sent(&key(1), b(6), 100);
        hints.copied(&key(1), b(5));
        assert_eq!(hints.len(), 1, "an answer to something else");
        hints.copied(&key(1), b(6));
        assert_eq!((hints.len(), hints.size, hints.copying_size), (0, 0, 0));
    }

    #[test]
    fn a_write_missed_during_a_copy_is_copied_too() {
        let mut hints = Hints::default();
        hints.note(key(1), b(5), 0);
        hints.start_copy(at(0));
        hints.sent(&key(1), b(5), 100);
        hints.note(key(1), b(7), 0);
        assert_eq!(hints.start_copy(at(0)), None, "one copy of a key at a time");
        hints.copied(&key(1), b(5));
        assert_eq!((hints.len(), hints.copying_size), (1, 0));
        hints.start_copy(at(1));
        assert_eq!(hints.missed(&key(1)), Some(b(7)));
    }

    #[test]
    fn the_window_bounds_what_is_under_way() {
        let mut hints = Hints::default();
        (0..2 * COPIES_UNDER_WAY_MAX).for_each(|number| hints.note(key(number), b(1), 0));
        let started = std::iter::from_fn(|| hints.start_copy(at(0))).count();
        assert_eq!(started, COPIES_UNDER_WAY_MAX);
        assert!(hints.may_send(&key(0), 2 * COPIES_SIZE_MAX), "one may go");
        hints.sent(&key(0), b(1), COPIES_SIZE_MAX);
        assert!(!hints.may_send(&key(1), 1));
        assert_eq!(hints.missed(&key(1)), None, "it waits again");
        assert_eq!(hints.len(), 2 * COPIES_UNDER_WAY_MAX);
        hints.pause();
        assert_eq!((hints.copying.len(), hints.copying_size), (0, 0));
        assert_eq!(hints.len(), 2 * COPIES_UNDER_WAY_MAX);
    }

    #[test]
    fn what_is_not_answered_is_looked_at_again() {
        let mut hints = Hints::default();
        hints.note(key(1), b(1), 0);
        hints.start_copy(at(0));
        assert!(hints.overdue(at(WAIT_MS - 1), WAIT_US).is_empty());
        assert_eq!(hints.overdue(at(WAIT_MS), WAIT_US), [key(1)]);
        assert!(hints.overdue(at(WAIT_MS), WAIT_US).is_empty());
        assert!(!hints.doubt(&key(1), b(3)));
        assert!(hints.doubt(&key(1), b(3)), "it stands in the way for long");
    }
}
