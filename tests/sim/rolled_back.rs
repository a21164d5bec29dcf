//! Disks that are rolled back to an older copy, and which nodes know what that loses (E1).

use horseshoe::protocol::Replica;
use horseshoe::protocol::types::message::{Envelope, Message};

use super::cluster::Cluster;
use super::disk::Disk;
use super::node::Node;

impl Cluster {
    /// Records what a node receives about durable groups of the other nodes in its configuration.
    pub(super) fn hears(&mut self, node: usize, envelope: &Envelope) {
        let Message::Heartbeat(heartbeat) = &envelope.message else {
            return;
        };
        let hearer = &self.nodes[node];
        let Some(configuration) = hearer.replica.as_ref().and_then(Replica::configuration) else {
            return;
        };
        let rows = heartbeat.rows.iter().filter(|row| row.starts > 0);
        for row in rows.filter(|row| configuration.nodes().any(|m| m.node == row.node)) {
            let heard = self.heard.entry((node, hearer.life, row.incarnation));
            let synced = heard.or_default();
            *synced = row.synced.max(*synced);
        }
    }

    /// The node crashes, and its disk is rolled back to an older copy.
    pub fn roll_back(&mut self, node: usize, copy: Disk) {
        self.crash(node);
        let disk = &mut self.nodes[node].disk;
        let lost = disk.incarnation();
        let groups = disk.synced().group - copy.synced().group;
        disk.roll_back(copy);
        let epoch = self.watch.configuration().map_or(0, |c| c.epoch);
        self.losses.push((lost, epoch));
        self.trace.story(self.now_us, || {
            format!("node {node}'s disk is put back to a copy without {groups} groups")
        });
    }

    /// Whether the node has a vote, and each other node with a vote has received, since it started,
    /// a message about something durable that the copy of this node's disk lacks.
    pub fn is_loss_known(&self, node: usize, copy: &Disk) -> bool {
        let incarnation = self.nodes[node].disk.incarnation();
        let group = copy.synced().group;
        let has_heard = |other: &Node| {
            let heard = self.heard.get(&(other.index, other.life, incarnation));
            other.is_up() && heard.is_some_and(|synced| *synced > group)
        };
        let others = self.nodes.iter().filter(|other| other.index != node);
        let mut voters = others.filter(|other| self.vote_of(other.index).is_some());
        let is_voter = self.vote_of(node).is_some() && copy.incarnation() == incarnation;
        is_voter && voters.all(has_heard)
    }

    /// Whether a node runs, or will run, from an older copy of its disk, and has not detected that.
    pub fn is_somebody_rolled_back(&self) -> bool {
        self.nodes.iter().any(|n| n.disk.is_rolled_back())
    }
}
