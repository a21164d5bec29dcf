//! One node's part of the protocol: the only folder that knows `Replica`, and that sends. Each file adds
//! methods to it that feed the state machines of the folders beside this one, and carry out what these
//! decide.

mod catchup;
mod clock_offsets;
mod clocks;
mod dispatch;
mod distance;
mod forwarding;
mod full;
mod heartbeat;
mod hung_disk;
mod iteration;
mod membership;
mod peer_faults;
mod probe;
mod readiness;
mod rounds;
mod send;
mod text;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use kvclient::wire::Full;
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::protocol::catchup::hints::{Hints, Rounds};
use crate::protocol::catchup::notices::Notices;
use crate::protocol::clients::sessions::{Forwarders, Sessions};
use crate::protocol::clock::ballot_clock::BallotClock;
use crate::protocol::clock::history::Past;
use crate::protocol::keys::outbox::Outbox;
use crate::protocol::keys::resident::{Bounds, Cache};
use crate::protocol::membership::formation::Bootstrap;
use crate::protocol::network::topology::Links;
use crate::protocol::register::coordinator::Effect;
use crate::protocol::register::latency::Pace;
use crate::protocol::replica::catchup::compare::Sync;
use crate::protocol::replica::catchup::copies::Copies;
use crate::protocol::replica::catchup::serve::{Part, Waiters};
use crate::protocol::replica::catchup::tombstones::Graves;
use crate::protocol::replica::clock_offsets::Offsets;
use crate::protocol::replica::clocks::Clocks;
use crate::protocol::replica::distance::Distances;
use crate::protocol::replica::forwarding::Forwarded;
use crate::protocol::replica::hung_disk::Oldest;
use crate::protocol::replica::iteration::Turn;
use crate::protocol::replica::membership::change::Changes;
use crate::protocol::replica::membership::split::Splits;
use crate::protocol::replica::membership::starts::{Proof, Starts};
use crate::protocol::replica::membership::vote::Epochs;
use crate::protocol::replica::peer_faults::Hearsay;
use crate::protocol::types::digest::{BUCKETS_MAX, Digests, Spread};
use crate::protocol::types::limits::{MARKS_MAX, RETRY_HORIZON_MS};
use crate::protocol::types::message::{
    ClientReply, Configuration, Endpoint, Envelope, Group, GroupNumber, Incarnation, Input, Meta,
    NodeId, Now, Output, Recovered, RoundId,
};
use crate::protocol::types::readdress::Readdressed;
use crate::protocol::types::record::Key;
use crate::protocol::types::timer::{Timer, Timers};
use crate::protocol::types::timings::Timings;

/// What a replica is started with.
#[derive(Debug, Clone)]
pub struct Options {
    /// The nodes, in priority order, `host:port` each; all nodes have the same list.
    pub list: Vec<String>,
    /// This node's place in the list.
    pub index: u8,
    /// What the cluster is called, empty: nobody said; its own name counts.
    pub cluster_name: String,
    /// E6: the first listed node may form a cluster with more than half of the list.
    pub bootstrap: bool,
    pub tuning: Tuning,
    /// Random, new at each start.
    pub boot: u64,
    /// Seed of all random choices.
    pub seed: u64,
    /// B2: how far above the members' median the wall clock is believed.
    pub skew_max_ms: u64,
    /// Keys whose state is held in the core; the rest is asked for by `Output::Load`.
    pub keys_cached_max: usize,
    /// What these may take in memory, beside what they share with the store.
    pub cache_size_max: usize,
    pub heartbeat_ms: u64,
    /// A member that was not reached for so long is removed; 0: none ever is.
    pub shrink_after_ms: u64,
    /// A link is down after a silence of this length.
    pub link_down_ms: u64,
    /// A disk that has not finished a write for so long hangs.
    pub disk_hung_ms: u64,
    /// Changes of the membership are taken from any machine, not only from the node's own.
    pub insecure_admin: bool,
}

