//! The operations, and what closed and open loops have in common.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use kvclient::{Call, CallError, Client};
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use rand_distr::Zipf;
use wire::{Action, Outcome};

use super::early::{EarlyEnd, EarlyReason};
use super::plan::{BenchPlan, KeyDistribution, Mix};
use super::record::{Flight, RecordLog, Recording};
use super::schedule::RateSchedule;
use super::tally::{BenchTally, Kind};

/// The exponent of Zipf's law, as in the Yahoo! Cloud Serving Benchmark.
const ZIPF_EXPONENT: f64 = 0.99;
pub const COMPLETIONS_MAX: usize = 4_096;
/// No wait is longer, so that an early end is noticed.
pub const WAIT_MAX: Duration = Duration::from_millis(100);

/// The operations of a benchmark.
#[derive(Debug)]
pub struct Workload {
    keys: Vec<Bytes>,
    /// The keys of adds, whose values are numbers.
    counters: Vec<Bytes>,
    /// Over the places of the keys, from 1; else each is as likely as any other.
    zipf: Option<Zipf<f64>>,
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
        let names = |name: fn(u32) -> String| (0..plan.keys).map(|n| name(n).into()).collect();
        Workload {
            keys: names(key_name),
            counters: match plan.mix.adds {
                0 => Vec::new(),
                _ => names(counter_name),
            },
            zipf: (plan.dist == KeyDistribution::Zipf)
                .then(|| Zipf::new(f64::from(plan.keys), ZIPF_EXPONENT).expect("at least one key")),
            value: Bytes::from(value),
            mix: plan.mix,
            recording,
        }
    }

    pub fn key_count(&self) -> usize {
        self.keys.len()
    }

    pub fn pick(&self, random: &mut StdRng) -> PickedOperation {
        let key = match &self.zipf {
            None => random.random_range(0..self.keys.len()),
            Some(zipf) => (random.sample(zipf) as usize - 1).min(self.keys.len() - 1),
        };
        let Mix { gets, puts, .. } = self.mix;
        let kind = match random.random_range(0..self.mix.all()) {
            n if n < gets => Kind::Get,
            n if n < gets + puts => Kind::Put,
            _ => Kind::Add,
        };
        self.operation(kind, key as u32)
    }

    /// The kinds of operations that touch all keys before the load, so that it meets none that is
    /// new.
    pub fn first_kinds(&self) -> impl Iterator<Item = Kind> {
        let puts = (self.mix.gets + self.mix.puts > 0).then_some(Kind::Put);
        let adds = (self.mix.adds > 0).then_some(Kind::Add);
        puts.into_iter().chain(adds)
    }

    pub fn operation(&self, kind: Kind, key: u32) -> PickedOperation {
        let (number, action) = match (kind, &self.recording) {
            (Kind::Get, _) => (0, Action::Get),
            (Kind::Add, _) => (0, Action::Add { delta: 1 }),
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
        let names = match kind {
            Kind::Add => &self.counters,
            Kind::Get | Kind::Put => &self.keys,
        };
        PickedOperation {
            kind,
            key,
            number,
            call: Call::new(names[key as usize].clone(), action),
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

fn counter_name(number: u32) -> String {
    format!("bench/counter/{number:08}")
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
    /// When the measurement starts; the load starts `warmup` before that.
    pub started: Instant,
    pub warmup: Duration,
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
        result.tally.fill_seconds();
        (self.client, result)
    }

    pub fn random(&self) -> StdRng {
        StdRng::seed_from_u64(self.seed)
    }

    /// From the beginning of the measurement to the end of the time, or to the early end.
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

    /// Counts the end of an operation of the measurement, and tells whether it succeeded.
    pub fn count(
        &self,
        tally: &mut BenchTally,
        flight: &Flight,
        ended: Instant,
        result: Result<Outcome, CallError>,
    ) -> bool {
        if result.is_ok() {
            self.done.fetch_add(1, Ordering::Relaxed);
        }
        // Of a closed loop what ends in the time counts, of an open one what was to start in it.
        let counted_at = match self.schedule {
            None => ended,
            Some(_) => flight.intended,
        };
        if counted_at < self.started {
            return false;
        }
        match result {
            // All keys were written before the measurement.
            Ok(Outcome::Absent) => tally.lost += 1,
            Ok(_) => {
                tally.add(
                    flight.kind,
                    ended.saturating_duration_since(flight.intended),
                );
                let since_start = ended.saturating_duration_since(self.started);
                if !self.is_over(since_start) {
                    tally.ended_at(since_start);
                }
                return true;
            }
            Err(error) => tally.error(error),
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picks(dist: KeyDistribution, mix: Mix) -> Vec<PickedOperation> {
        let plan = BenchPlan {
            clients: 1,
            rate: None,
            keys: 1_000,
            value_size: 1,
            dist,
            mix,
            warmup: Duration::ZERO,
            duration: Duration::ZERO,
            handles: 1,
            seed: 0,
            check: false,
        };
        let workload = Workload::new(&plan, None);
        let mut random = StdRng::seed_from_u64(1);
        (0..10_000).map(|_| workload.pick(&mut random)).collect()
    }

    fn of_key(picks: &[PickedOperation], key: u32) -> usize {
        picks.iter().filter(|picked| picked.key == key).count()
    }

    #[test]
    fn zipf_chooses_the_first_keys_most_often() {
        let puts = Mix {
            gets: 0,
            puts: 1,
            adds: 0,
        };
        let zipf = picks(KeyDistribution::Zipf, puts);
        // The sum of 1 / n^0.99 over the first thousand numbers is 7.7.
        let first = of_key(&zipf, 0);
        assert!((1_100..1_500).contains(&first), "{first}");
        let second = of_key(&zipf, 1);
        assert!((500..800).contains(&second), "{second}");
        assert!(zipf.iter().all(|picked| picked.key < 1_000));
        let uniform = picks(KeyDistribution::Uniform, puts);
        assert!((0..1_000).all(|key| of_key(&uniform, key) < 40));
    }

    #[test]
    fn adds_take_their_share() {
        let mix = Mix {
            gets: 2,
            puts: 1,
            adds: 1,
        };
        let all = picks(KeyDistribution::Uniform, mix);
        let adds: Vec<_> = all.iter().filter(|p| p.kind == Kind::Add).collect();
        assert!((2_200..2_800).contains(&adds.len()), "{}", adds.len());
        let names = adds.iter().map(|picked| &picked.call.key);
        assert!(
            names
                .into_iter()
                .all(|key| key.starts_with(b"bench/counter/"))
        );
    }
}
