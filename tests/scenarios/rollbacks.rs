//! E1: disks that are rolled back to an older copy, as by restoring a snapshot. The rollback loses
//! promises and acknowledged writes that count at a quorum.

use wire::{Action, Change, ChangeOutcome, Outcome};

use super::operator::ask;
use super::split::waits_for;
use crate::sim::cluster::{Cluster, address};
use crate::sim::disk::Disk;
use crate::sim::script::{Script, msg};

/// The content of a node's disk now, as after a power failure.
fn snapshot(c: &Script, node: usize) -> Disk {
    let mut copy = c.nodes[node].disk.clone();
    copy.crash(0);
    copy
}

fn has_renounced(c: &Cluster, node: usize, copy: &Disk) -> bool {
    c.nodes[node].disk.incarnation() != copy.incarnation()
}

fn is_member_again(c: &Cluster, node: usize) -> bool {
    let disk = &c.nodes[node].disk;
    let configuration = disk.synced().meta.configuration.as_ref();
    configuration.is_some_and(|c| {
        let voter = c.voter(node as u8 + 1).map(|m| m.incarnation);
        c.joint.is_none() && voter == Some(disk.incarnation())
    })
}

fn hears_quorum(c: &Cluster, node: usize) -> bool {
    let node = &c.nodes[node];
    let now = node.now(c.now_us);
    let replica = node.replica.as_ref();
    replica.is_some_and(|replica| replica.status(now).quorum)
}

/// The node was not restarted between the copy and its end, so its start count shows nothing.
#[test]
pub fn e1_copy_of_the_same_run_is_noticed() {
    let mut c = Script::shrinking(5, 1);
    let client = c.client();
    c.put(client, "k", "old");
    let copy = snapshot(&c, 4);
    c.run_ms(200);
    c.put(client, "k", "new");
    c.run_ms(200);
    c.roll_back(4, copy.clone());
    c.until("somebody new", |c| has_renounced(c, 4, &copy));
    c.until("a member again", |c| is_member_again(c, 4));
    c.isolate(0);
    c.isolate(1);
    let late = c.client_of(&[2, 3, 4]);
    assert_eq!(c.get(late, "k"), "new");
    c.check();
}

/// Nodes 1 and 3 have the write; the copy of node 3's disk does not. Node 2 has received later
/// durable groups of that disk, but not the write. If 2 and 3 could answer together before the
/// rollback is detected, they would return the old value.
fn rolled_back_between_two(hold_objection: bool) {
    let mut c = Script::new(3);
    let key = c.key_of(0);
    let client = c.client();
    c.put(client, &key, "old");
    let copy = snapshot(&c, 2);
    c.run_ms(5_000);
    c.isolate(1);
    c.run_ms(500);
    let near = c.client_of(&[0, 2]);
    c.put(near, &key, "new");
    if hold_objection {
        c.hold(msg("RolledBack"));
    }
    c.roll_back(2, copy.clone());
    c.heal();
    c.isolate(0);
    c.run_ms(3_000);
    let late = c.client_of(&[1, 2]);
    let outcome = c.run(late, &key, Action::Get);
    assert!(matches!(outcome, Outcome::NoQuorum { .. }), "{outcome:?}");
    c.let_pass();
    c.until("somebody new", |c| has_renounced(c, 2, &copy));
    c.heal();
    c.run_ms(1_000);
    assert_eq!(c.get(client, &key), "new");
    c.check();
}

#[test]
pub fn e1_copy_of_the_same_run_loses_no_write() {
    rolled_back_between_two(false);
}

/// The node has no vote until the others have confirmed its start, however long that takes to
/// arrive.
#[test]
pub fn e1_who_starts_waits_for_objections() {
    rolled_back_between_two(true);
}

