//! Changes of the configuration (E2, E3): from C to the joint configuration of C and C', and then
//! to C'. Each step is a write to the configuration's register, by the same rounds as for any other
//! key.

use std::collections::VecDeque;
use std::sync::Arc;

use rand::RngExt;
use wire::{Action, ClientId, Operation, OperationId, Outcome, Version};

use crate::protocol::clients::pending::{Pending, ReplyTo};
use crate::protocol::keys::outbox::Way;
use crate::protocol::membership::evidence::{Evidence, Step};
use crate::protocol::register::coordinator::Coordinator;
use crate::protocol::replica::Replica;
use crate::protocol::types::configuration;
use crate::protocol::types::limits::{EVIDENCE_RETRY_MS, FOLLOWED_LAST};
use crate::protocol::types::message::{
    BucketRequest, Configuration, ConfigurationUpdate, DigestsRequest, Envelope, Epoch, Event,
    Member, Message, NodeId, Now, Output, RoundId,
};
use crate::protocol::types::record::Key;
use crate::protocol::types::rules::rule;

/// The configuration that a node desires.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DesiredConfiguration {
    pub members: Vec<Member>,
    pub away: Vec<Member>,
    pub ids: NodeId,
}

/// A configuration that is being written to the register.
#[derive(Debug)]
struct ConfigurationProposal {
    next: Configuration,
    /// The operation in progress. It ends, with an outcome or without one.
    sequence: u64,
}

#[derive(Debug, Default)]
pub struct Changes {
    /// The client id of this node's own operations.
    client: ClientId,
    sequence: u64,
    proposal: Option<ConfigurationProposal>,
    evidence: Option<Evidence>,
    /// When this node began to gather the evidence, or to wait before it does.
    evidence_us: u64,
    /// The outcomes of this node's own operations.
    answers: VecDeque<(u64, Outcome)>,
}

impl Changes {
    /// A round of this node chose a record for the key.
    pub fn chosen(&mut self, key: &Key) {
        if let Some(evidence) = &mut self.evidence {
            evidence.chosen(key);
        }
    }

    /// An operation of this node has ended.
    pub fn answer(&mut self, sequence: u64, outcome: Outcome) {
        self.answers.push_back((sequence, outcome));
    }

    pub fn is_proposing(&self) -> bool {
        self.proposal.is_some()
    }
}

impl Replica {
    /// E2: a change starts only from a configuration that is not joint. Returns the epoch in which
    /// it will be complete.
    pub(in crate::protocol::replica) fn begin_change(
        &mut self,
        now: Now,
        wanted: DesiredConfiguration,
    ) -> Result<Epoch, String> {
        let Some(configuration) = self.identity.configuration.clone() else {
            return Err("there is no configuration yet".into());
        };
        if !self.identity.votes || !self.view.hears_quorum() {
            return Err("no quorum".into());
        }
        let joint = configuration.joint.is_some() && rule!(E2);
        if joint || self.membership.changes.is_proposing() {
            return Err(format!(
                "a change is in progress, from epoch {}",
                configuration.epoch
            ));
        }
        if self.is_unreadable(now) {
            let why = "the register of configurations has a record of another release, see the log";
            return Err(why.into());
        }
        let (epoch, target) = match configuration::two_epochs_after(configuration.epoch) {
            Some(epochs) => epochs,
            None => {
                return Err(
                    "all epochs are used up; `horseshoe member force` begins new ones".into(),
                );
            }
        };
        let next = Configuration {
            epoch,
            // If this one is joint (without E2), these are its new members, although nothing shows
            // yet that they hold everything.
            members: configuration
                .joint
                .clone()
                .unwrap_or(configuration.members.clone()),
            joint: Some(wanted.members),
            away: wanted.away,
            ids: wanted.ids,
            ..configuration.as_ref().clone()
        };
        next.check()?;
        self.propose(now, next);
        Ok(target)
    }

