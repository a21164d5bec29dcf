//! Paths through a partly broken network: the rows of all nodes, the paths that follow from them,
//! and the next hop to each node. This module knows nothing of quorums.
//!
//! Every node measures the links towards itself and sends its row to the others. A heartbeat also
//! relays the rows of nodes from which the neighbour does not receive directly. A directed link
//! works if the row of the node at its end says so.

mod measured;
mod status;

use std::collections::BTreeMap;

use wire::Full;
use wire::clock::Reading;

use crate::protocol::network::freshness::RowFreshness;
use crate::protocol::network::link::Link;
use crate::protocol::types::message::{Heartbeat, Incarnation, NodeId, Now, Row};
use crate::protocol::types::timings::Timings;

/// The row of another node, as this node received it.
#[derive(Debug, Clone)]
struct KnownRow {
    row: Row,
    came_us: u64,
    /// The node's wall clock minus this node's monotonic clock, in milliseconds.
    wall_offset_ms: i64,
    /// The row was relayed, and its clock was over the clock bound (B5).
    doubted: bool,
}

impl KnownRow {
    fn new(row: Row, now: Now) -> Self {
        KnownRow {
            wall_offset_ms: row.wall_ms as i64 - (now.mono_us / 1_000) as i64,
            came_us: now.mono_us,
            doubted: false,
            row,
        }
    }

    /// What the node's wall clock shows now, and the hybrid clock in its row.
    fn clocks(&self, now: Now) -> Option<(u64, Reading)> {
        let wall_ms = (now.mono_us / 1_000).checked_add_signed(self.wall_offset_ms)?;
        Some((wall_ms, self.row.clock))
    }
}

/// The best path to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Path {
    hops: u8,
    rtt_us: u32,
    /// The first node on it; the node itself if it is a neighbour.
    next: NodeId,
    /// The last node before it; this node for a neighbour.
    before: NodeId,
}

/// The required quality of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Grade {
    Up,
    /// A link on probation is sufficient.
    Heard,
}

/// The links of a cluster as one node knows them.
#[derive(Debug)]
pub struct Links {
    me: NodeId,
    timings: Timings,
    /// The other nodes of the configuration, in order, each with the link from it.
    others: BTreeMap<NodeId, Link>,
    /// The latest row of each node, over any path.
    reported: BTreeMap<NodeId, KnownRow>,
    /// The latest row that arrived in the node's own heartbeat.
    direct_rows: BTreeMap<NodeId, KnownRow>,
    /// Decides which relayed rows are new.
    fresh: RowFreshness,
    paths: BTreeMap<NodeId, Path>,
    /// The nodes that reach this one over any path.
    back: Vec<NodeId>,
    /// Whether this node's view changed since it was last announced.
    news: bool,
}

impl Links {
    pub fn new(timings: Timings) -> Self {
        Links {
            me: 0,
            timings,
            others: BTreeMap::new(),
            reported: BTreeMap::new(),
            direct_rows: BTreeMap::new(),
            fresh: RowFreshness::default(),
            paths: BTreeMap::new(),
            back: Vec::new(),
            news: false,
        }
    }

    /// Sets the nodes of the configuration. What is known of nodes that stay is kept.
    pub fn set_nodes(&mut self, me: NodeId, nodes: impl Iterator<Item = NodeId>) {
        self.me = me;
        let mut known = std::mem::take(&mut self.others);
        for node in nodes.filter(|node| *node != me) {
            let link = known.remove(&node);
            let link = link.unwrap_or_else(|| Link::new(&self.timings));
            self.others.insert(node, link);
        }
        for reported in [&mut self.reported, &mut self.direct_rows] {
            reported.retain(|node, _| self.others.contains_key(node));
        }
        self.find_paths();
    }