/// A node whose start confirmation is missing is named in the status, so that no node waits
/// silently.
#[test]
pub fn e1_a_proof_that_does_not_come_is_asked_for_in_words() {
    let mut c = Script::new(3);
    let client = c.client();
    c.put(client, "k", "old");
    let copy = snapshot(&c, 2);
    c.run_ms(1_000);
    c.put(client, "k", "new");
    c.run_ms(500);
    c.hold(msg("RolledBack"));
    c.roll_back(2, copy.clone());
    c.run_ms(1_000);
    let words = waits_for(&mut c, client, 2);
    assert!(
        words.starts_with("the members have not confirmed") && !words.contains("node0"),
        "{words}"
    );
    c.run_ms(3_000);
    let words = waits_for(&mut c, client, 2);
    assert!(
        words.contains("unconfirmed by node0:7000, node1:7000"),
        "{words}"
    );
    c.let_pass();
    c.until("somebody new", |c| has_renounced(c, 2, &copy));
    c.until("a member again", |c| is_member_again(c, 2));
    c.run_ms(500);
    assert_eq!(waits_for(&mut c, client, 2), "");
    c.check();
}

/// The detection does not depend on the clock, even if it was ahead of all others when the copy was
/// made.
#[test]
pub fn e1_a_copy_is_noticed_whatever_the_clocks_say() {
    let mut c = Script::shrinking(3, 1);
    let client = c.client();
    c.cluster.jump(2, 50_000);
    c.put(client, "k", "old");
    c.run_ms(500);
    let copy = snapshot(&c, 2);
    c.run_ms(1_000);
    c.put(client, "k", "new");
    c.run_ms(100);
    c.cluster.jump(2, -50_000);
    c.roll_back(2, copy.clone());
    c.run_ms(1_000);
    assert!(has_renounced(&c, 2, &copy));
    c.check();
}

/// The wait for other nodes takes no longer than learning which nodes are up.
#[test]
pub fn e1_a_restart_costs_little_while_others_are_down() {
    // A node that knows of no other node listens for another second.
    for (nodes, down, alone_ms) in [
        (1, vec![], 1_000),
        (2, vec![1], 0),
        (3, vec![1], 0),
        (5, vec![1, 3], 0),
    ] {
        let mut c = Script::new(nodes);
        let client = c.client_of(&[0]);
        c.put(client, "k", "v");
        for node in down {
            c.crash_hard(node);
        }
        c.restart(0);
        c.run_ms(500 + alone_ms);
        let began_us = c.now_us;
        c.put(client, "k", "w");
        assert!(c.now_us - began_us < 300_000, "{nodes} nodes");
        c.check();
    }
}

#[test]
pub fn e1_all_may_restart_at_once() {
    let mut c = Script::new(5);
    let client = c.client();
    c.put(client, "k", "v");
    for node in 0..5 {
        c.crash_hard(node);
    }
    c.cluster.start_all();
    c.run_ms(500);
    let began_us = c.now_us;
    assert_eq!(c.get(client, "k"), "v");
    assert!(c.now_us - began_us < 300_000);
    c.check();
}

/// A member that lost its state is reachable, and never confirms starts in its earlier incarnation.
#[test]
pub fn e1_who_starts_does_not_wait_for_a_member_that_is_gone() {
    let mut c = Script::new(3);
    let client = c.client_of(&[1]);
    c.put(client, "k", "v");
    c.crash_hard(1);
    c.restart_empty(2);
    c.run_ms(500);
    c.restart(1);
    c.until("a member again", |c| is_member_again(c, 2));
    c.put(client, "k", "w");
    c.check();
}

/// A cluster of one node, and a copy of its disk. Then two more nodes were added; "old" was written
/// before the copy, "new" when all three were members.
struct Grown {
    script: Script,
    copy: Disk,
    key: String,
}

impl Grown {
    fn new() -> Self {
        let mut c = Script::cold(3);
        c.cluster.settings.listed = 1;
        c.cluster.start(0);
        c.until("a cluster of one", |c| c.vote_of(0).is_some());
        let (client, key) = (c.client(), c.key_of(0));
        c.put(client, &key, "old");
        c.run_ms(1_000);
        let copy = snapshot(&c, 0);
        for node in 1..3 {
            c.cluster.start(node);
            let address = address(node);
            let added = ask(&mut c, client, 0, Change::Add { address });
            assert!(matches!(added, ChangeOutcome::Started { .. }), "{added:?}");
            c.until("one more member", |c| is_member_again(c, node));
            c.run_ms(500);
        }
        Grown {
            script: c,
            copy,
            key,
        }
    }
}

