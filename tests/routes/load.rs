//! The clients' load while links fail: each client writes and reads a few keys, one operation at a
//! time, each as soon as the last one is answered.

use wire::{Action, Outcome};

use crate::sim::history::Ending;
use crate::sim::random::Random;
use crate::sim::script::{Script, append, put};

const KEYS: u64 = 3;

struct Looper {
    client: usize,
    /// The node that the client is tied to.
    node: Option<usize>,
    call: Option<usize>,
    think_until_us: u64,
}

pub struct Load {
    loopers: Vec<Looper>,
    random: Random,
    count: u64,
    pub deadline_us: u64,
}

/// The outcomes of the operations that were called in a window.
#[derive(Debug, Default)]
pub struct Tally {
    pub done: usize,
    pub no_quorum: usize,
    /// All other outcomes that are not a success.
    pub failed: Vec<String>,
    /// The longest time that an operation took.
    pub longest_us: u64,
}

impl Load {
    /// One client at each node, which knows only that node, and one that knows all.
    pub fn new(script: &mut Script, seed: u64) -> Self {
        let nodes = script.cluster.nodes.len();
        let mut loopers = Vec::new();
        for node in (0..nodes).map(Some).chain([None]) {
            loopers.push(Looper {
                client: match node {
                    Some(node) => script.client_of(&[node]),
                    None => script.client(),
                },
                node,
                call: None,
                think_until_us: 0,
            });
        }
        Load {
            loopers,
            random: Random::stream(seed, 77),
            count: 0,
            deadline_us: 5_000_000,
        }
    }

    /// From now on only the clients that are tied to these nodes run operations.
    pub fn keep(&mut self, nodes: &[usize]) {
        self.loopers
            .retain(|looper| looper.node.is_some_and(|node| nodes.contains(&node)));
    }

    /// Continues for `ms`.
    pub fn run_ms(&mut self, script: &mut Script, ms: u64) {
        let until_us = script.now_us + ms * 1_000;
        while script.now_us < until_us {
            self.begin_next(script);
            // Each client checks again after a short time.
            let step_us = (script.now_us + 2_000).min(until_us);
            while script.cluster.step(step_us) {}
            script.cluster.due.clear();
        }
    }

    fn begin_next(&mut self, script: &mut Script) {
        for at in 0..self.loopers.len() {
            let looper = &self.loopers[at];
            let open = looper.call.is_some_and(|call| script.is_open(call));
            if open || script.now_us < looper.think_until_us {
                continue;
            }
            let key = format!("key{}", self.random.below(KEYS));
            self.count += 1;
            let action = match self.random.below(4) {
                0 => Action::Get,
                1 => put(&format!("+{};", self.count)),
                _ => append(&format!("+{};", self.count)),
            };
            let client = self.loopers[at].client;
            let call = script
                .cluster
                .begin(client, &key.into(), action, false, self.deadline_us);
            self.loopers[at].call = Some(call);
            self.loopers[at].think_until_us = script.now_us + self.random.between(2_000, 20_000);
        }
    }

    /// Waits for the operations in progress, which end at their deadline at the latest.
    pub fn finish(&mut self, script: &mut Script) {
        for looper in &self.loopers {
            if let Some(call) = looper.call {
                script.until("an operation to end", |c| c.calls[call].ended.is_some());
            }
        }
    }

    /// Operations by clients of these nodes, called between `from_us` and `to_us`.
    pub fn tally(&self, script: &Script, nodes: &[usize], from_us: u64, to_us: u64) -> Tally {
        let mut tally = Tally::default();
        let asked = self
            .loopers
            .iter()
            .filter(|looper| looper.node.is_some_and(|node| nodes.contains(&node)));
        let clients: Vec<usize> = asked.map(|looper| looper.client).collect();
        for call in &script.calls {
            if !clients.contains(&call.client) || !(from_us..to_us).contains(&call.called_us) {
                continue;
            }
            let ended_us = call.ended_us.unwrap_or(script.now_us);
            tally.longest_us = tally.longest_us.max(ended_us - call.called_us);
            match &call.ending {
                Ending::Answered(Outcome::NoQuorum { .. }) => tally.no_quorum += 1,
                Ending::Answered(Outcome::Unknown | Outcome::Busy { .. }) | Ending::TimedOut => {
                    tally.failed.push(call.to_string());
                }
                Ending::Answered(_) => tally.done += 1,
                Ending::Open => tally.failed.push(call.to_string()),
            }
        }
        tally
    }
}
