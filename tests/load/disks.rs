//! One node whose disk is slow, or takes nothing any more. The clients of the others must keep most
//! of their speed.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::bench::{self, seconds};
use crate::nodes::{Cluster, Keep};
use crate::preload;

/// The node with the bad disk.
const BAD: usize = 1;
/// Part of the speed with good disks that must be left.
const LEFT_MIN: f64 = 0.8;

/// A wrapper that preloads `disk.c`.
fn with_bad_disks(directory: &Path) -> Vec<String> {
    let library = preload::compile("tests/load/disk.c", directory);
    let preload = format!("LD_PRELOAD={}", library.display());
    let base = format!("DISK_BASE={}", directory.display());
    vec!["env".to_owned(), preload, base]
}

/// Measures the clients of the other nodes, before and after the disk of one node becomes bad.
fn others_keep_their_speed(how: &str, errors: &[&str]) -> Cluster {
    let addresses = Cluster::addresses(5);
    let cluster = Cluster::start_with(addresses, Keep::Fsync, &[], with_bad_disks);
    let others: Vec<&str> = (0..5)
        .filter(|n| *n != BAD)
        .map(|n| cluster.address(n))
        .collect();
    let words = format!("bench --clients 256 --keys 1000 {}", seconds(10, 4));
    let measure = || bench::run(&others.join(","), &words);
    let before = measure();
    before.expect_errors(&[]);
    fs::write(cluster.data_directory(BAD).with_extension(how), "").expect("a directory");
    // The others see that it is slow, or gone.
    std::thread::sleep(Duration::from_secs(2));
    let after = measure();
    let (before, rate) = (before.per_second(), after.per_second());
    println!("{how}: {rate:.0}/s of {before:.0}/s");
    after.expect_errors(errors);
    assert!(rate >= LEFT_MIN * before, "{rate} of {before} per second");
    cluster
}

/// Each sync takes a second.
#[test]
#[ignore] // half a minute
fn beside_a_slow_disk() {
    let cluster = others_keep_their_speed("slow", &[]);
    let status = cluster.status(0).expect("it runs");
    assert!(status.members[BAD].heard, "it is slow, not dead");
}

#[test]
#[ignore] // half a minute
fn beside_a_disk_that_became_read_only() {
    others_keep_their_speed("readonly", &[]);
}

/// Writes of values of the same size go on.
#[test]
#[ignore] // half a minute
fn beside_a_full_disk() {
    others_keep_their_speed("full", &[]);
}
