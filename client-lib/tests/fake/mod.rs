//! A node of one thread: it implements hellos, requests and status of the protocol, over a map.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use wire::datagram::{
    self, DATAGRAM_SIZE_TARGET_LOOPBACK, DatagramHeader, DatagramWriter, FrameHeader,
};
use wire::transfer::{self, Taken, Transfers};
use wire::{
    self, Action, Answer, Hello, HelloAnswer, NoSession, NodeStatus, Old, OperationId, Outcome,
    Request, ScanEntry, ScanPage, StatusAnswer, StatusRequest, kind,
};

const CLUSTER: u64 = 9;

/// The state that the nodes of a test share: one store, whichever node executes.
#[derive(Default)]
pub struct Store {
    values: BTreeMap<Bytes, (u64, Bytes)>,
    applied: HashMap<OperationId, Outcome>,
    version: u64,
}

#[derive(Default)]
pub struct Behaviour {
    /// Sends nothing at all.
    pub silent: AtomicBool,
    /// Does not answer requests.
    pub deaf: AtomicBool,
    /// Executes requests, and does not answer them.
    pub mute: AtomicBool,
    /// One request of this many is dropped; 0: none.
    pub drop_every: AtomicU64,
    /// One datagram of this many is not sent; 0: none.
    pub lose_every: AtomicU64,
    /// Sends each answer from a socket that the client does not know.
    pub from_elsewhere: AtomicBool,
    /// The number of datagrams with requests, and of requests.
    pub datagrams: AtomicU64,
    pub requests: AtomicU64,
}

