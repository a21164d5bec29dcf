//! A global state: the nodes' states, the messages in flight, the clients' histories, and what
//! remains of the scope's bounds; also, for the checks, the records that were proposed and the
//! nodes that held them.

use std::collections::VecDeque;

use horseshoe::protocol::types::ballot::Ballot;
use horseshoe::protocol::types::message::Epoch;
use wire::{Action, OperationId, Outcome};
use xxhash_rust::xxh3::xxh3_128;

use super::history::History;
use super::nodes::{EPOCHS, Event, LocalId, MessageId, Nodes, OutcomeId, RecordId, has};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Node {
        node: usize,
        event: Event,
    },
    /// Delivered, and still in flight.
    Duplicate(MessageId),
    /// A purge of the tombstone that all hold.
    Purge,
}

/// A record with its ballot, and the nodes that ever held it durably, as bits, by the epoch in
/// which each was first seen to hold it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Proposed {
    ballot: Ballot,
    record: RecordId,
    holders: [u8; EPOCHS],
}

#[derive(Debug, Clone)]
pub struct State {
    locals: Vec<LocalId>,
    /// In order. A copy of a message in flight is not a second message: duplicates have their own
    /// bound.
    wire: Vec<MessageId>,
    pub history: History,
    /// In order of ballot.
    proposed: Vec<Proposed>,
    timers: u8,
    duplicates: u8,
    restarts: u8,
    silences: u8,
    purges: u8,
}

impl State {
    pub fn new(nodes: &mut Nodes, locals: Vec<LocalId>) -> Self {
        let mut wire = nodes.first_messages();
        wire.sort_unstable();
        let scope = &nodes.scope;
        let mut state = State {
            locals,
            wire,
            history: History::new(scope.plans.len()),
            proposed: Vec::new(),
            timers: scope.timers,
            duplicates: scope.duplicates,
            restarts: scope.restarts,
            silences: scope.silences,
            purges: scope.purges,
        };
        for node in 0..state.locals.len() {
            if let Some((ballot, record)) = nodes.local(state.locals[node]).durable {
                let noted = state.note_record(nodes, ballot, record);
                noted
                    .and_then(|()| state.note_holder(nodes, node))
                    .expect("a scope begins well");
            }
        }
        state
    }

    pub fn fingerprint(&self, bytes: &mut Vec<u8>) -> u128 {
        bytes.clear();
        bytes.extend([self.timers, self.duplicates, self.restarts]);
        bytes.extend([self.silences, self.purges]);
        self.history.encode(bytes);
        for id in &self.locals {
            bytes.extend(id.to_le_bytes());
        }
        bytes.push(self.proposed.len() as u8);
        for proposed in &self.proposed {
            bytes.extend(proposed.ballot.0.to_le_bytes());
            bytes.extend(proposed.record.to_le_bytes());
            bytes.extend(proposed.holders);
        }
        for id in &self.wire {
            bytes.extend(id.to_le_bytes());
        }
        xxh3_128(bytes)
    }

    /// All steps that are possible next.
    pub fn steps(&self, nodes: &Nodes) -> Vec<Step> {
        let mut steps = Vec::new();
        for id in &self.wire {
            let (node, event) = (nodes.message(*id).to, Event::Deliver(*id));
            steps.push(Step::Node { node, event });
            if self.duplicates > 0 {
                steps.push(Step::Duplicate(*id));
            }
        }
        for (plan, asked) in nodes.scope.plans.iter().enumerate() {
            let operations = &self.history.operations;
            if asked
                .follows
                .is_some_and(|before| operations[before].ended.is_none())
            {
                continue;
            }
            for (attempt, node) in asked.attempts.iter().enumerate() {
                let is_there = nodes.local(self.locals[*node]).epoch >= asked.epoch;
                if is_there && operations[plan].arrived & 1 << attempt == 0 {
                    let (plan, attempt) = (plan as u8, attempt as u8);
                    let event = Event::Request { plan, attempt };
                    steps.push(Step::Node { node: *node, event });
                }
            }
        }
        for (node, local) in self.locals.iter().enumerate() {
            let local = nodes.local(*local);
            let may_happen = [
                (Event::Timer, self.timers > 0 && local.has_timer),
                (Event::Sync, local.has_unsynced),
                (Event::Restart, self.restarts > 0),
                (Event::Silence, self.silences > 0),
            ];
            let events = may_happen.into_iter().filter(|(_, may)| *may);
            steps.extend(events.map(|(event, _)| Step::Node { node, event }));
        }
        if self.purges > 0 && self.grave(nodes).is_some() {
            steps.push(Step::Purge);
        }
        steps
    }

