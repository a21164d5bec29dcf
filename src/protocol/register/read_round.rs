//! Read rounds (R4): a quorum's answers, and what to do when they differ.

use std::sync::Arc;

use wire::Outcome;

use crate::protocol::clients::pending::Pending;
use crate::protocol::register::applied::{self, seen};
use crate::protocol::register::coordinator::{Context, Coordinator, Effect};
use crate::protocol::register::waits::RoundKind;
use crate::protocol::types::ballot::Ballot;
use crate::protocol::types::counts::{RoundEnd, RoundStart};
use crate::protocol::types::message::{
    Accept, Configuration, Message, NodeId, Read, ReadAnswer, RoundId,
};
use crate::protocol::types::quorum::NodeSet;
use crate::protocol::types::record::Record;
use crate::protocol::types::rules::rule;
use crate::protocol::types::transaction::{Seen, StepAnswer, TransactionStep, look_at};

/// One acceptor's answer about a key.
#[derive(Debug, Clone, Copy)]
pub(in crate::protocol) struct Answered {
    pub from: NodeId,
    /// Zero without a record.
    pub accepted: Ballot,
    pub chosen: bool,
    pub floor: Ballot,
}

#[derive(Debug)]
pub struct ReadRound {
    pub(in crate::protocol) id: RoundId,
    operations: Vec<Pending>,
    /// The ballot and record that this node held when it sent its requests.
    held: Option<(Ballot, Arc<Record>)>,
    answers: Vec<Answered>,
    /// The highest accepted ballot among the answers, with its record.
    highest: Option<(Ballot, Arc<Record>)>,
    /// The members known to hold the highest record, while it is being sent again.
    repair: Option<NodeSet>,
    began_us: u64,
    pub(in crate::protocol) due_us: u64,
    retransmissions: u32,
    /// When it was last sent again.
    again_us: Option<u64>,
}

/// What the answers so far allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::protocol) enum Decision {
    Wait,
    Answer,
    /// The highest record is not known to be chosen. It must be completed before it is returned.
    Finish,
}

/// R4: what the answers about a key allow, `highest` being the highest accepted ballot among them.
pub(in crate::protocol) fn decide(
    answers: &[Answered],
    highest: Option<Ballot>,
    configuration: &Configuration,
) -> Decision {
    let answered: NodeSet = answers.iter().map(|a| a.from).collect();
    if !configuration.has_quorum(&answered) && rule!(R4_quorum) {
        return Decision::Wait;
    }
    let Some(highest) = highest else {
        return Decision::Answer;
    };
    let with_highest = answers.iter().filter(|a| a.accepted == highest);
    let holders: NodeSet = with_highest.clone().map(|a| a.from).collect();
    // R4 (a): a quorum answered this ballot, and it is above the base.
    if configuration.has_quorum(&holders) && highest > configuration.base {
        return Decision::Answer;
    }
    // R4 (b): one answer says that it is chosen, and no answer without a record has a higher floor.
    let absences = || answers.iter().filter(|a| a.accepted == Ballot::ZERO);
    let known = with_highest.clone().any(|a| a.chosen);
    if (known && absences().all(|a| a.floor <= highest)) || !rule!(R4_finish) {
        return Decision::Answer;
    }
    Decision::Finish
}

impl Coordinator {
    /// All queued operations are reads. Asks this node and the nearest others that together make a
    /// quorum; the rest are asked only if these do not answer soon.
    pub(in crate::protocol) fn start_read(&mut self, context: &mut Context<'_>) {
        let id = context.open_round(RoundStart::Read);
        let held = context
            .state
            .and_then(|s| s.record.clone().map(|r| (s.accepted, r)));
        let now_us = context.now.mono_us;
        let holds = held.as_ref().map_or(Ballot::ZERO, |(ballot, _)| *ballot);
        self.reading = Some(ReadRound {
            id,
            operations: self.queue.drain(..).collect(),
            held,
            answers: Vec::new(),
            highest: None,
            repair: None,
            began_us: now_us,
            due_us: now_us + context.wait_us(RoundKind::Read, 0, context.held_size()),
            retransmissions: 0,
            again_us: None,
        });
        let mut asked = NodeSet::default();
        for node in context.near {
            if context.configuration.has_quorum(&asked) {
                break;
            }
            asked.insert(*node);
        }
        let voters = context.configuration.voters().map(|m| m.node);
        let asked: Vec<NodeId> = voters.filter(|node| asked.contains(*node)).collect();
        for node in asked {
            context.send(
                node,
                id,
                Read {
                    key: context.key.clone(),
                    holds,
                },
                0,
            );
        }
    }

