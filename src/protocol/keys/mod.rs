//! Keys in memory, what waits for one to be loaded, and what waits for the disk;
//! which keys expire, and
//! how watched keys change.

pub(in crate::protocol) mod backlog;
pub(in crate::protocol) mod changes;
pub(in crate::protocol) mod expiry;
pub(in crate::protocol) mod outbox;
pub(in crate::protocol) mod resident;
pub(in crate::protocol) mod work;
