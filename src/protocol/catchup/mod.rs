//! How a node that lags gets what it missed: hints, comparisons, fetches.

pub(in crate::protocol) mod comparison;
pub(in crate::protocol) mod fetch;
pub(in crate::protocol) mod hints;
pub(in crate::protocol) mod pace;
pub(in crate::protocol) mod pending_chosen;
pub(in crate::protocol) mod schedule;
