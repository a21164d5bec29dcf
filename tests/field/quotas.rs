//! A disk quota: writes fail though the file system reports plenty of space. `quota.c` emulates it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use kvclient::Client;
use nix::sys::signal::Signal;
use wire::Outcome;

use crate::full_disks::{PATIENCE, client, delete, fill, holds, is_full, put};
use crate::nodes::{Cluster, Keep, SOON, wait_until};
use crate::preload;

const QUOTA_SIZE: u64 = 160 << 20;
/// What a node logs when a write of a commit, or of a checkpoint, finds no space.
const FAILED: [&str; 2] = ["repairing the log", "a checkpoint found no space"];

/// Limits the space of `data-0` in that directory.
fn limited(directory: &Path, quota_size: u64) -> Vec<String> {
    let library = preload::compile("tests/field/quota.c", directory);
    fs::write(directory.join("data-0.quota"), quota_size.to_string()).expect("it is there");
    let preload = format!("LD_PRELOAD={}", library.display());
    let base = format!("QUOTA_BASE={}", directory.display());
    vec!["env".to_owned(), preload, base]
}

fn failed_writes(cluster: &Cluster) -> usize {
    let log = cluster.log(0);
    FAILED.iter().map(|text| log.matches(text).count()).sum()
}

/// Operations that need no additional space still succeed.
fn goes_on(client: &Client) {
    assert!(holds(client, "k0"));
    let over = put(client, "k2", 7);
    assert!(matches!(over, Ok(Outcome::Written { .. })), "{over:?}");
}

#[test]
fn an_exceeded_quota_stops_no_reads_no_deletes_and_no_restart() {
    let limited = |at: &Path| limited(at, QUOTA_SIZE);
    // Repairing the log may take longer than the default on a busy machine. The node would then
    // lose its vote, and the outcome of a put would be unknown; here the put must get its answer
    // within its 5 s.
    let options = ["--disk-hung-after", "4s"];
    let mut cluster = Cluster::start_with(Cluster::addresses(1), Keep::Fsync, &options, limited);
    let client = client(&cluster);
    let keys = fill(&client);
    assert!(keys > 500, "{keys}");
    assert!(
        failed_writes(&cluster) > 0,
        "no write has failed: {}",
        cluster.log(0)
    );
    assert!(cluster.log(0).contains("continues in its reserve"));
    delete(&client, "k1");
    assert!(!holds(&client, "k1"));
    goes_on(&client);
    // The node does not try again and again while this lasts.
    let (before, began) = (failed_writes(&cluster), Instant::now());
    while began.elapsed() < Duration::from_secs(12) {
        goes_on(&client);
        let grows = put(&client, "new", 1);
        let is_known = is_full(&grows) || matches!(grows, Ok(Outcome::Written { .. }));
        assert!(is_known, "{grows:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(failed_writes(&cluster) - before <= 4, "{}", cluster.log(0));
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let ended = cluster.stop(0, signal).0;
        assert!(ended.success() || signal == Signal::SIGKILL, "{ended}");
        cluster.start_node(0);
        cluster.wait_until_serving([0]);
        goes_on(&client);
    }
    for number in 2..keys {
        delete(&client, &format!("k{number}"));
    }
    wait_until(PATIENCE, "there is room again", || {
        matches!(put(&client, "room", 1), Ok(Outcome::Written { .. }))
    });
    assert!(holds(&client, "k0") && holds(&client, "room"));
}

fn set_quota(cluster: &Cluster, size: u64) {
    let file = cluster.data_directory(0).with_extension("quota");
    fs::write(file, size.to_string()).expect("a temporary directory");
}

/// The space that the files below a directory take.
fn used(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).expect("a directory");
    let sizes = entries.map(|entry| {
        let metadata = entry.as_ref().expect("an entry").metadata();
        match metadata {
            Ok(metadata) if metadata.is_dir() => used(&entry.expect("an entry").path()),
            Ok(metadata) => metadata.blocks() * 512,
            // The file was removed in the meantime.
            Err(_) => 0,
        }
    });
    sizes.sum()
}

#[test]
fn a_node_starts_and_stops_though_its_quota_is_used_up() {
    let limited = |at: &Path| limited(at, u64::MAX >> 1);
    let mut cluster = Cluster::start_with(Cluster::addresses(1), Keep::Fsync, &[], limited);
    let client = client(&cluster);
    let data = cluster.data_directory(0);
    let is_reserved = || data.join("reserve").exists();
    let is_written = |key| matches!(put(&client, key, 1), Ok(Outcome::Written { .. }));
    assert!(is_written("k0") && is_written("k2"));
    wait_until(SOON, "there is a reserve", is_reserved);
    cluster.kill([0]);
    set_quota(&cluster, used(&data));
    cluster.start_node(0);
    cluster.wait_until_serving([0]);
    assert!(!is_reserved(), "it lives in its reserve");
    goes_on(&client);
    assert!(is_full(&put(&client, "new", 1)));
    set_quota(&cluster, u64::MAX >> 1);
    wait_until(PATIENCE, "there is room again", || is_written("new"));
    assert!(is_reserved());
    set_quota(&cluster, used(&data));
    let ended = cluster.stop(0, Signal::SIGTERM).0;
    assert!(ended.success(), "{ended}");
    cluster.start_node(0);
    cluster.wait_until_serving([0]);
    goes_on(&client);
}

/// Only a node's own directory has a `reserve` that the node may remove to free space.
#[test]
fn a_file_named_reserve_in_another_directory_is_kept_though_there_is_no_room() {
    let base = tempfile::tempdir().expect("a temporary directory");
    let data = base.path().join("data-0");
    fs::create_dir(&data).expect("it is new");
    for name in ["reserve", "letter.txt"] {
        fs::write(data.join(name), [7; 10_000]).expect("there is room");
    }
    let wrapper = limited(base.path(), 0);
    let output = Command::new(&wrapper[0])
        .args(&wrapper[1..])
        .args([env!("CARGO_BIN_EXE_horseshoe"), "serve", "0"])
        .args(Cluster::addresses(1))
        .arg("--data-dir")
        .arg(&data)
        .output()
        .expect("the binary runs");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && told.contains("letter.txt"),
        "{told}"
    );
    assert!(data.join("reserve").exists(), "{told}");
}
