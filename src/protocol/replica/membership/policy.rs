//! Which nodes should be members: members that were unreachable for long are removed; nodes that
//! are back and have caught up are admitted. This module decides when a change is worth proposing;
//! `change` makes it.

use std::collections::BTreeMap;

use wire::clock;

use crate::protocol::keys::outbox::Way;
use crate::protocol::replica::Replica;
use crate::protocol::replica::membership::change::DesiredConfiguration;
use crate::protocol::types::digest::Bucket;
use crate::protocol::types::limits::{
    MEMBERS_KEPT, MEMBERS_MAX, REMOVALS_FORGOTTEN_MS, STEADY_MAX_MS,
};
use crate::protocol::types::message::{
    AdmissionRequest, Configuration, Envelope, Epoch, Event, Incarnation, Member, Message, NodeId,
    Now, Output,
};
use crate::protocol::types::quorum::{NodeSet, is_quorum};
use crate::protocol::types::record::Key;
use crate::protocol::types::rules::rule;

/// A learner that asks to be admitted.
#[derive(Debug, Clone, Copy)]
struct Asking {
    incarnation: Incarnation,
    epoch: Epoch,
    ready: bool,
    listed: Bucket,
    /// Since when it has been continuously reachable.
    since_us: u64,
    last_us: u64,
}

/// Which nodes are reachable, and since when.
#[derive(Debug, Default)]
pub struct Reachability {
    /// Members that are unreachable by any path, or whose disks are hung, and since when.
    missed_since_us: BTreeMap<NodeId, u64>,
    asking: BTreeMap<NodeId, Asking>,
}

impl Reachability {
    /// The member of that id is gone, or is in another incarnation.
    pub fn forget(&mut self, node: NodeId) {
        self.missed_since_us.remove(&node);
    }
}

impl Replica {
    /// At each heartbeat.
    pub(in crate::protocol::replica) fn check_membership(&mut self, now: Now) {
        let Some(configuration) = self.identity.configuration.clone() else {
            return;
        };
        self.ask_admission(&configuration);
        self.look_who_is_missed(now, &configuration);
        self.carry_change_on(now);
        let joint = configuration.joint.is_some() && rule!(E2);
        let may_propose = self.identity.votes && self.view.hears_quorum() && !joint;
        if !may_propose || self.membership.changes.is_proposing() {
            self.membership.refused = None;
            return;
        }
        // The members do not all propose at once: the first reachable one goes ahead.
        let patience_us = self.patience_us(&configuration);
        let missed = self.missed_for_long(now, patience_us);
        let learners = self.ready_learners(now, &configuration, patience_us);
        let clock = self.clock.last();
        // While members are gone, the learner that has waited longest may be one member too many.
        // Then the next learner, or none, may still be possible.
        let learners = learners.into_iter().map(Some).chain([None]);
        let mut wanted = learners.filter_map(|learner| {
            let wanted = wanted(&configuration, &missed, learner, clock)?;
            self.is_served_without(&wanted, learner).then_some(wanted)
        });
        let wanted = wanted.next();
        let refused = match wanted {
            Some(wanted) => self.begin_change(now, wanted).err(),
            None => self.write_addresses(now, &configuration),
        };
        self.note_refused(refused);
    }

    /// A desired change was made, or is not possible. The operator is notified once, and the status
    /// shows it as long as it holds.
    fn note_refused(&mut self, refused: Option<String>) {
        if let Some(reason) = &refused
            && self.membership.refused != refused
        {
            let event = Event::ChangeRefused(reason.clone());
            self.sending.push(Output::Event(event));
        }
        self.membership.refused = refused;
    }

    /// The stagger delay: how long this node leaves a change to the reachable members before it.
    pub(in crate::protocol::replica) fn patience_us(&self, configuration: &Configuration) -> u64 {
        let near = configuration.voters().filter(|m| self.view.reaches(m.node));
        let before = near.take_while(|m| m.node != self.identity.node).count();
        before as u64 * self.answer_wait_us(self.timings.change_patience_ms)
    }

