//! E5, C1: what a node has from an earlier life, as state or as hints, is neither reported, counted
//! nor sent.

use std::sync::Arc;

use horseshoe::protocol::types::ballot::Ballot;
use horseshoe::protocol::types::digest::{Bucket, Digests, Spread, Sums};
use horseshoe::protocol::types::message::{
    Accept, Accepted, AdmissionRequest, BucketEntry, BucketReply, BucketRequest, CopiesRequest,
    Copy, DigestsReply, DigestsRequest, Message, Prepare, Purge, Read,
};
use horseshoe::protocol::types::record::{AcceptorState, Key};
use wire::Action;

use crate::scenarios::alone::{Alone, EPOCH, LIFE, ballot, bucket_of, configuration, record};
use crate::scenarios::changes::has_members;
use crate::scenarios::handoff::held;
use crate::sim::cluster::Cluster;
use crate::sim::event::Passing;
use crate::sim::script::{Script, msg, put, user_key};

const VALUE: Option<&str> = Some("old");
const CACHED_MS: u64 = 1_000;

fn key() -> Key {
    user_key("k")
}

/// Accepted and known to be chosen, in the node's previous life.
fn cached(value: Option<&str>) -> AcceptorState {
    AcceptorState {
        promised: ballot(CACHED_MS).next(),
        accepted: ballot(CACHED_MS),
        chosen: true,
        record: Some(record(value).into()),
        life: LIFE - 1,
    }
}

fn with_cached(value: Option<&str>) -> Alone {
    Alone::new(&[(key(), cached(value))])
}

fn life_of(node: &Alone) -> Option<u32> {
    node.disk.get(&key()).map(|state| state.life)
}

/// The acceptor.
#[test]
pub fn e5_an_old_promise_binds_nobody() {
    let mut node = with_cached(VALUE);
    let ballot = ballot(CACHED_MS - 1);
    let answers = node.ask(Prepare { key: key(), ballot });
    let is_promise = |m: &Message| matches!(m, Message::Promise(p) if p.ballot == ballot);
    assert!(
        answers.iter().all(is_promise) && answers.len() == 1,
        "{answers:?}"
    );
}

#[test]
pub fn e5_an_old_record_is_not_found() {
    let mut node = with_cached(VALUE);
    let ballot = ballot(CACHED_MS + 1);
    let answers = node.ask(Prepare { key: key(), ballot });
    let [Message::Promise(promise)] = &answers[..] else {
        panic!("{answers:?}");
    };
    assert_eq!((promise.accepted, &promise.record), (Ballot::ZERO, &None));
}

/// The same ballot as that of the cached record arrives: only now does the node accept it.
#[test]
pub fn e5_an_old_record_is_accepted_anew() {
    let mut node = with_cached(VALUE);
    let answers = node.ask(Accept {
        key: key(),
        ballot: ballot(CACHED_MS),
        record: record(VALUE).into(),
    });
    assert!(matches!(answers[..], [Message::Accepted(_)]), "{answers:?}");
    assert_eq!(life_of(&node), Some(LIFE));
}

/// A copy of a chosen record is accepted, though the cache has a later record, which was never
/// chosen.
#[test]
pub fn e5_a_copy_is_taken_over_an_old_record() {
    let mut node = with_cached(VALUE);
    let chosen = ballot(CACHED_MS - 1);
    let answers = node.ask(Copy {
        key: key(),
        ballot: chosen,
        record: record(Some("chosen")).into(),
    });
    assert!(answers.is_empty(), "a copy with a round answers a question");
    node.tell(
        2,
        0,
        Copy {
            key: key(),
            ballot: chosen,
            record: record(Some("chosen")).into(),
        },
    );
    assert_eq!(node.sent("CopyAck").len(), 1);
    let state = &node.disk[&key()];
    assert_eq!((state.accepted, state.life), (chosen, LIFE));
}

#[test]
pub fn e5_an_old_record_is_not_read() {
    let mut node = with_cached(VALUE);
    let holds = Ballot::ZERO;
    let answers = node.ask(Read { key: key(), holds });
    let [Message::ReadAnswer(answer)] = &answers[..] else {
        panic!("{answers:?}");
    };
    assert_eq!((answer.accepted, answer.chosen), (Ballot::ZERO, false));
    assert_eq!(answer.record, None);
}

