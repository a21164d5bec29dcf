//! Messages of other nodes: who may say what (R1), the acceptor's answers, and sending.

use super::Replica;
use super::ballot::Ballot;
use super::bootstrap;
use super::cache::{Fetched, Waiting};
use super::message::{
    Accept, Accepted, Configuration, ConfigurationAsked, ConfigurationTold, Copied, Destination,
    Envelope, Event, Message, Nack, Now, Output, Prepare, Promise, ReadAnswer,
};
use super::outbox::Way;
use super::record::{AcceptorState, Key};
use super::register::{self, Verdict};
use super::rules::rule;

impl Replica {
    pub(super) fn handle_peer(&mut self, now: Now, cluster: u64, envelope: Envelope) {
        match &envelope.message {
            Message::Survey(_) | Message::SurveyAnswer(_) => {
                self.handle_survey(now, envelope);
                return;
            }
            Message::ConfigurationTold(told) => {
                self.handle_configuration(now, told.configuration.clone());
                return;
            }
            _ => {}
        }
        let Some(configuration) = self.configuration.clone() else {
            // Somebody has a configuration that this node does not: R1, newer.
            self.ask_configuration(&envelope);
            return;
        };
        if cluster != 0 && cluster != configuration.cluster {
            self.counters.stray += 1;
            return;
        }
        if self.is_transit(envelope.destination) {
            self.pass_on(now, envelope);
            return;
        }
        if let Message::ConfigurationAsked(_) = envelope.message {
            self.tell_configuration(&envelope);
            return;
        }
        if envelope.epoch != configuration.epoch {
            // R1: an older epoch is told the configuration, a newer one is asked for it.
            self.counters.stray += 1;
            if envelope.epoch < configuration.epoch {
                self.tell_configuration(&envelope);
            } else {
                self.ask_configuration(&envelope);
            }
            return;
        }
        let Some(member) = configuration.voter(envelope.origin) else {
            self.counters.stray += 1;
            return;
        };
        let counts = member.incarnation == envelope.incarnation || !rule!(E1);
        let (origin, via) = (envelope.origin, envelope.via);
        self.links.heard(via, now);
        match envelope.message {
            // A node without a vote has links, and forwards, too.
            Message::Heartbeat(heartbeat) if via == origin => {
                self.handle_heartbeat(now, origin, heartbeat);
            }
            Message::Forward(forward) => self.handle_forward(now, origin, via, forward),
            Message::ForwardAnswer(answer) => self.handle_forward_answer(now, answer),
            _ if counts => self.handle_register_message(now, envelope),
            _ => self.counters.stray += 1,
        }
    }

    /// Messages about one key, from a member by its present incarnation, or from this node itself.
    pub(super) fn handle_register_message(&mut self, now: Now, envelope: Envelope) {
        if !self.votes {
            self.counters.stray += 1;
            return;
        }
        let key = match &envelope.message {
            Message::Prepare(m) => &m.key,
            Message::Accept(m) => &m.key,
            Message::Copy(m) => &m.key,
            Message::Read(m) => &m.key,
            Message::Copied(_) => {
                self.handle_copied(now, envelope);
                return;
            }
            Message::Chosen(_) => {
                self.note_chosen(envelope);
                return;
            }
            _ => {
                self.handle_answer(now, envelope);
                return;
            }
        };
        if self.cache.resident(key).is_some() {
            self.handle_question(envelope);
        } else {
            let key = key.clone();
            self.wait_for(key, Waiting::Peer(envelope));
        }
    }

    pub(super) fn wait_for(&mut self, key: Key, waiting: Waiting) {
        match self.cache.wait(&key, waiting) {
            Fetched::Load => self.outputs.push_back(Output::Load(key)),
            Fetched::Waits => {}
            Fetched::Resident => unreachable!("the caller looked"),
            Fetched::Overflow(waiting) => match *waiting {
                Waiting::Peer(_) => self.counters.overflow += 1,
                Waiting::Operation(pending) => self.answer_busy(pending),
                // Looked at again when its answer is overdue.
                Waiting::Copy(_) => {}
            },
        }
    }

