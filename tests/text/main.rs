//! Firecloud's text datagrams, on real nodes.

mod chain;
mod client;
#[path = "../cluster/nodes.rs"]
#[allow(dead_code)] // the tests of whole clusters use the rest of it
mod nodes;

use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use chain::Put;
use client::{Ending, TextClient};
use kvclient::{Call, Client, ClientOptions};
use nodes::{Cluster, Keep, SOON, wait_until};
use wire::{Action, Outcome};

/// A client that sends one datagram to one node, and waits as long as it takes.
struct Wire(UdpSocket);

impl Wire {
    fn new() -> Self {
        let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
        socket.set_read_timeout(Some(SOON)).expect("not zero");
        Wire(socket)
    }

    fn send(&self, cluster: &Cluster, node: usize, datagram: &[u8]) {
        let sent = self.0.send_to(datagram, cluster.address(node));
        sent.expect("loopback takes it");
    }

    #[track_caller]
    fn receive(&self) -> String {
        let mut bytes = [0; 4_096];
        let size = self.0.recv(&mut bytes).expect("an answer");
        String::from_utf8_lossy(&bytes[..size]).into_owned()
    }

    #[track_caller]
    fn ask(&self, cluster: &Cluster, node: usize, datagram: &str) -> String {
        self.send(cluster, node, datagram.as_bytes());
        self.receive()
    }

    #[track_caller]
    fn assert_nothing_came(&self) {
        self.0.set_nonblocking(true).expect("a socket can");
        let mut bytes = [0; 4_096];
        let received = self.0.recv(&mut bytes);
        self.0.set_nonblocking(false).expect("a socket can");
        let size = received.unwrap_or(0);
        let text = String::from_utf8_lossy(&bytes[..size]).into_owned();
        assert!(text.is_empty(), "{text:?}");
    }
}

fn dropped(cluster: &Cluster, node: usize) -> u64 {
    cluster.status(node).map_or(0, |s| s.datagrams_dropped)
}

fn library(cluster: &Cluster) -> Client {
    Client::open(&cluster.list(), ClientOptions::default()).expect("addresses")
}

fn put(client: &Client, key: &str, value: &str) {
    let value = value.to_owned().into();
    let done = client.call(Call::new(key.to_owned(), Action::Put { value }));
    assert!(matches!(done, Ok(Outcome::Written { .. })), "{done:?}");
}

fn get(client: &Client, key: &str) -> Option<String> {
    match client.call(Call::new(key.to_owned(), Action::Get)) {
        Ok(Outcome::Value { value, .. }) => Some(String::from_utf8_lossy(&value).into_owned()),
        Ok(Outcome::Absent) => None,
        other => panic!("{other:?}"),
    }
}

#[test]
fn requests_are_answered_exactly() {
    let cluster = Cluster::start(3, Keep::Memory);
    let wire = Wire::new();
    let long = "v".repeat(2_048);
    let most = u64::MAX;
    for (node, datagram, answer) in [
        (0, "GET [k] [1]".to_owned(), "OK [1] []".to_owned()),
        (1, "PUT [k] [v] [2]".to_owned(), "OK [2] []".to_owned()),
        (2, "GET [k] [3]".to_owned(), "OK [3] [v]".to_owned()),
        (0, "PUT [k] [] [4]".to_owned(), "OK [4] [v]".to_owned()),
        (1, "GET [k] [5]".to_owned(), "OK [5] []".to_owned()),
        (
            1,
            "PUT [a b] [c  d] [6]\n".to_owned(),
            "OK [6] []".to_owned(),
        ),
        (2, "GET [a b] [6]".to_owned(), "OK [6] [c  d]".to_owned()),
        (2, format!("PUT [k] [{long}] [7]"), "OK [7] []".to_owned()),
        (
            0,
            format!("GET [k] [{most}]"),
            format!("OK [{most}] [{long}]"),
        ),
        (0, "PUT [k] [w] [0]".to_owned(), format!("OK [0] [{long}]")),
        // Requests that cannot be executed.
        (0, format!("PUT [k] [{long}v] [8]"), "FL [8]".to_owned()),
        (0, "PUT [k] [a[b] [9]".to_owned(), "FL [9]".to_owned()),
        (0, "PUT [k] [a]b] [10]".to_owned(), "FL [10]".to_owned()),
        (0, "PUT [k] [a\0b] [11]".to_owned(), "FL [11]".to_owned()),
        (0, "PUT [] [v] [12]".to_owned(), "FL [12]".to_owned()),
        (
            0,
            format!("GET [{}] [13]", "k".repeat(1_025)),
            "FL [13]".to_owned(),
        ),
        (0, "GET [14]".to_owned(), "FL [14]".to_owned()),
        (0, "GET [k] [15]".to_owned(), "OK [15] [w]".to_owned()),
    ] {
        assert_eq!(wire.ask(&cluster, node, &datagram), answer, "{datagram}");
    }
    assert_eq!(get(&library(&cluster), "k").as_deref(), Some("w"));
}

