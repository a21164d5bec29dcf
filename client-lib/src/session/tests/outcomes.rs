//! What completes a call, and with which result (X1, X2, X5).

use super::*;
use wire::Action;

#[test]
fn an_outcome_of_the_first_attempt_settles_a_call() {
    let mut script = Script::started(3);
    for outcome in [written(), conflict(), Outcome::NothingToDelete] {
        script.submit(put("k"), 5);
        let sent = script.request();
        assert!(!sent.request.retry);
        script.answer(&sent, outcome.clone());
        let completion = script.completion();
        assert_eq!((completion.tag, completion.result), (5, Ok(outcome)));
    }
    let errors = [
        (Outcome::NotANumber, CallError::NotANumber),
        (Outcome::Overflow, CallError::Overflow),
        (Outcome::Unknown, CallError::UnknownOutcome),
    ];
    for (outcome, error) in errors {
        script.submit(put("k"), 5);
        let sent = script.request();
        script.answer(&sent, outcome);
        assert_eq!(script.result(), Err(error));
    }
    assert_eq!(script.session.in_flight(), 0);
}

#[test]
fn what_can_be_refused_at_once_is() {
    let mut script = Script::started(1);
    let mut refused = |call: Call| script.session.submit(script.now_us, call, 1).unwrap_err();
    assert!(matches!(refused(get("")), CallError::InvalidArgument(_)));
    assert!(matches!(
        refused(get(&"k".repeat(1_025))),
        CallError::TooLarge { what: "key", .. }
    ));
    let half = vec![0; wire::VALUE_SIZE_MAX / 2 + 1];
    let (expected, value) = (half.clone().into(), half.into());
    assert!(matches!(
        refused(Call::new("k", Action::CompareValue { expected, value })),
        CallError::TooLarge { what: "value", .. }
    ));
    assert_eq!(script.session.in_flight(), 0);
}

#[test]
fn at_the_bound_of_calls_in_flight_the_next_is_busy() {
    let mut script = Script::started(1);
    for tag in 0..IN_FLIGHT_MAX as u64 {
        script.submit(put("k"), tag);
    }
    let refused = script.session.submit(script.now_us, put("k"), 1);
    assert_eq!(refused, Err(CallError::Busy));
    let sent = script.requests();
    script.answer(&sent[9], written());
    script.submit(put("k"), 1);
}

#[test]
fn a_conflict_of_a_first_attempt_waits_for_the_others() {
    let mut script = Script::started(3);
    script.submit(put("k"), 1);
    let first = script.request();
    let second = script.pass_until_sent();
    assert!(second.request.retry);
    script.answer(&first, conflict());
    assert!(script.is_pending());
    // The retry might still be applied, and was.
    script.answer(&second, written());
    assert_eq!(script.result(), Ok(written()));
}

#[test]
fn a_conflict_stands_when_no_other_attempt_can_do_it_any_more() {
    let mut script = Script::started(3);
    script.submit(put("k"), 1);
    let first = script.request();
    let second = script.pass_until_sent();
    script.answer(&first, conflict());
    script.answer(&second, Outcome::Busy { after_ms: 0 });
    assert_eq!(script.result(), Ok(conflict()));
}

#[test]
fn a_conflict_of_a_retry_stands_in_the_record() {
    let mut script = Script::started(3);
    script.submit(put("k"), 1);
    script.request();
    let second = script.pass_until_sent();
    script.answer(&second, conflict());
    assert_eq!(script.result(), Ok(conflict()));
}

#[test]
fn too_large_stands_only_when_every_attempt_was_answered() {
    let mut script = Script::started(3);
    script.submit(put("k"), 1);
    let first = script.request();
    let second = script.pass_until_sent();
    script.answer(&second, Outcome::TooLarge { limit: 3 });
    assert!(script.is_pending());
    script.answer(&first, Outcome::TooLarge { limit: 3 });
    let too_large = CallError::TooLarge {
        what: "value",
        limit: 3,
    };
    assert_eq!(script.result(), Err(too_large));
}

