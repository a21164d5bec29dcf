//! Operations that nodes forward to each other (X4, X5).

use wire::Outcome;
use wire::latency::allowance_us;

use crate::protocol::clients::forwards::{AnswerWait, Forwarded, Forwards, Overdue};
use crate::protocol::clients::pending::{Pending, ReplyTo};
use crate::protocol::clients::sessions::Forwarders;
use crate::protocol::keys::outbox::Way;
use crate::protocol::register::waits::RoundKind;
use crate::protocol::replica::Replica;
use crate::protocol::types::counts::Retransmission;
use crate::protocol::types::limits::FORWARD_WAIT_MS;
use crate::protocol::types::message::{Forward, ForwardAnswer, ForwardStep, Message, NodeId, Now};
use crate::protocol::types::record::Key;
use crate::protocol::types::remote_step::RemoteStep;
use crate::protocol::types::timer::Timer;

/// Operations that this node forwarded, or that were forwarded to it.
#[derive(Debug, Default)]
pub(super) struct Forwarding {
    /// X4: the attempts of other nodes that were received.
    forwarders: Forwarders,
    pub(super) forwards: Forwards,
}

impl Replica {
    pub(super) fn forward(&mut self, now: Now, to: NodeId, pending: Pending) {
        let configuration = self.identity.configuration.clone();
        let member = configuration.as_ref().and_then(|c| c.voter(to));
        let Some(to_boot) = member.and_then(|m| self.links.boot(to, m.incarnation)) else {
            self.refuse(pending);
            return;
        };
        let wait = self.answer_wait(to, &pending);
        let forwards = &mut self.forwarding.forwards;
        let attempt = forwards.begin(now.mono_us, to, to_boot, pending);
        self.counts.forwarded += 1;
        self.send_forward(now, attempt, Way::Usual);
        let due_us = now.mono_us + wait.again_us;
        self.forwarding.forwards.check_again_at(attempt, due_us);
        self.wake_for_forwards(due_us);
    }

    fn send_forward(&mut self, now: Now, attempt: u64, way: Way) {
        let Some(forwarded) = self.forwarding.forwards.get(attempt) else {
            return;
        };
        let Forwarded {
            pending,
            to,
            to_boot,
            ..
        } = forwarded;
        let received_us = pending.received_us;
        let waited_us = received_us.map_or(u64::MAX, |at_us| now.mono_us.saturating_sub(at_us));
        let (from_boot, to_boot) = (self.options.boot, *to_boot);
        let (left_ms, operation) = (pending.left_ms(now), pending.operation.clone());
        let step = pending.step.as_deref();
        let message: Message = match step.and_then(RemoteStep::of) {
            Some(step) => ForwardStep {
                from_boot,
                to_boot,
                attempt,
                left_ms,
                operation,
                step,
            }
            .into(),
            None => Forward {
                from_boot,
                to_boot,
                attempt,
                waited_us,
                left_ms,
                heard: self.links.clock(*to),
                operation,
            }
            .into(),
        };
        let envelope = self.envelope(*to, 0, message);
        self.dispatch(envelope, way);
    }

    /// X4: whether what was forwarded is executed here. It runs under the forwarder's session,
    /// which is the pair of its boot and this node's.
    pub(super) fn admits_forward(
        &mut self,
        from: NodeId,
        (from_boot, to_boot): (u64, u64),
        attempt: u64,
    ) -> bool {
        let serves = !self.requests.stopping && self.identity.votes;
        let forwarders = &mut self.forwarding.forwarders;
        let admits =
            serves && to_boot == self.options.boot && forwarders.admit(from, from_boot, attempt);
        self.counts.dropped.repeated += u64::from(!admits);
        admits
    }

