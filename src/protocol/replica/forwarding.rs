//! Clients' datagrams, and operations that nodes forward to each other (X4, X5).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use kvclient::wire::{
    Answer, ClientId, Hello, HelloAnswer, KEY_SIZE_MAX, NoSession, Operation, Outcome, Request,
    StatusRequest, VALUE_SIZE_MAX,
};
use rand::RngExt;

use crate::protocol::clients::pending::{Pending, ReplyTo};
use crate::protocol::clients::sessions::Admission;
use crate::protocol::clients::sessions::Forwarders;
use crate::protocol::clients::text_operation;
use crate::protocol::keys::outbox::Way;
use crate::protocol::keys::resident::Waiting;
use crate::protocol::register::coordinator;
use crate::protocol::register::latency::Pace;
use crate::protocol::replica::Replica;
use crate::protocol::types::limits::{
    FORWARD_WAIT_MS, KEY_QUEUE_MAX, OPERATIONS_MAX, OPERATIONS_SIZE_MAX,
};
use crate::protocol::types::message::{
    ClientMessage, ClientReply, Endpoint, Forward, ForwardAnswer, NodeId, Now, Output,
};
use crate::protocol::types::record::{Key, SPACE_USER};
use crate::protocol::types::rules::rule;
use crate::protocol::types::timer::Timer;

/// Operations taken back whose answers, if they still come, tell how long they take.
const TAKEN_BACK_MAX: usize = 64;

/// An operation that another node was asked to run.
#[derive(Debug)]
pub struct Forwarded {
    pending: Pending,
    to: NodeId,
    to_boot: u64,
    at_us: u64,
    sent_again: bool,
}

/// Operations that this node forwarded, or was forwarded.
#[derive(Debug, Default)]
pub(super) struct Forwarding {
    /// X4 between nodes.
    pub(super) forwarders: Forwarders,
    /// Operations forwarded and not answered, by attempt.
    pub(super) forwards: BTreeMap<u64, Forwarded>,
    /// When each of them is to be looked at.
    pub(super) forwards_due: BTreeSet<(u64, u64)>,
    /// Attempts so far, which number them.
    pub(super) forward_attempts: u64,
    /// How long forwarded operations take.
    pub(super) forward_pace: Pace,
    /// The instant for which a timer is set.
    pub(super) forwards_due_us: Option<u64>,
    /// The last operations that were taken back: their attempts, and when they were forwarded.
    pub(super) taken_back: VecDeque<(u64, u64)>,
}

impl Replica {
    pub(super) fn handle_client(&mut self, now: Now, from: Endpoint, message: ClientMessage) {
        match message {
            ClientMessage::Hello(hello) => self.greet(now, from, hello),
            ClientMessage::Request(request) => self.handle_request(now, from, request),
            ClientMessage::Sessionless { id, key, action } => {
                self.handle_sessionless(now, from, id, key, action);
            }
            ClientMessage::Change(request) => self.handle_change_request(now, from, request),
            ClientMessage::StatusRequest(StatusRequest { token, attempt }) => {
                if self.admits(from, token, None, attempt) {
                    self.tell_status(now, from, attempt);
                }
            }
        }
    }

    fn greet(&mut self, now: Now, from: Endpoint, hello: Hello) {
        if self.stopping {
            return;
        }
        // Else a session could pose as a text client, and be answered what that did.
        if text_operation::is_text(hello.client) {
            self.counters.stray += 1;
            return;
        }
        let fresh_token = self.random.random();
        let token = self
            .requests
            .sessions
            .greet(from, hello.client, hello.nonce, fresh_token);
        let answer = HelloAnswer {
            nonce: hello.nonce,
            token,
            node: if self.identity.votes {
                self.identity.node
            } else {
                0
            },
            cluster: self.cluster(),
            epoch: self.identity.configuration.as_ref().map_or(0, |c| c.epoch),
            members: self.member_addresses(),
            key_size_max: KEY_SIZE_MAX as u32,
            value_size_max: VALUE_SIZE_MAX as u32,
            shard_ports: Vec::new(),
            clock: self.clock.tick(now),
        };
        self.reply(from, ClientReply::Hello(answer));
    }

