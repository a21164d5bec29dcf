//! C1: hinted handoff. Members that missed writes receive them when they are reachable again.

use horseshoe::protocol::types::ballot::Ballot;
use horseshoe::protocol::types::message::Message;
use horseshoe::protocol::types::record::AcceptorState;

use crate::sim::cluster::Cluster;
use crate::sim::script::{Script, append, msg, user_key};

/// A node's state of a key on its disk.
pub fn held(cluster: &Cluster, node: usize, key: &str) -> Option<AcceptorState> {
    let synced = cluster.nodes[node].disk.synced();
    synced.registers.get(&user_key(key)).cloned()
}

pub fn accepted(cluster: &Cluster, node: usize, key: &str) -> Ballot {
    held(cluster, node, key).map_or(Ballot::ZERO, |state| state.accepted)
}

pub fn are_equal(cluster: &Cluster, key: &str) -> bool {
    let of = |node| held(cluster, node, key).map(|s| (s.accepted, s.record));
    (1..cluster.nodes.len()).all(|node| of(node) == of(0))
}

/// Node 2 has promised a ballot of node 1, which has found "a". If a copy of "a" removed that
/// promise, node 2 would accept node 0's older ballot, with "b", before node 1's, without "b".
#[test]
pub fn c1_a_copy_undoes_no_promise() {
    let mut c = Script::new(3);
    let key = c.key_of(1);
    let (zero, one) = (c.client_of(&[0]), c.client_of(&[1]));
    c.lose(msg("Forward"));
    c.lose(msg("Accept").from(0).to(2));
    c.lose(msg("Promise").from(2).to(0));
    c.hold(msg("Copy").from(0).to(2));
    c.run(zero, &key, append("a"));
    c.until_sent(msg("Copy").from(0).to(2));
    c.let_pass();
    c.lose(msg("Forward"));
    c.hold(msg("Copy"));
    c.hold(msg("Prepare").from(1).to(0));
    c.hold(msg("Accept").from(1));
    let theirs = c.begin(one, &key, append("c"));
    c.until_sent(msg("Accept").from(1).to(2));
    assert!(c.release(msg("Copy").from(0).to(2)) > 0, "a copy is late");
    c.until_sent(msg("CopyAck").from(2).to(0));
    let ours = c.begin(zero, &key, append("b"));
    c.until_sent(msg("Accept").from(0).to(2));
    c.run_ms(20);
    c.let_pass();
    c.release(msg("Accept"));
    c.release(msg("Prepare"));
    c.end(theirs);
    c.end(ours);
    c.run_ms(100);
    let value = c.get(zero, &key);
    assert!(value == "abc" || value == "acb", "{value}");
    c.check();
}

/// Only node 0 has accepted "ab". If node 4 got a copy of it as chosen, node 4 would answer it to a
/// reader; then nodes that never received it write "ac".
#[test]
pub fn c1_only_what_is_chosen_is_copied() {
    let mut c = Script::new(5);
    let key = c.key_of(0);
    let (zero, four, one) = (c.client_of(&[0]), c.client_of(&[4]), c.client_of(&[1]));
    c.lose(msg("Accept").from(0).to(4));
    c.hold(msg("Copy"));
    c.run(zero, &key, append("a"));
    c.until_sent(msg("Copy").from(0).to(4));
    c.let_pass();
    c.lose(msg("Accept").from(0));
    c.begin(zero, &key, append("b"));
    c.run_ms(600);
    c.isolate(0);
    c.run_ms(400);
    assert_eq!(c.get(four, &key), "a");
    c.isolate(4);
    c.run_ms(400);
    c.run(one, &key, append("c"));
    c.heal_nodes();
    c.let_pass();
    c.run_ms(400);
    assert!(c.get(one, &key).starts_with("ac"));
    c.until("the same everywhere", |c| are_equal(c, &key));
    c.check();
}

