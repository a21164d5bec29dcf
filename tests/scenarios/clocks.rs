//! B2, B5: clock bounds for wall clocks, births, and readings from other nodes.

use horseshoe::protocol::types::ballot::Ballot;
use horseshoe::protocol::types::message::{
    CopyAck, Group, Heartbeat, Message, Meta, Nack, Prepare, Promise, Row,
};
use wire::clock::{READING_LAST, READING_MAX, READING_SANE_MAX, Reading, from_ms};
use wire::{Action, Outcome};

use crate::scenarios::handoff::held;
use crate::sim::event::Parcel;
use crate::sim::node::EPOCH_MS;
use crate::sim::script::{Pick, Script, ms_of, msg, put, user_key};

/// The time of a healthy clock.
fn wall_ms(c: &Script) -> u64 {
    EPOCH_MS + c.now_us / 1_000
}

/// A write's version is within the bound of the healthy clocks.
#[track_caller]
fn is_within_bound(c: &mut Script, client: usize, what: &str) {
    for node in 0..c.nodes.len() {
        let key = c.key_of(node);
        let version = c.put(client, &key, "x");
        let ahead_ms = ms_of(version).saturating_sub(wall_ms(c));
        assert!(ahead_ms <= 61_000, "{what}: {ahead_ms} ms ahead");
    }
}

/// A node whose clock is hours ahead reaches no other node for a while: its own clock alone is not
/// a median.
#[test]
pub fn b2_a_bad_clock_that_was_alone() {
    for ms in [1_200, 1_500, 2_000, 3_000, 5_000] {
        let mut c = Script::new(3);
        let client = c.client();
        c.jump_hours(2, 8);
        c.run_ms(1_000);
        c.isolate(2);
        c.run_ms(ms);
        c.heal();
        c.run_ms(1_000);
        is_within_bound(&mut c, client, &format!("alone for {ms} ms"));
        c.check();
    }
}

/// The same at its start, before it has received anything from another node.
#[test]
pub fn b2_a_bad_clock_at_a_start() {
    for ms in [100, 500, 2_000] {
        let mut c = Script::new(3);
        let client = c.client();
        c.put(client, "k", "x");
        c.crash_hard(2);
        c.jump_hours(2, 8);
        c.run_ms(ms);
        c.cluster.start(2);
        c.run_ms(1_200);
        is_within_bound(&mut c, client, &format!("started again after {ms} ms"));
        c.check();
    }
}

/// All nodes are started at the same time; then again, the one with the bad clock first. When the
/// clock is corrected, the keys that were deleted meanwhile are purged.
#[test]
pub fn b2_a_bad_clock_when_all_start() {
    let mut c = Script::cold(3);
    c.jump_hours(2, 8);
    c.cluster.start_all();
    c.until("a configuration", |c| c.is_formed());
    c.run_ms(1_000);
    let client = c.client();
    is_within_bound(&mut c, client, "formed");
    for node in 0..3 {
        c.crash_hard(node);
    }
    c.cluster.start(2);
    c.run_ms(1_500);
    c.cluster.start(0);
    c.cluster.start(1);
    c.run_ms(1_000);
    is_within_bound(&mut c, client, "all started again");
    c.put(client, "k", "x");
    c.run(client, "k", Action::Delete);
    c.jump_hours(2, -8);
    for _ in 0..13 {
        c.run_ms(9_000);
    }
    assert_eq!(held(&c, 0, "k"), None, "two minutes later it is purged");
    c.check();
}

/// The master of two is a quorum alone. It has received the other node's clock before, so that
/// still counts.
#[test]
pub fn b2_a_master_of_two_with_a_bad_clock() {
    let mut c = Script::new(2);
    let client = c.client_of(&[0]);
    c.jump_hours(0, 8);
    c.run_ms(1_000);
    c.crash_hard(1);
    c.run_ms(5_000);
    let version = c.put(client, "k", "x");
    assert!(ms_of(version).saturating_sub(wall_ms(&c)) <= 61_000);
    c.check();
}