pub struct Node {
    pub address: SocketAddr,
    pub behaviour: Arc<Behaviour>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Node {
    pub fn start(id: u8, on: &str, store: &Arc<Mutex<Store>>) -> std::io::Result<Node> {
        let socket = UdpSocket::bind(on)?;
        socket.set_read_timeout(Some(Duration::from_millis(2)))?;
        let address = socket.local_addr()?;
        let behaviour = Arc::new(Behaviour::default());
        let stop = Arc::new(AtomicBool::new(false));
        let elsewhere = UdpSocket::bind((address.ip(), 0))?;
        let mut server = Server {
            id,
            socket,
            elsewhere,
            store: Arc::clone(store),
            behaviour: Arc::clone(&behaviour),
            sessions: HashMap::new(),
            tokens: u64::from(id) << 32,
            transfers: Transfers::new(u64::from(id) << 32, 200_000),
            began: Instant::now(),
            sent: 0,
        };
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                server.turn();
            }
        });
        Ok(Node {
            address,
            behaviour,
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Nodes on IPv4 loopback over one store, and their list.
pub fn cluster(nodes: u8) -> (Vec<Node>, String) {
    let store = Arc::default();
    let start = |id| Node::start(id, "127.0.0.1:0", &store).unwrap();
    let nodes: Vec<Node> = (1..=nodes).map(start).collect();
    let list: Vec<String> = nodes.iter().map(|node| node.address.to_string()).collect();
    (nodes, list.join(","))
}

#[derive(Default)]
struct Session {
    nonce: u64,
    token: u64,
    seen: HashSet<u64>,
}

struct Server {
    id: u8,
    socket: UdpSocket,
    elsewhere: UdpSocket,
    store: Arc<Mutex<Store>>,
    behaviour: Arc<Behaviour>,
    sessions: HashMap<SocketAddr, Session>,
    tokens: u64,
    transfers: Transfers<SocketAddr>,
    began: Instant,
    /// Datagrams sent since the start.
    sent: u64,
}

impl Server {
    fn turn(&mut self) {
        let mut buffer = [0; 65_536];
        if let Ok((size, from)) = self.socket.recv_from(&mut buffer) {
            if self.behaviour.silent.load(Ordering::Relaxed) {
                return;
            }
            self.receive(&buffer[..size], from);
        }
        self.send_pieces();
    }

    fn now_us(&self) -> u64 {
        self.began.elapsed().as_micros() as u64
    }

    fn receive(&mut self, bytes: &[u8], from: SocketAddr) {
        let (header, frames) = datagram::open(bytes).expect("a good datagram");
        assert_eq!(header.sender, 0);
        let mut writer = DatagramWriter::default();
        let mut requests = 0;
        for frame in frames {
            let frame = frame.expect("a good frame");
            let is_hello = frame.header.kind == kind::HELLO;
            assert_eq!(header.cluster, if is_hello { 0 } else { CLUSTER });
            let now_us = self.now_us();
            let answered = match self.transfers.take(now_us, from, &frame).expect("good") {
                Taken::Noted => continue,
                Taken::Plain => self.answer(from, frame.header.kind, frame.body),
                Taken::Whole(header, body) => self.answer(from, header.kind, &body),
            };
            requests += u64::from(frame.header.kind == kind::REQUEST);
            let Some((kind, body)) = answered else {
                continue;
            };
            let header = FrameHeader {
                kind,
                ..FrameHeader::default()
            };
            if transfer::is_large(true, body.len()) {
                let to = (from, DATAGRAM_SIZE_TARGET_LOOPBACK);
                self.transfers.offer(now_us, to, header, body);
            } else {
                writer.push(&header, &body);
            }
        }
        self.behaviour
            .requests
            .fetch_add(requests, Ordering::Relaxed);
        let with_requests = u64::from(requests > 0);
        self.behaviour
            .datagrams
            .fetch_add(with_requests, Ordering::Relaxed);
        if !writer.is_empty() {
            self.send(&mut writer, from);
        }
    }

    fn send_pieces(&mut self) {
        let now_us = self.now_us();
        let mut all = Vec::new();
        self.transfers.poll(now_us, &mut |to, header, body| {
            let mut writer = DatagramWriter::default();
            writer.push(header, body);
            all.push((to, writer));
        });
        for (to, mut writer) in all {
            self.send(&mut writer, to);
        }
    }

    fn send(&mut self, writer: &mut DatagramWriter, to: SocketAddr) {
        let header = DatagramHeader {
            sender: self.id,
            cluster: CLUSTER,
            boot: 1,
            number: 1,
        };
        self.sent += 1;
        let lose_every = self.behaviour.lose_every.load(Ordering::Relaxed);
        if lose_every > 0 && self.sent.is_multiple_of(lose_every) {
            return;
        }
        let elsewhere = self.behaviour.from_elsewhere.load(Ordering::Relaxed);
        let socket = if elsewhere {
            &self.elsewhere
        } else {
            &self.socket
        };
        socket.send_to(writer.seal(&header), to).unwrap();
    }

    fn answer(&mut self, from: SocketAddr, frame_kind: u8, body: &[u8]) -> Option<(u8, Vec<u8>)> {
        let mut bytes = Vec::new();
        let kind = match frame_kind {
            kind::HELLO => {
                let answer = self.greet(from, &wire::decode(body).unwrap());
                wire::encode(&mut bytes, &answer);
                kind::HELLO_ANSWER
            }
            kind::STATUS_REQUEST => {
                let StatusRequest { attempt, .. } = wire::decode(body).unwrap();
                let status = NodeStatus {
                    node: self.id,
                    cluster: CLUSTER,
                    ..NodeStatus::default()
                };
                wire::encode(&mut bytes, &StatusAnswer { attempt, status });
                kind::STATUS_ANSWER
            }
            kind::REQUEST => return self.request(from, wire::decode(body).unwrap()),
            other => panic!("a client sends no {other}"),
        };
        Some((kind, bytes))
    }

    fn greet(&mut self, from: SocketAddr, hello: &Hello) -> HelloAnswer {
        let session = self.sessions.entry(from).or_default();
        if session.nonce != hello.nonce {
            self.tokens += 1;
            (session.nonce, session.token) = (hello.nonce, self.tokens);
            session.seen.clear();
        }
        HelloAnswer {
            nonce: hello.nonce,
            token: session.token,
            node: self.id,
            cluster: CLUSTER,
            epoch: 1,
            members: Vec::new(),
            key_size_max: 1_024,
            value_size_max: 49_152,
            shard_ports: Vec::new(),
            clock: 1 << 40,
        }
    }

    fn request(&mut self, from: SocketAddr, request: Request) -> Option<(u8, Vec<u8>)> {
        let mut bytes = Vec::new();
        let (token, attempt) = (request.token, request.attempt);
        let session = self.sessions.entry(from).or_default();
        if session.token != token {
            wire::encode(&mut bytes, &NoSession { token, attempt });
            return Some((kind::NO_SESSION, bytes));
        }
        let drop_every = self.behaviour.drop_every.load(Ordering::Relaxed);
        let dropped = drop_every > 0 && attempt % drop_every == 0;
        let deaf = self.behaviour.deaf.load(Ordering::Relaxed);
        if !session.seen.insert(attempt) || dropped || deaf {
            return None;
        }
        let outcome = self.store.lock().unwrap().execute(request);
        if self.behaviour.mute.load(Ordering::Relaxed) {
            return None;
        }
        let answer = Answer {
            attempt,
            clock: 1 << 40,
            outcome,
        };
        wire::encode(&mut bytes, &answer);
        Some((kind::ANSWER, bytes))
    }
}

/// Keys in a page, so that scans take several.
pub const PAGE_LENGTH_MAX: usize = 3;

impl Store {
    fn scan(
        &self,
        first: &Bytes,
        is_after: bool,
        end: &Bytes,
        limit: usize,
        keys_only: bool,
    ) -> Outcome {
        let is_in = |key: &Bytes| {
            let is_behind = key > first || key == first && !is_after;
            is_behind && (end.is_empty() || key < end)
        };
        let mut found = self.values.iter().filter(|(key, _)| is_in(key));
        let length_max = match limit {
            0 => PAGE_LENGTH_MAX,
            limit => limit.min(PAGE_LENGTH_MAX),
        };
        let entries: Vec<ScanEntry> = found
            .by_ref()
            .take(length_max)
            .map(|(key, value)| {
                let (version, value) = value.clone();
                let (key, value) = (key.clone(), Some(value).filter(|_| !keys_only));
                ScanEntry {
                    key,
                    version,
                    value,
                }
            })
            .collect();
        let next = found.next().and_then(|_| Some(entries.last()?.key.clone()));
        Outcome::Page(ScanPage { entries, next })
    }

    fn execute(&mut self, request: Request) -> Outcome {
        let operation = request.operation;
        if let Some(outcome) = self.applied.get(&operation.id) {
            return outcome.clone();
        }
        let found = self.values.get(&operation.key).cloned();
        let old = match &found {
            _ if !operation.want_old => Old::NotAsked,
            None => Old::Absent,
            Some((_, value)) => Old::Value(value.clone()),
        };
        let (version, present) = match &found {
            Some((version, value)) => (*version, Some(value.clone())),
            None => (0, None),
        };
        let mut number = None;
        let next = match operation.action {
            Action::Scan {
                is_after,
                end,
                limit,
                keys_only,
                ..
            } => {
                let first = operation.key;
                return self.scan(&first, is_after, &end, limit as usize, keys_only);
            }
            Action::Get => {
                return match present {
                    Some(value) => Outcome::Value { version, value },
                    None => Outcome::Absent,
                };
            }
            Action::Put { value } => Some(value),
            // Nothing expires here.
            Action::PutFor { value, over, .. } if over.is_none_or(|over| over == version) => {
                Some(value)
            }
            Action::Expire { over, .. }
                if present.is_some() && over.is_none_or(|over| over == version) =>
            {
                let number = None;
                return Outcome::Written {
                    version,
                    old,
                    number,
                };
            }
            Action::DeleteVersion { version: v } if v == version && v > 0 => None,
            Action::PutIfAbsent { value } if present.is_none() => Some(value),
            Action::Delete if present.is_some() => None,
            Action::Delete => return Outcome::NothingToDelete,
            Action::CompareVersion { version: v, value } if v == version && v > 0 => Some(value),
            Action::CompareValue { expected, value } if present == Some(expected.clone()) => {
                Some(value)
            }
            Action::Add { delta } => {
                let text = present.unwrap_or(Bytes::from_static(b"0"));
                let Ok(before) = std::str::from_utf8(&text).unwrap().parse::<i64>() else {
                    return Outcome::NotANumber;
                };
                number = Some(before + delta);
                Some(Bytes::from((before + delta).to_string()))
            }
            Action::Append { value } => Some([present.unwrap_or_default(), value].concat().into()),
            _ => return Outcome::Conflict { version, old },
        };
        self.version += 1;
        match next {
            Some(value) => self.values.insert(operation.key, (self.version, value)),
            None => self.values.remove(&operation.key),
        };
        let outcome = Outcome::Written {
            version: self.version,
            old,
            number,
        };
        self.applied.insert(operation.id, outcome.clone());
        outcome
    }
}
