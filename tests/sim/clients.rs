//! Simulated clients: the client library's session, driven by the simulation.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use horseshoe::protocol::types::message::{
    ClientMessage, ClientReply, decode_client, encode_reply,
};
use kvclient::session::{self, CallError, Completion, Session, SessionOptions};
use wire::{Action, Outcome};

use super::cluster::{Cluster, endpoint};
use super::event::{Event, Parcel};
use super::history::{Ending, RecordedCall, show};
use super::network::Place;
use super::random::Random;
use super::text::TextClient;
use super::watchers::watcher_of;

pub struct Client {
    pub index: usize,
    /// `None` once the client is gone.
    pub session: Option<Session>,
    /// In place of a session.
    text: Option<TextClient>,
    /// The earliest scheduled wake-up.
    pub wake_us: Option<u64>,
    in_flight: usize,
    /// The key of each attempt (a session never reuses their numbers), and of each id of text.
    attempts: BTreeMap<u64, Bytes>,
    /// Replies to a client that a scenario controls by hand.
    pub by_hand: Option<Vec<(usize, ClientReply)>>,
    /// Whether the client runs no operations, but requests membership changes, or watches.
    operates: bool,
    /// Calls of watchers that have ended.
    watched: VecDeque<(usize, Result<Outcome, CallError>)>,
}

impl Client {
    pub fn new(
        index: usize,
        nodes: usize,
        cluster: u64,
        no_quorum_after_us: Option<u64>,
        mut random: Random,
        now_us: u64,
    ) -> Self {
        let picked_us = *random.pick(&[200_000, 1_000_000, 1_000_000, 3_000_000]);
        let options = SessionOptions {
            client: u128::from(random.word()) << 64 | u128::from(random.word()),
            seed: random.word(),
            nodes,
            deadline_us: session::DEADLINE_US_DEFAULT,
            no_quorum_after_us: no_quorum_after_us.unwrap_or(picked_us),
            cluster,
            library_version: "simulated".into(),
        };
        Client {
            index,
            session: Some(Session::new(options, now_us)),
            text: None,
            wake_us: None,
            in_flight: 0,
            attempts: BTreeMap::new(),
            by_hand: None,
            operates: false,
            watched: VecDeque::new(),
        }
    }

    pub fn of_text(index: usize, text: TextClient) -> Self {
        Client {
            text: Some(text),
            by_hand: None,
            ..Client::by_hand(index)
        }
    }

    /// A client without a session: the driver sends each message.
    pub fn by_hand(index: usize) -> Self {
        Client {
            index,
            session: None,
            text: None,
            wake_us: None,
            in_flight: 0,
            attempts: BTreeMap::new(),
            by_hand: Some(Vec::new()),
            operates: false,
            watched: VecDeque::new(),
        }
    }

    pub fn is_there(&self) -> bool {
        !self.operates && (self.session.is_some() || self.text.is_some())
    }

    pub fn is_text(&self) -> bool {
        self.text.is_some()
    }

    pub fn is_idle(&self) -> bool {
        !self.is_there() || self.in_flight == 0
    }

    /// The text client, which is about to begin a request.
    pub(super) fn begin_text(&mut self) -> &mut TextClient {
        self.in_flight += 1;
        self.text.as_mut().expect("a text client that is there")
    }

    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// The process dies, and no client learns the outcome of its operations in progress.
    pub fn crash(&mut self) {
        self.session = None;
        self.text = None;
    }

    pub fn receive(&mut self, now_us: u64, from: usize, reply: &ClientReply) {
        // Another client may have sent a request in its name.
        let is_text = matches!(reply, ClientReply::Sessionless { .. });
        if let Some(session) = self.session.as_mut().filter(|_| !is_text) {
            let mut body = Vec::new();
            let kind = encode_reply(reply, &mut body);
            session.handle_frame(now_us, from, kind, &body);
        }
        if let Some(text) = &mut self.text {
            text.receive(reply);
        }
        if let Some(received) = &mut self.by_hand {
            received.push((from, reply.clone()));
        }
    }

    pub fn wake(&mut self, now_us: u64) {
        if let Some(session) = &mut self.session {
            session.handle_timeout(now_us);
        }
        if let Some(text) = &mut self.text {
            text.wake(now_us);
        }
    }

    pub fn next_us(&self) -> Option<u64> {
        if let Some(text) = &self.text {
            return text.next_us();
        }
        self.session.as_ref()?.next_timeout()
    }

    pub fn poll_send(&mut self) -> Option<(usize, ClientMessage)> {
        if let Some(text) = &mut self.text {
            let (node, message) = text.poll_send()?;
            if let ClientMessage::Sessionless { id, key, .. } = &message {
                self.attempts.insert(*id, key.clone());
            }
            return Some((node, message));
        }
        let transmit = self.session.as_mut()?.poll_transmit()?;
        let message = decode_client(transmit.kind, &transmit.body);
        let message = message
            .expect("a session's frames decode")
            .expect("and are known");
        if let ClientMessage::Request(request) = &message {
            self.attempts
                .insert(request.attempt, request.operation.key.clone());
        }
        Some((transmit.node, message))
    }

    /// The operation that ended, by its index in the cluster's list.
    pub fn poll_ended(&mut self) -> Option<(usize, Ending)> {
        if let Some(text) = &mut self.text {
            let ended = text.poll_ended()?;
            self.in_flight -= 1;
            return Some(ended);
        }
        loop {
            let completion = self.session.as_mut()?.poll_completion()?;
            if let Some(watcher) = watcher_of(completion.tag) {
                self.watched.push_back((watcher, completion.result));
                continue;
            }
            self.in_flight -= 1;
            return Some((completion.tag as usize, ending(completion)));
        }
    }

