//! Client library of the Horseshoe key-value store.
//!
//! `wire` and `datagram` hold what both sides of the network share, and the server depends on them;
//! `session` decides what is sent when, without a socket or a clock; `client` adds both.

pub mod client;
pub mod clock;
pub mod datagram;
pub mod session;
pub mod wire;

pub use client::{Client, ClientOptions, OpenError};
pub use session::{Call, CallError, Completion};
