//! A node whose disk hangs sends heartbeats, but answers nothing: it is treated like a node that is
//! down.

use kvclient::session::{Question, QuestionReply};
use wire::{Change, ChangeOutcome, Outcome};

use crate::scenarios::changes::has_members;
use crate::scenarios::operator::{ask, epoch, question};
use crate::sim::node::DiskSpeed;
use crate::sim::script::{Script, append, msg, put};

/// Longer than any scenario.
const FOR_EVER_MS: u64 = 10_000_000;

fn mend_disk(c: &mut Script, node: usize) {
    c.cluster.nodes[node].speed = DiskSpeed::FAST;
    c.restart(node);
}

/// The node is removed, as one that is down: otherwise the next two failures of five lose the
/// quorum.
#[test]
pub fn a_member_whose_disk_hangs_is_removed() {
    let mut c = Script::shrinking(5, 1);
    let client = c.client();
    c.put(client, "k", "x");
    c.slow_disk(4, FOR_EVER_MS);
    c.until("four members", |c| {
        has_members(c, &[0, 1, 2, 3], &[1, 2, 3, 4])
    });
    c.crash_hard(3);
    c.until("three members", |c| has_members(c, &[0, 1, 2], &[1, 2, 3]));
    c.crash_hard(0);
    c.run_ms(2_000);
    let outcome = c.run(client, "k", append("y"));
    assert!(matches!(outcome, Outcome::Written { .. }), "{outcome:?}");
    mend_disk(&mut c, 4);
    c.until("it is a member again", |c| c.vote_of(4).is_some());
    c.check();
}

/// A master whose disk hangs is the first to propose, and cannot.
#[test]
pub fn a_master_whose_disk_hangs_is_removed() {
    let mut c = Script::shrinking(4, 1);
    c.slow_disk(0, FOR_EVER_MS);
    c.until("another master", |c| has_members(c, &[1, 2, 3], &[2, 3, 4]));
    let client = c.client();
    c.put(client, "k", "x");
    c.check();
}

/// A learner that has caught up, and then cannot write any more, would be no gain.
#[test]
pub fn a_learner_whose_disk_hangs_is_not_admitted() {
    let mut c = Script::shrinking(4, 1);
    c.crash_hard(3);
    c.until("three members", |c| has_members(c, &[0, 1, 2], &[1, 2, 3]));
    c.cluster.start(3);
    c.until_sent(msg("AdmissionRequest").from(3));
    c.slow_disk(3, FOR_EVER_MS);
    c.run_ms(30_000);
    assert!(has_members(&c, &[0, 1, 2], &[1, 2, 3]), "not admitted");
    let epoch = c.nodes[0]
        .replica
        .as_ref()
        .unwrap()
        .configuration()
        .unwrap()
        .epoch;
    c.run_ms(10_000);
    let replica = c.nodes[0].replica.as_ref().unwrap();
    assert_eq!(
        replica.configuration().unwrap().epoch,
        epoch,
        "and not tried"
    );
    mend_disk(&mut c, 3);
    c.until("it is a member again", |c| c.vote_of(3).is_some());
    c.check();
}

/// The maximum that a node reports of its disk.
fn unsynced_max_ms(c: &Script, node: usize) -> u32 {
    use horseshoe::protocol::types::message::Message;
    let sent = c.sent(msg("Heartbeat").from(node));
    let told = sent.iter().filter_map(|p| match &p.envelope()?.message {
        Message::Heartbeat(h) => Some(h.rows[0].unsynced_ms),
        _ => None,
    });
    told.max().unwrap_or(0)
}

/// A disk that is slow, but makes progress, costs no node its vote.
#[test]
pub fn a_member_with_a_slow_disk_stays() {
    let mut c = Script::shrinking(5, 1);
    let client = c.client();
    c.slow_disk(4, 800);
    for _ in 0..50 {
        c.begin(client, "k", append("x"));
        c.run_ms(400);
    }
    let told = unsynced_max_ms(&c, 4);
    assert!((500..1_000).contains(&told), "{told} ms");
    assert!(c.vote_of(4).is_some());
    let epoch = |c: &Script| {
        c.nodes[0]
            .replica
            .as_ref()
            .unwrap()
            .configuration()
            .unwrap()
            .epoch
    };
    assert_eq!(epoch(&c), 1);
}

/// A cluster of this many nodes, which never removes a member automatically, that serves while one
/// disk hangs.
fn with_a_hung_disk(nodes: usize, hung: usize) -> (Script, usize) {
    let mut c = Script::new(nodes);
    let client = c.client();
    c.put(client, "k", "0");
    c.slow_disk(hung, FOR_EVER_MS);
    // So the others detect it.
    let others: Vec<usize> = (0..nodes).filter(|node| *node != hung).collect();
    let client = c.client_of(&others);
    c.begin(client, "k", append("?"));
    c.run_ms(3_000);
    (c, client)
}