    fn look_who_is_missed(&mut self, now: Now, configuration: &Configuration) {
        // By answers, not by heartbeats alone.
        let voting = self.voting().nodes;
        let silent = configuration.voters().map(|m| m.node);
        let silent: NodeSet = silent.filter(|node| !voting.contains(*node)).collect();
        let missed = &mut self.membership.reached.missed_since_us;
        missed.retain(|node, _| silent.contains(*node));
        for member in configuration.voters() {
            if silent.contains(member.node) {
                missed.entry(member.node).or_insert(now.mono_us);
            }
        }
        if !self.view.hears_quorum() {
            // A node that is cut off itself cannot tell which others are.
            missed.clear();
        }
    }

    fn missed_for_long(&self, now: Now, patience_us: u64) -> Vec<NodeId> {
        let after_us = self.timings.shrink_after_ms * 1_000;
        if after_us == 0 {
            return Vec::new();
        }
        let missed = self.membership.reached.missed_since_us.iter();
        let long = missed.filter(|(_, since)| now.mono_us >= **since + after_us + patience_us);
        long.map(|(node, _)| *node).collect()
    }

    /// E4: a node asks for its own admission, in the epoch in which it is a learner.
    fn ask_admission(&mut self, configuration: &Configuration) {
        if self.identity.votes || self.identity.node == 0 || configuration.joint.is_some() {
            return;
        }
        let (ready, listed) = (self.is_caught_up(), self.listed());
        for member in configuration.voters() {
            if member.node != self.identity.node {
                let asked = AdmissionRequest { ready, listed };
                let group = self.durable.installed_in();
                self.send(member.node, 0, asked.into(), group, Way::Usual);
            }
        }
    }

    pub(in crate::protocol::replica) fn handle_admission_request(
        &mut self,
        now: Now,
        envelope: &Envelope,
    ) {
        let Message::AdmissionRequest(asked) = &envelope.message else {
            return;
        };
        let asked_us = self.answer_wait_us(self.timings.admission_asked_ms);
        let known = self
            .membership
            .reached
            .asking
            .get(&envelope.origin)
            .copied();
        // At each change of the configuration the learner takes a new incarnation (E4). Within one
        // epoch it does so only if it was started without its state, and then it was not
        // continuously reachable.
        let goes_on = |a: &Asking| {
            a.epoch != envelope.epoch || a.incarnation == envelope.incarnation || !rule!(E4)
        };
        let steady = known.filter(|a| now.mono_us < a.last_us + asked_us && goes_on(a));
        let asking = Asking {
            incarnation: envelope.incarnation,
            epoch: envelope.epoch,
            ready: asked.ready,
            listed: asked.listed,
            since_us: steady.map_or(now.mono_us, |a| a.since_us),
            last_us: now.mono_us,
        };
        self.membership
            .reached
            .asking
            .insert(envelope.origin, asking);
    }

    /// Whether that learner will not request records of that key any more, so that they must be
    /// sent to it.
    pub(in crate::protocol::replica) fn is_due_for_copy(&self, learner: NodeId, key: &Key) -> bool {
        let asking = self.membership.reached.asking.get(&learner);
        asking.is_some_and(|a| self.keys.digests().spread().bucket_of(key) < a.listed)
    }

