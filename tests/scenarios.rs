//! The histories of docs/protocol.md, one by one: each would end badly without the rule that its
//! name begins with. `DETAIL=story` or `messages` tells what happens in them.

#[path = "scenarios/mod.rs"]
mod scenarios;
mod sim;
