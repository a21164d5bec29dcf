//! Several keys: transfers beside single puts, scans of very many keys, and keys that expire.

use std::time::{Duration, Instant};

use bytes::Bytes;
use kvclient::{Call, CallError, Client, ClientOptions, Completion, Scan};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use wire::{Action, KeyChange, NodeStatus, Outcome, Transaction, TransactionPart};

use crate::bench::{self, Bench, part_left, resident_max, scaled};
use crate::nodes::{Cluster, Keep, wait_until};

/// Operations that a client keeps in flight.
const LOOPS: u64 = 64;
/// The contended accounts.
const FEW: u64 = 10;

fn open(cluster: &Cluster) -> Client {
    let options = ClientOptions {
        deadline: Duration::from_secs(20),
        ..ClientOptions::default()
    };
    Client::open(&cluster.list(), options).expect("addresses")
}

/// Keeps operations in flight until `goes_on` says no; all end before it returns. `make` makes the
/// operation of that number. Returns how many were done.
fn keep_in_flight(
    client: &Client,
    loops: u64,
    mut make: impl FnMut(u64) -> Call,
    mut goes_on: impl FnMut(u64) -> bool,
) -> u64 {
    let (mut begun, mut in_flight, mut done) = (0, 0, 0);
    let mut completed: Vec<Completion> = Vec::new();
    loop {
        while in_flight < loops && goes_on(begun) {
            client.submit(make(begun), begun).expect("it is accepted");
            begun += 1;
            in_flight += 1;
        }
        if in_flight == 0 {
            return done;
        }
        let mut ready = [PollFd::new(client.poll_fd(), PollFlags::POLLIN)];
        poll(&mut ready, PollTimeout::NONE).expect("it can be waited for");
        client.completions(&mut completed, 1_024);
        for completion in completed.drain(..) {
            in_flight -= 1;
            match completion.result {
                Ok(Outcome::Written { .. } | Outcome::Committed { .. }) => done += 1,
                // Others held its keys all the time.
                Ok(Outcome::Failed { .. }) | Err(CallError::Busy) => {}
                other => panic!("operation {}: {other:?}", completion.tag),
            }
        }
    }
}

/// Operations per second.
fn rate(client: &Client, duration: Duration, make: impl FnMut(u64) -> Call) -> f64 {
    let began = Instant::now();
    let done = keep_in_flight(client, LOOPS, make, |_| began.elapsed() < duration);
    done as f64 / began.elapsed().as_secs_f64()
}

fn put(key: String) -> Call {
    let value = Bytes::from_static(&[b'v'; 100]);
    Call::new(key, Action::Put { value })
}

fn transfer(from: String, to: String) -> Call {
    let add = |key: &str, delta| TransactionPart {
        key: key.to_owned().into(),
        change: Some(KeyChange::Add(delta)),
        ..TransactionPart::default()
    };
    let parts = vec![add(&from, -1), add(&to, 1)];
    let transaction = Transaction { parts };
    Call::new(from, Action::Transact { transaction })
}

/// A transfer over two keys that nobody else uses costs at most as much as five puts, and transfers
/// that all meet on ten accounts go on.
#[test]
fn transfers_beside_single_puts() {
    let cluster = Cluster::start(5, Keep::Memory);
    let client = open(&cluster);
    let duration = Duration::from_secs(scaled(5, 2));
    let own = |n: u64| {
        let account = n % 5_000;
        transfer(format!("from/{account}"), format!("to/{account}"))
    };
    // Otherwise new keys, which take a round trip more, would be a larger share of the slower load.
    fill(&client, 10_000, |n| put(format!("put/{n}")));
    fill(&client, 5_000, own);
    let puts = rate(&client, duration, |n| put(format!("put/{}", n % 10_000)));
    let own = rate(&client, duration, own);
    let shared = rate(&client, duration, |n| {
        let (from, to) = (n % FEW, (n + 1 + n / FEW % (FEW - 1)) % FEW);
        transfer(format!("few/{from}"), format!("few/{to}"))
    });
    println!("puts {puts:.0}/s, transfers {own:.0}/s, on ten accounts {shared:.0}/s");
    assert!(own >= puts * part_left(0.2), "{own} beside {puts}");
    assert!(shared >= own * part_left(0.1), "{shared} beside {own}");
}

fn fill(client: &Client, count: u64, make: impl FnMut(u64) -> Call) {
    let done = keep_in_flight(client, 1_000, make, |begun| begun < count);
    assert_eq!(done, count);
}

/// A scan of very many keys is quick, takes no memory of the nodes, and leaves puts most of their
/// speed.
#[test]
fn a_scan_of_very_many_keys() {
    let cluster = Cluster::start(5, Keep::Memory);
    let client = open(&cluster);
    let count = scaled(1_000_000, 30_000);
    fill(&client, count, |n| put(format!("scan/{n:08}")));
    let before = resident_max(&cluster);
    let scan = || {
        let began = Instant::now();
        let keys = client.scan(Scan::prefix(b"scan/").keys_only());
        let told = keys.inspect(|entry| assert!(entry.is_ok(), "{entry:?}"));
        let told = told.count();
        assert_eq!(told as u64, count);
        count as f64 / began.elapsed().as_secs_f64()
    };
    let alone = scan();
    println!("{alone:.0} keys/s");
    let words = format!("bench --mix 0:1 {}", bench::seconds(8, 2));
    let puts_alone = bench::run(&cluster.list(), &words).per_second();
    let beside = Bench::start(&cluster.list(), &words);
    std::thread::sleep(Duration::from_millis(500));
    let mut rates = vec![scan()];
    while rates.len() < scaled(2, 1) {
        rates.push(scan());
    }
    let puts = beside.end().per_second();
    let grown = resident_max(&cluster).saturating_sub(before);
    println!(
        "{puts:.0} puts/s of {puts_alone:.0}/s beside scans of {rates:.0?} keys/s; grown by {grown} bytes"
    );
    assert!(alone >= scaled(200_000.0, 20_000.0), "{alone} keys/s");
    assert!(grown < 64 << 20, "by {grown} bytes");
}

fn statuses(client: &Client) -> Vec<NodeStatus> {
    let told = client.status(Duration::from_secs(2));
    told.into_iter().filter_map(|(_, status)| status).collect()
}

/// Very many keys that expire at about the same time are removed soon after it, and purged later.
#[test]
fn very_many_keys_expire() {
    let cluster = Cluster::start(5, Keep::Memory);
    let client = open(&cluster);
    let (count, ttl) = (scaled(100_000, 10_000), Duration::from_secs(5));
    fill(&client, count, |n| {
        let value = Bytes::from_static(b"v");
        let ttl_ms = ttl.as_millis() as u64;
        let over = None;
        let put = Action::PutFor {
            value,
            ttl_ms,
            over,
        };
        Call::new(format!("expiring/{n}"), put)
    });
    let last_put = Instant::now();
    assert!(statuses(&client).iter().any(|status| status.keys > 0));
    wait_until(ttl + Duration::from_secs(scaled(2, 20)), "no keys", || {
        let told = statuses(&client);
        told.len() == 5 && told.iter().all(|status| status.keys == 0)
    });
    println!(
        "gone {:?} after the last put, with {ttl:?} to live",
        last_put.elapsed()
    );
    wait_until(Duration::from_secs(120), "no records", || {
        let told = statuses(&client);
        // The configuration is one.
        told.len() == 5 && told.iter().all(|status| status.records <= 1)
    });
    println!("purged {:?} after the last put", last_put.elapsed());
}
