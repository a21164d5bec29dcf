//! Configurations that other nodes send, and E8: two configurations that were forced, each without
//! the other. Nodes that know of both stop serving until a force supersedes both.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::protocol::keys::outbox::Way;
use crate::protocol::membership::formation::{self, First};
use crate::protocol::replica::Replica;
use crate::protocol::types::configuration::{Forced, Lineage, lineage_of};
use crate::protocol::types::limits::NODES_AWAY_MAX;
use crate::protocol::types::message::{
    Configuration, ConfigurationUpdate, Destination, Envelope, Event, Member, Now, Output,
};
use crate::protocol::types::readdress;
use crate::protocol::types::rules::rule;

/// How many other lineages are remembered.
const SPLITS_MAX: usize = 8;

/// Configurations of conflicting lineages: this node's does not descend from them, nor they from
/// it.
pub type Splits = BTreeMap<Lineage, Arc<Configuration>>;

impl Replica {
    /// R1: a configuration is installed only if it is known to be chosen; a node that sends one has
    /// installed it.
    pub(in crate::protocol::replica) fn handle_configuration(
        &mut self,
        now: Now,
        envelope: &Envelope,
        reported: &Configuration,
    ) {
        let held = self.identity.configuration.clone();
        // E8: a sender that does not know the cluster's secret did not receive it from a node of
        // the cluster.
        let is_forged = |held: &Arc<Configuration>| held.spread != reported.spread && rule!(E8_key);
        if held.as_ref().is_some_and(is_forged) {
            self.counts.dropped.stray += 1;
            return;
        }
        if held.is_none() && self.is_of_another_name(reported) {
            self.counts.dropped.stray += 1;
            return;
        }
        let is_newer = match held {
            None if reported.nodes().any(|m| m.address == self.own_address()) => {
                self.may_install_first(now, reported)
            }
            None => false,
            Some(held) if held.is_split_from(reported) && rule!(E8) => {
                self.note_split(now, envelope, &held, reported);
                false
            }
            Some(held) => reported.is_newer_than(&held),
        };
        if is_newer {
            self.install(now, reported.clone());
        }
    }

    /// The operator started this node for a cluster with another name. No message of other nodes
    /// ends a node: it waits for its own cluster, and reports why.
    fn is_of_another_name(&mut self, reported: &Configuration) -> bool {
        let is_other = !reported.goes_with(&self.options.cluster_name);
        if is_other && let Some(bootstrap) = &mut self.identity.formation {
            bootstrap.note_other_name(reported);
        }
        is_other
    }

    /// Whether this node's state belongs to a cluster of another name than the operator started it
    /// for. If so, the node does nothing more.
    pub(in crate::protocol::replica) fn refuses_name(&mut self, reported: &Configuration) -> bool {
        let given = &self.options.cluster_name;
        if reported.goes_with(given) || !reported.nodes().any(|m| m.address == self.own_address()) {
            return false;
        }
        let event = Event::OtherName {
            given: given.clone(),
            cluster: reported.cluster,
            name: reported.name.clone(),
        };
        self.watch.clocks.ended = true;
        self.sending.clear();
        self.sending.push(Output::Event(event));
        true
    }

    fn may_install_first(&mut self, now: Now, reported: &Configuration) -> bool {
        let first = formation::first(reported, self.identity.incarnation, self.durable.bound_to());
        if first == First::InstallAsNew {
            self.sending.push(Output::Event(Event::RolledBack));
            self.renounce(now);
        }
        first != First::Refuse
    }

    /// E8: whether this node knows of a split by force. If so, it no longer participates in its
    /// side's operations.
    pub(in crate::protocol::replica) fn is_split(&self) -> bool {
        !self.membership.splits.is_empty()
    }

    fn note_split(
        &mut self,
        now: Now,
        envelope: &Envelope,
        held: &Configuration,
        reported: &Configuration,
    ) {
        let known = self.membership.splits.get(&reported.lineage());
        let is_first = known.is_none();
        if is_first && self.membership.splits.len() >= SPLITS_MAX {
            self.counts.dropped.overflow += 1;
            return;
        }
        if known.is_none_or(|known| reported.epoch > known.epoch) {
            self.membership
                .splits
                .insert(reported.lineage(), reported.clone().into());
            self.store_splits();
        }
        // The node with the lower epoch receives the other configuration first, and answers.
        if is_first || reported.epoch > held.epoch {
            self.answer_split(envelope, held, reported);
        }
        if is_first {
            let event = Event::Split {
                own: held.in_words(),
                other: reported.in_words(),
            };
            self.sending.push(Output::Event(event));
            self.check_links(now, true, true);
            self.report_splits();
        }
    }

    /// Answers at the address that the other side's configuration gives for the sender: on this
    /// side the id may belong to another node.
    fn answer_split(
        &mut self,
        envelope: &Envelope,
        held: &Configuration,
        reported: &Configuration,
    ) {
        // A sender of this side knows its configuration.
        if lineage_of(envelope.epoch) == held.lineage() {
            return;
        }
        if let Some(teller) = reported.nodes().find(|m| m.node == envelope.origin) {
            self.send_configuration_at(teller.node, &teller.address);
        }
    }