impl Options {
    fn timings(&self) -> Timings {
        Timings::new(self.heartbeat_ms, self.link_down_ms, self.shrink_after_ms)
            .with_disk_hung(self.disk_hung_ms)
    }
}

/// What is always as it is by default, but in simulations, where it makes rare things common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tuning {
    /// D1: of a cluster that this node forms.
    pub buckets: u16,
    /// X1, P1. Safety does not depend on it: what leaves the applied table is remembered as dropped.
    pub retry_horizon_ms: u64,
}

impl Default for Tuning {
    fn default() -> Self {
        Tuning {
            buckets: BUCKETS_MAX,
            retry_horizon_ms: RETRY_HORIZON_MS,
        }
    }
}

/// Things that were left out on purpose, counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Messages that do not belong here: another cluster, a member that is none, another epoch, a
    /// hello under a client id that is kept for text clients.
    pub stray: u64,
    /// Attempts outside of a session or seen before (X4).
    pub repeated: u64,
    /// Operations below their client's mark, and text operations of too long ago (X1).
    pub stragglers: u64,
    /// Operations given up after their client did.
    pub given_up: u64,
    /// R3: records that are not the ones held at their ballots.
    pub contradictions: u64,
    /// Messages dropped at a bound.
    pub overflow: u64,
    /// Messages of other nodes that could not be passed on: no path, or none that they may still take.
    pub unroutable: u64,
    /// B5: what other nodes told, and clients' operations, that was too far ahead of this node's clock.
    pub ahead: u64,
}

/// One node's part of the protocol. Its methods are getters; `handle_input`; and `poll_output`,
/// which is to be called until it gives `None` after each input or batch of inputs.
#[derive(Debug)]
pub struct Replica {
    options: Options,
    timings: Timings,
    incarnation: Incarnation,
    random: StdRng,
    clock: BallotClock,
    past: Past,
    pace: Pace,

    meta: Meta,
    /// Of all registers.
    digests: Digests,
    /// `meta.configuration`, shared, with the addresses at which its nodes are.
    configuration: Option<Arc<Configuration>>,
    /// The same as it was agreed on, if it says other addresses.
    agreed: Option<Arc<Configuration>>,
    readdressed: Vec<Readdressed>,
    readdressed_since_us: Option<u64>,
    /// Until there is a configuration.
    bootstrap: Option<Bootstrap>,
    /// 0 while no configuration names this node's address.
    node: NodeId,
    /// E1: whether this incarnation is a member.
    votes: bool,

    links: Links,
    links_looked_at_us: Option<u64>,
    /// Heartbeats of then were not looked at yet.
    links_due: Option<Now>,
    /// The instant of the last heartbeat, and how many came in it.
    heartbeats_of_now: (u64, u32),
    hears_quorum: bool,
    /// X5: when a quorum was last joined to this node.
    quorum_us: u64,
    /// In which epoch other nodes were heard last.
    epochs: Epochs,
    /// Voters that reach this node and are reached by it, this one first, then by their distance.
    near: Vec<NodeId>,
    /// Those of them whose disks work, which is where operations are forwarded.
    coordinators: Vec<NodeId>,
    distances: Distances,
    /// Nodes that are there and have no vote.
    learners: Vec<NodeId>,
    told_us: u64,
    /// When a large datagram was last sent, and how many were.
    probed_us: u64,
    probes: usize,
    /// When links are told next, if there is news.
    news_due_us: Option<u64>,
    messages_sent: u64,
    messages_relayed: u64,

    cache: Cache,
    /// The key of each open round.
    rounds: HashMap<RoundId, Key, foldhash::fast::RandomState>,
    effects: Vec<Effect>,
    timers: Timers,
    outbox: Outbox,
    /// Ceilings on their way to the disk, by group.
    ceilings: VecDeque<(u64, u64)>,
    durable_ceiling: u64,
    outputs: VecDeque<Output>,
    /// Parts of buckets that were asked for.
    lists: VecDeque<Part>,
    bucket_waiters: Waiters,
    /// Messages of this node to itself.
    local: VecDeque<Envelope>,

