//! Data that all parts share, its bounds, and pure arithmetic on it.

pub mod backoff;
pub mod ballot;
pub(in crate::protocol) mod capacity;
pub(in crate::protocol) mod client_bytes;
pub mod configuration;
pub mod copy_purpose;
pub mod counts;
pub mod digest;
pub mod encoded_intent;
pub mod event;
pub mod limits;
pub mod message;
pub mod page;
pub mod quorum;
pub mod range;
pub mod readdress;
pub mod receive_wait;
pub mod record;
pub mod remote_step;
pub mod rules;
pub(in crate::protocol) mod timer;
pub mod timings;
pub mod transaction;
