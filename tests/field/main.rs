//! Tests of real conditions: names, addresses, clocks, logs, disks, slow and odd networks, each
//! with real processes.
//!
//! | file | subject |
//! |---|---|
//! | `c_programs.rs` | programs that use the C library: misuse, forks, a virtual address |
//! | `clocks.rs` | a clock that is off |
//! | `clusters.rs` | addresses that now belong to another cluster |
//! | `cluster_names.rs` | the name that an operator gave a cluster |
//! | `disks.rs` | a hung disk, and files that are deleted under a node |
//! | `full_disks.rs` | full disks |
//! | `listening.rs` | a node that listens elsewhere than at its listed address |
//! | `limits.rs` | few open files, little memory, small files; variables that are empty |
//! | `logs.rs` | a log that cannot be written, or that nobody reads |
//! | `lossy_links.rs` | large values where datagrams are lost, and over a link of one direction |
//! | `names.rs` | names that do not resolve, dead name servers, names that move |
//! | `quotas.rs` | a quota, which the file system does not show |
//! | `readdress.rs` | all, some or one of the nodes get other addresses |
//! | `runs.rs` | `horseshoe run` with a long input |
//! | `slow_links.rs` | round trips of up to a second |
//! | `small_packets.rs` | a network that drops fragments and packets of more than 1,280 bytes |
//! | `starting.rs` | an own address that is missing at first or unreachable for others; signals |
//! | `zones.rs` | link-local IPv6 addresses |
//!
//! `tests/field/run.sh` runs them in a separate network namespace, where tests may add addresses.

#[path = "../../client-lib/tests/balancer/mod.rs"]
mod balancer;
mod c_programs;
mod clocks;
mod cluster_names;
mod clusters;
mod disks;
mod emulated;
mod emulated_cluster;
mod full_disks;
mod hosts;
mod limits;
mod listening;
mod logs;
mod lossy_links;
mod names;
#[path = "../cluster/nodes.rs"]
#[allow(dead_code)] // The tests of whole clusters use the rest of it.
mod nodes;
mod packet_sizes;
mod preload;
mod process;
mod quotas;
mod readdress;
mod runs;
mod slow_links;
mod small_packets;
mod starting;
mod zones;
