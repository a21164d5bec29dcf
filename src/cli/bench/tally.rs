//! The results: histograms of latencies, errors by kind, and how far the load kept its rate.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use kvclient::CallError;

use crate::cli::report;

/// Ten minutes: a longer latency counts as this one.
const LATENCY_NS_MAX: u64 = 600_000_000_000;
/// Significant decimal digits of a latency.
const DIGITS: u8 = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Get,
    Put,
    Add,
}

pub const KINDS: [Kind; 3] = [Kind::Get, Kind::Put, Kind::Add];

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Get => "get",
            Kind::Put => "put",
            Kind::Add => "add",
        }
    }
}

#[derive(Debug)]
pub struct BenchTally {
    /// Of the operations that succeeded, by kind.
    latencies_ns: [Histogram<u64>; KINDS.len()],
    /// The operations among these that ended after the time was up, by kind; only in an open loop.
    pub late: [u64; KINDS.len()],
    errors: BTreeMap<&'static str, u64>,
    pub first_error: Option<CallError>,
    /// Gets that found no key, though all keys were written.
    pub lost: u64,
    /// Operations that succeeded, by the second of the measurement in which they ended.
    pub each_second: Vec<u64>,
    /// The time in which the operations were counted.
    pub took: Duration,
    /// Operations of each closed loop that succeeded.
    pub per_client: Vec<u64>,
    /// Open loop: the operations that were to start within the time.
    pub intended: u64,
    /// The operations among these that could not be submitted within the time, and how long the
    /// first of them had waited when the time was up.
    pub behind: u64,
    pub behind_longest: Duration,
    /// The longest time from the intended start to the actual one.
    pub submitted_late: Duration,
    /// The most operations that were in flight.
    pub in_flight_max: u64,
}

impl Default for BenchTally {
    fn default() -> Self {
        let histogram = || {
            Histogram::new_with_bounds(1, LATENCY_NS_MAX, DIGITS).expect("bounds that are allowed")
        };
        BenchTally {
            latencies_ns: KINDS.map(|_| histogram()),
            late: [0; KINDS.len()],
            errors: BTreeMap::new(),
            first_error: None,
            lost: 0,
            each_second: Vec::new(),
            took: Duration::ZERO,
            per_client: Vec::new(),
            intended: 0,
            behind: 0,
            behind_longest: Duration::ZERO,
            submitted_late: Duration::ZERO,
            in_flight_max: 0,
        }
    }
}

/// Latencies of the operations of one kind, or of all, that succeeded.
#[derive(Debug, Clone)]
pub struct LatencyRow {
    pub name: &'static str,
    pub latency_ns: Histogram<u64>,
    /// Operations within the measured time, per second.
    pub per_second: f64,
}

/// How evenly the closed loops were served: operations of a client that succeeded.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fairness {
    pub min: u64,
    pub mean: f64,
    pub max: u64,
}

impl BenchTally {
    pub fn add(&mut self, kind: Kind, took: Duration) {
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.latencies_ns[kind as usize].saturating_record(ns);
    }

    /// An operation that succeeded ended so long after the start of the measurement, within it.
    pub fn ended_at(&mut self, since_start: Duration) {
        let second = since_start.as_secs() as usize;
        if self.each_second.len() <= second {
            self.each_second.resize(second + 1, 0);
        }
        self.each_second[second] += 1;
    }

    /// A second without an operation is told, too.
    pub fn fill_seconds(&mut self) {
        let seconds = self.took.as_secs_f64().ceil() as usize;
        self.each_second
            .resize(seconds.max(self.each_second.len()), 0);
    }

    pub fn error(&mut self, error: CallError) {
        *self.errors.entry(report::classify(&error).0).or_default() += 1;
        self.first_error.get_or_insert(error);
    }