/// Everything that such a node would send waits for its disk (B1), also the answer to a read.
#[test]
pub fn operations_at_a_node_whose_disk_hangs_are_run_by_others() {
    let mut c = Script::new(3);
    let at_hung = c.client_of(&[1]);
    c.put(at_hung, "k", "0");
    c.slow_disk(1, FOR_EVER_MS);
    // Some operations are in progress when the disk begins to hang, and some begin while it hangs.
    for _ in 0..30 {
        let client = c.client_of(&[1]);
        c.begin(client, "k", append("x"));
        c.run_ms(100);
    }
    c.run_ms(1_000);
    for number in 0..10 {
        let key = format!("k{number}");
        c.put(at_hung, &key, "1");
        assert_eq!(c.get(at_hung, &key), "1");
    }
    let client = c.client_of(&[0]);
    c.put(client, "k", "2");
    mend_disk(&mut c, 1);
    c.run_ms(3_000);
    c.check();
}

/// These messages would accumulate in memory, and the node would accept no more datagrams.
#[test]
pub fn a_node_whose_disk_hangs_takes_in_nothing_that_waits_for_it() {
    let (mut c, client) = with_a_hung_disk(3, 2);
    let waiting = |c: &Script| c.cluster.nodes[2].disk.unsynced();
    let before = waiting(&c);
    for number in 0..200 {
        c.put(client, &format!("k{number}"), "1");
    }
    let more = waiting(&c) - before;
    assert!(more < 50, "{more} groups");
    mend_disk(&mut c, 2);
    // Then another node is down, so that this node needs the messages that it had not accepted.
    c.run_ms(10_000);
    c.crash_hard(0);
    let client = c.client_of(&[2]);
    c.run_ms(1_000);
    for number in 0..200 {
        assert_eq!(c.get(client, &format!("k{number}")), "1");
    }
    c.check();
}

#[track_caller]
fn assert_refused(outcome: &ChangeOutcome, part: &str) {
    match outcome {
        ChangeOutcome::Refused { reason, .. } => assert!(reason.contains(part), "{reason}"),
        other => panic!("{other:?}"),
    }
}

/// The others would wait for the master's disk as long as it hangs, and for ever if it is replaced.
#[test]
pub fn an_operator_removes_no_member_that_is_needed_while_a_disk_hangs() {
    let (mut c, client) = with_a_hung_disk(3, 0);
    let removed = ask(&mut c, client, 1, Change::Remove { node: 3 });
    assert_refused(&removed, "node0:7000");
    assert_refused(&removed, "disk");
    c.run_ms(2_000);
    c.put(client, "k", "1");
    // A node whose disk hangs is replaced at once, as one that is down.
    let address = "elsewhere:7000".to_owned();
    let replaced = ask(&mut c, client, 1, Change::Replace { node: 1, address });
    assert!(
        matches!(replaced, ChangeOutcome::Started { .. }),
        "{replaced:?}"
    );
    c.until("two members", |c| has_members(c, &[1, 2], &[2, 3]));
    c.put(client, "k", "2");
    c.check();
}

/// In a cluster of four, one of which is down, the other two would be no quorum without it.
#[test]
pub fn the_mastership_is_not_given_to_a_node_whose_disk_hangs() {
    let (mut c, client) = with_a_hung_disk(4, 3);
    c.crash_hard(2);
    c.run_ms(1_500);
    let given = ask(&mut c, client, 0, Change::TransferMaster { node: 4 });
    assert_refused(&given, "the disk of node 4");
    c.run_ms(2_000);
    c.put(client, "k", "1");
    c.check();
}

/// A quorum that is reachable and cannot answer does not count: this is reported soon, and the
/// nodes that block are named.
#[test]
pub fn x5_a_quorum_whose_disks_hang_is_none() {
    let (mut c, _) = with_a_hung_disk(3, 0);
    c.slow_disk(1, FOR_EVER_MS);
    let client = c.client_of(&[2]);
    c.begin(client, "k", append("?"));
    c.run_ms(3_000);
    let outcome = c.run(client, "k2", put("1"));
    assert!(matches!(outcome, Outcome::NoQuorum { .. }), "{outcome:?}");
    let QuestionReply::Status(status) = question(&mut c, client, 2, Question::Status) else {
        panic!("no status");
    };
    for words in [status.waits_for, status.warnings.join(" ")] {
        assert!(
            words.contains("disk") && words.contains("node0:7000, node1:7000"),
            "{words}"
        );
    }
    // So an operator may continue without them.
    let force = |c: &Script, nodes: &[u8]| Change::Force {
        nodes: nodes.to_vec(),
        epoch: epoch(c, 2),
        despite_quorum: false,
    };
    let with_hung = force(&c, &[2, 3]);
    let with_hung = ask(&mut c, client, 2, with_hung);
    assert_refused(&with_hung, "the disk of node 2");
    let alone = force(&c, &[3]);
    let forced = ask(&mut c, client, 2, alone);
    assert!(
        matches!(forced, ChangeOutcome::Started { .. }),
        "{forced:?}"
    );
    c.run_ms(1_000);
    c.put(client, "k2", "2");
    c.check();
}