    /// X4: whether an attempt is to be executed: the first of its number, in a session that is known.
    pub(super) fn admits(
        &mut self,
        from: Endpoint,
        token: u64,
        client: Option<ClientId>,
        attempt: u64,
    ) -> bool {
        let admission = self.requests.sessions.admit(from, token, client, attempt);
        if admission != Admission::Fresh {
            self.counters.repeated += 1;
        }
        if admission == Admission::NoSession {
            self.reply(from, ClientReply::NoSession(NoSession { token, attempt }));
        }
        admission == Admission::Fresh
    }

    fn handle_request(&mut self, now: Now, from: Endpoint, request: Request) {
        // A node that stops leaves new work to others; the client turns to them.
        if self.stopping {
            return;
        }
        let Request {
            token,
            attempt,
            retry,
            operation,
        } = request;
        if !self.admits(from, token, Some(operation.id.client), attempt) {
            return;
        }
        let pending = Pending {
            operation: Arc::new(operation),
            reply: ReplyTo::Client { to: from, attempt },
            also: Vec::new(),
            tried: retry,
            sent: false,
            arrived_us: now.mono_us,
            received_us: Some(now.mono_us),
        };
        self.begin_operation(&pending.operation);
        self.take(now, pending);
    }

    /// An operation goes to the key's preferred coordinator, or into a round of this node.
    pub(super) fn take(&mut self, now: Now, pending: Pending) {
        if let Some(refusal) = self.unfit(&pending.operation) {
            self.answer(pending, refusal);
            return;
        }
        let key = Key::user(&pending.operation.key);
        let preferred = coordinator::preferred(&key, &self.view.coordinators);
        let from_client = pending.reply.is_client();
        let elsewhere = preferred.filter(|to| *to != self.identity.node && from_client);
        // X5: without a quorum nothing is forwarded either, so that this is surely true.
        let serves = self.view.hears_quorum || !rule!(X5_silence);
        if serves && !self.take_birth(&pending.operation) {
            let clock = self.clock.last();
            self.answer(pending, Outcome::Ahead { clock });
            return;
        }
        match elsewhere {
            _ if !serves => self.refuse(pending),
            Some(to) if !self.runs_rounds() || !pending.operation.action.is_read() => {
                self.forward(now, to, pending);
            }
            _ if self.identity.votes => self.run_here(now, key, pending),
            _ => self.refuse(pending),
        }
    }

    /// B5: the clock follows a birth, unless it is too far ahead. A read's means nothing.
    fn take_birth(&mut self, operation: &Operation) -> bool {
        if self.clock.takes_birth(operation.birth) {
            self.clock.observe(operation.birth);
            return true;
        }
        self.counters.ahead += 1;
        operation.action.is_read()
    }

    pub(super) fn run_here(&mut self, now: Now, key: Key, pending: Pending) {
        // It may have waited for its key since this node had a vote, or a disk that worked.
        if !self.runs_rounds_of(&key) {
            self.hand_over(now, &key, pending);
            return;
        }
        let Some(resident) = self.keys.cache.resident(&key) else {
            self.wait_for(key, Waiting::Operation(pending));
            return;
        };
        if resident
            .coordinator
            .as_ref()
            .is_some_and(|c| c.queued() >= KEY_QUEUE_MAX)
        {
            self.answer_busy(pending);
            return;
        }
        if let Some(full) = self.no_room_for(&key, &pending) {
            self.answer_full(pending, full);
            return;
        }
        self.coordinate(now, &key, |coordinator, context| {
            coordinator.submit(pending, context)
        });
    }

    /// The configuration's own rounds are not handed over: each member proposes what is wanted.
    pub(super) fn runs_rounds_of(&self, key: &Key) -> bool {
        match key.space() == SPACE_USER {
            true => self.runs_rounds() || (!self.identity.votes && !rule!(E4_rounds)),
            false => self.identity.votes || !rule!(E4_rounds),
        }
    }

    /// Without a vote a node runs no rounds: a client's operation goes to a member.
    fn hand_over(&mut self, now: Now, key: &Key, pending: Pending) {
        if !pending.reply.is_client() {
            self.drop_operation(pending, false);
        } else if let Some(to) = coordinator::preferred(key, &self.view.coordinators) {
            self.forward(now, to, pending);
        } else {
            self.refuse(pending);
        }
    }

