//! The record that `--check` makes of every operation, and the values of its puts, all different,
//! so that a get shows which put it saw.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Instant;

use bytes::Bytes;
use kvclient::CallError;
use wire::{Outcome, Version};
use xxhash_rust::xxh3::xxh3_64;

use super::tally::Kind;

/// The maximum of recorded operations, some 150 MB. A run that reaches it ends.
pub const RECORDED_MAX: u64 = 2_000_000;
/// A value begins with the run and its number in the run, in hexadecimal.
pub const UNIQUE_SIZE_MIN: usize = 16;
const RUN_DIGITS: usize = 8;
/// How many foreign values are kept for the report, and how many bytes of each.
const SAMPLES_MAX: usize = 100;
const SAMPLE_SIZE_MAX: usize = 40;

/// The values of one run of the program.
#[derive(Debug)]
pub struct UniqueValues {
    run: u32,
    size: usize,
    next: AtomicU32,
}

/// Whose value was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueOrigin {
    /// A value of this run, complete.
    Own(u32),
    /// It begins like a value of this run, but no put of this run wrote it.
    Damaged,
    Other,
}

impl UniqueValues {
    pub fn new(run: u32, size: usize) -> UniqueValues {
        assert!(size >= UNIQUE_SIZE_MIN, "room for the number");
        UniqueValues {
            run,
            size,
            next: AtomicU32::new(0),
        }
    }

    pub fn next(&self) -> u32 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// The first bytes of a value, which identify it.
    pub fn name_of(&self, number: u32) -> Bytes {
        format!("{:08x}{number:08x}", self.run).into()
    }

    /// Repeats the name, so that a value made of parts of two values is detected.
    pub fn value(&self, number: u32) -> Bytes {
        let name = self.name_of(number);
        let bytes = name.iter().copied().cycle();
        bytes.take(self.size).collect()
    }

    pub fn origin_of(&self, value: &Bytes) -> ValueOrigin {
        let run = format!("{:08x}", self.run);
        if !value.starts_with(run.as_bytes()) {
            return ValueOrigin::Other;
        }
        let digits = value.get(RUN_DIGITS..UNIQUE_SIZE_MIN);
        let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        let number = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
        match number {
            Some(number) if self.value(number) == *value => ValueOrigin::Own(number),
            _ => ValueOrigin::Damaged,
        }
    }
}

/// How an operation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordedEnd {
    /// A get found a value of this run.
    Value,
    /// A get found a value that no put of this run wrote.
    DamagedValue,
    OtherValue,
    Absent,
    Written,
    /// A put that may have been done, or may yet be.
    Unknown,
    /// A get without an answer.
    TimedOut,
    /// This and the following: surely not done.
    NoQuorum,
    Busy,
    Full,
    Refused,
}

/// One operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OperationRecord {
    pub kind: Kind,
    pub end: RecordedEnd,
    pub key: u32,
    /// The closed loop, or the tag in an open loop.
    pub client: u32,
    /// The number of the value that was put or found; of a foreign value, its hash.
    pub value: u64,
    /// The version that was written or found; else 0.
    pub version: Version,
    /// Times since the first operation.
    pub intended_ns: u64,
    pub called_ns: u64,
    pub ended_ns: u64,
}

/// An operation in flight.
#[derive(Debug, Clone, Copy)]
pub struct Flight {
    pub kind: Kind,
    pub key: u32,
    /// The number of a put's value, where values are unique.
    pub number: u32,
    pub intended: Instant,
    pub called: Instant,
}

/// What all threads of a run share for its record.
#[derive(Debug)]
pub struct Recording {
    /// Before the first operation.
    pub base: Instant,
    pub values: UniqueValues,
    taken: AtomicU64,
    room: u64,
}

impl Recording {
    pub fn new(values: UniqueValues, room: u64) -> Recording {
        Recording {
            base: Instant::now(),
            values,
            taken: AtomicU64::new(0),
            room,
        }
    }

    /// Room for one operation more; false if there is none.
    pub fn take_room(&self) -> bool {
        self.taken.fetch_add(1, Ordering::Relaxed) < self.room
    }

