//! R2, B1: what a node reports about itself is on its disk first. The simulator's watch checks each
//! message; in these scenarios disks are slow when it matters.

use std::collections::BTreeSet;

use horseshoe::protocol::types::ballot::Ballot;
use horseshoe::protocol::types::message::Message;
use wire::Action;

use crate::scenarios::changes::{are_all_members, has_members};
use crate::scenarios::handoff::{accepted, held};
use crate::sim::script::{Script, msg, put};

/// The digests that a node has sent so far: of a key's bucket, or of all buckets.
fn reported_sums(c: &Script, node: usize, key: &str) -> BTreeSet<u64> {
    let bucket = c.bucket_of(key);
    let mut told = c.sent(msg("DigestsReply").from(node));
    told.extend(c.sent(msg("DigestsEqual").from(node)));
    let sums = told.iter().filter_map(|p| match &p.envelope()?.message {
        Message::DigestsReply(m) => Some(m.sums.of(bucket)),
        Message::DigestsEqual(m) => Some(m.total),
        _ => None,
    });
    sums.collect()
}

/// A member accepts a value and its disk is slow. If it sent its digest before the value is
/// durable, the others would assume that it holds the value, though a crash can undo that.
#[test]
pub fn r2_a_digest_waits_for_the_disk() {
    let mut c = Script::new(3);
    let client = c.client();
    c.run_ms(1_000);
    c.slow_disk(2, 4_000);
    let before = [1, 2].map(|node| reported_sums(&c, node, "k"));
    c.put(client, "k", "a");
    c.run_ms(3_000);
    assert_eq!(accepted(&c, 2, "k"), Ballot::ZERO, "it is not durable yet");
    assert_ne!(reported_sums(&c, 1, "k"), before[0]);
    assert_eq!(reported_sums(&c, 2, "k"), before[1]);
    c.until("the disk", |c| accepted(c, 2, "k") != Ballot::ZERO);
    c.slow_disk(2, 1);
    c.until_sent(msg("DigestsEqual").from(2));
    assert_ne!(reported_sums(&c, 2, "k"), before[1]);
    c.check();
}

/// A key is purged and the disk is slow, so the floor that rose with the purge is not durable yet.
/// An answer about another key contains the floor, and waits until it is durable; an answer about a
/// record that the node holds contains no floor, and is sent at once.
#[test]
pub fn r2_a_floor_waits_for_the_disk() {
    let mut c = Script::new(3);
    let (purged, absent, other) = (c.key_of(0), c.key_of(1), c.key_of(2));
    let client = c.client_of(&[0]);
    c.put(client, &other, "a");
    // The member has promised, and accepted nothing.
    c.lose(msg("Accept").to(2).about(&absent));
    c.lose(msg("Copy").to(2).about(&absent));
    c.put(client, &absent, "a");
    c.put(client, &purged, "a");
    c.run(client, &purged, Action::Delete);
    c.hold(msg("Purge").to(2));
    c.run_ms(9_000);
    c.until("a purge", |c| !c.held.is_empty());
    c.slow_disk(2, 3_000);
    assert!(c.release(msg("Purge").to(2)) > 0);
    c.run_ms(20);
    c.crash_hard(1);
    assert_eq!(c.get(client, &other), "a");
    let told = |c: &Script| c.sent(msg("ReadAnswer").from(2)).len();
    assert!(told(&c) > 0, "what is held is told at once");
    assert_eq!(
        held(&c, 2, &purged).map(|s| s.chosen),
        Some(true),
        "still on the disk"
    );
    let before = told(&c);
    c.begin(client, &absent, Action::Get);
    c.run_ms(1_000);
    assert_eq!(told(&c), before, "the floor is not durable");
    c.until("the disk", |c| held(c, 2, &purged).is_none());
    c.run_ms(100);
    assert!(told(&c) > before, "now it is");
    c.check();
}

/// The entries of a bucket are requested just after the member has accepted another of its keys.
#[test]
pub fn r2_a_listing_waits_for_the_disk() {
    let mut c = Script::new(3);
    let client = c.client();
    let (first, second) = ("k".to_owned(), c.key_beside("k"));
    for name in ["Accept", "Copy"] {
        c.lose(msg(name).to(1));
    }
    c.put(client, &first, "a");
    c.hold(msg("BucketRequest").to(2));
    c.until("a question", |c| !c.held.is_empty());
    c.slow_disk(2, 3_000);
    c.put(client, &second, "b");
    c.run_ms(20);
    let before = c.sent(msg("BucketReply").from(2)).len();
    assert!(c.release(msg("BucketRequest").to(2)) > 0);
    c.run_ms(1_000);
    assert_eq!(accepted(&c, 2, &second), Ballot::ZERO, "it is not durable");
    assert_eq!(c.sent(msg("BucketReply").from(2)).len(), before);
    c.until_sent(msg("BucketReply").from(2));
    assert_ne!(accepted(&c, 2, &second), Ballot::ZERO);
    c.check();
}

