//! The clock bounds (B2, B5). This module knows only readings and times. Its callers know who sent
//! a reading, and handle those that are over a bound.

use wire::clock::{self, READING_LAST, Reading};

use crate::protocol::types::limits::{
    BIRTH_SLACK_MS, FOLLOW_AHEAD_MAX_MS, FOLLOWED_LAST, RECEIVED_SLACK_MS,
};
use crate::protocol::types::message::Now;
use crate::protocol::types::rules::rule;

#[derive(Debug, Clone)]
pub struct ClockBound {
    skew_max_ms: u64,
    /// The lower median of the voters' wall clocks, minus this node's monotonic clock. `None` until
    /// a quorum's clocks have arrived in this boot.
    median_offset_ms: Option<i64>,
    /// The monotonic time of the latest input.
    now_us: u64,
    /// A reading that the node's clock had, and when. With the time since then, it gives the
    /// reading at which the clock would be now if it had run on.
    reached: (Reading, u64),
    /// How far received readings may still move the clock beyond that, as of the given time. It
    /// grows with time.
    credit: (Reading, u64),
}

impl ClockBound {
    pub fn new(start: Reading, skew_max_ms: u64, now_us: u64) -> Self {
        ClockBound {
            skew_max_ms,
            median_offset_ms: None,
            now_us,
            reached: (start, now_us),
            credit: (clock::from_ms(RECEIVED_SLACK_MS), now_us),
        }
    }

    /// Call it at every input.
    pub fn pass(&mut self, now_us: u64) {
        self.now_us = self.now_us.max(now_us);
    }

    /// B2: sets the median that a quorum's wall clocks show now. It is extrapolated by monotonic
    /// time until a quorum's clocks arrive again.
    pub fn set_median(&mut self, median_ms: u64, now: Now) {
        self.median_offset_ms = Some(median_ms as i64 - (now.mono_us / 1_000) as i64);
    }

    /// B2: this node's wall clock counts up to this time. `None` while no wall clocks of other
    /// nodes are known.
    pub fn wall_bound_ms(&self, now: Now) -> Option<u64> {
        Some(self.median_ms(now)?.saturating_add(self.skew_max_ms))
    }

    /// What the median shows now.
    pub fn median_ms(&self, now: Now) -> Option<u64> {
        let offset_ms = self.median_offset_ms?;
        Some((now.mono_us / 1_000).saturating_add_signed(offset_ms))
    }

    /// B5: the latest birth that is accepted.
    pub fn birth_bound(&self) -> Reading {
        self.walls(BIRTH_SLACK_MS).max(self.reached_now())
    }

    /// B5: whether a reading received from another node is followed.
    pub fn is_believable(&self, reading: Reading) -> bool {
        let bound = self.walls(RECEIVED_SLACK_MS);
        let bound = bound.max(self.reached_now().saturating_add(self.credit_now()));
        (reading <= bound && reading <= READING_LAST) || !rule!(B5)
    }

    /// B5: whether a member whose clock stays at this reading is followed. Until this node knows
    /// the others' wall clocks it uses its own.
    pub fn may_follow(&self, reading: Reading, now: Now) -> bool {
        let wall_ms = self.wall_bound_ms(now).unwrap_or(now.wall_ms);
        let bound_ms = wall_ms.saturating_add(FOLLOW_AHEAD_MAX_MS);
        reading <= clock::from_ms(bound_ms.min(FOLLOWED_LAST_MS))
    }

    /// The clock followed a reading received from another node and now shows `last`.
    pub fn heard(&mut self, last: Reading) {
        let owned = self.walls(RECEIVED_SLACK_MS).max(self.reached_now());
        if last > owned {
            let left = self.credit_now().saturating_sub(last - owned);
            self.credit = (left, self.now_us);
        }
        self.moved(last);
    }

    /// The clock now shows `last`, by its own ticks or because a quorum reported it.
    pub fn moved(&mut self, last: Reading) {
        if last > self.reached_now() {
            self.reached = (last, self.now_us);
        }
    }

    fn walls(&self, slack_ms: u64) -> Reading {
        let now = Now {
            mono_us: self.now_us,
            ..Now::default()
        };
        let bound_ms = self.wall_bound_ms(now).unwrap_or(0);
        clock::from_ms(bound_ms.saturating_add(slack_ms).min(FOLLOWED_LAST_MS))
    }

    fn reached_now(&self) -> Reading {
        let (reading, at_us) = self.reached;
        reading.saturating_add(passed(self.now_us - at_us))
    }

