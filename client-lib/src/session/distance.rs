//! The round-trip time to one node, estimated from its answers to hellos. Repeated hellos are
//! identical until one is answered, so an answer does not identify the hello that it belongs to.

use wire::RETRY_WINDOW_MS;
use wire::latency::WaitBounds;

/// The wait for an answer before the first sample.
const WAIT_US_INITIAL: u64 = 10_000;
/// The time of an operation before any was answered, in round trips to the node. A full round takes
/// two if the nodes are as far from each other as from the client, and some rounds take longer.
const ROUND_TRIPS_INITIAL: u64 = 5;
/// Its maximum: half of the time in which a write is retried (X1). Otherwise a write that is lost
/// on its way is never sent again, where hellos have waited in the queue of a busy node for as long
/// as round trips take on the slowest links.
const WAIT_US_MAX_INITIAL: u64 = RETRY_WINDOW_MS * 1_000 / 2;
/// The minimum, in round trips.
const ROUND_TRIPS_MIN: u64 = 2;
const WAIT_US_MIN: u64 = 4_000;
const WAIT_US_MAX: u64 = 1_000_000;

/// The number of hellos whose times are remembered.
const HELLOS_KEPT: usize = 32;
/// A longer time means that the node was down, paused or busy.
const ROUND_TRIP_US_MAX: u64 = 1_500_000;
/// While it is unknown to which of several hellos the answer belongs, an operation waits at least
/// this long. If the answer belongs to the first hello, and the node is far away, the answers to
/// the other hellos arrive in the meantime.
const DOUBTFUL_WAIT_US: u64 = 150_000;

#[derive(Debug, Clone, Default)]
pub(super) struct Distance {
    /// The hellos since the last answer.
    sent_us: Vec<u64>,
    /// The number of answers to these hellos so far.
    answers: usize,
    rtt_us: u64,
    /// One of several hellos was answered, and nothing else.
    doubtful: bool,
}

impl Distance {
    /// A lower bound of the round-trip time; 0 before the first answer.
    pub fn rtt_us(&self) -> u64 {
        self.rtt_us
    }

    /// The shortest wait for an operation's answer.
    pub fn least_wait_us(&self) -> u64 {
        if self.doubtful { DOUBTFUL_WAIT_US } else { 0 }
    }

    /// The bounds of the wait for the node's answer; they are larger over slow links.
    pub fn wait_bounds(&self) -> WaitBounds {
        let slow_us = ROUND_TRIPS_INITIAL.saturating_mul(self.rtt_us);
        WaitBounds {
            initial_us: WAIT_US_INITIAL.max(slow_us.min(WAIT_US_MAX_INITIAL)),
            least_us: WAIT_US_MIN.max(ROUND_TRIPS_MIN.saturating_mul(self.rtt_us)),
            most_us: WAIT_US_MAX.max(slow_us),
        }
    }

    pub fn hello_sent(&mut self, now_us: u64) {
        if self.answers > 0 {
            self.answers = 0;
            self.sent_us.clear();
        }
        if self.sent_us.len() >= HELLOS_KEPT {
            self.sent_us.remove(0);
        }
        self.sent_us.push(now_us);
    }

    pub fn hello_answered(&mut self, now_us: u64) {
        // Usually no hello is lost, and the answers come in order.
        let Some(sent_us) = self.sent_us.get(self.answers).copied() else {
            return;
        };
        self.answers += 1;
        let took_us = now_us.saturating_sub(sent_us).max(1);
        if self.sent_us.len() == 1 {
            self.rtt_us = took_us.min(ROUND_TRIP_US_MAX);
            self.doubtful = false;
        } else if self.answers == 1 {
            // All hellos but the last may be lost, or the node may just have started.
            let last_us = self.sent_us.last().copied().unwrap_or(now_us);
            self.doubtful |= self.rtt_us == 0;
            self.rtt_us = self.rtt_us.max(now_us.saturating_sub(last_us));
        } else if took_us <= ROUND_TRIP_US_MAX {
            self.rtt_us = match self.doubtful {
                true => took_us,
                false => self.rtt_us.min(took_us),
            };
            self.doubtful = false;
        }
    }

    /// An operation was answered, which takes at least a round trip.
    pub fn answered(&mut self, took_us: u64) {
        self.rtt_us = self.rtt_us.min(took_us);
        self.doubtful = false;
    }
}

#[cfg(test)]
mod tests {
    use wire::latency::LatencyEstimate;

    use super::*;

    const MS: u64 = 1_000;

    fn after(hellos_ms: &[u64], answers_us: &[u64]) -> Distance {
        let mut distance = Distance::default();
        hellos_ms.iter().for_each(|at| distance.hello_sent(at * MS));
        answers_us
            .iter()
            .for_each(|at| distance.hello_answered(*at));
        distance
    }

    #[test]
    fn one_hello_tells_it() {
        let distance = after(&[5], &[5_300]);
        assert_eq!((distance.rtt_us(), distance.least_wait_us()), (300, 0));
    }

    #[test]
    fn over_slow_links_an_answer_gets_the_round_trips_that_it_takes() {
        let bounds = |rtt_us| {
            let distance = after(&[0], &[rtt_us]);
            let bounds = distance.wait_bounds();
            (bounds.initial_us, bounds.least_us, bounds.most_us)
        };
        assert_eq!(bounds(300), (10_000, 4_000, 1_000_000));
        assert_eq!(bounds(300_000), (1_500_000, 600_000, 1_500_000));
        assert_eq!(bounds(1_000_000), (2_500_000, 2_000_000, 5_000_000));
    }

    /// Round trips do not take as long, so this one did not show the distance.
    #[test]
    fn the_first_wait_leaves_time_for_a_retry_however_long_a_hello_took() {
        for rtt_us in [2_000_000, 60_000_000] {
            let bounds = after(&[0], &[rtt_us]).wait_bounds();
            let wait_us = LatencyEstimate::default().wait_us(bounds);
            assert_eq!(wait_us, 2 * ROUND_TRIP_US_MAX);
            assert!(wait_us < RETRY_WINDOW_MS * 1_000);
        }
    }

    #[test]
    fn on_a_fast_link_a_lost_hello_does_not_count() {
        let mut distance = after(&[0, 20, 60], &[60_300]);
        assert_eq!(distance.rtt_us(), 300);
        assert!(distance.least_wait_us() > 0, "it may be far");
        distance.answered(900);
        assert_eq!((distance.rtt_us(), distance.least_wait_us()), (300, 0));
    }

    #[test]
    fn the_second_answer_tells_that_a_node_is_far() {
        let hellos_ms = [0, 20, 60, 120, 180, 240, 300];
        let mut distance = after(&hellos_ms, &[300_000]);
        assert!(distance.rtt_us() < 10_000 && distance.least_wait_us() > 0);
        distance.hello_answered(320_000);
        assert_eq!((distance.rtt_us(), distance.least_wait_us()), (300_000, 0));
        distance.hello_answered(360_000);
        assert_eq!(distance.rtt_us(), 300_000);
    }

    #[test]
    fn a_node_that_was_away_is_not_far_for_that() {
        let hellos_ms: Vec<u64> = (0..40).map(|count| 250 * count).collect();
        let back_us = 10_000_000;
        let answered = vec![back_us; 40];
        assert_eq!(after(&hellos_ms, &answered[..1]).rtt_us(), 250_000);
        assert_eq!(
            after(&hellos_ms, &answered).rtt_us(),
            250_000,
            "it stood still"
        );
    }
}
