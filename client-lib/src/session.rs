//! A client's dealings with its nodes, pure: no socket, no clock, no thread. Decides what is sent to
//! whom and when, and what became of each operation (rules X1, X2, X4, X5 of docs/protocol.md).
//!
//! Drive it like the nodes' core: hand in calls, frames and the time; then take `poll_transmit` and
//! `poll_completion` until they are empty; call `handle_timeout` when `next_timeout` says so. Times
//! are microseconds of any monotonic clock. The same inputs give the same outputs.

mod call;
mod node;
mod operation;
mod status;

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap, VecDeque};

use bytes::Bytes;
use serde::Serialize;

use crate::clock::{self, HybridClock};
use crate::wire::{self, ClientId, kind};

pub use call::{Call, CallError, Completion};
use node::Node;
use operation::InFlight;
use status::StatusCall;
pub use status::StatusCompletion;

/// Calls that may be in flight; further ones are answered busy.
pub const IN_FLIGHT_MAX: usize = 65_536;
pub const DEADLINE_US_DEFAULT: u64 = 5_000_000;
pub const NO_QUORUM_AFTER_US_DEFAULT: u64 = 1_000_000;

#[derive(Debug, Clone)]
pub struct SessionOptions {
    /// Random, new at each start.
    pub client: ClientId,
    /// Of all random choices.
    pub seed: u64,
    /// How many nodes were given; they are named by their place.
    pub nodes: usize,
    /// How long a call waits at most, unless it says otherwise.
    pub deadline_us: u64,
    /// How long every node must have said `no quorum`, or not answered, before that is reported.
    pub no_quorum_after_us: u64,
    pub library_version: String,
}

/// A frame to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transmit {
    /// Place of the node among those given.
    pub node: usize,
    /// For the datagram's header: the cluster that the node said it belongs to.
    pub cluster: u64,
    /// For the frame's header.
    pub destination: u8,
    pub kind: u8,
    pub body: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Hello(usize),
    Call(u64),
    Status(u64),
}

/// Things that were left out, counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SessionCounters {
    pub malformed: u64,
    /// Answers to attempts that nobody waits for any more.
    pub late: u64,
    /// Nodes that said they belong to another cluster than the first one that answered.
    pub foreign: u64,
}

#[derive(Debug)]
pub struct Session {
    options: SessionOptions,
    random: u64,
    clock: HybridClock,
    /// The wall clock that nodes told, in ms, and when: births follow it, not this machine's.
    told: (u64, u64),
    /// Of the first node that belongs to one.
    cluster: u64,
    nodes: Vec<Node>,
    calls: HashMap<u64, InFlight>,
    next_call: u64,
    /// Calls that no node could be sent yet.
    waiting: VecDeque<u64>,
    next_sequence: u64,
    /// Sequences in flight, for the low mark (X1).
    sequences: BTreeSet<u64>,
    /// Counts over all sessions, so that an answer of an earlier one is never taken for another's.
    next_attempt: u64,
    statuses: HashMap<u64, StatusCall>,
    timers: BinaryHeap<Reverse<(u64, Timer)>>,
    transmits: VecDeque<Transmit>,
    completions: VecDeque<Completion>,
    status_completions: VecDeque<StatusCompletion>,
    counters: SessionCounters,
}

impl Session {
    pub fn new(options: SessionOptions, now_us: u64) -> Self {
        let nodes = (0..options.nodes).map(|_| Node::default()).collect();
        Session {
            random: options.seed,
            options,
            clock: HybridClock::default(),
            told: (0, now_us),
            cluster: 0,
            nodes,
            calls: HashMap::new(),
            next_call: 0,
            waiting: VecDeque::new(),
            next_sequence: 1,
            sequences: BTreeSet::new(),
            next_attempt: 1,
            statuses: HashMap::new(),
            timers: BinaryHeap::new(),
            transmits: VecDeque::new(),
            completions: VecDeque::new(),
            status_completions: VecDeque::new(),
            counters: SessionCounters::default(),
        }
    }

