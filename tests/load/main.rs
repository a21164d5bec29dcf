//! Behaviour under load: more clients, more operations and stranger datagrams than the nodes can
//! take, and nodes that are slow or stand still, each with real processes.
//!
//! | file | rows |
//! |---|---|
//! | `clients.rs` | many clients, many processes, open loops beyond the peak |
//! | `coordinator.rs` | a transaction's coordinator that is killed between two sends |
//! | `disks.rs` | slow, read-only and full disks at one node |
//! | `endurance.rs` | many millions of operations |
//! | `keys.rs` | transfers, scans, and keys that expire |
//! | `large.rs` | values of 1 MiB, with loss, over a chain, and beside small operations |
//! | `strangers.rs` | arbitrary datagrams beside normal load |
//! | `trouble.rs` | a node that stands still or is killed, tiny receive buffers |
//! | `watches.rs` | many watches beside many writes |
//!
//! A row is one function with its own bound. It compares rates only within one run, because the
//! clients and all nodes share the machine. `tests/load/run.sh` runs the rows in a separate network
//! namespace, one after the other: a sample with short loads, or with `--all` all of them.

mod bench;
#[path = "../cluster/can_trace.rs"]
mod can_trace;
mod clients;
mod coordinator;
mod disks;
mod endurance;
mod keys;
mod large;
#[path = "../cluster/nodes.rs"]
#[allow(dead_code)] // The tests of whole clusters use the rest of it.
mod nodes;
#[path = "../field/preload.rs"]
mod preload;
mod strangers;
mod trouble;
mod watches;
