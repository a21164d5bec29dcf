//! Nodes, network, disks and clients on one event queue. All randomness comes from the seed; the
//! driver, a plan or a scenario, decides which faults strike and which operations clients begin.

use std::collections::BTreeMap;

use horseshoe::gateway::text;
use horseshoe::protocol::types::configuration::is_heard_from_anywhere;
use horseshoe::protocol::types::limits::{
    DISK_HUNG_MS_DEFAULT, HEARTBEAT_MS_DEFAULT, LINK_DOWN_MS_DEFAULT,
};
use horseshoe::protocol::types::message::{
    ClientReply, Destination, Endpoint, Envelope, Epoch, Event as NodeEvent, GroupNumber,
    Incarnation, Input, NodeId, Output,
};
use horseshoe::protocol::types::record::Key;
use horseshoe::protocol::{Options, Replica, Tuning};

use super::clients::Client;
use super::codec;
use super::event::{Event, Parcel, Passing, Queue};
use super::history::RecordedCall;
use super::network::{Network, Place, Quality};
use super::node::{DiskSpeed, Node};
use super::random::Random;
use super::trace::{Detail, Trace};
use super::watch::{Watch, is_quorum, member_of};
use super::watchers::Watcher;

#[derive(Debug, Clone)]
pub struct Settings {
    pub seed: u64,
    pub nodes: usize,
    /// The number of nodes in the first list of nodes; the lists of the others name all nodes.
    pub listed: usize,
    pub quality: Quality,
    pub speed: DiskSpeed,
    /// Whether a node finds its state again after a crash.
    pub keeps_disk: bool,
    pub keys_cached_max: usize,
    pub skew_max_ms: u64,
    pub heartbeat_ms: u64,
    pub link_down_ms: u64,
    pub shrink_after_ms: u64,
    /// The cluster name that nodes are started with.
    pub cluster_name: String,
    pub bootstrap: bool,
    pub tuning: Tuning,
    /// Keys in a page of a bucket.
    pub page_length_max: usize,
    /// The setting of the clients; `None`: each has its own.
    pub no_quorum_after_us: Option<u64>,
    /// Timers and inboxes are checked up to this late.
    pub late_max_us: u64,
    pub detail: Detail,
}

impl Settings {
    pub fn calm(nodes: usize) -> Self {
        Settings {
            seed: 1,
            nodes,
            listed: nodes,
            quality: Quality::CALM,
            speed: DiskSpeed::FAST,
            keeps_disk: true,
            keys_cached_max: 1_000,
            skew_max_ms: 60_000,
            heartbeat_ms: HEARTBEAT_MS_DEFAULT,
            link_down_ms: LINK_DOWN_MS_DEFAULT,
            shrink_after_ms: 0,
            cluster_name: String::new(),
            bootstrap: false,
            tuning: Tuning::default(),
            page_length_max: usize::MAX,
            no_quorum_after_us: None,
            late_max_us: 0,
            detail: Detail::Silent,
        }
    }
}

/// What happens to a message before it reaches the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Pass,
    /// Arrives this much later.
    Late(u64),
    Drop,
    Hold,
}

/// A plan that comes due when a node has sent `count` messages of a name.
#[derive(Debug, Clone)]
pub struct Trap {
    pub node: usize,
    pub name: &'static str,
    pub count: u64,
    pub plan: u64,
}

/// The promises about text hold only where no text datagram is delayed for longer.
const TEXT_LATE_MAX_US: u64 = 300_000;

type Filter = Box<dyn FnMut(&Passing) -> Fate>;

