//! T1 to T11: transactions over several keys.

use std::cell::Cell;
use std::rc::Rc;

use bytes::Bytes;
use horseshoe::protocol::types::message::Message;
use horseshoe::protocol::types::record::{Key, SPACE_TRANSACTION};
use horseshoe::protocol::types::remote_step::RemoteStep;
use horseshoe::protocol::types::transaction::{AttemptState, Register};
use wire::{
    Action, Condition, Failure, FailureReason, KeyChange, Outcome, Transaction, TransactionPart,
};

use crate::scenarios::changes::has_members;
use crate::sim::cluster::Fate;
use crate::sim::event::Passing;
use crate::sim::script::{Script, msg, put, user_key};

pub(super) fn part(key: &str) -> TransactionPart {
    TransactionPart {
        key: Bytes::copy_from_slice(key.as_bytes()),
        ..TransactionPart::default()
    }
}

pub(super) fn get(key: &str) -> TransactionPart {
    TransactionPart {
        get: true,
        ..part(key)
    }
}

pub(super) fn change(key: &str, change: KeyChange) -> TransactionPart {
    TransactionPart {
        change: Some(change),
        ..part(key)
    }
}

pub(super) fn put_of(key: &str, value: &str) -> TransactionPart {
    change(key, KeyChange::Put(value.to_owned().into()))
}

fn when(condition: Condition, part: TransactionPart) -> TransactionPart {
    TransactionPart {
        conditions: vec![condition],
        ..part
    }
}

pub(super) fn transaction(parts: Vec<TransactionPart>) -> Action {
    Action::Transact {
        transaction: Transaction { parts },
    }
}

pub(super) fn is_committed(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Committed { .. })
}

/// What a member holds for a key: the value, and whether there is an intent.
pub(super) fn held(c: &Script, node: usize, key: &str) -> Option<(Option<Bytes>, bool)> {
    let registers = &c.nodes[node].disk.synced().registers;
    let record = registers.get(&user_key(key))?.record.as_ref()?;
    Some((record.value.clone(), record.intent.is_some()))
}

/// The decision registers that the node holds.
pub(super) fn registers(c: &Script, node: usize) -> Vec<Register> {
    let registers = &c.nodes[node].disk.synced().registers;
    let of = registers
        .iter()
        .filter(|(key, _)| key.space() == SPACE_TRANSACTION);
    of.filter_map(|(_, state)| Register::of(state.record.as_ref()?))
        .collect()
}

fn is_about(passing: &Passing, is: impl Fn(&Key) -> bool) -> bool {
    match passing.envelope().map(|envelope| &envelope.message) {
        Some(Message::Accept(accept)) => is(&accept.key),
        Some(Message::Resolve(resolve)) => resolve.parts.iter().any(|part| is(&part.key)),
        Some(Message::ForwardStep(forward)) => is(&Key::user(&forward.operation.key)),
        _ => false,
    }
}

/// Whether the message brings a record of a key that has no intent any more, or a step after which
/// it has none.
pub(super) fn resolves(passing: &Passing) -> bool {
    let has_none = match passing.envelope().map(|envelope| &envelope.message) {
        Some(Message::Accept(accept)) => accept.record.intent.is_none(),
        Some(Message::Resolve(_)) => true,
        Some(Message::ForwardStep(forward)) => matches!(forward.step, RemoteStep::Resolve { .. }),
        _ => false,
    };
    has_none && is_about(passing, |key| key.space() != SPACE_TRANSACTION)
}

/// Holds what would place an intent on that key.
pub(super) fn places_in(key: &str) -> impl FnMut(&Passing) -> Fate + use<> {
    let key = user_key(key);
    move |passing| {
        let places = match passing.envelope().map(|envelope| &envelope.message) {
            Some(Message::Accept(accept)) => accept.record.intent.is_some() && accept.key == key,
            _ => false,
        };
        if places { Fate::Hold } else { Fate::Pass }
    }
}

/// What a node proposes for the register of a transaction.
pub(super) fn proposes(passing: &Passing, wanted: impl Fn(&AttemptState) -> bool) -> bool {
    match passing.envelope().map(|envelope| &envelope.message) {
        Some(Message::Accept(accept)) if accept.key.space() == SPACE_TRANSACTION => {
            Register::of(&accept.record).is_some_and(|register| wanted(&register.decision))
        }
        _ => false,
    }
}

