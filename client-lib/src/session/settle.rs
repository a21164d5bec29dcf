//! The completion of calls, by answers and by deadlines (X2, X5).
//!
//! A write's outcome that is in the key's record completes the call at once. Every other answer is
//! a refusal. A refusal completes the call only when every attempt that was sent has been answered,
//! because an open attempt may still be executed.

use super::attempts::Target;
use super::call::{CallError, Completion, settled};
use super::node::AnswerTiming;
use super::operation::ALLOWANCE_MAX;
use super::table::CallHandle;
use super::{Session, place_bit};
use wire::{Action, Answer, Outcome};

/// After an operation was re-issued this many times at once, it is re-issued at intervals.
const REMAKES_AT_ONCE_MAX: u32 = 2;
/// `no quorum` is reported no sooner than after this many round trips to the farthest node.
const NO_QUORUM_ROUND_TRIPS: u64 = 3;

impl Session {
    pub(super) fn handle_answer(&mut self, now_us: u64, place: usize, answer: Answer) {
        let Answer {
            attempt,
            clock,
            outcome,
        } = answer;
        let node = &mut self.nodes[place];
        let Some(sent) = node.attempts.peek(attempt) else {
            self.counters.late += 1;
            return;
        };
        let Target::Operation(handle) = sent.target else {
            self.counters.malformed += 1;
            return;
        };
        // B5: a clock counts only if it comes in an answer to an attempt of this session.
        self.observe(now_us, clock);
        let node = &mut self.nodes[place];
        let Some(operation) = self.table.get_mut(handle) else {
            // Another attempt completed the call. The answer is still a sample of the node's
            // latency.
            node.attempts.take(attempt);
            let is_read = matches!(
                outcome,
                Outcome::Value { .. }
                    | Outcome::Absent
                    | Outcome::Lives { .. }
                    | Outcome::Stale { .. }
                    | Outcome::Page(_)
                    | Outcome::Watched(_)
            );
            let timing = AnswerTiming {
                is_read,
                is_transaction: matches!(
                    outcome,
                    Outcome::Committed { .. } | Outcome::Failed { .. }
                ),
                sent_us: sent.sent_us,
                was_last: false,
            };
            node.take_outcome(now_us, timing, &outcome);
            self.counters.late += 1;
            return;
        };
        let is_read = operation.is_read();
        if !fits(&outcome, &operation.call.action) {
            self.counters.malformed += 1;
            return;
        }
        let was_last = operation.is_last(place, attempt);
        let timing = AnswerTiming {
            is_read,
            is_transaction: operation.is_transaction(),
            sent_us: sent.sent_us,
            was_last,
        };
        node.attempts.take(attempt);
        node.take_outcome(now_us, timing, &outcome);
        self.answered_us = now_us;
        self.answer_rate.count(now_us);
        self.allowance = (self.allowance + 1).min(ALLOWANCE_MAX);
        operation.open = operation.open.saturating_sub(1);
        if was_last {
            self.end_last(handle);
        }
        if stands(&outcome, is_read, sent.retry) {
            self.complete(handle, settled(outcome, is_read));
        } else {
            self.refused(now_us, handle, place, was_last, outcome);
        }
    }

    fn refused(
        &mut self,
        now_us: u64,
        handle: CallHandle,
        place: usize,
        was_last: bool,
        outcome: Outcome,
    ) {
        if let Outcome::Remake { dropped } = outcome {
            self.observe(now_us, dropped);
        }
        let operation = self.table.get_mut(handle).expect("the caller looked");
        let is_refused = matches!(outcome, Outcome::NoQuorum { .. });
        if is_refused && operation.call.node.is_some() && operation.is_read() {
            let error = self.no_quorum();
            self.complete(handle, Err(error));
            return;
        }
        // The answer of any other node would be the same; open attempts get time to be answered.
        let goes_elsewhere = matches!(
            outcome,
            Outcome::NoQuorum { .. }
                | Outcome::NotKnown
                | Outcome::Remake { .. }
                | Outcome::Ahead { .. }
        );
        let after_us = match outcome {
            Outcome::Busy { after_ms } => u64::from(after_ms) * 1_000,
            _ => 0,
        };
        if let Outcome::NoQuorum { reached } = &outcome {
            operation.dark |= place_bit(place);
            self.nodes[place].reached = Some(reached.clone());
        } else {
            operation.dark = 0;
        }
        // The outcome of a round has precedence, then the outcome that asks to re-issue the
        // operation.
        let says_less = |earlier: &Outcome| importance(earlier) <= importance(&outcome);
        if operation.refusal.as_ref().is_none_or(says_less) {
            operation.refusal = Some(outcome);
        }
        if operation.open == 0 && self.settle_by_refusal(now_us, handle) {
            return;
        }
        if self.check_no_quorum(now_us, handle) || !was_last {
            return;
        }
        if goes_elsewhere {
            self.turn_elsewhere(now_us, handle);
        } else {
            self.back_off(now_us, handle, after_us);
        }
    }

