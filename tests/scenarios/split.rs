//! E8: a cluster that was forced on both sides of a split.

use kvclient::session::{Question, Told};
use kvclient::wire::{Change, ChangeOutcome, Outcome};

use super::changes::has_members;
use super::operator::{ask, epoch, question};
use crate::sim::script::{Script, append};

fn force(c: &mut Script, client: usize, node: usize, nodes: &[u8]) -> u64 {
    let change = Change::Force {
        nodes: nodes.to_vec(),
        epoch: epoch(c, node),
        despite_quorum: false,
    };
    match ask(c, client, node, change) {
        ChangeOutcome::Started { epoch, .. } => epoch,
        other => panic!("{other:?}"),
    }
}

/// What a node's status says that it waits for.
pub fn waits_for(c: &mut Script, client: usize, node: usize) -> String {
    match question(c, client, node, Question::Status) {
        Told::Status(status) => status.waits_for,
        other => panic!("{other:?}"),
    }
}

fn is_refused(c: &mut Script, client: usize) -> bool {
    matches!(c.run(client, "k", append("?")), Outcome::NoQuorum { .. })
}

/// Forced on both sides, and each side goes on to change its members. When they hear of each other
/// neither serves, whoever hears whom; a further force makes one of the two.
#[test]
pub fn e8_who_was_forced_on_both_sides_serves_on_none() {
    let mut c = Script::shrinking(5, 1);
    let (a, b) = (c.client_of(&[0, 1]), c.client_of(&[2, 3]));
    c.put(a, "k", "");
    c.cut(&[0, 1], &[2, 3, 4]);
    c.cut(&[2, 3], &[4]);
    c.run_ms(1_000);
    let of_a = force(&mut c, a, 0, &[1, 2]);
    let of_b = force(&mut c, b, 2, &[3, 4]);
    assert_ne!(of_a >> 28, of_b >> 28, "of one lineage");
    c.heal_nodes();
    c.cut(&[0, 1, 4], &[2, 3]);
    c.run_ms(8_000);
    assert!(has_members(&c, &[0, 1, 4], &[1, 2, 5]));
    c.run(a, "k", append("a"));
    c.run(b, "k", append("b"));
    // One of each hears one of the other.
    c.heal_nodes();
    c.cut(&[0, 4], &[2, 3]);
    c.cut(&[1], &[3]);
    c.run_ms(1_000);
    assert!(is_refused(&mut c, a) && is_refused(&mut c, b));
    c.heal_nodes();
    c.run_ms(30_000);
    assert!(is_refused(&mut c, a) && is_refused(&mut c, b));
    let told = waits_for(&mut c, a, 0);
    assert!(
        told.contains("node0:7000") && told.contains("node3:7000"),
        "{told}"
    );
    force(&mut c, a, 0, &[1, 2, 5]);
    c.run_ms(15_000);
    let all: Vec<usize> = (0..5).collect();
    assert!(has_members(&c, &all, &[1, 2, 5, 3, 4]) || has_members(&c, &all, &[1, 2, 5, 4, 3]));
    assert_eq!(c.get(a, "k"), "a");
    assert_eq!(c.get(b, "k"), "a");
    c.put(b, "k", "both");
    assert_eq!(c.get(a, "k"), "both");
}

/// A side that was not forced gives way to one that was, and so does who was forced before.
#[test]
pub fn e8_a_force_on_one_side_is_no_split() {
    let mut c = Script::new(3);
    let client = c.client_of(&[0]);
    c.put(client, "k", "0");
    c.cut(&[0], &[1, 2]);
    c.run_ms(1_000);
    let first = force(&mut c, client, 0, &[1]);
    c.run_ms(500);
    c.heal_nodes();
    c.until("three members", |c| {
        has_members(c, &[0, 1, 2], &[1, 2, 3]) || has_members(c, &[0, 1, 2], &[1, 3, 2])
    });
    c.cut(&[0], &[1, 2]);
    c.run_ms(1_000);
    let second = force(&mut c, client, 0, &[1]);
    assert!(second > first);
    c.run_ms(500);
    c.heal_nodes();
    c.until("three members", |c| {
        has_members(c, &[0, 1, 2], &[1, 2, 3]) || has_members(c, &[0, 1, 2], &[1, 3, 2])
    });
    assert_eq!(c.get(client, "k"), "0");
}
