//! The simulator: real replicas and real client sessions over a simulated network, disks and
//! clocks, all from one seed; and the checker of what the clients saw.

#![allow(dead_code)] // each test target uses its own part of it

/// The checker of histories, which `horseshoe bench` uses too, and its seeded random numbers.
pub use checker::{self, history, random};

pub mod clients;
pub mod cluster;
pub mod codec;
pub mod disk;
pub mod event;
pub mod faults;
pub mod hand;
mod hostile;
mod lists;
pub mod network;
pub mod node;
pub mod plan;
pub mod rolled_back;
pub mod run;
pub mod scans;
pub mod script;
pub mod text;
pub mod trace;
pub mod transactions;
pub mod watch;
pub mod watchers;
mod workload;
