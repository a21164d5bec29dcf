//! The client's view of one given node: its session, its latency, and whether it responds.
//!
//! The client sends operations to a node only while the node has answered recently; after a silence
//! the node first has to answer a hello. So a dead node makes the outcome of few operations
//! unknown, and if too few nodes run to serve, `no quorum` is reported soon and with certainty
//! (X5).

use std::collections::VecDeque;

use super::attempts::Attempts;
use super::distance::Distance;
use super::hello_pace::HelloPace;
use super::operation::InFlight;
use super::settle::is_turned_away;
use super::table::CallHandle;
use super::window::SendWindow;
use super::{Session, place_bit};
use wire::clock::Reading;
use wire::latency::{LatencyEstimate, allowance_us};
use wire::{Action, Hello, HelloAnswer, NoSession, Outcome, kind};

/// A node that was silent for this long has to answer a hello before it receives operations, ...
const FRESH_US: u64 = 500_000;
/// ... or for this many round trips, if that is longer: an operation takes several round trips, and
/// a hello before it another one.
const FRESH_ROUND_TRIPS: u64 = 20;
/// The longest wait before a hello is repeated, for each given node, while no node responds
/// (`HelloPace::sent`). It is short enough that a few lost datagrams cannot keep all nodes silent
/// for the time after which `no quorum` is reported. With more nodes the wait is longer, since each
/// of them may be the first to answer: thousands of clients that start at once must leave the nodes
/// time for the answers.
const HELLO_WAIT_US_ALONE: u64 = 60_000;
/// A node in use is asked again for its id and cluster after this time, ...
const REFRESH_US: u64 = 10_000_000;
/// ... and a node without a vote or an id, or of another cluster than the one in use, after this
/// time.
const REFRESH_US_USELESS: u64 = 250_000;
/// The address of a node that did not answer for this long may have changed, ...
const MOVED_US: u64 = 1_000_000;
/// ... and after this time if no other node answers either.
const MOVED_US_ALONE: u64 = 200_000;
/// How much longer than usual a transaction may take: it may wait for others that have its keys.
const TRANSACTION_US: u64 = 250_000;
/// How much longer than a get a page of a scan may take.
const SCAN_US: u64 = 100_000;
/// A node that answers hellos, but not operations, is avoided for this long, doubled each time.
const AVOID_US_INITIAL: u64 = 20_000;
const AVOID_DOUBLINGS_MAX: u32 = 6;

/// X4: the content of the answer to a hello.
#[derive(Debug, Clone)]
pub(super) struct Live {
    pub token: u64,
    /// 0 for a node without a vote or an id.
    pub node: u8,
    pub cluster: u64,
    /// The reading of the node's clock.
    pub clock: Reading,
}

/// When the attempt that an answer belongs to was sent, and of what operation.
#[derive(Debug, Clone, Copy)]
pub(super) struct AnswerTiming {
    pub is_read: bool,
    pub is_transaction: bool,
    pub sent_us: u64,
    /// The operation was sent to no other node since.
    pub was_last: bool,
}

#[derive(Debug)]
pub(super) struct Node {
    pub live: Option<Live>,
    /// The application wants nothing sent to this node.
    pub spared: bool,
    /// Whether the node may receive operations, by its cluster (`Session::admit`).
    pub admitted: bool,
    /// The nonce of the hello that opened the session, or will open it. The same hello again keeps
    /// the token, if the node still knows it; 0: the next hello requests a new token.
    nonce: u64,
    /// Since when a hello has had no answer.
    pub unanswered_since_us: Option<u64>,
    /// The earliest time of the next hello.
    pub hello_due_us: u64,
    /// When the last hello was sent, and how many since a frame last arrived from the node.
    pub hello_sent_us: u64,
    pub hellos_open: u32,
    pub hello_pace: HelloPace,
    pub distance: Distance,
    refresh_us: u64,
    heard_us: u64,
    /// When the node last answered an operation.
    pub answered_us: u64,
    avoid_until_us: u64,
    strikes: u32,
    pub attempts: Attempts,
    pub window: SendWindow,
    /// Calls that wait for room in the window.
    pub queue: VecDeque<CallHandle>,
    reads: LatencyEstimate,
    writes: LatencyEstimate,
    transactions: LatencyEstimate,
    /// The nodes that it reached when it last answered `no quorum`.
    pub reached: Option<Vec<u8>>,
}

/// The order in which nodes are tried; the node with the highest rank is first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    untried: bool,
    answers: bool,
    votes: bool,
    weight: u64,
    place: usize,
}

