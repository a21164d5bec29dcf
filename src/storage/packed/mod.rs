//! A key's state as bytes: how the `Table` holds the states of small keys.
//!
//! Most states are those that a put leaves: the record is accepted and promised at its version, and
//! its applied table has one client with one operation. So the fields that follow from others are
//! left out, and readings of the clock are written as differences. Equal states have equal bytes.
//!
//! An integer with a size is little endian. A *number* is an unsigned integer of up to ten bytes,
//! each with seven bits, the lowest ones first; all but the last have the bit 128. A *difference*
//! is a signed integer, modulo 2^64, as a number: n as 2n, and -n as 2n - 1.
//!
//! | field | size | present |
//! |---|---|---|
//! | flags, and the layout (0) in the highest four bits | 2 | always |
//! | accepted ballot | 8 | always |
//! | promised ballot | 8 | unless it is the accepted one or the next of the same node |
//! | life | number | if it is not 0 |
//! | version | 8 | if there is a record, unless it is the accepted ballot |
//! | expiry | number | if the record has one |
//! | value | number: its size; its bytes | if the record has one |
//! | intent | number: its size; its bytes | if the record has one |
//! | highest dropped birth | difference from the accepted ballot's reading | if it is not 0 |
//! | clients | number: how many; clients | if the applied table has any |
//! | text slices | number: how many; slices | if the applied table has any |
//!
//! A client is its id (16), its mark (number), its highest birth (difference from the accepted
//! ballot's reading), and its operations: their number, and for each one its sequence (difference
//! from the mark), its birth (difference from the client's highest) and its outcome. An outcome
//! begins with one byte:
//!
//! - 0: written at the record's version, without an old value and a number;
//! - 1: the same at another version (8);
//! - 2: written at the record's version, with a number (difference from 0);
//! - 3: the same at another version (8), which precedes the number;
//! - 4: a placed intent, and its attempt (number);
//! - 5: any outcome: its size (number), and its encoding as in an answer.
//!
//! A text slice is its lowest birth (difference from the accepted ballot's reading), its highest
//! birth (difference from the lowest), and its hashes: their number, and each one (8).

use std::sync::Arc;

use bytes::Bytes;
use wire::clock::READING_MAX;
use wire::{BodyError, Old, Outcome, Version};

use crate::protocol::types::ballot::Ballot;
use crate::protocol::types::encoded_intent::EncodedIntent;
use crate::protocol::types::page::{RangeRecord, RangeState};
use crate::protocol::types::record::{
    AcceptorState, Applied, AppliedOperation, ClientEntry, Record, TextSlice,
};

const PROMISED_NEXT: u16 = 1;
const PROMISED_OTHER: u16 = 1 << 1;
const CHOSEN: u16 = 1 << 2;
const LIFE: u16 = 1 << 3;
const RECORD: u16 = 1 << 4;
const VERSION: u16 = 1 << 5;
const EXPIRY: u16 = 1 << 6;
const DROPPED: u16 = 1 << 7;
const INTENT: u16 = 1 << 8;
const CLIENTS: u16 = 1 << 9;
const SLICES: u16 = 1 << 10;
const VALUE: u16 = 1 << 11;
/// Only the first layout is known, so none of these bits is set.
const LAYOUT: u16 = 0xf << 12;
/// What only records have.
const OF_RECORD: u16 = VERSION | EXPIRY | DROPPED | INTENT | CLIENTS | SLICES | VALUE;

const WRITTEN: u8 = 0;
const WRITTEN_EARLIER: u8 = 1;
const WRITTEN_NUMBER: u8 = 2;
const WRITTEN_NUMBER_EARLIER: u8 = 3;
const PLACED: u8 = 4;
const OTHER: u8 = 5;

/// The least that a client, an operation and a slice take, in bytes.
const CLIENT_SIZE_MIN: usize = 16 + 1 + 1 + 1;
const OPERATION_SIZE_MIN: usize = 1 + 1 + 1;
const SLICE_SIZE_MIN: usize = 1 + 1 + 1;

/// The fields that are read without unpacking the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    pub promised: Ballot,
    pub accepted: Ballot,
    pub chosen: bool,
    pub life: u32,
    /// Whether there is a record, and it is no tombstone.
    pub has_value: bool,
    pub expiry_ms: Option<u64>,
}

