//! Where acceptor state is kept. Makes no protocol decision.

use crate::protocol::message::Group;

#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    #[error("{0}")]
    Refused(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    Fsync,
    Os,
}

/// A durable store of groups. One thread owns it; it may block.
pub trait Storage: Send {
    /// Writes groups in order of number; they are as durable as configured when it returns.
    fn commit(&mut self, groups: &[Group]) -> Result<(), StorageError>;
    fn close(self: Box<Self>) -> Result<(), StorageError>;
}
#[derive(Debug, Default)]
pub struct Table;
impl Table {
    pub fn apply(&mut self, _g: &Group) {}
    pub fn state(
        &self,
        _k: &crate::protocol::record::Key,
    ) -> Option<crate::protocol::record::AcceptorState> {
        None
    }
    pub fn keys(&self) -> u64 {
        0
    }
}

#[derive(Default)]
pub struct Opened {
    pub recovered: crate::protocol::message::Recovered,
    pub table: Table,
    pub storage: Option<Box<dyn Storage>>,
}
pub fn open(_: &crate::config::ServerConfig) -> Result<Opened, StorageError> {
    Ok(Opened::default())
}
