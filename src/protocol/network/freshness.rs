//! Which rows that others pass on are news: those whose node's clock has risen since. Nodes that do not
//! hear a node pass its rows on to each other; what one of them has forgotten comes back from the next, and
//! a dead node's last row would go round for ever.

use std::collections::BTreeMap;

use wire::clock::Reading;

use crate::protocol::types::message::{NodeId, Row};

/// Of so many lives of one node the latest readings are kept; it has one at a time.
const LIVES_MAX: usize = 16;

/// One life of a node, as its rows tell it.
#[derive(Debug, Clone, Copy)]
struct Life {
    boot: u64,
    /// Readings that are not believed (B5) do not stand in the way of those that are.
    doubted: bool,
    /// The latest that was heard.
    clock: Reading,
    rose_us: u64,
}

/// The latest clock of each life of each node. A node's clock ticks with each row, so a row at or below
/// that is one that was heard before, by whatever way it comes.
#[derive(Debug, Default)]
pub struct RowFreshness {
    lives: BTreeMap<NodeId, Vec<Life>>,
}

impl RowFreshness {
    /// Whether a row that another node passed on is news. From now on it is none.
    pub fn hear(&mut self, row: &Row, doubted: bool, now_us: u64) -> bool {
        let lives = self.lives.entry(row.node).or_default();
        let mut known = lives.iter().filter(|life| life.boot == row.boot);
        let is_old = known.any(|life| (doubted || !life.doubted) && row.clock <= life.clock);
        if !is_old {
            note(lives, row, doubted, now_us);
        }
        !is_old
    }

    /// A row came from its node itself, and counts. Where a node's clock is, it knows best: what was said
    /// of it by others, and was ahead of that, is no more in the way.
    pub fn hear_straight(&mut self, row: &Row, now_us: u64) {
        let lives = self.lives.entry(row.node).or_default();
        note(lives, row, false, now_us);
    }

    /// Of nodes that are there no more, and of lives whose rows nobody has any more.
    pub fn forget(&mut self, is_kept: impl Fn(NodeId) -> bool, since_us: u64) {
        self.lives.retain(|node, lives| {
            lives.retain(|life| life.rose_us >= since_us);
            is_kept(*node) && !lives.is_empty()
        });
    }
}

fn note(lives: &mut Vec<Life>, row: &Row, doubted: bool, now_us: u64) {
    lives.retain(|life| (life.boot, life.doubted) != (row.boot, doubted));
    if lives.len() == LIVES_MAX {
        lives.remove(0);
    }
    // In order of when they rose last.
    lives.push(Life {
        boot: row.boot,
        doubted,
        clock: row.clock,
        rose_us: now_us,
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(boot: u64, clock: Reading) -> Row {
        Row {
            node: 3,
            boot,
            clock,
            ..Row::default()
        }
    }

    #[test]
    fn what_was_heard_before_is_no_news() {
        let mut fresh = RowFreshness::default();
        fresh.hear_straight(&row(1, 100), 0);
        assert!(!fresh.hear(&row(1, 99), false, 10));
        assert!(!fresh.hear(&row(1, 100), false, 10));
        assert!(fresh.hear(&row(1, 101), false, 10));
        assert!(!fresh.hear(&row(1, 101), false, 20), "it was heard");
    }

    #[test]
    fn another_life_begins_anew() {
        let mut fresh = RowFreshness::default();
        assert!(fresh.hear(&row(1, 100), false, 0));
        assert!(fresh.hear(&row(2, 50), false, 10), "its clock was set back");
        assert!(!fresh.hear(&row(1, 100), false, 20), "the dead stay dead");
        assert!(fresh.hear(&row(2, 51), false, 20));
    }

    #[test]
    fn a_reading_that_cannot_be_stands_in_nobodys_way() {
        let mut fresh = RowFreshness::default();
        assert!(fresh.hear(&row(1, 1_000_000), true, 0));
        assert!(!fresh.hear(&row(1, 1_000_000), true, 10));
        assert!(fresh.hear(&row(1, 100), false, 20), "this one is believed");
        assert!(!fresh.hear(&row(1, 100), true, 30), "and was heard");
        assert!(fresh.hear(&row(1, 500), false, 40), "made up, and believed");
        fresh.hear_straight(&row(1, 110), 50);
        assert!(fresh.hear(&row(1, 111), false, 60), "the node knows best");
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut fresh = RowFreshness::default();
        for boot in 0..1_000 {
            assert!(fresh.hear(&row(boot, 1), false, boot));
        }
        assert_eq!(fresh.lives[&3].len(), LIVES_MAX);
        assert!(!fresh.hear(&row(999, 1), false, 1_000));
        fresh.forget(|_| true, 999);
        assert_eq!(fresh.lives[&3].len(), 1);
        fresh.forget(|node| node != 3, 0);
        assert!(fresh.lives.is_empty());
    }
}
