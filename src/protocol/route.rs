//! Ways through a half-broken network: what all nodes tell of their links, the paths that follow, the
//! next hop to each node. Knows nothing of quorums.
//!
//! Every node measures the links towards itself and tells the others its row; rows of nodes that a
//! neighbour does not hear travel with this node's own. A directed link works if the row of the node
//! at its end says so.

use std::collections::BTreeMap;

use kvclient::wire::{LinkStatus, RouteStatus};

use super::limits::ROW_STALE_MS;
use super::link::Link;
use super::message::{Heartbeat, Incarnation, LinkTold, NodeId, Now, Row};

/// What another node told of itself and its links.
#[derive(Debug, Clone)]
struct Told {
    row: Row,
    came_us: u64,
    /// Its wall clock less this node's monotonic clock, in milliseconds.
    wall_offset_ms: i64,
}

/// The best path to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Path {
    hops: u8,
    rtt_us: u32,
    /// The first node on it; the node itself if it is a neighbour.
    next: NodeId,
    /// The last node before it, this one for a neighbour.
    before: NodeId,
}

/// How good a link must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Grade {
    Up,
    /// On probation will do.
    Heard,
}

/// The links of a cluster as one node knows them.
#[derive(Debug)]
pub struct Links {
    me: NodeId,
    down_after_us: u64,
    /// The other nodes of the configuration, in order; there is a link from each of them.
    others: BTreeMap<NodeId, Link>,
    told: BTreeMap<NodeId, Told>,
    paths: BTreeMap<NodeId, Path>,
    /// The nodes that reach this one over any path.
    back: Vec<NodeId>,
    /// Whether this node's view changed since the others were told.
    news: bool,
}

impl Links {
    pub fn new(down_after_ms: u64) -> Self {
        Links {
            me: 0,
            down_after_us: down_after_ms * 1_000,
            others: BTreeMap::new(),
            told: BTreeMap::new(),
            paths: BTreeMap::new(),
            back: Vec::new(),
            news: false,
        }
    }

    /// The nodes of the configuration; what is known of those that stay is kept.
    pub fn set_nodes(&mut self, me: NodeId, nodes: impl Iterator<Item = NodeId>) {
        self.me = me;
        let mut known = std::mem::take(&mut self.others);
        for node in nodes.filter(|node| *node != me) {
            let link = known.remove(&node);
            let link = link.unwrap_or_else(|| Link::new(self.down_after_us));
            self.others.insert(node, link);
        }
        self.told.retain(|node, _| self.others.contains_key(node));
        self.find_paths();
    }

    /// A datagram came from that neighbour.
    pub fn heard(&mut self, neighbour: NodeId, now: Now) {
        if let Some(link) = self.others.get_mut(&neighbour) {
            let was_heard = link.is_heard();
            link.heard(now.mono_us, self.down_after_us);
            if link.is_heard() != was_heard {
                self.news = true;
                self.find_paths();
            }
        }
    }

    /// A heartbeat came from that neighbour, with its row and perhaps those of others.
    pub fn heartbeat(&mut self, neighbour: NodeId, heartbeat: Heartbeat, now: Now) {
        let Heartbeat { number, echo, rows } = heartbeat;
        let boot = rows.iter().find(|row| row.node == neighbour);
        if let (Some(link), Some(row)) = (self.others.get_mut(&neighbour), boot) {
            link.heartbeat(row.boot, number, echo, now.mono_us);
        }
        let mut changed = false;
        for row in rows {
            changed |= self.take_row(row, now);
        }
        if changed {
            self.news = true;
            self.find_paths();
        }
    }

    /// Whether the row says anything new about which links work.
    fn take_row(&mut self, row: Row, now: Now) -> bool {
        if !self.others.contains_key(&row.node) {
            return false;
        }
        let known = self.told.get(&row.node);
        if known.is_some_and(|told| told.row.clock >= row.clock) {
            return false;
        }
        let working = |row: &Row| -> Vec<(NodeId, bool, bool)> {
            let links = row.links.iter();
            links.map(|link| (link.from, link.up, link.heard)).collect()
        };
        let changed = known.is_none_or(|told| working(&told.row) != working(&row));
        let told = Told {
            wall_offset_ms: row.wall_ms as i64 - (now.mono_us / 1_000) as i64,
            came_us: now.mono_us,
            row,
        };
        self.told.insert(told.row.node, told);
        changed
    }