/// Holds the answers to the first node's rounds.
fn unanswered(passing: &Passing) -> Fate {
    let is_answer = passing.envelope().is_some_and(|envelope| {
        let answers = matches!(envelope.message, Message::Accepted(_) | Message::Nack(_));
        answers && envelope.destination == 1
    });
    if is_answer { Fate::Hold } else { Fate::Pass }
}

#[test]
fn a_transaction_changes_its_keys_together() {
    let mut c = Script::new(3);
    let client = c.client();
    c.put(client, "a", "1");
    let parts = vec![
        when(Condition::Value("1".into()), get("a")),
        when(Condition::Absent, put_of("b", "2")),
        change("n", KeyChange::Add(7)),
    ];
    let outcome = c.run(client, "a", transaction(parts));
    let Outcome::Committed { results } = outcome else {
        panic!("{outcome:?}");
    };
    assert_eq!(results[0].value, Some("1".into()));
    assert_eq!(results[0].found, results[0].version);
    assert!(results[1].found == 0 && results[1].version > 0);
    assert_eq!(results[2].number, Some(7));
    assert_eq!(
        (c.get(client, "b"), c.get(client, "n")),
        ("2".into(), "7".into())
    );
    c.check();
}

#[test]
fn a_condition_that_does_not_hold_is_named_and_nothing_is_done() {
    let mut c = Script::new(3);
    let client = c.client();
    let version = c.put(client, "b", "2");
    let conditions = vec![Condition::Present, Condition::Absent];
    let checked = TransactionPart {
        conditions,
        ..part("b")
    };
    let outcome = c.run(client, "a", transaction(vec![put_of("a", "1"), checked]));
    let reason = FailureReason::Condition { place: 1, version };
    let failure = Failure { part: 1, reason };
    assert_eq!(outcome, Outcome::Failed { failure });
    assert_eq!(c.get(client, "a"), "");
    let words = vec![put_of("a", "1"), change("b", KeyChange::Append("x".into()))];
    assert!(is_committed(&c.run(client, "a", transaction(words))));
    let sum = vec![put_of("a", "3"), change("b", KeyChange::Add(1))];
    let reason = FailureReason::NotANumber;
    let failure = Failure { part: 1, reason };
    assert_eq!(
        c.run(client, "a", transaction(sum)),
        Outcome::Failed { failure }
    );
    assert_eq!(c.get(client, "a"), "1");
    c.check();
}

/// What transactions leave is gone once no retry can arrive.
#[test]
pub fn t8_nothing_remains() {
    let mut c = Script::new(3);
    let client = c.client();
    for n in 0..3 {
        let parts = vec![put_of("a", &format!("{n}")), put_of("b", &format!("{n}"))];
        assert!(is_committed(&c.run(client, "a", transaction(parts))));
    }
    let failing = vec![when(Condition::Absent, part("a")), put_of("gone", "x")];
    c.run(client, "a", transaction(failing));
    c.run_ms(500);
    assert_eq!(held(&c, 1, "a"), Some((Some("2".into()), false)));
    assert_eq!(held(&c, 1, "gone"), Some((None, false)));
    assert_eq!(registers(&c, 1).len(), 4);
    c.run_ms(30_000);
    for node in 0..3 {
        assert_eq!(registers(&c, node).len(), 0, "node {node}");
        assert_eq!(held(&c, node, "gone"), None, "node {node}");
    }
    c.check();
}

/// A retry through another node finds the outcome in the register.
#[test]
fn t1_a_retry_through_another_node() {
    let mut c = Script::new(3);
    let (key, reader) = (c.key_of(0), c.client());
    let mut hand = c.hand();
    let parts = vec![
        change(&key, KeyChange::Add(1)),
        change("n", KeyChange::Add(1)),
    ];
    let operation = c.operation(&mut hand, &key, transaction(parts));
    let first = c.ask(&mut hand, 0, &operation, false);
    assert!(is_committed(&first), "{first:?}");
    for node in [1, 2, 0] {
        assert_eq!(c.ask(&mut hand, node, &operation, true), first);
    }
    assert_eq!(c.get(reader, "n"), "1");
    c.check();
}