/// Two of five clocks are bad, and only one of the others was received since the start: the bad
/// clocks are more than half of the known clocks, but not of all.
#[test]
pub fn b2_two_bad_clocks_of_five_that_start_first() {
    let mut c = Script::new(5);
    let client = c.client();
    c.put(client, "k", "x");
    for node in 0..5 {
        c.crash_hard(node);
    }
    c.jump_hours(3, 8);
    c.jump_hours(4, 8);
    for node in [2, 3, 4] {
        c.cluster.start(node);
    }
    c.run_ms(1_500);
    c.cluster.start(0);
    c.cluster.start(1);
    c.run_ms(1_000);
    is_within_bound(&mut c, client, "all started again");
    c.check();
}

/// Two of four members die, including the master or not, and are not removed. The remaining two
/// extrapolate the dead nodes' clocks by elapsed time: they do not relay the last readings for ever
/// as if they were new.
#[test]
pub fn b2_the_clocks_of_dead_nodes_do_not_stand_still() {
    for (dead, live) in [([2, 3], [0, 1]), ([0, 1], [2, 3]), ([0, 3], [1, 2])] {
        for seed in 1..4 {
            let mut c = Script::new(4);
            c.slow_links(60_000, seed);
            c.run_ms(1_000);
            dead.iter().for_each(|node| c.crash_hard(*node));
            c.run_ms(90_000);
            for node in live {
                let replica = c.nodes[node].replica.as_ref().expect("it runs");
                let status = replica.status(c.nodes[node].now(c.now_us));
                let what = format!("dead: {dead:?}, seed {seed}, node {node}");
                assert!(!status.clock_clamped, "{what}");
                let is_dead = |to: u8| dead.contains(&(usize::from(to) - 1));
                let told = status.links.iter().filter(|link| is_dead(link.to));
                assert_eq!(told.count(), 0, "{what}");
            }
            c.check();
        }
    }
}

/// The node is started alone with a bad clock, and accepts it, as there is no other. After the
/// correction the store continues from that time, and the other node follows.
#[test]
pub fn b5_who_was_away_follows_what_a_quorum_tells() {
    let mut c = Script::new(2);
    let client = c.client_of(&[0]);
    c.crash_hard(0);
    c.crash_hard(1);
    c.jump_hours(0, 8);
    c.cluster.start(0);
    c.run_ms(1_000);
    let version = c.put(client, "k", "x");
    assert!(
        ms_of(version) > wall_ms(&c) + 7 * 3_600_000,
        "it had no other clock"
    );
    c.jump_hours(0, -8);
    c.run_ms(100);
    c.cluster.start(1);
    c.until("the other holds it", |c| {
        held(c, 1, "k").is_some_and(|s| s.accepted == Ballot(version))
    });
    let both = c.client();
    for n in 0..200 {
        c.put(both, &c.key_of(n % 2), "y");
        c.run_ms(50);
    }
    c.check();
}

/// A majority's clocks are hours ahead while a member is down, and are corrected again. The member
/// comes back, and a node without state joins: both follow the cluster's clock, though no wall
/// clock shows that time.
#[test]
pub fn b5_a_cluster_ahead_of_its_walls_takes_members_in() {
    let mut c = Script::shrinking(4, 1);
    let client = c.client_of(&[0, 1]);
    c.crash_hard(2);
    c.crash_hard(3);
    c.jump_hours(0, 8);
    c.jump_hours(1, 8);
    c.run_ms(3_000);
    let version = c.put(client, "k", "x");
    assert!(
        ms_of(version) > wall_ms(&c) + 7 * 3_600_000,
        "two of three are a quorum"
    );
    c.jump_hours(0, -8);
    c.jump_hours(1, -8);
    c.cluster.wipe(3);
    c.cluster.start(2);
    c.cluster.start(3);
    c.until("all are members", |c| c.are_all_members());
    c.run_ms(2_000);
    for node in 0..4 {
        assert!(held(&c, node, "k").is_some(), "node {node} holds it");
    }
    let all = c.client();
    for n in 0..100 {
        c.put(all, &c.key_of(n % 4), "y");
        c.run_ms(50);
    }
    c.check();
}

/// Each node alone accepts a write of a key that all hold, within the delay that clocks may cause.
fn all_serve(c: &mut Script, nodes: &[usize]) {
    c.run_ms(5_000);
    for node in nodes {
        let client = c.client_of(&[*node]);
        for key in ["k", &c.key_of(nodes[0]), &c.key_of(nodes[1])] {
            c.put(client, key, "y");
            assert_eq!(c.get(client, key), "y");
        }
    }
}

