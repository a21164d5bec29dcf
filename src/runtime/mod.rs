//! The event loop of a node: it passes datagrams to the replica, groups to the disk, and messages
//! to the network. It decides nothing.
//!
//! One thread owns the replica, the socket and the table of registers. Another owns the durable
//! store, and a third one answers HTTP, if `serve --http` is given. Everything that reaches the
//! loop besides datagrams and time is a `Notice`.

mod addresses;
pub mod allocator;
mod arrived;
mod asked;
mod bind;
pub mod bounds;
pub mod decode;
mod disk;
mod driver;
mod events;
mod fragments;
mod frame_sender;
mod http;
pub mod joiners;
mod log;
pub mod memory;
mod observation;
mod own_machine;
mod packer;
mod process_limits;
mod serve;
mod socket;
mod sync_times;
pub mod tally;

use std::time::Duration;

use tokio::sync::oneshot;

use crate::protocol::types::message::GroupNumber;
use crate::storage::{Space, StorageError};

use observation::Observation;

pub use bind::own_addresses;
pub use driver::{Bound, Driver};
pub use log::Log;
pub use process_limits::block_file_size_signal;
pub use serve::{RuntimeError, serve};

/// Driver events: everything that reaches the loop besides datagrams and time.
#[derive(Debug)]
pub enum Notice {
    /// A signal or a caller asks the node to end.
    Stop,
    /// A request for the node's status and counters.
    Observe(oneshot::Sender<Observation>),
    /// A lookup of a name has ended.
    Resolved(addresses::Resolved),
    /// This group and all before it are durable; the commit took this long.
    Persisted(GroupNumber, Duration),
    /// The space on the disk: sent now and then, and when the node becomes full or is no longer
    /// full.
    Space(Space),
    StorageFailed(StorageError),
    StoragePanicked,
    /// The store was closed, as requested.
    StorageClosed(Result<(), StorageError>),
}
