//! The driver loop on real sockets: nodes run as threads of this process, and the tests communicate
//! with them over the wire.

use std::net::UdpSocket;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use horseshoe::config::{ServerConfig, Settings, TextMode};
use horseshoe::protocol::types::message::{DigestsRequest, Group, Message};
use horseshoe::runtime::{Bound, Notice, RuntimeError, allocator, own_addresses};
use horseshoe::storage::{Durability, Opened, Storage, StorageError, memory};
use kvclient::{Call, CallError, Client, ClientOptions};
use tokio::sync::mpsc::UnboundedSender;
use wire::datagram::{self, DATAGRAM_SIZE_MAX, DatagramHeader, DatagramWriter, FrameHeader};
use wire::{
    self, Action, Answer, Full, Hello, HelloAnswer, Operation, OperationId, Outcome, Request,
    StatusAnswer, StatusRequest, kind,
};

/// A bound for every wait: no step takes this long unless something is broken.
const PATIENCE: Duration = Duration::from_secs(20);

struct Node {
    address: String,
    stopper: UnboundedSender<Notice>,
    result: Receiver<Result<(), RuntimeError>>,
}

impl Node {
    fn stop(self) -> Result<(), RuntimeError> {
        self.stopper.send(Notice::Stop).unwrap();
        self.result.recv_timeout(PATIENCE).expect("it ends")
    }
}

/// Addresses that no process uses at the moment.
fn free_addresses(count: usize) -> Vec<String> {
    let held: Vec<UdpSocket> = (0..count)
        .map(|_| UdpSocket::bind("127.0.0.1:0").unwrap())
        .collect();
    let address = |socket: &UdpSocket| socket.local_addr().unwrap().to_string();
    held.iter().map(address).collect()
}

fn config(nodes: &[String], index: usize, data_dir: Option<PathBuf>) -> ServerConfig {
    bounded(nodes, index, data_dir, 0)
}

fn bounded(
    nodes: &[String],
    index: usize,
    data_dir: Option<PathBuf>,
    memory_max: u64,
) -> ServerConfig {
    ServerConfig::new(Settings {
        index,
        nodes: nodes.to_vec(),
        listen: None,
        data_dir,
        durability: Durability::Fsync,
        text: TextMode::Auto,
        insecure_admin: false,
        shrink_after: Duration::ZERO,
        disk_hung_after: Duration::from_secs(2),
        disk_reserve: Some(0),
        http: None,
        cluster_name: String::new(),
        bootstrap: false,
        heartbeat_ms: 50,
        link_down_ms: 200,
        memory_max: Some(memory_max),
        memory_share: u64::MAX,
        value_max: 1 << 20,
    })
    .unwrap()
}

fn start_node(config: ServerConfig, storage: Option<Box<dyn Storage>>) -> Node {
    let address = config.own().to_string();
    let (told, tells) = channel();
    let (ends, result) = channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let result = runtime.block_on(async {
            let fresh = memory::open(u64::from(config.index) + 1);
            let opened = Opened {
                storage: storage.unwrap_or(fresh.storage),
                ..fresh
            };
            let bound = Bound::new(&config, &own_addresses(&config)?)?;
            told.send(bound.notifier()).unwrap();
            bound.start(&config, opened)?.run().await
        });
        ends.send(result).unwrap();
    });
    let stopper = tells.recv_timeout(PATIENCE).expect("it starts");
    Node {
        address,
        stopper,
        result,
    }
}

fn start_memory(count: usize) -> Vec<Node> {
    let nodes = free_addresses(count);
    let start = |index| start_node(config(&nodes, index, None), None);
    (0..count).map(start).collect()
}

/// One node whose store belongs to the test.
fn start_with(storage: impl Storage + 'static) -> Node {
    let nodes = free_addresses(1);
    let config = config(&nodes, 0, Some("not used".into()));
    start_node(config, Some(Box::new(storage)))
}

/// A client that sends exactly what the test specifies.
struct Wire {
    socket: UdpSocket,
    writer: DatagramWriter,
    token: u64,
    clock: u64,
    sequence: u64,
}

impl Wire {
    fn new(node: &Node) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(&node.address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Wire {
            socket,
            writer: DatagramWriter::default(),
            token: 0,
            clock: 0,
            sequence: 0,
        }
    }

