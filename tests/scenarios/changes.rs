//! E2 to E5: configurations that adapt to failures.

use horseshoe::protocol::types::message::{Configuration, NodeId};

use crate::sim::cluster::Cluster;
use crate::sim::script::{Script, append, msg, user_key};
use wire::Action;

/// The configuration of these nodes, if all have installed the same one.
fn installed(cluster: &Cluster, nodes: &[usize]) -> Option<Configuration> {
    let of = |node: usize| {
        cluster.nodes[node]
            .replica
            .as_ref()?
            .configuration()
            .cloned()
    };
    let first = of(nodes[0])?;
    nodes
        .iter()
        .all(|n| of(*n).as_ref() == Some(&first))
        .then_some(first)
}

pub fn has_members(cluster: &Cluster, nodes: &[usize], members: &[NodeId]) -> bool {
    installed(cluster, nodes).is_some_and(|c| {
        let ids: Vec<NodeId> = c.members.iter().map(|m| m.node).collect();
        c.joint.is_none() && ids == members
    })
}

/// Five nodes fail one by one; the last two serve. Then the others come back, and are ordered after
/// those that stayed.
#[test]
pub fn five_nodes_fail_one_by_one_and_come_back() {
    let mut c = Script::shrinking(5, 1);
    let client = c.client();
    c.put(client, "k", "0");
    c.crash_hard(0);
    c.until("four members", |c| {
        has_members(c, &[1, 2, 3, 4], &[2, 3, 4, 5])
    });
    c.run(client, "k", append("1"));
    c.crash_hard(3);
    c.until("three members", |c| has_members(c, &[1, 2, 4], &[2, 3, 5]));
    c.run(client, "k", append("2"));
    c.crash_hard(1);
    c.run_ms(3_000);
    c.run(client, "k", append("3"));
    assert!(has_members(&c, &[2, 4], &[2, 3, 5]), "no fewer than three");
    for node in [0, 1, 3] {
        c.cluster.start(node);
    }
    c.until("five members", |c| {
        let all = installed(c, &[0, 1, 2, 3, 4]);
        all.is_some_and(|all| all.joint.is_none() && all.members.len() == 5)
    });
    let last = installed(&c, &[0]).unwrap();
    let first: Vec<NodeId> = last.members[..3].iter().map(|m| m.node).collect();
    assert_eq!(first, [2, 3, 5], "who comes goes last");
    assert_eq!(c.get(client, "k"), "0123");
    c.check();
}

pub fn are_all_members(cluster: &Cluster) -> bool {
    let all: Vec<usize> = (0..cluster.nodes.len()).collect();
    let installed = installed(cluster, &all);
    installed.is_some_and(|c| c.joint.is_none() && c.members.len() == all.len())
}

/// Whether none of these nodes has any state of the key on its disk.
fn is_purged(cluster: &Cluster, nodes: &[usize], key: &str) -> bool {
    let has = |node: &usize| {
        let synced = cluster.nodes[*node].disk.synced();
        synced.registers.contains_key(&user_key(key))
    };
    !nodes.iter().any(has)
}

/// A coordinator gets a value accepted only by itself, and is removed. Writes of the others
/// meanwhile are newer to all readers, whatever state the node brings back.
#[test]
pub fn removed_member_returns_with_newer_unchosen_values() {
    let mut c = Script::shrinking(5, 1);
    let key = c.key_of(4);
    let (four, zero) = (c.client_of(&[4]), c.client_of(&[0]));
    c.put(zero, &key, "a");
    c.lose(msg("Accept").from(4).to(0));
    c.lose(msg("Accept").from(4).to(1));
    c.lose(msg("Accept").from(4).to(2));
    c.lose(msg("Accept").from(4).to(3));
    c.begin(four, &key, append("-lost"));
    c.run_ms(10);
    c.cluster.crash_client(four);
    c.crash_hard(4);
    c.let_pass();
    c.until("four members", |c| {
        has_members(c, &[0, 1, 2, 3], &[1, 2, 3, 4])
    });
    c.run(zero, &key, append("b"));
    c.cluster.start(4);
    c.until("five members", are_all_members);
    c.cut(&[2, 3, 4], &[0, 1]);
    c.run_ms(600);
    let late = c.client_of(&[2, 3, 4]);
    assert_eq!(c.get(late, &key), "ab");
    c.check();
}

