//! A client's protocol with its nodes, pure: no socket, no clock, no thread. It decides which
//! message is sent to which node at what time, and the outcome of each operation (rules X1, X2, X4,
//! X5 of docs/protocol.md).
//!
//! It is driven like the nodes' core: pass in calls, frames and the time; then take `poll_transmit`
//! and `poll_completion` until they are empty; call `handle_timeout` at the time that
//! `next_timeout` returns. Times are microseconds of any monotonic clock. The same inputs give the
//! same outputs.
//!
//! The session sends to the given nodes only, and only while a call is in flight.

mod attempts;
mod call;
mod cluster;
mod distance;
mod hello_pace;
mod node;
mod operation;
mod port;
mod probe;
mod question;
mod queue;
mod scan;
mod settle;
mod table;
mod watch;
mod window;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};

use serde::Serialize;

use wire::clock::{self, HybridClock};
use wire::{BodyError, ClientId, kind};

pub use call::{Call, CallError, Completion};
use cluster::Choice;
use node::Node;
use operation::{ALLOWANCE_MAX, InFlight};
use port::NewPort;
use question::Asked;
pub use question::{Question, QuestionCompletion, QuestionReply};
use queue::AnswerRate;
pub use scan::{Scan, ScanCursor};
use table::{CallHandle, CallTable};
pub use watch::{Watch, WatchEvent};

/// The most calls in flight; further calls fail as busy. This is half of the window of numbers that
/// nodes distinguish, so that a retry of each call fits too.
pub const IN_FLIGHT_MAX: usize = 32_768;
/// The most nodes that may be given.
pub const NODES_MAX: usize = 64;
/// Between two answers of nodes the clock falls behind theirs by one part in this many: this
/// machine's time may pass faster than theirs, and a birth must not be ahead (B5).
const SLOWER: u64 = 1_000;
pub const DEADLINE_US_DEFAULT: u64 = 5_000_000;
pub const NO_QUORUM_AFTER_US_DEFAULT: u64 = 1_000_000;

#[derive(Debug, Clone)]
pub struct SessionOptions {
    /// Random, new at each start.
    pub client: ClientId,
    /// The seed of all random choices.
    pub seed: u64,
    /// The number of given nodes, up to `NODES_MAX`. Nodes are identified by their index.
    pub nodes: usize,
    /// The longest wait of a call that does not specify its own.
    pub deadline_us: u64,
    /// The time for which every node must be without a quorum or silent before a call fails with
    /// `no quorum`.
    pub no_quorum_after_us: u64,
    /// The cluster to use; 0: the cluster of the given nodes.
    pub cluster: u64,
    pub library_version: String,
}

/// A frame to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transmit {
    /// The node's index.
    pub node: usize,
    /// For the datagram's header: the cluster that the node reported; 0 for a hello.
    pub cluster: u64,
    /// For the frame's header.
    pub destination: u8,
    pub kind: u8,
    pub body: Vec<u8>,
}

/// Counters of the session.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SessionCounters {
    pub malformed: u64,
    /// Answers to attempts that no call waits for any more.
    pub late: u64,
    /// Answers to hellos by nodes of another cluster than the one in use.
    pub foreign: u64,
    /// Sendings of an operation after its first.
    pub retries: u64,
}

