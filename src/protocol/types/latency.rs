//! How long a round waits before it retransmits: a smoothed estimate of round durations, like TCP's
//! estimate of round-trip times. It speeds up recovery from loss; correctness does not depend on
//! it.

use crate::protocol::types::limits::{
    BACKOFF_INITIAL_US, BACKOFF_MAX_US, RETRANSMIT_INITIAL_US, RETRANSMIT_MAX_US, RETRANSMIT_MIN_US,
};

/// A round with retransmissions enters the estimate with the weight 1 / (1 + this).
const AGAIN_WEIGHT: u64 = 15;

#[derive(Debug, Clone, Default)]
pub struct Pace {
    smoothed_us: Option<u64>,
    deviation_us: u64,
    /// The lower bound of every wait, derived from the round-trip times of the links.
    least_us: u64,
}

impl Pace {
    /// Sets the lower bound of every wait. Before the first round completes, only the links show
    /// the minimum duration of a round; if all rounds were retransmitted, their durations show it
    /// late.
    pub fn set_least_us(&mut self, least_us: u64) {
        self.least_us = least_us;
    }

    /// Records the duration of a round. A round with retransmissions has a small weight. With none,
    /// a wait that is too short would never be corrected. With the full weight, the time lost on a
    /// failed link would lengthen the next wait, and so on until the failure is detected.
    pub fn sample(&mut self, took_us: u64, sent_again: bool) {
        if sent_again {
            let smoothed = self.smoothed_us.unwrap_or(RETRANSMIT_INITIAL_US);
            self.smoothed_us = Some((AGAIN_WEIGHT * smoothed + took_us) / (AGAIN_WEIGHT + 1));
            return;
        }
        let Some(smoothed) = self.smoothed_us else {
            self.smoothed_us = Some(took_us);
            self.deviation_us = took_us / 2;
            return;
        };
        self.deviation_us = (3 * self.deviation_us + smoothed.abs_diff(took_us)) / 4;
        self.smoothed_us = Some((7 * smoothed + took_us) / 8);
    }

    /// The wait before the first retransmission (`sent_again` 0). It doubles at each further one.
    pub fn wait_us(&self, sent_again: u32) -> u64 {
        let first = self
            .smoothed_us
            .map_or(RETRANSMIT_INITIAL_US, |smoothed| {
                smoothed + 4 * self.deviation_us
            })
            .clamp(RETRANSMIT_MIN_US, RETRANSMIT_MAX_US)
            .max(self.least_us);
        first
            .saturating_mul(1 << sent_again.min(16))
            .min(RETRANSMIT_MAX_US.max(2 * self.least_us))
    }

    /// The longest wait before the next round of a coordinator that lost `lost` rounds in a row. It
    /// leaves time for the competing coordinator's round to complete.
    pub fn backoff_us(&self, lost: u32) -> u64 {
        let first_us = BACKOFF_INITIAL_US.max(self.least_us / 2);
        let most_us = BACKOFF_MAX_US.max(2 * self.least_us);
        (first_us << lost.min(10)).min(most_us)
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
            pace.sample(20_000, false);
        }
        assert!(
            (20_000..25_000).contains(&pace.wait_us(0)),
            "{}",
            pace.wait_us(0)
        );
        assert_eq!(pace.wait_us(1), 2 * pace.wait_us(0));
        assert_eq!(pace.wait_us(30), RETRANSMIT_MAX_US);
        for _ in 0..100 {
            pace.sample(100, false);
        }
        assert_eq!(pace.wait_us(0), RETRANSMIT_MIN_US);
    }

    #[test]
    fn no_wait_is_shorter_than_the_links_allow() {
        let mut pace = Pace::default();
        assert_eq!((pace.backoff_us(1), pace.backoff_us(10)), (4_000, 64_000));
        pace.set_least_us(600_000);
        let waits = [0, 1, 9].map(|again| pace.wait_us(again));
        assert_eq!(waits, [600_000, 1_200_000, 1_200_000]);
        for _ in 0..100 {
            pace.sample(2_000_000, false);
        }
        assert_eq!(pace.wait_us(0), 600_000, "a lost message is missed by then");
        assert_eq!(
            (pace.backoff_us(1), pace.backoff_us(9)),
            (600_000, 1_200_000)
        );
    }

    #[test]
    fn what_was_sent_again_does_not_drive_the_wait_up_by_itself() {
        let mut pace = Pace::default();
        pace.sample(400, false);
        // A failed link: until the failure is detected, each round takes the wait and a round trip.
        let mut lost_us = 0;
        while lost_us < 250_000 {
            let took_us = pace.wait_us(0) + 400;
            pace.sample(took_us, true);
            lost_us += took_us;
        }
        assert!(pace.wait_us(0) < 10_000, "{}", pace.wait_us(0));
        // Rounds that really take this long.
        for _ in 0..500 {
            pace.sample(50_000, true);
        }
        assert!(pace.wait_us(0) > 45_000, "{}", pace.wait_us(0));
    }
}
