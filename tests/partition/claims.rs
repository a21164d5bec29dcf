//! The claims about a scenario, and the check of whether they held.

use anyhow::{Context, Result, bail, ensure};
use wire::Outcome;

use crate::history::{Ending, RecordedCall, ms};
use crate::places::Places;
use crate::record::{Client, MessageCount, Record};

/// Clients, by the node that they are tied to.
#[derive(Debug, Clone)]
pub struct Who {
    nodes: Vec<usize>,
    roaming: bool,
}

/// In milliseconds of the table; the end may be open.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    from_ms: u64,
    to_ms: Option<u64>,
}

#[derive(Debug, Clone)]
pub enum Claim {
    Serves(Who, Window),
    GapAtMost(u64, Who, Window),
    Dark(Who, Window),
    DarkBy(Who, u64),
    Fair(f64, Who, Window),
    Throughput(f64, Window, Window),
    MessagesAtMost(f64),
    IdleAtMost { cpu_percent: f64, kb_per_s: f64 },
    LatencyAtMost(f64, Window, Window),
}

pub fn read(text: &str, places: &Places) -> Result<Claim> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let who = |word| read_who(word, places);
    Ok(match words[..] {
        ["serves", whose, time] => Claim::Serves(who(whose)?, window(time)?),
        ["gap", ms, whose, time] => Claim::GapAtMost(ms.parse()?, who(whose)?, window(time)?),
        ["dark", whose, time] => Claim::Dark(who(whose)?, window(time)?),
        ["dark-by", whose, time] => Claim::DarkBy(who(whose)?, time.parse()?),
        ["fair", factor, whose, time] => Claim::Fair(factor.parse()?, who(whose)?, window(time)?),
        ["throughput", factor, before, after] => {
            Claim::Throughput(factor.parse()?, window(before)?, window(after)?)
        }
        ["messages", factor] => Claim::MessagesAtMost(factor.parse()?),
        ["idle", cpu_percent, kb_per_s] => Claim::IdleAtMost {
            cpu_percent: cpu_percent.parse()?,
            kb_per_s: kb_per_s.parse()?,
        },
        ["p99", factor, before, after] => {
            Claim::LatencyAtMost(factor.parse()?, window(before)?, window(after)?)
        }
        _ => bail!("there is no such claim"),
    })
}

fn read_who(text: &str, places: &Places) -> Result<Who> {
    let mut who = Who {
        nodes: Vec::new(),
        roaming: false,
    };
    for word in text.split(',') {
        match word {
            "all" => {
                who.nodes = (0..places.count()).collect();
                who.roaming = true;
            }
            "tied" => who.nodes = (0..places.count()).collect(),
            "roaming" => who.roaming = true,
            _ => match word.strip_prefix('-') {
                Some(not) => {
                    let not = places.node(not)?;
                    who.nodes.retain(|node| *node != not);
                }
                None => who.nodes.push(places.node(word)?),
            },
        }
    }
    Ok(who)
}

fn window(text: &str) -> Result<Window> {
    let (from, to) = text.split_once('-').context("a time is FROM-TO")?;
    let to_ms = match to {
        "" => None,
        to => Some(to.parse()?),
    };
    let from_ms = from.parse()?;
    ensure!(to_ms.is_none_or(|to| to > from_ms), "an empty time");
    Ok(Window { from_ms, to_ms })
}

impl Who {
    fn clients<'a>(&'a self, record: &'a Record) -> impl Iterator<Item = &'a Client> {
        let is_meant = |client: &&Client| match client.tied_to {
            Some(node) => self.nodes.contains(&node),
            None => self.roaming,
        };
        record.clients.iter().filter(is_meant)
    }
}

/// A window in real time, in microseconds since the start.
#[derive(Debug, Clone, Copy)]
struct Span {
    from_us: u64,
    to_us: u64,
}

impl Span {
    fn of(window: Window, record: &Record) -> Span {
        Span {
            from_us: record.time_after_us(window.from_ms),
            to_us: window
                .to_ms
                .map_or(record.ended_us, |to_ms| record.time_before_us(to_ms)),
        }
    }

    fn has(self, at_us: u64) -> bool {
        (self.from_us..self.to_us).contains(&at_us)
    }

    fn seconds(self) -> f64 {
        self.to_us.saturating_sub(self.from_us) as f64 / 1e6
    }
}

/// Whether the client's operation succeeded.
pub fn succeeded(call: &RecordedCall) -> bool {
    match &call.ending {
        Ending::Open | Ending::TimedOut => false,
        Ending::Answered(outcome) => matches!(
            outcome,
            Outcome::Value { .. }
                | Outcome::Absent
                | Outcome::Written { .. }
                | Outcome::NothingToDelete
                | Outcome::Conflict { .. }
                | Outcome::Committed { .. }
        ),
    }
}

