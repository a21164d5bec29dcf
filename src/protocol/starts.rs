//! E1: a node whose disk was rolled back to an older copy has forgotten promises, and does not know it.
//! The members that heard it before can: it counts its starts, and tells the count with its row.

use std::collections::BTreeMap;

use rand::RngExt;

use super::Replica;
use super::message::{Event, Incarnation, NodeId, Now, Output, RolledBack, Row};
use super::outbox::Way;
use super::rules::rule;

/// A start of a node, as it told of it.
#[derive(Debug, Clone, Copy)]
struct Start {
    incarnation: Incarnation,
    starts: u64,
    boot: u64,
    /// The latest reading in that start: rows of earlier starts that come late have lower ones.
    clock: u64,
}

/// The last start of each other node that was heard of.
#[derive(Debug, Default)]
pub struct Starts {
    known: BTreeMap<NodeId, Start>,
}

impl Starts {
    pub fn retain(&mut self, is_node: impl Fn(NodeId) -> bool) {
        self.known.retain(|node, _| is_node(*node));
    }

    /// The later start that the row denies: one that it does not count, by the same incarnation.
    fn denied_by(&mut self, row: &Row) -> Option<Start> {
        let told = Start {
            incarnation: row.incarnation,
            starts: row.starts,
            boot: row.boot,
            clock: row.clock,
        };
        let known = self.known.entry(row.node).or_insert(told);
        if row.clock <= known.clock {
            return None;
        }
        let same = known.incarnation == told.incarnation;
        if same && known.boot != told.boot && told.starts <= known.starts {
            return Some(*known);
        }
        *known = told;
        None
    }
}

impl Replica {
    /// What a row tells of this node's starts: nothing that a crash could take back.
    pub(super) fn starts_told(&self) -> u64 {
        match self.outbox.is_durable(self.started_in) {
            true => self.meta.starts,
            false => 0,
        }
    }

    /// Of a row that came with a heartbeat, of whichever node.
    pub(super) fn look_at_start(&mut self, row: &Row) {
        let configuration = self.configuration.as_ref();
        let is_other = configuration.is_some_and(|c| c.nodes().any(|m| m.node == row.node))
            && row.node != self.node;
        // What is not on its disk yet does not count.
        if row.starts == 0 || !is_other || !rule!(E1) {
            return;
        }
        if let Some(later) = self.starts.denied_by(row) {
            let told = RolledBack {
                incarnation: later.incarnation,
                starts: later.starts,
                boot: later.boot,
            };
            self.send(row.node, 0, told.into(), 0, Way::Usual);
        }
    }

    /// Somebody remembers a start that this node's state does not. A message that comes late tells of
    /// an earlier one, or of this.
    pub(super) fn handle_rolled_back(&mut self, now: Now, told: &RolledBack) {
        let is_later = told.starts >= self.meta.starts && told.boot != self.options.boot;
        if told.incarnation != self.incarnation || !is_later {
            return;
        }
        self.outputs.push_back(Output::Event(Event::RolledBack));
        self.renounce(now);
    }

    /// Goes on as somebody new, who has no vote until admitted: what it holds is a cache.
    fn renounce(&mut self, now: Now) {
        self.incarnation = self.random.random();
        self.meta.incarnation = self.incarnation;
        self.votes = false;
        self.installed_in = self.outbox.change_meta();
        self.abandon_change(now);
        self.look_at_links(now, true, false);
        self.end_life(now);
        self.restart_sync(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(incarnation: Incarnation, starts: u64, boot: u64, clock: u64) -> Row {
        Row {
            node: 2,
            incarnation,
            boot,
            starts,
            clock,
            wall_ms: 0,
            links: Vec::new(),
        }
    }

    #[test]
    fn a_start_that_does_not_count_an_earlier_one_is_noticed() {
        let mut starts = Starts::default();
        let mut denied = |row: Row| starts.denied_by(&row).map(|later| later.starts);
        assert_eq!(denied(row(7, 3, 30, 100)), None);
        assert_eq!(denied(row(7, 4, 40, 200)), None, "it was started again");
        assert_eq!(denied(row(7, 3, 30, 150)), None, "late");
        assert_eq!(
            denied(row(7, 4, 41, 300)),
            Some(4),
            "from the copy once more"
        );
        assert_eq!(denied(row(7, 4, 41, 310)), Some(4), "it is still there");
        assert_eq!(denied(row(7, 2, 22, 320)), Some(4), "from an older one");
        assert_eq!(denied(row(8, 4, 41, 330)), None, "it is somebody new");
        assert_eq!(denied(row(8, 5, 50, 340)), None);
    }
}