impl Node {
    pub fn new(first_attempt: u64) -> Self {
        Node {
            live: None,
            spared: false,
            admitted: false,
            nonce: 0,
            unanswered_since_us: None,
            hello_due_us: 0,
            hello_sent_us: 0,
            hellos_open: 0,
            hello_pace: HelloPace::default(),
            distance: Distance::default(),
            refresh_us: 0,
            heard_us: 0,
            answered_us: 0,
            avoid_until_us: 0,
            strikes: 0,
            attempts: Attempts::new(first_attempt),
            window: SendWindow::default(),
            queue: VecDeque::new(),
            reads: LatencyEstimate::default(),
            writes: LatencyEstimate::default(),
            transactions: LatencyEstimate::default(),
            reached: None,
        }
    }

    pub fn id(&self) -> u8 {
        self.live.as_ref().map_or(0, |live| live.node)
    }

    fn is_fresh(&self, now_us: u64) -> bool {
        now_us
            <= self
                .heard_us
                .saturating_add(FRESH_US.max(self.slow_fresh_us()))
    }

    fn slow_fresh_us(&self) -> u64 {
        FRESH_ROUND_TRIPS.saturating_mul(self.distance.rtt_us())
    }

    /// Whether waiting for a hello's answer delays an operation much.
    fn is_far(&self) -> bool {
        self.slow_fresh_us() > FRESH_US
    }

    /// The cluster that the node reported, unless it has none yet.
    pub fn cluster(&self) -> Option<u64> {
        let live = self.live.as_ref()?;
        Some(live.cluster).filter(|cluster| *cluster != 0)
    }

    /// Whether operations may be sent to the node.
    pub fn is_usable(&self, now_us: u64) -> bool {
        self.admitted && self.answers_questions(now_us)
    }

    /// Whether the node can be asked for its status, whatever its cluster.
    pub fn answers_questions(&self, now_us: u64) -> bool {
        !self.is_gone() && self.is_fresh(now_us)
    }

    /// Whether the node has not answered since it was asked, or must not be asked.
    pub fn is_gone(&self) -> bool {
        self.spared || self.live.is_none() || self.unanswered_since_us.is_some()
    }

    /// Whether the node cannot be used for operations: silent, or of another cluster.
    pub fn is_silent(&self) -> bool {
        self.is_gone() || !self.admitted
    }

    /// When the next hello is sent without a call: hellos are repeated until the node answers, and
    /// until it belongs to the cluster in use.
    pub fn sought_us(&self) -> Option<u64> {
        if self.spared || self.live.is_none() && self.unanswered_since_us.is_none() {
            return None;
        }
        match self.unanswered_since_us {
            Some(_) => Some(self.hello_due_us),
            None if self.admitted => None,
            None => Some(self.hello_due_us.max(self.refresh_us)),
        }
    }

    /// A valid frame arrived.
    pub fn heard(&mut self, now_us: u64) {
        self.heard_us = now_us;
        self.hellos_open = 0;
        if self.live.is_some() {
            self.unanswered_since_us = None;
        }
    }

    /// An operation that was sent at that time was answered.
    pub fn take_outcome(&mut self, now_us: u64, timing: AnswerTiming, outcome: &Outcome) {
        let took_us = now_us.saturating_sub(timing.sent_us);
        if matches!(outcome, Outcome::Busy { .. }) {
            self.window.refused(now_us, took_us);
        }
        self.answered_us = now_us;
        self.strikes = 0;
        self.avoid_until_us = 0;
        self.hello_pace.begin_anew();
        // A page takes longer than the other reads, and says nothing of them; a poll waits.
        let is_slow = matches!(outcome, Outcome::Page(_) | Outcome::Watched(_));
        if !is_turned_away(outcome) && !is_slow {
            self.executed(now_us, timing, took_us);
        }
    }

    /// A round answered the operation after this time.
    fn executed(&mut self, now_us: u64, timing: AnswerTiming, took_us: u64) {
        let latency = if timing.is_transaction {
            &mut self.transactions
        } else if timing.is_read {
            &mut self.reads
        } else {
            &mut self.writes
        };
        self.distance.answered(took_us);
        self.window.answered(now_us, timing.is_read, took_us);
        // Other answers come from a time when the node was silent: a suspended process answers
        // everything at once when it goes on. They do not show how long an answer takes now.
        if timing.was_last {
            self.window.took(now_us, took_us);
        }
        latency.sample(took_us, None, self.distance.wait_bounds());
    }

    /// How long to wait for an answer before the next attempt. A value goes to the node, perhaps on
    /// to another, and from there to the members.
    pub fn wait_us(&self, action: &Action) -> u64 {
        let latency = match action {
            Action::Transact { .. } => &self.transactions,
            _ if action.is_read() => &self.reads,
            _ => &self.writes,
        };
        let wait_us = latency.wait_us(self.distance.wait_bounds());
        let size_us = match action {
            Action::Scan { .. } => SCAN_US,
            Action::Transact { .. } => TRANSACTION_US + 3 * allowance_us(action.value_size()),
            Action::Watch { wait_ms, .. } => SCAN_US + u64::from(*wait_ms) * 1_000,
            _ => 3 * allowance_us(action.value_size()),
        };
        wait_us.max(self.distance.least_wait_us()) + size_us
    }