    /// Looks at the time. Whether anything changed.
    pub fn look(&mut self, now: Now) -> bool {
        let mut changed = false;
        for link in self.others.values_mut() {
            changed |= link.look(now.mono_us, self.down_after_us);
        }
        let stale_us = now.mono_us.saturating_sub(ROW_STALE_MS * 1_000);
        let before = self.told.len();
        self.told.retain(|_, told| told.came_us >= stale_us);
        changed |= self.told.len() != before;
        if changed {
            self.news = true;
            self.find_paths();
        }
        changed
    }

    /// Whether there is something that the others should be told before the next heartbeat.
    pub fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.news)
    }

    /// The heartbeat for a neighbour: this node's row, with the links filled in here, and the rows of
    /// those whom the neighbour does not hear itself.
    pub fn beat(&mut self, neighbour: NodeId, mut own: Row, now: Now) -> Option<Heartbeat> {
        let (number, echo) = self.others.get_mut(&neighbour)?.beat(now.mono_us);
        let links = self.others.iter();
        own.links = links.filter_map(|(node, link)| link.told(*node)).collect();
        let mut rows = vec![own];
        if let Some(theirs) = self.told.get(&neighbour) {
            let unheard = |told: &&Told| {
                let node = told.row.node;
                node != neighbour && !hears(&theirs.row, node, Grade::Up)
            };
            rows.extend(self.told.values().filter(unheard).map(|t| t.row.clone()));
        }
        Some(Heartbeat { number, echo, rows })
    }

    /// Where a message to that node goes next: to itself, where no path is known.
    pub fn next_hop(&self, node: NodeId) -> NodeId {
        self.paths.get(&node).map_or(node, |path| path.next)
    }

    /// Links on the way to a node; `None` where no path is known.
    pub fn hops(&self, node: NodeId) -> Option<u8> {
        self.paths.get(&node).map(|path| path.hops)
    }

    /// Whether this node reaches that one and is reached by it.
    pub fn is_joined(&self, node: NodeId) -> bool {
        node == self.me || (self.paths.contains_key(&node) && self.back.contains(&node))
    }

    /// Where a message that another node sent goes next. `None` if it would go back or round in
    /// circles: what is left of its hops must do for the path that this node knows.
    pub fn relay(&self, via: NodeId, origin: NodeId, to: NodeId, hops_left: u8) -> Option<NodeId> {
        let path = self.paths.get(&to)?;
        let back = path.next == via || path.next == origin || origin == self.me;
        (!back && hops_left >= path.hops).then_some(path.next)
    }

    /// Another way to a node than the usual one: a neighbour that has a path which does not lead
    /// through this node, with how many links it has in all. A different one at each `turn`.
    pub fn detour(&self, to: NodeId, turn: u32) -> Option<(NodeId, u8)> {
        let usual = self.next_hop(to);
        let mut ways = Vec::new();
        for node in self.others.keys() {
            if *node == usual || *node == to || !self.works(self.me, *node, Grade::Heard) {
                continue;
            }
            let paths = self.search(*node, Some(self.me), Grade::Heard);
            if let Some(path) = paths.get(&to) {
                ways.push((*node, path.hops + 1));
            }
        }
        let turn = (turn as usize).checked_rem(ways.len())?;
        Some(ways[turn])
    }

    pub fn boot(&self, node: NodeId, incarnation: Incarnation) -> Option<u64> {
        self.row(node, incarnation).map(|told| told.row.boot)
    }

    /// What a node's wall clock shows now, by its last row.
    pub fn wall_ms(&self, node: NodeId, incarnation: Incarnation, now: Now) -> Option<u64> {
        let offset = self.row(node, incarnation)?.wall_offset_ms;
        (now.mono_us / 1_000).checked_add_signed(offset)
    }

    /// Whether that node is there in that incarnation.
    pub fn is_incarnation(&self, node: NodeId, incarnation: Incarnation) -> bool {
        self.row(node, incarnation).is_some()
    }

    fn row(&self, node: NodeId, incarnation: Incarnation) -> Option<&Told> {
        let told = self.told.get(&node);
        told.filter(|told| told.row.incarnation == incarnation)
    }

    /// For people: every directed link that is known.
    pub fn status(&self) -> Vec<LinkStatus> {
        let show = |to: NodeId, link: &LinkTold| LinkStatus {
            from: link.from,
            to,
            up: link.up,
            rtt_us: link.rtt_us,
            loss_permille: link.loss_permille,
        };
        let own = self.others.iter();
        let own = own.filter_map(|(node, link)| Some(show(self.me, &link.told(*node)?)));
        let rows = self.told.values();
        let rows = rows.flat_map(|t| t.row.links.iter().map(move |link| show(t.row.node, link)));
        let mut all: Vec<LinkStatus> = own.chain(rows).collect();
        all.sort_by_key(|link| (link.from, link.to));
        all
    }

    pub fn routes(&self) -> Vec<RouteStatus> {
        let others = self.others.keys();
        let route = |to: &NodeId| {
            let mut through = Vec::new();
            let mut at = *to;
            while let Some(path) = self.paths.get(&at).filter(|path| path.before != self.me) {
                through.insert(0, path.before);
                at = path.before;
            }
            RouteStatus {
                to: *to,
                through,
                works: self.paths.contains_key(to),
            }
        };
        others.map(route).collect()
    }

    /// Whether the link from one node to another works, by what the one at its end says.
    fn works(&self, from: NodeId, to: NodeId, grade: Grade) -> bool {
        if to == self.me {
            let link = self.others.get(&from);
            return link.is_some_and(|link| match grade {
                Grade::Up => link.is_up(),
                Grade::Heard => link.is_heard(),
            });
        }
        let told = self.told.get(&to);
        told.is_some_and(|told| hears(&told.row, from, grade))
    }

    fn rtt_us(&self, from: NodeId, to: NodeId) -> u32 {
        let told = |row: &Row| row.links.iter().find(|link| link.from == from).cloned();
        let link = match to == self.me {
            true => self.others.get(&from).and_then(|link| link.told(from)),
            false => self.told.get(&to).and_then(|t| told(&t.row)),
        };
        link.map_or(0, |link| link.rtt_us)
    }

    fn find_paths(&mut self) {
        self.paths = self.search(self.me, None, Grade::Up);
        // Links on probation are for those that have no others.
        for (node, path) in self.search(self.me, None, Grade::Heard) {
            self.paths.entry(node).or_insert(path);
        }
        // Backwards: who reaches this node. In order of finding.
        let mut back = vec![self.me];
        let mut at = 0;
        while let Some(to) = back.get(at).copied() {
            at += 1;
            for from in self.others.keys() {
                if !back.contains(from) && self.works(*from, to, Grade::Heard) {
                    back.push(*from);
                }
            }
        }
        self.back = back;
    }

    /// The best paths from a node to all that can be reached from it: the fewest links, then the
    /// least time, then the lowest ids. They do not lead through `without`.
    fn search(
        &self,
        start: NodeId,
        without: Option<NodeId>,
        grade: Grade,
    ) -> BTreeMap<NodeId, Path> {
        let mut paths: BTreeMap<NodeId, Path> = BTreeMap::new();
        let mut ring = vec![start];
        while !ring.is_empty() {
            let mut found: BTreeMap<NodeId, Path> = BTreeMap::new();
            for at in ring {
                let so_far = paths.get(&at).copied();
                for to in self.others.keys().chain([&self.me]).copied() {
                    let is_new = to != start && !paths.contains_key(&to) && Some(to) != without;
                    if !is_new || !self.works(at, to, grade) {
                        continue;
                    }
                    let path = Path {
                        hops: so_far.map_or(1, |path| path.hops + 1),
                        rtt_us: so_far
                            .map_or(0, |path| path.rtt_us)
                            .saturating_add(self.rtt_us(at, to)),
                        next: so_far.map_or(to, |path| path.next),
                        before: at,
                    };
                    let best = found.entry(to).or_insert(path);
                    if (path.rtt_us, path.before) < (best.rtt_us, best.before) {
                        *best = path;
                    }
                }
            }
            ring = found.keys().copied().collect();
            paths.extend(found);
        }
        paths
    }
}

fn hears(row: &Row, from: NodeId, grade: Grade) -> bool {
    let link = row.links.iter().find(|link| link.from == from);
    link.is_some_and(|link| match grade {
        Grade::Up => link.up,
        Grade::Heard => link.heard,
    })
}
