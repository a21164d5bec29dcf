//! R1, R4: which values a read may return.

use wire::{Action, Outcome};

use crate::scenarios::changes::has_members;
use crate::sim::script::{Script, msg, put};

/// An answer to a read of the node's earlier boot, counted for a new read, would make it stale.
#[test]
pub fn r1_earlier_life_read_answer() {
    let mut c = Script::new(3);
    let key = c.key_of(1);
    let (zero, one) = (c.client_of(&[0]), c.client_of(&[1]));
    c.put(one, &key, "old");
    c.run_ms(1_200);
    c.restart(0);
    c.run_ms(300);
    c.hold(msg("ReadAnswer").to(0));
    c.begin(zero, &key, Action::Get);
    c.run_ms(50);
    c.let_pass();
    c.crash_client(zero);
    c.restart(0);
    c.run_ms(300);
    c.lose(msg("Accept").to(0));
    c.lose(msg("Chosen").to(0));
    c.put(one, &key, "new");
    c.lose(msg("ReadAnswer").to(0));
    let other = c.client_of(&[0]);
    let call = c.begin(other, &key, Action::Get);
    c.run_ms(50);
    assert_ne!(c.release(msg("ReadAnswer").to(0)), 0);
    c.run_ms(20);
    c.let_pass();
    let outcome = c.end(call);
    assert!(matches!(outcome, Outcome::Value { value, .. } if value == "new"));
    c.check();
}

/// A single answer, even this node's own, is no quorum: others may have written since.
#[test]
pub fn r4_one_answer_is_no_quorum() {
    let mut c = Script::new(3);
    let key = c.key_of(1);
    let (zero, one) = (c.client_of(&[0]), c.client_of(&[1]));
    c.put(one, &key, "old");
    c.run_ms(200);
    c.isolate(0);
    c.put(one, &key, "new");
    let call = c.begin(zero, &key, Action::Get);
    c.run_ms(100);
    c.heal();
    c.end(call);
    c.check();
}

/// A record that one acceptor holds is completed before it is returned: the same client reads it
/// again.
#[test]
pub fn r4_what_was_read_stays() {
    let mut c = Script::new(3);
    let key = c.key_of(0);
    let (zero, one, two) = (c.client_of(&[0]), c.client_of(&[1]), c.client_of(&[2]));
    c.put(zero, &key, "old");
    c.run_ms(200);
    // Only node 1 gets the next one, and node 0 loses it.
    c.lose(msg("Accept").to(2));
    c.begin(zero, &key, put("new"));
    c.until_sent(msg("Accept").from(0).to(1));
    c.crash_hard(0);
    c.run_ms(20);
    c.lose(msg("Accept").from(1));
    c.begin(one, &key, Action::Get);
    c.run_ms(100);
    c.let_pass();
    c.isolate(1);
    c.cluster.start(0);
    c.run_ms(300);
    c.get(two, &key);
    c.heal();
    c.run_ms(300);
    c.check();
}

/// A read sends the record that it found to the nodes that lack it, with its original ballot, and
/// so does not disturb the short rounds of the active coordinator.
#[test]
pub fn r4_finishing_disturbs_no_short_round() {
    let mut c = Script::new(3);
    let key = c.key_of(0);
    let (zero, one) = (c.client_of(&[0]), c.client_of(&[1]));
    c.put(zero, &key, "a");
    c.lose(msg("Accept").to(2));
    c.lose(msg("Chosen"));
    c.put(zero, &key, "b");
    c.let_pass();
    let prepares = c.sent(msg("Prepare")).len();
    c.lose(msg("ReadAnswer").from(0).to(1));
    assert_eq!(c.get(one, &key), "b");
    c.let_pass();
    c.put(zero, &key, "c");
    assert_eq!(c.sent(msg("Prepare")).len(), prepares);
    c.check();
}

