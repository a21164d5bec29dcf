//! How long to wait for an answer.

use super::latency::Latency;

/// Before anything is known.
const WAIT_US_INITIAL: u64 = 10_000;
/// What an operation takes before any was answered, in round trips to the node: a full round there takes two
/// if the nodes are as far from each other as from here, and some take longer than others.
const ROUND_TRIPS_INITIAL: u64 = 5;
/// ... and at least.
const ROUND_TRIPS_MIN: u64 = 2;
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
    /// `rtt_us`: a round trip to the node, as in the other.
    pub fn sample(&mut self, took_us: u64, rtt_us: u64) {
        self.latency.sample(took_us.min(wait_us_max(rtt_us)));
    }

    pub fn wait_us(&self, rtt_us: u64) -> u64 {
        match self.latency.nearly_always_us() {
            None => WAIT_US_INITIAL.max(ROUND_TRIPS_INITIAL.saturating_mul(rtt_us)),
            Some(usual_us) => {
                let wait_us = (usual_us.saturating_add(SLACK_US)).max(WAIT_US_MIN);
                let slow_us = ROUND_TRIPS_MIN.saturating_mul(rtt_us);
                wait_us.max(slow_us).min(wait_us_max(rtt_us))
            }
        }
    }
}

/// The longest wait: over slow links longer.
fn wait_us_max(rtt_us: u64) -> u64 {
    WAIT_US_MAX.max(ROUND_TRIPS_INITIAL.saturating_mul(rtt_us))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_follows_the_samples_within_its_bounds() {
        let mut pace = Pace::default();
        assert_eq!(pace.wait_us(300), WAIT_US_INITIAL);
        for _ in 0..50 {
            pace.sample(100, 50);
        }
        assert_eq!(pace.wait_us(50), WAIT_US_MIN);
        for _ in 0..100 {
            pace.sample(20_000, 50);
        }
        assert!((20_000..25_000).contains(&pace.wait_us(50)));
        for _ in 0..100 {
            pace.sample(u64::MAX, 50);
        }
        assert_eq!(pace.wait_us(50), WAIT_US_MAX);
    }

    #[test]
    fn over_slow_links_an_answer_gets_the_round_trips_that_it_takes() {
        let mut pace = Pace::default();
        assert_eq!(pace.wait_us(1_000_000), 5_000_000);
        for _ in 0..50 {
            pace.sample(3_000_000, 1_000_000);
        }
        assert!((3_000_000..4_000_000).contains(&pace.wait_us(1_000_000)));
        for _ in 0..50 {
            pace.sample(1_000, 1_000_000);
        }
        assert_eq!(pace.wait_us(1_000_000), 2_000_000);
        assert_eq!(pace.wait_us(u64::MAX), u64::MAX);
    }
}
