//! This node's view of the others: links, which nodes are reachable, and when it last sent them
//! something.

use std::collections::BTreeMap;

use crate::protocol::network::topology::Links;
use crate::protocol::replica::distance::Distances;
use crate::protocol::replica::membership::vote::Epochs;
use crate::protocol::types::message::{NodeId, Now};
use crate::protocol::types::timings::Timings;

#[derive(Debug)]
pub(super) struct View {
    pub(super) links: Links,
    pub(super) links_looked_at_us: Option<u64>,
    /// Heartbeats that arrived at that time were not checked yet.
    pub(super) links_due: Option<Now>,
    /// The instant of the last heartbeat, and how many arrived in it.
    pub(super) heartbeats_of_now: (u64, u32),
    pub(super) hears_quorum: bool,
    /// X5: when a quorum was last reachable.
    pub(super) quorum_us: u64,
    /// In which epoch other nodes were last received from.
    pub(super) epochs: Epochs,
    /// The reachable voters: this one first, then by their distance.
    pub(super) reachable: Vec<NodeId>,
    /// Those of them whose disks work. Operations are forwarded to these.
    pub(super) coordinators: Vec<NodeId>,
    pub(super) distances: Distances,
    /// Nodes that are reachable and have no vote.
    pub(super) learners: Vec<NodeId>,
    /// When this node last sent its row.
    pub(super) told_us: u64,
    /// When a large datagram was last sent, and how many were.
    pub(super) probed_us: u64,
    pub(super) probes: usize,
    /// When links are announced next, if they have changed.
    pub(super) news_due_us: Option<u64>,
    pub(super) heartbeats: u64,
    /// When a configuration was last sent to a node, or requested from it.
    pub(super) exchanged_us: BTreeMap<NodeId, u64>,
    /// When the configuration was last sent to unreachable nodes.
    pub(super) told_silent_us: u64,
}

impl View {
    pub(super) fn new(timings: Timings, now: Now) -> Self {
        View {
            links: Links::new(timings),
            links_looked_at_us: None,
            links_due: None,
            heartbeats_of_now: (0, 0),
            hears_quorum: false,
            quorum_us: 0,
            epochs: Epochs::default(),
            reachable: Vec::new(),
            coordinators: Vec::new(),
            distances: Distances::default(),
            learners: Vec::new(),
            told_us: 0,
            probed_us: now.mono_us,
            probes: 0,
            news_due_us: None,
            heartbeats: 0,
            exchanged_us: BTreeMap::new(),
            told_silent_us: 0,
        }
    }
}
