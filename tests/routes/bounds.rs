//! The cost of routes, and how long a cut delays clients.

use super::graph::Graph;
use super::load::Load;
use crate::sim::script::{Script, any};

/// Messages between nodes that concern operations.
fn messages(script: &Script) -> usize {
    let idle = ["Heartbeat", "Chosen"];
    let all = script.sent(any());
    let between = all.iter().filter(|p| p.envelope().is_some());
    between.filter(|p| !idle.contains(&p.name())).count()
}

/// Messages per put, averaged over all nodes as entry points.
fn per_put(graph: &Graph) -> f64 {
    let mut script = Script::seeded(graph.nodes, 5);
    graph.cut(&mut script);
    script.run_ms(500);
    let clients: Vec<usize> = (0..graph.nodes).map(|n| script.client_of(&[n])).collect();
    let keys: Vec<String> = (0..graph.nodes).map(|n| script.key_of(n)).collect();
    for key in &keys {
        script.put(clients[0], key, "x");
    }
    script.run_ms(100);
    let before = messages(&script);
    let mut puts = 0;
    for client in &clients {
        for key in &keys {
            script.put(*client, key, "y");
            script.run_ms(20);
            puts += 1;
        }
    }
    (messages(&script) - before) as f64 / f64::from(puts)
}

#[test]
fn a_chain_costs_at_most_three_times_the_messages_of_the_full_mesh() {
    let mesh = per_put(&Graph::full(5));
    let chain = per_put(&Graph::chain(&[3, 0, 4, 1, 2]));
    println!("messages a put: full mesh {mesh:.1}, chain {chain:.1}");
    assert!(chain <= 3.0 * mesh, "{chain} against {mesh}");
}

/// A cut of any single link causes no error for a client that keeps running operations, and a
/// median delay of at most 50 ms.
#[test]
fn a_cut_link_is_felt_for_a_moment_only() {
    let mut gaps_us = Vec::new();
    for seed in 0..40 {
        let (a, b) = [(0, 1), (1, 2), (3, 4), (4, 0), (2, 4)][seed as usize % 5];
        let mut script = Script::seeded(5, seed);
        let mut load = Load::new(&mut script, seed);
        load.run_ms(&mut script, 300 + seed * 3);
        let cut_us = script.now_us;
        script.cut(&[a], &[b]);
        load.run_ms(&mut script, 600);
        load.finish(&mut script);
        let all: Vec<usize> = (0..5).collect();
        let tally = load.tally(&script, &all, cut_us - 20_000, u64::MAX);
        assert!(
            tally.failed.is_empty() && tally.no_quorum == 0,
            "seed {seed}: {tally:?}"
        );
        gaps_us.push(tally.longest_us);
    }
    gaps_us.sort_unstable();
    println!("gaps, in us: {gaps_us:?}");
    assert!(gaps_us[gaps_us.len() / 2] <= 50_000, "{gaps_us:?}");
    assert!(gaps_us.last() <= Some(&250_000), "{gaps_us:?}");
}

/// Four clients, each tied to one node of a chain, write one key: none completes less than a third
/// of what another completes.
#[test]
fn a_chain_is_fair_to_clients_of_one_key() {
    let mut script = Script::seeded(4, 4);
    Graph::chain(&[0, 1, 2, 3]).cut(&mut script);
    script.run_ms(500);
    let clients: Vec<usize> = (0..4).map(|n| script.client_of(&[n])).collect();
    let mut open: Vec<Option<usize>> = vec![None; 4];
    let mut done = [0u32; 4];
    let until_us = script.now_us + 2_000_000;
    let mut count = 0;
    while script.now_us < until_us {
        for at in 0..4 {
            if open[at].is_none_or(|call| !script.is_open(call)) {
                done[at] += u32::from(open[at].is_some());
                count += 1;
                let token = crate::sim::script::append(&format!("+{count};"));
                open[at] = Some(script.begin(clients[at], "one", token));
            }
        }
        let next_us = script.now_us + 100;
        while script.cluster.step(next_us) {}
        script.cluster.due.clear();
    }
    println!("operations by client: {done:?}");
    let (least, most) = (done.iter().min().unwrap(), done.iter().max().unwrap());
    assert!(*least > 20 && *most <= 3 * least, "{done:?}");
    script.check();
}
