//! Many watches beside many writes.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use kvclient::{Call, Client, ClientOptions, Completion, Watch, WatchEvent};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use wire::{Action, Outcome, Version};

use crate::bench::scaled;
use crate::nodes::{Cluster, Keep};

const WATCHES: usize = 100;
/// Clients that share these watches, each on a thread of its own.
const CLIENTS: usize = 4;
const KEYS: u64 = 1_000;
const PREFIX: &str = "watched/";
/// The last state of each key is told within this on a quiet network. A debug build on the cores
/// that it shares with all nodes gets more.
const TOLD_WITHIN: Duration = Duration::from_millis(100);
const TOLD_WITHIN_IN_SAMPLE: Duration = Duration::from_secs(5);

type Versions = BTreeMap<Bytes, Version>;

fn open(cluster: &Cluster) -> Client {
    Client::open(&cluster.list(), ClientOptions::default()).expect("addresses")
}

/// Drives the watches of one client until `stop`.
fn watch(client: &Client, told: &[Mutex<Versions>], stop: &AtomicBool) {
    let mut watches: Vec<Watch> = told
        .iter()
        .map(|_| Watch::prefix(PREFIX.as_bytes()))
        .collect();
    for (tag, watch) in watches.iter().enumerate() {
        let submitted = client.submit(watch.next_call(), tag as u64);
        submitted.expect("it is accepted");
    }
    let mut completed: Vec<Completion> = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let mut ready = [PollFd::new(client.poll_fd(), PollFlags::POLLIN)];
        poll(&mut ready, PollTimeout::from(100u8)).expect("it can be waited for");
        client.completions(&mut completed, 1_024);
        for completion in completed.drain(..) {
            let watch = &mut watches[completion.tag as usize];
            watch.take(completion.result).expect("it goes on");
            let mut told = told[completion.tag as usize].lock().expect("no panic");
            while let Some(event) = watch.poll_event() {
                if let WatchEvent::Changed { key, version, .. } = event {
                    let before = told.insert(key, version);
                    assert!(before < Some(version), "versions rise");
                }
            }
            let submitted = client.submit(watch.next_call(), completion.tag);
            submitted.expect("it is accepted");
        }
    }
}

/// Puts at this rate; returns the last version of each key.
fn write(client: &Client, rate: u64, duration: Duration) -> Versions {
    let mut last = Versions::new();
    let mut completed: Vec<Completion> = Vec::new();
    let began = Instant::now();
    let (mut begun, mut ended) = (0, 0);
    let all = rate * duration.as_millis() as u64 / 1_000;
    while ended < all {
        let due = (began.elapsed().as_micros() as u64 * rate / 1_000_000).min(all);
        while begun < due {
            let key = Bytes::from(format!("{PREFIX}{}", begun % KEYS));
            let value = Bytes::from(format!("value {begun} of some length, as values have"));
            let call = Call::new(key, Action::Put { value });
            client.submit(call, begun).expect("it is accepted");
            begun += 1;
        }
        let mut ready = [PollFd::new(client.poll_fd(), PollFlags::POLLIN)];
        poll(&mut ready, PollTimeout::from(1u8)).expect("it can be waited for");
        client.completions(&mut completed, 1_024);
        for completion in completed.drain(..) {
            let key = Bytes::from(format!("{PREFIX}{}", completion.tag % KEYS));
            let Ok(Outcome::Written { version, .. }) = completion.result else {
                panic!("put {}: {:?}", completion.tag, completion.result);
            };
            let before = last.entry(key).or_insert(version);
            *before = version.max(*before);
            ended += 1;
        }
    }
    last
}

/// Every watch of a hundred is told the last state of each key at once.
#[test]
fn watches_beside_many_writes() {
    let cluster = Cluster::start(5, Keep::Memory);
    let told: Vec<Mutex<Versions>> = (0..WATCHES).map(|_| Mutex::default()).collect();
    let clients: Vec<Client> = (0..CLIENTS).map(|_| open(&cluster)).collect();
    let stop = AtomicBool::new(false);
    let rate = scaled(5_000, 1_000) as u64;
    let duration = Duration::from_secs(scaled(10, 2) as u64);
    let took = std::thread::scope(|scope| {
        for (client, told) in clients.iter().zip(told.chunks(WATCHES / CLIENTS)) {
            let stop = &stop;
            scope.spawn(move || watch(client, told, stop));
        }
        let last = write(&open(&cluster), rate, duration);
        let ended = Instant::now();
        let knows = |told: &Mutex<Versions>| {
            let told = told.lock().expect("no panic");
            last.iter()
                .all(|(key, version)| told.get(key) >= Some(version))
        };
        while !told.iter().all(knows) && ended.elapsed() < Duration::from_secs(30) {
            std::thread::sleep(Duration::from_millis(1));
        }
        let took = ended.elapsed();
        stop.store(true, Ordering::Relaxed);
        took
    });
    println!("{WATCHES} watches knew all {took:.0?} after the last of {rate} writes a second");
    let within = scaled(TOLD_WITHIN, TOLD_WITHIN_IN_SAMPLE);
    assert!(took <= within, "{took:?}");
}
