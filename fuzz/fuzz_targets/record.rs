//! Entries of the store, as the node reads them when it opens the store: any bytes on the disk are
//! either accepted or refused.
#![no_main]

use std::path::Path;

use horseshoe::storage::format::Entry;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((&split, rest)) = bytes.split_first() else {
        return;
    };
    let (key, value) = rest.split_at(usize::from(split).min(rest.len()));
    let _ = Entry::decode(Path::new("store"), key, value);
});