/// What the node reports to others.
#[test]
pub fn e5_an_old_record_is_in_no_digest() {
    let mut node = with_cached(VALUE);
    let answers = node.ask(DigestsRequest { total: None });
    let [Message::DigestsReply(told)] = &answers[..] else {
        panic!("{answers:?}");
    };
    assert_eq!(told.sums.of(bucket_of(&key())), 0);
}

#[test]
pub fn e5_an_old_record_is_not_listed() {
    let mut node = with_cached(VALUE);
    let answers = node.ask(BucketRequest {
        bucket: bucket_of(&key()),
        after: None,
    });
    let [Message::BucketReply(told)] = &answers[..] else {
        panic!("{answers:?}");
    };
    assert_eq!(told.entries, []);
}

#[test]
pub fn e5_an_old_record_is_not_copied() {
    let mut node = with_cached(VALUE);
    let answers = node.ask(CopiesRequest { keys: vec![key()] });
    node.run_ms(1_000);
    assert!(answers.is_empty() && node.sent("Copy").is_empty());
    // An entry of this life is in it.
    node.tell(
        2,
        0,
        Copy {
            key: key(),
            ballot: ballot(CACHED_MS),
            record: record(VALUE).into(),
        },
    );
    let answers = node.ask(CopiesRequest { keys: vec![key()] });
    assert!(matches!(answers[..], [Message::Copy(_)]), "{answers:?}");
}

/// A purge of a ballot that the node never voted for does not concern it.
#[test]
pub fn e5_an_old_tombstone_is_not_purged() {
    let mut node = with_cached(None);
    let tombstones = vec![(key(), ballot(CACHED_MS))];
    node.tell(2, 0, Purge { tombstones });
    node.run_ms(10);
    assert_eq!(life_of(&node), Some(LIFE - 1));
    assert_eq!(node.meta.floor, Ballot::ZERO);
}

/// All other nodes are reachable, and hold exactly what this node holds as votes.
fn purges(tombstone: AcceptorState) -> usize {
    let is_own = |key: &Key| bucket_of(key).is_multiple_of(3);
    let mut names = (0..).map(|n| user_key(&format!("k{n}")));
    let key = names.find(is_own).expect("endless");
    let mut votes = Digests::default();
    if tombstone.life == LIFE {
        votes.add(&key, tombstone.accepted, LIFE);
    }
    let mut node = Alone::new(&[(key, tombstone)]);
    node.there = vec![2, 3];
    let mut seen = 0;
    // Long enough to check all buckets.
    for _ in 0..500 {
        node.run_ms(50);
        let fresh = node.sent_since(seen).to_vec();
        seen += fresh.len();
        for asked in fresh
            .iter()
            .filter(|e| e.message.name() == "DigestsRequest")
        {
            let sums = Spread::default().all().map(|bucket| votes.of_all(bucket));
            let sums = Sums::collect(sums);
            node.tell(
                asked.destination,
                asked.round,
                DigestsReply { clock: 0, sums },
            );
        }
    }
    node.sent("Purge").len()
}

/// ... and the fact that the node holds such a tombstone is no reason to have it purged.
#[test]
pub fn e5_an_old_tombstone_is_not_looked_for() {
    assert_eq!(purges(cached(None)), 0);
    let vote = AcceptorState {
        life: LIFE,
        ..cached(None)
    };
    assert!(purges(vote) > 0, "one of this life is");
}

/// For a key that is only in the cache the floor counts as the promise, so an answer about the key
/// waits until the floor is durable.
#[test]
pub fn e5_what_the_floor_says_of_a_cached_key_waits_for_the_disk() {
    let gone = user_key("gone");
    let tombstone = AcceptorState {
        life: LIFE,
        ..cached(None)
    };
    let mut node = Alone::new(&[(key(), cached(VALUE)), (gone.clone(), tombstone)]);
    let holds = Ballot::ZERO;
    node.ask(Read { key: key(), holds });
    node.syncs_nothing = true;
    let tombstones = vec![(gone, ballot(CACHED_MS))];
    node.tell(2, 0, Purge { tombstones });
    let answers = node.ask(Read { key: key(), holds });
    assert!(answers.is_empty(), "{answers:?}");
    let before = node.sent("ReadAnswer").len();
    node.sync_all();
    assert_eq!(node.sent("ReadAnswer").len(), before + 1);
    assert_ne!(node.meta.floor, Ballot::ZERO);
}

/// The node's own coordinator does not count the record as this member's state.
#[test]
pub fn e5_an_old_record_is_not_the_coordinators() {
    let mut node = with_cached(VALUE);
    node.forward("k", Action::Get);
    let (_, read) = node.asked("Read", 2).expect("it asks");
    let Message::Read(read) = read else {
        unreachable!("by its name");
    };
    assert_eq!(read.holds, Ballot::ZERO);
}