    /// Opens a session.
    fn open(node: &Node) -> Self {
        let mut wire = Wire::new(node);
        let hello = Hello {
            client: 77,
            nonce: 5,
            library_version: "test".to_owned(),
        };
        wire.push(kind::HELLO, &hello);
        wire.send();
        let (kind, body) = wire.receive().remove(0);
        assert_eq!(kind, kind::HELLO_ANSWER);
        let answer: HelloAnswer = wire::decode(&body).unwrap();
        assert_eq!(answer.nonce, 5);
        (wire.token, wire.clock) = (answer.token, answer.clock);
        wire
    }

    fn push<T: serde::Serialize>(&mut self, kind: u8, body: &T) {
        let mut bytes = Vec::new();
        wire::encode(&mut bytes, body);
        let header = FrameHeader {
            kind,
            ..FrameHeader::default()
        };
        self.writer.push(&header, &bytes);
    }

    fn request(&mut self, key: &'static [u8], action: Action) {
        self.sequence += 1;
        let request = Request {
            token: self.token,
            attempt: self.sequence,
            retry: false,
            left_ms: 5_000,
            operation: Operation {
                id: OperationId {
                    client: 77,
                    sequence: self.sequence,
                },
                birth: self.clock + self.sequence,
                low_mark: 1,
                key: Bytes::from_static(key),
                want_old: false,
                action,
            },
        };
        self.push(kind::REQUEST, &request);
    }

    fn send(&mut self) {
        let bytes = self.writer.seal(&DatagramHeader::default());
        self.socket.send(bytes).unwrap();
        self.writer.clear();
    }

    /// The frames of the next datagram: kinds and bodies.
    fn receive(&mut self) -> Vec<(u8, Vec<u8>)> {
        let mut buffer = vec![0; 65_536];
        let size = self.socket.recv(&mut buffer).unwrap();
        let (header, frames) = datagram::open(&buffer[..size]).unwrap();
        assert!(header.boot != 0);
        let frame = |frame: Result<datagram::Frame<'_>, _>| {
            let frame = frame.unwrap();
            (frame.header.kind, frame.body.to_vec())
        };
        frames.map(frame).collect()
    }

    fn answers(&mut self) -> Vec<Answer> {
        let answer = |(kind, body): (u8, Vec<u8>)| {
            assert_eq!(kind, kind::ANSWER);
            wire::decode(&body).unwrap()
        };
        self.receive().into_iter().map(answer).collect()
    }

    /// Retries until the node serves; a node that has just started does not reach a quorum yet.
    fn put(&mut self, key: &'static [u8], value: &'static [u8]) -> Outcome {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let value = Bytes::from_static(value);
            self.request(key, Action::Put { value });
            self.send();
            let outcome = self.answers().remove(0).outcome;
            let waits = matches!(outcome, Outcome::NoQuorum { .. });
            if !waits || Instant::now() > deadline {
                return outcome;
            }
        }
    }
}

fn put(value: &'static [u8]) -> Action {
    Action::Put {
        value: Bytes::from_static(value),
    }
}

#[test]
fn a_node_alone_speaks_the_wire_protocol() {
    let node = start_memory(1).remove(0);
    let mut wire = Wire::open(&node);
    assert!(matches!(wire.put(b"a", b"1"), Outcome::Written { .. }));

    // Requests that arrive in one datagram are answered in one.
    wire.request(b"a", Action::Get);
    wire.request(b"b", Action::Get);
    wire.request(b"c", put(b"3"));
    wire.send();
    let answers = wire.answers();
    assert_eq!(answers.len(), 3);
    let of = |attempt: u64| {
        let answer = answers.iter().find(|answer| answer.attempt == attempt);
        &answer.expect("each is answered").outcome
    };
    let last = wire.sequence;
    assert!(matches!(of(last - 2), Outcome::Value { value, .. } if &value[..] == b"1"));
    assert_eq!(*of(last - 1), Outcome::Absent);
    assert!(matches!(of(last), Outcome::Written { .. }));
    node.stop().unwrap();
}

