//! The report on a measurement, in words and in JSON.

use std::fmt::Write;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::early::EarlyReason;
use super::judge::{CheckReport, UndecidedKey};
use super::load::key_name;
use super::plan::{BenchPlan, KeyDistribution};
use super::record::RECORDED_MAX;
use super::tally::BenchTally;

const QUANTILES: [f64; 4] = [0.5, 0.9, 0.99, 0.999];

/// The content of the report.
#[derive(Debug)]
pub struct Measurement<'a> {
    pub plan: &'a BenchPlan,
    pub tally: &'a BenchTally,
    pub early: Option<EarlyReason>,
    /// With `--check`.
    pub check: Option<CheckReport>,
}

impl Measurement<'_> {
    pub fn in_words(&self) -> String {
        let mut text = self.head();
        self.push_rows(&mut text);
        self.push_load(&mut text);
        let errors = self.tally.errors();
        if errors.is_empty() {
            text.push_str("no errors\n");
        }
        for (name, count) in errors {
            push_line(&mut text, format_args!("errors, {name}: {count}"));
        }
        if let Some(check) = &self.check {
            push_check(&mut text, check);
        }
        text
    }

    fn head(&self) -> String {
        let BenchPlan {
            clients,
            keys,
            value_size,
            ..
        } = self.plan;
        let load = match self.plan.rate {
            Some(rate) => format!("{rate} operations a second, at most {clients} in flight"),
            None => format!("{clients} clients"),
        };
        let seconds = self.plan.duration.as_secs_f64();
        let chosen = match self.plan.dist {
            KeyDistribution::Uniform => "",
            KeyDistribution::Zipf => " by Zipf's law",
        };
        let warmup = match self.plan.warmup {
            Duration::ZERO => String::new(),
            warmup => format!(" after {} s", warmup.as_secs_f64()),
        };
        let mut text = format!(
            "{load}, {keys} keys{chosen}, values of {value_size} bytes, {seconds} s{warmup}\n"
        );
        let took = self.tally.took.as_secs_f64();
        match self.early {
            None => {}
            Some(EarlyReason::Interrupted) => {
                push_line(&mut text, format_args!("interrupted after {took:.3} s"));
            }
            Some(EarlyReason::RecordFull) => push_line(
                &mut text,
                format_args!(
                    "ended after {took:.3} s: --check records at most {RECORDED_MAX} operations; \
                     for a longer run use --rate"
                ),
            ),
        }
        text
    }

    fn push_rows(&self, text: &mut String) {
        push_line(
            text,
            format_args!(
                "{:<4} {:>12} {:>12} {:>10} {:>10} {:>10} {:>10} {:>10}",
                "", "count", "a second", "p50 ms", "p90 ms", "p99 ms", "p99.9 ms", "max ms"
            ),
        );
        for row in self.tally.rows() {
            let (count, per_second) = (row.latency_ns.len(), row.per_second);
            let mut line = format!("{:<4} {count:>12} {per_second:>12.0}", row.name);
            for ns in figures_ns(&row.latency_ns) {
                write!(line, " {:>10.3}", ns as f64 / 1e6).expect("a string takes all");
            }
            push_line(text, format_args!("{line}"));
        }
    }

    /// How evenly the closed loops were served, or how far the open loop kept its rate.
    fn push_load(&self, text: &mut String) {
        let tally = self.tally;
        if let Some(fair) = tally.fairness() {
            push_line(
                text,
                format_args!(
                    "per client: {} operations the slowest, {:.1} the mean, {} the fastest",
                    fair.min, fair.mean, fair.max
                ),
            );
        }
        if let Some(rate) = self.plan.rate {
            push_line(
                text,
                format_args!(
                    "rate: {rate} a second intended, {:.0} a second succeeded in time",
                    tally.achieved()
                ),
            );
            push_line(
                text,
                format_args!(
                    "in flight: {} at most; started up to {:.3} ms late",
                    tally.in_flight_max,
                    ms(tally.submitted_late)
                ),
            );
            push_line(
                text,
                format_args!(
                    "behind: {} of {} were never started, the first of them due {:.3} ms before \
                     the end",
                    tally.behind,
                    tally.intended,
                    ms(tally.behind_longest)
                ),
            );
        }
    }

    pub fn in_json(&self) -> Value {
        let (plan, tally) = (self.plan, self.tally);
        let mut value = json!({
            "loop": if plan.rate.is_some() { "open" } else { "closed" },
            "clients": plan.clients,
            "handles": plan.handles,
            "keys": plan.keys,
            "value_size": plan.value_size,
            "dist": plan.dist.name(),
            "mix": plan.mix.to_string(),
            "warmup_seconds": plan.warmup.as_secs_f64(),
            "seed": plan.seed,
            "seconds": tally.took.as_secs_f64(),
            "interrupted": self.early == Some(EarlyReason::Interrupted),
            "achieved_per_second": tally.achieved(),
            "succeeded_each_second": tally.each_second,
            "errors": tally.errors(),
        });
        if let Some(fair) = tally.fairness() {
            value["per_client"] = json!({
                "count_min": fair.min,
                "count_mean": fair.mean,
                "count_max": fair.max,
            });
        }
        if let Some(rate) = plan.rate {
            value["intended_per_second"] = json!(rate);
            value["intended"] = json!(tally.intended);
            value["behind"] = json!(tally.behind);
            value["behind_max_ms"] = json!(ms(tally.behind_longest));
            value["started_late_max_ms"] = json!(ms(tally.submitted_late));
            value["in_flight_max"] = json!(tally.in_flight_max);
        }
        for row in tally.rows() {
            let [p50, p90, p99, p999, max] = figures_ns(&row.latency_ns).map(|ns| ns as f64 / 1e3);
            value[row.name] = json!({
                "count": row.latency_ns.len(),
                "per_second": row.per_second,
                "mean_us": row.latency_ns.mean() / 1e3,
                "p50_us": p50,
                "p90_us": p90,
                "p99_us": p99,
                "p999_us": p999,
                "max_us": max,
            });
        }
        if let Some(check) = &self.check {
            value["check"] = check_in_json(check, self.early);
        }
        value
    }
}

