//! Changes of the configuration: by operators, by themselves, by force; and what a node does with them.

pub(in crate::protocol::replica) mod change;
pub(in crate::protocol::replica) mod life;
pub(in crate::protocol::replica) mod operator;
pub(in crate::protocol::replica) mod policy;
pub(in crate::protocol::replica) mod readdressing;
pub(in crate::protocol::replica) mod split;
pub(in crate::protocol::replica) mod starts;
pub(in crate::protocol::replica) mod uninstalled;
pub(in crate::protocol::replica) mod vote;
