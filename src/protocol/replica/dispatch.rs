//! Message dispatch: which node may send what (R1), the acceptor's answers, and the exchange of
//! configurations.

use std::sync::Arc;

use rand::RngExt;

use crate::protocol::keys::outbox::Way;
use crate::protocol::keys::resident::{Fetched, Waiting};
use crate::protocol::register::acceptor::{self, AcceptorBounds, Verdict};
use crate::protocol::replica::Replica;
use crate::protocol::replica::keys::Loaded;
use crate::protocol::types::ballot::Ballot;
use crate::protocol::types::configuration;
use crate::protocol::types::copy_purpose::CopyPurpose;
use crate::protocol::types::limits::BUSY_AFTER_MS;
use crate::protocol::types::message::{
    Accept, Accepted, AllAccepted, Chosen, ConfigurationRequest, ConfigurationUpdate, Copy,
    CopyAck, Destination, Envelope, GroupNumber, Message, Nack, NodeId, Now, Output, Prepare,
    Promise, Read, ReadAnswer, Resolve, ResolvePart, is_transit,
};
use crate::protocol::types::record::{AcceptorState, Key, Record};
use crate::protocol::types::rules::rule;
use crate::protocol::types::transaction::{Fate, Intent, resolved};

impl Replica {
    pub(super) fn handle_peer(&mut self, now: Now, cluster: u64, envelope: Envelope) {
        match &envelope.message {
            Message::Survey(_) | Message::SurveyAnswer(_) => {
                self.handle_survey(now, envelope);
                return;
            }
            Message::ConfigurationUpdate(reported) => {
                self.handle_configuration(now, &envelope, &reported.configuration);
                // Where links work in one direction only, it arrives through relays.
                if cluster == self.cluster() && is_transit(self.identity.node, envelope.destination)
                {
                    self.relay_message(now, envelope);
                }
                return;
            }
            _ => {}
        }
        let Some(configuration) = self.identity.configuration.clone() else {
            // A node has a configuration that this node does not have: R1, newer.
            if envelope.epoch > 0 {
                if let Some(bootstrap) = &mut self.identity.formation {
                    bootstrap.heard_cluster(now, cluster);
                }
                self.ask_configuration(now, &envelope);
            }
            return;
        };
        if cluster != 0 && cluster != configuration.cluster {
            self.note_other_cluster(now, cluster, envelope.origin);
            return;
        }
        if is_transit(self.identity.node, envelope.destination) {
            self.relay_message(now, envelope);
            return;
        }
        // Messages of this node to itself do not use the network.
        if envelope.origin == self.identity.node && self.identity.node != 0 {
            self.counts.dropped.stray += 1;
            return;
        }
        self.note_epoch(now, &envelope);
        if let Message::ConfigurationRequest(asked) = &envelope.message {
            if configuration.epoch > asked.epoch {
                self.offer_configuration(now, &envelope);
            }
            return;
        }
        // R1: a sender of an older epoch is sent the configuration, one of a newer epoch is asked
        // for it.
        let this_epoch = envelope.epoch == configuration.epoch;
        if envelope.epoch < configuration.epoch {
            self.offer_configuration(now, &envelope);
        } else if !this_epoch {
            self.note_newer(now);
            self.ask_configuration(now, &envelope);
        }
        // E8: in another lineage an id may belong to another node.
        let is_of_lineage =
            configuration::lineage_of(envelope.epoch) == configuration.lineage() || !rule!(E8_ids);
        let is_named = configuration.nodes().any(|m| m.node == envelope.origin);
        if !is_of_lineage || !is_named {
            self.counts.dropped.stray += 1;
            return;
        }
        let member = configuration.voter(envelope.origin);
        let counts = member.is_some_and(|m| m.incarnation == envelope.incarnation) || !rule!(E1);
        let (origin, via) = (envelope.origin, envelope.via);
        self.links.heard(via, now);
        if self.is_too_far_ahead(now, &envelope) {
            return;
        }
        match envelope.message {
            // These messages contain no state of registers, so they pass between epochs. A node
            // without a vote has links, and forwards operations, too.
            Message::Heartbeat(heartbeat) if via == origin => {
                self.handle_heartbeat(now, origin, heartbeat);
            }
            Message::Probe(_) => self.links.probed(via, now),
            // A node knows what it received before, whether it has a vote or not.
            Message::RolledBack(reported) => self.handle_rolled_back(now, &reported),
            Message::Forward(forward) => self.handle_forward(now, origin, via, forward),
            Message::ForwardAnswer(answer) => self.handle_forward_answer(now, answer),
            Message::ForwardStep(forward) if counts => {
                self.handle_forward_step(now, origin, via, forward);
            }
            Message::ForwardStepAnswer(answer) => self.handle_forward_step_answer(now, answer),
            // E4 depends on this: a request for admission belongs to its own epoch.
            Message::AdmissionRequest(_) if !rule!(E4) => {
                self.handle_learner_question(now, envelope);
            }
            _ if !this_epoch && rule!(R1) => self.counts.dropped.stray += 1,
            Message::DigestsRequest(_)
            | Message::BucketRequest(_)
            | Message::CopiesRequest(_)
            | Message::AdmissionRequest(_) => self.handle_learner_question(now, envelope),
            _ if counts => self.handle_member_message(now, envelope),
            _ => self.counts.dropped.stray += 1,
        }
    }