    pub(in crate::protocol) fn handle_read_message(
        &mut self,
        from: NodeId,
        message: Message,
        context: &mut Context<'_>,
    ) {
        match message {
            Message::ReadAnswer(answer) => self.read_answer(from, answer, context),
            Message::Accepted(m) => self.repaired(from, m.ballot, context),
            Message::Nack(m) => {
                context.clock.observe(m.promised.reading());
                let round = self.reading.as_ref().expect("checked by the caller");
                let highest = round.highest.as_ref().map(|(ballot, _)| *ballot);
                if round.repair.is_some() && highest == Some(m.ballot) {
                    // Another round got a higher promise, so only a full round can determine what
                    // is chosen.
                    self.must_repair = true;
                    self.requeue_reads(context);
                }
            }
            _ => {}
        }
    }

    fn read_answer(&mut self, from: NodeId, answer: ReadAnswer, context: &mut Context<'_>) {
        let round = self.reading.as_mut().expect("checked by the caller");
        if round.answers.iter().any(|a| a.from == from) {
            return;
        }
        let record = answer.record.or_else(|| {
            let held = round
                .held
                .as_ref()
                .filter(|(ballot, _)| *ballot == answer.accepted);
            held.map(|(_, record)| record.clone())
        });
        if record.is_none() && answer.accepted != Ballot::ZERO {
            // The answer assumes a record that this node no longer holds. The next request does not
            // claim to hold it.
            return;
        }
        if let Some(holders) = &mut round.repair {
            let highest = round.highest.as_ref().map(|(ballot, _)| *ballot);
            if highest == Some(answer.accepted) {
                holders.insert(from);
                self.finish_if_repaired(context);
            }
            return;
        }
        if let Some(record) = record
            && round
                .highest
                .as_ref()
                .is_none_or(|(ballot, _)| answer.accepted > *ballot)
        {
            round.highest = Some((answer.accepted, record));
        }
        round.answers.push(Answered {
            from,
            accepted: answer.accepted,
            chosen: answer.chosen,
            floor: answer.floor,
        });
        let highest = round.highest.as_ref().map(|(ballot, _)| *ballot);
        match decide(&round.answers, highest, context.configuration) {
            Decision::Wait => {}
            Decision::Answer => self.finish_read(context),
            // A write round of this node is in progress, and the reads join the next round.
            Decision::Finish if self.is_writing() => self.requeue_reads(context),
            Decision::Finish => self.start_repair(context),
        }
    }

    /// R4: sends the same record again to the members that lack it. This does not disturb a short
    /// round, and gives no right to one. In a joint configuration, or at or below the base, only a
    /// full round is sufficient.
    fn start_repair(&mut self, context: &mut Context<'_>) {
        let round = self.reading.as_mut().expect("checked by the caller");
        let (highest, _) = round
            .highest
            .as_ref()
            .expect("there is something to finish");
        let configuration = context.configuration;
        if *highest <= configuration.base || configuration.joint.is_some() {
            self.must_repair = true;
            self.requeue_reads(context);
            return;
        }
        let holders = round
            .answers
            .iter()
            .filter(|a| a.accepted == *highest)
            .map(|a| a.from);
        round.repair = Some(holders.collect());
        self.send_repair(context);
    }

    fn send_repair(&self, context: &mut Context<'_>) {
        let Some(ReadRound {
            id,
            repair: Some(holders),
            highest: Some((ballot, record)),
            retransmissions,
            ..
        }) = &self.reading
        else {
            return;
        };
        let (ballot, again, configuration) = (*ballot, *retransmissions, context.configuration);
        for member in configuration.voters().filter(|m| !holders.contains(m.node)) {
            let (key, record) = (context.key.clone(), record.clone());
            context.send(
                member.node,
                *id,
                Accept {
                    key,
                    ballot,
                    record,
                },
                again,
            );
        }
    }

    fn repaired(&mut self, from: NodeId, ballot: Ballot, context: &mut Context<'_>) {
        let round = self.reading.as_mut().expect("checked by the caller");
        let highest = round.highest.as_ref().map(|(highest, _)| *highest);
        if let Some(holders) = &mut round.repair
            && highest == Some(ballot)
        {
            holders.insert(from);
            self.finish_if_repaired(context);
        }
    }