#[test]
fn an_unanswered_write_is_an_unknown_outcome_and_a_read_timed_out() {
    for (call, error) in [
        (put("k"), CallError::UnknownOutcome),
        (get("k"), CallError::TimedOut),
    ] {
        let mut script = Script::started(1);
        script.submit(call, 1);
        script.pass(900 * MS);
        assert!(script.is_pending());
        // The node answers hellos, but never the call.
        for _ in 0..100 {
            script.greet_all();
            script.pass(41 * MS);
        }
        assert_eq!(script.result(), Err(error));
    }
}

#[test]
fn the_deadline_bounds_the_waiting_to_the_microsecond() {
    let mut script = Script::started(3);
    let call = Call {
        deadline_us: Some(30 * MS),
        ..put("k")
    };
    script.submit(call, 1);
    script.pass(30 * MS - 1);
    assert!(script.is_pending());
    script.pass(1);
    assert_eq!(script.result(), Err(CallError::UnknownOutcome));
    assert_eq!(script.session.next_timeout(), None);
}

#[test]
fn a_remake_has_a_new_id_and_a_birth_above_what_was_dropped() {
    let mut script = Script::started(3);
    script.submit(put("k"), 1);
    let first = script.request();
    let dropped = clock::from_ms(CLOCK_MS + 90_000);
    script.answer(&first, Outcome::Remake { dropped });
    let second = script.request();
    let (a, b) = (&first.request.operation, &second.request.operation);
    assert!(b.id.sequence > a.id.sequence);
    assert!(b.birth > dropped);
    assert_eq!(b.low_mark, b.id.sequence);
    assert!(
        !second.request.retry,
        "a new operation was not tried before"
    );
    assert_ne!(first.request.attempt, second.request.attempt);
    script.answer(&second, written());
    assert_eq!(script.result(), Ok(written()));
}

#[test]
fn a_remake_waits_for_the_other_attempts() {
    let mut script = Script::started(3);
    script.submit(put("k"), 1);
    let first = script.request();
    let second = script.pass_until_sent();
    let dropped = first.request.operation.birth;
    script.answer(&first, Outcome::Remake { dropped });
    assert!(script.requests.is_empty());
    script.answer(&second, Outcome::Unknown);
    assert_eq!(script.result(), Err(CallError::UnknownOutcome));
}

#[test]
fn remakes_without_end_are_made_at_intervals() {
    let mut script = Script::started(1);
    script.submit(put("k"), 1);
    let mut made = 0;
    for _ in 0..1_000 {
        script.pass(MS);
        for sent in script.requests() {
            made += 1;
            let dropped = sent.request.operation.birth;
            script.answer(&sent, Outcome::Remake { dropped });
        }
    }
    assert!((5..30).contains(&made), "{made}");
}

#[test]
fn busy_is_tried_again_until_the_deadline() {
    let mut script = Script::started(3);
    script.submit(put("k"), 1);
    let mut tried = 0;
    while script.is_pending() {
        script.pass(MS);
        script.greet_all();
        for sent in script.requests() {
            // Surely not done, so each sending is the first attempt of its own operation.
            assert!(!sent.request.retry);
            tried += 1;
            script.answer(&sent, Outcome::Busy { after_ms: 0 });
        }
        if script.session.in_flight() == 0 {
            break;
        }
    }
    assert!((10..100).contains(&tried), "{tried}");
}

#[test]
fn busy_to_the_end_is_busy() {
    let mut script = Script::started(1);
    script.submit(put("k"), 1);
    for _ in 0..5_000 {
        for sent in script.requests() {
            script.answer(&sent, Outcome::Busy { after_ms: 0 });
        }
        script.pass(MS);
    }
    assert_eq!(script.result(), Err(CallError::Busy));
}