    /// A member's answer to a round of this node.
    fn handle_answer(&mut self, now: Now, envelope: Envelope) {
        // A round that is over has no key any more: its late answers tell only who has missed nothing.
        if let Some(key) = self.rounds.get(&envelope.round).cloned() {
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
            self.chosen_rounds.accepted(envelope.round, envelope.origin);
        }
    }

    /// The acceptor's part. The key is resident.
    pub(super) fn handle_question(&mut self, envelope: Envelope) {
        let floor = self.floor();
        let base = self.configuration.as_ref().map_or(Ballot::ZERO, |c| c.base);
        let Envelope {
            origin,
            round,
            via,
            message,
            ..
        } = envelope;
        let (key, ballot, accepts) = match &message {
            Message::Prepare(m) => (&m.key, m.ballot, false),
            Message::Accept(m) => (&m.key, m.ballot, true),
            Message::Copy(m) => (&m.key, m.ballot, true),
            Message::Read(m) => (&m.key, Ballot::ZERO, false),
            other => unreachable!("{} is no question", other.name()),
        };
        let resident = self.cache.resident(key).expect("the caller looked");
        let (verdict, answer) = answer(&mut resident.state, &message, base, floor);
        // B1: the clock is above all that is promised or accepted, this node's own next(b) too.
        if origin != self.node || rule!(B1_next) {
            self.clock.observe(ballot.reading());
            if accepts && verdict == Verdict::Granted {
                self.clock.observe(ballot.next().reading());
            }
        }
        if verdict == Verdict::Granted && resident.group != self.outbox.filling() {
            resident.group = self.outbox.change(key.clone());
        }
        // R2: the answer tells of the key's state as its last group has it.
        let group = resident.group;
        if let (Message::Copy(m), Verdict::Repeated) = (&message, verdict) {
            self.mark_chosen(m.key.clone(), ballot);
        }
        self.send(origin, round, answer, group, Way::Back(via));
    }

    fn note_chosen(&mut self, envelope: Envelope) {
        let Message::Chosen(m) = envelope.message else {
            return;
        };
        for (key, ballot) in m.chosen {
            self.mark_chosen(key, ballot);
        }
    }

    /// Nothing waits for the mark: it goes with the next group.
    pub(super) fn mark_chosen(&mut self, key: Key, ballot: Ballot) {
        if let Some(resident) = self.cache.resident(&key)
            && !register::mark_chosen(&mut resident.state, ballot)
        {
            return;
        }
        self.outbox.note_chosen(key, ballot);
    }

    /// The floor of keys without state; raised by purges, which are not there yet.
    pub(super) fn floor(&self) -> Ballot {
        Ballot::ZERO
    }

    /// What the node's own state says leaves only once it is durable.
    pub(super) fn tell_configuration(&mut self, asked: &Envelope) {
        let index = match &asked.message {
            Message::ConfigurationAsked(asked) => Some(asked.index),
            Message::Survey(survey) => Some(survey.index),
            _ => self.listed_index(asked.origin),
        };
        let index = index.filter(|index| usize::from(*index) < self.options.list.len());
        let Some(index) = index.filter(|index| *index != self.options.index) else {
            return;
        };
        let Some(configuration) = self.configuration.as_deref().cloned() else {
            return;
        };
        if self.outbox.is_durable(self.installed_in) {
            let told = ConfigurationTold { configuration };
            let envelope = self.envelope(asked.origin, 0, told.into());
            self.outputs.push_back(Output::Send {
                to: Destination::Listed(index),
                envelope,
            });
        }
    }

