//! Power failures and failed syncs, below the engine: `disk.c` is preloaded into the process that
//! has the store, and maintains a separate directory with the state that a power failure would
//! leave.

use std::path::{Path, PathBuf};
use std::process::Command;

use horseshoe::storage::DiskOptions;
use tempfile::TempDir;

use super::model::{check, copy, files, group, open, options, os_options};
use super::preload;

const FROM: &str = "DISK_FROM";
const TO: &str = "DISK_TO";
const FAILS: &str = "DISK_FAILS";
const RUN: &str = "STORAGE_TEST_RUN";
const FINE: &str = "ran to its end";

/// A data directory, and its durable part.
struct Machine {
    base: TempDir,
    library: PathBuf,
}

impl Machine {
    fn new() -> Self {
        let base = tempfile::tempdir().unwrap();
        let library = preload::compile("tests/storage/disk.c", base.path());
        Machine { base, library }
    }

    fn durable(&self) -> PathBuf {
        self.base.path().join("durable")
    }

    /// Runs `child` on the directory; it ends without a clean stop.
    fn run(&self, what: &str) {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["power::child", "--exact", "--nocapture"])
            .env("LD_PRELOAD", &self.library)
            .env(FROM, self.base.path().join("data"))
            .env(TO, self.durable())
            .env(FAILS, self.base.path().join("fails"))
            .env(RUN, what)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(text.contains(FINE), "{what}: {text}{errors}");
    }

    /// The last group that remains after a power failure now; the store must open, and be
    /// consistent.
    fn survives(&self, options: impl FnOnce(&Path) -> DiskOptions) -> u64 {
        // The machine may keep running.
        let found = tempfile::tempdir().unwrap();
        copy(&self.durable(), found.path());
        for file in files(found.path()) {
            if file
                .extension()
                .is_some_and(|extension| extension == "lost")
            {
                std::fs::remove_file(file).unwrap();
            }
        }
        let opened = open(options(found.path()));
        check(&opened);
        opened.recovered.group
    }
}

/// Not a test: the process that `Machine::run` starts. `RUN` is the durability and the number of
/// groups to commit, and `fail` if the sync of one more group should fail.
#[test]
fn child() {
    let Ok(run) = std::env::var(RUN) else {
        return;
    };
    let words: Vec<&str> = run.split(' ').collect();
    let path = PathBuf::from(std::env::var(FROM).unwrap());
    let mut opened = open(match words[0] {
        "os" => os_options(&path),
        _ => options(&path),
    });
    let first = opened.recovered.group + 1;
    let next = first + words[1].parse::<u64>().unwrap();
    for number in first..next {
        opened.storage.commit(&[group(number)]).unwrap();
    }
    if words.get(2) == Some(&"fail") {
        let fails = std::env::var(FAILS).unwrap();
        std::fs::write(&fails, "").unwrap();
        opened.storage.commit(&[group(next)]).unwrap_err();
        std::fs::remove_file(fails).unwrap();
    }
    println!("{FINE}");
    // The process ends without closing anything.
    std::process::exit(0);
}

#[test]
fn what_was_committed_survives_a_power_failure() {
    let machine = Machine::new();
    machine.run("fsync 5");
    assert_eq!(machine.survives(options), 5);
    machine.run("fsync 6");
    assert_eq!(machine.survives(options), 11);
}

/// Shows that a power failure of this kind loses data: what was never synced.
#[test]
fn what_was_not_synced_is_gone() {
    let machine = Machine::new();
    machine.run("os 3");
    assert_eq!(machine.survives(os_options), 0);
}

/// Groups 4 and 8 change the node's own state: they are durable under `os` too, and so are all
/// groups before them.
#[test]
fn the_nodes_own_state_survives_a_power_failure_under_either_durability() {
    let machine = Machine::new();
    machine.run("os 5");
    assert_eq!(machine.survives(os_options), 4);
    machine.run("os 5");
    assert_eq!(machine.survives(os_options), 10 - 10 % 4);
}

/// Data that the previous run left to the operating system is durable once a store is open, because
/// the next run is one that syncs, and whose state counts after a power failure (E1).
#[test]
fn what_an_earlier_run_left_to_the_system_is_durable_once_a_store_is_open() {
    let machine = Machine::new();
    machine.run("os 7");
    machine.run("fsync 0");
    assert_eq!(machine.survives(options), 7);
}

/// A sync fails, and the node stops. The next process finds the data in the operating system, which
/// considers it written, and reports it to other nodes.
#[test]
fn what_a_failed_sync_left_behind_is_durable_once_it_is_believed() {
    for commits in [0, 3] {
        let machine = Machine::new();
        machine.run("fsync 5 fail");
        assert_eq!(machine.survives(options), 5);
        machine.run(&format!("fsync {commits}"));
        assert_eq!(machine.survives(options), 6 + commits);
    }
}
