//! E7: no configuration stays chosen but not installed. If the node that proposed it was stopped or
//! cut off before any node installed it, the members whose acceptors hold it find it. They install
//! it, or revert it if the reachable members would have no quorum of it.

use wire::{Action, Outcome, Version};

use crate::protocol::keys::resident::Waiting;
use crate::protocol::replica::Replica;
use crate::protocol::types::ballot::Ballot;
use crate::protocol::types::configuration::{self, Unreadable};
use crate::protocol::types::limits::{CONFIGURATION_LOOK_MS, NODES_AWAY_MAX, SETTLE_MS};
use crate::protocol::types::message::{Configuration, Event, Member, Now, Output};
use crate::protocol::types::quorum::NodeSet;
use crate::protocol::types::record::Key;
use crate::protocol::types::rules::rule;

/// This node's knowledge of its configuration's register.
#[derive(Debug, Default)]
pub struct Uninstalled {
    /// The ballot of a newer configuration that this node's acceptor holds, and since when.
    held: Option<(Ballot, u64)>,
    /// The operation that reads the register.
    reading: Option<u64>,
    /// When the register was last requested.
    loaded_us: Option<u64>,
    /// The ballot that was last reported in an event.
    reported: Option<Ballot>,
    /// Until then nothing is proposed in place of a value that another release wrote.
    unreadable_until_us: u64,
}

impl Uninstalled {
    /// Another configuration was installed.
    pub fn forget(&mut self) {
        self.held = None;
        self.reading = None;
        self.unreadable_until_us = 0;
    }
}

impl Replica {
    /// At each heartbeat: checks the state of this node's own acceptor. A quorum holds a chosen
    /// configuration, and part of that quorum is among any members that serve, so no other node
    /// needs to be asked.
    pub(in crate::protocol::replica) fn find_uninstalled(&mut self, now: Now) {
        let Some(present) = self.identity.configuration.clone() else {
            return;
        };
        if !self.identity.votes || !rule!(E7) {
            return;
        }
        let (key, terms) = (Key::configuration(), self.terms());
        let Some(resident) = self.keys.resident(&key) else {
            self.load_register(now, key);
            return;
        };
        let vote = terms.vote(&resident.state, true);
        let record = vote.and_then(|state| Some((state, state.record.as_ref()?.value.as_ref()?)));
        let Some((ballot, is_chosen, decoded)) = record
            .map(|(state, value)| (state.accepted, state.chosen, configuration::decode(value)))
        else {
            return;
        };
        match decoded {
            Ok(held) if held.is_newer_than(&present) => {
                self.check_newer(now, ballot, is_chosen, held);
            }
            Ok(_) => self.membership.uninstalled.held = None,
            Err(why) => self.report_unreadable(now, ballot, why),
        }
    }

    fn load_register(&mut self, now: Now, key: Key) {
        let loaded_us = &mut self.membership.uninstalled.loaded_us;
        let next_us = loaded_us.map_or(0, |at_us| at_us + CONFIGURATION_LOOK_MS * 1_000);
        if now.mono_us >= next_us {
            *loaded_us = Some(now.mono_us);
            self.wait_for(key, Waiting::Look);
        }
    }

    fn check_newer(&mut self, now: Now, ballot: Ballot, is_chosen: bool, held: Configuration) {
        if is_chosen && held.joint.is_none() && !self.view.hears_quorum() {
            // It no longer needs a quorum of the present one.
            self.install(now, held);
            return;
        }
        let uninstalled = &mut self.membership.uninstalled;
        let known = uninstalled.held.filter(|(known, _)| *known == ballot);
        let (_, since_us) = *uninstalled
            .held
            .insert(known.unwrap_or((ballot, now.mono_us)));
        // In most cases the node that proposed it is about to announce it.
        let is_due = is_chosen || now.mono_us >= since_us + SETTLE_MS * 1_000;
        let is_busy = uninstalled.reading.is_some() || self.membership.changes.is_proposing();
        if is_due && !is_busy && self.view.hears_quorum() {
            let reading = self.run_own(now, Action::Get);
            self.membership.uninstalled.held = Some((ballot, now.mono_us));
            self.membership.uninstalled.reading = Some(reading);
        }
    }

    /// Handles the outcome of an operation that belongs to no proposal.
    pub(in crate::protocol::replica) fn looked(
        &mut self,
        now: Now,
        sequence: u64,
        outcome: Outcome,
    ) {
        let reading = &mut self.membership.uninstalled.reading;
        if reading.take_if(|reading| *reading == sequence).is_none() {
            return;
        }
        let Some(present) = self.identity.configuration.clone() else {
            return;
        };
        if let Outcome::Value { version, value } = outcome
            && let Ok(held) = configuration::decode(&value)
            && held.is_newer_than(&present)
            && !self.membership.changes.is_proposing()
        {
            self.settle(now, held, version);
        }
    }

