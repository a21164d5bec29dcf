//! X1, X2, X4: every operation at most once.

use bytes::Bytes;
use wire::{Action, Old, Outcome};

use crate::sim::script::{Script, append, msg, put, put_if_absent, swap, user_key};

/// The first attempt is late; the client got its answer from the retry and has moved on.
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

/// The retry was answered, and the table has removed the entry when the first datagram arrives.
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

/// The retry finds a conflict; then the expected value is written; then the first attempt arrives.
/// Its outcome must be the same conflict.
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
/// wrote shortly after: the client must not take the first answer for the outcome.
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
    // The retry deletes, and its answer is late too.
    c.until("the retry to delete", |c| c.held.len() >= 2);
    c.let_pass();
    c.release(msg("Answer").towards_client(client));
    c.end(call);
    c.get(other, &key);
    c.check();
}

/// A text put is applied, and its answer is late. Before its retry, which has a later birth, so
/// many writes arrive that without this rule the table would have removed the entry.
#[test]
pub fn x1_text_retry_after_a_flood() {
    let mut c = Script::new(3);
    let (key, reader) = (c.key_of(0), c.client());
    let hand = c.hand();
    // The clients already know their cluster and its clocks, so that all of this takes less than a
    // second.
    let writers: Vec<usize> = (0..60).map(|_| c.client()).collect();
    for writer in &writers {
        c.run(*writer, &key, Action::Get);
    }
    c.text_put(&hand, 0, 7, &key, "text");
    c.run_ms(10);
    let first = c.text_answers(&hand, 7);
    let old = |outcome: &Outcome| {
        matches!(
            outcome,
            Outcome::Written {
                old: Old::Absent,
                ..
            }
        )
    };
    assert!(first.len() == 1 && old(&first[0]), "{first:?}");
    let long = "x".repeat(256);
    for writer in writers {
        let key = Bytes::copy_from_slice(key.as_bytes());
        let call = c.cluster.begin(writer, &key, put(&long), true, 5_000_000);
        c.end(call);
    }
    c.text_put(&hand, 2, 7, &key, "text");
    c.run_ms(20);
    assert_eq!(c.text_answers(&hand, 7), [first.clone(), first].concat());
    assert_eq!(c.get(reader, &key), long);
    c.check();
}

/// The preferred node has a text put in progress when the client's retry arrives through another
/// node: both are answered once the put is applied.
#[test]
pub fn x1_text_retry_joins_the_first_attempt() {
    let mut c = Script::new(3);
    let (key, reader) = (c.key_of(0), c.client());
    let hand = c.hand();
    c.put(reader, &key, "before");
    c.hold(msg("Accepted"));
    c.text_put(&hand, 0, 7, &key, "text");
    c.run_ms(5);
    c.text_put(&hand, 1, 7, &key, "text");
    c.run_ms(5);
    assert_eq!(c.text_answers(&hand, 7), []);
    c.let_pass();
    c.release(msg("Accepted"));
    c.run_ms(20);
    let answers = c.text_answers(&hand, 7);
    let before = Old::Value(Bytes::from_static(b"before"));
    let old = |outcome: &Outcome| matches!(outcome, Outcome::Written { old, .. } if *old == before);
    assert!(answers.len() == 2 && answers.iter().all(old), "{answers:?}");
    assert_eq!(c.get(reader, &key), "text");
    c.check();
}

/// A session with a text client's id would receive the outcomes of that client's operations.
#[test]
pub fn x4_no_session_poses_as_a_text_client() {
    let mut c = Script::new(1);
    let mut hand = c.hand();
    c.text_put(&hand, 0, 7, "k", "text");
    c.run_ms(10);
    let record = c.nodes[0].disk.load(&user_key("k")).and_then(|s| s.record);
    let text_client = record.expect("it was done").applied.clients[0].client;
    let before = c.sent(msg("HelloAnswer")).len();
    c.pose(&mut hand, text_client);
    c.run_ms(100);
    assert_eq!(c.sent(msg("HelloAnswer")).len(), before);
}

/// A datagram that the network duplicates is not a second attempt.
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

/// A request without a session is not executed, and the client is informed.
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
