//! Merges groups that are committed together: for each key the last state, or that it has none.

use std::collections::HashMap;

use crate::protocol::types::ballot::Ballot;
use crate::protocol::types::message::{Group, GroupNumber};
use crate::protocol::types::record::{AcceptorState, Key};

/// The last state of one key; the inner `None` is a removal.
#[derive(Default)]
pub struct Last<'a> {
    pub register: Option<Option<&'a AcceptorState>>,
    pub chosen: Option<Option<Ballot>>,
    /// The group that wrote the register last.
    written_by: GroupNumber,
}

/// The last states of all keys of some groups, in the order in which the keys first occur.
#[derive(Default)]
pub struct Batch<'a> {
    places: HashMap<&'a Key, usize, foldhash::fast::RandomState>,
    pub entries: Vec<(&'a Key, Last<'a>)>,
}

impl<'a> Batch<'a> {
    pub fn new(groups: &'a [Group]) -> Self {
        let mut batch = Batch::default();
        groups.iter().for_each(|group| batch.add(group));
        batch
    }

    fn add(&mut self, group: &'a Group) {
        for (key, state) in &group.registers {
            let last = self.of(key);
            last.register = Some(Some(state));
            last.written_by = group.number;
        }
        for key in &group.dropped {
            let last = self.of(key);
            assert!(
                last.written_by < group.number,
                "a group writes a key or drops it"
            );
            last.register = Some(None);
            last.chosen = Some(None);
        }
        for (key, ballot) in &group.chosen {
            let last = self.of(key);
            // A chosen mark without a register would stay forever.
            if last.register != Some(None) {
                last.chosen = Some(Some(*ballot));
            }
        }
    }

    fn of(&mut self, key: &'a Key) -> &mut Last<'a> {
        let place = *self.places.entry(key).or_insert_with(|| {
            self.entries.push((key, Last::default()));
            self.entries.len() - 1
        });
        &mut self.entries[place].1
    }
}
