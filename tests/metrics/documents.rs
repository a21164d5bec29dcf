//! docs/operations.md lists exactly the metrics that a node prints; alerts and dashboard use no
//! others.

use std::collections::{BTreeMap, BTreeSet};

use horseshoe::protocol::types::counts::{
    OperationEnd, OperationKind, OperationSource, Retransmission, RoundEnd, RoundStart,
};
use horseshoe::runtime::tally::Cause;

use super::nodes::Keep;
use super::page::{self, Metrics};

const DOCUMENT: &str = include_str!("../../docs/operations.md");
const ALERTS: &str = include_str!("../../ops/alerts.yml");
const DASHBOARD: &str = include_str!("../../ops/dashboard.json");

/// A row of a table of metrics.
#[derive(Debug)]
struct Row<'a> {
    kind: &'a str,
    unit: &'a str,
    labels: BTreeSet<String>,
}

/// The rows of the tables of metrics, by name.
fn documented() -> BTreeMap<&'static str, Row<'static>> {
    let mut rows = BTreeMap::new();
    for line in DOCUMENT.lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, name, kind, unit, labels, _, source, _] = cells[..] else {
            continue;
        };
        let Some(name) = name.strip_prefix('`').and_then(|n| n.strip_suffix('`')) else {
            continue;
        };
        let source = source.trim_matches('`');
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        assert!(
            root.join(source).is_file(),
            "{name}: {source} does not exist"
        );
        let labels = labels.split(", ").filter(|label| !label.is_empty());
        let labels = labels.map(|label| label.trim_matches('`').to_owned());
        let row = Row {
            kind,
            unit,
            labels: labels.collect(),
        };
        assert!(rows.insert(name, row).is_none(), "{name} is there twice");
    }
    assert!(rows.len() > 50, "{} metrics", rows.len());
    rows
}

/// The names of the labels of a sample.
fn labels_of(series: &str) -> BTreeSet<String> {
    let Some((_, labels)) = series.split_once('{') else {
        return BTreeSet::new();
    };
    let names = labels.trim_end_matches('}').split("\",");
    let names = names.map(|label| label.split('=').next().unwrap_or_default().to_owned());
    names.filter(|name| name != "le").collect()
}

/// The metric of a sample: the samples of a histogram have suffixes.
fn family<'a>(name: &'a str, types: &BTreeMap<String, String>) -> &'a str {
    let stem = ["_bucket", "_sum", "_count"]
        .iter()
        .find_map(|end| name.strip_suffix(end));
    let is_histogram = |stem: &&str| types.get(*stem).is_some_and(|kind| kind == "histogram");
    stem.filter(is_histogram).unwrap_or(name)
}

#[test]
fn the_document_lists_what_a_node_prints() {
    let mut cluster = page::cluster(3, Keep::Fsync);
    let killed = cluster.status(2).unwrap().node;
    cluster.kill([2]);
    let down = format!("horseshoe_link_up{{node=\"{killed}\"}}");
    page::wait_for(&cluster, 0, "the link is down", |m| m.one(&down) == 0.0);
    let metrics = Metrics::of(&cluster, 0);
    let documented = documented();
    let names = |names: Vec<&str>| {
        names
            .into_iter()
            .map(str::to_owned)
            .collect::<BTreeSet<_>>()
    };
    let printed: BTreeSet<String> = metrics.types.keys().cloned().collect();
    assert_eq!(printed, names(documented.keys().copied().collect()));
    for (name, row) in &documented {
        assert_eq!(metrics.types[*name], row.kind, "{name}");
        let base = name.trim_end_matches("_total");
        for (ending, unit) in [("_seconds", "seconds"), ("_bytes", "bytes")] {
            assert_eq!(
                base.ends_with(ending),
                row.unit == unit,
                "{name}: {}",
                row.unit
            );
        }
        let counts = name.ends_with("_total");
        assert_eq!(counts, row.kind == "counter", "{name}");
    }
    for series in metrics.samples.keys() {
        let name = family(series.split('{').next().unwrap(), &metrics.types);
        assert_eq!(labels_of(series), documented[name].labels, "{series}");
    }
    for name in metrics.types.keys() {
        assert!(
            name.starts_with("horseshoe_") || name.starts_with("process_"),
            "{name}"
        );
    }
}

