//! P1, X3: deleted keys are purged, and stay deleted.

use wire::{Action, Outcome};

use crate::scenarios::changes::has_members;
use crate::scenarios::handoff::{are_equal, held};
use crate::sim::cluster::Cluster;
use crate::sim::script::{Script, any, append, msg};

fn is_gone(cluster: &Cluster, key: &str) -> bool {
    (0..cluster.nodes.len()).all(|node| held(cluster, node, key).is_none())
}

/// Continues until no node has any state of these keys, which takes at least the retry horizon.
#[track_caller]
fn until_gone(c: &mut Script, keys: &[String]) {
    c.run_ms(9_000);
    assert!(
        keys.iter().all(|k| !is_gone(c, k)),
        "the table answers retries"
    );
    c.until("nothing is held", |c| keys.iter().all(|k| is_gone(c, k)));
}

#[test]
pub fn p1_tombstones_are_dropped_by_all() {
    let mut c = Script::new(5);
    let client = c.client();
    let keys: Vec<String> = (0..200).map(|n| format!("key {n}")).collect();
    for key in &keys {
        c.put(client, key, "x");
    }
    c.put(client, "stays", "x");
    for key in &keys {
        c.run(client, key, Action::Delete);
    }
    until_gone(&mut c, &keys);
    c.run_ms(500);
    let purges = c.sent(msg("Purge")).len();
    assert!(purges > 0);
    c.run_ms(5_000);
    assert_eq!(c.sent(msg("Purge")).len(), purges, "once is enough");
    assert!((0..5).all(|node| held(&c, node, "stays").is_some()));
    for key in keys.iter().step_by(20) {
        assert_eq!(c.get(client, key), "");
        c.run(client, key, append("again"));
        assert_eq!(c.get(client, key), "again");
    }
    c.check();
}

/// Node 2 is down while the key is deleted. If the others had purged the tombstone, node 2's value
/// would be the newest that any node knows.
#[test]
pub fn p1_a_member_that_was_away_brings_nothing_back() {
    let mut c = Script::new(3);
    let key = c.key_of(0);
    let client = c.client_of(&[0, 1]);
    c.put(client, &key, "a");
    c.until("the same everywhere", |c| are_equal(c, &key));
    c.isolate(2);
    c.run(client, &key, Action::Delete);
    c.run_ms(20_000);
    assert!(held(&c, 0, &key).is_some(), "node 2 does not hold it");
    c.heal_nodes();
    c.run_ms(3_000);
    assert_eq!(c.get(client, &key), "");
    c.until("nothing is held", |c| is_gone(c, &key));
    assert_eq!(c.get(client, &key), "");
    c.check();
}

/// An Accept from before the delete arrives at node 2 when the key is purged.
#[test]
pub fn p1_a_late_accept_brings_nothing_back() {
    let mut c = Script::new(3);
    let key = c.key_of(0);
    let client = c.client_of(&[0, 1]);
    c.hold(msg("Accept").from(0).to(2));
    c.put(client, &key, "a");
    c.let_pass();
    c.run(client, &key, Action::Delete);
    until_gone(&mut c, std::slice::from_ref(&key));
    assert!(c.release(msg("Accept").from(0).to(2)) > 0);
    c.run_ms(200);
    c.cut(&[0], &[1, 2]);
    c.run_ms(600);
    let other = c.client_of(&[1, 2]);
    assert_eq!(c.get(other, &key), "");
    c.check();
}

/// A copy of the value, duplicated by the network, arrives when the key is purged.
#[test]
pub fn p1_a_late_copy_brings_nothing_back() {
    let mut c = Script::new(3);
    let key = c.key_of(0);
    let client = c.client_of(&[0, 1]);
    c.lose(msg("Accept").from(0).to(2));
    c.put(client, &key, "a");
    c.until_sent(msg("CopyAck").from(2));
    c.let_pass();
    c.run(client, &key, Action::Delete);
    until_gone(&mut c, std::slice::from_ref(&key));
    c.repeat(msg("Copy").to(2));
    c.run_ms(200);
    assert_eq!(held(&c, 2, &key).and_then(|s| s.record), None);
    assert_eq!(c.get(client, &key), "");
    c.check();
}

/// A purge that one member never receives leaves a tombstone there; it is purged later.
#[test]
pub fn p1_a_lost_purge_is_made_good() {
    let mut c = Script::new(3);
    let key = c.key_of(0);
    let client = c.client();
    c.put(client, &key, "a");
    c.run(client, &key, Action::Delete);
    c.lose(msg("Purge").to(2));
    c.run_ms(14_000);
    assert!(!is_gone(&c, &key));
    c.let_pass();
    c.run_ms(10_000);
    c.until("nothing is held", |c| is_gone(c, &key));
    assert_eq!(c.get(client, &key), "");
    c.check();
}

/// The floor is as durable as the purge: a restart brings nothing back either.
#[test]
pub fn p1_the_floor_is_kept_over_a_restart() {
    let mut c = Script::new(3);
    let key = c.key_of(0);
    let client = c.client_of(&[0, 1]);
    c.hold(msg("Accept").from(0).to(2));
    c.put(client, &key, "a");
    c.let_pass();
    c.run(client, &key, Action::Delete);
    until_gone(&mut c, std::slice::from_ref(&key));
    c.restart(2);
    c.run_ms(600);
    assert!(c.release(any().from(0).to(2)) > 0);
    c.run_ms(200);
    assert_eq!(held(&c, 2, &key).and_then(|s| s.record), None);
    c.check();
}

