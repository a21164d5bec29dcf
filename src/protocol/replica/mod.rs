//! One node's part of the protocol: the only folder that knows `Replica`, and that sends. Each file
//! adds methods to it that feed the state machines of the folders beside this one, and that carry
//! out what these decide.

mod catchup;
mod clock_offsets;
mod clocks;
mod counts;
mod dispatch;
mod distance;
mod durable;
mod expiry;
mod forwarding;
mod full;
mod heartbeat;
mod hung_disk;
mod identity;
mod iteration;
mod keys;
mod membership;
mod peer_faults;
mod probe;
mod readiness;
mod remote_steps;
mod requests;
mod rounds;
mod scan;
mod send;
mod slow_disk;
mod stale;
mod text;
mod transactions;
mod view;
mod watches;

use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::protocol::clock::ballot_clock::BallotClock;
use crate::protocol::keys::resident::Bounds;
use crate::protocol::membership::formation::Bootstrap;
use crate::protocol::network::topology::Links;
use crate::protocol::replica::membership::starts::StartConfirmation;
use crate::protocol::transactions::Transactions;
use crate::protocol::types::counts::{Counters, NodeCounts};
use crate::protocol::types::digest::{BUCKETS_MAX, Spread};
use crate::protocol::types::limits::RETRY_HORIZON_MS;
use crate::protocol::types::message::{
    Configuration, Group, Input, NodeId, Now, Output, Recovered,
};
use crate::protocol::types::timer::{Timer, Timers};
use crate::protocol::types::timings::Timings;

use catchup::Catchup;
use clocks::ClockWatch;
use durable::DurableState;
use forwarding::Forwarding;
use full::Fullness;
use identity::NodeIdentity;
use keys::Keys;
use membership::Membership;
use readiness::Reports;
use requests::Requests;
use send::Sending;
use view::View;

/// The options with which a replica is started.
#[derive(Debug, Clone)]
pub struct Options {
    /// The nodes, in priority order, `host:port` each; all nodes have the same list.
    pub list: Vec<String>,
    /// This node's place in the list.
    pub index: u8,
    /// The name of the cluster. If it is empty, the operator gave none, and the cluster's own name
    /// counts.
    pub cluster_name: String,
    /// E6: the first listed node may form a cluster with more than half of the list.
    pub bootstrap: bool,
    pub tuning: Tuning,
    /// Random, new at each start.
    pub boot: u64,
    /// Seed of all random choices.
    pub seed: u64,
    /// B2: how far above the members' median the wall clock is accepted.
    pub skew_max_ms: u64,
    /// The limit of values that this node writes. Values above it that others wrote are accepted.
    pub value_size_max: usize,
    /// Keys whose state is held in the core; the rest is requested by `Output::Load`.
    pub keys_cached_max: usize,
    /// The memory that these may take, besides what they share with the store.
    pub cache_size_max: usize,
    pub heartbeat_ms: u64,
    /// A member that was unreachable for this long is removed; 0: none ever is.
    pub shrink_after_ms: u64,
    /// A link is down after a silence of this length.
    pub link_down_ms: u64,
    /// A disk that has not finished a write for this long is hung.
    pub disk_hung_ms: u64,
    /// Changes of the membership are accepted from any machine, not only from the node's own.
    pub insecure_admin: bool,
}

impl Options {
    fn timings(&self) -> Timings {
        Timings::new(self.heartbeat_ms, self.link_down_ms, self.shrink_after_ms)
            .with_disk_hung(self.disk_hung_ms)
    }
}

/// Settings that have their defaults everywhere except in simulations, which change them to make
/// rare events common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tuning {
    /// D1: the number of buckets of a cluster that this node forms.
    pub buckets: u16,
    /// X1, P1. Safety does not depend on it: an entry that leaves the applied table is remembered
    /// as dropped.
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

