//! E5: what a node gathers as a member belongs to its present life, and ends with it. This module
//! owns what is discarded when this node's vote is lost or new, and when another member comes back
//! in a new incarnation.

use crate::protocol::catchup::hints::Rounds;
use crate::protocol::keys::resident::Waiting;
use crate::protocol::register::coordinator::Coordinator;
use crate::protocol::replica::Replica;
use crate::protocol::replica::catchup::copies::Copies;
use crate::protocol::replica::membership::policy::Reachability;
use crate::protocol::types::message::{Configuration, NodeId, Now};
use crate::protocol::types::rules::rule;

impl Replica {
    /// The vote is lost, or belongs to a new life. Hints, pending copies and pending work of the
    /// member concern state that is a cache from now on. No other function discards a part of it.
    pub(in crate::protocol::replica) fn end_life(&mut self, now: Now) {
        if rule!(E5_ended) {
            self.catchup.hints.clear();
            self.catchup.chosen_rounds = Rounds::default();
            self.catchup.pending_chosen.clear();
            self.catchup.copies = Copies::default();
            self.membership.reached = Reachability::default();
            self.restart_listing();
        }
        for key in self.timers.keys() {
            self.coordinate(now, &key, Coordinator::hand_over);
        }
    }

    /// Discards what was recorded about members that are in another incarnation in the next
    /// configuration. A node compares everything before it is admitted, and records about its
    /// previous incarnation do not apply to it.
    pub(in crate::protocol::replica) fn forget_replaced(&mut self, next: &Configuration) {
        let Some(before) = self.identity.configuration.clone() else {
            return;
        };
        let incarnation = |c: &Configuration, node| c.voter(node).map(|m| m.incarnation);
        let voters = before.voters().map(|m| m.node);
        let replaced = voters.filter(|n| incarnation(&before, *n) != incarnation(next, *n));
        let replaced = replaced.filter(|_| rule!(E5_replaced));
        for node in replaced.collect::<Vec<NodeId>>() {
            self.catchup.hints.remove(&node);
            self.catchup.pending_chosen.remove(&node);
            self.catchup.chosen_rounds.forget(node);
            self.membership.reached.forget(node);
        }
    }

    /// Whether work that waited for its key must still be done. It belongs to one epoch, and to a
    /// member (R1).
    pub(in crate::protocol::replica) fn is_still_wanted(&mut self, waiting: &Waiting) -> bool {
        let is_member = self.identity.votes || !rule!(E4_rounds);
        let wanted = match waiting {
            // The functions that handle these inputs check them.
            Waiting::Peer(_) | Waiting::Operation(_) | Waiting::Look => true,
            Waiting::Copy(_) | Waiting::Repair => is_member,
            Waiting::Work(epoch, _) => is_member && *epoch == self.epoch(),
        };
        if !wanted {
            self.counts.dropped.stray += 1;
        }
        wanted
    }
}
