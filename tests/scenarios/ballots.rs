//! B1, B2, V1: ballots, clocks and versions.

use std::collections::BTreeSet;

use wire::Outcome;

use crate::sim::node::EPOCH_MS;
use crate::sim::script::{Script, append, ms_of, msg, put, swap, swap_version};

/// A node writes a key faster than its clock ticks, restarts with a clock that went back, and
/// reaches only nodes that received none of these writes. If it started from that clock it would
/// issue the ballots of its short rounds again.
#[test]
pub fn b1_restart_after_short_rounds() {
    let mut c = Script::new(5);
    let (key, client) = (c.key_of(0), c.client_of(&[0]));
    c.cut(&[0, 3, 4], &[1, 2]);
    for n in 0..50 {
        c.put(client, &key, &n.to_string());
    }
    let highest = c.ballots_of(0).into_iter().max().unwrap();
    let before = c.ballots_of(0).len();
    c.crash_hard(0);
    c.crash_client(client);
    c.heal();
    c.cut(&[0, 1, 2], &[3, 4]);
    c.cluster.jump(0, -5_000);
    c.cluster.start(0);
    c.run_ms(300);
    let other = c.client_of(&[0]);
    c.put(other, &c.key_of(0), "after");
    let issued = c.ballots_of(0).split_off(before);
    assert!(
        !issued.is_empty() && issued.iter().all(|b| *b > highest),
        "{highest}: {issued:?}"
    );
    c.check();
}

/// Node 0 gets ballot b accepted by 3 and 4 and crashes. It comes back with its clock set back, and
/// reaches only 1 and 2, which never received b. It would issue b for another record.
#[test]
pub fn b1_a_ballot_is_not_issued_again() {
    let mut c = Script::new(5);
    let (key, client) = (c.key_of(0), c.client());
    c.cut(&[0, 3, 4], &[1, 2]);
    c.set_clock(0, EPOCH_MS + 30_000);
    c.begin(client, &key, put("lost"));
    c.until_sent(msg("Accept").from(0).to(4));
    c.crash_hard(0);
    c.crash_client(client);
    c.run_ms(50);
    c.heal();
    c.cut(&[0, 1, 2], &[3, 4]);
    c.cluster.nodes[0].wall.offset_ms = -2_000;
    c.cluster.start(0);
    c.run_ms(600);
    let other = c.client();
    c.set_clock(0, EPOCH_MS + 30_000);
    c.put(other, &key, "kept");
    c.heal();
    c.run_ms(300);
    c.get(other, &key);
    c.check();
}

/// Node 0, whose clock is fast, gets a ballot promised by two others, and loses its state. Once its
/// clock is corrected, the clock is behind that ballot: the node would issue lower ballots, and
/// eventually the same one again.
#[test]
pub fn b4_who_lost_its_state_hears_the_clocks_first() {
    let mut c = Script::shrinking(5, 1);
    let (key, client) = (c.key_of(0), c.client_of(&[0]));
    c.cluster.jump(0, 30_000);
    c.lose(msg("Accept").from(0));
    for far in [1, 2] {
        c.lose(msg("Prepare").from(0).to(far));
    }
    c.begin(client, &key, put("lost"));
    c.until_sent(msg("Promise").to(0));
    c.run_ms(10);
    let before = c.ballots_of(0);
    let highest = before.iter().max().copied().unwrap();
    c.crash_client(client);
    c.let_pass();
    c.cluster.jump(0, -30_000);
    // The node receives no ballot, neither from the change that admits it nor from what it then
    // copies.
    for told in ["Prepare", "Accept", "ReadAnswer", "Copy"] {
        c.lose(msg(told).to(0));
    }
    c.restart_empty(0);
    c.until("a vote again", |c| c.vote_of(0).is_some());
    c.run_ms(500);
    let other = c.client_of(&[0]);
    c.put(other, &key, "after");
    let issued = c.ballots_of(0).split_off(before.len());
    assert!(
        !issued.is_empty() && issued.iter().all(|b| *b > highest),
        "{highest}: {issued:?}"
    );
    c.check();
}

/// One clock is hours ahead. The versions of its writes are within the bound of the others' clocks,
/// and no other node follows that clock.
#[test]
pub fn b2_one_bad_clock_does_not_drag() {
    let mut c = Script::new(3);
    let client = c.client();
    c.jump_hours(0, 5);
    c.run_ms(200);
    for node in 0..3 {
        let version = c.put(client, &c.key_of(node), "x");
        let ahead_ms = ms_of(version) - (EPOCH_MS + c.now_us / 1_000);
        assert!(ahead_ms <= 61_000, "node {node} is {ahead_ms} ms ahead");
    }
    c.check();
}

/// A node whose own clock is hours behind serves like the others: it refuses nothing because it is
/// ahead.
#[test]
pub fn b2_a_clock_behind_is_not_shut_out() {
    let mut c = Script::new(3);
    let client = c.client();
    c.jump_hours(2, -5);
    let key = c.key_of(2);
    let first = c.put(client, &c.key_of(0), "x");
    c.run_ms(200);
    assert!(c.put(client, &key, "x") > first);
    c.check();
}

/// A repair round keeps the version: a compare-and-swap with no concurrent write succeeds.
#[test]
pub fn v1_repair_keeps_the_version() {
    let mut c = Script::new(3);
    let (key, client) = (c.key_of(0), c.client());
    let version = c.put(client, &key, "a");
    let near = c.client_of(&[1]);
    c.isolate(0);
    c.run_ms(250);
    let prepares = c.sent(msg("Prepare")).len();
    let conflict = c.run(near, &key, swap("b", "c"));
    assert!(matches!(conflict, Outcome::Conflict { version: v, .. } if v == version));
    assert!(
        c.sent(msg("Prepare")).len() > prepares,
        "a full round that changed nothing"
    );
    let swapped = c.run(near, &key, swap_version(version, "b"));
    assert!(matches!(swapped, Outcome::Written { .. }), "{swapped:?}");
    c.check();
}

/// Writes that run together in one round get one version each.
#[test]
pub fn v1_combined_writes_have_their_own_versions() {
    let mut c = Script::new(3);
    let (key, client) = (c.key_of(0), c.client());
    c.put(client, &key, "x");
    let calls: Vec<usize> = (0..5)
        .map(|n| c.begin(client, &key, append(&n.to_string())))
        .collect();
    let versions = calls.iter().map(|call| match c.end(*call) {
        Outcome::Written { version, .. } => version,
        other => panic!("{other:?}"),
    });
    let versions: BTreeSet<u64> = versions.collect();
    assert_eq!(versions.len(), 5);
    let ballots: BTreeSet<u64> = versions.iter().map(|v| v >> 8).collect();
    assert!(ballots.len() < 5, "some of them in one round");
    c.check();
}
