//! Queues of calls, one for each node, while the node's send window is full. The session sends them
//! in order as soon as the window has room, or to another node once this one is unusable.

use super::call::CallError;
use super::operation::NEVER;
use super::table::CallHandle;
use super::{InFlight, Session};
use wire::Outcome;

/// With fewer queued calls than this, the session does not estimate the wait.
const QUEUE_FEW: usize = 256;
/// The session refuses a call whose estimated wait is longer than this part (1/2) of its deadline.
const WAIT_PART: u64 = 2;
/// The session removes completed calls from a queue once there are more of them than queued calls,
/// and at least this many.
const STALE_FEW: usize = 64;
const SECOND_US: u64 = 1_000_000;

/// So many whole seconds show how many answers per second the cluster can give. A single one does
/// not: a cluster whose disks stall for a second goes on afterwards.
const RATE_OF_SECONDS: usize = 4;

/// The number of answers per second, counted in whole seconds.
#[derive(Debug, Default)]
pub(super) struct AnswerRate {
    began_us: u64,
    current: u64,
    /// The counts of the last seconds, the latest first.
    previous: [u64; RATE_OF_SECONDS],
}

impl AnswerRate {
    pub fn count(&mut self, now_us: u64) {
        self.advance(now_us);
        self.current += 1;
    }

    /// The most of any of the last seconds. `None` if they had no answer: then the rate is unknown.
    fn per_second(&mut self, now_us: u64) -> Option<u64> {
        self.advance(now_us);
        let most = self.previous.iter().max().copied();
        most.filter(|answers| *answers > 0)
    }

    fn advance(&mut self, now_us: u64) {
        let passed_us = now_us.saturating_sub(self.began_us);
        let seconds = usize::try_from(passed_us / SECOND_US).unwrap_or(usize::MAX);
        if seconds == 0 {
            return;
        }
        let shift = seconds.min(RATE_OF_SECONDS);
        self.previous.rotate_right(shift % RATE_OF_SECONDS);
        self.previous[..shift].fill(0);
        if let Some(ended) = self.previous.get_mut(seconds - 1) {
            *ended = self.current;
        }
        (self.began_us, self.current) = (now_us - passed_us % SECOND_US, 0);
    }
}

impl Session {
    /// Refuses a call that would wait in a queue for too large a part of its deadline. The refusal
    /// costs the cluster nothing, however many calls an application submits.
    pub(super) fn check_wait(&mut self, now_us: u64, wait_us: u64) -> Result<(), CallError> {
        if self.queued < QUEUE_FEW {
            return Ok(());
        }
        let Some(per_second) = self.answer_rate.per_second(now_us) else {
            return Ok(());
        };
        let expected_us = (self.queued as u64).saturating_mul(SECOND_US) / per_second;
        match expected_us > wait_us / WAIT_PART {
            true => Err(CallError::Busy),
            false => Ok(()),
        }
    }

    /// Whether a call for this node has to wait. A call with an open attempt does not: its retry is
    /// urgent, and retries are limited by the allowance.
    pub(super) fn is_to_queue(&self, now_us: u64, handle: CallHandle, place: usize) -> bool {
        let operation = self.table.get(handle).expect("the caller looked");
        let left_us = operation.left_us(now_us);
        operation.open == 0 && !self.nodes[place].window.has_room(now_us, left_us)
    }

    /// Whether a call that had to wait would probably not be answered by its deadline. It is not
    /// sent, so it is surely not done.
    pub(super) fn is_too_late(&self, now_us: u64, handle: CallHandle, place: usize) -> bool {
        let operation = self.table.get(handle).expect("the caller looked");
        let was_busy = matches!(operation.refusal, None | Some(Outcome::Busy { .. }));
        let has_waited = operation.has_waited && operation.open == 0 && was_busy;
        let expected_us = self.nodes[place].window.expected_us(now_us);
        has_waited && expected_us > operation.left_us(now_us)
    }

    pub(super) fn queue(&mut self, handle: CallHandle, place: usize) {
        let operation = self.table.get_mut(handle).expect("the caller looked");
        operation.retry_us = NEVER;
        operation.has_waited = true;
        if !std::mem::replace(&mut operation.is_queued, true) {
            self.queued += 1;
        }
        let table = &self.table;
        let queue = &mut self.nodes[place].queue;
        if queue.len() > STALE_FEW + 2 * self.queued {
            queue.retain(|queued| table.get(*queued).is_some_and(|call| call.is_queued));
        }
        queue.push_back(handle);
        self.arm(handle);
    }

    /// Sends queued calls to all nodes whose windows have room. Called after each input.
    pub(super) fn send_queued(&mut self, now_us: u64) {
        if self.queued == 0 {
            return;
        }
        for place in 0..self.nodes.len() {
            // Each call uses the room of this node, joins the queue of another node, or ends.
            while let Some(handle) = self.nodes[place].queue.front().copied() {
                let operation = self.table.get(handle);
                let left_us = operation.map_or(u64::MAX, |operation| operation.left_us(now_us));
                if !self.nodes[place].window.has_room(now_us, left_us) {
                    break;
                }
                self.nodes[place].queue.pop_front();
                if self.unqueue(handle) {
                    self.send(now_us, handle);
                }
            }
        }
    }

    /// Returns false if the call is completed or was not queued.
    fn unqueue(&mut self, handle: CallHandle) -> bool {
        let Some(operation) = self.table.get_mut(handle) else {
            return false;
        };
        let was_queued = std::mem::replace(&mut operation.is_queued, false);
        self.queued -= usize::from(was_queued);
        was_queued
    }

    /// A call was completed, perhaps while it was queued.
    pub(super) fn forget_queued(&mut self, operation: &InFlight) {
        self.queued -= usize::from(operation.is_queued);
    }

    /// Frees the window of the node that the last attempt was sent to, if it is still counted
    /// there.
    pub(super) fn end_last(&mut self, handle: CallHandle) {
        let Some(operation) = self.table.get_mut(handle) else {
            return;
        };
        if let Some(place) = operation.end_last() {
            let value_size = operation.call.action.value_size();
            self.nodes[place].window.end(value_size);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted_by_whole_seconds() {
        let mut rate = AnswerRate::default();
        assert_eq!(rate.per_second(0), None);
        for at in 0..100 {
            rate.count(at * 10_000);
        }
        assert_eq!(rate.per_second(999_999), None);
        assert_eq!(rate.per_second(1_000_000), Some(100));
        rate.count(1_500_000);
        assert_eq!(rate.per_second(1_999_999), Some(100));
        assert_eq!(rate.per_second(2_000_000), Some(100), "the best of four");
        assert_eq!(rate.per_second(4_999_999), Some(100));
        assert_eq!(rate.per_second(5_000_000), Some(1));
        assert_eq!(rate.per_second(6_000_000), None);
        for at in 0..7 {
            rate.count(7_000_000 + at);
        }
        assert_eq!(rate.per_second(u64::MAX), None);
    }
}
