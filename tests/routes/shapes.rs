//! Networks that are still connected: chains, rings, stars, and all other graphs.

use super::graph::Graph;
use super::load::Load;
use crate::sim::random::Random;
use crate::sim::script::Script;

/// Clients at all nodes write and read while the links that the graph lacks fail for a while, and
/// come back. No client sees an error, and the history is linearizable.
fn serves(graph: &Graph, seed: u64) {
    let mut script = Script::seeded(graph.nodes, seed);
    let mut load = Load::new(&mut script, seed);
    load.run_ms(&mut script, 100);
    let cut_us = script.now_us;
    graph.cut(&mut script);
    load.run_ms(&mut script, 1_500);
    script.heal_nodes();
    load.run_ms(&mut script, 200);
    load.finish(&mut script);
    let all: Vec<usize> = (0..graph.nodes).collect();
    let tally = load.tally(&script, &all, 0, u64::MAX);
    let said = format!("{graph:?}, seed {seed}: {tally:?}");
    assert!(tally.failed.is_empty() && tally.no_quorum == 0, "{said}");
    assert!(tally.done > 100 * graph.nodes, "{said}");
    let late = load.tally(&script, &all, cut_us + 500_000, u64::MAX);
    assert!(late.longest_us < 250_000, "slow when all is known: {said}");
    script.check();
}

#[test]
fn every_connected_graph_of_four_nodes_serves() {
    for (seed, graph) in Graph::all(4).filter(Graph::is_connected).enumerate() {
        serves(&graph, seed as u64);
    }
}

/// The graphs take half a minute, so that two threads share them.
fn connected_graphs_of_five_nodes_serve(half: usize) {
    let connected = Graph::all(5).filter(Graph::is_connected).enumerate();
    for (seed, graph) in connected.filter(|(seed, _)| seed % 2 == half) {
        serves(&graph, seed as u64);
    }
}

#[test]
fn every_connected_graph_of_five_nodes_serves() {
    connected_graphs_of_five_nodes_serve(0);
}

#[test]
fn every_connected_graph_of_five_nodes_serves_other_half() {
    connected_graphs_of_five_nodes_serve(1);
}

#[test]
fn links_that_fail_one_way_are_gone_round() {
    let mut served = 0;
    for seed in 0..200 {
        let mut random = Random::stream(seed, 78);
        let nodes = *random.pick(&[4, 5]);
        let graph = Graph::random(nodes, &mut random);
        if graph.is_connected() {
            serves(&graph, seed);
            served += 1;
        }
    }
    assert!(served > 50, "{served} graphs");
}

/// A node of a ring that relays is killed while all clients write: the other nodes serve over the
/// other direction of the ring.
#[test]
fn a_relay_of_a_ring_may_die() {
    for seed in 0..20 {
        let ring = Graph::of(5, &[(0, 1), (1, 2), (2, 3), (3, 4), (4, 0)]);
        let mut script = Script::seeded(5, seed);
        ring.cut(&mut script);
        let mut load = Load::new(&mut script, seed);
        load.run_ms(&mut script, 600);
        let victim = seed as usize % 5;
        let left: Vec<usize> = (0..5).filter(|node| *node != victim).collect();
        load.keep(&left);
        script.crash_hard(victim);
        load.run_ms(&mut script, 2_000);
        load.finish(&mut script);
        let tally = load.tally(&script, &left, 0, u64::MAX);
        let said = format!("seed {seed}: {tally:?}");
        assert!(tally.failed.is_empty() && tally.no_quorum == 0, "{said}");
        assert!(tally.done > 400, "{said}");
        script.check();
    }
}

/// Each node in turn is isolated for two seconds. No client that can reach another node sees an
/// error.
#[test]
fn a_rolling_blackout_goes_unnoticed_by_clients_of_all_nodes() {
    let mut script = Script::seeded(5, 3);
    let client = script.client();
    for round in 0..10 {
        script.isolate(round % 5);
        for n in 0..40 {
            script.put(client, "k", &format!("{round} {n}"));
            assert_eq!(script.get(client, "k"), format!("{round} {n}"));
            script.run_ms(40);
        }
        script.heal();
    }
    script.check();
}

/// Each node, with its disk, is killed and restarted in turn, with a hundred puts meanwhile: then
/// every key is read back, and no read returns an older value.
#[test]
fn rolling_thunder_loses_nothing() {
    let mut script = Script::seeded(5, 6);
    let client = script.client();
    for step in 0..5 {
        script.crash_hard(step);
        for n in 0..100 {
            script.put(client, &format!("{step} {n}"), "there");
            script.put(client, "same", &format!("{step} {n}"));
            assert_eq!(script.get(client, "same"), format!("{step} {n}"));
        }
        script.cluster.start(step);
        script.run_ms(500);
    }
    for node in 0..5 {
        let tied = script.client_of(&[node]);
        for step in 0..5 {
            for n in 0..100 {
                assert_eq!(script.get(tied, &format!("{step} {n}")), "there");
            }
        }
        assert_eq!(script.get(tied, "same"), "4 99");
    }
    script.check();
}