pub struct Cluster {
    /// Incarnations whose state is lost, and the newest epoch that was known then.
    pub(super) losses: Vec<(Incarnation, Epoch)>,
    /// The groups that each node, since it started, has heard to be durable on the disk of an
    /// incarnation.
    pub(super) heard: BTreeMap<(usize, u64, Incarnation), GroupNumber>,
    pub settings: Settings,
    pub now_us: u64,
    pub nodes: Vec<Node>,
    pub network: Network,
    pub clients: Vec<Client>,
    pub watchers: Vec<Watcher>,
    /// All operations of all clients, in order of their calls.
    pub calls: Vec<RecordedCall>,
    pub watch: Watch,
    pub trace: Trace,
    /// Messages that a filter holds back.
    pub held: Vec<Passing>,
    filters: Vec<Option<Filter>>,
    pub traps: Vec<Trap>,
    pub(super) queue: Queue,
    pub(super) random: Random,
    /// The number of places given out in the order of events.
    ticks: u64,
    pub events: u64,
    /// Plans that have come due.
    pub due: Vec<u64>,
}

/// The listed address of a node.
pub fn address(index: usize) -> String {
    format!("node{index}:7000")
}

fn index_of(address: &str) -> Option<usize> {
    address
        .strip_prefix("node")?
        .strip_suffix(":7000")?
        .parse()
        .ok()
}

pub fn endpoint(client: usize) -> Endpoint {
    Endpoint::new(0xffff_0a00_0000 + client as u128, 9_000)
}

impl Cluster {
    pub fn new(settings: Settings) -> Self {
        let mut random = Random::stream(settings.seed, 1);
        let network = Network::new(Random::stream(settings.seed, 2), settings.quality);
        let nodes = (0..settings.nodes).map(|index| {
            let mut node = Node::new(index, random.word());
            node.speed = settings.speed;
            node
        });
        Cluster {
            nodes: nodes.collect(),
            network,
            clients: Vec::new(),
            watchers: Vec::new(),
            calls: Vec::new(),
            watch: Watch::default(),
            trace: Trace::new(settings.detail),
            held: Vec::new(),
            filters: Vec::new(),
            traps: Vec::new(),
            queue: Queue::default(),
            random,
            now_us: 0,
            ticks: 0,
            events: 0,
            due: Vec::new(),
            losses: Vec::new(),
            heard: BTreeMap::new(),
            settings,
        }
    }

    // The order of events.

    /// Takes the next event; if none is due by `until_us`, sets the time to that, returns false.
    pub fn step(&mut self, until_us: u64) -> bool {
        if self.queue.next_us().is_none_or(|at| at > until_us) {
            self.now_us = self.now_us.max(until_us);
            return false;
        }
        let (at_us, event) = self.queue.pop().expect("there is one");
        assert!(at_us >= self.now_us, "time went back");
        self.now_us = at_us;
        self.events += 1;
        match event {
            Event::Arrive(passing) => self.arrive(*passing),
            Event::Wake { node, life } => self.wake(node, life),
            Event::Synced { node, life } => self.synced(node, life),
            Event::Loaded {
                node,
                life,
                key,
                state,
            } => {
                if self.nodes[node].life == life {
                    self.receive(node, Input::Loaded { key, state });
                }
            }
            Event::Listed { node, life, input } => {
                if self.nodes[node].life == life {
                    self.receive(node, *input);
                }
            }
            Event::ClientWake { client } => self.wake_client(client),
            Event::Plan(number) => self.due.push(number),
        }
        true
    }

    /// Makes `number` appear in `due` at that time.
    pub fn plan(&mut self, at_us: u64, number: u64) {
        self.queue.push(at_us.max(self.now_us), Event::Plan(number));
    }

    /// A place in the order of events.
    pub fn tick(&mut self) -> u64 {
        self.ticks += 1;
        self.ticks
    }

    // Messages.

    /// Lets `filter` decide about all messages sent from now on; returns the number for `unfilter`.
    pub fn filter(&mut self, filter: impl FnMut(&Passing) -> Fate + 'static) -> usize {
        self.filters.push(Some(Box::new(filter)));
        self.filters.len() - 1
    }

    pub fn unfilter(&mut self, number: usize) {
        self.filters[number] = None;
    }