    /// The key that a reply is about.
    pub fn asked(&self, reply: &ClientReply) -> Option<Bytes> {
        match reply {
            ClientReply::Answer(answer) => self.attempts.get(&answer.attempt).cloned(),
            ClientReply::Sessionless { id, .. } => self.attempts.get(id).cloned(),
            _ => None,
        }
    }
}

fn ending(completion: Completion) -> Ending {
    Ending::Answered(match completion.result {
        Ok(outcome) => outcome,
        Err(CallError::NoQuorum { .. }) => Outcome::NoQuorum {
            reached: Vec::new(),
        },
        Err(CallError::TimedOut) => return Ending::TimedOut,
        Err(CallError::UnknownOutcome) => Outcome::Unknown,
        Err(CallError::Busy) => Outcome::Busy { after_ms: 0 },
        Err(CallError::Full(full)) => Outcome::Full { full },
        Err(CallError::TooLarge { limit, .. }) => Outcome::TooLarge { limit },
        Err(CallError::NotANumber) => Outcome::NotANumber,
        Err(CallError::Overflow) => Outcome::Overflow,
        // Forged answers name another cluster. A client that meets two, and names none itself, is
        // not served at the end of a run, which the run detects.
        Err(CallError::TwoClusters { .. }) => Outcome::Unknown,
        Err(
            error @ (CallError::InvalidArgument(_) | CallError::Closed | CallError::WrongAnswer(_)),
        ) => panic!("no simulated client asks for this: {error}"),
    })
}

impl Cluster {
    /// Makes a client begin an operation; returns its index in `calls`.
    pub fn begin(
        &mut self,
        client: usize,
        key: &Bytes,
        action: Action,
        want_old: bool,
        deadline_us: u64,
    ) -> usize {
        let now_us = self.now_us;
        let index = self.note_call(client, key, &action, want_old);
        let deadline_us = Some(deadline_us);
        let call = session::Call {
            key: key.clone(),
            action,
            want_old,
            deadline_us,
            node: None,
        };
        let state = &mut self.clients[client];
        let session = state.session.as_mut().expect("the client is there");
        let taken = session.submit(now_us, call, index as u64);
        taken.expect("within the session's bounds");
        state.in_flight += 1;
        self.drain_client(client);
        index
    }

    /// Records that an operation begins; returns its index in `calls`.
    pub fn note_call(
        &mut self,
        client: usize,
        key: &Bytes,
        action: &Action,
        want_old: bool,
    ) -> usize {
        let called = self.tick();
        self.calls.push(RecordedCall {
            client,
            key: key.clone(),
            action: action.clone(),
            want_old,
            called,
            ended: None,
            called_us: self.now_us,
            ended_us: None,
            ending: Ending::Open,
        });
        self.calls.len() - 1
    }

    /// A new client; it knows all nodes.
    pub fn add_client(&mut self) -> usize {
        self.add_client_of(0)
    }

    /// A client that names its cluster, unless it is 0.
    pub fn add_client_of(&mut self, cluster: u64) -> usize {
        let index = self.clients.len();
        let random = Random::stream(self.settings.seed, 1_000 + index as u64);
        self.clients.push(Client::new(
            index,
            self.settings.nodes,
            cluster,
            self.settings.no_quorum_after_us,
            random,
            self.now_us,
        ));
        index
    }

    /// A client that requests membership changes; no fault strikes it.
    pub fn add_operator(&mut self) -> usize {
        let index = self.add_client();
        self.clients[index].operates = true;
        index
    }

    /// The client is gone; its operations in progress may still happen.
    pub fn crash_client(&mut self, client: usize) {
        self.trace
            .story(self.now_us, || format!("client {client} is gone"));
        self.clients[client].crash();
    }

    pub(super) fn wake_client(&mut self, client: usize) {
        let now_us = self.now_us;
        let state = &mut self.clients[client];
        if state.wake_us != Some(now_us) {
            return;
        }
        state.wake_us = None;
        state.wake(now_us);
        self.drain_client(client);
    }

    /// Sends the messages of the client's session, and records what has ended.
    pub fn drain_client(&mut self, client: usize) {
        self.drain_session(client);
        while let Some((watcher, result)) = self.clients[client].watched.pop_front() {
            self.watched(watcher, result);
            self.drain_session(client);
        }
    }

    fn drain_session(&mut self, client: usize) {
        let now_us = self.now_us;
        while let Some((node, message)) = self.clients[client].poll_send() {
            let mut from = endpoint(client);
            // Every other text client has a separate address for each node.
            if self.clients[client].is_text() && client % 2 == 1 {
                from.port += node as u16;
            }
            let parcel = Parcel::Request { from, message };
            self.send(Place::Client(client), Place::Node(node), parcel);
        }
        while let Some((index, ending)) = self.clients[client].poll_ended() {
            let tick = self.tick();
            let call = &mut self.calls[index];
            call.ended = Some(tick);
            call.ended_us = Some(now_us);
            call.ending = ending;
            self.trace.mix_words(&[now_us, index as u64]);
            self.trace.story(now_us, || {
                format!("client {client} key {}: {call}", show(&call.key))
            });
        }
        let state = &mut self.clients[client];
        if let Some(next_us) = state.next_us() {
            let at_us = next_us.max(now_us + 1);
            if state.wake_us.is_none_or(|set| set > at_us) {
                state.wake_us = Some(at_us);
                self.queue.push(at_us, Event::ClientWake { client });
            }
        }
    }
}
