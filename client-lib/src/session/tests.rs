use proptest::prelude::*;

use super::*;
use crate::wire::{Action, Answer, Hello, HelloAnswer, NoSession, Old, Outcome, Request};

const NODES: usize = 3;

/// A session with nodes that answer as a test says.
struct Rig {
    session: Session,
    now_us: u64,
    requests: Vec<(usize, Request)>,
    hellos: Vec<(usize, Hello)>,
    silent: [bool; NODES],
    clock: u64,
}

impl Rig {
    fn new() -> Self {
        let options = SessionOptions {
            client: 7,
            seed: 1,
            nodes: NODES,
            deadline_us: DEADLINE_US_DEFAULT,
            no_quorum_after_us: NO_QUORUM_AFTER_US_DEFAULT,
            library_version: "test".into(),
        };
        Rig {
            session: Session::new(options, 0),
            now_us: 0,
            requests: Vec::new(),
            hellos: Vec::new(),
            silent: [false; NODES],
            clock: clock::from_ms(1_000_000),
        }
    }

    fn submit(&mut self, action: Action, tag: u64) {
        let call = Call::new(&b"key"[..], action);
        self.session.submit(self.now_us, call, tag).unwrap();
        self.pump();
    }

    fn put(&mut self, tag: u64) {
        self.submit(
            Action::Put {
                value: Bytes::from_static(b"v"),
            },
            tag,
        );
    }

    /// Takes what is to be sent; hellos are answered unless the node is silent.
    fn pump(&mut self) {
        while let Some(transmit) = self.session.poll_transmit() {
            let node = transmit.node;
            match transmit.kind {
                kind::HELLO => {
                    let hello: Hello = wire::decode(&transmit.body).unwrap();
                    self.hellos.push((node, hello.clone()));
                    if !self.silent[node] {
                        self.welcome(node, hello.nonce);
                    }
                }
                kind::REQUEST => {
                    let request: Request = wire::decode(&transmit.body).unwrap();
                    self.requests.push((node, request));
                }
                other => panic!("kind {other}"),
            }
        }
    }

    fn welcome(&mut self, node: usize, nonce: u64) {
        let answer = HelloAnswer {
            nonce,
            token: 100 + self.hellos.len() as u64,
            node: node as u8 + 1,
            cluster: 9,
            epoch: 1,
            members: Vec::new(),
            key_size_max: 1_024,
            value_size_max: 49_152,
            shard_ports: Vec::new(),
            clock: self.clock,
        };
        self.frame(node, kind::HELLO_ANSWER, &answer);
    }

    fn frame(&mut self, node: usize, kind: u8, body: &impl Serialize) {
        let mut bytes = Vec::new();
        wire::encode(&mut bytes, body);
        self.session.handle_frame(self.now_us, node, kind, &bytes);
    }

    fn answer(&mut self, (node, request): &(usize, Request), outcome: Outcome) {
        let answer = Answer {
            attempt: request.attempt,
            clock: self.clock,
            outcome,
        };
        self.frame(*node, kind::ANSWER, &answer);
        self.pump();
    }

    fn run(&mut self, us: u64) {
        let end = self.now_us + us;
        while let Some(at) = self.session.next_timeout().filter(|at| *at <= end) {
            self.now_us = self.now_us.max(at);
            self.session.handle_timeout(self.now_us);
            self.pump();
        }
        self.now_us = end;
    }

    fn result(&mut self) -> Option<Result<Outcome, CallError>> {
        self.session.poll_completion().map(|c| c.result)
    }
}

fn written() -> Outcome {
    Outcome::Written {
        version: 5,
        old: Old::NotAsked,
        number: None,
    }
}

fn conflict() -> Outcome {
    Outcome::Conflict {
        version: 5,
        old: Old::NotAsked,
    }
}

fn no_quorum() -> Outcome {
    Outcome::NoQuorum { reached: vec![1] }
}

#[test]
fn a_call_says_hello_and_goes_to_the_preferred_node() {
    let mut rig = Rig::new();
    rig.put(1);
    rig.answer(&rig.requests[0].clone(), written());
    assert_eq!(rig.result(), Some(Ok(written())));
    rig.put(2);
    let best = (0..NODES)
        .max_by_key(|n| wire::rendezvous_weight(b"key", *n as u8 + 1))
        .unwrap();
    assert_eq!(rig.requests.len(), 2);
    assert_eq!(rig.requests[1].0, best);
    assert_eq!(rig.hellos.len(), NODES);
}

