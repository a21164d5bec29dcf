//! No store at all: a node that restarts has lost its state (E1).

use super::{Opened, Storage, StorageError, Table};
use crate::protocol::types::message::{Group, Incarnation, Recovered};

#[derive(Debug)]
struct Memory;

impl Storage for Memory {
    fn commit(&mut self, _groups: &[Group]) -> Result<(), StorageError> {
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<(), StorageError> {
        Ok(())
    }
}

pub fn open(fresh_incarnation: Incarnation) -> Opened {
    Opened {
        storage: Box::new(Memory),
        table: Table::default(),
        recovered: Recovered {
            incarnation: fresh_incarnation,
            ..Recovered::default()
        },
        notes: Vec::new(),
    }
}
