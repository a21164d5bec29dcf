//! Whole clusters: real processes of the built binary on loopback, real sockets, real disks, kill -9.
//!
//! What can be shown without processes is shown elsewhere (transcripts, simulator). Nothing here
//! sleeps to be right: conditions are waited for, with a bound.

mod clients;
mod crash;
mod datagrams;
mod foreign;
mod handoff;
mod nodes;
mod quorum;
mod serving;
mod stopping;
mod sync_trace;
mod trace;
