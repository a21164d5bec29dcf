//! Hellos, failover, retries, `no quorum`: which message is sent to which node, and when (X4, X5).

use super::*;
use wire::rendezvous_weight;

#[test]
fn nothing_is_sent_while_nothing_is_asked() {
    let mut script = Script::started(3);
    script.greeted();
    script.pass(3_600_000 * MS);
    assert_eq!(script.session.next_timeout(), None);
    assert!(script.greeted().is_empty());
    let mut script = Script::new(3);
    assert_eq!(script.session.next_timeout(), None);
    script.drain();
    assert!(script.greeted().is_empty());
}

#[test]
fn the_first_call_greets_all_and_goes_to_one_that_answered() {
    let mut script = Script::new(3);
    script.submit(put("k"), 1);
    let hellos = std::mem::take(&mut script.hellos);
    assert_eq!(hellos.len(), 3);
    assert!(script.requests.is_empty());
    script.answer_hello(hellos[1].0, &hellos[1].1);
    assert!(
        script.requests.is_empty(),
        "another may be of another cluster"
    );
    script.answer_hello(hellos[2].0, &hellos[2].1);
    assert_ne!(script.request().node, 0);
}

#[test]
fn hellos_are_repeated_with_the_same_nonce_ever_more_slowly() {
    let mut script = Script::new(1);
    script.submit(put("k"), 1);
    script.pass(900 * MS);
    let nonces: Vec<u64> = script.hellos.iter().map(|(_, hello)| hello.nonce).collect();
    assert!((14..20).contains(&nonces.len()), "{nonces:?}");
    assert!(nonces.iter().all(|nonce| *nonce == nonces[0]));
}

/// All nodes were down for a while. They are back, and the next call is not told otherwise.
#[test]
fn a_call_after_a_pause_does_not_wait_for_the_next_hello() {
    let mut script = Script::started(3);
    script.submit(put("k"), 1);
    script.pass(4_000 * MS);
    script.requests();
    script.hellos.clear();
    script.submit(put("l"), 2);
    assert_eq!(script.hellos.len(), 0, "the other call sends them");
    script.pass(6_000 * MS);
    assert!(script.result().is_err() && script.result().is_err());
    script.hellos.clear();
    script.submit(put("m"), 3);
    script.pass(25 * MS);
    script.greet_all();
    let sent = script.request();
    script.answer(&sent, written());
    assert_eq!(script.result(), Ok(written()));
}

#[test]
fn a_silent_node_is_asked_less_often_while_another_is_there() {
    let mut script = Script::started(2);
    let mut hellos = 0;
    for tag in 0..200 {
        script.submit(put(&format!("k{tag}")), tag);
        script.pass(10 * MS);
        for sent in script.requests() {
            if sent.node == 0 {
                script.answer(&sent, written());
            }
        }
        hellos += script.greeted().len();
    }
    assert!((5..20).contains(&hellos), "{hellos} in two seconds");
}

#[test]
fn an_operation_goes_to_its_keys_preferred_node() {
    let mut script = Script::started(5);
    for at in 0..50 {
        let key = format!("key {at}");
        script.submit(put(&key), at);
        let sent = script.request();
        let preferred = (1..=5u8).max_by_key(|id| rendezvous_weight(key.as_bytes(), *id));
        assert_eq!(Some(sent.node as u8 + 1), preferred);
        script.answer(&sent, written());
    }
}

#[test]
fn a_retry_is_marked_and_goes_to_another_node_with_the_same_id() {
    let mut script = Script::started(3);
    script.submit(put("k"), 1);
    let first = script.request();
    let began_us = script.now_us;
    let second = script.pass_until_sent();
    assert!((4 * MS..=11 * MS).contains(&(script.now_us - began_us)));
    assert!(!first.request.retry && second.request.retry);
    assert_ne!(first.node, second.node);
    assert_eq!(first.request.operation.id, second.request.operation.id);
    assert_eq!(
        first.request.operation.birth,
        second.request.operation.birth
    );
    let third = script.pass_until_sent();
    assert!(third.request.retry);
    assert!(third.node != first.node && third.node != second.node);
}

/// A session whose nodes answer writes after half a second.
fn slow(nodes: usize) -> Script {
    let mut script = Script::started(nodes);
    script.greeted();
    let timing = node::AnswerTiming {
        is_read: false,
        is_transaction: false,
        sent_us: script.now_us - 500 * MS,
        was_last: false,
    };
    for node in &mut script.session.nodes {
        (0..20).for_each(|_| node.take_outcome(script.now_us, timing, &written()));
    }
    script
}