    fn propose(&mut self, now: Now, next: Configuration) {
        let sequence = self.run_own(now, Action::Get);
        self.membership.changes.proposal = Some(ConfigurationProposal { next, sequence });
    }

    /// Starts an operation of this node on the configuration's register.
    pub(in crate::protocol::replica) fn run_own(&mut self, now: Now, action: Action) -> u64 {
        if self.membership.changes.client == 0 {
            // Not one of the ids that stand for text clients.
            self.membership.changes.client = self.random.random::<u128>() | 1 << 127;
        }
        self.membership.changes.sequence += 1;
        let sequence = self.membership.changes.sequence;
        let client = self.membership.changes.client;
        let key = Key::configuration();
        let operation = Operation {
            id: OperationId { client, sequence },
            birth: self.clock.tick(now),
            low_mark: sequence,
            key: key.name().to_vec().into(),
            want_old: false,
            action,
        };
        let pending = Pending {
            operation: Arc::new(operation),
            step: None,
            reply: ReplyTo::Own { sequence },
            also: Vec::new(),
            tried: false,
            sent: false,
            arrived_us: now.mono_us,
            deadline_us: Pending::deadline_us(now, u32::MAX),
            received_us: Some(now.mono_us),
        };
        self.begin_operation(&pending.operation);
        self.run_here(now, key, pending);
        sequence
    }

    /// Returns whether there was an answer to handle.
    pub(in crate::protocol::replica) fn take_own_answers(&mut self, now: Now) -> bool {
        let Some((sequence, outcome)) = self.membership.changes.answers.pop_front() else {
            return false;
        };
        let awaited = self
            .membership
            .changes
            .proposal
            .take_if(|p| p.sequence == sequence);
        if let Some(proposal) = awaited {
            self.go_on(now, proposal.next, outcome);
        } else {
            self.looked(now, sequence, outcome);
        }
        true
    }

    fn go_on(&mut self, now: Now, next: Configuration, outcome: Outcome) {
        match outcome {
            Outcome::Value { version, value } => {
                let follows = self.may_follow(now, version, &value);
                if follows {
                    self.write(now, Some(version), next);
                }
            }
            Outcome::Absent => self.write(now, None, next),
            Outcome::Written { .. } => self.install(now, next),
            // The proposal was preempted, or its outcome is unknown: a node that still desires the
            // change checks again, and a configuration that was chosen nevertheless is found (E7).
            _ => {}
        }
    }

    /// Replaces the register's value of that version, or writes the first one if it has none.
    pub(in crate::protocol::replica) fn write(
        &mut self,
        now: Now,
        version: Option<Version>,
        next: Configuration,
    ) {
        let value = configuration::encode(&next);
        let write = match version {
            Some(version) => Action::CompareVersion { version, value },
            None => Action::PutIfAbsent { value },
        };
        let sequence = self.run_own(now, write);
        self.membership.changes.proposal = Some(ConfigurationProposal { next, sequence });
    }