/// Two nodes propose a change of the configuration at the same time: one change is made, then the
/// other.
#[test]
pub fn two_changes_at_once() {
    let mut c = Script::shrinking(5, 1);
    let client = c.client();
    c.put(client, "k", "0");
    c.hold(msg("Accept").from(0));
    c.crash_hard(4);
    c.until("somebody's change", |c| {
        installed(c, &[1]).is_some_and(|c| c.epoch > 1)
    });
    c.let_pass();
    c.crash_hard(3);
    c.release(msg("Accept"));
    c.until("three members", |c| has_members(c, &[0, 1, 2], &[1, 2, 3]));
    c.run(client, "k", append("1"));
    assert_eq!(c.get(client, "k"), "01");
    c.check();
}

/// The proposer of a change stops in the middle of it: another node completes it.
#[test]
pub fn an_interrupted_change_is_finished_by_others() {
    for stop_at in ["DigestsRequest", "ConfigurationUpdate", "Prepare"] {
        let mut c = Script::shrinking(5, 1);
        let client = c.client();
        c.put(client, "k", "0");
        c.crash_hard(4);
        c.until_sent(msg(stop_at).from(0));
        c.crash_hard(0);
        c.until("three members", |c| has_members(c, &[1, 2, 3], &[2, 3, 4]));
        c.run(client, "k", append("1"));
        c.cluster.start(0);
        c.cluster.start(4);
        c.until("five members", are_all_members);
        assert_eq!(c.get(client, "k"), "01");
        c.check();
    }
}

/// A member misses three epochs and more, and is a member of the last one as of the first.
#[test]
pub fn a_node_skips_three_epochs() {
    let mut c = Script::shrinking(5, 1);
    let client = c.client();
    c.put(client, "k", "0");
    // Only one node is reachable for it, so that it is not removed, and it receives nothing but
    // heartbeats.
    for name in ["ConfigurationUpdate", "Accept", "Prepare", "Copy"] {
        c.lose(msg(name).to(1));
    }
    c.crash_hard(4);
    c.until("four members", |c| {
        has_members(c, &[0, 2, 3], &[1, 2, 3, 4])
    });
    c.cluster.start(4);
    c.until("five members", |c| {
        installed(c, &[0, 2, 3, 4]).is_some_and(|c| c.joint.is_none() && c.members.len() == 5)
    });
    c.run(client, "k", append("1"));
    let of = |c: &Script| installed(c, &[1]).unwrap().epoch;
    assert_eq!(of(&c), 1);
    c.let_pass();
    c.until("the same configuration", are_all_members);
    assert!(of(&c) >= 5, "{}", of(&c));
    c.cut(&[1, 2, 4], &[0, 3]);
    c.run_ms(600);
    let late = c.client_of(&[1]);
    assert_eq!(c.get(late, "k"), "01");
    c.check();
}

/// All clients write the same keys while members are removed and admitted.
#[test]
pub fn a_change_while_all_are_writing() {
    let mut c = Script::shrinking(5, 1);
    let keys: Vec<String> = (0..5).map(|n| c.key_of(n)).collect();
    let clients: Vec<usize> = (0..4).map(|n| c.client_of(&[n])).collect();
    let mut calls = Vec::new();
    let mut write = |c: &mut Script, rounds: usize| {
        for round in 0..rounds {
            for (n, client) in clients.iter().enumerate() {
                let key = &keys[(n + round) % keys.len()];
                calls.push(c.begin(*client, key, append(&format!("{n}."))));
            }
            c.run_ms(5);
        }
    };
    write(&mut c, 20);
    c.crash_hard(4);
    write(&mut c, 300);
    assert!(has_members(&c, &[0, 1, 2, 3], &[1, 2, 3, 4]));
    c.cluster.start(4);
    write(&mut c, 600);
    assert!(are_all_members(&c));
    for call in calls {
        c.end(call);
    }
    c.check();
}