#[test]
fn a_slow_operation_leaves_a_node_that_answers_no_hello() {
    let mut script = slow(3);
    script.submit(put("k"), 1);
    let first = script.request();
    let began_us = script.now_us;
    let second = script.pass_until_sent();
    let took_us = script.now_us - began_us;
    assert!((120 * MS..250 * MS).contains(&took_us), "{took_us} us");
    assert!(second.request.retry && second.node != first.node);
    let asked = script.greeted();
    let asked = asked.iter().filter(|node| **node == first.node);
    assert!(asked.count() >= 2);
}

/// No node answers for a while, and the one that was tried last is the first to answer again.
#[test]
fn a_slow_operation_returns_to_a_node_that_is_there_after_all() {
    let mut script = slow(3);
    script.submit(put("k"), 1);
    script.pass(600 * MS);
    let last = script.requests().pop().expect("three were tried").node;
    script.greeted();
    let began_us = script.now_us;
    while !script.requests.iter().any(|sent| sent.node == last) {
        script.pass(MS);
        script.greet(&[last], CLUSTER);
        let took_us = script.now_us - began_us;
        assert!(took_us < 500 * MS, "{took_us} us");
    }
}

#[test]
fn a_slow_operation_stays_at_a_node_that_answers_hellos() {
    let mut script = slow(3);
    script.submit(put("k"), 1);
    let first = script.request();
    let mut hellos = 0;
    for _ in 0..450 {
        script.pass(MS);
        hellos += script.hellos.len();
        script.greet_all();
    }
    assert!(script.requests.is_empty());
    assert!((1..6).contains(&hellos), "{hellos}");
    // Then it dies.
    let died_us = script.now_us;
    let others: Vec<usize> = (0..3).filter(|node| *node != first.node).collect();
    while !script
        .requests
        .iter()
        .any(|sent| others.contains(&sent.node))
    {
        script.pass(MS);
        script.greet(&others, CLUSTER);
        let took_us = script.now_us - died_us;
        assert!(took_us < 700 * MS, "{took_us} us");
    }
}

/// A transaction that waits for another one's keys would compete with its own retry. The estimates
/// of single operations say nothing about it, nor it about them.
#[test]
fn a_transaction_stays_at_a_node_that_is_there() {
    let mut script = Script::started(3);
    script.greeted();
    script.submit(transaction("k"), 1);
    let first = script.request();
    for _ in 0..100 {
        script.pass(MS);
        script.greet_all();
    }
    // The datagram may have been lost.
    let again = script.request();
    assert!(again.node == first.node && again.request.retry);
    while script.requests.is_empty() {
        script.pass(MS);
        script.greet_all();
    }
    assert_ne!(script.request().node, first.node);
    let timing = node::AnswerTiming {
        is_read: false,
        is_transaction: true,
        sent_us: script.now_us - 240 * MS,
        was_last: true,
    };
    let node = &mut script.session.nodes[first.node];
    let before_us = node.wait_us(&put("k").action);
    node.take_outcome(script.now_us, timing, &Outcome::Unknown);
    assert_eq!(node.wait_us(&put("k").action), before_us);
}

#[test]
fn a_transaction_whose_datagram_was_lost_is_sent_again_soon() {
    let mut script = Script::started(3);
    script.submit(transaction("k"), 1);
    let first = script.request();
    script.pass(80 * MS);
    assert_eq!(script.request().node, first.node);
}

#[test]
fn a_transaction_leaves_a_node_that_answers_no_hello() {
    let mut script = Script::started(3);
    script.greeted();
    script.submit(transaction("k"), 1);
    let first = script.request();
    let began_us = script.now_us;
    assert_eq!(script.pass_until_sent().node, first.node);
    let third = script.pass_until_sent();
    let took_us = script.now_us - began_us;
    assert!((120 * MS..240 * MS).contains(&took_us), "{took_us} us");
    assert!(third.request.retry && third.node != first.node);
}

#[test]
fn rounds_back_off() {
    let mut script = Script::started(3);
    script.submit(put("k"), 1);
    script.requests();
    let mut tried = 0;
    for _ in 0..4_900 {
        script.pass(MS);
        script.greet_all();
        tried += script.requests().len();
    }
    assert!((10..60).contains(&tried), "{tried}");
}

