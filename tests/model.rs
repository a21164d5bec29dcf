//! Searches small scopes exhaustively: rounds, changes of the configuration, and purges, with every
//! order of messages, losses, duplicates, timers and restarts. With the feature `mutants` rules are
//! switched off, and the search must find the error.

#[path = "model/mod.rs"]
mod model;
mod sim;

use model::scope::Scope;
use model::scopes;
use model::search::{Report, exhaust};

/// `seen`: all the answers that reads get, over all orders.
#[track_caller]
fn holds(scope: Scope, seen: &[&str]) {
    let least = usize::from(scope.plans.len() > 1);
    let report = exhaust(scope).unwrap_or_else(|failure| panic!("{failure}"));
    println!("{report:?}");
    let Report { complete, .. } = report;
    assert!(complete > least, "orders tell apart {complete} histories");
    assert_eq!(report.seen.iter().collect::<Vec<_>>(), seen);
}

#[test]
fn reads() {
    holds(scopes::reads(), &["", "a"]);
    holds(scopes::reads_that_wait(), &["", "a"]);
}

#[test]
fn reads_of_four() {
    holds(scopes::reads_of_four(), &["", "a"]);
}

#[test]
fn duel() {
    holds(scopes::duel(), &[]);
}

#[test]
fn duel_with_short_rounds() {
    holds(scopes::duel_with_short_rounds(), &[]);
}

#[test]
fn duel_and_silence() {
    holds(scopes::duel_and_silence(), &[]);
}

#[test]
fn stragglers() {
    holds(scopes::stragglers(), &[]);
}

#[test]
fn attempts_that_change_nothing() {
    holds(scopes::attempts_that_change_nothing(), &["a", "b"]);
}

#[test]
fn combined() {
    holds(scopes::combined(), &[]);
}

#[test]
fn forwards() {
    holds(scopes::forwards(), &["", "a"]);
}

#[test]
fn slow_disks() {
    holds(scopes::slow_disks(), &["", "a"]);
}

#[test]
fn restarted_writer() {
    holds(scopes::restarted_writer(), &[]);
}

#[test]
fn restarted_reader() {
    holds(scopes::restarted_reader(), &["", "a"]);
}

#[test]
fn two_nodes() {
    holds(scopes::two_nodes(), &["", "a", "ab", "b", "ba"]);
}

#[test]
#[ignore] // takes a minute
fn two_nodes_and_restart() {
    holds(scopes::two_nodes_and_restart(), &["", "a", "ab", "b", "ba"]);
}

#[test]
fn change_under_writes() {
    holds(scopes::change_under_writes(), &[]);
}

#[test]
fn change_and_straggler() {
    holds(scopes::change_and_straggler(), &[]);
}

#[test]
fn change_under_reads() {
    holds(scopes::change_under_reads(), &["", "a"]);
}

#[test]
fn admission() {
    holds(scopes::admission(), &[""]);
}

#[test]
fn purge() {
    holds(scopes::purge(), &[""]);
}

#[test]
fn transaction_and_reads() {
    holds(scopes::transaction_and_reads(), &["", "a"]);
}

#[test]
fn transaction_and_restart() {
    holds(scopes::transaction_and_restart(), &["", "a"]);
}

#[test]
fn transaction_retried() {
    holds(scopes::transaction_retried(), &["", "a"]);
}

#[test]
#[ignore] // takes 40 s: six million states
fn transactions_that_meet() {
    holds(scopes::transactions_that_meet(), &[]);
}

#[test]
#[ignore] // takes 15 s
fn transaction_write_and_restart() {
    holds(scopes::transaction_write_and_restart(), &["", "a"]);
}

#[test]
fn transaction_and_change() {
    holds(scopes::transaction_and_change(), &[]);
}

#[test]
fn transaction_and_write() {
    holds(scopes::transaction_and_write(), &["", "a"]);
}

#[test]
#[ignore] // takes half a minute: five million states
fn reads_of_two_writes() {
    holds(scopes::reads_of_two_writes(), &["", "a", "b"]);
}

#[cfg(feature = "mutants")]
mod mutants {
    use horseshoe::protocol::types::rules::{Rule, switch_off};

    use super::model::scope::Scope;
    use super::{exhaust, scopes};

    /// The scope that finds an error without a rule.
    type Scoped = fn() -> Scope;

    /// Rules, and for each a scope that fails without it. B1 is found by a scenario
    /// (`tests/mutants.rs`): in these scopes a restarted node receives the others' clocks before it
    /// has a vote (E1), and so issues no earlier ballot again.
    const TABLE: &[(Rule, Scoped)] = &[
        (Rule::B1_next, scopes::duel_with_short_rounds),
        (Rule::Q1, scopes::reads_of_four),
        (Rule::V1_combined, scopes::combined),
        (Rule::V1_repair, scopes::attempts_that_change_nothing),
        (Rule::R2, scopes::slow_disks),
        (Rule::R3_exact, scopes::duel_with_short_rounds),
        (Rule::R3_doubt, scopes::duel),
        (Rule::R4_ids, scopes::restarted_reader),
        (Rule::R4_quorum, scopes::forwards),
        (Rule::R4_finish, scopes::reads),
        (Rule::X1_mark, scopes::stragglers),
        (Rule::X1_table, scopes::duel),
        (Rule::X2_node, scopes::attempts_that_change_nothing),
        (Rule::X5_sent, scopes::duel_and_silence),
        (Rule::R1, scopes::change_and_straggler),
        (Rule::Q2, scopes::change_under_reads),
        (Rule::B3, scopes::change_and_straggler),
        (Rule::E3_base, scopes::change_and_straggler),
        (Rule::E3_evidence, scopes::change_under_reads),
        (Rule::E5, scopes::admission),
        (Rule::P1_floor, scopes::purge),
        (Rule::X3, scopes::purge),
        (Rule::T2_absent, scopes::transaction_write_and_restart),
        (Rule::T2_under, scopes::transaction_write_and_restart),
        (Rule::T4, scopes::transaction_and_restart),
        (Rule::T5_read, scopes::transaction_and_reads),
    ];

    #[test]
    fn each_of_these_rules_is_missed_when_it_is_switched_off() {
        // A node that stops on purpose prints no message.
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| {}));
        // `RULES=E5,X3` restricts the test to these rules.
        let only = std::env::var("RULES").ok();
        let is_meant = |rule: &Rule| {
            let mut named = only.iter().flat_map(|names| names.split(','));
            only.is_none() || named.any(|name| name == format!("{rule:?}"))
        };
        let mut missing = Vec::new();
        for (rule, scope) in TABLE.iter().filter(|(rule, _)| is_meant(rule)) {
            switch_off(Some(*rule));
            let found = exhaust(scope());
            switch_off(None);
            match found {
                Ok(report) => missing.push(format!("{rule:?}: {report:?}")),
                Err(failure) => println!("{rule:?}: {}", failure.lines().next().unwrap_or("")),
            }
        }
        std::panic::set_hook(hook);
        assert!(
            missing.is_empty(),
            "not found without:\n{}",
            missing.join("\n")
        );
    }
}