/// Appends the state.
pub fn pack(state: &AcceptorState, bytes: &mut Vec<u8>) {
    let flags_at = bytes.len();
    let mut flags = 0;
    bytes.extend_from_slice(&[0; 2]);
    bytes.extend_from_slice(&state.accepted.0.to_le_bytes());
    if state.promised != state.accepted {
        if next_of(state.accepted) == Some(state.promised) {
            flags |= PROMISED_NEXT;
        } else {
            flags |= PROMISED_OTHER;
            bytes.extend_from_slice(&state.promised.0.to_le_bytes());
        }
    }
    if state.chosen {
        flags |= CHOSEN;
    }
    if state.life != 0 {
        flags |= LIFE;
        put_number(bytes, state.life.into());
    }
    if let Some(record) = &state.record {
        flags |= RECORD | pack_record(record, state.accepted, bytes);
    }
    bytes[flags_at..flags_at + 2].copy_from_slice(&flags.to_le_bytes());
}

/// The flags of the record.
fn pack_record(record: &Record, accepted: Ballot, bytes: &mut Vec<u8>) -> u16 {
    let mut flags = 0;
    if record.version != accepted.0 {
        flags |= VERSION;
        bytes.extend_from_slice(&record.version.to_le_bytes());
    }
    if let Some(expiry_ms) = record.expiry_ms {
        flags |= EXPIRY;
        put_number(bytes, expiry_ms);
    }
    if let Some(value) = &record.value {
        flags |= VALUE;
        put_bytes(bytes, value);
    }
    if let Some(intent) = &record.intent {
        flags |= INTENT;
        put_bytes(bytes, intent);
    }
    let applied = &record.applied;
    if applied.dropped != 0 {
        flags |= DROPPED;
        put_difference(bytes, applied.dropped, accepted.reading());
    }
    if !applied.clients.is_empty() {
        flags |= CLIENTS;
        put_number(bytes, applied.clients.len() as u64);
        for client in &applied.clients {
            pack_client(client, accepted, record.version, bytes);
        }
    }
    if !applied.slices.is_empty() {
        flags |= SLICES;
        put_number(bytes, applied.slices.len() as u64);
        for slice in &applied.slices {
            put_difference(bytes, slice.first, accepted.reading());
            put_difference(bytes, slice.last, slice.first);
            put_number(bytes, slice.hashes.len() as u64);
            let hashes = slice.hashes.iter();
            bytes.extend(hashes.flat_map(|hash| hash.to_le_bytes()));
        }
    }
    flags
}

fn pack_client(client: &ClientEntry, accepted: Ballot, version: Version, bytes: &mut Vec<u8>) {
    bytes.extend_from_slice(&client.client.to_le_bytes());
    put_number(bytes, client.mark);
    put_difference(bytes, client.birth_max, accepted.reading());
    put_number(bytes, client.operations.len() as u64);
    for operation in &client.operations {
        put_difference(bytes, operation.sequence, client.mark);
        put_difference(bytes, operation.birth, client.birth_max);
        pack_outcome(&operation.outcome, version, bytes);
    }
}

fn pack_outcome(outcome: &Outcome, of_record: Version, bytes: &mut Vec<u8>) {
    match outcome {
        Outcome::Written {
            version,
            old: Old::NotAsked,
            number,
        } => {
            let is_earlier = *version != of_record;
            bytes.push(match (number, is_earlier) {
                (None, false) => WRITTEN,
                (None, true) => WRITTEN_EARLIER,
                (Some(_), false) => WRITTEN_NUMBER,
                (Some(_), true) => WRITTEN_NUMBER_EARLIER,
            });
            if is_earlier {
                bytes.extend_from_slice(&version.to_le_bytes());
            }
            if let Some(number) = number {
                put_difference(bytes, *number as u64, 0);
            }
        }
        Outcome::Placed { attempt } => {
            bytes.push(PLACED);
            put_number(bytes, (*attempt).into());
        }
        other => {
            let mut encoded = Vec::new();
            wire::encode(&mut encoded, other);
            bytes.push(OTHER);
            put_bytes(bytes, &encoded);
        }
    }
}

/// The opposite of `pack`. Nothing may follow the state.
pub fn unpack(mut bytes: &[u8]) -> Result<AcceptorState, BodyError> {
    let bytes = &mut bytes;
    let flags = take_flags(bytes)?;
    let head = take_head(flags, bytes)?;
    let record = match flags & RECORD {
        0 => None,
        _ => Some(Arc::new(take_record(flags, head.accepted, bytes)?)),
    };
    if !bytes.is_empty() {
        return Err(BodyError::Trailing);
    }
    Ok(AcceptorState {
        promised: head.promised,
        accepted: head.accepted,
        chosen: head.chosen,
        record,
        life: head.life,
    })
}

/// The head of a packed state.
pub fn head(mut bytes: &[u8]) -> Result<Head, BodyError> {
    let bytes = &mut bytes;
    let flags = take_flags(bytes)?;
    let mut head = take_head(flags, bytes)?;
    if flags & EXPIRY != 0 {
        take_version(flags, head.accepted, bytes)?;
        head.expiry_ms = Some(take_number(bytes)?);
    }
    Ok(head)
}

