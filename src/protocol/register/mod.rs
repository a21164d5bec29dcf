//! One key: the acceptor, the coordinator of its rounds, reads, and the applied table.

pub mod acceptor;
pub mod applied;
pub(in crate::protocol) mod coordinator;
pub(in crate::protocol) mod read_round;
pub(in crate::protocol) mod scan;
pub(in crate::protocol) mod scan_page;
pub(in crate::protocol) mod waits;
