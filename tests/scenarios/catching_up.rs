//! C1, E5: learners, and members that missed more than hints can hold, find out automatically what
//! they lack.

use horseshoe::protocol::types::copy_purpose::CopyPurpose;
use horseshoe::protocol::types::message::{AdmissionRequest, Envelope, Message, NodeId};
use wire::Action;

use crate::scenarios::handoff::{accepted, are_equal, held};
use crate::sim::cluster::Cluster;
use crate::sim::event::Passing;
use crate::sim::network::Place;
use crate::sim::script::{Script, msg, user_key};

fn keys(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("key {n}")).collect()
}

fn all_equal(cluster: &Cluster, keys: &[String]) -> bool {
    keys.iter().all(|k| are_equal(cluster, k))
}

fn is_member(cluster: &Cluster, node: usize) -> bool {
    let replica = cluster.nodes[0].replica.as_ref();
    let configuration = replica.and_then(|r| r.configuration());
    let id = node as NodeId + 1;
    configuration.is_some_and(|c| c.joint.is_none() && c.members.iter().any(|m| m.node == id))
}

/// Copies that were requested.
fn pulled(c: &Script, to: usize) -> Vec<Passing> {
    let mut copies = c.sent(msg("Copy").to(to));
    let is_hint = |e: &Envelope| e.copy_purpose() == Some(CopyPurpose::Hint);
    copies.retain(|p| p.envelope().is_some_and(|e| !is_hint(e)));
    copies
}

fn assert_all_share_in(copies: &[Passing]) {
    for node in 0..4 {
        let from = copies.iter().filter(|p| p.from == Place::Node(node));
        let from = from.count();
        assert!(from > 40, "{from} of node {node}");
    }
}

/// Five nodes with these keys; node 4 has lost its disk, is not running, and is not a member any
/// more.
fn without_the_last(seed: u64, keys: &[String]) -> Script {
    lacking_the_last(Script::shrinking(5, seed), keys)
}

fn lacking_the_last(mut c: Script, keys: &[String]) -> Script {
    let client = c.client();
    for key in keys {
        c.put(client, key, "x");
    }
    c.crash_hard(4);
    c.cluster.wipe(4);
    c.until("it is removed", |c| !is_member(c, 4));
    c
}

/// A node with an empty disk copies everything, from all members, and is then admitted.
#[test]
pub fn e5_a_learner_copies_from_all_members() {
    let keys = keys(300);
    let mut c = without_the_last(1, &keys);
    c.cluster.start(4);
    c.until("it holds all keys", |c| {
        keys.iter().all(|k| held(c, 4, k).is_some())
    });
    assert!(!is_member(&c, 4), "it learns before it is admitted");
    let copies = pulled(&c, 4);
    assert_all_share_in(&copies);
    assert!(copies.len() < 330, "{} copies", copies.len());
    c.until("it is a member", |c| is_member(c, 4));
    c.until("the same everywhere", |c| all_equal(c, &keys));
    assert!(pulled(&c, 4).len() < 330, "nothing travels twice");
    c.check();
}

/// A learner receives no copies from node 1. Then something happens to node 1, and the learner
/// continues where it was.
fn goes_on_when(seed: u64, happens: impl FnOnce(&mut Script)) {
    let keys = keys(300);
    // The learner considers a source gone after 1.2 s. Its removal would begin another epoch, in
    // which the learner asks all members again (R1), so the removal comes later.
    let mut c = lacking_the_last(Script::shrinking_after(4_000, 5, seed), &keys);
    let asked_before = c.sent(msg("DigestsRequest").from(4)).len();
    c.lose(msg("Copy").from(1).to(4));
    c.cluster.start(4);
    let held = |c: &Cluster| keys.iter().filter(|k| held(c, 4, k).is_some()).count();
    c.until("it holds what others sent", |c| held(c) > keys.len() / 2);
    happens(&mut c);
    c.until("it holds all keys", |c| held(c) == keys.len());
    let asked = c.sent(msg("DigestsRequest").from(4)).len() - asked_before;
    assert_eq!(asked, 4, "of each member once");
    c.until("it is a member", |c| is_member(c, 4));
    c.check();
}