    /// A datagram arrived from that neighbour.
    pub fn heard(&mut self, neighbour: NodeId, now: Now) {
        if let Some(link) = self.others.get_mut(&neighbour) {
            let was_heard = link.is_heard();
            link.heard(now.mono_us, &self.timings);
            if link.is_heard() != was_heard {
                self.news = true;
                self.find_paths();
            }
        }
    }

    /// A heartbeat arrived from that neighbour, with its row and perhaps the rows of others. A
    /// relayed row whose clock is over the bound does not count if its node is received from
    /// directly.
    pub fn heartbeat(
        &mut self,
        neighbour: NodeId,
        heartbeat: Heartbeat,
        now: Now,
        is_believable: impl Fn(&Row) -> bool,
    ) {
        let Heartbeat { number, echo, rows } = heartbeat;
        let boot = rows.iter().find(|row| row.node == neighbour);
        if let (Some(link), Some(row)) = (self.others.get_mut(&neighbour), boot) {
            link.heartbeat(row.boot, number, echo, now.mono_us);
        }
        let mut changed = false;
        for row in rows {
            let straight = row.node == neighbour;
            let mut reported = KnownRow::new(row, now);
            reported.doubted = !straight && !is_believable(&reported.row);
            if straight {
                self.note_direct(&reported);
            }
            changed |= self.take(reported, straight);
        }
        if changed {
            self.news = true;
            self.find_paths();
        }
    }

    fn note_direct(&mut self, reported: &KnownRow) {
        let node = reported.row.node;
        let known = self.direct_rows.get(&node);
        let is_newer = known.is_none_or(|known| known.row.clock < reported.row.clock);
        if is_newer && self.others.contains_key(&node) {
            self.direct_rows.insert(node, reported.clone());
        }
    }

    /// Stores the row if it is newer. Returns whether it changes which links work.
    fn take(&mut self, reported: KnownRow, straight: bool) -> bool {
        let node = reported.row.node;
        if !self.others.contains_key(&node) || (reported.doubted && self.is_heard_directly(node)) {
            return false;
        }
        if !straight
            && !self
                .fresh
                .hear(&reported.row, reported.doubted, reported.came_us)
        {
            return false;
        }
        let known = self.reported.get(&node);
        let is_older = known.is_some_and(|known| known.row.clock >= reported.row.clock);
        if is_older && !(straight && known.is_some_and(|known| known.doubted)) {
            return false;
        }
        if straight {
            self.fresh.hear_direct(&reported.row, reported.came_us);
        }
        let working = |row: &Row| -> Vec<(NodeId, bool, bool)> {
            let links = row.links.iter();
            links.map(|link| (link.from, link.up, link.heard)).collect()
        };
        let changed = known.is_none_or(|known| working(&known.row) != working(&reported.row));
        self.reported.insert(node, reported);
        changed
    }

    fn is_heard_directly(&self, node: NodeId) -> bool {
        let link = self.others.get(&node);
        link.is_some_and(Link::is_heard) && self.direct_rows.contains_key(&node)
    }

    /// Updates the links and expires rows. Returns whether anything changed.
    pub fn look(&mut self, now: Now) -> bool {
        let mut changed = false;
        for link in self.others.values_mut() {
            changed |= link.look(now.mono_us, &self.timings);
        }
        let stale_us = self.stale_us(now);
        let before = self.reported.len();
        self.reported
            .retain(|_, reported| reported.came_us >= stale_us);
        self.direct_rows
            .retain(|_, reported| reported.came_us >= stale_us);
        let gone_us = now.mono_us.saturating_sub(self.timings.row_gone_ms * 1_000);
        let others = &self.others;
        self.fresh
            .forget(|node| others.contains_key(&node), gone_us);
        changed |= self.reported.len() != before;
        if changed {
            self.news = true;
            self.find_paths();
        }
        changed
    }

    /// Rows that arrived before this time have expired.
    fn stale_us(&self, now: Now) -> u64 {
        let stale_us = self.timings.row_stale_ms * 1_000;
        now.mono_us.saturating_sub(stale_us)
    }

