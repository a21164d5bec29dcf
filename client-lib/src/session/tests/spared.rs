//! Nodes that the application spares.

use super::*;

fn spare(script: &mut Script, node: usize, spared: bool) {
    script.session.spare(script.now_us, node, spared);
    script.drain();
}

#[test]
fn a_spared_node_is_sent_nothing_at_all() {
    let mut script = Script::started(3);
    script.greeted();
    spare(&mut script, 1, true);
    // Long enough for every reason to send a hello: silence, and the refresh of a session.
    for tag in 0..3_000 {
        script.submit(put(&format!("k{tag}")), tag);
        for sent in script.requests() {
            assert_ne!(sent.node, 1);
            script.answer(&sent, written());
        }
        script.pass(7 * MS);
        for (node, hello) in std::mem::take(&mut script.hellos) {
            assert_ne!(node, 1);
            script.answer_hello(node, &hello);
        }
    }
    script
        .session
        .ask(script.now_us, 1, Question::Status, 300 * MS, 5_000);
    script.drain();
    script.pass(400 * MS);
    assert!(script.greeted().is_empty() && script.status_requests.is_empty());
    let reply = script.session.poll_reply().unwrap().reply;
    assert_eq!(reply, Err(CallError::TimedOut));
}

#[test]
fn one_that_is_spared_before_the_first_call_is_not_greeted() {
    let mut script = Script::new(3);
    spare(&mut script, 0, true);
    script.submit(put("k"), 1);
    script.pass(900 * MS);
    assert!(script.greeted().iter().all(|node| *node != 0));
}

#[test]
fn time_does_not_stand_still_for_a_spared_node() {
    let mut script = Script::new(2);
    script.submit(put("k"), 1);
    assert_eq!(script.greeted(), [0, 1]);
    spare(&mut script, 0, true);
    for _ in 0..100 {
        let Some(at_us) = script.session.next_timeout() else {
            break;
        };
        script.now_us = at_us.max(script.now_us);
        script.session.handle_timeout(script.now_us);
        let next_us = script.session.next_timeout();
        assert!(next_us.is_none_or(|next_us| next_us > script.now_us));
    }
    assert!(is_no_quorum(&script.result()));
}

#[test]
fn what_is_open_at_a_spared_node_may_still_be_answered() {
    let mut script = Script::started(2);
    script.submit(put("k"), 1);
    let first = script.request();
    spare(&mut script, first.node, true);
    script.answer(&first, written());
    assert_eq!(script.result(), Ok(written()));
}

#[test]
fn a_write_that_is_open_at_a_spared_node_is_tried_elsewhere() {
    let mut script = Script::started(2);
    script.submit(put("k"), 1);
    let first = script.request();
    spare(&mut script, first.node, true);
    let second = script.pass_until_sent();
    assert_ne!(second.node, first.node);
    assert!(second.request.retry);
    script.answer(&second, written());
    assert_eq!(script.result(), Ok(written()));
}

#[test]
fn when_the_last_is_spared_only_a_write_that_was_sent_waits() {
    let mut script = Script::started(2);
    script.submit(put("k"), 1);
    script.submit(get("k"), 2);
    assert_eq!(script.requests().len(), 2);
    spare(&mut script, 0, true);
    assert!(script.is_pending());
    spare(&mut script, 1, true);
    let read = script.completion();
    assert_eq!(read.tag, 2);
    let words = read.result.unwrap_err().to_string();
    assert_eq!(
        words,
        "no quorum: node 1 is spared by the application, node 2 is spared by the application"
    );
    script.submit(put("k"), 3);
    let refused = script.completion();
    assert!(refused.tag == 3 && is_no_quorum(&refused.result));
    script.pass(DEADLINE_US_DEFAULT);
    let sent = script.completion();
    assert_eq!((sent.tag, sent.result), (1, Err(CallError::UnknownOutcome)));
    assert!(script.requests().is_empty());
}

#[test]
fn a_node_is_used_again_once_it_answered() {
    let mut script = Script::started(1);
    script.greeted();
    spare(&mut script, 0, true);
    spare(&mut script, 0, false);
    assert!(script.greeted().is_empty(), "nobody waits for it");
    script.submit(put("k"), 1);
    script.pass(30 * MS);
    assert!(script.requests().is_empty());
    script.greet_all();
    let sent = script.request();
    spare(&mut script, 0, true);
    script.pass(400 * MS);
    spare(&mut script, 0, false);
    script.greet_all();
    let again = script.pass_until_sent();
    assert!(again.request.retry);
    assert_eq!(again.request.operation.id, sent.request.operation.id);
    script.answer(&again, written());
    assert_eq!(script.result(), Ok(written()));
}

#[test]
fn a_node_that_is_used_again_gets_its_time_to_answer() {
    let mut script = Script::new(2);
    spare(&mut script, 1, true);
    script.submit(put("k"), 1);
    script.pass(900 * MS);
    script.greeted();
    spare(&mut script, 1, false);
    assert!(script.greeted().contains(&1));
    script.pass(900 * MS);
    assert!(script.is_pending());
    script.pass(101 * MS);
    assert!(is_no_quorum(&script.result()));
}

#[test]
fn a_spared_node_counts_as_one_that_does_not_answer() {
    let mut script = Script::started(3);
    spare(&mut script, 2, true);
    script.submit(put("k"), 1);
    let began_us = script.now_us;
    while script.session.in_flight() > 0 {
        for sent in script.requests() {
            assert_ne!(sent.node, 2);
            script.answer(&sent, no_quorum());
        }
        script.pass(MS);
        script.greet_all();
    }
    assert!(is_no_quorum(&script.result()));
    let took_us = script.now_us - began_us;
    assert!((1_000 * MS..1_300 * MS).contains(&took_us), "{took_us}");
}

#[test]
fn calls_that_no_node_could_be_sent_leave_nothing_behind() {
    let mut script = Script::new(2);
    spare(&mut script, 0, true);
    spare(&mut script, 1, true);
    for tag in 0..10_000 {
        script.submit(put("k"), tag);
        assert!(is_no_quorum(&script.result()));
    }
    assert!(script.session.parked.len() < 100);
    assert!(script.session.timers.len() < 100);
    // The same holds if the calls had to wait first.
    let mut script = Script::new(2);
    for round in 0..50 {
        for tag in 0..100 {
            script.submit(put("k"), round * 100 + tag);
        }
        script.pass(2_000 * MS);
        while script.session.poll_completion().is_some() {}
        assert_eq!(script.session.in_flight(), 0);
    }
    assert!(script.session.parked.len() < 500);
}
