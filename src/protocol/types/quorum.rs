//! Q1 and Q2: which sets of members are quorums. Pure arithmetic; this module knows no messages.

use crate::protocol::types::message::{Configuration, Member, NodeId};
use crate::protocol::types::rules::rule;

/// A set of node ids.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NodeSet([u64; 4]);

impl NodeSet {
    pub fn insert(&mut self, node: NodeId) {
        self.0[usize::from(node >> 6)] |= 1 << (node & 63);
    }

    pub fn remove(&mut self, node: NodeId) {
        self.0[usize::from(node >> 6)] &= !(1 << (node & 63));
    }

    pub fn contains(&self, node: NodeId) -> bool {
        self.0[usize::from(node >> 6)] & (1 << (node & 63)) != 0
    }

    pub fn is_empty(&self) -> bool {
        self.0 == [0; 4]
    }

    pub fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }
}

impl FromIterator<NodeId> for NodeSet {
    fn from_iter<I: IntoIterator<Item = NodeId>>(nodes: I) -> Self {
        let mut set = NodeSet::default();
        for node in nodes {
            set.insert(node);
        }
        set
    }
}

/// Q1 (tie-broken majority): more than half of the members, or exactly half including the master,
/// which is the first member.
pub fn is_quorum(members: &[Member], set: &NodeSet) -> bool {
    let Some(master) = members.first() else {
        return false;
    };
    let votes = members.iter().filter(|m| set.contains(m.node)).count();
    let tie = votes * 2 == members.len() && (set.contains(master.node) || !rule!(Q1));
    votes * 2 > members.len() || tie
}

/// For users: how many nodes form a quorum (R and W) of a configuration that is not joint.
pub fn votes_needed(members: usize) -> String {
    let majority = members / 2 + 1;
    if members % 2 == 1 {
        majority.to_string()
    } else {
        format!("{majority}, or the master and {} more", members / 2 - 1)
    }
}

/// Whether the new configuration names the node in another incarnation.
fn is_replaced(member: &Member, joint: &[Member]) -> bool {
    let same = joint.iter().find(|j| j.node == member.node);
    same.is_some_and(|j| j.incarnation != member.incarnation)
}

impl Configuration {
    /// Q2: a quorum of a joint configuration is a quorum of the old members together with a quorum
    /// of the new ones.
    pub fn has_quorum(&self, set: &NodeSet) -> bool {
        let Some(joint) = &self.joint else {
            return is_quorum(&self.members, set);
        };
        if self.forced {
            return self.members.iter().all(|m| set.contains(m.node));
        }
        // A node that is to be admitted in a new incarnation has lost the old one, and with it that
        // vote.
        let mut old = *set;
        for member in self.members.iter().filter(|m| is_replaced(m, joint)) {
            old.remove(member.node);
        }
        is_quorum(joint, set) && (is_quorum(&self.members, &old) || !rule!(Q2))
    }

    /// All voters, each node once, in the incarnation that counts now.
    pub fn voters(&self) -> impl Iterator<Item = &Member> {
        let joint = self.joint.as_deref().unwrap_or_default();
        let stay = self.members.iter().filter(|m| !is_replaced(m, joint));
        let come = joint.iter().filter(|j| {
            !self
                .members
                .iter()
                .any(|m| m.node == j.node && m.incarnation == j.incarnation)
        });
        stay.chain(come)
    }

    /// All nodes that have an id: the voters, then the non-members.
    pub fn nodes(&self) -> impl Iterator<Item = &Member> {
        let is_voter = |m: &&Member| self.voter(m.node).is_none();
        self.voters().chain(self.away.iter().filter(is_voter))
    }

    pub fn voter(&self, node: NodeId) -> Option<&Member> {
        self.voters().find(|m| m.node == node)
    }

    pub fn names_exactly(&self, nodes: &[NodeId]) -> bool {
        let members = || self.members.iter().map(|m| m.node);
        members().all(|node| nodes.contains(&node))
            && nodes
                .iter()
                .all(|node| members().any(|member| member == *node))
    }

    pub fn master(&self) -> NodeId {
        self.members.first().map_or(0, |m| m.node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(count: u8) -> Vec<Member> {
        (1..=count)
            .map(|node| Member {
                node,
                incarnation: u64::from(node),
                ..Member::default()
            })
            .collect()
    }

    fn set_of(mask: u16) -> NodeSet {
        (0..9)
            .filter(|i| mask & (1 << i) != 0)
            .map(|i| i + 1)
            .collect()
    }

    /// The reference implementation counts votes: one for each member, and one more for the master
    /// if the number of members is even.
    fn twin(count: u8, mask: u16) -> bool {
        let extra = u32::from(count.is_multiple_of(2));
        let total = u32::from(count) + extra;
        let held = mask.count_ones() + if mask & 1 != 0 { extra } else { 0 };
        held * 2 > total
    }

    #[test]
    fn every_set_of_up_to_nine_agrees_with_counting_votes() {
        for count in 1..=9u8 {
            for mask in 0..1u16 << count {
                assert_eq!(
                    is_quorum(&members(count), &set_of(mask)),
                    twin(count, mask),
                    "{count} members, set {mask:b}"
                );
            }
        }
    }

    #[test]
    fn any_two_quorums_intersect() {
        for count in 1..=9u8 {
            let all: Vec<u16> = (0..1u16 << count)
                .filter(|m| is_quorum(&members(count), &set_of(*m)))
                .collect();
            for a in &all {
                assert!(all.iter().all(|b| a & b != 0), "{count} members, {a:b}");
            }
        }
    }

    #[test]
    fn a_joint_quorum_is_one_of_each() {
        let mut joint = Configuration {
            cluster: 1,
            epoch: 2,
            members: members(3),
            joint: Some(members(5)),
            ..Configuration::default()
        };
        assert!(!joint.has_quorum(&set_of(0b00011)));
        assert!(joint.has_quorum(&set_of(0b00111)));
        assert!(!joint.has_quorum(&set_of(0b11100)));
        assert_eq!(joint.voters().count(), 5);
        joint.joint = None;
        assert!(joint.has_quorum(&set_of(0b00011)));
    }

    #[test]
    fn a_node_that_comes_back_empty_has_no_vote_in_the_old() {
        let mut new = members(3);
        new[2].incarnation = 77;
        let joint = Configuration {
            members: members(3),
            joint: Some(new),
            ..Configuration::default()
        };
        assert!(joint.has_quorum(&set_of(0b011)));
        assert!(!joint.has_quorum(&set_of(0b101)) && !joint.has_quorum(&set_of(0b110)));
        assert_eq!(joint.voters().count(), 3);
        assert_eq!(joint.voter(3).map(|m| m.incarnation), Some(77));
    }
}
