//! What operators request of the members during faults. A forced configuration keeps all that was
//! acknowledged: it names all members, or all but one that is no quorum alone, unless they change
//! meanwhile (see `Watch::may_have_lost`).

use horseshoe::protocol::types::message::{Configuration, Member, NodeId};
use kvclient::session::Question;
use wire::Change;

use super::super::cluster::{Cluster, address};
use super::super::watch::is_quorum;
use super::{FaultKind, Faults, Then, When};

/// After this time the operator no longer waits for an answer.
const ANSWER_US: u64 = 2_000_000;
/// Requests arrive late; two at the same time might force conflicting lineages.
const FORCE_AGAIN_US: u64 = 20_000_000;

type Begun = Option<Vec<(When, Then)>>;

impl Faults {
    pub(super) fn operate(
        &mut self,
        kind: FaultKind,
        cluster: &mut Cluster,
        node: usize,
        for_us: u64,
    ) -> Begun {
        let newest = cluster.watch.configuration()?.clone();
        let named: Vec<&Member> = newest.nodes().collect();
        let one = *self.random.pick(&named);
        match kind {
            FaultKind::TakenOut => {
                let change = Change::Remove { node: one.node };
                self.ask_somebody(cluster, change)?;
                Some(vec![(When::After(for_us), Then::TakeIn)])
            }
            FaultKind::Replacement => {
                let address = outsider(cluster, &newest)?;
                let node = one.node;
                self.ask_somebody(cluster, Change::Replace { node, address })?;
                Some(vec![(When::After(for_us), Then::TakeIn)])
            }
            FaultKind::Transfer => {
                let node = one.node;
                self.ask_somebody(cluster, Change::TransferMaster { node })?;
                Some(Vec::new())
            }
            _ => self.force(cluster, node, &newest),
        }
    }

    /// Forces at a member that has the newest configuration, with all members, or without one whose
    /// absence excludes no record that a quorum holds.
    fn force(&mut self, cluster: &mut Cluster, node: usize, newest: &Configuration) -> Begun {
        let installed = cluster.nodes[node].replica.as_ref()?.configuration()?;
        let is_early = self
            .forced_us
            .is_some_and(|at_us| cluster.now_us < at_us + FORCE_AGAIN_US);
        if installed.epoch != newest.epoch || newest.joint.is_some() || is_early {
            return None;
        }
        cluster.vote_of(node)?;
        self.forced_us = Some(cluster.now_us);
        let without = self.is_left_out(cluster, node, newest);
        let members = newest.members.iter().map(|m| m.node);
        let nodes = members.filter(|id| Some(*id) != without).collect();
        let change = Change::Force {
            nodes,
            epoch: newest.epoch,
            despite_quorum: true,
        };
        self.ask(cluster, node, change);
        Some(Vec::new())
    }

    /// Does what the node's status advised the operator to do.
    pub fn force_as_advised(&mut self, cluster: &mut Cluster, node: usize, nodes: Vec<NodeId>) {
        let epoch = cluster.watch.configuration().map_or(0, |c| c.epoch);
        let despite_quorum = false;
        let change = Change::Force {
            nodes,
            epoch,
            despite_quorum,
        };
        self.ask(cluster, node, change);
    }

    /// A member to exclude that is no quorum alone, like one that is gone for good: not the node
    /// that is asked.
    fn is_left_out(
        &mut self,
        cluster: &Cluster,
        node: usize,
        newest: &Configuration,
    ) -> Option<NodeId> {
        let asked = cluster.vote_of(node);
        let members = newest.members.iter().filter(|m| Some(m.node) != asked);
        let members: Vec<&Member> = members.collect();
        if members.is_empty() || !self.random.chance(400) {
            return None;
        }
        let one = self.random.pick(&members);
        (!is_quorum(&newest.members, &[one.incarnation])).then_some(one.node)
    }

    pub fn has_forced(&self) -> bool {
        self.forced_us.is_some()
    }

    pub fn has_operator(&self) -> bool {
        self.operator.is_some()
    }

    /// Adds a node that the configuration does not name; returns whether there was one.
    pub fn take_in(&mut self, cluster: &mut Cluster) -> bool {
        let Some(newest) = cluster.watch.configuration().cloned() else {
            return false;
        };
        let Some(address) = outsider(cluster, &newest) else {
            return false;
        };
        let _ = self.ask_somebody(cluster, Change::Add { address });
        true
    }

    fn ask_somebody(&mut self, cluster: &mut Cluster, change: Change) -> Option<()> {
        let up = cluster.nodes.iter().filter(|n| n.is_up());
        let up: Vec<usize> = up.map(|n| n.index).collect();
        let votes = up.iter().copied().filter(|n| cluster.vote_of(*n).is_some());
        let votes: Vec<usize> = votes.collect();
        if votes.is_empty() {
            return None;
        }
        let node = *self.random.pick(&votes);
        self.ask(cluster, node, change);
        Some(())
    }

    fn ask(&mut self, cluster: &mut Cluster, node: usize, change: Change) {
        let operator = *self.operator.get_or_insert_with(|| cluster.add_operator());
        cluster.trace.story(cluster.now_us, || {
            format!("an operator asks node {node} for {change:?}")
        });
        let now_us = cluster.now_us;
        let session = cluster.clients[operator].session.as_mut();
        let session = session.expect("an operator stays");
        while session.poll_reply().is_some() {}
        session.ask(now_us, node, Question::Change(change), ANSWER_US, 0);
        cluster.drain_client(operator);
    }
}

/// The address of a node that the configuration does not name.
fn outsider(cluster: &Cluster, newest: &Configuration) -> Option<String> {
    let all = (0..cluster.nodes.len()).map(address);
    let mut outside = all.filter(|address| newest.nodes().all(|m| m.address != *address));
    outside.next()
}
