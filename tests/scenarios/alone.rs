//! One real replica, node 1 of three; the test plays the other nodes. These tests check what a
//! single node does with its state, message by message. The test controls when writes to its disk
//! finish.

use std::collections::BTreeMap;

use bytes::Bytes;
use horseshoe::protocol::types::ballot::Ballot;
use horseshoe::protocol::types::digest::{Bucket, Digests, Spread};
use horseshoe::protocol::types::message::{
    Configuration, ConfigurationUpdate, Envelope, Epoch, Forward, GroupNumber, Heartbeat,
    Incarnation, Input, Member, Message, Meta, NodeId, Now, Output, Recovered, ReportedLink,
    RoundId, Row,
};
use horseshoe::protocol::types::page::{Page, RangePage};
use horseshoe::protocol::types::record::{AcceptorState, Key, Record};
use horseshoe::protocol::{Options, Replica, Tuning};
use wire::clock;
use wire::{Action, Operation, OperationId};

const CLUSTER: u64 = 9;
const WALL_MS: u64 = 1_800_000_000_000;
/// The interval of the other nodes' heartbeats.
const BEAT_MS: u64 = 50;
/// The node's boot; the boot of another node is this plus its id.
const BOOT: u64 = 100;
pub const EPOCH: Epoch = 5;
/// The number of admissions of the node.
pub const LIFE: u32 = 1;

pub struct Alone {
    replica: Replica,
    now: Now,
    epoch: Epoch,
    /// Nodes that are in another epoch than the rest.
    pub elsewhere: BTreeMap<NodeId, Epoch>,
    incarnations: BTreeMap<NodeId, Incarnation>,
    /// The other nodes that send heartbeats.
    pub there: Vec<NodeId>,
    pub disk: BTreeMap<Key, AcceptorState>,
    pub meta: Meta,
    /// Loads do not complete for now; the keys that were requested.
    pub loads_nothing: bool,
    unloaded: Vec<Key>,
    /// Syncs do not complete for now; the last group that was written.
    pub syncs_nothing: bool,
    unsynced: Option<GroupNumber>,
    sent: Vec<Envelope>,
    beats: u32,
    forwards: u64,
}

/// The key's bucket in the cluster of these nodes.
pub fn bucket_of(key: &Key) -> Bucket {
    Spread::default().bucket_of(key)
}

pub fn ballot(ms: u64) -> Ballot {
    Ballot::new(clock::from_ms(WALL_MS - 60_000 + ms), 2)
}

pub fn record(value: Option<&str>) -> Record {
    Record {
        value: value.map(|v| Bytes::copy_from_slice(v.as_bytes())),
        version: ballot(0).0,
        ..Record::default()
    }
}

fn member(node: NodeId, incarnation: Incarnation) -> Member {
    Member {
        node,
        incarnation,
        address: format!("node{node}:1"),
        ..Member::default()
    }
}

/// Node 1 is a member in incarnation 1, or a non-member.
pub fn configuration(epoch: Epoch, members: &[(NodeId, Incarnation)]) -> Configuration {
    let is_in = |node: &NodeId| members.iter().any(|(m, _)| m == node);
    let away = (1..=3).filter(|node| !is_in(node));
    Configuration {
        cluster: CLUSTER,
        epoch,
        members: members.iter().map(|(n, i)| member(*n, *i)).collect(),
        away: away.map(|node| member(node, 0)).collect(),
        formed_by: 1,
        ids: 3,
        ..Configuration::default()
    }
}

