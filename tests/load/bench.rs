//! `horseshoe bench` as a process, and what nodes' processes take.

use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::nodes::{Cluster, binary};

/// Whether all rows run, with their whole loads.
pub fn is_all() -> bool {
    std::env::var_os("LOAD_ALL").is_some()
}

/// A number of the whole load, or of the sample.
pub fn scaled<T>(all: T, sample: T) -> T {
    if is_all() { all } else { sample }
}

/// A rate, or a part of one, that must be left. The sample also runs on machines that do other
/// things, so it notices only that a rate collapses.
pub fn part_left(all: f64) -> f64 {
    scaled(all, all / 2.0)
}

/// The options of a load of this many seconds.
pub fn seconds(all: u32, sample: u32) -> String {
    format!("--duration {}s", scaled(all, sample))
}

/// A load in progress.
pub struct Bench(Child);

impl Bench {
    /// `words`: what comes after `horseshoe`, for instance `bench --clients 5`.
    pub fn start(nodes: &str, words: &str) -> Bench {
        Bench::spawn(Command::new(binary()), nodes, words)
    }

    /// For thousands of threads, which would otherwise get nearly all of the processor time that
    /// the nodes need. Clients on machines of their own leave the nodes theirs.
    pub fn start_nice(nodes: &str, words: &str) -> Bench {
        let mut command = Command::new("nice");
        command.args(["-n", "10"]).arg(binary());
        Bench::spawn(command, nodes, words)
    }

    fn spawn(mut command: Command, nodes: &str, words: &str) -> Bench {
        command
            .args(["--nodes", nodes])
            .args(words.split_whitespace());
        command.arg("--json").stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        Bench(command.spawn().expect("the binary runs"))
    }

    pub fn end(self) -> Figures {
        let output = self.0.wait_with_output().expect("a child ends");
        match serde_json::from_slice(&output.stdout) {
            Ok(told) => Figures(told),
            Err(_) => panic!("no JSON: {}", String::from_utf8_lossy(&output.stderr)),
        }
    }
}

pub fn run(nodes: &str, words: &str) -> Figures {
    Bench::start(nodes, words).end()
}

/// The operations per second of 64 closed loops: the peak.
pub fn peak(cluster: &Cluster) -> f64 {
    let words = format!("bench {}", seconds(5, 2));
    let figures = run(&cluster.list(), &words);
    figures.expect_errors(&[]);
    figures.per_second()
}

/// What `bench` reports.
#[derive(Debug)]
pub struct Figures(pub Value);

impl Figures {
    #[track_caller]
    pub fn number(&self, path: &str) -> f64 {
        let found = self.0.pointer(path).and_then(Value::as_f64);
        found.unwrap_or_else(|| panic!("no {path} in {}", self.0))
    }

    /// Operations per second that succeeded in time.
    #[track_caller]
    pub fn per_second(&self) -> f64 {
        self.number("/achieved_per_second")
    }

    pub fn errors(&self) -> BTreeMap<&str, f64> {
        let errors = self.0["errors"].as_object().expect("an object");
        let counts = errors.iter();
        counts
            .map(|(name, count)| (name.as_str(), count.as_f64().expect("a count")))
            .collect()
    }

    /// The number of errors of that kind.
    pub fn count(&self, error: &str) -> f64 {
        self.errors().get(error).copied().unwrap_or_default()
    }

    /// No error of another kind occurred.
    #[track_caller]
    pub fn expect_errors(&self, allowed: &[&str]) {
        let errors = self.errors();
        assert!(
            errors.keys().all(|name| allowed.contains(name)),
            "{}",
            self.0
        );
    }

    #[track_caller]
    pub fn expect_linearizable(&self) {
        let told = &self.0["check"]["linearizable"];
        assert_eq!(told, &Value::Bool(true), "{}", self.0);
    }
}

/// The bytes of a node's process that are in memory.
pub fn resident_bytes(cluster: &Cluster, node: usize) -> u64 {
    let path = format!("/proc/{}/statm", cluster.process_id(node));
    let text = std::fs::read_to_string(path).expect("it runs");
    let pages = text.split_whitespace().nth(1).expect("a second number");
    4_096 * pages.parse::<u64>().expect("a number")
}

/// The descriptors that a node's process has open.
pub fn descriptors(cluster: &Cluster, node: usize) -> usize {
    let path = format!("/proc/{}/fd", cluster.process_id(node));
    std::fs::read_dir(path).expect("it runs").count()
}

/// The most of any node.
pub fn resident_max(cluster: &Cluster) -> u64 {
    let all = (0..cluster.count()).map(|node| resident_bytes(cluster, node));
    all.max().expect("nodes")
}
