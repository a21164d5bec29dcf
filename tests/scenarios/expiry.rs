//! L1, L2: keys that expire.

use wire::clock::from_ms;
use wire::{Action, Outcome, Version};

use crate::scenarios::handoff::held;
use crate::sim::node::EPOCH_MS;
use crate::sim::script::{Script, msg, put, put_for, swap_version};

/// The version of what was written.
#[track_caller]
fn written(outcome: &Outcome) -> Version {
    match outcome {
        Outcome::Written { version, .. } => *version,
        other => panic!("not written: {other:?}"),
    }
}

/// Whether every node holds a tombstone, or nothing.
fn is_deleted(c: &Script, key: &str) -> bool {
    (0..c.nodes.len()).all(|node| {
        let record = held(c, node, key).and_then(|state| state.record);
        record.is_none_or(|record| record.value.is_none())
    })
}

fn jump_all(c: &mut Script, by_ms: i64) {
    for node in 0..c.nodes.len() {
        c.jump(node, by_ms);
    }
    c.run_ms(200);
}

/// A client's births bring the nodes' hybrid clocks a minute ahead of all wall clocks.
#[test]
pub fn l1_a_client_with_a_fast_clock_expires_nothing() {
    let mut c = Script::new(3);
    let client = c.client();
    let mut hand = c.hand();
    let keys: Vec<String> = (0..3).map(|node| c.key_of(node)).collect();
    for key in &keys {
        c.run(client, key, put_for("v", 10_000));
    }
    for node in 0..3 {
        let other = format!("{} of the hand", c.key_of(node));
        let mut operation = c.operation(&mut hand, &other, put("x"));
        operation.birth = from_ms(EPOCH_MS + c.now_us / 1_000 + 60_500);
        let answer = c.ask(&mut hand, node, &operation, false);
        assert!(matches!(answer, Outcome::Written { .. }), "{answer:?}");
    }
    c.run_ms(1_000);
    for key in &keys {
        assert_eq!(c.get(client, key), "v");
    }
    c.run_ms(9_500);
    for key in &keys {
        assert_eq!(c.get(client, key), "");
    }
    c.check();
}

/// A comparison fails because the key has expired. Then the clocks go back.
#[test]
pub fn l1_what_an_operation_found_expired_does_not_come_back() {
    let mut c = Script::new(3);
    let client = c.client();
    let version = written(&c.run(client, "k", put_for("v", 2_000)));
    jump_all(&mut c, 5_000);
    let outcome = c.run(client, "k", swap_version(version, "w"));
    assert!(
        matches!(outcome, Outcome::Conflict { version: 0, .. }),
        "{outcome:?}"
    );
    jump_all(&mut c, -5_000);
    assert_eq!(c.get(client, "k"), "");
    c.check();
}

/// The same with a read, at a node that is not the one which deletes the key; that one's messages
/// are lost meanwhile.
#[test]
pub fn l1_what_was_read_as_expired_does_not_come_back() {
    let mut c = Script::new(3);
    let client = c.client();
    let reader = c.client_of(&[1]);
    let key = c.key_of(0);
    c.run(client, &key, put_for("v", 2_000));
    c.get(reader, &key);
    c.lose(msg("Accept").about(&key));
    c.lose(msg("Prepare").about(&key));
    jump_all(&mut c, 5_000);
    let read = c.begin(reader, &key, Action::Get);
    c.run_ms(500);
    assert!(
        c.is_open(read),
        "only a round makes the key absent for good"
    );
    jump_all(&mut c, -5_000);
    c.let_pass();
    c.end(read);
    c.get(reader, &key);
    c.check();
}