impl Alone {
    /// The node has this state; node 2 is reachable, node 3 is not.
    pub fn new(disk: &[(Key, AcceptorState)]) -> Self {
        let members = [(1, 1), (2, 2), (3, 3)];
        let meta = Meta {
            configuration: Some(configuration(EPOCH, &members)),
            life: LIFE,
            ..Meta::default()
        };
        let mut digests = Digests::default();
        for (key, state) in disk {
            digests.add(key, state.accepted, state.life);
        }
        let recovered = Recovered {
            incarnation: 1,
            meta: meta.clone(),
            digests,
            ..Recovered::default()
        };
        let options = Options {
            list: (1..=3).map(|node| format!("node{node}:1")).collect(),
            index: 0,
            boot: BOOT,
            seed: 1,
            skew_max_ms: 60_000,
            value_size_max: wire::VALUE_SIZE_DEFAULT,
            keys_cached_max: 100,
            cache_size_max: 64 << 20,
            heartbeat_ms: BEAT_MS,
            link_down_ms: 200,
            shrink_after_ms: 0,
            disk_hung_ms: 2_000,
            cluster_name: String::new(),
            bootstrap: false,
            tuning: Tuning::default(),
            insecure_admin: true,
        };
        let now = Now {
            mono_us: 1_000_000,
            wall_ms: WALL_MS,
        };
        let mut alone = Alone {
            replica: Replica::new(options, recovered, now),
            now,
            epoch: EPOCH,
            elsewhere: BTreeMap::new(),
            incarnations: members.into_iter().collect(),
            there: vec![2],
            disk: disk.iter().cloned().collect(),
            meta,
            loads_nothing: false,
            unloaded: Vec::new(),
            syncs_nothing: false,
            unsynced: None,
            sent: Vec::new(),
            beats: 0,
            forwards: 0,
        };
        alone.drain();
        alone.run_ms(BEAT_MS);
        alone
    }

    fn drain(&mut self) {
        while let Some(output) = self.replica.poll_output() {
            match output {
                Output::Persist(group) => {
                    self.disk.extend(group.registers);
                    for key in group.dropped {
                        self.disk.remove(&key);
                    }
                    self.meta = group.meta.unwrap_or(self.meta.clone());
                    self.unsynced = Some(group.number);
                    if !self.syncs_nothing {
                        self.sync();
                    }
                }
                Output::Load(key) if self.loads_nothing => self.unloaded.push(key),
                Output::Load(key) => self.load(key),
                Output::List {
                    bucket,
                    after,
                    epoch,
                } => {
                    let held = self
                        .disk
                        .iter()
                        .filter(|(key, _)| bucket_of(key) == bucket && Some(*key) > after.as_ref());
                    let page = Page::collect(held.map(owned), usize::MAX);
                    let listed = Input::Listed {
                        bucket,
                        after,
                        epoch,
                        page,
                    };
                    self.replica.handle_input(self.now, listed);
                }
                Output::ListRange {
                    listing,
                    range,
                    bounds,
                    epoch,
                } => {
                    let held = self.disk.iter().filter(|(key, _)| range.contains(key));
                    let page =
                        RangePage::of_range(held.map(|(k, s)| (k.clone(), s.into())), bounds);
                    let listed = Input::RangeListed {
                        listing,
                        epoch,
                        page,
                    };
                    self.replica.handle_input(self.now, listed);
                }
                Output::Send { envelope, .. } => self.sent.push(envelope),
                Output::Reply { .. } | Output::Event(_) => {}
            }
        }
    }

    fn sync(&mut self) {
        if let Some(group) = self.unsynced.take() {
            self.replica
                .handle_input(self.now, Input::Persisted { group });
        }
    }

    /// All that was written becomes durable now.
    pub fn sync_all(&mut self) {
        self.syncs_nothing = false;
        self.sync();
        self.drain();
    }

    fn load(&mut self, key: Key) {
        let state = self.disk.get(&key).cloned();
        self.replica
            .handle_input(self.now, Input::Loaded { key, state });
    }

    /// The requested keys are loaded from the disk now.
    pub fn load_all(&mut self) {
        self.loads_nothing = false;
        for key in std::mem::take(&mut self.unloaded) {
            self.load(key);
        }
        self.drain();
    }

    pub fn run_ms(&mut self, ms: u64) {
        for _ in 0..ms {
            self.now.mono_us += 1_000;
            self.now.wall_ms += 1;
            if self.now.wall_ms.is_multiple_of(BEAT_MS) {
                for node in self.there.clone() {
                    self.beat(node);
                }
            }
            let due_us = self.replica.next_timeout();
            if due_us.is_some_and(|at_us| at_us <= self.now.mono_us) {
                self.replica.handle_input(self.now, Input::Timeout);
            }
            self.drain();
        }
    }

    fn beat(&mut self, node: NodeId) {
        let link = ReportedLink {
            from: 1,
            up: true,
            heard: true,
            rtt_us: 100,
            loss_permille: 0,
        };
        self.beats += 1;
        let row = Row {
            node,
            incarnation: self.incarnations[&node],
            boot: BOOT + u64::from(node),
            starts: 1,
            found: 1,
            synced: 1,
            clock: clock::from_ms(self.now.wall_ms),
            wall_ms: self.now.wall_ms,
            unsynced_ms: 0,
            seen: Vec::new(),
            full: 0,
            links: vec![link],
        };
        let heartbeat = Heartbeat {
            number: self.beats,
            echo: None,
            rows: vec![row],
        };
        self.tell(node, 0, heartbeat);
    }