/// A link that is down briefly does not make a learner start over.
#[test]
pub fn a_learner_goes_on_when_a_source_is_back_soon() {
    goes_on_when(4, |c| {
        c.isolate(1);
        c.run_ms(500);
        c.heal_nodes();
        c.let_pass();
    });
}

/// The other members send what one member cannot send any more.
#[test]
pub fn a_learner_asks_others_when_a_source_dies() {
    goes_on_when(7, |c| c.crash_hard(1));
}

/// A member that was admitted recently holds little that counts: a learner that was assigned
/// buckets of it checks again before it reports that it has caught up.
#[test]
pub fn a_learner_is_not_misled_by_a_member_that_is_behind() {
    let mut c = Script::shrinking(5, 6);
    let client = c.client_of(&[0, 1, 2]);
    // More keys than may be missing in a last pass are left to the other two members.
    let keys = keys(7_000);
    for key in &keys {
        c.put(client, key, "x");
    }
    for node in [3, 4] {
        c.crash_hard(node);
        c.cluster.wipe(node);
    }
    c.until("they are removed", |c| !is_member(c, 3) && !is_member(c, 4));
    c.cluster.start(3);
    until_it_has_learned(&mut c, 3);
    c.lose(msg("DigestsReply").to(3));
    c.until("it is a member", |c| is_member(c, 3));
    c.cluster.start(4);
    until_it_has_learned(&mut c, 4);
    let lacks = keys.iter().filter(|k| held(&c, 4, k).is_none()).count();
    assert_eq!(lacks, 0);
    c.let_pass();
    c.until("it is a member", |c| is_member(c, 4));
    c.check();
}

fn until_it_has_learned(c: &mut Script, node: usize) {
    until_it_says(c, node, |asked| asked.ready);
}

fn until_it_says(c: &mut Script, node: usize, what: impl Fn(&AdmissionRequest) -> bool) {
    let says_so = |p: &Passing| match p.envelope().map(|e| &e.message) {
        Some(Message::AdmissionRequest(asked)) => what(asked),
        _ => false,
    };
    let asked = msg("AdmissionRequest").from(node);
    let asked_before = c.sent(asked.clone()).len();
    for _ in 0..1_000 {
        c.run_ms(10);
        if c.sent(asked.clone())[asked_before..].iter().any(says_so) {
            return;
        }
    }
    panic!("it does not say so");
}

/// A removed member that comes back still has most records: only later writes are copied.
#[test]
pub fn e5_what_is_held_already_does_not_travel() {
    let mut c = Script::shrinking(4, 2);
    let client = c.client_of(&[0, 1, 2]);
    let keys = keys(300);
    for key in &keys {
        c.put(client, key, "x");
    }
    c.until("the same everywhere", |c| all_equal(c, &keys));
    c.isolate(3);
    c.until("it is removed", |c| !is_member(c, 3));
    for key in &keys[..10] {
        c.put(client, key, "y");
    }
    c.heal_nodes();
    c.until("it is a member", |c| is_member(c, 3));
    c.until("the same everywhere", |c| all_equal(c, &keys));
    let of_users = |p: &Passing| match &p.envelope().expect("a copy").message {
        Message::Copy(m) => m.key.space() == 0,
        _ => false,
    };
    let copies = pulled(&c, 3).iter().filter(|p| of_users(p)).count();
    assert!(copies < 20, "{copies} copies");
    c.until("all are votes", |c| {
        let lives = keys.iter().map(|k| held(c, 3, k).map(|s| s.life));
        lives.into_iter().all(|life| life == Some(1))
    });
    c.check();
}

/// Keys that were deleted and purged while a member was down do not come back with it: it drops
/// what the members do not hold.
#[test]
pub fn e5_what_was_forgotten_is_dropped() {
    let mut c = Script::shrinking(4, 3);
    let client = c.client_of(&[0, 1, 2]);
    let keys = keys(50);
    for key in &keys {
        c.put(client, key, "x");
    }
    c.until("the same everywhere", |c| all_equal(c, &keys));
    c.isolate(3);
    c.until("it is removed", |c| !is_member(c, 3));
    for key in &keys {
        c.run(client, key, Action::Delete);
    }
    c.run_ms(9_000);
    let is_gone = |c: &Cluster, node| keys.iter().all(|k| held(c, node, k).is_none());
    c.until("the members forget", |c| {
        (0..3).all(|node| is_gone(c, node))
    });
    assert!(!is_gone(&c, 3));
    c.heal_nodes();
    c.until("it is a member", |c| is_member(c, 3));
    c.until("it drops them", |c| is_gone(c, 3));
    let near = c.client_of(&[3]);
    assert_eq!(c.get(near, &keys[7]), "");
    c.check();
}

