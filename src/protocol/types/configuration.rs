//! The bounds of a configuration, its encoding in its register, and its lineage: each operator's
//! force begins a new one (E8). Data and bounds only; this module knows no messages.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use wire::Birth;

use crate::protocol::types::ballot::Ballot;
use crate::protocol::types::limits::{
    ADDRESS_SIZE_MAX, FOLLOWED_LAST, FORCES_MAX, MEMBERS_MAX, NODES_AWAY_MAX,
};
use crate::protocol::types::message::{
    Configuration, ConfigurationUpdate, EPOCH_MAX, Epoch, Member, NodeId,
};
use crate::protocol::types::quorum::NodeSet;
use crate::protocol::types::rules::rule;

/// The format of the register's value, which is its first byte.
const FORMAT: u8 = 1;

/// The low bits of an epoch count changes; the bits above them are the lineage.
const COUNT_BITS: u32 = 28;
/// A lineage has 24 bits: a generation, the id of the node that made the force, and random bits.
const RANDOM_BITS: u32 = 10;
const GENERATION_SHIFT: u32 = 8 + RANDOM_BITS;
const GENERATIONS: u64 = 64;
const LINEAGE_MAX: Lineage = (GENERATIONS << GENERATION_SHIFT) - 1;
const _: () = assert!(EPOCH_MAX == ((LINEAGE_MAX + 1) << COUNT_BITS) - 1);

/// 0 until an operator forces a configuration, then unique for each force. The lineage of a force
/// is higher than those that the force supersedes.
pub type Lineage = u64;

/// An operator's force, as recorded in the configurations that descend from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forced {
    pub lineage: Lineage,
    /// The epoch in which the operator requested the force. For another lineage that a force
    /// superseded, it is the last known epoch of that lineage.
    pub from: Epoch,
}

/// X3: the base of the configuration that began the present life of a member (E5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdmissionBase {
    pub node: NodeId,
    pub base: Ballot,
}

/// An epoch above `EPOCH_MAX`, which only a message can contain, gives a lineage that no
/// configuration has.
pub fn lineage_of(epoch: Epoch) -> Lineage {
    epoch >> COUNT_BITS
}

/// The lineage of a force made by node `by`, above the lineages that it supersedes. `None` if there
/// were too many forces or generations.
pub fn next_lineage(superseded: &[Forced], by: NodeId, random: u16) -> Option<Lineage> {
    let generations = superseded.iter().map(|f| f.lineage >> GENERATION_SHIFT);
    let generation = generations.max().unwrap_or(0) + 1;
    let random = Lineage::from(random) & ((1 << RANDOM_BITS) - 1);
    let fits = superseded.len() < FORCES_MAX && generation < GENERATIONS;
    fits.then(|| generation << GENERATION_SHIFT | Lineage::from(by) << RANDOM_BITS | random)
}

pub fn first_epoch(lineage: Lineage) -> Epoch {
    lineage << COUNT_BITS | 1
}

/// The epoch after this one. `None` if the lineage has no further epoch.
pub fn next_epoch(epoch: Epoch) -> Option<Epoch> {
    let next = epoch.checked_add(1)?;
    (lineage_of(next) == lineage_of(epoch) && next <= EPOCH_MAX).then_some(next)
}

/// The two epochs of a change: the joint configuration and the completed one.
pub fn two_epochs_after(epoch: Epoch) -> Option<(Epoch, Epoch)> {
    let joint = next_epoch(epoch)?;
    Some((joint, next_epoch(joint)?))
}

/// Why a record in the configuration's register can't be read as a configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unreadable {
    /// Another release wrote it, so it may be valid.
    Format(u8),
    Damaged,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unreadable::Format(format) => write!(
                f,
                "it is in format {format}, and this release reads {FORMAT}"
            ),
            Unreadable::Damaged => write!(f, "it does not decode"),
        }
    }
}

/// E8: whether a frame is accepted from an address at which no node is known. A frame with a
/// configuration is, because the key in the configuration shows whether the sender may send it.
pub fn is_heard_from_anywhere(
    kind: u8,
    cluster: u64,
    destination: NodeId,
    own: (u64, NodeId),
) -> bool {
    let is_here = destination == 0 || destination == own.1 || own.1 == 0;
    kind == ConfigurationUpdate::KIND && cluster != 0 && cluster == own.0 && is_here
}

