//! How far the other nodes are, by the round trips that heartbeats measure, and the waits that
//! follow from that. On links of a few milliseconds every wait is as its limit says; longer waits
//! are for slower links.

use crate::protocol::network::topology::Links;
use crate::protocol::replica::Replica;
use crate::protocol::types::message::{Configuration, NodeId};
use crate::protocol::types::quorum::NodeSet;

/// Only the minimum of some round trips is known. With a jitter of half its mean, a round trip
/// takes slightly more than twice as long.
const ROUND_TRIPS_ONE: u64 = 2;
/// An answer for which the other node must send a request of its own, or that takes a few
/// datagrams.
const ROUND_TRIPS_ANSWER: u64 = 3;
/// A forwarded operation: there and back, and a full round there.
const ROUND_TRIPS_FORWARD: u64 = 4;

/// The least time that round trips take, in microseconds.
#[derive(Debug, Clone, Copy, Default)]
pub struct Distances {
    /// Until the nearest quorum has answered.
    quorum_us: u64,
    /// To the farthest reachable voter.
    farthest_us: u64,
}

impl Distances {
    /// `reachable`: the reachable voters.
    pub fn measure(&mut self, reachable: &[NodeId], links: &Links, configuration: &Configuration) {
        let distance = |node: &NodeId| (links.least_rtt_us(*node), *node);
        let mut nodes: Vec<(u64, NodeId)> = reachable.iter().map(distance).collect();
        nodes.sort_unstable();
        let mut reached = NodeSet::default();
        for (rtt_us, node) in &nodes {
            reached.insert(*node);
            if configuration.has_quorum(&reached) {
                self.quorum_us = *rtt_us;
                break;
            }
        }
        self.farthest_us = nodes.last().map_or(0, |(rtt_us, _)| *rtt_us);
    }

    /// How long a phase of a round takes at least: a request to a quorum, and its answers.
    pub fn phase_us(&self) -> u64 {
        ROUND_TRIPS_ONE * self.quorum_us
    }
}

impl Replica {
    /// How long to wait for an answer of another node: `least_ms`, or longer where links are slow.
    pub(super) fn answer_wait_us(&self, least_ms: u64) -> u64 {
        let slow_us = ROUND_TRIPS_ANSWER * self.view.distances().farthest_us;
        slow_us.max(least_ms * 1_000)
    }

    /// The least time before a forwarded operation may be considered lost; 0 on fast links.
    pub(super) fn forward_least_us(&self, to: NodeId) -> u64 {
        // The rounds of that node may have to go as far as the node is from here.
        let rtt_us = self
            .links
            .least_rtt_us(to)
            .max(self.view.distances().quorum_us);
        ROUND_TRIPS_FORWARD * rtt_us
    }
}