/// Each attempt has the whole value sent to another node, and from there to the members.
#[test]
fn attempts_with_a_large_value_become_rarer_on_all_nodes() {
    let mut script = Script::started(3);
    let value = vec![0; 48 << 10].into();
    script.submit(Call::new("k", wire::Action::Put { value }), 1);
    script.request();
    let mut waits_ms = Vec::new();
    let mut began_us = script.now_us;
    while waits_ms.iter().sum::<u64>() < 1_500 {
        while script.requests.is_empty() {
            script.pass(MS);
            script.greet_all();
        }
        script.request();
        waits_ms.push((script.now_us - began_us) / MS);
        began_us = script.now_us;
    }
    let pairs = waits_ms.windows(2);
    let is_doubled = |pair: &[u64]| pair[1] >= (2 * pair[0]).min(2_000) - 2;
    assert!(pairs.into_iter().all(is_doubled), "{waits_ms:?}");
}

/// A third of all attempts is lost, far more than the allowance repairs.
#[test]
fn a_client_with_one_call_at_a_time_makes_good_any_loss_at_once() {
    let mut script = Script::started(1);
    for tag in 0..300 {
        script.submit(put("k"), tag);
        let mut sent = script.request();
        if tag % 2 == 0 {
            let began_us = script.now_us;
            while script.requests.is_empty() {
                script.pass(MS);
                script.greet_all();
            }
            let took_us = script.now_us - began_us;
            assert!(took_us < 50 * MS, "call {tag}: {took_us} us");
            sent = script.request();
        }
        script.answer(&sent, written());
        script.result().unwrap();
    }
}

#[test]
fn a_node_that_is_silent_must_answer_a_hello_first() {
    let mut script = Script::started(3);
    script.pass(100 * MS);
    script.greeted();
    script.submit(put("k"), 1);
    let first = script.request();
    let second = script.pass_until_sent();
    assert_eq!(script.greeted(), [first.node]);
    script.answer(&second, written());
    script.result().unwrap();
    for tag in 0..50 {
        script.submit(put("k"), tag);
        let sent = script.request();
        assert_ne!(sent.node, first.node);
        script.answer(&sent, written());
        script.pass(MS);
    }
    // The hello is the same: a node that still has the session keeps it.
    script.submit(put("k"), 1);
    let sent = script.request();
    let (node, hello) = script.hellos.pop().expect("a repeated hello");
    assert_eq!(node, first.node);
    script.answer_hello(node, &hello);
    script.answer(&sent, written());
    script.submit(put("k"), 1);
    assert_eq!(script.request().node, first.node);
}

#[test]
fn a_late_answer_brings_a_node_back() {
    let mut script = Script::started(3);
    script.submit(put("k"), 1);
    let first = script.request();
    let second = script.pass_until_sent();
    script.answer(&second, written());
    script.answer(&first, written());
    assert_eq!(script.session.counters().late, 1);
    script.submit(put("k"), 2);
    assert_eq!(script.request().node, first.node);
}

#[test]
fn after_a_silence_nodes_are_asked_whether_they_are_there() {
    let mut script = Script::started(3);
    script.greeted();
    script.pass(1_000 * MS);
    script.submit(put("k"), 1);
    assert!(script.requests.is_empty());
    let hellos = std::mem::take(&mut script.hellos);
    assert_eq!(hellos.len(), 3);
    script.answer_hello(hellos[2].0, &hellos[2].1);
    assert_eq!(script.request().node, 2);
}

#[test]
fn a_slow_cluster_is_not_sent_everything_again_and_again() {
    let mut script = Script::started(3);
    let mut open: VecDeque<(u64, Sent)> = VecDeque::new();
    for tag in 0..100 {
        script.submit(put(&format!("k{tag}")), tag);
    }
    // Every write takes 30 ms.
    let mut done = 0;
    for _ in 0..3_000 {
        let due_us = script.now_us + 30 * MS;
        let sent = script.requests();
        open.extend(sent.into_iter().map(|sent| (due_us, sent)));
        while open
            .front()
            .is_some_and(|(due_us, _)| *due_us <= script.now_us)
        {
            let (_, sent) = open.pop_front().expect("looked");
            script.answer(&sent, written());
        }
        while let Some(completion) = script.session.poll_completion() {
            assert_eq!(completion.result, Ok(written()));
            done += 1;
            script.submit(put(&format!("k{}", completion.tag)), completion.tag);
        }
        script.greet_all();
        script.pass(MS);
    }
    let retries = script.session.counters().retries;
    assert!(done > 9_000, "{done}");
    assert!(retries < 500, "{retries} retries of {done}");
}

