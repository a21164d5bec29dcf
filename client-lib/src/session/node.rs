//! One given node as the client knows it: its session, how long its answers take, and whether it seems to be there.
//!
//! A node is sent operations only while it was heard lately; after a silence it has to answer a
//! hello first. So a dead node costs few operations their outcome, and where too few nodes live to
//! serve, `no quorum` can be told soon and for sure (X5).

use super::attempts::Attempts;
use super::distance::Distance;
use super::operation::InFlight;
use super::table::CallHandle;
use super::{Session, place_bit};
use wire::clock::Reading;
use wire::latency::LatencyEstimate;
use wire::{Hello, HelloAnswer, NoSession, kind};

/// A node not heard for this long has to answer a hello before it is sent operations, ...
const FRESH_US: u64 = 500_000;
/// ... or for so many round trips, if that is longer: an operation takes some of them, and a hello before it
/// another one.
const FRESH_ROUND_TRIPS: u64 = 20;
/// Wait before a hello is repeated, doubled each time.
const HELLO_WAIT_US_INITIAL: u64 = 20_000;
const HELLO_WAIT_US_MAX: u64 = 250_000;
/// The same while no node is there: that word of none gets through in the time after which `no quorum`
/// is told must not be a matter of a few lost datagrams.
const HELLO_WAIT_US_ALONE: u64 = 60_000;
/// A node in use is asked again for its id and cluster after this time ...
const REFRESH_US: u64 = 10_000_000;
/// ... and one that has no vote, or no id yet, or is not of the cluster in use, after this.
const REFRESH_US_USELESS: u64 = 250_000;
/// A node that did not answer for this long may have another address now, ...
const MOVED_US: u64 = 1_000_000;
/// ... and for this long if no other one answers either.
const MOVED_US_ALONE: u64 = 200_000;
/// A node that answers hellos, but not operations, is avoided for this long, doubled each time.
const AVOID_US_INITIAL: u64 = 20_000;
const AVOID_DOUBLINGS_MAX: u32 = 6;

/// X4: what a hello gave.
#[derive(Debug, Clone)]
pub(super) struct Live {
    pub token: u64,
    /// 0 for a node that has no vote, or no id yet.
    pub node: u8,
    pub cluster: u64,
    /// What its clock showed.
    pub clock: Reading,
}

#[derive(Debug)]
pub(super) struct Node {
    pub live: Option<Live>,
    /// The application wants nothing sent to it.
    pub spared: bool,
    /// Whether it may be sent operations, by its cluster (`Session::admit`).
    pub admitted: bool,
    /// Of the hello that gave the session, or is to give it. The same hello again keeps the token, if
    /// the node still knows it; 0: the next hello takes a new one.
    nonce: u64,
    /// Since when a hello waits for its answer.
    pub unanswered_since_us: Option<u64>,
    /// The earliest time of the next hello.
    pub hello_due_us: u64,
    hello_wait_us: u64,
    pub distance: Distance,
    refresh_us: u64,
    heard_us: u64,
    /// When an operation was last answered.
    pub answered_us: u64,
    avoid_until_us: u64,
    strikes: u32,
    pub attempts: Attempts,
    reads: LatencyEstimate,
    writes: LatencyEstimate,
    /// Whom it reached when it last said `no quorum`.
    pub reached: Option<Vec<u8>>,
}

/// By which of several nodes is tried first; the highest is.
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
            hello_wait_us: HELLO_WAIT_US_INITIAL,
            distance: Distance::default(),
            refresh_us: 0,
            heard_us: 0,
            answered_us: 0,
            avoid_until_us: 0,
            strikes: 0,
            attempts: Attempts::new(first_attempt),
            reads: LatencyEstimate::default(),
            writes: LatencyEstimate::default(),
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

    /// Whether a hello that waits for its answer costs an operation much.
    fn is_far(&self) -> bool {
        self.slow_fresh_us() > FRESH_US
    }

    /// The cluster that it told, unless it told that it has none yet.
    pub fn cluster(&self) -> Option<u64> {
        let live = self.live.as_ref()?;
        Some(live.cluster).filter(|cluster| *cluster != 0)
    }

    /// Whether operations may be sent to it.
    pub fn is_usable(&self, now_us: u64) -> bool {
        self.admitted && self.answers_questions(now_us)
    }

    /// Whether it can be asked about itself, whatever its cluster.
    pub fn answers_questions(&self, now_us: u64) -> bool {
        !self.is_gone() && self.is_fresh(now_us)
    }

    /// Whether nothing was heard of it since it was asked, or it must not be asked.
    pub fn is_gone(&self) -> bool {
        self.spared || self.live.is_none() || self.unanswered_since_us.is_some()
    }

    /// Whether it is no use for operations: gone, or not of the cluster in use.
    pub fn is_silent(&self) -> bool {
        self.is_gone() || !self.admitted
    }

    /// When a hello is sent to it by itself: again and again until it answers, and until it is of the
    /// cluster in use.
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

    /// A frame came that makes sense.
    pub fn heard(&mut self, now_us: u64) {
        self.heard_us = now_us;
        if self.live.is_some() {
            self.unanswered_since_us = None;
        }
    }

    /// An operation was answered, by a round if there is a time taken for it.
    pub fn answered(&mut self, now_us: u64, is_read: bool, took_us: Option<u64>) {
        self.answered_us = now_us;
        self.strikes = 0;
        self.avoid_until_us = 0;
        self.hello_wait_us = HELLO_WAIT_US_INITIAL;
        if let Some(took_us) = took_us {
            let latency = if is_read {
                &mut self.reads
            } else {
                &mut self.writes
            };
            self.distance.answered(took_us);
            latency.sample(took_us, None, self.distance.wait_bounds());
        }
    }

    /// How long an attempt waits before another is made.
    pub fn wait_us(&self, is_read: bool) -> u64 {
        let latency = if is_read { &self.reads } else { &self.writes };
        let wait_us = latency.wait_us(self.distance.wait_bounds());
        wait_us.max(self.distance.least_wait_us())
    }

    /// An attempt was not answered in time. True if the node must answer a hello now.
    pub fn kept_silent(&mut self, now_us: u64, sent_us: u64) -> bool {
        if self.answered_us > sent_us {
            return false;
        }
        if self.heard_us <= sent_us {
            return self.doubt(now_us);
        }
        // Many attempts in one lost datagram are one strike.
        if now_us >= self.avoid_until_us {
            let doublings = self.strikes.min(AVOID_DOUBLINGS_MAX);
            self.avoid_until_us = now_us + (AVOID_US_INITIAL << doublings);
            self.strikes += 1;
        }
        false
    }

    /// Once it has told its cluster, and whether that is the one in use.
    pub fn is_to_be_asked_again(&mut self, now_us: u64) {
        let is_of_use = self.admitted && self.id() != 0;
        self.refresh_us = match is_of_use {
            true => now_us + REFRESH_US,
            false => now_us + REFRESH_US_USELESS,
        };
    }

    /// No operations from here on until something is heard.
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
            weight: wire::rendezvous_weight(&operation.call.key, live.node),
            place,
        })
    }
}

