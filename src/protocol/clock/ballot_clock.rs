//! The node's hybrid clock, which gives ballots and round ids.
//!
//! This module owns how far the wall clock counts (B2). It only keeps the ceiling; `Replica`
//! persists it.

use wire::clock::{self, HybridClock, READING_LAST, Reading};

use crate::protocol::clock::bound::ClockBound;
use crate::protocol::types::limits::{
    CEILING_EARLY_MAX_MS, CEILING_LOW_WATER_MS, CEILING_STEP_MS, FOLLOWED_LAST,
};
use crate::protocol::types::message::{Now, RoundId};
use crate::protocol::types::rules::rule;

/// The clock that gives ballots and round ids, with its ceiling.
#[derive(Debug, Clone)]
pub struct BallotClock {
    clock: HybridClock,
    ceiling: Reading,
    /// How much earlier the ceiling is raised than with a fast disk.
    early_ms: u64,
    belief: ClockBound,
    clamped: bool,
    /// A wall clock that would bring the hybrid clock near its end. It is not followed.
    wall_at_end_ms: Option<u64>,
    /// For tests that switch rules off: where ids begin that do not come from the clock.
    begun: Reading,
    rounds: u64,
}

impl BallotClock {
    /// B1: a restarted node's clock starts at the ceiling, above every ballot that the node issued,
    /// promised or accepted.
    pub fn new(ceiling: Reading, skew_max_ms: u64, now: Now) -> Self {
        let start = if rule!(B1) { ceiling } else { 0 };
        BallotClock {
            clock: HybridClock::new(start),
            ceiling,
            early_ms: 0,
            belief: ClockBound::new(start, skew_max_ms, now.mono_us),
            clamped: false,
            wall_at_end_ms: None,
            begun: start,
            rounds: 0,
        }
    }

    pub fn last(&self) -> Reading {
        self.clock.last()
    }

    pub fn ceiling(&self) -> Reading {
        self.ceiling
    }

    /// Whether the wall clock is over its bound, so that it is clamped.
    pub fn is_clamped(&self) -> bool {
        self.clamped
    }

    pub fn knows_no_walls(&self) -> bool {
        self.belief.wall_bound_ms(Now::default()).is_none()
    }

    /// How far the wall clock is over its bound.
    pub fn wall_ahead_ms(&self, now: Now) -> u64 {
        let bound_ms = self.belief.wall_bound_ms(now).unwrap_or(now.wall_ms);
        now.wall_ms.saturating_sub(bound_ms)
    }

    /// B2: sets the (lower) median that a quorum's wall clocks show now.
    pub fn set_median(&mut self, median_ms: u64, now: Now) {
        self.belief.set_median(median_ms, now);
    }

    /// A clock at its end: the wall clock (`true`), or the hybrid clock (`false`), with its time in
    /// milliseconds since 1970. The node may issue nothing more.
    pub fn at_end(&self) -> Option<(u64, bool)> {
        let hybrid = (self.last() >= READING_LAST).then(|| (clock::to_ms(self.last()), false));
        hybrid.or(self.wall_at_end_ms.map(|ms| (ms, true)))
    }

    /// A new reading, never issued before. It may leave the node only once a ceiling above it is
    /// durable; see `needs_ceiling`.
    pub fn tick(&mut self, now: Now) -> Reading {
        let physical = self.believed_ms(now);
        let reading = self.clock.tick(physical);
        self.belief.moved(reading);
        reading
    }

    /// Call it at every input, before anything moves the clock.
    pub fn pass(&mut self, now: Now) {
        self.belief.pass(now.mono_us);
    }

    /// An id that no round of this node had in this boot or an earlier one (R4). It is a reading,
    /// too.
    pub fn round_id(&mut self, now: Now) -> RoundId {
        if !rule!(R4_ids) {
            self.rounds += 1;
            return self.rounds;
        }
        // Ids tick as fast as short rounds do, and alone would keep the clock above their ballots.
        // So if B1's next(b) is switched off, ids must not move the clock either.
        if !rule!(B1_next) {
            self.rounds += 1;
            return self.begun + self.rounds;
        }
        self.tick(now)
    }

    /// B5: whether a reading received from another node is followed.
    pub fn is_believable(&self, reading: Reading) -> bool {
        self.belief.is_believable(reading)
    }

