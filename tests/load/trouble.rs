//! Nodes that stand still, or whose kernel has hardly any space for datagrams.

use std::path::Path;
use std::time::Duration;

use crate::bench::{self, Bench, Figures, scaled};
use crate::nodes::{Cluster, Keep};
use crate::preload;

/// One process is stopped for a while, as on a suspended machine. No client sees an error.
#[test]
fn a_node_that_stands_still() {
    let cluster = Cluster::start(5, Keep::Memory);
    let stopped = scaled(10, 3);
    let words = format!(
        "bench --check --clients 32 --keys 500 --duration {}s",
        stopped + 3
    );
    let load = Bench::start(&cluster.list(), &words);
    std::thread::sleep(Duration::from_secs(1));
    cluster.suspend(2, Duration::from_secs(stopped));
    let figures = load.end();
    println!(
        "{:.0}/s, longest {} us",
        figures.per_second(),
        figures.number("/all/max_us")
    );
    figures.expect_errors(&[]);
    figures.expect_linearizable();
}

/// Eight clients put, and each node in turn is killed. The longest put takes hardly longer than
/// without a kill, and none fails.
#[test]
fn a_node_that_is_killed() {
    const PUTS: &str = "bench --mix 0:1 --clients 8 --handles 8 --keys 1000 --duration 2s";
    let mut cluster = Cluster::start(5, Keep::Memory);
    let undisturbed_ms = longest_ms(&bench::run(&cluster.list(), PUTS));
    let mut longest: Vec<f64> = Vec::new();
    for kill in 0..scaled(40, 5) {
        let node = kill % cluster.count();
        let load = Bench::start(&cluster.list(), PUTS);
        std::thread::sleep(Duration::from_secs(1));
        cluster.kill([node]);
        let figures = load.end();
        figures.expect_errors(&[]);
        longest.push(longest_ms(&figures));
        cluster.start_node(node);
        cluster.wait_until_serving(0..cluster.count());
    }
    longest.sort_by(f64::total_cmp);
    let (median, most) = (longest[longest.len() / 2], longest[longest.len() - 1]);
    println!("longest puts: median {median:.1} ms, at most {most:.1}, {undisturbed_ms:.1} before");
    let bound_ms = undisturbed_ms + scaled(50.0, 500.0);
    assert!(most <= bound_ms, "{longest:?}");
}

fn longest_ms(figures: &Figures) -> f64 {
    figures.number("/all/max_us") / 1e3
}

/// A wrapper that preloads `buffer.c`: the kernel has space for a datagram or two.
fn with_small_buffers(directory: &Path) -> Vec<String> {
    let library = preload::compile("tests/load/buffer.c", directory);
    vec![
        "env".to_owned(),
        format!("LD_PRELOAD={}", library.display()),
    ]
}

/// Most datagrams of a burst are lost. The cluster is slow, and nothing is wrong.
#[test]
fn the_smallest_receive_buffers() {
    let cluster = Cluster::start_with(Cluster::addresses(5), Keep::Memory, &[], with_small_buffers);
    let words = format!(
        "bench --check --clients 16 --keys 50 --duration {}s",
        scaled(20, 4)
    );
    let figures = bench::run(&cluster.list(), &words);
    let lost: u64 = (0..5)
        .filter_map(|n| Some(cluster.status(n)?.datagrams_lost))
        .sum();
    println!(
        "{:.0}/s, {lost} datagrams lost, {:?}",
        figures.per_second(),
        figures.errors()
    );
    assert!(lost > 0, "the buffers were not small");
    figures.expect_errors(&["busy", "timed_out", "unknown_outcome"]);
    assert!(figures.number("/all/count") > 0.0, "{}", figures.0);
    figures.expect_linearizable();
}
