//! Scheduled events, in order of time, and in order of creation where times are equal.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use horseshoe::protocol::types::message::{ClientMessage, ClientReply, Endpoint, Envelope, Input};
use horseshoe::protocol::types::record::{AcceptorState, Key};

use super::network::Place;

/// The content of a datagram.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parcel {
    Peer {
        cluster: u64,
        envelope: Envelope,
    },
    Request {
        from: Endpoint,
        message: ClientMessage,
    },
    Reply {
        reply: ClientReply,
    },
}

/// A message in flight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passing {
    pub from: Place,
    pub to: Place,
    pub parcel: Parcel,
}

impl Passing {
    pub fn is_from(&self, node: usize) -> bool {
        self.from == Place::Node(node)
    }

    pub fn is_to(&self, node: usize) -> bool {
        self.to == Place::Node(node)
    }

    /// Whether it is a text client's request.
    pub fn is_text_request(&self) -> bool {
        let message = match &self.parcel {
            Parcel::Request { message, .. } => message,
            _ => return false,
        };
        matches!(message, ClientMessage::Sessionless { .. })
    }

    pub fn envelope(&self) -> Option<&Envelope> {
        match &self.parcel {
            Parcel::Peer { envelope, .. } => Some(envelope),
            _ => None,
        }
    }

    /// The name of the message: for a peer message the name of its type, otherwise the frame's.
    pub fn name(&self) -> &'static str {
        match &self.parcel {
            Parcel::Peer { envelope, .. } => envelope.message.name(),
            Parcel::Request { message, .. } => match message {
                ClientMessage::Hello(_) => "Hello",
                ClientMessage::Request(_) | ClientMessage::Sessionless { .. } => "Request",
                ClientMessage::StatusRequest(_) => "StatusRequest",
                ClientMessage::Change(_) => "Change",
            },
            Parcel::Reply { reply } => match reply {
                ClientReply::Hello(_) => "HelloAnswer",
                ClientReply::Answer(_) | ClientReply::Sessionless { .. } => "Answer",
                ClientReply::NoSession(_) => "NoSession",
                ClientReply::Status { .. } => "Status",
                ClientReply::Change { .. } => "ChangeAnswer",
            },
        }
    }
}

#[derive(Debug)]
pub enum Event {
    Arrive(Box<Passing>),
    /// A node checks its inbox and timers. Events from before its last start or crash are void.
    Wake {
        node: usize,
        life: u64,
    },
    Synced {
        node: usize,
        life: u64,
    },
    Listed {
        node: usize,
        life: u64,
        input: Box<Input>,
    },
    Loaded {
        node: usize,
        life: u64,
        key: Key,
        state: Option<AcceptorState>,
    },
    ClientWake {
        client: usize,
    },
    /// The scenario or fault plan scheduled this one.
    Plan(u64),
}

#[derive(Debug)]
struct Entry {
    at_us: u64,
    serial: u64,
    event: Event,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.serial == other.serial
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    /// The earliest is the greatest, as the heap returns the greatest first.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at_us, other.serial).cmp(&(self.at_us, self.serial))
    }
}

#[derive(Debug, Default)]
pub struct Queue {
    heap: BinaryHeap<Entry>,
    serial: u64,
}

impl Queue {
    pub fn push(&mut self, at_us: u64, event: Event) {
        self.serial += 1;
        self.heap.push(Entry {
            at_us,
            serial: self.serial,
            event,
        });
    }

    pub fn next_us(&self) -> Option<u64> {
        self.heap.peek().map(|e| e.at_us)
    }

    pub fn pop(&mut self) -> Option<(u64, Event)> {
        self.heap.pop().map(|e| (e.at_us, e.event))
    }
}
