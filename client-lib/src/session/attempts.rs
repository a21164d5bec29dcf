//! The attempts sent to one node, by number.
//!
//! Numbers continue from one session to the next and begin at random. An answer does not name its
//! session, so a late answer, of an earlier session or to another client that had this port, must
//! not match a new attempt.

use std::collections::VecDeque;

use super::table::CallHandle;

/// The purpose of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    Operation(CallHandle),
    Question(u64),
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Sent {
    pub target: Target,
    pub sent_us: u64,
    pub retry: bool,
    answered: bool,
}

/// Nodes distinguish 65,536 attempt numbers, in steps of 64. The client does not wait by number for
/// an attempt that is further behind than this (the attempt stays open for its operation).
const SPREAD_MAX: usize = 65_536 - 64;
/// An answer within this time is a sample of the node's latency, even when its operation is
/// completed.
const LATE_US_MAX: u64 = 5_000_000;

#[derive(Debug)]
pub(super) struct Attempts {
    /// Number of the first entry of `sent`.
    first: u64,
    sent: VecDeque<Sent>,
}

impl Attempts {
    pub fn new(first: u64) -> Self {
        Attempts {
            first,
            sent: VecDeque::new(),
        }
    }

    /// Assigns the next number. `is_over`: whether no call waits for that target any more.
    pub fn push(
        &mut self,
        now_us: u64,
        target: Target,
        retry: bool,
        is_over: impl Fn(Target) -> bool,
    ) -> u64 {
        while let Some(front) = self.sent.front() {
            let too_late = now_us > front.sent_us.saturating_add(LATE_US_MAX);
            if front.answered || self.sent.len() >= SPREAD_MAX || too_late && is_over(front.target)
            {
                self.pop_front();
            } else {
                break;
            }
        }
        self.sent.push_back(Sent {
            target,
            sent_us: now_us,
            retry,
            answered: false,
        });
        self.first + (self.sent.len() as u64 - 1)
    }

    /// Takes the attempt with that number, if an answer is awaited.
    pub fn take(&mut self, number: u64) -> Option<Sent> {
        let at = usize::try_from(number.checked_sub(self.first)?).ok()?;
        let sent = self.sent.get_mut(at).filter(|sent| !sent.answered)?;
        sent.answered = true;
        let taken = *sent;
        while self.sent.front().is_some_and(|front| front.answered) {
            self.pop_front();
        }
        Some(taken)
    }

    /// Like `take`, but leaves the attempt in place.
    pub fn peek(&self, number: u64) -> Option<Sent> {
        let at = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.sent.get(at).filter(|sent| !sent.answered).copied()
    }

    fn pop_front(&mut self) {
        self.sent.pop_front();
        self.first += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(attempts: &mut Attempts, now_us: u64) -> u64 {
        attempts.push(now_us, Target::Question(now_us), false, |_| true)
    }

    #[test]
    fn each_attempt_is_taken_once() {
        let mut attempts = Attempts::new(100);
        let numbers: Vec<u64> = (0..4).map(|at| push(&mut attempts, at)).collect();
        assert_eq!(numbers, [100, 101, 102, 103]);
        assert_eq!(attempts.take(102).unwrap().sent_us, 2);
        assert!(attempts.take(102).is_none());
        assert!(attempts.take(99).is_none());
        assert!(attempts.take(104).is_none());
        assert_eq!(attempts.take(100).unwrap().sent_us, 0);
        assert_eq!(attempts.take(101).unwrap().sent_us, 1);
        assert_eq!(push(&mut attempts, 9), 104);
        assert_eq!(attempts.sent.len(), 2);
    }

    #[test]
    fn what_is_waited_for_never_spreads_wider_than_a_window() {
        let mut attempts = Attempts::new(1);
        let first = attempts.push(0, Target::Question(0), false, |_| false);
        for _ in 0..SPREAD_MAX {
            let number = attempts.push(0, Target::Question(1), false, |_| false);
            assert!(number - attempts.first < SPREAD_MAX as u64);
            attempts.take(number);
        }
        assert!(attempts.peek(first).is_none());
    }

    #[test]
    fn an_old_attempt_that_nobody_waits_for_makes_room() {
        let mut attempts = Attempts::new(1);
        push(&mut attempts, 0);
        push(&mut attempts, LATE_US_MAX);
        assert_eq!(attempts.sent.len(), 2);
        push(&mut attempts, LATE_US_MAX + 1);
        assert_eq!(attempts.sent.len(), 2);
        assert!(attempts.take(1).is_none());
    }
}