    /// Called when every attempt was answered. Returns true if that completes the call, or the
    /// operation was re-issued.
    fn settle_by_refusal(&mut self, now_us: u64, handle: CallHandle) -> bool {
        let operation = self.table.get_mut(handle).expect("the caller looked");
        let is_read = operation.is_read();
        match operation.refusal.take() {
            Some(outcome @ (Outcome::Remake { .. } | Outcome::Ahead { .. })) => {
                // X1: re-issued, without the caller noticing.
                operation.remakes += 1;
                let at_once = operation.remakes <= REMAKES_AT_ONCE_MAX;
                self.forget_identity(handle);
                if let Outcome::Ahead { clock } = outcome {
                    self.set_clock_back(now_us, clock);
                }
                if at_once {
                    self.send(now_us, handle);
                } else {
                    self.back_off(now_us, handle, 0);
                }
                true
            }
            Some(outcome) if !is_turned_away(&outcome) => {
                self.complete(handle, settled(outcome, is_read));
                true
            }
            other => {
                operation.refusal = other;
                if !is_read {
                    // The operation was surely not done, so the next sending is a new operation.
                    // Otherwise an early birth, derived from a node that knows no clock yet, would
                    // end as an unknown outcome (X1).
                    let tried = operation.tried;
                    self.forget_identity(handle);
                    let operation = self.table.get_mut(handle).expect("still there");
                    operation.tried = tried;
                }
                false
            }
        }
    }

    /// The node has no session for this attempt: another attempt is made.
    pub(super) fn attempt_refused(&mut self, now_us: u64, place: usize, number: u64) {
        let Some(sent) = self.nodes[place].attempts.peek(number) else {
            return;
        };
        if let Target::Operation(handle) = sent.target {
            self.nodes[place].attempts.take(number);
            let operation = self.table.get(handle);
            if operation.is_some_and(|operation| operation.is_last(place, number)) {
                self.end_last(handle);
                self.turn_elsewhere(now_us, handle);
            }
        }
    }

    /// X5: `no quorum` is reported once every given node has answered `no quorum`, or has not
    /// answered a hello, for a while; for a write only if no attempt is open. Returns true if it
    /// was reported; otherwise sets the timer.
    pub(super) fn check_no_quorum(&mut self, now_us: u64, handle: CallHandle) -> bool {
        let after_us = self.no_quorum_after_us();
        let operation = self.table.get_mut(handle).expect("the caller looked");
        let is_dark = |(place, node): (usize, &super::node::Node)| {
            node.is_silent() || operation.dark & place_bit(place) != 0
        };
        if !self.nodes.iter().enumerate().all(is_dark) {
            operation.dark_since_us = None;
        } else {
            let since_us = *operation.dark_since_us.get_or_insert(now_us);
            let long = now_us >= since_us.saturating_add(after_us);
            if long && !operation.may_be_done() {
                let error = self.no_quorum();
                self.complete(handle, Err(error));
                return true;
            }
        }
        self.arm(handle);
        false
    }

    /// How long every node must be dark or silent; zero if nothing may be sent to any node.
    pub(super) fn no_quorum_after_us(&self) -> u64 {
        if self.nodes.iter().all(|node| node.spared) {
            return 0;
        }
        // A node that is far away answers a hello no sooner.
        let farthest_us = self.nodes.iter().map(|node| node.distance.rtt_us()).max();
        let slow_us = farthest_us
            .unwrap_or(0)
            .saturating_mul(NO_QUORUM_ROUND_TRIPS);
        self.options.no_quorum_after_us.max(slow_us)
    }

    pub(super) fn no_quorum(&self) -> CallError {
        let mut words = Vec::new();
        for (place, node) in self.nodes.iter().enumerate() {
            let name = match node.id() {
                0 => format!("given node {}", place + 1),
                id => format!("node {id}"),
            };
            let own = self.choice.own;
            let cluster = node.cluster().unwrap_or(0);
            words.push(match &node.reached {
                _ if node.spared => format!("{name} is spared by the application"),
                _ if self.choice.excludes(cluster) => {
                    format!("{name} belongs to cluster {cluster:016x}, not {own:016x}")
                }
                _ if !node.is_gone() && cluster == 0 => format!("{name} belongs to no cluster yet"),
                _ if !node.is_gone() && own == 0 => format!(
                    "{name} belongs to cluster {cluster:016x}, and too few others reported theirs \
                     in time"
                ),
                Some(reached) if !node.is_silent() => format!("{name} reaches {reached:?}"),
                _ if node.is_silent() => format!("{name} does not answer"),
                _ => format!("{name} has not reported which nodes it reaches"),
            });
        }
        CallError::NoQuorum {
            detail: words.join(", "),
        }
    }