/// The copy is from when the node was alone. In the present configuration the node has no vote
/// until the others have confirmed its start, whatever it proved, or did not have to prove, in the
/// configuration of the copy.
#[test]
pub fn e1_a_copy_of_when_it_was_alone_waits_for_objections() {
    let Grown {
        script: mut c,
        copy,
        key,
    } = Grown::new();
    c.isolate(1);
    c.run_ms(500);
    let near = c.client_of(&[0, 2]);
    c.put(near, &key, "new");
    c.hold(msg("RolledBack"));
    c.isolate(0);
    c.roll_back(0, copy.clone());
    c.until("it serves alone", |c| hears_quorum(c, 0));
    // It listens for a while before it has proved that it may.
    c.run_ms(2_000);
    c.heal();
    c.isolate(2);
    c.run_ms(3_000);
    let late = c.client_of(&[0, 1]);
    let outcome = c.run(late, &key, Action::Get);
    assert!(matches!(outcome, Outcome::NoQuorum { .. }), "{outcome:?}");
    c.let_pass();
    c.until("somebody new", |c| has_renounced(c, 0, &copy));
    c.heal();
    c.until("a member again", |c| is_member_again(c, 0));
    assert_eq!(c.get(late, &key), "new");
    c.check();
}

/// According to the copy the node has not given its commitment, and it is a member all the same.
#[test]
pub fn e6_a_copy_of_before_the_first_configuration_is_noticed() {
    let mut c = Script::cold(3);
    let copy = snapshot(&c, 2);
    c.cluster.start_all();
    c.until("a configuration", |c| c.is_formed());
    let client = c.client();
    c.put(client, "k", "new");
    c.run_ms(300);
    c.roll_back(2, copy.clone());
    c.until("somebody new", |c| has_renounced(c, 2, &copy));
    c.until("a member again", |c| is_member_again(c, 2));
    c.isolate(0);
    let late = c.client_of(&[1, 2]);
    assert_eq!(c.get(late, "k"), "new");
    c.check();
}

/// Before the node serves alone it listens as long as it takes to receive something from others.
#[test]
pub fn e1_a_copy_of_when_it_was_alone_hears_of_the_others_first() {
    for (lost, why) in [
        ("Nothing", "a call"),
        ("ConfigurationRequest", "a question"),
    ] {
        let Grown {
            script: mut c,
            copy,
            key,
        } = Grown::new();
        let near = c.client_of(&[0]);
        c.put(near, &key, "new");
        // While the newer configuration does not arrive, the node keeps listening.
        c.lose(msg(lost));
        c.roll_back(0, copy.clone());
        let read = c.begin(near, &key, Action::Get);
        c.run_ms(2_000);
        c.let_pass();
        let outcome = c.end(read);
        let is_old = matches!(&outcome, Outcome::Value { value, .. } if value == "old");
        assert!(!is_old, "{why}: {outcome:?}");
        c.until("somebody new", |c| has_renounced(c, 0, &copy));
        c.until("a member again", |c| is_member_again(c, 0));
        assert_eq!(c.get(near, &key), "new");
        c.check();
    }
}

/// The only node that remembers has lost its vote meanwhile, with its own disk.
#[test]
pub fn e1_who_has_no_vote_objects_too() {
    let mut c = Script::new(5);
    let client = c.client_of(&[1]);
    c.put(client, "k", "old");
    c.run_ms(500);
    let copy = snapshot(&c, 0);
    c.run_ms(2_000);
    c.put(client, "k", "new");
    // The node does not become a member before node 0 is down.
    c.hold(msg("AdmissionRequest"));
    c.restart_empty(4);
    c.run_ms(1_000);
    c.crash_hard(0);
    for node in 1..4 {
        c.crash_hard(node);
    }
    for node in 1..4 {
        c.cluster.start(node);
    }
    c.roll_back(0, copy.clone());
    c.until("somebody new", |c| has_renounced(c, 0, &copy));
    c.let_pass();
    c.until("a member again", |c| is_member_again(c, 0));
    c.until("the other too", |c| is_member_again(c, 4));
    assert_eq!(c.get(client, "k"), "new");
    c.check();
}