/// T1, X3: the coordinator dies before it decides, and is removed. The register is created at a
/// birth below the base by then.
#[test]
fn t1_a_retry_from_before_a_removal() {
    let mut c = Script::shrinking(5, 1);
    let (key, reader) = (c.key_of(0), c.client_of(&[1, 2]));
    let mut hand = c.hand();
    let parts = vec![
        change(&key, KeyChange::Add(1)),
        change("n", KeyChange::Add(1)),
    ];
    let operation = c.operation(&mut hand, &key, transaction(parts));
    // No other node aborts it either.
    let number = c.cluster.filter(|passing| {
        let key = match passing.envelope().map(|envelope| &envelope.message) {
            Some(Message::Prepare(prepare)) => &prepare.key,
            Some(Message::Accept(accept)) => &accept.key,
            _ => return Fate::Pass,
        };
        match key.space() {
            SPACE_TRANSACTION => Fate::Drop,
            _ => Fate::Pass,
        }
    });
    c.attempt(&mut hand, 0, &operation, false);
    c.run_ms(20);
    assert_eq!(held(&c, 1, "n"), Some((None, true)));
    c.crash_hard(0);
    c.until("four members", |c| {
        has_members(c, &[1, 2, 3, 4], &[2, 3, 4, 5])
    });
    c.cluster.unfilter(number);
    let retried = c.ask(&mut hand, 1, &operation, true);
    assert!(is_committed(&retried), "{retried:?}");
    assert_eq!(
        (c.get(reader, &key), c.get(reader, "n")),
        ("1".into(), "1".into())
    );
    c.check();
}

/// T1: the first attempt is aborted and the second one commits before the coordinator of the first
/// one learns that all its intents were placed. It knows nothing of the register.
#[test]
pub fn t1_the_first_attempt_decides_last() {
    let mut c = Script::new(3);
    let (key, other) = (c.key_of(0), c.client_of(&[1, 2]));
    let mut hand = c.hand();
    let parts = vec![
        change(&key, KeyChange::Add(1)),
        change("n", KeyChange::Add(1)),
    ];
    let operation = c.operation(&mut hand, &key, transaction(parts));
    let unaware = c.cluster.filter(|passing| {
        let is_news = passing.envelope().is_some_and(|envelope| {
            let message = &envelope.message;
            let is_write = matches!(message, Message::Prepare(_) | Message::Accept(_));
            let is_other = matches!(message, Message::Copy(_) | Message::Forward(_));
            (is_write || is_other) && envelope.destination == 1
        });
        if is_news { Fate::Drop } else { Fate::Pass }
    });
    let unanswered = c.cluster.filter(unanswered);
    let first = c.attempt(&mut hand, 0, &operation, false);
    c.run_ms(20);
    c.put(other, "n", "5");
    let retried = c.ask(&mut hand, 1, &operation, true);
    assert!(is_committed(&retried), "{retried:?}");
    assert_eq!((registers(&c, 0), c.answer(&hand, first)), (vec![], None));
    c.cluster.unfilter(unanswered);
    for answers in ["Accepted", "Nack"] {
        c.release(msg(answers));
        c.run_ms(20);
    }
    c.cluster.unfilter(unaware);
    c.run_ms(500);
    assert_eq!(c.answer(&hand, first), Some(retried));
    assert_eq!(
        (c.get(other, &key), c.get(other, "n")),
        ("1".into(), "6".into())
    );
    c.check();
}

/// T1: a write aborts a transaction through a node whose clock is behind the transaction's birth.
/// The intents were placed in short rounds, at ballots that are older than it.
#[test]
pub fn t1_an_abort_is_above_the_birth() {
    let mut c = Script::new(3);
    let (key, reader) = (c.key_of(0), c.client_of(&[1, 2]));
    let names = (0..).map(|n| format!("o{n}"));
    let is_of_first = |name: &String| {
        let weight = |id: &u8| wire::rendezvous_weight(name.as_bytes(), *id);
        (1..=3u8).max_by_key(weight) == Some(1)
    };
    let other = names.into_iter().find(is_of_first).expect("one of them");
    let writer = c.client_of(&[0]);
    c.put(writer, &key, "0");
    c.put(writer, &other, "0");
    c.cluster.jump(0, 100);
    c.run_ms(500);
    let mut elder = c.hand();
    let older = transaction(vec![change(&key, KeyChange::Add(10))]);
    let older = c.operation(&mut elder, &key, older);
    // Only rounds tell of the first node's clock.
    c.hold(msg("Heartbeat").from(0));
    c.run_ms(10);
    let mut hand = c.hand();
    let slow = c.cluster.filter(|passing| {
        let is_to_first = passing.envelope().is_some() && passing.is_to(0);
        if is_to_first { Fate::Hold } else { Fate::Pass }
    });
    let parts = [&key, &other].map(|key| change(key, KeyChange::Add(1)));
    let operation = c.operation(&mut hand, &key, transaction(parts.to_vec()));
    let attempt = c.attempt(&mut hand, 0, &operation, false);
    c.run_ms(2);
    assert!(is_committed(&c.ask(&mut elder, 1, &older, false)));
    c.cluster.unfilter(slow);
    c.let_pass();
    c.release(crate::sim::script::any());
    c.run_ms(1_000);
    let outcome = c.answer(&hand, attempt);
    assert!(outcome.as_ref().is_some_and(is_committed), "{outcome:?}");
    assert_eq!(
        (c.get(reader, &key), c.get(reader, &other)),
        ("11".into(), "1".into())
    );
    c.check();
}