/// What pages of ranges contain of a packed state. The value is empty if it is not asked for.
pub fn range_state(mut bytes: &[u8], with_value: bool) -> Result<RangeState, BodyError> {
    let bytes = &mut bytes;
    let flags = take_flags(bytes)?;
    let head = take_head(flags, bytes)?;
    let record = match flags & RECORD {
        0 => None,
        _ => {
            let (version, expiry_ms, value) = take_told(flags, head.accepted, bytes)?;
            Some(RangeRecord {
                version,
                expires: expiry_ms.is_some(),
                has_intent: flags & INTENT != 0,
                value: value.map(|value| match with_value {
                    true => Bytes::copy_from_slice(value),
                    false => Bytes::new(),
                }),
            })
        }
    };
    Ok(RangeState {
        accepted: head.accepted,
        chosen: head.chosen,
        life: head.life,
        record,
    })
}

/// Marks a packed state as chosen.
pub fn mark_chosen(bytes: &mut [u8]) {
    bytes[0] |= CHOSEN as u8;
}

fn take_flags(bytes: &mut &[u8]) -> Result<u16, BodyError> {
    let flags = u16::from_le_bytes(take(bytes)?);
    let is_contradictory = flags & PROMISED_NEXT != 0 && flags & PROMISED_OTHER != 0
        || flags & RECORD == 0 && flags & OF_RECORD != 0;
    match flags & LAYOUT != 0 || is_contradictory {
        true => Err(BodyError::Bounds),
        false => Ok(flags),
    }
}

/// All but the expiry.
fn take_head(flags: u16, bytes: &mut &[u8]) -> Result<Head, BodyError> {
    let accepted = Ballot(u64::from_le_bytes(take(bytes)?));
    let promised = match flags & (PROMISED_NEXT | PROMISED_OTHER) {
        0 => accepted,
        PROMISED_NEXT => next_of(accepted).ok_or(BodyError::Bounds)?,
        _ => Ballot(u64::from_le_bytes(take(bytes)?)),
    };
    let life = match flags & LIFE {
        0 => 0,
        _ => u32::try_from(take_number(bytes)?).map_err(|_| BodyError::Bounds)?,
    };
    Ok(Head {
        promised,
        accepted,
        chosen: flags & CHOSEN != 0,
        life,
        has_value: flags & VALUE != 0,
        expiry_ms: None,
    })
}

fn take_version(flags: u16, accepted: Ballot, bytes: &mut &[u8]) -> Result<Version, BodyError> {
    match flags & VERSION {
        0 => Ok(accepted.0),
        _ => Ok(u64::from_le_bytes(take(bytes)?)),
    }
}

type ToldParts<'a> = (Version, Option<u64>, Option<&'a [u8]>);

/// The version, the expiry and the value.
fn take_told<'a>(
    flags: u16,
    accepted: Ballot,
    bytes: &mut &'a [u8],
) -> Result<ToldParts<'a>, BodyError> {
    let version = take_version(flags, accepted, bytes)?;
    let expiry_ms = match flags & EXPIRY {
        0 => None,
        _ => Some(take_number(bytes)?),
    };
    let value = match flags & VALUE {
        0 => None,
        _ => Some(take_bytes(bytes)?),
    };
    Ok((version, expiry_ms, value))
}

fn take_record(flags: u16, accepted: Ballot, bytes: &mut &[u8]) -> Result<Record, BodyError> {
    let has = |flag: u16| flags & flag != 0;
    let (version, expiry_ms, value) = take_told(flags, accepted, bytes)?;
    let mut record = Record {
        value: value.map(Bytes::copy_from_slice),
        version,
        expiry_ms,
        ..Record::default()
    };
    if has(INTENT) {
        let intent = Bytes::copy_from_slice(take_bytes(bytes)?);
        record.intent = Some(EncodedIntent::from(intent));
    }
    if has(DROPPED) {
        record.applied.dropped = take_difference(bytes, accepted.reading())?;
    }
    if has(CLIENTS) {
        take_clients(&mut record.applied, accepted, version, bytes)?;
    }
    if has(SLICES) {
        take_slices(&mut record.applied, accepted, bytes)?;
    }
    Ok(record)
}