    fn ns(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.base);
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }
}

/// The operations of one thread, or of all.
#[derive(Debug, Default)]
pub struct RecordLog {
    pub records: Vec<OperationRecord>,
    /// Some of the values that this run did not write, by hash.
    pub samples: BTreeMap<u64, Bytes>,
}

impl RecordLog {
    pub fn push(
        &mut self,
        recording: &Recording,
        flight: &Flight,
        client: u32,
        ended: Instant,
        result: &Result<Outcome, CallError>,
    ) {
        let own = u64::from(flight.number);
        let (end, value, version) = match result {
            Ok(Outcome::Value { version, value }) => {
                let (end, identity) = self.found(recording, value);
                (end, identity, *version)
            }
            Ok(Outcome::Written { version, .. }) => (RecordedEnd::Written, own, *version),
            Ok(Outcome::Absent) => (RecordedEnd::Absent, 0, 0),
            Ok(_) => (RecordedEnd::Refused, own, 0),
            Err(error) => (end_of(error), own, 0),
        };
        self.records.push(OperationRecord {
            kind: flight.kind,
            end,
            key: flight.key,
            client,
            value,
            version,
            intended_ns: recording.ns(flight.intended),
            called_ns: recording.ns(flight.called),
            ended_ns: recording.ns(ended),
        });
    }

    fn found(&mut self, recording: &Recording, value: &Bytes) -> (RecordedEnd, u64) {
        let end = match recording.values.origin_of(value) {
            ValueOrigin::Own(number) => return (RecordedEnd::Value, u64::from(number)),
            ValueOrigin::Damaged => RecordedEnd::DamagedValue,
            ValueOrigin::Other => RecordedEnd::OtherValue,
        };
        let hash = xxh3_64(value);
        if self.samples.len() < SAMPLES_MAX {
            // A copy: the value itself would keep the whole datagram in memory.
            let sample = &value[..value.len().min(SAMPLE_SIZE_MAX)];
            let sample = || Bytes::copy_from_slice(sample);
            self.samples.entry(hash).or_insert_with(sample);
        }
        (end, hash)
    }

    pub fn merge(&mut self, mut other: RecordLog) {
        self.records.append(&mut other.records);
        self.samples.append(&mut other.samples);
    }
}

fn end_of(error: &CallError) -> RecordedEnd {
    match error {
        CallError::UnknownOutcome => RecordedEnd::Unknown,
        CallError::TimedOut => RecordedEnd::TimedOut,
        CallError::NoQuorum { .. } => RecordedEnd::NoQuorum,
        CallError::Busy => RecordedEnd::Busy,
        CallError::Full(_) => RecordedEnd::Full,
        CallError::TwoClusters { .. }
        | CallError::TooLarge { .. }
        | CallError::NotANumber
        | CallError::Overflow
        | CallError::WrongAnswer(_)
        | CallError::InvalidArgument(_)
        | CallError::Closed => RecordedEnd::Refused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_known_whole_only() {
        let values = UniqueValues::new(0xab, 40);
        let (one, other) = (values.value(1), values.value(2));
        assert_eq!(one.len(), 40);
        assert_eq!(values.origin_of(&one), ValueOrigin::Own(1));
        assert_eq!(values.origin_of(&other), ValueOrigin::Own(2));
        let torn = [&one[..20], &other[20..]].concat();
        assert_eq!(values.origin_of(&torn.into()), ValueOrigin::Damaged);
        assert_eq!(values.origin_of(&one.slice(..39)), ValueOrigin::Damaged);
        assert_eq!(values.origin_of(&one.slice(..9)), ValueOrigin::Damaged);
        let earlier = UniqueValues::new(0xac, 40).value(1);
        assert_eq!(values.origin_of(&earlier), ValueOrigin::Other);
        assert_eq!(values.origin_of(&Bytes::new()), ValueOrigin::Other);
    }

    #[test]
    fn there_is_room_for_so_many() {
        let recording = Recording::new(UniqueValues::new(1, 16), 2);
        let taken = [(); 4].map(|()| recording.take_room());
        assert_eq!(taken, [true, true, false, false]);
    }
}
