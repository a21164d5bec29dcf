//! Queries a node over HTTP, and parses what Prometheus would read.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::nodes::{Cluster, Keep, SOON, wait_until};

/// The page's HTTP status, and its text.
pub fn get(address: &str, path: &str) -> (u16, String) {
    try_get(address, path).unwrap_or_else(|error| panic!("{address}{path}: {error}"))
}

pub fn try_get(address: &str, path: &str) -> std::io::Result<(u16, String)> {
    let address: SocketAddr = address.parse().expect("a numeric address");
    let mut stream = TcpStream::connect_timeout(&address, SOON)?;
    stream.set_read_timeout(Some(SOON))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| std::io::Error::other(format!("no status in {head:?}")))?;
    Ok((status, body.to_owned()))
}

/// Nodes of one list that serve HTTP at their own addresses.
pub fn cluster(count: usize, keep: Keep) -> Cluster {
    let addresses = Cluster::addresses(count);
    let (ip, _) = addresses[0].rsplit_once(':').expect("a port");
    let http = format!("--http={ip}");
    Cluster::start_at(addresses.clone(), keep, &[&http])
}

/// All samples of a node, as `name{labels}`, and the types of the metrics.
#[derive(Debug, Default)]
pub struct Metrics {
    pub samples: BTreeMap<String, f64>,
    pub types: BTreeMap<String, String>,
}

impl Metrics {
    pub fn of(cluster: &Cluster, node: usize) -> Metrics {
        let (status, text) = get(cluster.address(node), "/metrics");
        assert_eq!(status, 200, "{text}");
        Metrics::parse(&text)
    }

    pub fn parse(text: &str) -> Metrics {
        let mut metrics = Metrics::default();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect("a name and a type");
                let before = metrics.types.insert(name.to_owned(), kind.to_owned());
                assert_eq!(before, None, "{name} is there twice");
            } else if !line.starts_with('#') {
                let (series, value) = line.rsplit_once(' ').expect("a sample and a value");
                let value: f64 = value.parse().unwrap_or_else(|_| panic!("{line}"));
                let before = metrics.samples.insert(series.to_owned(), value);
                assert_eq!(before, None, "{series} is there twice");
            }
        }
        metrics
    }

    /// One sample.
    #[track_caller]
    pub fn one(&self, series: &str) -> f64 {
        let sample = self.samples.get(series);
        *sample.unwrap_or_else(|| panic!("no {series} in {:#?}", self.samples))
    }

    /// All samples of one metric whose labels contain all of these.
    pub fn sum(&self, name: &str, labels: &[&str]) -> f64 {
        let of = |series: &&String| {
            let bare = series.split('{').next();
            bare == Some(name) && labels.iter().all(|label| series.contains(label))
        };
        self.samples
            .iter()
            .filter(|(series, _)| of(series))
            .map(|(_, value)| value)
            .sum()
    }
}

/// Waits until a condition holds for a node's metrics.
#[track_caller]
pub fn wait_for(cluster: &Cluster, node: usize, what: &str, holds: impl Fn(&Metrics) -> bool) {
    wait_until(SOON, what, || {
        // Each query costs the node time.
        std::thread::sleep(Duration::from_millis(100));
        holds(&Metrics::of(cluster, node))
    });
}
