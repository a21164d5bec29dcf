//! Directed graphs of links between nodes.

use crate::sim::network::Place;
use crate::sim::random::Random;
use crate::sim::script::Script;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Graph {
    pub nodes: usize,
    /// Which links remain; each direction is separate.
    links: Vec<bool>,
}

impl Graph {
    fn empty(nodes: usize) -> Self {
        Graph {
            nodes,
            links: vec![false; nodes * nodes],
        }
    }

    pub fn full(nodes: usize) -> Self {
        Graph {
            nodes,
            links: vec![true; nodes * nodes],
        }
    }

    /// Links in both directions between these pairs.
    pub fn of(nodes: usize, pairs: &[(usize, usize)]) -> Self {
        let mut graph = Graph::empty(nodes);
        for (a, b) in pairs {
            graph.set(*a, *b, true);
            graph.set(*b, *a, true);
        }
        graph
    }

    pub fn chain(order: &[usize]) -> Self {
        let pairs: Vec<_> = order.windows(2).map(|w| (w[0], w[1])).collect();
        Graph::of(order.len(), &pairs)
    }

    pub fn set(&mut self, from: usize, to: usize, there: bool) {
        self.links[from * self.nodes + to] = there;
    }

    pub fn has(&self, from: usize, to: usize) -> bool {
        self.links[from * self.nodes + to]
    }

    /// All graphs of this many nodes with links in both directions.
    pub fn all(nodes: usize) -> impl Iterator<Item = Graph> {
        let pairs: Vec<(usize, usize)> = (0..nodes)
            .flat_map(|a| (a + 1..nodes).map(move |b| (a, b)))
            .collect();
        (0..1u32 << pairs.len()).map(move |bits| {
            let there = (0..pairs.len()).filter(|at| bits >> at & 1 == 1);
            let left: Vec<_> = there.map(|at| pairs[at]).collect();
            Graph::of(nodes, &left)
        })
    }

    /// Links that remain at random, each direction independently.
    pub fn random(nodes: usize, random: &mut Random) -> Self {
        let mut graph = Graph::full(nodes);
        let lost_per_mille = *random.pick(&[150, 300, 450]);
        for from in 0..nodes {
            for to in 0..nodes {
                if random.chance(lost_per_mille) {
                    graph.set(from, to, false);
                }
            }
        }
        graph
    }

    /// The nodes to which there is a path from `node`.
    fn reached(&self, node: usize) -> Vec<usize> {
        let mut reached = vec![node];
        let mut at = 0;
        while let Some(from) = reached.get(at).copied() {
            at += 1;
            for to in 0..self.nodes {
                if self.has(from, to) && !reached.contains(&to) {
                    reached.push(to);
                }
            }
        }
        reached
    }

    /// The nodes to which there is a path from `node` and back.
    pub fn component(&self, node: usize) -> Vec<usize> {
        let there = self.reached(node).into_iter();
        let mut both: Vec<usize> = there.filter(|n| self.reached(*n).contains(&node)).collect();
        both.sort_unstable();
        both
    }

    pub fn is_connected(&self) -> bool {
        self.component(0).len() == self.nodes
    }

    /// Q1: more than half, or half with the master, which is node 0.
    pub fn has_quorum(&self, node: usize) -> bool {
        let component = self.component(node);
        let twice = 2 * component.len();
        twice > self.nodes || (twice == self.nodes && component.contains(&0))
    }

    /// Cuts the links that do not remain.
    pub fn cut(&self, script: &mut Script) {
        let mut ways = Vec::new();
        for from in 0..self.nodes {
            for to in (0..self.nodes).filter(|to| *to != from) {
                if !self.has(from, to) {
                    ways.push((Place::Node(from), Place::Node(to)));
                }
            }
        }
        script.cluster.network.cut(&ways);
    }
}

#[test]
fn graphs_are_counted_right() {
    // Labelled connected graphs: OEIS A001187.
    assert_eq!(Graph::all(4).filter(Graph::is_connected).count(), 38);
    assert_eq!(Graph::all(5).filter(Graph::is_connected).count(), 728);
    let chain = Graph::chain(&[2, 0, 1, 3]);
    assert!(chain.is_connected() && chain.has(2, 0) && !chain.has(2, 1));
}
