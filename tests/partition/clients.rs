//! Clients that run one operation after the other, and record the outcomes.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use kvclient::{CallError, ClientOptions};
use wire::{Action, Outcome, Version};

use crate::history::{Ending, RecordedCall};
use crate::random::Random;
use crate::table::Load;
use crate::transfers;

/// The shortest pause between operations, so that clients do not use up a machine with few cores.
const THINK_US_MIN: u64 = 1_000;
const THINK_US_MAX: u64 = 2_000;
/// A value that grew beyond this size is deleted.
const APPENDED_SIZE_MAX: usize = 600;

/// The keys that all clients read and write.
pub const SHARED_KEYS: [&str; 3] = ["register", "sum", "list"];
pub const ONE_KEY: [&str; 1] = ["one"];

/// The time since the start, and the order of all calls and ends.
#[derive(Debug)]
pub struct Clock {
    started: Instant,
    places: AtomicU64,
}

impl Clock {
    pub fn start() -> Clock {
        Clock {
            started: Instant::now(),
            places: AtomicU64::new(0),
        }
    }

    pub fn now_us(&self) -> u64 {
        self.started.elapsed().as_micros() as u64
    }

    pub fn sleep_until(&self, at_us: u64) {
        let now_us = self.now_us();
        std::thread::sleep(Duration::from_micros(at_us.saturating_sub(now_us)));
    }

    fn next_place(&self) -> u64 {
        self.places.fetch_add(1, Ordering::SeqCst)
    }
}

/// One client's connection and history.
#[derive(Debug)]
pub struct Caller<'a> {
    clock: &'a Clock,
    client: kvclient::Client,
    number: usize,
    calls: Vec<RecordedCall>,
}

impl<'a> Caller<'a> {
    pub fn new(clock: &'a Clock, number: usize, nodes: &str) -> Caller<'a> {
        let client = kvclient::Client::open(nodes, ClientOptions::default());
        Caller {
            clock,
            client: client.expect("addresses"),
            number,
            calls: Vec::new(),
        }
    }

    /// Runs one operation to its end.
    pub fn call(&mut self, key: &str, action: Action, want_old: bool) -> &RecordedCall {
        let key = Bytes::copy_from_slice(key.as_bytes());
        let mut wanted = kvclient::Call::new(key.clone(), action.clone());
        wanted.want_old = want_old;
        let called_us = self.clock.now_us();
        let called = self.clock.next_place();
        let result = self.client.call(wanted);
        let ended = self.clock.next_place();
        self.calls.push(RecordedCall {
            client: self.number,
            key,
            action,
            want_old,
            called,
            ended: Some(ended),
            called_us,
            ended_us: Some(self.clock.now_us()),
            ending: ending(result),
        });
        self.calls.last().expect("just pushed")
    }

    pub fn into_calls(self) -> Vec<RecordedCall> {
        self.calls
    }
}

fn ending(result: Result<Outcome, CallError>) -> Ending {
    Ending::Answered(match result {
        Ok(outcome) => outcome,
        Err(CallError::NoQuorum { .. }) => Outcome::NoQuorum {
            reached: Vec::new(),
        },
        Err(CallError::UnknownOutcome) => Outcome::Unknown,
        Err(CallError::Busy) => Outcome::Busy { after_ms: 0 },
        Err(CallError::Full(full)) => Outcome::Full { full },
        Err(CallError::TooLarge { limit, .. }) => Outcome::TooLarge { limit },
        Err(CallError::NotANumber) => Outcome::NotANumber,
        Err(CallError::Overflow) => Outcome::Overflow,
        Err(CallError::TimedOut) => return Ending::TimedOut,
        Err(
            error @ (CallError::Closed
            | CallError::TwoClusters { .. }
            | CallError::WrongAnswer(_)
            | CallError::InvalidArgument(_)),
        ) => panic!("a call that was never to end so: {error}"),
    })
}

/// Runs operations until `stop` is set.
pub fn run(mut caller: Caller, load: Load, seed: u64, stop: &AtomicBool) -> Vec<RecordedCall> {
    let mut chooser = Chooser {
        random: Random::stream(seed, caller.number as u64 + 1),
        client: caller.number,
        count: 0,
        version: 0,
        listed_size: 0,
    };
    while !stop.load(Ordering::Relaxed) {
        let (key, action, want_old) = match load {
            Load::OneKey => chooser.for_one_key(),
            Load::Transfers => chooser.for_accounts(),
            Load::Mixed | Load::Idle | Load::Flood => chooser.for_shared_keys(),
        };
        let call = caller.call(&key, action, want_old);
        chooser.learn(call);
        let think_us = chooser.random.between(THINK_US_MIN, THINK_US_MAX);
        std::thread::sleep(Duration::from_micros(think_us));
    }
    caller.into_calls()
}

/// Selects a client's next operation.
#[derive(Debug)]
struct Chooser {
    random: Random,
    client: usize,
    count: u64,
    /// The register's version, as last seen.
    version: Version,
    /// The size of the list, as last seen.
    listed_size: usize,
}

impl Chooser {
    fn learn(&mut self, call: &RecordedCall) {
        let Ending::Answered(outcome) = &call.ending else {
            return;
        };
        match (&call.key[..], outcome) {
            (b"register", Outcome::Value { version, .. } | Outcome::Written { version, .. }) => {
                self.version = *version;
            }
            (b"list", Outcome::Value { value, .. }) => self.listed_size = value.len(),
            (b"list", Outcome::Absent) => self.listed_size = 0,
            _ => {}
        }
    }

    /// A value that no other client writes.
    fn fresh(&mut self) -> Bytes {
        self.count += 1;
        Bytes::from(format!("{}.{}", self.client, self.count))
    }

    fn for_one_key(&mut self) -> (String, Action, bool) {
        let value = self.fresh();
        (ONE_KEY[0].to_owned(), Action::Put { value }, false)
    }

    /// Transfers, snapshots, and reads of single accounts.
    fn for_accounts(&mut self) -> (String, Action, bool) {
        let (from, to, amount) = transfers::choose(&mut self.random, transfers::ACCOUNTS);
        let (key, action) = match self.random.below(10) {
            0..=4 => transfers::transfer(from, to, amount, None),
            5..=7 => transfers::snapshot(transfers::ACCOUNTS),
            _ => {
                let key = transfers::account(from);
                (String::from_utf8_lossy(&key).into_owned(), Action::Get)
            }
        };
        (key, action, false)
    }

    fn for_shared_keys(&mut self) -> (String, Action, bool) {
        let key = *self.random.pick(&SHARED_KEYS);
        if self.random.chance(450) {
            return (key.to_owned(), Action::Get, false);
        }
        let action = match key {
            "register" => self.for_register(),
            "sum" => Action::Add {
                delta: self.random.between(1, 9) as i64,
            },
            _ => self.for_list(),
        };
        // The final sum checks the additions, so they need not request the old value.
        let want_old = key != "sum" && self.random.chance(300);
        (key.to_owned(), action, want_old)
    }

    fn for_register(&mut self) -> Action {
        let value = self.fresh();
        match self.random.below(10) {
            0 => Action::Delete,
            1 => Action::PutIfAbsent { value },
            2 if self.version > 0 => Action::CompareVersion {
                version: self.version,
                value,
            },
            _ => Action::Put { value },
        }
    }

    fn for_list(&mut self) -> Action {
        if self.listed_size > APPENDED_SIZE_MAX {
            self.listed_size = 0;
            return Action::Delete;
        }
        let token = self.fresh();
        let value = [b"+", &token[..], b";"].concat().into();
        Action::Append { value }
    }
}