/// Two of three clocks were hours ahead while the third node was down. The clocks are corrected,
/// one of the two nodes stops, and the third comes back. No clock that it knows shows such a time,
/// and only one node holds what was written then.
#[test]
pub fn b5_the_only_one_that_was_ahead_and_one_that_was_away() {
    let mut c = Script::new(3);
    let client = c.client_of(&[0, 1]);
    c.crash_hard(2);
    c.jump_hours(0, 8);
    c.jump_hours(1, 8);
    c.run_ms(3_000);
    let version = c.put(client, "k", "x");
    assert!(ms_of(version) > wall_ms(&c) + 7 * 3_600_000, "two of three");
    c.jump_hours(0, -8);
    c.jump_hours(1, -8);
    c.crash_hard(1);
    // The stopped node's last row expires.
    c.run_ms(2_000);
    c.cluster.start(2);
    all_serve(&mut c, &[0, 2]);
    c.check();
}

/// One member's hybrid clock is hours ahead of the others'. The others still serve what it promised
/// and what it coordinates.
#[test]
pub fn b5_a_member_far_ahead_is_followed() {
    for hours in [2, 24, 24 * 300] {
        let mut c = Script::new(3);
        let client = c.client();
        c.put(client, "k", "x");
        let ahead_ms = wall_ms(&c) + hours * 3_600_000;
        set_ceiling(&mut c, 1, from_ms(ahead_ms));
        // The node promises its own ballots, which no other node accepts yet.
        c.run_ms(400);
        for key in ["k", &c.key_of(0), &c.key_of(1)] {
            let early = c.client_of(&[1]);
            c.begin(early, key, put("early"));
        }
        c.crash_hard(2);
        all_serve(&mut c, &[0, 1]);
        // Short rounds of the other keys continue from the earlier ballots.
        let version = c.put(client, "new", "z");
        assert!(ms_of(version) >= ahead_ms, "{hours} hours");
        c.check();
    }
}

/// The clock of one member is years ahead. The others never follow it, however long that lasts, and
/// serve.
#[test]
pub fn b5_a_member_years_ahead_is_not_followed() {
    let mut c = Script::new(3);
    let client = c.client_of(&[0, 2]);
    c.put(client, "k", "x");
    let ahead_ms = wall_ms(&c) + 2 * 366 * 24 * 3_600_000;
    set_ceiling(&mut c, 1, from_ms(ahead_ms));
    c.run_ms(10_000);
    c.isolate(1);
    c.run_ms(1_000);
    for node in [0, 2] {
        let version = c.put(client, &c.key_of(node), "y");
        assert!(ms_of(version) <= wall_ms(&c) + 61_000);
    }
    c.check();
}

/// A member sends rows in which all nodes are at a time far ahead: no node takes one member's
/// report for that of a quorum, neither for hybrid clocks nor for wall clocks.
#[test]
pub fn b5_a_member_that_speaks_for_the_others() {
    // All at once; or the wall clocks first, which would bring the hybrid ones within the bound.
    for (hours, in_steps) in [
        (1, false),
        (24 * 300, false),
        (24 * 366 * 190, false),
        (1, true),
    ] {
        let mut c = Script::new(3);
        let client = c.client();
        c.put(client, "k", "x");
        for beat in 0..60 {
            let ahead_ms = wall_ms(&c) + hours * 3_600_000;
            let reading = from_ms(ahead_ms) + beat;
            for (to, other) in [(0, 1), (1, 0)] {
                let row = last_row(&c, other, to);
                if in_steps {
                    let near = (row.clock + 1, ahead_ms);
                    speak_for_others(&mut c, to, row.clone(), near);
                }
                speak_for_others(&mut c, to, row, (reading, ahead_ms));
            }
            c.run_ms(45);
        }
        is_within_bound(&mut c, client, "after it");
        c.check();
    }
}

