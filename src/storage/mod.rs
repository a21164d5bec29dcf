//! Stores a node's state: the `Storage` trait, the durable store behind it, and one that keeps
//! nothing. It makes no protocol decision; `docs/storage.md` describes the files, byte by byte.
//!
//! One thread writes a store, in groups. Reads while the node runs are answered from the `Table`,
//! in memory; files are read only when a store is opened.

mod backoff;
mod checkpoint;
mod directory;
pub mod disk;
mod drops;
mod error;
mod file;
pub mod format;
mod identity;
pub mod log;
mod mark;
pub mod memory;
mod open;
mod packed;
mod prefix;
mod presence;
pub mod readdress;
mod recovery;
mod reserve;
mod sizes;
mod table;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::protocol::types::message::{Group, Recovered};

pub use disk::DiskOptions;
pub use error::StorageError;
pub use identity::kernel_boot_id;
pub use reserve::Space;
pub use sizes::StoreSizes;
pub use table::Table;

/// A store of groups. One thread owns it; every method may block.
pub trait Storage: Send {
    /// Writes groups in order of number, all or nothing; on return they are as durable as
    /// configured. After an error nothing more is written, and every later call fails.
    fn commit(&mut self, groups: &[Group]) -> Result<(), StorageError>;

    /// Must be called after commits and about once per second: maintains the files on disk, which
    /// occasionally takes some tens of milliseconds. After an error every later call fails.
    fn tend(&mut self) -> Result<(), StorageError> {
        Ok(())
    }

    /// The space on the disk; `None` if the store has no disk.
    fn space(&self) -> Option<Space> {
        None
    }

    /// Makes all that was committed durable, whatever the durability, and records the clean stop. A
    /// store that is dropped instead was not stopped cleanly.
    fn close(self: Box<Self>) -> Result<(), StorageError>;
}

/// What `commit` waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// The disk: survives a power failure.
    Fsync,
    /// The operating system: survives only the end of the process. Groups with `meta` are synced.
    Os,
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Durability::Fsync => "fsync",
            Durability::Os => "os",
        })
    }
}

impl FromStr for Durability {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "fsync" => Ok(Durability::Fsync),
            "os" => Ok(Durability::Os),
            _ => Err(format!(
                "{text:?} is not a durability: allowed are fsync and os"
            )),
        }
    }
}

/// A store that is ready, and its content.
pub struct Opened {
    pub storage: Box<dyn Storage>,
    pub table: Table,
    pub recovered: Recovered,
    /// Log lines for an operator.
    pub notes: Vec<String>,
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened")
            .field("recovered", &self.recovered)
            .field("keys", &self.table.keys())
            .field("notes", &self.notes)
            .finish_non_exhaustive()
    }
}
