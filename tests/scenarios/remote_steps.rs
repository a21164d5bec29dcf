//! Steps of transactions that nodes leave to the preferred coordinators of keys (T2, T5).

use horseshoe::protocol::types::message::Message;
use horseshoe::protocol::types::remote_step::RemoteStep;
use wire::{Condition, Outcome, TransactionPart};

use crate::scenarios::transactions::{held, is_committed, put_of, transaction};
use crate::sim::cluster::Fate;
use crate::sim::script::{Script, msg, user_key};

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

/// The node that has the step dies. Steps usually took long, so the wait for an answer is long.
#[test]
fn a_step_is_taken_back_from_a_dead_node() {
    let mut c = Script::new(3);
    let (key, other, client) = (c.key_of(0), c.key_of(1), c.client_of(&[0, 2]));
    c.put(client, &key, "old");
    c.put(client, &other, "old");
    let both = |value| transaction(vec![put_of(&key, value), put_of(&other, value)]);
    c.hold(msg("ForwardStepAnswer"));
    for n in 0..40 {
        let call = c.begin(client, &key, both("before"));
        // The placement, and then the resolution.
        for _ in 0..2 {
            c.run_ms(20 + 2 * n);
            c.release(msg("ForwardStepAnswer"));
        }
        assert!(is_committed(&c.end(call)));
    }
    c.let_pass();
    c.run_ms(100);
    c.hold(msg("ForwardStep").to(1));
    let call = c.begin(client, &key, both("new"));
    c.until_sent(msg("ForwardStep").to(1));
    c.crash_hard(1);
    let begun_us = c.now_us;
    assert!(is_committed(&c.end(call)));
    let took_us = c.now_us - begun_us;
    assert!((100_000..330_000).contains(&took_us), "{took_us} us");
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
    let number =
        c.cluster.filter(
            |passing| match passing.envelope().map(|envelope| &envelope.message) {
                Some(Message::ForwardStep(f)) if matches!(f.step, RemoteStep::Place { .. }) => {
                    Fate::Hold
                }
                _ => Fate::Pass,
            },
        );
    let fails = TransactionPart {
        conditions: vec![Condition::Absent],
        ..put_of(&key, "new")
    };
    let parts = vec![fails, put_of(&other, "new")];
    let outcome = c.run(client, &key, transaction(parts));
    assert!(matches!(outcome, Outcome::Failed { .. }), "{outcome:?}");
    // The transaction's node takes no step back that it does not need any more.
    c.run_ms(1_000);
    assert_eq!(held(&c, 1, &other), Some((Some("old".into()), false)));
    c.cluster.unfilter(number);
    assert!(c.release(msg("ForwardStep")) >= 1);
    c.until("an intent", |cluster| {
        let registers = &cluster.nodes[1].disk.synced().registers;
        let record = registers[&user_key(&other)].record.as_ref();
        record.is_some_and(|record| record.intent.is_some())
    });
    let begun_us = c.now_us;
    c.put(client, &other, "last");
    let took_us = c.now_us - begun_us;
    assert!(took_us < 100_000, "{took_us} us");
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
