//! X1, X2, X4: every operation at most once.

use kvclient::wire::{Action, Outcome};

use crate::sim::script::{Script, append, msg, put, put_if_absent, swap};

/// The first attempt is late; the client was answered by its retry and has moved on.
#[test]
pub fn x1_straggler() {
    let mut c = Script::new(3);
    let (key, reader) = (c.key_of(1), c.client());
    let mut hand = c.hand();
    let first = c.operation(&mut hand, &key, put("first"));
    c.hold(msg("Request").to(0));
    let late = c.attempt(&mut hand, 0, &first, false);
    c.let_pass();
    assert!(matches!(
        c.ask(&mut hand, 1, &first, true),
        Outcome::Written { .. }
    ));
    let second = c.operation(&mut hand, &key, put("second"));
    assert!(matches!(
        c.ask(&mut hand, 1, &second, false),
        Outcome::Written { .. }
    ));
    assert_eq!(c.release(msg("Request").to(0)), 1);
    c.run_ms(100);
    assert_eq!(c.answer(&hand, late), None);
    assert_eq!(c.get(reader, &key), "second");
    c.check();
}

/// A retry is answered from the table with the first attempt's outcome.
#[test]
pub fn x1_a_retry_is_answered_from_the_table() {
    let mut c = Script::new(3);
    let (key, reader) = (c.key_of(0), c.client());
    let mut hand = c.hand();
    let operation = c.operation(&mut hand, &key, append("once"));
    let first = c.ask(&mut hand, 0, &operation, false);
    c.put(reader, &key, "other");
    assert_eq!(c.ask(&mut hand, 2, &operation, true), first);
    assert_eq!(c.get(reader, &key), "other");
    c.check();
}

/// The retry was answered, and by the time the first datagram arrives the table has forgotten it.
#[test]
pub fn x1_dropped_first_attempt_after_retry() {
    let mut c = Script::new(3);
    let (key, other) = (c.key_of(1), c.client());
    let mut hand = c.hand();
    let operation = c.operation(&mut hand, &key, append("once"));
    c.hold(msg("Request").to(0));
    let late = c.attempt(&mut hand, 0, &operation, false);
    c.let_pass();
    assert!(matches!(
        c.ask(&mut hand, 1, &operation, true),
        Outcome::Written { .. }
    ));
    c.run_ms(10_500);
    c.run(other, &key, append("+"));
    assert_eq!(c.release(msg("Request").to(0)), 1);
    c.run_ms(100);
    let answer = c.answer(&hand, late);
    assert!(
        matches!(answer, Some(Outcome::Remake { .. } | Outcome::Unknown)),
        "{answer:?}"
    );
    assert_eq!(c.get(other, &key), "once+");
    c.check();
}

/// The retry finds a conflict; then what it was compared with comes to be; then the first attempt
/// arrives. It must be told the same conflict.
#[test]
pub fn x2_conflict_then_late_first_attempt() {
    let mut c = Script::new(3);
    let (key, other) = (c.key_of(1), c.client());
    let mut hand = c.hand();
    c.put(other, &key, "elsewhere");
    let operation = c.operation(&mut hand, &key, swap("here", "swapped"));
    c.hold(msg("Request").to(0));
    let late = c.attempt(&mut hand, 0, &operation, false);
    c.let_pass();
    assert!(matches!(
        c.ask(&mut hand, 1, &operation, true),
        Outcome::Conflict { .. }
    ));
    c.put(other, &key, "here");
    assert_eq!(c.release(msg("Request").to(0)), 1);
    c.run_ms(100);
    assert!(matches!(
        c.answer(&hand, late),
        Some(Outcome::Conflict { .. })
    ));
    assert_eq!(c.get(other, &key), "here");
    c.check();
}

/// A slow "absent" answers the first attempt at a delete, whose retry deletes what another client
/// made a moment later: the client may not take the first answer for the outcome.
#[test]
pub fn x2_a_slow_absent_does_not_settle_a_delete() {
    let mut c = Script::new(3);
    let (key, other) = (c.key_of(0), c.client());
    let client = c.client();
    c.get(client, &key);
    c.hold(msg("Answer").towards_client(client));
    let call = c.begin(client, &key, Action::Delete);
    c.until_sent(msg("Answer").towards_client(client));
    c.put(other, &key, "theirs");
    // The retry deletes, and its answer is late as well.
    c.until("the retry to delete", |c| c.held.len() >= 2);
    c.let_pass();
    c.release(msg("Answer").towards_client(client));
    c.end(call);
    c.get(other, &key);
    c.check();
}

/// A datagram that the network repeats is not a second attempt.
#[test]
pub fn x4_repeated_datagram_is_not_a_second_attempt() {
    let mut c = Script::new(3);
    let (key, other) = (c.key_of(0), c.client());
    let mut hand = c.hand();
    c.put(other, &key, "there");
    let operation = c.operation(&mut hand, &key, put_if_absent("again"));
    assert!(matches!(
        c.ask(&mut hand, 0, &operation, false),
        Outcome::Conflict { .. }
    ));
    c.run(other, &key, Action::Delete);
    c.repeat(msg("Request").of_client(1));
    c.run_ms(100);
    assert_eq!(c.get(other, &key), "");
    c.check();
}

/// What comes outside of a session is not executed, and told so.
#[test]
pub fn x4_no_session_no_work() {
    let mut c = Script::new(3);
    let (key, other) = (c.key_of(0), c.client());
    let mut hand = c.hand();
    let operation = c.operation(&mut hand, &key, put("forged"));
    c.restart(0);
    c.run_ms(300);
    let attempt = c.attempt(&mut hand, 0, &operation, false);
    c.run_ms(100);
    assert_eq!(c.sent(msg("NoSession")).len(), 1);
    assert_eq!(c.answer(&hand, attempt), None);
    assert_eq!(c.get(other, &key), "");
    c.greet(&mut hand, 0);
    assert!(matches!(
        c.ask(&mut hand, 0, &operation, true),
        Outcome::Written { .. }
    ));
    c.check();
}
