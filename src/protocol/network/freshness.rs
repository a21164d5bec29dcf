//! Which relayed rows are new: those whose node's clock has risen since the last row. Nodes that do
//! not receive from a node directly relay its rows to each other. So a row that has expired at one
//! of them comes back from the next one, and without this check a dead node's last row would loop
//! for ever.

use std::collections::BTreeMap;

use wire::clock::Reading;

use crate::protocol::types::message::{NodeId, Row};

/// The number of boots of one node whose latest readings are kept. A node has one boot at a time.
const LIVES_MAX: usize = 16;

/// One boot of a node, as its rows show it.
#[derive(Debug, Clone, Copy)]
struct Life {
    boot: u64,
    /// A reading over the clock bound (B5) does not block readings within it.
    doubted: bool,
    /// The latest reading received.
    clock: Reading,
    rose_us: u64,
}

/// The latest clock of each boot of each node. A node's clock ticks with each row, so a row at or
/// below that reading was received before, over whatever path it arrives.
#[derive(Debug, Default)]
pub struct RowFreshness {
    lives: BTreeMap<NodeId, Vec<Life>>,
}

impl RowFreshness {
    /// Whether a relayed row is new. It counts as received from now on.
    pub fn hear(&mut self, row: &Row, doubted: bool, now_us: u64) -> bool {
        let lives = self.lives.entry(row.node).or_default();
        let mut known = lives.iter().filter(|life| life.boot == row.boot);
        let is_old = known.any(|life| (doubted || !life.doubted) && row.clock <= life.clock);
        if !is_old {
            note(lives, row, doubted, now_us);
        }
        !is_old
    }

    /// Records a row that came directly from its node and counts. The node itself has the latest
    /// reading of its clock: a relayed reading ahead of this one no longer blocks anything.
    pub fn hear_direct(&mut self, row: &Row, now_us: u64) {
        let lives = self.lives.entry(row.node).or_default();
        note(lives, row, false, now_us);
    }

    /// Discards nodes that are gone, and boots whose rows no node has any more.
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
    // In order of when the readings last rose.
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
        fresh.hear_direct(&row(1, 100), 0);
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
        fresh.hear_direct(&row(1, 110), 50);
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
