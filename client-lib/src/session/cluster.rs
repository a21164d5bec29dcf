//! Which cluster this client uses; it never changes. An address can pass from one cluster to
//! another, and a write that lands in the wrong cluster is silently lost.
//!
//! The application names the cluster, or it is the cluster of more than half of the given nodes. If
//! fewer answer in time, it is the cluster of all nodes that answered. Until the cluster is known,
//! the client sends only hellos and status requests; later it sends only to nodes of that cluster.
//! If nodes of two clusters answered, and neither has more than half of the nodes, every call ends
//! with an error that names both. The same happens if fewer than half of the nodes had reported the
//! cluster in use, and more than half later report another one.

use std::collections::BTreeMap;

use super::call::CallError;
use super::table::CallHandle;
use super::{Session, SessionOptions};

/// Once the first node has reported its cluster, the others have a quarter of a call's time, or
/// half of the time before `no quorum` if that is less. The wait is at least this ...
const HEARING_US_MIN: u64 = 20_000;
/// ... and at most this.
const HEARING_US_MAX: u64 = 400_000;

/// The choice of the cluster.
#[derive(Debug, Default)]
pub(super) struct Choice {
    /// 0 until it is known.
    pub own: u64,
    /// The application named the cluster, or more than half of the given nodes reported it.
    is_sure: bool,
    /// When the nodes that have answered by then are enough.
    pub due_us: Option<u64>,
    /// The wait is over: the nodes that have answered are enough.
    is_over: bool,
    /// Two clusters, neither of which may be used.
    conflict: Option<(u64, u64)>,
}

impl Choice {
    pub fn new(own: u64) -> Self {
        Choice {
            own,
            is_sure: own != 0,
            ..Choice::default()
        }
    }

    /// Whether operations may go to a node that reported this cluster; 0 means that it has none
    /// yet.
    fn admits(&self, cluster: u64) -> bool {
        cluster != 0 && cluster == self.own
    }

    /// Whether a node that reported this cluster is known to belong to another cluster.
    pub fn excludes(&self, cluster: u64) -> bool {
        self.own != 0 && cluster != 0 && cluster != self.own
    }
}

impl Session {
    /// Called when a node has reported its cluster, or the wait for the others is over.
    pub(super) fn settle_cluster(&mut self, now_us: u64) {
        if self.choice.is_sure {
            return;
        }
        let asked = self.nodes.iter().filter(|node| !node.spared);
        let (asked_count, mut counts) = (asked.clone().count(), BTreeMap::<u64, usize>::new());
        // A node's report counts even if the node is silent now.
        for cluster in asked.filter_map(|node| node.cluster()) {
            *counts.entry(cluster).or_default() += 1;
        }
        let majority = counts.iter().find(|(_, count)| 2 * **count > asked_count);
        let majority = majority.map(|(cluster, _)| *cluster);
        let own = self.choice.own;
        match majority {
            Some(cluster) if own == 0 || own == cluster => {
                self.choice.is_sure = true;
                self.use_cluster(now_us, cluster);
            }
            // The conflict is permanent, even if some of these nodes later belong to no cluster.
            Some(other) => self.refuse_both(now_us, own.min(other), own.max(other)),
            None if own == 0 => self.settle_among_few(now_us, &counts, asked_count),
            None => {}
        }
    }

    /// Decides if no cluster has more than half of the given nodes.
    fn settle_among_few(&mut self, now_us: u64, counts: &BTreeMap<u64, usize>, asked_count: usize) {
        self.choice.conflict = None;
        let mut clusters = counts.keys().copied();
        let (Some(first), second) = (clusters.next(), clusters.next()) else {
            self.choice.due_us = None;
            return;
        };
        if !self.choice.is_over {
            let hearing_us = self.hearing_us();
            let due_us = *self.choice.due_us.get_or_insert(now_us + hearing_us);
            let all_told = counts.values().sum::<usize>() >= asked_count;
            self.choice.is_over = all_told || now_us >= due_us;
        }
        match second {
            _ if !self.choice.is_over => {}
            None => self.use_cluster(now_us, first),
            Some(second) => self.refuse_both(now_us, first, second),
        }
    }

    fn hearing_us(&self) -> u64 {
        let SessionOptions {
            deadline_us,
            no_quorum_after_us,
            ..
        } = self.options;
        let hearing_us = (deadline_us / 4).min(no_quorum_after_us / 2);
        hearing_us.clamp(HEARING_US_MIN, HEARING_US_MAX)
    }

    fn use_cluster(&mut self, now_us: u64, cluster: u64) {
        self.choice.own = cluster;
        self.choice.due_us = None;
        self.choice.conflict = None;
        for place in 0..self.nodes.len() {
            self.admit(now_us, place);
        }
        self.find_parked(now_us);
        self.ask_all_again(now_us);
    }

    /// If the node belongs to the cluster in use, it may be sent operations, and its clock
    /// determines births.
    pub(super) fn admit(&mut self, now_us: u64, place: usize) {
        let node = &mut self.nodes[place];
        node.admitted = self.choice.admits(node.cluster().unwrap_or(0));
        node.is_to_be_asked_again(now_us);
        // The clock of a node of another cluster does not count.
        if let Some(live) = node.live.as_ref().filter(|_| node.admitted) {
            let clock = live.clock;
            self.observe(now_us, clock);
        }
    }

    fn refuse_both(&mut self, now_us: u64, first: u64, second: u64) {
        self.choice.due_us = None;
        self.choice.conflict = Some((first, second));
        for handle in self.table.handles() {
            self.end_between_clusters(handle);
        }
        self.ask_all_again(now_us);
    }

    pub(super) fn two_clusters(&self) -> Option<CallError> {
        let (first, second) = self.choice.conflict?;
        Some(CallError::TwoClusters { first, second })
    }

    /// Ends a call while it is unknown which of two clusters is meant, unless a node of one of them
    /// may have applied it. Returns true if the call was ended.
    pub(super) fn end_between_clusters(&mut self, handle: CallHandle) -> bool {
        let operation = self.table.get(handle);
        let ends = operation.is_some_and(|operation| !operation.may_be_done());
        let error = self.two_clusters().filter(|_| ends);
        let is_ended = error.is_some();
        if let Some(error) = error {
            self.complete(handle, Err(error));
        }
        is_ended
    }
}