    /// A call that had to wait, and that no attempt is open for, is not sent any more.
    pub(super) fn give_up(&mut self, handle: CallHandle) {
        self.complete(handle, Err(CallError::Busy));
    }

    /// The deadline passed.
    pub(super) fn expire(&mut self, now_us: u64, handle: CallHandle) {
        let operation = self.table.get(handle).expect("the caller looked");
        if let Some((place, sent_us)) = operation.awaited() {
            let waited_us = now_us.saturating_sub(sent_us);
            self.nodes[place].window.expired(now_us, waited_us);
        }
        let operation = self.table.get(handle).expect("the caller looked");
        let error = match &operation.refusal {
            _ if operation.may_be_done() => CallError::UnknownOutcome,
            Some(Outcome::Busy { .. }) => CallError::Busy,
            // Its turn did not come.
            _ if operation.is_queued => CallError::Busy,
            Some(Outcome::NoQuorum { .. }) => self.no_quorum(),
            _ if operation.is_read() && operation.sent > 0 => CallError::TimedOut,
            // The call was never sent, or every attempt was answered: surely not done.
            _ => self.no_quorum(),
        };
        self.complete(handle, Err(error));
    }

    /// Ends every call: writes that may have been applied with an unknown outcome, all other calls
    /// as `closed`.
    pub fn close(&mut self) {
        self.closed = true;
        for handle in self.table.handles() {
            let operation = self.table.get(handle).expect("just listed");
            let error = if operation.may_be_done() {
                CallError::UnknownOutcome
            } else {
                CallError::Closed
            };
            self.complete(handle, Err(error));
        }
        self.parked.clear();
        self.ask_due(self.now_us);
    }

    pub(super) fn complete(&mut self, handle: CallHandle, result: Result<Outcome, CallError>) {
        self.end_last(handle);
        let operation = self.table.remove(handle).expect("a call completes once");
        self.forget_queued(&operation);
        self.completions.push_back(Completion {
            tag: operation.tag,
            result,
        });
        self.drop_idle_timers();
    }
}

/// Whether the outcome is final, whatever other attempts may still do. X2: the outcome of a round
/// for a retry is in the record even if the round changed nothing; but `too large` and `full` may
/// also be answered without a round.
fn stands(outcome: &Outcome, is_read: bool, retry: bool) -> bool {
    if is_turned_away(outcome) {
        return false;
    }
    let without_round = matches!(outcome, Outcome::TooLarge { .. } | Outcome::Full { .. });
    let in_record = outcome.is_in_record() || retry && !without_round;
    is_read || in_record
}

/// Whether no round came to this outcome: the attempt was not executed.
pub(super) fn is_turned_away(outcome: &Outcome) -> bool {
    importance(outcome) < 2
}

fn importance(outcome: &Outcome) -> u8 {
    match outcome {
        Outcome::NoQuorum { .. } | Outcome::Busy { .. } | Outcome::NotKnown => 0,
        Outcome::Remake { .. } | Outcome::Ahead { .. } => 1,
        _ => 2,
    }
}

/// Whether this outcome is possible for this call.
fn fits(outcome: &Outcome, action: &Action) -> bool {
    let is_read = action.is_read();
    let is_transaction = matches!(action, Action::Transact { .. });
    match outcome {
        Outcome::Committed { .. } | Outcome::Failed { .. } => is_transaction,
        Outcome::Value { .. }
        | Outcome::Absent
        | Outcome::Lives { .. }
        | Outcome::Stale { .. }
        | Outcome::NotKnown => {
            is_read && !action.is_scan() && !action.is_watch() && !is_transaction
        }
        Outcome::Page(_) => action.is_scan(),
        Outcome::Watched(_) => action.is_watch(),
        Outcome::Written { .. }
        | Outcome::NothingToDelete
        | Outcome::Conflict { .. }
        | Outcome::NotANumber
        | Outcome::Overflow => !is_read && !is_transaction,
        Outcome::Unknown
        | Outcome::Full { .. }
        | Outcome::Remake { .. }
        | Outcome::Ahead { .. } => !is_read,
        Outcome::Placed { .. } => false,
        Outcome::TooLarge { .. } | Outcome::NoQuorum { .. } | Outcome::Busy { .. } => true,
    }
}
