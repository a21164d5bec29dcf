//! The send window of a node, and the queue of calls that wait for it.

use super::*;

const LIMIT: u64 = 64;

/// Submits gets of one key, so that all of them go to the same node.
fn submit(script: &mut Script, tags: std::ops::Range<u64>) -> Vec<Sent> {
    for tag in tags {
        script.submit(get("k"), tag);
    }
    script.requests()
}

/// Compares the counts of the windows and of the queues with the calls.
fn check_counts(session: &Session) {
    let handles = session.table.handles();
    let calls = || {
        handles
            .iter()
            .filter_map(|handle| session.table.get(*handle))
    };
    for (place, node) in session.nodes.iter().enumerate() {
        let open = || calls().filter(|call| call.open_place() == Some(place));
        let size: usize = open().map(|call| call.call.action.value_size()).sum();
        assert_eq!(
            (open().count() as u32, size),
            node.window.in_progress(),
            "node {place}"
        );
    }
    assert_eq!(
        calls().filter(|call| call.is_queued).count(),
        session.queued
    );
}

#[test]
fn calls_beyond_the_window_wait_and_are_sent_in_order() {
    let mut script = Script::started(1);
    let sent = submit(&mut script, 0..LIMIT + 2);
    assert_eq!(sent.len() as u64, LIMIT);
    check_counts(&script.session);
    for tag in [LIMIT, LIMIT + 1] {
        script.now_us += 20 * MS;
        script.answer(&sent[(tag - LIMIT) as usize], Outcome::Absent);
        let sequence = script.request().request.operation.id.sequence;
        assert_eq!(script.session.tag_of(sequence), Some(tag));
        script.completion();
    }
    script.answer(&sent[2], Outcome::Absent);
    assert!(script.requests().is_empty(), "nothing waits");
    check_counts(&script.session);
}

/// A node has memory for 20 MiB of the incomplete requests of one machine.
#[test]
fn large_values_fill_the_window_by_their_size() {
    const SIZE: usize = 48 << 10;
    // With one less they are below 4 MiB.
    const COUNT: u32 = 86;
    let mut script = Script::started(1);
    for tag in 0..200 {
        let value = vec![0; SIZE].into();
        script.submit(Call::new("k", wire::Action::Put { value }), tag);
    }
    // By answers the number of operations grows, until their values fill the window.
    for _ in 0..50 {
        let sent = script.requests.remove(0);
        script.answer(&sent, written());
    }
    let in_progress = script.session.nodes[0].window.in_progress();
    assert_eq!(in_progress, (COUNT, COUNT as usize * SIZE));
    check_counts(&script.session);
}

#[test]
fn a_busy_node_is_sent_less() {
    let mut script = Script::started(1);
    let sent = submit(&mut script, 0..2 * LIMIT);
    for sent in &sent[..LIMIT as usize / 2] {
        script.answer(sent, Outcome::Busy { after_ms: 0 });
    }
    // The limit is 44 now, and the operations without an answer are still in progress.
    assert_eq!(script.requests().len() as u64, 44 - LIMIT / 2);
    script.answer(&sent[LIMIT as usize - 1], Outcome::Absent);
    assert_eq!(script.requests().len(), 1);
    check_counts(&script.session);
}

#[test]
fn calls_that_wait_for_a_node_that_died_go_to_the_others() {
    let mut script = Script::started(3);
    let sent = submit(&mut script, 0..LIMIT + 50);
    assert_eq!(sent.len() as u64, LIMIT);
    let dead = sent[0].node;
    let mut answered = 0;
    for _ in 0..2_000 {
        script.pass(MS);
        for (node, hello) in std::mem::take(&mut script.hellos) {
            if node != dead {
                script.answer_hello(node, &hello);
            }
        }
        for sent in script.requests() {
            if sent.node != dead {
                script.answer(&sent, Outcome::Absent);
                answered += 1;
            }
        }
        check_counts(&script.session);
    }
    assert_eq!(answered, LIMIT + 50);
    assert_eq!(script.session.in_flight(), 0);
}

#[test]
fn a_call_whose_turn_does_not_come_is_busy_and_was_never_sent() {
    let mut script = Script::started(1);
    let sent = submit(&mut script, 0..LIMIT);
    script.submit(put("k"), LIMIT);
    // The node responds, but serves other clients.
    for second in 0..6 {
        for _ in 0..100 {
            script.pass(10 * MS);
            script.greet_all();
        }
        for sent in script.requests() {
            assert!(sent.request.operation.action.is_read());
        }
        script.answer(&sent[second], Outcome::Busy { after_ms: 0 });
    }
    let mut results = Vec::new();
    while let Some(completion) = script.session.poll_completion() {
        results.push(completion);
    }
    let put = results.iter().find(|completion| completion.tag == LIMIT);
    assert_eq!(put.map(|put| &put.result), Some(&Err(CallError::Busy)));
    check_counts(&script.session);
}

#[test]
fn a_call_that_would_wait_for_half_of_its_deadline_is_refused_at_once() {
    let mut script = Script::started(1);
    let sent = submit(&mut script, 0..12 * LIMIT);
    let patient = |script: &mut Script, deadline_ms: u64| {
        let mut call = get("k");
        call.deadline_us = Some(deadline_ms * MS);
        script.session.submit(script.now_us, call, 9_999)
    };
    assert_eq!(patient(&mut script, 10), Ok(()), "nothing is known yet");
    // About 64 answers in the last second, and ten times as many queued calls.
    for sent in &sent {
        script.answer(sent, Outcome::Absent);
    }
    script.now_us += 1_000 * MS;
    assert_eq!(patient(&mut script, 1_000), Err(CallError::Busy));
    assert_eq!(patient(&mut script, 30_000), Ok(()));
    script.now_us += 5_000 * MS;
    assert_eq!(
        patient(&mut script, 1_000),
        Ok(()),
        "nothing is known any more"
    );
    check_counts(&script.session);
}

