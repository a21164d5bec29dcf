//! Runs a session against a model of a cluster, by seed: the nodes apply each operation at most
//! once, over a network that loses, duplicates and delays, while nodes restart, lose their quorum,
//! are busy, are spared, and forget births. Each call must complete once, by its deadline, and its
//! result must be true.

use std::collections::BTreeSet;

use super::*;
use wire::{Action, Operation, OperationId};

const NODES: usize = 3;
const KEYS: u64 = 4;

enum Event {
    ToNode(usize, u8, Vec<u8>),
    ToClient(usize, u8, Vec<u8>),
    /// An admitted request is executed, unless the node has restarted since.
    Execute(usize, u32, Request),
}

#[derive(Default)]
struct ModelNode {
    boots: u32,
    nonce: u64,
    token: u64,
    seen: BTreeSet<u64>,
}

/// One linearizable store, whichever node executes.
#[derive(Default)]
struct Store {
    values: BTreeMap<Vec<u8>, Vec<u8>>,
    table: BTreeMap<OperationId, Outcome>,
    dropped: u64,
    /// How often each call's value was written, or key deleted.
    done: BTreeMap<u64, u32>,
}

impl Store {
    fn execute(&mut self, operation: &Operation, retry: bool, tag: u64) -> Outcome {
        let key = operation.key.to_vec();
        let present = self.values.contains_key(&key);
        if operation.action.is_read() {
            return match self.values.get(&key) {
                None => Outcome::Absent,
                Some(value) => Outcome::Value {
                    version: 1,
                    value: value.clone().into(),
                },
            };
        }
        if let Some(outcome) = self.table.get(&operation.id) {
            return outcome.clone();
        }
        if operation.birth <= self.dropped {
            let dropped = self.dropped;
            return if retry {
                Outcome::Unknown
            } else {
                Outcome::Remake { dropped }
            };
        }
        let outcome = match &operation.action {
            Action::PutIfAbsent { value } if !present => {
                self.values.insert(key, value.to_vec());
                written()
            }
            Action::Delete if present => {
                self.values.remove(&key);
                written()
            }
            Action::Put { value } => {
                self.values.insert(key, value.to_vec());
                written()
            }
            Action::Delete => Outcome::NothingToDelete,
            _ => conflict(),
        };
        if outcome == written() {
            *self.done.entry(tag).or_default() += 1;
        }
        if outcome == written() || retry {
            self.table.insert(operation.id, outcome.clone());
        }
        outcome
    }
}

struct Model {
    random: u64,
    now_us: u64,
    session: Session,
    nodes: Vec<ModelNode>,
    store: Store,
    events: BTreeMap<(u64, u64), Event>,
    events_so_far: u64,
    /// Per call: deadline, and its sequences.
    calls: BTreeMap<u64, u64>,
    tags: BTreeMap<u64, u64>,
    results: BTreeMap<u64, Result<Outcome, CallError>>,
    /// In per cent.
    loss: u64,
    repeats: u64,
    /// Until when a node has no quorum.
    dark_until_us: [u64; NODES],
    spared: [bool; NODES],
}

impl Model {
    fn new(seed: u64) -> Self {
        let options = SessionOptions {
            client: 1,
            seed,
            nodes: NODES,
            deadline_us: DEADLINE_US_DEFAULT,
            no_quorum_after_us: NO_QUORUM_AFTER_US_DEFAULT,
            cluster: 0,
            library_version: String::new(),
        };
        let mut model = Model {
            random: seed,
            now_us: 0,
            session: Session::new(options, 0),
            nodes: (0..NODES).map(|_| ModelNode::default()).collect(),
            store: Store::default(),
            events: BTreeMap::new(),
            events_so_far: 0,
            calls: BTreeMap::new(),
            tags: BTreeMap::new(),
            results: BTreeMap::new(),
            loss: 0,
            repeats: 0,
            dark_until_us: [0; NODES],
            spared: [false; NODES],
        };
        model.loss = [0, 2, 20, 60][model.below(4) as usize];
        model.repeats = [0, 30][model.below(2) as usize];
        model
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % bound
    }

    fn at(&mut self, delay_us: u64, event: Event) {
        self.events_so_far += 1;
        let key = (self.now_us + delay_us, self.events_so_far);
        self.events.insert(key, event);
    }

