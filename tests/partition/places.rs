//! Which node each letter of a scenario stands for, and steps in terms of nodes.

use anyhow::{Context, Result, bail, ensure};

use crate::footprint::Left;
use crate::graphs::Graph;
use crate::random::Random;
use crate::table::{At, DiskAct, Step, Verb};

/// The node that each letter stands for.
#[derive(Debug)]
pub struct Places {
    nodes: usize,
    letters: Vec<usize>,
}

const MASTER: usize = 0;
/// The next node in the first configuration's order, which becomes the master when the first one is
/// gone.
const NEXT: usize = 1;
/// The time in which a node must be a member again, unless the table states another one.
const MEMBER_AGAIN_MS: u64 = 30_000;

impl Places {
    /// The first nodes of the configuration have their own names; letters stand for the other
    /// nodes.
    pub fn new(nodes: usize, named: usize, mut random: Random) -> Places {
        let mut free: Vec<usize> = (named..nodes).collect();
        let mut letters = Vec::new();
        while !free.is_empty() {
            letters.push(free.swap_remove(random.below(free.len() as u64) as usize));
        }
        Places { nodes, letters }
    }

    /// The first letters stand for these nodes.
    pub fn in_order(nodes: usize, first: &[usize]) -> Places {
        let others = (0..nodes).filter(|node| !first.contains(node));
        let letters = first.iter().copied().chain(others).collect();
        Places { nodes, letters }
    }

    pub fn count(&self) -> usize {
        self.nodes
    }

    pub fn node(&self, word: &str) -> Result<usize> {
        match word {
            "M" => return Ok(MASTER),
            "N" => return Ok(NEXT),
            _ => {}
        }
        let &[letter @ b'a'..=b'i'] = word.as_bytes() else {
            bail!("{word:?} is no node");
        };
        let node = self.letters.get(usize::from(letter - b'a'));
        node.copied()
            .with_context(|| format!("there is no node {word}"))
    }

    /// A graph's links, as indices of nodes.
    pub fn show(&self, graph: &Graph) -> String {
        let links = self.placed(graph);
        let links: Vec<String> = links.iter().map(|(a, b)| format!("{a}-{b}")).collect();
        links.join(" ")
    }

    fn placed(&self, graph: &Graph) -> Graph {
        let at = |place: usize| self.letters[place];
        graph.iter().map(|(a, b)| (at(*a), at(*b))).collect()
    }