#[test]
fn when_nobody_answers_retries_are_put_off() {
    let mut script = Script::started(5);
    for tag in 0..2_000 {
        script.submit(put(&format!("k{tag}")), tag);
    }
    script.requests();
    // The nodes are reachable, but too busy to answer.
    for _ in 0..100 {
        script.pass(MS);
        script.greet_all();
    }
    let retries = script.requests().len();
    assert!((10..40).contains(&retries), "{retries}");
    for _ in 0..1_000 {
        script.pass(MS);
        script.greet_all();
    }
    let retries = script.requests().len();
    // Of the 320 calls that the windows have room for.
    assert!((400..1_600).contains(&retries), "{retries}");
}

#[test]
fn what_a_dead_node_leaves_goes_to_the_others_at_once() {
    let mut script = Script::started(5);
    let mut left = 0;
    for tag in 0..2_000 {
        script.submit(put(&format!("k{tag}")), tag);
    }
    for _ in 0..30 {
        let (dead, alive): (Vec<Sent>, Vec<Sent>) = script
            .requests()
            .into_iter()
            .partition(|sent| sent.node == 3);
        left += dead.len();
        script.pass(MS);
        alive.iter().for_each(|sent| script.answer(sent, written()));
    }
    // As many as may be under way at a node.
    assert!(left >= 64, "{left}");
    assert_eq!(script.session.in_flight(), 0);
}

#[test]
fn many_calls_at_the_start_are_spread_over_the_nodes() {
    for all_there in [true, false] {
        let mut script = Script::new(3);
        for tag in 0..100 {
            script.submit(put(&format!("k{tag}")), tag);
        }
        let hellos = std::mem::take(&mut script.hellos);
        script.answer_hello(1, &hellos[1].1);
        script.answer_hello(0, &hellos[0].1);
        assert!(script.requests.is_empty());
        if all_there {
            script.answer_hello(2, &hellos[2].1);
        } else {
            script.pass(2 * MS);
        }
        let sent = script.requests();
        assert_eq!(sent.len(), 100);
        for node in 0..2 + usize::from(all_there) {
            assert!(sent.iter().filter(|sent| sent.node == node).count() > 20);
        }
    }
}

#[test]
fn no_session_means_a_new_hello_and_a_retry_elsewhere() {
    let mut script = Script::started(2);
    script.greeted();
    script.submit(put("k"), 1);
    let first = script.request();
    script.answer_no_session(&first);
    let second = script.request();
    assert!(second.request.retry);
    assert_ne!(second.node, first.node);
    let (node, hello) = script.hellos.pop().expect("a hello");
    assert_eq!(node, first.node);
    script.answer_hello(node, &hello);
    // A copy of the first attempt may have been executed before the session expired at the node.
    script.answer(&second, no_quorum());
    let third = script.pass_until_sent();
    assert_ne!(third.request.token, first.request.token);
    script.answer(&third, no_quorum());
    for _ in 0..3_000 {
        for sent in script.requests() {
            script.answer(&sent, no_quorum());
        }
        script.pass(MS);
        script.greet_all();
    }
    assert!(script.is_pending());
}

#[test]
fn attempts_are_numbered_anew_never_twice() {
    let mut script = Script::started(1);
    let mut numbers = std::collections::BTreeSet::new();
    let mut tokens = std::collections::BTreeSet::new();
    for tag in 0..50 {
        script.submit(put("k"), tag);
        let sent = script.request();
        assert!(numbers.insert(sent.request.attempt));
        tokens.insert(sent.request.token);
        if tag % 10 == 0 {
            script.answer_no_session(&sent);
            script.pass(50 * MS);
            script.greet_all();
            // An answer of the earlier session belongs to the earlier attempt.
            script.answer(&sent, written());
            assert!(script.is_pending());
            let retry = script.pass_until_sent();
            assert!(numbers.insert(retry.request.attempt));
            tokens.insert(retry.request.token);
            script.answer(&retry, written());
        } else {
            script.answer(&sent, written());
        }
        script.result().unwrap();
    }
    assert_eq!(tokens.len(), 6);
}

