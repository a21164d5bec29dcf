//! A frame: the changes between two samples, as text.

use std::fmt::Write;

use wire::NodeStatus;

use super::sample::{ClusterSample, ScrapedCounts};
use crate::cli::links;
use crate::cli::status::{align, progress};
use crate::cli::words;

const HEAD: [&str; 15] = [
    "address",
    "node",
    "role",
    "hears",
    "keys",
    "ops/s",
    "failed/s",
    "read p99",
    "write p99",
    "messages/s",
    "relayed/s",
    "dropped/s",
    "links",
    "lag",
    "memory",
];

/// `before`: the previous sample, if there is one.
pub fn in_words(before: Option<&ClusterSample>, now: &ClusterSample) -> String {
    let mut table = vec![HEAD.map(str::to_owned)];
    for (place, (address, status)) in now.rows.iter().enumerate() {
        table.push(match status {
            None => down(address),
            Some(status) => cells(before, now, place, address, status),
        });
    }
    let mut text = title(now);
    text.push_str(&align(&table));
    text.push_str(&notes(now));
    text
}

fn title(now: &ClusterSample) -> String {
    let (answer, all) = (now.said().count(), now.rows.len());
    let a = if now.has_quorum() { "a" } else { "no" };
    format!("{answer} of {all} nodes answer, {a} quorum is up\n\n")
}

fn down(address: &str) -> [String; HEAD.len()] {
    let mut cells = HEAD.map(|_| "-".to_owned());
    cells[0] = address.to_owned();
    cells[2] = "no answer".to_owned();
    cells
}

fn cells(
    before: Option<&ClusterSample>,
    now: &ClusterSample,
    place: usize,
    address: &str,
    status: &NodeStatus,
) -> [String; HEAD.len()] {
    let interval = before.and_then(|before| Interval::of(before, now, place, status));
    let none = || "-".to_owned();
    let per_second = |of: fn(&NodeStatus) -> u64| {
        let interval = interval.as_ref();
        interval.map_or_else(none, |interval| {
            rate(
                of(status).saturating_sub(of(interval.status)) as f64,
                interval.seconds,
            )
        })
    };
    let counts = interval.as_ref().and_then(|interval| interval.counts);
    let counted = |of: fn(&ScrapedCounts) -> f64| match (&interval, counts) {
        (Some(interval), Some((then, now))) => rate(of(now) - of(then), interval.seconds),
        _ => none(),
    };
    let slowest = |of: fn(&ScrapedCounts) -> &[(f64, f64)]| {
        let found = counts.and_then(|(then, now)| quantile(0.99, of(then), of(now)));
        found.map_or_else(none, in_ms)
    };
    let heard = status.members.iter().filter(|member| member.heard).count();
    [
        address.to_owned(),
        match status.node {
            0 => none(),
            node => node.to_string(),
        },
        role(status).to_owned(),
        format!("{heard}/{}", status.members.len()),
        status.keys.to_string(),
        counted(|counts| counts.done),
        counted(|counts| counts.failed),
        slowest(|counts| &counts.reads),
        slowest(|counts| &counts.writes),
        per_second(|status| status.messages_sent),
        per_second(|status| status.messages_relayed),
        per_second(|status| status.datagrams_dropped),
        links_to(now, status.node),
        lag(now, status),
        memory(status),
    ]
}

/// A node's figures from two samples of the same boot.
struct Interval<'a> {
    seconds: f64,
    status: &'a NodeStatus,
    counts: Option<(&'a ScrapedCounts, &'a ScrapedCounts)>,
}

impl<'a> Interval<'a> {
    fn of(
        before: &'a ClusterSample,
        now: &'a ClusterSample,
        place: usize,
        status: &NodeStatus,
    ) -> Option<Self> {
        let then = before.rows.get(place)?.1.as_ref()?;
        let seconds = now.at.saturating_duration_since(before.at).as_secs_f64();
        if then.boot != status.boot || seconds <= 0.0 {
            return None;
        }
        let counts = before.counts.get(place)?.as_ref();
        let counts = counts.zip(now.counts.get(place)?.as_ref());
        Some(Interval {
            seconds,
            status: then,
            counts,
        })
    }
}

