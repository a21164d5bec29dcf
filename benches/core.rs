//! The protocol core alone: five replicas in one thread, messages encoded and decoded, no sockets
//! and no disk. Prints the cost of one operation, summed over all five nodes; asserts nothing.
//!
//! `cargo bench --bench core [-- OPERATIONS]`

use std::time::Instant;

use bytes::Bytes;
use horseshoe::protocol::types::limits::{
    DISK_HUNG_MS_DEFAULT, HEARTBEAT_MS_DEFAULT, LINK_DOWN_MS_DEFAULT,
};
use horseshoe::protocol::types::message::{
    ClientMessage, ClientReply, Destination, Endpoint, Envelope, Input, Message, Now, Output,
    Recovered,
};
use horseshoe::protocol::{Options, Replica, Tuning};
use horseshoe::storage::Table;
use wire::{Action, Hello, Operation, OperationId, Request, rendezvous_weight};

const NODES: usize = 5;
const IN_FLIGHT: u64 = 256;
const KEYS: u64 = 10_000;
const CLIENT: Endpoint = Endpoint::new(1, 1);

struct Bench {
    now: Now,
    nodes: Vec<Replica>,
    tables: [Table; NODES],
    tokens: [u64; NODES],
    wire: Vec<(usize, Input)>,
    answered: u64,
    messages: u64,
    body: Vec<u8>,
}

impl Bench {
    fn new() -> Self {
        let now = Now {
            mono_us: 1_000_000,
            wall_ms: 1_700_000_000_000,
        };
        let nodes = (0..NODES).map(|i| {
            let options = Options {
                list: (0..NODES).map(|n| format!("node{n}:1")).collect(),
                index: i as u8,
                boot: i as u64 + 1,
                seed: i as u64,
                skew_max_ms: 60_000,
                insecure_admin: true,
                value_size_max: wire::VALUE_SIZE_DEFAULT,
                keys_cached_max: 100_000,
                cache_size_max: 64 << 20,
                heartbeat_ms: HEARTBEAT_MS_DEFAULT,
                link_down_ms: LINK_DOWN_MS_DEFAULT,
                shrink_after_ms: 0,
                disk_hung_ms: DISK_HUNG_MS_DEFAULT,
                cluster_name: String::new(),
                bootstrap: false,
                tuning: Tuning::default(),
            };
            let recovered = Recovered {
                incarnation: i as u64 + 1,
                ..Recovered::default()
            };
            Replica::new(options, recovered, now)
        });
        let mut bench = Bench {
            now,
            nodes: nodes.collect(),
            tables: Default::default(),
            tokens: [0; NODES],
            wire: Vec::new(),
            answered: 0,
            messages: 0,
            body: Vec::new(),
        };
        (0..NODES).for_each(|i| bench.poll(i));
        for _ in 0..20 {
            bench.pass(50);
        }
        for i in 0..NODES {
            let hello = Hello {
                client: 7,
                nonce: 1,
                library_version: String::new(),
            };
            bench.input(
                i,
                Input::Client {
                    from: CLIENT,
                    message: ClientMessage::Hello(hello),
                },
            );
            bench.poll(i);
        }
        bench
    }

    fn pass(&mut self, ms: u64) {
        self.now.mono_us += ms * 1_000;
        self.now.wall_ms += ms;
        for i in 0..NODES {
            if self.nodes[i]
                .next_timeout()
                .is_some_and(|at| at <= self.now.mono_us)
            {
                self.input(i, Input::Timeout);
                self.poll(i);
            }
        }
        self.deliver();
    }

    fn input(&mut self, i: usize, input: Input) {
        self.nodes[i].handle_input(self.now, input);
    }

