//! Scenarios by hand: a calm cluster, and methods that control what happens to it, message by
//! message.

use std::cell::RefCell;
use std::rc::Rc;

use bytes::Bytes;
use horseshoe::protocol::types::ballot::Ballot;
use horseshoe::protocol::types::digest::Bucket;
use horseshoe::protocol::types::message::{Message, NodeId};
use horseshoe::protocol::types::record::Key;
use wire::clock;
use wire::{Action, Outcome};

use super::checker::{self, CheckVerdict, several};
use super::cluster::{Cluster, Fate, Settings};
use super::disk::Disk;
use super::event::Passing;
use super::history::{Ending, RecordedCall};
use super::network::{Network, Place, Quality, between};
use super::node::{DiskSpeed, EPOCH_MS};
use super::random::Random;
use super::scans;
use super::trace::Detail;

/// How long a scenario waits for something that must happen.
const PATIENCE_US: u64 = 10_000_000;

/// Selects messages.
#[derive(Debug, Clone, Default)]
pub struct Pick {
    name: Option<&'static str>,
    from: Option<Place>,
    to: Option<Place>,
    key: Option<Key>,
}

/// Messages of this name: of a type of peer message, or `Request`, `Answer`, `Hello`.
pub fn msg(name: &'static str) -> Pick {
    Pick {
        name: Some(name),
        ..Pick::default()
    }
}

pub fn any() -> Pick {
    Pick::default()
}

impl Pick {
    pub fn from(mut self, node: usize) -> Self {
        self.from = Some(Place::Node(node));
        self
    }

    pub fn to(mut self, node: usize) -> Self {
        self.to = Some(Place::Node(node));
        self
    }

    pub fn towards_client(mut self, client: usize) -> Self {
        self.to = Some(Place::Client(client));
        self
    }

    pub fn of_client(mut self, client: usize) -> Self {
        self.from = Some(Place::Client(client));
        self
    }

    /// Only requests about this key.
    pub fn about(mut self, key: &str) -> Self {
        self.key = Some(user_key(key));
        self
    }

    fn matches(&self, passing: &Passing) -> bool {
        self.name.is_none_or(|name| name == passing.name())
            && self.from.is_none_or(|from| from == passing.from)
            && self.to.is_none_or(|to| to == passing.to)
            && self
                .key
                .as_ref()
                .is_none_or(|key| asks_about(passing) == Some(key))
    }
}

/// The key that a request is about.
fn asks_about(passing: &Passing) -> Option<&Key> {
    match &passing.envelope()?.message {
        Message::Prepare(m) => Some(&m.key),
        Message::Accept(m) => Some(&m.key),
        Message::Read(m) => Some(&m.key),
        Message::Copy(m) => Some(&m.key),
        _ => None,
    }
}

/// A cluster in a scenario. Derefs to `Cluster` for methods that are seldom needed.
pub struct Script {
    pub cluster: Cluster,
    sent: Rc<RefCell<Vec<Passing>>>,
    filters: Vec<usize>,
}

impl std::ops::Deref for Script {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        &self.cluster
    }
}

impl std::ops::DerefMut for Script {
    fn deref_mut(&mut self) -> &mut Cluster {
        &mut self.cluster
    }
}

impl Script {
    /// Nodes that run, have a configuration, and can reach each other.
    pub fn new(nodes: usize) -> Self {
        Script::warm(Script::cold(nodes))
    }

    fn warm(mut script: Script) -> Self {
        script.cluster.start_all();
        script.until("a configuration", |c| c.is_formed());
        script.run_ms(300);
        script
    }

    /// The same, with other random choices.
    pub fn seeded(nodes: usize, seed: u64) -> Self {
        Script::warm(Script::cold_seeded(nodes, seed))
    }

    /// Nodes that were never started.
    pub fn cold(nodes: usize) -> Self {
        Script::cold_seeded(nodes, 1)
    }

    /// The same; members that are unreachable for a second are removed.
    pub fn shrinking(nodes: usize, seed: u64) -> Self {
        Script::shrinking_after(1_000, nodes, seed)
    }

    pub fn shrinking_after(ms: u64, nodes: usize, seed: u64) -> Self {
        let mut script = Script::cold_seeded(nodes, seed);
        script.cluster.settings.shrink_after_ms = ms;
        Script::warm(script)
    }

    /// The same as `new`, with heartbeats only once per second, the slowest that is allowed.
    pub fn slow(nodes: usize) -> Self {
        let mut script = Script::cold(nodes);
        script.cluster.settings.heartbeat_ms = 1_000;
        script.cluster.settings.link_down_ms = 3_000;
        Script::warm(script)
    }

