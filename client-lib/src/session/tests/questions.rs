//! Questions to one node about its status or its configuration.

use super::*;
use wire::{Change, ChangeAnswer, ChangeOutcome};

#[test]
fn the_status_of_a_node_is_asked_for_until_it_answers_or_time_is_over() {
    let mut script = Script::new(2);
    for node in 0..2 {
        script.session.ask(
            script.now_us,
            node,
            Question::Status,
            500 * MS,
            10 + node as u64,
        );
    }
    script.drain();
    let hellos = std::mem::take(&mut script.hellos);
    assert_eq!(hellos.len(), 2);
    script.answer_hello(0, &hellos[0].1);
    let (node, _) = script.status_requests.pop().expect("asked");
    assert_eq!(node, 0);
    script.pass(60 * MS);
    let (_, again) = script.status_requests.pop().expect("asked again");
    let answer = wire::StatusAnswer {
        attempt: again.attempt,
        status: wire::NodeStatus {
            node: 1,
            ..Default::default()
        },
    };
    script.frame(0, kind::STATUS_ANSWER, &answer);
    let first = script.session.poll_reply().unwrap();
    let Ok(QuestionReply::Status(status)) = first.reply else {
        panic!("a status");
    };
    assert_eq!((first.tag, first.node, status.node), (10, 0, 1));
    script.pass(500 * MS);
    let second = script.session.poll_reply().unwrap();
    let silent = Err(CallError::TimedOut);
    assert_eq!((second.tag, second.reply), (11, silent));
    assert_eq!(script.session.next_timeout(), None);
}

#[test]
fn a_change_is_asked_for_until_the_node_tells_what_it_does_about_it() {
    let mut script = Script::started(1);
    let change = Change::Remove { node: 3 };
    let question = Question::Change(change.clone());
    let now_us = script.now_us;
    script.session.ask(now_us, 0, question, 500 * MS, 7);
    script.drain();
    let (_, first) = script.change_requests.pop().expect("asked");
    assert_eq!(first.change, change);
    script.pass(60 * MS);
    let (_, again) = script.change_requests.pop().expect("asked again");
    assert!(again.attempt > first.attempt, "an attempt of its own");
    // The answer to another question completes nothing.
    let (attempt, status) = (again.attempt, wire::NodeStatus::default());
    script.frame(
        0,
        kind::STATUS_ANSWER,
        &wire::StatusAnswer { attempt, status },
    );
    assert_eq!(script.session.poll_reply(), None);
    let outcome = ChangeOutcome::Started { epoch: 9, node: 0 };
    let answer = ChangeAnswer {
        attempt: first.attempt,
        outcome: outcome.clone(),
    };
    script.frame(0, kind::CHANGE_ANSWER, &answer);
    let completion = script.session.poll_reply().expect("told");
    assert_eq!(
        (completion.tag, completion.reply),
        (7, Ok(QuestionReply::Change(outcome)))
    );
    // The answer to the other attempt is late.
    let attempt = again.attempt;
    script.frame(0, kind::CHANGE_ANSWER, &ChangeAnswer { attempt, ..answer });
    assert_eq!(script.session.poll_reply(), None);
    assert_eq!(script.session.next_timeout(), None);
}

/// A change is an operation: no node of another cluster, or of none, receives it.
#[test]
fn a_change_goes_only_to_the_cluster_in_use() {
    const OTHER: u64 = CLUSTER + 1;
    let ask = |script: &mut Script, node: usize, tag: u64| {
        let question = Question::Change(Change::Remove { node: 3 });
        let now_us = script.now_us;
        script.session.ask(now_us, node, question, 900 * MS, tag);
        script.drain();
    };
    let reply = |script: &mut Script| script.session.poll_reply().expect("told").reply;

    let mut script = Script::new(3);
    ask(&mut script, 0, 1);
    assert_eq!(script.hellos.len(), 3, "the others are asked for theirs");
    script.greet(&[0], OTHER);
    script.greet(&[1], CLUSTER);
    script.pass(100 * MS);
    assert!(script.change_requests.is_empty());
    script.greet(&[2], CLUSTER);
    assert!(script.change_requests.is_empty());
    let Err(CallError::NoQuorum { detail }) = reply(&mut script) else {
        panic!("node 0 is of another cluster");
    };
    assert!(detail.contains("belongs to cluster"), "{detail}");
    ask(&mut script, 1, 2);
    assert_eq!(script.change_requests.pop().map(|(node, _)| node), Some(1));
    script.pass(900 * MS);
    assert_eq!(reply(&mut script), Err(CallError::UnknownOutcome));

    let mut script = Script::new(2);
    ask(&mut script, 0, 1);
    script.greet(&[0], 0);
    script.greet(&[1], CLUSTER);
    script.pass(901 * MS);
    assert!(script.change_requests.is_empty());
    assert!(is_no_quorum_reported(&reply(&mut script)));

    let mut script = Script::new(2);
    ask(&mut script, 0, 1);
    let now_us = script.now_us;
    script
        .session
        .ask(now_us, 0, Question::Cluster, 900 * MS, 2);
    script.greet(&[0], OTHER);
    script.greet(&[1], CLUSTER);
    let two = CallError::TwoClusters {
        first: CLUSTER,
        second: OTHER,
    };
    assert_eq!(reply(&mut script), Err(two.clone()));
    assert_eq!(reply(&mut script), Err(two));
    assert!(script.change_requests.is_empty());
}

fn is_no_quorum_reported(reply: &Result<QuestionReply, CallError>) -> bool {
    matches!(reply, Err(CallError::NoQuorum { .. }))
}

#[test]
fn the_cluster_in_use_is_told_once_it_is_known() {
    let mut script = Script::new(3);
    let now_us = script.now_us;
    script
        .session
        .ask(now_us, 0, Question::Cluster, 900 * MS, 1);
    script.drain();
    script.greet(&[2], CLUSTER);
    script.pass(399 * MS);
    assert_eq!(script.session.poll_reply(), None);
    script.pass(2 * MS);
    let reply = script.session.poll_reply().expect("told").reply;
    assert_eq!(reply, Ok(QuestionReply::Cluster(CLUSTER)));
    assert_eq!(script.session.next_timeout(), None);
}
