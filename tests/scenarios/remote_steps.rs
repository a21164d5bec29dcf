//! Steps of transactions that nodes leave to the preferred coordinators of keys (T2, T5).

use wire::{Condition, Outcome, TransactionPart};

use crate::scenarios::transactions::{held, is_committed, put_of, transaction};
use crate::sim::script::{Script, msg};

/// A key of node 0 and one of node 1, which these nodes wrote last.
fn keys(c: &mut Script) -> (usize, String, String) {
    let (key, other, client) = (c.key_of(0), c.key_of(1), c.client());
    c.put(client, &key, "old");
    c.put(client, &other, "old");
    c.run_ms(100);
    (client, key, other)
}

/// One node takes the steps on a key of all transactions, so no other node prepares.
#[test]
fn a_key_of_another_node_is_left_to_it() {
    let mut c = Script::new(3);
    let (client, key, other) = keys(&mut c);
    let prepares = |c: &Script| c.sent(msg("Prepare").about(&other)).len();
    let before = prepares(&c);
    for n in 0..5 {
        let parts = vec![put_of(&key, &format!("{n}")), put_of(&other, "x")];
        assert!(is_committed(&c.run(client, &key, transaction(parts))));
    }
    c.run_ms(100);
    assert_eq!(prepares(&c), before);
    assert_eq!(c.sent(msg("ForwardStep").from(0).to(1)).len(), 10);
    assert_eq!(c.sent(msg("ForwardStepAnswer").from(1).to(0)).len(), 10);
    c.check();
}

/// A node that wrote the key last needs no Prepare, and leaves it to nobody.
#[test]
fn a_key_of_its_own_transactions_is_left_to_nobody() {
    let mut c = Script::new(3);
    let (key, other, client) = (c.key_of(0), c.key_of(1), c.client());
    for n in 0..5 {
        let parts = vec![put_of(&key, &format!("{n}")), put_of(&other, "x")];
        assert!(is_committed(&c.run(client, &key, transaction(parts))));
    }
    assert_eq!(c.sent(msg("ForwardStep")), Vec::new());
    c.check();
}

/// The transaction goes on although the other node never hears of its steps, or is never heard.
#[test]
fn a_step_is_taken_back() {
    for name in ["ForwardStep", "ForwardStepAnswer"] {
        let mut c = Script::new(3);
        let (client, key, other) = keys(&mut c);
        c.lose(msg(name));
        let parts = vec![put_of(&key, "new"), put_of(&other, "new")];
        let begun_us = c.now_us;
        assert!(is_committed(&c.run(client, &key, transaction(parts))));
        let took_us = c.now_us - begun_us;
        assert!(took_us < 500_000, "{name}: {took_us} us");
        assert_eq!(c.get(client, &other), "new");
        c.run_ms(500);
        assert_eq!(held(&c, 0, &other), Some((Some("new".into()), false)));
        c.check();
    }
}

/// The node that has the step dies.
#[test]
fn a_step_is_taken_back_from_a_dead_node() {
    let mut c = Script::new(3);
    let (key, other, client) = (c.key_of(0), c.key_of(1), c.client_of(&[0, 2]));
    c.put(client, &key, "old");
    c.put(client, &other, "old");
    c.hold(msg("ForwardStep").to(1));
    let parts = vec![put_of(&key, "new"), put_of(&other, "new")];
    let call = c.begin(client, &key, transaction(parts));
    c.until_sent(msg("ForwardStep").to(1));
    c.crash_hard(1);
    assert!(is_committed(&c.end(call)));
    assert_eq!(c.get(client, &other), "new");
    c.run_ms(500);
    assert_eq!(held(&c, 0, &other), Some((Some("new".into()), false)));
    c.check();
}

/// T3: steps that arrive after the transaction has ended change nothing of what was written since.
#[test]
fn t3_steps_arrive_late() {
    let mut c = Script::new(3);
    let (client, key, other) = keys(&mut c);
    c.hold(msg("ForwardStep"));
    let parts = vec![put_of(&key, "new"), put_of(&other, "new")];
    assert!(is_committed(&c.run(client, &key, transaction(parts))));
    c.put(client, &other, "last");
    c.run_ms(200);
    c.let_pass();
    assert!(c.release(msg("ForwardStep")) >= 2);
    c.run_ms(20);
    for node in 0..3 {
        assert_eq!(held(&c, node, &other), Some((Some("last".into()), false)));
    }
    assert_eq!(c.get(client, &other), "last");
    c.check();
}

/// A placement arrives after the transaction failed at another key. Its intent is void, and holds
/// nobody up.
#[test]
fn a_placement_arrives_after_its_transaction_failed() {
    let mut c = Script::new(3);
    let (client, key, other) = keys(&mut c);
    c.hold(msg("ForwardStep"));
    let fails = TransactionPart {
        conditions: vec![Condition::Absent],
        ..put_of(&key, "new")
    };
    let parts = vec![fails, put_of(&other, "new")];
    let outcome = c.run(client, &key, transaction(parts));
    assert!(matches!(outcome, Outcome::Failed { .. }), "{outcome:?}");
    c.run_ms(200);
    c.let_pass();
    assert!(c.release(msg("ForwardStep")) >= 1);
    c.run_ms(5);
    let begun_us = c.now_us;
    c.put(client, &other, "last");
    let took_us = c.now_us - begun_us;
    assert!(took_us < 200_000, "{took_us} us");
    assert_eq!(c.get(client, &other), "last");
    c.check();
}

/// A condition that fails at another node is named by its place in the whole transaction.
#[test]
fn a_failed_condition_has_its_place() {
    let mut c = Script::new(3);
    let (client, key, other) = keys(&mut c);
    let fails = TransactionPart {
        conditions: vec![Condition::Absent],
        ..put_of(&other, "new")
    };
    let parts = vec![put_of(&key, "new"), fails];
    let outcome = c.run(client, &key, transaction(parts));
    assert!(!c.sent(msg("ForwardStep").to(1)).is_empty());
    let Outcome::Failed { failure } = outcome else {
        panic!("{outcome:?}");
    };
    assert_eq!(failure.part, 1);
    c.check();
}
