//! E1, E6: which nodes have a vote, and how the first configuration is formed.

use wire::{Action, Outcome};

use crate::sim::script::{Script, msg};

/// A node that lost its state and kept its vote would, alone, lose an acknowledged write.
#[test]
pub fn e1_node_that_forgot_has_no_vote() {
    let mut c = Script::new(3);
    let (key, client) = (c.key_of(0), c.client());
    c.isolate(2);
    c.put(client, &key, "kept");
    c.restart_empty(1);
    c.heal();
    c.isolate(0);
    c.run_ms(1_000);
    let late = c.client_of(&[1, 2]);
    let refused = c.run(late, &key, Action::Get);
    assert!(matches!(refused, Outcome::NoQuorum { .. }), "{refused:?}");
    c.heal();
    c.run_ms(300);
    assert_eq!(c.get(client, &key), "kept");
    c.check();
}

/// A node whose disk was rolled back keeps neither its vote nor its incarnation once it learns of
/// the start that its disk does not count; it is a member again when it has caught up.
#[test]
pub fn e1_disk_that_was_rolled_back_has_no_vote() {
    let mut c = Script::shrinking(5, 1);
    let client = c.client();
    c.put(client, "k", "old");
    c.crash_hard(4);
    let copy = c.cluster.nodes[4].disk.clone();
    let own = copy.incarnation();
    c.cluster.start(4);
    c.run_ms(1_000);
    c.put(client, "k", "new");
    c.restart(4);
    c.run_ms(1_000);
    assert_eq!(
        c.cluster.nodes[4].disk.incarnation(),
        own,
        "it counts its starts"
    );
    c.roll_back(4, copy);
    c.until("somebody new", |c| c.nodes[4].disk.incarnation() != own);
    c.until("a member again", |c| {
        let disk = &c.nodes[4].disk;
        let configuration = disk.synced().meta.configuration.as_ref();
        configuration.is_some_and(|c| {
            let voter = c.voter(5).map(|m| m.incarnation);
            c.joint.is_none() && voter == Some(disk.incarnation())
        })
    });
    c.isolate(0);
    c.isolate(1);
    let late = c.client_of(&[2, 3, 4]);
    assert_eq!(c.get(late, "k"), "new");
    c.check();
}

/// The copy misses only one start, so that with the present start its count equals the highest that
/// was reported.
#[test]
pub fn e1_disk_that_was_rolled_back_by_one_start_has_no_vote() {
    let mut c = Script::shrinking(5, 1);
    let client = c.client();
    c.put(client, "k", "old");
    c.crash_hard(4);
    let copy = c.cluster.nodes[4].disk.clone();
    let own = copy.incarnation();
    c.cluster.start(4);
    c.run_ms(1_000);
    c.put(client, "k", "new");
    c.roll_back(4, copy);
    c.until("somebody new", |c| c.nodes[4].disk.incarnation() != own);
    c.check();
}

/// The first node forms a configuration, loses its state before any other node receives it, and
/// queries the nodes again. Their commitments are to the incarnation that is gone.
#[test]
pub fn e6_first_node_restarts_empty_in_between() {
    let mut c = Script::cold(3);
    c.hold(msg("ConfigurationUpdate").from(0));
    c.cluster.start_all();
    c.until("the first configuration", |c| c.held.len() >= 2);
    c.restart_empty(0);
    c.run_ms(2_000);
    c.let_pass();
    c.run_ms(500);
    assert_ne!(c.release(msg("ConfigurationUpdate")), 0);
    c.run_ms(1_000);
    let client = c.client();
    c.put(client, "k", "v");
    assert_eq!(c.get(client, "k"), "v");
    c.check();
}

/// A query of an earlier incarnation of the first node arrives late: it commits no node.
#[test]
pub fn e6_a_question_of_an_earlier_life_binds_nobody() {
    let mut c = Script::cold(3);
    c.hold(msg("Survey"));
    c.cluster.start_all();
    c.run_ms(250);
    c.restart_empty(0);
    c.release(msg("Survey"));
    c.run_ms(50);
    c.let_pass();
    c.until("the first configuration", |c| c.is_formed());
    c.run_ms(300);
    let client = c.client();
    c.put(client, "k", "v");
    c.check();
}

/// A node gives its commitment and loses its state before the configuration is formed. The
/// configuration names the lost incarnation, so the new one has no vote: the node cannot be counted
/// twice.
#[test]
pub fn e6_who_restarts_empty_in_between_has_no_vote() {
    let mut c = Script::cold(3);
    c.cluster.start_all();
    c.until_sent(msg("SurveyAnswer").from(2));
    c.lose(msg("SurveyAnswer").from(2));
    c.run_ms(300);
    c.restart_empty(1);
    c.let_pass();
    c.until("the first configuration", |c| c.is_formed());
    c.run_ms(300);
    assert_eq!(c.vote_of(1), None);
    let client = c.client();
    c.put(client, "k", "v");
    c.isolate(2);
    c.run_ms(1_000);
    let refused = c.run(client, "k", Action::Get);
    assert!(matches!(refused, Outcome::NoQuorum { .. }), "{refused:?}");
    c.check();
}
