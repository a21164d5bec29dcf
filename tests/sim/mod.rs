//! The simulator: real replicas and real client sessions over a simulated network, disks and clocks,
//! all from one seed; and the checker of what the clients saw.

#![allow(dead_code)] // Each test target uses its own part of it.

pub mod checker;
pub mod history;
pub mod random;