/// The configuration's encoding in its register.
pub fn encode(configuration: &Configuration) -> Bytes {
    let mut value = vec![FORMAT];
    wire::encode(&mut value, configuration);
    value.into()
}

pub fn decode(value: &[u8]) -> Result<Configuration, Unreadable> {
    let (format, rest) = value.split_first().ok_or(Unreadable::Damaged)?;
    if *format != FORMAT {
        return Err(Unreadable::Format(*format));
    }
    let decoded = wire::decode::<Configuration>(rest).ok();
    decoded
        .filter(Configuration::is_sound)
        .ok_or(Unreadable::Damaged)
}

impl Configuration {
    /// Checks bounds that decoding alone does not enforce.
    pub fn is_sound(&self) -> bool {
        let joint = self.joint.iter();
        let all = self.members.iter().chain(joint.clone().flatten());
        let is_sound = |m: &Member| m.node > 0 && m.address.len() <= ADDRESS_SIZE_MAX;
        let sized = |members: &Vec<Member>| (1..=MEMBERS_MAX).contains(&members.len());
        // Otherwise one node would have two votes.
        let distinct = |members: &Vec<Member>| {
            let nodes: NodeSet = members.iter().map(|m| m.node).collect();
            nodes.len() == members.len()
        };
        let is_force = |f: &Forced| f.lineage <= LINEAGE_MAX && f.from <= EPOCH_MAX;
        let is_named = self.name.is_empty() || wire::is_cluster_name(&self.name);
        self.spread.is_sound()
            && is_named
            && sized(&self.members)
            && distinct(&self.members)
            && joint
                .clone()
                .all(|members| sized(members) && distinct(members))
            && self.away.len() <= NODES_AWAY_MAX
            && self.forces.len() <= FORCES_MAX
            && self.forces.iter().all(is_force)
            && self.admissions.len() <= MEMBERS_MAX
            && self.admissions.iter().all(|a| a.base <= self.base)
            && (1..=EPOCH_MAX).contains(&self.epoch)
            && self.base.reading() <= FOLLOWED_LAST
            && self.lineage() == lineage_of(self.epoch)
            && all.chain(&self.away).all(is_sound)
    }

    /// Whether the configuration may be proposed: other nodes accept it only if it is within all
    /// bounds. The error is text for an operator.
    pub fn check(&self) -> Result<(), String> {
        if self.away.len() > NODES_AWAY_MAX {
            return Err(format!(
                "there would be {} nodes without a vote, and {NODES_AWAY_MAX} is the maximum: \
                 `horseshoe member remove` those that are gone for good",
                self.away.len()
            ));
        }
        match self.is_sound() {
            true => Ok(()),
            false => Err(
                "the resulting configuration exceeds a limit, so other nodes would not accept it; \
                 please report it"
                    .into(),
            ),
        }
    }

    pub fn lineage(&self) -> Lineage {
        self.forces.last().map_or(0, |forced| forced.lineage)
    }

    /// The admissions once this joint configuration is completed, with these members and that base.
    pub fn admissions_with(&self, members: &[Member], base: Ballot) -> Vec<AdmissionBase> {
        let stays = |member: &Member| {
            let mut before = self.members.iter();
            let same = |m: &Member| (m.node, m.incarnation) == (member.node, member.incarnation);
            !self.forced && before.any(same)
        };
        let admission = |member: &Member| AdmissionBase {
            node: member.node,
            base: match stays(member) {
                true => self.admitted_at(member.node),
                false => base,
            },
        };
        members.iter().map(admission).collect()
    }

    /// X3_admitted. A release that wrote no admissions counts as if each change had admitted all.
    fn admitted_at(&self, node: NodeId) -> Ballot {
        if !rule!(X3_admitted) {
            return Ballot::ZERO;
        }
        let admission = self.admissions.iter().find(|a| a.node == node);
        admission.map_or(self.base, |a| a.base)
    }