    /// Since when a node that was sent something at that time has been silent.
    pub fn silent_since_us(&self, sent_us: u64) -> u64 {
        self.heard_us.max(sent_us)
    }

    /// An attempt was not answered in time. `is_gone`: hellos were not answered either. Returns
    /// true if the node must answer a hello now.
    pub fn kept_silent(&mut self, now_us: u64, sent_us: u64, is_gone: bool) -> bool {
        if self.heard_us <= sent_us || is_gone {
            return self.doubt(now_us);
        }
        if self.answered_us > sent_us {
            return false;
        }
        // Several attempts in one lost datagram count as one strike.
        if now_us >= self.avoid_until_us {
            let doublings = self.strikes.min(AVOID_DOUBLINGS_MAX);
            self.avoid_until_us = now_us + (AVOID_US_INITIAL << doublings);
            self.strikes += 1;
        }
        false
    }

    /// Called when the node has reported its cluster and it is known whether that is the one in
    /// use.
    pub fn is_to_be_asked_again(&mut self, now_us: u64) {
        let is_of_use = self.admitted && self.id() != 0;
        self.refresh_us = match is_of_use {
            true => now_us + REFRESH_US,
            false => now_us + REFRESH_US_USELESS,
        };
    }

    /// The node receives no operations until it answers again.
    fn doubt(&mut self, now_us: u64) -> bool {
        let first = self.unanswered_since_us.is_none();
        self.unanswered_since_us.get_or_insert(now_us);
        first
    }

    fn rank(&self, now_us: u64, place: usize, operation: &InFlight) -> Option<Rank> {
        let live = self.live.as_ref()?;
        Some(Rank {
            untried: operation.tried & place_bit(place) == 0,
            answers: now_us >= self.avoid_until_us,
            votes: live.node != 0,
            weight: match operation.call.action.is_watch() {
                // The watches of one range are spread over all nodes.
                true => wire::rendezvous_weight(&operation.spread.to_le_bytes(), live.node),
                false => wire::rendezvous_weight(&operation.call.key, live.node),
            },
            place,
        })
    }
}

impl Session {
    /// Nothing is sent to a spared node, and it counts as one that does not answer; open attempts
    /// at it stay open. A node that is no longer spared is used once it has answered a hello.
    /// Panics if there is no such node.
    pub fn spare(&mut self, now_us: u64, place: usize, spared: bool) {
        let now_us = self.advance(now_us);
        let node = &mut self.nodes[place];
        if node.spared == spared {
            return;
        }
        node.spared = spared;
        if !spared {
            node.hello_pace = HelloPace::default();
            node.doubt(now_us);
            if self.is_active() {
                self.greet(now_us, place);
            }
        }
        for handle in self.table.handles() {
            if !spared {
                // This node gets the same time to answer as the others had.
                let operation = self.table.get_mut(handle).expect("just listed");
                operation.dark_since_us = None;
            }
            self.check_no_quorum(now_us, handle);
        }
    }

    /// Whether the address of the node at that index may have changed: its present address is
    /// silent, or belongs to a node of another cluster.
    pub fn seems_moved(&self, now_us: u64, place: usize) -> bool {
        let node = &self.nodes[place];
        let is_foreign = node
            .cluster()
            .is_some_and(|cluster| self.choice.excludes(cluster));
        let is_alone = || !self.nodes.iter().any(|node| node.is_usable(now_us));
        let is_silent = node.unanswered_since_us.is_some_and(|since_us| {
            let silence_us = now_us.saturating_sub(since_us);
            silence_us >= MOVED_US || silence_us >= MOVED_US_ALONE && is_alone()
        });
        !node.spared && (is_foreign || is_silent)
    }

    /// Changes the address of the node at that index. Open attempts stay open: they may have been
    /// executed at the old address.
    pub fn moved(&mut self, now_us: u64, place: usize) {
        let now_us = self.advance(now_us);
        let node = &mut self.nodes[place];
        node.live = None;
        node.nonce = 0;
        node.hello_due_us = now_us;
        node.hello_pace = HelloPace::default();
        if self.is_active() {
            self.nodes[place].unanswered_since_us = Some(now_us);
            self.greet(now_us, place);
        }
    }

