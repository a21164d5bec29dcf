//! Horseshoe, a replicated key-value store: the modules behind the binary, so that tests, benches
//! and fuzz targets reach them.

pub mod cli;
pub mod config;
pub mod gateway;
pub mod protocol;
pub mod runtime;
pub mod storage;