    /// X3: operations with births up to this one may have been applied to a key, and forgotten by
    /// a purge. A quorum of members has promised a ballot without a record of the key; each comes
    /// with its floor. Each of them has purged the key, if that was purged.
    pub fn forgotten(&self, absences: &[(NodeId, Ballot)]) -> Birth {
        let bounds = absences
            .iter()
            .map(|(node, floor)| self.admitted_at(*node).max(*floor));
        match &self.joint {
            None => bounds.min().unwrap_or(self.base).reading(),
            // The new members have taken part in no purge.
            Some(_) => self.highest(absences).max(self.base).reading(),
        }
    }

    /// The same where they answered reads. A read leaves no promise, so some may have answered
    /// before the key was purged, and others after.
    pub fn forgotten_by_readers(&self, absences: &[(NodeId, Ballot)]) -> Birth {
        let admitted = absences.iter().map(|(node, _)| self.admitted_at(*node));
        let least = match &self.joint {
            None => admitted.min().unwrap_or(self.base),
            Some(_) => self.base,
        };
        self.highest(absences).max(least).reading()
    }

    /// The highest floor.
    fn highest(&self, absences: &[(NodeId, Ballot)]) -> Ballot {
        let floors = absences.iter().map(|(_, floor)| *floor);
        floors.max().unwrap_or(self.base)
    }

    /// Whether this configuration descends from the one installed in that epoch, or supersedes it
    /// by force.
    pub fn comes_of(&self, epoch: Epoch) -> bool {
        let lineage = lineage_of(epoch);
        lineage == 0 || self.forces.iter().any(|f| f.lineage == lineage)
    }

    /// E8: whether both were forced and neither descends from the other.
    pub fn is_split_from(&self, other: &Configuration) -> bool {
        self.cluster == other.cluster && !self.comes_of(other.epoch) && !other.comes_of(self.epoch)
    }

    /// Whether a node that has installed `held` should install this one instead.
    pub fn is_newer_than(&self, held: &Configuration) -> bool {
        self.cluster == held.cluster && self.epoch > held.epoch && self.comes_of(held.epoch)
    }

    /// Whether the forces that led to this configuration took `held` into account: `held` is of
    /// this configuration's lineage, or of one that it descends from and no later than the epoch in
    /// which the force that left that lineage was requested. A joint configuration that begins a
    /// change may be one epoch later: what is chosen in it is at a quorum of the previous members,
    /// and nothing is purged in it.
    pub fn goes_on_from(&self, held: &Configuration) -> bool {
        let mut lineage = self.lineage();
        for _ in 0..=self.forces.len() {
            if lineage == held.lineage() {
                return true;
            }
            let Some(force) = self.forces.iter().find(|f| f.lineage == lineage) else {
                return false;
            };
            lineage = lineage_of(force.from);
            if lineage == held.lineage() {
                let begun = held.joint.is_some() && !held.forced;
                return held.epoch <= force.from + u64::from(begun);
            }
        }
        false
    }

    /// Whether a node started with this cluster name, or with none, belongs to the cluster.
    pub fn goes_with(&self, name: &str) -> bool {
        name.is_empty() || name == self.name
    }

