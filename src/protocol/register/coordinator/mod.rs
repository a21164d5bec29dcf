//! The coordinator of one key: its queue and its full, short and combined rounds (R3, X5). Read
//! rounds are in `read_round`. A coordinator holds no acceptor state and sends nothing itself; it
//! returns what is to happen as effects.

mod covered;
mod endings;
mod permit;
mod proposing;
mod seen;
mod sending;
mod unasked;
mod yielding;

use std::collections::VecDeque;
use std::sync::Arc;

use rand::rngs::StdRng;
use wire::Outcome;

use crate::protocol::clients::low_marks::LowMarks;
use crate::protocol::clients::pending::Pending;
use crate::protocol::clock::ballot_clock::BallotClock;
use crate::protocol::register::applied::{ApplyVerdict, Proposal};
use crate::protocol::register::read_round::ReadRound;
use crate::protocol::register::waits::{RoundKind, RoundWaits};
use crate::protocol::types::ballot::Ballot;
use crate::protocol::types::counts::{RoundEnd, RoundStart};
use crate::protocol::types::limits::{COMBINED_MAX, HEARTBEAT_MS_DEFAULT, ROUND_APPLIED_SIZE_MAX};
use crate::protocol::types::message::{
    Configuration, Message, NodeId, Now, Promise, ResolvePart, RoundId,
};
use crate::protocol::types::quorum::NodeSet;
use crate::protocol::types::record::{AcceptorState, Key, Record};
use crate::protocol::types::rules::rule;
use crate::protocol::types::transaction::{Decisions, StepAnswer, resolution};
use permit::{ShortRoundPermit, first_ballot};
use seen::TextSeen;

/// An action that a coordinator requests.
#[derive(Debug)]
pub enum Effect {
    Send {
        to: NodeId,
        round: RoundId,
        message: Message,
        /// How often it was sent before.
        again: u32,
    },
    /// T5: an Accept without its record.
    Resolve {
        to: NodeId,
        part: ResolvePart,
    },
    Answer {
        pending: Pending,
        outcome: Outcome,
    },
    Forward {
        to: NodeId,
        pending: Pending,
    },
    /// No client waits for the answer any more: the operation is below its client's low mark (X1),
    /// or long overdue.
    Drop {
        pending: Pending,
        straggler: bool,
    },
    /// Another attempt at an operation in progress. It no longer counts as an operation. In its
    /// place, this many earlier attempts are not answered.
    Joined {
        pending: Pending,
        unanswered: u64,
    },
    /// The result of a transaction's step.
    Stepped {
        pending: Pending,
        answer: StepAnswer,
    },
    /// T5: the operation met an intent, in this record of the key, and leaves the coordinator.
    Blocked {
        pending: Pending,
        record: Arc<Record>,
    },
    /// Answers with this id belong to this key until the id is closed.
    Open(RoundId, RoundStart),
    Close(RoundId, RoundEnd),
    /// `holders` have answered so far that they accepted the record. `is_covered`: the record has a
    /// transaction's intent.
    Chosen {
        round: RoundId,
        ballot: Ballot,
        holders: NodeSet,
        is_covered: bool,
    },
}

/// The data that a coordinator may use while it handles one input.
pub struct Context<'a> {
    pub now: Now,
    pub me: NodeId,
    pub key: &'a Key,
    pub configuration: &'a Configuration,
    /// This node's own acceptor state of the key, if it is a vote (E5).
    pub state: Option<&'a AcceptorState>,
    /// Nothing at or below the base (B3), nor below the floor (P1), is accepted for keys without
    /// state: the higher one of both.
    pub floor: Ballot,
    pub clock: &'a mut BallotClock,
    pub random: &'a mut StdRng,
    pub waits: &'a mut RoundWaits,
    pub low_marks: &'a LowMarks,
    /// X5: whether a quorum is reachable, or was within `quorum_lost_ms`.
    pub hears_quorum: bool,
    /// X1: the retry horizon.
    pub retry_horizon_ms: u64,
    /// X6: whether this node or another member is full.
    pub is_full: bool,
    /// The limit of values that this node writes.
    pub value_size_max: usize,
    /// T5: the fates of transactions that this node knows.
    pub decisions: &'a Decisions,
    /// The reachable voters: this node first, then by distance.
    pub near: &'a [NodeId],
    /// Those of them whose disks work, so that they can run rounds.
    pub coordinators: &'a [NodeId],
    pub effects: &'a mut Vec<Effect>,
}

