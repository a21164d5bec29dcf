//! What both sides of the network share: datagrams, the messages between clients and nodes, and
//! readings of the hybrid clock. And one estimate of latency for both. No clocks, sockets, files or
//! threads.

#![warn(missing_debug_implementations)]

pub mod clock;
pub mod datagram;
pub mod latency;
mod messages;
pub mod parts;

pub use messages::*;
