//! X7: detects overload from the time that datagrams wait in the receive buffer.
//!
//! A long queue alone is no overload, because a burst gets shorter. So the node is overloaded once
//! all samples of 100 ms have shown a wait above 50 ms, until one sample shows a shorter wait.
//! CoDel (RFC 8289) uses the same criterion, with shorter times. A datagram that the kernel dropped
//! because the buffer was full counts like a long wait for 100 ms.

use crate::protocol::types::limits::{OVERLOAD_AFTER_MS, OVERLOAD_OVER_MS, RECEIVE_DELAY_MAX_MS};
use crate::protocol::types::message::Now;

#[derive(Debug, Default)]
pub struct ReceiveDelay {
    /// Since when each sample was above the bound.
    above_since_us: Option<u64>,
    is_overload: bool,
    /// The last sample.
    waited_us: u64,
    /// Until when lost datagrams count as waits above the bound.
    lost_until_us: u64,
    /// When the node was last overloaded, until the end of the overload is reported.
    reported_us: Option<u64>,
}

impl ReceiveDelay {
    /// Returns whether the node is overloaded, if that is to be reported now.
    pub fn sample(&mut self, now: Now, waited_us: u64, lost: u64) -> Option<bool> {
        self.waited_us = waited_us;
        if lost > 0 {
            self.lost_until_us = now.mono_us + OVERLOAD_AFTER_MS * 1_000;
        }
        let is_losing = now.mono_us < self.lost_until_us;
        if waited_us > RECEIVE_DELAY_MAX_MS * 1_000 || is_losing {
            let since_us = *self.above_since_us.get_or_insert(now.mono_us);
            self.is_overload |= now.mono_us - since_us >= OVERLOAD_AFTER_MS * 1_000;
        } else {
            self.above_since_us = None;
            self.is_overload = false;
        }
        if self.is_overload {
            let is_news = self.reported_us.replace(now.mono_us).is_none();
            return is_news.then_some(true);
        }
        let is_over = |at_us| now.mono_us - at_us >= OVERLOAD_OVER_MS * 1_000;
        let is_news = self.reported_us.take_if(|at_us| is_over(*at_us)).is_some();
        is_news.then_some(false)
    }

    /// Whether the node refuses operations now.
    pub fn is_overload(&self) -> bool {
        self.is_overload
    }

    /// How long the last sampled datagram had waited.
    pub fn waited_ms(&self) -> u32 {
        u32::try_from(self.waited_us / 1_000).unwrap_or(u32::MAX)
    }

    /// Whether the node refused operations in the last 5 s.
    pub fn was_overload(&self) -> bool {
        self.reported_us.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(delay: &mut ReceiveDelay, at_ms: u64, waited_ms: u64) -> (bool, Option<bool>) {
        let now = Now {
            mono_us: at_ms * 1_000,
            wall_ms: 0,
        };
        let news = delay.sample(now, waited_ms * 1_000, 0);
        (delay.is_overload(), news)
    }

    #[test]
    fn a_wait_that_stays_long_is_overload_until_one_is_short() {
        let mut delay = ReceiveDelay::default();
        for (at_ms, waited_ms, expected) in [
            (1_000, 400, (false, None)),
            (1_099, 300, (false, None)),
            (1_100, 51, (true, Some(true))),
            (1_101, 51, (true, None)),
            (1_102, 50, (false, None)),
            (1_103, 51, (false, None)),
            (1_300, 51, (true, None)),
            (1_301, 0, (false, None)),
            (6_299, 0, (false, None)),
            (6_300, 0, (false, Some(false))),
            (9_000, 0, (false, None)),
        ] {
            assert_eq!(sample(&mut delay, at_ms, waited_ms), expected, "{at_ms}");
        }
    }

    /// A small buffer overflows before anything has waited for long in it.
    #[test]
    fn a_buffer_that_overflows_again_and_again_is_overload_and_one_burst_is_none() {
        let mut delay = ReceiveDelay::default();
        for (at_ms, lost, expected) in [
            (1_000, 5, false),
            (1_050, 0, false),
            (1_100, 0, false),
            (2_000, 5, false),
            (2_090, 1, false),
            (2_100, 0, true),
            (2_189, 0, true),
            (2_190, 0, false),
        ] {
            let now = Now {
                mono_us: at_ms * 1_000,
                wall_ms: 0,
            };
            delay.sample(now, 0, lost);
            assert_eq!(delay.is_overload(), expected, "{at_ms}");
        }
    }
}
