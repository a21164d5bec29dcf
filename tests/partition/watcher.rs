//! A watcher of all keys beside the clients. At the end it must know what a scan tells.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use bytes::Bytes;
use kvclient::{Client, ClientOptions, Scan, Watch, WatchEvent};
use wire::Version;

/// What a node missed is found by a comparison with the others within this.
const KNOWS_ALL_WITHIN: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(50);

type Present = BTreeMap<Bytes, (Version, Bytes)>;

#[derive(Default)]
struct Shared {
    present: Mutex<Present>,
    stop: AtomicBool,
}

pub struct Watcher {
    shared: Arc<Shared>,
    /// Returns what was told wrongly.
    thread: Option<JoinHandle<Vec<String>>>,
}

impl Watcher {
    pub fn start(list: &str) -> Watcher {
        let client = Client::open(list, ClientOptions::default()).expect("addresses");
        let shared = Arc::new(Shared::default());
        let of_thread = shared.clone();
        let thread = std::thread::spawn(move || watch(&client, &of_thread));
        Watcher {
            shared,
            thread: Some(thread),
        }
    }

    /// Ends the watch, once it knows what a scan tells.
    pub fn check(mut self, list: &str) -> Result<Vec<String>> {
        let client = Client::open(list, ClientOptions::default())?;
        let began = Instant::now();
        loop {
            let mut scanned = Present::new();
            for entry in client.scan(Scan::all()) {
                let entry = entry?;
                let value = entry.value.expect("a scan tells values");
                scanned.insert(entry.key, (entry.version, value));
            }
            let told = self.shared.present.lock().expect("no panic").clone();
            if told == scanned {
                break;
            }
            if began.elapsed() > KNOWS_ALL_WITHIN {
                let differ = |key: &&Bytes| told.get(*key) != scanned.get(*key);
                let mut keys: Vec<&Bytes> = told.keys().chain(scanned.keys()).collect();
                keys.retain(|key| differ(key));
                bail!("a watcher does not know what a scan tells of {keys:?}");
            }
            std::thread::sleep(LOOK);
        }
        self.shared.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("ended once");
        Ok(thread.join().expect("the watcher's thread"))
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

fn watch(client: &Client, shared: &Shared) -> Vec<String> {
    let mut faults = Vec::new();
    let mut versions: BTreeMap<Bytes, Version> = BTreeMap::new();
    for event in client.watch(Watch::prefix(b"")) {
        if shared.stop.load(Ordering::Relaxed) {
            break;
        }
        let changed = match event {
            Ok(WatchEvent::Changed {
                key,
                version,
                value,
            }) => (key, version, value),
            Ok(WatchEvent::Current { .. } | WatchEvent::Apart(_)) => continue,
            Err(error) => {
                faults.push(format!("the watch ended: {error}"));
                break;
            }
        };
        let (key, version, value) = changed;
        let before = versions.insert(key.clone(), version).unwrap_or(0);
        // Version 0: the deletion was purged.
        if version <= before && version > 0 {
            let name = String::from_utf8_lossy(&key);
            faults.push(format!("{name}: {version:#x} was told after {before:#x}"));
        }
        let mut present = shared.present.lock().expect("no panic");
        match value {
            Some(value) => present.insert(key, (version, value)),
            None => present.remove(&key),
        };
    }
    faults
}