/// Node 3 has sent a read to node 0, which held the old value then, and waits for more answers.
/// Meanwhile node 0 gets the new value, and another configuration is installed in which nodes 0, 3
/// and 4 are a quorum. R1: the read starts again; an answer of the previous epoch says nothing
/// about this one.
#[test]
pub fn r1_a_read_starts_again_in_another_epoch() {
    let mut c = Script::shrinking(7, 1);
    let key = c.key_of(1);
    let (one, three) = (c.client_of(&[1]), c.client_of(&[3]));
    c.put(one, &key, "old");
    c.run_ms(1_500);
    let lose = |c: &mut Script, names: &[&'static str], far: &[usize]| {
        for (name, to) in names.iter().flat_map(|n| far.iter().map(move |to| (n, to))) {
            c.lose(msg(name).to(*to).about(&key));
        }
    };
    lose(&mut c, &["Accept", "Copy"], &[0, 3, 4]);
    c.put(one, &key, "new");
    c.run_ms(1);
    lose(&mut c, &["Read"], &[1, 2, 4, 5, 6]);
    let read = c.begin(three, &key, Action::Get);
    c.until_sent(msg("ReadAnswer").from(0).to(3));
    c.run_ms(5);
    c.let_pass();
    lose(&mut c, &["Accept", "Copy"], &[3, 4]);
    lose(&mut c, &["Read"], &[1, 2, 4, 5, 6]);
    c.crash_hard(6);
    c.until("six members", |c| {
        has_members(c, &[0, 1, 2, 3, 4, 5], &[1, 2, 3, 4, 5, 6])
    });
    c.let_pass();
    lose(&mut c, &["Accept", "Copy"], &[3, 4]);
    lose(&mut c, &["Read"], &[1, 2, 5, 6]);
    c.run_ms(1_500);
    c.let_pass();
    let outcome = c.end(read);
    assert!(
        matches!(&outcome, Outcome::Value { value, .. } if value == "new"),
        "{outcome:?}"
    );
    c.check();
}

/// What a stale read tells: the value, and for how long the node has been apart.
#[track_caller]
fn stale(c: &mut Script, client: usize, key: &str) -> (String, u64) {
    match c.run(client, key, Action::GetStale) {
        Outcome::Stale {
            value, apart_ms, ..
        } => {
            let value = value.unwrap_or_default();
            (String::from_utf8_lossy(&value).into_owned(), apart_ms)
        }
        other => panic!("a stale read: {other:?}"),
    }
}

/// The coordinator has accepted a record that no other node has: it may not tell it, and what was
/// chosen before is not known there any more.
#[test]
fn a_stale_read_tells_nothing_that_is_not_chosen() {
    let mut c = Script::new(3);
    let client = c.client();
    let (first, second) = (c.client_of(&[0]), c.client_of(&[1]));
    // No other node runs the write in its place.
    let writer = c.client_of(&[0]);
    let key = c.key_of(0);
    c.put(client, &key, "a");
    c.run_ms(200);
    assert_eq!(stale(&mut c, first, &key), ("a".into(), 0));
    c.lose(msg("Accept").about(&key));
    let write = c.begin(writer, &key, put("b"));
    c.run_ms(100);
    let read = c.begin(first, &key, Action::GetStale);
    assert_eq!(stale(&mut c, second, &key), ("a".into(), 0));
    c.run_ms(500);
    assert!(c.is_open(read), "no answer of this node is true");
    c.let_pass();
    c.end(write);
    c.end(read);
    c.run_ms(200);
    assert_eq!(stale(&mut c, second, &key), ("b".into(), 0));
    c.check();
}

/// A node that is cut off tells what it has, and since when it is alone.
#[test]
fn a_stale_read_needs_no_quorum() {
    let mut c = Script::new(3);
    let client = c.client_of(&[0, 1]);
    let alone = c.client_of(&[2]);
    c.put(client, "k", "a");
    c.run_ms(200);
    c.isolate(2);
    c.run_ms(2_000);
    c.put(client, "k", "b");
    let (value, apart_ms) = stale(&mut c, alone, "k");
    assert_eq!(value, "a");
    assert!((1_700..=2_200).contains(&apart_ms), "{apart_ms}");
    assert_eq!(stale(&mut c, alone, "never written").0, "");
    let refused = c.run(alone, "k", Action::Get);
    assert!(matches!(refused, Outcome::NoQuorum { .. }), "{refused:?}");
    c.heal_nodes();
    c.run_ms(1_500);
    assert_eq!(stale(&mut c, alone, "k"), ("b".into(), 0));
    c.check();
}