    pub fn merge(&mut self, other: &BenchTally) {
        for kind in KINDS.map(|kind| kind as usize) {
            let from = &other.latencies_ns[kind];
            let added = self.latencies_ns[kind].add(from);
            added.expect("histograms of the same bounds");
            self.late[kind] += other.late[kind];
        }
        for (name, count) in &other.errors {
            *self.errors.entry(name).or_default() += count;
        }
        if self.first_error.is_none() {
            self.first_error.clone_from(&other.first_error);
        }
        self.lost += other.lost;
        let seconds = self.each_second.len().max(other.each_second.len());
        self.each_second.resize(seconds, 0);
        for (mine, others) in self.each_second.iter_mut().zip(&other.each_second) {
            *mine += others;
        }
        self.took = self.took.max(other.took);
        self.per_client.extend_from_slice(&other.per_client);
        self.intended += other.intended;
        self.behind += other.behind;
        self.behind_longest = self.behind_longest.max(other.behind_longest);
        self.submitted_late = self.submitted_late.max(other.submitted_late);
        // Of each handle at its own time: together at most this.
        self.in_flight_max += other.in_flight_max;
    }

    /// Operations that succeeded.
    pub fn count(&self) -> u64 {
        self.latencies_ns.iter().map(Histogram::len).sum()
    }

    /// Those kinds that occurred, and all together.
    pub fn rows(&self) -> Vec<LatencyRow> {
        let row = |name, latency_ns: Histogram<u64>, late: u64| LatencyRow {
            name,
            per_second: self.per_second(latency_ns.len() - late),
            latency_ns,
        };
        let of = |kind: Kind| &self.latencies_ns[kind as usize];
        let mut all = of(Kind::Get).clone();
        for kind in [Kind::Put, Kind::Add] {
            all.add(of(kind)).expect("histograms of the same bounds");
        }
        let occurred = KINDS.iter().filter(|kind| !of(**kind).is_empty());
        let mut rows: Vec<LatencyRow> = occurred
            .map(|kind| row(kind.name(), of(*kind).clone(), self.late[*kind as usize]))
            .collect();
        rows.push(row("all", all, self.late.iter().sum()));
        rows
    }

    /// Operations per second that succeeded within the time.
    pub fn achieved(&self) -> f64 {
        self.per_second(self.count() - self.late.iter().sum::<u64>())
    }

    fn per_second(&self, count: u64) -> f64 {
        match self.took.is_zero() {
            true => 0.0,
            false => count as f64 / self.took.as_secs_f64(),
        }
    }

    pub fn errors(&self) -> BTreeMap<&'static str, u64> {
        let mut errors = self.errors.clone();
        if self.lost > 0 {
            errors.insert("key_lost", self.lost);
        }
        errors
    }

    /// `None` for an open loop.
    pub fn fairness(&self) -> Option<Fairness> {
        let (min, max) = (self.per_client.iter().min()?, self.per_client.iter().max()?);
        let sum: u64 = self.per_client.iter().sum();
        Some(Fairness {
            min: *min,
            mean: sum as f64 / self.per_client.len() as f64,
            max: *max,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_add_up() {
        let mut one = BenchTally {
            per_client: vec![60, 40],
            ..BenchTally::default()
        };
        for ms in 1..=100 {
            one.add(Kind::Get, Duration::from_millis(ms));
        }
        let mut other = BenchTally {
            took: Duration::from_secs(2),
            per_client: vec![1],
            late: [10, 0, 0],
            each_second: vec![1],
            ..BenchTally::default()
        };
        other.add(Kind::Put, Duration::from_micros(250));
        other.error(CallError::Busy);
        other.error(CallError::UnknownOutcome);
        other.error(CallError::Busy);
        one.ended_at(Duration::from_millis(999));
        other.fill_seconds();
        one.merge(&other);
        assert_eq!(one.each_second, [2, 0]);
        assert_eq!(one.count(), 101);
        assert_eq!(one.first_error, Some(CallError::Busy));
        let rows = one.rows();
        let names: Vec<&str> = rows.iter().map(|row| row.name).collect();
        assert_eq!(names, ["get", "put", "all"]);
        assert_eq!(one.errors(), [("busy", 2), ("unknown_outcome", 1)].into());
        let latency = |quantile| rows[0].latency_ns.value_at_quantile(quantile) / 1_000_000;
        assert_eq!((latency(0.5), latency(0.99), latency(1.0)), (50, 99, 100));
        let rates: Vec<f64> = rows.iter().map(|row| row.per_second).collect();
        assert_eq!(rates, [45.0, 0.5, 45.5], "without those that ended late");
        assert!((one.achieved() - 45.5).abs() < 1e-9);
        let (min, max) = (1, 60);
        let mean = 101.0 / 3.0;
        assert_eq!(one.fairness(), Some(Fairness { min, mean, max }));
    }
}
