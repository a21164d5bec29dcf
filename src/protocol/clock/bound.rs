//! How far clocks are believed (B2, B5). Knows readings and times only; who told them, and what becomes
//! of what is not believed, is the callers'.

use wire::clock::{self, READING_LAST, Reading};

use crate::protocol::types::limits::{
    BIRTH_SLACK_MS, FOLLOW_AHEAD_MAX_MS, FOLLOWED_LAST, RECEIVED_SLACK_MS,
};
use crate::protocol::types::message::Now;
use crate::protocol::types::rules::rule;

#[derive(Debug, Clone)]
pub struct ClockBound {
    skew_max_ms: u64,
    /// The lower median of the members' wall clocks, less this node's monotonic clock; `None` until a
    /// quorum's clocks were heard in this life.
    median_offset_ms: Option<i64>,
    /// The latest input's monotonic time.
    now_us: u64,
    /// A reading that the node's clock had, and when: where it would be by now had it gone on with time.
    reached: (Reading, u64),
    /// How far hearsay may still take the clock beyond that, as of then: it grows with time.
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

    /// To be called at every input.
    pub fn pass(&mut self, now_us: u64) {
        self.now_us = self.now_us.max(now_us);
    }

    /// B2: what a quorum's wall clocks show now, as their median. It goes on with monotonic time until
    /// a quorum's clocks are heard again.
    pub fn set_median(&mut self, median_ms: u64, now: Now) {
        self.median_offset_ms = Some(median_ms as i64 - (now.mono_us / 1_000) as i64);
    }

    /// B2: the wall clock of this node counts up to here. `None`: nothing is known of the others'.
    pub fn wall_bound_ms(&self, now: Now) -> Option<u64> {
        let median_ms = (now.mono_us / 1_000).saturating_add_signed(self.median_offset_ms?);
        Some(median_ms.saturating_add(self.skew_max_ms))
    }

    /// B5: the latest birth that is taken.
    pub fn birth_bound(&self) -> Reading {
        self.walls(BIRTH_SLACK_MS).max(self.reached_now())
    }

    /// B5: whether what another node tells is followed.
    pub fn is_believable(&self, reading: Reading) -> bool {
        let bound = self.walls(RECEIVED_SLACK_MS);
        let bound = bound.max(self.reached_now().saturating_add(self.credit_now()));
        (reading <= bound && reading <= READING_LAST) || !rule!(B5)
    }

    /// B5: whether a member that stays there is followed. Before this node knows the others' wall clocks
    /// its own must do.
    pub fn may_follow(&self, reading: Reading, now: Now) -> bool {
        let wall_ms = self.wall_bound_ms(now).unwrap_or(now.wall_ms);
        let bound_ms = wall_ms.saturating_add(FOLLOW_AHEAD_MAX_MS);
        reading <= clock::from_ms(bound_ms.min(FOLLOWED_LAST_MS))
    }

    /// The clock followed what another node told.
    pub fn heard(&mut self, last: Reading) {
        let owned = self.walls(RECEIVED_SLACK_MS).max(self.reached_now());
        if last > owned {
            let left = self.credit_now().saturating_sub(last - owned);
            self.credit = (left, self.now_us);
        }
        self.moved(last);
    }

    /// The clock is here now, by its own ticks or by what a quorum told.
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

/// So much time in the clock's units.
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

    /// A cluster whose clocks were hours ahead and are set right goes on where it was.
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
        /// However much is heard, however often: beyond the walls, hearsay takes the clock on at twice
        /// the pace of time at most.
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
                // The latest that is believed is as good an attack as any.
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
