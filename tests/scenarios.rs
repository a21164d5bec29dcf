//! The counter-histories of docs/protocol.md, one by one: each would violate a guarantee without
//! the rule that its name begins with. `DETAIL=story` or `messages` prints what happens in them.

#[path = "scenarios/mod.rs"]
mod scenarios;
mod sim;