/// Node 2 reports these clocks, hybrid and wall, in its own row and in that of another node.
fn speak_for_others(c: &mut Script, to: usize, row: Row, (clock, wall_ms): (Reading, u64)) {
    forge(c, msg("Heartbeat").from(2).to(to), |m| {
        let Message::Heartbeat(Heartbeat { rows, .. }) = m else {
            unreachable!()
        };
        rows.truncate(1);
        rows.push(row);
        for row in rows {
            row.clock = clock;
            row.wall_ms = wall_ms;
        }
    });
}

/// The last row about itself that a node sent to another one.
fn last_row(c: &Script, from: usize, to: usize) -> Row {
    let last = c.sent(msg("Heartbeat").from(from).to(to)).pop();
    let last = last.expect("a heartbeat was sent");
    let Some(Message::Heartbeat(heartbeat)) = last.envelope().map(|e| &e.message) else {
        unreachable!("a heartbeat was picked")
    };
    heartbeat.rows[0].clone()
}

/// A quorum's clocks are near the largest reading. A node that receives this continues with its own
/// clock.
#[test]
pub fn b5_a_quorum_near_the_end_is_not_followed() {
    let mut c = Script::new(5);
    let client = c.client();
    c.put(client, "k", "x");
    let near = READING_LAST - from_ms(24 * 3_600_000);
    for node in [2, 3, 4] {
        set_ceiling(&mut c, node, near);
    }
    c.run_ms(5_000);
    for node in [0, 1] {
        let last = c.sent(msg("Heartbeat").from(node).to(1 - node)).pop();
        assert!(last.is_some());
        assert!(last_row(&c, node, 1 - node).clock < from_ms(wall_ms(&c) + 61_000));
    }
}

/// Births at future times are refused, and do not move the clock.
#[test]
pub fn b5_births_too_far_ahead_are_refused() {
    let mut c = Script::new(3);
    let client = c.client();
    c.put(client, "k", "x");
    let mut hand = c.hand();
    let year_2200_ms = 7_258_118_400_000;
    let births = [
        READING_SANE_MAX,
        READING_LAST,
        from_ms(year_2200_ms),
        from_ms(wall_ms(&c) + 65_000),
    ];
    for birth in births {
        for node in 0..3 {
            for retry in [false, true] {
                let mut operation = c.operation(&mut hand, "k", put("y"));
                operation.birth = birth;
                let answer = c.ask(&mut hand, node, &operation, retry);
                assert!(matches!(answer, Outcome::Ahead { .. }), "{answer:?}");
            }
        }
    }
    assert_eq!(c.get(client, "k"), "x");
    for node in 0..3 {
        c.restart(node);
    }
    c.run_ms(1_000);
    is_within_bound(&mut c, client, "after it");
    c.check();
}

/// A client advances a node's clock as far as the bound allows: the others follow, and the bound is
/// not extended by another minute.
#[test]
pub fn b5_births_do_not_add_up() {
    let mut c = Script::new(3);
    let client = c.client();
    let mut hand = c.hand();
    for n in 0..300 {
        let mut operation = c.operation(&mut hand, &c.key_of(n % 3), put("y"));
        operation.birth = from_ms(wall_ms(&c) + 60_500);
        let answer = c.ask(&mut hand, n % 3, &operation, false);
        assert!(matches!(answer, Outcome::Written { .. }), "{answer:?}");
        operation = c.operation(&mut hand, "k", put("y"));
        operation.birth = from_ms(wall_ms(&c) + 62_000);
        let answer = c.ask(&mut hand, n % 3, &operation, false);
        assert!(matches!(answer, Outcome::Ahead { .. }), "{answer:?}");
    }
    is_within_bound(&mut c, client, "after it");
    c.check();
}

/// Changes the last message of that kind, and delivers it.
#[track_caller]
fn forge(c: &mut Script, pick: Pick, change: impl FnOnce(&mut Message)) {
    let mut last = c.sent(pick).pop().expect("such a message was sent");
    let Parcel::Peer { envelope, .. } = &mut last.parcel else {
        panic!("{last:?} is no message between nodes");
    };
    change(&mut envelope.message);
    c.cluster.deliver(100, last);
    c.run_ms(1);
}