fn rate(count: f64, seconds: f64) -> String {
    let rate = count.max(0.0) / seconds;
    match rate {
        0.0 => "0".to_owned(),
        0.0..10.0 => format!("{rate:.1}"),
        _ => format!("{rate:.0}"),
    }
}

/// The upper bound of the bucket that contains this part of the operations between two samples.
/// Both have the same bounds, in rising order. `None`: there were none.
fn quantile(part: f64, then: &[(f64, f64)], now: &[(f64, f64)]) -> Option<f64> {
    let between: Vec<(f64, f64)> = now
        .iter()
        .zip(then)
        .map(|((bound, now), (_, then))| (*bound, now - then))
        .collect();
    let (_, all) = *between.last()?;
    let found = between.iter().find(|(_, count)| *count >= part * all);
    found.filter(|_| all > 0.0).map(|(bound, _)| *bound)
}

fn in_ms(seconds: f64) -> String {
    match seconds * 1e3 {
        ms if ms.is_infinite() => "> 10 s".to_owned(),
        ms if ms < 1.0 => format!("< {ms:.2} ms"),
        ms => format!("< {ms:.0} ms"),
    }
}

fn role(status: &NodeStatus) -> &'static str {
    match () {
        () if !status.votes && status.learning.is_some() => "learner",
        () if !status.votes => "no vote",
        () if !status.quorum => "no quorum",
        () if status.node == status.master => "master",
        () => "member",
    }
}

/// The links to the node: how many of them work, their total, and their longest round trip.
fn links_to(now: &ClusterSample, node: u8) -> String {
    let merged = links::merged(&now.rows);
    let here: Vec<_> = merged.iter().filter(|link| link.to == node).collect();
    let up = here.iter().filter(|link| link.up);
    let slowest_us = up.clone().map(|link| link.rtt_us).max().unwrap_or(0);
    let count = format!("{}/{}", up.count(), here.len());
    match slowest_us {
        0 => count,
        us => format!("{count} {:.2} ms", f64::from(us) / 1e3),
    }
}

/// What the node has yet to copy.
fn lag(now: &ClusterSample, status: &NodeStatus) -> String {
    if let Some(learning) = &status.learning {
        let percent = learning.buckets_done.saturating_mul(100) / learning.buckets.max(1);
        return format!("{percent} % copied");
    }
    let behind = now.said().flat_map(|other| &other.behind);
    let keys = behind
        .filter(|behind| behind.node == status.node)
        .map(|behind| behind.keys);
    match keys.max() {
        None | Some(0) => "-".to_owned(),
        Some(keys) => format!("{keys} keys"),
    }
}

fn memory(status: &NodeStatus) -> String {
    let used = status.memory_live_bytes;
    match status.memory_max_bytes {
        0 | u64::MAX => format!("{} M", used >> 20),
        max => format!(
            "{} M ({:.0} %)",
            used >> 20,
            used as f64 * 100.0 / max as f64
        ),
    }
}

