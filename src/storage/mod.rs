//! Where acceptor state is kept. Makes no protocol decision.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use crate::config::ServerConfig;
use crate::protocol::message::{Group, Recovered};
use crate::protocol::record::{AcceptorState, Key};

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
    /// Leaves a store that was stopped clean.
    fn close(self: Box<Self>) -> Result<(), StorageError>;
}

/// The registers in memory.
#[derive(Debug, Default)]
pub struct Table {
    registers: HashMap<Key, AcceptorState, RandomState>,
}

impl Table {
    pub fn apply(&mut self, group: &Group) {
        for (key, state) in &group.registers {
            self.registers.insert(key.clone(), state.clone());
        }
        for (key, ballot) in &group.chosen {
            if let Some(state) = self.registers.get_mut(key) {
                state.chosen |= state.accepted == *ballot;
            }
        }
    }

    pub fn state(&self, key: &Key) -> Option<AcceptorState> {
        self.registers.get(key).cloned()
    }

    pub fn keys(&self) -> u64 {
        self.registers.len() as u64
    }
}

#[derive(Default)]
pub struct Opened {
    pub recovered: Recovered,
    pub table: Table,
    pub storage: Option<Box<dyn Storage>>,
}

pub fn open(_: &ServerConfig) -> Result<Opened, StorageError> {
    let incarnation = getrandom::u64().map_err(|e| StorageError::Refused(e.to_string()))?;
    Ok(Opened {
        recovered: Recovered {
            incarnation,
            ..Recovered::default()
        },
        ..Opened::default()
    })
}
