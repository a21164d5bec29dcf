//! T5: who meets an intent.

use std::cell::Cell;
use std::rc::Rc;

use horseshoe::protocol::types::message::Message;
use horseshoe::protocol::types::record::SPACE_TRANSACTION;
use wire::{Action, Outcome};

use super::transactions::{held, is_committed, places_in, put_of, resolves, transaction};
use crate::sim::cluster::Fate;
use crate::sim::event::Passing;
use crate::sim::script::{Script, msg, put};

/// T4, T5: the coordinator dies after the commit and before the keys are rolled forward: whoever
/// reads them sees the transaction.
#[test]
pub fn t5_a_committed_intent_is_the_value() {
    let mut c = Script::new(3);
    let (key, client) = (c.key_of(0), c.client_of(&[1, 2]));
    let mut hand = c.hand();
    let parts = vec![put_of(&key, "new"), put_of("b", "new")];
    let operation = c.operation(&mut hand, &key, transaction(parts));
    let number = c.cluster.filter(|passing| match resolves(passing) {
        true => Fate::Drop,
        false => Fate::Pass,
    });
    let outcome = c.ask(&mut hand, 0, &operation, false);
    assert!(is_committed(&outcome), "{outcome:?}");
    c.crash_hard(0);
    assert_eq!(held(&c, 1, "b"), Some((None, true)));
    assert_eq!(
        (c.get(client, "b"), c.get(client, &key)),
        ("new".into(), "new".into())
    );
    c.cluster.unfilter(number);
    c.run_ms(15_000);
    assert_eq!(held(&c, 1, "b"), Some((Some("new".into()), false)));
    c.check();
}

/// The rounds that resolve intents name the records at first. Where that is lost, or does not fit,
/// the record follows.
#[test]
fn t5_a_lost_resolve_is_followed_by_the_record() {
    let mut c = Script::new(3);
    let (key, client) = (c.key_of(0), c.client());
    let number = c.cluster.filter(|passing| {
        let message = passing.envelope().map(|envelope| &envelope.message);
        match message {
            Some(Message::Resolve(_)) => Fate::Drop,
            _ => Fate::Pass,
        }
    });
    for n in 0..3 {
        let value = format!("{n}");
        let parts = vec![put_of(&key, &value), put_of("b", &value)];
        assert!(is_committed(&c.run(client, &key, transaction(parts))));
    }
    c.run_ms(500);
    for node in 0..3 {
        assert_eq!(
            held(&c, node, "b"),
            Some((Some("2".into()), false)),
            "{node}"
        );
    }
    assert_eq!(c.get(client, &key), "2");
    c.cluster.unfilter(number);
    c.check();
}

/// A Resolve is no larger than a datagram, whatever a transaction names.
#[test]
fn t5_many_long_keys_are_resolved_in_small_messages() {
    let mut c = Script::new(3);
    let client = c.client();
    let names: Vec<String> = (0..40).map(|n| format!("{n:0300}")).collect();
    let sent = Rc::new(Cell::new(0));
    let counted = sent.clone();
    c.cluster.filter(move |passing| {
        let message = passing.envelope().map(|envelope| &envelope.message);
        if let Some(Message::Resolve(resolve)) = message {
            assert!(resolve.parts.len() <= 3, "{}", resolve.parts.len());
            counted.set(counted.get() + 1);
        }
        Fate::Pass
    });
    let parts = names.iter().map(|name| put_of(name, "x")).collect();
    assert!(is_committed(&c.run(client, &names[0], transaction(parts))));
    c.run_ms(500);
    assert!(sent.get() > 0);
    assert_eq!(held(&c, 1, &names[39]), Some((Some("x".into()), false)));
    c.check();
}

/// A get never waits for an intent, and a put does.
#[test]
fn t5_a_put_waits_for_an_intent_and_a_get_does_not() {
    let mut c = Script::new(3);
    let (key, client) = (c.key_of(0), c.client());
    c.put(client, "b", "old");
    let mut hand = c.hand();
    let parts = vec![put_of(&key, "new"), put_of("b", "new")];
    let operation = c.operation(&mut hand, &key, transaction(parts));
    // The other key never gets its intent.
    let number = c.cluster.filter(places_in(&key));
    let attempt = c.attempt(&mut hand, 0, &operation, false);
    c.run_ms(50);
    assert_eq!(c.get(client, "b"), "old");
    let call = c.begin(client, "b", put("last"));
    // Less than a single write waits for a transaction.
    c.run_ms(80);
    assert!(c.is_open(call) && c.answer(&hand, attempt).is_none());
    c.cluster.unfilter(number);
    c.release(msg("Accept"));
    assert!(matches!(c.end(call), Outcome::Written { .. }));
    assert!(
        c.answer(&hand, attempt)
            .is_some_and(|outcome| is_committed(&outcome))
    );
    assert_eq!(c.get(client, "b"), "last");
    c.check();
}

