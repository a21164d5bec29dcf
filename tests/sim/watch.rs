//! Invariants that must hold at every moment, checked from outside: in the nodes' messages, writes
//! and answers.

use std::collections::{BTreeMap, HashMap};

use horseshoe::protocol::types::ballot::Ballot;
use horseshoe::protocol::types::configuration::lineage_of;
use horseshoe::protocol::types::message::{
    BucketReply, ClientReply, Configuration, CopyAck, Envelope, Epoch, Group, Incarnation, Member,
    Message, NodeId, RoundId,
};
use horseshoe::protocol::types::record::{Key, Record};
use wire::clock;
use wire::{Answer, Outcome, Version};

use super::disk::Table;
use super::node::{EPOCH_MS, Node};

type Map<K, V> = HashMap<K, V, foldhash::fast::FixedState>;

/// The recent epochs in which a round may have run whose answer arrives now.
const EPOCHS_RECENT: usize = 4;

#[derive(Debug, Default)]
pub struct Watch {
    /// The record of each ballot of a key, as a hash.
    records: Map<(Key, Ballot), u64>,
    /// The round in which a ballot of a key was issued.
    issued: Map<(Key, Ballot), RoundId>,
    /// The key of each request to a member, by the node that sent it and its round.
    asked: Map<(NodeId, RoundId), Key>,
    configurations: BTreeMap<Epoch, Configuration>,
    /// B2: how far ahead of the simulation's time a ballot may be, where that is known.
    pub ahead_max_ms: Option<u64>,
    /// A forced configuration replaced one from which others continued: what these acknowledged is
    /// lost, and the operator was warned.
    may_have_lost: bool,
    /// The first violation.
    violation: Option<String>,
}

impl Watch {
    pub fn violation(&self) -> Option<&str> {
        self.violation.as_deref()
    }

    /// The newest configuration that any node has.
    pub fn configuration(&self) -> Option<&Configuration> {
        self.configurations.values().next_back()
    }

    pub fn may_have_lost(&self) -> bool {
        self.may_have_lost
    }

    fn hold(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds && self.violation.is_none() {
            self.violation = Some(what());
        }
    }

    /// A node itself detected a state that must not occur.
    pub fn fails(&mut self, what: String) {
        self.hold(false, || what);
    }

    /// A node passes a message to the network.
    pub fn sends(&mut self, now_us: u64, from: &Node, envelope: &Envelope) {
        let origin = envelope.origin;
        self.tells_what_lasts(from, envelope);
        self.is_within_bound(now_us, envelope);
        match &envelope.message {
            Message::Prepare(m) => {
                self.asked.insert((origin, envelope.round), m.key.clone());
                self.hold(m.ballot.node() == origin, || {
                    format!("B1: node {origin} prepares ballot {} of another", m.ballot)
                });
                self.issues(&m.key, m.ballot, envelope.round, true);
            }
            Message::Accept(m) => {
                self.asked.insert((origin, envelope.round), m.key.clone());
                self.issues(&m.key, m.ballot, envelope.round, false);
                self.carries(&m.key, m.ballot, &m.record);
            }
            Message::Read(m) => {
                self.asked.insert((origin, envelope.round), m.key.clone());
            }
            Message::Copy(m) => self.carries(&m.key, m.ballot, &m.record),
            Message::CopyAck(m) => self.copied(from.disk.synced(), m),
            Message::ConfigurationUpdate(m) => self.configured(&m.configuration),
            message => self.answers(from.disk.synced(), envelope, message),
        }
    }

    /// Checks every statement of a message about its sender: the epoch and the floor of an answer
    /// are durable, so are the bucket entries that it sends (R2), and so is a ceiling above the
    /// ballots that it issues (B1).
    fn tells_what_lasts(&mut self, from: &Node, envelope: &Envelope) {
        let durable = from.disk.synced();
        match &envelope.message {
            Message::Promise(m) => self.answers_in(from, envelope, m.floor),
            Message::ReadAnswer(m) => self.answers_in(from, envelope, m.floor),
            Message::Accepted(_)
            | Message::Nack(_)
            | Message::CopyAck(_)
            | Message::DigestsReply(_)
            | Message::DigestsEqual(_) => self.answers_in(from, envelope, Ballot::ZERO),
            Message::RangeEqual(m) => self.answers_in(from, envelope, m.floor),
            Message::RangeReply(m) => {
                self.answers_in(from, envelope, m.floor);
                for entry in &m.entries {
                    self.lists_key(durable, &entry.key, entry.accepted);
                }
            }
            Message::BucketReply(told) => {
                self.answers_in(from, envelope, Ballot::ZERO);
                self.lists(durable, told);
            }
            Message::Prepare(m) => self.issues_below(durable, envelope.origin, m.ballot),
            // A read round sends a record with the ballot that another node issued.
            Message::Accept(m) if m.ballot.node() == envelope.origin => {
                self.issues_below(durable, envelope.origin, m.ballot);
            }
            _ => {}
        }
    }