#[test]
fn bad_datagrams_are_counted_and_change_nothing() {
    let node = start_memory(1).remove(0);
    let mut wire = Wire::open(&node);
    wire.put(b"a", b"1");
    let before = status(&mut wire);
    assert_eq!((before.keys, before.durability.as_str()), (1, "memory"));
    assert_eq!(before.version, env!("CARGO_PKG_VERSION"));
    assert_eq!(before.datagrams_dropped, 0);

    wire.socket.send(b"SET a 1\r\n").unwrap();
    wire.socket.send(&[]).unwrap();
    wire.socket.send(&[0xd7; 65_507]).unwrap();
    wire.push(200, &"a kind of a later version");
    wire.push(kind::REQUEST, &"no request");
    wire.send();
    // All datagrams came over one socket, so the node has handled them when it answers this one.
    let after = status(&mut wire);
    assert_eq!(after.datagrams_dropped, 5);
    assert!(after.uptime_ms >= before.uptime_ms);
    node.stop().unwrap();
}

fn status(wire: &mut Wire) -> wire::NodeStatus {
    let request = StatusRequest {
        token: wire.token,
        attempt: 1_000 + wire.sequence,
    };
    wire.sequence += 1;
    wire.push(kind::STATUS_REQUEST, &request);
    wire.send();
    let (kind, body) = wire.receive().remove(0);
    assert_eq!(kind, kind::STATUS_ANSWER);
    let answer: StatusAnswer = wire::decode(&body).unwrap();
    assert_eq!(answer.attempt, request.attempt);
    answer.status
}

#[test]
fn three_nodes_serve_many_clients_of_one_key() {
    let nodes = start_memory(3);
    let list: Vec<&str> = nodes.iter().map(|node| node.address.as_str()).collect();
    let options = ClientOptions {
        deadline: PATIENCE,
        no_quorum_after: PATIENCE,
        ..ClientOptions::default()
    };
    let client = Client::open(&list.join(","), options).unwrap();
    client.call(Call::new("a", put(b"0"))).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                for _ in 0..50 {
                    client
                        .call(Call::new("n", Action::Add { delta: 1 }))
                        .unwrap();
                    client.call(Call::new("n", Action::Get)).unwrap();
                    client.call(Call::new("a", Action::Get)).unwrap();
                }
            });
        }
    });
    let outcome = client.call(Call::new("n", Action::Get)).unwrap();
    assert!(
        matches!(&outcome, Outcome::Value { value, .. } if &value[..] == b"800"),
        "{outcome:?}"
    );
    client.close();
    for node in nodes {
        let began = Instant::now();
        node.stop().unwrap();
        assert!(began.elapsed() < Duration::from_secs(1));
    }
}

#[test]
fn an_address_in_use_is_said() {
    let node = start_memory(1).remove(0);
    let config = config(std::slice::from_ref(&node.address), 0, None);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let error = runtime.block_on(async {
        Bound::new(&config, &own_addresses(&config).unwrap())
            .err()
            .unwrap()
    });
    let expected = format!("own address {} ", config.own());
    assert!(error.to_string().contains(&expected), "{error}");
    node.stop().unwrap();
}

/// A store that commits while its gate is open, and reports what it did.
struct Gated {
    gate: Arc<Gate>,
    log: Sender<&'static str>,
}

#[derive(Default)]
struct Gate {
    shut: Mutex<bool>,
    changed: Condvar,
}

impl Gate {
    fn shut(&self, shut: bool) {
        *self.shut.lock().unwrap() = shut;
        self.changed.notify_all();
    }
}

impl Storage for Gated {
    fn commit(&mut self, _groups: &[Group]) -> Result<(), StorageError> {
        let shut = self.gate.shut.lock().unwrap();
        let open = self.gate.changed.wait_while(shut, |shut| *shut).unwrap();
        drop(open);
        let _ = self.log.send("commit");
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<(), StorageError> {
        let _ = self.log.send("close");
        Ok(())
    }
}

#[test]
fn nothing_is_answered_before_it_is_durable_and_the_store_is_closed_last() {
    let gate = Arc::new(Gate::default());
    let (log, logged) = channel();
    let node = start_with(Gated {
        gate: gate.clone(),
        log,
    });
    let mut wire = Wire::open(&node);
    assert!(matches!(wire.put(b"a", b"1"), Outcome::Written { .. }));

    // The put arrives before the question, and is answered after it.
    gate.shut(true);
    wire.request(b"a", put(b"2"));
    wire.send();
    let status = status(&mut wire);
    assert_eq!(status.durability, "fsync");
    gate.shut(false);
    let outcome = wire.answers().remove(0).outcome;
    assert!(matches!(outcome, Outcome::Written { .. }));

    node.stop().unwrap();
    let log: Vec<_> = logged.iter().collect();
    assert_eq!(log.last(), Some(&"close"));
    assert_eq!(log.iter().filter(|&&what| what == "close").count(), 1);
}

/// A store that fails, in the given way, once it has committed some groups.
struct Failing {
    commits_left: usize,
    panics: bool,
}

impl Storage for Failing {
    fn commit(&mut self, _groups: &[Group]) -> Result<(), StorageError> {
        if let Some(left) = self.commits_left.checked_sub(1) {
            self.commits_left = left;
            return Ok(());
        }
        assert!(!self.panics, "a broken invariant of the store");
        Err(StorageError::Stopped {
            path: PathBuf::from("/the/disk"),
        })
    }

