//! The results: histograms of latencies, errors by kind, and their output.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use hdrhistogram::Histogram;
use kvclient::CallError;
use serde_json::{Value, json};

use super::BenchArgs;
use crate::cli::report;

/// Ten minutes: a longer latency counts as this one.
const LATENCY_NS_MAX: u64 = 600_000_000_000;
/// Significant decimal digits of a latency.
const DIGITS: u8 = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Get,
    Put,
}

#[derive(Debug)]
pub struct BenchTally {
    gets_ns: Histogram<u64>,
    puts_ns: Histogram<u64>,
    errors: BTreeMap<&'static str, u64>,
    pub first_error: Option<CallError>,
    /// Gets that found no key, though all keys were written.
    pub lost: u64,
    /// The time in which the operations were counted.
    pub took: Duration,
}

impl Default for BenchTally {
    fn default() -> Self {
        let histogram = || {
            Histogram::new_with_bounds(1, LATENCY_NS_MAX, DIGITS).expect("bounds that are allowed")
        };
        BenchTally {
            gets_ns: histogram(),
            puts_ns: histogram(),
            errors: BTreeMap::new(),
            first_error: None,
            lost: 0,
            took: Duration::ZERO,
        }
    }
}

impl BenchTally {
    pub fn add(&mut self, kind: Kind, took: Duration) {
        let histogram = match kind {
            Kind::Get => &mut self.gets_ns,
            Kind::Put => &mut self.puts_ns,
        };
        histogram.saturating_record(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }

    pub fn error(&mut self, error: CallError) {
        *self.errors.entry(report::classify(&error).0).or_default() += 1;
        self.first_error.get_or_insert(error);
    }

    pub fn merge(&mut self, other: &BenchTally) {
        for (into, from) in [
            (&mut self.gets_ns, &other.gets_ns),
            (&mut self.puts_ns, &other.puts_ns),
        ] {
            into.add(from).expect("histograms of the same bounds");
        }
        for (name, count) in &other.errors {
            *self.errors.entry(name).or_default() += count;
        }
        if self.first_error.is_none() {
            self.first_error.clone_from(&other.first_error);
        }
        self.lost += other.lost;
        self.took = self.took.max(other.took);
    }

    pub fn count(&self) -> u64 {
        self.gets_ns.len() + self.puts_ns.len()
    }

    /// Gets, puts, both; only those that occurred.
    fn rows(&self) -> Vec<(&'static str, Histogram<u64>)> {
        let mut all = self.gets_ns.clone();
        all.add(&self.puts_ns)
            .expect("histograms of the same bounds");
        let rows = [
            ("get", self.gets_ns.clone()),
            ("put", self.puts_ns.clone()),
            ("all", all),
        ];
        let is_there =
            |name: &str, histogram: &Histogram<u64>| name == "all" || !histogram.is_empty();
        rows.into_iter()
            .filter(|(name, histogram)| is_there(name, histogram))
            .collect()
    }

    fn per_second(&self, count: u64) -> f64 {
        match self.took.is_zero() {
            true => 0.0,
            false => count as f64 / self.took.as_secs_f64(),
        }
    }

    fn errors(&self) -> BTreeMap<&'static str, u64> {
        let mut errors = self.errors.clone();
        if self.lost > 0 {
            errors.insert("key_lost", self.lost);
        }
        errors
    }

    pub fn in_words(&self, arguments: &BenchArgs) -> String {
        let mut text = format!(
            "{} clients, {} keys, values of {} bytes, {} s\n",
            arguments.clients,
            arguments.keys,
            arguments.value_size,
            arguments.duration.as_secs_f64()
        );
        writeln!(
            text,
            "{:<4} {:>12} {:>12} {:>10} {:>10} {:>10}",
            "", "count", "a second", "p50 ms", "p99 ms", "max ms"
        )
        .expect("a string takes all");
        for (name, histogram) in self.rows() {
            let [p50, p99, max] = figures_ns(&histogram).map(|ns| ns as f64 / 1e6);
            let (count, per_second) = (histogram.len(), self.per_second(histogram.len()));
            writeln!(
                text,
                "{name:<4} {count:>12} {per_second:>12.0} {p50:>10.3} {p99:>10.3} {max:>10.3}"
            )
            .expect("a string takes all");
        }
        let errors = self.errors();
        if errors.is_empty() {
            text.push_str("no errors\n");
        }
        for (name, count) in errors {
            writeln!(text, "errors, {name}: {count}").expect("a string takes all");
        }
        text
    }

    pub fn in_json(&self, arguments: &BenchArgs) -> Value {
        let mut value = json!({
            "clients": arguments.clients,
            "handles": arguments.handles.min(arguments.clients),
            "keys": arguments.keys,
            "value_size": arguments.value_size,
            "mix": format!("{}:{}", arguments.mix.gets, arguments.mix.puts),
            "seconds": self.took.as_secs_f64(),
            "errors": self.errors(),
        });
        for (name, histogram) in self.rows() {
            let [p50, p99, max] = figures_ns(&histogram).map(|ns| ns as f64 / 1e3);
            value[name] = json!({
                "count": histogram.len(),
                "per_second": self.per_second(histogram.len()),
                "mean_us": histogram.mean() / 1e3,
                "p50_us": p50,
                "p99_us": p99,
                "max_us": max,
            });
        }
        value
    }
}

fn figures_ns(histogram: &Histogram<u64>) -> [u64; 3] {
    [
        histogram.value_at_quantile(0.5),
        histogram.value_at_quantile(0.99),
        histogram.max(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_add_up() {
        let mut one = BenchTally::default();
        for ms in 1..=100 {
            one.add(Kind::Get, Duration::from_millis(ms));
        }
        let mut other = BenchTally {
            took: Duration::from_secs(2),
            ..BenchTally::default()
        };
        other.add(Kind::Put, Duration::from_micros(250));
        other.error(CallError::Busy);
        other.error(CallError::UnknownOutcome);
        other.error(CallError::Busy);
        one.merge(&other);
        assert_eq!(one.count(), 101);
        assert_eq!(one.first_error, Some(CallError::Busy));
        let names: Vec<&str> = one.rows().iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["get", "put", "all"]);
        assert_eq!(one.errors(), [("busy", 2), ("unknown_outcome", 1)].into());
        let [p50, p99, max] = figures_ns(&one.gets_ns).map(|ns| ns / 1_000_000);
        assert_eq!((p50, p99, max), (50, 99, 100));
        assert!((one.per_second(101) - 50.5).abs() < 1e-9);
    }
}
