//! E1: a node whose disk was rolled back to an older copy has lost promises, and does not know it.
//! The members that received its rows before the rollback do: a row contains the node's start
//! count, the last group that it found at this start, and the last group that is durable by now.
//! The node has no vote until the members had a chance to report a rollback.

use std::collections::{BTreeMap, BTreeSet};

use rand::RngExt;

use crate::protocol::keys::outbox::Way;
use crate::protocol::replica::Replica;
use crate::protocol::types::limits::INCARNATIONS_KNOWN_MAX;
use crate::protocol::types::message::{
    Configuration, Event, GroupNumber, Incarnation, Member, NodeId, Now, Output, RolledBack, Row,
};
use crate::protocol::types::quorum::NodeSet;
use crate::protocol::types::rules::rule;

/// Whether this node's state is its latest, as far as other nodes know.
#[derive(Debug, Default)]
pub struct StartConfirmation {
    /// The last group that was found at this start.
    found: GroupNumber,
    /// This incarnation began after this start, so no copy of it can be older.
    is_new: bool,
    is_given: bool,
    /// The nodes that had a chance to report a rollback before the confirmation.
    asked: BTreeSet<(NodeId, Incarnation)>,
    /// Since when the others have had a chance to report a rollback.
    asked_us: u64,
    /// When a node of a newer epoch was last received from, before the confirmation.
    newer_us: Option<u64>,
    /// The confirmation takes so long that the operator is informed.
    is_overdue: bool,
}

impl StartConfirmation {
    pub fn new(found: GroupNumber, starts_before: u64, now: Now) -> Self {
        StartConfirmation {
            found,
            is_new: starts_before == 0,
            is_given: starts_before == 0,
            asked_us: now.mono_us,
            ..StartConfirmation::default()
        }
    }

    pub fn found(&self) -> GroupNumber {
        self.found
    }

    /// The node continues in an incarnation that it had at no other start.
    pub fn begin_incarnation(&mut self) {
        self.is_new = true;
        self.is_given = true;
    }

    /// Whether the others had as much time as it takes to receive this node's row, and nothing
    /// newer arrived in that time.
    fn has_waited(&self, now: Now, proof_us: u64) -> bool {
        let since_us = self.newer_us.unwrap_or(0).max(self.asked_us);
        now.mono_us >= since_us + proof_us
    }
}

/// The last start of an incarnation, as its node reported it.
#[derive(Debug, Clone, Copy)]
struct Start {
    incarnation: Incarnation,
    starts: u64,
    boot: u64,
    /// The last group that was durable by then: a later start finds it.
    synced: GroupNumber,
}

/// What other nodes reported of their starts: for each node its last incarnations, the present one
/// last.
#[derive(Debug, Default)]
pub struct Starts {
    known: BTreeMap<NodeId, Vec<Start>>,
}

impl Starts {
    pub fn retain(&mut self, is_node: impl Fn(NodeId) -> bool) {
        self.known.retain(|node, _| is_node(*node));
    }

    /// The last boot of each wanted node that this node has seen, if no known start contradicts it.
    pub fn seen(&self, is_wanted: impl Fn(NodeId) -> bool) -> Vec<(NodeId, u64)> {
        let last = |(node, starts): (&NodeId, &Vec<Start>)| Some((*node, starts.last()?.boot));
        let known = self.known.iter().filter(|(node, _)| is_wanted(**node));
        known.filter_map(last).collect()
    }

    /// Records the content of the row. Returns the other start of the same incarnation that the row
    /// contradicts: a start that it does not count, or whose durable groups it has not all found. A
    /// late row contradicts the present start, but its node knows better.
    fn denied_by(&mut self, row: &Row) -> Option<Start> {
        let known = self.known.entry(row.node).or_default();
        let mut reported = Start {
            incarnation: row.incarnation,
            starts: row.starts,
            boot: row.boot,
            synced: row.synced,
        };
        let place = known.iter().position(|k| k.incarnation == row.incarnation);
        if let Some(place) = place {
            let before = known[place];
            let other = before.boot != row.boot;
            if other && (row.starts <= before.starts || row.found < before.synced) {
                return Some(before);
            }
            reported.synced = reported.synced.max(before.synced);
            known.remove(place);
        }
        known.push(reported);
        if known.len() > INCARNATIONS_KNOWN_MAX {
            known.remove(0);
        }
        None
    }
}

impl Replica {
    /// The start count in this node's row: none that a crash could undo.
    pub(in crate::protocol::replica) fn reported_starts(&self) -> u64 {
        match self.durable.is_start_durable() {
            true => self.durable.starts(),
            false => 0,
        }
    }

