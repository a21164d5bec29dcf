//! The replication protocol, pure: inputs in, outputs out, time and seed as arguments. It
//! implements the guarantees of the store; docs/protocol.md defines the rules that the code refers
//! to.
//!
//! The folders are levels, lowest first:
//!
//! 1. `types`: data that all parts share, its bounds, and pure arithmetic on it
//! 2. `clock`: the hybrid clock, and how far it follows other clocks
//! 3. `clients`: sessions, and operations in progress
//! 4. `register`: one key's acceptor, coordinator, reads and applied table
//! 5. `network`: links between nodes, and the topology that follows from them
//! 6. `membership`: the first configuration, and the evidence that completes a change
//! 7. `catchup`: hints, comparisons and fetches for a node that lags
//! 8. `keys`: keys in memory, and what waits for the disk
//! 9. `transactions`: the course of transactions over several keys
//! 10. `replica`: `Replica`, which feeds all of these and sends what they decide
//!
//! A level imports only from itself and from those before it. Below `replica` no level sends, and
//! none knows `Replica`. `tests/tidy.rs` checks both.

#![deny(clippy::iter_over_hash_type)]

mod catchup;
pub mod clients;
mod clock;
mod keys;
mod membership;
mod network;
pub mod register;
pub mod replica;
mod transactions;
pub mod types;

pub use replica::{Options, Replica, Tuning};
pub use types::counts::Counters;
