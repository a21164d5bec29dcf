//! Which nodes this node reaches, and when it last sent them what it sends from time to time.

use std::collections::BTreeMap;

use crate::protocol::network::topology::Links;
use crate::protocol::replica::distance::Distances;
use crate::protocol::replica::slow_disk::SlowDisks;
use crate::protocol::types::limits::{
    CONFIGURATION_LOOK_MS, HEARTBEATS_LOOKED_AT, NEWS_INTERVAL_MS, PROBE_MS,
};
use crate::protocol::types::message::{Configuration, NodeId, Now};

/// How often links are checked when no heartbeat has arrived.
const LOOK_US: u64 = 5_000;

#[derive(Debug)]
pub(super) struct View {
    looked_at_us: Option<u64>,
    /// Heartbeats that arrived then were not checked yet.
    due: Option<Now>,
    /// The instant of the last heartbeat, and how many arrived in it.
    heartbeats_of_now: (u64, u32),
    hears_quorum: bool,
    /// X5: when a quorum was last reachable.
    quorum_us: u64,
    reach: Reach,
    distances: Distances,
    pub(super) slow_disks: SlowDisks,
    /// When this node last sent its row.
    announced_us: u64,
    /// When links are announced next, if they have changed.
    news_due_us: Option<u64>,
    /// When a large datagram was last sent, and how many were.
    probed_us: u64,
    probes: usize,
    /// This node's own heartbeats.
    heartbeats: u64,
    /// When a configuration was last sent to a node, or requested from it.
    exchanged_us: BTreeMap<NodeId, u64>,
    /// When the configuration was last sent to unreachable nodes.
    sent_to_silent_us: u64,
}

/// The reachable nodes.
#[derive(Debug, Default)]
pub(super) struct Reach {
    /// Those with a vote: this one first, then by their distance.
    pub(super) voters: Vec<NodeId>,
    /// Those of them whose disks work. Operations are forwarded to these.
    pub(super) coordinators: Vec<NodeId>,
    /// Those without a vote.
    pub(super) learners: Vec<NodeId>,
}

/// What is reachable.
impl View {
    pub(super) fn new(now: Now) -> Self {
        View {
            looked_at_us: None,
            due: None,
            heartbeats_of_now: (0, 0),
            hears_quorum: false,
            quorum_us: 0,
            reach: Reach::default(),
            distances: Distances::default(),
            slow_disks: SlowDisks::default(),
            announced_us: 0,
            news_due_us: None,
            probed_us: now.mono_us,
            probes: 0,
            heartbeats: 0,
            exchanged_us: BTreeMap::new(),
            sent_to_silent_us: 0,
        }
    }

    /// A heartbeat arrived. Returns whether it is checked now: after a pause, the first of many
    /// heartbeats show that all was well, the last that this node was paused. One datagram has
    /// space for a thousand: those are checked together, at the end.
    pub(super) fn hear_heartbeat(&mut self, now: Now) -> bool {
        self.due = Some(now);
        if self.heartbeats_of_now.0 != now.mono_us {
            self.heartbeats_of_now = (now.mono_us, 0);
        }
        self.heartbeats_of_now.1 += 1;
        self.heartbeats_of_now.1 <= HEARTBEATS_LOOKED_AT
    }

    /// The instant of the heartbeats that were not checked yet.
    pub(super) fn take_due(&mut self) -> Option<Now> {
        self.due.take()
    }

    /// Whether the links are to be checked now: at once, or because the last time is long ago.
    pub(super) fn begin_look(&mut self, now: Now, at_once: bool) -> bool {
        let looked = self
            .looked_at_us
            .is_some_and(|at| now.mono_us < at + LOOK_US);
        if looked && !at_once {
            return false;
        }
        self.looked_at_us = Some(now.mono_us);
        self.due = None;
        true
    }

    /// X5: whether this node hears a quorum, or heard one so recently that it does not count as
    /// lost. `is_quorum`: those that are reachable now are one.
    pub(super) fn check_quorum(&mut self, now: Now, is_quorum: bool, lost_us: u64) -> bool {
        if is_quorum {
            self.quorum_us = now.mono_us;
        }
        self.quorum_us == now.mono_us
            || (self.hears_quorum && now.mono_us < self.quorum_us + lost_us)
    }