    /// Checks a row that arrived with a heartbeat, of whichever node it is.
    pub(in crate::protocol::replica) fn check_start(&mut self, row: &Row) {
        let configuration = self.identity.configuration.as_ref();
        let is_other = configuration.is_some_and(|c| c.nodes().any(|m| m.node == row.node))
            && row.node != self.identity.node;
        // A start that is not on that node's disk yet does not count.
        if row.starts == 0 || !is_other || !rule!(E1) {
            return;
        }
        let seen = self.membership.starts.seen(|node| node == row.node);
        if let Some(later) = self.membership.starts.denied_by(row) {
            let reported = RolledBack {
                incarnation: later.incarnation,
                starts: later.starts,
                boot: later.boot,
                synced: later.synced,
            };
            self.send(row.node, 0, reported.into(), 0, Way::Usual);
        } else if !seen.contains(&(row.node, row.boot)) {
            // That node waits for the confirmation.
            self.links.make_news();
        }
    }

    /// Another node remembers a start that this node's state does not contain. A late message
    /// reports an earlier start, or this one. Each start writes a group before it is reported, so
    /// the groups alone would be enough; the start count shows a rollback even if a storage engine
    /// should ever restart the numbers of its groups.
    pub(in crate::protocol::replica) fn handle_rolled_back(
        &mut self,
        now: Now,
        reported: &RolledBack,
    ) {
        let is_later = reported.starts >= self.durable.starts()
            || reported.synced > self.membership.confirmation.found;
        let is_other = reported.boot != self.options.boot;
        if reported.incarnation != self.identity.incarnation || !is_later || !is_other {
            return;
        }
        self.sending.push(Output::Event(Event::RolledBack));
        self.renounce(now);
    }

    /// Whether this node's votes count: it is a member, and its state is not an older copy as far
    /// as the others know.
    pub(in crate::protocol::replica) fn takes_part(&self) -> bool {
        self.identity.votes && (self.membership.confirmation.is_given || !rule!(E1_asked))
    }

    /// E1: a node that starts with earlier state promises and answers nothing until the members had
    /// a chance to report a rollback: all of them; or, after a while, all that are reachable, if
    /// this node and those of them that have kept their state are a quorum.
    pub(in crate::protocol::replica) fn check_proof(&mut self, now: Now) {
        let Some(configuration) = self.identity.configuration.clone() else {
            return;
        };
        if self.membership.confirmation.is_given || !self.identity.votes {
            return;
        }
        let me = (self.identity.node, self.options.boot);
        let has_seen = |m: &&Member| self.links.has_seen(m.node, m.incarnation, me);
        let others = || {
            configuration
                .voters()
                .filter(|m| m.node != self.identity.node)
        };
        let mut with_me: NodeSet = others().filter(has_seen).map(|m| m.node).collect();
        let all = others().all(|m| with_me.contains(m.node) || self.had_chance(m));
        // A node that knows no other node has no one to confirm its start: it listens for other
        // nodes.
        let all = all && others().next().is_some();
        // A node that has lost its state since may report a rollback, and does not count for the
        // quorum.
        let is_done = |node| self.links.has_seen_by_now(node, me) || !self.links.is_joined(node);
        let all_joined = others().all(|m| is_done(m.node));
        let proof_ms = match others().next() {
            Some(_) => self.timings.proof_ms,
            None => self.timings.proof_alone_ms,
        };
        let waited = self
            .membership
            .confirmation
            .has_waited(now, self.answer_wait_us(proof_ms));
        with_me.insert(self.identity.node);
        self.membership.confirmation.is_given =
            all || (waited && all_joined && configuration.has_quorum(&with_me));
        if self.membership.confirmation.is_given {
            self.membership.confirmation.asked =
                others().map(|m| (m.node, m.incarnation)).collect();
        }
    }

    /// At each heartbeat.
    pub(in crate::protocol::replica) fn check_overdue_proof(&mut self, now: Now) {
        let due_us = self.membership.confirmation.asked_us + self.timings.proof_overdue_ms * 1_000;
        self.membership.confirmation.is_overdue =
            self.identity.votes && !self.membership.confirmation.is_given && now.mono_us >= due_us;
    }

