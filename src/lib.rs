//! Horseshoe, a replicated key-value store: the modules behind the binary, as a library for tests,
//! benches and fuzz targets.

pub mod cli;
pub mod config;
pub mod gateway;
pub mod protocol;
pub mod runtime;
pub mod storage;