    /// How long this node has not been joined to a quorum.
    pub(super) fn apart_ms(&self, now: Now) -> u64 {
        match self.hears_quorum {
            true => 0,
            // It may have been joined until a moment ago.
            false => (now.mono_us.saturating_sub(self.quorum_us) / 1_000).max(1),
        }
    }

    /// Returns whether that is new.
    pub(super) fn conclude(&mut self, hears_quorum: bool) -> bool {
        std::mem::replace(&mut self.hears_quorum, hears_quorum) != hears_quorum
    }

    pub(super) fn hears_quorum(&self) -> bool {
        self.hears_quorum
    }

    pub(super) fn see(&mut self, reach: Reach) {
        self.reach = reach;
    }

    /// How far the reachable voters are.
    pub(super) fn measure(&mut self, links: &Links, configuration: &Configuration) {
        self.distances
            .measure(&self.reach.voters, links, configuration);
    }

    /// The reachable voters: this one first, then by their distance.
    pub(super) fn reachable(&self) -> &[NodeId] {
        &self.reach.voters
    }

    pub(super) fn reaches(&self, voter: NodeId) -> bool {
        self.reach.voters.contains(&voter)
    }

    /// Reachable voters whose disks work.
    pub(super) fn coordinators(&self) -> &[NodeId] {
        &self.reach.coordinators
    }

    /// Nodes that are reachable and have no vote.
    pub(super) fn learners(&self) -> &[NodeId] {
        &self.reach.learners
    }

    pub(super) fn distances(&self) -> &Distances {
        &self.distances
    }
}

/// What is sent from time to time.
impl View {
    /// Counts this node's own heartbeats.
    pub(super) fn count_heartbeat(&mut self) -> u64 {
        self.heartbeats += 1;
        self.heartbeats
    }

    /// This node sends its row now.
    pub(super) fn note_announced(&mut self, now: Now) {
        self.announced_us = now.mono_us;
    }

    pub(super) fn may_announce_news(&self, now: Now) -> bool {
        now.mono_us >= self.announced_us + NEWS_INTERVAL_MS * 1_000
    }

    /// News must wait. Returns until when, if they do not wait already.
    pub(super) fn defer_news(&mut self) -> Option<u64> {
        if self.news_due_us.is_some() {
            return None;
        }
        self.news_due_us = Some(self.announced_us + NEWS_INTERVAL_MS * 1_000);
        self.news_due_us
    }

    pub(super) fn news_have_waited(&mut self) {
        self.news_due_us = None;
    }

    /// The node to probe now, if any. They are probed one by one, evenly in time.
    pub(super) fn next_probe(&mut self, now: Now, others: &[NodeId]) -> Option<NodeId> {
        let wait_us = (PROBE_MS * 1_000).checked_div(others.len() as u64)?;
        if now.mono_us < self.probed_us + wait_us {
            return None;
        }
        self.probed_us = now.mono_us;
        self.probes += 1;
        Some(others[self.probes % others.len()])
    }

    /// Whether a configuration may be sent to that node, or requested from it. Many messages of
    /// another epoch may arrive at once; one exchange is enough.
    pub(super) fn may_exchange(&mut self, now: Now, node: NodeId) -> bool {
        let last_us = self.exchanged_us.get(&node);
        let may = last_us.is_none_or(|at_us| now.mono_us >= at_us + NEWS_INTERVAL_MS * 1_000);
        if may {
            self.exchanged_us.insert(node, now.mono_us);
        }
        may
    }

    /// Whether the configuration is due to be sent to unreachable nodes, which is done then.
    pub(super) fn may_send_to_silent(&mut self, now: Now) -> bool {
        let may = now.mono_us >= self.sent_to_silent_us + CONFIGURATION_LOOK_MS * 1_000;
        if may {
            self.sent_to_silent_us = now.mono_us;
        }
        may
    }
}
