//! Each node as an automaton: its local states, and the transition for each event, computed once.

use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use foldhash::fast::FixedState;
use horseshoe::protocol::types::ballot::Ballot;
use horseshoe::protocol::types::message::{
    ClientReply, ConfigurationUpdate, Envelope, Epoch, Incarnation, Message, NodeId, Purge, RoundId,
};
use horseshoe::protocol::types::record::{Key, Record};
use wire::{Action, Answer, OperationId, Outcome};
use xxhash_rust::xxh3::xxh3_128;

use super::machine::{Inputs, Life, Machine, endpoint};
use super::noise::without_noise;
use super::scope::Scope;
use crate::sim::disk::Disk;
use crate::sim::watch;

/// A change leads from the first epoch to the third; the joint configuration has the second.
pub const EPOCHS: usize = 3;

pub type LocalId = u32;
pub type MessageId = u32;
pub type RecordId = u32;
pub type OutcomeId = u32;

/// What may happen to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Event {
    Deliver(MessageId),
    Request { plan: u8, attempt: u8 },
    Timer,
    Silence,
    Sync,
    Restart,
}

/// A state of one node.
pub struct Local {
    life: Rc<Life>,
    inputs: Inputs,
    disk: Disk,
    tokens: Rc<Vec<u64>>,
    pub has_timer: bool,
    pub has_unsynced: bool,
    pub epoch: Epoch,
    /// The durable state of the key.
    pub durable: Option<(Ballot, RecordId)>,
}

/// The effect of an event on a local state.
#[derive(Debug, Default)]
pub struct Transition {
    pub next: LocalId,
    pub sent: Vec<MessageId>,
    /// The heartbeats of a restarted node, one to each other node.
    pub heartbeats: Vec<MessageId>,
    /// (plan, attempt, outcome)
    pub replies: Vec<(u8, u8, OutcomeId)>,
    /// Records with their ballots, as proposed or accepted.
    pub records: Vec<(Ballot, RecordId)>,
    /// The message of the node's panic, if it panicked.
    pub panic: Option<String>,
    /// The event had no effect.
    pub inert: bool,
}

pub struct Sent {
    pub to: usize,
    pub envelope: Envelope,
    /// The message is an answer to a round, or a configuration. If a node ignores it once, it
    /// ignores it until the node restarts.
    pub is_answer: bool,
    /// The message concerns the change, not the key.
    is_of_change: bool,
}

pub struct Nodes {
    pub scope: Scope,
    key: Key,
    /// By epoch, from 1, and by set of nodes, as bits.
    quorums: Vec<Vec<bool>>,
    /// Rounds of the configuration's register: the node that runs each, and its id.
    own_rounds: HashSet<(NodeId, RoundId)>,
    locals: Vec<Local>,
    local_ids: HashMap<u128, LocalId>,
    transitions: HashMap<(LocalId, Event), Rc<Transition>, FixedState>,
    messages: Vec<Sent>,
    message_ids: HashMap<u128, MessageId>,
    records: Vec<Rc<Record>>,
    record_ids: HashMap<u128, RecordId>,
    outcomes: Vec<Outcome>,
    outcome_ids: HashMap<String, OutcomeId>,
    /// The last heartbeats to each node.
    heard: Vec<Vec<Envelope>>,
}

impl Nodes {
    /// Starts all nodes and makes them reachable as the scope defines. Also returns their states.
    pub fn new(scope: Scope) -> (Nodes, Vec<LocalId>) {
        let mut machines: Vec<Machine> = (0..scope.nodes)
            .map(|node| Machine::first(&scope, node))
            .collect();
        let mut heard = vec![HashMap::new(); scope.nodes];
        for _ in 0..20 {
            for from in 0..scope.nodes {
                for mut heartbeat in std::mem::take(&mut machines[from].heartbeats) {
                    let to = usize::from(heartbeat.destination) - 1;
                    leave_out(&scope, to, &mut heartbeat);
                    machines[to].deliver(&heartbeat);
                    heard[to].insert(from, heartbeat);
                }
            }
            machines.iter_mut().for_each(Machine::pass_news_on);
        }
        let heard = heard.into_iter().map(|from| {
            let mut from: Vec<(usize, Envelope)> = from.into_iter().collect();
            from.sort_by_key(|(node, _)| *node);
            from.into_iter().map(|(_, heartbeat)| heartbeat).collect()
        });
        let mut nodes = Nodes {
            key: Key::user(&scope.key()),
            quorums: (1..=EPOCHS as Epoch)
                .map(|epoch| quorums(&scope, epoch))
                .collect(),
            own_rounds: HashSet::new(),
            heard: heard.collect(),
            scope,
            locals: Vec::new(),
            local_ids: HashMap::new(),
            transitions: HashMap::default(),
            messages: Vec::new(),
            message_ids: HashMap::new(),
            records: Vec::new(),
            record_ids: HashMap::new(),
            outcomes: Vec::new(),
            outcome_ids: HashMap::new(),
        };
        let mut first = Vec::new();
        for mut machine in machines {
            machine.greet(&nodes.scope);
            if nodes.scope.ahead == Some(machine.life.node) {
                machine.jump_ahead();
            }
            first.push(nodes.keep(machine));
        }
        (nodes, first)
    }