    /// Answers to operators that wait for their groups.
    held_replies: VecDeque<(GroupNumber, Endpoint, ClientReply)>,
    sessions: Sessions,
    /// X4 between nodes.
    forwarders: Forwarders,
    /// Operations forwarded and not answered, by attempt.
    forwards: BTreeMap<u64, Forwarded>,
    /// When each of them is to be looked at.
    forwards_due: BTreeSet<(u64, u64)>,
    forward_attempts: u64,
    /// How long forwarded operations take.
    forward_pace: Pace,
    forwards_due_us: Option<u64>,
    /// The last operations that were taken back: their attempts, and when they were forwarded.
    taken_back: VecDeque<(u64, u64)>,
    /// Operations of clients and forwarders that are not answered yet.
    operations: usize,
    /// What they take in memory, about.
    operations_size: usize,
    /// X6: what this node has no room of, and what the cluster has none of.
    full: Option<Full>,
    cluster_full: Option<Full>,
    /// Chosen ballots that other nodes are still to be told of.
    notices: BTreeMap<NodeId, Notices>,
    /// C1: chosen rounds whose last answers are waited for, and what each other member has missed.
    chosen_rounds: Rounds,
    hints: BTreeMap<NodeId, Hints>,
    /// Copies that may still be sent until the next heartbeat.
    copies_left: u64,
    heartbeats: u64,
    marks_due: bool,
    changes: Changes,
    /// E8: `meta.splits`, by lineage.
    splits: Splits,
    /// When nodes that are not heard were last told the configuration.
    told_silent_us: u64,
    starts: Starts,
    proof: Proof,
    /// The group that holds the count of this start.
    started_in: u64,
    sync: Sync,
    copies: Copies,
    graves: Graves,
    turn: Turn,
    stopping: bool,
    waits_for: String,
    /// The groups that carry the configuration and the word given (E6).
    installed_in: u64,
    /// The group that carries the floor (P1).
    floored_in: u64,
    /// When configurations were last told to or asked of a node.
    exchanged_us: BTreeMap<NodeId, u64>,
    hearsay: Hearsay,
    /// What waits for the disk.
    oldest: Oldest,
    bound_in: u64,
    clocks: Clocks,
    offsets: Offsets,
    /// What the state of an earlier life says of the cluster was not looked at yet.
    is_restarted: bool,
    counters: Counters,
}