    /// Sends a message through filters and network.
    pub fn send(&mut self, from: Place, to: Place, parcel: Parcel) {
        let (parcel, digest) = codec::round_trip(parcel);
        let place = |p: Place| match p {
            Place::Node(index) => index as u64,
            Place::Client(index) => 1_000 + index as u64,
        };
        self.trace
            .mix_words(&[self.now_us, place(from), place(to), digest]);
        let passing = Passing { from, to, parcel };
        self.spring_traps(&passing);
        let fates = self
            .filters
            .iter_mut()
            .flatten()
            .map(|filter| filter(&passing));
        let late_us = match fates.fold(Fate::Pass, |a, b| if b == Fate::Pass { a } else { b }) {
            Fate::Pass => 0,
            Fate::Late(us) => us,
            Fate::Drop => return,
            Fate::Hold => {
                self.held.push(passing);
                return;
            }
        };
        let copies = self.network.send(from, to);
        if self.trace.tells(Detail::Messages) {
            let lost = if copies[0].is_none() { " (lost)" } else { "" };
            self.trace
                .message(self.now_us, || codec::describe(&passing) + lost);
        }
        let late_max_us = if passing.is_text_request() {
            TEXT_LATE_MAX_US
        } else {
            u64::MAX
        };
        let in_time = |delay: &u64| delay + late_us <= late_max_us;
        let mut copies = copies.into_iter().flatten().filter(in_time);
        if let Some(first) = copies.next() {
            for delay in copies {
                self.deliver(delay + late_us, passing.clone());
            }
            self.deliver(first + late_us, passing);
        }
    }

    fn spring_traps(&mut self, passing: &Passing) {
        let mut sprung = Vec::new();
        self.traps.retain_mut(|trap| {
            if passing.from == Place::Node(trap.node) && passing.name() == trap.name {
                trap.count -= 1;
            }
            if trap.count == 0 {
                sprung.push(trap.plan);
            }
            trap.count > 0
        });
        for plan in sprung {
            self.plan(self.now_us, plan);
        }
    }

    /// Delivers a message, whatever the state of the network.
    pub fn deliver(&mut self, delay_us: u64, passing: Passing) {
        self.queue
            .push(self.now_us + delay_us, Event::Arrive(Box::new(passing)));
    }

    fn arrive(&mut self, passing: Passing) {
        if let Place::Node(node) = passing.to
            && passing.is_text_request()
            && self.nodes[node].stalled_until_us > self.now_us + TEXT_LATE_MAX_US
        {
            return;
        }
        match (passing.to, passing.from, passing.parcel) {
            (Place::Node(node), from, Parcel::Peer { cluster, envelope }) => {
                if !self.is_strangers(node, from, cluster, &envelope) {
                    self.hears(node, &envelope);
                    self.receive(node, Input::Peer { cluster, envelope });
                }
            }
            (Place::Node(node), _, Parcel::Request { from, message }) => {
                self.receive(node, Input::Client { from, message });
            }
            (Place::Client(client), Place::Node(from), Parcel::Reply { reply }) => {
                let now_us = self.now_us;
                self.clients[client].receive(now_us, from, &reply);
                self.drain_client(client);
            }
            (to, from, parcel) => panic!("{from} sends {to} {parcel:?}"),
        }
    }

    /// Whether the runtime would drop the message: it is a node's message from an address of no
    /// known node.
    fn is_strangers(&self, node: usize, from: Place, cluster: u64, envelope: &Envelope) -> bool {
        let (Some(replica), Place::Node(sender)) = (&self.nodes[node].replica, from) else {
            return false;
        };
        if replica.configuration().is_none() || sender < self.listed_by(node) {
            return false;
        }
        let source = address(sender);
        let (kind, to) = (envelope.message.kind(), envelope.destination);
        let own = (replica.cluster(), replica.node());
        !replica.node_addresses().any(|known| known == source)
            && !is_heard_from_anywhere(kind, cluster, to, own)
    }

    // Nodes.

