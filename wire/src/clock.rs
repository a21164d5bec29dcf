//! Hybrid logical clock: 44 bits of wall-clock milliseconds, then 12 bits of counter.
//!
//! This module has only the arithmetic. The owner of a clock decides what is persisted, and how far
//! the clock follows a wall clock.

/// A reading: milliseconds since 1970 in the upper 44 of 56 bits, a counter in the lower 12.
pub type Reading = u64;

pub const COUNTER_BITS: u32 = 12;
/// Readings are 56 bits wide: a ballot is one reading and eight bits of node id.
pub const READING_MAX: Reading = (1 << 56) - 1;
/// The highest reading that decodes from a datagram (in the year 2248).
pub const READING_SANE_MAX: Reading = READING_MAX >> 1;
/// A node follows no reading above this one, and stops before it issues one. The value is one year
/// below what its peers decode, and far below what the node accepts from its own disk.
pub const READING_LAST: Reading = READING_SANE_MAX - from_ms(366 * 24 * 3_600_000);

pub const fn from_ms(ms: u64) -> Reading {
    ms << COUNTER_BITS
}

pub const fn to_ms(reading: Reading) -> u64 {
    reading >> COUNTER_BITS
}

/// The local clock. It never goes back, and is never behind an observed reading.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HybridClock {
    last: Reading,
}

impl HybridClock {
    pub fn new(at_least: Reading) -> Self {
        HybridClock { last: at_least }
    }

    /// The newest reading that the clock issued or observed.
    pub fn last(&self) -> Reading {
        self.last
    }

    /// Issues a reading above all earlier ones and not below the wall clock.
    ///
    /// A wall clock beyond `READING_LAST` counts as `READING_LAST`.
    pub fn tick(&mut self, wall_ms: u64) -> Reading {
        let wall_ms = wall_ms.min(to_ms(READING_LAST));
        self.last = from_ms(wall_ms).max(self.last + 1);
        assert!(self.last < READING_MAX, "the hybrid clock is at its end");
        self.last
    }

    /// Moves the clock forward to a reading from elsewhere, however far ahead that is.
    pub fn observe(&mut self, reading: Reading) {
        self.last = self.last.max(reading);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_rise_while_the_wall_clock_stands_or_falls() {
        let mut clock = HybridClock::default();
        let first = clock.tick(1_000);
        assert_eq!(to_ms(first), 1_000);
        let second = clock.tick(1_000);
        let third = clock.tick(10);
        assert!(first < second && second < third);
    }

    #[test]
    fn what_was_observed_is_never_reissued() {
        let mut clock = HybridClock::default();
        clock.observe(from_ms(5_000) + 7);
        assert_eq!(clock.tick(1), from_ms(5_000) + 8);
    }
}
