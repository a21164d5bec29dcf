//! Keys in memory, what waits for one to be loaded, and what waits for the disk;
//! and which keys expire.

pub(in crate::protocol) mod backlog;
pub(in crate::protocol) mod expiry;
pub(in crate::protocol) mod outbox;
pub(in crate::protocol) mod resident;
pub(in crate::protocol) mod work;