/// One node's part of the protocol. Its methods are getters; `handle_input`; and `poll_output`,
/// which must be called until it returns `None` after each input or batch of inputs.
#[derive(Debug)]
pub struct Replica {
    options: Options,
    timings: Timings,
    random: StdRng,
    clock: BallotClock,
    timers: Timers,
    counts: Box<NodeCounts>,
    identity: NodeIdentity,
    links: Links,
    view: View,
    keys: Keys,
    durable: DurableState,
    requests: Requests,
    forwarding: Forwarding,
    space: Fullness,
    catchup: Catchup,
    membership: Membership,
    transactions: Transactions,
    watch: ClockWatch,
    reports: Reports,
    sending: Sending,
}

impl Replica {
    pub fn new(options: Options, recovered: Recovered, now: Now) -> Self {
        let Recovered {
            incarnation,
            mut meta,
            group,
            digests,
            expiring,
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
        let proof = StartConfirmation::new(group, meta.starts, now);
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
        let bounds = Bounds {
            keys_max: options.keys_cached_max,
            size_max: options.cache_size_max,
        };
        let mut replica = Replica {
            clock: BallotClock::new(meta.ceiling, options.skew_max_ms, now),
            options,
            timings,
            random,
            timers: Timers::default(),
            counts: Box::default(),
            identity: NodeIdentity::new(incarnation, readdressed, bootstrap),
            links: Links::new(timings),
            view: View::new(now),
            keys: Keys::new(bounds, digests, expiring),
            durable: DurableState::new(meta, group),
            requests: Requests::default(),
            forwarding: Forwarding::default(),
            space: Fullness::default(),
            catchup: Catchup::new(spread),
            membership: Membership::new(proof),
            transactions: Transactions::default(),
            watch: ClockWatch::default(),
            reports: Reports::default(),
            sending: Sending::default(),
        };
        if let Some(configuration) = configuration {
            replica.adopt(configuration);
            replica.find_splits();
        }
        replica.timers.set(now.mono_us, Timer::Heartbeat);
        if replica.identity.formation.is_some() {
            replica.timers.set(now.mono_us, Timer::Survey);
        }
        replica.keep_ceiling();
        replica
    }

    pub fn handle_input(&mut self, now: Now, input: Input) {
        self.watch.history.sample(now, self.clock.last());
        self.clock.pass(now);
        self.counts.begin_input(now.mono_us);
        if self.has_ended() {
            return;
        }
        self.check_links(now, false, matches!(input, Input::Timeout));
        match input {
            Input::Peer { cluster, envelope } => self.handle_peer(now, cluster, envelope),
            Input::Client { from, message } => self.handle_client(now, from, message),
            Input::Listed {
                bucket,
                after,
                epoch,
                page,
            } => self.handle_listed(now, (bucket, after), epoch, &page),
            Input::RangeListed {
                listing,
                epoch,
                page,
            } => self.handle_range_listed(now, listing, epoch, page),
            Input::Loaded { key, state } => self.handle_loaded(now, &key, state),
            Input::Persisted { group } => self.handle_persisted(group),
            Input::Timeout => self.handle_timeout(now),
            Input::Waited(wait) => self.sample_receive_wait(now, wait),
            Input::Full(full) => self.set_full(now, full),
            Input::Stop => {
                self.requests.stopping = true;
                self.refuse_polls();
            }
        }
        self.end_input(now);
    }

    /// Messages of this node to itself do not use the network.
    fn end_input(&mut self, now: Now) {
        loop {
            if let Some(envelope) = self.sending.pop_local() {
                self.handle_member_message(now, envelope);
            } else if !self.take_own_answers(now)
                && !self.take_scan_reads(now)
                && !self.take_step_answers(now)
                && !self.send_resolves()
            {
                break;
            }
        }
        self.look_for_changes(now);
        self.keep_ceiling();
    }

    /// The outputs that need not wait for the group that is being filled. For use between the
    /// inputs of one batch, so that their outputs do not accumulate. `poll_output` returns the
    /// rest.
    pub fn poll_ready(&mut self) -> Option<Output> {
        self.sending.pop()
    }

    pub fn poll_output(&mut self) -> Option<Output> {
        if let Some(now) = self.view.take_due()
            && !self.watch.clocks.ended
        {
            self.check_links(now, true, false);
            self.end_input(now);
        }
        if let Some(output) = self.sending.pop() {
            return Some(output);
        }
        if self.watch.clocks.ended {
            return None;
        }
        let durable = &self.durable;
        let is_full = self.space.full.is_some();
        self.keys.evict(is_full, |group| durable.is_durable(group));
        let lists = !self.catchup.page_requests.is_empty() || self.requests.scans.lists();
        let Some(closed) = self.durable.close(lists) else {
            // What is still to be listed may wait for long: an iteration ends without it.
            self.end_turn();
            return self.poll_list();
        };
        let mut group = Box::new(Group {
            number: closed.number,
            chosen: closed.chosen,
            ..Group::default()
        });
        self.keys.fill(&mut group, closed.keys);
        if closed.meta {
            let agreed = self
                .identity
                .agreed
                .as_ref()
                .or(self.identity.configuration.as_ref());
            let configuration = agreed.map(|c| c.as_ref().clone());
            let ceiling = self.clock.ceiling();
            let meta = self
                .durable
                .close_meta(closed.number, ceiling, configuration);
            group.meta = Some(meta);
        }
        self.durable.write(&group);
        Some(Output::Persist(group))
    }

    /// A list is requested once all earlier changes were drained. Clients wait for the ranges.
    fn poll_list(&mut self) -> Option<Output> {
        if let Some(range) = self.poll_range() {
            return Some(range);
        }
        let (bucket, after) = self.catchup.page_requests.pop_front()?;
        Some(Output::List {
            bucket,
            after,
            epoch: self.epoch(),
        })
    }

    /// When `Input::Timeout` is due, in `Now::mono_us`.
    pub fn next_timeout(&self) -> Option<u64> {
        self.timers.next().filter(|_| !self.watch.clocks.ended)
    }

    /// For datagram headers; 0 before the first configuration.
    pub fn cluster(&self) -> u64 {
        self.identity
            .configuration
            .as_ref()
            .map_or(0, |c| c.cluster)
    }

    /// For datagram headers; 0 while no configuration names the node.
    pub fn node(&self) -> NodeId {
        self.identity.node
    }

    pub fn configuration(&self) -> Option<&Configuration> {
        self.identity.configuration.as_deref()
    }

    /// The listed address of a member.
    pub fn address_of(&self, node: NodeId) -> Option<&str> {
        let mut nodes = self.identity.configuration.as_ref()?.nodes();
        Some(&nodes.find(|m| m.node == node)?.address)
    }

    /// The present and former addresses of nodes of this cluster, except for those of the list.
    /// They change with the epoch.
    pub fn node_addresses(&self) -> impl Iterator<Item = &str> {
        let configured = self.identity.configuration.iter().flat_map(|c| c.nodes());
        let former = self.durable.former_addresses();
        configured.map(|m| m.address.as_str()).chain(former)
    }

    fn own_address(&self) -> &str {
        &self.options.list[usize::from(self.options.index)]
    }

    /// Operations that are not answered yet.
    pub fn operations_under_way(&self) -> usize {
        self.requests.operations
    }

    pub fn counters(&self) -> Counters {
        self.counts.dropped
    }

    fn handle_persisted(&mut self, group: u64) {
        if self.durable.persisted(group) {
            // This start may be reported to the others now.
            self.links.make_news();
        }
        self.release_replies();
        while let Some(held) = self.durable.pop_released() {
            self.dispatch(held.envelope, held.way);
        }
    }

    fn keep_ceiling(&mut self) {
        self.durable.keep_ceiling(&mut self.clock);
    }
}
