//! Power failures and failed syncs, below the store: `disk.c` is preloaded into the process that
//! has the store, and maintains a separate directory with the state that a power failure would
//! leave.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use horseshoe::storage::{DiskOptions, Opened};
use tempfile::TempDir;

use super::model::{TINY, check, copy, files, group, groups, open, options, os_options, scratch};
use super::preload;

const FROM: &str = "DISK_FROM";
const TO: &str = "DISK_TO";
const FAILS: &str = "DISK_FAILS";
const FULL: &str = "DISK_FULL";
const LATE: &str = "DISK_LATE";
const STOP: &str = "DISK_STOP";
const RUN: &str = "STORAGE_TEST_RUN";
const FINE: &str = "ran to its end";
const COMMITTED: &str = "committed ";

/// With so small sizes the groups make checkpoints that divide parts.
fn tiny(path: &Path) -> DiskOptions {
    DiskOptions {
        sizes: Some(TINY),
        ..options(path)
    }
}

/// A data directory, and its durable part.
struct Machine {
    base: TempDir,
    library: PathBuf,
}

impl Machine {
    fn new() -> Self {
        let (base, _) = scratch();
        let library = preload::compile("tests/storage/disk.c", base.path());
        Machine { base, library }
    }

    /// Another one.
    fn another(&self) -> Self {
        let (base, _) = scratch();
        Machine {
            base,
            library: self.library.clone(),
        }
    }

    fn data(&self) -> PathBuf {
        self.base.path().join("data")
    }

    /// After a power failure: the data are what was durable.
    fn lose_power(&self) {
        let _ = std::fs::remove_dir_all(self.data());
        if self.durable().exists() {
            copy(&self.durable(), &self.data());
        }
    }

    fn durable(&self) -> PathBuf {
        self.base.path().join("durable")
    }

    /// Runs `child` on the directory; it ends without a clean stop.
    fn run(&self, what: &str) {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["power::child", "--exact", "--nocapture"])
            .env("LD_PRELOAD", &self.library)
            .env(FROM, self.data())
            .env(TO, self.durable())
            .env(FAILS, self.base.path().join("fails"))
            .env(FULL, self.base.path().join("full"))
            .env(RUN, what)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(text.contains(FINE), "{what}: {text}{errors}");
    }

    /// Runs `child` with checkpoints, up to this write, sync, rename or deletion; returns the last
    /// group that it reported, and whether it ran to its end.
    fn run_to(&self, step: usize, late: bool) -> (u64, bool) {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["power::child", "--exact", "--nocapture"])
            .env("LD_PRELOAD", &self.library)
            .env(FROM, self.data())
            .env(TO, self.durable())
            .env(STOP, step.to_string())
            .env(RUN, "tiny 30");
        if late {
            command.env(LATE, "");
        }
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let mut reported = text.lines().filter_map(|line| line.strip_prefix(COMMITTED));
        let last = reported
            .next_back()
            .map_or(0, |number| number.parse().unwrap());
        let is_over = text.contains(FINE);
        assert!(is_over || output.status.code() == Some(77), "{text}");
        (last, is_over)
    }

    /// The last group that remains after a power failure now; the store must open, and be
    /// consistent.
    fn survives(&self, options: impl FnOnce(&Path) -> DiskOptions) -> u64 {
        // The machine may keep running.
        let (_base, found) = scratch();
        std::fs::create_dir_all(&found).unwrap();
        if self.durable().exists() {
            copy(&self.durable(), &found);
        }
        for file in files(&found) {
            if file
                .extension()
                .is_some_and(|extension| extension == "lost")
            {
                std::fs::remove_file(file).unwrap();
            }
        }
        let opened = open(options(&found));
        check(&opened);
        opened.recovered.group
    }
}

