//! Fetches: the keys whose records are requested, by the node that is asked (C1). This module owns
//! the windows and the retries; `replica/catchup/compare.rs` decides which keys to fetch.

use std::collections::{BTreeMap, VecDeque};

use crate::protocol::types::ballot::Ballot;
use crate::protocol::types::capacity::MessageCapacity;
use crate::protocol::types::limits::{
    KEYS_PER_MESSAGE_MAX, PULLS_SIZE_MAX, PULLS_UNDER_WAY_MAX, PULLS_WAITING_MAX,
};
use crate::protocol::types::message::{NodeId, Now};
use crate::protocol::types::record::Key;

#[derive(Debug)]
struct PendingFetch {
    size: usize,
    at_us: u64,
    times: u32,
    /// This node's own promise that blocked the copy.
    refused_for: Option<Ballot>,
}

/// The fetches from one node.
#[derive(Debug, Default)]
struct FetchSource {
    waiting: VecDeque<(Key, usize)>,
    asked: BTreeMap<Key, PendingFetch>,
    /// The size of the copies requested.
    size: usize,
    /// When the last copy arrived, and when the latest of the keys answered so far was requested. A
    /// node answers in the order of the requests, at its own rate.
    heard_us: u64,
    answered_us: u64,
}

#[derive(Debug, Default)]
pub struct Fetches {
    sources: BTreeMap<NodeId, FetchSource>,
    waiting: usize,
}

impl FetchSource {
    /// The next keys to request, once half of the window is free; a single key may always be
    /// requested.
    fn fill(&mut self, now: Now) -> Vec<Key> {
        let half_free =
            self.asked.len() <= PULLS_UNDER_WAY_MAX / 2 && self.size <= PULLS_SIZE_MAX / 2;
        let mut keys = Vec::new();
        let mut room = MessageCapacity::new(KEYS_PER_MESSAGE_MAX);
        while half_free && let Some((key, size)) = self.waiting.front() {
            let fits = self.asked.len() < PULLS_UNDER_WAY_MAX && self.size + size <= PULLS_SIZE_MAX;
            if !(fits || self.asked.is_empty()) || !room.take(key) {
                break;
            }
            let asked = PendingFetch {
                size: *size,
                at_us: now.mono_us,
                times: 1,
                refused_for: None,
            };
            self.size += size;
            let (key, _) = self.waiting.pop_front().expect("just seen");
            keys.push(key.clone());
            if let Some(twice) = self.asked.insert(key, asked) {
                self.size -= twice.size;
            }
        }
        keys
    }

    fn end(&mut self, key: &Key) -> Option<PendingFetch> {
        let ended = self.asked.remove(key)?;
        self.size -= ended.size;
        Some(ended)
    }

    /// Keys that were requested later were answered, or none was for `wait_us`.
    fn is_overdue(&self, now: Now, wait_us: u64, asked: &PendingFetch) -> bool {
        let is_silent = now.mono_us >= self.heard_us + wait_us;
        now.mono_us >= asked.at_us + wait_us && (is_silent || asked.at_us < self.answered_us)
    }
}

impl Fetches {
    pub fn is_empty(&self) -> bool {
        let is_done = |s: &FetchSource| s.waiting.is_empty() && s.asked.is_empty();
        self.sources.values().all(is_done)
    }

    /// Whether more keys should be looked for.
    pub fn has_room(&self) -> bool {
        self.waiting < PULLS_WAITING_MAX
    }

    /// `size` is the approximate size of the copy's message.
    pub fn want(&mut self, source: NodeId, key: Key, size: usize) {
        let source = self.sources.entry(source).or_default();
        source.waiting.push_back((key, size));
        self.waiting += 1;
    }

    /// The keys to request now, and from which node.
    pub fn fill(&mut self, now: Now) -> Vec<(NodeId, Vec<Key>)> {
        let filled = self.sources.iter_mut().map(|(n, s)| (*n, s.fill(now)));
        let filled: Vec<_> = filled.filter(|(_, keys)| !keys.is_empty()).collect();
        self.waiting -= filled.iter().map(|(_, keys)| keys.len()).sum::<usize>();
        filled
    }

    /// The keys that were not answered in time and are requested again, by node; and the number of
    /// keys that were requested too often. These are abandoned until they are found missing again.
    pub fn overdue(
        &mut self,
        now: Now,
        wait_us: u64,
        tries_max: u32,
    ) -> (Vec<(NodeId, Vec<Key>)>, u64) {
        let (mut overdue, mut given_up_count) = (Vec::new(), 0);
        for (node, source) in &mut self.sources {
            let (mut keys, mut given_up) = (Vec::new(), Vec::new());
            let mut room = MessageCapacity::new(KEYS_PER_MESSAGE_MAX);
            let late = source
                .asked
                .iter()
                .filter(|(_, a)| source.is_overdue(now, wait_us, a));
            let late: Vec<Key> = late.map(|(key, _)| key.clone()).collect();
            for key in &late {
                let asked = source.asked.get_mut(key).expect("just seen");
                if asked.times >= tries_max {
                    given_up.push(key.clone());
                    continue;
                }
                if !room.take(key) {
                    break;
                }
                asked.at_us = now.mono_us;
                asked.times += 1;
                keys.push(key.clone());
            }
            given_up_count += given_up.len() as u64;
            for key in given_up {
                source.end(&key);
            }
            if !keys.is_empty() {
                overdue.push((*node, keys));
            }
        }
        (overdue, given_up_count)
    }

    /// The copy arrived and was stored; returns whether it was requested.
    pub fn end(&mut self, now: Now, source: NodeId, key: &Key) -> bool {
        let Some(source) = self.sources.get_mut(&source) else {
            return false;
        };
        let Some(ended) = source.end(key) else {
            return false;
        };
        source.heard_us = now.mono_us;
        source.answered_us = source.answered_us.max(ended.at_us);
        true
    }

