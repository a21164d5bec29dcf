//! Operations that the tests run on a cluster.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use kvclient::{Call, CallError, Client, ClientOptions};
use wire::{Action, Outcome};

/// A client that is new to the cluster, as in each run of the command line.
#[track_caller]
pub fn client(nodes: &str) -> Client {
    Client::open(nodes, ClientOptions::default()).expect("addresses")
}

fn call(client: &Client, key: &str, action: Action) -> Result<Outcome, CallError> {
    client.call(Call::new(Bytes::copy_from_slice(key.as_bytes()), action))
}

pub fn try_put(client: &Client, key: &str, value: &str) -> Result<(), CallError> {
    let value = Bytes::copy_from_slice(value.as_bytes());
    match call(client, key, Action::Put { value })? {
        Outcome::Written { .. } => Ok(()),
        other => panic!("a put of {key} came to {other:?}"),
    }
}

/// Returns `None` if the key is absent.
pub fn try_get(client: &Client, key: &str) -> Result<Option<String>, CallError> {
    match call(client, key, Action::Get)? {
        Outcome::Value { value, .. } => Ok(Some(
            String::from_utf8(value.into()).expect("values are text"),
        )),
        Outcome::Absent => Ok(None),
        other => panic!("a get of {key} came to {other:?}"),
    }
}

pub fn try_add(client: &Client, key: &str, delta: i64) -> Result<(), CallError> {
    match call(client, key, Action::Add { delta })? {
        Outcome::Written { .. } => Ok(()),
        other => panic!("an add to {key} came to {other:?}"),
    }
}

#[track_caller]
pub fn put(client: &Client, key: &str, value: &str) {
    if let Err(error) = try_put(client, key, value) {
        panic!("put {key} through {:?}: {error}", client.nodes());
    }
}

#[track_caller]
pub fn get(client: &Client, key: &str) -> Option<String> {
    match try_get(client, key) {
        Ok(value) => value,
        Err(error) => panic!("get {key} through {:?}: {error}", client.nodes()),
    }
}

/// Writes a value and reads it back.
#[track_caller]
pub fn assert_serves(nodes: &str, key: &str) {
    let client = client(nodes);
    put(&client, key, key);
    assert_eq!(get(&client, key).as_deref(), Some(key));
}

/// A get and a put through fresh clients fail with `no quorum`, each in time.
#[track_caller]
pub fn assert_no_quorum(nodes: &str, key: &str, bound: Duration) {
    let began = Instant::now();
    let found = try_get(&client(nodes), key);
    assert!(
        matches!(found, Err(CallError::NoQuorum { .. })),
        "{found:?}"
    );
    assert!(began.elapsed() < bound, "a get took {:?}", began.elapsed());
    let began = Instant::now();
    let done = try_put(&client(nodes), key, "never");
    assert!(matches!(done, Err(CallError::NoQuorum { .. })), "{done:?}");
    assert!(began.elapsed() < bound, "a put took {:?}", began.elapsed());
}

/// The outcomes of many operations.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Count {
    pub done: i64,
    pub unknown: i64,
    /// All other errors, as text.
    pub errors: Vec<String>,
}

impl Count {
    pub fn take(&mut self, result: Result<(), CallError>) {
        match result {
            Ok(()) => self.done += 1,
            Err(CallError::UnknownOutcome) => self.unknown += 1,
            Err(error) => self.errors.push(error.to_string()),
        }
    }

    pub fn merge(&mut self, other: Count) {
        self.done += other.done;
        self.unknown += other.unknown;
        self.errors.extend(other.errors);
    }
}

/// Runs an operation in a loop on this many threads, each with its own client, while `body` runs.
/// The operation receives its thread's number and the count of its earlier operations.
pub fn while_running<T>(
    threads: usize,
    nodes: &str,
    operation: impl Fn(&Client, usize, u64) -> Result<(), CallError> + Sync,
    body: impl FnOnce() -> T,
) -> (Count, T) {
    /// Ends the threads even if `body` fails.
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let stop = AtomicBool::new(false);
    let run = |thread: usize| {
        let client = client(nodes);
        let mut count = Count::default();
        for number in 0.. {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            count.take(operation(&client, thread, number));
        }
        count
    };
    std::thread::scope(|scope| {
        let run = &run;
        let running: Vec<_> = (0..threads)
            .map(|thread| scope.spawn(move || run(thread)))
            .collect();
        let guard = Stop(&stop);
        let result = body();
        drop(guard);
        let mut total = Count::default();
        for thread in running {
            total.merge(thread.join().expect("a client's thread"));
        }
        (total, result)
    })
}