    /// B5: whether an operation with this birth is accepted.
    pub fn takes_birth(&self, birth: Reading) -> bool {
        birth <= self.belief.birth_bound().max(self.last()) || !rule!(B5)
    }

    /// Moves the clock to a ballot, birth or clock that the node received. The caller has checked
    /// that it is within the clock bound.
    pub fn observe(&mut self, reading: Reading) {
        self.clock.observe(reading);
        self.belief.heard(self.clock.last());
    }

    /// B5: whether a member whose clock stays at this reading is followed.
    pub fn may_follow(&self, reading: Reading, now: Now) -> bool {
        self.belief.may_follow(reading, now)
    }

    /// Moves the clock to a reading that a quorum reported, however far ahead it is, but not near
    /// the clock's end.
    pub fn observe_agreed(&mut self, reading: Reading) {
        if reading <= FOLLOWED_LAST || !rule!(B5) {
            self.clock.observe(reading.min(READING_LAST));
            self.belief.moved(self.clock.last());
        }
    }

    /// B1: whether to raise the ceiling now. It is raised in steps, before the clock reaches it.
    pub fn needs_ceiling(&self) -> bool {
        self.clock.last() + clock::from_ms(CEILING_LOW_WATER_MS + self.early_ms) > self.ceiling
    }

    /// B1: the disk needs this long for a group. A ceiling waits for the group before it, and then
    /// for its own; meanwhile the node shall have one that is durable.
    pub fn expect_slow_disk(&mut self, group_ms: u64) {
        self.early_ms = (2 * group_ms).min(CEILING_EARLY_MAX_MS);
    }

    /// Raises the ceiling. The caller persists it.
    pub fn raise_ceiling(&mut self) -> Reading {
        self.ceiling = self.clock.last() + clock::from_ms(CEILING_STEP_MS + 2 * self.early_ms);
        self.ceiling
    }

    /// L1: the time by which keys expire: the median of the voters' wall clocks, which goes on with
    /// monotonic time. So no single clock decides, neither this node's nor a client's. Without a
    /// median, when no round begins either, this node's wall clock.
    pub fn expiry_ms(&self, now: Now) -> u64 {
        if !rule!(L1_wall) {
            return clock::to_ms(self.last());
        }
        self.belief.median_ms(now).unwrap_or(now.wall_ms)
    }

    fn believed_ms(&mut self, now: Now) -> u64 {
        if !rule!(B2) {
            return now.wall_ms;
        }
        let Some(bound_ms) = self.belief.wall_bound_ms(now) else {
            // X5 allows no round without a median. Until there is one, ticks only have to be in
            // order.
            return clock::to_ms(self.clock.last());
        };
        self.clamped = now.wall_ms > bound_ms;
        let believed_ms = now.wall_ms.min(bound_ms);
        self.wall_at_end_ms = (believed_ms >= clock::to_ms(FOLLOWED_LAST)).then_some(believed_ms);
        match self.wall_at_end_ms {
            Some(_) => clock::to_ms(self.clock.last()),
            None => believed_ms,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wall_clock_far_ahead_of_the_median_is_clamped() {
        let mut clock = BallotClock::new(0, 60_000, Now::default());
        let ahead = Now {
            mono_us: 5_000_000,
            wall_ms: 10_000_000,
        };
        clock.set_median(10_000_000 - 3_600_000, ahead);
        let reading = clock.tick(ahead);
        assert_eq!(clock::to_ms(reading), 10_000_000 - 3_600_000 + 60_000);
        assert!(clock.is_clamped());
        clock.set_median(10_000_000 - 1_000, ahead);
        assert_eq!(clock::to_ms(clock.tick(ahead)), 10_000_000);
        assert!(!clock.is_clamped());
    }

    #[test]
    fn a_restart_begins_above_the_ceiling() {
        let mut clock = BallotClock::new(clock::from_ms(500), 60_000, Now::default());
        let now = Now {
            mono_us: 0,
            wall_ms: 100,
        };
        clock.set_median(100, now);
        assert!(clock.tick(now) > clock::from_ms(500));
        assert!(clock.needs_ceiling());
        let ceiling = clock.raise_ceiling();
        assert!(ceiling > clock.last() && !clock.needs_ceiling());
    }
}