    /// Mostly short, sometimes very long.
    fn delay_us(&mut self) -> u64 {
        match self.below(20) {
            0 => self.below(300 * MS),
            1..4 => self.below(20 * MS),
            _ => 50 + self.below(500),
        }
    }

    fn network(&mut self, make: impl Fn() -> Event) {
        let copies = 1 + u64::from(self.below(100) < self.repeats);
        for _ in 0..copies {
            if self.below(100) >= self.loss {
                let delay_us = self.delay_us();
                self.at(delay_us, make());
            }
        }
    }

    fn reply(&mut self, node: usize, kind: u8, body: &impl Serialize) {
        let mut bytes = Vec::new();
        wire::encode(&mut bytes, body);
        self.network(|| Event::ToClient(node, kind, bytes.clone()));
    }

    fn clock(&self) -> u64 {
        clock::from_ms(1_000 + self.now_us / MS)
    }

    fn answer(&mut self, node: usize, attempt: u64, outcome: Outcome) {
        let clock = self.clock();
        let answer = Answer {
            attempt,
            clock,
            outcome,
        };
        self.reply(node, kind::ANSWER, &answer);
    }

    fn node_takes(&mut self, node: usize, frame_kind: u8, body: &[u8]) {
        if frame_kind == kind::HELLO {
            let hello: wire::Hello = wire::decode(body).unwrap();
            let fresh_token = self.below(u64::MAX >> 33) + 1;
            let state = &mut self.nodes[node];
            if state.nonce != hello.nonce {
                (state.nonce, state.token) = (hello.nonce, fresh_token);
                state.seen.clear();
            }
            let answer = HelloAnswer {
                nonce: hello.nonce,
                token: state.token,
                node: node as u8 + 1,
                cluster: 5,
                epoch: 1,
                members: Vec::new(),
                key_size_max: 1_024,
                value_size_max: 49_152,
                shard_ports: Vec::new(),
                clock: self.clock(),
            };
            self.reply(node, kind::HELLO_ANSWER, &answer);
            return;
        }
        let request: Request = wire::decode(body).unwrap();
        let (token, attempt) = (request.token, request.attempt);
        let state = &mut self.nodes[node];
        if token != state.token {
            self.reply(node, kind::NO_SESSION, &NoSession { token, attempt });
        } else if state.seen.insert(attempt) {
            let boots = state.boots;
            if self.now_us < self.dark_until_us[node] {
                self.answer(node, attempt, no_quorum());
            } else if self.below(50) == 0 {
                self.answer(node, attempt, Outcome::Busy { after_ms: 0 });
            } else {
                let delay_us = self.delay_us();
                self.at(delay_us, Event::Execute(node, boots, request));
            }
        }
    }

    fn execute(&mut self, node: usize, boots: u32, request: Request) {
        if self.nodes[node].boots != boots {
            return;
        }
        let tag = self.tags[&request.operation.id.sequence];
        let outcome = self.store.execute(&request.operation, request.retry, tag);
        self.answer(node, request.attempt, outcome);
    }

    fn submit(&mut self, tag: u64) {
        let key = format!("key {}", self.below(KEYS));
        let value = bytes::Bytes::from(tag.to_string());
        let action = match self.below(5) {
            0 => Action::Get,
            1 => Action::Delete,
            2 | 3 => Action::PutIfAbsent { value },
            _ => Action::Put { value },
        };
        let deadline_us = [20 * MS, 1_500 * MS, 5_000 * MS, 9_000 * MS][self.below(4) as usize];
        let call = Call {
            deadline_us: Some(deadline_us),
            ..Call::new(key, action)
        };
        self.session.submit(self.now_us, call, tag).unwrap();
        self.calls.insert(tag, self.now_us + deadline_us);
    }

    /// A call receives its sequence when it is first sent, so the sending identifies the tag.
    fn drain(&mut self) {
        while let Some(transmit) = self.session.poll_transmit() {
            assert!(!self.spared[transmit.node], "{transmit:?}");
            if transmit.kind == kind::REQUEST {
                let request: Request = wire::decode(&transmit.body).unwrap();
                self.learn_tag(&request);
            }
            let Transmit {
                node, kind, body, ..
            } = transmit;
            self.network(|| Event::ToNode(node, kind, body.clone()));
        }
        while let Some(Completion { tag, result }) = self.session.poll_completion() {
            assert!(self.now_us <= self.calls[&tag], "call {tag} is late");
            assert!(self.results.insert(tag, result).is_none(), "{tag} twice");
        }
    }