    /// R1: installs a configuration, which must be known to be chosen.
    pub(in crate::protocol::replica) fn install(
        &mut self,
        now: Now,
        mut configuration: Configuration,
    ) {
        let epoch = configuration.epoch;
        // D1: whatever the new configuration contains, no key changes its bucket.
        if let Some(held) = &self.identity.configuration {
            configuration.spread = held.spread;
            configuration.name.clone_from(&held.name);
        }
        let (voted, is_first) = (self.identity.votes, self.identity.configuration.is_none());
        let held = self.identity.configuration.as_ref();
        if held.is_some_and(|held| !configuration.goes_on_from(held)) && rule!(E8_named) {
            // The node does not know what was chosen, and purged, in its epoch, so a node that the
            // force named comes back in a new incarnation (E4).
            self.identity.incarnation = self.random.random();
        }
        self.forget_replaced(&configuration);
        // Their rounds begin again.
        self.sending.take_resolves();
        self.adopt(configuration);
        if self.identity.votes && !voted && !is_first {
            self.durable.begin_life();
        }
        if !self.identity.votes && rule!(E4) {
            // E4: a node that was removed, or is not admitted in this epoch, asks for admission in
            // a new incarnation.
            self.identity.incarnation = self.random.random();
            self.durable.continue_as(self.identity.incarnation);
            self.membership.confirmation.begin_incarnation();
        }
        self.prove_anew(now);
        self.durable.install();
        self.abandon_change(now);
        self.keep_splits();
        self.send_configuration_to_all();
        self.check_links(now, true, false);
        if self.identity.votes && voted {
            for key in self.timers.keys() {
                self.coordinate(now, &key, Coordinator::handle_epoch_change);
            }
            self.restart_listing();
        } else {
            self.end_life(now);
        }
        self.restart_scans(now);
        self.restart_watches();
        self.restart_comparisons(now);
        self.carry_change_on(now);
        let votes = self.identity.votes;
        let installed = Event::ConfigurationInstalled { epoch, votes };
        self.sending.push(Output::Event(installed));
    }

    /// Ends this node's part in a change.
    pub(in crate::protocol::replica) fn abandon_change(&mut self, now: Now) {
        self.membership.changes.proposal = None;
        self.membership.uninstalled.forget();
        self.membership.changes.evidence = None;
        self.membership.changes.evidence_us = now.mono_us;
    }

    /// Makes a configuration the present one, whether it was installed now or in an earlier boot.
    pub(in crate::protocol::replica) fn adopt(&mut self, agreed: Configuration) {
        let configuration = self.take_agreed(agreed);
        let own = configuration
            .nodes()
            .find(|m| m.address == self.own_address());
        self.identity.node = own.map_or(0, |m| m.node);
        let own = configuration.voter(self.identity.node);
        self.identity.votes =
            own.is_some_and(|m| m.incarnation == self.identity.incarnation) || !rule!(E1);
        // B3: the clock must be above the base.
        self.hear_agreed(configuration.base.reading());
        let before = self.identity.configuration.as_deref();
        self.durable.note_former(before, &configuration);
        let nodes = configuration.nodes().map(|m| m.node);
        self.links.set_nodes(self.identity.node, nodes);
        self.membership
            .starts
            .retain(|node| configuration.nodes().any(|m| m.node == node));
        self.keys.adopt_spread(configuration.spread);
        self.identity.configuration = Some(configuration.into());
        self.identity.formation = None;
    }

    /// Sends the installed configuration to all other nodes, once it is durable.
    fn send_configuration_to_all(&mut self) {
        let Some(configuration) = self.identity.configuration.clone() else {
            return;
        };
        let me = self.identity.node;
        for node in configuration.nodes().filter(|m| m.node != me) {
            let reported = ConfigurationUpdate {
                configuration: configuration.clone(),
            };
            self.send(
                node.node,
                0,
                reported.into(),
                self.durable.installed_in(),
                Way::Usual,
            );
        }
    }

    /// At each heartbeat, and when a configuration was installed. E2: every member of a joint
    /// configuration completes it; the first reachable one does so at once, the others if that
    /// takes too long.
    pub(in crate::protocol::replica) fn carry_change_on(&mut self, now: Now) {
        let Some(configuration) = self.identity.configuration.clone() else {
            return;
        };
        if configuration.joint.is_none() || !self.identity.votes || !self.view.hears_quorum() {
            return;
        }
        if self.membership.changes.evidence.is_none() {
            let patience_us = self.patience_us(&configuration);
            if now.mono_us < self.membership.changes.evidence_us + patience_us {
                return;
            }
            let id = self.clock.round_id(now);
            self.membership.changes.evidence =
                Some(Evidence::new(id, self.keys.digests().spread()));
            self.membership.changes.evidence_us = now.mono_us;
        }
        let near = self.view.reachable().to_vec();
        let anew_us = self.answer_wait_us(EVIDENCE_RETRY_MS);
        let evidence = self
            .membership
            .changes
            .evidence
            .as_mut()
            .expect("just made");
        if now.mono_us >= self.membership.changes.evidence_us + anew_us {
            self.membership.changes.evidence_us = now.mono_us;
            evidence.look_anew();
        }
        let mut steps = evidence.steps(&configuration, &near, true);
        let silent = evidence.silent(&near);
        steps.extend(evidence.unrepaired().into_iter().map(Step::Repair));
        for (node, step) in silent {
            self.ask(node, &step);
        }
        self.take_steps(now, steps);
        self.complete_change(now);
    }

