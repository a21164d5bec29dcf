//! The closed loops of one handle, on one thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use kvclient::{Call, CallError, Client, Completion};
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use wire::{Action, Outcome};

use super::tally::{BenchTally, Kind};
use super::{BenchArgs, Mix};

/// Concurrent writes while the keys are written for the first time.
const PREPARING_MAX: usize = 1_024;
/// The number of attempts to write a key.
const PREPARE_TRIES_MAX: u32 = 5;
const COMPLETIONS_MAX: usize = 4_096;
const PAUSE: Duration = Duration::from_millis(1);

/// The operations of a benchmark.
#[derive(Debug)]
pub struct Workload {
    keys: Vec<Bytes>,
    value: Bytes,
    mix: Mix,
}

impl Workload {
    pub fn new(arguments: &BenchArgs) -> Workload {
        let mut value = vec![0; arguments.value_size as usize];
        StdRng::seed_from_u64(0).fill_bytes(&mut value);
        Workload {
            keys: (0..arguments.keys)
                .map(|number| Bytes::from(format!("bench/{number:08}")))
                .collect(),
            value: Bytes::from(value),
            mix: arguments.mix,
        }
    }

    fn put(&self, key: usize) -> Call {
        let value = self.value.clone();
        Call::new(self.keys[key].clone(), Action::Put { value })
    }

    fn pick(&self, random: &mut StdRng) -> (Kind, Call) {
        let key = random.random_range(0..self.keys.len());
        match random.random_range(0..self.mix.gets + self.mix.puts) < self.mix.gets {
            true => (Kind::Get, Call::new(self.keys[key].clone(), Action::Get)),
            false => (Kind::Put, self.put(key)),
        }
    }
}

/// Writes each key once.
pub fn write_keys(client: &Client, workload: &Workload) -> Result<(), CallError> {
    let mut tries = vec![0; workload.keys.len()];
    let mut waiting: Vec<usize> = (0..workload.keys.len()).rev().collect();
    let mut under_way = 0;
    let mut completions: Vec<Completion> = Vec::new();
    while under_way > 0 || !waiting.is_empty() {
        while under_way < PREPARING_MAX
            && let Some(key) = waiting.pop()
        {
            match client.submit(workload.put(key), key as u64) {
                Ok(()) => under_way += 1,
                Err(CallError::Busy) if under_way > 0 => {
                    waiting.push(key);
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        if client.completions(&mut completions, COMPLETIONS_MAX) == 0 {
            client.wait(Duration::from_millis(100));
        }
        for Completion { tag, result } in completions.drain(..) {
            under_way -= 1;
            let key = tag as usize;
            if let Err(error) = result {
                tries[key] += 1;
                if tries[key] >= PREPARE_TRIES_MAX || matches!(error, CallError::NoQuorum { .. }) {
                    return Err(error);
                }
                waiting.push(key);
            }
        }
    }
    Ok(())
}

/// One thread's part.
pub struct Load {
    pub client: Client,
    pub workload: Arc<Workload>,
    pub seed: u64,
    /// Closed loops of this thread.
    pub clients: usize,
    pub until: Instant,
    /// Operations done by all threads, for the line of progress.
    pub done: Arc<AtomicU64>,
}

impl Load {
    /// Operations that end after the time is up do not count.
    pub fn run(self) -> BenchTally {
        let started = Instant::now();
        let mut tally = BenchTally::default();
        match self.clients {
            1 => self.one_at_a_time(&mut tally),
            _ => self.multiplexed(&mut tally),
        }
        tally.took = self.until.saturating_duration_since(started);
        tally
    }

    fn one_at_a_time(&self, tally: &mut BenchTally) {
        let mut random = StdRng::seed_from_u64(self.seed);
        loop {
            let (kind, call) = self.workload.pick(&mut random);
            let began = Instant::now();
            let result = self.client.call(call);
            let now = Instant::now();
            if now >= self.until {
                return;
            }
            self.record(tally, kind, now - began, result);
        }
    }

    fn multiplexed(&self, tally: &mut BenchTally) {
        let mut random = StdRng::seed_from_u64(self.seed);
        let mut loops = vec![(Kind::Get, Instant::now()); self.clients];
        let mut idle: Vec<usize> = (0..self.clients).collect();
        let mut completions: Vec<Completion> = Vec::with_capacity(COMPLETIONS_MAX);
        loop {
            while let Some(at) = idle.pop() {
                let (kind, call) = self.workload.pick(&mut random);
                loops[at] = (kind, Instant::now());
                if let Err(error) = self.client.submit(call, at as u64) {
                    tally.error(error);
                    idle.push(at);
                    // The call was refused; when calls in progress have ended, the next one may be
                    // accepted.
                    std::thread::sleep(PAUSE);
                    break;
                }
            }
            let left = self.until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            // The call also sends what was submitted, so waiting first would only delay that.
            if self.client.completions(&mut completions, COMPLETIONS_MAX) == 0 {
                self.client.wait(left);
                continue;
            }
            let now = Instant::now();
            if now >= self.until {
                return;
            }
            for Completion { tag, result } in completions.drain(..) {
                let at = tag as usize;
                let (kind, began) = loops[at];
                self.record(tally, kind, now - began, result);
                idle.push(at);
            }
        }
    }

    fn record(
        &self,
        tally: &mut BenchTally,
        kind: Kind,
        took: Duration,
        result: Result<Outcome, CallError>,
    ) {
        match result {
            // All keys were written before the measurement.
            Ok(Outcome::Absent) => tally.lost += 1,
            Ok(_) => {
                tally.add(kind, took);
                self.done.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => tally.error(error),
        }
    }
}