impl Context<'_> {
    /// `again`: how often it was sent before.
    pub fn send(&mut self, to: NodeId, round: RoundId, message: impl Into<Message>, again: u32) {
        let message = message.into();
        self.effects.push(Effect::Send {
            to,
            round,
            message,
            again,
        });
    }

    pub fn answer(&mut self, pending: Pending, outcome: Outcome) {
        self.effects.push(Effect::Answer { pending, outcome });
    }

    /// An id that no round of this node had in this boot or an earlier one (R4).
    pub fn open_round(&mut self, kind: RoundStart) -> RoundId {
        let round = self.clock.round_id(self.now);
        self.effects.push(Effect::Open(round, kind));
        round
    }

    fn voters(&self) -> Vec<NodeId> {
        self.configuration.voters().map(|m| m.node).collect()
    }
}

/// The key's preferred coordinator: of the given reachable nodes, the first in rendezvous-hash
/// order.
pub fn preferred(key: &Key, coordinators: &[NodeId]) -> Option<NodeId> {
    coordinators
        .iter()
        .copied()
        .max_by_key(|node| wire::rendezvous_weight(key.name(), *node))
}

#[derive(Debug)]
enum Phase {
    Prepare {
        promised: NodeSet,
        /// The record with the highest accepted ballot among the promises.
        found: Option<(Ballot, Arc<Record>)>,
        /// X3: who promised without a record, with their floors.
        absences: Vec<(NodeId, Ballot)>,
    },
    Accept {
        accepted: NodeSet,
        record: Arc<Record>,
        /// T5: set if the round only resolves an intent: the ballot of the record with the intent,
        /// which is the one before the round's, and whether the transaction was committed.
        resolves: Option<(Ballot, bool)>,
        /// One for each operation of the round.
        verdicts: Vec<ApplyVerdict>,
    },
}

#[derive(Debug)]
struct WriteRound {
    id: RoundId,
    ballot: Ballot,
    phase: Phase,
    operations: Vec<Pending>,
    refused: NodeSet,
    began_us: u64,
    due_us: u64,
    /// In the present phase.
    retransmissions: u32,
    /// When it was last sent again, in any phase.
    again_us: Option<u64>,
}

#[derive(Debug, Default)]
pub struct Coordinator {
    pub(in crate::protocol) queue: VecDeque<Pending>,
    writing: Option<WriteRound>,
    pub(in crate::protocol) reading: Option<ReadRound>,
    right: Option<ShortRoundPermit>,
    /// Present once the key had a text operation.
    text_seen: Option<Box<TextSeen>>,
    /// A read found a record that it may not complete itself. So the next round is a full one,
    /// whatever is queued.
    pub(in crate::protocol) must_repair: bool,
    /// Rounds lost in a row, which determine the back-off.
    lost: u32,
    wait_until_us: u64,
    /// Until when the next round lets one of another coordinator end. It is set once for each
    /// round.
    yield_ends_us: Option<u64>,
}

