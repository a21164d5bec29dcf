//! Links, and the topology that nodes learn from each other: which node reaches which, over which
//! path.

pub(in crate::protocol) mod freshness;
pub(in crate::protocol) mod link;
pub(in crate::protocol) mod topology;
