//! A scripted cluster: the tests inspect what the session sends, and answer by hand.

mod arbitrary;
mod cluster;
mod model;
mod nodes;
mod outcomes;
mod port;
mod questions;
mod spared;
mod window;

use super::*;
use wire::{Answer, ChangeRequest, HelloAnswer, NoSession, Old, Outcome, Request, StatusRequest};

const MS: u64 = 1_000;
const CLUSTER: u64 = 77;
/// The time of the nodes' clocks.
const CLOCK_MS: u64 = 1_000_000;

/// A request that was sent, and its node.
#[derive(Debug, Clone, PartialEq)]
struct Sent {
    node: usize,
    request: Request,
}

struct Script {
    session: Session,
    now_us: u64,
    hellos: Vec<(usize, wire::Hello)>,
    requests: Vec<Sent>,
    status_requests: Vec<(usize, StatusRequest)>,
    change_requests: Vec<(usize, ChangeRequest)>,
    /// By nonce: the same hello again gives the same token.
    tokens: BTreeMap<u64, u64>,
}

impl Script {
    fn new(nodes: usize) -> Self {
        Script::of_cluster(nodes, 0)
    }

    /// `cluster` is the application's choice; 0 for none.
    fn of_cluster(nodes: usize, cluster: u64) -> Self {
        let options = SessionOptions {
            client: 7,
            seed: 1,
            nodes,
            deadline_us: DEADLINE_US_DEFAULT,
            no_quorum_after_us: NO_QUORUM_AFTER_US_DEFAULT,
            cluster,
            library_version: "test".into(),
        };
        let now_us = 5_000_000;
        Script {
            session: Session::new(options, now_us),
            now_us,
            hellos: Vec::new(),
            requests: Vec::new(),
            status_requests: Vec::new(),
            change_requests: Vec::new(),
            tokens: BTreeMap::new(),
        }
    }

    /// The session has a session token at each node; node ids are the index plus one.
    fn started(nodes: usize) -> Self {
        let mut script = Script::new(nodes);
        script.submit(Call::new("start", wire::Action::Get), 0);
        script.greet_all();
        let sent = script.requests();
        script.answer(&sent[0], Outcome::Absent);
        assert_eq!(script.completion().tag, 0);
        script
    }

    fn submit(&mut self, call: Call, tag: u64) {
        self.session.submit(self.now_us, call, tag).unwrap();
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(transmit) = self.session.poll_transmit() {
            let Transmit {
                node, kind, body, ..
            } = transmit;
            match kind {
                kind::HELLO => self.hellos.push((node, wire::decode(&body).unwrap())),
                kind::REQUEST => {
                    let request = wire::decode(&body).unwrap();
                    self.requests.push(Sent { node, request });
                }
                kind::CHANGE_REQUEST => {
                    let request = wire::decode(&body).unwrap();
                    self.change_requests.push((node, request));
                }
                _ => {
                    let request = wire::decode(&body).unwrap();
                    self.status_requests.push((node, request));
                }
            }
        }
    }

    fn requests(&mut self) -> Vec<Sent> {
        std::mem::take(&mut self.requests)
    }

    /// The one request that was sent since the last call.
    fn request(&mut self) -> Sent {
        let mut requests = self.requests();
        assert_eq!(requests.len(), 1, "{requests:?}");
        requests.remove(0)
    }

    fn greeted(&mut self) -> Vec<usize> {
        let hellos = std::mem::take(&mut self.hellos);
        hellos.into_iter().map(|(node, _)| node).collect()
    }

    fn greet_all(&mut self) {
        for (node, hello) in std::mem::take(&mut self.hellos) {
            self.answer_hello(node, &hello);
        }
    }

    fn answer_hello(&mut self, node: usize, hello: &wire::Hello) {
        self.answer_hello_as(node, hello, CLUSTER);
    }