#[test]
fn a_node_that_forgets_every_session_is_not_asked_in_a_tight_loop() {
    let mut script = Script::started(1);
    script.submit(put("k"), 1);
    let mut hellos = 0;
    for _ in 0..100_000 {
        let before = (script.requests.len(), script.hellos.len());
        for sent in script.requests() {
            script.answer_no_session(&sent);
        }
        hellos += script.hellos.len();
        script.greet_all();
        if before == (0, 0) {
            script.pass(MS);
        }
        if script.session.in_flight() == 0 {
            break;
        }
    }
    assert!(hellos < 100, "{hellos} in five seconds");
    assert_eq!(script.result(), Err(CallError::UnknownOutcome));
}

#[test]
fn no_quorum_is_told_when_every_node_says_so_for_a_second() {
    let mut script = Script::started(2);
    script.submit(put("k"), 1);
    let began_us = script.now_us;
    while script.session.in_flight() > 0 {
        for sent in script.requests() {
            script.answer(&sent, no_quorum());
        }
        script.pass(MS);
        script.greet_all();
    }
    let took_us = script.now_us - began_us;
    let result = script.result();
    assert!(is_no_quorum(&result), "{result:?}");
    assert!((1_000 * MS..1_300 * MS).contains(&took_us), "{took_us}");
    let words = result.unwrap_err().to_string();
    assert!(
        words.contains("node 1 reaches [1], node 2 reaches [1]"),
        "{words}"
    );
}

#[test]
fn one_node_that_says_otherwise_starts_the_second_again() {
    let mut script = Script::started(2);
    script.submit(put("k"), 1);
    let began_us = script.now_us;
    let mut busy = true;
    while script.session.in_flight() > 0 {
        let late = script.now_us > began_us + 700 * MS;
        for sent in script.requests() {
            let outcome = if late && std::mem::take(&mut busy) {
                Outcome::Busy { after_ms: 0 }
            } else {
                no_quorum()
            };
            script.answer(&sent, outcome);
        }
        script.pass(MS);
        script.greet_all();
    }
    let took_us = script.now_us - began_us;
    assert!(is_no_quorum(&script.result()));
    assert!((1_700 * MS..2_400 * MS).contains(&took_us), "{took_us}");
}

#[test]
fn with_three_of_five_dead_a_fresh_client_is_told_no_quorum_within_two_seconds() {
    let mut script = Script::new(5);
    script.submit(put("k"), 1);
    let began_us = script.now_us;
    while script.session.in_flight() > 0 {
        for (node, hello) in std::mem::take(&mut script.hellos) {
            if node >= 3 {
                script.answer_hello(node, &hello);
            }
        }
        for sent in script.requests() {
            assert!(sent.node >= 3);
            script.answer(&sent, no_quorum());
        }
        script.pass(MS);
    }
    assert!(is_no_quorum(&script.result()));
    assert!(script.now_us - began_us < 1_500 * MS);
}

#[test]
fn so_is_a_client_that_had_sessions_with_them() {
    let mut script = Script::started(5);
    script.pass(1_001 * MS);
    script.submit(put("k"), 1);
    let began_us = script.now_us;
    while script.session.in_flight() > 0 {
        for (node, hello) in std::mem::take(&mut script.hellos) {
            if node >= 3 {
                script.answer_hello(node, &hello);
            }
        }
        for sent in script.requests() {
            assert!(sent.node >= 3, "nothing goes to a node that is not there");
            script.answer(&sent, no_quorum());
        }
        script.pass(MS);
    }
    assert!(is_no_quorum(&script.result()));
    assert!(script.now_us - began_us < 1_500 * MS);
}

#[test]
fn with_nobody_there_it_is_no_quorum_too() {
    let mut script = Script::new(3);
    script.submit(put("k"), 1);
    script.submit(get("k"), 2);
    script.pass(999 * MS);
    assert!(script.is_pending());
    script.pass(2 * MS);
    let results = [script.result(), script.result()];
    assert!(results.iter().all(is_no_quorum), "{results:?}");
    let words = results[0].clone().unwrap_err().to_string();
    assert!(words.contains("given node 3 does not answer"), "{words}");
}

#[test]
fn with_an_open_attempt_a_write_is_never_no_quorum_but_a_read_is() {
    for is_read in [false, true] {
        let mut script = Script::started(2);
        script.submit(if is_read { get("k") } else { put("k") }, 1);
        let lost = script.request();
        while script.session.in_flight() > 0 {
            for sent in script.requests() {
                assert_ne!(sent.node, lost.node);
                script.answer(&sent, no_quorum());
            }
            script.pass(MS);
        }
        let result = script.result();
        if is_read {
            assert!(is_no_quorum(&result), "{result:?}");
        } else {
            assert_eq!(result, Err(CallError::UnknownOutcome));
        }
    }
}
