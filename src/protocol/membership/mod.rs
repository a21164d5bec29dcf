//! How the first configuration is formed, and what completes a change.

pub(in crate::protocol) mod evidence;
pub(in crate::protocol) mod formation;
