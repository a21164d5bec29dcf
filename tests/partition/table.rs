//! The table of scenarios: from text to steps and claims about certain nodes.

use anyhow::{Context, Result, bail, ensure};

use crate::claims::{self, Claim};
use crate::graphs::{self, Graph};
use crate::nodes::Keep;
use crate::places::Places;
use crate::random::Random;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Load {
    Mixed,
    OneKey,
    Idle,
}

#[derive(Debug, Clone)]
pub struct Scenario {
    pub name: String,
    pub nodes: usize,
    pub in_sample: bool,
    pub keep: Keep,
    pub load: Load,
    pub steps: Vec<Step>,
    pub claims: Vec<Claim>,
    /// The graph that is left, where the name does not tell.
    pub note: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum At {
    /// Since the start.
    Ms(u64),
    /// Since the end of the step before.
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
    Kill(usize),
    /// Starts it, and waits until it serves.
    Start(usize),
    PutKeys(usize),
    ReadKeys,
    CountMessages,
    /// Measures for so many milliseconds what the nodes use.
    Idle(u64),
    End,
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
        let has_graph =
            parts(self.steps).any(|step| step.split_whitespace().nth(1) == Some("graph"));
        if !has_graph {
            let name = format!("{}-{nodes}", self.name);
            return Ok(vec![self.scenario(name, nodes, seed, None)?]);
        }
        let shapes = graphs::connected_shapes(nodes);
        let numbered = shapes.iter().enumerate();
        numbered
            .map(|(number, shape)| {
                let name = format!("{}-{nodes}-{}", self.name, number + 1);
                self.scenario(name, nodes, seed, Some(shape))
            })
            .collect()
    }

    fn scenario(
        &self,
        name: String,
        nodes: usize,
        seed: u64,
        graph: Option<&Graph>,
    ) -> Result<Scenario> {
        ensure!((1..=9).contains(&nodes), "{nodes} nodes");
        let (keep, load) = match self.setup {
            "memory mixed" => (Keep::Memory, Load::Mixed),
            "disk mixed" => (Keep::Fsync, Load::Mixed),
            "memory one-key" => (Keep::Memory, Load::OneKey),
            "memory idle" => (Keep::Memory, Load::Idle),
            other => bail!("no setup: {other}"),
        };
        let places = Places::new(nodes, self.names_the_master(), stream(&name, seed));
        let mut steps = Vec::new();
        for step in parts(self.steps) {
            steps.extend(places.steps(step, graph).with_context(|| step.to_owned())?);
        }
        let ends = steps.iter().filter(|step| step.verb == Verb::End).count();
        let ends_last = steps.last().is_some_and(|step| step.verb == Verb::End);
        ensure!(
            ends == 1 && ends_last,
            "the last step, and no other, is end"
        );
        let claims = parts(self.holds)
            .map(|claim| claims::read(claim, &places).with_context(|| claim.to_owned()));
        Ok(Scenario {
            claims: claims.collect::<Result<_>>()?,
            note: graph.map_or(String::new(), |graph| places.show(graph)),
            name,
            nodes,
            in_sample: self.in_sample,
            keep,
            load,
            steps,
        })
    }

    fn names_the_master(&self) -> bool {
        let text = format!("{} {}", self.steps, self.holds);
        text.split(|c: char| !c.is_alphanumeric())
            .any(|word| word == "M")
    }
}

/// A stream of random choices for each scenario, whatever others are run.
fn stream(name: &str, seed: u64) -> Random {
    Random::stream(seed, xxhash_rust::xxh3::xxh3_64(name.as_bytes()))
}

fn parts(text: &str) -> impl Iterator<Item = &str> {
    text.split(';')
        .map(str::trim)
        .filter(|part| !part.is_empty())
}