/// A key is deleted and purged while a node with its value is down, and stays deleted when the node
/// is back. E5: the state that the node kept is not a vote.
#[test]
pub fn e5_what_was_deleted_while_a_node_was_away_stays_deleted() {
    let mut c = Script::shrinking(5, 1);
    let client = c.client();
    c.put(client, "k", "old");
    c.run_ms(500);
    c.crash_hard(4);
    c.until("four members", |c| {
        has_members(c, &[0, 1, 2, 3], &[1, 2, 3, 4])
    });
    c.run(client, "k", Action::Delete);
    for _ in 0..3 {
        c.run_ms(9_000);
    }
    assert!(is_purged(&c, &[0, 1, 2, 3], "k"));
    c.cluster.start(4);
    c.until("five members", are_all_members);
    c.cut(&[2, 3, 4], &[0, 1]);
    c.run_ms(600);
    let late = c.client_of(&[4]);
    assert_eq!(c.get(late, "k"), "");
    c.check();
}

/// A request for admission is held back until its node was admitted and, while it was paused,
/// removed again. E4: the request admits no node. Otherwise the node would continue with the votes
/// of its earlier life.
#[test]
pub fn e4_an_old_request_admits_nobody() {
    let mut c = Script::shrinking(5, 1);
    let client = c.client();
    c.crash_hard(4);
    c.until("four members", |c| {
        has_members(c, &[0, 1, 2, 3], &[1, 2, 3, 4])
    });
    c.cluster.start(4);
    c.until("five members", are_all_members);
    c.put(client, "k", "old");
    c.run_ms(500);
    c.crash_hard(4);
    c.until("four members", |c| {
        has_members(c, &[0, 1, 2, 3], &[1, 2, 3, 4])
    });
    c.run(client, "k", Action::Delete);
    for _ in 0..3 {
        c.run_ms(9_000);
    }
    assert!(is_purged(&c, &[0, 1, 2, 3], "k"));
    for _ in 0..20 {
        c.repeat(msg("AdmissionRequest").from(4).to(0));
        c.run_ms(300);
    }
    assert!(has_members(&c, &[0, 1, 2, 3], &[1, 2, 3, 4]));
    c.cluster.start(4);
    c.until("five members", are_all_members);
    c.cut(&[2, 3, 4], &[0, 1]);
    c.run_ms(600);
    let late = c.client_of(&[4]);
    assert_eq!(c.get(late, "k"), "");
    c.check();
}

/// A node that fails repeatedly is admitted later each time; after ten quiet minutes as soon as the
/// first time.
#[test]
pub fn who_comes_and_goes_is_admitted_later_each_time() {
    let mut c = Script::shrinking(5, 1);
    let absence = |c: &mut Script| {
        c.crash_hard(4);
        c.until("four members", |c| {
            has_members(c, &[0, 1, 2, 3], &[1, 2, 3, 4])
        });
        c.cluster.start(4);
        let began_us = c.now_us;
        c.until("five members", are_all_members);
        (c.now_us - began_us) / 1_000
    };
    for steady_ms in [1_000, 2_000, 4_000] {
        let took_ms = absence(&mut c);
        let expected = steady_ms..steady_ms + 1_000;
        assert!(expected.contains(&took_ms), "{took_ms} ms for {steady_ms}");
    }
    c.run_ms(600_000);
    let took_ms = absence(&mut c);
    assert!((1_000..2_000).contains(&took_ms), "{took_ms} ms");
    c.check();
}

