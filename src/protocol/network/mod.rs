//! Links, and the topology that nodes learn from each other: who reaches whom, over which path.

pub(in crate::protocol) mod freshness;
pub(in crate::protocol) mod link;
pub(in crate::protocol) mod topology;
