//! Horseshoe, a replicated key-value store: the modules behind the binary, so that tests, benches
//! and fuzz targets reach them.

pub mod protocol;
pub mod storage;
