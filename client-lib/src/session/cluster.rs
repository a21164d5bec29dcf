//! Which cluster this client uses: one for its life. Addresses move from one cluster to another, and a
//! write that lands in another cluster is lost without a word.
//!
//! The application names the cluster, or it is the one that more than half of the given nodes belong to,
//! or, where fewer answer, the one that all belong to who answer in time. Until it is known nothing but
//! hellos and questions about the nodes themselves is sent to a node of a cluster. If nodes of two
//! clusters answer in time, and neither is of more than half, every call ends with an error that names
//! both.

use std::collections::BTreeMap;

use super::Session;
use super::call::CallError;

/// Once a first node has told its cluster, the others get the time that its own answer took, at least
/// this ...
const SETTLE_WAIT_US_MIN: u64 = 20_000;
/// ... and at most this.
const SETTLE_WAIT_US_MAX: u64 = 500_000;

/// What is known of the cluster to use.
#[derive(Debug, Default)]
pub(super) struct Choice {
    /// 0 until it is known.
    pub own: u64,
    /// When hellos were first sent.
    greeted_us: Option<u64>,
    /// When the nodes that answered so far are enough, if they agree.
    pub due_us: Option<u64>,
    /// They are enough.
    is_over: bool,
    /// Two clusters, while the nodes that answer belong to both.
    pub conflict: Option<(u64, u64)>,
}

impl Choice {
    pub fn new(own: u64) -> Self {
        Choice {
            own,
            ..Choice::default()
        }
    }

    /// Whether operations may go to a node of this cluster; 0 stands for none yet.
    pub fn admits(&self, cluster: u64) -> bool {
        cluster == 0 || cluster == self.own
    }

    pub fn greets(&mut self, now_us: u64) {
        self.greeted_us.get_or_insert(now_us);
    }
}

impl Session {
    /// A node has told its cluster, or the time for others to do so is over.
    pub(super) fn settle_cluster(&mut self, now_us: u64) {
        if self.choice.own != 0 {
            return;
        }
        // What a node told counts, though it may be silent now.
        let told = self.nodes.iter().filter(|node| !node.spared);
        let mut counts: BTreeMap<u64, usize> = BTreeMap::new();
        for cluster in told.filter_map(|node| node.cluster()) {
            *counts.entry(cluster).or_default() += 1;
        }
        let asked = self.nodes.iter().filter(|node| !node.spared).count();
        let most = counts.iter().find(|(_, count)| 2 * **count > asked);
        let mut own = most.map(|(cluster, _)| *cluster);
        let mut clusters = counts.keys().copied();
        let (first, second) = (clusters.next(), clusters.next());
        self.choice.conflict = None;
        if first.is_none() {
            self.choice.due_us = None;
            return;
        }
        if !self.choice.is_over {
            let greeted_us = self.choice.greeted_us.unwrap_or(now_us);
            let wait_us = (now_us - greeted_us).clamp(SETTLE_WAIT_US_MIN, SETTLE_WAIT_US_MAX);
            let due_us = *self.choice.due_us.get_or_insert(now_us + wait_us);
            let all_told = counts.values().sum::<usize>() >= asked;
            self.choice.is_over = all_told || now_us >= due_us;
        }
        if self.choice.is_over {
            self.choice.due_us = None;
            match second {
                None => own = own.or(first),
                Some(_) => self.choice.conflict = first.zip(second).filter(|_| own.is_none()),
            }
        }
        if let Some(cluster) = own {
            self.choice.own = cluster;
            self.choice.due_us = None;
            self.admit_nodes(now_us);
            self.look_for_parked(now_us);
        } else if self.choice.conflict.is_some() {
            self.end_calls_of_no_cluster(now_us);
        }
    }

    /// Nodes of the cluster may be sent operations now, which are born by their clocks.
    fn admit_nodes(&mut self, now_us: u64) {
        let mut clock = 0;
        for node in &mut self.nodes {
            node.admitted = self.choice.admits(node.cluster().unwrap_or(0));
            let live = node.live.as_ref().filter(|_| node.admitted);
            clock = clock.max(live.map_or(0, |live| live.clock));
        }
        self.observe(now_us, clock);
    }

    pub(super) fn two_clusters(&self) -> Option<CallError> {
        let (first, second) = self.choice.conflict?;
        Some(CallError::TwoClusters { first, second })
    }

    fn end_calls_of_no_cluster(&mut self, now_us: u64) {
        for handle in self.table.handles() {
            self.look_for_dark(now_us, handle);
        }
    }
}
