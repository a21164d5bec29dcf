//! Client library of the Horseshoe key-value store.
//!
//! `session` decides what is sent when, without a socket or a clock; `client` adds both. `wire` is
//! the crate of what both sides of the network share: operations, outcomes, and how they are sent.
//!
//! ```no_run
//! use kvclient::wire::{Action, Outcome};
//! use kvclient::{Call, CallError, Client, ClientOptions, TransactionOutcome, WatchEvent};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::open("node1:7001,node2:7001,node3:7001", ClientOptions::default())?;
//!
//! // Synchronous: the calling thread does its own I/O; threads may share the client.
//! client.call(Call::new("colour", Action::Put { value: "blue".into() }))?;
//! match client.call(Call::new("colour", Action::Get)) {
//!     Ok(Outcome::Value { version, value }) => println!("{value:?}, version {version}"),
//!     Ok(_) => println!("absent"),
//!     Err(CallError::NoQuorum { detail }) => println!("surely not done: {detail}"),
//!     Err(error) => println!("{error}"),
//! }
//!
//! // All keys with a prefix, in order, page by page.
//! for entry in client.scan(kvclient::Scan::prefix(b"col")) {
//!     let entry = entry?;
//!     println!("{:?} is {:?}, version {}", entry.key, entry.value, entry.version);
//! }
//!
//! // The present state of these keys, and then each change.
//! for event in client.watch(kvclient::Watch::prefix(b"col")) {
//!     match event? {
//!         WatchEvent::Changed { key, value, .. } => println!("{key:?} is now {value:?}"),
//!         WatchEvent::Current { .. } => break, // All is told that the node knows.
//!         WatchEvent::Apart(error) => println!("no node serves the watch: {error}"),
//!     }
//! }
//!
//! // Several keys at once, all or nothing.
//! match client.transaction().add("mine", -5).add("yours", 5).get("colour").run()? {
//!     TransactionOutcome::Committed(results) => println!("{:?}", results.of(b"mine")),
//!     TransactionOutcome::Conflict { key, .. } => println!("nothing was done: {key:?}"),
//! }
//!
//! // Asynchronous: thousands in flight from one thread. `poll_fd` is for your own epoll loop.
//! for tag in 0..1_000 {
//!     client.submit(Call::new(format!("key {tag}"), Action::Add { delta: 1 }), tag)?;
//! }
//! let mut done = Vec::new();
//! while done.len() < 1_000 {
//!     client.wait(std::time::Duration::from_secs(1));
//!     client.completions(&mut done, 256);
//! }
//! # Ok(())
//! # }
//! ```

#![warn(missing_debug_implementations)]

mod boot_time;
pub mod client;
pub mod lock;
pub mod session;
pub mod transaction;
pub mod zone;

pub use client::{Client, ClientOptions, OpenError, ScanEntries, ScanPages, WatchEvents, look_up};
pub use session::{Call, CallError, Completion, Scan, SessionCounters, Watch, WatchEvent};
pub use transaction::{
    TransactionBuilder, TransactionDraft, TransactionOutcome, TransactionResults,
};
pub use wire;
