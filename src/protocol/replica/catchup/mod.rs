//! Copies of records: what this node sends to other nodes, compares with them, and stores.

pub(in crate::protocol::replica) mod compare;
pub(in crate::protocol::replica) mod copies;
pub(in crate::protocol::replica) mod handoff;
pub(in crate::protocol::replica) mod serve;
pub(in crate::protocol::replica) mod tombstones;

use std::collections::{BTreeMap, VecDeque};

use compare::Comparisons;
use copies::Copies;
use serve::{PageRequest, Waiters};

use crate::protocol::catchup::hints::{Hints, Rounds};
use crate::protocol::catchup::pending_chosen::PendingChosen;
use crate::protocol::types::message::NodeId;

/// Records of this node that other nodes lack, and records of theirs that this node lacks.
#[derive(Debug, Default)]
pub(super) struct Catchup {
    /// Chosen ballots that are still to be reported to other nodes.
    pub(super) pending_chosen: BTreeMap<NodeId, PendingChosen>,
    /// C1: chosen rounds that await their last acknowledgments, and what each other member has
    /// missed.
    pub(super) chosen_rounds: Rounds,
    pub(super) hints: BTreeMap<NodeId, Hints>,
    /// Copies that may still be sent until the next heartbeat.
    pub(super) copies_left: u64,
    pub(super) comparisons: Comparisons,
    pub(super) copies: Copies,
    /// Pages of buckets that were requested.
    pub(super) page_requests: VecDeque<PageRequest>,
    pub(super) bucket_waiters: Waiters,
}
