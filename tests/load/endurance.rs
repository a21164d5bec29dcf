//! Many millions of operations: nothing of them may be left.

use crate::bench;
use crate::nodes::{Cluster, Keep};

const OPERATIONS: f64 = 20_000_000.0;
/// What memory may grow by after the first part, in which the caches fill.
const GROWTH_MAX: u64 = 32 << 20;

#[test]
#[ignore] // half an hour
fn twenty_million_operations_leave_nothing() {
    let cluster = Cluster::start(5, Keep::Memory);
    let words = "bench --clients 512 --value-size 8 --duration 60s";
    let mut done = 0.0;
    let mut first = None;
    while done < OPERATIONS {
        let figures = bench::run(&cluster.list(), words);
        figures.expect_errors(&[]);
        done += figures.number("/all/count");
        let memory = bench::resident_max(&cluster);
        let descriptors: Vec<usize> = (0..5)
            .map(|node| bench::descriptors(&cluster, node))
            .collect();
        println!(
            "{done:.0} operations: {} MiB, descriptors {descriptors:?}",
            memory >> 20
        );
        let (memory_first, of_first) = first.get_or_insert((memory, descriptors.clone()));
        assert_eq!(&descriptors, of_first);
        assert!(
            memory < *memory_first + GROWTH_MAX,
            "{memory} after {memory_first} bytes"
        );
    }
}
