//! Registers, batches and their entries, as the node reads them when it opens a store: any bytes on
//! the disk are either accepted or refused.
#![no_main]

use std::path::Path;

use horseshoe::storage::format;
use horseshoe::storage::log::batch::{Batch, Entries, Entry};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let path = Path::new("store");
    let _ = Batch::read(bytes, 0);
    let _ = format::decode_register(path, bytes);
    let _ = format::decode_meta(path, bytes);
    for entry in Entries(bytes).flatten() {
        if let Entry::Register(key, value) = entry {
            let _ = format::decode_key(path, key);
            let _ = format::decode_register(path, value);
        }
    }
});
