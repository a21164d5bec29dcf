//! How long to wait for an answer before asking again, told from how long answers took. It speeds
//! up what is lost; nothing depends on it being right.
//!
//! Medians, not means: a few answers that came after retransmissions, hundreds of times later than
//! others, say nothing of how long to wait before the next retransmission. With means they make each
//! wait longer, and so each further loss more expensive. But medians do not show that answers are of
//! two kinds, so kinds that differ, as reads and writes do, need an estimate each.
//!
//! `benches/latency.rs` compares it with others.

/// What a wait is bounded by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WaitBounds {
    /// The wait before anything is known.
    pub initial_us: u64,
    pub least_us: u64,
    pub most_us: u64,
}

/// The median and the median distance from it. Each sample moves both by an eighth at most, so that as
/// many push up as down where they stand still.
#[derive(Debug, Clone, Default)]
pub struct LatencyEstimate {
    median_us: Option<u64>,
    deviation_us: u64,
    /// The next wait is twice as long.
    is_patient: bool,
}

const STEP: u64 = 8;
/// Of what is spread evenly around its median, nearly all is within so many deviations.
const DEVIATIONS: u64 = 5;
/// For the hiccups of a steady node.
const SLACK_US: u64 = 1_000;

impl LatencyEstimate {
    /// An answer came `took_us` after it was first asked for, and `since_again_us` after the last
    /// retransmission, if there was one and the answer does not say to which datagram it is.
    ///
    /// Then it took at least `since_again_us`, and nothing else is certain. If it counted from the
    /// first, the time that a failed link costs would make the next wait longer, and so on until it is
    /// found. But a wait that is a little too short could go on like this for ever, so every other
    /// time the next wait is twice as long.
    pub fn sample(&mut self, took_us: u64, since_again_us: Option<u64>, bounds: WaitBounds) {
        let took_us = since_again_us.unwrap_or(took_us).min(bounds.most_us);
        let is_certain = since_again_us.is_none();
        self.is_patient = !is_certain && !self.is_patient;
        let Some(median_us) = self.median_us else {
            self.median_us = Some(took_us);
            self.deviation_us = took_us / 4;
            return;
        };
        if is_certain {
            self.deviation_us = moved(self.deviation_us, took_us.abs_diff(median_us));
        }
        if is_certain || took_us > median_us {
            self.median_us = Some(moved(median_us, took_us));
        }
    }

    /// By when an answer is there nearly always, if it comes at all, within the bounds.
    pub fn wait_us(&self, bounds: WaitBounds) -> u64 {
        let usual_us = self.median_us.map(|median_us| {
            let spread_us = self.deviation_us.saturating_mul(DEVIATIONS);
            median_us.saturating_add(spread_us).saturating_add(SLACK_US)
        });
        let wait_us = usual_us.unwrap_or(bounds.initial_us).max(bounds.least_us);
        let times = if self.is_patient { 2 } else { 1 };
        wait_us.saturating_mul(times).min(bounds.most_us)
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

    const UNBOUNDED: WaitBounds = WaitBounds {
        initial_us: 10_000,
        least_us: 0,
        most_us: u64::MAX,
    };

    fn after(samples: impl IntoIterator<Item = u64>) -> u64 {
        let mut latency = LatencyEstimate::default();
        let each = |took_us| latency.sample(took_us, None, UNBOUNDED);
        samples.into_iter().for_each(each);
        latency.wait_us(UNBOUNDED) - SLACK_US
    }

    #[test]
    fn a_wait_is_within_its_bounds() {
        let bounds = WaitBounds {
            initial_us: 10_000,
            least_us: 4_000,
            most_us: 200_000,
        };
        let mut latency = LatencyEstimate::default();
        assert_eq!(latency.wait_us(bounds), 10_000);
        latency.sample(300, None, bounds);
        assert_eq!(latency.wait_us(bounds), 4_000);
        let mut latency = LatencyEstimate::default();
        latency.sample(u64::MAX, None, bounds);
        assert_eq!(latency.wait_us(bounds), 200_000);
        for _ in 0..60 {
            latency.sample(300, None, bounds);
        }
        assert_eq!(
            latency.wait_us(bounds),
            4_000,
            "one late answer is forgotten"
        );
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
        let mut latency = LatencyEstimate::default();
        let (mut beyond, mut word) = (0, 1_u64);
        for at in 0..10_000 {
            word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let took_us = 1_000 + (word >> 33) % 1_000;
            let is_beyond = took_us > latency.wait_us(UNBOUNDED) - SLACK_US;
            beyond += usize::from(at >= 100 && is_beyond);
            latency.sample(took_us, None, UNBOUNDED);
        }
        assert!(beyond < 200, "{beyond}");
        let wait_us = latency.wait_us(UNBOUNDED);
        assert!(wait_us < 5_000, "{wait_us}");
    }

    #[test]
    fn what_was_sent_again_does_not_drive_the_wait_up_by_itself() {
        let mut latency = LatencyEstimate::default();
        latency.sample(400, None, UNBOUNDED);
        // A failed link: each round takes the wait and a round trip, until it is found.
        for _ in 0..1_000 {
            let took_us = latency.wait_us(UNBOUNDED) + 400;
            latency.sample(took_us, Some(400), UNBOUNDED);
        }
        let wait_us = latency.wait_us(UNBOUNDED);
        assert!(wait_us < 4_000, "{wait_us}");
    }

    /// Whatever the ratio, since an answer may come just after a retransmission each time.
    #[test]
    fn a_wait_that_is_too_short_is_corrected() {
        for rtt_us in (2_000..300_000).step_by(777) {
            let mut latency = LatencyEstimate::default();
            latency.sample(400, None, UNBOUNDED);
            for _ in 0..200 {
                let first_us = latency.wait_us(UNBOUNDED);
                // Doubled each time.
                let (mut sent_us, mut due_us) = (0, first_us);
                while due_us < rtt_us {
                    (sent_us, due_us) = (due_us, 2 * due_us + first_us);
                }
                let since_again_us = (sent_us > 0).then(|| rtt_us - sent_us);
                latency.sample(rtt_us, since_again_us, UNBOUNDED);
            }
            let wait_us = latency.wait_us(UNBOUNDED);
            assert!(wait_us >= rtt_us, "{rtt_us}: {wait_us}");
        }
    }

    #[test]
    fn the_longest_times_do_no_harm() {
        let longest = after([u64::MAX, 0, u64::MAX, u64::MAX]);
        assert!(longest > 0);
    }
}