    pub(super) fn handle_forward(&mut self, now: Now, from: NodeId, via: NodeId, forward: Forward) {
        let Forward {
            from_boot,
            to_boot,
            attempt,
            waited_us,
            left_ms,
            heard,
            operation,
        } = forward;
        if !self.admits_forward(from, (from_boot, to_boot), attempt) {
            return;
        }
        // X1: the forwarder had received that reading of this node's clock, so it sent the
        // operation after that.
        let announced_us = self.watch.history.reported_after_us(heard);
        let received_us = announced_us.and_then(|at_us| at_us.checked_sub(waited_us));
        let pending = Pending {
            operation,
            step: None,
            reply: ReplyTo::Node {
                node: from,
                boot: from_boot,
                attempt,
                via,
            },
            also: Vec::new(),
            // X2: a forwarded operation may have been tried before.
            tried: true,
            sent: false,
            arrived_us: now.mono_us,
            deadline_us: Pending::deadline_us(now, left_ms),
            received_us,
        };
        self.begin_operation(&pending.operation);
        self.take(now, pending);
    }

    pub(super) fn handle_forward_answer(&mut self, now: Now, answer: ForwardAnswer) {
        if answer.to_boot != self.options.boot {
            self.counts.dropped.stray += 1;
            return;
        }
        let forwards = &mut self.forwarding.forwards;
        if let Some((at_us, size)) = forwards.sent(answer.attempt)
            && allowance_us(size) > 0
            && matches!(answer.outcome, Outcome::Written { .. })
        {
            // The value went to that node, and from there to the members.
            let took_us = now.mono_us.saturating_sub(at_us);
            self.requests.waits.sample_size(took_us / 2, size);
        }
        let Some(pending) = forwards.answered(now.mono_us, answer.attempt) else {
            return;
        };
        let refusal = matches!(
            answer.outcome,
            Outcome::NoQuorum { .. }
                | Outcome::Busy { .. }
                | Outcome::Ahead { .. }
                | Outcome::Full { .. }
        );
        if refusal && pending.sent {
            // X5: this node has sent the operation in an Accept itself, so it cannot report a
            // refusal.
            self.drop_operation(pending, false);
        } else {
            self.answer(pending, answer.outcome);
        }
    }

    /// If round trips are long an operation is reclaimed late: two nodes that run the same
    /// operation only compete with each other.
    fn answer_wait(&self, to: NodeId, pending: &Pending) -> AnswerWait {
        let usual_us = self.forwarding.forwards.usual_wait_us(pending.into());
        let least_us = self.forward_least_us(to);
        let round_us = self.requests.waits.wait_us(RoundKind::Write, 0);
        let slow_us = (4 * usual_us).max(2 * round_us);
        // The value goes to that node, and from there to the members.
        let size_us = 2 * self
            .requests
            .waits
            .size_us(pending.operation.action.value_size());
        AnswerWait {
            again_us: usual_us.max(least_us) + size_us,
            reclaim_us: slow_us.max(FORWARD_WAIT_MS * 1_000).max(2 * least_us) + size_us,
        }
    }

    /// An operation that was forwarded and is not answered soon is sent again, also on an
    /// alternative path. After that it runs locally.
    pub(super) fn check_forwards(&mut self, now: Now) {
        if !self.forwarding.forwards.takes_timer(now.mono_us) {
            return;
        }
        while let Some((due_us, attempt)) = self.forwarding.forwards.first_due() {
            if due_us > now.mono_us {
                self.wake_for_forwards(due_us);
                break;
            }
            self.check_forward(now, (due_us, attempt));
        }
    }

    fn check_forward(&mut self, now: Now, (due_us, attempt): (u64, u64)) {
        let Some(forwarded) = self.forwarding.forwards.get(attempt) else {
            return;
        };
        let size = forwarded.pending.operation.action.value_size();
        let wait = self.answer_wait(forwarded.to, &forwarded.pending);
        let forwards = &mut self.forwarding.forwards;
        match forwards.overdue(now.mono_us, (due_us, attempt), wait) {
            // A large value is under way as a transfer, which repeats what is lost. On another path
            // it would travel as a whole once more. If it does not arrive, it is reclaimed.
            Some(Overdue::SendAgain) if allowance_us(size) > 0 => {}
            Some(Overdue::SendAgain) => {
                self.counts.sent_again(Retransmission::Forward);
                self.send_forward(now, attempt, Way::Detour(0));
            }
            Some(Overdue::Run(pending)) => self.reclaim(now, pending),
            None => {}
        }
    }