    /// Whether the nodes, given for each epoch as bits, contain a quorum of some epoch.
    pub fn is_quorum(&self, sets: &[u8; EPOCHS]) -> bool {
        let epochs = self.quorums.iter().zip(sets);
        epochs
            .into_iter()
            .any(|(quorums, set)| quorums[usize::from(*set)])
    }

    /// The messages in flight when the search begins.
    pub fn first_messages(&mut self) -> Vec<MessageId> {
        let told = self.scope.change.iter().flat_map(|change| &change.told);
        let envelopes: Vec<Envelope> = told
            .map(|node| {
                let configuration = self.scope.configuration(2).into();
                self.envelope(0, *node, 2, ConfigurationUpdate { configuration }.into())
            })
            .collect();
        let ids = envelopes.into_iter().map(|e| self.keep_message(e));
        ids.collect()
    }

    /// P1: all nodes hold the tombstone at `ballot`; each gets a Purge from another node.
    pub fn purge(&mut self, ballot: Ballot, epoch: Epoch) -> Vec<MessageId> {
        let nodes = 0..self.scope.nodes;
        let purge = Purge {
            tombstones: vec![(self.key.clone(), ballot)],
        };
        nodes
            .map(|to| {
                let origin = if to == 0 { 2 } else { 1 };
                let envelope = self.envelope(origin, to, epoch, purge.clone().into());
                self.keep_message(envelope)
            })
            .collect()
    }

    fn envelope(&self, origin: NodeId, to: usize, epoch: Epoch, message: Message) -> Envelope {
        let incarnation = match origin {
            0 => 0,
            node => Scope::incarnation(usize::from(node) - 1),
        };
        Envelope {
            origin,
            destination: to as NodeId + 1,
            incarnation,
            epoch,
            round: 0,
            hops_left: 0,
            via: origin,
            message,
        }
    }

    /// Whether the message arrives as soon as it is sent.
    pub fn is_prompt(&self, id: MessageId, to: LocalId) -> bool {
        let message = self.message(id);
        self.scope.prompt && message.is_of_change && message.envelope.epoch == self.local(to).epoch
    }

    /// Whether a node that ignores the message now ignores it until it restarts.
    pub fn is_ignored_for_good(&self, id: MessageId, by: LocalId) -> bool {
        let message = self.message(id);
        message.is_answer || message.envelope.epoch < self.local(by).epoch
    }

    pub fn local(&self, id: LocalId) -> &Local {
        &self.locals[id as usize]
    }

    pub fn message(&self, id: MessageId) -> &Sent {
        &self.messages[id as usize]
    }

    pub fn record(&self, id: RecordId) -> &Record {
        &self.records[id as usize]
    }

    pub fn outcome(&self, id: OutcomeId) -> &Outcome {
        &self.outcomes[id as usize]
    }

    /// The numbers of local states and transitions that were computed.
    pub fn sizes(&self) -> (usize, usize) {
        (self.locals.len(), self.transitions.len())
    }

    pub fn step(&mut self, from: LocalId, event: Event) -> Rc<Transition> {
        if let Some(known) = self.transitions.get(&(from, event)) {
            return known.clone();
        }
        let run = AssertUnwindSafe(|| self.run(from, event));
        let transition = match catch_unwind(run) {
            Ok(machine) => self.outcome_of(from, machine),
            Err(cause) => {
                let text = cause.downcast_ref::<String>().cloned();
                let text = text.or_else(|| cause.downcast_ref::<&str>().map(|s| s.to_string()));
                Transition {
                    next: from,
                    panic: Some(text.unwrap_or_else(|| "a panic".into())),
                    ..Transition::default()
                }
            }
        };
        let transition = Rc::new(transition);
        self.transitions.insert((from, event), transition.clone());
        transition
    }