/// The node compares its state with node 2, which has this entry of the key, or none.
fn compare(entry: Option<BucketEntry>) -> Alone {
    let mut node = with_cached(VALUE);
    node.run_ms(1_000);
    let (round, _) = node.asked("DigestsRequest", 2).expect("it compares");
    let own = bucket_of(&key());
    let sum = |bucket: Bucket| u64::from(bucket == own && entry.is_some());
    let sums = Sums::collect(Spread::default().all().map(sum));
    node.tell(2, round, DigestsReply { clock: 0, sums });
    let (round, asked) = node.asked("BucketRequest", 2).expect("it differs");
    let Message::BucketRequest(BucketRequest { bucket, after }) = asked else {
        unreachable!("by its name");
    };
    assert_eq!((bucket, &after), (own, &None));
    let told = BucketReply {
        bucket,
        after,
        entries: entry.into_iter().collect(),
        next: None,
    };
    node.tell(2, round, told);
    node
}

fn entry(accepted: Ballot) -> BucketEntry {
    BucketEntry {
        key: key(),
        accepted,
        chosen: true,
        tombstone: false,
        size: 100,
    }
}

/// A later record that was never chosen is no reason not to fetch the chosen one.
#[test]
pub fn e5_what_is_held_as_a_cache_is_missing() {
    let node = compare(Some(entry(ballot(CACHED_MS - 1))));
    let asked = node.asked("CopiesRequest", 2).map(|(_, message)| message);
    assert_eq!(asked, Some(CopiesRequest { keys: vec![key()] }.into()));
}

#[test]
pub fn e5_what_is_chosen_becomes_a_vote_without_travelling() {
    let node = compare(Some(entry(ballot(CACHED_MS))));
    assert!(node.sent("CopiesRequest").is_empty());
    assert_eq!(life_of(&node), Some(LIFE));
}

#[test]
pub fn e5_what_no_member_names_is_dropped() {
    let node = compare(None);
    assert_eq!(life_of(&node), None);
}

// Hints, and operations that wait.

const MEMBERS: [(u8, u64); 3] = [(1, 1), (2, 2), (3, 3)];

/// A write through this node that node 2 has accepted, and node 3, which is down, has not.
fn missed_by_three() -> Alone {
    let mut node = Alone::new(&[]);
    node.forward("k", put("new"));
    let (round, asked) = node.asked("Prepare", 2).expect("a full round");
    let Message::Prepare(Prepare { ballot, .. }) = asked else {
        unreachable!("by its name");
    };
    let promise = horseshoe::protocol::types::message::Promise {
        ballot,
        accepted: Ballot::ZERO,
        record: None,
        floor: Ballot::ZERO,
    };
    node.tell(2, round, promise);
    let (round, _) = node.asked("Accept", 2).expect("the second phase");
    node.tell(2, round, Accepted { ballot });
    assert_eq!(node.sent("ForwardAnswer").len(), 1, "it is done");
    node
}

/// C1: a member still receives what it has missed when the configuration changes meanwhile: from a
/// hint or, if the change comes before there is one, from the round that waits for the last
/// answers.
#[test]
pub fn c1_hints_outlive_a_change_of_others() {
    for before_ms in [10, 1_000] {
        let mut node = missed_by_three();
        node.run_ms(before_ms);
        node.install(configuration(EPOCH + 1, &MEMBERS));
        node.run_ms(1_000);
        assert!(node.sent("Copy").is_empty());
        node.there.push(3);
        node.run_ms(500);
        let (_, copy) = node.asked("Copy", 3).expect("it is heard");
        assert!(matches!(copy, Message::Copy(m) if m.key == key()));
    }
}

/// Node 3 has come back in a new incarnation, which compares everything itself.
#[test]
pub fn e5_hints_are_not_for_somebody_new() {
    for before_ms in [10, 1_000] {
        let mut node = missed_by_three();
        node.run_ms(before_ms);
        node.install(configuration(EPOCH + 1, &[(1, 1), (2, 2), (3, 33)]));
        node.there.push(3);
        node.run_ms(1_500);
        assert!(node.sent("Copy").is_empty());
    }
}

