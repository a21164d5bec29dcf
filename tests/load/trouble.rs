//! Nodes that stand still, or whose kernel has hardly any space for datagrams.

use std::path::Path;
use std::time::Duration;

use crate::bench::{self, Bench, scaled};
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
