//! Clients' sessions, and operations in progress.

pub(in crate::protocol) mod forwards;
pub(in crate::protocol) mod low_marks;
pub(in crate::protocol) mod pending;
pub mod receive_delay;
pub mod sessions;
pub mod shares;
pub(in crate::protocol) mod text_operation;
