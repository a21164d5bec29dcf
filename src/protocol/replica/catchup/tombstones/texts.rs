//! P1: tombstones whose tables hold text operations, and since when this node has seen each. Every
//! other operation that a table answers for stays refused after the purge (X3). A retry of a text
//! operation may be born later, so only time makes its purge safe.

use std::collections::BTreeMap;

use crate::protocol::types::ballot::Ballot;
use crate::protocol::types::limits::{RETRY_HORIZON_MS, TEXT_TOMBSTONES_MAX};
use crate::protocol::types::message::Now;
use crate::protocol::types::record::Key;

#[derive(Debug, Default)]
pub struct TextTombstones {
    seen: BTreeMap<Key, (Ballot, u64)>,
}

impl TextTombstones {
    /// How long this node must still see that tombstone, by its monotonic clock, before it may be
    /// purged. `None`: there is no space to track that it was seen. A tracked tombstone stays until
    /// it is purged or overwritten: if it made space for others before its time, none would ever be
    /// purged under load.
    pub fn rest_ms(&mut self, now: Now, key: &Key, ballot: Ballot) -> Option<u64> {
        let horizon_us = RETRY_HORIZON_MS * 1_000;
        let is_full = self.seen.len() >= TEXT_TOMBSTONES_MAX;
        match self.seen.get_mut(key) {
            Some((seen, at_us)) if *seen == ballot => {
                let rest_us = (*at_us + horizon_us).saturating_sub(now.mono_us);
                return Some(rest_us.div_ceil(1_000));
            }
            Some(other) => *other = (ballot, now.mono_us),
            None if is_full => return None,
            None => {
                self.seen.insert(key.clone(), (ballot, now.mono_us));
            }
        }
        Some(RETRY_HORIZON_MS)
    }

    pub fn forget(&mut self, key: &Key) {
        self.seen.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tombstone_rests_for_the_horizon_since_it_was_seen_first() {
        let mut texts = TextTombstones::default();
        let at = |ms: u64| Now {
            mono_us: ms * 1_000,
            wall_ms: 0,
        };
        let (key, b) = (Key::user(b"k"), |reading| Ballot::new(reading, 1));
        let horizon = Some(RETRY_HORIZON_MS);
        assert_eq!(texts.rest_ms(at(5), &key, b(1)), horizon);
        let rest = Some(RETRY_HORIZON_MS - 1);
        assert_eq!(texts.rest_ms(at(6), &key, b(1)), rest);
        assert_eq!(texts.rest_ms(at(5 + RETRY_HORIZON_MS), &key, b(1)), Some(0));
        // Another tombstone of the same key waits from the beginning.
        let renewed = at(5 + RETRY_HORIZON_MS);
        assert_eq!(texts.rest_ms(renewed, &key, b(2)), horizon);
        texts.forget(&key);
        assert_eq!(texts.rest_ms(at(90_000), &key, b(2)), horizon);
    }

    #[test]
    fn more_than_there_is_room_for_wait() {
        let mut texts = TextTombstones::default();
        let at = |ms: u64| Now {
            mono_us: ms * 1_000,
            wall_ms: 0,
        };
        let key = |n: usize| Key::user(n.to_string().as_bytes());
        for n in 0..=TEXT_TOMBSTONES_MAX {
            texts.rest_ms(at(1), &key(n), Ballot::ZERO);
        }
        let last = key(TEXT_TOMBSTONES_MAX);
        assert_eq!(texts.rest_ms(at(5_000), &last, Ballot::ZERO), None);
        // However late they are checked again, the time of the others is not lost.
        let late = at(100_000);
        assert_eq!(texts.rest_ms(late, &last, Ballot::ZERO), None);
        assert_eq!(texts.rest_ms(late, &key(7), Ballot::ZERO), Some(0));
        texts.forget(&key(7));
        let rest = texts.rest_ms(late, &last, Ballot::ZERO);
        assert_eq!(rest, Some(RETRY_HORIZON_MS));
    }
}
