//! Transcripts of the protocol: the messages between nodes, command by command. They show how the
//! protocol communicates; the simulator checks its guarantees.
//!
//! A file in `testdata/` is a list of blocks: a command, `----`, the output expected, an empty
//! line. `REWRITE=1 cargo test --test transcripts` writes the output seen; read the difference.
//!
//!     cluster N           N nodes, empty, until the first configuration is installed everywhere
//!     put|get|del|add|create|append NODE KEY [VALUE]   a client's request to NODE (from 0)
//!     swap NODE KEY OLD NEW
//!     again NODE          the last request again, as a retry
//!     text NODE DATAGRAM  a text client's datagram, unchanged
//!     cut A B | heal      no messages between A and B; all links up again
//!     crash NODE | restart NODE
//!     wait MS             time passes, heartbeats and timers run

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;

use bytes::Bytes;
use horseshoe::gateway::text;
use horseshoe::protocol::types::ballot::Ballot;
use horseshoe::protocol::types::limits::{
    DISK_HUNG_MS_DEFAULT, HEARTBEAT_MS_DEFAULT, LINK_DOWN_MS_DEFAULT,
};
use horseshoe::protocol::types::message::{
    ClientMessage, ClientReply, Destination, Endpoint, Input, Message, Now, Output, Recovered,
};
use horseshoe::protocol::types::page::{Page, RangePage};
use horseshoe::protocol::types::record::{AcceptorState, Key};
use horseshoe::protocol::{Options, Replica, Tuning};
use wire::{Action, Hello, Operation, OperationId, Request};

const CLIENT: Endpoint = Endpoint::new(1, 1);

#[derive(Default)]
struct Disk {
    registers: BTreeMap<Key, AcceptorState>,
    recovered: Recovered,
}

struct Lab {
    now_us: u64,
    nodes: Vec<Option<Replica>>,
    disks: Vec<Disk>,
    boots: u64,
    tokens: Vec<u64>,
    attempts: u64,
    last: Option<Operation>,
    cut: Vec<(usize, usize)>,
    wire: VecDeque<(usize, usize, Input)>,
    ballots: BTreeMap<Ballot, String>,
    quiet: bool,
    out: String,
}

impl Lab {
    fn new(count: usize) -> Self {
        let disks = (0..count).map(|i| {
            let incarnation = 100 + i as u64;
            Disk {
                recovered: Recovered {
                    incarnation,
                    ..Default::default()
                },
                ..Disk::default()
            }
        });
        let mut lab = Lab {
            now_us: 1_000_000,
            nodes: Vec::new(),
            disks: disks.collect(),
            boots: 0,
            tokens: vec![0; count],
            attempts: 0,
            last: None,
            cut: Vec::new(),
            wire: VecDeque::new(),
            ballots: BTreeMap::new(),
            quiet: true,
            out: String::new(),
        };
        lab.nodes = (0..count).map(|_| None).collect();
        (0..count).for_each(|i| lab.start(i));
        lab.run_until(500);
        lab.quiet = false;
        lab
    }

    fn now(&self) -> Now {
        Now {
            mono_us: self.now_us,
            wall_ms: 1_700_000_000_000 + self.now_us / 1_000,
        }
    }

    fn start(&mut self, i: usize) {
        self.boots += 1;
        let options = Options {
            list: (0..self.disks.len())
                .map(|n| format!("node{n}:1"))
                .collect(),
            index: i as u8,
            boot: self.boots,
            seed: self.boots,
            skew_max_ms: 60_000,
            insecure_admin: true,
            value_size_max: wire::VALUE_SIZE_DEFAULT,
            keys_cached_max: 100,
            cache_size_max: 64 << 20,
            heartbeat_ms: HEARTBEAT_MS_DEFAULT,
            link_down_ms: LINK_DOWN_MS_DEFAULT,
            shrink_after_ms: 0,
            disk_hung_ms: DISK_HUNG_MS_DEFAULT,
            cluster_name: String::new(),
            bootstrap: false,
            tuning: Tuning::default(),
        };
        self.nodes[i] = Some(Replica::new(
            options,
            self.disks[i].recovered.clone(),
            self.now(),
        ));
        self.poll(i);
    }

