//! Messages of other nodes: who may say what (R1), the acceptor's answers, and sending.

use super::Replica;
use super::ballot::Ballot;
use super::bootstrap;
use super::cache::{Fetched, Waiting};
use super::message::{
    Accepted, Configuration, ConfigurationAsked, ConfigurationTold, Destination, Envelope, Event,
    Message, Nack, Now, Output, Promise, ReadAnswer,
};
use super::outbox::Way;
use super::record::Key;
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
            Message::Read(m) => &m.key,
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
            },
        }
    }

    /// A member's answer to a round of this node.
    fn handle_answer(&mut self, now: Now, envelope: Envelope) {
        // A round that is over has no key any more: its late answers are nobody's.
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
        let (key, ballot) = match &message {
            Message::Prepare(m) => (&m.key, m.ballot),
            Message::Accept(m) => (&m.key, m.ballot),
            Message::Read(m) => (&m.key, Ballot::ZERO),
            other => unreachable!("{} is no question", other.name()),
        };
        // B1: the clock is above all that is promised or accepted, this node's own next(b) too.
        let observes = origin != self.node || rule!(B1_next);
        if observes {
            self.clock.observe(ballot.reading());
        }
        let resident = self.cache.resident(key).expect("the caller looked");
        let state = &mut resident.state;
        let (verdict, answer): (Verdict, Message) = match &message {
            Message::Prepare(_) => match register::prepare(state, ballot, base, floor) {
                Verdict::Refused(promised) => (Verdict::Repeated, Nack { ballot, promised }.into()),
                granted => {
                    let (accepted, record) = match &state {
                        Some(state) => (state.accepted, state.record.clone()),
                        None => (Ballot::ZERO, None),
                    };
                    (
                        granted,
                        Promise {
                            ballot,
                            accepted,
                            record,
                            floor,
                        }
                        .into(),
                    )
                }
            },
            Message::Accept(m) => match register::accept(state, ballot, &m.record, base, floor) {
                Verdict::Refused(promised) => (Verdict::Repeated, Nack { ballot, promised }.into()),
                granted => {
                    if observes {
                        self.clock.observe(ballot.next().reading());
                    }
                    (granted, Accepted { ballot }.into())
                }
            },
            Message::Read(m) => {
                let (accepted, chosen, record) = match &state {
                    Some(s) => (s.accepted, s.chosen, s.record.clone()),
                    None => (Ballot::ZERO, false, None),
                };
                let record = record.filter(|_| accepted != m.holds);
                (
                    Verdict::Repeated,
                    ReadAnswer {
                        accepted,
                        chosen,
                        record,
                        floor,
                    }
                    .into(),
                )
            }
            other => unreachable!("{} is no question", other.name()),
        };
        if verdict == Verdict::Granted && resident.group != self.outbox.filling() {
            resident.group = self.outbox.change(key.clone());
        }
        // R2: the answer tells of the key's state as its last group has it.
        let group = resident.group;
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
        self.configuration = Some(configuration.into());
        self.bootstrap = None;
    }
}
