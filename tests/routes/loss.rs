//! Links that lose, duplicate or reorder messages, or that go down and up.

use super::load::Load;
use crate::sim::network::Quality;
use crate::sim::random::Random;
use crate::sim::script::Script;

fn serves_over(quality: Quality, seed: u64) -> usize {
    let nodes = 4 + seed as usize % 2;
    let mut script = Script::seeded(nodes, seed);
    let mut load = Load::new(&mut script, seed);
    load.run_ms(&mut script, 100);
    script.cluster.network.begin_burst(1, quality);
    load.run_ms(&mut script, 2_000);
    script.cluster.network.end_burst(1);
    load.finish(&mut script);
    let all: Vec<usize> = (0..nodes).collect();
    let tally = load.tally(&script, &all, 0, u64::MAX);
    let said = format!("{quality:?}, seed {seed}: {tally:?}");
    assert!(tally.failed.is_empty() && tally.no_quorum == 0, "{said}");
    script.check();
    tally.done
}

#[test]
fn loss_doubles_and_reordering_cause_no_error() {
    for seed in 0..40 {
        let lost_per_mille = [10, 50, 200][seed as usize % 3];
        let quality = Quality {
            lost_per_mille,
            doubled_per_mille: 100,
            echo_max_us: 5_000,
            late_per_mille: 100,
            late_max_us: 5_000,
            ..Quality::CALM
        };
        serves_over(quality, seed);
    }
}

#[test]
fn at_one_percent_loss_at_least_half_is_done() {
    let lossy = Quality {
        lost_per_mille: 10,
        ..Quality::CALM
    };
    for seed in 0..4 {
        let calm = serves_over(Quality::CALM, seed);
        let lost = serves_over(lossy, seed);
        assert!(2 * lost >= calm, "seed {seed}: {lost} of {calm}");
    }
}

/// A link that goes down and up, with any period from 100 ms to 1 s: no error, and no gap above 250
/// ms.
#[test]
fn a_link_that_flaps_is_gone_round() {
    for seed in 0..40 {
        let mut random = Random::stream(seed, 80);
        let nodes = *random.pick(&[4, 5]);
        let (a, b) = (random.below(nodes) as usize, random.below(nodes) as usize);
        if a == b {
            continue;
        }
        let period_ms = random.between(100, 1_000);
        let mut script = Script::seeded(nodes as usize, seed);
        let mut load = Load::new(&mut script, seed);
        for _ in 0..4_000 / period_ms {
            script.cut(&[a], &[b]);
            load.run_ms(&mut script, period_ms / 2);
            script.heal_nodes();
            load.run_ms(&mut script, period_ms / 2);
        }
        load.finish(&mut script);
        let all: Vec<usize> = (0..nodes as usize).collect();
        let tally = load.tally(&script, &all, 0, u64::MAX);
        let said = format!("seed {seed}, {a} to {b} each {period_ms} ms: {tally:?}");
        assert!(tally.failed.is_empty() && tally.no_quorum == 0, "{said}");
        assert!(tally.longest_us < 250_000, "{said}");
        script.check();
    }
}