impl Replica {
    pub fn new(options: Options, recovered: Recovered, now: Now) -> Self {
        let Recovered {
            incarnation,
            mut meta,
            group,
            digests,
            readdressed,
        } = recovered;
        let incarnation = match meta.incarnation {
            0 => incarnation,
            taken => taken,
        };
        let timings = options.timings();
        let mut random = StdRng::seed_from_u64(options.seed);
        let configuration = meta.configuration.take();
        let spread = configuration
            .as_ref()
            .map_or_else(Spread::default, |c| c.spread);
        let proof = Proof::new(group, meta.starts, now);
        let bootstrap = configuration.is_none().then(|| {
            let nonce = rand::RngExt::random(&mut random);
            let list = options.list.clone();
            let name = options.cluster_name.clone();
            Bootstrap::new(
                list,
                name,
                options.index,
                incarnation,
                nonce,
                options.bootstrap,
            )
        });
        let mut replica = Replica {
            clock: BallotClock::new(meta.ceiling, options.skew_max_ms, now),
            cache: Cache::new(Bounds {
                keys_max: options.keys_cached_max,
                size_max: options.cache_size_max,
            }),
            outbox: Outbox::new(group),
            durable_ceiling: meta.ceiling,
            links: Links::new(timings),
            options,
            timings,
            incarnation,
            random,
            past: Past::default(),
            pace: Pace::default(),
            meta,
            digests,
            configuration: None,
            agreed: None,
            readdressed,
            readdressed_since_us: None,
            bootstrap,
            node: 0,
            votes: false,
            links_looked_at_us: None,
            links_due: None,
            heartbeats_of_now: (0, 0),
            hears_quorum: false,
            quorum_us: 0,
            epochs: Epochs::default(),
            near: Vec::new(),
            coordinators: Vec::new(),
            distances: Distances::default(),
            learners: Vec::new(),
            told_us: 0,
            probed_us: now.mono_us,
            probes: 0,
            news_due_us: None,
            messages_sent: 0,
            messages_relayed: 0,
            rounds: HashMap::default(),
            effects: Vec::new(),
            timers: Timers::default(),
            ceilings: VecDeque::new(),
            outputs: VecDeque::new(),
            lists: VecDeque::new(),
            bucket_waiters: Waiters::default(),
            local: VecDeque::new(),
            held_replies: VecDeque::new(),
            sessions: Sessions::default(),
            forwarders: Forwarders::default(),
            forwards: BTreeMap::new(),
            forwards_due: BTreeSet::new(),
            forward_attempts: 0,
            forward_pace: Pace::default(),
            forwards_due_us: None,
            taken_back: VecDeque::new(),
            operations: 0,
            operations_size: 0,
            full: None,
            cluster_full: None,
            notices: BTreeMap::new(),
            chosen_rounds: Rounds::default(),
            hints: BTreeMap::new(),
            copies_left: 0,
            heartbeats: 0,
            marks_due: false,
            changes: Changes::default(),
            splits: Splits::default(),
            told_silent_us: 0,
            starts: Starts::default(),
            proof,
            started_in: 0,
            sync: Sync::default(),
            copies: Copies::default(),
            graves: Graves::new(spread),
            turn: Turn::default(),
            stopping: false,
            waits_for: String::new(),
            installed_in: 0,
            floored_in: 0,
            exchanged_us: BTreeMap::new(),
            hearsay: Hearsay::default(),
            oldest: Oldest::default(),
            bound_in: 0,
            clocks: Clocks::default(),
            offsets: Offsets::default(),
            is_restarted: true,
            counters: Counters::default(),
        };
        replica.meta.starts += 1;
        replica.started_in = replica.outbox.change_meta();
        if let Some(configuration) = configuration {
            replica.adopt(configuration);
            replica.find_splits();
        }
        replica.timers.set(now.mono_us, Timer::Heartbeat);
        if replica.bootstrap.is_some() {
            replica.timers.set(now.mono_us, Timer::Survey);
        }
        replica.keep_ceiling();
        replica
    }

    pub fn handle_input(&mut self, now: Now, input: Input) {
        self.past.sample(now, self.clock.last());
        self.clock.pass(now);
        if self.has_ended() {
            return;
        }
        self.look_at_links(now, false, matches!(input, Input::Timeout));
        match input {
            Input::Peer { cluster, envelope } => self.handle_peer(now, cluster, envelope),
            Input::Client { from, message } => self.handle_client(now, from, message),
            Input::Listed {
                bucket,
                after,
                epoch,
                page,
            } => self.handle_listed(now, (bucket, after), epoch, &page),
            Input::Loaded { key, state } => self.handle_loaded(now, &key, state),
            Input::Persisted { group } => self.handle_persisted(group),
            Input::Timeout => self.handle_timeout(now),
            Input::Full(full) => self.set_full(now, full),
            Input::Stop => self.stopping = true,
        }
        self.end_input(now);
    }

    /// What this node says to itself takes no network.
    fn end_input(&mut self, now: Now) {
        loop {
            if let Some(envelope) = self.local.pop_front() {
                self.handle_member_message(now, envelope);
            } else if !self.take_own_answers(now) {
                break;
            }
        }
        self.keep_ceiling();
    }