    pub fn has_news(&self) -> bool {
        self.news
    }

    /// There is something to announce that other nodes wait for.
    pub fn make_news(&mut self) {
        self.news = true;
    }

    /// Whether there is something to announce before the next heartbeat.
    pub fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.news)
    }

    /// The heartbeat for a neighbour: this node's row, with its links filled in here, and the rows
    /// of the nodes from which the neighbour does not receive directly, or may not. Where links
    /// work in one direction only, a node learns of its outgoing links only through other nodes.
    pub fn beat(&mut self, neighbour: NodeId, mut own: Row, now: Now) -> Option<Heartbeat> {
        let (number, echo) = self.others.get_mut(&neighbour)?.beat(now.mono_us);
        let links = self.others.iter();
        own.links = links
            .filter_map(|(node, link)| link.reported(*node))
            .collect();
        let mut rows = vec![own];
        let theirs = self.reported.get(&neighbour);
        let theirs =
            theirs.filter(|reported| now.mono_us < reported.came_us + self.timings.link_down_us());
        let stale_us = self.stale_us(now);
        let unheard = |reported: &&KnownRow| {
            let node = reported.row.node;
            let heard = theirs.is_some_and(|theirs| hears(&theirs.row, node, Grade::Up));
            node != neighbour && !heard && reported.came_us >= stale_us
        };
        rows.extend(
            self.reported
                .values()
                .filter(unheard)
                .map(|t| t.row.clone()),
        );
        Some(Heartbeat { number, echo, rows })
    }

    /// The next hop of a message to that node: the node itself if no path is known.
    pub fn next_hop(&self, node: NodeId) -> NodeId {
        self.paths.get(&node).map_or(node, |path| path.next)
    }

    /// The number of links on the path to a node; `None` if no path is known.
    pub fn hops(&self, node: NodeId) -> Option<u8> {
        self.paths.get(&node).map(|path| path.hops)
    }

    /// Whether the node is reachable: there is a path to it and one back.
    pub fn is_joined(&self, node: NodeId) -> bool {
        node == self.me || (self.paths.contains_key(&node) && self.back.contains(&node))
    }

    /// The next hop of a message that another node sent, and the hops it has left after this relay.
    /// `None` if it would go back, or has fewer hops left than this node's path. This node leaves
    /// it no more hops than its path has, so it would not relay the message a second time.
    pub fn relay(
        &self,
        via: NodeId,
        origin: NodeId,
        to: NodeId,
        hops_left: u8,
    ) -> Option<(NodeId, u8)> {
        let path = self.paths.get(&to)?;
        let back = path.next == via || path.next == origin || origin == self.me;
        let is_relayed = !back && hops_left >= path.hops;
        is_relayed.then(|| (path.next, path.hops.min(hops_left - 1)))
    }

    /// An alternative path to a node: a neighbour with a path to it that does not lead through this
    /// node, and the number of links in all. It is a different one at each `turn`.
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
        self.row(node, incarnation)
            .map(|reported| reported.row.boot)
    }

    /// The hybrid clock in the node's latest row; 0 without a row.
    pub fn clock(&self, node: NodeId) -> Reading {
        self.reported
            .get(&node)
            .map_or(0, |reported| reported.row.clock)
    }

    /// What a node's wall clock shows now, by the last row that arrived in its own heartbeat, and
    /// the hybrid clock in that row.
    pub fn straight_clocks(
        &self,
        node: NodeId,
        incarnation: Incarnation,
        now: Now,
    ) -> Option<(u64, Reading)> {
        let reported = self.direct_rows.get(&node);
        reported
            .filter(|reported| reported.row.incarnation == incarnation)?
            .clocks(now)
    }

    /// The same, by the latest row over any path.
    pub fn clocks(
        &self,
        node: NodeId,
        incarnation: Incarnation,
        now: Now,
    ) -> Option<(u64, Reading)> {
        self.row(node, incarnation)?.clocks(now)
    }

    /// X6: the space that the node lacks.
    pub fn full(&self, node: NodeId, incarnation: Incarnation) -> Option<Full> {
        Full::of_code(self.row(node, incarnation)?.row.full.into())
    }

    /// Whether the node's row is known and is of that incarnation.
    pub fn is_incarnation(&self, node: NodeId, incarnation: Incarnation) -> bool {
        self.row(node, incarnation).is_some()
    }

    /// Whether the node's latest row, of whatever incarnation, confirms that boot of another node
    /// (E1).
    pub fn has_seen_by_now(&self, node: NodeId, boot: (NodeId, u64)) -> bool {
        let reported = self.reported.get(&node);
        reported.is_some_and(|reported| reported.row.seen.contains(&boot))
    }

    /// Whether the node's latest row is of the given incarnation and confirms that boot of another
    /// node (E1).
    pub fn has_seen(&self, node: NodeId, incarnation: Incarnation, boot: (NodeId, u64)) -> bool {
        let reported = self.row(node, incarnation);
        reported.is_some_and(|reported| reported.row.seen.contains(&boot))
    }

    /// How long the node's oldest write to its disk has been in progress, by its latest row.
    pub fn unsynced_ms(&self, node: NodeId) -> u32 {
        self.reported
            .get(&node)
            .map_or(0, |reported| reported.row.unsynced_ms)
    }

    /// The incarnation in the node's latest row.
    pub fn incarnation(&self, node: NodeId) -> Option<Incarnation> {
        self.reported
            .get(&node)
            .map(|reported| reported.row.incarnation)
    }

    fn row(&self, node: NodeId, incarnation: Incarnation) -> Option<&KnownRow> {
        let reported = self.reported.get(&node);
        reported.filter(|reported| reported.row.incarnation == incarnation)
    }

    /// Whether the link from one node to another works, according to the node at its end.
    fn works(&self, from: NodeId, to: NodeId, grade: Grade) -> bool {
        if to == self.me {
            let link = self.others.get(&from);
            return link.is_some_and(|link| match grade {
                Grade::Up => link.is_up(),
                Grade::Heard => link.is_heard(),
            });
        }
        let reported = self.reported.get(&to);
        reported.is_some_and(|reported| hears(&reported.row, from, grade))
    }

    fn rtt_us(&self, from: NodeId, to: NodeId) -> u32 {
        let reported = |row: &Row| row.links.iter().find(|link| link.from == from).cloned();
        let link = match to == self.me {
            true => self.others.get(&from).and_then(|link| link.reported(from)),
            false => self.reported.get(&to).and_then(|t| reported(&t.row)),
        };
        link.map_or(0, |link| link.rtt_us)
    }

    fn find_paths(&mut self) {
        self.paths = self.search(self.me, None, Grade::Up);
        // Links on probation are used only for nodes without another path.
        for (node, path) in self.search(self.me, None, Grade::Heard) {
            self.paths.entry(node).or_insert(path);
        }
        // Backwards, the nodes that reach this one, in the order in which they are found.
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

    /// The best paths from a node to all nodes that it reaches: fewest links first, then the
    /// shortest time, then the lowest ids. They do not lead through `without`.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::types::message::ReportedLink;
    use proptest::prelude::*;

    const NODES: NodeId = 5;

    pub(super) fn at(mono_ms: u64) -> Now {
        Now {
            mono_us: mono_ms * 1_000,
            wall_ms: 1_000_000 + mono_ms,
        }
    }

    pub(super) fn row(node: NodeId, hears: &[NodeId], clock: u64) -> Row {
        let link = |from: &NodeId| ReportedLink {
            from: *from,
            up: true,
            heard: true,
            rtt_us: 100,
            loss_permille: 0,
        };
        Row {
            node,
            incarnation: u64::from(node),
            boot: u64::from(node) + 10,
            starts: 1,
            found: 0,
            synced: 0,
            clock,
            wall_ms: 2_000_000,
            unsynced_ms: 0,
            seen: Vec::new(),
            full: 0,
            links: hears.iter().map(link).collect(),
        }
    }

    pub(super) fn beat(rows: Vec<Row>) -> Heartbeat {
        Heartbeat {
            number: 1,
            echo: None,
            rows,
        }
    }

    /// The view of node `me` when each of these links, as (from, to), works.
    pub(super) fn view(me: NodeId, links: &[(NodeId, NodeId)]) -> Links {
        let mut view = Links::new(Timings::new(50, 200, 0));
        view.set_nodes(me, 1..=NODES);
        let mut rows = Vec::new();
        for node in 1..=NODES {
            let to = links.iter().filter(|(_, to)| *to == node);
            let from: Vec<NodeId> = to.map(|(from, _)| *from).collect();
            if node == me {
                from.iter().for_each(|from| view.heard(*from, at(100)));
            } else {
                rows.push(row(node, &from, 1));
            }
        }
        view.heartbeat(rows[0].node, beat(rows), at(100), |_| true);
        view
    }

    pub(super) fn both(pairs: &[(NodeId, NodeId)]) -> Vec<(NodeId, NodeId)> {
        pairs
            .iter()
            .flat_map(|(a, b)| [(*a, *b), (*b, *a)])
            .collect()
    }

    #[test]
    fn paths_are_the_shortest_and_go_both_ways() {
        let view = view(1, &both(&[(1, 2), (2, 3), (3, 4)]));
        assert_eq!((view.next_hop(4), view.hops(4)), (2, Some(3)));
        assert!(view.is_joined(4) && !view.is_joined(5));
        let routes = view.routes();
        assert_eq!((routes[2].to, routes[2].through.clone()), (4, vec![2, 3]));
        assert!(
            !routes[3].works && view.next_hop(5) == 5,
            "tried all the same"
        );
    }

    #[test]
    fn a_link_of_one_way_is_used_that_way() {
        let mut links = both(&[(2, 3), (1, 2)]);
        links.push((1, 3));
        let there = view(1, &links);
        assert_eq!((there.next_hop(3), there.hops(3)), (3, Some(1)));
        let back = view(3, &links);
        assert_eq!((back.next_hop(1), back.hops(1)), (2, Some(2)));
        assert!(there.is_joined(3));
        assert!(!view(1, &[(1, 2)]).is_joined(2), "nothing comes back");
    }

    #[test]
    fn a_detour_is_another_way_and_changes_with_each_turn() {
        let full: Vec<_> = (1..=NODES)
            .flat_map(|a| (1..=NODES).filter(move |b| *b != a).map(move |b| (a, b)))
            .collect();
        let view = view(1, &full);
        let ways: Vec<_> = (0..4).map(|turn| view.detour(2, turn)).collect();
        assert_eq!(
            ways,
            [Some((3, 2)), Some((4, 2)), Some((5, 2)), Some((3, 2))]
        );
        let chain = super::tests::view(1, &both(&[(1, 2), (2, 3)]));
        assert_eq!(chain.detour(3, 0), None);
    }

    #[test]
    fn old_rows_and_rows_of_strangers_change_nothing() {
        let mut view = view(1, &both(&[(1, 2), (2, 3)]));
        let rows = vec![row(2, &[], 1), row(9, &[1], 5)];
        view.heartbeat(2, beat(rows), at(110), |_| true);
        assert_eq!(view.hops(3), Some(2));
        view.heartbeat(2, beat(vec![row(2, &[1], 2)]), at(110), |_| true);
        assert!(view.hops(3).is_some(), "2 to 3 works by what 3 says");
        assert!(!view.is_joined(3), "3 to 2 does not, by what 2 says");
        assert_eq!(view.boot(2, 2), Some(12));
        assert_eq!(view.clocks(2, 2, at(210)), Some((2_000_100, 2)));
    }

    #[test]
    fn rows_are_passed_on_to_whom_may_not_hear_them() {
        let mut view = view(2, &both(&[(1, 2), (2, 3)]));
        let nodes = |heartbeat: Option<Heartbeat>| -> Vec<NodeId> {
            heartbeat.unwrap().rows.iter().map(|row| row.node).collect()
        };
        let own = row(2, &[], 3);
        assert_eq!(nodes(view.beat(3, own.clone(), at(120))), [2, 1, 4, 5]);
        view.heartbeat(3, beat(vec![row(3, &[1, 2], 4)]), at(120), |_| true);
        assert_eq!(nodes(view.beat(3, own.clone(), at(130))), [2, 4, 5]);
        // An old row of the neighbour does not show any more from which nodes it receives.
        assert_eq!(nodes(view.beat(3, own, at(330))), [2, 1, 4, 5]);
    }

    #[test]
    fn what_is_not_told_again_is_forgotten() {
        let mut view = view(1, &both(&[(1, 2)]));
        view.heard(2, at(1_090));
        assert!(!view.look(at(1_099)) || view.is_joined(2));
        assert!(view.look(at(1_101)));
        assert!(!view.is_joined(2) && view.next_hop(2) == 2);
    }

    /// Three views that differ: the next hops make a circle.
    #[test]
    fn a_message_that_went_round_is_dropped() {
        let relay = |me, links, via, left| view(me, links).relay(via, 1, 3, left);
        assert_eq!(relay(2, &[(2, 4), (4, 3)], 1, 4), Some((4, 2)));
        assert_eq!(relay(4, &[(4, 5), (5, 3)], 2, 2), Some((5, 1)));
        assert_eq!(relay(5, &[(2, 3), (5, 2)], 4, 1), None);
    }

    proptest! {
        /// Whatever the nodes' views are, and however they differ, a message passes no node twice.
        #[test]
        fn nothing_goes_in_circles(
            views in prop::collection::vec(prop::collection::vec((1..=NODES, 1..=NODES), 0..20), NODES as usize),
            to in 2..=NODES,
            turn in 0u32..3,
            detours in any::<bool>(),
        ) {
            let views: Vec<Links> = (1..).zip(&views).map(|(me, links)| view(me, links)).collect();
            let origin = 1;
            let (mut next, mut hops_left) = (views[0].next_hop(to), views[0].hops(to).unwrap_or(1));
            if detours && let Some((way, hops)) = views[0].detour(to, turn) {
                (next, hops_left) = (way, hops);
            }
            let mut passed = vec![origin];
            while next != to {
                prop_assert!(!passed.contains(&next), "{:?}, then {}", passed, next);
                passed.push(next);
                let (via, here) = (passed[passed.len() - 2], &views[usize::from(next) - 1]);
                match here.relay(via, origin, to, hops_left) {
                    Some(further) => (next, hops_left) = further,
                    None => break,
                }
            }
        }

        /// If all views agree, a message arrives over as many links as its sender expected.
        #[test]
        fn messages_arrive_where_views_agree(
            links in prop::collection::vec((1..=NODES, 1..=NODES), 0..20),
            to in 2..=NODES,
        ) {
            let views: Vec<Links> = (1..=NODES).map(|me| view(me, &links)).collect();
            let Some(hops) = views[0].hops(to) else {
                return Ok(());
            };
            let (mut next, mut hops_left, mut via) = (views[0].next_hop(to), hops, 1);
            let mut links = 1;
            while next != to {
                let further = views[usize::from(next) - 1].relay(via, 1, to, hops_left);
                via = next;
                (next, hops_left) = further.expect("a path");
                links += 1;
            }
            prop_assert_eq!(links, hops);
        }
    }
}