    fn run(&self, from: LocalId, event: Event) -> Machine {
        let local = self.local(from);
        let mut machine = Machine::again(
            &self.scope,
            local.life.clone(),
            local.inputs.clone(),
            local.disk.clone(),
            local.tokens.clone(),
        );
        match event {
            Event::Deliver(message) => machine.deliver(&self.message(message).envelope),
            Event::Request { plan, attempt } => {
                machine.request(&self.scope, plan.into(), attempt.into());
            }
            Event::Timer => machine.fire_timer(),
            Event::Silence => machine.be_silent(),
            Event::Sync => machine.end_sync(),
            Event::Restart => {
                let heard = &self.heard[machine.life.node];
                return machine.restart(&self.scope, heard);
            }
        }
        machine.heartbeats.clear();
        machine
    }

    fn outcome_of(&mut self, from: LocalId, mut machine: Machine) -> Transition {
        let mut sent = std::mem::take(&mut machine.sent);
        let heartbeats = std::mem::take(&mut machine.heartbeats);
        let replies = std::mem::take(&mut machine.replies);
        let written = std::mem::take(&mut machine.written);
        let mut records = Vec::new();
        for envelope in &sent {
            if let Message::Accept(m) = &envelope.message
                && m.key == self.key
            {
                records.push((m.ballot, self.keep_record(&m.record)));
            }
        }
        for (key, state) in written {
            if let Some(record) = state.record.as_ref().filter(|_| key == self.key) {
                records.push((state.accepted, self.keep_record(record)));
            }
        }
        sent.retain(|envelope| !self.scope.is_lost(envelope));
        let sent: Vec<MessageId> = sent.into_iter().map(|e| self.keep_message(e)).collect();
        let last = newest_of_each(heartbeats);
        let heartbeats = last.into_iter().map(|e| self.keep_message(e)).collect();
        let replies: Vec<_> = replies
            .into_iter()
            .filter_map(|(to, reply)| match reply {
                ClientReply::Answer(Answer {
                    attempt, outcome, ..
                }) => {
                    let mut plans = 0..self.scope.plans.len();
                    let plan = plans.find(|plan| endpoint(*plan) == to);
                    let plan = plan.expect("only clients are answered") as u8;
                    Some((plan, attempt as u8 - 1, self.keep_outcome(outcome)))
                }
                _ => None,
            })
            .collect();
        let next = self.keep(machine);
        Transition {
            inert: next == from && sent.is_empty() && replies.is_empty(),
            next,
            sent,
            heartbeats,
            replies,
            records,
            panic: None,
        }
    }

    /// The number of the machine's state; returns the existing number if the state is known.
    fn keep(&mut self, machine: Machine) -> LocalId {
        let text = format!("{:?}{:?}", machine.replica, machine.disk);
        let digest = xxh3_128(without_noise(text).as_bytes());
        if let Some(id) = self.local_ids.get(&digest) {
            return *id;
        }
        let durable = machine.disk.synced().registers.get(&self.key).cloned();
        let durable =
            durable.and_then(|s| Some((s.accepted, self.keep_record(s.record.as_ref()?))));
        self.locals.push(Local {
            has_timer: machine.timer_us().is_some(),
            has_unsynced: machine.disk.unsynced() > 0,
            epoch: machine.replica.configuration().map_or(0, |c| c.epoch),
            durable,
            life: machine.life,
            inputs: machine.inputs,
            disk: machine.disk,
            tokens: machine.tokens,
        });
        let id = self.locals.len() as LocalId - 1;
        self.local_ids.insert(digest, id);
        id
    }

