//! Disks that are slow, and make progress: such a node must not slow down the others, nor look dead
//! to them.

use horseshoe::protocol::types::limits::DISK_BACKLOG_SIZE_MAX;
use wire::{Action, Outcome};

use crate::scenarios::handoff::are_equal;
use crate::sim::script::{Script, msg};

const VALUE_SIZE: usize = 49_000;
const AT_ONCE: usize = 16;

fn depth(c: &Script, node: usize) -> usize {
    let replica = c.cluster.nodes[node].replica.as_ref();
    replica.expect("it runs").queue_depths().unsynced_size
}

/// Node 1's disk needs this long for each sync. The nodes have had time to adapt.
fn slow_down(c: &mut Script, sync_ms: u64) {
    c.slow_disk(1, sync_ms);
    let others = c.client_of(&[0, 2]);
    for number in 0..100 {
        c.put(others, "paced", &number.to_string());
        c.run_ms(100);
    }
}

/// Other nodes write until the disk of node 1 is over its bound.
fn overfill(c: &mut Script) {
    let others = c.client_of(&[0, 2]);
    let keys: Vec<String> = (0..AT_ONCE).map(|at| format!("large {at}")).collect();
    let value: bytes::Bytes = vec![b'x'; VALUE_SIZE].into();
    let mut written = 0;
    while depth(c, 1) <= DISK_BACKLOG_SIZE_MAX {
        let begin = |c: &mut Script, key| {
            let value = value.clone();
            c.begin(others, key, Action::Put { value })
        };
        let calls: Vec<usize> = keys.iter().map(|key| begin(c, key)).collect();
        for call in calls {
            let outcome = c.end(call);
            assert!(matches!(outcome, Outcome::Written { .. }), "{outcome:?}");
            written += VALUE_SIZE;
        }
        assert!(written < 2 * DISK_BACKLOG_SIZE_MAX, "it stays below");
    }
    // The rounds of node 1 end.
    c.run_ms(50);
}

/// A node over its bound sends heartbeats, and serves reads; others run the writes of its clients.
/// It drops what others want written, and copies it later.
#[test]
pub fn a_node_whose_disk_is_far_behind_takes_on_no_writes() {
    let mut c = Script::new(3);
    let key = c.key_of(1);
    let (own, other) = (c.client_of(&[1]), c.client_of(&[0]));
    c.put(own, &key, "1");
    slow_down(&mut c, 1_900);
    overfill(&mut c);
    let began_us = c.cluster.now_us;
    assert_eq!(c.get(own, &key), "1");
    c.put(own, &key, "2");
    let took_us = c.cluster.now_us - began_us;
    assert!(took_us < 20_000, "{took_us} us, as if its disk were needed");
    let full = depth(&c, 1);
    let elsewhere = c.key_of(0);
    c.put(other, &elsewhere, "3");
    assert_eq!(depth(&c, 1), full, "the Accept is dropped");
    let beats = c.sent(msg("Heartbeat").from(1)).len();
    c.run_ms(200);
    let more = c.sent(msg("Heartbeat").from(1)).len() - beats;
    assert!(more >= 6, "{more} heartbeats in 200 ms");
    c.run_ms(6_000);
    assert_eq!(c.get(own, &elsewhere), "3");
    c.check();
}

/// A second for each sync at one node delays no operation: not those through other nodes, and not
/// those through that node.
#[test]
pub fn operations_do_not_wait_for_one_slow_disk() {
    let mut c = Script::new(5);
    let clients = [c.client_of(&[0]), c.client_of(&[1])];
    let keys: Vec<String> = (0..5).map(|node| c.key_of(node)).collect();
    slow_down(&mut c, 1_000);
    for number in 0..200 {
        let client = clients[number % clients.len()];
        let key = &keys[number % keys.len()];
        let began_us = c.cluster.now_us;
        c.put(client, key, &number.to_string());
        assert_eq!(c.get(client, key), number.to_string());
        let took_us = c.cluster.now_us - began_us;
        assert!(took_us < 40_000, "{took_us} us for {key}");
        c.run_ms(20);
    }
    c.check();
}

