//! How long the last commits took, for status output.

use std::collections::VecDeque;
use std::time::Duration;

const KEPT: usize = 512;

/// The durations of the last commits, in microseconds.
#[derive(Debug, Default)]
pub struct SyncTimes {
    took_us: VecDeque<u64>,
}

impl SyncTimes {
    pub fn add(&mut self, took: Duration) {
        if self.took_us.len() == KEPT {
            self.took_us.pop_front();
        }
        let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.took_us.push_back(took_us);
    }

    /// 0 before the first commit.
    pub fn median_us(&self) -> u64 {
        let mut sorted: Vec<u64> = self.took_us.iter().copied().collect();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied().unwrap_or(0)
    }

    pub fn max_us(&self) -> u64 {
        self.took_us.iter().copied().max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ones_count() {
        let mut times = SyncTimes::default();
        assert_eq!((times.median_us(), times.max_us()), (0, 0));
        for ms in [9, 1, 5] {
            times.add(Duration::from_millis(ms));
        }
        assert_eq!((times.median_us(), times.max_us()), (5_000, 9_000));
        for _ in 0..KEPT {
            times.add(Duration::from_millis(2));
        }
        assert_eq!((times.median_us(), times.max_us()), (2_000, 2_000));
    }
}