impl Coordinator {
    pub fn submit(&mut self, pending: Pending, context: &mut Context<'_>) {
        if pending.tried
            && let Some(twin) = self.twin(&pending)
        {
            twin.tried = true;
            // X5: if one of the two may not be refused, neither may the other.
            twin.sent |= pending.sent;
            let replies = pending.also.iter().chain([&pending.reply]);
            let unanswered = replies.map(|reply| twin.join(*reply)).sum();
            // The operation is counted once: `pending` is no operation of its own any more.
            let joined = Effect::Joined {
                pending,
                unanswered,
            };
            context.effects.push(joined);
            return;
        }
        self.queue.push_back(pending);
        self.advance(context);
    }

    /// The duplicate attempt, if another attempt may join it: the operation is not executed yet, or
    /// its outcome is in the record (X2).
    fn twin(&mut self, pending: &Pending) -> Option<&mut Pending> {
        let id = pending.operation.id;
        if pending.is_read() || pending.step.is_some() {
            return None;
        }
        let queued = self.queue.iter().position(|p| p.operation.id == id);
        if let Some(place) = queued {
            return self.queue.get_mut(place);
        }
        let round = self.writing.as_mut()?;
        let place = round.operations.iter().position(|p| p.operation.id == id)?;
        let stands = match &round.phase {
            Phase::Prepare { .. } => true,
            Phase::Accept { verdicts, .. } => {
                matches!(&verdicts[place], ApplyVerdict::Answer(outcome) if outcome.is_in_record())
            }
        };
        stands.then(|| &mut round.operations[place])
    }

    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    pub fn is_writing(&self) -> bool {
        self.writing.is_some()
    }

    /// Whether this is a write round of this coordinator, so that this node issued its ballot.
    pub fn writes_in(&self, round: RoundId) -> bool {
        self.writing.as_ref().is_some_and(|w| w.id == round)
    }

    /// Whether nothing is in progress. The coordinator may still hold a right to a short round.
    pub fn is_idle(&self) -> bool {
        let waits = !self.queue.is_empty() || self.must_repair;
        !waits && self.writing.is_none() && self.reading.is_none()
    }

    /// Whether the coordinator is in the same state as a new one.
    pub fn is_blank(&self, now: Now) -> bool {
        let keeps = self.right.is_some() || self.text_seen.is_some() || self.lost > 0;
        self.is_idle() && !keeps && self.wait_until_us <= now.mono_us
    }

    /// When to call `handle_timeout`.
    pub fn deadline(&self) -> Option<u64> {
        let waits = self.may_start().then_some(self.wait_until_us);
        let writes = self.writing.as_ref().map(|w| w.due_us);
        let reads = self.reading.as_ref().map(|r| r.due_us);
        [waits, writes, reads].into_iter().flatten().min()
    }

    /// Whether `advance` starts something once `wait_until_us` has come. Reads that arrived during
    /// a read round wait until it ends, not until a time.
    fn may_start(&self) -> bool {
        let is_write = |p: &Pending| !p.is_read();
        let writes = self.must_repair || self.queue.iter().any(is_write);
        let reads = !self.queue.is_empty() && self.reading.is_none();
        self.writing.is_none() && (writes || reads)
    }

    /// Handles an answer from a voter in its present incarnation and the present epoch (R1).
    pub fn handle_message(
        &mut self,
        from: NodeId,
        round: RoundId,
        message: Message,
        context: &mut Context<'_>,
    ) {
        if self.reading.as_ref().is_some_and(|r| r.id == round) {
            self.handle_read_message(from, message, context);
        } else if self.writing.as_ref().is_some_and(|w| w.id == round) {
            match message {
                Message::Promise(promise) => self.promise(from, promise, context),
                Message::Accepted(m) => self.accepted(from, m.ballot, context),
                Message::Nack(m) => self.refused(from, m.ballot, m.promised, context),
                _ => {}
            }
        }
        self.advance(context);
    }

    pub fn handle_timeout(&mut self, context: &mut Context<'_>) {
        self.drop_overdue(context);
        self.write_timeout(context);
        self.read_timeout(context);
        if !context.hears_quorum {
            self.refuse(context);
        }
        self.advance(context);
    }

