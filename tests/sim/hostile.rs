//! Hostile members and clients: they send anything that can be decoded, made from messages of
//! others. The content of such a cluster has no guarantees, but no node may panic.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use horseshoe::gateway::text;
use horseshoe::protocol::types::message::{ClientMessage, Envelope, Message, decode_client};

use super::cluster::{Cluster, Fate, endpoint};
use super::codec::encode_request;
use super::event::{Parcel, Passing};
use super::network::Place;
use super::random::Random;
use super::text::datagram;

/// The number of messages that are remembered.
const HEARD_MAX: usize = 256;
/// The number of changes that are tried until one can be decoded.
const TRIES: usize = 16;

pub struct Hostile {
    random: Random,
    heard: Rc<RefCell<VecDeque<Passing>>>,
    pub sent: u64,
}

impl Hostile {
    /// It observes all messages from now on.
    pub fn new(random: Random, cluster: &mut Cluster) -> Self {
        let heard: Rc<RefCell<VecDeque<Passing>>> = Rc::default();
        let hears = heard.clone();
        let mut chance = random.clone();
        cluster.filter(move |passing| {
            // Heartbeats would crowd out the rest.
            let is_rare = passing.name() != "Heartbeat" || chance.chance(20);
            if is_rare && !matches!(passing.parcel, Parcel::Reply { .. }) {
                let mut heard = hears.borrow_mut();
                heard.truncate(HEARD_MAX - 1);
                heard.push_front(passing.clone());
            }
            Fate::Pass
        });
        Hostile {
            random,
            heard,
            sent: 0,
        }
    }

    /// Sends something, if anything was observed yet.
    pub fn strike(&mut self, cluster: &mut Cluster) {
        let heard = self.heard.borrow().len() as u64;
        if heard == 0 {
            return;
        }
        let place = self.random.below(heard) as usize;
        let passing = self.heard.borrow()[place].clone();
        let to = match self.random.chance(500) {
            true => passing.to,
            false => Place::Node(self.random.below(cluster.nodes.len() as u64) as usize),
        };
        let parcel = match passing.parcel {
            Parcel::Peer { cluster, envelope } => {
                let mut envelope = self.changed(envelope);
                if let Place::Node(index) = to
                    && self.random.chance(900)
                {
                    envelope.destination = index as u8 + 1;
                }
                Parcel::Peer { cluster, envelope }
            }
            Parcel::Request { message, .. } => {
                let message = self.changed_request(message);
                let from = endpoint(self.random.below(cluster.clients.len() as u64) as usize);
                Parcel::Request { from, message }
            }
            Parcel::Reply { .. } => unreachable!("not remembered"),
        };
        self.sent += 1;
        let from = passing.from;
        cluster.deliver(0, Passing { from, to, parcel });
    }

    fn changed_request(&mut self, message: ClientMessage) -> ClientMessage {
        let changed = match &message {
            ClientMessage::Sessionless { id, key, action } => {
                let parse = |said: &[u8]| {
                    let text::TextRequest { id, key, action } = text::parse(said).ok()?;
                    Some(ClientMessage::Sessionless { id, key, action })
                };
                self.garbled(&datagram(*id, key, action), parse)
            }
            message => {
                let mut body = Vec::new();
                let kind = encode_request(message, &mut body);
                self.garbled(&body, |body| decode_client(kind, body).ok().flatten())
            }
        };
        changed.unwrap_or(message)
    }

    fn changed(&mut self, envelope: Envelope) -> Envelope {
        let mut body = Vec::new();
        envelope.message.encode_body(&mut body);
        let kind = envelope.message.kind();
        let decode = |body: &[u8]| Message::decode(kind, body).ok().flatten();
        let message = self.garbled(&body, decode);
        let other = self.random.below(self.heard.borrow().len() as u64) as usize;
        let other = self.heard.borrow()[other].envelope().cloned();
        let mut changed = Envelope {
            message: message.unwrap_or(envelope.message.clone()),
            ..envelope
        };
        // Most of a header must be right, or the message is dropped early.
        if let Some(other) = other {
            match self.random.below(12) {
                0 => changed.round = other.round,
                1 => changed.epoch = other.epoch,
                2 => (changed.origin, changed.incarnation) = (other.origin, other.incarnation),
                3 => changed.epoch = self.word(changed.epoch),
                4 => changed.incarnation = other.incarnation,
                5 => changed.hops_left = self.random.word() as u8,
                _ => {}
            }
        }
        changed
    }

    /// The first change that can be decoded.
    fn garbled<T>(&mut self, body: &[u8], decode: impl Fn(&[u8]) -> Option<T>) -> Option<T> {
        (0..TRIES).find_map(|_| {
            let mut garbled = body.to_vec();
            for _ in 0..self.random.below(4) {
                self.garble(&mut garbled);
            }
            decode(&garbled)
        })
    }

    fn garble(&mut self, body: &mut Vec<u8>) {
        if body.is_empty() {
            return;
        }
        let at = self.random.below(body.len() as u64) as usize;
        match self.random.below(6) {
            0 => body[at] = self.random.word() as u8,
            1 => body[at] ^= 1 << self.random.below(8),
            2 => body[at] = *self.random.pick(&[0, 1, 0x7f, 0xc0, 0xff]),
            // An integer of eight bytes in MessagePack.
            3 if body[at] == 0xcf && body.len() > at + 8 => {
                let before = body[at + 1..at + 9].try_into().expect("eight bytes");
                let word = self.word(u64::from_be_bytes(before));
                body[at + 1..at + 9].copy_from_slice(&word.to_be_bytes());
            }
            4 => {
                body.remove(at);
            }
            _ => body.insert(at, self.random.word() as u8),
        }
    }

    fn word(&mut self, before: u64) -> u64 {
        let far = *self
            .random
            .pick(&[0, 1, u64::MAX, 1 << 63, 1 << 55, 1 << 52]);
        let near = [before.wrapping_add(1), before.wrapping_sub(1)];
        *self.random.pick(&[far, near[0], near[1], before ^ far])
    }
}
