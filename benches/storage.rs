//! How long commits take, and how long a store with many keys takes to open. Asserts nothing.
//!
//! `cargo bench --bench storage -- [KEYS] [DIRECTORY]`; a million keys in a temporary directory
//! unless told otherwise. A directory that is there already is only opened.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use horseshoe::protocol::ballot::Ballot;
use horseshoe::protocol::message::Group;
use horseshoe::protocol::record::{AcceptorState, Key, Record};
use horseshoe::storage::{DiskOptions, Durability, Opened, disk};

const VALUE_SIZE: usize = 100;

fn main() {
    // `cargo test --all-targets` runs this too, without the argument that `cargo bench` gives.
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    if !arguments.iter().any(|argument| argument == "--bench") {
        return;
    }
    arguments.retain(|argument| argument != "--bench");
    let keys = arguments.first().map_or(1_000_000, |keys| {
        keys.parse().expect("the number of keys is a number")
    });
    let temporary;
    let directory = match arguments.get(1) {
        Some(directory) => Path::new(directory),
        None => {
            temporary = tempfile::tempdir().expect("a temporary directory");
            temporary.path()
        }
    };
    let directory = directory.join("data");
    if directory.exists() {
        // Made by an earlier run: what a process that only opens it comes to.
        open(&directory, Durability::Fsync, "open");
        println!("resident: {}", resident());
    } else {
        run(&directory, keys);
    }
}

fn run(directory: &Path, keys: u64) {
    let mut next = 1;
    for (durability, size, commits) in [
        (Durability::Fsync, 1, 500),
        (Durability::Fsync, 50, 500),
        (Durability::Os, 1, 5_000),
        (Durability::Os, 50, 5_000),
    ] {
        let mut opened = open(directory, durability, "");
        let title = format!("{durability}, {size} registers a commit");
        commit(&mut opened, &title, &mut next, size, commits, keys);
        opened.storage.close().expect("closes");
    }
    let mut opened = open(directory, Durability::Os, "");
    let title = format!("load {keys} keys, 1000 a commit");
    commit(&mut opened, &title, &mut next, 1_000, keys / 1_000, keys);
    drop(opened);
    open(directory, Durability::Fsync, "open after no clean stop");
    let opened = open(directory, Durability::Fsync, "open again");
    opened.storage.close().expect("closes");
    open(directory, Durability::Fsync, "open after a clean stop");
    println!("resident: {}", resident());
}

fn open(directory: &Path, durability: Durability, title: &str) -> Opened {
    let list = vec!["127.0.0.1:1".to_string()];
    let start = Instant::now();
    let options = DiskOptions::new(directory, list, 0, durability);
    let opened = disk::open(options, 1).expect("opens");
    if !title.is_empty() {
        let keys = opened.table.keys();
        println!("{title}: {:?}, {keys} keys", start.elapsed());
    }
    opened
}

fn commit(opened: &mut Opened, title: &str, next: &mut u64, size: u64, commits: u64, keys: u64) {
    let mut times = Vec::new();
    let start = Instant::now();
    for _ in 0..commits {
        let number = opened.recovered.group + 1;
        opened.recovered.group = number;
        let registers = (*next..*next + size).map(|n| register(n, keys)).collect();
        *next += size;
        let group = Group {
            number,
            registers,
            ..Group::default()
        };
        let start = Instant::now();
        opened.storage.commit(&[group]).expect("commits");
        times.push(start.elapsed());
    }
    let total = start.elapsed();
    times.sort();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    let rate = (size * commits) as f64 / total.max(Duration::from_nanos(1)).as_secs_f64();
    println!(
        "{title}: {rate:.0} registers/s; a commit {:?} median, {:?} p99, {:?} at most",
        at(0.5),
        at(0.99),
        at(1.0)
    );
}

/// Spread over the keys in an order that is not theirs.
fn register(n: u64, keys: u64) -> (Key, AcceptorState) {
    let place = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) % keys;
    let state = AcceptorState {
        promised: Ballot(n << 8),
        accepted: Ballot(n << 8),
        chosen: true,
        record: Some(Arc::new(Record {
            value: Some(Bytes::from(vec![n as u8; VALUE_SIZE])),
            version: n,
            ..Record::default()
        })),
        life: 0,
    };
    (Key::user(format!("key {place:012}").as_bytes()), state)
}

fn resident() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM"));
    line.unwrap_or("unknown").to_string()
}
