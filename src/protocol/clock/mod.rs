//! The hybrid clock: how far it follows the wall clock and other nodes (B2, B5).

pub(in crate::protocol) mod ballot_clock;
pub(in crate::protocol) mod bound;
pub(in crate::protocol) mod history;
