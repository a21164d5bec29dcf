//! Clients' requests: their datagrams, and how operations are accepted, answered and refused (X4,
//! X5).

use std::collections::VecDeque;
use std::sync::Arc;

use rand::RngExt;
use wire::{
    Action, Answer, ClientId, Hello, HelloAnswer, KEY_SIZE_MAX, NoSession, Operation, Outcome,
    Request, StatusRequest,
};

use crate::protocol::clients::low_marks::LowMarks;
use crate::protocol::clients::pending::{Pending, ReplyTo};
use crate::protocol::clients::receive_delay::ReceiveDelay;
use crate::protocol::clients::sessions::{Admission, Sessions};
use crate::protocol::clients::shares::Shares;
use crate::protocol::clients::text_operation;
use crate::protocol::keys::outbox::Way;
use crate::protocol::keys::resident::Waiting;
use crate::protocol::register::coordinator;
use crate::protocol::register::waits::RoundWaits;
use crate::protocol::replica::Replica;
use crate::protocol::replica::scan::{KeyRead, Scans};
use crate::protocol::replica::watches::Watches;
use crate::protocol::types::ballot::Ballot;
use crate::protocol::types::counts::OperationEnd;
use crate::protocol::types::limits::{
    BUSY_AFTER_MAX_MS, BUSY_AFTER_MS, KEY_QUEUE_MAX, OPERATIONS_MAX, OPERATIONS_SIZE_MAX,
};
use crate::protocol::types::message::{
    ClientMessage, ClientReply, Endpoint, Event, ForwardAnswer, GroupNumber, Now, Output,
};
use crate::protocol::types::receive_wait::ReceiveWait;
use crate::protocol::types::record::{Key, SPACE_CONFIGURATION};
use crate::protocol::types::rules::rule;
use crate::protocol::types::transaction::StepAnswer;

/// Requests of clients and operators that were not answered yet.
#[derive(Debug, Default)]
pub(super) struct Requests {
    /// The node accepts no new operations.
    pub(super) stopping: bool,
    pub(super) sessions: Sessions,
    /// Operations of clients and forwarders that are not answered yet.
    pub(super) operations: usize,
    /// Their approximate memory.
    pub(super) operations_size: usize,
    /// Answers to operators that wait for their groups.
    pub(super) held_replies: VecDeque<(GroupNumber, Endpoint, ClientReply)>,
    pub(super) waits: RoundWaits,
    pub(super) low_marks: LowMarks,
    pub(super) receive_delay: ReceiveDelay,
    pub(super) scans: Scans,
    pub(super) watches: Watches,
    shares: Shares,
}

impl Requests {
    /// Whether operations are in progress. Polls of watches wait, and are none.
    pub(super) fn has_operations(&self) -> bool {
        self.operations > self.watches.waiting()
    }

    pub(super) fn has_too_many(&self) -> bool {
        self.operations > OPERATIONS_MAX || self.operations_size > OPERATIONS_SIZE_MAX
    }

