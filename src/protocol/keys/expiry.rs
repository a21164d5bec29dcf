//! L1: the keys that expire, in order of time, and which of them this node is deleting. The index
//! says when to look at a key, never that it is absent: only a round decides that.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use crate::protocol::types::limits::{EXPIRY_LOOKED_AT_MAX, EXPIRY_RETRY_MS};
use crate::protocol::types::record::Key;

#[derive(Debug, Default)]
pub struct ExpiryIndex {
    by_time: BTreeSet<(u64, Key)>,
    /// The keys that this node began to delete, with the time by its monotonic clock.
    begun: BTreeMap<Key, u64>,
    /// Where the next look begins: keys of other coordinators stay in the index for a while, and
    /// are not to be looked at again and again.
    after: Option<(u64, Key)>,
    /// Whether a timer for the next look is set.
    pub is_timer_set: bool,
}

impl ExpiryIndex {
    pub fn new(expiring: Vec<(u64, Key)>) -> Self {
        ExpiryIndex {
            by_time: expiring.into_iter().collect(),
            ..ExpiryIndex::default()
        }
    }

    /// How many keys have a time to live.
    pub fn count(&self) -> usize {
        self.by_time.len()
    }

    /// How many keys this node is deleting.
    pub fn under_way(&mut self, now_us: u64) -> usize {
        let retry_us = EXPIRY_RETRY_MS * 1_000;
        self.begun.retain(|_, at_us| now_us < *at_us + retry_us);
        self.begun.len()
    }

    /// The record of a key has changed.
    pub fn replace(&mut self, key: &Key, before: Option<u64>, after: Option<u64>) {
        if before == after {
            return;
        }
        if let Some(before) = before {
            self.by_time.remove(&(before, key.clone()));
            self.begun.remove(key);
        }
        if let Some(after) = after {
            self.by_time.insert((after, key.clone()));
        }
    }

    /// Up to `count_max` expired keys that this node is responsible for and is not deleting yet.
    /// Also returns whether more may be left.
    pub fn due(
        &mut self,
        wall_ms: u64,
        now_us: u64,
        count_max: usize,
        is_own: impl Fn(&Key) -> bool,
    ) -> (Vec<Key>, bool) {
        if count_max == 0 {
            return (Vec::new(), true);
        }
        let begin = match self.after.take() {
            Some(after) => Bound::Excluded(after),
            None => Bound::Unbounded,
        };
        let mut found: Vec<Key> = Vec::new();
        let mut looked_at = 0;
        let mut paused_at = None;
        for entry in self.by_time.range((begin, Bound::Unbounded)) {
            let (expiry_ms, key) = entry;
            if *expiry_ms > wall_ms {
                break;
            }
            looked_at += 1;
            if is_own(key) && !self.begun.contains_key(key) {
                found.push(key.clone());
            }
            if looked_at >= EXPIRY_LOOKED_AT_MAX || found.len() >= count_max {
                paused_at = Some(entry);
                break;
            }
        }
        // Otherwise the next look begins at the first key again.
        self.after = paused_at.cloned();
        let begun = found.iter().map(|key| (key.clone(), now_us));
        self.begun.extend(begun);
        (found, self.after.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u64) -> Key {
        Key::user(n.to_string().as_bytes())
    }

    fn index(count: u64) -> ExpiryIndex {
        ExpiryIndex::new((0..count).map(|n| (1_000 + n, key(n))).collect())
    }

    #[test]
    fn what_has_expired_is_due_once_in_a_while() {
        let mut index = index(3);
        assert_eq!(index.due(999, 0, 10, |_| true), (Vec::new(), false));
        assert_eq!(index.due(1_001, 0, 10, |_| true).0, [key(0), key(1)]);
        assert_eq!(index.due(1_001, 1, 10, |_| true).0, []);
        // The first one is deleted; the other one's round did not end.
        index.replace(&key(0), Some(1_000), None);
        let later_us = EXPIRY_RETRY_MS * 1_000;
        assert_eq!(index.under_way(later_us), 0);
        assert_eq!(index.due(1_001, later_us, 10, |_| true).0, [key(1)]);
        assert_eq!((index.count(), index.under_way(later_us)), (2, 1));
    }

    #[test]
    fn a_key_that_lives_on_is_due_at_its_new_time() {
        let mut index = index(1);
        assert_eq!(index.due(2_000, 0, 10, |_| true).0, [key(0)]);
        index.replace(&key(0), Some(1_000), Some(3_000));
        assert_eq!(index.under_way(1), 0);
        assert_eq!(index.due(2_999, 1, 10, |_| true).0, []);
        assert_eq!(index.due(3_000, 1, 10, |_| true).0, [key(0)]);
        index.replace(&key(0), Some(3_000), None);
        index.replace(&key(0), None, None);
        assert_eq!((index.count(), index.under_way(1)), (0, 0));
    }

    /// Other nodes are responsible for most of the keys, and do not run.
    #[test]
    fn keys_of_others_do_not_hide_own_ones() {
        let count = 3 * EXPIRY_LOOKED_AT_MAX as u64 - 1;
        let mut index = index(count);
        let last = key(count - 1);
        let is_last = |key: &Key| *key == last;
        let mut turns = 0;
        loop {
            turns += 1;
            let (found, is_more) = index.due(u64::MAX, 0, 10, is_last);
            if !found.is_empty() {
                assert_eq!((found, is_more), (vec![last.clone()], false));
                break;
            }
            assert!(is_more && turns < 10);
        }
        assert_eq!(turns, 3);
    }

    #[test]
    fn a_turn_begins_few_deletions() {
        let mut index = index(100);
        let mut found = Vec::new();
        let mut turns = 0;
        loop {
            let (keys, is_more) = index.due(u64::MAX, 0, 16, |_| true);
            assert!(keys.len() <= 16);
            found.extend(keys);
            turns += 1;
            if !is_more {
                break;
            }
        }
        assert_eq!((found.len(), turns), (100, 7));
    }
}