    fn input(&mut self, i: usize, input: Input) {
        let now = self.now();
        if let Some(node) = &mut self.nodes[i] {
            node.handle_input(now, input);
            self.poll(i);
        }
    }

    fn poll(&mut self, i: usize) {
        while let Some(output) = self.nodes[i].as_mut().and_then(|n| n.poll_output()) {
            match output {
                Output::Persist(group) => {
                    let disk = &mut self.disks[i];
                    disk.registers.extend(group.registers);
                    disk.recovered.group = group.number;
                    disk.recovered.meta = group.meta.unwrap_or(disk.recovered.meta.clone());
                    self.input(
                        i,
                        Input::Persisted {
                            group: group.number,
                        },
                    );
                }
                Output::List {
                    bucket,
                    after,
                    epoch,
                } => {
                    let disk = &self.disks[i];
                    let configuration = disk.recovered.meta.configuration.as_ref();
                    let spread = configuration.expect("who lists has one").spread;
                    let held = disk.registers.iter();
                    let held = held.filter(|(key, _)| spread.bucket_of(key) == bucket);
                    let held = held.filter(|(key, _)| Some(*key) > after.as_ref());
                    let listed = Input::Listed {
                        bucket,
                        page: Page::collect(held.map(owned), usize::MAX),
                        after,
                        epoch,
                    };
                    self.input(i, listed);
                }
                Output::ListRange {
                    listing,
                    range,
                    bounds,
                    epoch,
                } => {
                    let held = self.disks[i].registers.iter();
                    let held = held.filter(|(key, _)| range.contains(key));
                    let page =
                        RangePage::of_range(held.map(|(k, s)| (k.clone(), s.into())), bounds);
                    let listed = Input::RangeListed {
                        listing,
                        epoch,
                        page,
                    };
                    self.input(i, listed);
                }
                Output::Load(key) => {
                    let state = self.disks[i].registers.get(&key).cloned();
                    self.input(i, Input::Loaded { key, state });
                }
                Output::Send { to, mut envelope } => {
                    let to = match to {
                        Destination::Node(id) => usize::from(id) - 1,
                        Destination::Listed(index) => usize::from(index),
                        Destination::Address(name) => {
                            let mut all = (0..self.disks.len()).map(|n| format!("node{n}:1"));
                            all.position(|a| *a == *name).expect("a listed node")
                        }
                    };
                    let cluster = self.nodes[i].as_ref().map_or(0, Replica::cluster);
                    envelope.via = self.nodes[i].as_ref().map_or(0, Replica::node);
                    self.wire
                        .push_back((i, to, Input::Peer { cluster, envelope }));
                }
                Output::Reply { reply, .. } => self.reply(i, reply),
                Output::Event(_) => {}
            }
        }
    }

    fn reply(&mut self, i: usize, reply: ClientReply) {
        match reply {
            ClientReply::Hello(answer) => self.tokens[i] = answer.token,
            ClientReply::Answer(answer) => {
                let outcome = self.name_ballots(format!("{:?}", answer.outcome));
                self.say(format!("{i} answers {outcome}"));
            }
            ClientReply::Sessionless { id, outcome } => {
                let told = match text::answer(id, &outcome) {
                    Ok(bytes) => format!("answers {}", String::from_utf8_lossy(&bytes)),
                    Err(silence) => format!("is silent: {silence:?}"),
                };
                self.say(format!("{i} {told}"));
            }
            other => self.say(format!("{i} answers {other:?}")),
        }
    }

    fn say(&mut self, line: String) {
        if !self.quiet {
            writeln!(self.out, "{line}").unwrap();
        }
    }

    /// Ballots are numbered in the order in which they are first seen.
    fn ballot(&mut self, ballot: Ballot) -> String {
        if ballot == Ballot::ZERO {
            return "none".into();
        }
        if let Some(before) = self
            .ballots
            .get(&Ballot::new(ballot.reading() - 1, ballot.node()))
        {
            let next = format!("next({before})");
            return self.ballots.entry(ballot).or_insert(next).clone();
        }
        let name = format!("b{}", self.ballots.len() + 1);
        self.ballots.entry(ballot).or_insert(name).clone()
    }

