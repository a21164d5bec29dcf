//! How long answers usually take, told from how long they took.
//!
//! Medians, not means: a few answers that came after retransmissions, hundreds of times later than
//! others, say nothing of how long to wait before the next retransmission. With means they make each
//! wait longer, and so each further loss more expensive.

/// The median and the median distance from it. Each sample moves both by an eighth at most, so that as
/// many push up as down where they stand still.
#[derive(Debug, Clone, Default)]
pub(super) struct Latency {
    median_us: Option<u64>,
    deviation_us: u64,
}

const STEP: u64 = 8;
/// Of what is spread evenly around its median, nearly all is within so many deviations.
const DEVIATIONS: u64 = 5;

impl Latency {
    pub fn sample(&mut self, took_us: u64) {
        let Some(median_us) = self.median_us else {
            self.median_us = Some(took_us);
            self.deviation_us = took_us / 4;
            return;
        };
        self.deviation_us = moved(self.deviation_us, took_us.abs_diff(median_us));
        self.median_us = Some(moved(median_us, took_us));
    }

    /// By when an answer is there nearly always, if it comes at all; `None` before the first.
    pub fn nearly_always_us(&self) -> Option<u64> {
        let median_us = self.median_us?;
        Some(median_us.saturating_add(self.deviation_us.saturating_mul(DEVIATIONS)))
    }
}

/// One step from an estimate towards a sample.
fn moved(estimate: u64, sample: u64) -> u64 {
    let step = (estimate / STEP).max(1);
    if sample > estimate {
        sample.min(estimate.saturating_add(step))
    } else {
        sample.max(estimate.saturating_sub(step))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(samples: impl IntoIterator<Item = u64>) -> u64 {
        let mut latency = Latency::default();
        samples.into_iter().for_each(|took| latency.sample(took));
        latency.nearly_always_us().unwrap()
    }

    #[test]
    fn nothing_is_known_at_first() {
        assert_eq!(Latency::default().nearly_always_us(), None);
    }

    #[test]
    fn it_follows_what_changes_for_good() {
        let steady = after(vec![300; 100]);
        assert!((300..320).contains(&steady), "{steady}");
        let slower = after([vec![300; 100], vec![30_000; 100]].concat());
        assert!((30_000..33_000).contains(&slower), "{slower}");
        let faster = after([vec![30_000; 100], vec![300; 100]].concat());
        assert!((300..500).contains(&faster), "{faster}");
    }

    #[test]
    fn few_late_answers_do_not_count_by_how_late_they_are() {
        // A third needed retransmissions, and came a thousand times later.
        let lossy = after((0..3_000).map(|at| if at % 3 == 0 { 300_000 } else { 300 }));
        assert!(lossy < 3_000, "{lossy}");
    }

    #[test]
    fn nearly_all_of_an_even_spread_is_within() {
        let mut latency = Latency::default();
        let (mut beyond, mut word) = (0, 1_u64);
        for at in 0..10_000 {
            word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let took_us = 1_000 + (word >> 33) % 1_000;
            let is_beyond = latency
                .nearly_always_us()
                .is_none_or(|usual| took_us > usual);
            beyond += usize::from(at >= 100 && is_beyond);
            latency.sample(took_us);
        }
        assert!(beyond < 200, "{beyond}");
        let usual_us = latency.nearly_always_us().unwrap();
        assert!(usual_us < 4_000, "{usual_us}");
    }

    #[test]
    fn the_longest_times_do_no_harm() {
        let longest = after([u64::MAX, 0, u64::MAX, u64::MAX]);
        assert!(longest > 0);
    }
}