    fn receive(&mut self, node: usize, input: Input) {
        self.nodes[node].receive(input);
        let late = self.random.below(self.settings.late_max_us / 8 + 1);
        self.wake_at(node, self.now_us + late);
    }

    fn wake_at(&mut self, node: usize, at_us: u64) {
        let node = &mut self.nodes[node];
        let at_us = at_us.max(node.stalled_until_us);
        if node.is_up() && node.wake_us.is_none_or(|set| set > at_us) {
            node.wake_us = Some(at_us);
            let wake = Event::Wake {
                node: node.index,
                life: node.life,
            };
            self.queue.push(at_us, wake);
        }
    }

    fn wake(&mut self, node: usize, life: u64) {
        let now_us = self.now_us;
        let state = &mut self.nodes[node];
        if state.life != life || state.wake_us != Some(now_us) {
            return;
        }
        state.wake_us = None;
        if state.stalled_until_us > now_us {
            self.wake_at(node, now_us);
            return;
        }
        let one_by_one = self.random.chance(300);
        let outputs = self.nodes[node].run(now_us, one_by_one);
        for output in outputs {
            self.carry_out(node, output);
        }
        if let Some(due_us) = self.nodes[node].timer_us() {
            let late = self.random.below(self.settings.late_max_us + 1);
            self.wake_at(node, due_us.max(now_us + 1) + late);
        }
    }

    fn carry_out(&mut self, node: usize, output: Output) {
        match output {
            Output::Persist(group) => {
                codec::is_read_again(&group);
                self.watch.writes(&group);
                self.trace
                    .mix_words(&[self.now_us, group.number, group.registers.len() as u64]);
                if self.nodes[node].disk.write(*group) {
                    self.begin_sync(node);
                }
            }
            list @ (Output::List { .. } | Output::ListRange { .. }) => {
                self.answer_list(node, list);
            }
            Output::Load(key) => {
                let state = self.nodes[node].disk.load(&key);
                let delay = self.random.below(self.nodes[node].speed.load_max_us + 1);
                let life = self.nodes[node].life;
                self.queue.push(
                    self.now_us + delay,
                    Event::Loaded {
                        node,
                        life,
                        key,
                        state,
                    },
                );
            }
            Output::Send { to, mut envelope } => {
                let id = self.nodes[node].replica.as_ref().map_or(0, Replica::node);
                if envelope.origin == id {
                    self.watch.sends(self.now_us, &self.nodes[node], &envelope);
                }
                envelope.via = id;
                let Some(to) = self.resolve(node, to) else {
                    return;
                };
                let replica = self.nodes[node].replica.as_ref().expect("it has just sent");
                let cluster = replica.cluster();
                self.send(
                    Place::Node(node),
                    Place::Node(to),
                    Parcel::Peer { cluster, envelope },
                );
            }
            Output::Reply { to, reply } => {
                let client = (to.ip - endpoint(0).ip) as usize;
                if let Some(key) = self.clients[client].asked(&reply) {
                    self.watch.replies(&self.nodes, &Key::user(&key), &reply);
                }
                if let ClientReply::Sessionless { id, outcome } = &reply
                    && text::answer(*id, outcome).is_err()
                {
                    return;
                }
                self.send(
                    Place::Node(node),
                    Place::Client(client),
                    Parcel::Reply { reply },
                );
            }
            Output::Event(event) => self.tell_event(node, &event),
        }
    }

    fn tell_event(&mut self, node: usize, event: &NodeEvent) {
        if let NodeEvent::Contradiction { .. } = event {
            self.watch.fails(format!("R3: node {node}: {event:?}"));
        }
        self.trace
            .story(self.now_us, || format!("node {node}: {event:?}"));
    }

    fn resolve(&self, node: usize, to: Destination) -> Option<usize> {
        match to {
            Destination::Listed(index) => Some(usize::from(index)),
            Destination::Address(address) => index_of(&address),
            Destination::Node(id) => {
                let replica = self.nodes[node].replica.as_ref()?;
                replica.address_of(id).and_then(index_of)
            }
        }
        .filter(|index| *index < self.nodes.len())
    }

