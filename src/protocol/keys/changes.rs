//! The changes of watched keys (W1), in the order in which this node learned that they were chosen.
//! All watches share them, so that a slow watcher costs no memory: it falls behind the first change
//! that is still held, and begins anew.
//!
//! Nothing is noted while nobody watches. Keys whose last state is not known to be chosen are kept
//! as unsettled (W2).

use std::collections::{BTreeMap, HashMap, VecDeque};

use bytes::Bytes;
use wire::{ScanEntry, ScanPage, Version};

use crate::protocol::types::limits::{
    CHANGES_MAX, CHANGES_SIZE_MAX, RANGE_KEYS_MAX, RANGE_SIZE_MAX, RANGES_WATCHED_MAX,
    UNSETTLED_MAX, WATCH_FORGOTTEN_MS,
};
use crate::protocol::types::message::{Configuration, NodeId, Now};
use crate::protocol::types::page::{RangeRecord, RangeState};
use crate::protocol::types::quorum::NodeSet;
use crate::protocol::types::range::KeyRange;
use crate::protocol::types::record::{AcceptorState, Key, SPACE_USER};
use crate::protocol::types::rules::rule;

/// What a change takes beside its key and value, in bytes.
const CHANGE_OVERHEAD_SIZE: usize = 192;

#[derive(Debug)]
struct LoggedChange {
    key: Key,
    version: Version,
    value: Option<Bytes>,
}

impl LoggedChange {
    fn size(&self) -> usize {
        let value_size = self.value.as_ref().map_or(0, Bytes::len);
        CHANGE_OVERHEAD_SIZE + self.key.as_bytes().len() + value_size
    }
}

#[derive(Debug)]
struct WatchedRange {
    /// Not used again, so that no watch goes on from before a time in which nothing was noted.
    number: u64,
    range: KeyRange,
    /// The changes after this one are noted.
    since: u64,
    since_us: u64,
    /// Its watches are forgotten then, unless one of them asks again.
    until_us: u64,
}

/// A key whose last state is not known to be chosen.
#[derive(Debug)]
struct Unsettled {
    /// The tick in which it became so.
    since: u64,
    /// A round that finds an earlier one began before the state was accepted.
    version: Version,
    is_read: bool,
}

/// While a transaction's intent lies over the record, no version is the last one.
const INTENDED: Version = Version::MAX;

/// W4: a comparison with that member found all that it held when it began. It counts once the keys
/// that were unsettled at its end are settled.
#[derive(Debug)]
struct Compared {
    node: NodeId,
    began_us: u64,
    tick: u64,
}

#[derive(Debug, Default)]
pub struct ChangeLog {
    ranges: Vec<WatchedRange>,
    last_number: u64,
    changes: VecDeque<LoggedChange>,
    /// The last change of each key in `changes`.
    latest: HashMap<Key, u64, foldhash::fast::RandomState>,
    /// Of all changes, in bytes.
    size: usize,
    /// The sequence of the last change.
    last: u64,
    unsettled: BTreeMap<Key, Unsettled>,
    tick: u64,
    comparisons: Vec<Compared>,
    /// The beginning of the last comparison with each member that counts.
    compared_us: BTreeMap<NodeId, u64>,
    has_news: bool,
}

/// Where a watch is: the number of its range, and the last change that it was told or that is not
/// in its range.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reached {
    pub range: u64,
    pub sequence: u64,
}

/// What a watch is told.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct LoggedPage {
    pub entries: Vec<ScanEntry>,
    /// The last change that was looked at.
    pub sequence: u64,
    pub skipped: u64,
    /// Of the entries, in bytes.
    pub size: usize,
    /// There are further changes.
    pub has_more: bool,
}