#[derive(Debug)]
pub struct Session {
    options: SessionOptions,
    /// The latest time that was passed in.
    now_us: u64,
    random: u64,
    clock: HybridClock,
    /// The wall clock that nodes reported, in ms, and when it was received. Births follow this
    /// clock, not this machine's.
    reported: (u64, u64),
    choice: Choice,
    nodes: Vec<Node>,
    table: CallTable,
    /// Calls that could not be sent to any node yet.
    parked: VecDeque<CallHandle>,
    /// When the parked calls are sent to the nodes that are usable by then.
    parked_due_us: Option<u64>,
    /// When any node last answered an operation.
    answered_us: u64,
    /// The budget for retries.
    allowance: u32,
    next_sequence: u64,
    /// Calls that wait for room in a node's window.
    queued: usize,
    answer_rate: AnswerRate,
    questions: BTreeMap<u64, Asked>,
    next_question: u64,
    new_port: NewPort,
    /// At least one entry per call, at its time or earlier; entries of completed calls are skipped.
    timers: BinaryHeap<Reverse<(u64, CallHandle)>>,
    transmits: VecDeque<Transmit>,
    completions: VecDeque<Completion>,
    question_completions: VecDeque<QuestionCompletion>,
    counters: SessionCounters,
    closed: bool,
}

impl Session {
    /// Panics if there are more than `NODES_MAX` nodes.
    pub fn new(options: SessionOptions, now_us: u64) -> Self {
        assert!(options.nodes <= NODES_MAX, "too many nodes");
        let mut session = Session {
            random: options.seed,
            now_us,
            clock: HybridClock::default(),
            reported: (0, now_us),
            choice: Choice::new(options.cluster),
            nodes: Vec::with_capacity(options.nodes),
            options,
            table: CallTable::new(),
            parked: VecDeque::new(),
            parked_due_us: None,
            answered_us: 0,
            allowance: ALLOWANCE_MAX,
            next_sequence: 1,
            queued: 0,
            answer_rate: AnswerRate::default(),
            questions: BTreeMap::new(),
            next_question: 0,
            new_port: NewPort::default(),
            timers: BinaryHeap::new(),
            transmits: VecDeque::new(),
            completions: VecDeque::new(),
            question_completions: VecDeque::new(),
            counters: SessionCounters::default(),
            closed: false,
        };
        for _ in 0..session.options.nodes {
            // Far from the largest number, wherever the numbers begin.
            let first_attempt = (session.random() >> 17).max(1);
            session.nodes.push(Node::new(first_attempt));
        }
        session
    }

    /// Handles a frame from the node at that index. Malformed frames are counted.
    pub fn handle_frame(&mut self, now_us: u64, node: usize, frame_kind: u8, body: &[u8]) {
        let now_us = self.advance(now_us);
        if node >= self.nodes.len() || self.take_frame(now_us, node, frame_kind, body).is_err() {
            self.counters.malformed += 1;
        }
        self.send_queued(now_us);
    }

    fn take_frame(
        &mut self,
        now_us: u64,
        node: usize,
        frame_kind: u8,
        body: &[u8],
    ) -> Result<(), BodyError> {
        let was_usable = self.nodes[node].is_usable(now_us);
        let was_answering = self.nodes[node].answers_questions(now_us);
        match frame_kind {
            kind::ANSWER => {
                let answer = wire::decode(body)?;
                self.nodes[node].heard(now_us);
                self.handle_answer(now_us, node, answer);
            }
            kind::HELLO_ANSWER => self.handle_hello(now_us, node, wire::decode(body)?),
            kind::NO_SESSION => {
                let refusal = wire::decode(body)?;
                self.nodes[node].heard(now_us);
                self.handle_no_session(now_us, node, refusal);
            }
            kind::STATUS_ANSWER => {
                let answer = wire::decode(body)?;
                self.nodes[node].heard(now_us);
                self.handle_status(node, answer);
            }
            kind::CHANGE_ANSWER => {
                let answer = wire::decode(body)?;
                self.nodes[node].heard(now_us);
                self.handle_change(node, answer);
            }
            _ => return Err(BodyError::Malformed),
        }
        if !was_usable && self.nodes[node].is_usable(now_us) {
            self.find_parked(now_us);
        }
        if !was_answering && self.nodes[node].answers_questions(now_us) {
            self.ask_again(now_us, node);
        }
        Ok(())
    }