/// The nodes of five whose disks are not slow.
const OTHERS: [usize; 4] = [0, 2, 3, 4];

/// For ten seconds, each other node is given a write of a key of its own 25 times a second. Returns
/// the keys, and the number of writes.
fn write_at_others(c: &mut Script) -> (Vec<String>, usize) {
    let clients = OTHERS.map(|node| c.client_of(&[node]));
    let keys = OTHERS.map(|node| c.key_of(node));
    let mut writes = 0;
    for number in 0..250 {
        for (client, key) in clients.iter().zip(&keys) {
            c.put(*client, key, &number.to_string());
            writes += 1;
        }
        c.run_ms(40);
    }
    (keys.to_vec(), writes)
}

/// An answer to a read waits until the record in it is durable (R2). So a node that is written to,
/// and whose disk is slow, answers no read soon, and each reader that asks it waits until it asks
/// another one.
#[test]
pub fn reads_do_not_ask_a_node_with_a_slow_disk() {
    let mut c = Script::new(5);
    slow_down(&mut c, 1_000);
    let clients = OTHERS.map(|node| c.client_of(&[node]));
    let asked = c.sent(msg("Read").to(1)).len();
    for number in 0..50 {
        let number = number.to_string();
        c.put(clients[0], "k", &number);
        for client in clients {
            assert_eq!(c.get(client, "k"), number);
        }
        c.run_ms(20);
    }
    let asked = c.sent(msg("Read").to(1)).len() - asked;
    assert_eq!(asked, 0, "reads that wait for the slow disk");
    c.check();
}

/// The Accept of each write has reached the node, whose answers wait for its disk. Copies would
/// bring what it has, each a whole record, as often as the others wait for an answer.
#[test]
pub fn a_node_with_a_slow_disk_is_sent_each_write_once() {
    let mut c = Script::new(5);
    slow_down(&mut c, 1_000);
    let (accepts, copies) = (msg("Accept").to(1), msg("Copy").to(1));
    let before = (c.sent(accepts.clone()).len(), c.sent(copies.clone()).len());
    let (keys, writes) = write_at_others(&mut c);
    let accepts = c.sent(accepts).len() - before.0;
    let copied = c.sent(copies.clone()).len() - before.1;
    assert!(accepts <= writes + writes / 50, "{accepts} Accepts");
    assert_eq!(copied, 0, "copies, and {accepts} Accepts");
    c.run_ms(5_000);
    assert!(keys.iter().all(|key| are_equal(&c, key)));
    assert_eq!(c.sent(copies).len() - before.1, 0, "copies afterwards");
    c.check();
}

/// No Accept reaches the node. What it missed it is sent as fast as its disk takes it: each key
/// once for each of its answers, however often the key is written.
#[test]
pub fn copies_follow_the_pace_of_a_slow_disk() {
    let mut c = Script::new(5);
    slow_down(&mut c, 1_000);
    c.lose(msg("Accept").to(1));
    // Those that the node fetches itself have the number of its pass.
    let hinted = |c: &Script| {
        let copies = c.sent(msg("Copy").to(1));
        let rounds = copies.iter().filter_map(|p| Some(p.envelope()?.round));
        rounds.filter(|round| *round == 0).count()
    };
    let before = hinted(&c);
    let (keys, writes) = write_at_others(&mut c);
    let copied = hinted(&c) - before;
    // Ten seconds, in each of which the disk takes one commit.
    let expected = keys.len()..=10 * keys.len();
    assert!(
        expected.contains(&copied),
        "{copied} copies of {writes} writes"
    );
    c.let_pass();
    c.until("the same everywhere", |c| {
        keys.iter().all(|key| are_equal(c, key))
    });
    c.check();
}
