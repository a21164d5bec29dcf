//! `lib739kv.h` over the client library: the interface that applications of Firecloud were written to.
//!
//! `ffi` is the border with C; `store` holds the one client of the process, and says what the calls mean.

#[allow(unsafe_code, reason = "pointers come from C")]
mod ffi;
mod store;