/// What the nodes are waiting for, and which figures are missing.
fn notes(now: &ClusterSample) -> String {
    let mut text = String::new();
    for (name, why) in &now.unresolved {
        writeln!(text, "{}", words::not_found(name, why)).expect("a string grows");
    }
    for (address, status) in &now.rows {
        let Some(status) = status else { continue };
        if !status.waits_for.is_empty() {
            writeln!(text, "{address}: {}", status.waits_for).expect("a string grows");
        }
        if let Some(learning) = &status.learning {
            writeln!(text, "{address}: {}", progress(learning)).expect("a string grows");
        }
        for warning in &status.warnings {
            writeln!(text, "{address}: {warning}").expect("a string grows");
        }
    }
    let answering = now.rows.iter().zip(&now.counts);
    if answering
        .filter(|((_, status), _)| status.is_some())
        .any(|(_, counts)| counts.is_none())
    {
        text.push_str("operations and latencies: only of nodes that run with `serve --http`\n");
    }
    match text.is_empty() {
        true => text,
        false => format!("\n{text}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};
    use wire::{BehindStatus, LinkStatus};

    fn status(node: u8, messages_sent: u64) -> NodeStatus {
        NodeStatus {
            node,
            master: 1,
            votes: true,
            quorum: true,
            boot: 7,
            messages_sent,
            keys: 5,
            links: vec![LinkStatus {
                from: 3 - node,
                to: node,
                up: true,
                rtt_us: 250,
                ..LinkStatus::default()
            }],
            memory_live_bytes: 64 << 20,
            memory_max_bytes: 256 << 20,
            ..NodeStatus::default()
        }
    }

    fn sample(at: Instant, statuses: Vec<Option<NodeStatus>>, done: Option<f64>) -> ClusterSample {
        let counts = ScrapedCounts {
            done: done.unwrap_or(0.0),
            failed: 0.0,
            reads: vec![
                (0.001, done.unwrap_or(0.0)),
                (f64::INFINITY, done.unwrap_or(0.0)),
            ],
            writes: vec![(0.001, 0.0), (f64::INFINITY, 0.0)],
        };
        let rows = statuses.into_iter().enumerate();
        let rows: Vec<_> = rows
            .map(|(place, reported)| (format!("n{place}:1"), reported))
            .collect();
        ClusterSample {
            at,
            counts: rows.iter().map(|_| done.map(|_| counts.clone())).collect(),
            rows,
            unresolved: Vec::new(),
        }
    }

    fn row(text: &str, address: &str) -> Vec<String> {
        let line = text
            .lines()
            .find(|line| line.starts_with(address))
            .expect("a row");
        let cells = line
            .split("  ")
            .map(str::trim)
            .filter(|cell| !cell.is_empty());
        cells.map(str::to_owned).collect()
    }

    #[test]
    fn a_row_has_what_changed_per_second() {
        let began = Instant::now();
        let before = sample(began, vec![Some(status(1, 100)), None], Some(10.0));
        let mut behind = status(2, 0);
        behind.behind = vec![BehindStatus {
            node: 1,
            keys: 3,
            overflowed: 0,
        }];
        let later = began + Duration::from_secs(2);
        let now = sample(later, vec![Some(status(1, 300)), Some(behind)], Some(50.0));
        let text = in_words(Some(&before), &now);
        assert!(
            text.starts_with("2 of 2 nodes answer, a quorum is up\n"),
            "{text}"
        );
        assert_eq!(
            row(&text, "n0:1"),
            [
                "n0:1",
                "1",
                "master",
                "0/0",
                "5",
                "20",
                "0",
                "< 1 ms",
                "-",
                "100",
                "0",
                "0",
                "1/1 0.25 ms",
                "3 keys",
                "64 M (25 %)"
            ]
        );
        // The node did not answer in the previous sample, so its rates are unknown.
        let second = row(&text, "n1:1");
        assert_eq!(second[2], "member");
        assert_eq!(second[5..12], ["-"; 7]);
    }

    #[test]
    fn nodes_that_are_down_restarted_or_without_metrics_have_no_rates() {
        let began = Instant::now();
        let later = began + Duration::from_secs(1);
        let before = sample(began, vec![Some(status(1, 100)), Some(status(2, 0))], None);
        let restarted = NodeStatus {
            boot: 8,
            ..status(1, 5)
        };
        let now = sample(later, vec![Some(restarted), None], None);
        let text = in_words(Some(&before), &now);
        assert_eq!(row(&text, "n0:1")[9], "-");
        assert_eq!(row(&text, "n1:1")[..3], ["n1:1", "-", "no answer"]);
        assert!(
            text.contains("only of nodes that run with `serve --http`"),
            "{text}"
        );
        let nobody = sample(later, vec![None, None], None);
        let text = in_words(None, &nobody);
        assert!(
            text.starts_with("0 of 2 nodes answer, no quorum is up\n"),
            "{text}"
        );
        assert!(!text.contains("--http"), "{text}");
    }

    #[test]
    fn a_quantile_is_of_what_came_since() {
        let then = [(0.1, 5.0), (0.5, 5.0), (f64::INFINITY, 5.0)];
        let now = [(0.1, 5.0), (0.5, 104.0), (f64::INFINITY, 105.0)];
        assert_eq!(quantile(0.99, &then, &now), Some(0.5));
        assert_eq!(quantile(1.0, &then, &now), Some(f64::INFINITY));
        assert_eq!(quantile(0.99, &now, &now), None);
        assert_eq!(quantile(0.99, &[], &[]), None);
        assert_eq!(in_ms(f64::INFINITY), "> 10 s");
    }
}
