//! X1 for clients without a session: a node measures elapsed time itself, and identifies an
//! operation by its content, wherever it comes from.

use bytes::Bytes;
use wire::{Action, Outcome};

use crate::scenarios::handoff::held;
use crate::sim::script::{Script, msg, put};

/// The documented time within which the retries of a text put come.
const PROMISED_US: u64 = 400_000;

/// A text put is applied, its answer is lost, and its key is deleted. Then a clock jumps ahead by
/// less than is refused (B2), so that by readings the tombstone is immediately old. Its bucket is
/// due: it has an older tombstone. The retry must find the table.
#[test]
pub fn p1_a_jump_purges_no_text_put_of_a_moment_ago() {
    let mut c = Script::new(3);
    let client = c.client();
    let hand = c.hand();
    let earlier = c.key_of(0);
    let bucket = c.bucket_of(&earlier);
    let owner = usize::from(bucket) % 3;
    let key = (0..)
        .map(|n| format!("t{n}"))
        .find(|k| c.bucket_of(k) == bucket)
        .expect("some key");
    c.put(client, &earlier, "x");
    c.run(client, &earlier, Action::Delete);
    c.run_ms(10_900);
    let began_us = c.now_us;
    c.text_put(&hand, 0, 7, &key, "text");
    c.run_ms(5);
    assert_eq!(c.text_answers(&hand, 7).len(), 1);
    let deleted = c.run(client, &key, Action::Delete);
    assert!(matches!(deleted, Outcome::Written { .. }), "{deleted:?}");
    c.cluster.jump(owner, 30_000);
    // The tombstones that were made first are purged.
    c.until("a purge", |c| {
        (0..3).all(|n| held(c, n, &earlier).is_none())
    });
    c.text_put(&hand, 1, 7, &key, "text");
    c.run_ms(30);
    assert!(c.now_us - began_us < PROMISED_US, "{}", c.now_us - began_us);
    assert_eq!(c.get(client, &key), "");
    // At the end no state of the key remains. The retry renewed the tombstone, so its wait begins
    // again at a later check of the bucket.
    c.run_ms(15_000);
    c.until("the purge of the key", |c| {
        (0..3).all(|n| held(c, n, &key).is_none())
    });
    assert!(c.now_us - began_us > 10_000_000, "by the node's own time");
    c.check();
}

/// Node 2's clock ran ahead of the others' while it was cut off: it must not use its own clock to
/// judge the age of entries that the others recently made.
#[test]
pub fn x1_a_coordinator_ahead_forgets_no_text_put_of_a_moment_ago() {
    let mut c = Script::new(3);
    let key = c.key_of(1);
    let (reader, late) = (c.client(), c.client_of(&[1]));
    let hand = c.hand();
    c.cluster.jump(1, 30_000);
    c.run_ms(1_000);
    c.cut(&[1], &[0, 2]);
    c.run_ms(20_000);
    let began_us = c.now_us;
    c.text_put(&hand, 0, 7, &key, "text");
    c.run_ms(5);
    assert_eq!(c.text_answers(&hand, 7).len(), 1);
    c.heal_nodes();
    c.run_ms(100);
    c.put(late, &key, "other");
    c.text_put(&hand, 2, 7, &key, "text");
    c.run_ms(30);
    assert!(c.now_us - began_us < PROMISED_US, "{}", c.now_us - began_us);
    assert_eq!(c.get(reader, &key), "other");
    c.check();
}

/// A retry is forwarded to node 2, and is in flight for two seconds, in which no other node is
/// reachable for node 2. The forwarder's clock was ahead by half a minute, and node 2's is not
/// before the links heal: so by readings the retry is not old at all. By then the table has removed
/// the entry of the first attempt.
#[test]
pub fn x1_a_text_retry_that_was_forwarded_long_ago_is_not_run() {
    let mut c = Script::new(3);
    let key = c.key_of(1);
    let others = c.client_of(&[0, 2]);
    let hand = c.hand();
    c.text_put(&hand, 2, 7, &key, "text");
    c.run_ms(20);
    assert_eq!(c.text_answers(&hand, 7).len(), 1);
    c.cluster.jump(0, 30_000);
    c.hold(msg("Forward").to(1));
    c.text_put(&hand, 0, 7, &key, "text");
    c.run_ms(1);
    assert_eq!(c.sent(msg("Forward").from(0).to(1)).len(), 1);
    c.cut(&[1], &[0, 2]);
    c.run_ms(2_000);
    assert_eq!(c.text_answers(&hand, 7).len(), 2);
    let long = "x".repeat(256);
    let is_held = |c: &Script| {
        let record = held(c, 0, &key).and_then(|state| state.record);
        let applied = record.expect("it was written").applied.clone();
        applied
            .clients
            .iter()
            .any(|c| c.client >> 127 == 0 && c.client >> 64 != 0)
    };
    assert!(is_held(&c));
    for _ in 0..100 {
        if !is_held(&c) {
            break;
        }
        let writer = c.client_of(&[0, 2]);
        let name = Bytes::copy_from_slice(key.as_bytes());
        let call = c.cluster.begin(writer, &name, put(&long), true, 5_000_000);
        c.end(call);
    }
    assert!(!is_held(&c), "the table is full");
    c.heal_nodes();
    c.run_ms(350);
    c.let_pass();
    assert!(c.release(msg("Forward").from(0).to(1)) > 0);
    c.run_ms(50);
    assert_eq!(c.get(others, &key), long);
    c.check();
}