impl Session {
    /// A spared node is sent nothing and counts as one that does not answer; attempts that are open
    /// there stay open. One that is not spared any more is used once it answered a hello. Panics if
    /// there is no such node.
    pub fn spare(&mut self, now_us: u64, place: usize, spared: bool) {
        let now_us = self.advance(now_us);
        let node = &mut self.nodes[place];
        if node.spared == spared {
            return;
        }
        node.spared = spared;
        if !spared {
            node.hello_wait_us = HELLO_WAIT_US_INITIAL;
            node.doubt(now_us);
            if self.is_active() {
                self.greet(now_us, place);
            }
        }
        for handle in self.table.handles() {
            if !spared {
                // The node gets the time to answer that the others had.
                let operation = self.table.get_mut(handle).expect("just listed");
                operation.dark_since_us = None;
            }
            self.look_for_dark(now_us, handle);
        }
    }

    /// Whether the node at that place may have another address now: nothing is heard from where it
    /// was, or a node of another cluster is.
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

    /// The node at that place is sent to elsewhere from here on. Attempts that are open stay open:
    /// they may have been executed where it was.
    pub fn moved(&mut self, now_us: u64, place: usize) {
        let now_us = self.advance(now_us);
        let node = &mut self.nodes[place];
        node.live = None;
        node.nonce = 0;
        node.hello_due_us = now_us;
        node.hello_wait_us = HELLO_WAIT_US_INITIAL;
        if self.is_active() {
            self.nodes[place].unanswered_since_us = Some(now_us);
            self.greet(now_us, place);
        }
    }

    /// The best usable node for an operation, and whether it was tried since the last time around.
    /// Nodes that would be better are asked whether they are there, and those that are far, for the next.
    pub(super) fn choose(&mut self, now_us: u64, handle: CallHandle) -> Option<(usize, bool)> {
        let operation = self.table.get(handle)?;
        let mut best = None;
        let mut all_well = true;
        let nodes = self.nodes.iter().enumerate();
        for (place, node) in nodes.filter(|(_, node)| !node.spared) {
            let usable = node.is_usable(now_us);
            all_well &= usable && now_us < node.refresh_us;
            if usable {
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

    /// Says hello, unless that was done a moment ago.
    pub(super) fn greet(&mut self, now_us: u64, place: usize) {
        if self.nodes[place].spared || now_us < self.nodes[place].hello_due_us {
            return;
        }
        let fresh_nonce = self.random().max(1);
        let is_alone = !self.nodes.iter().any(|node| node.is_usable(now_us));
        let node = &mut self.nodes[place];
        if node.nonce == 0 {
            node.nonce = fresh_nonce;
        }
        let wait_us = match is_alone {
            true => node.hello_wait_us.min(HELLO_WAIT_US_ALONE),
            false => node.hello_wait_us,
        };
        node.distance.hello_sent(now_us);
        node.hello_due_us = now_us + wait_us;
        node.hello_wait_us = (2 * node.hello_wait_us).min(HELLO_WAIT_US_MAX);
        let hello = Hello {
            client: self.options.client,
            nonce: node.nonce,
            library_version: self.options.library_version.clone(),
        };
        self.transmit(place, kind::HELLO, &hello);
    }

    /// Repeats the hellos that are due, while somebody waits.
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
        self.admit(now_us, place);
        self.settle_cluster(now_us);
    }

    /// X4: the node does not know the session (any more). The attempt stays open: a copy of it may have
    /// been executed before the session was forgotten.
    pub(super) fn handle_no_session(&mut self, now_us: u64, place: usize, refusal: NoSession) {
        let node = &mut self.nodes[place];
        let current = node.live.as_ref().map(|live| live.token);
        if current == Some(refusal.token) {
            node.live = None;
            node.nonce = 0;
            node.doubt(now_us);
            node.strikes += 1;
            // A node that never takes its own tokens is not asked in a tight loop.
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