impl ChangeLog {
    /// Begins or goes on with watching the range. `Ok`: a watch that has come so far goes on; an
    /// error says where it begins anew. `None`: too many ranges are watched.
    pub fn watch(
        &mut self,
        now: Now,
        range: &KeyRange,
        reached: Option<Reached>,
    ) -> Option<Result<Reached, Reached>> {
        let until_us = now.mono_us + WATCH_FORGOTTEN_MS * 1_000;
        let place = match self.ranges.iter().position(|held| held.range == *range) {
            Some(place) => place,
            None if self.ranges.len() >= RANGES_WATCHED_MAX => return None,
            None => {
                self.last_number += 1;
                self.ranges.push(WatchedRange {
                    number: self.last_number,
                    range: range.clone(),
                    since: self.last,
                    since_us: now.mono_us,
                    until_us,
                });
                self.ranges.len() - 1
            }
        };
        let held = &mut self.ranges[place];
        held.until_us = until_us;
        let begins = Reached {
            range: held.number,
            sequence: self.last,
        };
        let since = held.since.max(self.last - self.changes.len() as u64);
        Some(match reached {
            Some(reached)
                if reached.range == begins.range
                    && (since..=self.last).contains(&reached.sequence) =>
            {
                Ok(reached)
            }
            _ => Err(begins),
        })
    }

    pub fn is_idle(&self) -> bool {
        self.ranges.is_empty()
    }

    /// W1: nobody watches at this node any more. What changes from now on is not noted, so later
    /// watches begin anew.
    pub fn end(&mut self) {
        *self = ChangeLog {
            last_number: self.last_number,
            last: self.last,
            ..ChangeLog::default()
        };
    }

    /// Forgets the ranges that nobody asked about for long.
    pub fn forget(&mut self, now: Now) {
        self.ranges.retain(|held| now.mono_us < held.until_us);
        if self.ranges.is_empty() {
            self.end();
        }
    }

    fn is_watched(&self, key: &Key) -> bool {
        key.space() == SPACE_USER && self.ranges.iter().any(|held| held.range.contains(key))
    }

    /// The state of a key is this one now.
    pub fn note(&mut self, key: &Key, state: Option<&AcceptorState>) {
        if self.ranges.is_empty() || !self.is_watched(key) {
            return;
        }
        let Some((state, record)) = state.and_then(|state| Some((state, state.record.as_ref()?)))
        else {
            self.unsettled.remove(key);
            return;
        };
        self.note_record(key, &RangeRecord::from(&**record), state.chosen);
    }

    /// A key whose record was listed, which is not known to be chosen.
    pub fn note_listed(&mut self, key: &Key, state: &RangeState) {
        let is_watched = !self.ranges.is_empty() && self.is_watched(key);
        if let Some(record) = state.record.as_ref().filter(|_| is_watched) {
            self.note_record(key, record, state.chosen);
        }
    }

    fn note_record(&mut self, key: &Key, record: &RangeRecord, chosen: bool) {
        if chosen || !rule!(W1) {
            self.unsettled.remove(key);
            self.push(key, record.version, record.value.clone());
        }
        // T5: what a transaction intends may be committed already.
        match (record.has_intent, chosen) {
            (true, _) => self.is_unsettled(key, INTENDED),
            (false, false) => self.is_unsettled(key, record.version),
            (false, true) => {}
        }
    }

    /// A key is chosen in a state that this node does not hold in memory.
    pub fn note_unseen(&mut self, key: &Key) {
        if !self.ranges.is_empty() && self.is_watched(key) {
            self.is_unsettled(key, 0);
        }
    }

    fn is_unsettled(&mut self, key: &Key, version: Version) {
        if let Some(unsettled) = self.unsettled.get_mut(key) {
            unsettled.version = version;
        } else if self.unsettled.len() < UNSETTLED_MAX {
            let unsettled = Unsettled {
                since: self.tick,
                version,
                is_read: false,
            };
            self.unsettled.insert(key.clone(), unsettled);
        } else {
            // Nobody may miss it: all watches begin anew.
            self.end();
        }
    }

    /// A round has found this chosen state. The key is read again if it has a later one since.
    pub fn settled(&mut self, key: &Key, version: Version, value: Option<Bytes>) {
        match self.unsettled.get_mut(key) {
            Some(unsettled) if unsettled.version > version => unsettled.is_read = false,
            _ => drop(self.unsettled.remove(key)),
        }
        if self.is_watched(key) {
            self.push(key, version, value);
        }
    }

    /// A round has found nothing out: the key is read again.
    pub fn still_unsettled(&mut self, key: &Key) {
        if let Some(unsettled) = self.unsettled.get_mut(key) {
            unsettled.is_read = false;
        }
    }