    /// The best usable node for an operation, and whether it was tried since the node set was last
    /// reset. Unusable nodes of a higher rank are sent a hello; so are nodes that are far away, for
    /// the next operation.
    pub(super) fn choose(&mut self, now_us: u64, handle: CallHandle) -> Option<(usize, bool)> {
        let operation = self.table.get(handle)?;
        let mut best = None;
        let mut all_well = true;
        let nodes = self.nodes.iter().enumerate();
        for (place, node) in nodes.filter(|(_, node)| !node.spared) {
            let usable = node.is_usable(now_us);
            all_well &= usable && now_us < node.refresh_us;
            let is_asked = operation.call.node.is_none_or(|id| node.id() == id);
            if usable && is_asked {
                best = best.max(node.rank(now_us, place, operation));
            }
        }
        if !all_well {
            self.seek(now_us, handle, best);
        }
        best.map(|rank| (rank.place, !rank.untried))
    }

    fn seek(&mut self, now_us: u64, handle: CallHandle, best: Option<Rank>) {
        for place in 0..self.nodes.len() {
            let Some(operation) = self.table.get(handle) else {
                return;
            };
            let node = &mut self.nodes[place];
            if node.spared {
                continue;
            }
            if node.answers_questions(now_us) {
                if now_us >= node.refresh_us {
                    self.greet(now_us, place);
                }
            } else if node.is_silent()
                || node.is_far()
                || node.rank(now_us, place, operation) > best
            {
                node.doubt(now_us);
                self.greet(now_us, place);
            }
        }
    }

    /// Sends a hello, unless that was done very recently.
    pub(super) fn greet(&mut self, now_us: u64, place: usize) {
        if self.nodes[place].spared || now_us < self.nodes[place].hello_due_us {
            return;
        }
        let fresh_nonce = self.random().max(1);
        let is_alone = !self.nodes.iter().any(|node| node.is_usable(now_us));
        let count = self.nodes.len() as u64;
        let node = &mut self.nodes[place];
        if node.nonce == 0 {
            node.nonce = fresh_nonce;
        }
        let alone_us = is_alone.then_some(HELLO_WAIT_US_ALONE * count);
        let wait_us = node.hello_pace.sent(now_us, alone_us);
        node.distance.hello_sent(now_us);
        node.hello_sent_us = now_us;
        node.hellos_open += 1;
        node.hello_due_us = now_us + wait_us;
        let hello = Hello {
            client: self.options.client,
            nonce: node.nonce,
            library_version: self.options.library_version.clone(),
        };
        self.transmit(place, kind::HELLO, &hello);
    }

    /// The first call after a pause does not wait for the next of the hellos that all nodes have
    /// left unanswered: a node may be back.
    pub(super) fn greet_anew(&mut self, now_us: u64) {
        let is_alone = !self.nodes.iter().any(|node| node.is_usable(now_us));
        if self.is_active() || !is_alone {
            return;
        }
        for node in &mut self.nodes {
            node.hello_pace.begin_anew();
            let soon_us = node.hello_sent_us + node.hello_pace.first_wait_us();
            node.hello_due_us = node.hello_due_us.min(soon_us);
        }
    }

    /// Repeats the hellos that are due, while a call waits.
    pub(super) fn greet_again(&mut self, now_us: u64) {
        for place in 0..self.nodes.len() {
            let sought_us = self.nodes[place].sought_us();
            if sought_us.is_some_and(|due_us| now_us >= due_us) {
                self.greet(now_us, place);
            }
        }
    }

    pub(super) fn handle_hello(&mut self, now_us: u64, place: usize, answer: HelloAnswer) {
        let nonce = self.nodes[place].nonce;
        if nonce == 0 || nonce != answer.nonce {
            self.counters.late += 1;
            return;
        }
        self.counters.foreign += u64::from(self.choice.excludes(answer.cluster));
        let node = &mut self.nodes[place];
        node.live = Some(Live {
            token: answer.token,
            node: answer.node,
            cluster: answer.cluster,
            clock: answer.clock,
        });
        node.heard(now_us);
        node.distance.hello_answered(now_us);
        node.hello_pace.answered(now_us);
        self.admit(now_us, place);
        self.settle_cluster(now_us);
    }

    /// X4: the node does not know the session (any more). The attempt stays open: a copy of it may
    /// have been executed before the session expired.
    pub(super) fn handle_no_session(&mut self, now_us: u64, place: usize, refusal: NoSession) {
        let node = &mut self.nodes[place];
        let current = node.live.as_ref().map(|live| live.token);
        if current == Some(refusal.token) {
            node.live = None;
            node.nonce = 0;
            node.doubt(now_us);
            node.strikes += 1;
            // A node that never accepts its own tokens is not asked in a tight loop.
            if node.strikes <= 2 {
                node.hello_due_us = now_us;
            }
            if self.is_active() {
                self.greet(now_us, place);
            }
        }
        self.attempt_refused(now_us, place, refusal.attempt);
    }
}
