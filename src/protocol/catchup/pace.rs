//! How many copies of records may leave a node (C1): the one machine that decides it for hinted and
//! for fetched copies, so that neither takes the time that clients' operations need.
//!
//! Each purpose has a budget of its own, and both together are the limit. One budget for both was
//! considered, and is worse:
//!
//! - *By what is under way to a member.* Hinted copies are answered, fetched ones are not: who
//!   fetches has a window of its own, and asks again. *Counter-history: a member requests 1,024
//!   keys, and its process restarts, or the copies are lost. If they counted as under way, no
//!   answer would ever take them back, and the hints for that member would wait for a timeout, at
//!   each loss again. With an answer to each, a full catch-up would cost twice the messages.*
//! - *By the rate.* A queue of requests is as long as the requester lags, and hints are as many as
//!   the writes that a member missed; each can use up any rate for minutes. *Counter-history: a
//!   learner fetches a million records under load, at 5,000 a second. A member that was unreachable
//!   for a second meanwhile gets its hinted copies minutes later, or, once its hints have
//!   overflowed, must fetch from the same queue. If hints come first, a member whose link flaps
//!   under 5,000 writes a second keeps the learner from ever completing a pass: its requests run
//!   out of tries.* Shares for each, which neither can take from the other, are two budgets.

use crate::protocol::types::limits::{
    COPIES_ASKED_PER_SECOND_IDLE, COPIES_PER_SECOND_BUSY, COPIES_PER_SECOND_IDLE, COPIES_SIZE_MAX,
};
use crate::protocol::types::message::Now;

/// Fetched copies leave in batches, each for this much time ...
pub const PORTION_MS: u64 = 5;
/// ... or, if the node is late, for at most this much.
const PORTION_MAX_MS: u64 = 50;
/// How long a node counts as busy after an operation was in progress.
const BUSY_US: u64 = 20_000;

#[derive(Debug, Default)]
pub struct CopyPace {
    /// Hinted copies that may still leave until the next heartbeat.
    hinted: u64,
    /// Fetched copies that may still leave, as of `portion_us`: keys ...
    fetched: u64,
    /// ... and bytes.
    size_left: usize,
    /// The size of the last fetched copy.
    size_last: usize,
    portion_us: u64,
    busy_until_us: u64,
}

impl CopyPace {
    /// At each heartbeat. `is_busy`: operations are in progress.
    pub fn renew_hinted(&mut self, heartbeat_ms: u64, is_busy: bool) {
        let per_second = match is_busy {
            true => COPIES_PER_SECOND_BUSY,
            false => COPIES_PER_SECOND_IDLE,
        };
        self.hinted = (per_second * heartbeat_ms / 1_000).max(1);
    }

    pub fn may_send_hinted(&self) -> bool {
        self.hinted > 0
    }

    /// A hinted copy is started, or sent again.
    pub fn start_hinted(&mut self) {
        self.hinted = self.hinted.saturating_sub(1);
    }

    /// Fetched copies are about to leave. `is_busy`: operations are in progress.
    pub fn renew_fetched(&mut self, now: Now, is_busy: bool) {
        if is_busy {
            self.busy_until_us = now.mono_us + BUSY_US;
        }
        let passed_us = now.mono_us - self.portion_us.min(now.mono_us);
        if passed_us >= PORTION_MS * 1_000 {
            let per_second = match now.mono_us < self.busy_until_us {
                true => COPIES_PER_SECOND_BUSY,
                false => COPIES_ASKED_PER_SECOND_IDLE,
            };
            self.portion_us = now.mono_us;
            self.size_left = COPIES_SIZE_MAX;
            self.fetched = per_second * passed_us.min(PORTION_MAX_MS * 1_000) / 1_000_000;
        }
    }

    /// Whether another fetched copy may leave. `expected`: what those will take whose keys are
    /// still to be loaded, because these are charged when they leave.
    pub fn may_send_fetched(&self, expected: usize) -> bool {
        self.fetched > 0 && self.size_left > expected
    }

    /// What a copy is expected to take.
    pub fn expected_size(&self) -> usize {
        self.size_last
    }

    /// A fetched copy is taken from the queue.
    pub fn start_fetched(&mut self) {
        self.fetched = self.fetched.saturating_sub(1);
    }

    /// Whether the batch has space for a fetched copy whose key was loaded in the meantime.
    pub fn has_size_left(&self) -> bool {
        self.size_left > 0
    }

    /// A fetched copy of this size has left; 0 if there was nothing to send.
    pub fn charge_fetched(&mut self, size: usize) {
        self.size_left = self.size_left.saturating_sub(size);
        if size > 0 {
            self.size_last = size;
        }
    }

    /// When the next batch of fetched copies may leave.
    pub fn next_portion_us(&self) -> u64 {
        self.portion_us + PORTION_MS * 1_000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(mono_ms: u64) -> Now {
        Now {
            mono_us: mono_ms * 1_000,
            wall_ms: 0,
        }
    }

    /// How many fetched copies of this size leave in one batch.
    fn fetched(pace: &mut CopyPace, size: usize) -> u64 {
        let mut many = 0;
        while pace.may_send_fetched(0) {
            pace.start_fetched();
            pace.charge_fetched(size);
            many += 1;
        }
        many
    }

    #[test]
    fn fetched_copies_leave_at_their_rate() {
        let mut pace = CopyPace::default();
        pace.renew_fetched(at(1_000), true);
        let late = COPIES_PER_SECOND_BUSY * PORTION_MAX_MS / 1_000;
        assert_eq!(fetched(&mut pace, 10), late);
        pace.renew_fetched(at(1_000 + PORTION_MS - 1), true);
        assert_eq!(fetched(&mut pace, 10), 0, "it is not time yet");
        pace.renew_fetched(at(1_000 + PORTION_MS), false);
        let busy = COPIES_PER_SECOND_BUSY * PORTION_MS / 1_000;
        assert_eq!(fetched(&mut pace, 10), busy, "it was busy just now");
        pace.renew_fetched(at(1_100), false);
        let idle = COPIES_ASKED_PER_SECOND_IDLE * PORTION_MAX_MS / 1_000;
        assert_eq!(fetched(&mut pace, 10), idle);
        pace.renew_fetched(at(1_200), false);
        let large = COPIES_SIZE_MAX / 4;
        assert_eq!(fetched(&mut pace, large), 4);
    }

    /// See the module's documentation.
    #[test]
    fn neither_purpose_uses_up_what_is_left_for_the_other() {
        let mut pace = CopyPace::default();
        let per_heartbeat = COPIES_PER_SECOND_BUSY * 50 / 1_000;
        pace.renew_hinted(50, true);
        pace.renew_fetched(at(1_000), true);
        while pace.may_send_fetched(0) {
            pace.start_fetched();
            pace.charge_fetched(COPIES_SIZE_MAX);
        }
        let mut hinted = 0;
        while pace.may_send_hinted() {
            pace.start_hinted();
            hinted += 1;
        }
        assert_eq!(hinted, per_heartbeat, "a long queue of requests");
        pace.renew_fetched(at(1_005), true);
        assert!(fetched(&mut pace, 10) > 0, "many hints");
    }
}
