//! The state of the nodes at one moment: their status, and their metrics if they serve them.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use wire::NodeStatus;

use crate::cli::connection::ConnectionArgs;
use crate::cli::exit::Exit;
use crate::cli::status::{StatusRow, Unresolved};

/// The longest time to read a node's metrics; all nodes are asked concurrently.
const METRICS_MAX: Duration = Duration::from_millis(500);
/// The largest size of a node's metrics, in bytes.
const METRICS_SIZE_MAX: u64 = 1 << 20;

#[derive(Debug)]
pub struct ClusterSample {
    pub at: Instant,
    pub rows: Vec<StatusRow>,
    /// For each row: the node's counts, if it serves metrics.
    pub counts: Vec<Option<ScrapedCounts>>,
    pub unresolved: Vec<Unresolved>,
}

impl ClusterSample {
    pub fn said(&self) -> impl Iterator<Item = &NodeStatus> {
        crate::cli::status::said(&self.rows)
    }

    pub fn has_quorum(&self) -> bool {
        self.said().any(|status| status.votes && status.quorum)
    }
}

/// Counts of a node since it started.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ScrapedCounts {
    /// Clients' operations that were executed, and those that were not.
    pub done: f64,
    pub failed: f64,
    /// Upper bounds in seconds, with the count up to each: of gets, and of all other operations.
    pub reads: Vec<(f64, f64)>,
    pub writes: Vec<(f64, f64)>,
}

impl ScrapedCounts {
    /// Reads the metrics of a node.
    pub fn parse(text: &str) -> ScrapedCounts {
        let mut counts = ScrapedCounts::default();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some((series, value)) = line.rsplit_once(' ') else {
                continue;
            };
            let Ok(value) = value.parse::<f64>() else {
                continue;
            };
            let has = |label: &str| series.contains(label);
            if series.starts_with("horseshoe_operations_total{") && has("source=\"client\"") {
                let done = ["value", "absent", "done", "conflict"];
                match done
                    .iter()
                    .any(|result| has(&format!("result=\"{result}\"")))
                {
                    true => counts.done += value,
                    false => counts.failed += value,
                }
            } else if series.starts_with("horseshoe_operation_duration_seconds_bucket{") {
                let bound = series
                    .split("le=\"")
                    .nth(1)
                    .and_then(|rest| rest.split('"').next());
                let Some(bound) = bound.and_then(|bound| bound.parse::<f64>().ok()) else {
                    continue;
                };
                let buckets = match has("operation=\"get\"") {
                    true => &mut counts.reads,
                    false => &mut counts.writes,
                };
                match buckets.iter_mut().find(|(known, _)| *known == bound) {
                    Some((_, count)) => *count += value,
                    None => buckets.push((bound, value)),
                }
            }
        }
        counts
    }
}

pub struct Sampler {
    connection: ConnectionArgs,
    http_port: Option<u16>,
}

impl Sampler {
    pub fn new(connection: ConnectionArgs, http_port: Option<u16>) -> Self {
        Sampler {
            connection,
            http_port,
        }
    }

    pub fn sample(&self) -> Result<ClusterSample, Exit> {
        let (rows, unresolved) = self.connection.statuses()?;
        let at = Instant::now();
        let scrapes: Vec<_> = rows
            .iter()
            .map(|(address, status)| {
                let (address, port) = (address.clone(), self.http_port);
                // A node that does not answer over UDP is not asked.
                let answers = status.is_some();
                std::thread::spawn(move || answers.then(|| scrape(&address, port)).flatten())
            })
            .collect();
        let counts = scrapes
            .into_iter()
            .map(|scrape| scrape.join().unwrap_or_default());
        Ok(ClusterSample {
            at,
            counts: counts.collect(),
            rows,
            unresolved,
        })
    }
}

/// `None`: the node does not serve metrics at that address.
fn scrape(address: &str, port: Option<u16>) -> Option<ScrapedCounts> {
    let until = Instant::now() + METRICS_MAX;
    let mut found = kvclient::look_up(address, METRICS_MAX).ok()?.into_iter();
    let mut stream = found.find_map(|mut address| {
        address.set_port(port.unwrap_or(address.port()));
        connect(address, until)
    })?;
    stream.set_write_timeout(Some(METRICS_MAX)).ok()?;
    stream
        .write_all(b"GET /metrics HTTP/1.0\r\nHost: horseshoe\r\n\r\n")
        .ok()?;
    let mut answer = Vec::new();
    let mut part = [0; 16 << 10];
    loop {
        let left = until.checked_duration_since(Instant::now())?;
        stream
            .set_read_timeout(Some(left.max(Duration::from_millis(1))))
            .ok()?;
        match stream.read(&mut part).ok()? {
            0 => break,
            size => answer.extend_from_slice(&part[..size]),
        }
        if answer.len() as u64 > METRICS_SIZE_MAX {
            return None;
        }
    }
    let answer = String::from_utf8(answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let is_good = head.split(' ').nth(1) == Some("200") && body.contains("horseshoe_build_info");
    is_good.then(|| ScrapedCounts::parse(body))
}

fn connect(address: SocketAddr, until: Instant) -> Option<TcpStream> {
    let left = until.checked_duration_since(Instant::now())?;
    TcpStream::connect_timeout(&address, left.max(Duration::from_millis(1))).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_those_of_clients() {
        let text = "\
# TYPE horseshoe_operations_total counter
horseshoe_operations_total{source=\"client\",operation=\"put\",result=\"done\"} 3
horseshoe_operations_total{source=\"client\",operation=\"get\",result=\"no_quorum\"} 2
horseshoe_operations_total{source=\"node\",operation=\"put\",result=\"done\"} 9
horseshoe_operation_duration_seconds_bucket{operation=\"get\",le=\"0.5\"} 1
horseshoe_operation_duration_seconds_bucket{operation=\"put\",le=\"0.5\"} 2
horseshoe_operation_duration_seconds_bucket{operation=\"add\",le=\"0.5\"} 4
horseshoe_operation_duration_seconds_bucket{operation=\"add\",le=\"+Inf\"} 5
";
        let counts = ScrapedCounts::parse(text);
        assert_eq!((counts.done, counts.failed), (3.0, 2.0));
        assert_eq!(counts.reads, [(0.5, 1.0)]);
        assert_eq!(counts.writes, [(0.5, 6.0), (f64::INFINITY, 5.0)]);
        assert_eq!(
            ScrapedCounts::parse("no metrics\nat all 7 x\n"),
            ScrapedCounts::default()
        );
    }
}