    fn begin_sync(&mut self, node: usize) {
        let speed = self.nodes[node].speed;
        let delay = self.random.between(speed.sync_min_us, speed.sync_max_us);
        let life = self.nodes[node].life;
        self.queue
            .push(self.now_us + delay, Event::Synced { node, life });
    }

    fn synced(&mut self, node: usize, life: u64) {
        if self.nodes[node].life != life {
            return;
        }
        let (group, more) = self.nodes[node].disk.end_sync();
        self.watch.finds(self.nodes[node].disk.synced());
        if more {
            self.begin_sync(node);
        }
        self.receive(node, Input::Persisted { group });
    }

    // Faults of nodes.

    /// How many nodes this node's list names: the first ones.
    fn listed_by(&self, node: usize) -> usize {
        let Settings { nodes, listed, .. } = self.settings;
        if node < listed { listed } else { nodes }
    }

    pub fn start(&mut self, node: usize) {
        let options = Options {
            list: (0..self.listed_by(node)).map(address).collect(),
            index: node as u8,
            boot: self.random.word(),
            seed: self.random.word(),
            skew_max_ms: self.settings.skew_max_ms,
            insecure_admin: true,
            value_size_max: wire::VALUE_SIZE_DEFAULT,
            keys_cached_max: self.settings.keys_cached_max,
            cache_size_max: 64 << 20,
            heartbeat_ms: self.settings.heartbeat_ms,
            link_down_ms: self.settings.link_down_ms,
            shrink_after_ms: self.settings.shrink_after_ms,
            disk_hung_ms: DISK_HUNG_MS_DEFAULT,
            cluster_name: self.settings.cluster_name.clone(),
            bootstrap: self.settings.bootstrap,
            tuning: self.settings.tuning,
        };
        self.trace
            .story(self.now_us, || format!("node {node} starts"));
        self.watch.finds(self.nodes[node].disk.synced());
        self.nodes[node].start(self.now_us, options, &mut self.random);
        self.wake_at(node, self.now_us);
    }

    pub fn start_all(&mut self) {
        for node in 0..self.nodes.len() {
            if !self.nodes[node].is_up() {
                self.start(node);
            }
        }
    }

    /// The process dies. In most cases all that it had not synced is lost.
    pub fn crash(&mut self, node: usize) {
        let unsynced = self.nodes[node].disk.unsynced() as u64;
        let kept = if self.random.chance(300) {
            self.random.between(0, unsynced)
        } else {
            0
        };
        self.trace.story(self.now_us, || {
            format!(
                "node {node} crashes, {} of {unsynced} groups lost",
                unsynced - kept
            )
        });
        self.nodes[node].crash(kept as usize);
        if !self.settings.keeps_disk {
            self.wipe(node);
        }
    }

    /// All state of a stopped node is lost.
    pub fn wipe(&mut self, node: usize) {
        assert!(!self.nodes[node].is_up(), "node {node} runs");
        self.trace
            .story(self.now_us, || format!("node {node} loses its state"));
        let lost = self.nodes[node].disk.incarnation();
        let epoch = self.watch.configuration().map_or(0, |c| c.epoch);
        self.losses.push((lost, epoch));
        let incarnation = self.random.word();
        self.nodes[node].disk.wipe(incarnation);
    }

    /// Whether state was lost that a change in progress relied on before any other node knew of the
    /// change: the resulting configuration may have no quorum, and then only an operator's force
    /// helps.
    pub fn lost_what_a_change_needs(&self) -> bool {
        let newest = self.watch.configuration();
        newest.is_some_and(|newest| {
            let is_named = |lost| member_of(newest, lost).is_some();
            let losses = self.losses.iter();
            losses
                .clone()
                .any(|(lost, epoch)| *epoch < newest.epoch && is_named(*lost))
        })
    }

