//! The records of this node that a sweep looks at: registers, and keys with an intent (T8, T9).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use bytes::Bytes;
use wire::OperationId;

use super::Transactions;
use crate::protocol::types::limits::{SWEEP_AFTER_MS, SWEEP_LATER_MS};
use crate::protocol::types::message::Now;
use crate::protocol::types::record::{Key, Record, SPACE_TRANSACTION, SPACE_USER};
use crate::protocol::types::transaction::{AttemptState, Intent, Register};

type ByKey<V> = HashMap<Key, V, foldhash::fast::RandomState>;

/// Most records change again before a sweep looks at them, so they are decoded only there.
#[derive(Default)]
pub(super) struct Tracked {
    due_us: ByKey<u64>,
    order: BTreeSet<(u64, Key)>,
    /// The intents that the keys have.
    intents: ByKey<Bytes>,
    /// Noted since the last heartbeat.
    noted: BTreeMap<Key, Noted>,
}

#[derive(Debug)]
enum Noted {
    Intent,
    /// The record's value.
    Register(Bytes),
}

impl fmt::Debug for Tracked {
    /// In order of keys, so that equal states print alike.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tracked")
            .field("order", &self.order)
            .field("intents", &self.intents.iter().collect::<BTreeMap<_, _>>())
            .field("noted", &self.noted)
            .finish_non_exhaustive()
    }
}

impl Noted {
    fn is_decided(&self) -> bool {
        let Noted::Register(value) = self else {
            return false;
        };
        let register = Register::decode(value);
        register.is_ok_and(|register| register.decision != AttemptState::Pending)
    }
}

impl Tracked {
    pub(super) fn track(&mut self, key: Key, at_us: u64) {
        if let Some(before_us) = self.due_us.insert(key.clone(), at_us) {
            self.order.remove(&(before_us, key.clone()));
        }
        self.order.insert((at_us, key));
    }

    fn forget(&mut self, key: &Key) {
        self.noted.remove(key);
        self.intents.remove(key);
        if let Some(at_us) = self.due_us.remove(key) {
            self.order.remove(&(at_us, key.clone()));
        }
    }

    pub(super) fn pop_due(&mut self, now_us: u64) -> Option<Key> {
        let (at_us, key) = self.order.first()?.clone();
        if at_us > now_us {
            return None;
        }
        self.order.pop_first();
        self.due_us.remove(&key);
        Some(key)
    }

    pub(super) fn owner(&self, key: &Key) -> Option<OperationId> {
        let intent = Intent::decode(self.intents.get(key)?).ok()?;
        Some(intent.of.id)
    }

    fn is_tracked(&self, key: &Key) -> bool {
        self.due_us.contains_key(key) || self.noted.contains_key(key)
    }

    fn is_empty(&self) -> bool {
        self.due_us.is_empty() && self.noted.is_empty() && self.intents.is_empty()
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
                if !self.tracked.is_empty() {
                    self.tracked.forget(key);
                }
                if self.is_parked(key) {
                    self.poke(key);
                }
            }
            (SPACE_USER, Some(bytes)) => {
                self.tracked.intents.insert(key.clone(), bytes.clone());
                self.tracked.noted.insert(key.clone(), Noted::Intent);
            }
            (SPACE_TRANSACTION, _) => match record.and_then(|record| record.value.clone()) {
                Some(value) => {
                    let noted = Noted::Register(value);
                    self.tracked.noted.insert(key.clone(), noted);
                }
                None => self.tracked.forget(key),
            },
            _ => {}
        }
    }

    /// At each heartbeat: what was noted is looked at later, by its preferred coordinator first.
    pub fn track_noted(&mut self, now: Now, horizon_ms: u64, is_preferred: impl Fn(&Key) -> bool) {
        for (key, noted) in std::mem::take(&mut self.tracked.noted) {
            let stays_ms = if noted.is_decided() { horizon_ms } else { 0 };
            let later_ms = match is_preferred(&key) {
                true => 0,
                false => SWEEP_LATER_MS,
            };
            let after_ms = SWEEP_AFTER_MS + stays_ms + later_ms;
            self.tracked.track(key, now.mono_us + after_ms * 1_000);
        }
    }
}
