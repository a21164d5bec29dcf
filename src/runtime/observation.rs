//! The loop's reports to the HTTP thread. Neither waits for the other: the thread asks with a
//! `Notice`, and the loop later sends the answer into a channel.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use wire::NodeStatus;

use crate::protocol::Counters;
use crate::protocol::types::counts::{Distribution, NodeCounts, QueueDepths};

/// A node's state at one moment, and its counts since it started.
#[derive(Debug, Clone)]
pub struct Observation {
    pub taken: Instant,
    pub status: NodeStatus,
    pub counts: NodeCounts,
    pub counters: Counters,
    pub depths: QueueDepths,
    /// By cause, in the order of `Cause::ALL`.
    pub dropped: Vec<u64>,
    pub traffic: Traffic,
    /// Datagrams that wait for the socket, and their bytes.
    pub send_queue: (usize, usize),
    /// `None`: the state is in memory only.
    pub commits: Option<CommitFigures>,
    pub turns: TurnFigures,
    pub is_stopping: bool,
}

impl Observation {
    /// Why this node does not serve clients, as in the log after "not ready: ".
    pub fn obstacle(&self) -> Option<String> {
        let status = &self.status;
        let why = match () {
            () if self.is_stopping => "stopping",
            () if !status.waits_for.is_empty() => &status.waits_for,
            () if !status.votes => "this node has no vote yet",
            () if !status.quorum => "no quorum",
            () => return None,
        };
        Some(why.to_owned())
    }
}

/// Datagrams and bytes that passed the node's socket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    pub received: u64,
    pub received_bytes: u64,
    pub sent: u64,
    pub sent_bytes: u64,
}

/// The finished work of the storage thread.
#[derive(Debug, Clone)]
pub struct CommitFigures {
    pub durations_us: Distribution,
    /// Groups per commit.
    pub groups: Distribution,
}

/// The turns of the loop, and their durations.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TurnFigures {
    pub count: u64,
    pub busy: Duration,
}

/// When the loop last turned.
#[derive(Debug)]
pub struct Pulse {
    started: Instant,
    /// In ms since `started`, plus one; 0: the loop has not begun.
    turned_ms: AtomicU64,
}

impl Pulse {
    pub fn new(started: Instant) -> Self {
        Pulse {
            started,
            turned_ms: AtomicU64::new(0),
        }
    }

    /// Called by the loop at each turn.
    pub fn turn(&self, now: Instant) {
        let since = now.saturating_duration_since(self.started).as_millis();
        let since_ms = u64::try_from(since).unwrap_or(u64::MAX - 1);
        self.turned_ms.store(since_ms + 1, Ordering::Relaxed);
    }

    /// How long ago the loop turned; `None`: it has not begun.
    pub fn age(&self, now: Instant) -> Option<Duration> {
        let turned_ms = self.turned_ms.load(Ordering::Relaxed).checked_sub(1)?;
        let turned = self.started + Duration::from_millis(turned_ms);
        Some(now.saturating_duration_since(turned))
    }
}