/// Node 4 missed these keys, and the nodes that had hints for them were restarted. All links work
/// again.
fn missed_unnoted(keys: &[String]) -> Script {
    let mut c = Script::new(5);
    c.isolate(4);
    write_unnoted(&mut c, keys);
    c.heal_nodes();
    c
}

/// Node 4 is unreachable during the writes.
fn write_unnoted(c: &mut Script, keys: &[String]) {
    let client = c.client_of(&[0, 1, 2, 3]);
    for key in keys {
        c.put(client, key, "x");
    }
    c.run_ms(500);
    for node in 0..4 {
        c.restart(node);
        c.run_ms(1_000);
    }
}

/// The member finds out itself, and asks all others.
#[test]
pub fn c1_what_no_hint_tells_of_is_found() {
    let keys = keys(300);
    let mut c = missed_unnoted(&keys);
    c.run_ms(2_000);
    assert!(all_equal(&c, &keys));
    assert!(c.sent(msg("CopyAck").from(4)).is_empty(), "no hints");
    assert_all_share_in(&pulled(&c, 4));
    let asked = c.sent(msg("BucketRequest")).len();
    c.run_ms(5_000);
    assert_eq!(
        c.sent(msg("BucketRequest")).len(),
        asked,
        "equal digests are enough"
    );
    c.check();
}

/// A node that was paused does not know how much it missed, and asks all others too, even in the
/// middle of a comparison.
#[test]
pub fn c1_who_stood_still_asks_all_others() {
    for after_ms in [0, 250, 500, 750] {
        let keys = keys(300);
        let mut c = Script::new(5);
        c.run_ms(after_ms);
        c.cluster.stall(4, 10_000_000);
        // More than the node's socket can hold.
        c.lose(msg("Accept").to(4));
        write_unnoted(&mut c, &keys);
        c.let_pass();
        c.run_ms(8_000);
        assert!(all_equal(&c, &keys));
        assert_all_share_in(&pulled(&c, 4));
        c.check();
    }
}

/// With the longest allowed interval between heartbeats it takes longer, and works the same.
#[test]
pub fn c1_slow_heartbeats_are_enough() {
    let keys = keys(300);
    let mut c = Script::slow(5);
    c.isolate(4);
    c.run_ms(4_000);
    write_unnoted(&mut c, &keys);
    c.heal_nodes();
    c.until("the same everywhere", |c| all_equal(c, &keys));
    c.check();
}

/// Hints for writes that a member received in another way are not sent.
#[test]
pub fn c1_hints_end_once_both_hold_the_same() {
    let keys = keys(50);
    let mut c = Script::new(5);
    let client = c.client_of(&[0, 1, 2, 3]);
    c.isolate(4);
    for key in &keys {
        c.put(client, key, "x");
    }
    c.run_ms(500);
    // So no node receives the acknowledgment of a hinted copy.
    c.lose(msg("CopyAck").from(4));
    c.heal_nodes();
    c.run_ms(10_000);
    assert!(all_equal(&c, &keys));
    let before = c.sent(msg("Copy").to(4)).len();
    assert!(before > 0);
    c.run_ms(2_000);
    assert_eq!(c.sent(msg("Copy").to(4)).len(), before);
    c.check();
}

/// A member that lags far behind has enough to do: the others do not request its bucket entries.
#[test]
pub fn c1_who_is_far_behind_is_left_alone() {
    let keys = keys(5_000);
    let mut c = missed_unnoted(&keys);
    let asked_before = c.sent(msg("BucketRequest").to(4)).len();
    c.run_ms(4_000);
    assert!(all_equal(&c, &keys));
    let asked = c.sent(msg("BucketRequest").to(4)).len() - asked_before;
    assert!(asked < 500, "{asked} buckets");
    c.check();
}