    fn cold_seeded(nodes: usize, seed: u64) -> Self {
        let detail = match std::env::var("DETAIL").as_deref() {
            Ok("messages") => Detail::Messages,
            Ok("story") => Detail::Story,
            _ => Detail::Silent,
        };
        let mut cluster = Cluster::new(Settings {
            detail,
            seed,
            no_quorum_after_us: Some(1_000_000),
            ..Settings::calm(nodes)
        });
        let sent = Rc::new(RefCell::new(Vec::new()));
        let log = sent.clone();
        cluster.filter(move |passing| {
            log.borrow_mut().push(passing.clone());
            Fate::Pass
        });
        Script {
            cluster,
            sent,
            filters: Vec::new(),
        }
    }

    // Time.

    pub fn run_ms(&mut self, ms: u64) {
        let until_us = self.cluster.now_us + ms * 1_000;
        self.run_us(until_us);
    }

    fn run_us(&mut self, until_us: u64) {
        while self.cluster.step(until_us) {}
        self.cluster.due.clear();
    }

    /// Continues until `what` has happened, which must be within 10 s.
    #[track_caller]
    pub fn until(&mut self, what: &str, mut done: impl FnMut(&Cluster) -> bool) {
        let until_us = self.cluster.now_us + PATIENCE_US;
        while !done(&self.cluster) {
            assert!(self.cluster.step(until_us), "waited 10 s for {what}");
        }
    }

    /// Continues until a message of this kind is sent.
    #[track_caller]
    pub fn until_sent(&mut self, pick: Pick) {
        let (sent, from) = (self.sent.clone(), self.sent.borrow().len());
        self.until("a message", |_| {
            sent.borrow()[from..].iter().any(|p| pick.matches(p))
        });
    }

    // Messages.

    /// Holds back messages from now on, until `release` and `let_pass`.
    pub fn hold(&mut self, pick: Pick) {
        self.decide(pick, Fate::Hold);
    }

    /// Loses messages from now on, until `let_pass`.
    pub fn lose(&mut self, pick: Pick) {
        self.decide(pick, Fate::Drop);
    }

    fn decide(&mut self, pick: Pick, fate: Fate) {
        let filter = move |passing: &Passing| {
            if pick.matches(passing) {
                fate
            } else {
                Fate::Pass
            }
        };
        let number = self.cluster.filter(filter);
        self.filters.push(number);
    }

    /// Nothing more is held back or lost; what is held stays held.
    pub fn let_pass(&mut self) {
        for number in std::mem::take(&mut self.filters) {
            self.cluster.unfilter(number);
        }
    }

    /// Held messages of this kind arrive now.
    pub fn release(&mut self, pick: Pick) -> usize {
        let held = std::mem::take(&mut self.cluster.held);
        let (go, stay): (Vec<_>, Vec<_>) = held.into_iter().partition(|p| pick.matches(p));
        self.cluster.held = stay;
        let count = go.len();
        for passing in go {
            self.cluster.deliver(100, passing);
        }
        count
    }

    /// The last message of this kind arrives again.
    #[track_caller]
    pub fn repeat(&mut self, pick: Pick) {
        let found = self
            .sent
            .borrow()
            .iter()
            .rev()
            .find(|p| pick.matches(p))
            .cloned();
        self.cluster
            .deliver(100, found.expect("such a message was sent"));
    }

    /// Messages of this kind sent so far.
    pub fn sent(&self, pick: Pick) -> Vec<Passing> {
        self.sent
            .borrow()
            .iter()
            .filter(|p| pick.matches(p))
            .cloned()
            .collect()
    }

    /// The ballots that a node has issued so far, in the order of the messages that show them.
    pub fn ballots_of(&self, node: usize) -> Vec<Ballot> {
        let id = node as NodeId + 1;
        let shown = self.sent(any().from(node));
        let ballots = shown.iter().filter_map(|p| match &p.envelope()?.message {
            Message::Prepare(m) => Some(m.ballot),
            Message::Accept(m) => Some(m.ballot),
            _ => None,
        });
        ballots.filter(|b| b.node() == id).collect()
    }

    // Nodes and links.

    /// From now on datagrams take up to this long, at least half of that; no link is cut.
    pub fn slow_links(&mut self, delay_max_us: u64, seed: u64) {
        let quality = Quality {
            delay_min_us: delay_max_us / 2,
            delay_max_us,
            ..Quality::CALM
        };
        self.cluster.network = Network::new(Random::new(seed), quality);
    }

