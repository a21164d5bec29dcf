//! The definition of what may happen in a search.

use bytes::Bytes;
use horseshoe::protocol::types::ballot::Ballot;
use horseshoe::protocol::types::configuration;
use horseshoe::protocol::types::message::{
    Configuration, Envelope, Epoch, Incarnation, Member, Message, NodeId,
};
use horseshoe::protocol::types::record::{AcceptorState, Key, Record};
use wire::clock;
use wire::{Action, KeyChange, Operation, OperationId, Transaction, TransactionPart};

pub const CLUSTER: u64 = 9;
pub const WALL_MS: u64 = 1_800_000_000_000;

/// One operation, of a separate client unless `follows` says otherwise.
#[derive(Debug, Clone)]
pub struct Plan {
    pub action: Action,
    /// The nodes (from 0) that receive the requests, in the order in which the client sends them;
    /// all but the first are marked as retries. The requests arrive in any order, or never.
    pub attempts: Vec<usize>,
    /// This operation begins after the end of that one, as the next one of the same client.
    pub follows: Option<usize>,
    /// The node that receives the request must have reached this epoch.
    pub epoch: Epoch,
    /// Which of the scope's keys it is about, or the first one of a transaction.
    pub key: usize,
}

pub fn ask(action: Action, attempts: &[usize]) -> Plan {
    Plan {
        action,
        attempts: attempts.to_vec(),
        follows: None,
        epoch: 1,
        key: 0,
    }
}

/// A transaction that appends the text to these keys.
pub fn appends(nodes: usize, keys: &[usize], text: &str, attempts: &[usize]) -> Plan {
    let parts = keys.iter().map(|key| TransactionPart {
        key: key_of(nodes, *key),
        change: Some(KeyChange::Append(Bytes::copy_from_slice(text.as_bytes()))),
        ..TransactionPart::default()
    });
    let transaction = Transaction {
        parts: parts.collect(),
    };
    Plan {
        key: keys[0],
        ..ask(Action::Transact { transaction }, attempts)
    }
}

/// A key whose preferred coordinators are the nodes in the order of their indexes, beginning with
/// the node of that place.
fn key_of(nodes: usize, place: usize) -> Bytes {
    let in_order = |name: &String| {
        let weight = |n: usize| wire::rendezvous_weight(name.as_bytes(), (n % nodes) as u8 + 1);
        (place + 1..place + nodes).all(|n| weight(n - 1) > weight(n))
    };
    let name = (0..).map(|n| format!("k{n}")).find(in_order);
    name.expect("one of them").into()
}

impl Plan {
    pub fn after(mut self, operation: usize) -> Plan {
        self.follows = Some(operation);
        self
    }

    pub fn on_key(mut self, key: usize) -> Plan {
        self.key = key;
        self
    }

    pub fn in_epoch(mut self, epoch: Epoch) -> Plan {
        self.epoch = epoch;
        self
    }
}

/// A change of the configuration that has begun: a quorum of the old members has chosen the joint
/// configuration, of epoch 2, in epoch 1.
#[derive(Debug, Clone, Default)]
pub struct Change {
    /// Nodes (from 0), masters first.
    pub old: Vec<usize>,
    pub new: Vec<usize>,
    /// Nodes that receive the joint configuration from its proposer; they may send it to the
    /// others.
    pub told: Vec<usize>,
    /// A node that does not receive the joint configuration, and goes from the old one to the new
    /// one.
    pub skips: Option<usize>,
}

/// A node's state of the key before the search begins.
#[derive(Debug, Clone)]
pub struct Held {
    pub node: usize,
    pub value: &'static str,
    /// The age by the wall clock when the search begins.
    pub age_ms: u64,
}

#[derive(Debug, Clone)]
pub struct Scope {
    pub nodes: usize,
    pub plans: Vec<Plan>,
    pub change: Option<Change>,
    pub held: Vec<Held>,
    /// A node whose clock is ahead of the others' once the search begins.
    pub ahead: Option<usize>,
    /// Rounds of the configuration's register, and the requests for the evidence of an epoch,
    /// complete immediately if the receiver is in the same epoch. All that remains open of a change
    /// is which nodes have installed it at what time.
    pub prompt: bool,
    /// A tombstone that all nodes hold is purged by all, each when it receives the Purge.
    pub purges: u8,
    /// Pairs (node, other): the other is not reachable for the node, so the node does not leave
    /// work to it.
    pub unheard: Vec<(usize, usize)>,
    /// How often a node's next timer fires.
    pub timers: u8,
    /// How often a message is delivered and stays in flight.
    pub duplicates: u8,
    /// How often a node loses what is not on its disk, and restarts.
    pub restarts: u8,
    /// How often a node receives nothing for so long that it loses the quorum.
    pub silences: u8,
    /// A sync is a separate step.
    pub slow_disks: bool,
    pub states_max: usize,
}