/// Other text puts push the outcome of the first one out of the table, within its retry's time.
#[test]
pub fn x1_a_text_retry_after_many_text_puts_is_not_applied_again() {
    let mut c = Script::new(3);
    let (key, reader) = (c.key_of(0), c.client());
    let hand = c.hand();
    let began_us = c.now_us;
    c.text_put(&hand, 0, 7, &key, "text");
    c.run_ms(2);
    assert_eq!(c.text_answers(&hand, 7).len(), 1);
    for id in 100..190 {
        c.text_put(&hand, 0, id, &key, &format!("other {id}"));
        c.run_ms(2);
        assert_eq!(c.text_answers(&hand, id).len(), 1, "{id}");
    }
    c.text_put(&hand, 2, 7, &key, "text");
    c.run_ms(20);
    assert!(c.now_us - began_us < PROMISED_US, "{}", c.now_us - began_us);
    let answers = c.text_answers(&hand, 7);
    assert!(
        answers[1..].iter().all(|a| *a == Outcome::Unknown),
        "{answers:?}"
    );
    assert_eq!(c.get(reader, &key), "other 189");
    c.check();
}

/// A thousand text puts a second, through changing nodes, none of which is refused as busy: those
/// of a second ago leave the table in time.
#[test]
pub fn a_key_takes_a_thousand_text_puts_a_second() {
    let mut c = Script::new(5);
    let (key, reader) = (c.key_of(0), c.client());
    let hand = c.hand();
    let ids = 1_000..5_000;
    for id in ids.clone() {
        let node = (id % 5) as usize;
        c.text_put(&hand, node, id, &key, &format!("value {id}"));
        if id % 10 == 0 {
            c.run_ms(10);
        }
    }
    c.run_ms(500);
    let unanswered = ids.filter(|id| {
        let answers = c.text_answers(&hand, *id);
        !matches!(&answers[..], [Outcome::Written { .. }])
    });
    assert_eq!(unanswered.count(), 0);
    assert!(c.get(reader, &key).starts_with("value 499"));
}

/// The client has two addresses: its retry reaches another node from the other address.
#[test]
pub fn x1_a_text_retry_from_another_address_is_not_applied_again() {
    let mut c = Script::new(3);
    let key = c.key_of(0);
    let client = c.client();
    let hand = c.hand();
    c.text_put(&hand, 0, 7, &key, "text");
    c.run_ms(5);
    let first = c.text_answers(&hand, 7);
    assert!(matches!(first[..], [Outcome::Written { .. }]), "{first:?}");
    c.put(client, &key, "other");
    c.text_put_from(&hand, 1, 1, 7, &key, "text");
    c.run_ms(50);
    assert_eq!(c.get(client, &key), "other");
    // It may be another client's put, which was not applied: no answer would certainly be true, so
    // there is none.
    assert_eq!(c.text_answers(&hand, 7), first);
    c.check();
}

/// The same while the first attempt is in progress.
#[test]
pub fn x1_a_text_retry_from_another_address_waits_for_the_first() {
    let mut c = Script::new(3);
    let key = c.key_of(0);
    let client = c.client();
    let hand = c.hand();
    c.put(client, &key, "before");
    c.hold(msg("Accepted"));
    c.text_put(&hand, 0, 7, &key, "text");
    c.run_ms(5);
    c.text_put_from(&hand, 1, 1, 7, &key, "text");
    c.run_ms(5);
    c.let_pass();
    c.release(msg("Accepted"));
    c.run_ms(100);
    let written = |outcome: &&Outcome| matches!(outcome, Outcome::Written { .. });
    let answers = c.text_answers(&hand, 7);
    assert_eq!(answers.iter().filter(written).count(), 1, "{answers:?}");
    assert_eq!(c.get(client, &key), "text");
    c.check();
}

/// The same content with the same id, a second later and from another address, is another client's
/// put.
#[test]
pub fn x1_the_same_words_from_elsewhere_are_run_after_a_second() {
    let mut c = Script::new(3);
    let key = c.key_of(0);
    let client = c.client();
    let (hand, other) = (c.hand(), c.hand());
    c.text_put(&hand, 0, 7, &key, "text");
    c.run_ms(5);
    c.put(client, &key, "other");
    c.run_ms(1_100);
    c.text_put(&other, 1, 7, &key, "text");
    c.run_ms(50);
    let answers = c.text_answers(&other, 7);
    assert!(
        matches!(answers[..], [Outcome::Written { .. }]),
        "{answers:?}"
    );
    assert_eq!(c.get(client, &key), "text");
    c.check();
}
