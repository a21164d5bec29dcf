//! The parts of the wire format that clients and nodes share: datagrams, transfers of large frames,
//! messages between clients and nodes, readings of the hybrid clock, and one estimate of latency.
//! It contains no clocks, sockets, files or threads.

#![warn(missing_debug_implementations)]

pub mod clock;
pub mod datagram;
pub mod latency;
mod messages;
pub mod parts;
pub mod transfer;

pub use messages::*;