    /// For users: the epoch and the members' addresses.
    pub fn in_words(&self) -> String {
        let addresses = self.members.iter().map(|m| m.address.as_str());
        let addresses: Vec<&str> = addresses.collect();
        format!("epoch {} with {}", self.epoch, addresses.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configuration(forces: &[Lineage], count: u64) -> Configuration {
        let forces = forces.iter().map(|lineage| Forced {
            lineage: *lineage,
            from: 1,
        });
        let mut of = Configuration {
            cluster: 9,
            spread: crate::protocol::types::digest::Spread::new(1, 4),
            members: vec![Member {
                node: 1,
                ..Member::default()
            }],
            forces: forces.collect(),
            ..Configuration::default()
        };
        of.epoch = match of.lineage() {
            0 => count,
            lineage => first_epoch(lineage) + count - 1,
        };
        of
    }

    /// The lineage of a force by node `by` that supersedes these lineages.
    fn forced(superseded: &[Lineage], by: NodeId) -> Lineage {
        let superseded = configuration(superseded, 1).forces;
        next_lineage(&superseded, by, 7).expect("not that many")
    }

    #[test]
    fn forced_lineages_are_higher_and_differ() {
        let (first, other) = (forced(&[], 1), forced(&[], 2));
        assert_ne!(first, other);
        let later = forced(&[first, other], 1);
        assert!(later > first.max(other));
        assert!(first_epoch(first) > 1_000_000);
        assert!(first_epoch(later) > first_epoch(other) + 1_000_000);
        // A reader that uses floating point represents it exactly.
        let most = [Forced {
            lineage: 62 << GENERATION_SHIFT,
            from: 1,
        }];
        let last = next_lineage(&most, 255, u16::MAX).expect("the last one");
        assert!(first_epoch(last) + (1 << COUNT_BITS) <= 1 << 53);
        let spent = [Forced {
            lineage: last,
            from: 1,
        }];
        assert_eq!(next_lineage(&spent, 1, 1), None);
        assert_eq!(next_epoch(first_epoch(first)), Some(first_epoch(first) + 1));
        assert_eq!(next_epoch((1 << COUNT_BITS) - 1), None);
        assert_eq!(next_epoch(EPOCH_MAX), None);
    }

    /// If the high bits were cut off, the epoch would have the lineage of another force, or of
    /// none.
    #[test]
    fn an_epoch_that_is_too_large_is_of_no_lineage() {
        let lineage = forced(&[], 1);
        let sound = configuration(&[lineage], 1);
        for bit in 52..64 {
            let epoch = sound.epoch | 1 << bit;
            assert!(!sound.comes_of(epoch) && !sound.comes_of(1 << bit), "{bit}");
            assert_eq!(next_epoch(epoch), None);
            let unsound = Configuration {
                epoch,
                ..sound.clone()
            };
            assert!(!unsound.is_sound(), "{bit}");
        }
        assert!(sound.is_sound());
        for forced in [
            Forced {
                lineage: LINEAGE_MAX + 1,
                from: 1,
            },
            Forced {
                lineage,
                from: EPOCH_MAX + 1,
            },
        ] {
            let mut unsound = sound.clone();
            unsound.forces.insert(0, forced);
            assert!(!unsound.is_sound(), "{forced:?}");
        }
    }

    /// X3: node 3 was admitted at ballot 7, the others at 2; node 2 has purged at 5.
    #[test]
    fn what_members_have_forgotten() {
        let member = |node| Member {
            node,
            ..Member::default()
        };
        let admitted = |node, base| AdmissionBase {
            node,
            base: Ballot::new(base, 1),
        };
        let mut of = configuration(&[], 5);
        of.members = [1, 2, 3].map(member).to_vec();
        of.base = Ballot::new(9, 1);
        of.admissions = vec![admitted(1, 2), admitted(2, 2), admitted(3, 7)];
        let absences = [(1, 0), (2, 5), (3, 0)].map(|(node, floor)| (node, Ballot::new(floor, 1)));
        // Node 1 has purged nothing, so nothing was purged. A read may have met it before.
        assert_eq!(
            (of.forgotten(&absences), of.forgotten_by_readers(&absences)),
            (2, 5)
        );
        let late = &absences[1..];
        assert_eq!((of.forgotten(late), of.forgotten_by_readers(late)), (5, 5));
        let newest = &absences[2..];
        assert_eq!(
            (of.forgotten(newest), of.forgotten_by_readers(newest)),
            (7, 7)
        );
        // A release that wrote no admissions.
        let kept = std::mem::take(&mut of.admissions);
        assert_eq!(
            (of.forgotten(&absences), of.forgotten_by_readers(&absences)),
            (9, 9)
        );
        of.admissions = kept;
        let next = of.admissions_with(&[member(2), member(4)], Ballot::new(11, 1));
        assert_eq!(next, [admitted(2, 2), admitted(4, 11)]);
        of.joint = Some(vec![member(1)]);
        assert_eq!(
            (of.forgotten(&absences), of.forgotten_by_readers(&absences)),
            (9, 9)
        );
        of.forced = true;
        let forced = of.admissions_with(&[member(2)], Ballot::new(11, 1));
        assert_eq!(forced, [admitted(2, 11)]);
    }

    #[test]
    fn no_node_has_two_votes() {
        let sound = configuration(&[], 5);
        let twice = vec![sound.members[0].clone(); 2];
        let in_joint = Configuration {
            joint: Some(twice.clone()),
            ..sound.clone()
        };
        let in_members = Configuration {
            members: twice,
            ..sound.clone()
        };
        let in_both = Configuration {
            joint: Some(sound.members.clone()),
            ..sound
        };
        assert!(!in_joint.is_sound() && !in_members.is_sound());
        assert!(in_both.is_sound(), "that is how a change begins");
    }

    #[test]
    fn what_others_would_not_take_is_told_with_a_remedy() {
        let mut next = configuration(&[], 5);
        next.away = vec![next.members[0].clone(); NODES_AWAY_MAX];
        assert_eq!(next.check(), Ok(()));
        next.away.push(next.members[0].clone());
        let why = next.check().expect_err("one too many");
        assert!(why.contains("33 nodes without a vote"), "{why}");
        assert!(why.contains("`horseshoe member remove`"), "{why}");
        next.away.clear();
        next.epoch = EPOCH_MAX;
        assert!(next.check().is_err());
    }

    #[test]
    fn only_forces_of_the_same_are_split() {
        let (first, other) = (forced(&[], 1), forced(&[], 2));
        let [old, one, two] =
            [vec![], vec![first], vec![other]].map(|forces| configuration(&forces, 5));
        assert!(one.is_newer_than(&old) && !old.is_newer_than(&one));
        assert!(!one.is_split_from(&old) && !old.is_split_from(&one));
        assert!(one.is_split_from(&two) && two.is_split_from(&one));
        assert!(!one.is_newer_than(&two) && !two.is_newer_than(&one));
        // Later changes do not end the split.
        let later = configuration(&[first], 70_000);
        assert!(later.is_split_from(&two) && later.is_newer_than(&one));
        let healed = configuration(&[first, other, forced(&[first, other], 1)], 1);
        for before in [&old, &one, &two, &later] {
            assert!(healed.is_newer_than(before) && !healed.is_split_from(before));
        }
    }

    #[test]
    fn a_force_goes_on_from_what_it_was_asked_for_in() {
        let force = |lineage, from| Forced { lineage, from };
        let of = |epoch: Epoch, forces: &[Forced]| Configuration {
            epoch,
            forces: forces.to_vec(),
            ..configuration(&[], 1)
        };
        let (first, other) = (forced(&[], 1), forced(&[], 2));
        let one = of(first_epoch(first), &[force(first, 5)]);
        assert!(one.goes_on_from(&of(5, &[])) && one.goes_on_from(&of(3, &[])));
        assert!(!one.goes_on_from(&of(6, &[])) && !one.goes_on_from(&of(7, &[])));
        let begun = Configuration {
            joint: Some(Vec::new()),
            ..of(6, &[])
        };
        assert!(one.goes_on_from(&begun), "only begun");
        // Of the two sides, it continues the one on which it was requested.
        let two = of(first_epoch(other) + 1, &[force(other, 5)]);
        let later = forced(&[first, other], 1);
        let forces = [
            force(first, 5),
            force(other, 5),
            force(later, first_epoch(first) + 1),
        ];
        let healed = of(first_epoch(later), &forces);
        assert!(healed.goes_on_from(&one) && !healed.goes_on_from(&two));
        assert!(healed.goes_on_from(&of(5, &[])) && !healed.goes_on_from(&of(7, &[])));
        let next = of(first_epoch(later) + 1, &forces);
        assert!(next.goes_on_from(&healed));
    }

    #[test]
    fn what_is_no_configuration_is_told_apart() {
        let sound = configuration(&[forced(&[], 3)], 2);
        assert_eq!(decode(&encode(&sound)), Ok(sound.clone()));
        let mut newer = encode(&sound).to_vec();
        newer[0] = FORMAT + 1;
        assert_eq!(decode(&newer), Err(Unreadable::Format(FORMAT + 1)));
        assert_eq!(decode(&[]), Err(Unreadable::Damaged));
        assert_eq!(decode(&[FORMAT, 0xff, 1]), Err(Unreadable::Damaged));
        for unsound in [
            Configuration {
                members: Vec::new(),
                ..sound.clone()
            },
            Configuration {
                epoch: 3,
                ..sound.clone()
            },
        ] {
            assert_eq!(decode(&encode(&unsound)), Err(Unreadable::Damaged));
        }
    }
}
