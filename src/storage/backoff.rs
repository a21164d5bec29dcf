//! How long to wait after a failure before the next attempt: longer if failures follow each other.

use std::time::{Duration, Instant};

/// A failure that follows the last one within this many waits doubles the wait.
const SOON_WAITS: u32 = 4;

#[derive(Debug)]
pub struct ReopenBackoff {
    first: Duration,
    max: Duration,
    wait: Duration,
    failed_at: Option<Instant>,
}

impl ReopenBackoff {
    pub fn new(first: Duration, max: Duration) -> Self {
        ReopenBackoff {
            first,
            max,
            wait: first,
            failed_at: None,
        }
    }

    pub fn fail(&mut self, now: Instant) {
        let is_soon = |at: Instant| now.duration_since(at) < SOON_WAITS * self.wait;
        self.wait = match self.failed_at.is_some_and(is_soon) {
            true => self.max.min(2 * self.wait),
            false => self.first,
        };
        self.failed_at = Some(now);
    }

    /// The remaining wait.
    pub fn left(&self, now: Instant) -> Duration {
        let passed = self.failed_at.map(|at| now.duration_since(at));
        passed.map_or(Duration::ZERO, |passed| self.wait.saturating_sub(passed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_grows_while_failures_follow_each_other_up_to_a_bound() {
        let second = Duration::from_secs(1);
        let mut backoff = ReopenBackoff::new(2 * second, 8 * second);
        let mut now = Instant::now();
        assert_eq!(backoff.left(now), Duration::ZERO);
        for expected in [2, 4, 8, 8] {
            backoff.fail(now);
            assert_eq!(backoff.left(now), expected * second);
            now += expected * second;
            assert_eq!(backoff.left(now), Duration::ZERO);
        }
        now += 32 * second;
        backoff.fail(now);
        assert_eq!(backoff.left(now + second), second);
    }
}