    /// The tombstone that all nodes hold, in the same epoch.
    fn grave(&self, nodes: &Nodes) -> Option<(Ballot, Epoch)> {
        let first = nodes.local(self.locals[0]);
        let (ballot, record) = first.durable?;
        let same = |id: &LocalId| {
            let local = nodes.local(*id);
            local.durable == first.durable && local.epoch == first.epoch
        };
        let is_grave = nodes.record(record).value.is_none() && self.locals.iter().all(same);
        is_grave.then_some((ballot, first.epoch))
    }

    /// The state after a step, or the violation that it causes. `None` if the step has no effect:
    /// the resulting state is this one with fewer messages in flight, which allows nothing that
    /// this one does not.
    pub fn after(&self, nodes: &mut Nodes, step: Step) -> Result<Option<State>, String> {
        let (node, event) = match step {
            Step::Node { node, event } => (node, event),
            Step::Duplicate(id) => (nodes.message(id).to, Event::Deliver(id)),
            Step::Purge => return Ok(Some(self.purged(nodes))),
        };
        let transition = nodes.step(self.locals[node], event);
        let inert = transition.inert && transition.panic.is_none();
        if inert && matches!(event, Event::Deliver(_)) {
            return Ok(None);
        }
        let mut state = self.clone();
        match event {
            Event::Deliver(id) => match step {
                Step::Duplicate(_) => state.duplicates -= 1,
                _ => state.wire.retain(|m| *m != id),
            },
            Event::Request { plan, attempt } => state.history.arrives(plan.into(), attempt),
            Event::Timer => state.timers -= 1,
            Event::Silence => state.silences -= 1,
            Event::Restart => state.restarts -= 1,
            Event::Sync => {}
        }
        let mut prompt = VecDeque::from([(node, event)]);
        let mut stepped = 0u8;
        while let Some((node, event)) = prompt.pop_front() {
            stepped |= 1 << node;
            state.take(nodes, node, event, &mut prompt)?;
        }
        for node in (0..state.locals.len()).filter(|node| stepped & 1 << node != 0) {
            state.drop_ignored(nodes, node);
        }
        Ok(Some(state))
    }

    /// Applies an event to a node.
    fn take(
        &mut self,
        nodes: &mut Nodes,
        node: usize,
        event: Event,
        prompt: &mut VecDeque<(usize, Event)>,
    ) -> Result<(), String> {
        let transition = nodes.step(self.locals[node], event);
        if let Some(text) = &transition.panic {
            return Err(format!("node {node} stops: {text}"));
        }
        self.locals[node] = transition.next;
        for id in &transition.sent {
            let to = nodes.message(*id).to;
            if nodes.is_prompt(*id, self.locals[to]) {
                prompt.push_back((to, Event::Deliver(*id)));
            } else if let Err(place) = self.wire.binary_search(id) {
                self.wire.insert(place, *id);
            }
        }
        for id in &transition.heartbeats {
            let to = nodes.message(*id).to;
            self.locals[to] = nodes.step(self.locals[to], Event::Deliver(*id)).next;
        }
        for (ballot, record) in &transition.records {
            self.note_record(nodes, *ballot, *record)?;
        }
        self.note_holder(nodes, node)?;
        for (plan, attempt, outcome) in &transition.replies {
            let plan = usize::from(*plan);
            if self.history.answered(nodes, plan, *attempt, *outcome) {
                self.check_answer(nodes, plan, *outcome)?;
            }
        }
        Ok(())
    }

    fn purged(&self, nodes: &mut Nodes) -> State {
        let mut state = self.clone();
        let (ballot, epoch) = self.grave(nodes).expect("the step was possible");
        state.purges -= 1;
        state.wire.extend(nodes.purge(ballot, epoch));
        state.wire.sort_unstable();
        state
    }

    /// Answers that the node ignores count as lost. This does not hold if a node restarts: R4 makes
    /// it ignore the answers from before its restart, and the search must test that.
    fn drop_ignored(&mut self, nodes: &mut Nodes, node: usize) {
        if nodes.scope.restarts > 0 {
            return;
        }
        let local = self.locals[node];
        self.wire.retain(|id| {
            let ignored = nodes.message(*id).to == node
                && nodes.is_ignored_for_good(*id, local)
                && nodes.step(local, Event::Deliver(*id)).inert;
            !ignored
        });
    }