/// A member has just been admitted again: its records are from an earlier life, and are no votes,
/// so they are not among the entries that it sends (E5).
#[test]
pub fn e5_records_of_an_earlier_admission_are_not_listed() {
    let mut c = Script::shrinking(5, 1);
    let client = c.client_of(&[0]);
    c.put(client, "k", "a");
    c.run_ms(500);
    c.isolate(4);
    c.until("four members", |c| {
        has_members(c, &[0, 1, 2, 3], &[1, 2, 3, 4])
    });
    c.heal_nodes();
    c.until("five members", are_all_members);
    // The member does not learn which of its records are chosen.
    c.lose(msg("BucketReply").to(4));
    c.lose(msg("DigestsReply").to(4));
    let from = c.sent(msg("BucketReply").from(4)).len();
    c.lose(msg("Copy").to(4));
    c.until_sent(msg("BucketReply").from(4));
    c.run_ms(1_000);
    let life = c.nodes[4].disk.synced().meta.life;
    let held = held(&c, 4, "k").expect("its cache");
    assert!(held.life < life, "{held:?} in life {life}");
    for passing in &c.sent(msg("BucketReply").from(4))[from..] {
        match &passing.envelope().unwrap().message {
            Message::BucketReply(told) => assert!(told.entries.is_empty(), "{told:?}"),
            other => panic!("{other:?}"),
        }
    }
    c.check();
}

/// A member installs a configuration and receives a request of its epoch before the configuration
/// is durable. It answers once it is durable. Otherwise, after a crash, it would take part in
/// rounds of the previous epoch, which its answer said it had left.
#[test]
pub fn r1_answers_of_an_epoch_wait_for_its_installation() {
    let mut c = Script::shrinking(5, 1);
    let three = c.client_of(&[3]);
    c.put(three, "k", "a");
    c.run_ms(500);
    c.crash_hard(4);
    c.run_ms(600);
    c.slow_disk(2, 3_000);
    c.until("a joint configuration", |c| {
        let of = |node: usize| c.nodes[node].replica.as_ref()?.configuration();
        [2, 3].iter().all(|n| of(*n).is_some_and(|c| c.epoch > 1))
    });
    for far in [0, 1] {
        c.lose(msg("ReadAnswer").from(far));
    }
    let read = c.begin(three, "k", Action::Get);
    c.run_ms(1_000);
    assert!(c.is_open(read), "node 2 has not installed it for good");
    c.run_ms(3_000);
    c.let_pass();
    c.end(read);
    c.check();
}

/// The disk is so slow that the clock reaches a ceiling before the next one is durable. Messages
/// that need the next ceiling wait for its group, not for an earlier group.
#[test]
pub fn b1_no_ballot_is_issued_above_the_durable_ceiling() {
    for sync_ms in [1_100, 1_600, 2_300] {
        let mut c = Script::new(3);
        let client = c.client_of(&[0]);
        c.slow_disk(0, sync_ms);
        for n in 0..20 {
            // A new key has no short round, whose ballots would be older.
            c.begin(client, &format!("key {n}"), put("a"));
            c.run_ms(730);
        }
        c.slow_disk(0, 1);
        c.run_ms(6_000);
        c.check();
    }
}

/// A member has just purged a key, and receives a request about another key that it does not have.
/// The floor, which its answer contains, is on its disk first.
#[test]
pub fn r2_an_answer_waits_for_the_floor_that_it_tells() {
    let mut c = Script::new(3);
    let client = c.client_of(&[1]);
    c.put(client, "k", "a");
    c.run(client, "k", Action::Delete);
    c.hold(msg("Purge").to(2));
    c.run_ms(9_000);
    c.until("a purge", |c| !c.held.is_empty());
    let before = c.nodes[2].disk.synced().meta.floor;
    c.slow_disk(2, 2_000);
    assert!(c.release(msg("Purge").to(2)) > 0);
    c.run_ms(5);
    c.lose(msg("ReadAnswer").from(0));
    let read = c.begin(client, "another", Action::Get);
    c.run_ms(1_000);
    assert_eq!(
        c.nodes[2].disk.synced().meta.floor,
        before,
        "it is not durable"
    );
    assert!(c.is_open(read));
    c.end(read);
    assert!(c.nodes[2].disk.synced().meta.floor > before);
    c.check();
}