    /// Versions are ballots, or slightly above one.
    fn name_ballots(&self, mut text: String) -> String {
        for (ballot, name) in &self.ballots {
            text = text.replace(&ballot.0.to_string(), name);
        }
        text
    }

    fn show(&mut self, from: usize, to: usize, message: &Message) -> Option<String> {
        let value =
            |record: &Option<std::sync::Arc<horseshoe::protocol::types::record::Record>>| {
                record
                    .as_ref()
                    .map_or("no record".into(), |r| match &r.value {
                        Some(value) => format!("{:?}", String::from_utf8_lossy(value)),
                        None => "tombstone".into(),
                    })
            };
        let text = match message {
            Message::Prepare(m) => format!("Prepare {}", self.ballot(m.ballot)),
            Message::Promise(m) => {
                let (ballot, accepted) = (self.ballot(m.ballot), self.ballot(m.accepted));
                format!("Promise {ballot} accepted {accepted} {}", value(&m.record))
            }
            Message::Nack(m) => {
                format!(
                    "Nack {} promised {}",
                    self.ballot(m.ballot),
                    self.ballot(m.promised)
                )
            }
            Message::Accept(m) => {
                format!(
                    "Accept {} {}",
                    self.ballot(m.ballot),
                    value(&Some(m.record.clone()))
                )
            }
            Message::Accepted(m) => format!("Accepted {}", self.ballot(m.ballot)),
            Message::Read(m) => format!("Read holds {}", self.ballot(m.holds)),
            Message::ReadAnswer(m) => {
                let chosen = if m.chosen { " chosen" } else { "" };
                format!(
                    "ReadAnswer {}{chosen} {}",
                    self.ballot(m.accepted),
                    value(&m.record)
                )
            }
            Message::Forward(_) => "Forward".into(),
            Message::ForwardAnswer(_) => "ForwardAnswer".into(),
            Message::Chosen(m) => {
                let chosen: Vec<_> = m.chosen.iter().map(|(_, b)| self.ballot(*b)).collect();
                format!("Chosen {}", chosen.join(" "))
            }
            Message::Copy(m) => {
                let record = value(&Some(m.record.clone()));
                format!("Copy {} {record}", self.ballot(m.ballot))
            }
            Message::CopyAck(m) => match m.refused_for {
                Some(promised) => {
                    let (ballot, promised) = (self.ballot(m.ballot), self.ballot(promised));
                    format!("CopyAck {ballot} refused for {promised}")
                }
                None => format!("CopyAck {}", self.ballot(m.ballot)),
            },
            _ => return None,
        };
        Some(format!("{from} -> {to} {text}"))
    }

    fn deliver_all(&mut self) {
        while let Some((from, to, input)) = self.wire.pop_front() {
            let pair = (from.min(to), from.max(to));
            let lost = self.cut.contains(&pair) || self.nodes[to].is_none();
            if let Input::Peer { envelope, .. } = &input
                && let Some(line) = self.show(from, to, &envelope.message)
            {
                self.say(if lost { format!("{line} (lost)") } else { line });
            }
            if !lost {
                self.input(to, input);
            }
        }
    }

    fn run_until(&mut self, ms: u64) {
        let end = self.now_us + ms * 1_000;
        self.deliver_all();
        loop {
            let timers = self.nodes.iter().enumerate();
            let next = timers
                .filter_map(|(i, n)| Some((n.as_ref()?.next_timeout()?, i)))
                .min();
            let Some((at, i)) = next.filter(|(at, _)| *at <= end) else {
                break;
            };
            self.now_us = self.now_us.max(at);
            self.input(i, Input::Timeout);
            self.deliver_all();
        }
        self.now_us = end;
    }