    /// From any node that the configuration names, with a vote or without.
    fn handle_learner_question(&mut self, now: Now, envelope: Envelope) {
        if !self.takes_part() {
            self.counts.dropped.stray += 1;
            return;
        }
        match &envelope.message {
            Message::DigestsRequest(_) if !self.may_send_digests(envelope.origin) => {}
            Message::DigestsRequest(asked) => {
                let asked = asked.clone();
                self.handle_digests_request(&envelope, &asked);
            }
            Message::BucketRequest(_) => self.handle_bucket_request(envelope),
            Message::CopiesRequest(_) => self.handle_copies_request(now, envelope),
            Message::AdmissionRequest(_) => self.handle_admission_request(now, &envelope),
            _ => self.counts.dropped.stray += 1,
        }
    }

    /// From a member in its present incarnation, or from this node itself.
    pub(super) fn handle_member_message(&mut self, now: Now, envelope: Envelope) {
        // R1: the message may have waited, here or for the disk, while the epoch changed.
        let epoch = self.identity.configuration.as_ref().map_or(0, |c| c.epoch);
        if envelope.epoch != epoch && rule!(R1) || self.is_split() {
            self.counts.dropped.stray += 1;
            return;
        }
        if self.cannot_write(&envelope) {
            self.counts.dropped.overflow += 1;
            return;
        }
        match &envelope.message {
            Message::DigestsRequest(_) | Message::BucketRequest(_) => {
                self.handle_learner_question(now, envelope);
            }
            Message::DigestsReply(_) | Message::BucketReply(_) => {
                self.handle_buckets_reply(now, envelope)
            }
            Message::DigestsEqual(reported) => {
                self.handle_digests_equal(now, envelope.origin, envelope.round, reported.total);
            }
            Message::RangeRequest(asked) if self.takes_part() => {
                let asked = asked.clone();
                self.handle_range_request(&envelope, asked);
            }
            Message::RangeEqual(_) | Message::RangeReply(_) => {
                self.handle_range_answer(now, envelope);
            }
            Message::Purge(_) if self.takes_part() => self.handle_purge(now, envelope),
            Message::Copy(_) if envelope.copy_purpose() != Some(CopyPurpose::Hint) => {
                self.handle_fetched(now, envelope);
            }
            _ if self.takes_part() => self.handle_register_message(now, envelope),
            _ => self.counts.dropped.stray += 1,
        }
    }

    /// The answers to requests about buckets, whatever the request was for.
    fn handle_buckets_reply(&mut self, now: Now, envelope: Envelope) {
        if let Message::DigestsReply(reported) = &envelope.message
            && reported.sums.buckets() != Some(self.keys.digests().spread().buckets())
        {
            self.counts.dropped.stray += 1;
            return;
        }
        if self.is_gathering_evidence(envelope.round) {
            self.handle_evidence_reply(now, envelope);
        } else {
            self.handle_bucket_reply(now, envelope);
        }
    }

