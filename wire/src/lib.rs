//! The parts of the wire format that clients and nodes share: datagrams, messages between clients
//! and nodes, readings of the hybrid clock, and one estimate of latency. It contains no clocks,
//! sockets, files or threads.

#![warn(missing_debug_implementations)]

pub mod clock;
pub mod datagram;
pub mod latency;
mod messages;
pub mod parts;

pub use messages::*;