    /// X5: `no quorum`, of an operation that was not sent in an Accept, nor forwarded.
    fn refuse(&mut self, pending: Pending) {
        let reached = self.view.near.clone();
        if pending.sent {
            self.drop_operation(pending, false);
        } else {
            self.answer(pending, Outcome::NoQuorum { reached });
        }
    }

    /// What can be said without a round: too large, too much under way.
    fn unfit(&self, operation: &Operation) -> Option<Outcome> {
        let key_size = operation.key.len();
        if key_size == 0 || key_size > KEY_SIZE_MAX {
            return Some(Outcome::TooLarge {
                limit: KEY_SIZE_MAX as u64,
            });
        }
        if operation.action.value_size() > VALUE_SIZE_MAX {
            return Some(Outcome::TooLarge {
                limit: VALUE_SIZE_MAX as u64,
            });
        }
        let is_much = self.requests.operations > OPERATIONS_MAX
            || self.requests.operations_size > OPERATIONS_SIZE_MAX;
        is_much.then_some(Outcome::Busy)
    }

    pub(super) fn answer_busy(&mut self, pending: Pending) {
        // X5: busy, too, means that it was surely not done.
        if pending.sent {
            self.drop_operation(pending, false);
        } else {
            self.answer(pending, Outcome::Busy);
        }
    }

    /// Answers all who wait for this operation.
    pub(super) fn answer(&mut self, pending: Pending, outcome: Outcome) {
        self.end_operation(&pending.operation);
        for reply in pending.also.into_iter().chain([pending.reply]) {
            match reply {
                ReplyTo::Client { to, attempt } => {
                    let clock = self.clock.last();
                    let answer = Answer {
                        attempt,
                        clock,
                        outcome: outcome.clone(),
                    };
                    self.reply(to, ClientReply::Answer(answer));
                }
                ReplyTo::Own { sequence } => {
                    self.membership
                        .changes
                        .answers
                        .push_back((sequence, outcome.clone()));
                }
                ReplyTo::Sessionless { to, id } => {
                    let outcome = outcome.clone();
                    self.reply(to, ClientReply::Sessionless { id, outcome });
                }
                ReplyTo::Node {
                    node,
                    boot,
                    attempt,
                    via,
                } => {
                    let outcome = outcome.clone();
                    let answer = ForwardAnswer {
                        to_boot: boot,
                        attempt,
                        outcome,
                    };
                    let envelope = self.envelope(node, 0, answer.into());
                    self.dispatch(envelope, Way::Back(via));
                }
            }
        }
    }

    pub(super) fn drop_operation(&mut self, pending: Pending, straggler: bool) {
        self.end_operation(&pending.operation);
        if let ReplyTo::Own { sequence } = pending.reply {
            self.membership
                .changes
                .answers
                .push_back((sequence, Outcome::Unknown));
        }
        if straggler {
            self.counters.stragglers += 1;
        } else {
            self.counters.given_up += 1;
        }
    }

    pub(super) fn reply(&mut self, to: Endpoint, reply: ClientReply) {
        self.sending.outputs.push_back(Output::Reply { to, reply });
    }

    pub(super) fn forward(&mut self, now: Now, to: NodeId, mut pending: Pending) {
        let configuration = self.identity.configuration.clone();
        let member = configuration.as_ref().and_then(|c| c.voter(to));
        let Some(to_boot) = member.and_then(|m| self.view.links.boot(to, m.incarnation)) else {
            self.refuse(pending);
            return;
        };
        self.forwarding.forward_attempts += 1;
        let attempt = self.forwarding.forward_attempts;
        pending.tried = true;
        let forwarded = Forwarded {
            pending,
            to,
            to_boot,
            at_us: now.mono_us,
            sent_again: false,
        };
        self.send_forward(now, attempt, &forwarded, Way::Usual);
        let due_us = now.mono_us + self.forward_again_us(to);
        self.forwarding.forwards.insert(attempt, forwarded);
        self.forwarding.forwards_due.insert((due_us, attempt));
        self.wake_for_forwards(due_us);
    }