fn push_check(text: &mut String, check: &CheckReport) {
    let CheckReport {
        operations,
        keys,
        unknown,
        violations,
        ..
    } = check;
    let head = match check.is_linearizable() {
        Some(true) => "linearizable".to_owned(),
        Some(false) => format!("NOT LINEARIZABLE: {violations} of {keys} keys"),
        None => "not decided whether linearizable".to_owned(),
    };
    push_line(
        text,
        format_args!(
            "check: {head}; {operations} operations on {keys} keys, {unknown} puts of unknown \
             outcome, checked in {:.1} s",
            check.took.as_secs_f64()
        ),
    );
    if check.unread > 0 {
        push_line(
            text,
            format_args!(
                "check: {} keys could not be read at the end, so a put that was lost last is not \
                 noticed there",
                check.unread
            ),
        );
    }
    for (why, text_of_why) in [
        (UndecidedKey::OtherWriter, OTHER_WRITER),
        (UndecidedKey::TooHard, "the search was given up"),
    ] {
        let keys: Vec<u32> = of_kind(check, &why).collect();
        if let Some(first) = keys.first() {
            let (count, name) = (keys.len(), key_name(*first));
            push_line(
                text,
                format_args!("check: {count} keys not decided, for instance {name}: {text_of_why}"),
            );
        }
    }
    for violation in &check.shown {
        let name = key_name(violation.key);
        push_line(
            text,
            format_args!(
                "key {name}: no order of these operations explains what they returned (times in \
                 ms since the start; version numbers rise with each write):"
            ),
        );
        for line in &violation.lines {
            push_line(text, format_args!("  {line}"));
        }
    }
    let unshown = violations - check.shown.len() as u64;
    if unshown > 0 {
        push_line(text, format_args!("and {unshown} keys more"));
    }
}

const OTHER_WRITER: &str = "another client wrote to it meanwhile; run one bench at a time";

fn of_kind(check: &CheckReport, wanted: &UndecidedKey) -> impl Iterator<Item = u32> {
    let undecided = check.undecided.iter();
    undecided
        .filter(move |(_, why)| why == wanted)
        .map(|(key, _)| *key)
}

fn check_in_json(check: &CheckReport, early: Option<EarlyReason>) -> Value {
    let histories = check.shown.iter().map(|violation| {
        json!({
            "key": key_name(violation.key),
            "operations": violation.lines,
        })
    });
    json!({
        "linearizable": check.is_linearizable(),
        "operations": check.operations,
        "record_full": early == Some(EarlyReason::RecordFull),
        "keys": check.keys,
        "keys_unread": check.unread,
        "unknown_outcomes": check.unknown,
        "violations": check.violations,
        "undecided_other_writer": of_kind(check, &UndecidedKey::OtherWriter).count(),
        "undecided_too_hard": of_kind(check, &UndecidedKey::TooHard).count(),
        "histories": histories.collect::<Vec<Value>>(),
        "seconds": check.took.as_secs_f64(),
    })
}

fn push_line(text: &mut String, line: std::fmt::Arguments) {
    writeln!(text, "{line}").expect("a string takes all");
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// The quantiles and the maximum.
fn figures_ns(latency_ns: &Histogram<u64>) -> [u64; 5] {
    let [p50, p90, p99, p999] = QUANTILES.map(|quantile| latency_ns.value_at_quantile(quantile));
    [p50, p90, p99, p999, latency_ns.max()]
}
