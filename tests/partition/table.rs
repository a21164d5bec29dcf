//! The table of scenarios: converts text to steps and claims about specific nodes.

use anyhow::{Context, Result, bail, ensure};

use crate::claims::{self, Claim};
use crate::footprint::Left;
use crate::graphs::{self, Graph};
use crate::nodes::Keep;
use crate::places::Places;
use crate::random::Random;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Load {
    Mixed,
    OneKey,
    /// Transactions over several keys.
    Transfers,
    Idle,
    /// As much as the cluster accepts, on many keys.
    Flood,
}

#[derive(Debug, Clone)]
pub struct Scenario {
    pub name: String,
    pub nodes: usize,
    pub in_sample: bool,
    pub keep: Keep,
    pub load: Load,
    /// No member is ever removed automatically.
    pub is_fixed: bool,
    pub steps: Vec<Step>,
    pub claims: Vec<Claim>,
    /// The graph that remains, if the name does not say it.
    pub note: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum At {
    /// Since the start.
    Ms(u64),
    /// Since the end of the previous step.
    After(u64),
}

#[derive(Debug, Clone)]
pub struct Step {
    pub at: At,
    pub verb: Verb,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verb {
    /// A script of this directory, and its arguments.
    Script(&'static str, Vec<String>),
    /// kill -9 of all of them at once.
    Kill(Vec<usize>),
    /// Starts the node, and waits until it serves.
    Start(usize),
    /// Starts the nodes without waiting.
    Launch(Vec<usize>),
    /// Stops the node cleanly.
    Stop(usize),
    /// An action on the data directory of a node that is not running.
    Disk(usize, DiskAct),
    /// Waits until exactly the running nodes are members and report it.
    Members {
        count: usize,
        within_ms: u64,
    },
    /// Checks that the node is the last in the configuration's order.
    Last(usize),
    /// Waits until a node's status contains this text in its reasons for not being ready.
    Says(usize, String),
    /// Waits until a node's log contains this text.
    Logs(usize, String),
    PutKeys(usize),
    DeleteKeys,
    /// Reads the keys that were put, or checks that they are absent, through every running node.
    ReadKeys,
    /// Waits until no running node holds a key that was deleted.
    Forgotten {
        within_ms: u64,
    },
    /// Records the memory and disk space of the nodes.
    Measure,
    /// Puts very many keys; deletes them; checks that they are absent.
    Fill,
    Empty,
    Gone,
    /// Waits until little remains of what was added between the two measurements.
    Shrunk {
        left: Left,
        within_ms: u64,
    },
    /// Ends the clients.
    Quiet,
    /// Waits until all running nodes hold the same state.
    Equal {
        within_ms: u64,
    },
    CountMessages,
    /// Measures for this many milliseconds the resources that the nodes use.
    Idle(u64),
    End,
    /// The end of a scenario in which nothing can be read any more.
    EndDark,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskAct {
    Wipe,
    /// Makes a copy of the directory.
    Copy,
    /// Restores the copy.
    RollBack,
}

impl Verb {
    pub fn is_end(&self) -> bool {
        matches!(self, Verb::End | Verb::EndDark)
    }
}

const COLUMNS: usize = 6;

/// All scenarios, with the nodes placed by the seed.
pub fn read(text: &str, seed: u64) -> Result<Vec<Scenario>> {
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(b'|')
        .comment(Some(b'#'))
        .trim(csv::Trim::All)
        .from_reader(text.as_bytes());
    let mut scenarios = Vec::new();
    for record in reader.records() {
        let record = record.context("the table of scenarios")?;
        ensure!(
            record.len() == COLUMNS,
            "a line with {} columns",
            record.len()
        );
        let line = Line {
            name: &record[0],
            in_sample: match &record[2] {
                "sample" => true,
                "all" => false,
                other => bail!("{}: when is {other:?}", &record[0]),
            },
            setup: &record[3],
            steps: &record[4],
            holds: &record[5],
        };
        for nodes in record[1].split_whitespace() {
            let nodes = nodes.parse().context("the number of nodes")?;
            let expanded = line.expand(nodes, seed);
            scenarios.extend(expanded.with_context(|| format!("scenario {}", line.name))?);
        }
    }
    Ok(scenarios)
}

struct Line<'a> {
    name: &'a str,
    in_sample: bool,
    setup: &'a str,
    steps: &'a str,
    holds: &'a str,
}

impl Line<'_> {
    fn expand(&self, nodes: usize, seed: u64) -> Result<Vec<Scenario>> {
        let variants = self.variants(nodes);
        if variants.is_empty() {
            let name = format!("{}-{nodes}", self.name);
            return Ok(vec![self.scenario(name, nodes, seed, &Variant::Only)?]);
        }
        let numbered = variants.iter().enumerate();
        numbered
            .map(|(number, variant)| {
                let name = format!("{}-{nodes}-{}", self.name, number + 1);
                self.scenario(name, nodes, seed, variant)
            })
            .collect()
    }

    /// The variants of a line; none if the line stands for one scenario.
    fn variants(&self, nodes: usize) -> Vec<Variant> {
        let verbs = parts(self.steps).filter_map(|step| step.split_whitespace().nth(1));
        let mut variants = Vec::new();
        for verb in verbs {
            match verb {
                "graph" => variants = of_all(graphs::connected_shapes(nodes), Variant::Graph),
                "orders" => variants = of_all(orders_of_three(nodes), Variant::Order),
                _ => {}
            }
        }
        variants
    }

    fn scenario(
        &self,
        name: String,
        nodes: usize,
        seed: u64,
        variant: &Variant,
    ) -> Result<Scenario> {
        ensure!((1..=9).contains(&nodes), "{nodes} nodes");
        let fixed = self.setup.strip_suffix(" fixed");
        let (keep, load) = match fixed.unwrap_or(self.setup) {
            "memory mixed" => (Keep::Memory, Load::Mixed),
            "disk mixed" => (Keep::Fsync, Load::Mixed),
            "memory transfers" => (Keep::Memory, Load::Transfers),
            "disk transfers" => (Keep::Fsync, Load::Transfers),
            "memory one-key" => (Keep::Memory, Load::OneKey),
            "memory idle" => (Keep::Memory, Load::Idle),
            "disk idle" => (Keep::Fsync, Load::Idle),
            "memory flood" => (Keep::Memory, Load::Flood),
            other => bail!("no setup: {other}"),
        };
        let places = match variant {
            Variant::Order(first) => Places::in_order(nodes, first),
            Variant::Graph(_) | Variant::Only => {
                Places::new(nodes, self.count_named(), stream(&name, seed))
            }
        };
        let graph = match variant {
            Variant::Graph(graph) => Some(graph),
            Variant::Order(_) | Variant::Only => None,
        };
        let mut steps = Vec::new();
        for step in parts(self.steps) {
            steps.extend(places.steps(step, graph).with_context(|| step.to_owned())?);
        }
        let ends = steps.iter().filter(|step| step.verb.is_end()).count();
        let ends_last = steps.last().is_some_and(|step| step.verb.is_end());
        ensure!(
            ends == 1 && ends_last,
            "the last step, and no other, is end"
        );
        let claims = parts(self.holds)
            .map(|claim| claims::read(claim, &places).with_context(|| claim.to_owned()));
        Ok(Scenario {
            claims: claims.collect::<Result<_>>()?,
            note: match variant {
                Variant::Only => String::new(),
                Variant::Graph(graph) => places.show(graph),
                Variant::Order(first) => format!("order {first:?}"),
            },
            name,
            nodes,
            in_sample: self.in_sample,
            keep,
            load,
            is_fixed: fixed.is_some(),
            steps,
        })
    }

    /// The number of nodes that are named by their position in the configuration.
    fn count_named(&self) -> usize {
        let text = format!("{} {}", self.steps, self.holds);
        let names = |name| {
            text.split(|c: char| !c.is_alphanumeric())
                .any(|word| word == name)
        };
        match (names("N"), names("M")) {
            (true, _) => 2,
            (false, true) => 1,
            (false, false) => 0,
        }
    }
}

/// One of the scenarios that a line stands for.
#[derive(Debug)]
enum Variant {
    Only,
    Graph(Graph),
    /// The nodes a, b and c.
    Order([usize; 3]),
}

fn of_all<T>(all: Vec<T>, variant: fn(T) -> Variant) -> Vec<Variant> {
    all.into_iter().map(variant).collect()
}

fn orders_of_three(nodes: usize) -> Vec<[usize; 3]> {
    let mut orders = Vec::new();
    for number in 0..nodes.pow(3) {
        let [a, b, c] = [
            number / nodes / nodes,
            number / nodes % nodes,
            number % nodes,
        ];
        if a != b && b != c && a != c {
            orders.push([a, b, c]);
        }
    }
    orders
}

/// A separate stream of random choices for each scenario, whichever others are run.
fn stream(name: &str, seed: u64) -> Random {
    Random::stream(seed, xxhash_rust::xxh3::xxh3_64(name.as_bytes()))
}

fn parts(text: &str) -> impl Iterator<Item = &str> {
    text.split(';')
        .map(str::trim)
        .filter(|part| !part.is_empty())
}