    /// A record that a node holds was accepted in the epoch in which the node was first seen to
    /// hold it.
    fn note_holder(&mut self, nodes: &Nodes, node: usize) -> Result<(), String> {
        let local = nodes.local(self.locals[node]);
        let Some((ballot, _)) = local.durable else {
            return Ok(());
        };
        let proposed = self.proposed.iter().position(|p| p.ballot == ballot);
        let place = proposed.expect("what is held was written before");
        let holders = &mut self.proposed[place].holders;
        if holders.iter().any(|set| set & 1 << node != 0) {
            return Ok(());
        }
        holders[local.epoch as usize - 1] |= 1 << node;
        if nodes.is_quorum(holders) {
            for other in 0..self.proposed.len() {
                self.check_pair(nodes, place.min(other), place.max(other))?;
            }
        }
        Ok(())
    }

    fn note_record(
        &mut self,
        nodes: &Nodes,
        ballot: Ballot,
        record: RecordId,
    ) -> Result<(), String> {
        let known = self.proposed.binary_search_by_key(&ballot, |p| p.ballot);
        let place = match known {
            Ok(place) if self.proposed[place].record == record => return Ok(()),
            Ok(_) => return Err(format!("R3: ballot {ballot} carries two different records")),
            Err(place) => place,
        };
        let holders = [0; EPOCHS];
        self.proposed.insert(
            place,
            Proposed {
                ballot,
                record,
                holders,
            },
        );
        if nodes.applies_twice(record) {
            let value = &nodes.record(record).value;
            return Err(format!("X1: an operation is applied twice: {value:?}"));
        }
        for lower in 0..place {
            self.check_pair(nodes, lower, place)?;
        }
        for (plan, operation) in self.history.operations.iter().enumerate() {
            if let Some((_, outcome)) = operation.ended {
                self.check_refused(nodes, plan, outcome)?;
            }
        }
        Ok(())
    }

    /// Every record proposed above a chosen one contains the chosen one's operations.
    fn check_pair(&self, nodes: &Nodes, lower: usize, higher: usize) -> Result<(), String> {
        let (lower, higher) = (&self.proposed[lower], &self.proposed[higher]);
        if lower.ballot == higher.ballot || !nodes.is_quorum(&lower.holders) {
            return Ok(());
        }
        let (old, new) = (nodes.record(lower.record), nodes.record(higher.record));
        for entry in &old.applied.clients {
            for operation in &entry.operations {
                let id = OperationId {
                    client: entry.client,
                    sequence: operation.sequence,
                };
                // P1: a purge removes what cannot be done again (X3).
                let forgotten = nodes.scope.purges > 0 && new.applied.dropped >= operation.birth;
                if !has(new, id) && !forgotten {
                    return Err(format!(
                        "the record chosen at {} is lost in the one of {}: {old:?}, {new:?}",
                        lower.ballot, higher.ballot
                    ));
                }
            }
        }
        Ok(())
    }

    /// A write that its client knows to be done is held durably by a quorum.
    fn check_answer(&self, nodes: &Nodes, plan: usize, outcome: OutcomeId) -> Result<(), String> {
        self.check_refused(nodes, plan, outcome)?;
        let is_other_key = nodes.scope.plans[plan].key != 0;
        if is_other_key || !matches!(nodes.outcome(outcome), Outcome::Written { .. }) {
            return Ok(());
        }
        let id = nodes.scope.operation(plan).id;
        let mut proposed = self.proposed.iter();
        let holds =
            proposed.any(|p| has(nodes.record(p.record), id) && nodes.is_quorum(&p.holders));
        match holds {
            true => Ok(()),
            false => Err(format!(
                "R2: operation {plan} is acknowledged, but no quorum has it"
            )),
        }
    }

    /// X5: no record contains an operation that was refused.
    fn check_refused(&self, nodes: &Nodes, plan: usize, outcome: OutcomeId) -> Result<(), String> {
        let outcome = nodes.outcome(outcome);
        let refuses = matches!(
            outcome,
            Outcome::NoQuorum { .. } | Outcome::Busy { .. } | Outcome::Full { .. }
        );
        // An intent alone decides nothing (T1).
        let places = matches!(nodes.scope.plans[plan].action, Action::Transact { .. });
        if !refuses || places {
            return Ok(());
        }
        let id = nodes.scope.operation(plan).id;
        let mut proposed = self.proposed.iter();
        match proposed.find(|p| has(nodes.record(p.record), id)) {
            None => Ok(()),
            Some(p) => Err(format!(
                "X5: operation {plan} was refused ({outcome:?}), and is proposed at {}",
                p.ballot
            )),
        }
    }
}
