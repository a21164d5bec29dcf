//! Which members can vote now, and why the others cannot: the single answer for operators' changes,
//! for automatic changes, for `no quorum` (X5) and for a force. This module also owns the epoch in
//! which each node was last received from.

use std::collections::BTreeMap;

use crate::protocol::replica::Replica;
use crate::protocol::types::configuration::lineage_of;
use crate::protocol::types::message::{
    Configuration, Envelope, Epoch, Incarnation, Member, Message, NodeId, Now,
};
use crate::protocol::types::quorum::NodeSet;
use crate::protocol::types::rules::rule;

/// Why a member cannot vote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Obstacle {
    NotHeard,
    /// The member is reachable in another incarnation, so it does not hold what it once received.
    WithoutState,
    /// The member is reachable, but answers nothing that waits for its disk.
    DiskHangs,
}

/// What an operator can do about a hung disk.
pub const HANGS_REMEDY: &str =
    "fix it, or stop that node and start it with an empty directory on another disk";

/// How many nodes are told apart: those of a few lineages.
const HEARD_MAX: usize = 64;

/// In which epoch each node was last received from, and when. Two lineages may have given the same
/// id to two nodes.
#[derive(Debug, Default)]
pub struct Epochs(BTreeMap<(NodeId, Incarnation), (Epoch, u64)>);

impl Epochs {
    /// `kept_us`: how long that counts.
    fn hear(&mut self, now: Now, who: (NodeId, Incarnation), epoch: Epoch, kept_us: u64) {
        self.0
            .retain(|_, (_, heard_us)| now.mono_us < *heard_us + kept_us);
        if self.0.len() < HEARD_MAX || self.0.contains_key(&who) {
            self.0.insert(who, (epoch, now.mono_us));
        }
    }

    fn heard(&self, now: Now, kept_us: u64) -> impl Iterator<Item = (NodeId, Incarnation, Epoch)> {
        let fresh = self.0.iter();
        let fresh = fresh.filter(move |(_, (_, heard_us))| now.mono_us < heard_us + kept_us);
        fresh.map(|((node, incarnation), (epoch, _))| (*node, *incarnation, *epoch))
    }
}

/// Which of the voters of a configuration can vote.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Voting {
    pub nodes: NodeSet,
    /// Voters that could vote if their disks were not hung.
    pub hung: NodeSet,
}

impl Voting {
    /// The members that cannot vote, and why, in words for the operator.
    pub fn missing_in_words(&self, members: &[Member]) -> String {
        let missing = members.iter().filter(|m| !self.nodes.contains(m.node));
        let (hung, silent): (Vec<&Member>, _) = missing.partition(|m| self.hung.contains(m.node));
        let mut words = Vec::new();
        if !silent.is_empty() {
            words.push(format!("unreachable: {}", addresses(&silent)));
        }
        if !hung.is_empty() {
            words.push(hung_in_words(&hung));
        }
        words.join("; ")
    }
}

pub fn addresses(members: &[&Member]) -> String {
    let addresses: Vec<&str> = members.iter().map(|m| m.address.as_str()).collect();
    addresses.join(", ")
}

pub fn hung_in_words(members: &[&Member]) -> String {
    format!(
        "reachable, but with a hung disk, which does not finish a write ({HANGS_REMEDY}): {}",
        addresses(members)
    )
}

impl Replica {
    /// For this node itself, this does not check whether the others had a chance to report a
    /// rollback (E1_asked).
    pub(in crate::protocol::replica) fn obstacle(&self, member: &Member) -> Option<Obstacle> {
        let node = member.node;
        let is_same = match node == self.identity.node {
            true => member.incarnation == self.identity.incarnation,
            false if !self.links.is_joined(node) => return Some(Obstacle::NotHeard),
            false => self.links.is_incarnation(node, member.incarnation),
        };
        if !is_same && rule!(E1) {
            return Some(Obstacle::WithoutState);
        }
        let hangs = self.hangs(node) && rule!(X5_hung);
        hangs.then_some(Obstacle::DiskHangs)
    }

    pub(in crate::protocol::replica) fn can_vote(&self, member: &Member) -> bool {
        self.obstacle(member).is_none()
    }

    /// Which of the voters of the present configuration can vote.
    pub(in crate::protocol::replica) fn voting(&self) -> Voting {
        let mut voting = Voting::default();
        for member in self.identity.configuration.iter().flat_map(|c| c.voters()) {
            if member.node == self.identity.node && !self.takes_part() {
                continue;
            }
            match self.obstacle(member) {
                None => voting.nodes.insert(member.node),
                Some(Obstacle::DiskHangs) => voting.hung.insert(member.node),
                Some(_) => {}
            }
        }
        voting
    }

    /// Records the epoch of a heartbeat, which comes directly from its node.
    pub(in crate::protocol::replica) fn note_epoch(&mut self, now: Now, envelope: &Envelope) {
        if matches!(envelope.message, Message::Heartbeat(_)) && envelope.origin != 0 {
            let kept_us = self.timings.row_stale_ms * 1_000;
            let who = (envelope.origin, envelope.incarnation);
            let epochs = &mut self.membership.epochs;
            epochs.hear(now, who, envelope.epoch, kept_us);
        }
    }

    /// A force starts from the configuration that this node has installed. Returns why it may not:
    /// a reachable node has left that configuration, or one of the nodes that are to continue has
    /// not installed it yet.
    pub(in crate::protocol::replica) fn is_behind(
        &self,
        now: Now,
        own: &Configuration,
        named: &[Member],
    ) -> Option<String> {
        let kept_us = self.timings.row_stale_ms * 1_000;
        let heard = self.membership.epochs.heard(now, kept_us);
        let mut others = heard.filter(|(_, _, epoch)| *epoch != own.epoch);
        others.find_map(|(node, incarnation, epoch)| {
            let own_epoch = own.epoch;
            if self.is_later(own, epoch) {
                return Some(format!(
                    "this node lags: it is in epoch {own_epoch}, and node {node} is in {epoch}; \
                     wait until this node has the newer configuration, or send the command to node \
                     {node}"
                ));
            }
            let is_named = named
                .iter()
                .any(|m| (m.node, m.incarnation) == (node, incarnation));
            is_named.then(|| {
                format!(
                    "node {node} is still in epoch {epoch}, not in {own_epoch}: retry in a moment, \
                     or omit it; it is then admitted automatically afterwards"
                )
            })
        })
    }

    /// Whether the epoch belongs to a configuration that follows this node's, or to one that this
    /// node knows nothing about. The configurations that a force is to supersede are known.
    fn is_later(&self, own: &Configuration, epoch: Epoch) -> bool {
        let is_before = epoch < own.epoch && own.comes_of(epoch);
        let is_known = |other: &Configuration| lineage_of(epoch) == other.lineage();
        !is_before && !self.membership.splits.values().any(|other| is_known(other))
    }
}