    pub fn cut(&mut self, group: &[usize], other: &[usize]) {
        self.cluster
            .network
            .cut(&between(&nodes(group), &nodes(other)));
    }

    /// Cuts a node from all other nodes.
    pub fn isolate(&mut self, node: usize) {
        let others: Vec<usize> = (0..self.cluster.nodes.len())
            .filter(|n| *n != node)
            .collect();
        self.cut(&[node], &others);
    }

    pub fn heal(&mut self) {
        self.cluster.network.heal();
    }

    /// All links between nodes work again; which nodes clients can reach does not change.
    pub fn heal_nodes(&mut self) {
        self.cluster.network.heal_nodes();
    }

    /// A crash that loses what was not synced, and a start from the rest.
    pub fn restart(&mut self, node: usize) {
        self.crash_hard(node);
        self.cluster.start(node);
    }

    /// A crash that certainly loses all that was not synced.
    pub fn crash_hard(&mut self, node: usize) {
        self.cluster.nodes[node].crash(0);
    }

    /// A crash, and a start from an older copy of the disk.
    pub fn roll_back(&mut self, node: usize, copy: Disk) {
        self.crash_hard(node);
        self.cluster.nodes[node].disk = copy;
        self.cluster.start(node);
    }

    pub fn restart_empty(&mut self, node: usize) {
        self.crash_hard(node);
        self.cluster.wipe(node);
        self.cluster.start(node);
    }

    pub fn slow_disk(&mut self, node: usize, sync_ms: u64) {
        let sync_us = sync_ms * 1_000;
        let speed = DiskSpeed {
            sync_min_us: sync_us,
            sync_max_us: sync_us,
            ..DiskSpeed::FAST
        };
        self.cluster.nodes[node].speed = speed;
    }

    /// Sets a node's wall clock to `ms`, at the beginning of that millisecond.
    pub fn set_clock(&mut self, node: usize, ms: u64) {
        let now_us = self.cluster.now_us;
        self.run_us(now_us.next_multiple_of(1_000));
        let now_ms = self.cluster.now_us / 1_000;
        let wall = &mut self.cluster.nodes[node].wall;
        wall.offset_ms = ms as i64 - EPOCH_MS as i64 - now_ms as i64;
    }

    pub fn jump_hours(&mut self, node: usize, hours: i64) {
        self.cluster.jump(node, hours * 3_600_000);
    }

    // Clients.

    /// A client that reaches all nodes.
    pub fn client(&mut self) -> usize {
        self.cluster.add_client()
    }

    /// A client that reaches only these nodes, until `heal`. It names its cluster, so it does not
    /// wait for other nodes.
    pub fn client_of(&mut self, near: &[usize]) -> usize {
        let replicas = self.cluster.nodes.iter();
        let mut clusters = replicas.filter_map(|node| Some(node.replica.as_ref()?.cluster()));
        let cluster = clusters.find(|cluster| *cluster != 0).unwrap_or(0);
        let client = self.cluster.add_client_of(cluster);
        let far: Vec<usize> = (0..self.cluster.nodes.len())
            .filter(|n| !near.contains(n))
            .collect();
        self.cluster
            .network
            .cut(&between(&[Place::Client(client)], &nodes(&far)));
        client
    }

    /// A key whose preferred coordinator among all nodes is this one.
    pub fn key_of(&self, node: usize) -> String {
        let ids = 1..=self.cluster.nodes.len() as NodeId;
        let wanted = node as NodeId + 1;
        let preferred = |name: &String| {
            ids.clone()
                .max_by_key(|id| wire::rendezvous_weight(name.as_bytes(), *id))
        };
        (0..)
            .map(|n| format!("k{n}"))
            .find(|k| preferred(k) == Some(wanted))
            .expect("endless")
    }

    /// Another key of the same bucket, after it in order.
    pub fn key_beside(&self, key: &str) -> String {
        let bucket = self.bucket_of(key);
        (0..)
            .map(|n| format!("{key} beside {n}"))
            .find(|k| self.bucket_of(k) == bucket)
            .expect("endless")
    }

    pub fn bucket_of(&self, key: &str) -> Bucket {
        let configuration = self.cluster.watch.configuration();
        let spread = configuration.expect("a cluster").spread;
        spread.bucket_of(&user_key(key))
    }

