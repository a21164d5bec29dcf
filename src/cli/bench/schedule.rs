//! The schedule of an open loop.
//!
//! The interval between them is fixed: the rate then holds in every part of the run, all latency
//! above that of an idle cluster is the cluster's doing, and two runs compare. Starts by chance
//! (Poisson) would add bursts, and with them latency that differs from run to run.

use std::time::Duration;

const NS_PER_SECOND: u128 = 1_000_000_000;

/// One handle's part of the schedule: every `step`th operation, from the `first` one on.
#[derive(Debug, Clone, Copy)]
pub struct RateSchedule {
    per_second: u32,
    first: u32,
    step: u32,
}

impl RateSchedule {
    pub fn new(per_second: u32, first: u32, step: u32) -> RateSchedule {
        assert!(per_second > 0 && first < step, "a part of a schedule");
        RateSchedule {
            per_second,
            first,
            step,
        }
    }

    /// Time from the beginning to the start of the part's operation of that number.
    pub fn start_of(&self, number: u64) -> Duration {
        let place = u128::from(number) * u128::from(self.step) + u128::from(self.first);
        let ns = place * NS_PER_SECOND / u128::from(self.per_second);
        Duration::from_nanos(u64::try_from(ns).unwrap_or(u64::MAX))
    }

    /// How many operations of the part are to start before that time.
    pub fn due_before(&self, elapsed: Duration) -> u64 {
        let places = (elapsed.as_nanos() * u128::from(self.per_second)).div_ceil(NS_PER_SECOND);
        let own = places.saturating_sub(u128::from(self.first));
        u64::try_from(own.div_ceil(u128::from(self.step))).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_holds_whatever_divides_it() {
        for per_second in [1, 3, 7, 1_000, 333_333, 1_000_000] {
            for handles in [1, 2, 3, 256] {
                let parts = (0..handles).map(|at| RateSchedule::new(per_second, at, handles));
                let due = parts.map(|part| part.due_before(Duration::from_secs(10)));
                assert_eq!(due.sum::<u64>(), u64::from(per_second) * 10);
            }
        }
    }

    #[test]
    fn what_is_due_has_started() {
        for (per_second, first, step) in [(1, 0, 1), (7, 2, 3), (999_999, 1, 2)] {
            let part = RateSchedule::new(per_second, first, step);
            for number in [0, 1, 2, 1_000, 1_000_000_000] {
                let start = part.start_of(number);
                assert_eq!(
                    part.due_before(start),
                    number,
                    "{per_second}: before it starts"
                );
                let after = start + Duration::from_nanos(1);
                assert_eq!(
                    part.due_before(after),
                    number + 1,
                    "{per_second}: once it starts"
                );
            }
        }
    }
}