    /// The steps that `TIME VERB ...` stands for.
    pub fn steps(&self, text: &str, graph: Option<&Graph>) -> Result<Vec<Step>> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let [time, verb, rest @ ..] = &words[..] else {
            bail!("a step has a time and a verb");
        };
        let at = match time.strip_prefix('+') {
            Some(ms) => At::After(number(ms)?),
            None => At::Ms(number(time)?),
        };
        match (*verb, rest) {
            ("flap", [a, b, ms, count]) => {
                let ends = self.indices(&[*a, *b])?;
                return self.flap(at, ends, number(ms)?, number(count)?);
            }
            ("blackout", [out_ms, between_ms]) => {
                return Ok(self.blackout(at, number(out_ms)?, number(between_ms)?));
            }
            ("thunder", [keys]) => return Ok(self.thunder(at, number(keys)? as usize)),
            ("rounds", [count, ms]) => return Ok(self.rounds(at, number(count)?, number(ms)?)),
            ("orders", []) => return Ok(Vec::new()),
            _ => {}
        }
        let verb = self.verb(verb, rest, graph)?;
        Ok(vec![Step { at, verb }])
    }

    fn verb(&self, verb: &str, rest: &[&str], graph: Option<&Graph>) -> Result<Verb> {
        let script = |name, arguments| Ok(Verb::Script(name, arguments));
        match (verb, rest) {
            ("end", []) => Ok(Verb::End),
            ("heal", []) => script("heal.sh", Vec::new()),
            ("count", []) => Ok(Verb::CountMessages),
            ("idle", [ms]) => Ok(Verb::Idle(number(ms)?)),
            ("kill", nodes) => Ok(Verb::Kill(self.all(nodes)?)),
            ("start", [node]) => Ok(Verb::Start(self.node(node)?)),
            ("launch", nodes) => Ok(Verb::Launch(self.all(nodes)?)),
            ("stop", [node]) => Ok(Verb::Stop(self.node(node)?)),
            ("wipe", [node]) => Ok(Verb::Disk(self.node(node)?, DiskAct::Wipe)),
            ("copy", [node]) => Ok(Verb::Disk(self.node(node)?, DiskAct::Copy)),
            ("roll-back", [node]) => Ok(Verb::Disk(self.node(node)?, DiskAct::RollBack)),
            ("members", [count, ms]) => Ok(Verb::Members {
                count: number(count)? as usize,
                within_ms: number(ms)?,
            }),
            ("last", [node]) => Ok(Verb::Last(self.node(node)?)),
            ("says", [node, words @ ..]) => Ok(Verb::Says(self.node(node)?, words.join(" "))),
            ("logs", [node, words @ ..]) => Ok(Verb::Logs(self.node(node)?, words.join(" "))),
            ("put", [count]) => Ok(Verb::PutKeys(number(count)? as usize)),
            ("delete", []) => Ok(Verb::DeleteKeys),
            ("read", []) => Ok(Verb::ReadKeys),
            ("forgotten", [ms]) => Ok(Verb::Forgotten {
                within_ms: number(ms)?,
            }),
            ("measure", []) => Ok(Verb::Measure),
            ("fill", []) => Ok(Verb::Fill),
            ("empty", []) => Ok(Verb::Empty),
            ("gone", []) => Ok(Verb::Gone),
            ("shrunk", [live, resident, disk, ms]) => Ok(Verb::Shrunk {
                left: Left {
                    live: number(live)?,
                    resident: number(resident)?,
                    disk: number(disk)?,
                },
                within_ms: number(ms)?,
            }),
            ("quiet", []) => Ok(Verb::Quiet),
            ("equal", [ms]) => Ok(Verb::Equal {
                within_ms: number(ms)?,
            }),
            ("end-dark", []) => Ok(Verb::EndDark),
            ("cut", ends) => script("cut.sh", self.indices(ends)?),
            ("one-way", ends) => script("cut.sh", flagged("--one-way", self.indices(ends)?)),
            ("cut-client", nodes) => script("cut.sh", flagged("--client", self.indices(nodes)?)),
            ("chain", nodes) => script("chain.sh", self.indices(nodes)?),
            ("isolate", nodes) => script("isolate.sh", self.indices(nodes)?),
            ("split", groups) => {
                let group = |group: &&str| {
                    let members: Vec<&str> = group.split(',').collect();
                    Ok(self.indices(&members)?.join(","))
                };
                script("split.sh", groups.iter().map(group).collect::<Result<_>>()?)
            }
            ("loss", [percent]) => script("loss.sh", vec![(*percent).to_owned()]),
            ("keep", links) => {
                let ends = |link: &&str| {
                    let (a, b) = link.split_once('-').context("a link is a-b")?;
                    Ok((self.node(a)?, self.node(b)?))
                };
                Ok(self.keep(&links.iter().map(ends).collect::<Result<_>>()?))
            }
            ("graph", []) => Ok(self.keep(&self.placed(graph.context("a graph")?))),
            ("deaf", [node]) => self.one_way(self.node(node)?, |node, other| [other, node]),
            ("mute", [node]) => self.one_way(self.node(node)?, |node, other| [node, other]),
            _ => bail!("there is no such step"),
        }
    }

    fn all(&self, words: &[&str]) -> Result<Vec<usize>> {
        ensure!(!words.is_empty(), "no node is named");
        words.iter().map(|word| self.node(word)).collect()
    }

    fn indices(&self, words: &[&str]) -> Result<Vec<String>> {
        let index = |word: &&str| Ok(self.node(word)?.to_string());
        words.iter().map(index).collect()
    }

    /// Cuts all links except these.
    fn keep(&self, links: &Graph) -> Verb {
        let is_kept = |a, b| links.contains(&(a, b)) || links.contains(&(b, a));
        let mut arguments = Vec::new();
        for low in 0..self.nodes {
            for high in (low + 1..self.nodes).filter(|high| !is_kept(low, *high)) {
                arguments.extend([low.to_string(), high.to_string()]);
            }
        }
        match arguments.is_empty() {
            true => Verb::Script("heal.sh", arguments),
            false => Verb::Script("cut.sh", arguments),
        }
    }

    fn one_way(&self, node: usize, ends: impl Fn(usize, usize) -> [usize; 2]) -> Result<Verb> {
        let others = (0..self.nodes).filter(|other| *other != node);
        let words = others
            .flat_map(|other| ends(node, other))
            .map(|n| n.to_string());
        Ok(Verb::Script(
            "cut.sh",
            flagged("--one-way", words.collect()),
        ))
    }

    fn flap(&self, at: At, ends: Vec<String>, ms: u64, count: u64) -> Result<Vec<Step>> {
        let At::Ms(from_ms) = at else {
            bail!("a flapping link has a time from the start");
        };
        ensure!(count > 0, "a link that flaps never");
        let verb = |number: u64| match number % 2 {
            0 => Verb::Script("cut.sh", ends.clone()),
            _ => Verb::Script("heal.sh", Vec::new()),
        };
        let step = |number: u64| Step {
            at: At::Ms(from_ms + number * ms),
            verb: verb(number),
        };
        Ok((0..count * 2).map(step).collect())
    }

    fn blackout(&self, at: At, out_ms: u64, between_ms: u64) -> Vec<Step> {
        let mut steps = Vec::new();
        let mut at = at;
        for node in &self.letters {
            let verb = Verb::Script("isolate.sh", vec![node.to_string()]);
            steps.push(Step { at, verb });
            let verb = Verb::Script("heal.sh", Vec::new());
            steps.push(Step {
                at: At::After(out_ms),
                verb,
            });
            at = At::After(between_ms);
        }
        steps
    }

    fn thunder(&self, at: At, keys: usize) -> Vec<Step> {
        let mut verbs = Vec::new();
        for node in &self.letters {
            verbs.extend([
                Verb::Kill(vec![*node]),
                Verb::PutKeys(keys),
                Verb::Start(*node),
            ]);
        }
        verbs.push(Verb::ReadKeys);
        one_after_the_other(at, verbs)
    }

    /// Each node in turn is killed, started, and becomes a member again.
    fn rounds(&self, at: At, count: u64, pause_ms: u64) -> Vec<Step> {
        let mut steps = Vec::new();
        let mut at = at;
        for _ in 0..count {
            for node in &self.letters {
                let back = Verb::Members {
                    count: self.nodes,
                    within_ms: MEMBER_AGAIN_MS,
                };
                let verbs = vec![Verb::Kill(vec![*node]), Verb::Launch(vec![*node]), back];
                steps.extend(one_after_the_other(at, verbs));
                at = At::After(pause_ms);
            }
        }
        steps
    }
}

fn one_after_the_other(at: At, verbs: Vec<Verb>) -> Vec<Step> {
    let mut at = Some(at);
    let step = |verb| Step {
        at: at.take().unwrap_or(At::After(0)),
        verb,
    };
    verbs.into_iter().map(step).collect()
}

fn number(word: &str) -> Result<u64> {
    word.parse()
        .with_context(|| format!("{word:?} is no number"))
}

fn flagged(flag: &str, mut words: Vec<String>) -> Vec<String> {
    words.insert(0, flag.to_owned());
    words
}