    fn credit_now(&self) -> Reading {
        let (left, at_us) = self.credit;
        let grown = left.saturating_add(passed(self.now_us - at_us));
        grown.min(clock::from_ms(RECEIVED_SLACK_MS))
    }
}

const FOLLOWED_LAST_MS: u64 = clock::to_ms(FOLLOWED_LAST);

/// A duration in the units of the hybrid clock.
fn passed(us: u64) -> Reading {
    us.saturating_mul(1 << clock::COUNTER_BITS) / 1_000
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const WALL_MS: u64 = 1_800_000_000_000;
    const SKEW_MS: u64 = 60_000;

    fn at(ms: u64) -> Now {
        Now {
            mono_us: ms * 1_000,
            wall_ms: WALL_MS + ms,
        }
    }

    fn known(ms: u64) -> ClockBound {
        let mut belief = ClockBound::new(0, SKEW_MS, 0);
        belief.pass(ms * 1_000);
        belief.set_median(WALL_MS + ms, at(ms));
        belief
    }

    #[test]
    fn the_median_goes_on_with_monotonic_time() {
        let belief = known(1_000);
        let bound_ms = belief.wall_bound_ms(at(5_000));
        assert_eq!(bound_ms, Some(WALL_MS + 5_000 + SKEW_MS));
        assert_eq!(
            ClockBound::new(0, SKEW_MS, 0).wall_bound_ms(at(5_000)),
            None
        );
    }

    #[test]
    fn births_and_hearsay_have_their_bounds() {
        let belief = known(0);
        let ahead = |ms| clock::from_ms(WALL_MS + SKEW_MS + ms);
        assert_eq!(belief.birth_bound(), ahead(BIRTH_SLACK_MS));
        assert!(belief.is_believable(ahead(RECEIVED_SLACK_MS)));
        assert!(!belief.is_believable(ahead(RECEIVED_SLACK_MS) + 1));
    }

    /// A cluster whose clocks were hours ahead and were then corrected continues from where it was.
    #[test]
    fn what_the_clock_has_reached_goes_on_with_time() {
        let far = clock::from_ms(WALL_MS + 8 * 3_600_000);
        let mut belief = ClockBound::new(far, SKEW_MS, 0);
        belief.pass(2_000_000);
        belief.set_median(WALL_MS, at(2_000));
        assert_eq!(belief.birth_bound(), far + clock::from_ms(2_000));
        assert!(belief.is_believable(far + clock::from_ms(3_000)));
    }

    #[test]
    fn a_member_is_followed_for_a_year_and_not_near_the_end() {
        let belief = known(0);
        let ahead = |ms| clock::from_ms(WALL_MS + SKEW_MS + FOLLOW_AHEAD_MAX_MS + ms);
        assert!(belief.may_follow(ahead(0), at(0)) && !belief.may_follow(ahead(1), at(0)));
        let mut late = known(0);
        late.set_median(FOLLOWED_LAST_MS, at(0));
        assert!(late.may_follow(FOLLOWED_LAST, at(0)));
        assert!(!late.may_follow(FOLLOWED_LAST + clock::from_ms(1), at(0)));
        assert!(late.birth_bound() <= FOLLOWED_LAST);
    }

    #[test]
    fn nothing_brings_the_clock_to_its_end() {
        let mut belief = ClockBound::new(READING_LAST - 1, SKEW_MS, 0);
        belief.pass(u64::MAX);
        assert!(belief.is_believable(READING_LAST) && !belief.is_believable(READING_LAST + 1));
    }

    proptest! {
        /// However many readings arrive, and however often: beyond the wall clocks they advance the
        /// clock at twice the pace of time at most.
        #[test]
        fn hearsay_runs_at_twice_the_pace_of_time(
            steps in prop::collection::vec((0u64..2_000_000, 0u64..200_000_000), 1..200),
            start in 0u64..100_000,
        ) {
            let start = clock::from_ms(WALL_MS + 8 * 3_600_000) + start;
            let mut belief = ClockBound::new(start, SKEW_MS, 0);
            belief.set_median(WALL_MS, at(0));
            let (mut now_us, mut last) = (0, start);
            for (us, ahead) in steps {
                now_us += us;
                belief.pass(now_us);
                // A reading at or near the bound is the strongest possible attack.
                for reading in [last + ahead, last + ahead / 1_000, last + 1] {
                    if belief.is_believable(reading) && reading > last {
                        last = reading;
                        belief.heard(last);
                    }
                }
            }
            let most = start + passed(2 * now_us) + clock::from_ms(RECEIVED_SLACK_MS);
            prop_assert!(last <= most + 1_000, "{} beyond", last - most);
        }
    }
}
