//! Whole clusters: real processes of the built binary on loopback, real sockets, real disks, kill
//! -9.
//!
//! Properties that can be tested without processes are tested elsewhere (transcripts, simulator).
//! No test relies on a sleep to pass: the tests wait for conditions, with a bound.

mod can_trace;
mod clients;
mod crash;
mod datagrams;
mod foreign;
mod handoff;
mod large;
mod nodes;
mod quorum;
mod serving;
mod stopping;
mod sync_trace;
mod trace;