    fn close(self: Box<Self>) -> Result<(), StorageError> {
        Ok(())
    }
}

#[test]
fn a_store_that_fails_stops_the_node() {
    for (commits_left, panics) in [(0, false), (2, false), (0, true), (2, true)] {
        let node = start_with(Failing {
            commits_left,
            panics,
        });
        let client = Client::open(&node.address, ClientOptions::default()).unwrap();
        let began = Instant::now();
        let error = loop {
            let _ = client.submit(Call::new("a", put(b"1")), 0);
            client.wait(Duration::from_millis(5));
            client.completions(&mut Vec::new(), 100);
            match node.result.try_recv() {
                Ok(result) => break result.unwrap_err().to_string(),
                Err(_) => assert!(began.elapsed() < PATIENCE, "it ends"),
            }
        };
        let expected = if panics {
            "storage thread"
        } else {
            "/the/disk"
        };
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn addresses_are_of_the_family_that_is_listed() {
    let Ok(held) = UdpSocket::bind("[::1]:0") else {
        eprintln!("skipped: this machine has no IPv6");
        return;
    };
    let address = held.local_addr().unwrap();
    drop(held);
    let node = start_node(config(&[address.to_string()], 0, None), None);
    let options = ClientOptions {
        deadline: PATIENCE,
        no_quorum_after: PATIENCE,
        ..ClientOptions::default()
    };
    let client = Client::open(&node.address, options).unwrap();
    let outcome = client.call(Call::new("a", put(b"1"))).unwrap();
    assert!(matches!(outcome, Outcome::Written { .. }));
    node.stop().unwrap();
}

/// The peak memory of this process, with all its nodes, while `what` ran, above what it used
/// before.
fn memory_taken(what: impl FnOnce()) -> u64 {
    let before = allocator::live_bytes();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let sampler = scope.spawn(|| {
            let mut most = 0;
            while !is_over.load(Ordering::Relaxed) {
                most = allocator::live_bytes().max(most);
                std::thread::sleep(Duration::from_micros(200));
            }
            most
        });
        what();
        is_over.store(true, Ordering::Relaxed);
        sampler.join().unwrap().saturating_sub(before)
    })
}

/// As many frames as fit one datagram.
fn datagram_of(
    header: DatagramHeader,
    mut frame: impl FnMut(u64) -> (FrameHeader, Vec<u8>),
) -> Vec<u8> {
    let mut writer = DatagramWriter::default();
    for number in 1.. {
        let (header, body) = frame(number);
        if writer.size() + datagram::FRAME_HEADER_SIZE + body.len() > DATAGRAM_SIZE_MAX {
            break;
        }
        writer.push(&header, &body);
    }
    writer.seal(&header).to_vec()
}

/// Uses a client that retries lost messages.
fn assert_serves(node: &Node) {
    let options = ClientOptions {
        deadline: PATIENCE,
        no_quorum_after: PATIENCE,
        ..ClientOptions::default()
    };
    let client = Client::open(&node.address, options).unwrap();
    let outcome = client.call(Call::new("a", put(b"2"))).unwrap();
    assert!(matches!(outcome, Outcome::Written { .. }), "{outcome:?}");
}

/// Tests that measure memory take this lock, because they run in one process.
static MEMORY: Mutex<()> = Mutex::new(());

/// The most memory that a flood of small questions may take in a node that receives them at the
/// network's full rate.
const FLOOD_MEMORY_MAX: u64 = 128 << 20;
const FLOOD: Duration = Duration::from_secs(1);

/// The answer to each of these frames would be nine hundred times as large.
#[test]
fn a_flood_of_questions_from_a_member_is_bounded_and_the_node_goes_on() {
    let _alone = MEMORY.lock();
    let mut nodes = start_memory(3);
    let mut wire = Wire::open(&nodes[0]);
    assert!(matches!(wire.put(b"a", b"1"), Outcome::Written { .. }));
    let seen = status(&mut wire);
    let third = nodes.pop().unwrap();
    let address = third.address.clone();
    third.stop().unwrap();
    let socket = UdpSocket::bind(&address).unwrap();
    let member = seen.members.iter().find(|m| m.address == address).unwrap();
    let header = DatagramHeader {
        sender: member.node,
        cluster: seen.cluster,
        boot: 1,
        number: 1,
    };
    let mut body = Vec::new();
    Message::from(DigestsRequest { total: None }).encode_body(&mut body);
    let flood = datagram_of(header, |number| {
        let header = FrameHeader {
            kind: 33,
            origin: member.node,
            destination: seen.node,
            incarnation: member.incarnation,
            epoch: seen.epoch,
            message_id: number,
            ..FrameHeader::default()
        };
        (header, body.clone())
    });
    let taken = memory_taken(|| {
        let began = Instant::now();
        while began.elapsed() < FLOOD {
            socket.send_to(&flood, &nodes[0].address).unwrap();
        }
        assert_serves(&nodes[0]);
    });
    assert!(taken < FLOOD_MEMORY_MAX, "{} MB", taken >> 20);
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.recv(&mut [0; 65_536]).expect("it is answered");
    for node in nodes {
        node.stop().unwrap();
    }
}

#[test]
fn a_flood_of_status_requests_is_bounded_and_the_node_goes_on() {
    let _alone = MEMORY.lock();
    let node = start_memory(1).remove(0);
    let mut wire = Wire::open(&node);
    assert!(matches!(wire.put(b"a", b"1"), Outcome::Written { .. }));
    let mut attempt = 1_000_000;
    let taken = memory_taken(|| {
        let began = Instant::now();
        while began.elapsed() < FLOOD {
            let flood = datagram_of(DatagramHeader::default(), |_| {
                attempt += 1;
                let token = wire.token;
                let mut body = Vec::new();
                wire::encode(&mut body, &StatusRequest { token, attempt });
                let kind = kind::STATUS_REQUEST;
                let header = FrameHeader {
                    kind,
                    ..FrameHeader::default()
                };
                (header, body)
            });
            wire.socket.send(&flood).unwrap();
        }
        assert_serves(&node);
    });
    assert!(taken < FLOOD_MEMORY_MAX, "{} MB", taken >> 20);
    node.stop().unwrap();
}

/// The node accepts puts until the process uses the given amount. Then it still accepts deletes and
/// writes that do not grow; and once there is space, all writes.
#[test]
fn a_node_that_is_full_refuses_what_grows_until_there_is_room() {
    let nodes = free_addresses(1);
    let _alone = MEMORY.lock();
    let memory_max = allocator::live_bytes() + (96 << 20);
    let node = start_node(bounded(&nodes, 0, None, memory_max), None);
    let options = ClientOptions {
        deadline: PATIENCE,
        no_quorum_after: PATIENCE,
        ..ClientOptions::default()
    };
    let client = Client::open(&node.address, options).unwrap();
    let value = Bytes::from(vec![7; 48 << 10]);
    let put = |key: usize, value: &Bytes| {
        let value = value.clone();
        client.call(Call::new(key.to_string(), Action::Put { value }))
    };
    let delete = |key: usize| client.call(Call::new(key.to_string(), Action::Delete));
    let first_refused = (0..20_000).find(|key| match put(*key, &value) {
        Ok(_) => false,
        Err(error) => {
            assert_eq!(error, CallError::Full(Full::Memory));
            true
        }
    });
    let count = first_refused.expect("it is full at some time");
    assert!(count > 100, "{count} keys of 48 KiB");
    assert!(matches!(
        put(0, &value.slice(1..)),
        Ok(Outcome::Written { .. })
    ));
    let read = client.call(Call::new("1", Action::Get)).unwrap();
    assert!(matches!(read, Outcome::Value { .. }));
    for key in 0..count {
        assert!(matches!(delete(key), Ok(Outcome::Written { .. })));
    }
    let began = Instant::now();
    while put(0, &value).is_err() {
        assert!(began.elapsed() < PATIENCE, "there is room again");
    }
    client.close();
    node.stop().unwrap();
}