/// A member reports the largest reading in every possible way. No node follows it, and nothing is
/// promised.
#[test]
pub fn b5_a_member_that_tells_of_the_end_of_time() {
    let mut c = Script::new(3);
    let client = c.client();
    let key = c.key_of(2);
    c.put(client, &key, "x");
    c.crash_hard(1);
    c.put(client, &key, "y");
    c.cluster.start(1);
    c.run_ms(1_000);
    for reading in [
        READING_SANE_MAX,
        READING_LAST,
        from_ms(wall_ms(&c) + 3_600_000),
    ] {
        let ballot = Ballot::new(reading, 3);
        for to in [0, 1] {
            forge(&mut c, msg("Heartbeat").from(2).to(to), |m| {
                let Message::Heartbeat(Heartbeat { rows, .. }) = m else {
                    unreachable!()
                };
                rows[0].clock = reading;
            });
            forge(&mut c, msg("Heartbeat").from(2).to(to), |m| {
                let key = user_key(&key);
                *m = Prepare { key, ballot }.into();
            });
            forge(&mut c, msg("Heartbeat").from(2).to(to), |m| {
                *m = CopyAck {
                    key: user_key(&key),
                    ballot,
                    refused_for: Some(ballot),
                }
                .into();
            });
            forge(&mut c, msg("Heartbeat").from(2).to(to), |m| {
                *m = Nack {
                    ballot,
                    promised: ballot,
                }
                .into();
            });
            forge(&mut c, msg("Heartbeat").from(2).to(to), |m| {
                let floor = ballot;
                *m = Promise {
                    ballot,
                    accepted: Ballot::ZERO,
                    record: None,
                    floor,
                }
                .into();
            });
        }
    }
    c.run_ms(100);
    is_within_bound(&mut c, client, "after it");
    for node in 0..3 {
        c.restart(node);
    }
    c.run_ms(1_000);
    is_within_bound(&mut c, client, "all started again");
    c.check();
}

/// Makes all of a node's clock start at that ceiling.
fn set_ceiling(c: &mut Script, node: usize, ceiling: u64) {
    c.crash_hard(node);
    let disk = &mut c.cluster.nodes[node].disk;
    let synced = disk.synced();
    let group = Group {
        number: synced.group + 1,
        meta: Some(Meta {
            ceiling,
            ..synced.meta.clone()
        }),
        ..Group::default()
    };
    disk.write(group);
    disk.end_sync();
    c.cluster.start(node);
}

/// A clock near its end: the node serves, or it reports that its clock has ended and does nothing
/// more. In either case everything that it sends and writes can be decoded again (the simulator
/// checks that), also at its own next start.
#[test]
pub fn b5_a_clock_near_its_end() {
    let minute = from_ms(60_000);
    let ceilings = [
        READING_LAST - 60 * minute,
        READING_LAST - minute,
        READING_LAST - from_ms(1_000),
        READING_LAST - 1,
        READING_LAST,
        READING_SANE_MAX,
        READING_MAX - 1,
    ];
    for ceiling in ceilings {
        for nodes in [1, 3] {
            let mut c = Script::new(nodes);
            let client = c.client();
            c.put(client, "k", "x");
            for start in 0..3 {
                let last = c.nodes[0].disk.synced().meta.ceiling.max(ceiling);
                (0..nodes).for_each(|node| set_ceiling(&mut c, node, last));
                c.run_ms(500);
                let call = c.begin(client, "k", put(&format!("{start}")));
                c.run_ms(6_000);
                if ceiling < READING_LAST - minute {
                    assert!(matches!(c.end(call), Outcome::Written { .. }), "{ceiling}");
                } else if ceiling >= READING_LAST {
                    assert!(
                        c.nodes.iter().all(|n| n.timer_us().is_none()),
                        "it has ended"
                    );
                }
            }
            c.check();
        }
    }
}

/// A wall clock beyond the largest reading is not followed: nothing is written with that time.
#[test]
pub fn b5_a_wall_clock_beyond_the_end() {
    let mut c = Script::new(1);
    let client = c.client();
    c.put(client, "k", "x");
    c.jump_hours(0, 24 * 366 * 400);
    c.begin(client, "k", put("y"));
    c.run_ms(1_000);
    assert!(c.nodes[0].timer_us().is_none(), "the node has ended");
    c.jump_hours(0, -24 * 366 * 400);
    c.restart(0);
    c.run_ms(10_000);
    is_within_bound(&mut c, client, "set right");
    c.check();
}
