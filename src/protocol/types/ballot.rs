//! Ballots: how they are made and ordered (B1).

use serde::{Deserialize, Serialize};
use wire::clock::{self, Reading};

use crate::protocol::types::message::NodeId;
use crate::protocol::types::rules::rule;

/// 56 bits of hybrid clock and 8 bits of node id. Zero is below every ballot that a node issues.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
pub struct Ballot(pub u64);

impl Ballot {
    pub const ZERO: Ballot = Ballot(0);

    pub fn new(reading: Reading, node: NodeId) -> Self {
        assert!(reading <= clock::READING_MAX, "a reading has 56 bits");
        Ballot(reading << 8 | u64::from(node))
    }

    pub fn reading(self) -> Reading {
        self.0 >> 8
    }

    pub fn node(self) -> NodeId {
        (self.0 & 0xff) as NodeId
    }

    /// The same node's ballot with the clock part one higher: an acceptor that accepts a ballot
    /// promises this one with it (R3).
    pub fn next(self) -> Self {
        Ballot::new(self.reading() + 1, self.node())
    }
}

impl std::fmt::Display for Ballot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ms = clock::to_ms(self.reading());
        let counter = self.reading() & ((1 << clock::COUNTER_BITS) - 1);
        write!(f, "{ms}.{counter}@{}", self.node())
    }
}

/// The times that the applied table uses in one round.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Moment {
    pub now: Reading,
    /// X1: operations born at or below it leave the table.
    pub horizon: Reading,
    /// X1: a text operation that entered the table with a birth above it may not leave yet.
    pub text_kept_above: Reading,
    /// L1: the time by which keys expire, in milliseconds since 1970.
    pub wall_ms: u64,
}

impl Moment {
    pub fn lets_text_leave(&self, birth: Reading) -> bool {
        birth <= self.text_kept_above || !rule!(X1_text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ballots_order_by_clock_then_node() {
        let low = Ballot::new(7, 9);
        assert!(low < Ballot::new(8, 1) && low > Ballot::new(7, 8));
        assert_eq!(low.next(), Ballot::new(8, 9));
        assert_eq!((low.reading(), low.node()), (7, 9));
    }
}