    fn keep_message(&mut self, envelope: Envelope) -> MessageId {
        let mut bytes = vec![
            envelope.origin,
            envelope.destination,
            envelope.message.kind(),
        ];
        for word in [envelope.round, envelope.epoch, envelope.incarnation] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        envelope.message.encode_body(&mut bytes);
        let digest = xxh3_128(&bytes);
        if let Some(id) = self.message_ids.get(&digest) {
            return *id;
        }
        let (is_answer, is_of_change) = match &envelope.message {
            Message::Promise(_)
            | Message::Nack(_)
            | Message::Accepted(_)
            | Message::AllAccepted(_)
            | Message::ReadAnswer(_)
            | Message::RangeEqual(_)
            | Message::RangeReply(_) => {
                let asker = (envelope.destination, envelope.round);
                (true, self.own_rounds.contains(&asker))
            }
            Message::DigestsReply(_) | Message::DigestsEqual(_) | Message::BucketReply(_) => {
                (true, true)
            }
            Message::ConfigurationUpdate(_) => (true, false),
            Message::DigestsRequest(_) | Message::BucketRequest(_) => (false, true),
            message => {
                let is_own = key_of(message).is_some_and(|key| *key == Key::configuration());
                if is_own {
                    self.own_rounds.insert((envelope.origin, envelope.round));
                }
                (false, is_own)
            }
        };
        self.messages.push(Sent {
            to: usize::from(envelope.destination) - 1,
            envelope,
            is_answer,
            is_of_change,
        });
        let id = self.messages.len() as MessageId - 1;
        self.message_ids.insert(digest, id);
        id
    }

    fn keep_record(&mut self, record: &Record) -> RecordId {
        let mut bytes = Vec::new();
        wire::encode(&mut bytes, record);
        let digest = xxh3_128(&bytes);
        if let Some(id) = self.record_ids.get(&digest) {
            return *id;
        }
        self.records.push(Rc::new(record.clone()));
        let id = self.records.len() as RecordId - 1;
        self.record_ids.insert(digest, id);
        id
    }

    fn keep_outcome(&mut self, outcome: Outcome) -> OutcomeId {
        let text = format!("{outcome:?}");
        if let Some(id) = self.outcome_ids.get(&text) {
            return *id;
        }
        self.outcomes.push(outcome);
        let id = self.outcomes.len() as OutcomeId - 1;
        self.outcome_ids.insert(text, id);
        id
    }

    /// X1: whether a record contains an append twice. All appended texts are different.
    pub fn applies_twice(&self, record: RecordId) -> bool {
        let Some(value) = &self.record(record).value else {
            return false;
        };
        let text = String::from_utf8_lossy(value);
        self.scope.plans.iter().any(|plan| match &plan.action {
            Action::Append { value } => text.matches(&*String::from_utf8_lossy(value)).count() > 1,
            _ => false,
        })
    }
}

/// Whether the record's table contains the operation, or has removed it because of its client's low
/// mark.
pub fn has(record: &Record, id: OperationId) -> bool {
    let entry = record
        .applied
        .clients
        .iter()
        .find(|c| c.client == id.client);
    entry.is_some_and(|entry| {
        entry.mark > id.sequence || entry.operations.iter().any(|o| o.sequence == id.sequence)
    })
}

/// The key of a round's request.
fn key_of(message: &Message) -> Option<&Key> {
    match message {
        Message::Prepare(m) => Some(&m.key),
        Message::Accept(m) => Some(&m.key),
        Message::Read(m) => Some(&m.key),
        _ => None,
    }
}

fn quorums(scope: &Scope, epoch: Epoch) -> Vec<bool> {
    let configuration = scope.configuration(epoch);
    let sets = 0..1usize << scope.nodes;
    let is_quorum = |set: usize| {
        let members = (0..scope.nodes).filter(|n| set & 1 << n != 0);
        let members: Vec<Incarnation> = members.map(Scope::incarnation).collect();
        let joint = configuration.joint.as_deref();
        watch::is_quorum(&configuration.members, &members)
            && joint.is_none_or(|joint| watch::is_quorum(joint, &members))
    };
    sets.map(is_quorum).collect()
}

/// Removes from a heartbeat the nodes that are not reachable for the receiver.
fn leave_out(scope: &Scope, to: usize, heartbeat: &mut Envelope) {
    if let Message::Heartbeat(m) = &mut heartbeat.message {
        m.rows
            .retain(|row| !scope.unheard.contains(&(to, usize::from(row.node) - 1)));
    }
}

fn newest_of_each(heartbeats: Vec<Envelope>) -> Vec<Envelope> {
    let mut newest: Vec<Envelope> = Vec::new();
    for heartbeat in heartbeats {
        newest.retain(|known| known.destination != heartbeat.destination);
        newest.push(heartbeat);
    }
    newest
}