/// The disks of a cluster stall for a second, for instance while a store moves data. The cluster
/// has answered thousands of calls in the second before, so calls with usual deadlines wait.
#[test]
fn a_second_with_few_answers_refuses_no_call() {
    let mut script = Script::started(1);
    for round in 0..60 {
        for sent in submit(&mut script, round * LIMIT..(round + 1) * LIMIT) {
            script.answer(&sent, Outcome::Absent);
        }
    }
    let sent = submit(&mut script, 10_000..10_000 + 80 * LIMIT);
    script.now_us += 1_000 * MS;
    script.answer(&sent[0], Outcome::Absent);
    script.now_us += 1_000 * MS;
    let submitted = script.session.submit(script.now_us, get("k"), 99_999);
    assert_eq!(submitted, Ok(()));
    check_counts(&script.session);
}

#[test]
fn a_retry_of_what_may_be_done_does_not_wait() {
    let mut script = Script::started(1);
    let sent = submit(&mut script, 0..LIMIT + 10);
    assert_eq!(sent.len() as u64, LIMIT);
    script.pass(450 * MS);
    script.greet_all();
    script.pass(450 * MS);
    let again = script.requests();
    assert!(
        again.iter().all(|sent| sent.request.retry),
        "none of those that wait"
    );
    assert!(!again.is_empty());
    check_counts(&script.session);
}

fn with_deadline(mut call: Call, deadline_ms: u64) -> Call {
    call.deadline_us = Some(deadline_ms * MS);
    call
}

/// A node answers ten operations in 100 ms, and receives them with deadlines of 500 ms, many more
/// than it can do. Only what it is likely to answer in time is sent. So nearly all the others were
/// surely not done.
#[test]
fn few_calls_with_short_deadlines_have_an_unknown_outcome() {
    let mut script = Script::started(1);
    let mut at_node = VecDeque::new();
    let (mut done, mut busy, mut unknown) = (0, 0, 0);
    let mut count = |result| match result {
        Ok(_) => done += 1,
        Err(CallError::Busy) => busy += 1,
        Err(CallError::UnknownOutcome) => unknown += 1,
        other => panic!("{other:?}"),
    };
    for step in 0..2_000 {
        for of_step in 0..5 {
            let call = with_deadline(put(&format!("k{of_step}")), 500);
            match script.session.submit(script.now_us, call, step) {
                Ok(()) => script.drain(),
                Err(error) => count(Err(error)),
            }
        }
        script.pass(10 * MS);
        script.greet_all();
        at_node.extend(script.requests());
        if let Some(sent) = at_node.pop_front() {
            script.answer(&sent, written());
        }
        at_node.extend(script.requests());
        while let Some(completion) = script.session.poll_completion() {
            count(completion.result);
        }
        check_counts(&script.session);
    }
    assert!(done > 1_500, "{done} of 2,000 that the node could do");
    assert!(busy > 7_000, "{busy} of 10,000 busy");
    // Most are of the first window, before anything is known.
    assert!(unknown < 4 * LIMIT, "{unknown} of 10,000 unknown");
}

#[test]
fn a_call_that_waited_until_its_answer_would_come_too_late_is_not_sent() {
    let mut script = Script::started(1);
    let mut sent = submit(&mut script, 0..LIMIT);
    script.submit(with_deadline(put("k"), 450), LIMIT);
    assert!(script.requests().is_empty(), "it waits");
    script.now_us += 400 * MS;
    // The answers take 400 ms, so 50 ms are too short.
    script.answer(&sent.remove(0), Outcome::Absent);
    script.completion();
    assert!(script.requests().is_empty());
    script.pass(50 * MS);
    let results = std::iter::from_fn(|| script.session.poll_completion());
    let put = results
        .into_iter()
        .find(|completion| completion.tag == LIMIT);
    assert_eq!(put.map(|put| put.result), Some(Err(CallError::Busy)));
    check_counts(&script.session);
}

/// A node is suspended for four seconds, and other nodes answer its operations. Then its answers
/// arrive too. They do not show how long it takes now, so no call of the next ones is refused.
#[test]
fn late_answers_of_a_node_that_was_suspended_refuse_no_call() {
    let mut script = Script::started(3);
    let sent = submit(&mut script, 0..LIMIT / 2);
    let suspended = sent[0].node;
    let began_us = script.now_us;
    while script.now_us < began_us + 4_000 * MS {
        script.pass(MS);
        script.hellos.retain(|(node, _)| *node != suspended);
        script.greet_all();
        for again in script.requests() {
            if again.node != suspended {
                script.answer(&again, Outcome::Absent);
            }
        }
    }
    for sent in &sent {
        assert_eq!(script.result(), Ok(Outcome::Absent));
        script.answer(sent, Outcome::Absent);
    }
    script.pass(MS);
    let sent = submit(&mut script, 100..100 + LIMIT);
    assert!(sent.iter().all(|sent| sent.node == suspended));
    let mut to_answer = VecDeque::from(sent);
    while let Some(sent) = to_answer.pop_front() {
        script.now_us += 10;
        script.answer(&sent, Outcome::Absent);
        to_answer.extend(script.requests());
        assert_eq!(script.result(), Ok(Outcome::Absent));
    }
    assert_eq!(script.session.in_flight(), 0);
    check_counts(&script.session);
}