/// The node was removed, and is admitted again: it sends nothing for its earlier hints, and starts
/// no round for them.
#[test]
pub fn e5_hints_end_with_the_vote() {
    for before_ms in [10, 1_000] {
        let mut node = missed_by_three();
        node.run_ms(before_ms);
        node.install(configuration(EPOCH + 1, &MEMBERS[1..]));
        node.run_ms(500);
        assert_ne!(node.incarnation(), 1);
        let rounds = node.count(&["Prepare", "Accept", "Read"]);
        let own = (1, node.incarnation());
        node.install(configuration(EPOCH + 2, &[(2, 2), (3, 3), own]));
        assert_eq!(node.meta.life, LIFE + 1);
        node.there.push(3);
        node.run_ms(3_000);
        assert!(node.sent("Copy").is_empty());
        assert_eq!(node.count(&["Prepare", "Accept", "Read"]), rounds);
    }
}

/// An operation waits for its key to be loaded while the node loses its vote. No other node would
/// answer a round of this node, so it starts none: a forwarded operation is left to the forwarder.
#[test]
pub fn e4_what_waited_for_a_key_runs_no_round_without_a_vote() {
    for action in [Action::Get, put("late")] {
        let mut node = Alone::new(&[]);
        node.loads_nothing = true;
        node.forward("k", action);
        node.install(configuration(EPOCH + 1, &MEMBERS[1..]));
        node.load_all();
        node.run_ms(10_000);
        assert_eq!(node.count(&["Prepare", "Accept", "Read"]), 0);
    }
}

/// The same for a repair round of a change: it has no operation that could expire, and would be
/// repeated for ever.
#[test]
pub fn e4_a_key_is_not_mended_without_a_vote() {
    for with_vote in [true, false] {
        let mut node = Alone::new(&[]);
        node.loads_nothing = true;
        let mut joint = configuration(EPOCH + 1, &MEMBERS);
        joint.joint = Some(joint.members[1..].to_vec());
        let seen = node.sent_since(0).len();
        node.install(joint);
        compare_for_ms(&mut node, 2_000, seen, Some(entry(ballot(CACHED_MS))));
        if !with_vote {
            node.install(configuration(EPOCH + 2, &MEMBERS[1..]));
        }
        node.load_all();
        node.run_ms(10_000);
        assert_eq!(node.count(&["Prepare"]) > 0, with_vote);
    }
}

/// Node 2 answers requests about its buckets: it has this entry.
fn compare_for_ms(node: &mut Alone, ms: u64, mut seen: usize, held: Option<BucketEntry>) {
    let own = bucket_of(&key());
    let sum = |bucket: Bucket| u64::from(bucket == own && held.is_some());
    let sums = Sums::collect(Spread::default().all().map(sum));
    for _ in 0..ms / 50 {
        node.run_ms(50);
        let fresh = node.sent_since(seen).to_vec();
        seen += fresh.len();
        for asked in fresh.iter().filter(|e| e.destination == 2) {
            let answer: Message = match &asked.message {
                Message::DigestsRequest(_) => DigestsReply {
                    clock: 0,
                    sums: sums.clone(),
                }
                .into(),
                Message::BucketRequest(m) => BucketReply {
                    bucket: m.bucket,
                    after: m.after.clone(),
                    entries: held.iter().cloned().collect(),
                    next: None,
                }
                .into(),
                _ => continue,
            };
            node.tell(2, asked.round, answer);
        }
    }
}

/// Work on a key for an epoch that has ended is not done when the key is loaded at last.
#[test]
pub fn r1_work_that_waited_for_a_key_is_of_its_epoch() {
    let tombstone = AcceptorState {
        life: LIFE,
        ..cached(None)
    };
    for in_epoch in [true, false] {
        let mut node = Alone::new(&[(key(), tombstone.clone())]);
        node.loads_nothing = true;
        let tombstones = vec![(key(), ballot(CACHED_MS))];
        node.tell(2, 0, Purge { tombstones });
        if !in_epoch {
            node.install(configuration(EPOCH + 1, &MEMBERS));
        }
        node.load_all();
        node.run_ms(10);
        assert_eq!(node.disk.contains_key(&key()), !in_epoch);
    }
}

