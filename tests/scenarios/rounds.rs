//! Q1, R2, R3: quorums, durability and rounds.

use wire::Outcome;

use crate::sim::event::Parcel;
use crate::sim::script::{Script, append, msg, put};

/// Four nodes, split two and two: only the master's half serves.
#[test]
pub fn q1_half_with_the_master_is_a_quorum() {
    let mut c = Script::new(4);
    let key = c.key_of(0);
    let (with, without) = (c.client_of(&[0, 1]), c.client_of(&[2, 3]));
    c.put(with, &key, "before");
    c.cut(&[0, 1], &[2, 3]);
    c.run_ms(600);
    let refused = c.run(without, &key, put("no"));
    assert!(matches!(refused, Outcome::NoQuorum { .. }), "{refused:?}");
    c.put(with, &key, "yes");
    c.heal();
    c.run_ms(300);
    assert_eq!(c.get(without, &key), "yes");
    c.check();
}

/// An acceptor answers when its state is on disk, not before: a crash right after the
/// acknowledgement loses nothing.
#[test]
pub fn r2_an_answer_waits_for_the_disk() {
    let mut c = Script::new(3);
    let (key, writer, client) = (c.key_of(0), c.client_of(&[0]), c.client());
    c.cut(&[0, 1], &[2]);
    c.slow_disk(1, 500);
    let call = c.begin(writer, &key, put("a"));
    c.run_ms(300);
    assert!(c.is_open(call), "nobody but node 0 has it on disk");
    assert!(matches!(c.end(call), Outcome::Written { .. }));
    c.restart(1);
    c.heal();
    c.isolate(0);
    c.slow_disk(1, 1);
    c.run_ms(600);
    assert_eq!(c.get(client, &key), "a");
    c.check();
}

/// Node 1 writes through node 2 while node 0, which may run a short round, does not know it. With
/// any ballot other than the immediate successor, node 2 would take node 0's write for the newest.
#[test]
pub fn r3_a_short_round_is_exactly_the_next_ballot() {
    let mut c = Script::new(3);
    let key = c.key_of(0);
    let (zero, one) = (c.client_of(&[0]), c.client_of(&[1]));
    c.run(zero, &key, append("a"));
    // Nothing that a round needs passes between 0 and 1; the nodes stay reachable for each other.
    for name in ["Prepare", "Accept", "Forward"] {
        c.lose(msg(name).from(0).to(1));
        c.lose(msg(name).from(1).to(0));
    }
    c.lose(msg("Chosen"));
    c.lose(msg("Promise").from(0).to(1));
    c.run(one, &key, append("b"));
    c.run(zero, &key, append("c"));
    c.let_pass();
    c.run_ms(100);
    assert_eq!(c.get(zero, &key), "abc");
    c.check();
}

/// A coordinator whose ballot was refused starts again with a full round, and so reads the current
/// record.
#[test]
pub fn r3_after_doubt_a_full_round() {
    let mut c = Script::new(3);
    let key = c.key_of(0);
    let (zero, one) = (c.client_of(&[0]), c.client_of(&[1]));
    c.run(zero, &key, append("a"));
    c.lose(msg("Forward"));
    c.run(one, &key, append("b"));
    let prepares = c.sent(msg("Prepare").from(0)).len();
    c.run(zero, &key, append("c"));
    assert!(c.sent(msg("Prepare").from(0)).len() > prepares);
    assert_eq!(c.get(one, &key), "abc");
    c.check();
}

/// Node 2's answer is lost, and node 0's own vote is not on its disk yet. A forged answer from node
/// 1 that names node 0 as its sender does not make a quorum of the two.
#[test]
pub fn r2_a_forged_answer_of_ones_own_does_not_count() {
    let mut c = Script::new(3);
    let (key, client) = (c.key_of(0), c.client_of(&[0]));
    c.put(client, &key, "old");
    c.lose(msg("Accepted").from(2));
    c.slow_disk(0, 1_000);
    let call = c.begin(client, &key, put("new"));
    c.run_ms(50);
    let answers = c.sent(msg("Accepted").from(1));
    let mut forged = answers.last().expect("it answers").clone();
    let Parcel::Peer { envelope, .. } = &mut forged.parcel else {
        unreachable!("sent by a node");
    };
    envelope.origin = 1;
    envelope.incarnation = c.nodes[0].disk.incarnation();
    c.cluster.deliver(100, forged);
    c.run_ms(20);
    assert!(c.is_open(call));
    let outcome = c.end(call);
    assert!(matches!(outcome, Outcome::Written { .. }), "{outcome:?}");
    c.check();
}