/// The put is applied, and its answer is lost. Before its retry the key was deleted, and purged
/// with its table.
#[test]
pub fn x3_a_retry_from_before_a_purge() {
    let mut c = Script::new(3);
    let (key, other) = (c.key_of(1), c.client());
    let mut hand = c.hand();
    let operation = c.operation(&mut hand, &key, append("once"));
    let first = c.ask(&mut hand, 1, &operation, false);
    assert!(matches!(first, Outcome::Written { .. }));
    c.run(other, &key, Action::Delete);
    until_gone(&mut c, std::slice::from_ref(&key));
    let again = c.ask(&mut hand, 1, &operation, true);
    assert_eq!(again, Outcome::Unknown);
    assert_eq!(c.get(other, &key), "");
    c.check();
}

/// Of two keys of one bucket, the one that was deleted last is purged first. The floor stays above
/// what was promised for it, whatever is purged afterwards.
#[test]
pub fn p1_the_floor_does_not_fall() {
    let mut c = Script::new(3);
    let client = c.client_of(&[0, 1]);
    let last = c.key_of(0);
    let first = c.key_beside(&last);
    assert!(last < first, "they are purged in order of key");
    c.put(client, &first, "x");
    c.run(client, &first, Action::Delete);
    c.hold(msg("Accept").from(0).to(2).about(&last));
    c.put(client, &last, "a");
    c.let_pass();
    c.run(client, &last, Action::Delete);
    until_gone(&mut c, &[first, last.clone()]);
    assert_eq!(c.sent(msg("Purge").to(2)).len(), 1, "both at once");
    assert!(c.release(msg("Accept").from(0).to(2)) > 0);
    c.run_ms(200);
    c.cut(&[0], &[1, 2]);
    c.run_ms(600);
    let other = c.client_of(&[1, 2]);
    assert_eq!(c.get(other, &last), "");
    c.check();
}

/// As above, but the ballots of the key are those of short rounds, behind the clock that gave the
/// operation its birth: the floor is above the births too.
#[test]
pub fn x3_a_retry_of_a_short_round_from_before_a_purge() {
    let mut c = Script::new(3);
    let (key, other) = (c.key_of(1), c.client());
    c.put(other, &key, "before");
    c.run_ms(100);
    let mut hand = c.hand();
    let operation = c.operation(&mut hand, &key, append("once"));
    let first = c.ask(&mut hand, 1, &operation, false);
    assert!(matches!(first, Outcome::Written { .. }));
    c.run(other, &key, Action::Delete);
    until_gone(&mut c, std::slice::from_ref(&key));
    let again = c.ask(&mut hand, 1, &operation, true);
    assert_eq!(again, Outcome::Unknown);
    assert_eq!(c.get(other, &key), "");
    c.check();
}

/// X3: as above, at a node that was admitted after the purge. Its floor is zero.
#[test]
pub fn x3_a_new_member_answers_for_no_earlier_births() {
    let mut c = Script::shrinking(5, 1);
    let (key, other) = (c.key_of(4), c.client_of(&[0, 1]));
    let mut hand = c.hand();
    let operation = c.operation(&mut hand, &key, append("once"));
    let first = c.ask(&mut hand, 0, &operation, false);
    assert!(matches!(first, Outcome::Written { .. }));
    c.run(other, &key, Action::Delete);
    until_gone(&mut c, std::slice::from_ref(&key));
    c.crash_hard(4);
    c.until("four members", |c| {
        has_members(c, &[0, 1, 2, 3], &[1, 2, 3, 4])
    });
    c.restart_empty(4);
    c.until("a new member", |c| {
        has_members(c, &[0, 1, 2, 3, 4], &[1, 2, 3, 4, 5])
    });
    c.greet(&mut hand, 4);
    let again = c.ask(&mut hand, 4, &operation, true);
    assert_eq!(again, Outcome::Unknown);
    assert_eq!(c.get(other, &key), "");
    c.check();
}

/// X3: no member forgets anything when another one is removed, so a retry from before is applied.
#[test]
fn x3_a_retry_from_before_a_removal() {
    let mut c = Script::shrinking(5, 1);
    let (key, other) = (c.key_of(0), c.client_of(&[0, 1]));
    let mut hand = c.hand();
    let operation = c.operation(&mut hand, &key, append("once"));
    c.crash_hard(4);
    c.until("four members", |c| {
        has_members(c, &[0, 1, 2, 3], &[1, 2, 3, 4])
    });
    let first = c.ask(&mut hand, 0, &operation, true);
    assert!(matches!(first, Outcome::Written { .. }), "{first:?}");
    assert_eq!(c.get(other, &key), "once");
    c.check();
}

/// A Purge is late, and arrives when another configuration is installed. R1: all members of the
/// earlier configuration held the tombstone, which says nothing about a member that was admitted
/// since.
#[test]
pub fn r1_a_purge_of_an_earlier_epoch_is_not_followed() {
    let mut c = Script::shrinking(5, 1);
    let key = c.key_of(0);
    let client = c.client_of(&[0, 1]);
    c.put(client, &key, "a");
    c.run(client, &key, Action::Delete);
    c.hold(msg("Purge"));
    c.run_ms(9_000);
    c.until("a purge", |c| !c.held.is_empty());
    c.crash_hard(4);
    c.until("four members", |c| {
        has_members(c, &[0, 1, 2, 3], &[1, 2, 3, 4])
    });
    let holders = |c: &Script| (0..4).filter(|n| held(c, *n, &key).is_some()).count();
    let before = holders(&c);
    assert!(before >= 3);
    assert!(c.release(msg("Purge")) > 0);
    c.run_ms(5);
    assert_eq!(holders(&c), before);
    c.check();
}
