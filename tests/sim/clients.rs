//! Simulated clients: the client library's session, driven by the simulation.

use std::collections::BTreeMap;

use bytes::Bytes;
use horseshoe::protocol::message::{ClientMessage, ClientReply};
use kvclient::wire::Action;

use super::cluster::Cluster;
use super::history::{Call, Ending};
use super::random::Random;
use super::standin::Session;

pub struct Client {
    pub index: usize,
    /// `None` once the client is gone.
    pub session: Option<Session>,
    /// The earliest wake-up that is on its way.
    pub wake_us: Option<u64>,
    /// Operations under way: the session's handle, and the call in the cluster's list.
    under_way: BTreeMap<u64, usize>,
    /// The key of each attempt, by node and number; `None` where numbers were used again.
    attempts: BTreeMap<(usize, u64), Option<Bytes>>,
}

impl Client {
    pub fn new(index: usize, nodes: usize, random: Random) -> Self {
        Client {
            index,
            session: Some(Session::new(nodes, random)),
            wake_us: None,
            under_way: BTreeMap::new(),
            attempts: BTreeMap::new(),
        }
    }

    pub fn in_flight(&self) -> usize {
        self.under_way.len()
    }

    pub fn poll_send(&mut self) -> Option<(usize, ClientMessage)> {
        let (node, message) = self.session.as_mut()?.poll_send()?;
        if let ClientMessage::Request(request) = &message {
            let key = &request.operation.key;
            let entry = self.attempts.entry((node, request.attempt));
            let held = entry.or_insert_with(|| Some(key.clone()));
            if held.as_ref() != Some(key) {
                *held = None;
            }
        }
        Some((node, message))
    }

    /// The operation that ended, by its place in the cluster's list.
    pub fn poll_ended(&mut self) -> Option<(usize, Ending)> {
        let (handle, ending) = self.session.as_mut()?.poll_ended()?;
        let index = self.under_way.remove(&handle).expect("it was begun");
        Some((index, ending))
    }

    /// The key that a node's reply is about.
    pub fn asked(&self, node: usize, reply: &ClientReply) -> Option<Bytes> {
        let ClientReply::Answer(answer) = reply else {
            return None;
        };
        self.attempts.get(&(node, answer.attempt))?.clone()
    }
}

impl Cluster {
    /// Has a client begin an operation; gives its place in `calls`.
    pub fn begin(
        &mut self,
        client: usize,
        key: &Bytes,
        action: Action,
        want_old: bool,
        deadline_us: u64,
    ) -> usize {
        let now_us = self.now_us;
        let called = self.tick();
        let index = self.calls.len();
        self.calls.push(Call {
            client,
            key: key.clone(),
            action: action.clone(),
            want_old,
            called,
            ended: None,
            called_us: now_us,
            ended_us: None,
            ending: Ending::Open,
        });
        let state = &mut self.clients[client];
        let session = state.session.as_mut().expect("the client is there");
        let handle = session.begin(now_us, key.clone(), action, want_old, now_us + deadline_us);
        state.under_way.insert(handle, index);
        self.drain_client(client);
        index
    }
}