/// A learner that restarts without its state was not continuously reachable: it is admitted one
/// second after the restart. A new incarnation because of a change of the configuration does not
/// count as an interruption.
#[test]
pub fn e4_who_is_somebody_new_in_one_epoch_waits_anew() {
    for (epoch, admitted) in [(EPOCH + 1, false), (EPOCH + 2, true)] {
        let mut node = Alone::new(&[]);
        let members = &MEMBERS[..2];
        node.install(configuration(EPOCH + 1, members));
        ask_for_ms(&mut node, 30, 800);
        node.install(configuration(epoch, members));
        ask_for_ms(&mut node, 31, 500);
        let proposes = |node: &Alone| {
            let asked = node.asked("Prepare", 2).map(|(_, message)| message);
            matches!(asked, Some(Message::Prepare(m)) if m.key == Key::configuration())
        };
        assert_eq!(proposes(&node), admitted);
        ask_for_ms(&mut node, 31, 1_000);
        assert!(proposes(&node));
    }
}

/// Node 3, in that incarnation, has caught up and requests its admission.
fn ask_for_ms(node: &mut Alone, incarnation: u64, ms: u64) {
    node.become_new(3, incarnation);
    for _ in 0..ms / 50 {
        node.run_ms(50);
        let asked = AdmissionRequest {
            ready: true,
            listed: Spread::default().all().end,
        };
        node.tell(3, 0, asked);
    }
}

// The same with all nodes.

fn all_are_members(cluster: &Cluster) -> bool {
    let of = |node: usize| cluster.nodes[node].replica.as_ref()?.configuration();
    let nodes = 0..cluster.nodes.len();
    let is_whole = |node| of(node).is_some_and(|c| c.joint.is_none() && c.members.len() == 5);
    nodes.clone().all(is_whole) && nodes.into_iter().all(|node| of(node) == of(0))
}

/// Node 4 wrote a key that node 3 missed, and has a hint for it. Both are removed; the key is
/// deleted, and purged by the remaining three. Node 3 is admitted again, with no promises; then
/// node 4, which must not send the hinted copy: all would read that value as the newest.
#[test]
pub fn e5_a_hint_of_an_earlier_life_brings_nothing_back() {
    for seed in 1..=5 {
        let mut c = Script::shrinking(5, seed);
        let key = c.key_of(4);
        let (four, zero) = (c.client_of(&[4]), c.client_of(&[0, 1, 2]));
        c.isolate(3);
        c.put(four, &key, "old");
        c.run_ms(300);
        c.isolate(4);
        c.until("three members", |c| has_members(c, &[0, 1, 2], &[1, 2, 3]));
        c.run(zero, &key, Action::Delete);
        c.run_ms(9_000);
        c.until("the members forget", |c| {
            (0..3).all(|node| held(c, node, &key).is_none())
        });
        c.heal_nodes();
        c.isolate(4);
        c.until("four members", |c| {
            has_members(c, &[0, 1, 2, 3], &[1, 2, 3, 4])
        });
        c.heal_nodes();
        c.until("five members", all_are_members);
        let before = of_key(&c, &key);
        c.run_ms(3_000);
        assert_eq!(of_key(&c, &key), before, "seed {seed}");
        assert_eq!(c.get(zero, &key), "");
        c.check();
    }
}

/// Messages that may bring the key back to any node.
fn of_key(c: &Script, name: &str) -> usize {
    let is_of = |p: &Passing| match p.envelope().map(|e| &e.message) {
        Some(Message::Copy(m)) => m.key == user_key(name),
        Some(Message::Accept(m)) => m.key == user_key(name),
        _ => false,
    };
    let all = ["Copy", "Accept"].map(|name| c.sent(msg(name)));
    all.iter().flatten().filter(|p| is_of(p)).count()
}

/// A node whose disk was rolled back continues in a new incarnation, in the same epoch. Its hints
/// as a member end with that.
#[test]
pub fn e1_hints_end_when_a_vote_is_renounced() {
    let mut node = missed_by_three();
    node.run_ms(1_000);
    let told = horseshoe::protocol::types::message::RolledBack {
        incarnation: 1,
        starts: 100,
        boot: 1,
        synced: 0,
    };
    node.tell(2, 0, told);
    assert_ne!(node.incarnation(), 1);
    let rounds = node.count(&["Prepare", "Accept", "Read"]);
    node.there.push(3);
    node.run_ms(1_000);
    let own = (1, node.incarnation());
    node.install(configuration(EPOCH + 1, &[(2, 2), (3, 3), own]));
    node.run_ms(3_000);
    assert!(node.sent("Copy").is_empty());
    assert_eq!(node.count(&["Prepare", "Accept", "Read"]), rounds);
    let of_before: Option<Arc<_>> = node.disk.get(&key()).and_then(|s| s.record.clone());
    assert!(of_before.is_some(), "it is a cache, to be compared");
}