    pub(in crate::protocol::replica) fn is_gathering_evidence(&self, round: RoundId) -> bool {
        let evidence = self.membership.changes.evidence.as_ref();
        evidence.is_some_and(|evidence| evidence.id == round)
    }

    /// A member answers in the joint epoch, so it has installed the joint configuration (E3 a).
    pub(in crate::protocol::replica) fn handle_evidence_reply(
        &mut self,
        now: Now,
        envelope: Envelope,
    ) {
        let Some(configuration) = self.identity.configuration.clone() else {
            return;
        };
        if let Message::DigestsReply(reported) = &envelope.message {
            self.hear_clock(reported.clock);
        }
        let Some(evidence) = &mut self.membership.changes.evidence else {
            return;
        };
        let node = envelope.origin;
        let mut steps = Vec::new();
        match envelope.message {
            Message::DigestsReply(reported) => {
                evidence.add_digests(node, reported.clock, reported.sums);
            }
            Message::BucketReply(reported) => steps.extend(evidence.add_page(node, reported)),
            _ => {}
        }
        steps.extend(evidence.steps(&configuration, self.view.reachable(), false));
        self.take_steps(now, steps);
        self.complete_change(now);
    }

    fn take_steps(&mut self, now: Now, steps: Vec<Step>) {
        for step in steps {
            match &step {
                Step::AskDigests => {
                    for node in self.view.reachable().to_vec() {
                        self.ask(node, &step);
                    }
                }
                Step::AskBucket(node, ..) => self.ask(*node, &step),
                Step::Repair(key) => self.repair(now, key),
                Step::Complete => {}
            }
        }
    }

    fn ask(&mut self, node: NodeId, step: &Step) {
        let Some(round) = self.membership.changes.evidence.as_ref().map(|s| s.id) else {
            return;
        };
        let message = match step {
            Step::AskBucket(_, bucket, after) => BucketRequest {
                bucket: *bucket,
                after: after.clone(),
            }
            .into(),
            _ => DigestsRequest { total: None }.into(),
        };
        let group = self.ceiling_group().max(self.durable.installed_in());
        self.send(node, round, message, group, Way::Usual);
    }

    /// E3: once the evidence is complete, proposes the new configuration, until one is chosen.
    fn complete_change(&mut self, now: Now) {
        let evidence = self.membership.changes.evidence.as_ref();
        let Some(base) = evidence.filter(|s| s.is_complete()).map(|s| s.base()) else {
            return;
        };
        if self.membership.changes.is_proposing() {
            return;
        }
        let Some(configuration) = self.identity.configuration.clone() else {
            return;
        };
        let Some(members) = configuration.joint.clone() else {
            return;
        };
        let base = if rule!(E3_base) {
            base
        } else {
            configuration.base
        };
        let Some(epoch) = configuration::next_epoch(configuration.epoch) else {
            return;
        };
        // No node would accept this base.
        if base.reading() > FOLLOWED_LAST {
            self.note_ahead(now, self.identity.node, base.reading());
            return;
        }
        let base = base.max(configuration.base);
        let next = Configuration {
            epoch,
            admissions: configuration.admissions_with(&members, base),
            members,
            joint: None,
            forced: false,
            base,
            ..configuration.as_ref().clone()
        };
        self.propose(now, next);
    }
}