    /// R1, R2: a node that answers in an epoch, and with a floor, restarts with both. (E5: the
    /// floor of a node that was removed and admitted since is zero again.)
    fn answers_in(&mut self, from: &Node, envelope: &Envelope, floor: Ballot) {
        let meta = &from.disk.synced().meta;
        let epoch = meta.configuration.as_ref().map_or(0, |c| c.epoch);
        let is_same = envelope.incarnation == from.disk.incarnation();
        let holds = envelope.epoch <= epoch && (floor <= meta.floor || !is_same);
        self.hold(holds, || {
            let durable = meta.floor;
            format!("R2: {envelope:?}, but durable are epoch {epoch}, floor {durable}")
        });
    }

    /// R2: the bucket entries that a node sends are durable.
    fn lists(&mut self, durable: &Table, told: &BucketReply) {
        for entry in &told.entries {
            self.lists_key(durable, &entry.key, entry.accepted);
        }
    }

    fn lists_key(&mut self, durable: &Table, key: &Key, told: Ballot) {
        let (_, accepted) = durable_ballots(durable, key);
        self.hold(told <= accepted, || {
            format!("R2: lists {key:?} at {told}, but only {accepted} is durable")
        });
    }

    /// B1: a node that restarts begins above all ballots that it issued.
    fn issues_below(&mut self, durable: &Table, node: NodeId, ballot: Ballot) {
        self.hold(ballot.reading() <= durable.meta.ceiling, || {
            format!("B1: ballot {ballot} leaves node {node} above its durable ceiling")
        });
    }

    /// B2: holds whatever the clocks of a minority show.
    fn is_within_bound(&mut self, now_us: u64, envelope: &Envelope) {
        let Some(ahead_max_ms) = self.ahead_max_ms else {
            return;
        };
        let clock = match &envelope.message {
            Message::Heartbeat(heartbeat) => heartbeat.rows[0].clock,
            message => message.latest(),
        };
        let ahead_ms = clock::to_ms(clock).saturating_sub(EPOCH_MS + now_us / 1_000);
        let origin = envelope.origin;
        self.hold(ahead_ms <= ahead_max_ms, || {
            format!("B2: node {origin} is {ahead_ms} ms ahead, more than {ahead_max_ms}")
        });
    }

    /// B1: a prepared ballot of a key belongs to one round.
    fn issues(&mut self, key: &Key, ballot: Ballot, round: RoundId, prepared: bool) {
        let by = *self.issued.entry((key.clone(), ballot)).or_insert(round);
        self.hold(!prepared || by == round, || {
            format!("B1: ballot {ballot} of round {by} is issued again in round {round}")
        });
    }

    /// R3: a ballot never carries two different records.
    fn carries(&mut self, key: &Key, ballot: Ballot, record: &Record) {
        let mut bytes = Vec::new();
        wire::encode(&mut bytes, record);
        let hash = xxhash_rust::xxh3::xxh3_64(&bytes);
        let held = *self.records.entry((key.clone(), ballot)).or_insert(hash);
        self.hold(held == hash, || {
            format!("R3: ballot {ballot} of key {key:?} carries two different records")
        });
    }

    /// R2: the records that a member reports to hold are durable, and so is the promise for which
    /// it refuses.
    fn copied(&mut self, durable: &Table, copied: &CopyAck) {
        let state = durable.registers.get(&copied.key);
        let holds = match copied.refused_for {
            Some(promised) => {
                let floor = durable.meta.floor;
                state.map_or(floor, |s| s.promised.max(floor)) >= promised
            }
            None => state.is_some_and(|s| s.accepted >= copied.ballot),
        };
        self.hold(holds, || {
            format!("R2: {copied:?}, but durable is {state:?}")
        });
    }

    /// R2: what an answer reports is durable.
    fn answers(&mut self, durable: &Table, envelope: &Envelope, message: &Message) {
        let Some(key) = self.asked.get(&(envelope.destination, envelope.round)) else {
            return;
        };
        let (promised, accepted) = durable_ballots(durable, key);
        let base = durable.meta.configuration.as_ref().map(|c| c.base);
        let bound = durable.meta.floor.max(base.unwrap_or_default());
        let holds = match message {
            Message::Promise(m) => m.ballot <= promised && m.accepted <= accepted,
            Message::Accepted(m) => m.ballot <= accepted,
            Message::Nack(m) => m.promised <= promised.max(bound),
            Message::ReadAnswer(m) => m.accepted <= accepted,
            _ => true,
        };
        self.hold(holds, || {
            format!(
                "R2: node {} says {message:?}, but only promised {promised}, accepted {accepted} \
                 are durable",
                envelope.origin
            )
        });
    }

    /// A node writes a group.
    pub fn writes(&mut self, group: &Group) {
        for (key, state) in &group.registers {
            if let Some(record) = &state.record {
                self.carries(key, state.accepted, record);
            }
            self.hold(state.promised >= state.accepted, || {
                format!("key {key:?} has accepted above what it promised: {state:?}")
            });
        }
    }