    /// Starts what can be started. Reads that arrive during a write round are done in the next
    /// round: what is being chosen now may be older than a write that completed before they
    /// arrived.
    fn advance(&mut self, context: &mut Context<'_>) {
        let idle = self.queue.is_empty() && !self.must_repair;
        if idle || self.writing.is_some() || context.now.mono_us < self.wait_until_us {
            return;
        }
        if !context.hears_quorum && rule!(X5_silence) {
            self.refuse(context);
            // Operations that were sent before are tried again once a quorum is reachable.
            self.wait_until_us = context.now.mono_us + HEARTBEAT_MS_DEFAULT * 1_000;
            return;
        }
        self.drop_overdue(context);
        self.leave_covered(context);
        let writes = self.queue.iter().any(|p| !p.is_read());
        if writes || self.must_repair {
            if let Some(until_us) = self.yields_until(context) {
                self.wait_until_us = until_us;
                return;
            }
            let is_repair = std::mem::take(&mut self.must_repair);
            self.start_write(is_repair, context);
        } else if !self.queue.is_empty() && self.reading.is_none() {
            self.start_read(context);
        }
    }

    /// X5: answers `no quorum` to every operation for which it is true that it was surely not done.
    fn refuse(&mut self, context: &mut Context<'_>) {
        for _ in 0..self.queue.len() {
            let pending = self.queue.pop_front().expect("counted");
            if pending.is_refusable() {
                let reached = context.near.to_vec();
                context.answer(pending, Outcome::NoQuorum { reached });
            } else {
                self.queue.push_back(pending);
            }
        }
        if self.queue.is_empty() {
            self.must_repair = false;
        }
    }

    /// Takes the operations of one round, in order of birth: as many as versions (V1) and the
    /// applied table have space for.
    fn take_batch(&mut self) -> Vec<Pending> {
        let mut size = 0;
        let mut count = 0;
        for pending in self.queue.iter().take(COMBINED_MAX) {
            size += Proposal::size_of(&pending.operation);
            if count > 0 && size > ROUND_APPLIED_SIZE_MAX {
                break;
            }
            count += 1;
        }
        let mut batch: Vec<Pending> = self.queue.drain(..count).collect();
        batch.sort_by_key(|p| p.operation.birth);
        batch
    }

    fn start_write(&mut self, is_repair: bool, context: &mut Context<'_>) {
        let operations = self.take_batch();
        self.yield_ends_us = None;
        let born = context.observe_births(&operations);
        let right = self.right.take();
        let right = right.filter(|right| right.is_valid(context) && right.is_after(born));
        let first = match right.is_some() || is_repair {
            true => None,
            false => first_ballot(&operations, context),
        };
        let kind = match right.is_some() || first.is_some() {
            _ if operations.is_empty() => RoundStart::Repair,
            true => RoundStart::Short,
            false => RoundStart::Full,
        };
        let id = context.open_round(kind);
        let ballot = match (&right, first) {
            // R3: exactly next(b), which the quorum that accepted b promised with it.
            (Some(right), _) if rule!(R3_exact) => right.ballot.next(),
            (None, Some(first)) => first,
            _ => Ballot::new(context.clock.tick(context.now), context.me),
        };
        if rule!(B1_next) {
            context.clock.observe(ballot.reading());
        }
        assert!(
            ballot.reading() <= context.clock.last(),
            "ballot {ballot} is ahead of the clock (B1)"
        );
        let phase = Phase::Prepare {
            promised: NodeSet::default(),
            found: None,
            absences: Vec::new(),
        };
        let now_us = context.now.mono_us;
        let held_size = context.held_size();
        self.writing = Some(WriteRound {
            id,
            ballot,
            phase,
            operations,
            refused: NodeSet::default(),
            began_us: now_us,
            due_us: now_us + context.wait_us(RoundKind::Write, 0, held_size),
            retransmissions: 0,
            again_us: None,
        });
        match right {
            Some(right) => {
                let over = Some(right.ballot).filter(|over| over.next() == ballot);
                self.propose(Some(right.record), 0, over, context);
            }
            None if first.is_some() => {
                let forgotten = context.floor.reading();
                self.propose(None, forgotten, None, context);
            }
            None => self.send_round(&context.voters(), context),
        }
    }

