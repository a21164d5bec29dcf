//! The records of this node that a sweep looks at: registers, and keys with an intent (T8, T9).

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::fmt;

use bytes::Bytes;
use wire::OperationId;

use super::Transactions;
use crate::protocol::types::limits::{SWEEP_AFTER_MS, SWEEP_LATER_MS};
use crate::protocol::types::message::Now;
use crate::protocol::types::record::{Key, Record, SPACE_TRANSACTION, SPACE_USER};
use crate::protocol::types::transaction::{IntentHead, Register};

type ByKey<V> = HashMap<Key, V, foldhash::fast::RandomState>;

/// Most records change again before a sweep looks at them, so they are decoded only there.
#[derive(Default)]
pub(super) struct Tracked {
    /// When a sweep looks at which register, and at which key with an intent.
    registers_due_us: ByKey<u64>,
    keys_due_us: ByKey<u64>,
    /// By the wait, in milliseconds: what is due, each in order of time. An entry with another time
    /// than above counts no longer.
    queues: BTreeMap<u64, VecDeque<(u64, Key)>>,
    /// The same, at any other times.
    others: BTreeSet<(u64, Key)>,
    /// The intents that keys had at the last heartbeat.
    intents: ByKey<Bytes>,
    /// Noted since then, and in which order.
    noted: ByKey<Noted>,
    order: Vec<Key>,
}

#[derive(Debug)]
enum Noted {
    Intent(Bytes),
    /// The record's value.
    Register(Bytes),
}

impl fmt::Debug for Tracked {
    /// In order of keys, so that equal states print alike.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tracked")
            .field("registers_due_us", &sorted(&self.registers_due_us))
            .field("keys_due_us", &sorted(&self.keys_due_us))
            .field("intents", &sorted(&self.intents))
            .field("noted", &sorted(&self.noted))
            .finish_non_exhaustive()
    }
}

fn sorted<V>(map: &ByKey<V>) -> BTreeMap<&Key, &V> {
    map.iter().collect()
}

impl Noted {
    fn is_decided(&self) -> bool {
        match self {
            Noted::Register(value) => Register::is_encoded_decision(value),
            Noted::Intent(_) => false,
        }
    }
}

impl Tracked {
    fn due_us(&mut self, key: &Key) -> &mut ByKey<u64> {
        match key.space() {
            SPACE_TRANSACTION => &mut self.registers_due_us,
            _ => &mut self.keys_due_us,
        }
    }

    pub(super) fn track(&mut self, key: Key, at_us: u64) {
        self.due_us(&key).insert(key.clone(), at_us);
        self.others.insert((at_us, key));
    }

    /// The next sweep looks at it, whatever is noted meanwhile.
    pub(super) fn track_at_once(&mut self, key: Key) {
        self.track(key, 0);
    }

    fn track_after(&mut self, key: Key, now_us: u64, wait_ms: u64) {
        let at_us = now_us + wait_ms * 1_000;
        let due_us = self.due_us(&key);
        if due_us.get(&key) == Some(&0) {
            return;
        }
        due_us.insert(key.clone(), at_us);
        let queue = self.queues.entry(wait_ms).or_default();
        queue.push_back((at_us, key));
    }

    fn note(&mut self, key: &Key, noted: Noted) {
        if self.noted.insert(key.clone(), noted).is_none() {
            self.order.push(key.clone());
        }
    }

    fn forget(&mut self, key: &Key) {
        self.noted.remove(key);
        self.intents.remove(key);
        self.due_us(key).remove(key);
    }

    pub(super) fn pop_due(&mut self, now_us: u64) -> Option<Key> {
        while let Some((at_us, key)) = self.pop_first(now_us) {
            let due_us = self.due_us(&key);
            if due_us.get(&key) == Some(&at_us) {
                due_us.remove(&key);
                return Some(key);
            }
        }
        None
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
        let noted = match self.noted.get(key) {
            Some(Noted::Intent(bytes)) => Some(bytes),
            _ => None,
        };
        let bytes = noted.or_else(|| self.intents.get(key))?;
        Some(IntentHead::decode(bytes).ok()?.of.id)
    }

    fn is_tracked(&self, key: &Key) -> bool {
        let is_due = self.keys_due_us.contains_key(key) || self.registers_due_us.contains_key(key);
        is_due || self.noted.contains_key(key)
    }

    /// Whether nothing is known of any key with an intent.
    fn knows_no_intents(&self) -> bool {
        self.keys_due_us.is_empty() && self.noted.is_empty() && self.intents.is_empty()
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
                if !self.tracked.knows_no_intents() {
                    self.tracked.forget(key);
                }
                if self.is_parked(key) {
                    self.poke(key);
                }
            }
            (SPACE_USER, Some(bytes)) => {
                self.tracked.note(key, Noted::Intent(bytes.clone()));
            }
            (SPACE_TRANSACTION, _) => match record.and_then(|record| record.value.clone()) {
                Some(value) => self.tracked.note(key, Noted::Register(value)),
                None => self.tracked.forget(key),
            },
            _ => {}
        }
    }

    /// At each heartbeat: what was noted is looked at later, by its preferred coordinator first.
    pub fn track_noted(&mut self, now: Now, horizon_ms: u64, is_preferred: impl Fn(&Key) -> bool) {
        for key in std::mem::take(&mut self.tracked.order) {
            let Some(noted) = self.tracked.noted.remove(&key) else {
                continue;
            };
            let stays_ms = if noted.is_decided() { horizon_ms } else { 0 };
            let later_ms = match is_preferred(&key) {
                true => 0,
                false => SWEEP_LATER_MS,
            };
            let wait_ms = SWEEP_AFTER_MS + stays_ms + later_ms;
            if let Noted::Intent(bytes) = noted {
                self.tracked.intents.insert(key.clone(), bytes);
            }
            self.tracked.track_after(key, now.mono_us, wait_ms);
        }
    }
}
