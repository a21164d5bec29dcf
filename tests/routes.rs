//! Half-broken networks in the simulator: every node serves as long as any path to a quorum
//! remains, and every other node answers only `no quorum`. `DETAIL=story` or `messages` prints what
//! happens.

#[path = "routes/mod.rs"]
mod routes;
mod sim;
