//! The records of this node that a sweep looks at: registers, and keys with an intent (T8, T9).

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::fmt;

use bytes::Bytes;
use wire::OperationId;

use super::Transactions;
use crate::protocol::types::encoded_intent::EncodedIntent;
use crate::protocol::types::limits::{SWEEP_AFTER_MS, SWEEP_LATER_MS};
use crate::protocol::types::message::Now;
use crate::protocol::types::record::{Key, Record, SPACE_TRANSACTION, SPACE_USER};
use crate::protocol::types::transaction::Register;

type ByKey<V> = HashMap<Key, V, foldhash::fast::RandomState>;

/// Most records change again before a sweep looks at them, so they are decoded only there.
#[derive(Default)]
pub(super) struct Tracked {
    /// When a sweep looks at the register.
    registers: ByKey<u64>,
    /// Keys with an intent, and others that a sweep looks at.
    keys: ByKey<TrackedKey>,
    /// By the wait, in milliseconds: what is due, each in order of time. An entry with another time
    /// than above counts no longer.
    queues: BTreeMap<u64, VecDeque<(u64, Key)>>,
    /// The same, at any other times.
    others: BTreeSet<(u64, Key)>,
    /// What was noted since the last heartbeat, in that order: keys with an intent, each once, and
    /// registers with each value. A register that is gone by then is looked at for nothing.
    order: Vec<(Key, Option<Bytes>)>,
}

#[derive(Debug, Default)]
struct TrackedKey {
    /// When a sweep looks at it.
    due_us: Option<u64>,
    /// The last one that it had.
    intent: Option<EncodedIntent>,
    /// Whether it got that since the last heartbeat.
    is_noted: bool,
}

impl fmt::Debug for Tracked {
    /// In order of keys, so that equal states print alike.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tracked")
            .field("registers", &sorted(&self.registers))
            .field("keys", &sorted(&self.keys))
            .field("order", &self.order)
            .finish_non_exhaustive()
    }
}

fn sorted<V>(map: &ByKey<V>) -> BTreeMap<&Key, &V> {
    map.iter().collect()
}

impl Tracked {
    pub(super) fn track(&mut self, key: Key, at_us: u64) {
        match key.space() {
            SPACE_TRANSACTION => _ = self.registers.insert(key.clone(), at_us),
            _ => self.keys.entry(key.clone()).or_default().due_us = Some(at_us),
        }
        self.others.insert((at_us, key));
    }

    /// The next sweep looks at the key, whatever is noted meanwhile.
    pub(super) fn track_at_once(&mut self, key: Key) {
        self.track(key, 0);
    }

    fn note_intent(&mut self, key: &Key, intent: EncodedIntent) {
        let of_key = self.keys.entry(key.clone()).or_default();
        of_key.intent = Some(intent);
        if !std::mem::replace(&mut of_key.is_noted, true) {
            self.order.push((key.clone(), None));
        }
    }

    pub(super) fn pop_due(&mut self, now_us: u64) -> Option<Key> {
        while let Some((at_us, key)) = self.pop_first(now_us) {
            let is_due = match key.space() {
                SPACE_TRANSACTION => self.take_register(&key, at_us),
                _ => self.take_key(&key, at_us),
            };
            if is_due {
                return Some(key);
            }
        }
        None
    }

    fn take_register(&mut self, key: &Key, at_us: u64) -> bool {
        let is_due = self.registers.get(key) == Some(&at_us);
        if is_due {
            self.registers.remove(key);
        }
        is_due
    }

    fn take_key(&mut self, key: &Key, at_us: u64) -> bool {
        let Some(of_key) = self.keys.get_mut(key) else {
            return false;
        };
        let is_due = of_key.due_us.take_if(|due_us| *due_us == at_us).is_some();
        if is_due && of_key.intent.is_none() {
            self.keys.remove(key);
        }
        is_due
    }

    /// An entry that is due; first those of `track_at_once`.
    fn pop_first(&mut self, now_us: u64) -> Option<(u64, Key)> {
        let is_due = |(at_us, _): &&(u64, Key)| *at_us <= now_us;
        if self.others.first().as_ref().is_some_and(is_due) {
            return self.others.pop_first();
        }
        let mut queues = self.queues.values_mut();
        let queue = queues.find(|queue| queue.front().as_ref().is_some_and(is_due));
        queue.and_then(VecDeque::pop_front)
    }

    pub(super) fn owner(&self, key: &Key) -> Option<OperationId> {
        let intent = self.keys.get(key)?.intent.as_ref()?;
        Some(intent.head()?.of.id)
    }

    /// Puts the look at a key off until then; returns whether it did. There may be nothing to look
    /// at any more, and what the next sweep looks at stays (`track_at_once`).
    fn put_off(&mut self, key: &Key, at_us: u64) -> bool {
        if key.space() == SPACE_TRANSACTION {
            self.registers.insert(key.clone(), at_us);
            return true;
        }
        let Some(of_key) = self.keys.get_mut(key) else {
            return false;
        };
        let is_noted = std::mem::take(&mut of_key.is_noted);
        let is_put_off = is_noted && of_key.due_us != Some(0);
        if is_put_off {
            of_key.due_us = Some(at_us);
        }
        is_put_off
    }

    fn is_tracked(&self, key: &Key) -> bool {
        match key.space() {
            SPACE_TRANSACTION => self.registers.contains_key(key),
            _ => self
                .keys
                .get(key)
                .is_some_and(|of_key| of_key.due_us.is_some() || of_key.is_noted),
        }
    }
}

impl Transactions {
    /// The record that this node holds for a key was listed. A bucket with tombstones is listed
    /// every second: that must not put off what is due already.
    pub fn note_listed(&mut self, key: &Key, record: Option<&Record>) {
        if !self.tracked.is_tracked(key) {
            self.note(key, record);
        }
    }

    /// The record that this node holds for a key has changed.
    pub fn note(&mut self, key: &Key, record: Option<&Record>) {
        let intent = record.and_then(|record| record.intent.as_ref());
        match (key.space(), intent) {
            (SPACE_USER, None) => {
                // The usual case: nothing is known of any transaction.
                if !self.tracked.keys.is_empty() {
                    self.tracked.keys.remove(key);
                }
                if self.is_parked(key) {
                    self.poke(key);
                }
            }
            (SPACE_USER, Some(bytes)) => {
                self.tracked.note_intent(key, bytes.clone());
            }
            (SPACE_TRANSACTION, _) => match record.and_then(|record| record.value.clone()) {
                Some(value) => self.tracked.order.push((key.clone(), Some(value))),
                None => _ = self.tracked.registers.remove(key),
            },
            _ => {}
        }
    }

    /// At each heartbeat: what was noted is looked at later, by its preferred coordinator first.
    pub fn track_noted(&mut self, now: Now, horizon_ms: u64, is_preferred: impl Fn(&Key) -> bool) {
        for (key, register) in std::mem::take(&mut self.tracked.order) {
            let is_decided = register
                .as_deref()
                .is_some_and(Register::is_encoded_decision);
            let stays_ms = if is_decided { horizon_ms } else { 0 };
            let later_ms = match is_preferred(&key) {
                true => 0,
                false => SWEEP_LATER_MS,
            };
            let wait_ms = SWEEP_AFTER_MS + stays_ms + later_ms;
            let at_us = now.mono_us + wait_ms * 1_000;
            if self.tracked.put_off(&key, at_us) {
                let queue = self.tracked.queues.entry(wait_ms).or_default();
                queue.push_back((at_us, key));
            }
        }
    }
}
