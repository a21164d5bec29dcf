//! The operations, and what closed and open loops have in common.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use kvclient::{Call, CallError, Client};
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use wire::{Action, Outcome};

use super::early::{EarlyEnd, EarlyReason};
use super::plan::{BenchPlan, Mix};
use super::record::{Flight, RecordLog, Recording};
use super::schedule::RateSchedule;
use super::tally::{BenchTally, Kind};

pub const COMPLETIONS_MAX: usize = 4_096;
/// No wait is longer, so that an early end is noticed.
pub const WAIT_MAX: Duration = Duration::from_millis(100);

/// The operations of a benchmark.
#[derive(Debug)]
pub struct Workload {
    keys: Vec<Bytes>,
    value: Bytes,
    mix: Mix,
    /// With `--check`: operations are recorded, and every put writes a different value.
    pub recording: Option<Recording>,
}

/// An operation that is about to start.
#[derive(Debug)]
pub struct PickedOperation {
    kind: Kind,
    key: u32,
    number: u32,
    pub call: Call,
}

impl PickedOperation {
    pub fn flight(&self, intended: Instant, called: Instant) -> Flight {
        Flight {
            kind: self.kind,
            key: self.key,
            number: self.number,
            intended,
            called,
        }
    }
}

impl Workload {
    pub fn new(plan: &BenchPlan, recording: Option<Recording>) -> Workload {
        let mut value = vec![0; plan.value_size as usize];
        StdRng::seed_from_u64(0).fill_bytes(&mut value);
        Workload {
            keys: (0..plan.keys)
                .map(|number| Bytes::from(key_name(number)))
                .collect(),
            value: Bytes::from(value),
            mix: plan.mix,
            recording,
        }
    }

    pub fn key_count(&self) -> usize {
        self.keys.len()
    }

    pub fn pick(&self, random: &mut StdRng) -> PickedOperation {
        let key = random.random_range(0..self.keys.len());
        match random.random_range(0..self.mix.gets + self.mix.puts) < self.mix.gets {
            true => self.operation(Kind::Get, key as u32),
            false => self.operation(Kind::Put, key as u32),
        }
    }

    pub fn operation(&self, kind: Kind, key: u32) -> PickedOperation {
        let (number, action) = match (kind, &self.recording) {
            (Kind::Get, _) => (0, Action::Get),
            (Kind::Put, None) => {
                let value = self.value.clone();
                (0, Action::Put { value })
            }
            (Kind::Put, Some(recording)) => {
                let number = recording.values.next();
                let value = recording.values.value(number);
                (number, Action::Put { value })
            }
        };
        PickedOperation {
            kind,
            key,
            number,
            call: Call::new(self.keys[key as usize].clone(), action),
        }
    }

    pub fn record(
        &self,
        log: &mut RecordLog,
        flight: &Flight,
        client: u32,
        ended: Instant,
        result: &Result<Outcome, CallError>,
    ) {
        if let Some(recording) = &self.recording {
            log.push(recording, flight, client, ended, result);
        }
    }
}

pub fn key_name(number: u32) -> String {
    format!("bench/{number:08}")
}

/// The part of the load that one thread drives.
#[derive(Debug)]
pub struct Load {
    pub client: Client,
    pub workload: Arc<Workload>,
    pub seed: u64,
    /// Closed loops of this thread, or in an open loop the limit of operations in flight.
    pub clients: usize,
    /// The number of clients of the threads before this one: clients have numbers over all threads.
    pub clients_before: u32,
    /// `None` for closed loops.
    pub schedule: Option<RateSchedule>,
    pub started: Instant,
    pub duration: Duration,
    pub early: EarlyEnd,
    /// Operations done by all threads, for the line of progress.
    pub done: Arc<AtomicU64>,
}

/// The results of one thread, or of all.
#[derive(Debug, Default)]
pub struct LoadResult {
    pub tally: BenchTally,
    pub log: RecordLog,
}

impl Load {
    pub fn run(self) -> (Client, LoadResult) {
        let mut result = LoadResult::default();
        match self.schedule {
            Some(schedule) => self.open_loop(schedule, &mut result),
            None if self.clients == 1 => self.one_at_a_time(&mut result),
            None => self.closed_loops(&mut result),
        }
        result.tally.took = self.measured();
        (self.client, result)
    }

    pub fn random(&self) -> StdRng {
        StdRng::seed_from_u64(self.seed)
    }

    /// From the beginning to the end of the time, or to the early end.
    pub fn measured(&self) -> Duration {
        let until = self.early.at();
        let took = until.map(|at| at.saturating_duration_since(self.started));
        took.unwrap_or(self.duration).min(self.duration)
    }

    pub fn is_over(&self, elapsed: Duration) -> bool {
        elapsed >= self.duration || self.early.is_set()
    }

    /// False if the operation could not be recorded; then it must not be started.
    pub fn take_room(&self) -> bool {
        let has_room = self
            .workload
            .recording
            .as_ref()
            .is_none_or(Recording::take_room);
        if !has_room {
            self.early.end(EarlyReason::RecordFull);
        }
        has_room
    }

    pub fn record(
        &self,
        log: &mut RecordLog,
        flight: &Flight,
        client: usize,
        ended: Instant,
        result: &Result<Outcome, CallError>,
    ) {
        let client = self.clients_before + client as u32;
        self.workload.record(log, flight, client, ended, result);
    }

    /// Records and counts an operation that the library refused: it was not started.
    pub fn refused(&self, into: &mut LoadResult, flight: &Flight, client: usize, error: CallError) {
        let (ended, result) = (Instant::now(), Err(error));
        self.record(&mut into.log, flight, client, ended, &result);
        self.count(&mut into.tally, flight, ended, result);
    }

    /// Counts the end of an operation, and tells whether it succeeded.
    pub fn count(
        &self,
        tally: &mut BenchTally,
        flight: &Flight,
        ended: Instant,
        result: Result<Outcome, CallError>,
    ) -> bool {
        match result {
            // All keys were written before the measurement.
            Ok(Outcome::Absent) => tally.lost += 1,
            Ok(_) => {
                let took = ended.saturating_duration_since(flight.intended);
                tally.add(flight.kind, took);
                self.done.fetch_add(1, Ordering::Relaxed);
                return true;
            }
            Err(error) => tally.error(error),
        }
        false
    }
}
