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
        told: &Configuration,
    ) {
        let held = self.identity.configuration.clone();
        // E8: a sender that does not know the cluster's secret did not receive it from a node of
        // the cluster.
        let is_forged = |held: &Arc<Configuration>| held.spread != told.spread && rule!(E8_key);
        if held.as_ref().is_some_and(is_forged) {
            self.counters.stray += 1;
            return;
        }
        if held.is_none() && self.is_of_another_name(told) {
            self.counters.stray += 1;
            return;
        }
        let is_newer = match held {
            None if told.nodes().any(|m| m.address == self.own_address()) => {
                self.may_install_first(now, told)
            }
            None => false,
            Some(held) if held.is_split_from(told) && rule!(E8) => {
                self.note_split(now, envelope, &held, told);
                false
            }
            Some(held) => told.is_newer_than(&held),
        };
        if is_newer {
            self.install(now, told.clone());
        }
    }

    /// The operator started this node for a cluster with another name. No message of other nodes
    /// ends a node: it waits for its own cluster, and reports why.
    fn is_of_another_name(&mut self, told: &Configuration) -> bool {
        let is_other = !told.goes_with(&self.options.cluster_name);
        if is_other && let Some(bootstrap) = &mut self.identity.formation {
            bootstrap.note_other_name(told);
        }
        is_other
    }

    /// Whether this node's state belongs to a cluster of another name than the operator started it
    /// for. If so, the node does nothing more.
    pub(in crate::protocol::replica) fn refuses_name(&mut self, told: &Configuration) -> bool {
        let given = &self.options.cluster_name;
        if told.goes_with(given) || !told.nodes().any(|m| m.address == self.own_address()) {
            return false;
        }
        let event = Event::OtherName {
            given: given.clone(),
            cluster: told.cluster,
            name: told.name.clone(),
        };
        self.watch.clocks.ended = true;
        self.sending.outputs.clear();
        self.sending.outputs.push_back(Output::Event(event));
        true
    }

    fn may_install_first(&mut self, now: Now, told: &Configuration) -> bool {
        let first = formation::first(told, self.identity.incarnation, self.durable.bound_to());
        if first == First::InstallAsNew {
            self.sending
                .outputs
                .push_back(Output::Event(Event::RolledBack));
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
        told: &Configuration,
    ) {
        let known = self.membership.splits.get(&told.lineage());
        let is_first = known.is_none();
        if is_first && self.membership.splits.len() >= SPLITS_MAX {
            self.counters.overflow += 1;
            return;
        }
        if known.is_none_or(|known| told.epoch > known.epoch) {
            self.membership
                .splits
                .insert(told.lineage(), told.clone().into());
            self.store_splits();
        }
        // The node with the lower epoch receives the other configuration first, and answers.
        if is_first || told.epoch > held.epoch {
            self.answer_split(envelope, held, told);
        }
        if is_first {
            let event = Event::Split {
                own: held.in_words(),
                other: told.in_words(),
            };
            self.sending.outputs.push_back(Output::Event(event));
            self.look_at_links(now, true, true);
            self.tell_splits();
        }
    }

    /// Answers at the address that the other side's configuration gives for the sender: on this
    /// side the id may belong to another node.
    fn answer_split(&mut self, envelope: &Envelope, held: &Configuration, told: &Configuration) {
        // A sender of this side knows its configuration.
        if lineage_of(envelope.epoch) == held.lineage() {
            return;
        }
        if let Some(teller) = told.nodes().find(|m| m.node == envelope.origin) {
            self.tell_at(teller.node, &teller.address);
        }
    }

    /// Sends the conflicting configurations to the other nodes of this side, which may not reach
    /// any node of the other side.
    fn tell_splits(&mut self) {
        let Some(own) = self.identity.configuration.clone() else {
            return;
        };
        for other in self.membership.splits.values().cloned().collect::<Vec<_>>() {
            let me = self.identity.node;
            for node in own.nodes().filter(|m| m.node != me) {
                let configuration = other.as_ref().clone();
                let told = ConfigurationUpdate { configuration };
                self.send(
                    node.node,
                    0,
                    told.into(),
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
    pub(in crate::protocol::replica) fn tell_silent_nodes(&mut self, now: Now) {
        let Some(configuration) = self.identity.configuration.clone() else {
            return;
        };
        if !self.durable.is_installed() || !self.view.may_tell_silent(now) {
            return;
        }
        self.tell_splits();
        if !self.identity.votes {
            return;
        }
        let me = self.identity.node;
        let silent = |m: &&Member| m.node != me && !self.links.is_joined(m.node);
        let silent: Vec<Member> = configuration.nodes().filter(silent).cloned().collect();
        for member in silent {
            let told = ConfigurationUpdate {
                configuration: configuration.as_ref().clone(),
            };
            // The receiver may not know which id it has.
            let envelope = self.envelope(0, 0, told.into());
            let to = Destination::Address(member.address.into());
            self.sending
                .outputs
                .push_back(Output::Send { to, envelope });
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
             force` with the ids of the side that shall continue; the other side drops its data \
             and rejoins automatically",
            own.in_words(),
            others.join(", and in ")
        )
    }
}