/// The version of a lock is its token: a renewal must not change it.
#[test]
pub fn l2_a_new_time_to_live_keeps_the_version() {
    let mut c = Script::new(3);
    let client = c.client();
    let version = written(&c.run(client, "k", put_for("v", 2_000)));
    let over = Some(version);
    for ttl_ms in [1_000, 3_000] {
        let renewed = c.run(client, "k", Action::Expire { ttl_ms, over });
        assert_eq!(written(&renewed), version);
    }
    c.run_ms(2_500);
    assert_eq!(
        written(&c.run(client, "k", Action::Persist { over })),
        version
    );
    c.run_ms(5_000);
    assert_eq!(c.get(client, "k"), "v");
    let version = version + 1;
    let refused = c.run(client, "k", Action::DeleteVersion { version });
    assert!(matches!(refused, Outcome::Conflict { .. }), "{refused:?}");
    let version = version - 1;
    written(&c.run(client, "k", Action::DeleteVersion { version }));
    c.check();
}

/// Nobody reads the key: it is deleted soon after its time, and purged when tombstones are, also if
/// all nodes were restarted meanwhile.
#[test]
fn a_key_that_nobody_reads_is_deleted_and_purged() {
    for restarts in [false, true] {
        let mut c = Script::new(3);
        let client = c.client();
        for node in 0..3 {
            let key = c.key_of(node);
            c.run(client, &key, put_for("v", 3_000));
        }
        if restarts {
            c.run_ms(200);
            for node in 0..3 {
                c.restart(node);
            }
        }
        c.run_ms(2_500);
        let keys: Vec<String> = (0..3).map(|node| c.key_of(node)).collect();
        assert!(keys.iter().all(|key| !is_deleted(&c, key)), "too early");
        c.run_ms(1_500);
        assert!(keys.iter().all(|key| is_deleted(&c, key)), "too late");
        for _ in 0..6 {
            c.run_ms(10_000);
        }
        assert!(keys.iter().all(|key| held(&c, 0, key).is_none()));
        for key in &keys {
            assert_eq!(c.get(client, key), "");
        }
        c.check();
    }
}

/// The coordinator's own clock is 50 s ahead or behind, which no bound of the hybrid clock
/// prevents: the median counts.
#[test]
fn one_clock_that_is_off_expires_nothing() {
    for by_ms in [50_000, -50_000] {
        let mut c = Script::new(3);
        let client = c.client();
        let key = c.key_of(2);
        c.run(client, &key, put_for("early", 10_000));
        c.jump(2, by_ms);
        c.run_ms(1_000);
        assert_eq!(c.get(client, &key), "early");
        c.run(client, &key, put_for("late", 4_000));
        let Outcome::Lives { left_ms, .. } = c.run(client, &key, Action::TimeToLive) else {
            panic!("it lives");
        };
        assert!(
            left_ms.is_some_and(|ms| (3_900..=4_000).contains(&ms)),
            "{left_ms:?}"
        );
        c.run_ms(3_500);
        assert_eq!(c.get(client, &key), "late");
        c.run_ms(700);
        assert_eq!(c.get(client, &key), "");
        c.check();
    }
}

/// The node that should delete the keys does not run.
#[test]
fn the_next_coordinator_deletes_what_the_first_one_does_not() {
    let mut c = Script::new(5);
    let client = c.client();
    let key = c.key_of(4);
    c.run(client, &key, put_for("v", 2_000));
    c.run_ms(500);
    c.crash_hard(4);
    c.run_ms(3_000);
    let record = held(&c, 0, &key).and_then(|state| state.record);
    assert!(record.is_some_and(|record| record.value.is_none()));
    // It missed the deletion, and does not bring the key back.
    c.cluster.start(4);
    c.run_ms(3_000);
    assert!(is_deleted(&c, &key));
    assert_eq!(c.get(client, &key), "");
    c.check();
}

/// Many keys expire at the same time.
#[test]
fn many_keys_that_expire_together_are_deleted_within_two_seconds() {
    let mut c = Script::new(3);
    let client = c.client();
    let keys: Vec<String> = (0..500).map(|n| format!("key {n}")).collect();
    let calls = keys
        .iter()
        .map(|key| c.begin(client, key, put_for("v", 5_000)));
    let calls: Vec<usize> = calls.collect();
    c.until("the puts", |c| {
        calls.iter().all(|call| c.calls[*call].ended.is_some())
    });
    c.run_ms(7_000);
    let left = keys.iter().filter(|key| !is_deleted(&c, key)).count();
    assert_eq!(left, 0);
    c.check();
}
