//! Exhaustive search of small scopes, run on the real `Replica`.
//!
//! A `Scope` says what may happen: who asks for what, which messages may come twice, how often timers
//! fire and nodes restart. `search` goes through every order of it. A `Replica` is deterministic, so
//! each node is an automaton of its own, which `nodes` computes once for each local state and event; a
//! state of the whole is then a few small numbers.
//!
//! Time stands still but for timers. A message that is never delivered is a lost one, so loss is
//! part of every scope.

pub mod history;
pub mod machine;
pub mod nodes;
pub mod noise;
pub mod scope;
pub mod scopes;
pub mod search;
pub mod state;