    pub fn handle_timeout(&mut self, now_us: u64) {
        let now_us = self.advance(now_us);
        while let Some(Reverse((at_us, handle))) = self.timers.peek().copied() {
            if at_us > now_us {
                break;
            }
            self.timers.pop();
            self.call_timeout(now_us, handle, at_us);
        }
        self.drop_idle_timers();
        if self.choice.due_us.is_some_and(|due_us| now_us >= due_us) {
            self.settle_cluster(now_us);
        }
        if self.parked_due_us.is_some_and(|due_us| now_us >= due_us) {
            self.send_parked(now_us);
        }
        self.ask_due(now_us);
        if self.is_active() {
            self.greet_again(now_us);
        }
        self.send_queued(now_us);
    }

    /// When to call `handle_timeout`; `None` while nothing is in progress.
    pub fn next_timeout(&self) -> Option<u64> {
        if !self.is_active() {
            return None;
        }
        let hello = self.nodes.iter().filter_map(Node::sought_us).min();
        let call = self.timers.peek().map(|Reverse((at_us, _))| *at_us);
        let due = [
            hello,
            call,
            self.parked_due_us,
            self.choice.due_us,
            self.next_question_us(),
        ];
        due.into_iter().flatten().min()
    }

    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    pub fn poll_completion(&mut self) -> Option<Completion> {
        self.completions.pop_front()
    }

    pub fn poll_reply(&mut self) -> Option<QuestionCompletion> {
        self.question_completions.pop_front()
    }

    /// Calls that are not completed yet.
    pub fn in_flight(&self) -> usize {
        self.table.len()
    }

    pub fn is_closed(&self) -> bool {
        self.closed
    }

    pub fn counters(&self) -> SessionCounters {
        self.counters
    }

    /// Whether any call or question is pending; otherwise nothing is sent.
    pub fn is_active(&self) -> bool {
        !self.table.is_empty() || !self.questions.is_empty()
    }

    /// Time never goes back.
    fn advance(&mut self, now_us: u64) -> u64 {
        self.now_us = self.now_us.max(now_us);
        self.now_us
    }

    fn drop_idle_timers(&mut self) {
        while let Some(Reverse((_, handle))) = self.timers.peek() {
            if self.table.contains(*handle) {
                break;
            }
            self.timers.pop();
        }
    }

    fn transmit(&mut self, node: usize, frame_kind: u8, body: &impl Serialize) {
        let mut bytes = Vec::with_capacity(256);
        wire::encode(&mut bytes, body);
        let live = self.nodes[node].live.as_ref();
        let cluster = live.map_or(0, |live| live.cluster);
        self.transmits.push_back(Transmit {
            node,
            cluster: if frame_kind == kind::HELLO {
                0
            } else {
                cluster
            },
            destination: live.map_or(0, |live| live.node),
            kind: frame_kind,
            body: bytes,
        });
    }

    /// The present time of the nodes' clocks, as far as the nodes reported it.
    fn reported_ms(&self, now_us: u64) -> u64 {
        let (ms, at_us) = self.reported;
        let passed_us = now_us.saturating_sub(at_us);
        ms + (passed_us - passed_us / SLOWER) / 1_000
    }

    fn observe(&mut self, now_us: u64, reading: clock::Reading) {
        if reading > clock::READING_LAST {
            self.counters.malformed += 1;
            return;
        }
        self.clock.observe(reading);
        if clock::to_ms(reading) > self.reported_ms(now_us) {
            self.reported = (clock::to_ms(reading), now_us);
        }
    }

    /// B5: a node reported that this clock is further ahead than the node accepts.
    fn set_clock_back(&mut self, now_us: u64, reading: clock::Reading) {
        if reading < self.clock.last() {
            self.clock = HybridClock::new(reading);
            self.reported = (clock::to_ms(reading), now_us);
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

/// A node's bit in a set of nodes.
fn place_bit(place: usize) -> u64 {
    1 << place
}

#[cfg(test)]
mod tests;