    /// What the start confirmation is pending on, and what an operator can do.
    pub(in crate::protocol::replica) fn proof_in_words(
        &self,
        configuration: &Configuration,
    ) -> String {
        let mut words =
            "the members have not confirmed yet that they know of no later state of this node"
                .to_owned();
        if !self.membership.confirmation.is_overdue {
            return words;
        }
        if self.reported_starts() == 0 {
            return "the disk does not finish its writes: this start is reported to the members \
                    once it is on disk"
                .to_owned();
        }
        let me = (self.identity.node, self.options.boot);
        let others = configuration
            .voters()
            .filter(|m| m.node != self.identity.node);
        let is_silent = |m: &&Member| !self.links.has_seen_by_now(m.node, me);
        let silent: Vec<&str> = others
            .filter(is_silent)
            .map(|m| m.address.as_str())
            .collect();
        if !silent.is_empty() {
            words += &format!("; unconfirmed by {}", silent.join(", "));
        }
        if self.membership.confirmation.newer_us.is_some() {
            words += "; others have a newer configuration, which this node has not received yet";
        }
        words += ". If they do not confirm it although they are healthy, stop this node and start \
                  it with an empty data directory, provided that the others are a quorum: it then \
                  copies their records";
        words
    }

    fn had_chance(&self, member: &Member) -> bool {
        let asked = &self.membership.confirmation.asked;
        asked.contains(&(member.node, member.incarnation))
    }

    /// E1: the members of another configuration may know what the members of the previous one did
    /// not. A copy of a disk may hold a configuration of long ago, all of whose members are gone,
    /// or whose only member is this node.
    pub(in crate::protocol::replica) fn prove_anew(&mut self, now: Now) {
        self.membership.confirmation.newer_us = None;
        let voters = self.identity.configuration.iter().flat_map(|c| c.voters());
        let mut others = voters.filter(|m| m.node != self.identity.node);
        let is_proven = self.membership.confirmation.is_given && others.all(|m| self.had_chance(m));
        if !self.identity.votes
            || self.membership.confirmation.is_new
            || is_proven
            || !rule!(E1_anew)
        {
            return;
        }
        self.membership.confirmation.is_given = false;
        self.membership.confirmation.asked_us = now.mono_us;
    }

    /// There is a newer configuration: this node waits for it before it has a vote in its own.
    pub(in crate::protocol::replica) fn note_newer(&mut self, now: Now) {
        if !self.membership.confirmation.is_given {
            self.membership.confirmation.newer_us = Some(now.mono_us);
        }
    }

    /// Continues as a learner in a new incarnation, without a vote until it is admitted: its
    /// present state is a cache.
    pub(in crate::protocol::replica) fn renounce(&mut self, now: Now) {
        self.identity.incarnation = self.random.random();
        self.durable.continue_as(self.identity.incarnation);
        self.membership.confirmation.begin_incarnation();
        self.identity.votes = false;
        self.durable.install();
        self.abandon_change(now);
        self.check_links(now, true, false);
        self.end_life(now);
        self.restart_comparisons(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(incarnation: Incarnation, starts: u64, boot: u64, groups: (u64, u64)) -> Row {
        Row {
            node: 2,
            incarnation,
            boot,
            starts,
            found: groups.0,
            synced: groups.1,
            ..Row::default()
        }
    }

    #[test]
    fn a_start_that_does_not_count_an_earlier_one_is_noticed() {
        let mut starts = Starts::default();
        let mut denied = |reported_starts, boot, incarnation| {
            let row = row(incarnation, reported_starts, boot, (9, 9));
            starts
                .denied_by(&row)
                .map(|later| (later.starts, later.boot))
        };
        assert_eq!(denied(3, 30, 7), None);
        assert_eq!(denied(4, 40, 7), None, "it was started again");
        assert_eq!(denied(4, 41, 7), Some((4, 40)), "from the copy once more");
        assert_eq!(denied(4, 41, 7), Some((4, 40)), "it is still there");
        assert_eq!(denied(2, 22, 7), Some((4, 40)), "from an older one");
        assert_eq!(
            denied(3, 30, 7),
            Some((4, 40)),
            "late: its node is reported of itself"
        );
        assert_eq!(denied(4, 41, 8), None, "it is somebody new");
        assert_eq!(denied(5, 50, 8), None);
        assert_eq!(
            denied(4, 42, 7),
            Some((4, 40)),
            "the old one is not forgotten"
        );
        assert_eq!(starts.seen(|_| true), [(2, 50)]);
    }

    #[test]
    fn a_start_that_finds_less_than_was_durable_is_noticed() {
        let mut starts = Starts::default();
        let mut denied = |reported_starts, boot, groups| {
            let denied = starts.denied_by(&row(7, reported_starts, boot, groups));
            denied.map(|later| (later.boot, later.synced))
        };
        assert_eq!(denied(3, 30, (10, 11)), None);
        assert_eq!(denied(3, 30, (10, 99)), None);
        assert_eq!(denied(3, 30, (10, 50)), None, "it comes late");
        assert_eq!(denied(4, 40, (98, 100)), Some((30, 99)), "of the same run");
        assert_eq!(denied(4, 41, (99, 100)), None, "all is there");
    }
}
