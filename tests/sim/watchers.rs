//! Simulated watchers: the client library's watch, driven over a session of its own; and the check
//! of what it told.

use std::collections::BTreeMap;

use bytes::Bytes;
use kvclient::session::{CallError, Session, Watch, WatchEvent};
use wire::{Action, KeyChange, Outcome, Version};

use super::cluster::Cluster;
use super::history::{Ending, RecordedCall, show};

/// Calls of watchers have this tag, and the watcher's index.
const TAG: u64 = 1 << 40;

pub struct Watcher {
    client: usize,
    watch: Watch,
    /// Every change, in the order in which it was told.
    pub told: Vec<Told>,
    /// The last state of each key that was told to be present.
    pub present: BTreeMap<Bytes, (Version, Bytes)>,
    /// How far behind the node said it was, at the last moment at which everything was told.
    pub current: Option<Option<u64>>,
    pub is_apart: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    pub key: Bytes,
    pub version: Version,
    pub value: Option<Bytes>,
}

/// The watcher that a completed call belongs to.
pub fn watcher_of(tag: u64) -> Option<usize> {
    Some(tag.checked_sub(TAG)? as usize)
}

impl Watcher {
    fn submit(&self, session: &mut Session, now_us: u64, index: usize) {
        let submitted = session.submit(now_us, self.watch.next_call(), TAG + index as u64);
        submitted.expect("within the session's bounds");
    }

    fn hear(&mut self) {
        while let Some(event) = self.watch.poll_event() {
            match event {
                WatchEvent::Changed {
                    key,
                    version,
                    value,
                } => {
                    match &value {
                        Some(value) => self.present.insert(key.clone(), (version, value.clone())),
                        None => self.present.remove(&key),
                    };
                    self.told.push(Told {
                        key,
                        version,
                        value,
                    });
                }
                WatchEvent::Current { behind_ms } => {
                    self.current = Some(behind_ms);
                    self.is_apart = false;
                }
                WatchEvent::Apart(_) => self.is_apart = true,
            }
        }
    }

    /// W1: what was told agrees with the history, and per key versions rise.
    pub fn fault(&self, calls: &[RecordedCall]) -> Option<String> {
        let known = values(calls);
        let mut last: BTreeMap<&Bytes, &Told> = BTreeMap::new();
        for told in &self.told {
            let shown = show(&told.key);
            let before = last.get(&told.key).copied();
            let gone = told.version == 0;
            let is_news = match before {
                None => !gone,
                Some(before) if gone => before.value.is_some(),
                Some(before) => told.version > before.version,
            };
            if !is_news {
                return Some(format!("key {shown}: {told:?} was told after {before:?}"));
            }
            let written = known.get(&(told.key.clone(), told.version));
            if let (Some(written), Some(value)) = (written, &told.value)
                && written != value
            {
                let text = format!("key {shown}: {told:?}, but others saw {written:?}");
                return Some(text);
            }
            match gone {
                true => drop(last.remove(&told.key)),
                false => drop(last.insert(&told.key, told)),
            }
        }
        None
    }
}

/// The values that clients have seen or written, by key and version.
fn values(calls: &[RecordedCall]) -> BTreeMap<(Bytes, Version), Bytes> {
    let mut values = BTreeMap::new();
    for call in calls {
        let Ending::Answered(outcome) = &call.ending else {
            continue;
        };
        match (outcome, &call.action) {
            (Outcome::Value { version, value }, _)
            | (
                Outcome::Written { version, .. },
                Action::Put { value }
                | Action::PutIfAbsent { value }
                | Action::PutFor { value, .. }
                | Action::CompareVersion { value, .. }
                | Action::CompareValue { value, .. },
            ) => {
                values.insert((call.key.clone(), *version), value.clone());
            }
            (Outcome::Committed { results }, Action::Transact { transaction }) => {
                for (part, result) in transaction.parts.iter().zip(results) {
                    if let Some(KeyChange::Put(value)) = &part.change {
                        values.insert((part.key.clone(), result.version), value.clone());
                    }
                }
            }
            _ => {}
        }
    }
    values
}

/// What watchers were told last of a key, where that is not what a member holds.
pub fn missed(watchers: &[Watcher], key: &Bytes, holds: Option<&(Version, Bytes)>) -> Vec<String> {
    let watchers = watchers.iter().enumerate();
    let missed = watchers.filter_map(|(index, watcher)| {
        let told = watcher.present.get(key);
        let text = || {
            format!(
                "watcher {index}, key {}: {told:?}, not {holds:?}",
                show(key)
            )
        };
        (told != holds).then(text)
    });
    missed.collect()
}

impl Cluster {
    /// What a watcher was told wrongly. A forced configuration may have lost what was told.
    pub fn fault_of_watchers(&self) -> Option<String> {
        let watchers = self.watchers.iter();
        let mut faults = watchers.filter_map(|watcher| watcher.fault(&self.calls));
        faults.next().filter(|_| !self.watch.may_have_lost())
    }

    /// A client that watches; no fault strikes it. Returns the watcher's index.
    pub fn add_watcher(&mut self, watch: Watch) -> usize {
        let client = self.add_operator();
        self.watch_with(client, watch)
    }

    pub fn watch_with(&mut self, client: usize, watch: Watch) -> usize {
        let index = self.watchers.len();
        self.watchers.push(Watcher {
            client,
            watch,
            told: Vec::new(),
            present: BTreeMap::new(),
            current: None,
            is_apart: false,
        });
        self.submit_watch(index);
        self.drain_client(client);
        index
    }

    fn submit_watch(&mut self, index: usize) {
        let now_us = self.now_us;
        let watcher = &self.watchers[index];
        let session = self.clients[watcher.client].session.as_mut();
        let session = session.expect("no fault strikes watchers");
        watcher.submit(session, now_us, index);
    }

    /// A call of that watcher has ended.
    pub(super) fn watched(&mut self, index: usize, result: Result<Outcome, CallError>) {
        let now_us = self.now_us;
        let watcher = &mut self.watchers[index];
        let before = watcher.told.len();
        // Forged answers name another cluster.
        let goes_on = watcher.watch.take(result).is_ok();
        watcher.hear();
        for told in &watcher.told[before..] {
            self.trace.mix_words(&[now_us, told.version]);
            self.trace.story(now_us, || {
                format!("watcher {index} is told of {}: {told:?}", show(&told.key))
            });
        }
        if goes_on {
            self.submit_watch(index);
        }
    }
}