    /// W1: per key, versions only rise. A tombstone without a version is that of a key that never
    /// was: a transaction's void intent left it.
    fn push(&mut self, key: &Key, version: Version, value: Option<Bytes>) {
        let known = self.latest.get(key).map(|sequence| self.at(*sequence));
        if known.is_some_and(|change| change.version >= version) || version == 0 {
            return;
        }
        let change = LoggedChange {
            key: key.clone(),
            version,
            value,
        };
        self.size += change.size();
        self.last += 1;
        self.latest.insert(key.clone(), self.last);
        self.changes.push_back(change);
        self.has_news = true;
        while self.size > CHANGES_SIZE_MAX || self.changes.len() > CHANGES_MAX {
            let sequence = self.first();
            let Some(change) = self.changes.pop_front() else {
                return;
            };
            self.size -= change.size();
            if self.latest.get(&change.key) == Some(&sequence) {
                self.latest.remove(&change.key);
            }
        }
    }

    fn first(&self) -> u64 {
        self.last + 1 - self.changes.len() as u64
    }

    fn at(&self, sequence: u64) -> &LoggedChange {
        &self.changes[(sequence - self.first()) as usize]
    }

    /// Whether anything changed since this was asked.
    pub fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.has_news)
    }

    fn range(&self, number: u64) -> Option<&WatchedRange> {
        self.ranges.iter().find(|held| held.number == number)
    }

    /// The changes that follow, each key once. `None`: some are no longer held, or were not noted.
    pub fn page(&self, reached: Reached) -> Option<LoggedPage> {
        let range = &self.range(reached.range)?.range;
        let (first, reached) = (self.first(), reached.sequence);
        if reached + 1 < first {
            return None;
        }
        let mut page = LoggedPage {
            sequence: reached,
            ..LoggedPage::default()
        };
        let behind = self.changes.range((reached + 1 - first) as usize..);
        for (sequence, change) in (reached + 1..).zip(behind) {
            if !range.contains(&change.key) {
                page.sequence = sequence;
                continue;
            }
            if self.latest.get(&change.key) != Some(&sequence) {
                page.skipped += 1;
                page.sequence = sequence;
                continue;
            }
            let value_size = change.value.as_ref().map_or(0, Bytes::len);
            let size = ScanPage::entry_size(change.key.name().len(), value_size);
            let is_full = page.size + size > RANGE_SIZE_MAX || page.entries.len() >= RANGE_KEYS_MAX;
            if is_full && !page.entries.is_empty() {
                page.has_more = true;
                break;
            }
            page.size += size;
            page.entries.push(ScanEntry {
                key: change.key.name().to_vec().into(),
                version: change.version,
                value: change.value.clone(),
            });
            page.sequence = sequence;
        }
        Some(page)
    }

    /// W2: the keys that have been unsettled since the tick before the last one, at most so many.
    pub fn take_unsettled(&mut self, count_max: usize) -> Vec<Key> {
        self.tick += 1;
        self.count_comparisons();
        if !rule!(W2) {
            return Vec::new();
        }
        let before = self.tick.saturating_sub(1);
        let due = self.unsettled.iter_mut();
        let due = due.filter(|(_, unsettled)| unsettled.since < before && !unsettled.is_read);
        let due = due.take(count_max).map(|(key, unsettled)| {
            unsettled.is_read = true;
            key.clone()
        });
        due.collect()
    }

    /// W4: a comparison of all buckets with that member has ended, and everything that differed was
    /// fetched.
    pub fn compared(&mut self, node: NodeId, began_us: u64) {
        if !self.ranges.is_empty() {
            let tick = self.tick;
            self.comparisons.retain(|compared| compared.node != node);
            self.comparisons.push(Compared {
                node,
                began_us,
                tick,
            });
            self.count_comparisons();
        }
    }

    fn count_comparisons(&mut self) {
        let oldest = self.unsettled.values().map(|unsettled| unsettled.since);
        let oldest = oldest.min().unwrap_or(u64::MAX);
        let counts = |compared: &Compared| oldest > compared.tick || !rule!(W4_settled);
        for compared in self.comparisons.iter().filter(|compared| counts(compared)) {
            self.compared_us.insert(compared.node, compared.began_us);
        }
        self.comparisons.retain(|compared| !counts(compared));
    }

    /// W4: up to when every change of the range is noted, on this node's clock: since then it has
    /// compared its keys with so many members that the others are no quorum.
    pub fn current_us(
        &self,
        now: Now,
        me: NodeId,
        range: u64,
        configuration: &Configuration,
    ) -> Option<u64> {
        let held = self.range(range)?;
        let compared = self.compared_us.values().copied();
        let mut times: Vec<u64> = compared.chain([now.mono_us]).collect();
        times.retain(|began_us| *began_us >= held.since_us);
        times.sort_unstable_by(|a, b| b.cmp(a));
        times.into_iter().find(|since_us| {
            let others = configuration.voters().map(|member| member.node);
            let left_out = others.filter(|node| {
                let compared_us = self.compared_us.get(node);
                *node != me && compared_us.is_none_or(|at_us| at_us < since_us)
            });
            !configuration.has_quorum(&left_out.collect::<NodeSet>())
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::protocol::types::ballot::Ballot;
    use crate::protocol::types::message::Member;
    use crate::protocol::types::record::Record;

    const NOW: Now = Now {
        mono_us: 1_000_000,
        wall_ms: 0,
    };

    fn range(first: &str, last: &str) -> KeyRange {
        KeyRange {
            first: Key::user(first.as_bytes()),
            is_after: false,
            last: Some(Key::user(last.as_bytes())),
            is_before: true,
        }
    }

    fn state(version: Version, value: Option<&'static str>, chosen: bool) -> AcceptorState {
        AcceptorState {
            accepted: Ballot(version),
            chosen,
            record: Some(Arc::new(Record {
                value: value.map(Bytes::from),
                version,
                ..Record::default()
            })),
            ..AcceptorState::default()
        }
    }

    fn key(name: &str) -> Key {
        Key::user(name.as_bytes())
    }

    fn watching(range: &KeyRange) -> ChangeLog {
        let mut changes = ChangeLog::default();
        assert_eq!(changes.watch(NOW, range, None), Some(Err(at(0))));
        changes
    }

    /// Of the first range.
    fn at(sequence: u64) -> Reached {
        Reached { range: 1, sequence }
    }

    fn told(changes: &ChangeLog, reached: u64) -> (Vec<(String, u64)>, u64, u64) {
        let page = changes.page(at(reached)).expect("held");
        let told = page.entries.iter().map(|entry| {
            let name = String::from_utf8(entry.key.to_vec()).expect("text");
            (name, entry.version)
        });
        (told.collect(), page.sequence, page.skipped)
    }

    #[test]
    fn chosen_states_of_watched_keys_are_told_in_order_each_key_once() {
        let range = range("a", "n");
        let mut changes = watching(&range);
        for (name, version, chosen) in [
            ("a", 5, true),
            ("z", 6, true),
            ("b", 7, false),
            ("a", 8, true),
            ("a", 8, true),
            ("a", 4, true),
            ("c", 9, true),
        ] {
            changes.note(&key(name), Some(&state(version, Some("v"), chosen)));
        }
        let both = vec![("a".to_owned(), 8), ("c".to_owned(), 9)];
        assert_eq!(told(&changes, 0), (both, 3, 1));
        assert_eq!(told(&changes, 2).0, [("c".to_owned(), 9)]);
        assert_eq!(told(&changes, 3), (vec![], 3, 0));
        let mut watch = |sequence| changes.watch(NOW, &range, Some(at(sequence)));
        assert_eq!(watch(2), Some(Ok(at(2))));
        assert_eq!(watch(4), Some(Err(at(3))));
    }

    #[test]
    fn a_watch_that_lags_behind_what_is_held_begins_anew() {
        let range = range("a", "n");
        let mut changes = watching(&range);
        for version in 1..=CHANGES_MAX as u64 + 3 {
            let name = format!("b{}", version % 10);
            changes.note(&key(&name), Some(&state(version, Some("v"), true)));
        }
        let last = CHANGES_MAX as u64 + 3;
        let mut watch = |sequence| changes.watch(NOW, &range, Some(at(sequence)));
        assert_eq!(watch(2), Some(Err(at(last))));
        assert_eq!(watch(3), Some(Ok(at(3))));
        assert_eq!(changes.page(at(2)), None);
        let (entries, sequence, skipped) = told(&changes, 3);
        assert_eq!((entries.len(), sequence), (10, last));
        assert_eq!(skipped, CHANGES_MAX as u64 - 10);
        let large = Box::leak("x".repeat(CHANGES_SIZE_MAX).into_boxed_str());
        changes.note(&key("c"), Some(&state(last + 1, Some(large), true)));
        assert_eq!(changes.page(at(last)), None);
        assert_eq!(changes.size, 0);
        assert!(changes.latest.is_empty());
    }

    #[test]
    fn what_is_not_known_to_be_chosen_is_settled_after_a_whole_tick() {
        let range = range("a", "n");
        let mut changes = watching(&range);
        changes.note(&key("a"), Some(&state(5, Some("v"), false)));
        assert!(changes.take_unsettled(9).is_empty());
        assert_eq!(changes.take_unsettled(9), [key("a")]);
        assert!(changes.take_unsettled(9).is_empty(), "it is being read");
        changes.still_unsettled(&key("a"));
        assert_eq!(changes.take_unsettled(9), [key("a")]);
        // What the round found is older than what was accepted since.
        changes.settled(&key("a"), 4, None);
        assert_eq!(told(&changes, 0).0, [("a".to_owned(), 4)]);
        assert_eq!(changes.take_unsettled(9), [key("a")]);
        changes.settled(&key("a"), 5, None);
        assert_eq!(told(&changes, 0).0, [("a".to_owned(), 5)]);
        assert!(changes.take_unsettled(9).is_empty());
    }

    /// T5: the coordinator may have died after the commit.
    #[test]
    fn a_key_with_an_intent_is_unsettled_until_the_intent_is_gone() {
        let range = range("a", "n");
        let mut changes = watching(&range);
        let mut intended = state(5, Some("v"), true);
        intended.record = intended.record.map(|record| {
            Arc::new(Record {
                intent: Some(Bytes::from_static(b"intent").into()),
                ..Record::clone(&record)
            })
        });
        changes.note(&key("a"), Some(&intended));
        assert_eq!(told(&changes, 0).0, [("a".to_owned(), 5)]);
        changes.take_unsettled(9);
        assert_eq!(changes.take_unsettled(9), [key("a")]);
        changes.settled(&key("a"), 6, None);
        assert_eq!(told(&changes, 0).0, [("a".to_owned(), 6)]);
        assert_eq!(changes.take_unsettled(9), [key("a")]);
        changes.note(&key("a"), Some(&state(6, None, true)));
        changes.still_unsettled(&key("a"));
        assert!(changes.take_unsettled(9).is_empty());
    }

    #[test]
    fn a_watch_is_current_once_the_others_are_no_quorum_and_nothing_is_unsettled() {
        let member = |node| Member {
            node,
            ..Member::default()
        };
        let configuration = Configuration {
            members: (1..=5).map(member).collect(),
            ..Configuration::default()
        };
        let range = range("a", "n");
        let mut changes = watching(&range);
        let later = Now {
            mono_us: NOW.mono_us + 40,
            wall_ms: 0,
        };
        let current = |changes: &ChangeLog| changes.current_us(later, 1, 1, &configuration);
        changes.compared(2, NOW.mono_us - 1);
        changes.compared(3, NOW.mono_us + 20);
        assert_eq!(current(&changes), None, "one began before the watch");
        changes.note(&key("a"), Some(&state(5, Some("v"), false)));
        changes.compared(2, NOW.mono_us + 10);
        assert_eq!(current(&changes), None, "a key is unsettled");
        changes.note(&key("a"), Some(&state(5, Some("v"), true)));
        changes.take_unsettled(9);
        assert_eq!(current(&changes), Some(NOW.mono_us + 10));
        changes.compared(4, NOW.mono_us + 30);
        assert_eq!(current(&changes), Some(NOW.mono_us + 20));
    }

    #[test]
    fn a_watch_does_not_go_on_from_before_a_time_in_which_nobody_watched() {
        let range = range("a", "n");
        let mut changes = watching(&range);
        changes.note(&key("a"), Some(&state(5, Some("v"), true)));
        changes.forget(Now {
            mono_us: NOW.mono_us + WATCH_FORGOTTEN_MS * 1_000,
            wall_ms: 0,
        });
        assert!(changes.is_idle() && changes.changes.is_empty());
        changes.note(&key("b"), Some(&state(6, Some("v"), true)));
        assert_eq!(changes.page(at(1)), None);
        let again = Reached {
            range: 2,
            sequence: 1,
        };
        assert_eq!(changes.watch(NOW, &range, Some(at(1))), Some(Err(again)));
    }
}