    fn learn_tag(&mut self, request: &Request) {
        let identity = request.operation.id.sequence;
        let tags = &self.tags;
        if tags.contains_key(&identity) {
            assert!(request.retry, "every sending after the first is a retry");
            return;
        }
        assert!(!request.retry, "a first sending is none");
        let tag = self.session.tag_of(identity).expect("in flight");
        self.tags.insert(identity, tag);
    }

    fn disturb(&mut self) {
        let node = self.below(NODES as u64) as usize;
        match self.below(12) {
            0 => {
                let boots = self.nodes[node].boots + 1;
                self.nodes[node] = ModelNode {
                    boots,
                    ..ModelNode::default()
                };
            }
            1 => self.dark_until_us[node] = self.now_us + self.below(1_000 * MS),
            2 => self.dark_until_us = [self.now_us + self.below(3_000 * MS); NODES],
            3 => self.store.dropped = self.clock(),
            4 | 5 => self.spare(node, !self.spared[node]),
            6 => (0..NODES).for_each(|node| self.spare(node, false)),
            _ => {}
        }
    }

    fn spare(&mut self, node: usize, spared: bool) {
        self.spared[node] = spared;
        self.session.spare(self.now_us, node, spared);
        self.drain();
    }

    fn step(&mut self) -> bool {
        let event_us = self.events.first_key_value().map(|((at_us, _), _)| *at_us);
        let timer_us = self.session.next_timeout();
        let Some(next_us) = event_us.into_iter().chain(timer_us).min() else {
            return false;
        };
        self.now_us = next_us.max(self.now_us);
        if event_us == Some(next_us) {
            let (_, event) = self.events.pop_first().expect("looked");
            match event {
                Event::ToNode(node, kind, body) => self.node_takes(node, kind, &body),
                Event::ToClient(node, kind, body) => {
                    self.session.handle_frame(self.now_us, node, kind, &body);
                }
                Event::Execute(node, boots, request) => self.execute(node, boots, request),
            }
        } else {
            self.session.handle_timeout(self.now_us);
        }
        self.drain();
        true
    }

    fn run(mut self, calls: u64) -> BTreeMap<u64, Result<Outcome, CallError>> {
        for tag in 0..calls {
            self.submit(tag);
            self.drain();
            self.disturb();
            let until_us = self.now_us + self.below(5 * MS);
            while self.now_us < until_us && self.step() {}
        }
        while self.step() {}
        for tag in 0..calls {
            let done = self.store.done.get(&tag).copied().unwrap_or(0);
            let expected = match &self.results[&tag] {
                Ok(Outcome::Written { .. }) => 1..=1,
                Err(CallError::UnknownOutcome) => 0..=1,
                _ => 0..=0,
            };
            let result = &self.results[&tag];
            assert!(
                expected.contains(&done),
                "{tag}: {result:?}, done {done} times"
            );
        }
        self.results
    }
}

#[test]
fn every_call_completes_once_and_is_told_the_truth() {
    let mut tally: BTreeMap<String, u64> = BTreeMap::new();
    for seed in 0..600 {
        for result in Model::new(seed).run(120).into_values() {
            let word = match result {
                Ok(outcome) => format!("{outcome:?}"),
                Err(CallError::NoQuorum { .. }) => "no quorum".into(),
                Err(error) => error.to_string(),
            };
            let word = word.split([' ', '(', ':']).next().expect("one").to_owned();
            *tally.entry(word).or_default() += 1;
        }
    }
    // The faults are frequent enough for each kind of result to occur.
    for word in [
        "Written",
        "Conflict",
        "NothingToDelete",
        "Value",
        "Absent",
        "no",
        "unknown",
        "timed",
        "busy",
    ] {
        assert!(
            tally.get(word).is_some_and(|count| *count > 5),
            "{word}: {tally:?}"
        );
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in 1_000..1_010 {
        assert_eq!(Model::new(seed).run(50), Model::new(seed).run(50));
    }
}