    fn finish_if_repaired(&mut self, context: &mut Context<'_>) {
        let round = self.reading.as_ref().expect("checked by the caller");
        let holders = round.repair.as_ref().expect("checked by the caller");
        if context.configuration.has_quorum(holders) {
            let (ballot, record) = round
                .highest
                .as_ref()
                .expect("there was something to finish");
            context.effects.push(Effect::Chosen {
                round: round.id,
                ballot: *ballot,
                holders: *holders,
                is_covered: record.intent.is_some(),
            });
            self.finish_read(context);
        }
    }

    fn finish_read(&mut self, context: &mut Context<'_>) {
        let moment = context.moment();
        let round = self.reading.as_ref().expect("checked by the caller");
        let highest = round.highest.as_ref().map(|(_, record)| record);
        let is_expired = highest.is_some_and(|record| record.is_expired(moment.wall_ms));
        if is_expired && rule!(L1_read) {
            // L1: only a round that deletes the key makes it absent for good.
            self.must_repair = true;
            self.requeue_reads(context);
            return;
        }
        let round = self.reading.take().expect("checked by the caller");
        context
            .effects
            .push(Effect::Close(round.id, RoundEnd::Completed));
        let (now_us, kind) = (context.now.mono_us, RoundKind::Read);
        context
            .waits
            .sample(kind, now_us, round.began_us, round.again_us);
        let record = round.highest.as_ref().map(|(_, record)| record);
        let covered = record.filter(|record| record.intent.is_some() && rule!(T5_read));
        for pending in round.operations {
            let step = pending.step.as_deref();
            if let Some(record) = covered
                && !matches!(step, Some(TransactionStep::Look { .. }))
            {
                let record = record.clone();
                context.effects.push(Effect::Blocked { pending, record });
                continue;
            }
            let answer = match step {
                None => {
                    let outcome = record.map_or(Outcome::Absent, |record| {
                        applied::read(record, &pending.operation.action, &moment)
                    });
                    context.answer(pending, outcome);
                    continue;
                }
                Some(TransactionStep::Read) => StepAnswer::Seen(match record {
                    Some(record) => seen(record),
                    None => Seen {
                        version: 0,
                        value: None,
                        floors: Some((
                            context.configuration.epoch,
                            round.answers.iter().map(|a| (a.from, a.floor)).collect(),
                        )),
                    },
                }),
                Some(TransactionStep::Look { birth }) => {
                    let absences: Vec<_> =
                        round.answers.iter().map(|a| (a.from, a.floor)).collect();
                    let forgotten = context.configuration.forgotten_by_readers(&absences);
                    look_at(record.map(Arc::as_ref), *birth, forgotten)
                }
                Some(_) => unreachable!("no other step reads"),
            };
            context.effects.push(Effect::Stepped { pending, answer });
        }
    }

    pub(in crate::protocol) fn requeue_reads(&mut self, context: &mut Context<'_>) {
        let round = self.reading.take().expect("checked by the caller");
        context
            .effects
            .push(Effect::Close(round.id, RoundEnd::Lost));
        for pending in round.operations.into_iter().rev() {
            self.queue.push_front(pending);
        }
    }

    pub(in crate::protocol) fn read_timeout(&mut self, context: &mut Context<'_>) {
        let now_us = context.now.mono_us;
        let Some(round) = &mut self.reading else {
            return;
        };
        if round.due_us > now_us {
            return;
        }
        if !context.hears_quorum {
            self.requeue_reads(context);
            return;
        }
        if round.operations.iter().all(|p| p.is_overdue(context.now)) {
            let round = self.reading.take().expect("checked above");
            context
                .effects
                .push(Effect::Close(round.id, RoundEnd::Abandoned));
            for pending in round.operations {
                context.effects.push(Effect::Drop {
                    pending,
                    straggler: false,
                });
            }
            return;
        }
        round.retransmissions += 1;
        round.again_us = Some(now_us);
        let size = context.held_size();
        round.due_us = now_us + context.wait_us(RoundKind::Read, round.retransmissions, size);
        if round.repair.is_some() {
            self.send_repair(context);
            return;
        }
        let (id, again) = (round.id, round.retransmissions);
        let answered: NodeSet = round.answers.iter().map(|a| a.from).collect();
        let holds = round
            .held
            .as_ref()
            .map_or(Ballot::ZERO, |(ballot, _)| *ballot);
        let configuration = context.configuration;
        for member in configuration
            .voters()
            .filter(|m| !answered.contains(m.node))
        {
            context.send(
                member.node,
                id,
                Read {
                    key: context.key.clone(),
                    holds,
                },
                again,
            );
        }
    }
}
