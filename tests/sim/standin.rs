//! A client library in small: sessions with nodes, retries through others, settling (X1, X2, X4).

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use horseshoe::protocol::message::{ClientMessage, ClientReply};
use kvclient::clock::HybridClock;
use kvclient::wire::{
    self, Action, Hello, Operation, OperationId, Outcome, RETRY_WINDOW_MS, Request,
};

use super::history::Ending;
use super::random::Random;

#[derive(Debug, Default)]
struct Link {
    token: Option<u64>,
    nonce: u64,
    attempts: u64,
    greeted_us: u64,
    node: u8,
}

#[derive(Debug)]
struct InFlight {
    handle: u64,
    operation: Operation,
    born_us: u64,
    deadline_us: u64,
    /// Attempts sent and not answered, by node and number; and how many were sent.
    open: Vec<(usize, u64)>,
    sent: u64,
    last: Option<Outcome>,
    next_us: u64,
    turn: usize,
}

pub struct Session {
    id: u128,
    random: Random,
    clock: HybridClock,
    links: Vec<Link>,
    sequence: u64,
    handles: u64,
    flights: BTreeMap<u64, InFlight>,
    sends: VecDeque<(usize, ClientMessage)>,
    ended: VecDeque<(u64, Ending)>,
}

impl Session {
    pub fn new(nodes: usize, mut random: Random) -> Self {
        let id = u128::from(random.word()) << 64 | u128::from(random.word());
        let mut session = Session {
            id,
            random,
            clock: HybridClock::default(),
            links: Vec::new(),
            sequence: 0,
            handles: 0,
            flights: BTreeMap::new(),
            sends: VecDeque::new(),
            ended: VecDeque::new(),
        };
        session.links.resize_with(nodes, Link::default);
        session
    }

    pub fn begin(
        &mut self,
        now_us: u64,
        key: Bytes,
        action: Action,
        want_old: bool,
        deadline_us: u64,
    ) -> u64 {
        self.handles += 1;
        let handle = self.handles;
        self.launch(now_us, handle, key, action, want_old, deadline_us);
        self.wake(now_us);
        handle
    }

    fn launch(&mut self, now_us: u64, handle: u64, key: Bytes, action: Action, want_old: bool, deadline_us: u64) {
        self.sequence += 1;
        let birth = self.clock.tick(0);
        let operation = Operation {
            id: OperationId { client: self.id, sequence: self.sequence },
            birth,
            low_mark: 0,
            key,
            want_old,
            action,
        };
        let flight = InFlight {
            handle,
            operation,
            born_us: now_us,
            deadline_us,
            open: Vec::new(),
            sent: 0,
            last: None,
            next_us: now_us,
            turn: 0,
        };
        self.flights.insert(self.sequence, flight);
    }

    pub fn receive(&mut self, now_us: u64, from: usize, reply: ClientReply) {
        match reply {
            ClientReply::Hello(hello) => {
                let link = &mut self.links[from];
                if link.nonce == hello.nonce && link.token != Some(hello.token) {
                    link.token = Some(hello.token);
                    link.attempts = 0;
                    link.node = hello.node;
                    self.clock.observe(hello.clock);
                    for flight in self.flights.values_mut().filter(|f| f.sent == 0) {
                        flight.next_us = now_us;
                    }
                }
            }
            ClientReply::Answer(answer) => {
                self.clock.observe(answer.clock);
                self.answered(now_us, from, answer.attempt, answer.outcome);
            }
            ClientReply::NoSession(refusal) => {
                let link = &mut self.links[from];
                if link.token == Some(refusal.token) {
                    link.token = None;
                }
            }
            ClientReply::Status { .. } => {}
        }
        self.wake(now_us);
    }

    fn answered(&mut self, now_us: u64, from: usize, attempt: u64, outcome: Outcome) {
        let found = self
            .flights
            .iter_mut()
            .find(|(_, f)| f.open.contains(&(from, attempt)))
            .map(|(sequence, _)| *sequence);
        let Some(sequence) = found else {
            return;
        };
        let flight = self.flights.get_mut(&sequence).expect("found");
        flight.open.retain(|o| *o != (from, attempt));
        let read = flight.operation.action.is_read();
        let settles = match &outcome {
            Outcome::NoQuorum { .. } | Outcome::Busy | Outcome::Remake { .. } => {
                flight.open.is_empty()
            }
            outcome => read || outcome.is_in_record() || flight.open.is_empty(),
        };
        if !settles {
            flight.last = Some(outcome);
            return;
        }
        let flight = self.flights.remove(&sequence).expect("found");
        match outcome {
            Outcome::Remake { dropped } => {
                self.clock.observe(dropped);
                let Operation { key, action, want_old, .. } = flight.operation;
                self.launch(now_us, flight.handle, key, action, want_old, flight.deadline_us);
            }
            outcome => self.ended.push_back((flight.handle, Ending::Answered(outcome))),
        }
    }

    pub fn wake(&mut self, now_us: u64) {
        let low_mark = self.flights.keys().next().copied().unwrap_or(self.sequence + 1);
        let due: Vec<u64> =
            self.flights.iter().filter(|(_, f)| f.next_us <= now_us || f.deadline_us <= now_us).map(|(s, _)| *s).collect();
        for sequence in due {
            self.try_again(now_us, sequence, low_mark);
        }
    }

    fn try_again(&mut self, now_us: u64, sequence: u64, low_mark: u64) {
        let flight = self.flights.get_mut(&sequence).expect("listed");
        if now_us >= flight.deadline_us {
            let flight = self.flights.remove(&sequence).expect("seen");
            let read = flight.operation.action.is_read();
            let ending = if read || flight.sent == 0 {
                Ending::TimedOut
            } else {
                Ending::Answered(Outcome::Unknown)
            };
            self.ended.push_back((flight.handle, ending));
            return;
        }
        flight.next_us = now_us + 20_000 + self.random.below(60_000);
        if now_us >= flight.born_us + RETRY_WINDOW_MS * 1_000 {
            return;
        }
        let mut order: Vec<usize> = (0..self.links.len()).collect();
        let key = flight.operation.key.clone();
        order.sort_by_key(|i| std::cmp::Reverse(wire::rendezvous_weight(&key, *i as u8 + 1)));
        let to = order[flight.turn % order.len()];
        flight.turn += 1;
        let link = &mut self.links[to];
        let Some(token) = link.token else {
            flight.next_us = now_us + 5_000;
            if now_us >= link.greeted_us || link.nonce == 0 {
                link.nonce = self.random.word();
                link.greeted_us = now_us + 100_000;
                let hello = Hello { client: self.id, nonce: link.nonce, library_version: "sim".into() };
                self.sends.push_back((to, ClientMessage::Hello(hello)));
            }
            return;
        };
        link.attempts += 1;
        let attempt = link.attempts;
        let retry = flight.sent > 0;
        flight.sent += 1;
        flight.open.push((to, attempt));
        flight.operation.low_mark = low_mark;
        let operation = flight.operation.clone();
        self.sends.push_back((to, ClientMessage::Request(Request { token, attempt, retry, operation })));
    }

    pub fn poll_send(&mut self) -> Option<(usize, ClientMessage)> {
        self.sends.pop_front()
    }

    pub fn poll_ended(&mut self) -> Option<(u64, Ending)> {
        self.ended.pop_front()
    }

    pub fn next_us(&self) -> Option<u64> {
        self.flights.values().map(|f| f.next_us.min(f.deadline_us)).min()
    }
}
