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
    registers: ByKey<TrackedKey>,
    /// Keys with an intent.
    keys: ByKey<TrackedKey>,
    /// By the wait, in milliseconds: what is due, each in order of time. An entry with another time
    /// than above counts no longer.
    queues: BTreeMap<u64, VecDeque<(u64, Key)>>,
    /// The same, at any other times.
    others: BTreeSet<(u64, Key)>,
    /// The keys that were noted since the last heartbeat, in that order.
    order: Vec<Key>,
}

/// What is known of one key. It has at least one of these.
#[derive(Debug, Default)]
struct TrackedKey {
    /// When a sweep looks at it.
    due_us: Option<u64>,
    /// The intent that it had at the last heartbeat.
    intent: Option<EncodedIntent>,
    /// What it had later.
    noted: Option<Noted>,
}

#[derive(Debug)]
enum Noted {
    Intent(EncodedIntent),
    /// The record's value.
    Register(Bytes),
}

impl fmt::Debug for Tracked {
    /// In order of keys, so that equal states print alike.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tracked")
            .field("registers", &sorted(&self.registers))
            .field("keys", &sorted(&self.keys))
            .finish_non_exhaustive()
    }
}

fn sorted<V>(map: &ByKey<V>) -> BTreeMap<&Key, &V> {
    map.iter().collect()
}

impl TrackedKey {
    fn is_empty(&self) -> bool {
        self.due_us.is_none() && self.intent.is_none() && self.noted.is_none()
    }
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
    fn of_space(&self, key: &Key) -> &ByKey<TrackedKey> {
        match key.space() {
            SPACE_TRANSACTION => &self.registers,
            _ => &self.keys,
        }
    }

    fn of_space_mut(&mut self, key: &Key) -> &mut ByKey<TrackedKey> {
        match key.space() {
            SPACE_TRANSACTION => &mut self.registers,
            _ => &mut self.keys,
        }
    }

    fn entry(&mut self, key: &Key) -> &mut TrackedKey {
        self.of_space_mut(key).entry(key.clone()).or_default()
    }

    pub(super) fn track(&mut self, key: Key, at_us: u64) {
        self.entry(&key).due_us = Some(at_us);
        self.others.insert((at_us, key));
    }

    /// The next sweep looks at it, whatever is noted meanwhile.
    pub(super) fn track_at_once(&mut self, key: Key) {
        self.track(key, 0);
    }

    fn note(&mut self, key: &Key, noted: Noted) {
        if self.entry(key).noted.replace(noted).is_none() {
            self.order.push(key.clone());
        }
    }

    fn forget(&mut self, key: &Key) {
        self.of_space_mut(key).remove(key);
    }

    pub(super) fn pop_due(&mut self, now_us: u64) -> Option<Key> {
        while let Some((at_us, key)) = self.pop_first(now_us) {
            let tracked = self.of_space_mut(&key);
            let Some(of_key) = tracked.get_mut(&key) else {
                continue;
            };
            if of_key.due_us.take_if(|due_us| *due_us == at_us).is_some() {
                if of_key.is_empty() {
                    tracked.remove(&key);
                }
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
        let of_key = self.of_space(key).get(key)?;
        let intent = match &of_key.noted {
            Some(Noted::Intent(intent)) => intent,
            _ => of_key.intent.as_ref()?,
        };
        Some(intent.head()?.of.id)
    }

    fn is_tracked(&self, key: &Key) -> bool {
        let of_key = self.of_space(key).get(key);
        of_key.is_some_and(|of_key| of_key.due_us.is_some() || of_key.noted.is_some())
    }

    /// Whether nothing is known of any key with an intent.
    fn knows_no_intents(&self) -> bool {
        self.keys.is_empty()
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
            let Some(of_key) = self.tracked.of_space_mut(&key).get_mut(&key) else {
                continue;
            };
            let Some(noted) = of_key.noted.take() else {
                continue;
            };
            let stays_ms = if noted.is_decided() { horizon_ms } else { 0 };
            let later_ms = match is_preferred(&key) {
                true => 0,
                false => SWEEP_LATER_MS,
            };
            let wait_ms = SWEEP_AFTER_MS + stays_ms + later_ms;
            if let Noted::Intent(intent) = noted {
                of_key.intent = Some(intent);
            }
            // What the next sweep looks at stays (`track_at_once`).
            if of_key.due_us != Some(0) {
                let at_us = now.mono_us + wait_ms * 1_000;
                of_key.due_us = Some(at_us);
                let queue = self.tracked.queues.entry(wait_ms).or_default();
                queue.push_back((at_us, key));
            }
        }
    }
}
