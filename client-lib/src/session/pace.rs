//! How long to wait for an answer.

use super::latency::Latency;

/// Before anything is known.
const WAIT_US_INITIAL: u64 = 10_000;
/// For the hiccups of an even pace.
const SLACK_US: u64 = 1_000;
const WAIT_US_MIN: u64 = 4_000;
const WAIT_US_MAX: u64 = 1_000_000;

/// Each attempt has a number of its own, so retries give samples too.
#[derive(Debug, Clone, Default)]
pub(super) struct Pace {
    latency: Latency,
}

impl Pace {
    pub fn sample(&mut self, took_us: u64) {
        self.latency.sample(took_us.min(WAIT_US_MAX));
    }

    pub fn wait_us(&self) -> u64 {
        match self.latency.nearly_always_us() {
            None => WAIT_US_INITIAL,
            Some(usual_us) => (usual_us + SLACK_US).clamp(WAIT_US_MIN, WAIT_US_MAX),
        }
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
        for _ in 0..100 {
            pace.sample(20_000);
        }
        assert!((20_000..25_000).contains(&pace.wait_us()));
        for _ in 0..100 {
            pace.sample(u64::MAX);
        }
        assert_eq!(pace.wait_us(), WAIT_US_MAX);
    }
}
