//! The C interface of the client library. `client-lib/include/kvclient.h` says what each function
//! does; here is how its promises are kept: every entry goes through `border`, which lets no panic
//! out, and every client through `handle`, which looks at what it was given before it touches a lock.
//!
//! The only crate of the client library that dereferences what others point to.
#![allow(unsafe_code, reason = "pointers come from the application")]

mod asynchronous;
mod border;
mod calls;
mod handle;
mod operation;
mod outcome;
mod prefixed;
mod status;

#[cfg(test)]
mod tests;