    fn answer_hello_as(&mut self, node: usize, hello: &wire::Hello, cluster: u64) {
        let fresh = self.tokens.len() as u64 + 1;
        let token = *self.tokens.entry(hello.nonce).or_insert(fresh);
        let answer = HelloAnswer {
            nonce: hello.nonce,
            token,
            node: node as u8 + 1,
            cluster,
            epoch: 1,
            members: Vec::new(),
            key_size_max: 1_024,
            value_size_max: 49_152,
            shard_ports: Vec::new(),
            clock: clock::from_ms(CLOCK_MS),
        };
        self.frame(node, kind::HELLO_ANSWER, &answer);
    }

    /// Answers the hellos to these nodes, as nodes of that cluster.
    fn greet(&mut self, nodes: &[usize], cluster: u64) {
        let (answered, left): (Vec<_>, Vec<_>) = std::mem::take(&mut self.hellos)
            .into_iter()
            .partition(|(node, _)| nodes.contains(node));
        self.hellos = left;
        for (node, hello) in answered {
            self.answer_hello_as(node, &hello, cluster);
        }
    }

    fn frame(&mut self, node: usize, kind: u8, body: &impl Serialize) {
        let mut bytes = Vec::new();
        wire::encode(&mut bytes, body);
        self.session.handle_frame(self.now_us, node, kind, &bytes);
        self.drain();
    }

    fn answer(&mut self, sent: &Sent, outcome: Outcome) {
        let answer = Answer {
            attempt: sent.request.attempt,
            clock: clock::from_ms(CLOCK_MS),
            outcome,
        };
        self.frame(sent.node, kind::ANSWER, &answer);
    }

    fn answer_no_session(&mut self, sent: &Sent) {
        let refusal = NoSession {
            token: sent.request.token,
            attempt: sent.request.attempt,
        };
        self.frame(sent.node, kind::NO_SESSION, &refusal);
    }

    /// Advances the time, timer by timer.
    fn pass(&mut self, us: u64) {
        let until_us = self.now_us + us;
        while let Some(at_us) = self.session.next_timeout()
            && at_us <= until_us
        {
            self.now_us = at_us.max(self.now_us);
            self.session.handle_timeout(self.now_us);
            self.drain();
        }
        self.now_us = until_us;
    }

    /// Advances the time until the session sends something other than a hello.
    fn pass_until_sent(&mut self) -> Sent {
        let began_us = self.now_us;
        while self.requests.is_empty() {
            assert!(self.now_us < began_us + 5_000 * MS, "nothing sent");
            self.pass(MS);
        }
        self.request()
    }

    fn completion(&mut self) -> Completion {
        self.session.poll_completion().expect("a completion")
    }

    fn result(&mut self) -> Result<Outcome, CallError> {
        self.completion().result
    }

    fn is_pending(&mut self) -> bool {
        self.session.poll_completion().is_none()
    }
}

impl Session {
    /// The call that has this sequence.
    fn tag_of(&self, sequence: u64) -> Option<u64> {
        let handles = self.table.handles();
        let mut calls = handles.iter().filter_map(|handle| self.table.get(*handle));
        let has = |call: &&operation::InFlight| {
            call.identity
                .is_some_and(|identity| identity.sequence == sequence)
        };
        calls.find(has).map(|call| call.tag)
    }
}

fn get(key: &str) -> Call {
    Call::new(key.to_owned(), wire::Action::Get)
}

fn put(key: &str) -> Call {
    let value = "v".into();
    Call::new(key.to_owned(), wire::Action::Put { value })
}

fn transaction(key: &'static str) -> Call {
    let part = wire::TransactionPart {
        key: key.into(),
        change: Some(wire::KeyChange::Add(1)),
        ..wire::TransactionPart::default()
    };
    let transaction = wire::Transaction { parts: vec![part] };
    Call::new(key, wire::Action::Transact { transaction })
}

fn written() -> Outcome {
    Outcome::Written {
        version: 9,
        old: Old::NotAsked,
        number: None,
    }
}

fn conflict() -> Outcome {
    Outcome::Conflict {
        version: 9,
        old: Old::NotAsked,
    }
}

fn no_quorum() -> Outcome {
    Outcome::NoQuorum { reached: vec![1] }
}

fn is_no_quorum(result: &Result<Outcome, CallError>) -> bool {
    matches!(result, Err(CallError::NoQuorum { .. }))
}
