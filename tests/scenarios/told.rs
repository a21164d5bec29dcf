//! How nodes that were down, or have lost their state, learn of the configuration, and are
//! admitted.

use wire::Change;

use super::changes::has_members;
use super::operator::begin;
use crate::sim::network::Place;
use crate::sim::script::Script;

/// A node that was down receives from one member, and another member receives from it: the
/// configuration takes the way around.
#[test]
pub fn where_links_work_one_way_who_was_away_is_told() {
    let mut c = Script::shrinking(4, 1);
    let client = c.client_of(&[0]);
    c.put(client, "k", "x");
    c.isolate(3);
    c.until("three members", |c| has_members(c, &[0, 1, 2], &[1, 2, 3]));
    c.heal_nodes();
    let mut cut = Vec::new();
    for node in 0..3 {
        if node != 0 {
            cut.push((Place::Node(node), Place::Node(3)));
        }
        if node != 1 {
            cut.push((Place::Node(3), Place::Node(node)));
        }
    }
    c.cluster.network.cut(&cut);
    c.until("four members", |c| {
        has_members(c, &[0, 1, 2, 3], &[1, 2, 3, 4])
    });
    c.check();
}

/// The other listed nodes were replaced when the first comes back without state: it knows no node
/// to ask, and forms no second cluster even though the others all come back empty, too.
#[test]
pub fn who_lost_its_state_is_told_by_nodes_that_it_does_not_know() {
    let mut c = Script::cold(5);
    c.cluster.settings.listed = 3;
    for node in 0..3 {
        c.cluster.start(node);
    }
    c.until("a configuration", |c| {
        (0..3).all(|n| c.vote_of(n).is_some())
    });
    let client = c.client();
    c.put(client, "k", "x");
    let operator = c.client_of(&[0]);
    c.get(operator, "k");
    for (old, new) in [(1, 3), (2, 4)] {
        c.cluster.start(new);
        let address = crate::sim::cluster::address(new);
        let node = old as u8 + 1;
        let change = Change::Replace { node, address };
        begin(&mut c, operator, 0, change.clone());
        c.until("the new one is in", |c| c.vote_of(new).is_some());
        c.run_ms(500);
        begin(&mut c, operator, 0, change);
        c.until("the old one is out", |c| c.vote_of(old).is_none());
        c.run_ms(1_000);
        c.crash_hard(old);
        c.cluster.wipe(old);
    }
    let cluster = c.nodes[0].replica.as_ref().unwrap().cluster();
    c.crash_hard(0);
    c.cluster.wipe(0);
    c.run_ms(1_000);
    for node in 0..3 {
        c.cluster.start(node);
    }
    c.until("the first is back", |c| c.vote_of(0).is_some());
    assert_eq!(c.nodes[0].replica.as_ref().unwrap().cluster(), cluster);
    assert_eq!(c.get(client, "k"), "x");
    c.check();
}

/// The cluster was formed by two of three; one of them fails before the third comes, which replaces
/// it.
#[test]
pub fn a_third_takes_the_place_of_the_second() {
    let mut c = Script::cold(3);
    c.cluster.settings.bootstrap = true;
    c.cluster.settings.shrink_after_ms = 1_000;
    c.cluster.start(0);
    c.cluster.start(1);
    c.until("a configuration of two", |c| {
        (0..2).all(|n| c.vote_of(n).is_some())
    });
    let client = c.client_of(&[0, 2]);
    c.put(client, "k", "x");
    c.crash_hard(1);
    c.cluster.start(2);
    c.until("the third is in", |c| has_members(c, &[0, 2], &[1, 3]));
    c.cluster.start(1);
    c.until("all three are", |c| has_members(c, &[0, 1, 2], &[1, 3, 2]));
    assert_eq!(c.get(client, "k"), "x");
    c.check();
}