    /// A frame from the node at that place. Malformed ones are counted.
    pub fn handle_frame(&mut self, now_us: u64, node: usize, frame_kind: u8, body: &[u8]) {
        if node >= self.nodes.len() {
            self.counters.malformed += 1;
            return;
        }
        self.nodes[node].heard_us = now_us;
        let handled = match frame_kind {
            kind::HELLO_ANSWER => wire::decode(body).map(|m| self.handle_hello(now_us, node, m)),
            kind::ANSWER => wire::decode(body).map(|m| self.handle_answer(now_us, node, m)),
            kind::NO_SESSION => wire::decode(body).map(|m| self.handle_no_session(now_us, node, m)),
            kind::STATUS_ANSWER => wire::decode(body).map(|m| self.handle_status(now_us, node, m)),
            _ => {
                self.counters.malformed += 1;
                return;
            }
        };
        self.counters.malformed += u64::from(handled.is_err());
    }

    pub fn handle_timeout(&mut self, now_us: u64) {
        while let Some(Reverse((at_us, timer))) = self.timers.peek().copied() {
            if at_us > now_us {
                break;
            }
            self.timers.pop();
            match timer {
                Timer::Hello(node) => self.hello_timeout(now_us, node),
                Timer::Call(call) => self.call_timeout(now_us, call, at_us),
                Timer::Status(call) => self.status_timeout(now_us, call),
            }
        }
    }

    /// When `handle_timeout` is to be called; `None` while nothing is under way.
    pub fn next_timeout(&self) -> Option<u64> {
        if self.calls.is_empty() && self.statuses.is_empty() {
            return None;
        }
        self.timers.peek().map(|Reverse((at_us, _))| *at_us)
    }

    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    pub fn poll_completion(&mut self) -> Option<Completion> {
        self.completions.pop_front()
    }

    pub fn poll_status(&mut self) -> Option<StatusCompletion> {
        self.status_completions.pop_front()
    }

    /// Calls that are not completed yet.
    pub fn in_flight(&self) -> usize {
        self.calls.len()
    }

    pub fn counters(&self) -> SessionCounters {
        self.counters
    }

    fn transmit(&mut self, node: usize, kind: u8, body: &impl Serialize) {
        let mut bytes = Vec::with_capacity(128);
        wire::encode(&mut bytes, body);
        let session = self.nodes[node].session.as_ref();
        self.transmits.push_back(Transmit {
            node,
            cluster: session.map_or(0, |s| s.cluster),
            destination: session.map_or(0, |s| s.node),
            kind,
            body: bytes,
        });
    }

    /// What the nodes' clocks show now, as far as they told.
    fn told_ms(&self, now_us: u64) -> u64 {
        let (ms, at_us) = self.told;
        ms + now_us.saturating_sub(at_us) / 1_000
    }

    fn observe(&mut self, now_us: u64, reading: clock::Reading) {
        if reading > clock::READING_SANE_MAX {
            self.counters.malformed += 1;
            return;
        }
        self.clock.observe(reading);
        if clock::to_ms(reading) > self.told_ms(now_us) {
            self.told = (clock::to_ms(reading), now_us);
        }
    }

    /// SplitMix64: for nonces, and for spreading retries.
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

/// The nodes' places in the order in which a key's operations try them: by weight, those without an
/// id last.
fn order(nodes: &[Node], key: &Bytes) -> Vec<usize> {
    let mut places: Vec<(bool, u64, usize)> = Vec::with_capacity(nodes.len());
    for (place, node) in nodes.iter().enumerate() {
        if let Some(session) = &node.session {
            let weight = wire::rendezvous_weight(key, session.node);
            places.push((session.node != 0, weight, place));
        }
    }
    places.sort_unstable_by(|a, b| b.cmp(a));
    places.into_iter().map(|(_, _, place)| place).collect()
}

#[cfg(test)]
mod tests;