    /// A quorum's read returned this value, in whose place another configuration is desired:
    /// returns whether that may be written. A newer configuration goes first.
    pub(in crate::protocol::replica) fn may_follow(
        &mut self,
        now: Now,
        version: Version,
        value: &[u8],
    ) -> bool {
        let Some(present) = self.identity.configuration.clone() else {
            return false;
        };
        match configuration::decode(value) {
            Ok(held) if held.is_newer_than(&present) => {
                // The value is another node's, or an earlier one of this node: a quorum's read
                // shows that it is chosen.
                self.settle(now, held, version);
                false
            }
            Ok(_) => true,
            Err(why) => {
                let resident = self.keys.resident(&Key::configuration());
                let own = resident.and_then(|resident| resident.state.as_ref());
                let own = own.filter(|s| s.record.as_ref().is_some_and(|r| r.version == version));
                let ballot = own.map_or(Ballot(version), |state| state.accepted);
                self.report_unreadable(now, ballot, why);
                // No node can have installed a damaged value. Only an operator may abandon a value
                // that another release wrote.
                why == Unreadable::Damaged || present.forced
            }
        }
    }

    /// Whether a value that another release wrote blocks a change; it is checked again after a
    /// while.
    pub(in crate::protocol::replica) fn is_unreadable(&self, now: Now) -> bool {
        now.mono_us < self.membership.uninstalled.unreadable_until_us
    }

    fn report_unreadable(&mut self, now: Now, ballot: Ballot, why: Unreadable) {
        let uninstalled = &mut self.membership.uninstalled;
        if why != Unreadable::Damaged {
            uninstalled.unreadable_until_us = now.mono_us + CONFIGURATION_LOOK_MS * 1_000;
        }
        if uninstalled.reported.replace(ballot) != Some(ballot) {
            let event = Event::UnreadableConfiguration { ballot, why };
            self.sending.push(Output::Event(event));
        }
    }

    /// That configuration is chosen, and newer than this node's.
    fn settle(&mut self, now: Now, held: Configuration, version: Version) {
        let Some(present) = self.identity.configuration.clone() else {
            return;
        };
        let there = held.voters().filter(|m| self.can_vote(m)).map(|m| m.node);
        let there: NodeSet = there.collect();
        match backed_out(&present, &held) {
            Some(next) if !held.has_quorum(&there) => {
                if self.view.hears_quorum() {
                    self.write(now, Some(version), next);
                }
            }
            _ => self.install(now, held),
        }
    }
}

/// The present configuration again, in place of the joint one that begins a change of it. Every
/// quorum of the joint one contains a quorum of the present one, so only one of this configuration
/// and the one that would complete the change can be chosen, and nothing that was chosen in the
/// meantime is lost.
fn backed_out(present: &Configuration, held: &Configuration) -> Option<Configuration> {
    let begins = present.joint.is_none()
        && held.joint.is_some()
        && !held.forced
        && are_the_same(&held.members, &present.members)
        && configuration::next_epoch(present.epoch) == Some(held.epoch);
    let epoch = configuration::next_epoch(held.epoch).filter(|_| begins)?;
    let stays = |m: &&Member| present.members.iter().all(|member| member.node != m.node);
    let away = held.nodes().chain(&present.away).filter(stays);
    let mut next = Configuration {
        epoch,
        away: Vec::new(),
        ids: present.ids.max(held.ids),
        ..present.clone()
    };
    for member in away {
        let is_new = next.away.iter().all(|known| known.node != member.node);
        if is_new && next.away.len() < NODES_AWAY_MAX {
            next.away.push(member.clone());
        }
    }
    Some(next)
}

/// The node that began the change may know other addresses than this node.
fn are_the_same(some: &[Member], others: &[Member]) -> bool {
    let who = |members: &[Member]| -> Vec<_> {
        let ids = members.iter().map(|m| (m.node, m.incarnation));
        ids.collect()
    };
    who(some) == who(others)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(node: u8) -> Member {
        Member {
            node,
            incarnation: u64::from(node),
            ..Member::default()
        }
    }

    #[test]
    fn only_the_beginning_of_a_change_is_backed_out_of() {
        let present = Configuration {
            epoch: 4,
            members: vec![member(1), member(2), member(3)],
            away: vec![member(4)],
            ids: 4,
            ..Configuration::default()
        };
        let held = Configuration {
            epoch: 5,
            joint: Some(vec![member(1), member(2), member(5)]),
            away: vec![member(3)],
            ids: 5,
            ..present.clone()
        };
        let next = backed_out(&present, &held).expect("it begins a change");
        let ids = |members: &[Member]| members.iter().map(|m| m.node).collect::<Vec<_>>();
        assert_eq!((next.epoch, next.joint.clone()), (6, None));
        assert_eq!(next.members, present.members);
        assert_eq!((ids(&next.away), next.ids), (vec![5, 4], 5));
        // Begun by a node that was given new addresses.
        let mut readdressed = held.clone();
        readdressed.members[0].address = "elsewhere:1".into();
        assert_eq!(backed_out(&present, &readdressed), Some(next));
        let mut other = held.clone();
        other.members[0].incarnation = 77;
        assert_eq!(backed_out(&present, &other), None);
        let complete = Configuration {
            epoch: 6,
            joint: None,
            ..held.clone()
        };
        assert_eq!(
            backed_out(&held, &complete),
            None,
            "what completes it stands"
        );
        assert_eq!(backed_out(&present, &complete), None);
        let forced = Configuration {
            forced: true,
            ..held
        };
        assert_eq!(backed_out(&present, &forced), None);
    }
}
