//! Where acceptor state is kept. Makes no protocol decision.

use crate::protocol::message::Group;

#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    #[error("{0}")]
    Refused(String),
}

/// A durable store of groups. One thread owns it; it may block.
pub trait Storage: Send {
    /// Writes groups in order of number; they are as durable as configured when it returns.
    fn commit(&mut self, groups: &[Group]) -> Result<(), StorageError>;
}
