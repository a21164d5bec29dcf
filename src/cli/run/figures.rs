//! Count, mean, standard deviation and percentiles of times, per operation.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use serde_json::{Map, Value, json};

/// The times in order of arrival. One user's file is small enough to keep all of them, so the
/// figures are exact.
#[derive(Debug, Default)]
pub struct Figures {
    times_us: BTreeMap<&'static str, Vec<f64>>,
    failed: BTreeMap<&'static str, usize>,
}

#[derive(Debug, PartialEq)]
pub struct Summary {
    pub operations: Vec<OperationFigures>,
    pub count: usize,
    pub failed: usize,
    pub seconds: f64,
}

/// The figures of the successful operations of one kind.
#[derive(Debug, PartialEq)]
pub struct OperationFigures {
    pub name: &'static str,
    pub count: usize,
    pub failed: usize,
    pub mean_us: f64,
    /// Of the sample: the divisor is n - 1.
    pub deviation_us: f64,
    pub p50_us: f64,
    pub p99_us: f64,
}

impl Figures {
    pub fn add(&mut self, name: &'static str, took: Duration, done: bool) {
        let times = self.times_us.entry(name).or_default();
        match done {
            true => times.push(took.as_secs_f64() * 1e6),
            false => *self.failed.entry(name).or_default() += 1,
        }
    }

    pub fn summary(&mut self, took: Duration) -> Summary {
        let failed = &self.failed;
        let operations: Vec<OperationFigures> = self
            .times_us
            .iter_mut()
            .map(|(&name, times)| operation(name, times, failed.get(name).copied().unwrap_or(0)))
            .collect();
        Summary {
            count: operations.iter().map(|operation| operation.count).sum(),
            failed: failed.values().sum(),
            operations,
            seconds: took.as_secs_f64(),
        }
    }
}

fn operation(name: &'static str, times_us: &mut [f64], failed: usize) -> OperationFigures {
    times_us.sort_by(f64::total_cmp);
    let count = times_us.len();
    let mean_us = times_us.iter().sum::<f64>() / count.max(1) as f64;
    let squares: f64 = times_us.iter().map(|time| (time - mean_us).powi(2)).sum();
    OperationFigures {
        name,
        count,
        failed,
        mean_us,
        deviation_us: (squares / count.saturating_sub(1).max(1) as f64).sqrt(),
        p50_us: percentile(times_us, 50),
        p99_us: percentile(times_us, 99),
    }
}

/// The smallest time that is not exceeded by `percent` of all.
fn percentile(sorted: &[f64], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
}

impl Summary {
    pub fn per_second(&self) -> f64 {
        match self.seconds > 0.0 {
            true => self.count as f64 / self.seconds,
            false => 0.0,
        }
    }

    pub fn in_words(&self) -> String {
        let mut text = format!(
            "{:<9} {:>9} {:>7} {:>11} {:>11} {:>11} {:>11}\n",
            "operation", "count", "failed", "mean ms", "sd ms", "p50 ms", "p99 ms"
        );
        for o in &self.operations {
            let ms = [o.mean_us, o.deviation_us, o.p50_us, o.p99_us].map(|us| us / 1e3);
            let [mean, deviation, p50, p99] = ms;
            let (name, count, failed) = (o.name, o.count, o.failed);
            writeln!(
                text,
                "{name:<9} {count:>9} {failed:>7} {mean:>11.3} {deviation:>11.3} {p50:>11.3} {p99:>11.3}",
            )
            .expect("a string takes all");
        }
        let (count, failed, seconds) = (self.count, self.failed, self.seconds);
        let per_second = self.per_second();
        writeln!(
            text,
            "{count} done, {failed} failed in {seconds:.3} s: {per_second:.0} a second"
        )
        .expect("a string takes all");
        text
    }

    pub fn in_json(&self) -> Value {
        let operations: Map<String, Value> = self
            .operations
            .iter()
            .map(|operation| {
                let value = json!({
                    "count": operation.count,
                    "failed": operation.failed,
                    "mean_us": operation.mean_us,
                    "sd_us": operation.deviation_us,
                    "p50_us": operation.p50_us,
                    "p99_us": operation.p99_us,
                });
                (operation.name.to_owned(), value)
            })
            .collect();
        json!({ "summary": {
            "operations": operations,
            "count": self.count,
            "failed": self.failed,
            "seconds": self.seconds,
            "per_second": self.per_second(),
        }})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(found: f64, expected: f64) -> bool {
        (found - expected).abs() < 1e-6
    }

    #[test]
    fn figures_are_those_of_the_textbook() {
        let mut figures = Figures::default();
        for us in [2, 4, 4, 4, 5, 5, 7, 9] {
            figures.add("GET", Duration::from_micros(us), true);
        }
        figures.add("GET", Duration::from_secs(5), false);
        figures.add("PUT", Duration::from_micros(3), true);
        let summary = figures.summary(Duration::from_secs(2));
        assert_eq!((summary.count, summary.failed), (9, 1));
        assert!(close(summary.per_second(), 4.5));
        let get = &summary.operations[0];
        assert_eq!((get.count, get.failed), (8, 1));
        assert!(close(get.mean_us, 5.0));
        assert!(close(get.deviation_us, (32.0f64 / 7.0).sqrt()));
        assert!(close(get.p50_us, 4.0) && close(get.p99_us, 9.0));
        let put = &summary.operations[1];
        assert!(close(put.deviation_us, 0.0) && close(put.p50_us, 3.0));
    }

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let times: Vec<f64> = (1..=100).map(f64::from).collect();
        assert!(close(percentile(&times, 50), 50.0) && close(percentile(&times, 99), 99.0));
        assert!(close(percentile(&times[..1], 99), 1.0) && close(percentile(&[], 50), 0.0));
    }

    #[test]
    fn nothing_done_is_summed_up_too() {
        let mut figures = Figures::default();
        figures.add("PUT", Duration::ZERO, false);
        let summary = figures.summary(Duration::ZERO);
        assert!(summary.in_words().contains("0 done, 1 failed"));
        assert_eq!(summary.in_json()["summary"]["per_second"], json!(0.0));
        assert_eq!(Figures::default().summary(Duration::ZERO).count, 0);
    }
}
