//! Steps of transactions that nodes leave to each other: a key's preferred coordinator takes the
//! steps on it of all transactions, so that they queue at one node instead of competing for the
//! key with rounds (T2, T5).

use std::sync::Arc;

use wire::Outcome;

use crate::protocol::clients::pending::{Pending, ReplyTo};
use crate::protocol::keys::outbox::Way;
use crate::protocol::register::coordinator::preferred;
use crate::protocol::replica::Replica;
use crate::protocol::types::ballot::Ballot;
use crate::protocol::types::limits::BUSY_AFTER_MS;
use crate::protocol::types::message::{ForwardStep, ForwardStepAnswer, NodeId, Now};
use crate::protocol::types::record::Key;
use crate::protocol::types::remote_step::{RemoteStep, RemoteStepAnswer, operation_for};
use crate::protocol::types::rules::rule;
use crate::protocol::types::transaction::{Attempt, StepAnswer, TransactionStep};

impl Replica {
    /// The node to which a step of this node's own transactions is left: the preferred coordinator
    /// of the key, if the last promise was another node's. If it was this node's, this node needs
    /// no Prepare. `promised` is zero for a new key.
    pub(super) fn leaves_to(
        &self,
        key: &Key,
        pending: &Pending,
        promised: Ballot,
    ) -> Option<(NodeId, RemoteStep)> {
        let me = self.identity.node;
        let step = RemoteStep::of(pending.step.as_deref()?)?;
        // What was left to a node and is taken back stays here.
        let is_own = matches!(pending.reply, ReplyTo::Step { .. }) && !pending.tried;
        let serves = self.view.hears_quorum() || !rule!(X5_silence);
        if !is_own || !serves || [0, me].contains(&promised.node()) {
            return None;
        }
        let to = preferred(key, self.view.coordinators())?;
        (to != me).then_some((to, step))
    }

    pub(super) fn leave_step(&mut self, now: Now, (to, step): (NodeId, RemoteStep), own: Pending) {
        let whole = own.step.as_deref().expect("a step is left");
        let operation = operation_for(&own.operation, whole);
        let step = step.into_step(&operation).expect("it fits its operation");
        let pending = Pending {
            operation,
            step: Some(Arc::new(step)),
            ..own
        };
        self.forward(now, to, pending);
    }

    pub(super) fn handle_forward_step(
        &mut self,
        now: Now,
        from: NodeId,
        via: NodeId,
        forward: ForwardStep,
    ) {
        let ForwardStep {
            from_boot,
            to_boot,
            attempt,
            left_ms,
            operation,
            step,
        } = forward;
        if !self.admits_forward(from, (from_boot, to_boot), attempt) {
            return;
        }
        let step = step.into_step(&operation);
        let Some(step) = step.filter(|_| self.take_birth(&operation)) else {
            self.counts.dropped.stray += 1;
            return;
        };
        if let TransactionStep::Resolve {
            decided: Some((number, fate)),
        } = step
        {
            let id = operation.id;
            self.transact(now, |transactions, around| {
                transactions.learn(around, Attempt { id, number }, fate);
            });
        }
        let key = Key::user(&operation.key);
        let pending = Pending {
            operation,
            step: Some(Arc::new(step)),
            reply: ReplyTo::Node {
                node: from,
                boot: from_boot,
                attempt,
                via,
            },
            also: Vec::new(),
            tried: true,
            sent: false,
            arrived_us: now.mono_us,
            deadline_us: Pending::deadline_us(now, left_ms),
            received_us: Some(now.mono_us),
        };
        self.begin_operation(&pending.operation);
        match self.requests.has_too_many() {
            true => self.answer_busy(pending, BUSY_AFTER_MS),
            false => self.run_here(now, key, pending),
        }
    }

    /// Sends the answer of a step to the node whose transaction it is.
    pub(super) fn answer_step(&mut self, reply: ReplyTo, answer: StepAnswer) {
        let ReplyTo::Node {
            node,
            boot,
            attempt,
            via,
        } = reply
        else {
            unreachable!("no other operation has steps");
        };
        let answer = ForwardStepAnswer {
            to_boot: boot,
            attempt,
            answer: answer.into(),
        };
        let envelope = self.envelope(node, 0, answer.into());
        self.dispatch(envelope, Way::Back(via));
    }

    pub(super) fn handle_forward_step_answer(&mut self, now: Now, answer: ForwardStepAnswer) {
        let ForwardStepAnswer {
            to_boot,
            attempt,
            answer,
        } = answer;
        let forwards = &mut self.forwarding.forwards;
        let is_step = forwards.is_step(attempt);
        if to_boot != self.options.boot || !is_step {
            self.counts.dropped.stray += 1;
            return;
        }
        let Some(pending) = forwards.answered(now.mono_us, attempt) else {
            return;
        };
        match answer {
            // Without a quorum or a working disk that node runs no step. This one may.
            RemoteStepAnswer::Dropped | RemoteStepAnswer::Outcome(Outcome::NoQuorum { .. }) => {
                self.reclaim(now, pending);
            }
            answer => self.stepped(&pending, answer.into()),
        }
    }
}