    /// Messages about one key.
    pub(super) fn handle_register_message(&mut self, now: Now, envelope: Envelope) {
        let Some(question) = AcceptorQuestion::of(&envelope.message) else {
            match envelope.message {
                Message::CopyAck(copied) => self.handle_copied(now, envelope.origin, &copied),
                Message::Chosen(reported) => self.note_chosen(reported),
                Message::Resolve(_) => self.handle_resolve(now, envelope),
                Message::AllAccepted(_) => self.handle_all_accepted(now, envelope),
                _ => self.handle_answer(now, envelope),
            }
            return;
        };
        let key = question.key();
        // The answer waits for the disk, so answers would accumulate in memory while the disk is
        // hung.
        let waits = !matches!(question, AcceptorQuestion::Read(_));
        if waits && self.identity.votes && !self.runs_rounds_of(key) {
            self.counts.dropped.overflow += 1;
        } else if let Some(loaded) = self.keys.loaded(key) {
            self.handle_question(now, &envelope, &question, loaded);
        } else {
            let key = key.clone();
            self.wait_for(key, Waiting::Peer(envelope));
        }
    }

    pub(super) fn wait_for(&mut self, key: Key, waiting: Waiting) {
        match self.keys.wait(&key, waiting) {
            Fetched::Load => self.sending.push(Output::Load(key)),
            Fetched::Waits => {}
            Fetched::Resident => unreachable!("the caller looked"),
            Fetched::Overflow(waiting) => match *waiting {
                Waiting::Peer(_) => self.counts.dropped.overflow += 1,
                Waiting::Operation(pending) => self.answer_busy(pending, BUSY_AFTER_MS),
                // These are checked again when they are overdue.
                Waiting::Copy(_) | Waiting::Repair | Waiting::Look | Waiting::Work(..) => {}
            },
        }
    }

    /// A member's answer to a round of this node.
    fn handle_answer(&mut self, now: Now, envelope: Envelope) {
        // A round that is over has no key any more: its late answers only show which members missed
        // nothing.
        if let Some(key) = self.keys.key_of_round(envelope.round).cloned() {
            let Envelope {
                origin,
                round,
                message,
                ..
            } = envelope;
            self.coordinate(now, &key, |coordinator, context| {
                coordinator.handle_message(origin, round, message, context);
            });
        } else if let Message::Accepted(_) = envelope.message {
            self.catchup
                .chosen_rounds
                .accepted(envelope.round, envelope.origin);
        }
    }

    /// T5: each part is an Accept of a record that this node derives from its own. If its own is
    /// another one, the part is not answered, and the round's next Accept brings the record.
    fn handle_resolve(&mut self, now: Now, envelope: Envelope) {
        let Message::Resolve(Resolve { parts }) = envelope.message else {
            return;
        };
        let (mut rounds, mut last_group) = (Vec::new(), 0);
        for part in parts {
            if self.identity.votes && !self.runs_rounds_of(&part.key) {
                self.counts.dropped.overflow += 1;
                continue;
            }
            let terms = self.terms();
            let Some(loaded) = self.keys.loaded(&part.key) else {
                // The round's next Accept finds it loaded.
                self.wait_for(part.key, Waiting::Look);
                continue;
            };
            let Some(record) = resolved_by(&part, &self.keys.at(loaded).state, terms) else {
                continue;
            };
            let accept = Accept {
                key: part.key.clone(),
                ballot: part.over.next(),
                record,
            };
            let asked = Envelope {
                round: part.round,
                message: accept.into(),
                ..envelope
            };
            let question = AcceptorQuestion::of(&asked.message).expect("an Accept");
            match self.decide(now, &asked, &question, loaded) {
                Some((Message::Accepted(accepted), group)) => {
                    rounds.push((part.round, accepted.ballot));
                    last_group = group.max(last_group);
                }
                Some((answer, group)) => {
                    let way = Way::Back(envelope.via);
                    self.send(envelope.origin, part.round, answer, group, way);
                }
                None => {}
            }
        }
        if !rounds.is_empty() {
            let (answer, way) = (AllAccepted { rounds }, Way::Back(envelope.via));
            self.send(envelope.origin, 0, answer.into(), last_group, way);
        }
    }

