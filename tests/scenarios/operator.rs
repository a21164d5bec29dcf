//! Operators' requests to change the configuration.

use kvclient::session::{Question, QuestionReply};
use wire::{Change, ChangeOutcome};

use crate::sim::node::DiskSpeed;
use crate::sim::script::Script;

/// Sends a request to one node.
pub fn begin(c: &mut Script, client: usize, node: usize, change: Change) {
    begin_question(c, client, node, Question::Change(change));
}

fn begin_question(c: &mut Script, client: usize, node: usize, question: Question) {
    let now_us = c.cluster.now_us;
    let session = c.cluster.clients[client].session.take();
    let mut asking = session.expect("the client is there");
    asking.ask(now_us, node, question, 5_000_000, 1);
    c.cluster.clients[client].session = Some(asking);
    c.cluster.drain_client(client);
}

/// Sends a question to one node, and waits for its answer.
#[track_caller]
pub fn question(c: &mut Script, client: usize, node: usize, question: Question) -> QuestionReply {
    begin_question(c, client, node, question);
    for _ in 0..100 {
        c.run_ms(10);
        let session = c.cluster.clients[client].session.as_mut();
        if let Some(completion) = session.and_then(|session| session.poll_reply()) {
            return completion.reply.expect("an answer");
        }
    }
    panic!("no answer");
}

#[track_caller]
pub fn ask(c: &mut Script, client: usize, node: usize, change: Change) -> ChangeOutcome {
    match question(c, client, node, Question::Change(change)) {
        QuestionReply::Change(outcome) => outcome,
        other => panic!("{other:?}"),
    }
}

pub fn epoch(c: &Script, node: usize) -> u64 {
    let replica = c.cluster.nodes[node].replica.as_ref().expect("it is up");
    replica.configuration().map_or(0, |c| c.epoch)
}

/// Of the two remaining nodes only one holds an acknowledged write, and that one is not the master.
/// A forced configuration whose quorum is a majority would read without that node.
#[test]
pub fn force_keeps_what_one_of_those_named_holds() {
    let mut c = Script::new(5);
    let (key, client) = (c.key_of(2), c.client());
    c.put(client, &key, "old");
    c.isolate(0);
    c.run_ms(700);
    let others = c.client_of(&[1, 2, 3, 4]);
    c.put(others, &key, "new");
    for node in 2..5 {
        c.crash_hard(node);
    }
    c.heal();
    c.run_ms(1_000);
    let left = c.client_of(&[0, 1]);
    let force = |epoch| Change::Force {
        nodes: vec![1, 2],
        epoch,
        despite_quorum: false,
    };
    let stale = ask(&mut c, left, 0, force(77));
    assert!(matches!(stale, ChangeOutcome::Refused { .. }), "{stale:?}");
    let at = epoch(&c, 0);
    let forced = ask(&mut c, left, 0, force(at));
    let ChangeOutcome::Started { epoch: to, .. } = forced else {
        panic!("{forced:?}");
    };
    assert!(to > at + 1_000);
    assert_eq!(c.get(left, &key), "new");
    c.run_ms(2_000);
    assert!((0..2).all(|node| epoch(&c, node) == to + 1), "complete");
    c.put(left, &key, "newer");
    assert_eq!(c.get(left, &key), "newer");
}

/// The master lost its state while an added node waits. With the added node there would be four
/// members, of which two without the master are no quorum; the master's new incarnation needs only
/// the nodes that are up.
#[test]
pub fn e4_a_learner_that_has_to_wait_holds_up_no_other() {
    let mut c = Script::new(4);
    let client = c.client();
    let removed = ask(&mut c, client, 1, Change::Remove { node: 4 });
    assert!(
        matches!(removed, ChangeOutcome::Started { .. }),
        "{removed:?}"
    );
    c.run_ms(1_000);
    c.crash_hard(0);
    c.run_ms(1_000);
    let address = "node3:7000".to_owned();
    let added = ask(&mut c, client, 1, Change::Add { address });
    assert!(matches!(added, ChangeOutcome::Started { .. }), "{added:?}");
    c.run_ms(3_000);
    c.restart_empty(0);
    c.until("all are members", |c| c.are_all_members());
    c.check();
}

/// A crash would undo the forced configuration, and the cluster would continue from the one before.
#[test]
pub fn r2_a_force_is_told_of_once_it_is_durable() {
    let mut c = Script::new(3);
    let client = c.client_of(&[0]);
    c.put(client, "k", "0");
    c.crash_hard(1);
    c.crash_hard(2);
    c.run_ms(1_000);
    let before = epoch(&c, 0);
    c.slow_disk(0, 600_000);
    let change = Change::Force {
        nodes: vec![1],
        epoch: before,
        despite_quorum: false,
    };
    begin(&mut c, client, 0, change);
    c.run_ms(500);
    let told = |c: &mut Script| {
        let session = c.cluster.clients[client].session.as_mut();
        session.and_then(|session| session.poll_reply())
    };
    assert!(epoch(&c, 0) > before, "installed");
    assert!(told(&mut c).is_none(), "told of too soon");
    c.cluster.nodes[0].speed = DiskSpeed::FAST;
    c.restart(0);
    c.run_ms(3_000);
    let told = told(&mut c).and_then(|completion| completion.reply.ok());
    if let Some(QuestionReply::Change(ChangeOutcome::Started { epoch: of, .. })) = told {
        assert!(epoch(&c, 0) >= of);
    }
}