/// The second node's reads of registers.
fn looks(passing: &Passing) -> bool {
    let is_look = match passing.envelope().map(|envelope| &envelope.message) {
        Some(Message::Read(read)) => read.key.space() == SPACE_TRANSACTION,
        _ => false,
    };
    is_look && passing.is_from(1)
}

/// T5: a reader meets an intent of a transaction of that age. Before it reads the register, the key
/// is rolled forward and the register is removed.
#[track_caller]
fn removed_after_the_read(mut c: Script, age_ms: u64) {
    let (key, client) = (c.key_of(0), c.client());
    c.put(client, "b", "old");
    let (mut hand, mut reader) = (c.hand(), c.hand());
    let parts = vec![put_of(&key, "new"), put_of("b", "new")];
    let operation = c.operation(&mut hand, &key, transaction(parts));
    c.run_ms(age_ms);
    let resolving = c.cluster.filter(|passing| match resolves(passing) {
        true => Fate::Drop,
        false => Fate::Pass,
    });
    let looking = c.cluster.filter(|passing| match looks(passing) {
        true => Fate::Hold,
        false => Fate::Pass,
    });
    assert!(is_committed(&c.ask(&mut hand, 0, &operation, false)));
    let read = c.operation(&mut reader, "b", Action::Get);
    let attempt = c.attempt(&mut reader, 1, &read, false);
    c.run_ms(5);
    c.cluster.unfilter(resolving);
    c.until("the register to be removed", |cluster| {
        let registers = &cluster.nodes[2].disk.synced().registers;
        registers.iter().all(|(key, state)| {
            let record = state.record.as_ref();
            key.space() != SPACE_TRANSACTION || record.is_none_or(|record| record.value.is_none())
        })
    });
    assert_eq!(c.answer(&reader, attempt), None);
    c.cluster.unfilter(looking);
    c.release(msg("Read"));
    c.run_ms(500);
    let answer = c.answer(&reader, attempt);
    assert!(
        matches!(&answer, Some(Outcome::Value { value, .. }) if value == "new"),
        "{answer:?}"
    );
    c.check();
}

#[test]
pub fn t5_the_register_was_removed_after_the_read() {
    let mut c = Script::cold(3);
    c.cluster.settings.tuning.retry_horizon_ms = 500;
    c.cluster.start_all();
    c.until("a configuration", |c| c.is_formed());
    c.run_ms(300);
    removed_after_the_read(c, 0);
}

/// The client's clock is behind by more than the retry horizon, so the register is removed as soon
/// as the keys are rolled forward.
#[test]
fn t5_the_register_was_removed_at_once() {
    removed_after_the_read(Script::new(3), 12_000);
}

/// A put waits at a node for an intent when that node's disk hangs: the node reads no register any
/// more, and hands the put over like all others.
#[test]
fn an_operation_that_waits_for_an_intent_is_handed_over() {
    let mut c = Script::new(3);
    let (key, other) = (c.key_of(0), c.key_of(1));
    let (reader, mut hand, mut writer) = (c.client_of(&[0, 2]), c.hand(), c.hand());
    let parts = vec![put_of(&key, "new"), put_of(&other, "new")];
    let operation = c.operation(&mut hand, &key, transaction(parts));
    // The transaction goes on for as long as the first key gets no intent.
    let placing = c.cluster.filter(places_in(&key));
    let looking = c.cluster.filter(|passing| match looks(passing) {
        true => Fate::Drop,
        false => Fate::Pass,
    });
    c.attempt(&mut hand, 0, &operation, false);
    c.run_ms(50);
    assert_eq!(held(&c, 1, &other), Some((None, true)));
    c.slow_disk(1, 10_000_000);
    let waits = c.operation(&mut writer, &other, put("last"));
    let attempt = c.attempt(&mut writer, 1, &waits, false);
    c.run_ms(1_500);
    assert_eq!(c.answer(&writer, attempt), None);
    c.run_ms(1_500);
    assert!(!c.sent(msg("Forward").from(1)).is_empty());
    assert_eq!(c.get(reader, &other), "last");
    let replica = c.nodes[1].replica.as_ref().expect("it runs");
    assert_eq!(replica.operations_under_way(), 0);
    c.cluster.unfilter(placing);
    c.cluster.unfilter(looking);
    c.release(msg("Accept"));
    c.run_ms(1_000);
    c.check();
}