    fn handle_all_accepted(&mut self, now: Now, envelope: Envelope) {
        let Message::AllAccepted(AllAccepted { rounds }) = envelope.message else {
            return;
        };
        for (round, ballot) in rounds {
            let message = Accepted { ballot }.into();
            let answer = Envelope {
                round,
                message,
                ..envelope
            };
            self.handle_answer(now, answer);
        }
    }

    /// `loaded` is the key of the request.
    fn handle_question(
        &mut self,
        now: Now,
        envelope: &Envelope,
        question: &AcceptorQuestion<'_>,
        loaded: Loaded<'_>,
    ) {
        if let Some((answer, group)) = self.decide(now, envelope, question, loaded) {
            let (to, way) = (envelope.origin, Way::Back(envelope.via));
            self.send(to, envelope.round, answer, group, way);
        }
    }

    /// The acceptor's part: the answer, and the group that must be durable before it leaves.
    fn decide(
        &mut self,
        now: Now,
        envelope: &Envelope,
        question: &AcceptorQuestion<'_>,
        loaded: Loaded<'_>,
    ) -> Option<(Message, GroupNumber)> {
        let terms = self.terms();
        let (origin, round, ballot) = (envelope.origin, envelope.round, question.ballot());
        let (verdict, answer) = self.change_key(loaded, |state| {
            let (verdict, answer) = answer(state, question, terms);
            (verdict == Verdict::Granted, (verdict, answer))
        });
        let resident = self.keys.at(loaded);
        if verdict == Verdict::Contradicted {
            let coordinator = resident.coordinator.as_ref();
            let writes = coordinator.is_some_and(|c| c.writes_in(round));
            // Messages of other nodes may carry a ballot of this node before this node has issued
            // it.
            let is_own = resident.own == ballot;
            let key = loaded.key();
            assert!(
                origin != self.identity.node || !writes || !is_own,
                "this node has issued ballot {ballot} of {key:?} twice (B1)"
            );
            self.note_contradiction(now, key, ballot, origin);
            return None;
        }
        let is_accepted = question.accepts() && verdict == Verdict::Granted;
        // B1: the clock is above everything promised or accepted, and above this node's own
        // next(b).
        if origin != self.identity.node || rule!(B1_next) {
            self.clock.observe(ballot.reading());
            if is_accepted {
                self.clock.observe(ballot.next().reading());
            }
        }
        if is_accepted && origin == self.identity.node {
            resident.own = ballot;
        }
        let is_under_floor = is_under_floor(terms.vote(&resident.state, rule!(E5_floor)));
        let group = self.durable.answer_in(resident.group, is_under_floor);
        if let (AcceptorQuestion::Copy(copy), Verdict::Repeated) = (question, verdict) {
            self.mark_chosen(copy.key.clone(), ballot);
        }
        Some((answer, group))
    }

    fn note_chosen(&mut self, reported: Chosen) {
        for (key, ballot) in reported.chosen {
            self.mark_chosen(key, ballot);
        }
    }

    pub(super) fn terms(&self) -> AcceptorBounds {
        let configuration = self.identity.configuration.as_ref();
        let base = configuration.map_or(Ballot::ZERO, |c| c.base);
        self.durable.acceptor_bounds(base)
    }

    pub(super) fn offer_configuration(&mut self, now: Now, asked: &Envelope) {
        if self.view.may_exchange(now, asked.origin) {
            self.send_configuration(asked);
        }
    }

    /// Sends the configuration, even if it was sent or requested very recently.
    fn send_configuration(&mut self, asked: &Envelope) {
        let Some(configuration) = self.identity.configuration.clone() else {
            return;
        };
        let address = match &asked.message {
            Message::ConfigurationRequest(asked) => Some(asked.address.as_str()),
            Message::Survey(survey) => {
                let listed = self.options.list.get(usize::from(survey.index));
                listed.map(String::as_str)
            }
            // A node that was removed learns of it, too.
            _ => self
                .address_of(asked.origin)
                .or_else(|| self.durable.former_address(asked.origin)),
        };
        // An address that the cluster does not know may belong to any host.
        let is_known = |address: &&str| {
            let named = configuration.nodes().any(|m| m.address == *address);
            let listed = self.options.list.iter().any(|listed| listed == address);
            let former = self.durable.former_addresses().any(|f| f == *address);
            (named || listed || former) && *address != self.own_address()
        };
        let Some(to) = address.filter(is_known).map(str::to_owned) else {
            self.counts.dropped.stray += 1;
            return;
        };
        self.send_configuration_at(asked.origin, &to);
    }