    fn promise(&mut self, from: NodeId, promise: Promise, context: &mut Context<'_>) {
        let Some(round) = &mut self.writing else {
            return;
        };
        let Phase::Prepare {
            promised,
            found,
            absences,
        } = &mut round.phase
        else {
            return;
        };
        if promise.ballot != round.ballot {
            return;
        }
        promised.insert(from);
        match promise.record {
            Some(record) => {
                if found
                    .as_ref()
                    .is_none_or(|(ballot, _)| promise.accepted > *ballot)
                {
                    *found = Some((promise.accepted, record));
                }
            }
            None => absences.push((from, promise.floor)),
        }
        if context.configuration.has_quorum(promised) {
            let forgotten = context.configuration.forgotten(absences);
            let found = found.take().map(|(_, record)| record);
            self.propose(found, forgotten, None, context);
        }
    }

    /// Phase two: runs the operations on the record that was found, and proposes the result. A
    /// repair round proposes the record that it found again, or a tombstone if the key is absent.
    /// `over`: the ballot before this one, if what was found is its record (R3).
    fn propose(
        &mut self,
        found: Option<Arc<Record>>,
        forgotten: u64,
        over: Option<Ballot>,
        context: &mut Context<'_>,
    ) {
        let round = self
            .writing
            .as_mut()
            .expect("a round that proposes is open");
        let now_us = context.now.mono_us;
        let seen = self.text_seen.as_ref();
        let kept_above = seen.map_or(0, |seen| seen.settled(now_us));
        let mut proposal = context.proposal(found.as_deref(), round.ballot, forgotten, kept_above);
        let mut verdicts = Vec::with_capacity(round.operations.len());
        if !round.operations.is_empty() {
            proposal.resolve(context.decisions);
        }
        for pending in &mut round.operations {
            let verdict = match &pending.step {
                _ if pending.is_stale_text(context.now) => ApplyVerdict::Straggler,
                Some(step) => proposal.step(&pending.operation, step, pending.tried),
                None => proposal.apply(&pending.operation, pending.tried),
            };
            // X5: what leaves the round is not in its record.
            pending.sent |= verdict != ApplyVerdict::Waits;
            verdicts.push(verdict);
        }
        let (mut made, changed) = proposal.finish();
        let resolves = match (&found, over) {
            (Some(found), Some(over)) => {
                let committed = resolution(found, &made, context.decisions);
                committed.map(|committed| (over, committed))
            }
            _ => None,
        };
        if !rule!(V1_repair) {
            made.version = made.version.max(round.ballot.0);
        }
        let record = match found {
            Some(found) if !changed && rule!(V1_repair) => found,
            _ => Arc::new(made),
        };
        // A Resolve carries no value.
        let size = match resolves {
            Some(_) => 0,
            None => record.content_size(),
        };
        round.phase = Phase::Accept {
            accepted: NodeSet::default(),
            record,
            resolves,
            verdicts,
        };
        round.refused = NodeSet::default();
        round.retransmissions = 0;
        round.due_us = now_us + context.wait_us(RoundKind::Write, 0, size);
        self.send_round(&context.voters(), context);
    }

    fn accepted(&mut self, from: NodeId, ballot: Ballot, context: &mut Context<'_>) {
        let Some(round) = &mut self.writing else {
            return;
        };
        let Phase::Accept { accepted, .. } = &mut round.phase else {
            return;
        };
        if ballot != round.ballot {
            return;
        }
        accepted.insert(from);
        if context.configuration.has_quorum(accepted) {
            self.chosen(context);
        }
    }