    /// Learners that have caught up and have been reachable for long enough, in the order in which
    /// they came.
    fn ready_learners(
        &mut self,
        now: Now,
        configuration: &Configuration,
        patience_us: u64,
    ) -> Vec<(NodeId, Incarnation)> {
        let (asked_us, least_ms) = (
            self.answer_wait_us(self.timings.admission_asked_ms),
            self.timings.steady_ms,
        );
        let asking = &mut self.membership.reached.asking;
        asking.retain(|_, a| now.mono_us < a.last_us + asked_us);
        let asking = &self.membership.reached.asking;
        let clock = self.clock.last();
        let ready = asking.iter().filter(|(node, asking)| {
            let known = configuration.nodes().find(|m| m.node == **node);
            let steady_us = known.map_or(0, |m| steady_ms(m, clock, least_ms)) * 1_000;
            let is_new = known.is_some_and(|m| m.incarnation != asking.incarnation);
            let present = asking.epoch == configuration.epoch || !rule!(E4);
            let waited = now.mono_us >= asking.since_us + steady_us + patience_us;
            let ready = asking.ready && !self.hangs(**node);
            (is_new || !rule!(E4)) && present && ready && waited
        });
        let mut ready: Vec<_> = ready.collect();
        ready.sort_by_key(|(_, asking)| asking.since_us);
        let ready = ready.into_iter();
        ready.map(|(node, a)| (*node, a.incarnation)).collect()
    }

    /// Whether the members that can vote are a quorum of the desired members without the learner to
    /// be admitted, which holds nothing that counts yet (E5).
    fn is_served_without(
        &self,
        wanted: &DesiredConfiguration,
        learner: Option<(NodeId, Incarnation)>,
    ) -> bool {
        let mut old = self.voting().nodes;
        if let Some((learner, _)) = learner {
            old.remove(learner);
        }
        is_quorum(&wanted.members, &old)
    }
}

/// How long a node must be continuously reachable before it is admitted. The wait depends on clock
/// readings, which all members see alike: a clock that jumps makes an admission earlier or later,
/// never wrong.
fn steady_ms(member: &Member, clock: u64, least_ms: u64) -> u64 {
    let quiet_ms = clock::to_ms(clock.saturating_sub(member.removed_at));
    if quiet_ms >= REMOVALS_FORGOTTEN_MS {
        return least_ms;
    }
    let doublings = u32::from(member.removals.saturating_sub(1)).min(16);
    (least_ms << doublings).min(STEADY_MAX_MS)
}

/// The configuration that fits the missed members and the learner; `None` if that is the present
/// one.
fn wanted(
    configuration: &Configuration,
    missed: &[NodeId],
    learner: Option<(NodeId, Incarnation)>,
    clock: u64,
) -> Option<DesiredConfiguration> {
    let mut members = configuration.members.clone();
    let mut away = configuration.away.clone();
    let mut newcomer = None;
    if let Some((node, incarnation)) = learner {
        let known = |m: &Member| m.node == node;
        // A member that came back empty: its old incarnation is removed.
        let old = members.iter().position(known).map(|at| members.remove(at));
        let old = old.map(|member| removed(member, clock));
        let known = away.iter().position(known).map(|at| away.remove(at));
        newcomer = old.or(known).map(|member| Member {
            incarnation,
            ..member
        });
        if members.len() >= MEMBERS_MAX {
            return None;
        }
    }
    // If there are fewer members than are kept, a missed one makes room for the new node: with both
    // of them, the others would be no quorum.
    let kept = MEMBERS_KEPT.min(configuration.members.len());
    for place in (0..members.len()).rev() {
        let left = members.len() + usize::from(newcomer.is_some());
        if left > kept && missed.contains(&members[place].node) {
            away.push(removed(members.remove(place), clock));
        }
    }
    members.extend(newcomer);
    let ids = configuration.ids;
    (members != configuration.members).then_some(DesiredConfiguration { members, away, ids })
}

/// A member that is removed without an operator's request.
fn removed(member: Member, clock: u64) -> Member {
    let quiet_ms = clock::to_ms(clock.saturating_sub(member.removed_at));
    let before = match quiet_ms >= REMOVALS_FORGOTTEN_MS {
        true => 0,
        false => member.removals,
    };
    Member {
        removals: before.saturating_add(1),
        removed_at: clock,
        ..member
    }
}
