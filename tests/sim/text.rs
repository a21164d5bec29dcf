//! Simulated text clients, which behave like Firecloud's client: a request goes to one node and,
//! after 8, 13 and 50 ms without an answer, to another node or to none any more, each time under
//! the same id. A request ends at once when `FL` was received three times.

use std::collections::VecDeque;

use bytes::Bytes;
use horseshoe::gateway::text;
use horseshoe::protocol::types::message::{ClientMessage, ClientReply};
use wire::{Action, Outcome};

use super::clients::Client;
use super::cluster::Cluster;
use super::history::Ending;
use super::random::Random;

const WAITS_US: [u64; 3] = [8_000, 13_000, 50_000];
const FAILURES_MAX: usize = 3;

pub struct TextClient {
    nodes: usize,
    random: Random,
    next_id: u64,
    request: Option<Request>,
    sends: VecDeque<(usize, ClientMessage)>,
    ended: Option<(usize, Ending)>,
}

/// The request in progress.
struct Request {
    /// The index in the cluster's list.
    call: usize,
    id: u64,
    message: ClientMessage,
    first_node: usize,
    sent: usize,
    failures: usize,
    due_us: u64,
}

impl TextClient {
    /// Clients that start in the same second share their ids.
    pub fn new(nodes: usize, random: Random, now_us: u64) -> Self {
        TextClient {
            nodes,
            random,
            next_id: now_us / 1_000_000,
            request: None,
            sends: VecDeque::new(),
            ended: None,
        }
    }

    fn begin(&mut self, now_us: u64, call: usize, key: Bytes, action: Action) {
        assert!(self.request.is_none(), "one request at a time");
        let id = self.next_id;
        self.next_id += 1;
        self.request = Some(Request {
            call,
            id,
            message: ClientMessage::Sessionless { id, key, action },
            first_node: self.random.below(self.nodes as u64) as usize,
            sent: 0,
            failures: 0,
            due_us: now_us,
        });
        self.wake(now_us);
    }

    pub fn wake(&mut self, now_us: u64) {
        let Some(request) = &mut self.request else {
            return;
        };
        if request.due_us > now_us {
            return;
        }
        let Some(wait_us) = WAITS_US.get(request.sent) else {
            self.end(Outcome::Unknown);
            return;
        };
        let node = (request.first_node + request.sent) % self.nodes;
        request.sent += 1;
        request.due_us = now_us + wait_us;
        self.sends.push_back((node, request.message.clone()));
    }

    /// The client learns only what the outcome's text says; the rest is for the checker.
    pub fn receive(&mut self, reply: &ClientReply) {
        let (ClientReply::Sessionless { id, outcome }, Some(request)) = (reply, &mut self.request)
        else {
            return;
        };
        if *id != request.id {
            return;
        }
        let said = text::answer(*id, outcome).expect("what is not told is not sent");
        if said != text::failed(*id) {
            self.end(outcome.clone());
            return;
        }
        request.failures += 1;
        if request.failures >= FAILURES_MAX {
            self.end(Outcome::Unknown);
        }
    }

    fn end(&mut self, outcome: Outcome) {
        let request = self.request.take().expect("the caller looked");
        self.ended = Some((request.call, Ending::Answered(outcome)));
    }

    pub fn next_us(&self) -> Option<u64> {
        self.request.as_ref().map(|request| request.due_us)
    }

    pub fn poll_send(&mut self) -> Option<(usize, ClientMessage)> {
        self.sends.pop_front()
    }

    pub fn poll_ended(&mut self) -> Option<(usize, Ending)> {
        self.ended.take()
    }
}

/// A put as text can express it.
pub fn put(value: Bytes) -> Action {
    Action::PutOver {
        value,
        old_size_max: text::VALUE_SIZE_MAX as u64,
        old_without: Bytes::from_static(text::VALUE_WITHOUT),
    }
}

/// The datagram of this request.
pub fn datagram(id: u64, key: &[u8], action: &Action) -> Vec<u8> {
    let value: Option<&[u8]> = match action {
        Action::Get => None,
        Action::PutOver { value, .. } => Some(value),
        other => panic!("text has no {other:?}"),
    };
    let word: &[u8] = if value.is_some() { b"PUT [" } else { b"GET [" };
    let mut bytes = [word, key].concat();
    if let Some(value) = value {
        bytes.extend_from_slice(&[b"] [", value].concat());
    }
    bytes.extend_from_slice(format!("] [{id}]").as_bytes());
    bytes
}

impl Cluster {
    pub fn add_text_client(&mut self) -> usize {
        let index = self.clients.len();
        let random = Random::stream(self.settings.seed, 1_000 + index as u64);
        let text = TextClient::new(self.settings.nodes, random, self.now_us);
        self.clients.push(Client::of_text(index, text));
        index
    }

    /// Makes a text client begin a get or a put; returns its index in `calls`.
    pub fn begin_text(&mut self, client: usize, key: &Bytes, action: Action) -> usize {
        let want_old = !action.is_read();
        let call = self.note_call(client, key, &action, want_old);
        let now_us = self.now_us;
        let text = self.clients[client].begin_text();
        text.begin(now_us, call, key.clone(), action);
        self.drain_client(client);
        call
    }
}
