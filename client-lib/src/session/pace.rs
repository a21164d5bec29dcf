//! How long answers take, and so how long to wait for one.

/// Before anything is known.
const WAIT_US_INITIAL: u64 = 10_000;
/// For the hiccups of an even pace.
const SLACK_US: u64 = 1_000;
const WAIT_US_MIN: u64 = 4_000;
const WAIT_US_MAX: u64 = 1_000_000;

/// Smoothed time and deviation, as TCP has them. Each attempt has a number of its own, so retries
/// give samples too.
#[derive(Debug, Clone, Default)]
pub(super) struct Pace {
    smoothed_us: u64,
    deviation_us: u64,
    known: bool,
}

impl Pace {
    pub fn sample(&mut self, took_us: u64) {
        let took_us = took_us.min(WAIT_US_MAX);
        if self.known {
            let off = self.smoothed_us.abs_diff(took_us);
            self.deviation_us = (3 * self.deviation_us + off) / 4;
            self.smoothed_us = (7 * self.smoothed_us + took_us) / 8;
        } else {
            (self.smoothed_us, self.deviation_us) = (took_us, took_us / 2);
            self.known = true;
        }
    }

    pub fn wait_us(&self) -> u64 {
        if !self.known {
            return WAIT_US_INITIAL;
        }
        (self.smoothed_us + 4 * self.deviation_us + SLACK_US).clamp(WAIT_US_MIN, WAIT_US_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_follows_the_samples_within_its_bounds() {
        let mut pace = Pace::default();
        assert_eq!(pace.wait_us(), WAIT_US_INITIAL);
        for _ in 0..50 {
            pace.sample(100);
        }
        assert_eq!(pace.wait_us(), WAIT_US_MIN);
        for _ in 0..50 {
            pace.sample(20_000);
        }
        assert!((20_000..25_000).contains(&pace.wait_us()));
        for _ in 0..100 {
            pace.sample(u64::MAX);
        }
        assert_eq!(pace.wait_us(), WAIT_US_MAX);
    }
}