#[test]
fn retries_are_marked_and_go_to_other_nodes_under_new_numbers() {
    let mut rig = Rig::new();
    rig.put(1);
    rig.run(200_000);
    let sent = &rig.requests;
    assert!(sent.len() >= 3, "{}", sent.len());
    assert!(!sent[0].1.retry && sent[1..].iter().all(|(_, r)| r.retry));
    assert_ne!(sent[0].0, sent[1].0);
    assert!(sent.iter().all(|(_, r)| r.operation == sent[0].1.operation));
    assert!(sent.windows(2).all(|w| w[0].1.attempt < w[1].1.attempt));
    let first = sent[0].clone();
    rig.answer(&first, written());
    assert_eq!(rig.result(), Some(Ok(written())));
    rig.answer(&rig.requests[1].clone(), written());
    assert_eq!(rig.session.counters().late, 1);
}

#[test]
fn a_forgotten_session_is_renewed_and_the_attempt_repeated_as_a_retry() {
    let mut rig = Rig::new();
    rig.put(1);
    let (node, request) = rig.requests[0].clone();
    let refusal = NoSession {
        token: request.token,
        attempt: request.attempt,
    };
    rig.frame(node, kind::NO_SESSION, &refusal);
    rig.pump();
    assert_eq!(rig.hellos.len(), NODES + 1);
    let (_, again) = rig.requests.last().unwrap();
    assert!(again.retry && again.attempt > request.attempt);
}

#[test]
fn the_low_mark_is_the_lowest_sequence_in_flight() {
    let mut rig = Rig::new();
    (1..=3).for_each(|tag| rig.put(tag));
    let marks: Vec<u64> = rig
        .requests
        .iter()
        .map(|(_, r)| r.operation.low_mark)
        .collect();
    assert_eq!(marks, [1, 1, 1]);
    rig.answer(&rig.requests[0].clone(), written());
    rig.put(4);
    assert_eq!(rig.requests[3].1.operation.low_mark, 2);
}

#[test]
fn a_first_attempts_conflict_waits_for_the_other_attempts() {
    let mut rig = Rig::new();
    rig.put(1);
    rig.run(50_000);
    let (first, second) = (rig.requests[0].clone(), rig.requests[1].clone());
    rig.answer(&first, conflict());
    assert_eq!(rig.result(), None);
    rig.answer(&second, written());
    assert_eq!(rig.result(), Some(Ok(written())));
}

#[test]
fn a_lone_attempts_conflict_and_a_retrys_settle() {
    let mut rig = Rig::new();
    rig.put(1);
    rig.answer(&rig.requests[0].clone(), conflict());
    assert_eq!(rig.result(), Some(Ok(conflict())));
    rig.put(2);
    rig.run(100_000);
    // The nodes entered it in the record, because the attempt was marked as a retry.
    rig.answer(&rig.requests[2].clone(), conflict());
    assert_eq!(rig.result(), Some(Ok(conflict())));
}

#[test]
fn an_operation_is_made_anew_above_what_was_dropped() {
    let mut rig = Rig::new();
    rig.put(1);
    let first = rig.requests[0].clone();
    let dropped = first.1.operation.birth + clock::from_ms(70);
    rig.answer(&first, Outcome::Remake { dropped });
    let (_, anew) = rig.requests.last().unwrap().clone();
    assert!(anew.operation.birth > dropped && !anew.retry);
    assert_ne!(anew.operation.id, first.1.operation.id);
    assert_eq!(rig.result(), None);
}

#[test]
fn no_quorum_is_reported_when_all_have_said_so_for_a_while() {
    let mut rig = Rig::new();
    rig.silent[2] = true;
    rig.put(1);
    let mut answered = 0;
    let mut result = None;
    while result.is_none() && rig.now_us < 3_000_000 {
        while answered < rig.requests.len() {
            rig.answer(&rig.requests[answered].clone(), no_quorum());
            answered += 1;
        }
        rig.run(10_000);
        result = rig.result();
    }
    assert!(
        matches!(result, Some(Err(CallError::NoQuorum { .. }))),
        "{result:?}"
    );
    assert!((900_000..1_500_000).contains(&rig.now_us), "{}", rig.now_us);
}

#[test]
fn nobody_who_answers_a_hello_is_no_quorum() {
    let mut rig = Rig::new();
    rig.silent = [true; NODES];
    rig.put(1);
    rig.run(1_200_000);
    assert!(matches!(
        rig.result(),
        Some(Err(CallError::NoQuorum { .. }))
    ));
    assert!(rig.requests.is_empty());
}

#[test]
fn a_write_without_an_answer_is_unknown_and_a_read_timed_out() {
    let mut rig = Rig::new();
    rig.put(1);
    rig.submit(Action::Get, 2);
    let first = rig.requests[0].clone();
    rig.run(4_900_000);
    rig.answer(&rig.requests[3].clone(), no_quorum());
    assert_eq!(rig.result(), None);
    rig.run(200_000);
    assert_eq!(rig.result(), Some(Err(CallError::UnknownOutcome)));
    let read = rig.result();
    assert!(
        matches!(
            read,
            Some(Err(CallError::TimedOut | CallError::NoQuorum { .. }))
        ),
        "{read:?}"
    );
    rig.answer(&first, written());
    assert_eq!(rig.result(), None);
}