    /// Messages that depend on the node's own state leave only once that is durable.
    pub(super) fn send_configuration_at(&mut self, node: NodeId, address: &str) {
        let Some(configuration) = self.identity.configuration.clone() else {
            return;
        };
        if address != self.own_address() && self.durable.is_installed() {
            let reported = ConfigurationUpdate { configuration };
            let envelope = self.envelope(node, 0, reported.into());
            self.send_round_about(&envelope, address);
            self.sending.push(Output::Send {
                to: Destination::Address(address.into()),
                envelope,
            });
        }
    }

    fn ask_configuration(&mut self, now: Now, envelope: &Envelope) {
        if !self.view.may_exchange(now, envelope.origin) {
            return;
        }
        // Without a configuration ids mean nothing: any listed node may know this one's.
        let known = self.address_of(envelope.origin).map(Arc::from);
        let to = known.map_or_else(|| self.any_listed(), Destination::Address);
        let epoch = self.identity.configuration.as_ref().map_or(0, |c| c.epoch);
        let message = ConfigurationRequest {
            epoch,
            address: self.own_address().to_owned(),
        }
        .into();
        let envelope = self.envelope(envelope.origin, 0, message);
        if let Destination::Address(address) = &to {
            self.send_round_about(&envelope, address);
        }
        self.sending.push(Output::Send { to, envelope });
    }

    /// Also sends through relays if the direct link does not work. Ids may mean something else to
    /// the receiver; its address does not.
    fn send_round_about(&mut self, envelope: &Envelope, address: &str) {
        let node = envelope.destination;
        let is_straight = self.links.next_hop(node) == node;
        if !is_straight && self.address_of(node) == Some(address) {
            self.dispatch(envelope.clone(), Way::Usual);
        }
    }

    /// A listed node, chosen at random for each message.
    fn any_listed(&mut self) -> Destination {
        let others = self.options.list.len() as u8 - 1;
        let place = self.random.random_range(0..others.max(1));
        Destination::Listed(place + u8::from(place >= self.options.index))
    }
}

/// Whether the node's floor determines its answer for a key: where it has accepted nothing.
fn is_under_floor(vote: Option<&AcceptorState>) -> bool {
    vote.is_none_or(|state| state.accepted == Ballot::ZERO)
}

/// R2: an answer with a record carries no floor, so that it need not wait for the floor to be
/// durable.
fn reported_floor(vote: Option<&AcceptorState>, terms: AcceptorBounds) -> Ballot {
    match is_under_floor(vote) {
        true => terms.floor,
        false => Ballot::ZERO,
    }
}

/// T5: the record of a part, if the acceptor holds the one before it.
fn resolved_by(
    part: &ResolvePart,
    state: &Option<AcceptorState>,
    terms: AcceptorBounds,
) -> Option<Arc<Record>> {
    let state = terms.vote(state, rule!(E5_accepted))?;
    let record = state
        .record
        .as_ref()
        .filter(|_| state.accepted == part.over)?;
    let intent = Intent::decode(record.intent.as_ref()?).ok()?;
    let fate = match part.committed {
        true => Fate::Committed,
        false => Fate::Void,
    };
    let mut made = record.as_ref().clone();
    resolved(&mut made, intent, fate);
    Some(made.into())
}