    pub fn begin(&mut self, client: usize, key: &str, action: Action) -> usize {
        let key = Bytes::copy_from_slice(key.as_bytes());
        self.cluster.begin(client, &key, action, false, 5_000_000)
    }

    #[track_caller]
    pub fn end(&mut self, call: usize) -> Outcome {
        self.until("an operation to end", |c| c.calls[call].ended.is_some());
        match &self.cluster.calls[call].ending {
            Ending::Answered(outcome) => outcome.clone(),
            ending => panic!("ended in {ending:?}"),
        }
    }

    pub fn is_open(&self, call: usize) -> bool {
        self.cluster.calls[call].ended.is_none()
    }

    #[track_caller]
    pub fn run(&mut self, client: usize, key: &str, action: Action) -> Outcome {
        let call = self.begin(client, key, action);
        self.end(call)
    }

    /// Writes a value; returns its version.
    #[track_caller]
    pub fn put(&mut self, client: usize, key: &str, value: &str) -> u64 {
        match self.run(client, key, put(value)) {
            Outcome::Written { version, .. } => version,
            other => panic!("put {value}: {other:?}"),
        }
    }

    /// Reads a value, or "" if there is none.
    #[track_caller]
    pub fn get(&mut self, client: usize, key: &str) -> String {
        match self.run(client, key, Action::Get) {
            Outcome::Value { value, .. } => String::from_utf8_lossy(&value).into_owned(),
            Outcome::Absent => String::new(),
            other => panic!("get: {other:?}"),
        }
    }

    // The verdict.

    /// No invariant was violated, and what clients saw is linearizable.
    #[track_caller]
    pub fn check(&self) {
        if let Some(violation) = self.cluster.watch.violation() {
            panic!("{violation}");
        }
        let told = scans::as_reads(&self.cluster.calls);
        let mut single = told.unwrap_or_else(|violation| panic!("{violation}"));
        for calls in several::components(&mut single) {
            if let CheckVerdict::Violation(calls) = several::check(&calls, 100_000) {
                let lines: Vec<String> = calls.iter().map(|c| c.to_string()).collect();
                panic!("not strictly serializable:\n{}", lines.join("\n"));
            }
        }
        let mut keys: Vec<&Bytes> = single.iter().map(|c| &c.key).collect();
        keys.sort();
        keys.dedup();
        for key in keys {
            let calls: Vec<RecordedCall> =
                single.iter().filter(|c| c.key == *key).cloned().collect();
            match checker::check(&calls, 100_000) {
                CheckVerdict::Linearizable => {}
                CheckVerdict::Undecided => panic!("too hard to check"),
                CheckVerdict::Violation(calls) => {
                    let lines: Vec<String> = calls.iter().map(|c| c.to_string()).collect();
                    panic!("{key:?} is not linearizable:\n{}", lines.join("\n"));
                }
            }
        }
    }
}

fn nodes(indexes: &[usize]) -> Vec<Place> {
    indexes.iter().copied().map(Place::Node).collect()
}

pub fn put(value: &str) -> Action {
    Action::Put {
        value: Bytes::copy_from_slice(value.as_bytes()),
    }
}

/// All keys, as many as fit a page.
pub fn scan() -> Action {
    Action::Scan {
        is_after: false,
        end: Bytes::new(),
        limit: 0,
        keys_only: false,
        deleted: false,
    }
}

pub fn put_if_absent(value: &str) -> Action {
    Action::PutIfAbsent {
        value: Bytes::copy_from_slice(value.as_bytes()),
    }
}

pub fn put_for(value: &str, ttl_ms: u64) -> Action {
    Action::PutFor {
        value: Bytes::copy_from_slice(value.as_bytes()),
        ttl_ms,
        over: None,
    }
}

pub fn append(value: &str) -> Action {
    Action::Append {
        value: Bytes::copy_from_slice(value.as_bytes()),
    }
}

pub fn swap(expected: &str, value: &str) -> Action {
    Action::CompareValue {
        expected: Bytes::copy_from_slice(expected.as_bytes()),
        value: Bytes::copy_from_slice(value.as_bytes()),
    }
}

pub fn swap_version(version: u64, value: &str) -> Action {
    Action::CompareVersion {
        version,
        value: Bytes::copy_from_slice(value.as_bytes()),
    }
}

/// The wall-clock milliseconds in a version or ballot.
pub fn ms_of(version: u64) -> u64 {
    clock::to_ms(Ballot(version).reading())
}

pub fn user_key(name: &str) -> Key {
    Key::user(name.as_bytes())
}