/// A record that a single node accepted, and that no node knows to be chosen: a repair round
/// resolves it.
#[test]
pub fn c1_what_nobody_finished_is_settled() {
    let mut c = Script::new(3);
    let key = c.key_of(0);
    let client = c.client_of(&[0]);
    c.put(client, &key, "a");
    c.lose(msg("Accept").from(0).to(1));
    c.lose(msg("Accept").from(0).to(2));
    c.lose(msg("Forward"));
    c.begin(client, &key, Action::Delete);
    c.run_ms(100);
    assert!(accepted(&c, 0, &key) > accepted(&c, 1, &key));
    c.crash_client(client);
    c.crash_hard(0);
    c.let_pass();
    c.cluster.start(0);
    c.run_ms(4_000);
    assert!(are_equal(&c, &key));
    let other = c.client();
    c.get(other, &key);
    c.check();
}

/// Members with equal state confirm that with one number. All digests are 32 KiB, each second.
#[test]
pub fn c1_what_is_equal_takes_a_few_bytes() {
    let mut c = Script::new(3);
    let (key, client) = (c.key_of(0), c.client());
    c.put(client, &key, "a");
    c.run_ms(3_000);
    let before = [msg("DigestsReply"), msg("DigestsEqual")].map(|pick| c.sent(pick).len());
    c.run_ms(10_000);
    let after = [msg("DigestsReply"), msg("DigestsEqual")].map(|pick| c.sent(pick).len());
    assert_eq!(after[0], before[0], "nobody tells all digests");
    assert!(after[1] > before[1] + 10, "{before:?}, {after:?}");
    c.check();
}

/// A confirmation of equal digests comes late, and a write was missed meanwhile: that hint is not
/// cleared.
#[test]
pub fn c1_what_was_missed_since_the_question_is_still_noted() {
    let mut c = Script::new(3);
    let (key, client) = (c.key_of(0), c.client());
    c.put(client, &key, "a");
    c.run_ms(3_000);
    c.hold(msg("DigestsEqual").from(2).to(0));
    c.until_sent(msg("DigestsEqual").from(2).to(0));
    c.lose(msg("DigestsReply"));
    c.lose(msg("Accept").to(2));
    c.lose(msg("Copy").to(2));
    c.put(client, &key, "b");
    c.run_ms(20);
    assert!(c.release(msg("DigestsEqual").from(2).to(0)) > 0);
    c.run_ms(20);
    c.let_pass();
    c.lose(msg("DigestsReply"));
    c.run_ms(2_000);
    assert!(are_equal(&c, &key));
    c.check();
}

/// Hints are faster: a member receives a single write that it missed long before the next
/// comparison.
#[test]
pub fn c1_a_missed_write_is_noted() {
    let mut c = Script::new(3);
    let (key, client) = (c.key_of(0), c.client());
    c.put(client, &key, "a");
    c.lose(msg("Accept").from(0).to(2));
    c.lose(msg("DigestsReply"));
    c.put(client, &key, "b");
    c.run_ms(500);
    assert!(are_equal(&c, &key));
    c.check();
}

/// Writes during a learner's catch-up are sent to it unrequested, if it has already received the
/// entries of that bucket.
#[test]
pub fn e5_a_learner_is_told_what_is_chosen() {
    let mut c = Script::new(3);
    let (key, client) = (c.key_of(0), c.client());
    c.put(client, "another", "x");
    c.lose(msg("CopiesRequest"));
    c.restart_empty(2);
    until_it_says(&mut c, 2, |asked| asked.listed > 0);
    c.run_ms(10);
    assert!(c.sent(msg("Copy").to(2)).is_empty());
    c.put(client, &key, "a");
    c.run_ms(50);
    let held = c.cluster.nodes[2]
        .disk
        .synced()
        .registers
        .get(&user_key(&key));
    assert!(held.is_some_and(|state| state.chosen));
    c.check();
}

/// The learner will request what it has not compared yet: nothing is sent twice.
#[test]
pub fn e5_a_learner_is_not_told_what_it_will_ask_for() {
    let mut c = Script::new(3);
    let (key, client) = (c.key_of(0), c.client());
    c.put(client, "another", "x");
    c.put(client, &key, "a");
    c.lose(msg("BucketReply"));
    c.restart_empty(2);
    c.run_ms(1_000);
    c.put(client, &key, "b");
    c.run_ms(100);
    assert!(c.sent(msg("Copy").to(2)).is_empty());
    c.let_pass();
    c.until("the copy", |c| are_equal(c, &key));
    c.check();
}
