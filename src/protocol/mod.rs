//! The replication protocol, pure: inputs in, outputs out, time and seed as arguments.

pub mod ballot;
pub mod limits;
pub mod message;
pub mod record;
pub mod rules;

use message::{Input, NodeId, Now, Output, Recovered};

/// What a replica is started with.
#[derive(Debug, Clone)]
pub struct Options {
    /// The nodes, in priority order, `host:port` each; all nodes have the same list.
    pub list: Vec<String>,
    /// This node's place in the list.
    pub index: u8,
    /// Random, new at each start.
    pub boot: u64,
    /// Seed of all random choices.
    pub seed: u64,
    /// B2: how far above the members' median the wall clock is believed.
    pub skew_max_ms: u64,
    /// Keys whose state is held in the core; the rest is asked for by `Output::Load`.
    pub keys_cached_max: usize,
}

/// One node's part of the protocol. Its methods are getters; `handle_input`; and `poll_output`,
/// which is to be called until it gives `None` after each input or batch of inputs.
#[derive(Debug)]
pub struct Replica {
    options: Options,
}

/// Things that were left out on purpose, counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Messages that do not belong here: another cluster, a member that is none, a late answer.
    pub stray: u64,
    /// Attempts outside of a session or seen before (X4).
    pub repeated: u64,
    /// Operations below their client's mark (X1).
    pub stragglers: u64,
    /// Operations given up after their client did.
    pub given_up: u64,
    /// Messages dropped at a bound.
    pub overflow: u64,
}

impl Replica {
    pub fn new(options: Options, _recovered: Recovered, _now: Now) -> Self {
        Replica { options }
    }

    pub fn handle_input(&mut self, _now: Now, _input: Input) {
        unimplemented!()
    }

    pub fn poll_output(&mut self) -> Option<Output> {
        unimplemented!()
    }

    /// When `Input::Timeout` is wanted, in `Now::mono_us`.
    pub fn next_timeout(&self) -> Option<u64> {
        None
    }

    /// For datagram headers; 0 before the first configuration.
    pub fn cluster(&self) -> u64 {
        0
    }

    /// For datagram headers; 0 while no configuration names the node.
    pub fn node(&self) -> NodeId {
        0
    }

    /// The listed address of a member.
    pub fn address_of(&self, _node: NodeId) -> Option<&str> {
        self.options.list.first().map(String::as_str)
    }

    /// Operations of clients that are not answered yet.
    pub fn operations_under_way(&self) -> usize {
        0
    }

    pub fn counters(&self) -> Counters {
        Counters::default()
    }
}