fn take_clients(
    applied: &mut Applied,
    accepted: Ballot,
    version: Version,
    bytes: &mut &[u8],
) -> Result<(), BodyError> {
    let count = take_count(bytes, CLIENT_SIZE_MIN)?;
    applied.clients.reserve_exact(count);
    for _ in 0..count {
        let client = u128::from_le_bytes(take(bytes)?);
        let mark = take_number(bytes)?;
        let birth_max = take_difference(bytes, accepted.reading())?;
        let count = take_count(bytes, OPERATION_SIZE_MIN)?;
        let mut operations = Vec::with_capacity(count);
        for _ in 0..count {
            operations.push(AppliedOperation {
                sequence: take_difference(bytes, mark)?,
                birth: take_difference(bytes, birth_max)?,
                outcome: take_outcome(version, bytes)?,
            });
        }
        applied.clients.push(ClientEntry {
            client,
            mark,
            birth_max,
            operations,
        });
    }
    Ok(())
}

fn take_outcome(of_record: Version, bytes: &mut &[u8]) -> Result<Outcome, BodyError> {
    let [kind] = take(bytes)?;
    match kind {
        WRITTEN..=WRITTEN_NUMBER_EARLIER => Ok(Outcome::Written {
            version: match kind {
                WRITTEN | WRITTEN_NUMBER => of_record,
                _ => u64::from_le_bytes(take(bytes)?),
            },
            old: Old::NotAsked,
            number: match kind {
                WRITTEN | WRITTEN_EARLIER => None,
                _ => Some(take_difference(bytes, 0)? as i64),
            },
        }),
        PLACED => {
            let attempt = u32::try_from(take_number(bytes)?).map_err(|_| BodyError::Bounds)?;
            Ok(Outcome::Placed { attempt })
        }
        OTHER => wire::decode(take_bytes(bytes)?),
        _ => Err(BodyError::Bounds),
    }
}

fn take_slices(
    applied: &mut Applied,
    accepted: Ballot,
    bytes: &mut &[u8],
) -> Result<(), BodyError> {
    let count = take_count(bytes, SLICE_SIZE_MIN)?;
    applied.slices.reserve_exact(count);
    for _ in 0..count {
        let first = take_difference(bytes, accepted.reading())?;
        let last = take_difference(bytes, first)?;
        let count = take_count(bytes, size_of::<u64>())?;
        let mut hashes = Vec::with_capacity(count);
        for _ in 0..count {
            hashes.push(u64::from_le_bytes(take(bytes)?));
        }
        applied.slices.push(TextSlice {
            first,
            last,
            hashes,
        });
    }
    Ok(())
}

/// `Ballot::next`, unless the ballot has none.
fn next_of(ballot: Ballot) -> Option<Ballot> {
    (ballot.reading() < READING_MAX).then(|| ballot.next())
}

fn put_number(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn take_number(bytes: &mut &[u8]) -> Result<u64, BodyError> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let [byte] = take(bytes)?;
        let bits = u64::from(byte & 0x7f);
        if bits << shift >> shift != bits {
            return Err(BodyError::Bounds);
        }
        number |= bits << shift;
        if byte < 0x80 {
            // A number has one form: no last byte without bits.
            let is_padded = byte == 0 && shift > 0;
            return (!is_padded).then_some(number).ok_or(BodyError::Bounds);
        }
    }
    Err(BodyError::Bounds)
}

fn put_difference(bytes: &mut Vec<u8>, number: u64, from: u64) {
    let difference = number.wrapping_sub(from) as i64;
    put_number(bytes, (difference << 1 ^ difference >> 63) as u64);
}

fn take_difference(bytes: &mut &[u8], from: u64) -> Result<u64, BodyError> {
    let folded = take_number(bytes)?;
    let difference = folded >> 1 ^ (folded & 1).wrapping_neg();
    Ok(from.wrapping_add(difference))
}

/// The number of elements that follow, each of at least that size.
fn take_count(bytes: &mut &[u8], size_min: usize) -> Result<usize, BodyError> {
    let count = take_number(bytes)?;
    match count <= (bytes.len() / size_min) as u64 {
        true => Ok(count as usize),
        false => Err(BodyError::Malformed),
    }
}

fn put_bytes(bytes: &mut Vec<u8>, more: &[u8]) {
    put_number(bytes, more.len() as u64);
    bytes.extend_from_slice(more);
}

fn take_bytes<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8], BodyError> {
    let size = take_number(bytes)?;
    let size = usize::try_from(size).map_err(|_| BodyError::Malformed)?;
    let (taken, rest) = bytes.split_at_checked(size).ok_or(BodyError::Malformed)?;
    *bytes = rest;
    Ok(taken)
}

fn take<const SIZE: usize>(bytes: &mut &[u8]) -> Result<[u8; SIZE], BodyError> {
    let (taken, rest) = bytes
        .split_first_chunk::<SIZE>()
        .ok_or(BodyError::Malformed)?;
    *bytes = rest;
    Ok(*taken)
}

#[cfg(test)]
mod tests;