    /// The copy arrived and was refused because of a promise; returns whether that promise also
    /// blocked it the last time.
    pub fn refused(&mut self, source: NodeId, key: &Key, promised: Ballot) -> bool {
        let source = self.sources.get_mut(&source);
        let asked = source.and_then(|source| source.asked.get_mut(key));
        asked.is_some_and(|asked| asked.refused_for.replace(promised) == Some(promised))
    }

    /// Requests nothing more from that node; returns the keys that were still to come from it.
    pub fn forget(&mut self, source: NodeId) -> Vec<(Key, usize)> {
        let Some(source) = self.sources.remove(&source) else {
            return Vec::new();
        };
        self.waiting -= source.waiting.len();
        let asked = source.asked.into_iter();
        let asked = asked.map(|(key, asked)| (key, asked.size));
        asked.chain(source.waiting).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::types::limits::{FETCH_RETRY_MS, LIST_SIZE_MAX};
    use crate::protocol::types::message::{CopiesRequest, Message};

    const WAIT_US: u64 = FETCH_RETRY_MS * 1_000;

    fn at(ms: u64) -> Now {
        Now {
            mono_us: ms * 1_000,
            wall_ms: 0,
        }
    }

    fn key(number: usize) -> Key {
        Key::user(format!("key-{number:06}").as_bytes())
    }

    fn asked(filled: &[(NodeId, Vec<Key>)]) -> usize {
        filled.iter().map(|(_, keys)| keys.len()).sum()
    }

    #[test]
    fn windows_are_by_source_and_filled_once_half_of_them_is_free() {
        let mut fetches = Fetches::default();
        for number in 0..3 * PULLS_UNDER_WAY_MAX {
            fetches.want(1, key(number), 10);
        }
        fetches.want(2, key(9), 10);
        let filled = fetches.fill(at(0));
        assert_eq!(asked(&filled), PULLS_UNDER_WAY_MAX + 1);
        assert!(fetches.fill(at(0)).is_empty());
        for number in 0..PULLS_UNDER_WAY_MAX / 2 {
            assert!(fetches.fill(at(0)).is_empty(), "{number}");
            assert!(fetches.end(at(0), 1, &key(number)) && !fetches.end(at(0), 1, &key(number)));
        }
        assert_eq!(asked(&fetches.fill(at(0))), PULLS_UNDER_WAY_MAX / 2);
    }

    #[test]
    fn what_is_large_goes_one_by_one() {
        let mut fetches = Fetches::default();
        for number in 0..3 {
            fetches.want(1, key(number), 2 * PULLS_SIZE_MAX);
        }
        for number in 0..3 {
            assert_eq!(fetches.fill(at(0)), [(1, vec![key(number)])]);
            assert!(fetches.end(at(0), 1, &key(number)));
        }
        assert!(fetches.is_empty());
    }

    /// Keys of any length are requested in messages that fit a datagram.
    #[test]
    fn what_is_asked_for_fits_a_message() {
        for length in [2, 1_024] {
            let mut fetches = Fetches::default();
            for number in 0..10_000 {
                let key = Key::user(format!("{number:0length$}").as_bytes());
                fetches.want(1, key, 10);
            }
            for turn in 0..3 {
                let (again, _) = fetches.overdue(at(turn * FETCH_RETRY_MS), WAIT_US, 5);
                for (_, keys) in fetches.fill(at(0)).into_iter().chain(again) {
                    let mut body = Vec::new();
                    Message::from(CopiesRequest { keys }).encode_body(&mut body);
                    assert!(body.len() <= LIST_SIZE_MAX + 8, "{}", body.len());
                }
            }
        }
    }

    #[test]
    fn a_slow_node_is_not_asked_again_while_it_goes_on() {
        let mut fetches = Fetches::default();
        for number in 0..2 {
            fetches.want(1, key(number), 10);
            fetches.fill(at(0));
        }
        fetches.want(1, key(2), 10);
        fetches.fill(at(10));
        assert!(fetches.end(at(FETCH_RETRY_MS), 1, &key(0)));
        let later = at(2 * FETCH_RETRY_MS - 1);
        assert!(
            fetches.overdue(later, WAIT_US, 5).0.is_empty(),
            "what came was asked no later"
        );
        assert!(fetches.end(later, 1, &key(2)));
        assert_eq!(fetches.overdue(later, WAIT_US, 5).0, [(1, vec![key(1)])]);
    }

    #[test]
    fn what_is_not_answered_is_asked_again_and_given_up() {
        let mut fetches = Fetches::default();
        fetches.want(1, key(1), 10);
        fetches.fill(at(0));
        assert!(
            fetches
                .overdue(at(FETCH_RETRY_MS - 1), WAIT_US, 5)
                .0
                .is_empty()
        );
        for turn in 1..5 {
            let (again, _) = fetches.overdue(at(turn * FETCH_RETRY_MS), WAIT_US, 5);
            assert_eq!(again, [(1, vec![key(1)])]);
            assert!(!fetches.is_empty());
        }
        let last = at(5 * FETCH_RETRY_MS);
        assert_eq!(fetches.overdue(last, WAIT_US, 5), (Vec::new(), 1));
        assert!(fetches.is_empty());
        fetches.want(1, key(1), 10);
        fetches.fill(last);
        fetches.want(1, key(2), 20);
        assert_eq!(fetches.forget(1), [(key(1), 10), (key(2), 20)]);
        assert!(fetches.has_room() && fetches.is_empty() && fetches.forget(1).is_empty());
    }
}