    fn ask_configuration(&mut self, envelope: &Envelope) {
        let Some(index) = self.listed_index(envelope.origin) else {
            self.counters.stray += 1;
            return;
        };
        let epoch = self.configuration.as_ref().map_or(0, |c| c.epoch);
        let message = ConfigurationAsked {
            epoch,
            index: self.options.index,
        }
        .into();
        let envelope = self.envelope(envelope.origin, 0, message);
        self.outputs.push_back(Output::Send {
            to: Destination::Listed(index),
            envelope,
        });
    }

    /// R1: installed only because it is known to be chosen; whoever tells it has installed it.
    fn handle_configuration(&mut self, _now: Now, told: Configuration) {
        let newer = match &self.configuration {
            None => {
                let address = &self.options.list[usize::from(self.options.index)];
                told.voters().any(|m| m.address == *address)
                    && bootstrap::may_install_first(&told, self.incarnation, self.meta.bound_to)
            }
            Some(held) => held.cluster == told.cluster && told.epoch > held.epoch,
        };
        if newer {
            self.install(told);
        }
    }

    pub(super) fn install(&mut self, configuration: Configuration) {
        let epoch = configuration.epoch;
        self.adopt(configuration);
        self.installed_in = self.outbox.change_meta();
        let votes = self.votes;
        self.outputs
            .push_back(Output::Event(Event::ConfigurationInstalled {
                epoch,
                votes,
            }));
    }

    /// Takes a configuration, installed now or in an earlier life, as the present one.
    pub(super) fn adopt(&mut self, configuration: Configuration) {
        let address = &self.options.list[usize::from(self.options.index)];
        let own = configuration.voters().find(|m| m.address == *address);
        self.node = own.map_or(0, |m| m.node);
        self.votes = own.is_some_and(|m| m.incarnation == self.incarnation) || !rule!(E1);
        // B3: the clock is above the base.
        self.clock.observe(configuration.base.reading());
        let nodes = configuration.voters().map(|m| m.node);
        self.links.set_nodes(self.node, nodes);
        self.hints
            .retain(|node, _| configuration.voter(*node).is_some());
        self.configuration = Some(configuration.into());
        self.bootstrap = None;
    }
}

/// What an acceptor does about a question, and says to it.
fn answer(
    state: &mut Option<AcceptorState>,
    question: &Message,
    base: Ballot,
    floor: Ballot,
) -> (Verdict, Message) {
    match question {
        Message::Prepare(Prepare { ballot, .. }) => {
            let ballot = *ballot;
            let verdict = register::prepare(state, ballot, base, floor);
            if let Verdict::Refused(promised) = verdict {
                return (verdict, Nack { ballot, promised }.into());
            }
            let (accepted, record) = match state {
                Some(state) => (state.accepted, state.record.clone()),
                None => (Ballot::ZERO, None),
            };
            let promise = Promise {
                ballot,
                accepted,
                record,
                floor,
            };
            (verdict, promise.into())
        }
        Message::Accept(Accept { ballot, record, .. }) => {
            let ballot = *ballot;
            let verdict = register::accept(state, ballot, record, base, floor);
            match verdict {
                Verdict::Refused(promised) => (verdict, Nack { ballot, promised }.into()),
                _ => (verdict, Accepted { ballot }.into()),
            }
        }
        Message::Copy(copy) => {
            let verdict = register::copy(state, copy.ballot, &copy.record, base, floor);
            let refused_for = match verdict {
                Verdict::Refused(promised) => Some(promised),
                _ => None,
            };
            let copied = Copied {
                key: copy.key.clone(),
                ballot: copy.ballot,
                refused_for,
            };
            (verdict, copied.into())
        }
        Message::Read(read) => {
            let (accepted, chosen, record) = match state {
                Some(s) => (s.accepted, s.chosen, s.record.clone()),
                None => (Ballot::ZERO, false, None),
            };
            let record = record.filter(|_| accepted != read.holds);
            let answer = ReadAnswer {
                accepted,
                chosen,
                record,
                floor,
            };
            (Verdict::Repeated, answer.into())
        }
        other => unreachable!("{} is no question", other.name()),
    }
}