/// A promise to a round that never finishes refuses the copy permanently: a full round repairs the
/// key.
#[test]
pub fn c1_a_refused_copy_is_mended_by_a_round() {
    let mut c = Script::new(3);
    let key = c.key_of(0);
    let (zero, one) = (c.client_of(&[0]), c.client_of(&[1]));
    c.lose(msg("Accept").from(0).to(2));
    c.lose(msg("Copy"));
    c.run(zero, &key, append("a"));
    c.until_sent(msg("Copy").from(0).to(2));
    c.lose(msg("Forward"));
    c.lose(msg("Promise").to(1));
    c.begin(one, &key, append("b"));
    c.until_sent(msg("Promise").from(2).to(1));
    c.crash_hard(1);
    c.crash_client(one);
    c.let_pass();
    let prepares = c.sent(msg("Prepare").from(0)).len();
    c.until("the same at 0 and 2", |c| {
        accepted(c, 2, &key) > Ballot::ZERO && accepted(c, 2, &key) == accepted(c, 0, &key)
    });
    assert!(c.sent(msg("Prepare").from(0)).len() > prepares);
    c.cluster.start(1);
    c.until("the same everywhere", |c| are_equal(c, &key));
    let answers = c.sent(msg("CopyAck").from(2).to(0));
    let refused = answers.iter().any(|p| {
        let message = p.envelope().map(|envelope| &envelope.message);
        matches!(message, Some(Message::CopyAck(m)) if m.refused_for.is_some())
    });
    assert!(refused, "{answers:?}");
    c.check();
}

/// Without any reads, all keys that a member missed reach it, from each coordinator that wrote them
/// while it was unreachable, and rarely twice.
#[test]
pub fn c1_a_member_that_was_away_gets_what_it_missed() {
    let mut c = Script::new(5);
    let client = c.client_of(&[0, 1, 2, 3]);
    let keys: Vec<String> = (0..300).map(|n| format!("key {n}")).collect();
    c.isolate(4);
    for key in &keys {
        c.put(client, key, "first");
        c.put(client, key, "last");
    }
    c.run_ms(500);
    assert!(keys.iter().all(|k| accepted(&c, 4, k) == Ballot::ZERO));
    c.heal_nodes();
    c.until("the same everywhere", |c| {
        keys.iter().all(|k| are_equal(c, k))
    });
    c.run_ms(1_000);
    let copies = c.sent(msg("CopyAck").from(4));
    let keys_of = copies.iter().filter_map(|p| match &p.envelope()?.message {
        Message::CopyAck(m) => Some(m.key.clone()),
        _ => None,
    });
    let mut copied: Vec<_> = keys_of.collect();
    let count = copied.len();
    copied.sort();
    copied.dedup();
    assert_eq!(copied.len(), keys.len());
    assert!(count < keys.len() + 30, "{count} copies");
    c.check();
}

/// The network loses single Accepts while all members are reachable: these are delivered later too.
#[test]
pub fn c1_a_lost_accept_is_made_good() {
    let mut c = Script::new(3);
    let (key, client) = (c.key_of(0), c.client());
    c.put(client, &key, "a");
    c.lose(msg("Accept").from(0).to(2));
    c.put(client, &key, "b");
    c.let_pass();
    c.until("the same everywhere", |c| are_equal(c, &key));
    let copies = c.sent(msg("Copy")).len();
    c.run_ms(1_000);
    assert_eq!(c.sent(msg("Copy")).len(), copies, "none without need");
    c.check();
}

/// A copy that the network duplicates much later has no effect any more.
#[test]
pub fn c1_a_late_copy_of_an_old_record_is_nothing() {
    let mut c = Script::new(3);
    let (key, client) = (c.key_of(0), c.client_of(&[0, 1]));
    c.isolate(2);
    c.put(client, &key, "a");
    c.run_ms(400);
    c.heal_nodes();
    c.until("the same everywhere", |c| are_equal(c, &key));
    c.put(client, &key, "b");
    c.run_ms(100);
    let before = held(&c, 2, &key);
    c.repeat(msg("Copy").from(0).to(2));
    c.run_ms(100);
    assert_eq!(held(&c, 2, &key), before);
    assert_eq!(c.get(client, &key), "b");
    c.check();
}

/// More than the window allows at a time.
#[test]
pub fn c1_large_records_are_copied_one_after_another() {
    let mut c = Script::new(3);
    let client = c.client_of(&[0, 1]);
    let keys: Vec<String> = (0..20).map(|n| format!("key {n}")).collect();
    c.isolate(2);
    for key in &keys {
        c.put(client, key, &"x".repeat(40_000));
    }
    c.run_ms(500);
    let before = c.sent(msg("Copy")).len();
    c.slow_disk(2, 100);
    c.heal_nodes();
    c.until_sent(msg("CopyAck").from(2));
    let at_first = c.sent(msg("Copy")).len() - before;
    assert!(at_first < keys.len(), "{at_first} before the first answer");
    c.until("the same everywhere", |c| {
        keys.iter().all(|k| are_equal(c, k))
    });
    c.check();
}