/// What a round of another node, or of this one, asks an acceptor.
#[derive(Debug, Clone, Copy)]
enum AcceptorQuestion<'m> {
    Prepare(&'m Prepare),
    Accept(&'m Accept),
    Copy(&'m Copy),
    Read(&'m Read),
}

impl<'m> AcceptorQuestion<'m> {
    fn of(message: &'m Message) -> Option<Self> {
        match message {
            Message::Prepare(prepare) => Some(AcceptorQuestion::Prepare(prepare)),
            Message::Accept(accept) => Some(AcceptorQuestion::Accept(accept)),
            Message::Copy(copy) => Some(AcceptorQuestion::Copy(copy)),
            Message::Read(read) => Some(AcceptorQuestion::Read(read)),
            _ => None,
        }
    }

    fn key(self) -> &'m Key {
        match self {
            AcceptorQuestion::Prepare(prepare) => &prepare.key,
            AcceptorQuestion::Accept(accept) => &accept.key,
            AcceptorQuestion::Copy(copy) => &copy.key,
            AcceptorQuestion::Read(read) => &read.key,
        }
    }

    fn ballot(self) -> Ballot {
        match self {
            AcceptorQuestion::Prepare(prepare) => prepare.ballot,
            AcceptorQuestion::Accept(accept) => accept.ballot,
            AcceptorQuestion::Copy(copy) => copy.ballot,
            AcceptorQuestion::Read(_) => Ballot::ZERO,
        }
    }

    /// Whether the request contains a record to accept.
    fn accepts(self) -> bool {
        matches!(
            self,
            AcceptorQuestion::Accept(_) | AcceptorQuestion::Copy(_)
        )
    }
}

/// Applies a request to an acceptor, and returns its answer.
fn answer(
    state: &mut Option<AcceptorState>,
    question: &AcceptorQuestion<'_>,
    terms: AcceptorBounds,
) -> (Verdict, Message) {
    match question {
        AcceptorQuestion::Prepare(Prepare { ballot, .. }) => {
            let ballot = *ballot;
            let verdict = acceptor::prepare(state, ballot, terms);
            if let Verdict::Refused(promised) = verdict {
                return (verdict, Nack { ballot, promised }.into());
            }
            let vote = terms.vote(state, true);
            let (accepted, record) = match vote {
                Some(state) => (state.accepted, state.record.clone()),
                None => (Ballot::ZERO, None),
            };
            let promise = Promise {
                ballot,
                accepted,
                record,
                floor: reported_floor(vote, terms),
            };
            (verdict, promise.into())
        }
        AcceptorQuestion::Accept(Accept { ballot, record, .. }) => {
            let ballot = *ballot;
            let verdict = acceptor::accept(state, ballot, record, terms);
            match verdict {
                Verdict::Refused(promised) => (verdict, Nack { ballot, promised }.into()),
                _ => (verdict, Accepted { ballot }.into()),
            }
        }
        AcceptorQuestion::Copy(copy) => {
            let verdict = acceptor::copy(state, copy.ballot, &copy.record, terms);
            let refused_for = match verdict {
                Verdict::Refused(promised) => Some(promised),
                _ => None,
            };
            let copied = CopyAck {
                key: copy.key.clone(),
                ballot: copy.ballot,
                refused_for,
            };
            (verdict, copied.into())
        }
        AcceptorQuestion::Read(read) => {
            let vote = terms.vote(state, rule!(E5_read));
            let (accepted, chosen, record) = match vote {
                Some(s) => (s.accepted, s.chosen, s.record.clone()),
                None => (Ballot::ZERO, false, None),
            };
            let record = record.filter(|_| accepted != read.holds);
            let answer = ReadAnswer {
                accepted,
                chosen,
                record,
                floor: reported_floor(vote, terms),
            };
            (Verdict::Repeated, answer.into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::types::record::Record;

    /// E5: a record accepted in an earlier life is reported to no node.
    #[test]
    fn state_of_an_earlier_life_is_not_told() {
        let terms = AcceptorBounds {
            floor: Ballot::new(7, 2),
            life: 3,
            ..AcceptorBounds::default()
        };
        let cache = AcceptorState {
            promised: Ballot::new(6, 1),
            accepted: Ballot::new(5, 1),
            chosen: true,
            record: Some(Record::default().into()),
            life: 2,
        };
        let key = Key::user(b"k");
        let ballot = Ballot::new(9, 1);
        let holds = Ballot::ZERO;
        let read = Read {
            key: key.clone(),
            holds,
        };
        for question in [Prepare { key, ballot }.into(), Message::from(read)] {
            let question = AcceptorQuestion::of(&question).expect("a question");
            let of_cache = answer(&mut Some(cache.clone()), &question, terms);
            assert_eq!(of_cache, answer(&mut None, &question, terms));
        }
    }
}