#[test]
fn low_mark_is_the_lowest_sequence_in_flight() {
    let mut script = Script::started(1);
    script.submit(put("a"), 1);
    script.submit(put("b"), 2);
    script.submit(put("c"), 3);
    let sent = script.requests();
    let sequence = |at: usize| sent[at].request.operation.id.sequence;
    assert!(
        sent.iter()
            .all(|s| s.request.operation.low_mark == sequence(0))
    );
    script.answer(&sent[1], written());
    script.submit(put("d"), 4);
    assert_eq!(script.request().request.operation.low_mark, sequence(0));
    script.answer(&sent[0], written());
    script.submit(put("e"), 5);
    assert_eq!(script.request().request.operation.low_mark, sequence(2));
}

#[test]
fn births_follow_the_nodes_clocks_and_monotonic_time() {
    let mut script = Script::started(1);
    script.submit(put("a"), 1);
    let sent = script.request();
    let birth = sent.request.operation.birth;
    assert_eq!(clock::to_ms(birth), CLOCK_MS);
    // An answer whose clock is ahead advances the session's clock; one that is behind does not hold
    // it back.
    let ahead = clock::from_ms(CLOCK_MS + 40_000);
    let answer = Answer {
        attempt: sent.request.attempt,
        clock: ahead,
        outcome: written(),
    };
    script.frame(0, kind::ANSWER, &answer);
    script.submit(put("b"), 2);
    let sent = script.request();
    assert!(sent.request.operation.birth > ahead);
    script.answer(&sent, written());
    script.pass(200 * MS);
    script.submit(put("c"), 3);
    // The session's clock is slightly slower than this machine's time, so that it is never ahead of
    // the nodes' clocks.
    let birth = script.request().request.operation.birth;
    assert_eq!(clock::to_ms(birth), CLOCK_MS + 40_199);
}

/// B5: a forged datagram matches no attempt and no hello.
#[test]
fn a_clock_counts_only_from_an_answer_to_an_attempt() {
    let mut script = Script::started(1);
    script.submit(put("a"), 1);
    let sent = script.request();
    let ahead = clock::from_ms(CLOCK_MS + 3_600_000);
    let forged = Answer {
        attempt: sent.request.attempt + 1,
        clock: ahead,
        outcome: written(),
    };
    script.frame(0, kind::ANSWER, &forged);
    script.answer(&sent, written());
    script.submit(put("b"), 2);
    assert!(script.request().request.operation.birth < ahead);
    assert_eq!(script.session.counters().late, 1);
}

/// B5: one node reports a clock that no other node accepts. The session adopts the others' clock,
/// and the caller sees no error.
#[test]
fn who_was_told_a_clock_too_far_ahead_goes_on_with_the_nodes() {
    let mut script = Script::started(1);
    script.submit(put("a"), 1);
    let sent = script.request();
    let answer = Answer {
        attempt: sent.request.attempt,
        clock: clock::from_ms(CLOCK_MS + 3_600_000),
        outcome: written(),
    };
    script.frame(0, kind::ANSWER, &answer);
    script.submit(put("b"), 2);
    let first = script.request();
    let clock = clock::from_ms(CLOCK_MS + 5);
    script.answer(&first, Outcome::Ahead { clock });
    let second = script.request();
    assert!(!second.request.retry, "it is another operation");
    assert_ne!(
        second.request.operation.id.sequence,
        first.request.operation.id.sequence
    );
    assert_eq!(clock::to_ms(second.request.operation.birth), CLOCK_MS + 5);
    script.answer(&second, written());
    assert_eq!(script.result(), Ok(written()));
    assert_eq!(script.result(), Ok(written()));
    assert!(script.is_pending(), "nothing else");
}

#[test]
fn a_clock_near_its_end_is_not_believed() {
    let mut script = Script::started(1);
    script.submit(put("a"), 1);
    let sent = script.request();
    let answer = Answer {
        attempt: sent.request.attempt,
        clock: u64::MAX,
        outcome: Outcome::Remake { dropped: u64::MAX },
    };
    script.frame(0, kind::ANSWER, &answer);
    let birth = script.request().request.operation.birth;
    assert_eq!(clock::to_ms(birth), CLOCK_MS);
    assert_eq!(script.session.counters().malformed, 2);
}