    fn poll(&mut self, i: usize) {
        while let Some(output) = self.nodes[i].poll_output() {
            match output {
                Output::Persist(group) => {
                    self.tables[i].apply(&group);
                    self.input(
                        i,
                        Input::Persisted {
                            group: group.number,
                        },
                    );
                }
                Output::Load(key) => {
                    let state = self.tables[i].load(&key);
                    self.input(i, Input::Loaded { key, state });
                }
                Output::List {
                    bucket,
                    after,
                    epoch,
                } => {
                    let page = self.tables[i].list(bucket, after.as_ref());
                    let listed = Input::Listed {
                        bucket,
                        after,
                        epoch,
                        page,
                    };
                    self.input(i, listed);
                }
                Output::ListRange {
                    listing,
                    range,
                    bounds,
                    epoch,
                } => {
                    let page = self.tables[i].list_range(&range, bounds);
                    let listed = Input::RangeListed {
                        listing,
                        epoch,
                        page,
                    };
                    self.input(i, listed);
                }
                Output::Send { to, envelope } => {
                    self.messages += 1;
                    let place = match to {
                        Destination::Node(id) => usize::from(id) - 1,
                        Destination::Listed(index) => usize::from(index),
                        Destination::Address(_) => unreachable!("all nodes know their ids"),
                    };
                    self.body.clear();
                    envelope.message.encode_body(&mut self.body);
                    let message = Message::decode(envelope.message.kind(), &self.body);
                    let message = message.expect("what was encoded").expect("a known kind");
                    let envelope = Envelope {
                        message,
                        via: self.nodes[i].node(),
                        ..envelope
                    };
                    let cluster = self.nodes[i].cluster();
                    self.wire.push((place, Input::Peer { cluster, envelope }));
                }
                Output::Reply {
                    reply: ClientReply::Hello(answer),
                    ..
                } => {
                    self.tokens[i] = answer.token;
                }
                Output::Reply { .. } => self.answered += 1,
                Output::Event(_) => {}
            }
        }
    }

    fn deliver(&mut self) {
        while !self.wire.is_empty() {
            for (to, input) in std::mem::take(&mut self.wire) {
                self.input(to, input);
            }
            (0..NODES).for_each(|i| self.poll(i));
        }
    }

    fn run(&mut self, count: u64, first: u64, action: impl Fn() -> Action) -> f64 {
        let began = Instant::now();
        let mut sequence = first;
        while sequence < first + count {
            for _ in 0..IN_FLIGHT {
                sequence += 1;
                let name = format!("bench/{}", sequence.wrapping_mul(7_919) % KEYS);
                let nodes =
                    (1..=NODES as u8).max_by_key(|n| rendezvous_weight(name.as_bytes(), *n));
                let node = usize::from(nodes.expect("there are nodes")) - 1;
                let operation = Operation {
                    id: OperationId {
                        client: 7,
                        sequence,
                    },
                    birth: wire::clock::from_ms(self.now.wall_ms) + sequence % 4_000,
                    low_mark: sequence.saturating_sub(IN_FLIGHT).max(1),
                    key: Bytes::from(name),
                    want_old: false,
                    action: action(),
                };
                let token = self.tokens[node];
                let request = Request {
                    token,
                    attempt: sequence,
                    retry: false,
                    left_ms: 5_000,
                    operation,
                };
                let message = ClientMessage::Request(request);
                self.input(
                    node,
                    Input::Client {
                        from: CLIENT,
                        message,
                    },
                );
            }
            (0..NODES).for_each(|i| self.poll(i));
            self.deliver();
            self.pass(3);
        }
        began.elapsed().as_secs_f64() / count as f64 * 1e6
    }
}

fn main() {
    let count = std::env::args()
        .skip(1)
        .find_map(|a| a.parse().ok())
        .unwrap_or(200_000);
    let mut bench = Bench::new();
    let value = Bytes::from(vec![b'x'; 100]);
    let put = || Action::Put {
        value: value.clone(),
    };
    bench.run(KEYS * 2, 0, put);
    let first = KEYS * 3;
    for (name, first, action) in [
        ("put", first, &put as &dyn Fn() -> Action),
        ("get", first + count, &|| Action::Get),
    ] {
        let (answered, messages) = (bench.answered, bench.messages);
        let cost_us = bench.run(count, first, action);
        println!(
            "{name}: {cost_us:.2} us an operation, {:.1} messages, {} of {count} answered",
            (bench.messages - messages) as f64 / count as f64,
            bench.answered - answered,
        );
    }
}
