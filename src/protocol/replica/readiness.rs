//! What a node is pending on, and what an operator can do about it, in words.

use crate::protocol::replica::Replica;
use crate::protocol::replica::membership::vote::{Obstacle, addresses, hung_in_words};
use crate::protocol::replica::peer_faults::PeerFaults;
use crate::protocol::types::message::{Configuration, Member, Now};
use crate::protocol::types::quorum::NodeSet;

/// The reports to the operator about this node's state.
#[derive(Debug, Default)]
pub(super) struct Reports {
    /// Impossible messages of other nodes.
    pub(super) peer_faults: PeerFaults,
    /// What this node is pending on, in words.
    pub(super) waits_for: String,
}

impl Replica {
    /// Empty when the node is ready.
    pub(super) fn waits_for_now(&self) -> String {
        if let Some(bootstrap) = &self.identity.formation {
            return bootstrap.waits_for();
        }
        let Some(configuration) = &self.identity.configuration else {
            return String::new();
        };
        let split = self.split_in_words(configuration);
        if !split.is_empty() {
            return split;
        }
        if self.identity.node == 0 {
            return format!(
                "the configuration does not name {}, so this node was removed, or was never added: \
                 stop it, or add it by `horseshoe member add {0}`",
                self.own_address()
            );
        }
        let heard = self.voting().nodes;
        if self.identity.votes {
            return match self.view.hears_quorum() {
                true if self.hangs(self.identity.node) => {
                    "a write to the disk has not finished; until it does, this node has no vote, \
                     and other members run the operations of its clients"
                        .to_owned()
                }
                true => String::new(),
                false if !self.takes_part() && configuration.has_quorum(&self.with_me(heard)) => {
                    self.proof_in_words(configuration)
                }
                false => self.without_quorum(configuration),
            };
        }
        if let Some(full) = self.space.full {
            return format!(
                "this node is out of {full}, so it copies no more records and is not admitted: {}",
                crate::protocol::replica::full::remedy(full)
            );
        }
        let why = "this node has no vote yet: it is new, was removed while it was unreachable, or \
                   lost its state";
        match configuration.has_quorum(&heard) {
            true => {
                format!(
                    "{why}; it copies the records of the members, and is then admitted \
                     automatically"
                )
            }
            false => format!("{why}; {}", self.without_quorum(configuration)),
        }
    }

    fn with_me(&self, mut heard: NodeSet) -> NodeSet {
        heard.insert(self.identity.node);
        heard
    }

    /// Conditions that an operator should check, although the node serves.
    pub(super) fn warnings(&self, now: Now) -> Vec<String> {
        let mut warnings = self.full_warnings();
        if self.requests.receive_delay.was_overload() {
            warnings.push(
                "this node is, or was in the last 5 s, overloaded: it answers operations busy. \
                 Reduce the load, or give the node more CPU time"
                    .to_owned(),
            );
        }
        warnings.extend(self.slow_disk_warning());
        if let Some(reason) = self.membership.refused() {
            warnings.push(format!(
                "the desired membership change is not possible: {reason}"
            ));
        }
        let voters = self.identity.configuration.iter().flat_map(|c| c.voters());
        let away = voters.filter(|m| !self.view.reaches(m.node));
        let away = away.map(|m| format!("{} ({})", m.node, m.address));
        let away: Vec<String> = away.collect();
        if let Some(configuration) = self.identity.configuration.as_deref() {
            let hung = self.with_obstacle(configuration, Obstacle::DiskHangs);
            warnings.extend((!hung.is_empty()).then(|| hung_in_words(&hung)));
        }
        if self.identity.votes
            && self.view.hears_quorum()
            && !away.is_empty()
            && self.is_purge_held_up(now)
        {
            warnings.push(format!(
                "tombstones cannot be purged, and take up space, while these members are \
                 unreachable: {}. Bring them back, or `horseshoe member replace` them",
                away.join(", ")
            ));
        }
        warnings
    }

    /// The voters that cannot vote for that reason.
    fn with_obstacle<'a>(
        &self,
        configuration: &'a Configuration,
        obstacle: Obstacle,
    ) -> Vec<&'a Member> {
        let voters = configuration.voters();
        let with = voters.filter(|m| self.obstacle(m) == Some(obstacle));
        with.collect()
    }

    fn without_quorum(&self, configuration: &Configuration) -> String {
        let silent = self.with_obstacle(configuration, Obstacle::NotHeard);
        let empty = self.with_obstacle(configuration, Obstacle::WithoutState);
        let hung = self.with_obstacle(configuration, Obstacle::DiskHangs);
        let mut words = "no quorum".to_owned();
        if !silent.is_empty() {
            words += &format!("; unreachable: {}", addresses(&silent));
        }
        if !hung.is_empty() {
            words += &format!("; {}", hung_in_words(&hung));
        }
        let is_forced = configuration.forced && configuration.joint.is_some();
        if !empty.is_empty() {
            let why = match is_forced {
                true => {
                    "lost their votes because they continued without the force, or lost their state"
                }
                false => "lost their state",
            };
            words += &format!("; {why}: {}", addresses(&empty));
        }
        if self.other_cluster() != 0 {
            words += &format!(
                "; nodes of another cluster, {:016x}, send messages to this node, whose state is \
                 of cluster {:016x}: if this node belongs to that other cluster, stop it and give \
                 it the data directory that it had there, or an empty one; if not, stop those \
                 nodes",
                self.other_cluster(),
                configuration.cluster
            );
        }
        let silent = silent.iter().map(|m| m.node);
        let to_come: NodeSet = self
            .view
            .reachable()
            .iter()
            .copied()
            .chain(silent)
            .collect();
        if !configuration.has_quorum(&to_come) {
            // A member that lost its state cannot be counted, so the cluster does not recover from
            // this automatically.
            let left = self
                .view
                .reachable()
                .iter()
                .filter(|node| !self.hangs(**node));
            let left: Vec<String> = left.map(u8::to_string).collect();
            let left = left.join(" ");
            words += &match (left.is_empty(), is_forced) {
                (true, _) => ". Put their data directories back as they last were".to_owned(),
                (false, true) => format!(
                    ". The force can't be completed with them: continue without them, by \
                     `horseshoe member force {left}`, which may lose writes",
                ),
                (false, false) => format!(
                    ". Put their data directories back as they last were; or, if these are lost \
                     for good, continue without them: `horseshoe member force {left}`, which may \
                     lose writes",
                ),
            };
        }
        words
    }
}