    /// The node accepts no more operations; the driver ends it.
    pub fn ask_to_stop(&mut self, node: usize) {
        self.trace
            .story(self.now_us, || format!("node {node} is asked to stop"));
        self.receive(node, Input::Stop);
    }

    /// The process stalls for a while; what arrives waits.
    pub fn stall(&mut self, node: usize, for_us: u64) {
        self.trace.story(self.now_us, || {
            format!("node {node} stands still for {} ms", for_us / 1_000)
        });
        self.nodes[node].stalled_until_us = self.now_us + for_us;
        if for_us > TEXT_LATE_MAX_US {
            self.nodes[node].lose_text();
        }
    }

    /// The wall clock jumps.
    pub fn jump(&mut self, node: usize, by_ms: i64) {
        self.trace.story(self.now_us, || {
            format!("node {node}'s clock jumps by {by_ms} ms")
        });
        self.nodes[node].wall.offset_ms += by_ms;
    }

    /// The id under which the node has a vote in the newest configuration.
    pub fn vote_of(&self, node: usize) -> Option<NodeId> {
        let configuration = self.watch.configuration()?;
        member_of(configuration, self.nodes[node].disk.incarnation())
    }

    /// Whether the nodes other than these would still be a quorum, all of them with the
    /// configuration on disk.
    pub fn can_lose(&self, lost: &[usize]) -> bool {
        let Some(configuration) = self.watch.configuration() else {
            return false;
        };
        let stays = self.nodes.iter().filter(|n| !lost.contains(&n.index));
        let stays = stays.filter(|n| n.disk.synced().meta.configuration.is_some());
        let stays = stays.filter(|n| !n.disk.is_rolled_back());
        let stays: Vec<Incarnation> = stays.map(|n| n.disk.incarnation()).collect();
        let all_stay = configuration
            .members
            .iter()
            .all(|m| stays.contains(&m.incarnation));
        if configuration.forced && !all_stay {
            return false;
        }
        let joint = configuration.joint.as_deref();
        is_quorum(&configuration.members, &stays) && joint.is_none_or(|j| is_quorum(j, &stays))
    }

    /// The forced configuration that a member's status advises, if one does: at which node, and
    /// with which ids.
    pub fn force_advised(&self) -> Option<(usize, Vec<NodeId>)> {
        let newest = self.watch.configuration()?;
        self.nodes.iter().find_map(|node| {
            let replica = node.replica.as_ref()?;
            self.vote_of(node.index)?;
            let is_newest = replica.configuration()?.epoch == newest.epoch;
            let status = replica.status(node.now(self.now_us));
            let (_, rest) = status.waits_for.split_once("`horseshoe member force ")?;
            let (ids, _) = rest.split_once('`')?;
            let ids: Result<Vec<NodeId>, _> = ids.split(' ').map(str::parse).collect();
            is_newest.then_some((node.index, ids.ok()?))
        })
    }

    /// Whether all nodes are in the newest configuration, have installed it, and it is not joint.
    pub fn are_all_members(&self) -> bool {
        let newest = self.watch.configuration();
        newest.is_some_and(|newest| newest.joint.is_none())
            && self.nodes.iter().all(|n| {
                let installed = n.replica.as_ref().and_then(Replica::configuration);
                installed.map(|c| c.epoch) == newest.map(|c| c.epoch)
                    && self.vote_of(n.index).is_some()
            })
    }

    /// Whether all nodes have a configuration. A node that the newest one does not name, and that
    /// has lost its state, receives it only when it is added.
    pub fn is_formed(&self) -> bool {
        let newest = self.watch.configuration();
        let is_named = |n: &Node| {
            let address = address(n.index);
            newest.is_none_or(|newest| newest.nodes().any(|m| m.address == address))
        };
        let mut named = self.nodes.iter().filter(|n| is_named(n));
        named.all(|n| {
            let replica = n.replica.as_ref();
            replica.is_some_and(|r| r.configuration().is_some())
        })
    }
}
