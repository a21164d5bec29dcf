//! An observation as text for Prometheus. docs/operations.md lists all metrics; a test compares the
//! two.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, MetricEncoder, NoLabelSet, prometheus_text, text,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use super::families;
use super::process::{self, ProcessFigures};
use crate::protocol::types::counts::Distribution;
use crate::runtime::observation::Observation;

/// How the metrics are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Prometheus's own text format, 0.0.4.
    Prometheus,
    OpenMetrics,
}

impl Format {
    /// `accepted`: the values of the header `Accept`. A client that accepts OpenMetrics gets it:
    /// Prometheus prefers that format, and a client that does not know it does not name it.
    pub fn wanted<'a>(mut accepted: impl Iterator<Item = &'a str>) -> Self {
        let names = |value: &str| value.contains("application/openmetrics-text");
        match accepted.any(names) {
            true => Format::OpenMetrics,
            false => Format::Prometheus,
        }
    }

    pub fn content_type(self) -> &'static str {
        match self {
            Format::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

pub fn write(observation: Arc<Observation>, format: Format) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    let process = process::read();
    registry.register_collector(Box::new(Exposition {
        observation,
        process,
    }));
    let mut written = String::new();
    match format {
        Format::Prometheus => prometheus_text::encode(&mut written, &registry)?,
        Format::OpenMetrics => text::encode(&mut written, &registry)?,
    }
    Ok(written)
}

#[derive(Debug)]
struct Exposition {
    observation: Arc<Observation>,
    process: ProcessFigures,
}

impl Collector for Exposition {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        families::write(&mut FamilyWriter(encoder), &self.observation, &self.process)
    }
}

/// Labels with their values.
pub type LabelPairs = Vec<(&'static str, String)>;

/// Writes families of metrics. A family without samples is listed nevertheless.
pub struct FamilyWriter<'a>(DescriptorEncoder<'a>);

/// The unit at the end of a name.
pub const SECONDS: Option<&Unit> = Some(&Unit::Seconds);
pub const BYTES: Option<&Unit> = Some(&Unit::Bytes);

impl FamilyWriter<'_> {
    fn family<T>(
        &mut self,
        (name, unit, help): (&str, Option<&Unit>, &str),
        kind: MetricType,
        samples: impl IntoIterator<Item = (LabelPairs, T)>,
        write: impl Fn(&mut MetricEncoder<'_>, T) -> fmt::Result,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, unit, kind)?;
        for (labels, sample) in samples {
            write(&mut family.encode_family(&labels)?, sample)?;
        }
        Ok(())
    }

    pub fn gauges(
        &mut self,
        name: (&str, Option<&Unit>, &str),
        samples: impl IntoIterator<Item = (LabelPairs, f64)>,
    ) -> fmt::Result {
        self.family(name, MetricType::Gauge, samples, |encoder, value| {
            encoder.encode_gauge(&value)
        })
    }

    /// A gauge without labels.
    pub fn gauge(&mut self, name: (&str, Option<&Unit>, &str), value: f64) -> fmt::Result {
        self.gauges(name, [(Vec::new(), value)])
    }

    /// The name does not end in `_total`: that is added.
    pub fn counters(
        &mut self,
        name: (&str, Option<&Unit>, &str),
        samples: impl IntoIterator<Item = (LabelPairs, u64)>,
    ) -> fmt::Result {
        self.family(name, MetricType::Counter, samples, |encoder, value| {
            encoder.encode_counter::<NoLabelSet, _, f64>(&value, None)
        })
    }

    /// A counter without labels.
    pub fn counter(&mut self, name: (&str, Option<&Unit>, &str), value: u64) -> fmt::Result {
        self.counters(name, [(Vec::new(), value)])
    }

    /// A counter of seconds, without labels.
    pub fn seconds_counter(&mut self, name: (&str, &str), seconds: Option<f64>) -> fmt::Result {
        let samples = seconds.map(|seconds| (Vec::new(), seconds));
        let name = (name.0, SECONDS, name.1);
        self.family(name, MetricType::Counter, samples, |encoder, value| {
            encoder.encode_counter::<NoLabelSet, _, f64>(&value, None)
        })
    }

    /// `per_unit`: how many counted units make one unit of the metric.
    pub fn histograms<'d>(
        &mut self,
        name: (&str, Option<&Unit>, &str),
        per_unit: f64,
        samples: impl IntoIterator<Item = (LabelPairs, &'d Distribution)>,
    ) -> fmt::Result {
        self.family(name, MetricType::Histogram, samples, |encoder, sample| {
            let in_units =
                |bound: Option<u64>| bound.map_or(f64::INFINITY, |bound| bound as f64 / per_unit);
            let buckets = sample
                .buckets()
                .map(|(bound, count)| (in_units(bound), count));
            let buckets: Vec<(f64, u64)> = buckets.collect();
            let sum = sample.sum() as f64 / per_unit;
            encoder.encode_histogram::<NoLabelSet>(sum, sample.count(), &buckets, None)
        })
    }
}
