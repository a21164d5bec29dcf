//! Each rule of the protocol, switched off, is missed: by some seed of the simulator, or by a scenario
//! named after it. `cargo test --features mutants --test mutants`.

mod sim;

use std::panic::{AssertUnwindSafe, catch_unwind};

use horseshoe::protocol::rules::{Rule, switch_off};
use sim::plan::Config;
use sim::run::{Failure, run_seed};

#[test]
fn measure() {
    use Rule::*;
    std::panic::set_hook(Box::new(|_| {}));
    let rules = [
        B1,
        B1_next,
        B2,
        Q1,
        V1_repair,
        V1_combined,
        R2,
        R3_exact,
        R3_doubt,
        R4_ids,
        R4_quorum,
        R4_finish,
        X1_mark,
        X1_table,
        X1_dropped,
        X2_node,
        X4_window,
        X5_silence,
        X5_sent,
        E1,
        E6_bound,
        E6_nonce,
    ];
    for rule in rules {
        switch_off(Some(rule));
        let mut failed = Vec::new();
        for seed in 1..=300 {
            let result = catch_unwind(AssertUnwindSafe(|| run_seed(seed, &Config::default())));
            match result {
                Ok(Ok(_)) => {}
                Ok(Err(Failure(text))) => failed.push((seed, text)),
                Err(panic) => {
                    let text = panic.downcast_ref::<String>().cloned().unwrap_or_default();
                    failed.push((seed, format!("panic {text}")));
                }
            }
        }
        switch_off(None);
        let first = failed
            .first()
            .map(|(s, t)| (s, t.chars().take(100).collect::<String>()));
        println!("{rule:?}: {} of 300, first {first:?}", failed.len());
    }
}
