//! Exhaustive search of small scopes, run on the real `Replica`.
//!
//! A `Scope` defines what may happen: the operations and their nodes, which messages may be
//! duplicated, how often timers fire and nodes restart. `search` tries every order of it. A
//! `Replica` is deterministic, so each node is a separate automaton, which `nodes` computes once
//! for each local state and event; a global state then consists of a few small numbers.
//!
//! Time advances only for timers. A message that is never delivered is lost, so loss is part of
//! every scope.

pub mod history;
pub mod machine;
pub mod nodes;
pub mod noise;
pub mod scope;
pub mod scopes;
pub mod search;
pub mod state;