#[test]
fn an_id_is_one_put_for_each_address_and_port() {
    let cluster = Cluster::start(3, Keep::Memory);
    let (wire, other) = (Wire::new(), Wire::new());
    assert_eq!(wire.ask(&cluster, 0, "PUT [k] [a] [7]"), "OK [7] []");
    assert_eq!(wire.ask(&cluster, 1, "PUT [k] [a] [7]"), "OK [7] []");
    assert_eq!(other.ask(&cluster, 2, "PUT [k] [b] [7]"), "OK [7] [a]");
    assert_eq!(wire.ask(&cluster, 2, "PUT [k] [a] [7]"), "OK [7] []");
    assert_eq!(wire.ask(&cluster, 0, "GET [k] [7]"), "OK [7] [b]");
}

#[test]
fn a_retry_whose_old_value_is_no_longer_known_is_not_answered() {
    let cluster = Cluster::start(1, Keep::Memory);
    let wire = Wire::new();
    let long = "x".repeat(257);
    put(&library(&cluster), "k", &long);
    let first = wire.ask(&cluster, 0, "PUT [k] [a] [7]");
    assert_eq!(first, format!("OK [7] [{long}]"));
    let before = dropped(&cluster, 0);
    wire.send(&cluster, 0, b"PUT [k] [a] [7]");
    wait_until(SOON, "the retry to be counted", || {
        dropped(&cluster, 0) > before
    });
    wire.assert_nothing_came();
    assert_eq!(get(&library(&cluster), "k").as_deref(), Some("a"));
}

#[test]
fn what_text_can_not_tell_is_neither_told_nor_overwritten() {
    let cluster = Cluster::start(3, Keep::Memory);
    let (wire, client) = (Wire::new(), library(&cluster));
    let long = "x".repeat(2_049);
    for (id, value) in ["a]b", "[", "a\0", &long].into_iter().enumerate() {
        put(&client, "k", value);
        let failed = format!("FL [{id}]");
        assert_eq!(
            wire.ask(&cluster, id % 3, &format!("GET [k] [{id}]")),
            failed
        );
        let datagram = format!("PUT [k] [v] [{id}]");
        assert_eq!(wire.ask(&cluster, (id + 1) % 3, &datagram), failed);
        assert_eq!(get(&client, "k").as_deref(), Some(value));
    }
}

#[test]
fn without_a_quorum_requests_fail() {
    let mut cluster = Cluster::start(3, Keep::Memory);
    let wire = Wire::new();
    assert_eq!(wire.ask(&cluster, 2, "PUT [k] [a] [1]"), "OK [1] []");
    cluster.kill([0, 1]);
    cluster.wait_until_dark([2]);
    assert_eq!(wire.ask(&cluster, 2, "PUT [k] [b] [2]"), "FL [2]");
    assert_eq!(wire.ask(&cluster, 2, "GET [k] [3]"), "FL [3]");
    let servers = vec![cluster.address(2).to_owned()];
    wait_until(SOON, "three answers in time", || {
        let mut client = TextClient::new(&servers, 0);
        client.get("k") == Ending::Failed && client.put("k", "c") == Ending::Failed
    });
}

