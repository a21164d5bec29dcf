//! E8: a cluster in which both sides of a split were forced.

use horseshoe::protocol::types::configuration::{Forced, first_epoch, next_lineage};
use horseshoe::protocol::types::digest::{BUCKETS_MAX, Spread};
use horseshoe::protocol::types::limits::NODES_AWAY_MAX;
use horseshoe::protocol::types::message::{Configuration, ConfigurationUpdate, Member, NodeId};
use kvclient::session::{Question, QuestionReply};
use wire::{Action, Change, ChangeOutcome, NodeStatus, Outcome};

use super::alone::Alone;
use super::changes::{are_all_members, has_members};
use super::handoff::held;
use super::operator::{ask, epoch, question};
use crate::sim::cluster::address;
use crate::sim::event::Parcel;
use crate::sim::network::Place;
use crate::sim::script::{Script, append, msg};

fn force(c: &mut Script, client: usize, node: usize, nodes: &[u8]) -> u64 {
    let change = Change::Force {
        nodes: nodes.to_vec(),
        epoch: epoch(c, node),
        despite_quorum: false,
    };
    match ask(c, client, node, change) {
        ChangeOutcome::Started { epoch, .. } => epoch,
        other => panic!("{other:?}"),
    }
}

fn status(c: &mut Script, client: usize, node: usize) -> NodeStatus {
    match question(c, client, node, Question::Status) {
        QuestionReply::Status(status) => *status,
        other => panic!("{other:?}"),
    }
}

/// What a node's status says it is pending on.
pub fn waits_for(c: &mut Script, client: usize, node: usize) -> String {
    status(c, client, node).waits_for
}

fn is_refused(c: &mut Script, client: usize) -> bool {
    matches!(c.run(client, "k", append("?")), Outcome::NoQuorum { .. })
}

/// Both sides are forced, and each side goes on to change its members. When messages pass between
/// the sides neither serves, whichever nodes receive them; a further force unites the two.
#[test]
pub fn e8_who_was_forced_on_both_sides_serves_on_none() {
    let mut c = Script::shrinking(5, 1);
    let (a, b) = (c.client_of(&[0, 1]), c.client_of(&[2, 3]));
    c.put(a, "k", "");
    c.cut(&[0, 1], &[2, 3, 4]);
    c.cut(&[2, 3], &[4]);
    c.run_ms(1_000);
    let of_a = force(&mut c, a, 0, &[1, 2]);
    let of_b = force(&mut c, b, 2, &[3, 4]);
    assert_ne!(of_a >> 28, of_b >> 28, "of one lineage");
    c.heal_nodes();
    c.cut(&[0, 1, 4], &[2, 3]);
    c.run_ms(8_000);
    assert!(has_members(&c, &[0, 1, 4], &[1, 2, 5]));
    c.run(a, "k", append("a"));
    c.run(b, "k", append("b"));
    // One node of each side receives from one node of the other.
    c.heal_nodes();
    c.cut(&[0, 4], &[2, 3]);
    c.cut(&[1], &[3]);
    c.run_ms(1_000);
    assert!(is_refused(&mut c, a) && is_refused(&mut c, b));
    c.heal_nodes();
    c.run_ms(30_000);
    assert!(is_refused(&mut c, a) && is_refused(&mut c, b));
    let told = waits_for(&mut c, a, 0);
    assert!(
        told.contains("node0:7000") && told.contains("node3:7000"),
        "{told}"
    );
    force(&mut c, a, 0, &[1, 2, 5]);
    c.run_ms(15_000);
    let all: Vec<usize> = (0..5).collect();
    assert!(has_members(&c, &all, &[1, 2, 5, 3, 4]) || has_members(&c, &all, &[1, 2, 5, 4, 3]));
    assert_eq!(c.get(a, "k"), "a");
    assert_eq!(c.get(b, "k"), "a");
    c.put(b, "k", "both");
    assert_eq!(c.get(a, "k"), "both");
}

/// A side that was not forced yields to one that was, and so does a side whose force was earlier.
#[test]
pub fn e8_a_force_on_one_side_is_no_split() {
    let mut c = Script::new(3);
    let client = c.client_of(&[0]);
    c.put(client, "k", "0");
    c.cut(&[0], &[1, 2]);
    c.run_ms(1_000);
    let first = force(&mut c, client, 0, &[1]);
    c.run_ms(500);
    c.heal_nodes();
    c.until("three members", |c| {
        has_members(c, &[0, 1, 2], &[1, 2, 3]) || has_members(c, &[0, 1, 2], &[1, 3, 2])
    });
    c.cut(&[0], &[1, 2]);
    c.run_ms(1_000);
    let second = force(&mut c, client, 0, &[1]);
    assert!(second > first);
    c.run_ms(500);
    c.heal_nodes();
    c.until("three members", |c| {
        has_members(c, &[0, 1, 2], &[1, 2, 3]) || has_members(c, &[0, 1, 2], &[1, 3, 2])
    });
    assert_eq!(c.get(client, "k"), "0");
}