/// A coordinator whose clock is fast gets a value promised by two others, accepted by one of them,
/// and stops. Both stay members; the one that accepted it takes no part in the change, nor in the
/// write that follows. B3, E3: the base is above that value's ballot. Otherwise readers would take
/// the value that comes back last for the newest.
#[test]
pub fn b3_a_value_from_before_a_change_is_not_the_newest() {
    let mut c = Script::shrinking(5, 1);
    let key = c.key_of(4);
    let (zero, four) = (c.client_of(&[0]), c.client_of(&[4]));
    c.cluster.jump(4, 30_000);
    for far in [0, 1] {
        c.lose(msg("Prepare").from(4).to(far));
    }
    for far in [0, 1, 3] {
        c.lose(msg("Accept").from(4).to(far));
    }
    c.begin(four, &key, append("p"));
    c.until_sent(msg("Accepted").from(2).to(4));
    c.cluster.crash_client(four);
    c.crash_hard(4);
    c.let_pass();
    for name in [
        "Prepare",
        "Accept",
        "Read",
        "DigestsRequest",
        "BucketRequest",
        "ConfigurationUpdate",
    ] {
        c.lose(msg(name).to(2));
    }
    c.lose(msg("Forward"));
    c.until("four members", |c| {
        has_members(c, &[0, 1, 3], &[1, 2, 3, 4])
    });
    c.run(zero, &key, append("q"));
    c.let_pass();
    c.run_ms(2_000);
    c.cut(&[0, 2], &[1, 3]);
    c.run_ms(600);
    let late = c.client_of(&[2]);
    assert_eq!(c.get(late, &key), "q");
    c.check();
}

/// A member has not received a change, nor has the node that the change removed. Together with a
/// member that has installed it they would be a quorum of the old configuration, unknown to the new
/// one. R1: a node that has left an epoch takes no part in its rounds.
#[test]
pub fn r1_who_has_left_an_epoch_takes_no_part_in_it() {
    let mut c = Script::shrinking(5, 1);
    let key = c.key_of(1);
    let (zero, one) = (c.client_of(&[0]), c.client_of(&[1]));
    c.put(zero, &key, "a");
    c.run_ms(500);
    for behind in [1, 3] {
        c.lose(msg("ConfigurationUpdate").to(behind));
    }
    c.lose(msg("Forward"));
    c.crash_hard(3);
    c.until("four members", |c| {
        has_members(c, &[0, 2, 4], &[1, 2, 3, 5])
    });
    c.cluster.start(3);
    c.run_ms(400);
    for far in [0, 4] {
        for name in ["Prepare", "Accept", "Copy"] {
            c.lose(msg(name).from(1).to(far));
        }
    }
    let call = c.begin(one, &key, append("b"));
    c.run_ms(300);
    if c.is_open(call) {
        c.let_pass();
        c.end(call);
    }
    c.cut(&[0, 4], &[1, 2, 3]);
    let late = c.client_of(&[0]);
    assert_eq!(c.get(late, &key), "ab");
    c.check();
}

/// In the middle of a change another member fails. E2: the change is completed, and records that
/// only a quorum of the old configuration holds are copied to the new one, before there is another
/// change.
#[test]
pub fn e2_one_change_after_the_other() {
    let mut c = Script::shrinking(5, 1);
    let key = c.key_of(2);
    let (zero, two) = (c.client_of(&[0]), c.client_of(&[2]));
    c.put(zero, &key, "a");
    c.run_ms(500);
    let lose_copies = |c: &mut Script| {
        for name in ["Copy", "CopiesRequest"] {
            c.lose(msg(name));
        }
    };
    lose_copies(&mut c);
    for far in [0, 1] {
        c.lose(msg("Accept").from(2).to(far));
    }
    c.run(two, &key, append("b"));
    c.hold(msg("DigestsRequest"));
    c.crash_hard(4);
    c.until("a joint configuration", |c| {
        installed(c, &[0, 1, 2, 3]).is_some_and(|c| c.joint.is_some())
    });
    c.crash_hard(3);
    c.run_ms(1_800);
    c.let_pass();
    lose_copies(&mut c);
    c.until("three members", |c| has_members(c, &[0, 1, 2], &[1, 2, 3]));
    c.cut(&[0, 1], &[2]);
    c.run_ms(600);
    assert_eq!(c.get(zero, &key), "ab");
    c.check();
}