#[test]
fn text_that_is_switched_off_is_dropped_and_counted() {
    let off = ["env", "HORSESHOE_TEXT=off"].map(str::to_owned).to_vec();
    let cluster = Cluster::start_under(1, Keep::Memory, |_| off);
    let wire = Wire::new();
    let before = dropped(&cluster, 0);
    wire.send(&cluster, 0, b"PUT [k] [v] [1]");
    wire.send(&cluster, 0, b"GET [] [2]");
    wait_until(SOON, "both to be counted", || {
        dropped(&cluster, 0) >= before + 2
    });
    wire.assert_nothing_came();
    assert_eq!(get(&library(&cluster), "k"), None);
    wait_until(SOON, "a line of the log", || {
        cluster
            .log(0)
            .contains("text datagrams, which this node does not accept")
    });
}

#[test]
fn hostile_text_is_dropped_and_counted() {
    let mut cluster = Cluster::start(3, Keep::Memory);
    let wire = Wire::new();
    let deep = "[".repeat(60_000);
    let wide = "] [".repeat(20_000);
    let hostile = [
        b"GET".to_vec(),
        b"PUT\0\0\0\0".to_vec(),
        b"GET [k] [99999999999999999999]".to_vec(),
        b"PUT [k] [v] [-1]".to_vec(),
        b"PUT [k] [v] [\xff]".to_vec(),
        format!("GET {deep}").into_bytes(),
        format!("PUT {wide}").into_bytes(),
        [b"GET [".to_vec(), vec![0xff; 65_000]].concat(),
    ];
    let before = dropped(&cluster, 1);
    for datagram in &hostile {
        wire.send(&cluster, 1, datagram);
    }
    let expected = before + hostile.len() as u64;
    wait_until(SOON, "all to be counted", || {
        dropped(&cluster, 1) >= expected
    });
    wire.assert_nothing_came();
    assert_eq!(wire.ask(&cluster, 1, &format!("PUT {wide}[5]")), "FL [5]");
    assert_eq!(wire.ask(&cluster, 1, "PUT [k] [v] [6]"), "OK [6] []");
    assert!((0..3).all(|node| cluster.is_running(node)));
}

/// How long clients put as fast as they can.
const LOADED: Duration = Duration::from_secs(2);

/// The puts of one client, each immediately after the previous one.
fn put_until(client: usize, servers: &[String], stop: &AtomicBool) -> Vec<Put> {
    let mut text = TextClient::new(servers, client);
    let mut puts = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let value = format!("{client}-{} {}", puts.len(), "v".repeat(200));
        let began = Instant::now();
        let told = match text.put("k", &value) {
            Ending::Ok(old) => Some((String::from_utf8_lossy(&old).into_owned(), Instant::now())),
            Ending::Failed | Ending::Silent => None,
        };
        puts.push(Put { value, began, told });
    }
    puts
}

/// As many as four clients can put: far more than the table has outcomes of.
#[test]
fn many_puts_on_one_key_are_applied_once_each() {
    let cluster = Cluster::start(3, Keep::Memory);
    let servers: Vec<String> = (0..3).map(|n| cluster.address(n).to_owned()).collect();
    let stop = AtomicBool::new(false);
    let puts: Vec<Put> = std::thread::scope(|scope| {
        let (servers, stop) = (&servers, &stop);
        let run = |client| scope.spawn(move || put_until(client, servers, stop));
        let threads: Vec<_> = (0..4).map(run).collect();
        std::thread::sleep(LOADED);
        stop.store(true, Ordering::Relaxed);
        let ended = threads.into_iter().map(|t| t.join().expect("no panic"));
        ended.flatten().collect()
    });
    let last = get(&library(&cluster), "k").unwrap_or_default();
    assert_eq!(chain::check(&puts, &last), Ok(()));
    let answered = puts.iter().filter(|put| put.told.is_some()).count();
    println!("{answered} of {} puts answered in {LOADED:?}", puts.len());
    assert!(answered > 0);
}
