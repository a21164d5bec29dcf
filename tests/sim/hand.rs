//! Clients controlled by hand, for scenarios that choose each attempt themselves.

use bytes::Bytes;
use horseshoe::protocol::types::message::{ClientMessage, ClientReply};
use wire::{Action, Hello, Operation, OperationId, Outcome, Request};

use super::clients::Client;
use super::cluster::{Cluster, endpoint};
use super::event::Parcel;
use super::history::RecordedCall;
use super::network::Place;
use super::script::Script;
use super::text;

/// A client controlled by hand.
pub struct Hand {
    client: usize,
    id: u128,
    /// The token from each node, once hellos were exchanged.
    tokens: Vec<u64>,
    sequence: u64,
    attempts: u64,
    clock: u64,
}

impl Script {
    /// A client controlled by hand, with a session at every node.
    pub fn hand(&mut self) -> Hand {
        let client = self.cluster.clients.len();
        self.cluster.clients.push(Client::by_hand(client));
        let count = self.cluster.nodes.len();
        let id = 0xface_0000 + client as u128;
        let mut hand = Hand {
            client,
            id,
            tokens: vec![0; count],
            sequence: 0,
            attempts: 0,
            clock: 0,
        };
        for node in 0..count {
            self.greet(&mut hand, node);
        }
        hand
    }

    /// Sends a hello to the first node under another client's id.
    pub fn pose(&mut self, hand: &mut Hand, id: u128) {
        hand.id = id;
        self.say_hello(hand, 0);
    }

    fn say_hello(&mut self, hand: &mut Hand, node: usize) -> u64 {
        hand.attempts += 1;
        let nonce = hand.attempts;
        let hello = Hello {
            client: hand.id,
            nonce,
            library_version: "by hand".into(),
        };
        self.say(hand.client, node, ClientMessage::Hello(hello));
        nonce
    }

    /// Exchanges hellos.
    #[track_caller]
    pub fn greet(&mut self, hand: &mut Hand, node: usize) {
        let nonce = self.say_hello(hand, node);
        let client = hand.client;
        let answer = |c: &Cluster| {
            c.clients[client]
                .by_hand
                .iter()
                .flatten()
                .find_map(|(from, reply)| match reply {
                    ClientReply::Hello(h) if h.nonce == nonce && *from == node => Some(h.clone()),
                    _ => None,
                })
        };
        self.until("an answer to a hello", |c| answer(c).is_some());
        let answer = answer(&self.cluster).expect("waited for");
        hand.tokens[node] = answer.token;
        hand.clock = hand.clock.max(answer.clock);
    }

    fn say(&mut self, client: usize, node: usize, message: ClientMessage) {
        self.say_from(client, 0, node, message);
    }

    /// `way` selects the client's address that is the source.
    fn say_from(&mut self, client: usize, way: u16, node: usize, message: ClientMessage) {
        let mut from = endpoint(client);
        from.port += way;
        let parcel = Parcel::Request { from, message };
        self.cluster
            .send(Place::Client(client), Place::Node(node), parcel);
    }

    /// A new operation of a hand; its earlier operations have ended unless `low_mark` is set lower.
    /// The checker treats its outcome as unknown: it happens at most once.
    pub fn operation(&mut self, hand: &mut Hand, key: &str, action: Action) -> Operation {
        hand.sequence += 1;
        hand.clock += 1;
        let key = Bytes::copy_from_slice(key.as_bytes());
        self.cluster.note_call(hand.client, &key, &action, false);
        Operation {
            id: OperationId {
                client: hand.id,
                sequence: hand.sequence,
            },
            birth: hand.clock,
            low_mark: hand.sequence,
            key,
            want_old: false,
            action,
        }
    }

    /// Sends an attempt; returns its number.
    pub fn attempt(
        &mut self,
        hand: &mut Hand,
        node: usize,
        operation: &Operation,
        retry: bool,
    ) -> u64 {
        hand.attempts += 1;
        let (token, attempt) = (hand.tokens[node], hand.attempts);
        let operation = operation.clone();
        let request = Request {
            token,
            attempt,
            retry,
            left_ms: 5_000,
            operation,
        };
        self.say(hand.client, node, ClientMessage::Request(request));
        attempt
    }

    /// Sends a text put from the hand's address; the checker sees one operation per id.
    pub fn text_put(&mut self, hand: &Hand, node: usize, id: u64, key: &str, value: &str) {
        self.text_put_from(hand, 0, node, id, key, value);
    }

    /// The same from another of the hand's addresses.
    pub fn text_put_from(
        &mut self,
        hand: &Hand,
        way: u16,
        node: usize,
        id: u64,
        key: &str,
        value: &str,
    ) {
        let key = Bytes::copy_from_slice(key.as_bytes());
        let action = text::put(Bytes::copy_from_slice(value.as_bytes()));
        let known =
            |c: &RecordedCall| c.client == hand.client && c.key == key && c.action == action;
        if !self.cluster.calls.iter().any(known) {
            self.cluster.note_call(hand.client, &key, &action, true);
        }
        let message = ClientMessage::Sessionless { id, key, action };
        self.say_from(hand.client, way, node, message);
    }

    /// The answers to an id of text so far.
    pub fn text_answers(&self, hand: &Hand, id: u64) -> Vec<Outcome> {
        let received = self.cluster.clients[hand.client].by_hand.iter().flatten();
        let of_id = received.filter_map(|(_, reply)| match reply {
            ClientReply::Sessionless { id: of, outcome } if *of == id => Some(outcome.clone()),
            _ => None,
        });
        of_id.collect()
    }

    /// The answer to an attempt so far.
    pub fn answer(&self, hand: &Hand, attempt: u64) -> Option<Outcome> {
        let received = self.cluster.clients[hand.client].by_hand.iter().flatten();
        received.rev().find_map(|(_, reply)| match reply {
            ClientReply::Answer(answer) if answer.attempt == attempt => {
                Some(answer.outcome.clone())
            }
            _ => None,
        })
    }

    /// Sends an attempt and waits for its answer.
    #[track_caller]
    pub fn ask(&mut self, hand: &mut Hand, node: usize, op: &Operation, retry: bool) -> Outcome {
        let attempt = self.attempt(hand, node, op, retry);
        let client = hand.client;
        self.until("an answer", |c| {
            let received = c.clients[client].by_hand.iter().flatten();
            received
                .map(|(_, reply)| reply)
                .any(|reply| matches!(reply, ClientReply::Answer(a) if a.attempt == attempt))
        });
        self.answer(hand, attempt).expect("waited for")
    }
}
