//! The calls in flight: a slab with generations, and a list in the order of sequences, so that the
//! lowest sequence in flight (X1's low mark) is found at once.

use super::operation::InFlight;

/// Identifies a call in flight. When a slot is reused, its generation changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct CallHandle {
    place: u32,
    generation: u32,
}

const NONE: u32 = u32::MAX;

#[derive(Debug)]
struct Slot {
    generation: u32,
    operation: Option<InFlight>,
    /// Neighbours in the order of sequences; valid while `linked`.
    before: u32,
    after: u32,
    linked: bool,
}

#[derive(Debug)]
pub(super) struct CallTable {
    slots: Vec<Slot>,
    free: Vec<u32>,
    first: u32,
    last: u32,
}

impl CallTable {
    pub fn new() -> Self {
        CallTable {
            slots: Vec::new(),
            free: Vec::new(),
            first: NONE,
            last: NONE,
        }
    }

    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn insert(&mut self, operation: InFlight) -> CallHandle {
        let place = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot {
                generation: 0,
                operation: None,
                before: NONE,
                after: NONE,
                linked: false,
            });
            u32::try_from(self.slots.len() - 1).expect("calls in flight are bounded")
        });
        let slot = &mut self.slots[place as usize];
        assert!(slot.operation.is_none(), "a free place holds no call");
        slot.operation = Some(operation);
        CallHandle {
            place,
            generation: slot.generation,
        }
    }

    pub fn get(&self, handle: CallHandle) -> Option<&InFlight> {
        let slot = self.slots.get(handle.place as usize)?;
        let same = slot.generation == handle.generation;
        slot.operation.as_ref().filter(|_| same)
    }

    pub fn get_mut(&mut self, handle: CallHandle) -> Option<&mut InFlight> {
        let slot = self.slots.get_mut(handle.place as usize)?;
        let same = slot.generation == handle.generation;
        slot.operation.as_mut().filter(|_| same)
    }

    pub fn contains(&self, handle: CallHandle) -> bool {
        self.get(handle).is_some()
    }

    pub fn remove(&mut self, handle: CallHandle) -> Option<InFlight> {
        if !self.contains(handle) {
            return None;
        }
        self.unlink(handle);
        let slot = &mut self.slots[handle.place as usize];
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(handle.place);
        slot.operation.take()
    }

    /// All calls, in the order of their slots.
    pub fn handles(&self) -> Vec<CallHandle> {
        let used = self.slots.iter().enumerate();
        used.filter(|(_, slot)| slot.operation.is_some())
            .map(|(place, slot)| CallHandle {
                place: place as u32,
                generation: slot.generation,
            })
            .collect()
    }

    /// Appends the call to the order: it has just received the highest sequence.
    pub fn link(&mut self, handle: CallHandle) {
        let last = self.last;
        let slot = &mut self.slots[handle.place as usize];
        assert!(!slot.linked, "a call has one sequence at a time");
        (slot.before, slot.after, slot.linked) = (last, NONE, true);
        self.last = handle.place;
        match last {
            NONE => self.first = handle.place,
            before => self.slots[before as usize].after = handle.place,
        }
    }

    /// Removes the call from the order, if it is in it.
    pub fn unlink(&mut self, handle: CallHandle) {
        let slot = &mut self.slots[handle.place as usize];
        if !slot.linked {
            return;
        }
        slot.linked = false;
        let (before, after) = (slot.before, slot.after);
        match before {
            NONE => self.first = after,
            before => self.slots[before as usize].after = after,
        }
        match after {
            NONE => self.last = before,
            after => self.slots[after as usize].before = before,
        }
    }

    /// The linked call with the lowest sequence.
    pub fn first(&self) -> Option<&InFlight> {
        let slot = self.slots.get(self.first as usize)?;
        slot.operation.as_ref()
    }
}