impl Scope {
    pub fn new(nodes: usize, plans: Vec<Plan>) -> Self {
        Scope {
            nodes,
            plans,
            change: None,
            held: Vec::new(),
            ahead: None,
            prompt: false,
            purges: 0,
            unheard: Vec::new(),
            timers: 0,
            duplicates: 0,
            restarts: 0,
            silences: 0,
            slow_disks: false,
            states_max: 20_000_000,
        }
    }

    pub fn incarnation(node: usize) -> Incarnation {
        100 + node as u64
    }

    pub fn list(&self) -> Vec<String> {
        (0..self.nodes).map(|n| format!("node{n}:1")).collect()
    }

    fn members(&self, nodes: &[usize]) -> Vec<Member> {
        let list = self.list();
        let members = nodes.iter().map(|n| Member {
            node: *n as NodeId + 1,
            incarnation: Scope::incarnation(*n),
            address: list[*n].clone(),
            ..Member::default()
        });
        members.collect()
    }

    /// All nodes have installed the configuration of epoch 1 before the search begins.
    pub fn configuration(&self, epoch: Epoch) -> Configuration {
        let all: Vec<usize> = (0..self.nodes).collect();
        let change = self.change.as_ref();
        let old = change.map_or(&all, |change| &change.old);
        let new = change.map_or(&all, |change| &change.new);
        let (members, joint) = match epoch {
            1 => (old, None),
            2 => (old, Some(self.members(new))),
            3 => (new, None),
            _ => panic!("one change makes three epochs, not {epoch}"),
        };
        let is_away = |n: &usize| !members.contains(n) && (epoch != 2 || !new.contains(n));
        let away: Vec<usize> = all.iter().copied().filter(is_away).collect();
        Configuration {
            cluster: CLUSTER,
            epoch,
            members: self.members(members),
            joint,
            formed_by: Scope::incarnation(0),
            away: self.members(&away),
            ids: self.nodes as u8,
            ..Configuration::default()
        }
    }

    /// The content of a node's disk when it starts.
    pub fn registers(&self, node: usize) -> Vec<(Key, AcceptorState)> {
        let state = |age_ms: u64, value: Bytes| {
            let accepted = Ballot::new(clock::from_ms(WALL_MS - age_ms), 1);
            let record = Record {
                value: Some(value),
                version: accepted.0,
                ..Record::default()
            };
            AcceptorState {
                promised: accepted.next(),
                accepted,
                chosen: true,
                record: Some(record.into()),
                life: 0,
            }
        };
        let held = self.held.iter().filter(|held| held.node == node);
        let held = held.map(|held| (held.age_ms, held.value.into()));
        let mut registers: Vec<_> = held
            .map(|(age_ms, value)| (Key::user(&self.key()), state(age_ms, value)))
            .collect();
        if let Some(change) = &self.change
            && change.old.contains(&node)
        {
            let value = configuration::encode(&self.configuration(2));
            registers.push((Key::configuration(), state(1, value)));
        }
        registers
    }

    pub fn is_lost(&self, envelope: &Envelope) -> bool {
        let skips = self.change.as_ref().and_then(|change| change.skips);
        let to = usize::from(envelope.destination) - 1;
        match &envelope.message {
            Message::ConfigurationUpdate(m) => skips == Some(to) && m.configuration.epoch == 2,
            _ => false,
        }
    }

    /// The key whose records the search looks at.
    pub fn key(&self) -> Bytes {
        key_of(self.nodes, 0)
    }

    pub fn has_transactions(&self) -> bool {
        let mut plans = self.plans.iter();
        plans.any(|plan| matches!(plan.action, Action::Transact { .. }))
    }

    pub fn key_of(&self, plan: usize) -> Bytes {
        key_of(self.nodes, self.plans[plan].key)
    }

    /// The id of the plan's client, and the number of its earlier operations.
    fn client(&self, plan: usize) -> (usize, u64) {
        match self.plans[plan].follows {
            None => (plan, 0),
            Some(before) => {
                let (client, count) = self.client(before);
                (client, count + 1)
            }
        }
    }

    pub fn operation(&self, plan: usize) -> Operation {
        let (client, before) = self.client(plan);
        Operation {
            id: OperationId {
                client: 1_000 + client as u128,
                sequence: 1 + before,
            },
            birth: clock::from_ms(WALL_MS) + plan as u64,
            low_mark: 1 + before,
            key: self.key_of(plan),
            want_old: false,
            action: self.plans[plan].action.clone(),
        }
    }
}
