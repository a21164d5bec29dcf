//! The one driver loop of a node: datagrams in, replica, disk, datagrams out. It decides nothing.
//!
//! One thread owns the replica, the socket and the table of registers. Another owns the durable
//! store. All that reaches the loop beside datagrams and time is a `Notice`.

mod addresses;
pub mod allocator;
mod asked;
mod bind;
pub mod decode;
mod disk;
mod driver;
mod events;
mod log;
pub mod memory;
mod packer;
mod process_limits;
mod serve;
mod socket;
mod sync_times;
pub mod tally;

use std::time::Duration;

use crate::protocol::types::message::GroupNumber;
use crate::storage::{Space, StorageError};

pub use bind::own_addresses;
pub use driver::{Bound, Driver};
pub use log::Log;
pub use process_limits::block_file_size_signal;
pub use serve::{RuntimeError, serve};

/// What reaches the loop beside datagrams and time.
#[derive(Debug)]
pub enum Notice {
    /// Someone wants the node to end.
    Stop,
    /// A look-up of a name has ended.
    Resolved(addresses::Resolved),
    /// This group, and all before it, are as durable as the node was told to make them; the commit took
    /// so long.
    Persisted(GroupNumber, Duration),
    /// What there is on the disk, now and then, and when the node becomes full or is it no more.
    Space(Space),
    StorageFailed(StorageError),
    StoragePanicked,
    /// The store was closed, as it was asked to.
    StorageClosed(Result<(), StorageError>),
}