    fn send_forward(&mut self, now: Now, attempt: u64, forwarded: &Forwarded, way: Way) {
        let received_us = forwarded.pending.received_us;
        let waited_us = received_us.map_or(u64::MAX, |at_us| now.mono_us.saturating_sub(at_us));
        let message = Forward {
            from_boot: self.options.boot,
            to_boot: forwarded.to_boot,
            attempt,
            waited_us,
            heard: self.view.links.clock(forwarded.to),
            operation: (*forwarded.pending.operation).clone(),
        };
        let envelope = self.envelope(forwarded.to, 0, message.into());
        self.dispatch(envelope, way);
    }

    /// X4: a forwarded request runs under the forwarder's session, which is its boot and this one's.
    pub(super) fn handle_forward(&mut self, now: Now, from: NodeId, via: NodeId, forward: Forward) {
        let Forward {
            from_boot,
            to_boot,
            attempt,
            waited_us,
            heard,
            operation,
        } = forward;
        if self.stopping || to_boot != self.options.boot || !self.identity.votes {
            self.counters.repeated += 1;
            return;
        }
        if !self.forwarding.forwarders.admit(from, from_boot, attempt) {
            self.counters.repeated += 1;
            return;
        }
        // X1: the forwarder had heard that reading of this node's clock, so it was sent after that.
        let told_us = self.watch.past.told_after_us(heard);
        let received_us = told_us.and_then(|at_us| at_us.checked_sub(waited_us));
        let pending = Pending {
            operation: Arc::new(operation),
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
            received_us,
        };
        self.begin_operation(&pending.operation);
        self.take(now, pending);
    }

    pub(super) fn handle_forward_answer(&mut self, now: Now, answer: ForwardAnswer) {
        if answer.to_boot != self.options.boot {
            self.counters.stray += 1;
            return;
        }
        let Some(forwarded) = self.forwarding.forwards.remove(&answer.attempt) else {
            // After the operation was taken back it only tells that more patience is called for.
            let late = self
                .forwarding
                .taken_back
                .iter()
                .find(|(a, _)| *a == answer.attempt);
            if let Some((_, at_us)) = late {
                let took_us = now.mono_us.saturating_sub(*at_us);
                self.forwarding.forward_pace.sample(took_us, true);
            }
            return;
        };
        let took_us = now.mono_us.saturating_sub(forwarded.at_us);
        self.forwarding
            .forward_pace
            .sample(took_us, forwarded.sent_again);
        let pending = forwarded.pending;
        let refusal = matches!(
            answer.outcome,
            Outcome::NoQuorum { .. } | Outcome::Busy | Outcome::Ahead { .. } | Outcome::Full { .. }
        );
        if refusal && pending.sent {
            // X5: this node has sent it in an Accept itself, so it can't say so.
            self.drop_operation(pending, false);
        } else {
            self.answer(pending, answer.outcome);
        }
    }

    /// How long an answer to what was forwarded is waited for before it is sent again.
    fn forward_again_us(&self, to: NodeId) -> u64 {
        let usual_us = self.forwarding.forward_pace.wait_us(0);
        usual_us.max(self.forward_least_us(to))
    }

    /// ... and before it runs here. Where round trips are long that is long too: two nodes that run the same
    /// operation only hinder each other.
    fn forward_back_us(&self, to: NodeId) -> u64 {
        let slow_us =
            (4 * self.forwarding.forward_pace.wait_us(0)).max(2 * self.requests.pace.wait_us(0));
        let usual_us = slow_us.max(FORWARD_WAIT_MS * 1_000);
        usual_us.max(2 * self.forward_least_us(to))
    }

    /// What was forwarded and is not answered soon is sent again, also by another way; then it runs
    /// here.
    pub(super) fn look_at_forwards(&mut self, now: Now) {
        // A timer that was overtaken by an earlier one.
        if self
            .forwarding
            .forwards_due_us
            .is_some_and(|due_us| now.mono_us < due_us)
        {
            return;
        }
        self.forwarding.forwards_due_us = None;
        while let Some((due_us, attempt)) = self.forwarding.forwards_due.first().copied() {
            // Most are answered by then.
            if !self.forwarding.forwards.contains_key(&attempt) {
                self.forwarding.forwards_due.pop_first();
            } else if due_us <= now.mono_us {
                self.forwarding.forwards_due.pop_first();
                self.look_at_forward(now, attempt);
            } else {
                self.wake_for_forwards(due_us);
                break;
            }
        }
    }