    /// Sends the conflicting configurations to the other nodes of this side, which may not reach
    /// any node of the other side.
    fn report_splits(&mut self) {
        let Some(own) = self.identity.configuration.clone() else {
            return;
        };
        for other in self.membership.splits.values().cloned().collect::<Vec<_>>() {
            let me = self.identity.node;
            for node in own.nodes().filter(|m| m.node != me) {
                let configuration = other.clone();
                let reported = ConfigurationUpdate { configuration };
                self.send(
                    node.node,
                    0,
                    reported.into(),
                    self.durable.installed_in(),
                    Way::Usual,
                );
            }
        }
    }

    /// Another configuration was installed: keeps the known configurations that still conflict with
    /// it.
    pub(in crate::protocol::replica) fn keep_splits(&mut self) {
        if let Some(own) = self.identity.configuration.clone() {
            self.membership
                .splits
                .retain(|_, other| own.is_split_from(other));
            self.store_splits();
        }
    }

    /// At the node's start. The node may be unable to reach the other side now, and must not serve
    /// all the same.
    pub(in crate::protocol::replica) fn find_splits(&mut self) {
        if rule!(E8_kept) {
            let found = self.durable.splits().iter().cloned();
            self.membership.splits = found.map(|other| (other.lineage(), other.into())).collect();
        }
        self.keep_splits();
    }

    fn store_splits(&mut self) {
        let splits: Vec<Configuration> = self
            .membership
            .splits
            .values()
            .map(|c| c.as_ref().clone())
            .collect();
        self.durable.keep_splits(splits);
    }

    /// At each heartbeat. An unreachable node may have been stopped, or have lost its state. This
    /// message brings it the configuration even if it knows no node any more that it could ask.
    pub(in crate::protocol::replica) fn send_to_silent_nodes(&mut self, now: Now) {
        let Some(configuration) = self.identity.configuration.clone() else {
            return;
        };
        if !self.durable.is_installed() || !self.view.may_send_to_silent(now) {
            return;
        }
        self.report_splits();
        if !self.identity.votes {
            return;
        }
        let me = self.identity.node;
        let silent = |m: &&Member| m.node != me && !self.links.is_joined(m.node);
        let silent: Vec<Member> = configuration.nodes().filter(silent).cloned().collect();
        for member in silent {
            let reported = ConfigurationUpdate {
                configuration: configuration.clone(),
            };
            // The receiver may not know which id it has.
            let envelope = self.envelope(0, 0, reported.into());
            let to = Destination::Address(member.address.into());
            self.sending.push(Output::Send { to, envelope });
        }
    }

    /// The forces that a forced configuration supersedes: all that this node knows.
    pub(in crate::protocol::replica) fn superseded(&self, own: &Configuration) -> Vec<Forced> {
        let others = self
            .membership
            .splits
            .values()
            .flat_map(|other| &other.forces);
        let mut forces = Vec::new();
        for forced in own.forces.iter().chain(others) {
            if forces.iter().all(|f: &Forced| f.lineage != forced.lineage) {
                forces.push(*forced);
            }
        }
        forces
    }

    /// Adds the nodes of the other sides as non-members. An id that this side has given out stays
    /// with its node: a node at another address gets a new id. Returns the addresses for which
    /// there is no place or no id left.
    pub(in crate::protocol::replica) fn take_in_splits(
        &self,
        forced: &mut Configuration,
    ) -> Vec<String> {
        let mut left_out = Vec::new();
        for other in self.membership.splits.values() {
            forced.base = forced.base.max(other.base);
            let given = forced.ids;
            forced.ids = given.max(other.ids);
            for node in other.nodes() {
                let address = readdress::address(&self.identity.readdressed, node);
                if forced.nodes().any(|m| m.address == address) {
                    continue;
                }
                let id = match node.node > given {
                    true => Some(node.node),
                    false => forced.ids.checked_add(1),
                };
                match id.filter(|_| forced.away.len() < NODES_AWAY_MAX) {
                    Some(id) => {
                        forced.ids = forced.ids.max(id);
                        let member = Member {
                            node: id,
                            address: address.to_owned(),
                            ..node.clone()
                        };
                        forced.away.push(member);
                    }
                    None => left_out.push(address.to_owned()),
                }
            }
        }
        left_out
    }

    /// In words for the operator; empty if there is no split.
    pub(in crate::protocol::replica) fn split_in_words(&self, own: &Configuration) -> String {
        if !self.is_split() {
            return String::new();
        }
        let others = self
            .membership
            .splits
            .values()
            .map(|other| other.in_words());
        let others: Vec<String> = others.collect();
        format!(
            "the cluster was forced twice, and each side continued without the other: this node is \
             in {}, others are in {}; neither side serves. To resolve this, run `horseshoe member \
             force` with the ids of the side that is to continue; the other side drops its data \
             and rejoins automatically",
            own.in_words(),
            others.join(", and in ")
        )
    }
}