    /// A message from another node.
    pub fn tell(&mut self, from: NodeId, round: RoundId, message: impl Into<Message>) {
        self.hear(from, round, message);
        self.drain();
    }

    fn hear(&mut self, from: NodeId, round: RoundId, message: impl Into<Message>) {
        let envelope = Envelope {
            origin: from,
            destination: 1,
            incarnation: self.incarnations[&from],
            epoch: *self.elsewhere.get(&from).unwrap_or(&self.epoch),
            round,
            hops_left: 0,
            via: from,
            message: message.into(),
        };
        let cluster = CLUSTER;
        let input = Input::Peer { cluster, envelope };
        self.replica.handle_input(self.now, input);
    }

    /// Node 2 sends a request; returns the node's answers.
    pub fn ask(&mut self, message: impl Into<Message>) -> Vec<Message> {
        let from = self.sent.len();
        self.tell(2, 77, message);
        self.answers_since(from)
    }

    /// The same, with another message of node 2 in the same batch.
    pub fn ask_together(
        &mut self,
        message: impl Into<Message>,
        other: impl Into<Message>,
    ) -> Vec<Message> {
        let from = self.sent.len();
        self.hear(2, 77, message);
        self.hear(2, 0, other);
        self.drain();
        self.answers_since(from)
    }

    fn answers_since(&self, from: usize) -> Vec<Message> {
        let answers = self.sent[from..].iter();
        let answers = answers.filter(|e| e.destination == 2 && e.round == 77);
        answers.map(|e| e.message.clone()).collect()
    }

    /// Node 2 forwards a client's operation.
    pub fn forward(&mut self, key: &str, action: Action) {
        self.forwards += 1;
        let operation = Operation {
            id: OperationId {
                client: 7,
                sequence: self.forwards,
            },
            birth: clock::from_ms(self.now.wall_ms),
            low_mark: self.forwards,
            key: Bytes::copy_from_slice(key.as_bytes()),
            want_old: false,
            action,
        };
        let forward = Forward {
            from_boot: BOOT + 2,
            to_boot: BOOT,
            attempt: self.forwards,
            waited_us: 0,
            left_ms: 5_000,
            heard: 0,
            operation: operation.into(),
        };
        self.tell(2, 0, forward);
    }

    /// A configuration was chosen, and node 2 has installed it.
    pub fn install(&mut self, configuration: Configuration) {
        self.epoch = configuration.epoch;
        for member in &configuration.members {
            self.incarnations.insert(member.node, member.incarnation);
        }
        let configuration = configuration.into();
        self.tell(2, 0, ConfigurationUpdate { configuration });
    }

    /// Another node is up in a new incarnation.
    pub fn become_new(&mut self, node: NodeId, incarnation: Incarnation) {
        self.incarnations.insert(node, incarnation);
    }

    /// Whether the node counts that one as reachable.
    pub fn reaches(&self, node: NodeId) -> bool {
        let members = self.replica.status(self.now).members;
        members.iter().any(|m| m.node == node && m.heard)
    }

    pub fn incarnation(&self) -> Incarnation {
        match self.meta.incarnation {
            0 => 1,
            taken => taken,
        }
    }

    /// The messages of this name that were sent so far.
    pub fn sent(&self, name: &str) -> Vec<&Envelope> {
        let named = |e: &&Envelope| e.message.name() == name;
        self.sent.iter().filter(named).collect()
    }

    pub fn count(&self, names: &[&str]) -> usize {
        names.iter().map(|name| self.sent(name).len()).sum()
    }

    /// All messages that were sent after the first `count`.
    pub fn sent_since(&self, count: usize) -> &[Envelope] {
        &self.sent[count..]
    }

    /// The latest request of this name to that node, and its round.
    pub fn asked(&self, name: &str, to: NodeId) -> Option<(RoundId, Message)> {
        let named = self.sent(name);
        let last = named.iter().rfind(|e| e.destination == to)?;
        Some((last.round, last.message.clone()))
    }
}

fn owned((key, state): (&Key, &AcceptorState)) -> (Key, AcceptorState) {
    (key.clone(), state.clone())
}
