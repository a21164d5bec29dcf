//! When a condition that persists is reported: at once, then again after a wait that doubles each
//! time. Pure arithmetic on the caller's monotonic clock.

/// The first wait and the longest one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waits {
    pub min_us: u64,
    pub max_us: u64,
}

/// When a persisting condition is reported again.
#[derive(Debug, Default)]
pub struct Backoff {
    next_us: Option<u64>,
    wait_us: u64,
}

impl Backoff {
    /// Whether to report the condition now, while it holds. A condition that did not hold for more
    /// than the longest wait counts as a new one.
    pub fn is_due(&mut self, now_us: u64, waits: Waits) -> bool {
        let goes_on = |next_us: &u64| now_us < next_us.saturating_add(waits.max_us);
        self.wait_us = match self.next_us.filter(goes_on) {
            Some(next_us) if now_us < next_us => return false,
            Some(_) => self.wait_us.saturating_mul(2).min(waits.max_us),
            None => waits.min_us,
        };
        self.next_us = Some(now_us.saturating_add(self.wait_us));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND_US: u64 = 1_000_000;
    const WAITS: Waits = Waits {
        min_us: SECOND_US,
        max_us: 64 * SECOND_US,
    };

    #[test]
    fn a_trouble_that_goes_on_is_told_ever_less_often() {
        for began_s in [0, 1, 1 << 40] {
            let mut backoff = Backoff::default();
            let due = |backoff: &mut Backoff, s| backoff.is_due((began_s + s) * SECOND_US, WAITS);
            let times: Vec<u64> = (0..400).filter(|s| due(&mut backoff, *s)).collect();
            assert_eq!(times, [0, 1, 3, 7, 15, 31, 63, 127, 191, 255, 319, 383]);
            assert!(!due(&mut backoff, 400));
            assert!(due(&mut backoff, 520), "it was gone for long");
            assert!(due(&mut backoff, 521));
        }
    }
}
