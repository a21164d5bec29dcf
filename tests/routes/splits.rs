//! Networks that split: only a component with a quorum serves, and after the heal all nodes serve.

use wire::Outcome;

use super::graph::Graph;
use super::load::Load;
use crate::sim::random::Random;
use crate::sim::script::Script;

/// The time within which a node must detect that it has no quorum, and within which all must serve
/// again after a heal.
const KNOWN_US: u64 = 500_000;
const HEALED_MS: u64 = 2_000;

fn splits(graph: &Graph, seed: u64) {
    let nodes = graph.nodes;
    let mut script = Script::seeded(nodes, seed);
    let mut load = Load::new(&mut script, seed);
    // Operations in progress at the cut may end with an unknown outcome; the client then continues.
    load.deadline_us = 1_500_000;
    load.run_ms(&mut script, 100);
    let cut_us = script.now_us;
    graph.cut(&mut script);
    load.run_ms(&mut script, 3_500);
    let heal_us = script.now_us;
    script.heal_nodes();
    load.run_ms(&mut script, HEALED_MS + 500);
    load.finish(&mut script);
    let with: Vec<usize> = (0..nodes).filter(|n| graph.has_quorum(*n)).collect();
    let without: Vec<usize> = (0..nodes).filter(|n| !graph.has_quorum(*n)).collect();
    let served = load.tally(&script, &with, 0, heal_us);
    let said = format!("{graph:?}, seed {seed}");
    assert!(
        served.failed.is_empty() && served.no_quorum == 0,
        "{said}: {served:?}"
    );
    assert!(served.done >= 50 * with.len(), "{said}: {served:?}");
    // A call shortly before the heal may be answered after it.
    let dark = load.tally(&script, &without, cut_us + KNOWN_US, heal_us - 1_200_000);
    assert!(
        dark.done == 0 && dark.failed.is_empty(),
        "without a quorum: {said}: {dark:?}"
    );
    assert!(without.is_empty() || dark.no_quorum > 0, "{said}");
    let all: Vec<usize> = (0..nodes).collect();
    let healed = load.tally(&script, &all, heal_us + HEALED_MS * 1_000, u64::MAX);
    assert!(
        healed.failed.is_empty() && healed.no_quorum == 0 && healed.done > 0,
        "healed: {said}: {healed:?}"
    );
    script.check();
}

#[test]
fn only_a_component_with_a_quorum_serves() {
    for seed in 0..150 {
        let mut random = Random::stream(seed, 79);
        let nodes = *random.pick(&[3, 4, 4, 5, 5]);
        let graphs: Vec<Graph> = Graph::all(nodes).filter(|g| !g.is_connected()).collect();
        splits(random.pick(&graphs), seed);
    }
}

#[test]
fn of_four_the_half_of_the_master_serves() {
    for (seed, other) in (1..4).enumerate() {
        let rest: Vec<usize> = (1..4).filter(|n| *n != other).collect();
        let graph = Graph::of(4, &[(0, other), (rest[0], rest[1])]);
        assert!(graph.has_quorum(0) && !graph.has_quorum(rest[0]));
        splits(&graph, seed as u64);
    }
}

/// A node that receives from all others, while none receives from it, detects that it cannot serve.
#[test]
fn a_node_that_nobody_hears_says_no_quorum() {
    for (from, to) in [(true, false), (false, true)] {
        let mut graph = Graph::full(5);
        for other in 1..5 {
            if from {
                graph.set(0, other, false);
            }
            if to {
                graph.set(other, 0, false);
            }
        }
        splits(&graph, 7);
    }
}

/// Within half a second of the cut a node without a quorum answers new requests with `no quorum`.
#[test]
fn no_quorum_is_told_in_time_with_whom_is_reached() {
    for seed in 0..30 {
        let mut script = Script::seeded(5, seed);
        script.run_ms(seed * 7);
        script.cut(&[0, 1, 2], &[3, 4]);
        script.run_ms(499);
        let mut hand = script.hand();
        let operation = script.operation(&mut hand, "k", crate::sim::script::put("x"));
        let attempt = script.attempt(&mut hand, 3, &operation, false);
        script.run_ms(5);
        let answer = script.answer(&hand, attempt);
        let reached = vec![4, 5];
        assert_eq!(answer, Some(Outcome::NoQuorum { reached }), "seed {seed}");
    }
}
