//! How long a round waits before it sends again: a smoothed estimate of how long rounds take, as
//! TCP keeps one of round trips. It speeds up what is lost; nothing depends on it being right.

use super::limits::{RETRANSMIT_INITIAL_US, RETRANSMIT_MAX_US, RETRANSMIT_MIN_US};

#[derive(Debug, Clone, Default)]
pub struct Pace {
    smoothed_us: Option<u64>,
    deviation_us: u64,
}

impl Pace {
    /// How long a round took. Rounds that needed retransmissions count too: if only the others did,
    /// a wait that is too short would never be corrected.
    pub fn sample(&mut self, took_us: u64) {
        let Some(smoothed) = self.smoothed_us else {
            self.smoothed_us = Some(took_us);
            self.deviation_us = took_us / 2;
            return;
        };
        self.deviation_us = (3 * self.deviation_us + smoothed.abs_diff(took_us)) / 4;
        self.smoothed_us = Some((7 * smoothed + took_us) / 8);
    }

    /// The wait before the first retransmission (`sent_again` 0), doubled at each further one.
    pub fn wait_us(&self, sent_again: u32) -> u64 {
        let first = self
            .smoothed_us
            .map_or(RETRANSMIT_INITIAL_US, |smoothed| {
                smoothed + 4 * self.deviation_us
            })
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
