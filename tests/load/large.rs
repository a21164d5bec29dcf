//! Values of 1 MiB: with and without loss, over a chain, and beside small operations.

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use kvclient::{Call, Client, ClientOptions};
use wire::{Action, Outcome, VALUE_SIZE_DEFAULT};

use crate::bench::{self, Figures, scaled};
use crate::nodes::{Cluster, Keep, wait_until};

/// What must be left of the throughput if 5 % of all datagrams are lost.
const LEFT_MIN: f64 = 0.3;
/// How much longer small gets may take at p99 beside large puts.
const LONGER_MAX: f64 = 3.0;
const PUT_INTERVAL: Duration = Duration::from_millis(500);

/// Runs one of the scripts in `tests/partition/`, which set rules of this network namespace.
fn set_rules(cluster: &Cluster, words: &str) {
    let is_lab = std::env::var_os("HORSESHOE_LAB").is_some();
    assert!(is_lab, "run it in a lab: tests/load/run.sh");
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/partition/");
    let mut command = Command::new("bash");
    command.arg("-c").arg(format!("exec {directory}{words}"));
    let status = command
        .env("NODES", cluster.list().replace(',', " "))
        .status();
    assert!(status.expect("bash runs").success(), "{words}");
}

/// Removes all rules, also after a failure: the next row runs in the same namespace.
struct Healing<'a>(&'a Cluster);

impl Drop for Healing<'_> {
    fn drop(&mut self) {
        set_rules(self.0, "heal.sh");
    }
}

/// 16 closed loops of gets and puts of 1 MiB. Every value that is read is compared as a whole, and
/// all keys are read at the end.
fn load(cluster: &Cluster, what: &str) -> Figures {
    let seconds = scaled(20, 5);
    let words = format!(
        "--timeout 30s bench --check --clients 16 --keys 16 --value-size 1048576 --duration {seconds}s"
    );
    let figures = bench::run(&cluster.list(), &words);
    println!(
        "{what}: {:.1}/s, p50 {:.0} ms, p99 {:.0} ms",
        figures.per_second(),
        figures.number("/all/p50_us") / 1e3,
        figures.number("/all/p99_us") / 1e3
    );
    figures.expect_errors(&[]);
    figures.expect_linearizable();
    figures
}

/// The same load without loss, and where every 20th datagram is lost.
fn compare_with_loss(cluster: &Cluster) {
    let without = load(cluster, "no loss").per_second();
    set_rules(cluster, "loss.sh 5");
    let with = load(cluster, "5 % loss").per_second();
    assert!(with >= LEFT_MIN * without, "{with} of {without} per second");
}

#[test]
#[ignore] // three quarters of a minute
fn mebibytes_with_and_without_loss() {
    let cluster = Cluster::start(5, Keep::Memory);
    let _healing = Healing(&cluster);
    compare_with_loss(&cluster);
}

/// All links are cut but four: between the ends everything passes three relays.
#[test]
#[ignore] // a minute
fn mebibytes_over_a_chain() {
    let cluster = Cluster::start(5, Keep::Memory);
    let _healing = Healing(&cluster);
    set_rules(&cluster, "chain.sh 0 1 2 3 4");
    wait_until(crate::nodes::SOON, "all members in one component", || {
        (0..5).all(|node| {
            let status = cluster.status(node);
            status.is_some_and(|s| s.members.len() == 5 && s.members.iter().all(|m| m.heard))
        })
    });
    compare_with_loss(&cluster);
}

/// Puts of 1 MiB to keys of their own, one after the other and at a rate far below the peak.
fn put_until(cluster: &Cluster, stop: &AtomicBool) -> Vec<Duration> {
    let client = Client::open(&cluster.list(), ClientOptions::default()).expect("addresses");
    let value = Bytes::from(vec![7; VALUE_SIZE_DEFAULT]);
    let mut took = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let began = Instant::now();
        let key = format!("large {}", took.len() % 20);
        let value = value.clone();
        let outcome = client.call(Call::new(key, Action::Put { value }));
        assert!(
            matches!(outcome, Ok(Outcome::Written { .. })),
            "{outcome:?}"
        );
        took.push(began.elapsed());
        std::thread::sleep(PUT_INTERVAL.saturating_sub(began.elapsed()));
    }
    took.sort_unstable();
    took
}

/// Beside these puts, gets of 100 bytes at a fixed rate take at most three times as long.
#[test]
#[ignore] // three quarters of a minute
fn small_gets_beside_large_puts() {
    let cluster = Cluster::start(5, Keep::Memory);
    let seconds = scaled(15, 5);
    let gets = format!("bench --mix 1:0 --keys 1000 --rate 500 --duration {seconds}s");
    let get = |what: &str| {
        let figures = bench::run(&cluster.list(), &gets);
        figures.expect_errors(&[]);
        let of = |name: &str| figures.number(&format!("/all/{name}_us"));
        let (p50, p99, p999) = (of("p50"), of("p99"), of("p999"));
        println!("gets {what}: p50 {p50:.0} us, p99 {p99:.0} us, p99.9 {p999:.0} us");
        p99
    };
    get("first");
    let alone = get("alone");
    let stop = AtomicBool::new(false);
    let beside = std::thread::scope(|scope| {
        let puts = scope.spawn(|| put_until(&cluster, &stop));
        let beside = get("beside puts");
        stop.store(true, Ordering::Relaxed);
        let took = puts.join().expect("it puts");
        println!(
            "{} puts, median {:?}, longest {:?}",
            took.len(),
            took[took.len() / 2],
            took.last()
        );
        beside
    });
    assert!(
        beside <= LONGER_MAX * alone,
        "{beside} us, {alone} us alone"
    );
}
