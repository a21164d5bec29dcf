//! The cost of an operation in the session alone: submit, send, receive the answer, complete, with
//! a fixed number of operations in flight. The benchmark uses no sockets. It measures the processor
//! time of its thread, so that other processes on the machine matter less.

use bytes::Bytes;
use kvclient::Call;
use kvclient::session::{DEADLINE_US_DEFAULT, NO_QUORUM_AFTER_US_DEFAULT, Session, SessionOptions};
use nix::time::{ClockId, clock_gettime};
use wire::{Action, Answer, Hello, HelloAnswer, Old, Outcome, Request, kind};

const NODES: usize = 5;
const OPERATIONS: u64 = 1_000_000;

fn main() {
    for in_flight in [1, 100, 1_000, 10_000] {
        let ns = run(in_flight);
        println!(
            "{in_flight:>6} in flight: {ns} ns an operation, of them in the fake node {}",
            fake()
        );
    }
}

fn cpu_ns() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("every Linux has it");
    time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64
}

fn started() -> Session {
    let options = SessionOptions {
        client: 1,
        seed: 1,
        nodes: NODES,
        deadline_us: DEADLINE_US_DEFAULT,
        no_quorum_after_us: NO_QUORUM_AFTER_US_DEFAULT,
        cluster: 0,
        library_version: "bench".into(),
    };
    Session::new(options, 0)
}

fn put(at: u64) -> Call {
    let value = Bytes::from_static(&[b'v'; 100]);
    Call::new(format!("key {}", at % 10_000), Action::Put { value })
}

fn encoded(body: &impl serde::Serialize) -> Vec<u8> {
    let mut bytes = Vec::new();
    wire::encode(&mut bytes, body);
    bytes
}

fn answer_to(body: &[u8]) -> Vec<u8> {
    let request: Request = wire::decode(body).expect("a request");
    let outcome = Outcome::Written {
        version: 1 << 50,
        old: Old::NotAsked,
        number: None,
    };
    encoded(&Answer {
        attempt: request.attempt,
        clock: 1 << 50,
        outcome,
    })
}

fn run(in_flight: u64) -> u64 {
    let mut session = started();
    let mut answers: Vec<(usize, u8, Vec<u8>)> = Vec::new();
    let mut now_us = 1;
    let (mut submitted, mut completed) = (0, 0);
    while submitted < in_flight {
        session
            .submit(now_us, put(submitted), submitted)
            .expect("room");
        submitted += 1;
    }
    let began_ns = cpu_ns();
    while completed < OPERATIONS {
        now_us += 20;
        while let Some(transmit) = session.poll_transmit() {
            let answer = match transmit.kind {
                kind::HELLO => (kind::HELLO_ANSWER, greeting(transmit.node, &transmit.body)),
                _ => (kind::ANSWER, answer_to(&transmit.body)),
            };
            answers.push((transmit.node, answer.0, answer.1));
        }
        for (node, frame_kind, body) in answers.drain(..) {
            session.handle_frame(now_us, node, frame_kind, &body);
        }
        if session.next_timeout().is_some_and(|at_us| at_us <= now_us) {
            session.handle_timeout(now_us);
        }
        while let Some(completion) = session.poll_completion() {
            completion.result.expect("written");
            completed += 1;
            session
                .submit(now_us, put(submitted), submitted)
                .expect("room");
            submitted += 1;
        }
    }
    (cpu_ns() - began_ns) / completed
}

fn greeting(node: usize, body: &[u8]) -> Vec<u8> {
    let hello: Hello = wire::decode(body).expect("a hello");
    encoded(&HelloAnswer {
        nonce: hello.nonce,
        token: 1,
        node: node as u8 + 1,
        cluster: 1,
        epoch: 1,
        members: Vec::new(),
        key_size_max: 1_024,
        value_size_max: 49_152,
        shard_ports: Vec::new(),
        clock: 1 << 50,
    })
}

/// The cost of the fake node: decoding a request, encoding an answer, and making the call.
fn fake() -> u64 {
    let mut session = started();
    session.submit(1, put(1), 1).expect("room");
    let hello = session.poll_transmit().expect("a hello");
    session.handle_frame(
        1,
        hello.node,
        kind::HELLO_ANSWER,
        &greeting(hello.node, &hello.body),
    );
    let request = std::iter::from_fn(|| session.poll_transmit()).find(|t| t.kind == kind::REQUEST);
    let request = request.expect("a request");
    let began_ns = cpu_ns();
    for at in 0..OPERATIONS {
        std::hint::black_box((answer_to(&request.body), put(at)));
    }
    (cpu_ns() - began_ns) / OPERATIONS
}
