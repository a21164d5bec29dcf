//! How long a round waits before it sends again. It speeds up what is lost; nothing depends on it
//! being right.

use kvclient::latency::Latency;

use super::limits::{RETRANSMIT_INITIAL_US, RETRANSMIT_MAX_US, RETRANSMIT_MIN_US};

#[derive(Debug, Clone, Default)]
pub struct Pace {
    latency: Latency,
}

impl Pace {
    /// How long a round took. Rounds that needed retransmissions count too: if only the others did,
    /// a wait that is too short would never be corrected.
    pub fn sample(&mut self, took_us: u64) {
        self.latency.sample(took_us);
    }

    /// The wait before the first retransmission (`sent_again` 0), doubled at each further one.
    pub fn wait_us(&self, sent_again: u32) -> u64 {
        let first = self.latency.nearly_always_us();
        let first = first
            .unwrap_or(RETRANSMIT_INITIAL_US)
            .max(RETRANSMIT_MIN_US);
        first
            .saturating_mul(1 << sent_again.min(16))
            .min(RETRANSMIT_MAX_US)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_follows_what_rounds_take_and_doubles() {
        let mut pace = Pace::default();
        assert_eq!(pace.wait_us(0), RETRANSMIT_INITIAL_US);
        for _ in 0..100 {
            pace.sample(20_000);
        }
        assert!(
            (20_000..25_000).contains(&pace.wait_us(0)),
            "{}",
            pace.wait_us(0)
        );
        assert_eq!(pace.wait_us(1), 2 * pace.wait_us(0));
        assert_eq!(pace.wait_us(30), RETRANSMIT_MAX_US);
        for _ in 0..100 {
            pace.sample(100);
        }
        assert_eq!(pace.wait_us(0), RETRANSMIT_MIN_US);
    }
}