impl Claim {
    /// The claims that do not hold, one line each.
    pub fn check(&self, record: &Record) -> Vec<String> {
        match self {
            Claim::Serves(who, window) => {
                let span = Span::of(*window, record);
                who.clients(record).flat_map(|c| serves(c, span)).collect()
            }
            Claim::GapAtMost(limit_ms, who, window) => {
                let span = Span::of(*window, record);
                let clients = who.clients(record);
                clients
                    .filter_map(|c| gap_over(*limit_ms, c, span))
                    .collect()
            }
            Claim::Dark(who, window) => {
                let span = Span::of(*window, record);
                who.clients(record).flat_map(|c| dark(c, span)).collect()
            }
            Claim::DarkBy(who, by_ms) => dark_by(who, *by_ms, record),
            Claim::Fair(factor, who, window) => {
                fair(*factor, who, Span::of(*window, record), record)
            }
            Claim::Throughput(factor, before, after) => {
                let (before, after) = (rate(*before, record), rate(*after, record));
                let fell = after < factor * before;
                let told =
                    format!("{after:.0} operations/s after {before:.0}/s, not {factor} times");
                fell.then_some(told).into_iter().collect()
            }
            Claim::MessagesAtMost(factor) => messages(*factor, record),
            Claim::IdleAtMost {
                cpu_percent,
                kb_per_s,
            } => idle(*cpu_percent, *kb_per_s, record),
            Claim::LatencyAtMost(factor, before, after) => {
                let (before, after) = (p99_ms(*before, record), p99_ms(*after, record));
                let held = before.zip(after).is_some_and(|(b, a)| a <= factor * b);
                let told =
                    format!("p99 of writes {after:?} ms after {before:?} ms, over {factor} times");
                (!held).then_some(told).into_iter().collect()
            }
        }
    }

    /// Measurements that the row of the table does not contain.
    pub fn figures(&self, record: &Record) -> Option<String> {
        Some(match self {
            Claim::Throughput(_, before, after) => {
                let (before, after) = (rate(*before, record), rate(*after, record));
                format!("{before:.0}/s, then {after:.0}/s")
            }
            Claim::MessagesAtMost(_) => {
                let (before, after) = messages_per_operation(record)?;
                format!("{before:.1} messages an operation, then {after:.1}")
            }
            Claim::IdleAtMost { .. } => {
                let usage = record.idle.as_ref()?;
                let cpu_percent = usage.cpu_percent.iter().copied().fold(0.0, f64::max);
                format!("{cpu_percent:.1} % of a core, {:.1} kB/s", usage.kb_per_s)
            }
            Claim::LatencyAtMost(_, before, after) => {
                let told = |window| {
                    let (p99_ms, per_s) = (p99_ms(window, record)?, writes_per_s(window, record));
                    Some(format!("p99 {p99_ms:.1} ms of {per_s:.0} writes/s"))
                };
                format!("{}, then {}", told(*before)?, told(*after)?)
            }
            _ => return None,
        })
    }

    /// The longest time without a success of a client that should be served.
    pub fn longest_gap_us(&self, record: &Record) -> Option<u64> {
        let Claim::Serves(who, window) = self else {
            return None;
        };
        let span = Span::of(*window, record);
        let gaps = who.clients(record).map(|c| longest_gap(c, span).1);
        gaps.max()
    }
}

/// The most failed calls of one client that are printed.
const TOLD_MAX: usize = 3;

fn serves(client: &Client, span: Span) -> Vec<String> {
    let calls: Vec<&RecordedCall> = client
        .calls
        .iter()
        .filter(|c| span.has(c.called_us))
        .collect();
    let failed: Vec<&&RecordedCall> = calls.iter().filter(|call| !succeeded(call)).collect();
    let mut told: Vec<String> = failed
        .iter()
        .take(TOLD_MAX)
        .map(|c| c.to_string())
        .collect();
    if failed.len() > TOLD_MAX {
        told.push(format!(
            "... and {} more of {client}",
            failed.len() - TOLD_MAX
        ));
    }
    if !calls.iter().any(|call| succeeded(call)) {
        told.push(format!("{client} was not served at all {}", show(span)));
    }
    told
}

/// The longest time from one success to the next, or to the end of the span, and when it began.
fn longest_gap(client: &Client, span: Span) -> (u64, u64) {
    let good = client.calls.iter().filter(|call| succeeded(call));
    let ends = good
        .filter_map(|call| call.ended_us)
        .filter(|us| span.has(*us));
    let (mut last_us, mut longest) = (span.from_us, (span.from_us, 0));
    for us in ends.chain([span.to_us]) {
        let gap_us = us.saturating_sub(last_us);
        if gap_us > longest.1 {
            longest = (last_us, gap_us);
        }
        last_us = us;
    }
    longest
}

fn gap_over(limit_ms: u64, client: &Client, span: Span) -> Option<String> {
    let (at_us, gap_us) = longest_gap(client, span);
    (gap_us > limit_ms * 1_000).then(|| {
        let (gap, at) = (ms(gap_us), ms(at_us));
        format!("{client} waited {gap} ms from {at} on, over {limit_ms} ms")
    })
}