#[test]
fn the_document_lists_the_values_of_labels() {
    let mut values: Vec<String> = Cause::ALL
        .iter()
        .map(|cause| format!("| `{}` | {} |", cause.label(), cause.name()))
        .collect();
    let mut named = |label: &str| values.push(format!("`{label}`"));
    OperationSource::ALL
        .iter()
        .for_each(|value| named(value.label()));
    OperationKind::ALL
        .iter()
        .for_each(|value| named(value.label()));
    OperationEnd::ALL
        .iter()
        .for_each(|value| named(value.label()));
    RoundStart::ALL
        .iter()
        .for_each(|value| named(value.label()));
    RoundEnd::ALL.iter().for_each(|value| named(value.label()));
    Retransmission::ALL
        .iter()
        .for_each(|value| named(value.label()));
    let missing: Vec<&String> = values
        .iter()
        .filter(|value| !DOCUMENT.contains(*value))
        .collect();
    assert!(missing.is_empty(), "not in docs/operations.md: {missing:?}");
    let reasons = DOCUMENT.split("### Dropped messages").nth(1).unwrap();
    let reasons = reasons.split("###").next().unwrap();
    let listed = reasons
        .lines()
        .filter(|line| line.starts_with("| `"))
        .count();
    assert_eq!(listed, Cause::ALL.len());
}

/// All words of a text that have the form of a node's metrics.
fn metrics_named(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let is_metric = |word: &&str| word.starts_with("horseshoe_") || word.starts_with("process_");
    words.filter(is_metric).collect()
}

#[test]
fn alerts_and_dashboard_use_metrics_that_exist() {
    let documented = documented();
    let types = documented
        .iter()
        .map(|(name, row)| ((*name).to_owned(), row.kind.to_owned()));
    let types: BTreeMap<String, String> = types.collect();
    for (file, text) in [
        ("ops/alerts.yml", ALERTS),
        ("ops/dashboard.json", DASHBOARD),
    ] {
        let named = metrics_named(text);
        assert!(named.len() > 15, "{file}: {named:?}");
        for name in named {
            let family = family(name, &types);
            assert!(
                documented.contains_key(family),
                "{file} uses {name}, which does not exist"
            );
        }
    }
    let dashboard: serde_json::Value = serde_json::from_str(DASHBOARD).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let ids: BTreeSet<u64> = panels
        .iter()
        .map(|panel| panel["id"].as_u64().unwrap())
        .collect();
    assert_eq!(ids.len(), panels.len(), "ids of panels are unique");
}

#[test]
fn each_alert_says_what_to_do() {
    let names = |text: &'static str, before: &'static str| -> BTreeSet<&'static str> {
        let lines = text.lines().map(str::trim);
        let names = lines.filter_map(|line| line.strip_prefix(before));
        names
            .map(|rest| rest.split('`').next().unwrap_or_default().trim())
            .collect()
    };
    let alerts = names(ALERTS, "- alert: ");
    assert!(alerts.len() > 15, "{alerts:?}");
    let listed: BTreeSet<&str> = names(DOCUMENT, "| `")
        .into_iter()
        .filter(|name| name.starts_with("Horseshoe"))
        .collect();
    assert_eq!(alerts, listed);
    let rules: Vec<&str> = ALERTS.split("- alert: ").skip(1).collect();
    for rule in rules {
        for part in ["summary: ", "action: ", "severity: ", "expr: "] {
            assert!(rule.contains(part), "{part} is missing: {rule}");
        }
    }
}