/// T1: a first attempt creates its register with the decision, and without a Prepare.
#[test]
fn t1_a_first_attempt_takes_two_round_trips() {
    let mut c = Script::new(3);
    let (key, client) = (c.key_of(0), c.client());
    let is_more = |passing: &Passing| match passing.envelope().map(|e| &e.message) {
        Some(Message::Prepare(prepare)) => prepare.key.space() == SPACE_TRANSACTION,
        _ => proposes(passing, |decision| *decision == AttemptState::Pending),
    };
    let prepared = Rc::new(Cell::new(0));
    let counted = prepared.clone();
    c.cluster.filter(move |passing| {
        counted.set(counted.get() + u32::from(is_more(passing)));
        Fate::Pass
    });
    for n in 0..5 {
        let parts = vec![put_of(&key, &format!("{n}")), put_of("b", "x")];
        assert!(is_committed(&c.run(client, &key, transaction(parts))));
    }
    assert_eq!(prepared.get(), 0);
    c.check();
}

/// T6: the coordinator dies after the intents were placed. A write of one of the keys aborts the
/// transaction, and is not held up.
#[test]
pub fn t6_a_coordinator_that_dies_blocks_no_key() {
    let mut c = Script::new(3);
    let (key, client) = (c.key_of(0), c.client_of(&[1, 2]));
    let mut hand = c.hand();
    let parts = vec![put_of(&key, "lost"), put_of("b", "lost")];
    let operation = c.operation(&mut hand, &key, transaction(parts));
    let number = c.cluster.filter(|passing| {
        match proposes(passing, |decision| *decision != AttemptState::Pending) {
            true => Fate::Drop,
            false => Fate::Pass,
        }
    });
    let attempt = c.attempt(&mut hand, 0, &operation, false);
    let both = [key.clone(), "b".to_owned()];
    c.until("intents", |cluster| {
        both.iter().all(|key| {
            let registers = &cluster.nodes[1].disk.synced().registers;
            let record = registers
                .get(&user_key(key))
                .and_then(|state| state.record.as_ref());
            record.is_some_and(|record| record.intent.is_some())
        })
    });
    c.run_ms(30);
    assert_eq!(c.answer(&hand, attempt), None, "T4: nothing is decided");
    c.crash_hard(0);
    c.cluster.unfilter(number);
    assert_eq!(c.get(client, "b"), "");
    let begun_us = c.now_us;
    c.put(client, "b", "kept");
    assert!(c.now_us - begun_us < 200_000, "{} us", c.now_us - begun_us);
    assert_eq!(
        (c.get(client, "b"), c.get(client, &key)),
        ("kept".into(), String::new())
    );
    c.cluster.start(0);
    c.run_ms(1_000);
    c.check();
}

/// T6: the coordinator dies before each of the messages of rounds that it sends, in turn.
/// Its keys hold all of the transaction or nothing of it, and are written again within 200 ms.
#[test]
fn t6_a_coordinator_that_dies_at_any_step_blocks_no_key() {
    let deaths = (0..).find(|count| !dies_before_accept(*count));
    assert!(deaths.is_some_and(|count| count >= 8), "{deaths:?}");
}

