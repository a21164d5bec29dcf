//! When to free the space of purged keys: a checkpoint in a quiet moment, before the log has grown
//! to the size at which one is due in any case.

use std::time::{Duration, Instant};

/// The checkpoint waits until nothing was removed for this long.
pub const FREE_AFTER: Duration = Duration::from_secs(10);

const DROPPED_MIN: u64 = 256;
/// The most remaining registers per removed one: a checkpoint has to free enough to be worth its
/// cost.
const REGISTERS_PER_DROPPED_MAX: u64 = 8;

/// Counts removals since the last checkpoint.
#[derive(Debug)]
pub struct Drops {
    dropped: u64,
    /// When the last removal was counted, or the store was opened.
    at: Instant,
    free_after: Duration,
}

impl Drops {
    /// The number of removals that the log of an opened store contains.
    pub fn new(dropped: u64, free_after: Duration) -> Self {
        Drops {
            dropped,
            at: Instant::now(),
            free_after,
        }
    }

    pub fn add(&mut self, dropped: u64) {
        if dropped > 0 {
            self.dropped = self.dropped.saturating_add(dropped);
            self.at = Instant::now();
        }
    }

    /// Whether so many were removed that a checkpoint is worth its cost; `registers` are those of
    /// the last checkpoint.
    pub fn is_due(&self, registers: u64) -> bool {
        let left = registers.saturating_sub(self.dropped);
        let many = self.dropped >= DROPPED_MIN && self.dropped >= left / REGISTERS_PER_DROPPED_MAX;
        many && self.at.elapsed() >= self.free_after
    }

    /// Whether anything was removed since the last checkpoint.
    pub fn any(&self) -> bool {
        self.dropped > 0
    }

    /// A checkpoint begins.
    pub fn freed(&mut self) {
        self.dropped = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_is_due_once_many_were_dropped_and_none_lately() {
        let mut drops = Drops::new(0, Duration::ZERO);
        drops.add(DROPPED_MIN - 1);
        assert!(!drops.is_due(0));
        drops.add(1);
        assert!(drops.is_due(0));
        let few = (REGISTERS_PER_DROPPED_MAX + 1) * DROPPED_MIN;
        assert!(drops.is_due(few) && !drops.is_due(2 * few));
        drops.freed();
        assert!(!drops.is_due(0) && !drops.any());
        let late = Drops::new(DROPPED_MIN, Duration::from_secs(3_600));
        assert!(!late.is_due(0) && late.any());
    }
}
