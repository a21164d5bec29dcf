//! Entries of the store, as they are read when it is opened: whatever the disk holds is taken or
//! refused.
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
