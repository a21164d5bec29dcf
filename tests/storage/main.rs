//! The durable store on a real file system: what a store contains when it is reopened, what is
//! refused, and the effects of damage and of the end of a process.

mod checkpoint;
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
