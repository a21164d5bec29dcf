//! T6, T11: transactions that need the same keys at the same time.

use horseshoe::protocol::types::message::Message;
use horseshoe::protocol::types::record::Key;
use horseshoe::protocol::types::transaction::Intent;

use super::transactions::{is_committed, put_of, transaction};
use crate::sim::cluster::Fate;
use crate::sim::event::Passing;
use crate::sim::hand::Hand;
use crate::sim::script::{Script, msg, user_key};

/// The intent that an Accept is to place, and its key.
fn intent_of(passing: &Passing) -> Option<(Key, Intent)> {
    let Message::Accept(accept) = &passing.envelope()?.message else {
        return None;
    };
    let intent = Intent::decode(accept.record.intent.as_ref()?).ok()?;
    Some((accept.key.clone(), intent))
}

/// Begins a transaction at node 0 that holds `held` and never gets `missing`, until the returned
/// filter is removed and the messages are released.
fn hold(c: &mut Script, hand: &mut Hand, missing: &str, held: &str) -> (u64, usize) {
    let parts = vec![put_of(missing, "holder"), put_of(held, "holder")];
    let operation = c.operation(hand, missing, transaction(parts));
    let missing = user_key(missing);
    let number = c.cluster.filter(move |passing| match intent_of(passing) {
        Some((key, _)) if key == missing => Fate::Hold,
        _ => Fate::Pass,
    });
    let attempt = c.attempt(hand, 0, &operation, false);
    c.run_ms(50);
    (attempt, number)
}

/// T5: this node holds the intent already, so it starts no round of the key only to meet it.
#[test]
fn t5_a_placement_waits_without_a_round() {
    let mut c = Script::new(3);
    let (key, other, client) = (c.key_of(0), c.key_of(1), c.client());
    c.put(client, "b", "old");
    let mut hand = c.hand();
    let (attempt, number) = hold(&mut c, &mut hand, &key, "b");
    let rounds = |c: &Script| c.sent(msg("Prepare").from(1).about("b")).len();
    let before = rounds(&c);
    let parts = vec![put_of(&other, "new"), put_of("b", "new")];
    let call = c.begin(client, &other, transaction(parts));
    c.run_ms(30);
    assert!(c.is_open(call));
    assert_eq!(rounds(&c), before);
    c.cluster.unfilter(number);
    c.release(msg("Accept"));
    assert!(is_committed(&c.end(call)));
    assert!(c.answer(&hand, attempt).is_some_and(|o| is_committed(&o)));
    assert_eq!(c.get(client, "b"), "new");
    c.check();
}

/// Two coordinators place intents on the same key: the second one lets the first one's round end.
#[test]
fn a_step_lets_another_nodes_round_end() {
    let mut c = Script::new(3);
    let (key, other, client) = (c.key_of(0), c.key_of(1), c.client());
    c.hold(msg("Accept").from(0).about("b"));
    let first = vec![put_of(&key, "first"), put_of("b", "first")];
    let first = c.begin(client, &key, transaction(first));
    c.until_sent(msg("Accept").from(0).about("b"));
    let second = vec![put_of(&other, "second"), put_of("b", "second")];
    let second = c.begin(client, &other, transaction(second));
    c.run_ms(3);
    assert!(c.sent(msg("Prepare").from(1).about("b")).is_empty());
    c.let_pass();
    c.release(msg("Accept"));
    assert!(is_committed(&c.end(first)) && is_committed(&c.end(second)));
    assert!(c.sent(msg("Nack")).is_empty());
    assert_eq!(c.get(client, "b"), "second");
    c.check();
}
