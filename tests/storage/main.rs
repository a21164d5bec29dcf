//! The durable store, on a real file system: what comes back, what is refused, what damage and the
//! end of a process do.

mod damage;
mod gone;
mod model;
mod power;
#[path = "../field/preload.rs"]
mod preload;
mod process;
mod refused;
mod roundtrip;
mod space;
