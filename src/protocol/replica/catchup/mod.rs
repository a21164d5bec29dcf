//! Copies of records: what this node sends to others, compares with them, and takes.

pub(in crate::protocol::replica) mod compare;
pub(in crate::protocol::replica) mod copies;
pub(in crate::protocol::replica) mod handoff;
pub(in crate::protocol::replica) mod serve;
pub(in crate::protocol::replica) mod tombstones;