    fn look_at_forward(&mut self, now: Now, attempt: u64) {
        let forwarded = &self.forwarding.forwards[&attempt];
        let (to, at_us, sent_again) = (forwarded.to, forwarded.at_us, forwarded.sent_again);
        let back_at_us = at_us + self.forward_back_us(to);
        let again_at_us = at_us + self.forward_again_us(to);
        if now.mono_us >= back_at_us {
            let forwarded = self
                .forwarding
                .forwards
                .remove(&attempt)
                .expect("just seen");
            self.forwarding.taken_back.push_back((attempt, at_us));
            if self.forwarding.taken_back.len() > TAKEN_BACK_MAX {
                self.forwarding.taken_back.pop_front();
            }
            self.take_back(now, forwarded.pending);
        } else if sent_again {
            self.forwarding.forwards_due.insert((back_at_us, attempt));
        } else if now.mono_us < again_at_us {
            self.forwarding.forwards_due.insert((again_at_us, attempt));
        } else {
            let mut forwarded = self
                .forwarding
                .forwards
                .remove(&attempt)
                .expect("just seen");
            forwarded.sent_again = true;
            self.send_forward(now, attempt, &forwarded, Way::Detour(0));
            self.forwarding.forwards.insert(attempt, forwarded);
            self.forwarding.forwards_due.insert((back_at_us, attempt));
        }
    }

    /// One timer is enough: whoever it wakes sets the next.
    fn wake_for_forwards(&mut self, at_us: u64) {
        if self
            .forwarding
            .forwards_due_us
            .is_none_or(|due_us| at_us < due_us)
        {
            self.forwarding.forwards_due_us = Some(at_us);
            self.timers.set(at_us, Timer::Forwards);
        }
    }

    /// It may be done there all the same, so from now on nobody may say that it was surely not (X5).
    fn take_back(&mut self, now: Now, mut pending: Pending) {
        pending.sent = true;
        if self.runs_rounds() {
            let key = Key::user(&pending.operation.key);
            self.run_here(now, key, pending);
        } else {
            // Without a vote, or a disk, there is nothing more to do; the client's retries go elsewhere.
            self.drop_operation(pending, false);
        }
    }
}

#[cfg(test)]
mod tests {
    use kvclient::wire::{Action, Full, OperationId};

    use super::*;
    use crate::protocol::replica::catchup::serve::tests::{NOW, replica};

    fn pending(sent: bool) -> Pending {
        let id = OperationId {
            client: 1 << 127,
            sequence: 1,
        };
        let operation = Operation {
            id,
            birth: 1,
            low_mark: 1,
            key: "k".into(),
            want_old: false,
            action: Action::Delete,
        };
        let to = Endpoint::new(1, 1);
        Pending {
            operation: Arc::new(operation),
            reply: ReplyTo::Client { to, attempt: 1 },
            also: Vec::new(),
            tried: true,
            sent,
            arrived_us: NOW.mono_us,
            received_us: Some(NOW.mono_us),
        }
    }

    /// What the client is told if the node that an operation was forwarded to answers this.
    fn passed_on(outcome: Outcome, sent: bool) -> Option<Outcome> {
        let mut replica = replica();
        replica.begin_operation(&pending(sent).operation);
        let forwarded = Forwarded {
            pending: pending(sent),
            to: 2,
            to_boot: 1,
            at_us: NOW.mono_us,
            sent_again: false,
        };
        replica.forwarding.forwards.insert(1, forwarded);
        let answer = ForwardAnswer {
            to_boot: replica.options.boot,
            attempt: 1,
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

    /// X5: what this node has sent in an Accept itself may be done, whatever another one says.
    #[test]
    fn a_refusal_is_not_passed_on_after_an_accept() {
        let no_quorum = Outcome::NoQuorum {
            reached: Vec::new(),
        };
        let full = Outcome::Full { full: Full::Memory };
        for refusal in [Outcome::Busy, no_quorum, full, Outcome::Ahead { clock: 1 }] {
            assert_eq!(passed_on(refusal.clone(), true), None);
            assert_eq!(passed_on(refusal.clone(), false), Some(refusal));
        }
        for sent in [true, false] {
            let outcome = Outcome::Unknown;
            assert_eq!(passed_on(outcome.clone(), sent), Some(outcome));
        }
    }
}