    /// Operations in progress other than these scans, and than polls of watches.
    pub(super) fn operations_beside(&self, scans: usize) -> usize {
        self.operations
            .saturating_sub(self.watches.waiting() + scans)
    }
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
                    self.send_status(now, from, attempt);
                }
            }
        }
    }

    fn greet(&mut self, now: Now, from: Endpoint, hello: Hello) {
        if self.requests.stopping {
            return;
        }
        // Otherwise a session could pose as a text client, and receive the outcomes of that
        // client's operations.
        if text_operation::is_text(hello.client) {
            self.counts.dropped.stray += 1;
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
            value_size_max: self.options.value_size_max as u32,
            shard_ports: Vec::new(),
            clock: self.clock.tick(now),
        };
        self.reply(from, ClientReply::Hello(answer));
    }

    /// X4: whether an attempt is to be executed: it is the first with its number, in a known
    /// session.
    pub(super) fn admits(
        &mut self,
        from: Endpoint,
        token: u64,
        client: Option<ClientId>,
        attempt: u64,
    ) -> bool {
        let admission = self.requests.sessions.admit(from, token, client, attempt);
        if admission != Admission::Fresh {
            self.counts.dropped.repeated += 1;
        }
        if admission == Admission::NoSession {
            self.reply(from, ClientReply::NoSession(NoSession { token, attempt }));
        }
        admission == Admission::Fresh
    }

    fn handle_request(&mut self, now: Now, from: Endpoint, request: Request) {
        // A node that is stopping leaves new operations to others; the client tries another node.
        if self.requests.stopping {
            return;
        }
        let Request {
            token,
            attempt,
            retry,
            left_ms,
            operation,
        } = request;
        if !self.admits(from, token, Some(operation.id.client), attempt) {
            return;
        }
        let pending = Pending {
            operation: Arc::new(operation),
            step: None,
            reply: ReplyTo::Client { to: from, attempt },
            also: Vec::new(),
            tried: retry,
            sent: false,
            arrived_us: now.mono_us,
            deadline_us: Pending::deadline_us(now, left_ms),
            received_us: Some(now.mono_us),
        };
        self.begin_operation(&pending.operation);
        self.take(now, pending);
    }

    /// An operation goes to the key's preferred coordinator, or into a round of this node.
    pub(super) fn take(&mut self, now: Now, pending: Pending) {
        if let Some(refusal) = self.unfit(now, &pending.operation) {
            self.answer(pending, refusal);
            return;
        }
        self.hear_low_mark(&pending.operation);
        if pending.operation.action.is_watch() {
            self.take_poll(now, pending);
            return;
        }
        let key = Key::user(&pending.operation.key);
        if pending.operation.action.is_stale() {
            self.run_here(now, key, pending);
            return;
        }
        let preferred = coordinator::preferred(&key, self.view.coordinators());
        let from_client = pending.reply.is_client();
        let elsewhere = preferred.filter(|to| *to != self.identity.node && from_client);
        // X5: without a quorum nothing is forwarded either, so that `no quorum` is surely true.
        let serves = self.view.hears_quorum() || !rule!(X5_silence);
        if serves && !self.take_birth(&pending.operation) {
            let clock = self.clock.last();
            self.answer(pending, Outcome::Ahead { clock });
            return;
        }
        match elsewhere {
            _ if !serves => self.refuse(pending),
            // W3: only the node that is watched at puts its pages together.
            _ if pending.operation.action.is_of_a_watch() && !self.runs_rounds() => {
                self.refuse(pending);
            }
            Some(to) if !self.runs_rounds() || !pending.operation.action.is_read() => {
                self.forward(now, to, pending);
            }
            _ if self.identity.votes => self.run_here(now, key, pending),
            _ => self.refuse(pending),
        }
    }

    /// X1: only clients with sessions have low marks. Their sequences begin at 1, so that mark says
    /// nothing.
    fn hear_low_mark(&mut self, operation: &Operation) {
        let client = operation.id.client;
        if operation.low_mark > 1 && !text_operation::is_text(client) {
            self.requests.low_marks.hear(client, operation.low_mark);
        }
    }

    /// B5: the clock follows a birth, unless it is too far ahead. A read's birth means nothing.
    pub(super) fn take_birth(&mut self, operation: &Operation) -> bool {
        if self.clock.takes_birth(operation.birth) {
            self.clock.observe(operation.birth);
            return true;
        }
        self.counts.dropped.ahead += 1;
        operation.action.is_read()
    }

    pub(super) fn run_here(&mut self, now: Now, key: Key, pending: Pending) {
        // X8: its deadline may have passed while it waited for its key or for another node.
        if pending.is_overdue(now) {
            self.drop_operation(pending, false);
            return;
        }
        if pending.operation.action.is_stale() {
            self.read_stale(now, key, pending);
            return;
        }
        if pending.step.is_none() && matches!(pending.operation.action, Action::Transact { .. }) {
            self.begin_transaction(now, pending);
            return;
        }
        // The operation may have waited for its key since this node had a vote, or a working disk.
        if !self.runs_rounds_of(&key) {
            self.hand_over(now, &key, pending);
            return;
        }
        if pending.operation.action.is_scan() {
            self.begin_scan(now, pending);
            return;
        }
        let Some(resident) = self.keys.resident(&key) else {
            self.wait_for(key, Waiting::Operation(pending));
            return;
        };
        let promised = resident.state.as_ref().map_or(Ballot::ZERO, |s| s.promised);
        let coordinator = resident.coordinator.as_ref();
        let is_full = coordinator.is_some_and(|c| c.queued() >= KEY_QUEUE_MAX);
        if let Some(left) = self.leaves_to(&key, &pending, promised) {
            self.leave_step(now, left, pending);
            return;
        }
        if is_full {
            self.answer_busy(pending, BUSY_AFTER_MS);
            return;
        }
        if self.is_disk_behind() && self.would_write(&key, &pending) {
            let after_ms = self.disk_after_ms();
            self.answer_busy(pending, after_ms);
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

    /// Rounds of the configuration's register are not handed over: each member proposes the desired
    /// configuration.
    pub(super) fn runs_rounds_of(&self, key: &Key) -> bool {
        match key.space() != SPACE_CONFIGURATION {
            true => self.runs_rounds() || (!self.identity.votes && !rule!(E4_rounds)),
            false => self.identity.votes || !rule!(E4_rounds),
        }
    }

    /// Without a vote a node runs no rounds: a client's operation goes to a member.
    fn hand_over(&mut self, now: Now, key: &Key, pending: Pending) {
        if !pending.reply.is_client() {
            self.drop_operation(pending, false);
        } else if pending.operation.action.is_of_a_watch() {
            self.refuse(pending);
        } else if let Some(to) = coordinator::preferred(key, self.view.coordinators()) {
            self.forward(now, to, pending);
        } else {
            self.refuse(pending);
        }
    }

    /// X5: answers `no quorum`, if the operation was not sent in an Accept, nor forwarded.
    pub(super) fn refuse(&mut self, pending: Pending) {
        let reached = self.view.reachable().to_vec();
        if pending.sent {
            self.drop_operation(pending, false);
        } else {
            self.answer(pending, Outcome::NoQuorum { reached });
        }
    }

    /// X7: records how long datagrams wait, and how many were lost.
    pub(super) fn sample_receive_wait(&mut self, now: Now, wait: ReceiveWait) {
        let ReceiveWait {
            buffered_us,
            waited_us,
            lost,
        } = wait;
        self.requests.waits.sample_delay(buffered_us);
        self.requests.shares.pass(now);
        if let Some(is_overload) = self.requests.receive_delay.sample(now, waited_us, lost) {
            let event = Event::Overload(is_overload);
            self.sending.push(Output::Event(event));
        }
    }

    /// Refusals that need no round: too large, or too much in progress. X7: an overloaded node
    /// refuses new operations here, before any other work on them, except for a share of each
    /// client.
    fn unfit(&mut self, now: Now, operation: &Operation) -> Option<Outcome> {
        let key_size = operation.key.len();
        if key_size == 0 || key_size > KEY_SIZE_MAX {
            return Some(Outcome::TooLarge {
                limit: KEY_SIZE_MAX as u64,
            });
        }
        if operation.action.value_size() > self.options.value_size_max {
            return Some(Outcome::TooLarge {
                limit: self.options.value_size_max as u64,
            });
        }
        let is_overload = self.requests.receive_delay.is_overload() && rule!(X7);
        let client = operation.id.client;
        if is_overload && !self.requests.shares.accepts(now, client) {
            let waited_ms = self.requests.receive_delay.waited_ms();
            let after_ms = self.requests.shares.after_ms().max(waited_ms);
            let after_ms = after_ms.min(BUSY_AFTER_MAX_MS);
            return Some(Outcome::Busy { after_ms });
        }
        let after_ms = BUSY_AFTER_MS;
        let is_much = self.requests.has_too_many();
        is_much.then_some(Outcome::Busy { after_ms })
    }

    /// `after_ms`: when the node expects to have less to do.
    pub(super) fn answer_busy(&mut self, pending: Pending, after_ms: u32) {
        // X5: `busy`, too, means that the operation was surely not done.
        if pending.sent {
            self.drop_operation(pending, false);
        } else {
            self.answer(pending, Outcome::Busy { after_ms });
        }
    }

    /// Answers all attempts that wait for this operation.
    pub(super) fn answer(&mut self, pending: Pending, outcome: Outcome) {
        if pending.step.is_some() {
            self.stepped(&pending, StepAnswer::Outcome(outcome));
            return;
        }
        let end = OperationEnd::of(&outcome);
        if end.is_of_a_round() {
            self.requests.shares.complete();
        }
        self.count_end(&pending, end);
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
                    self.membership.answer(sequence, outcome.clone());
                }
                ReplyTo::Scan { round, place } => {
                    let read = KeyRead::Outcome(outcome.clone());
                    self.requests.scans.has_read(round, place, read);
                }
                ReplyTo::Step { .. } | ReplyTo::Watch { .. } => {
                    unreachable!("a step is answered above")
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
        if pending.step.is_some() {
            self.stepped(&pending, StepAnswer::Dropped);
            return;
        }
        self.count_end(&pending, OperationEnd::Unanswered);
        self.end_operation(&pending.operation);
        match pending.reply {
            ReplyTo::Own { sequence } => self.membership.answer(sequence, Outcome::Unknown),
            ReplyTo::Scan { round, place } => {
                self.requests.scans.has_read(round, place, KeyRead::GivenUp);
            }
            ReplyTo::Step { .. } | ReplyTo::Watch { .. } => {
                unreachable!("a step is answered above")
            }
            ReplyTo::Client { .. } | ReplyTo::Node { .. } | ReplyTo::Sessionless { .. } => {}
        }
        if straggler {
            self.counts.dropped.stragglers += 1;
        } else {
            self.counts.dropped.given_up += 1;
        }
    }

    pub(super) fn reply(&mut self, to: Endpoint, reply: ClientReply) {
        self.sending.push(Output::Reply { to, reply });
    }
}