/// Returns whether the coordinator sent more than that many Accepts.
fn dies_before_accept(count: usize) -> bool {
    let mut c = Script::new(3);
    let (key, client) = (c.key_of(0), c.client_of(&[1, 2]));
    c.put(client, &key, "old");
    c.put(client, "b", "old");
    c.run_ms(200);
    let mut hand = c.hand();
    let parts = vec![put_of(&key, "new"), put_of("b", "new")];
    let operation = c.operation(&mut hand, &key, transaction(parts));
    let left = Rc::new(Cell::new(Some(count)));
    let counted = left.clone();
    let number = c.cluster.filter(move |passing| {
        if passing.is_from(0) && is_about(passing, |_| true) {
            counted.set(counted.get().and_then(|left| left.checked_sub(1)));
        }
        match counted.get().is_none() && passing.is_from(0) {
            true => Fate::Drop,
            false => Fate::Pass,
        }
    });
    c.attempt(&mut hand, 0, &operation, false);
    for _ in 0..500 {
        if left.get().is_none() {
            break;
        }
        c.run_ms(1);
    }
    c.crash_hard(0);
    c.cluster.unfilter(number);
    let seen = (c.get(client, &key), c.get(client, "b"));
    assert!(seen.0 == seen.1, "{count}: {seen:?}");
    for key in [&key, "b"] {
        let begun_us = c.now_us;
        c.put(client, key, "last");
        let took_us = c.now_us - begun_us;
        assert!(took_us < 200_000, "{count}: {took_us} us");
    }
    c.cluster.start(0);
    c.run_ms(1_000);
    assert_eq!(c.get(client, &key), "last");
    c.check();
    left.get().is_none()
}

/// T6: two transactions hold each other's keys. The older one goes on at once.
#[test]
pub fn t6_two_that_hold_each_others_keys() {
    let mut c = Script::new(3);
    let (one, two) = (c.key_of(0), c.key_of(1));
    let (first, second) = (c.client(), c.client());
    c.put(first, &one, "x");
    c.put(second, &two, "x");
    for n in 0..40 {
        let begun_us = c.now_us;
        let a = transaction(vec![
            put_of(&one, &format!("a{n}")),
            put_of(&two, &format!("a{n}")),
        ]);
        let b = transaction(vec![
            put_of(&two, &format!("b{n}")),
            put_of(&one, &format!("b{n}")),
        ]);
        let (a, b) = (c.begin(first, &one, a), c.begin(second, &two, b));
        assert!(is_committed(&c.end(a)));
        assert!(is_committed(&c.end(b)));
        let took_us = c.now_us - begun_us;
        assert!(took_us < 1_000_000, "{took_us} us");
        assert_eq!(c.get(first, &one), c.get(second, &two));
    }
    c.check();
}

/// T2: a write meets an intent of a transaction that is about to commit, and finds no register.
#[test]
pub fn t2_a_write_that_finds_no_register() {
    let mut c = Script::new(3);
    let (key, client) = (c.key_of(0), c.client_of(&[1, 2]));
    c.put(client, "b", "old");
    let mut hand = c.hand();
    let parts = vec![put_of(&key, "new"), put_of("b", "new")];
    let operation = c.operation(&mut hand, &key, transaction(parts));
    let number = c.cluster.filter(unanswered);
    let attempt = c.attempt(&mut hand, 0, &operation, false);
    c.run_ms(20);
    assert_eq!(c.get(client, "b"), "old");
    c.put(client, "b", "between");
    assert_eq!(c.get(client, &key), "");
    c.cluster.unfilter(number);
    for answers in ["Accepted", "Nack"] {
        c.release(msg(answers));
        c.run_ms(20);
    }
    c.run_ms(500);
    let outcome = c.answer(&hand, attempt);
    assert!(outcome.as_ref().is_some_and(is_committed), "{outcome:?}");
    assert_eq!(
        (c.get(client, "b"), c.get(client, &key)),
        ("new".into(), "new".into())
    );
    c.check();
}

/// T2: a write comes between the evaluation of an add and its commit.
#[test]
pub fn t2_no_write_under_an_intent() {
    let mut c = Script::new(3);
    let (key, client) = (c.key_of(0), c.client());
    c.put(client, "b", "5");
    let parts = vec![put_of(&key, "new"), change("b", KeyChange::Add(1))];
    let number = c.cluster.filter(places_in(&key));
    let adds = c.begin(client, &key, transaction(parts));
    c.run_ms(20);
    let puts = c.begin(client, "b", put("100"));
    c.run_ms(100);
    c.cluster.unfilter(number);
    c.release(msg("Accept"));
    assert!(is_committed(&c.end(adds)));
    assert!(matches!(c.end(puts), Outcome::Written { .. }));
    assert_eq!(c.get(client, "b"), "100");
    c.check();
}