fn dark(client: &Client, span: Span) -> Vec<String> {
    let ended = |call: &&RecordedCall| call.ended_us.is_some_and(|us| span.has(us));
    let within = client.calls.iter().filter(|c| span.has(c.called_us));
    let calls: Vec<&RecordedCall> = within.filter(ended).collect();
    if calls.is_empty() {
        return vec![format!("{client} was told nothing {}", show(span))];
    }
    let refused =
        |call: &RecordedCall| matches!(&call.ending, Ending::Answered(Outcome::NoQuorum { .. }));
    let others = calls.iter().filter(|call| !refused(call));
    let told = others.map(|call| format!("not no quorum: {call}"));
    told.take(TOLD_MAX).collect()
}

fn dark_by(who: &Who, by_ms: u64, record: &Record) -> Vec<String> {
    let by_us = record.time_after_us(by_ms);
    let late = |node: &usize| {
        let said = record
            .quorums
            .iter()
            .filter(|q| q.node == *node && q.asked_us >= by_us);
        let first = said.min_by_key(|q| q.asked_us);
        match first {
            None => Some(format!("node {node} said nothing after {} ms", ms(by_us))),
            Some(said) if said.quorum => Some(format!(
                "node {node} says at {} ms that it has a quorum",
                ms(said.asked_us)
            )),
            Some(_) => None,
        }
    };
    who.nodes.iter().filter_map(late).collect()
}

fn fair(factor: f64, who: &Who, span: Span, record: &Record) -> Vec<String> {
    let shares: Vec<(String, usize)> = who
        .clients(record)
        .map(|client| {
            let good = client.calls.iter().filter(|call| succeeded(call));
            let count = good.filter(|c| span.has(c.called_us)).count();
            (client.to_string(), count)
        })
        .collect();
    let counts = || shares.iter().map(|(_, count)| *count);
    let (most, least) = (counts().max().unwrap_or(0), counts().min().unwrap_or(0));
    let unfair = least == 0 || most as f64 > factor * least as f64;
    unfair
        .then(|| format!("shares are not within a factor of {factor}: {shares:?}"))
        .into_iter()
        .collect()
}

/// Successes per second.
fn rate(window: Window, record: &Record) -> f64 {
    let span = Span::of(window, record);
    record.successes().filter(|us| span.has(*us)).count() as f64 / span.seconds()
}

fn writes_per_s(window: Window, record: &Record) -> f64 {
    let span = Span::of(window, record);
    let within = record
        .writes
        .iter()
        .filter(|write| span.has(write.ended_us));
    within.count() as f64 / span.seconds()
}

/// The 99th percentile of the writes of a flood; none if there were none.
fn p99_ms(window: Window, record: &Record) -> Option<f64> {
    let span = Span::of(window, record);
    let within = record
        .writes
        .iter()
        .filter(|write| span.has(write.ended_us));
    let mut all: Vec<u32> = within.map(|write| write.us).collect();
    all.sort_unstable();
    let place = all.len().checked_sub(1)? * 99 / 100;
    Some(f64::from(all[place]) / 1e3)
}

/// Messages per operation between the first two counts, and between the second two; none if there
/// are fewer than four counts.
fn messages_per_operation(record: &Record) -> Option<(f64, f64)> {
    let &[a, b, c, d] = &record.counts[..] else {
        return None;
    };
    let between = |from: MessageCount, to: MessageCount| {
        let times = from.at_us..to.at_us;
        let operations = record.successes().filter(|us| times.contains(us)).count();
        to.messages.saturating_sub(from.messages) as f64 / operations.max(1) as f64
    };
    Some((between(a, b), between(c, d)))
}

fn messages(factor: f64, record: &Record) -> Vec<String> {
    let Some((before, after)) = messages_per_operation(record) else {
        return vec!["messages were not counted four times".to_owned()];
    };
    if before == 0.0 || after == 0.0 {
        return vec!["the nodes count no messages".to_owned()];
    }
    let over = after > factor * before;
    let told = format!("{after:.1} messages an operation after {before:.1}, over {factor} times");
    over.then_some(told).into_iter().collect()
}

fn idle(cpu_percent_max: f64, kb_per_s_max: f64, record: &Record) -> Vec<String> {
    let Some(usage) = &record.idle else {
        return vec!["nothing was measured".to_owned()];
    };
    let mut told = Vec::new();
    for (node, percent) in usage.cpu_percent.iter().enumerate() {
        if *percent > cpu_percent_max {
            told.push(format!(
                "node {node} uses {percent:.1} % of a core, over {cpu_percent_max}"
            ));
        }
    }
    if usage.kb_per_s > kb_per_s_max {
        let used = usage.kb_per_s;
        told.push(format!("a node sends {used:.1} kB/s, over {kb_per_s_max}"));
    }
    told
}

fn show(span: Span) -> String {
    format!("from {} to {} ms", ms(span.from_us), ms(span.to_us))
}
