//! Nodes that implement the client's part of the wire protocol over real sockets and keep
//! everything in one map. They show how the command line and the client library behave for each
//! kind of answer; they give none of a cluster's guarantees.

use std::collections::HashMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use wire::clock;
use wire::datagram::{self, DatagramHeader, DatagramWriter, FrameHeader};
use wire::transfer::{self, Taken, Transfers};
use wire::{
    self, Action, Answer, Hello, HelloAnswer, LinkStatus, MemberAddress, MemberStatus, NoSession,
    NodeStatus, Old, Operation, OperationId, Outcome, Request, RouteStatus, StatusAnswer,
    StatusRequest, Version, kind,
};

const CLUSTER: u64 = 0xfa4e;

/// How the nodes of a cluster behave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    Serve,
    /// The nodes answer requests with `no quorum`.
    NoQuorum,
    /// The nodes answer hellos and status questions. They neither answer nor execute requests.
    Swallow,
    /// The nodes execute requests, and the answers are lost.
    Mute,
    /// The nodes answer requests with `busy`.
    Busy,
    /// Writes succeed, and were applied earlier: the old value is no longer known.
    Forget,
    /// The nodes acknowledge writes, and every other one is lost.
    Lose,
    /// The nodes serve one request per millisecond.
    Slow,
}

#[derive(Debug)]
struct State {
    mood: Mood,
    values: HashMap<Bytes, (Version, Bytes)>,
    ttls_ms: HashMap<Bytes, u64>,
    done: HashMap<OperationId, Outcome>,
    clock: u64,
    requests: u64,
}

