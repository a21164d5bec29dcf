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
use tombstones::Tombstones;

use crate::protocol::catchup::hints::{Hints, Rounds};
use crate::protocol::catchup::pace::CopyPace;
use crate::protocol::catchup::pending_chosen::PendingChosen;
use crate::protocol::types::digest::Spread;
use crate::protocol::types::message::NodeId;

/// What other nodes lack of this node's records, and this node of theirs.
#[derive(Debug)]
pub(super) struct Catchup {
    /// Chosen ballots that are still to be reported to other nodes.
    pub(super) pending_chosen: BTreeMap<NodeId, PendingChosen>,
    /// C1: chosen rounds that await their last acknowledgments, and what each other member has
    /// missed.
    pub(super) chosen_rounds: Rounds,
    pub(super) hints: BTreeMap<NodeId, Hints>,
    /// How many copies may leave, for hints and for requests.
    pub(super) pace: CopyPace,
    pub(super) comparisons: Comparisons,
    pub(super) copies: Copies,
    /// Pages of buckets that were requested.
    pub(super) page_requests: VecDeque<PageRequest>,
    pub(super) bucket_waiters: Waiters,
    /// The tombstones that this node holds.
    pub(super) tombstones: Tombstones,
}

impl Catchup {
    pub(super) fn new(spread: Spread) -> Self {
        Catchup {
            pending_chosen: BTreeMap::new(),
            chosen_rounds: Rounds::default(),
            hints: BTreeMap::new(),
            pace: CopyPace::default(),
            comparisons: Comparisons::default(),
            copies: Copies::default(),
            page_requests: VecDeque::new(),
            bucket_waiters: Waiters::default(),
            tombstones: Tombstones::new(spread),
        }
    }
}
