//! How long commits take, and how long a store with many keys takes to open. Asserts nothing.
//!
//! `cargo bench --bench storage -- [KEYS] [DIRECTORY]`; the default is a million keys in a
//! temporary directory. A directory that exists already is only opened.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use horseshoe::protocol::types::ballot::Ballot;
use horseshoe::protocol::types::message::Group;
use horseshoe::protocol::types::record::{AcceptorState, Key, Record};
use horseshoe::storage::{DiskOptions, Durability, Opened, Table, disk};
use nix::time::{ClockId, clock_gettime};

const VALUE_SIZE: usize = 100;

fn main() {
    // `cargo test --all-targets` runs this too, without the argument that `cargo bench` passes.
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
        // An earlier run made the directory: measures a process that only opens it.
        open(&directory, Durability::Fsync, "open");
        println!("resident: {} kB", resident("VmHWM"));
    } else {
        // This comes first, while nothing else of this process is resident.
        drop_all(&directory.with_file_name("dropped"), keys);
        compare_tables(keys);
        time_each(keys);
        run(&directory, keys);
    }
}

/// Compares the table with one map of all keys, alternately.
fn compare_tables(keys: u64) {
    let group = Group {
        registers: (1..=keys).map(|n| register(n, keys)).collect(),
        ..Group::default()
    };
    for _ in 0..5 {
        let resident_before = resident("VmRSS");
        let show = |what: &str, [set, load]: [Duration; 2], found: usize| {
            let added = resident("VmRSS") as i64 - resident_before as i64;
            println!("{what}: set {set:?}, load {load:?}, {found} keys, {added} kB");
        };
        let start = processor_time();
        let mut table = Table::default();
        table.apply(&group);
        let set = processor_time() - start;
        let found = group.registers.iter();
        let found = found.filter(|(key, _)| table.load(key).is_some()).count();
        let load = processor_time() - start - set;
        show("table", [set, load], found);
        drop(table);

        let start = processor_time();
        let mut map = HashMap::<Key, AcceptorState, foldhash::fast::RandomState>::default();
        for (key, state) in &group.registers {
            map.insert(key.clone(), state.clone());
        }
        let set = processor_time() - start;
        let found = group.registers.iter();
        let found = found.filter(|(key, _)| map.get(key).cloned().is_some());
        let found = found.count();
        let load = processor_time() - start - set;
        show("one map", [set, load], found);
    }
}

/// The longest time that one change of a table takes while it grows and shrinks: the loop stops for
/// that long.
fn time_each(keys: u64) {
    let mut table = Table::default();
    let show = |what: &str, took: Vec<Duration>| {
        let (all, longest) = (took.iter().sum::<Duration>(), took.iter().max());
        let longest = longest.expect("there are keys");
        println!(
            "{what} {} keys one by one: {all:?}, at most {longest:?}",
            took.len()
        );
    };
    let mut time = |group: Group| {
        let start = processor_time();
        table.apply(&group);
        processor_time() - start
    };
    let set = (1..=keys).map(|n| Group {
        registers: vec![register(n, keys)],
        ..Group::default()
    });
    show("set", set.map(&mut time).collect());
    let dropped = (1..=keys).map(|n| Group {
        dropped: vec![register(n, keys).0],
        ..Group::default()
    });
    show("dropped", dropped.map(&mut time).collect());
}

/// The processor time of this thread; other processes on the machine do not count.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("a clock");
    time.into()
}

/// The processor time of all threads.
fn processor_time_of_all() -> Duration {
    let time = clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).expect("a clock");
    time.into()
}

/// What remains of keys that were written, deleted and dropped.
fn drop_all(directory: &Path, keys: u64) {
    const GROUP_SIZE: u64 = 1_000;
    let mut opened = open(directory, Durability::Os, "");
    let resident_before = resident("VmRSS");
    let show = |opened: &mut Opened, what: &str| {
        let added = resident("VmRSS") as i64 - resident_before as i64;
        let keys = opened.table.keys();
        println!(
            "{what}: {keys} keys, {added} kB resident, {} bytes on disk",
            on_disk(directory)
        );
    };
    let each = |opened: &mut Opened, fill: &dyn Fn(&mut Group, (Key, AcceptorState))| {
        for first in (1..=keys).step_by(GROUP_SIZE as usize) {
            opened.recovered.group += 1;
            let mut group = Group {
                number: opened.recovered.group,
                ..Group::default()
            };
            for n in first..first + GROUP_SIZE {
                fill(&mut group, register(n, keys));
            }
            opened.table.apply(&group);
            opened.storage.commit(&[group]).expect("commits");
            opened.storage.tend().expect("tends");
        }
    };
    show(&mut opened, "empty");
    each(&mut opened, &|group, register| {
        group.registers.push(register)
    });
    show(&mut opened, "written");
    each(&mut opened, &|group, (key, mut state)| {
        state.record = Some(Arc::default());
        group.registers.push((key, state));
    });
    show(&mut opened, "deleted");
    each(&mut opened, &|group, (key, _)| group.dropped.push(key));
    show(&mut opened, "dropped");
    let start = Instant::now();
    let mut longest = Duration::ZERO;
    while start.elapsed() < Duration::from_secs(20) {
        let start = Instant::now();
        opened.storage.tend().expect("tends");
        longest = longest.max(start.elapsed());
        std::thread::sleep(Duration::from_millis(100));
    }
    show(&mut opened, "20 s later");
    println!("tending took {longest:?} at most");
}

fn on_disk(path: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(path) else {
        return path
            .metadata()
            .map_or(0, |metadata| metadata.blocks() * 512);
    };
    entries.flatten().map(|entry| on_disk(&entry.path())).sum()
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
    println!("resident: {} kB", resident("VmHWM"));
}

fn open(directory: &Path, durability: Durability, title: &str) -> Opened {
    let list = vec!["127.0.0.1:1".to_string()];
    let (start, used) = (Instant::now(), processor_time_of_all());
    let options = DiskOptions::new(directory, list, 0, durability);
    let opened = disk::open(options, 1).expect("opens");
    if !title.is_empty() {
        let keys = opened.table.keys();
        println!(
            "{title}: {:?}, {:?} of processor time, {keys} keys",
            start.elapsed(),
            processor_time_of_all() - used
        );
    }
    opened
}

fn commit(opened: &mut Opened, title: &str, next: &mut u64, size: u64, commits: u64, keys: u64) {
    let mut times = Vec::new();
    let mut own = Duration::ZERO;
    let (start, used) = (Instant::now(), processor_time_of_all());
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
        let (start, used) = (Instant::now(), processor_time());
        opened.storage.commit(&[group]).expect("commits");
        opened.storage.tend().expect("tends");
        times.push(start.elapsed());
        own += processor_time() - used;
    }
    let total = start.elapsed();
    let all = processor_time_of_all() - used;
    times.sort();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    let rate = (size * commits) as f64 / total.max(Duration::from_nanos(1)).as_secs_f64();
    println!(
        "{title}: {rate:.0} registers/s; a commit {:?} median, {:?} p99, {:?} at most; processor \
         time of a commit {:?}, of the process per commit {:?}",
        at(0.5),
        at(0.99),
        at(1.0),
        own / commits as u32,
        all / commits as u32
    );
}

/// The registers come in an order that is not that of the keys.
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

/// In kB, now (`VmRSS`) or the peak (`VmHWM`); 0 if the system does not provide it.
fn resident(which: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(which));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}