    /// What need not wait for the group that is being filled: for use between the inputs of one batch, so
    /// that what these cause does not pile up. `poll_output` gives the rest.
    pub fn poll_ready(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    pub fn poll_output(&mut self) -> Option<Output> {
        if let Some(now) = self.links_due.take()
            && !self.clocks.ended
        {
            self.look_at_links(now, true, false);
            self.end_input(now);
        }
        if let Some(output) = self.outputs.pop_front() {
            return Some(output);
        }
        if self.clocks.ended {
            return None;
        }
        let outbox = &self.outbox;
        let is_full = self.full.is_some();
        self.cache.evict(is_full, |group| outbox.is_durable(group));
        let many = self.outbox.marks() >= MARKS_MAX;
        let marks = std::mem::take(&mut self.marks_due) || many || !self.lists.is_empty();
        let Some(closed) = self.outbox.close(marks) else {
            // What is still to be listed may wait for long: a turn ends without it.
            self.end_turn();
            return self.poll_list();
        };
        let mut group = Group {
            number: closed.number,
            chosen: closed.chosen,
            ..Group::default()
        };
        for key in closed.keys {
            let resident = self
                .cache
                .resident(&key)
                .expect("a changed key stays resident");
            match resident.state.clone() {
                Some(state) => group.registers.push((key, state)),
                None => group.dropped.push(key),
            }
        }
        if closed.meta {
            self.meta.ceiling = self.clock.ceiling();
            self.ceilings.push_back((closed.number, self.meta.ceiling));
            let agreed = self.agreed.as_ref().or(self.configuration.as_ref());
            let configuration = agreed.map(|c| c.as_ref().clone());
            group.meta = Some(Meta {
                configuration,
                ..self.meta.clone()
            });
        }
        Some(Output::Persist(group))
    }

    /// What is to be listed is asked for once all that changed so far was handed out.
    fn poll_list(&mut self) -> Option<Output> {
        let (bucket, after) = self.lists.pop_front()?;
        Some(Output::List {
            bucket,
            after,
            epoch: self.epoch(),
        })
    }

    /// When `Input::Timeout` is wanted, in `Now::mono_us`.
    pub fn next_timeout(&self) -> Option<u64> {
        self.timers.next().filter(|_| !self.clocks.ended)
    }

    /// For datagram headers; 0 before the first configuration.
    pub fn cluster(&self) -> u64 {
        self.configuration.as_ref().map_or(0, |c| c.cluster)
    }

    /// For datagram headers; 0 while no configuration names the node.
    pub fn node(&self) -> NodeId {
        self.node
    }

    pub fn configuration(&self) -> Option<&Configuration> {
        self.configuration.as_deref()
    }

    /// The listed address of a member.
    pub fn address_of(&self, node: NodeId) -> Option<&str> {
        let mut nodes = self.configuration.as_ref()?.nodes();
        Some(&nodes.find(|m| m.node == node)?.address)
    }

    /// Where nodes of this cluster are or were, those of the list aside. It changes with the epoch.
    pub fn node_addresses(&self) -> impl Iterator<Item = &str> {
        let configured = self.configuration.iter().flat_map(|c| c.nodes());
        let former = self.meta.former.values().map(String::as_str);
        configured.map(|m| m.address.as_str()).chain(former)
    }

    fn own_address(&self) -> &str {
        &self.options.list[usize::from(self.options.index)]
    }

    /// Operations that are not answered yet.
    pub fn operations_under_way(&self) -> usize {
        self.operations
    }

    pub fn counters(&self) -> Counters {
        self.counters
    }

    fn handle_persisted(&mut self, group: u64) {
        let started = self.outbox.is_durable(self.started_in);
        self.outbox.persisted(group);
        if !started && self.outbox.is_durable(self.started_in) {
            // The others may be told of this start now.
            self.links.make_news();
        }
        while let Some((_, ceiling)) = self.ceilings.pop_front_if(|(number, _)| *number <= group) {
            self.durable_ceiling = ceiling;
        }
        self.release_replies();
        while let Some(held) = self.outbox.pop_released() {
            self.dispatch(held.envelope, held.way);
        }
    }

    /// B1: the ceiling is raised before the clock reaches it, in the same group as what moved it.
    fn keep_ceiling(&mut self) {
        if self.clock.needs_ceiling() {
            self.clock.raise_ceiling();
            self.outbox.change_meta();
        }
    }
}