/// Not a test: the process that `Machine::run` starts. `RUN` is the durability and the number of
/// groups to commit, and `fail` if the sync of one more group should fail, or when a full disk is
/// to be noticed, `write`, `sync` or `mark`, or the number of the group before which the disk
/// becomes full.
#[test]
fn child() {
    let Ok(run) = std::env::var(RUN) else {
        return;
    };
    let words: Vec<&str> = run.split(' ').collect();
    let path = PathBuf::from(std::env::var(FROM).unwrap());
    let mut opened = open(DiskOptions {
        reserve: Some(2 << 20),
        ..match words[0] {
            "os" => os_options(&path),
            "tiny" => tiny(&path),
            _ => options(&path),
        }
    });
    let first = opened.recovered.group + 1;
    let next = first + words[1].parse::<u64>().unwrap();
    let full_at = words.get(2).and_then(|word| word.parse::<u64>().ok());
    for number in first..next {
        if full_at == Some(number) {
            std::fs::write(std::env::var(FULL).unwrap(), "write").unwrap();
        }
        opened.storage.commit(&[group(number)]).unwrap();
        println!("{COMMITTED}{number}");
        if words[0] == "tiny" {
            opened.storage.tend().unwrap();
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    if words.get(2) == Some(&"fail") {
        let fails = std::env::var(FAILS).unwrap();
        std::fs::write(&fails, "").unwrap();
        opened.storage.commit(&[group(next)]).unwrap_err();
        std::fs::remove_file(fails).unwrap();
    }
    let is_when = |word: &&&str| ["write", "sync", "mark"].contains(*word);
    if let Some(when) = words.get(2).filter(is_when) {
        commit_in_full_disk(&mut opened, when, next);
    }
    println!("{FINE}");
    // The process ends without closing anything.
    std::process::exit(0);
}

/// Groups that find no space, at their write or at their sync: the store goes on in the space of
/// its reserve. The next time there is none.
fn commit_in_full_disk(opened: &mut Opened, when: &str, next: u64) {
    let full = std::env::var(FULL).unwrap();
    std::fs::write(&full, when).unwrap();
    opened.storage.commit(&groups(next..=next + 3)).unwrap();
    assert!(!Path::new(&full).exists() && opened.storage.space().unwrap().is_full);
    opened.storage.commit(&[group(next + 4)]).unwrap();
    std::fs::write(&full, when).unwrap();
    let last = groups(next + 5..=next + 8);
    let error = opened.storage.commit(&last).unwrap_err().to_string();
    assert!(error.contains("No space left on device"), "{error}");
    std::fs::remove_file(full).unwrap();
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

/// A power failure at each step of a store that is made, filled and checkpointed, and of one that
/// is opened again.
#[test]
fn a_power_failure_at_any_step_loses_nothing_that_was_committed() {
    let first = Machine::new();
    for late in [false, true] {
        let mut parts_max = 0;
        for step in 1.. {
            let machine = first.another();
            let (committed, is_over) = machine.run_to(step, late);
            let survived = machine.survives(tiny);
            assert!(
                survived == committed || survived == committed + 1,
                "step {step}, late {late}: group {survived} of {committed}"
            );
            // And another one while the store is opened again.
            machine.lose_power();
            let (again, _) = machine.run_to(1 + step % 60, late);
            assert!(
                machine.survives(tiny) >= again.max(survived),
                "step {step}, late {late}, again"
            );
            if let Ok(entries) = machine.durable().join("store").read_dir() {
                let names = entries.map(|entry| entry.unwrap().file_name());
                let is_part = |name: &std::ffi::OsString| name.to_string_lossy().ends_with(".part");
                parts_max = parts_max.max(names.filter(is_part).count());
            }
            if is_over {
                assert!(
                    step > 200 && parts_max > 3,
                    "{step} steps, {parts_max} parts"
                );
                break;
            }
        }
    }
}

/// The groups of the commit that found no space change the node's own state, so they are synced
/// under `os` too, with all groups before them: what a sync that found no space has left behind is
/// written again.
#[test]
fn a_commit_that_finds_no_space_is_durable_in_the_space_of_the_reserve() {
    for durability in ["fsync", "os"] {
        for when in ["write", "sync", "mark"] {
            let machine = Machine::new();
            machine.run(&format!("{durability} 6 {when}"));
            let survived = machine.survives(options);
            assert!(
                (10..=15).contains(&survived),
                "{survived}: {durability}, {when}"
            );
            if durability == "fsync" {
                assert!(survived >= 11, "{survived}: {when}");
            }
        }
    }
}

/// The disk becomes full at any moment of commits and checkpoints. Nothing is lost, and a
/// checkpoint that finds no space ends nothing.
#[test]
fn a_disk_that_becomes_full_at_any_moment_loses_nothing() {
    let machine = Machine::new();
    let mut groups = 0;
    for full_at in 1..=30 {
        machine.run(&format!("tiny 30 {}", groups + full_at));
        let full = machine.base.path().join("full");
        assert!(!full.exists(), "full at {full_at}: nothing was written");
        groups += 30;
        assert_eq!(machine.survives(tiny), groups, "full at {full_at}");
    }
}