/// Some nodes on free ports of the loopback address, until dropped.
#[derive(Debug)]
pub struct FakeCluster {
    addresses: Vec<SocketAddr>,
    state: Arc<Mutex<State>>,
    ended: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl FakeCluster {
    pub fn start(count: u8) -> FakeCluster {
        let state = Arc::new(Mutex::new(State {
            mood: Mood::Serve,
            values: HashMap::new(),
            ttls_ms: HashMap::new(),
            done: HashMap::new(),
            clock: clock::from_ms(wall_ms()),
            requests: 0,
        }));
        let ended = Arc::new(AtomicBool::new(false));
        let sockets: Vec<UdpSocket> = (0..count)
            .map(|_| UdpSocket::bind("127.0.0.1:0").unwrap())
            .collect();
        let addresses: Vec<SocketAddr> = sockets.iter().map(|s| s.local_addr().unwrap()).collect();
        let threads = sockets.into_iter().zip(1..).map(|(socket, id)| {
            socket
                .set_read_timeout(Some(Duration::from_millis(2)))
                .unwrap();
            let node = Node {
                id,
                socket,
                addresses: addresses.clone(),
                state: state.clone(),
                started: Instant::now(),
                number: 0,
                transfers: Transfers::new(u64::from(id) << 32, 200_000),
            };
            let ended = ended.clone();
            std::thread::spawn(move || node.run(&ended))
        });
        FakeCluster {
            threads: threads.collect(),
            addresses,
            state,
            ended,
        }
    }

    /// The value for `--nodes`.
    pub fn nodes(&self) -> String {
        let nodes: Vec<String> = self.addresses.iter().map(SocketAddr::to_string).collect();
        nodes.join(",")
    }

    pub fn set_mood(&self, mood: Mood) {
        self.lock().mood = mood;
    }

    /// Requests received so far.
    pub fn requests(&self) -> u64 {
        self.lock().requests
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

impl Drop for FakeCluster {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

struct Node {
    id: u8,
    socket: UdpSocket,
    addresses: Vec<SocketAddr>,
    state: Arc<Mutex<State>>,
    started: Instant,
    number: u64,
    transfers: Transfers<SocketAddr>,
}

impl Node {
    fn run(mut self, ended: &AtomicBool) {
        let mut buffer = vec![0; datagram::DATAGRAM_SIZE_MAX];
        while !ended.load(Ordering::Relaxed) {
            if let Ok((length, from)) = self.socket.recv_from(&mut buffer) {
                self.receive(&buffer[..length], from);
            }
            self.send_pieces();
        }
    }

    fn receive(&mut self, bytes: &[u8], from: SocketAddr) {
        let Ok((_, frames)) = datagram::open(bytes) else {
            return;
        };
        let mut writer = DatagramWriter::default();
        for frame in frames.flatten() {
            let mut body = Vec::new();
            let now_us = self.now_us();
            let answered = match self.transfers.take(now_us, from, &frame) {
                Ok(Taken::Plain) => self.answer(frame.header.kind, frame.body, &mut body),
                Ok(Taken::Whole(header, whole)) => self.answer(header.kind, &whole, &mut body),
                Ok(Taken::Noted) | Err(_) => continue,
            };
            let Some(kind) = answered else {
                continue;
            };
            let header = FrameHeader {
                kind,
                origin: self.id,
                epoch: 1,
                ..FrameHeader::default()
            };
            if transfer::is_large(true, body.len()) {
                let to = (from, datagram::DATAGRAM_SIZE_TARGET_LOOPBACK);
                self.transfers.offer(now_us, to, header, body);
                continue;
            }
            if writer.size() + body.len() > datagram::DATAGRAM_SIZE_TARGET_LOOPBACK {
                self.send(&mut writer, from);
            }
            writer.push(&header, &body);
        }
        self.send(&mut writer, from);
    }

    fn now_us(&self) -> u64 {
        self.started.elapsed().as_micros() as u64
    }

    fn send_pieces(&mut self) {
        let (now_us, mut all) = (self.now_us(), Vec::new());
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
        if writer.is_empty() {
            return;
        }
        self.number += 1;
        let header = DatagramHeader {
            sender: self.id,
            cluster: CLUSTER,
            boot: self.token(),
            number: self.number,
        };
        let _ = self.socket.send_to(writer.seal(&header), to);
        writer.clear();
    }

    fn token(&self) -> u64 {
        0x70_0000 + u64::from(self.id)
    }

    /// Encodes the answer to a frame, if there is one, and returns its kind.
    fn answer(&self, kind: u8, body: &[u8], into: &mut Vec<u8>) -> Option<u8> {
        match kind {
            kind::HELLO => {
                let hello: Hello = wire::decode(body).ok()?;
                wire::encode(into, &self.hello(&hello));
                Some(kind::HELLO_ANSWER)
            }
            kind::STATUS_REQUEST => {
                let request: StatusRequest = wire::decode(body).ok()?;
                let answer = StatusAnswer {
                    attempt: request.attempt,
                    status: self.status(),
                };
                wire::encode(into, &answer);
                Some(kind::STATUS_ANSWER)
            }
            kind::REQUEST => {
                let request: Request = wire::decode(body).ok()?;
                if request.token != self.token() {
                    let answer = NoSession {
                        token: request.token,
                        attempt: request.attempt,
                    };
                    wire::encode(into, &answer);
                    return Some(kind::NO_SESSION);
                }
                let outcome = self.state.lock().unwrap().request(&request.operation)?;
                let answer = Answer {
                    attempt: request.attempt,
                    outcome,
                    clock: self.clock(),
                };
                wire::encode(into, &answer);
                Some(kind::ANSWER)
            }
            _ => None,
        }
    }

    fn clock(&self) -> u64 {
        let mut state = self.state.lock().unwrap();
        state.clock = clock::from_ms(wall_ms()).max(state.clock + 1);
        state.clock
    }

    fn hello(&self, hello: &Hello) -> HelloAnswer {
        let members = self.addresses.iter().zip(1..);
        HelloAnswer {
            nonce: hello.nonce,
            token: self.token(),
            node: self.id,
            cluster: CLUSTER,
            epoch: 1,
            members: members
                .map(|(address, node)| MemberAddress {
                    node,
                    address: address.to_string(),
                })
                .collect(),
            key_size_max: wire::KEY_SIZE_MAX as u32,
            value_size_max: wire::VALUE_SIZE_DEFAULT as u32,
            shard_ports: Vec::new(),
            clock: self.clock(),
        }
    }

    fn status(&self) -> NodeStatus {
        let state = self.state.lock().unwrap();
        let quorum = state.mood != Mood::NoQuorum;
        let members = self.addresses.iter().zip(1..);
        NodeStatus {
            node: self.id,
            cluster: CLUSTER,
            epoch: 1,
            incarnation: u64::MAX - u64::from(self.id),
            boot: self.token(),
            votes: true,
            quorum,
            master: 1,
            members: members
                .map(|(address, node)| MemberStatus {
                    node,
                    address: address.to_string(),
                    heard: quorum || node == self.id,
                    incarnation: u64::MAX - u64::from(node),
                })
                .collect(),
            waits_for: match quorum {
                true => String::new(),
                false => "node 2 is unreachable".to_owned(),
            },
            keys: state.values.len() as u64,
            durability: "memory".to_owned(),
            version: "fake".to_owned(),
            uptime_ms: self.started.elapsed().as_millis() as u64,
            datagrams_dropped: 3,
            links: self.links(),
            component: (1..=self.addresses.len() as u8).collect(),
            routes: self.routes(),
            messages_sent: 70,
            messages_relayed: 7,
            ..NodeStatus::default()
        }
    }
}

/// Links and routes of a chain: a node has links to the nodes with the adjacent ids.
impl Node {
    fn others(&self) -> impl Iterator<Item = u8> {
        (1..=self.addresses.len() as u8).filter(|other| *other != self.id)
    }

    fn links(&self) -> Vec<LinkStatus> {
        let link = |from: u8| {
            let up = from.abs_diff(self.id) == 1;
            LinkStatus {
                from,
                to: self.id,
                up,
                rtt_us: u32::from(up) * 250,
                loss_permille: 0,
                drops_large: false,
            }
        };
        self.others().map(link).collect()
    }

    fn routes(&self) -> Vec<RouteStatus> {
        let through = |to: u8| match to < self.id {
            true => (to + 1..self.id).rev().collect(),
            false => (self.id + 1..to).collect(),
        };
        let route = |to| RouteStatus {
            to,
            through: through(to),
            works: true,
        };
        self.others().map(route).collect()
    }
}

fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap().as_millis() as u64
}

impl State {
    fn request(&mut self, operation: &Operation) -> Option<Outcome> {
        self.requests += 1;
        match self.mood {
            Mood::Swallow => return None,
            Mood::NoQuorum => return Some(Outcome::NoQuorum { reached: vec![1] }),
            Mood::Busy => return Some(Outcome::Busy { after_ms: 0 }),
            Mood::Slow => std::thread::sleep(Duration::from_millis(1)),
            Mood::Serve | Mood::Mute | Mood::Forget | Mood::Lose => {}
        }
        let outcome = match self.done.get(&operation.id) {
            Some(outcome) => outcome.clone(),
            None => {
                let before = self.values.get(&operation.key).cloned();
                let outcome = self.apply(operation);
                if self.mood == Mood::Lose && self.requests.is_multiple_of(2) {
                    self.restore(&operation.key, before);
                }
                if !operation.action.is_read() {
                    self.done.insert(operation.id, outcome.clone());
                }
                outcome
            }
        };
        match (self.mood, outcome) {
            (Mood::Mute, _) => None,
            (
                Mood::Forget,
                Outcome::Written {
                    version, number, ..
                },
            ) => Some(Outcome::Written {
                version,
                number,
                old: Old::Forgotten,
            }),
            (_, outcome) => Some(outcome),
        }
    }

    fn restore(&mut self, key: &Bytes, before: Option<(Version, Bytes)>) {
        match before {
            Some(value) => self.values.insert(key.clone(), value),
            None => self.values.remove(key),
        };
    }

    /// The times to live are only told: nothing expires here.
    fn set_ttl(&mut self, operation: &Operation) {
        let key = operation.key.clone();
        match operation.action.ttl_ms() {
            Some(ttl_ms) => self.ttls_ms.insert(key, ttl_ms),
            None => self.ttls_ms.remove(&key),
        };
    }

    fn apply(&mut self, operation: &Operation) -> Outcome {
        let standing = self.values.get(&operation.key).cloned();
        let old = || match (&standing, operation.want_old) {
            (_, false) => Old::NotAsked,
            (None, true) => Old::Absent,
            (Some((_, value)), true) => Old::Value(value.clone()),
        };
        let conflict = || Outcome::Conflict {
            version: standing.as_ref().map_or(0, |(version, _)| *version),
            old: old(),
        };
        let (value, number) = match (&operation.action, &standing) {
            (Action::Get, None) => return Outcome::Absent,
            (Action::GetStale, _) => {
                return Outcome::Stale {
                    version: standing.as_ref().map_or(0, |(version, _)| *version),
                    value: standing.map(|(_, value)| value),
                    apart_ms: 0,
                };
            }
            (Action::Get, Some((version, value))) => {
                return Outcome::Value {
                    version: *version,
                    value: value.clone(),
                };
            }
            (Action::Put { value }, _) => (value.clone(), None),
            (Action::PutIfAbsent { value }, None) => (value.clone(), None),
            (Action::PutIfAbsent { .. }, Some(_)) => return conflict(),
            (Action::Delete, None) => return Outcome::NothingToDelete,
            (Action::Delete, Some((version, _))) => {
                let outcome = Outcome::Written {
                    version: version + 1,
                    old: old(),
                    number: None,
                };
                self.values.remove(&operation.key);
                return outcome;
            }
            (Action::CompareVersion { version, value }, Some(found)) if *version == found.0 => {
                (value.clone(), None)
            }
            (Action::CompareValue { expected, value }, Some(found)) if *expected == found.1 => {
                (value.clone(), None)
            }
            (Action::TimeToLive, None) => return Outcome::Absent,
            (Action::TimeToLive, Some((version, _))) => {
                return Outcome::Lives {
                    version: *version,
                    left_ms: self.ttls_ms.get(&operation.key).copied(),
                };
            }
            (Action::DeleteVersion { version }, Some(found)) if *version == found.0 => {
                self.values.remove(&operation.key);
                return Outcome::Written {
                    version: version + 1,
                    old: old(),
                    number: None,
                };
            }
            (Action::Expire { over, .. } | Action::Persist { over }, Some(found))
                if over.is_none_or(|over| over == found.0) =>
            {
                self.set_ttl(operation);
                return Outcome::Written {
                    version: found.0,
                    old: old(),
                    number: None,
                };
            }
            (Action::PutFor { value, over, .. }, _)
                if over.is_none_or(|over| over == standing.as_ref().map_or(0, |found| found.0)) =>
            {
                self.set_ttl(operation);
                (value.clone(), None)
            }
            (
                Action::DeleteVersion { .. }
                | Action::Expire { .. }
                | Action::Persist { .. }
                | Action::PutFor { .. },
                _,
            ) => return conflict(),
            (
                Action::PutOver { .. }
                | Action::Scan { .. }
                | Action::Watch { .. }
                | Action::Transact { .. },
                _,
            ) => {
                panic!("no test asks the fake node for it")
            }
            (Action::CompareVersion { .. } | Action::CompareValue { .. }, _) => return conflict(),
            (Action::Add { delta }, _) => match add(standing.as_ref().map(|(_, v)| v), *delta) {
                Ok(sum) => (Bytes::from(sum.to_string()), Some(sum)),
                Err(outcome) => return outcome,
            },
            (Action::Append { value }, _) => {
                let mut all = standing.as_ref().map_or(Vec::new(), |(_, v)| v.to_vec());
                all.extend_from_slice(value);
                (Bytes::from(all), None)
            }
        };
        if value.len() > wire::VALUE_SIZE_DEFAULT {
            let limit = wire::VALUE_SIZE_DEFAULT as u64;
            return Outcome::TooLarge { limit };
        }
        self.clock += 1 << 8;
        let outcome = Outcome::Written {
            version: self.clock,
            old: old(),
            number,
        };
        self.values
            .insert(operation.key.clone(), (self.clock, value));
        outcome
    }
}

fn add(standing: Option<&Bytes>, delta: i64) -> Result<i64, Outcome> {
    let number = match standing {
        None => 0,
        Some(value) => std::str::from_utf8(value)
            .ok()
            .and_then(|text| text.parse().ok())
            .ok_or(Outcome::NotANumber)?,
    };
    delta.checked_add(number).ok_or(Outcome::Overflow)
}