#[test]
fn busy_is_tried_again_until_the_deadline() {
    let mut rig = Rig::new();
    rig.put(1);
    let mut answered = 0;
    while rig.now_us < 5_100_000 {
        while answered < rig.requests.len() {
            rig.answer(&rig.requests[answered].clone(), Outcome::Busy);
            answered += 1;
        }
        rig.run(10_000);
    }
    assert!(answered > 10);
    assert_eq!(rig.result(), Some(Err(CallError::Busy)));
}

#[test]
fn births_follow_the_nodes_clocks() {
    let mut rig = Rig::new();
    rig.put(1);
    assert_eq!(clock::to_ms(rig.requests[0].1.operation.birth), 1_000_000);
    rig.now_us += 30_000;
    rig.clock = clock::from_ms(2_000_000);
    rig.answer(&rig.requests[0].clone(), written());
    rig.now_us += 10_000;
    rig.clock = 0;
    rig.put(2);
    assert_eq!(clock::to_ms(rig.requests[1].1.operation.birth), 2_000_010);
}

#[test]
fn a_node_of_another_cluster_is_not_used() {
    let mut rig = Rig::new();
    rig.silent[1] = true;
    rig.put(1);
    let nonce = rig.hellos.iter().find(|(n, _)| *n == 1).unwrap().1.nonce;
    let other = HelloAnswer {
        nonce,
        token: 1,
        node: 1,
        cluster: 10,
        epoch: 1,
        members: Vec::new(),
        key_size_max: 0,
        value_size_max: 0,
        shard_ports: Vec::new(),
        clock: 0,
    };
    rig.frame(1, kind::HELLO_ANSWER, &other);
    rig.run(1_000_000);
    assert_eq!(rig.session.counters().foreign, 1);
    assert!(rig.requests.iter().all(|(node, _)| *node != 1));
}

#[test]
fn bounds_are_checked_before_anything_is_sent() {
    let mut rig = Rig::new();
    let submit = |rig: &mut Rig, key: Vec<u8>, action| {
        rig.session
            .submit(0, Call::new(key, action), 1)
            .unwrap_err()
    };
    let value = Bytes::from(vec![0; 30_000]);
    let swap = Action::CompareValue {
        expected: value.clone(),
        value,
    };
    assert!(matches!(
        submit(&mut rig, vec![], Action::Get),
        CallError::InvalidArgument(_)
    ));
    assert!(matches!(
        submit(&mut rig, vec![0; 1_025], Action::Get),
        CallError::TooLarge { .. }
    ));
    assert!(matches!(
        submit(&mut rig, vec![0], swap),
        CallError::TooLarge { .. }
    ));
    assert_eq!(rig.session.poll_transmit(), None);
}

proptest! {
    #[test]
    fn arbitrary_frames_never_panic(
        frames in prop::collection::vec(
            (0..5usize, 0..10u8, prop::collection::vec(any::<u8>(), 0..60)), 0..40),
    ) {
        let mut rig = Rig::new();
        rig.put(1);
        for (node, kind, body) in frames {
            rig.session.handle_frame(rig.now_us, node, kind, &body);
        }
        rig.run(6_000_000);
        prop_assert!(rig.result().is_some());
    }

    /// Whatever is lost, late or repeated, every call completes once, by its deadline.
    #[test]
    fn every_call_completes_once(seed in any::<u64>(), loss in 0..60u64) {
        let mut rig = Rig::new();
        let mut random = seed;
        let mut chance = |percent: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (random >> 33) % 100 < percent
        };
        let mut seen = 0;
        let mut results = Vec::new();
        for tag in 0..20 {
            rig.silent = [chance(20), chance(20), chance(20)];
            if tag % 3 == 0 {
                rig.submit(Action::Get, tag);
            } else {
                rig.put(tag);
            }
            for _ in 0..10 {
                while seen < rig.requests.len() {
                    let request = rig.requests[seen].clone();
                    seen += 1;
                    if !chance(loss) {
                        let read = request.1.operation.action.is_read();
                        let outcome = if read { Outcome::Absent } else { written() };
                        let outcome = if chance(20) { no_quorum() } else { outcome };
                        rig.answer(&request, outcome.clone());
                        if chance(10) {
                            rig.answer(&request, outcome);
                        }
                    }
                }
                rig.run(7_000);
                while let Some(completion) = rig.session.poll_completion() {
                    results.push(completion.tag);
                }
            }
        }
        rig.run(6_000_000);
        while let Some(completion) = rig.session.poll_completion() {
            results.push(completion.tag);
        }
        results.sort_unstable();
        prop_assert_eq!(results, (0..20).collect::<Vec<u64>>());
        prop_assert_eq!(rig.session.in_flight(), 0);
    }
}
