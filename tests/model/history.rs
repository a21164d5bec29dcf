//! The outcomes that the clients of a search received, without irrelevant detail: for each
//! operation, which others had ended before it began, and how it ended.

use wire::Outcome;

use super::nodes::{Nodes, OutcomeId};
use super::scope::Scope;
use crate::sim::history::{Ending, RecordedCall};

/// A run's calls and answers are divided into slots: first some calls, then some answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Operation {
    pub called: Option<u8>,
    pub ended: Option<(u8, OutcomeId)>,
    /// Attempts that arrived, as bits.
    pub arrived: u8,
    /// Attempts that were answered.
    pub answered: u8,
    /// The most informative of the answers that do not complete the operation alone.
    pub best: Option<OutcomeId>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    pub operations: Vec<Operation>,
    slot: u8,
    /// Whether an operation ended in this slot, so that the next call opens another one.
    ended: bool,
}

impl History {
    pub fn new(count: usize) -> Self {
        History {
            operations: vec![Operation::default(); count],
            ..History::default()
        }
    }

    pub fn is_complete(&self) -> bool {
        self.operations.iter().all(|o| o.ended.is_some())
    }

    /// An attempt arrives. The operation begins with its first one: a client that sent its request
    /// earlier could have sent it now.
    pub fn arrives(&mut self, plan: usize, attempt: u8) {
        let operation = &mut self.operations[plan];
        operation.arrived |= 1 << attempt;
        if operation.called.is_none() {
            self.slot += u8::from(self.ended);
            self.ended = false;
            operation.called = Some(self.slot);
        }
    }

    /// An attempt is answered. Determines whether the operation ends with that, by the rules of the
    /// client library (X2): an outcome that is not in the record counts once all attempts were
    /// answered.
    pub fn answered(
        &mut self,
        nodes: &Nodes,
        plan: usize,
        attempt: u8,
        outcome: OutcomeId,
    ) -> bool {
        let operation = &mut self.operations[plan];
        operation.answered |= 1 << attempt;
        if operation.ended.is_some() {
            return false;
        }
        let weighs = |id: OutcomeId| match nodes.outcome(id) {
            Outcome::NoQuorum { .. } | Outcome::Busy { .. } => 0,
            Outcome::Remake { .. } | Outcome::Ahead { .. } => 1,
            _ => 2,
        };
        let best = operation
            .best
            .filter(|best| weighs(*best) >= weighs(outcome));
        operation.best = best.or(Some(outcome));
        let plan = &nodes.scope.plans[plan];
        let all = (1u8 << plan.attempts.len()) - 1;
        let in_record = nodes.outcome(outcome).is_in_record() || attempt > 0;
        let stands = weighs(outcome) == 2 && (in_record || plan.action.is_read());
        let ended = if stands {
            Some(outcome)
        } else {
            operation.best.filter(|_| operation.answered == all)
        };
        operation.ended = ended.map(|outcome| (self.slot, outcome));
        self.ended |= ended.is_some();
        ended.is_some()
    }

    /// The complete state of the history.
    pub fn encode(&self, into: &mut Vec<u8>) {
        into.extend([self.slot, self.ended.into()]);
        for o in &self.operations {
            into.extend([o.called.map_or(0, |slot| slot + 1), o.arrived, o.answered]);
            let (slot, outcome) = o.ended.map_or((0, 0), |(slot, id)| (slot + 1, id + 1));
            into.push(slot);
            into.extend(outcome.to_le_bytes());
            into.extend(o.best.map_or(0, |id| id + 1).to_le_bytes());
        }
    }

    /// The calls in the form of the checker.
    pub fn calls(&self, nodes: &Nodes) -> Vec<RecordedCall> {
        let Scope { plans, .. } = &nodes.scope;
        let mut calls = Vec::new();
        for (n, (operation, plan)) in self.operations.iter().zip(plans).enumerate() {
            let Some(slot) = operation.called else {
                continue;
            };
            let called = u64::from(slot) * 64 + n as u64;
            let ended = operation
                .ended
                .map(|(s, _)| u64::from(s) * 64 + 32 + n as u64);
            let outcome = operation.ended.map(|(_, id)| nodes.outcome(id).clone());
            calls.push(RecordedCall {
                client: n,
                key: nodes.scope.key_of(n),
                action: plan.action.clone(),
                want_old: false,
                called,
                ended,
                called_us: called,
                ended_us: ended,
                ending: outcome.map_or(Ending::Open, Ending::Answered),
            });
        }
        calls.sort_by_key(|call| call.called);
        calls
    }
}
