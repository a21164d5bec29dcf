//! E6 with `--bootstrap`: more than half of the list is enough.

use crate::sim::script::{Script, msg};

fn cold(nodes: usize) -> Script {
    let mut script = Script::cold(nodes);
    script.cluster.settings.bootstrap = true;
    script
}

fn has_configuration(c: &Script, node: usize) -> bool {
    let replica = c.cluster.nodes[node].replica.as_ref();
    replica.is_some_and(|r| r.configuration().is_some())
}

/// Half of the list, or less, never forms a cluster; more than half does, and the others are
/// admitted when they come.
#[test]
pub fn e6_more_than_half_of_the_list_will_do() {
    let mut c = cold(5);
    c.cluster.start(0);
    c.cluster.start(1);
    c.run_ms(20_000);
    assert!(!has_configuration(&c, 0));
    c.cluster.start(2);
    c.run_ms(2_000);
    assert!(!has_configuration(&c, 0), "another one may come");
    c.until("a configuration of three", |c| {
        (0..3).all(|node| c.vote_of(node).is_some())
    });
    let client = c.client();
    c.put(client, "k", "v");
    c.cluster.start(3);
    c.cluster.start(4);
    c.until("five members", |c| (0..5).all(|n| c.vote_of(n).is_some()));
    assert_eq!(c.get(client, "k"), "v");
    c.check();
}

/// If all nodes are up, there is no wait.
#[test]
pub fn e6_all_of_the_list_are_not_waited_for() {
    let mut c = cold(3);
    c.cluster.start_all();
    c.run_ms(1_500);
    assert!(c.cluster.is_formed());
    c.check();
}

/// A node gave its commitment, and its answer was lost: it is a non-member in the configuration
/// that is formed without it, installs that one, and is admitted.
#[test]
pub fn e6_a_word_that_was_not_heard_binds_to_the_same_cluster() {
    let mut c = cold(3);
    c.cluster.start_all();
    c.until_sent(msg("SurveyAnswer").from(2));
    c.lose(msg("SurveyAnswer").from(2));
    c.until("a configuration of two", |c| {
        (0..2).all(|node| c.vote_of(node).is_some())
    });
    c.let_pass();
    c.until("three members", |c| (0..3).all(|n| c.vote_of(n).is_some()));
    c.check();
}

/// D1: all nodes of a cluster assign keys to buckets in the same way, also a node that comes later;
/// another cluster of the same nodes does it differently.
#[test]
pub fn d1_each_cluster_spreads_keys_in_its_own_way() {
    let spread_of = |seed: u64| {
        let mut c = Script::seeded(3, seed);
        let spread = |c: &Script, node: usize| {
            let replica = c.cluster.nodes[node].replica.as_ref();
            let configuration = replica.and_then(|replica| replica.configuration());
            configuration.expect("it has one").spread
        };
        c.restart_empty(2);
        c.until("node 2 has a configuration", |c| c.is_formed());
        let spreads = [0, 1, 2].map(|node| spread(&c, node));
        assert!(spreads.iter().all(|s| *s == spreads[0]));
        spreads[0]
    };
    assert_ne!(spread_of(1), spread_of(2));
}
