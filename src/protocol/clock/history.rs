//! The recent readings of this node's hybrid clock, by its monotonic time. A hybrid clock may jump
//! ahead or stand still, so a reading alone does not show how long ago it was current.

use std::collections::VecDeque;

use wire::clock::Reading;

use crate::protocol::types::limits::{CLOCK_SAMPLE_MS, TEXT_AGE_MAX_MS};
use crate::protocol::types::message::Now;

#[derive(Debug, Default)]
pub struct ClockHistory {
    /// Monotonic time, and the newest reading that the clock had issued or observed by then.
    samples: VecDeque<(u64, Reading)>,
}

impl ClockHistory {
    /// Call it at every input, before anything moves the clock.
    pub fn sample(&mut self, now: Now, last: Reading) {
        let newest_us = self.samples.back().map(|(at_us, _)| *at_us);
        if newest_us.is_some_and(|at_us| now.mono_us < at_us + CLOCK_SAMPLE_MS * 1_000) {
            return;
        }
        self.samples.push_back((now.mono_us, last));
        let kept_us = now.mono_us.saturating_sub(TEXT_AGE_MAX_MS * 1_000);
        let is_kept =
            |sample: Option<&(u64, Reading)>| sample.is_some_and(|(at, _)| *at <= kept_us);
        while is_kept(self.samples.get(1)) {
            self.samples.pop_front();
        }
    }

    /// A monotonic time after which this node sent that reading of its clock. `None` if that is too
    /// long ago to determine.
    pub fn reported_after_us(&self, reading: Reading) -> Option<u64> {
        let before = |(_, shown): &&(u64, Reading)| *shown < reading;
        let newest = self.samples.iter().rev().find(before);
        newest.map(|(at_us, _)| *at_us)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Now {
        Now {
            mono_us: ms * 1_000,
            wall_ms: 0,
        }
    }

    #[test]
    fn a_reading_tells_when_it_was_told() {
        let mut past = ClockHistory::default();
        assert_eq!(past.reported_after_us(7), None);
        for ms in (1_000..=2_000).step_by(10) {
            past.sample(at(ms), 10 * ms);
        }
        assert!(past.samples.len() <= 12, "{}", past.samples.len());
        let reported_ms = past.reported_after_us(10 * 1_800).expect("of a moment ago") / 1_000;
        assert!((1_740..1_800).contains(&reported_ms), "{reported_ms}");
        assert_eq!(past.reported_after_us(10 * 1_400), None, "too long ago");
    }

    #[test]
    fn a_clock_that_jumps_makes_nothing_older_or_younger() {
        let mut past = ClockHistory::default();
        past.sample(at(1_000), 10);
        past.sample(at(1_100), 9_000_000);
        past.sample(at(1_200), 9_000_001);
        assert_eq!(past.reported_after_us(9_000_000), Some(1_000_000));
        // After a standstill, a reading may be as old as the sample before the standstill.
        past.sample(at(11_200), 9_000_002);
        assert_eq!(past.reported_after_us(9_000_002), Some(1_200_000));
    }
}
