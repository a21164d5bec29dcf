//! The observations of a scenario while it ran.

use std::fmt;

use crate::history::RecordedCall;

/// A client that ran operations one after the other.
#[derive(Debug)]
pub struct Client {
    pub number: usize,
    /// The only node that the client was given; `None`: it was given all nodes.
    pub tied_to: Option<usize>,
    pub calls: Vec<RecordedCall>,
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.tied_to {
            Some(node) => write!(f, "client {} of node {node}", self.number),
            None => write!(f, "client {} of all nodes", self.number),
        }
    }
}

/// A step as it was done.
#[derive(Debug, Clone, Copy)]
pub struct Mark {
    /// The time in the table, if the table gives one from the start.
    pub planned_ms: Option<u64>,
    pub began_us: u64,
    pub done_us: u64,
}

/// Whether a node reported a quorum.
#[derive(Debug, Clone, Copy)]
pub struct QuorumSaid {
    pub asked_us: u64,
    pub node: usize,
    pub quorum: bool,
}

/// Messages between nodes: their number in total and since the nodes' start.
#[derive(Debug, Clone, Copy)]
pub struct MessageCount {
    pub at_us: u64,
    pub messages: u64,
}

/// The latency of one successful operation.
#[derive(Debug, Clone, Copy)]
pub struct Latency {
    pub ended_us: u64,
    pub us: u32,
}

/// The resources that the nodes used without any client.
#[derive(Debug)]
pub struct Usage {
    pub cpu_percent: Vec<f64>,
    /// The network traffic that one node sent.
    pub kb_per_s: f64,
}

#[derive(Debug, Default)]
pub struct Record {
    pub clients: Vec<Client>,
    /// Calls of the scenario itself, which no claim covers.
    pub own_calls: Vec<RecordedCall>,
    pub marks: Vec<Mark>,
    pub ended_us: u64,
    pub quorums: Vec<QuorumSaid>,
    pub counts: Vec<MessageCount>,
    /// Between nodes, from the first step to the last.
    pub messages: Option<u64>,
    pub idle: Option<Usage>,
    /// Results of steps, as text.
    pub notes: Vec<String>,
    /// The writes of a flood.
    pub writes: Vec<Latency>,
    /// Errors that a flood found.
    pub flood_errors: Vec<String>,
    /// What a watcher was told wrongly.
    pub watch_faults: Vec<String>,
}

impl Record {
    /// The real time of a time in the table. Steps take a while, and may be late: times after a
    /// step count from when it was done.
    pub fn time_after_us(&self, planned_ms: u64) -> u64 {
        let before = self.marks.iter().rev();
        let before = before.filter_map(|mark| Some((mark.planned_ms?, mark.done_us)));
        let last = before
            .into_iter()
            .find(|(planned, _)| *planned <= planned_ms);
        let (from_ms, from_us) = last.unwrap_or((0, 0));
        from_us + (planned_ms - from_ms) * 1_000
    }

    /// The same for the end of a window: a step that is planned for that time has not begun.
    pub fn time_before_us(&self, planned_ms: u64) -> u64 {
        let mut marks = self.marks.iter();
        let step = marks.find(|mark| mark.planned_ms == Some(planned_ms));
        step.map_or_else(|| self.time_after_us(planned_ms), |mark| mark.began_us)
    }

    pub fn calls(&self) -> impl Iterator<Item = &RecordedCall> {
        self.clients.iter().flat_map(|client| &client.calls)
    }

    /// When each operation of a client succeeded.
    pub fn successes(&self) -> impl Iterator<Item = u64> {
        let good = self.calls().filter(|call| crate::claims::succeeded(call));
        good.filter_map(|call| call.ended_us)
    }
}
