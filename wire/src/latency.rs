//! How long to wait for a reply before retransmission, estimated from how long earlier replies
//! took. The estimate affects speed only; correctness does not depend on it.
//!
//! It uses medians, not means. A few replies that came after retransmissions take hundreds of times
//! longer than others, and say nothing about how long to wait before the next retransmission. Means
//! of them make each wait longer, and so each further loss more expensive. Medians, however, do not
//! show that replies are of two kinds; kinds that differ, as reads and writes do, need one estimate
//! each.
//!
//! `benches/latency.rs` compares this estimate with others.

/// The bounds of a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WaitBounds {
    /// The wait before the first sample.
    pub initial_us: u64,
    pub least_us: u64,
    pub most_us: u64,
}

/// What the largest message that is not a transfer has of a value, about.
const SIZE_FREE: usize = 16 << 10;
/// A slow network: 16 bytes in a microsecond, so 1 MiB in 65 ms.
const BYTES_PER_US: usize = 16;

/// How much longer an exchange may take because it carries a value of this size. The estimates
/// follow small values. A wait that is too short sends a large value again, over another path.
pub fn allowance_us(value_size: usize) -> u64 {
    (value_size.saturating_sub(SIZE_FREE) / BYTES_PER_US) as u64
}

/// The median, and the median distance from it. Each sample moves both by an eighth at most, so
/// they stay where as many samples are above as below.
#[derive(Debug, Clone, Default)]
pub struct LatencyEstimate {
    median_us: Option<u64>,
    deviation_us: u64,
    /// The next wait is doubled.
    is_patient: bool,
}

const STEP: u64 = 8;
/// If samples are spread evenly around their median, nearly all are within this many deviations.
const DEVIATIONS: u64 = 5;
/// Allowance for short pauses of a node that is otherwise steady.
const SLACK_US: u64 = 1_000;

impl LatencyEstimate {
    /// Records that a reply came `took_us` after the first datagram. `since_again_us` is the time
    /// since the last retransmission, if there was one and the reply does not identify the datagram
    /// that it answers.
    ///
    /// In that case the reply took at least `since_again_us`, and nothing else is certain. If the
    /// time counted from the first datagram, the time that a failed link costs would make the next
    /// wait longer, and so on until the failure is detected. But a wait that is slightly too short
    /// could then stay too short for ever; therefore every other wait is doubled.
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

    /// The time, within the bounds, by which nearly every reply that arrives at all has arrived.
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

/// Moves an estimate one step towards a sample.
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
        // A third of the requests needed retransmissions, and their replies took a thousand times
        // longer.
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
        // A failed link: each round takes the wait and one round trip, until the failure is
        // detected.
        for _ in 0..1_000 {
            let took_us = latency.wait_us(UNBOUNDED) + 400;
            latency.sample(took_us, Some(400), UNBOUNDED);
        }
        let wait_us = latency.wait_us(UNBOUNDED);
        assert!(wait_us < 4_000, "{wait_us}");
    }

    /// This holds for every ratio, because each reply may come just after a retransmission.
    #[test]
    fn a_wait_that_is_too_short_is_corrected() {
        for rtt_us in (2_000..300_000).step_by(777) {
            let mut latency = LatencyEstimate::default();
            latency.sample(400, None, UNBOUNDED);
            for _ in 0..200 {
                let first_us = latency.wait_us(UNBOUNDED);
                // Each wait is doubled.
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
