//! The C interface of the client library. `client-lib/include/kvclient.h` documents each function.
//! This crate implements the guarantees of that header: every entry point goes through `border`,
//! which stops panics, and every client through `handle`, which checks the pointer before it takes
//! a lock.
//!
//! This is the only crate of the client library that dereferences foreign pointers.
#![allow(unsafe_code, reason = "pointers come from the application")]

mod asynchronous;
mod border;
mod calls;
mod handle;
mod lock;
mod operation;
mod outcome;
mod prefixed;
mod scan;
mod status;
mod transaction;
mod watch;

#[cfg(test)]
mod tests;
