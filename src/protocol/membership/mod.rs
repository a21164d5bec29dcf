//! Formation of the first configuration (E6), and the evidence that completes a change (E3).

pub(in crate::protocol) mod evidence;
pub(in crate::protocol) mod formation;
