//! X1: since when, by this node's monotonic clock, a key's coordinator has known that text
//! operations were applied. The readings of the coordinators that applied them do not show this,
//! because their clocks differ.

use std::collections::VecDeque;

use wire::clock::Reading;

use crate::protocol::types::limits::{CLOCK_SAMPLE_MS, TEXT_KEPT_MS};

/// Births of text operations rise within a record. So the highest birth in a chosen record shows
/// which text operations in any later record were applied by then.
#[derive(Debug, Default)]
pub struct TextSeen {
    /// When a record was seen chosen, and the highest birth in it.
    samples: VecDeque<(u64, Reading)>,
}

impl TextSeen {
    /// A record was chosen whose newest text operation has this birth.
    pub fn chosen(&mut self, now_us: u64, birth: Reading) {
        let newest = self.samples.back();
        if newest.is_some_and(|(_, seen)| *seen >= birth) {
            return;
        }
        let settled_us = now_us.saturating_sub(TEXT_KEPT_MS * 1_000);
        while self
            .samples
            .get(1)
            .is_some_and(|(at_us, _)| *at_us <= settled_us)
        {
            self.samples.pop_front();
        }
        // The newest sample is replaced until it is far enough from the one before it.
        let count = self.samples.len();
        let before = count.checked_sub(2).map(|place| self.samples[place].0);
        let dense = self.samples.back().zip(before);
        if dense.is_some_and(|((at, _), before)| *at < before + CLOCK_SAMPLE_MS * 1_000) {
            self.samples.pop_back();
        }
        self.samples.push_back((now_us, birth));
    }

    /// Text operations with births at or below the result were applied at least a second ago.
    pub fn settled(&self, now_us: u64) -> Reading {
        let is_old = |(at_us, _): &&(u64, Reading)| now_us >= *at_us + TEXT_KEPT_MS * 1_000;
        let newest = self.samples.iter().rev().find(is_old);
        newest.map_or(0, |(_, birth)| *birth)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_a_second_ago_is_settled() {
        let mut seen = TextSeen::default();
        assert_eq!(seen.settled(5_000_000), 0);
        seen.chosen(1_000_000, 70);
        assert_eq!((seen.settled(1_999_999), seen.settled(2_000_000)), (0, 70));
        // If it is seen again later, it is still as old as it was.
        seen.chosen(1_900_000, 70);
        assert_eq!(seen.settled(2_000_000), 70);
    }

    #[test]
    fn a_key_that_is_written_all_the_time_needs_little_room_and_settles() {
        let mut seen = TextSeen::default();
        for ms in 1..=5_000 {
            seen.chosen(ms * 1_000, ms);
            assert!(seen.samples.len() <= 2 + (TEXT_KEPT_MS / CLOCK_SAMPLE_MS) as usize);
            let settled = seen.settled(ms * 1_000);
            assert!(
                settled <= ms.saturating_sub(TEXT_KEPT_MS),
                "{settled} at {ms}"
            );
            let least = ms.saturating_sub(TEXT_KEPT_MS + 2 * CLOCK_SAMPLE_MS);
            assert!(settled >= least, "{settled} at {ms}");
        }
        assert_eq!(seen.settled(6_000_000), 5_000);
    }
}