    fn chosen(&mut self, context: &mut Context<'_>) {
        let round = self.writing.take().expect("a round that is chosen is open");
        let Phase::Accept {
            accepted,
            record,
            resolves,
            verdicts,
        } = round.phase
        else {
            unreachable!("only phase two is chosen")
        };
        let now_us = context.now.mono_us;
        let (began_us, again_us) = (round.began_us, round.again_us);
        match resolves.filter(|_| round.retransmissions == 0) {
            Some(_) => context
                .waits
                .sample(RoundKind::Write, now_us, began_us, again_us),
            None => (context.waits).sample_write(&record, now_us, began_us, again_us),
        }
        self.lost = 0;
        let newest_text = record.applied.newest_text();
        if newest_text > 0 {
            let seen = self.text_seen.get_or_insert_default();
            seen.chosen(context.now.mono_us, newest_text);
        }
        let epoch = context.configuration.epoch;
        self.right = Some(ShortRoundPermit {
            ballot: round.ballot,
            record: record.clone(),
            epoch,
        });
        context.effects.push(Effect::Chosen {
            round: round.id,
            ballot: round.ballot,
            holders: accepted,
            is_covered: record.intent.is_some(),
        });
        context
            .effects
            .push(Effect::Close(round.id, RoundEnd::Completed));
        for (pending, verdict) in round.operations.into_iter().zip(verdicts) {
            match verdict {
                ApplyVerdict::Answer(outcome) => context.answer(pending, outcome),
                ApplyVerdict::Step(answer) => {
                    context.effects.push(Effect::Stepped { pending, answer });
                }
                ApplyVerdict::Waits => {
                    let record = record.clone();
                    context.effects.push(Effect::Blocked { pending, record });
                }
                ApplyVerdict::Straggler => {
                    context.effects.push(Effect::Drop {
                        pending,
                        straggler: true,
                    });
                }
            }
        }
    }

    fn refused(
        &mut self,
        from: NodeId,
        ballot: Ballot,
        promised: Ballot,
        context: &mut Context<'_>,
    ) {
        context.clock.observe(promised.reading());
        let Some(round) = &mut self.writing else {
            return;
        };
        // A refusal with the very next ballot answers a late message of this same round.
        if ballot != round.ballot || promised == ballot.next() {
            return;
        }
        round.refused.insert(from);
        let refused = round.refused;
        let left = context.configuration.voters().map(|m| m.node);
        let left: NodeSet = left.filter(|node| !refused.contains(*node)).collect();
        if !context.configuration.has_quorum(&left) {
            self.lose(context);
        }
    }

    fn write_timeout(&mut self, context: &mut Context<'_>) {
        let now = context.now;
        let Some(round) = &mut self.writing else {
            return;
        };
        if round.due_us > now.mono_us {
            return;
        }
        let preparing = matches!(round.phase, Phase::Prepare { .. });
        if !round.refused.is_empty() || (preparing && !context.hears_quorum) {
            self.lose(context);
            return;
        }
        if !round.operations.is_empty() && round.operations.iter().all(|p| p.is_too_old(now)) {
            self.give_up(context);
            return;
        }
        round.retransmissions += 1;
        round.again_us = Some(now.mono_us);
        let size = match &round.phase {
            Phase::Accept { record, .. } => record.content_size(),
            Phase::Prepare { .. } => context.held_size(),
        };
        let wait_us = context.wait_us(RoundKind::Write, round.retransmissions, size);
        round.due_us = now.mono_us + wait_us;
        let answered = match &round.phase {
            Phase::Prepare { promised, .. } => *promised,
            Phase::Accept { accepted, .. } => *accepted,
        };
        let silent: Vec<NodeId> = context
            .voters()
            .into_iter()
            .filter(|n| !answered.contains(*n))
            .collect();
        self.send_round(&silent, context);
    }
}
