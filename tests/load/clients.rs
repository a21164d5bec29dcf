//! Many clients, many processes, and open loops beyond the peak.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::bench::{self, Bench, Figures, part_left, scaled, seconds};
use crate::nodes::{Cluster, Keep};

/// How long any node may take to answer `status`, whatever the load.
fn status_max() -> Duration {
    Duration::from_secs(scaled(1, 5))
}
/// What a node's memory may grow by under any load, with small values.
const GROWTH_MAX: u64 = 256 << 20;

/// One handle, whose clients share its windows: none of them is starved.
#[test]
fn a_thousand_clients_are_served_alike() {
    let cluster = Cluster::start(5, Keep::Memory);
    let words = format!("bench --clients 1000 {}", seconds(60, 4));
    let figures = bench::run(&cluster.list(), &words);
    figures.expect_errors(&[]);
    let of = |name: &str| figures.number(&format!("/per_client/{name}"));
    let (min, mean) = (of("count_min"), of("count_mean"));
    println!("slowest client {min}, mean {mean}");
    assert!(min >= part_left(mean / 3.0), "{}", figures.0);
}

/// Operations start 1 to 10 times as fast as the cluster completes them, by four handles, and each
/// has a deadline of half a second. The cluster still completes what it can. Nearly all other
/// operations end as `busy`, and a second later the cluster is normal again.
#[test]
fn goodput_beyond_the_peak() {
    let cluster = Cluster::start(5, Keep::Memory);
    let peak = bench::peak(&cluster);
    let before = bench::resident_max(&cluster);
    println!("peak {peak:.0}/s");
    for factor in scaled(vec![1, 2, 5, 10], vec![2, 10]) {
        let rate = (peak as u32 * factor).min(1_000_000);
        let load = seconds(10, 3);
        let words = format!("--timeout 500ms bench --keys 200 --handles 4 --rate {rate} {load}");
        let figures = bench::run(&cluster.list(), &words);
        report(factor, peak, &figures);
        figures.expect_errors(&["busy", "unknown_outcome", "timed_out"]);
        let open = figures.count("unknown_outcome") + figures.count("timed_out");
        let intended = figures.number("/intended");
        let open_max = intended / scaled(20.0, 5.0);
        assert!(open < open_max, "{open} of {intended} are not told");
        // The client itself takes a part of the machine, more at each factor.
        assert!(
            figures.per_second() >= peak * part_left(0.8),
            "{}",
            figures.0
        );
        let grown = bench::resident_max(&cluster).saturating_sub(before);
        assert!(grown < GROWTH_MAX, "by {grown} bytes");
    }
    std::thread::sleep(Duration::from_secs(1));
    let after = bench::peak(&cluster);
    println!("peak afterwards {after:.0}/s");
    assert!(after >= peak * part_left(0.5), "{after} after {peak}");
}

fn report(factor: u32, peak: f64, figures: &Figures) {
    println!(
        "{factor} times the peak: {:.0} % of it succeeded; {:?}",
        100.0 * figures.per_second() / peak,
        figures.errors()
    );
}

/// More closed loops do not make the cluster slower.
#[test]
#[ignore] // a minute
fn twenty_thousand_clients_are_as_fast_as_sixty_four() {
    let cluster = Cluster::start(5, Keep::Memory);
    let mut few = None;
    for clients in [64, 1_000, 5_000, 20_000] {
        let words = format!("bench --clients {clients} {}", seconds(10, 5));
        let figures = bench::run(&cluster.list(), &words);
        let rate = figures.per_second();
        println!("{clients} clients: {rate:.0}/s, {:?}", figures.errors());
        figures.expect_errors(&[]);
        assert!(rate >= 0.8 * *few.get_or_insert(rate), "{}", figures.0);
    }
}

/// Many processes, each with thousands of puts at one instant: all are done, or end as `busy`, and
/// every node answers `status` throughout, with all links up.
#[test]
fn processes_that_submit_thousands_of_puts_at_once() {
    let cluster = Cluster::start(5, Keep::Memory);
    let (processes, puts) = (scaled(40, 8), scaled(10_000, 5_000));
    // In an open loop of a million operations per second.
    let words = format!(
        "bench --mix 0:1 --keys 100 --rate 1000000 --duration {}ms",
        puts / 1_000
    );
    let stop = AtomicBool::new(false);
    let (done, slowest) = std::thread::scope(|scope| {
        let watch = scope.spawn(|| watch_status(&cluster, &stop));
        let list = cluster.list();
        let start = |seed| Bench::start(&list, &format!("{words} --seed {seed}"));
        let all: Vec<Bench> = (0..processes).map(start).collect();
        let figures: Vec<Figures> = all.into_iter().map(Bench::end).collect();
        stop.store(true, Ordering::Relaxed);
        for figures in &figures {
            figures.expect_errors(&["busy"]);
        }
        let done: f64 = figures
            .iter()
            .map(|figures| figures.number("/all/count"))
            .sum();
        (done, watch.join().expect("it watches"))
    });
    println!(
        "{done} of {} done; status within {slowest:?}",
        processes * puts
    );
    assert!(done > 0.0);
}

/// Asks each node for its status until `stop`; returns the longest time that an answer took.
fn watch_status(cluster: &Cluster, stop: &AtomicBool) -> Duration {
    let mut slowest = Duration::ZERO;
    while !stop.load(Ordering::Relaxed) {
        for node in 0..cluster.count() {
            let began = Instant::now();
            let status = std::iter::from_fn(|| Some(cluster.status(node)))
                .take_while(|_| began.elapsed() < status_max())
                .find_map(|status| status);
            let status = status.unwrap_or_else(|| panic!("node {node} is silent for a second"));
            slowest = slowest.max(began.elapsed());
            let heard = status.members.iter().all(|member| member.heard);
            assert!(heard, "node {node} reaches {:?}", status.component);
        }
    }
    slowest
}

/// Thousands of handles, with a session at each node, start at once. Each of them is served within
/// its deadline, and none sees an error.
#[test]
#[ignore] // half a minute, and thousands of threads
fn five_thousand_clients_that_start_at_once() {
    let cluster = Cluster::start(5, Keep::Memory);
    let list = cluster.list();
    let words = "--timeout 20s bench --handles 250 --clients 250 --duration 20s";
    let start = |seed| Bench::start_nice(&list, &format!("{words} --seed {seed}"));
    let all: Vec<Bench> = (0..20).map(start).collect();
    for figures in all.into_iter().map(Bench::end) {
        figures.expect_errors(&[]);
        assert!(
            figures.number("/per_client/count_min") >= 1.0,
            "{}",
            figures.0
        );
    }
}