    fn request(&mut self, i: usize, operation: Operation, retry: bool) {
        let hello = Hello {
            client: 7,
            nonce: self.now_us,
            library_version: String::new(),
        };
        self.input(
            i,
            Input::Client {
                from: CLIENT,
                message: ClientMessage::Hello(hello),
            },
        );
        self.attempts += 1;
        let request = Request {
            token: self.tokens[i],
            attempt: self.attempts,
            retry,
            left_ms: 5_000,
            operation,
        };
        self.input(
            i,
            Input::Client {
                from: CLIENT,
                message: ClientMessage::Request(request),
            },
        );
        self.deliver_all();
    }

    fn text(&mut self, i: usize, datagram: &str) {
        let request = text::parse(datagram.as_bytes());
        let text::TextRequest { id, key, action } = request.expect("a request");
        let message = ClientMessage::Sessionless { id, key, action };
        let from = CLIENT;
        self.input(i, Input::Client { from, message });
        self.deliver_all();
    }

    fn operate(&mut self, word: &str, i: usize, arguments: &[&str]) {
        let bytes = |place: usize| Bytes::copy_from_slice(arguments[place].as_bytes());
        let action = match word {
            "get" => Action::Get,
            "put" => Action::Put { value: bytes(1) },
            "create" => Action::PutIfAbsent { value: bytes(1) },
            "del" => Action::Delete,
            "append" => Action::Append { value: bytes(1) },
            "add" => Action::Add {
                delta: arguments[1].parse().unwrap(),
            },
            "swap" => Action::CompareValue {
                expected: bytes(1),
                value: bytes(2),
            },
            other => panic!("no such command: {other}"),
        };
        let sequence = self.attempts + 1;
        let operation = Operation {
            id: OperationId {
                client: 7,
                sequence,
            },
            birth: wire::clock::from_ms(self.now().wall_ms),
            low_mark: 1,
            key: bytes(0),
            want_old: false,
            action,
        };
        self.last = Some(operation.clone());
        self.request(i, operation, false);
    }

    fn command(&mut self, line: &str) -> String {
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |place: usize| words[place].parse::<usize>().unwrap();
        match words[0] {
            "cut" => self
                .cut
                .push((number(1).min(number(2)), number(1).max(number(2)))),
            "heal" => self.cut.clear(),
            "crash" => self.nodes[number(1)] = None,
            "restart" => self.start(number(1)),
            "wait" => self.run_until(number(1) as u64),
            "again" => {
                let operation = self.last.clone().expect("something was requested");
                self.request(number(1), operation, true);
            }
            "text" => {
                let datagram = line.splitn(3, ' ').nth(2).expect("a datagram");
                self.text(number(1), datagram);
            }
            word => self.operate(word, number(1), &words[2..]),
        }
        std::mem::take(&mut self.out)
    }
}

#[test]
fn transcripts() {
    let rewrite = std::env::var_os("REWRITE").is_some();
    let mut seen = 0;
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/testdata");
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let mut lab = None;
        let mut result = String::new();
        for block in text.split("\n\n").filter(|b| !b.trim().is_empty()) {
            let (head, _) = block.split_once("\n----").unwrap_or((block, ""));
            let comments = head.lines().filter(|l| l.starts_with('#'));
            comments.for_each(|l| writeln!(result, "{l}").unwrap());
            let Some(command) = head.lines().find(|l| !l.starts_with('#')) else {
                result.push('\n');
                continue;
            };
            let output = match command.strip_prefix("cluster ") {
                Some(count) => {
                    lab = Some(Lab::new(count.parse().unwrap()));
                    String::new()
                }
                None => lab.as_mut().expect("a cluster first").command(command),
            };
            write!(result, "{command}\n----\n{output}\n").unwrap();
            seen += 1;
        }
        if rewrite {
            std::fs::write(&path, result).unwrap();
        } else {
            assert_eq!(result.trim_end(), text.trim_end(), "{}", path.display());
        }
    }
    assert!(seen > 20, "only {seen} commands were run");
}

fn owned((key, state): (&Key, &AcceptorState)) -> (Key, AcceptorState) {
    (key.clone(), state.clone())
}