    /// The state that a node found on its disk, or has made durable there.
    pub fn finds(&mut self, durable: &Table) {
        if let Some(configuration) = &durable.meta.configuration {
            self.configured(configuration);
        }
    }

    /// There is one configuration per epoch. E2: a joint configuration is followed by the one that
    /// it announced, or (E7) by the one before it.
    fn follows(&mut self, epoch: Epoch) {
        let before = epoch
            .checked_sub(1)
            .and_then(|e| self.configurations.get(&e));
        let (Some(before), Some(next)) = (before, self.configurations.get(&epoch)) else {
            return;
        };
        let ids = |members: &[Member]| -> Vec<_> {
            let of = members.iter().map(|m| (m.node, m.incarnation));
            of.collect()
        };
        let holds = before.joint.as_ref().is_none_or(|joint| {
            let back = ids(&next.members) == ids(&before.members);
            next.forced || next.joint.is_none() && (ids(&next.members) == ids(joint) || back)
        });
        let both = format!("{before:?} and {next:?}");
        self.hold(holds, || format!("E2: the change is superseded: {both}"));
    }

    /// E8: whether some nodes continued where others were forced.
    fn supersedes(&mut self) {
        let all = || self.configurations.values();
        let mut forces = all().flat_map(|c| &c.forces);
        let went_on =
            |epoch: Epoch, from: Epoch| lineage_of(epoch) == lineage_of(from) && epoch > from;
        let lost = forces.any(|f| all().any(|c| went_on(c.epoch, f.from)));
        self.may_have_lost |= lost;
    }

    fn configured(&mut self, configuration: &Configuration) {
        let epoch = configuration.epoch;
        match self.configurations.get(&epoch) {
            None => {
                self.configurations.insert(epoch, configuration.clone());
                self.supersedes();
                self.follows(epoch);
                self.follows(epoch + 1);
            }
            Some(known) if known == configuration => {}
            Some(known) => {
                let both = format!("{known:?} and {configuration:?}");
                self.hold(false, || {
                    format!("E6: two configurations of epoch {epoch}: {both}")
                });
            }
        }
    }

    /// A node answers a client: a write that was done is durable at a quorum.
    pub fn replies(&mut self, nodes: &[Node], key: &Key, reply: &ClientReply) {
        let (ClientReply::Answer(Answer { outcome, .. })
        | ClientReply::Sessionless { outcome, .. }) = reply
        else {
            return;
        };
        let Outcome::Written { version, .. } = outcome else {
            return;
        };
        // A member that has lost its state since may have held it.
        let lacks = |incarnation: Incarnation| {
            let mut nodes = nodes.iter().filter(|n| !n.disk.is_rolled_back());
            let node = nodes.find(|n| n.disk.incarnation() == incarnation);
            node.is_some_and(|n| durable_version(n.disk.synced(), key) < *version)
        };
        // The round may have run in an epoch that some have left by now.
        let mut recent = self.configurations.values().rev().take(EPOCHS_RECENT);
        let holds = recent.any(|configuration| {
            let holds = |members: &[Member]| {
                let holders = members.iter().map(|m| m.incarnation);
                let holders: Vec<Incarnation> = holders.filter(|i| !lacks(*i)).collect();
                is_quorum(members, &holders)
            };
            let joint = configuration.joint.as_deref();
            holds(&configuration.members) && joint.is_none_or(holds)
        });
        self.hold(holds || self.configurations.is_empty(), || {
            format!("version {version:#x} of {key:?} is acknowledged, and durable at no quorum")
        });
    }
}

/// The id that the configuration gave to this incarnation.
pub fn member_of(configuration: &Configuration, incarnation: Incarnation) -> Option<NodeId> {
    let joint = configuration.joint.iter().flatten();
    let mut members = configuration.members.iter().chain(joint);
    let member = members.find(|m| m.incarnation == incarnation);
    member.map(|m| m.node)
}

/// Q1, implemented independently: more than half, or half with the master.
pub fn is_quorum(members: &[Member], set: &[Incarnation]) -> bool {
    let has = |m: &&Member| set.contains(&m.incarnation);
    let votes = members.iter().filter(has).count();
    votes * 2 > members.len() || votes * 2 == members.len() && has(&&members[0])
}

/// What is durably promised and accepted for a key. P1: if the key was purged since, the floor
/// stands for both, as it is above them.
fn durable_ballots(durable: &Table, key: &Key) -> (Ballot, Ballot) {
    let floor = durable.meta.floor;
    let state = durable.registers.get(key);
    state.map_or((floor, floor), |s| (s.promised, s.accepted))
}

fn durable_version(table: &Table, key: &Key) -> Version {
    let record = table.registers.get(key).and_then(|s| s.record.as_ref());
    record.map_or(0, |r| r.version)
}
