//! Small scopes, gone through whole: every order of messages, losses, duplicates, timers, restarts.

#[path = "model/mod.rs"]
mod model;
mod sim;

use kvclient::wire::Action;
use model::scope::{Scope, ask};
use model::search::{Report, exhaust};
use sim::script::{append, put};

fn holds(name: &str, scope: Scope) -> Report {
    let began = std::time::Instant::now();
    let report = exhaust(scope).unwrap_or_else(|failure| panic!("{name}: {failure}"));
    println!("{name}: {report:?} in {:?}", began.elapsed());
    assert!(report.complete > 0, "{name}: nobody was ever answered");
    report
}

#[test]
fn a_put_and_a_get() {
    let plans = vec![ask(put("a"), &[0]), ask(Action::Get, &[1])];
    let report = holds("put, get", Scope::new(3, plans));
    assert_eq!(report.seen.into_iter().collect::<Vec<_>>(), ["", "a"]);
}

#[test]
fn two_coordinators() {
    let plans = vec![
        ask(append("a"), &[0]),
        ask(append("b"), &[1]),
        ask(Action::Get, &[2]),
    ];
    let mut scope = Scope::new(3, plans);
    scope.unheard = vec![(1, 0)];
    holds("two coordinators", scope);
}