/// The members 1 to 4 delete the key, and purge it.
fn delete_and_purge(c: &mut Script, key: &str) {
    let four = c.client_of(&[1, 2, 3, 4]);
    c.until("four members", |c| {
        has_members(c, &[1, 2, 3, 4], &[2, 3, 4, 5])
    });
    c.run(four, key, Action::Delete);
    c.run_ms(10_000);
    c.until("a purge", |c| (1..5).all(|n| held(c, n, key).is_none()));
}

/// The node holds what the others deleted and purged, and receives from one of them, which has not
/// sent it the configuration yet.
#[test]
pub fn e8_no_force_at_a_node_that_slept_through_its_removal() {
    let mut c = Script::shrinking(5, 1);
    let (all, key) = (c.client(), c.key_of(1));
    c.put(all, &key, "old");
    c.run_ms(500);
    c.isolate(0);
    delete_and_purge(&mut c, &key);
    for node in 2..5 {
        c.crash_hard(node);
    }
    c.lose(msg("ConfigurationUpdate").to(0));
    c.heal_nodes();
    c.run_ms(1_500);
    let two = c.client_of(&[0, 1]);
    let change = Change::Force {
        nodes: vec![1, 2],
        epoch: epoch(&c, 0),
        despite_quorum: false,
    };
    match ask(&mut c, two, 0, change) {
        ChangeOutcome::Refused { reason, soon } => {
            assert!(soon && reason.contains("command to node 2"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
    c.let_pass();
    c.run_ms(1_000);
    force(&mut c, two, 1, &[2]);
    c.run_ms(5_000);
    assert_eq!(c.get(two, &key), "", "it stays deleted");
}

/// A force names a node that does not learn of it and continues with others, which then fail.
#[test]
pub fn e8_a_named_node_that_went_on_has_no_vote() {
    let mut c = Script::shrinking(5, 1);
    let (all, key) = (c.client(), c.key_of(1));
    c.put(all, &key, "old");
    c.run_ms(500);
    let two = c.client_of(&[0, 1]);
    c.cut(&[0, 1], &[2, 3, 4]);
    c.run_ms(1_000);
    c.lose(msg("ConfigurationUpdate").from(0));
    force(&mut c, two, 0, &[1, 2]);
    c.heal_nodes();
    c.isolate(0);
    delete_and_purge(&mut c, &key);
    for node in 2..5 {
        c.crash_hard(node);
    }
    c.let_pass();
    c.heal_nodes();
    c.run_ms(5_000);
    assert!(is_refused(&mut c, two), "neither has the other's state");
    let told = waits_for(&mut c, two, 0);
    assert!(told.contains("continued without the force"), "{told}");
    assert!(told.contains("`horseshoe member force 1`"), "{told}");
    assert!(!told.contains("Put their data"), "{told}");
    force(&mut c, two, 0, &[1]);
    c.until("the other is a member", |c| c.vote_of(1).is_some());
    assert_eq!(c.get(two, &key), "old");
}

/// The same node is named on both sides: what only one side did is not combined with what the other
/// side purged.
#[test]
pub fn e8_a_node_of_both_sides_is_of_the_side_that_goes_on() {
    let mut c = Script::shrinking(3, 1);
    let (all, key) = (c.client(), c.key_of(1));
    c.put(all, &key, "old");
    c.run_ms(500);
    let (a, b) = (c.client_of(&[0, 1]), c.client_of(&[1, 2]));
    let change = |c: &Script, node: usize, nodes: &[u8]| Change::Force {
        nodes: nodes.to_vec(),
        epoch: epoch(c, node),
        despite_quorum: true,
    };
    let is_started = |outcome| matches!(outcome, ChangeOutcome::Started { .. });
    c.cut(&[0], &[2]);
    c.lose(msg("ConfigurationUpdate").from(0));
    let of_a = change(&c, 0, &[1, 2]);
    assert!(is_started(ask(&mut c, a, 0, of_a)));
    c.cut(&[0], &[1, 2]);
    c.run_ms(2_000);
    let of_b = change(&c, 1, &[2, 3]);
    assert!(is_started(ask(&mut c, b, 1, of_b)));
    c.run_ms(2_000);
    c.run(b, &key, Action::Delete);
    c.put(b, "other", "of b");
    c.run_ms(10_000);
    c.until("a purge", |c| (1..3).all(|n| held(c, n, &key).is_none()));
    c.let_pass();
    c.heal_nodes();
    c.run_ms(3_000);
    assert!(is_refused(&mut c, a) && is_refused(&mut c, b));
    let with_both = change(&c, 0, &[1, 2]);
    assert!(!is_started(ask(&mut c, a, 0, with_both)), "of both sides");
    let alone = change(&c, 0, &[1]);
    assert!(is_started(ask(&mut c, a, 0, alone)));
    c.until("all are members", |c| c.are_all_members());
    assert_eq!(
        (c.get(a, &key), c.get(a, "other")),
        ("old".into(), "".into())
    );
}

/// Five of seven nodes are listed, and form a cluster. The last two are not running.
fn five_of_seven() -> Script {
    let mut c = Script::cold(7);
    c.cluster.settings.listed = 5;
    for node in 0..5 {
        c.cluster.start(node);
    }
    c.until("five members", |c| {
        has_members(c, &[0, 1, 2, 3, 4], &[1, 2, 3, 4, 5])
    });
    c.run_ms(300);
    c
}

#[track_caller]
fn change(c: &mut Script, client: usize, node: usize, change: Change) {
    let outcome = ask(c, client, node, change);
    assert!(
        !matches!(outcome, ChangeOutcome::Refused { .. }),
        "{outcome:?}"
    );
}

/// Both sides of a split are forced, and each then admits a new node: 5 joins 0 and 1, 6 joins 2
/// and 3, both with the same id. Node 4 is cut off from all. Returns a client of each side.
fn forced_and_grown(c: &mut Script, id: NodeId) -> (usize, usize) {
    let (a, b) = (c.client_of(&[0, 1, 5]), c.client_of(&[2, 3, 6]));
    c.put(a, "k", "");
    c.cut(&[0, 1, 5], &[2, 3, 4, 6]);
    c.cut(&[2, 3, 6], &[4]);
    c.run_ms(1_000);
    force(c, a, 0, &[1, 2]);
    force(c, b, 2, &[3, 4]);
    c.run_ms(1_000);
    for (client, node, new) in [(a, 0, 5), (b, 2, 6)] {
        c.cluster.start(new);
        let address = address(new);
        change(c, client, node, Change::Add { address });
    }
    c.until("one more on each side", |c| {
        has_members(c, &[0, 1, 5], &[1, 2, id]) && has_members(c, &[2, 3, 6], &[3, 4, id])
    });
    c.run(a, "k", append("a"));
    c.run(b, "k", append("b"));
    (a, b)
}

/// Both sides give that id to a new node, and stop serving once they receive each other's messages.
/// A force on one side admits the nodes of both.
fn assert_one_side_goes_on(mut c: Script, id: NodeId) {
    let (a, b) = forced_and_grown(&mut c, id);
    c.heal_nodes();
    c.run_ms(3_000);
    assert!(is_refused(&mut c, a) && is_refused(&mut c, b));
    force(&mut c, a, 0, &[1, 2, id]);
    c.until("seven members", are_all_members);
    assert_eq!(c.get(b, "k"), "a");
}

/// Both sides have given the same id to different nodes. The node of the side that yields is
/// admitted with another id.
#[test]
pub fn e8_an_id_that_both_sides_gave_out_stays_with_one() {
    let c = five_of_seven();
    assert_one_side_goes_on(c, 6);
}

/// The same, and all nodes receive each other's messages before the force.
#[test]
pub fn e8_an_id_that_is_free_on_both_sides_stays_with_one() {
    let mut c = Script::new(7);
    let client = c.client();
    for id in [7, 6] {
        change(&mut c, client, 0, Change::Remove { node: id });
        let left: Vec<NodeId> = (1..id).collect();
        c.until("one less", |c| has_members(c, &[0, 1, 2, 3, 4], &left));
        c.run_ms(300);
        let node = usize::from(id) - 1;
        c.crash_hard(node);
        c.cluster.wipe(node);
    }
    assert_one_side_goes_on(c, 8);
}

/// Both sides have a node 3, and only that of the other side is up. Its heartbeats are not taken
/// for those of the own node.
#[test]
pub fn e8_nodes_of_another_lineage_are_no_members() {
    let mut node = Alone::new(&[]);
    let lineage = next_lineage(&[], 3, 1).expect("the first force");
    node.elsewhere.insert(3, first_epoch(lineage));
    node.there.push(3);
    node.run_ms(1_000);
    assert!(node.reaches(2) && !node.reaches(3));
    node.elsewhere.clear();
    node.run_ms(1_000);
    assert!(node.reaches(3), "the own node 3 is up");
}

/// One side was forced while the other had a quorum, and moved to new addresses. The other side,
/// which knows none of these addresses, yields all the same.
#[test]
pub fn e8_a_quorum_hears_of_what_supersedes_it_from_where_it_knows_nobody() {
    let mut c = Script::cold(5);
    c.cluster.settings.listed = 3;
    for node in 0..3 {
        c.cluster.start(node);
    }
    c.until("three members", |c| has_members(c, &[0, 1, 2], &[1, 2, 3]));
    let (a, b) = (c.client_of(&[0, 3, 4]), c.client_of(&[1, 2]));
    c.put(a, "k", "");
    c.cut(&[0, 3, 4], &[1, 2]);
    c.run_ms(1_000);
    force(&mut c, a, 0, &[1]);
    c.run_ms(500);
    for new in [3, 4] {
        c.cluster.start(new);
        let address = address(new);
        change(&mut c, a, 0, Change::Add { address });
        c.until("a new member", |c| c.vote_of(new).is_some());
        c.run_ms(500);
    }
    change(&mut c, a, 3, Change::Remove { node: 1 });
    c.until("the first is out", |c| has_members(c, &[3, 4], &[4, 5]));
    c.crash_hard(0);
    c.run(a, "k", append("a"));
    c.run(b, "k", append("b"));
    c.heal_nodes();
    let all = [1, 2, 3, 4];
    c.until("all are members of one", |c| {
        has_members(c, &all, &[4, 5, 2, 3]) || has_members(c, &all, &[4, 5, 3, 2])
    });
    assert_eq!(c.get(b, "k"), "a");
}

/// The same with two forced sides: neither serves, and both are named.
#[test]
pub fn e8_a_split_is_noticed_where_one_side_has_moved() {
    let mut c = five_of_seven();
    let (a, b) = forced_and_grown(&mut c, 6);
    for node in [0, 1] {
        let id = node as NodeId + 1;
        change(&mut c, a, 5, Change::Remove { node: id });
        c.until("one less", |c| c.vote_of(node).is_none());
        c.run_ms(500);
        c.crash_hard(node);
    }
    assert!(has_members(&c, &[5], &[6]));
    c.heal_nodes();
    c.run_ms(3_000);
    assert!(is_refused(&mut c, a) && is_refused(&mut c, b));
    for (client, node) in [(a, 5), (b, 2)] {
        let told = waits_for(&mut c, client, node);
        let names = |node| told.contains(&address(node));
        assert!(names(5) && names(2), "{told}");
    }
}

/// Sends a node a configuration in another node's name.
fn tell(c: &mut Script, from: usize, to: usize, configuration: Configuration) {
    let sent = c.sent(msg("ConfigurationUpdate"));
    let mut passing = sent.last().expect("one was told").clone();
    (passing.from, passing.to) = (Place::Node(from), Place::Node(to));
    let Parcel::Peer { envelope, .. } = &mut passing.parcel else {
        panic!("between nodes");
    };
    envelope.origin = from as NodeId + 1;
    envelope.via = envelope.origin;
    envelope.destination = 0;
    envelope.epoch = configuration.epoch;
    let configuration = configuration.into();
    envelope.message = ConfigurationUpdate { configuration }.into();
    c.cluster.deliver(100, passing);
}

fn present(c: &Script, node: usize) -> Configuration {
    let replica = c.cluster.nodes[node].replica.as_ref().expect("it is up");
    replica.configuration().expect("it has one").clone()
}

/// A sender that knows only the cluster's id, as each client does, stops no node, from any address.
#[test]
pub fn e8_no_configuration_counts_without_the_key_of_the_cluster() {
    let mut c = Script::cold(4);
    c.cluster.settings.listed = 3;
    for node in 0..3 {
        c.cluster.start(node);
    }
    c.until("three members", |c| has_members(c, &[0, 1, 2], &[1, 2, 3]));
    c.run_ms(300);
    let client = c.client();
    c.put(client, "k", "x");
    let held = present(&c, 0);
    let lineage = next_lineage(&[], 2, 5).expect("the first");
    let forged = Configuration {
        epoch: first_epoch(lineage),
        forces: vec![Forced { lineage, from: 1 }],
        spread: Spread::new(1, BUCKETS_MAX),
        ..held.clone()
    };
    let later = Configuration {
        epoch: held.epoch + 2,
        ..forged.clone()
    };
    let later = Configuration {
        forces: Vec::new(),
        ..later
    };
    for from in [1, 3] {
        for told in [&forged, &later] {
            tell(&mut c, from, 0, told.clone());
            c.run_ms(300);
            assert_eq!(present(&c, 0), held, "told by node {from}");
            assert_eq!(waits_for(&mut c, client, 0), "");
        }
    }
    assert_eq!(c.get(client, "k"), "x");
    c.check();
}

/// Both sides stopped because of messages from each other. After another partition and a restart
/// they do not serve either: what they would acknowledge now would be lost.
#[test]
pub fn e8_who_knows_of_a_split_knows_it_after_a_restart() {
    let mut c = five_of_seven();
    let (a, b) = forced_and_grown(&mut c, 6);
    c.heal_nodes();
    c.run_ms(1_000);
    assert!(is_refused(&mut c, a) && is_refused(&mut c, b));
    c.cut(&[0, 1, 5], &[2, 3, 4, 6]);
    c.cut(&[2, 3, 6], &[4]);
    c.run_ms(1_000);
    for node in [0, 1, 2, 3, 5, 6] {
        c.crash_hard(node);
    }
    c.run_ms(1_000);
    for node in [0, 1, 2, 3, 5, 6] {
        c.cluster.start(node);
    }
    c.run_ms(3_000);
    assert!(is_refused(&mut c, a) && is_refused(&mut c, b));
    let told = waits_for(&mut c, a, 0);
    assert!(told.contains("node2:7000"), "{told}");
    // The partition continues; the force on one side supersedes the other.
    force(&mut c, a, 0, &[1, 2, 6]);
    c.run(a, "k", append("!"));
    c.heal_nodes();
    c.until("seven members", are_all_members);
    assert_eq!(c.get(b, "k"), "a!");
}

/// A node that was removed while it was down learns that from members that have restarted since.
#[test]
pub fn who_was_taken_out_is_told_so_by_members_that_have_started_since() {
    let mut c = Script::cold(4);
    c.cluster.settings.listed = 3;
    for node in 0..3 {
        c.cluster.start(node);
    }
    c.until("three members", |c| has_members(c, &[0, 1, 2], &[1, 2, 3]));
    c.run_ms(300);
    c.cluster.start(3);
    let client = c.client();
    let address = address(3);
    change(&mut c, client, 0, Change::Add { address });
    c.until("four members", |c| {
        has_members(c, &[0, 1, 2, 3], &[1, 2, 3, 4])
    });
    c.crash_hard(3);
    c.run_ms(500);
    change(&mut c, client, 0, Change::Remove { node: 4 });
    c.until("three members", |c| has_members(c, &[0, 1, 2], &[1, 2, 3]));
    for node in 0..3 {
        c.crash_hard(node);
    }
    for node in 0..4 {
        c.cluster.start(node);
    }
    c.run_ms(3_000);
    let told = waits_for(&mut c, client, 3);
    assert!(told.contains("this node was removed"), "{told}");
    c.check();
}

/// The number of non-members is at its limit. A member that is gone stays a member, and the
/// operator is informed, because the configuration without it could not be decoded by any node.
#[test]
pub fn what_would_be_no_configuration_is_not_proposed() {
    let mut c = Script::shrinking(5, 1);
    let client = c.client();
    c.put(client, "k", "x");
    let held = present(&c, 0);
    let gone = (0..NODES_AWAY_MAX as NodeId).map(|n| Member {
        node: 6 + n,
        address: format!("gone{n}:1"),
        ..Member::default()
    });
    let full = Configuration {
        epoch: held.epoch + 2,
        away: gone.collect(),
        ids: 5 + NODES_AWAY_MAX as NodeId,
        ..held
    };
    for node in 0..5 {
        tell(&mut c, (node + 1) % 5, node, full.clone());
    }
    c.run_ms(1_000);
    c.crash_hard(4);
    c.run_ms(4_000);
    assert!(has_members(&c, &[0, 1, 2, 3], &[1, 2, 3, 4, 5]));
    let warnings = status(&mut c, client, 0).warnings;
    assert!(
        warnings
            .iter()
            .any(|w| w.contains("`horseshoe member remove`")),
        "{warnings:?}"
    );
    change(&mut c, client, 0, Change::Remove { node: 6 });
    c.until("four members", |c| {
        has_members(c, &[0, 1, 2, 3], &[1, 2, 3, 4])
    });
    let warnings = status(&mut c, client, 0).warnings;
    assert_eq!(warnings, Vec::<String>::new());
    assert_eq!(c.get(client, "k"), "x");
}
