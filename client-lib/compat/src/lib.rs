//! Implements `lib739kv.h` with the client library: this is the interface for which applications of
//! Firecloud were written.
//!
//! `ffi` is the border with C; `store` holds the one client of the process, and defines what the
//! calls do.

#[allow(unsafe_code, reason = "pointers come from C")]
mod ffi;
mod store;
