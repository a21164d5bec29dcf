//! Warnings that repeat: at once, then after one second, two, four, up to a minute.

use std::time::{Duration, Instant};

const INTERVAL_MIN: Duration = Duration::from_secs(1);
const INTERVAL_MAX: Duration = Duration::from_secs(64);

/// When a trouble that goes on is logged again.
#[derive(Debug, Default)]
pub struct Backoff {
    next: Option<Instant>,
    interval: Duration,
}

impl Backoff {
    /// Whether the trouble, which is there now, is to be logged. A trouble that was gone for longer than
    /// the longest interval is a new one.
    pub fn is_due(&mut self, now: Instant) -> bool {
        let Some(next) = self.next.filter(|next| now < *next + INTERVAL_MAX) else {
            self.interval = INTERVAL_MIN;
            self.next = Some(now + self.interval);
            return true;
        };
        if now < next {
            return false;
        }
        self.interval = (self.interval * 2).min(INTERVAL_MAX);
        self.next = Some(now + self.interval);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trouble_that_goes_on_is_logged_ever_less_often() {
        let began = Instant::now();
        let mut backoff = Backoff::default();
        let due =
            |backoff: &mut Backoff, seconds| backoff.is_due(began + Duration::from_secs(seconds));
        let times: Vec<u64> = (0..400).filter(|s| due(&mut backoff, *s)).collect();
        assert_eq!(times, [0, 1, 3, 7, 15, 31, 63, 127, 191, 255, 319, 383]);
        assert!(!due(&mut backoff, 400));
        assert!(due(&mut backoff, 520), "it was gone for long");
        assert!(due(&mut backoff, 521));
    }
}