#[test]
fn retries_stop_five_seconds_after_birth() {
    let mut script = Script::started(3);
    let call = Call {
        deadline_us: Some(60_000 * MS),
        ..put("k")
    };
    script.submit(call, 1);
    let first = script.request();
    for _ in 0..5_100 {
        script.pass(MS);
        script.greet_all();
    }
    let tried = script.requests().len();
    assert!((10..100).contains(&tried), "{tried}");
    for _ in 0..50_000 {
        script.pass(MS);
        script.greet_all();
    }
    assert!(script.requests().is_empty());
    // A late answer still completes the call.
    script.answer(&first, written());
    assert_eq!(script.result(), Ok(written()));
}

#[test]
fn what_was_surely_not_done_is_made_anew() {
    let mut script = Script::started(1);
    let call = Call {
        deadline_us: Some(60_000 * MS),
        ..put("k")
    };
    script.submit(call, 1);
    let mut sequences = std::collections::BTreeSet::new();
    let mut sendings = 0;
    for _ in 0..11_000 {
        for sent in script.requests() {
            sendings += 1;
            sequences.insert(sent.request.operation.id.sequence);
            script.answer(&sent, Outcome::Busy { after_ms: 0 });
        }
        script.pass(MS);
    }
    assert_eq!(sequences.len(), sendings);
}

#[test]
fn an_answer_of_the_wrong_sort_is_no_answer() {
    let mut script = Script::started(1);
    script.submit(put("k"), 1);
    let sent = script.request();
    script.answer(&sent, Outcome::Absent);
    assert!(script.is_pending());
    assert_eq!(script.session.counters().malformed, 1);
    script.answer(&sent, written());
    assert_eq!(script.result(), Ok(written()));
    // An answer to an attempt at another node does not count, nor does a repeated one.
    let mut script = Script::started(2);
    script.submit(put("k"), 1);
    let mut sent = script.request();
    sent.node = 1 - sent.node;
    script.answer(&sent, written());
    assert!(script.is_pending());
    sent.node = 1 - sent.node;
    script.answer(&sent, written());
    script.answer(&sent, written());
    assert_eq!(script.result(), Ok(written()));
    assert!(script.is_pending());
}

#[test]
fn closing_ends_every_call() {
    let mut script = Script::started(1);
    script.submit(put("sent"), 1);
    script.submit(get("sent"), 2);
    script.session.close();
    let results = [script.result(), script.result()];
    assert_eq!(results[0], Err(CallError::UnknownOutcome));
    assert_eq!(results[1], Err(CallError::Closed));
    let refused = script.session.submit(script.now_us, put("k"), 3);
    assert_eq!(refused, Err(CallError::Closed));

    let mut script = Script::new(1);
    script.submit(put("never sent"), 1);
    script.session.close();
    assert_eq!(script.result(), Err(CallError::Closed));
}

#[test]
fn a_refused_call_comes_back_around_the_time_that_the_node_said() {
    let mut waits_ms = Vec::new();
    for tag in 0..20 {
        let mut script = Script::started(1);
        for _ in 0..tag {
            script.session.random();
        }
        script.submit(get("k"), tag);
        let sent = script.request();
        let began_us = script.now_us;
        script.answer(&sent, Outcome::Busy { after_ms: 200 });
        script.pass_until_sent();
        waits_ms.push((script.now_us - began_us) / MS);
    }
    assert!(
        waits_ms.iter().all(|ms| (100..=301).contains(ms)),
        "{waits_ms:?}"
    );
    let (min, max) = (waits_ms.iter().min(), waits_ms.iter().max());
    assert!(max.unwrap() - min.unwrap() > 50, "spread: {waits_ms:?}");
}

#[test]
fn a_refused_call_is_not_sent_again_after_its_deadline() {
    let mut script = Script::started(1);
    let mut call = put("k");
    call.deadline_us = Some(300 * MS);
    script.submit(call, 1);
    let sent = script.request();
    script.answer(&sent, Outcome::Busy { after_ms: u32::MAX });
    script.pass(301 * MS);
    assert!(script.requests().is_empty());
    assert_eq!(script.result(), Err(CallError::Busy));
}