    /// Takes back the transactions and steps that were forwarded to nodes which are no coordinators
    /// any more, or have restarted. They may take long, so the usual wait is long, too.
    pub(super) fn take_back(&mut self, now: Now) {
        let configuration = self.identity.configuration.iter();
        let boots = configuration.flat_map(|c| c.voters()).filter_map(|m| {
            let boot = self.links.boot(m.node, m.incarnation)?;
            Some((m.node, boot))
        });
        let coordinators = self.view.coordinators();
        let present: Vec<(NodeId, u64)> = boots.filter(|(n, _)| coordinators.contains(n)).collect();
        let forwards = &mut self.forwarding.forwards;
        for pending in forwards.take_back(|to, boot| !present.contains(&(to, boot))) {
            self.reclaim(now, pending);
        }
    }

    fn wake_for_forwards(&mut self, at_us: u64) {
        if self.forwarding.forwards.needs_timer(at_us) {
            self.timers.set(at_us, Timer::Forwards);
        }
    }

    /// The other node may execute it nevertheless, so from now on no node may report that it was
    /// surely not done (X5). Steps decide nothing, and their runs know what was begun.
    pub(super) fn reclaim(&mut self, now: Now, mut pending: Pending) {
        if let ReplyTo::Step { job } = pending.reply
            && !self.transactions.wants(job)
        {
            self.drop_operation(pending, false);
            return;
        }
        self.counts.reclaimed += 1;
        pending.sent |= pending.step.is_none();
        if self.runs_rounds() {
            let key = Key::user(&pending.operation.key);
            self.run_here(now, key, pending);
        } else {
            // Without a vote or a working disk, there is nothing more to do; the client's retries
            // go to other nodes.
            self.drop_operation(pending, false);
        }
    }
}

#[cfg(test)]
mod tests {
    use wire::Full;

    use super::*;
    use crate::protocol::clients::pending::tests;
    use crate::protocol::replica::catchup::serve::tests::{NOW, replica};
    use crate::protocol::types::message::{ClientReply, Output};

    fn pending(sent: bool) -> Pending {
        Pending {
            tried: true,
            sent,
            arrived_us: NOW.mono_us,
            deadline_us: NOW.mono_us,
            received_us: Some(NOW.mono_us),
            ..tests::pending(1 << 127)
        }
    }

    /// The client's answer if the node to which an operation was forwarded answers with `outcome`.
    fn passed_on(outcome: Outcome, sent: bool) -> Option<Outcome> {
        let mut replica = replica();
        replica.begin_operation(&pending(sent).operation);
        let forwards = &mut replica.forwarding.forwards;
        let attempt = forwards.begin(NOW.mono_us, 2, 1, pending(sent));
        let answer = ForwardAnswer {
            to_boot: replica.options.boot,
            attempt,
            outcome,
        };
        replica.handle_forward_answer(NOW, answer);
        assert_eq!(
            (
                replica.requests.operations,
                replica.requests.operations_size
            ),
            (0, 0)
        );
        std::iter::from_fn(|| replica.poll_output()).find_map(|output| match output {
            Output::Reply {
                reply: ClientReply::Answer(answer),
                ..
            } => Some(answer.outcome),
            _ => None,
        })
    }

    /// X5: an operation that this node has sent in an Accept itself may be applied, whatever
    /// another node reports.
    #[test]
    fn a_refusal_is_not_passed_on_after_an_accept() {
        let no_quorum = Outcome::NoQuorum {
            reached: Vec::new(),
        };
        let full = Outcome::Full { full: Full::Memory };
        let busy = Outcome::Busy { after_ms: 70 };
        for refusal in [busy, no_quorum, full, Outcome::Ahead { clock: 1 }] {
            assert_eq!(passed_on(refusal.clone(), true), None);
            assert_eq!(passed_on(refusal.clone(), false), Some(refusal));
        }
        for sent in [true, false] {
            let outcome = Outcome::Unknown;
            assert_eq!(passed_on(outcome.clone(), sent), Some(outcome));
        }
    }
}
