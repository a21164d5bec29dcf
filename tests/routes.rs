//! Half-broken networks in the simulator: every node serves while any path to a quorum is left, and
//! nobody else answers anything but `no quorum`. `DETAIL=story` or `messages` tells what happens.

#[path = "routes/mod.rs"]
mod routes;
mod sim;
